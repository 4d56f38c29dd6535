// Lanes as compiler vectors, so that one text serves every instruction set: sixteen of them are one
// zmm, two ymm or four xmm registers. What is wider than a register may be kept in memory: kernels
// whose speed rests on registers take lanes that fit their instruction set.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace paddock::cpu {

typedef float F16Lanes __attribute__((vector_size(64)));
typedef int32_t I16Lanes __attribute__((vector_size(64)));
typedef float F8Lanes __attribute__((vector_size(32)));
typedef int32_t I8Lanes __attribute__((vector_size(32)));

inline constexpr int kLanes = 16;

template <typename V = F16Lanes>
static inline V load_lanes(const float* p) {
  V v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
template <typename V>
static inline void store_lanes(float* p, V v) {
  std::memcpy(p, &v, sizeof(v));
}
template <typename V = F16Lanes>
static inline V all_lanes(float x) {
  return x - V{};  // less zero: -0 stays what it is
}

/// The upper half of the lanes that are left: lanes [kWidth, 2 kWidth) come to [0, kWidth).
template <int kWidth, typename V>
static inline V upper_half(V v) {
  if constexpr (sizeof(V) == 64) {
    return __builtin_shufflevector(v, v, kWidth, kWidth + 1 % kWidth, kWidth + 2 % kWidth,
                                   kWidth + 3 % kWidth, kWidth + 4 % kWidth, kWidth + 5 % kWidth,
                                   kWidth + 6 % kWidth, kWidth + 7 % kWidth, 8, 9, 10, 11, 12, 13,
                                   14, 15);
  } else {
    return __builtin_shufflevector(v, v, kWidth, kWidth + 1 % kWidth, kWidth + 2 % kWidth,
                                   kWidth + 3 % kWidth, 4, 5, 6, 7);
  }
}

/// Lane 0 of the lanes put together in one fixed tree: the upper half with the lower one, and on.
template <typename V, typename Join>
static inline auto join_lanes(V v, const Join& join) {
  if constexpr (sizeof(V) == 64) v = join(v, upper_half<8>(v));
  v = join(v, upper_half<4>(v));
  v = join(v, upper_half<2>(v));
  return join(v, upper_half<1>(v))[0];
}

/// Sum of the lanes in one fixed tree.
template <typename V>
static inline float sum_lanes(V v) {
  return join_lanes(v, [](V a, V b) { return a + b; });
}

/// Calls fn(integral_constant of n), 1 <= n <= kMost.
template <int kMost, typename Fn>
static inline void with_count(int64_t n, const Fn& fn) {
  if constexpr (kMost > 1) {
    if (n < kMost) return with_count<kMost - 1>(n, fn);
  }
  fn(std::integral_constant<int, kMost>());
}

}  // namespace paddock::cpu
