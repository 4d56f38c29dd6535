// `cake`: layer budgets by need (Qin et al., "CAKE: Cascading and Adaptive KV Cache Eviction with
// Layer Preferences", arXiv 2503.12491). A layer that spreads its attention, and looks elsewhere
// over time, gets more of what a sequence may keep:
//   preference = H * V
//   H = - sum over blocks of r ln r          r: a block's share of the recent attention
//   V = sum over blocks of ((r - o) / 2)^2   o: its share of the attention before that
// Every layer gets w = min(32, B/2), and what is left in proportion to its preference. Where this
// departs from the paper: blocks and a layer's heads together in place of positions and heads; two
// stretches of time, recent queries and those before, in place of the newest ones by themselves;
// exponents of 1, which the paper fits to each model; a base of w for every layer.
// Built upon by nobody yet: the cache gives every layer the budget of its own schedule().
#pragma once

#include <cstdint>
#include <span>

#include "paddock/eviction.h"

namespace paddock {

/// How much a layer wants, from mass and recent_mass; 0 or more. V counts blocks that both
/// stretches saw, their shares being among themselves. Without such blocks H alone decides: that is
/// so in all layers of a sequence or in none.
struct Preference {
  double entropy = 0;
  double shift = 0;
  double of_both() const { return entropy * shift; }
};
Preference preference_of(const LayerView& view);

/// What a layer can be given.
struct ShareBounds {
  int32_t least = 1;  ///< that leaves it something to choose from; no more than the budget
  int64_t most = 0;   ///< what it holds: more would be of no use at this decision
};

/// Fills `budgets`, one per layer: each within its bounds, their mean at most `budget`, and less by
/// at most one if anybody could use more. Allocates nothing.
void share_out(std::span<const Preference> preferences, std::span<const ShareBounds> bounds,
               int32_t budget, std::span<int32_t> budgets);

}  // namespace paddock
