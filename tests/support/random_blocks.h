// Random rows of every element type, with scales that keep weights near one.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "dtype.h"
#include "half.h"

namespace paddock::test {

/// Offsets of a block's f16 numbers, -1 where there is none.
struct HalfFields {
  int32_t d;
  int32_t m;
};

inline HalfFields half_fields(DType type) {
  switch (type) {
    case DType::kQ4_0:
    case DType::kQ5_0:
    case DType::kQ8_0: return {0, -1};
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K: return {0, 2};
    case DType::kQ2_K: return {80, 82};
    case DType::kQ3_K: return {108, -1};
    case DType::kQ6_K: return {208, -1};
    default: return {-1, -1};
  }
}

/// What d must be for weights of size one: about the reciprocal of the largest q times scale.
inline float unit_scale(DType type) {
  switch (type) {
    case DType::kQ4_0:
    case DType::kQ4_1: return 0.1F;
    case DType::kQ5_0:
    case DType::kQ5_1: return 0.05F;
    case DType::kQ8_0: return 0.01F;
    case DType::kQ2_K: return 0.03F;
    case DType::kQ3_K: return 0.01F;
    case DType::kQ4_K: return 0.002F;
    case DType::kQ5_K: return 0.001F;
    default: return 0.0005F;
  }
}

/// n_values of a type, as a file would hold them.
inline std::vector<uint8_t> random_row(DType type, int64_t n_values, std::mt19937& rng) {
  std::vector<uint8_t> bytes(static_cast<size_t>(row_bytes(type, n_values)));
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  const auto put_u16 = [&](size_t at, uint16_t v) { std::memcpy(bytes.data() + at, &v, 2); };
  if (dtype_traits(type).block_values == 1) {
    for (int64_t i = 0; i < n_values; ++i) {
      const float v = uniform(rng);
      const auto at = static_cast<size_t>(i);
      if (type == DType::kF32) std::memcpy(bytes.data() + 4 * at, &v, 4);
      if (type == DType::kF16) put_u16(2 * at, f32_to_f16(v));
      if (type == DType::kBF16) put_u16(2 * at, f32_to_bf16(v));
    }
    return bytes;
  }
  for (auto& b : bytes) b = static_cast<uint8_t>(rng());
  const HalfFields fields = half_fields(type);
  for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(dtype_traits(type).block_bytes)) {
    const float d = unit_scale(type) * (0.5F + 0.5F * uniform(rng));
    put_u16(at + static_cast<size_t>(fields.d), f32_to_f16(d));
    if (fields.m >= 0) {
      put_u16(at + static_cast<size_t>(fields.m), f32_to_f16(d * 8.0F * uniform(rng)));
    }
  }
  return bytes;
}

}  // namespace paddock::test
