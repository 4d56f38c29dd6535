// The blocks of a trace, numbered: equal numbers are equal texts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "paddock/replay.h"

namespace paddock {

/// Numbers count from 0 in the order in which blocks come first, so that a block's is larger than
/// that of any block before it in its text.
struct NumberedTrace {
  explicit NumberedTrace(const RequestTrace& trace);

  int64_t n_requests() const { return static_cast<int64_t>(ends.size()); }
  std::span<const int32_t> request(int64_t i) const {
    const int64_t first = i == 0 ? 0 : ends[i - 1];
    return std::span(blocks).subspan(first, ends[i] - first);
  }

  std::vector<int32_t> blocks;  // of all requests
  std::vector<int64_t> ends;    // of each request in them
  int32_t distinct = 0;
  int64_t found_by_infinite = 0;  // what a cache with room for all finds
};

/// The most that any cache of that size can find.
int64_t found_by_belady(const NumberedTrace& trace, int64_t capacity);

}  // namespace paddock
