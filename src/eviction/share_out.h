// How layers share what a sequence may keep, under any policy that shares_by_need(). B is the mean
// budget. Every layer gets w = min(32, B/2), and what is left in proportion to its need; none gets
// more than 4 B, nor more than it holds.
#pragma once

#include <cstdint>
#include <span>

#include "paddock/eviction.h"

namespace paddock {

/// What a layer can be given.
struct ShareBounds {
  int32_t least = 1;  ///< that leaves it something to choose from; no more than the budget
  int64_t most = 0;   ///< what it holds: more would be of no use at this decision
};

/// The most that one of so many layers is ever given of their mean budget.
int64_t most_share(int32_t budget, int64_t n_layers);

/// Fills `budgets`, one per layer: each within its bounds and most_share(), their mean at most
/// `budget`, and less by at most one if anybody could use more. Allocates nothing.
void share_out(std::span<const double> needs, std::span<const ShareBounds> bounds, int32_t budget,
               std::span<int32_t> budgets);

}  // namespace paddock
