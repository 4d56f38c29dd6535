// Element types of tensors: names, block sizes and byte sizes. Numbers equal GGUF's type ids.
// Layouts of the quantized blocks are described in kernels/quant_blocks.h.
#pragma once

#include <cstdint>

namespace paddock {

enum class DType : int32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

struct DTypeTraits {
  const char* name;
  int32_t block_values;  // values per block; 1 for plain floats
  int32_t block_bytes;
};

/// Traits of a type the library can compute with. `type` must be one of the enumerators.
constexpr DTypeTraits dtype_traits(DType type) {
  switch (type) {
    case DType::kF32:
      return {"F32", 1, 4};
    case DType::kF16:
      return {"F16", 1, 2};
    case DType::kBF16:
      return {"BF16", 1, 2};
    case DType::kQ4_0:
      return {"Q4_0", 32, 18};
    case DType::kQ4_1:
      return {"Q4_1", 32, 20};
    case DType::kQ5_0:
      return {"Q5_0", 32, 22};
    case DType::kQ5_1:
      return {"Q5_1", 32, 24};
    case DType::kQ8_0:
      return {"Q8_0", 32, 34};
    case DType::kQ2_K:
      return {"Q2_K", 256, 84};
    case DType::kQ3_K:
      return {"Q3_K", 256, 110};
    case DType::kQ4_K:
      return {"Q4_K", 256, 144};
    case DType::kQ5_K:
      return {"Q5_K", 256, 176};
    case DType::kQ6_K:
      return {"Q6_K", 256, 210};
  }
  return {"?", 1, 0};
}

/// All of them, floats first.
inline constexpr DType kDTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ4_0,
                                    DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                                    DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K,
                                    DType::kQ6_K};
static_assert([] {
  int32_t listed = 0, known = 0;
  for (const DType type : kDTypes) listed += dtype_traits(type).block_bytes > 0 ? 1 : 0;
  for (int32_t id = 0; id < 64; ++id) {
    known += dtype_traits(static_cast<DType>(id)).block_bytes > 0 ? 1 : 0;
  }
  return listed == known;
}());

/// The smallest magnitude that a float type rounds to infinity; f32 holds every finite float32.
constexpr float least_overflow(DType type) {
  switch (type) {
    case DType::kF16:
      return 65520.0F;
    case DType::kBF16:
      return 0x1.FFp127F;
    default:
      return __builtin_huge_valf();
  }
}

/// Bytes of one row of `n` values; n must be a multiple of the type's block_values.
constexpr int64_t row_bytes(DType type, int64_t n) {
  const DTypeTraits t = dtype_traits(type);
  return n / t.block_values * t.block_bytes;
}

}  // namespace paddock
