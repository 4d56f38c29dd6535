#include "cpu/linear_pack.h"

#include <algorithm>
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

/// A row's share of n / 4 chunks.
void put_chunks(const uint8_t* bytes, int n, int64_t row, uint8_t* out) {
  for (int i = 0; i < n; i += 4) std::memcpy(out + i / 4 * 64 + row * 4, bytes + i, 4);
}

/// 4 chunks: low nibbles values 0..15, high nibbles 16..31.
void put_nibbles(const uint8_t* q, int64_t row, uint8_t* out) {
  uint8_t both[16];
  for (int i = 0; i < 16; ++i) both[i] = static_cast<uint8_t>(q[i] | q[i + 16] << 4);
  put_chunks(both, 16, row, out);
}

template <int n>
void put_bytes(const uint8_t* q, int64_t row, uint8_t* out, int add = 0) {
  uint8_t sums[n];
  for (int i = 0; i < n; ++i) sums[i] = static_cast<uint8_t>(q[i] + add);
  put_chunks(sums, n, row, out);
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
      return put_bytes<32>(u.q, row, out + 32, 128 - traits.offset);
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
        put_bytes<16>(u.q + 16 * j, row, sub + 16);
      }
      return;
    case kExpanded:
      for (int j = 0; j < dtype_traits(type).block_values / 16; ++j) {
        uint8_t* sub = out + j * 384;
        const Line line = line_of(traits, u, j);
        put_f32(sub, line.scale);
        put_f32(sub + 64, line.minimum);
        put_bytes<16>(u.q + 16 * j, row, sub + 128);
      }
      return;
    default:
      return;
  }
}

// Floats are turned: a group's rows become columns of 16. `Unit` is what lies together for a lane,
// one value or a pair, and N of them fit 16 bytes.
template <typename Unit>
struct Turned {
  static constexpr int N = 16 / sizeof(Unit);
  typedef Unit V __attribute__((vector_size(16)));

  static V low(V a, V b) {
    if constexpr (N == 8) return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    if constexpr (N == 4) return __builtin_shufflevector(a, b, 0, 4, 1, 5);
  }
  static V high(V a, V b) {
    if constexpr (N == 8) return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
    if constexpr (N == 4) return __builtin_shufflevector(a, b, 2, 6, 3, 7);
  }

  /// N units of each of N rows that lie `stride` bytes apart, to N columns of kGroupRows.
  static void square(const uint8_t* row, int64_t stride, uint8_t* out) {
    V v[N];
    for (int i = 0; i < N; ++i) std::memcpy(&v[i], row + i * stride, sizeof(V));
    for (int round = 1; round < N; round *= 2) {
      V next[N];
      for (int i = 0; i < N / 2; ++i) {
        next[2 * i] = low(v[i], v[i + N / 2]);
        next[2 * i + 1] = high(v[i], v[i + N / 2]);
      }
      std::memcpy(v, next, sizeof(v));
    }
    for (int i = 0; i < N; ++i) std::memcpy(out + i * kGroupRows * sizeof(Unit), &v[i], sizeof(V));
  }

  /// The units of a whole group's rows as far as they fill cache lines: how many of a row.
  static int64_t group(const uint8_t* rows, int64_t stride, int64_t units, uint8_t* out) {
    constexpr int64_t kLine = 64 / sizeof(Unit);  // a line is read in one go: many rows share a set
    const int64_t end = units / kLine * kLine;
    for (int64_t k = 0; k < end; k += kLine) {
      for (int64_t lane = 0; lane < kGroupRows; lane += N) {
        for (int64_t i = k; i < k + kLine; i += N) {
          square(rows + lane * stride + i * static_cast<int64_t>(sizeof(Unit)), stride,
                 out + (i * kGroupRows + lane) * static_cast<int64_t>(sizeof(Unit)));
        }
      }
    }
    return end;
  }
};

bool is_paired(int32_t format) { return format == kBFloat16Pairs || format == kBFloat16Tiles; }

/// Columns [k, cols) of one row.
void pack_floats(int32_t format, const uint8_t* row, int64_t k, int64_t cols, int64_t lane,
                 uint8_t* out) {
  const int64_t size = format == kFloat32 ? 4 : 2;
  const int64_t width = is_paired(format) ? 2 : 1;  // columns side by side in a lane
  for (; k < cols; ++k) {
    const int64_t at = (k / width * kGroupRows + lane) * width + k % width;
    std::memcpy(out + at * size, row + k * size, static_cast<size_t>(size));
  }
}

/// Rows of plain floats `stride` bytes apart, kGroupRows at most.
void pack_float_group(int32_t format, const uint8_t* rows, int64_t stride, int64_t n_rows,
                      int64_t cols, uint8_t* out) {
  int64_t done = 0;
  if (n_rows == kGroupRows) {
    done = format == kFloat32  ? Turned<uint32_t>::group(rows, stride, cols, out)
           : is_paired(format) ? Turned<uint32_t>::group(rows, stride, cols / 2, out) * 2
                               : Turned<uint16_t>::group(rows, stride, cols, out);
  }
  for (int64_t lane = 0; lane < n_rows; ++lane) {
    pack_floats(format, rows + lane * stride, done, cols, lane, out);
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
    const int64_t first = g * kGroupRows;
    const int64_t rows = std::min(kGroupRows, packed.rows - first);  // padding stays zero
    if (is_float_format(packed.format)) {
      pack_float_group(packed.format, source + first * stride, stride, rows, packed.cols, group);
      continue;
    }
    for (int64_t lane = 0; lane < rows; ++lane) {
      const uint8_t* at = source + (first + lane) * stride;
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
  if (format == kBFloat16Tiles) {
    return (n_tokens * ((cols + kTileCols - 1) / kTileCols) + 15) * kTileCols * 2;
  }
  if (is_float_format(format)) {
    const int64_t padded = (cols + kInputCols - 1) / kInputCols * kInputCols;
    return n_tokens * padded * static_cast<int64_t>(sizeof(float));
  }
  return n_tokens * ((cols + kIntCols - 1) / kIntCols) * static_cast<int64_t>(sizeof(InputPanel));
}

}  // namespace paddock::cpu
