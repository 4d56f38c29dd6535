// Positions that a host protects in a sequence: rules that choose do not choose blocks with them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/position_range.h"

namespace paddock {

/// In order, apart from one another.
class Protection {
 public:
  bool is_empty() const { return ranges_.empty(); }
  std::span<const PositionRange> ranges() const { return ranges_; }
  friend bool operator==(const Protection&, const Protection&) = default;
  /// Whether any of the positions [first, end) is protected.
  bool meets(int64_t first, int64_t end) const;
  /// Blocks that have some.
  int64_t n_blocks(int64_t block_size) const;

  Protection with(PositionRange range) const;
  Protection without(PositionRange range) const;
  /// None at or beyond `length` is any more.
  void cut(int64_t length);

 private:
  std::vector<PositionRange> ranges_;
};

}  // namespace paddock
