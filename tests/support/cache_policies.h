// One policy map in place of all rules of a cache.
#pragma once

#include <utility>
#include <vector>

#include "kv/cache_manager.h"

namespace paddock::test {

/// For sequences of up to `max_positions`; 0: as many as under the first of the rules so far.
inline void set_policies(CacheManager& cache, PolicyMap policies, int64_t max_positions = 0,
                         int64_t max_resident = kUnlimited) {
  std::vector<SequenceRules> rules;
  rules.push_back({std::move(policies), max_positions == 0 ? cache.max_positions(0) : max_positions,
                   max_resident});
  cache.set_rules(std::move(rules));
}

}  // namespace paddock::test
