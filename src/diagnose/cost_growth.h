// How the cost of a decision grows with the number of blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace paddock {

/// Two sizes whose costs lie further apart than O(n log n) explains.
struct CostGrowth {
  int32_t few = 0, many = 0;  // blocks
  double few_seconds = 0, many_seconds = 0;
  double allowed = 0;  // times
};

/// Measures seconds_of(n) for n from 8 to 8192, the median of several times each, until one takes
/// longer than a fiftieth of a second. Compares the last with the one four doublings before (or as
/// many as there were): found if it took longer than n log n explains by more than 1.35 per
/// doubling, in each of three rounds. From 512 to 8192 that allows 77 times; quadratic is 256.
std::optional<CostGrowth> find_cost_growth(const std::function<double(int32_t n)>& seconds_of);

}  // namespace paddock
