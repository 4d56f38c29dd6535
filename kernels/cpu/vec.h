// Sixteen lanes as a compiler vector: one zmm, two ymm or four xmm registers, as the flags allow.
#pragma once

#include <cstdint>
#include <cstring>

namespace paddock::cpu {

typedef float F16Lanes __attribute__((vector_size(64)));
typedef int32_t I16Lanes __attribute__((vector_size(64)));

inline constexpr int kLanes = 16;

static inline F16Lanes load_lanes(const float* p) {
  F16Lanes v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
static inline void store_lanes(float* p, F16Lanes v) { std::memcpy(p, &v, sizeof(v)); }
static inline F16Lanes all_lanes(float x) {
  return F16Lanes{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

/// Sum of the lanes in one fixed tree.
static inline float sum_lanes(F16Lanes v) {
  float a[kLanes];
  store_lanes(a, v);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) a[i] += a[i + width];
  }
  return a[0];
}

}  // namespace paddock::cpu
