#include "cpu/linear_pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "half.h"
#include "quant_blocks.h"

namespace paddock::cpu {
namespace {

/// What turns a value into a weight: value * scale + minimum.
struct Line {
  float scale, minimum;
};
/// That of the values 16 j to 16 j + 15.
Line line_of(const QuantTraits& traits, const QuantBlock& block, int j) {
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  if (traits.scales == Scales::kPer32Min) return {d, m};
  const int sub = traits.scales == Scales::kSuper32Min ? j / 2 : j;
  return {d * static_cast<float>(block.scale[sub]), -(m * static_cast<float>(block.min[sub]))};
}

/// 4 chunks of 16 bytes a row: low nibbles values 0..15, high nibbles 16..31.
void put_nibbles(const uint8_t* q, int64_t row, uint8_t* out) {
  for (int i = 0; i < 16; ++i) {
    out[i / 4 * 64 + row * 4 + i % 4] = static_cast<uint8_t>(q[i] | q[i + 16] << 4);
  }
}

void put_bytes(const uint8_t* q, int n, int64_t row, uint8_t* out, int add = 0) {
  for (int i = 0; i < n; ++i) {
    out[i / 4 * 64 + row * 4 + i % 4] = static_cast<uint8_t>(q[i] + add);
  }
}

void put_block(int32_t format, DType type, const QuantBlock& u, int64_t row, uint8_t* out) {
  const QuantTraits traits = quant_traits(type);
  const auto put_u16 = [&](uint8_t* at, uint16_t v) { std::memcpy(at + 2 * row, &v, 2); };
  const auto put_f32 = [&](uint8_t* at, float v) { std::memcpy(at + 4 * row, &v, 4); };
  switch (format) {
    case kNibbles4_0:
      put_u16(out, u.d);
      return put_nibbles(u.q, row, out + 32);
    case kNibbles4_1:
      put_u16(out, u.d);
      put_u16(out + 32, u.m);
      return put_nibbles(u.q, row, out + 64);
    case kBytes:
      put_u16(out, u.d);
      return put_bytes(u.q, 32, row, out + 32, 128 - traits.offset);
    case kSuper4:
      put_u16(out, u.d);
      put_u16(out + 32, u.m);
      for (int j = 0; j < 8; ++j) {
        uint8_t* sub = out + 64 + j * 288;
        sub[row] = u.scale[j];
        sub[16 + row] = u.min[j];
        put_nibbles(u.q + 32 * j, row, sub + 32);
      }
      return;
    case kSuper8Q6:
    case kSuper8Q3:
      put_u16(out, u.d);
      for (int j = 0; j < 16; ++j) {
        uint8_t* sub = out + 32 + j * 272;
        sub[row] = u.scale[j];
        put_bytes(u.q + 16 * j, 16, row, sub + 16);
      }
      return;
    case kExpanded:
      for (int j = 0; j < dtype_traits(type).block_values / 16; ++j) {
        uint8_t* sub = out + j * 384;
        const Line line = line_of(traits, u, j);
        put_f32(sub, line.scale);
        put_f32(sub + 64, line.minimum);
        put_bytes(u.q + 16 * j, 16, row, sub + 128);
      }
      return;
    default:
      return;
  }
}

void pack_floats(int32_t format, const uint8_t* row, int64_t cols, int64_t lane, uint8_t* out) {
  const int64_t size = format == kFloat32 ? 4 : 2;
  const int64_t width = format == kBFloat16Pairs ? 2 : 1;  // columns side by side in a lane
  for (int64_t k = 0; k < cols; ++k) {
    const int64_t at = (k / width * kGroupRows + lane) * width + k % width;
    std::memcpy(out + at * size, row + k * size, static_cast<size_t>(size));
  }
}

void quantize_block(const float* x, int8_t* q, InputBlock& block) {
  float largest = 0.0F;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(x[i]));
  block.scale = largest / 127.0F;
  const float inverse = largest > 0.0F ? 127.0F / largest : 0.0F;
  block.sum[0] = 0;
  block.sum[1] = 0;
  // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, without a library call.
  constexpr float kRound = 12582912.0F;
  for (int i = 0; i < 32; ++i) {
    const float rounded = (x[i] * inverse + kRound) - kRound;
    q[i] = static_cast<int8_t>(rounded);
  }
  for (int i = 0; i < 16; ++i) block.sum[0] += q[i];
  for (int i = 16; i < 32; ++i) block.sum[1] += q[i];
  block.scaled_sum = block.scale * static_cast<float>(block.sum[0] + block.sum[1]);
  // A value that is not finite must not vanish in the rounding: the scale carries it on.
  if (!(largest <= 3.4e38F)) {
    block.scale = largest;
    block.scaled_sum = largest;
    std::memset(q, 1, 32);
  }
}

}  // namespace

int32_t packed_format(DType type) {
  switch (type) {
    case DType::kF32:
      return kFloat32;
    case DType::kF16:
      return kFloat16;
    case DType::kBF16:
      return kBFloat16;
    case DType::kQ4_0:
      return kNibbles4_0;
    case DType::kQ4_1:
      return kNibbles4_1;
    case DType::kQ5_0:
    case DType::kQ8_0:
      return kBytes;
    case DType::kQ4_K:
      return kSuper4;
    case DType::kQ6_K:
      return kSuper8Q6;
    case DType::kQ3_K:
      return kSuper8Q3;
    case DType::kQ5_1:
    case DType::kQ5_K:
    case DType::kQ2_K:
      return kExpanded;
  }
  return kFloat32;
}

int64_t packed_linear_bytes(int32_t format, int64_t rows, int64_t cols) {
  const BlockShape shape = block_shape(format);
  return (rows + kGroupRows - 1) / kGroupRows * blocks_in_row(format, cols) * shape.bytes;
}

void pack_linear(DType type, const void* weights, const PackedLinear& packed, uint8_t* data,
                 int64_t group_begin, int64_t group_end) {
  const auto* source = static_cast<const uint8_t*>(weights);
  const int64_t stride = row_bytes(type, packed.cols);
  const BlockShape shape = block_shape(packed.format);
  const int64_t group_bytes = blocks_in_row(packed.format, packed.cols) * shape.bytes;
  const DTypeTraits traits = dtype_traits(type);
  QuantBlock block;
  for (int64_t g = group_begin; g < group_end; ++g) {
    uint8_t* group = data + g * group_bytes;
    for (int64_t lane = 0; lane < kGroupRows; ++lane) {
      const int64_t row = g * kGroupRows + lane;
      if (row >= packed.rows) break;  // padding stays zero
      const uint8_t* at = source + row * stride;
      if (is_float_format(packed.format)) {
        pack_floats(packed.format, at, packed.cols, lane, group);
        continue;
      }
      uint8_t* out = group;
      for (int64_t k = 0; k < packed.cols; k += traits.block_values, at += traits.block_bytes) {
        unpack_block(type, at, block);
        put_block(packed.format, type, block, lane, out);
        out += traits.block_values / shape.values * shape.bytes;
      }
    }
  }
}

int64_t input_bytes(int32_t format, int64_t n_tokens, int64_t cols) {
  if (is_float_format(format)) {
    const int64_t padded = (cols + kInputCols - 1) / kInputCols * kInputCols;
    return n_tokens * padded * static_cast<int64_t>(sizeof(float));
  }
  const int64_t values = (n_tokens * cols + 63) / 64 * 64;
  return values + n_tokens * ((cols + 31) / 32) * static_cast<int64_t>(sizeof(InputBlock));
}

void pack_input(const float* x, int64_t x_stride, const PackedInput& input, int64_t token_begin,
                int64_t token_end) {
  for (int64_t t = token_begin; t < token_end; ++t) {
    const float* row = x + t * x_stride;
    if (input.format == kBFloat16Pairs) {
      auto* pairs = const_cast<uint32_t*>(input_pairs(input, t));
      for (int64_t k = 0; k < input.cols; k += 2) {
        const uint32_t high = k + 1 < input.cols ? f32_to_bf16(row[k + 1]) : 0U;
        pairs[k / 2] = f32_to_bf16(row[k]) | high << 16;
      }
      continue;
    }
    if (is_float_format(input.format)) {
      for (int64_t k = 0; k < input.cols; k += kInputCols) {
        std::memcpy(const_cast<float*>(input_floats(input, t, k)), row + k,
                    static_cast<size_t>(std::min(kInputCols, input.cols - k)) * sizeof(float));
      }
      continue;
    }
    auto* q = const_cast<int8_t*>(input_values(input, t));
    auto* blocks = const_cast<InputBlock*>(input_blocks(input, t));
    for (int64_t k = 0; k < input.cols; k += 32) quantize_block(row + k, q + k, blocks[k / 32]);
  }
}

}  // namespace paddock::cpu
