// Positions of a text, one after another.
#pragma once

#include <cstdint>

namespace paddock {

struct PositionRange {
  int64_t first = 0, end = 0;
  friend bool operator==(const PositionRange&, const PositionRange&) = default;
};

}  // namespace paddock
