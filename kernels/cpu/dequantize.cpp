// Rows of every element type as float32, with the operations and rounding of ggml's reference
// decoder.
#include <cstring>

#include "cpu/kernels.h"
#include "half.h"
#include "quant_blocks.h"

namespace paddock::cpu {
namespace {

/// The weights of a block that is taken apart.
template <DType kType>
void expand(const QuantBlock& block, float* out) {
  constexpr QuantTraits kTraits = quant_traits(kType);
  constexpr int kSubBlock =
      kTraits.scales == Scales::kSuper16 || kTraits.scales == Scales::kSuper16Min ? 16 : 32;
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for (int j = 0; j < dtype_traits(kType).block_values / kSubBlock; ++j) {
    const uint8_t* q = block.q + j * kSubBlock;
    float* to = out + j * kSubBlock;
    if constexpr (kTraits.scales == Scales::kPer32Min) {
      for (int i = 0; i < kSubBlock; ++i) to[i] = d * static_cast<float>(q[i]) + m;
    } else if constexpr (kTraits.scales == Scales::kPer32) {
      for (int i = 0; i < kSubBlock; ++i) to[i] = d * static_cast<float>(q[i] - kTraits.offset);
    } else if constexpr (kTraits.scales == Scales::kSuper16) {
      const float scale = d * static_cast<float>(static_cast<int8_t>(block.scale[j]));
      for (int i = 0; i < kSubBlock; ++i) to[i] = scale * static_cast<float>(q[i] - kTraits.offset);
    } else {
      const float scale = d * static_cast<float>(block.scale[j]);
      const float min = m * static_cast<float>(block.min[j]);
      for (int i = 0; i < kSubBlock; ++i) to[i] = scale * static_cast<float>(q[i]) - min;
    }
  }
}

template <DType kType>
void expand_row(const void* row, int64_t n, float* out) {
  constexpr DTypeTraits kTraits = dtype_traits(kType);
  const auto* at = static_cast<const uint8_t*>(row);
  QuantBlock block;
  for (int64_t i = 0; i < n; i += kTraits.block_values, at += kTraits.block_bytes) {
    unpack_block(kType, at, block);
    expand<kType>(block, out + i);
  }
}

template <typename Convert>
void convert_row(const void* row, int64_t n, float* out, const Convert& convert) {
  const auto* at = static_cast<const uint8_t*>(row);
  for (int64_t i = 0; i < n; ++i) out[i] = convert(u16_at(at + 2 * i));
}

}  // namespace

void dequantize_row(DType type, const void* row, int64_t n, float* out) {
  switch (type) {
    case DType::kF32:
      std::memcpy(out, row, static_cast<size_t>(n) * sizeof(float));
      return;
    case DType::kF16: return convert_row(row, n, out, f16_to_f32);
    case DType::kBF16: return convert_row(row, n, out, bf16_to_f32);
    case DType::kQ4_0: return expand_row<DType::kQ4_0>(row, n, out);
    case DType::kQ4_1: return expand_row<DType::kQ4_1>(row, n, out);
    case DType::kQ5_0: return expand_row<DType::kQ5_0>(row, n, out);
    case DType::kQ5_1: return expand_row<DType::kQ5_1>(row, n, out);
    case DType::kQ8_0: return expand_row<DType::kQ8_0>(row, n, out);
    case DType::kQ2_K: return expand_row<DType::kQ2_K>(row, n, out);
    case DType::kQ3_K: return expand_row<DType::kQ3_K>(row, n, out);
    case DType::kQ4_K: return expand_row<DType::kQ4_K>(row, n, out);
    case DType::kQ5_K: return expand_row<DType::kQ5_K>(row, n, out);
    case DType::kQ6_K: return expand_row<DType::kQ6_K>(row, n, out);
  }
}

}  // namespace paddock::cpu
