// Where a yes turns into a no.
#pragma once

#include <cstdint>

namespace paddock {

/// The largest number from `low` to `high` that fits, where whatever is smaller than one that fits
/// does so, too. `low` is taken to fit and is not asked about; so it comes back where none does.
template <typename Fits>
int64_t largest(int64_t low, int64_t high, const Fits& fits) {
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

/// The smallest number from `low` to `high` that is enough, where whatever is larger than one that
/// is enough is so, too. `high` is taken to be enough and is not asked about.
template <typename Enough>
int64_t smallest(int64_t low, int64_t high, const Enough& is_enough) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (is_enough(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

}  // namespace paddock
