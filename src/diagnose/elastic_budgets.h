// An elastic policy in the conformance suite: what it answers for all sizes of budgets, and the
// sizes under which it is driven like a rule that has a budget of its own.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "diagnose/findings.h"

namespace paddock {

/// The elastic `policy` as it is under one budget: a rule that is not elastic.
std::shared_ptr<const EvictionPolicy> with_budget(std::shared_ptr<const EvictionPolicy> policy,
                                                  int32_t budget);

/// A budget to be driven under, with blocks of these sizes.
struct BudgetTrial {
  int32_t budget = 0;
  std::vector<int32_t> block_sizes;
};

/// Asks an elastic policy, and another object of its factory, about budgets from the least to large
/// ones. Returns the least, an odd, a small and a large one; nothing if there were findings.
std::vector<BudgetTrial> check_budgets(const std::shared_ptr<const EvictionPolicy>& policy,
                                       const EvictionPolicy& twin, int32_t n_layers,
                                       std::span<const int32_t> block_sizes, Findings& findings);

/// Asks a policy that shares by need, and another object of its factory, what it answers for shares
/// of all sizes.
void check_shares(const std::shared_ptr<const EvictionPolicy>& policy, const EvictionPolicy& twin,
                  int32_t n_layers, std::span<const int32_t> block_sizes, Findings& findings);

}  // namespace paddock
