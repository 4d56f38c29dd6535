// What attention gives to blocks: the measure behind scored eviction rules. Shared by CPU kernels,
// CUDA kernels and src/kv.
//
// Masses are summed in fixed point, so that a sum does not depend on the order of threads.
#pragma once

#include <cstdint>

#include "paged_kv.h"

namespace paddock {

/// Attention that one table entry received from all queries of one step, over all query heads.
struct BlockUse {
  int64_t mass;       // sum of probabilities, in units of 2^-32
  int32_t last_used;  // newest query position that gave it its fair share, or -1
  int32_t reserved;
};
static_assert(sizeof(BlockUse) == 16);

inline constexpr double kMassUnit = 4294967296.0;  // 2^32
/// Key norms are summed in units of 2^-20: 2^43 tokens of norm 1 fit.
inline constexpr double kNormUnit = 1048576.0;

PADDOCK_HD inline int64_t to_fixed(float probability) {
  return static_cast<int64_t>(static_cast<double>(probability) * kMassUnit + 0.5);
}
inline double mass_of(int64_t units) { return static_cast<double>(units) / kMassUnit; }
PADDOCK_HD inline int64_t norm_to_fixed(float norm) {
  return static_cast<int64_t>(static_cast<double>(norm) * kNormUnit + 0.5);
}

/// Whether `mass`, the sum over n_heads heads that a query gave to `tokens` of the `visible` tokens
/// it sees, is at least those tokens' fair share.
PADDOCK_HD inline bool is_fair_share(int64_t mass, int32_t n_heads, int64_t tokens,
                                     int64_t visible) {
  return static_cast<double>(mass) * static_cast<double>(visible) >=
         static_cast<double>(n_heads) * kMassUnit * static_cast<double>(tokens);
}

}  // namespace paddock
