// Which change of a rule would have kept a block: tried on the rule itself, not guessed.
#pragma once

#include <cstdint>
#include <string>

#include "paddock/stats.h"

namespace paddock {

/// A rule as it was written, in a layer.
struct RuleAt {
  std::string rule;
  int32_t layer;
  int32_t n_layers;
  int32_t block_size;
};

struct KeptBySinks {
  std::string rule;    // with them; empty: the rule takes none, or is not known here
  int64_t sinks = 0;   // the least number that protects the block
  bool fits = false;   // in the budget in force; else
  int64_t budget = 0;  // from this one on, which `rule` then has; 0: none
};
/// Of a trim. `budget`: in force.
KeptBySinks kept_by_sinks(const RuleAt& at, int32_t budget, const KvEvent& trim);

/// The rule with the least budget that gives the layer `budget`; empty: nobody knows.
std::string kept_by_budget(const RuleAt& at, int64_t budget);

/// Of a rule with a window: with so many sinks, or so large a window.
std::string kept_by_window_sinks(const RuleAt& at, int64_t sinks);
std::string kept_by_window(const RuleAt& at, int64_t window);

}  // namespace paddock
