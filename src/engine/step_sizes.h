// How much a step may bring: known from options and rules before anything is taken.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/cache_manager.h"
#include "kv/policy_map.h"

namespace paddock {

/// Rules that sequences may go by, and the longest table of one in each layer.
struct StepRules {
  const PolicyMap* policies;
  std::vector<int64_t> max_entries;  // [n_layers]
};

struct StepSizes {
  /// Layers whose tables use equal rotations share their angle rows; a layer whose rule moves
  /// queries by what each table lost has a group of its own.
  struct RotationGroup {
    int32_t layer;  // one that belongs to it
    int64_t rows;   // of angles, at most
  };
  std::vector<RotationGroup> groups;
  std::vector<int32_t> layer_group;       // [n_layers]
  std::vector<int64_t> max_entries;       // [n_layers] longest table of one sequence
  std::vector<int64_t> measured_entries;  // [n_layers] longest one that attention is measured for;
                                          // 0: for none
  int32_t max_angle_rows = 0;

  int64_t max_measured_entries() const;  // 0: none is
};

/// Of steps of up to `max_tokens`. `rules`: one or several.
StepSizes step_sizes(const CacheConfig& config, std::span<const StepRules> rules,
                     int32_t max_tokens);
/// Likewise of n_rules, by policies(rules) and max_entries(rules, layer), a layer's longest table.
template <typename Policies, typename MaxEntries>
StepSizes step_sizes(const CacheConfig& config, RulesId n_rules, const Policies& policies,
                     const MaxEntries& max_entries, int32_t max_tokens) {
  std::vector<StepRules> all;
  for (RulesId rules = 0; rules < n_rules; ++rules) {
    StepRules& one = all.emplace_back();
    one.policies = &policies(rules);
    for (int32_t layer = 0; layer < config.n_layers; ++layer) {
      one.max_entries.push_back(max_entries(rules, layer));
    }
  }
  return step_sizes(config, all, max_tokens);
}

}  // namespace paddock
