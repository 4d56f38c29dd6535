// What a rule kept, weighed by the attention that it was going to get, beside the best that could
// have been kept.
#pragma once

#include <paddock/paddock.h>

#include <cstdint>
#include <vector>

namespace cli {

/// One layer of one sequence: whether the next query will see each position.
using InView = std::vector<bool>;
/// For each layer, of a sequence of `length` positions, the engine's only one.
std::vector<InView> in_view(const paddock::Engine& engine, int64_t length);

/// Attention that each position has received so far, as [layer][position]; of an engine that runs
/// one sequence in blocks of one position, under a rule that measures it and drops nothing.
using PositionMass = std::vector<std::vector<double>>;
PositionMass position_mass(const paddock::Engine& engine);

/// Attention, summed over query heads and queries.
struct KeptMass {
  double kept = 0;    // given to the positions that the rule kept,
  double oracle = 0;  // to the best choice of as many positions,
  double all = 0;     // and to all there were
  KeptMass& operator+=(const KeptMass& other);
  double of_oracle() const { return oracle > 0 ? kept / oracle : 1; }
  double of_all() const { return all > 0 ? kept / all : 1; }
};

/// In one layer: what the positions in view get between `then`, which knows as many, and `end`.
KeptMass kept_mass(const InView& view, const std::vector<double>& then,
                   const std::vector<double>& end);

}  // namespace cli
