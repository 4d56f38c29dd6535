// Snapshots of what the cache holds. Plain structs, by value.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/export.h"

namespace paddock {

/// Why a page left a sequence's table.
enum class RemovalReason : int32_t {
  kWindow,       ///< no later query could see any of it (the rule's own visibility)
  kSequenceEnd,  ///< its sequence ended
};
inline constexpr int32_t kRemovalReasons = 2;
/// "window", "sequence_end".
PADDOCK_API const char* removal_reason_name(RemovalReason reason) noexcept;

/// One layer, or the total of all.
struct KvLayerStats {
  int32_t layer = -1;           ///< -1: total
  std::string policy;           ///< the layer's rule
  int64_t pages_active = 0;     ///< pages that some sequence's table lists
  int64_t pages_peak = 0;       ///< most pages active at once (for the total: of the pool)
  int64_t tokens_resident = 0;  ///< positions whose keys and values lie in active pages
  int64_t bytes = 0;            ///< pages_active times the page size
  int64_t pages_allocated = 0;  ///< since the engine was made
  std::array<int64_t, kRemovalReasons> pages_removed{};  ///< by RemovalReason, since then
  int64_t tokens_read = 0;  ///< (query, key) pairs that attention met, per query head group
};

struct KvStats {
  int32_t block_size = 0;
  std::string type;        ///< "f16", ...
  int64_t page_bytes = 0;  ///< one block in one layer
  int64_t pool_pages = 0;  ///< the whole pool; any layer may use any page
  int64_t pool_bytes = 0;
  int64_t pages_free = 0;
  int64_t steps = 0;  ///< forward passes so far: the cache's clock
  int64_t tokens_written = 0;
  int32_t sequences = 0;  ///< live ones
  KvLayerStats total;
  std::vector<KvLayerStats> layers;
};

/// The snapshot as one JSON object. Layer fields as above in snake_case, removals by reason name.
PADDOCK_API std::string to_json(const KvStats& stats);
/// A table for people: one row per layer and a total, ending in a newline.
PADDOCK_API std::string to_table(const KvStats& stats);

}  // namespace paddock
