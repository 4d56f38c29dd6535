// Overflow-safe integer arithmetic for everything that comes from a file or a caller.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/fail.h"

namespace paddock {

/// a * b, or an Error of `code` that names `what`.
inline uint64_t checked_mul(uint64_t a, uint64_t b, const char* what,
                            ErrorCode code = ErrorCode::kBadFile) {
  uint64_t r = 0;
  if (__builtin_mul_overflow(a, b, &r)) fail(code, "{}: {} * {} overflows 64 bits", what, a, b);
  return r;
}

/// a + b, or an Error of `code` that names `what`.
inline uint64_t checked_add(uint64_t a, uint64_t b, const char* what,
                            ErrorCode code = ErrorCode::kBadFile) {
  uint64_t r = 0;
  if (__builtin_add_overflow(a, b, &r)) fail(code, "{}: {} + {} overflows 64 bits", what, a, b);
  return r;
}

/// `n` rounded up to a multiple of `step` (a power of two not required; step > 0).
constexpr uint64_t round_up(uint64_t n, uint64_t step) { return (n + step - 1) / step * step; }
constexpr uint64_t ceil_div(uint64_t n, uint64_t d) { return (n + d - 1) / d; }

}  // namespace paddock
