// `cake:NAME:B`: another scored rule whose budget layers share out by need (Qin et al., "CAKE:
// Cascading and Adaptive KV Cache Eviction with Layer Preferences", arXiv 2503.12491). A layer that
// spreads its attention, and looks elsewhere over time, gets more of what a sequence may keep:
//   preference = H * V^(1/4)
//   H = - sum over blocks of r ln r          r: a block's share of the recent attention
//   V = sum over blocks of ((r - o) / 2)^2   o: its share of the attention before that
// B is the mean over layers, shared out as share_out.h says. Recent are the 32 queries before
// the decision, or what the inner rule looks at itself. All else is as under the inner rule.
//
// Where this departs from the paper: blocks and a layer's heads together in place of positions and
// heads; two stretches of time, recent queries and those before, in place of the newest ones by
// themselves; exponents of 1 and 1/4, which the paper fits to each model (shifts differ by orders
// of magnitude between layers here: with an exponent of 1 a few get all); a base of w for every
// layer; a bound, so that tables are; shared out anew at every decision, not once while the prompt
// is read.
#pragma once

#include "paddock/eviction.h"

namespace paddock {

/// How much a layer wants, from mass and recent_mass; 0 or more. V counts blocks that both
/// stretches saw, their shares being among themselves.
struct Preference {
  double entropy = 0;
  double shift = 0;
  double of_both() const;
};
Preference preference_of(const LayerView& view);

}  // namespace paddock
