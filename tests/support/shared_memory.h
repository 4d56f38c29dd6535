// Engines whose sequences share a memory that is too small for all of them.
#pragma once

#include <algorithm>

#include "support/small_requests.h"

namespace paddock::test {

inline EngineOptions shared_memory(const std::string& policy, int64_t pages,
                                   int32_t sequences = 4) {
  EngineOptions o = reference_options();
  o.threads = 1;
  o.max_sequences = sequences;
  o.batch_size = 24;
  o.context = 128;
  o.kv.block_size = 4;
  o.kv.policy = policy;
  if (pages > 0) {
    static const int64_t page_bytes = Engine(tiny(), o).kv_stats().page_bytes;
    o.kv.budget_bytes = static_cast<uint64_t>(pages * page_bytes);
  }
  return o;
}

/// Pages in which one sequence of the longest text here fits, and hardly more.
inline int64_t tight_pool(const std::string& policy) {
  EngineOptions o = shared_memory(policy, 0, 1);
  o.context = 96;
  return Engine(tiny(), o).kv_stats().pool_pages;
}

inline std::vector<TokenId> text_at(size_t begin, size_t n) {
  const std::vector<TokenId> all = golden_tokens();
  std::vector<TokenId> tokens;
  for (size_t i = 0; i < n; ++i) tokens.push_back(all[(begin + i) % all.size()]);
  return tokens;
}

inline void finish_all(Engine& engine) {
  for (int steps = 0; engine.step(); ++steps) {
    engine.check_integrity();
    ASSERT_LT(steps, 20'000) << "nobody gets on";
  }
}

}  // namespace paddock::test
