// How weights and activations are packed for the fast linear kernels. Packing is portable: every
// instruction set reads the same bytes.
//
// Weights lie in groups of 16 rows, SIMD lane = row. Integer formats keep their values unsigned;
// "chunk" c of a block holds, row by row, the 4 bytes for values 4c .. 4c+3 (64 bytes):
//   kNibbles   per 32 values: f16 scale[16], [f16 minimum[16]], 4 chunks; low nibbles are values
//              0..15, high nibbles 16..31                                  (Q4_0, Q4_1)
//   kBytes     per 32 values: f16 scale[16], 8 chunks of value + 128       (Q8_0, Q5_0)
//   kSuper4    per 256 values: f16 scale[16], f16 minimum[16], then per 32: u8 scale[16],
//              u8 minimum[16], 4 chunks as kNibbles                        (Q4_K)
//   kSuper8    per 256 values: f16 scale[16], then per 16: i8 scale[16], 4 chunks of value + offset
//                                                                          (Q6_K, Q3_K)
//   kExpanded  per 16 values: f32 scale[16], f32 minimum[16], 4 chunks     (Q5_1, Q5_K, Q2_K)
//   kFloat32, kFloat16, kBFloat16   per column: 16 values
//   kBFloat16Pairs   per two columns: 16 pairs (AVX-512 BF16; an odd last column is paired with 0)
//   kBFloat16Tiles   per 32 columns: 16 times that (AMX; columns beyond the last are 0)
// Every form holds the file's exact values.
//
// Activations: the first columns of every token, then the next ones, so that what is multiplied
// together lies together, and not where it would put itself out of a core's cache. For integer
// formats kIntCols, as InputPanels; for float formats kInputCols of float32. For kBFloat16Pairs
// they are rows of bfloat16 pairs; for kBFloat16Tiles bfloat16, kTileCols columns of every token,
// then the next ones; a tile of the last tokens reads on behind them.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"

namespace paddock::cpu {

enum PackedFormat : int32_t {
  kNibbles4_0,
  kNibbles4_1,
  kBytes,
  kSuper4,
  kSuper8Q6,
  kSuper8Q3,
  kExpanded,
  kFloat32,
  kFloat16,
  kBFloat16,
  kBFloat16Pairs,
  kBFloat16Tiles,
};

inline bool is_float_format(int32_t format) { return format >= kFloat32; }

/// Values per packed block and bytes of one block of 16 rows.
struct BlockShape {
  int64_t values;
  int64_t bytes;
};
constexpr BlockShape block_shape(int32_t format) {
  switch (format) {
    case kNibbles4_0:
      return {32, 32 + 256};
    case kNibbles4_1:
      return {32, 64 + 256};
    case kBytes:
      return {32, 32 + 512};
    case kSuper4:
      return {256, 64 + 8 * (32 + 256)};
    case kSuper8Q6:
    case kSuper8Q3:
      return {256, 32 + 16 * (16 + 256)};
    case kExpanded:
      return {16, 128 + 256};
    case kFloat32:
      return {1, 64};
    case kBFloat16Pairs:
      return {2, 64};
    case kBFloat16Tiles:
      return {32, 1024};
    default:
      return {1, 32};
  }
}

/// Blocks in a row of `cols` values.
constexpr int64_t blocks_in_row(int32_t format, int64_t cols) {
  const int64_t values = block_shape(format).values;
  return (cols + values - 1) / values;
}

/// How values of a format become weights: (value - zero) * scale + minimum, alike for `values` of
/// a row.
struct IntegerForm {
  int values;
  int32_t zero;
  bool minimum;
};
constexpr IntegerForm integer_form(int32_t format) {
  switch (format) {
    case kNibbles4_0:
      return {32, 8, false};
    case kNibbles4_1:
    case kSuper4:
      return {32, 0, true};
    case kBytes:
      return {32, 128, false};
    case kSuper8Q6:
      return {16, 32, false};
    case kSuper8Q3:
      return {16, 4, false};
    default:  // kExpanded
      return {16, 0, true};
  }
}

/// What the integer kernels read beside a token's int8 values, per 32 of them.
struct InputBlock {
  float scale;
  int32_t sum[2];    // of values 0..15 and 16..31
  float scaled_sum;  // scale * (sum[0] + sum[1])
};

/// A token's activations of so many columns, fewer at the end of a row.
inline constexpr int64_t kIntCols = 256;
struct alignas(64) InputPanel {
  int8_t values[kIntCols];
  InputBlock blocks[kIntCols / 32];
};

/// That of token t with column k; the next token's comes after it.
inline const InputPanel& input_panel(const PackedInput& input, int64_t t, int64_t k) {
  return reinterpret_cast<const InputPanel*>(input.data)[k / kIntCols * input.n_tokens + t];
}
inline constexpr int64_t kInputCols = 128;
/// Column k, a multiple of kInputCols, of token t: as many columns, fewer at the end of the row,
/// come after it; those of the next token begin kInputCols further on.
inline const float* input_floats(const PackedInput& input, int64_t t, int64_t k) {
  return reinterpret_cast<const float*>(input.data) + k * input.n_tokens + t * kInputCols;
}
inline const uint32_t* input_pairs(const PackedInput& input, int64_t t) {
  return reinterpret_cast<const uint32_t*>(input.data) + t * ((input.cols + 1) / 2);
}

/// Column k of token t: as many as are left of kTileCols come after it; those of the next token lie
/// kTileCols further on.
inline constexpr int64_t kTileCols = 256;
inline const uint16_t* input_bf16(const PackedInput& input, int64_t t, int64_t k) {
  return reinterpret_cast<const uint16_t*>(input.data) +
         (k / kTileCols * input.n_tokens + t) * kTileCols + k % kTileCols;
}

int32_t packed_format(DType type);
int64_t packed_linear_bytes(int32_t format, int64_t rows, int64_t cols);
void pack_linear(DType type, const void* weights, const PackedLinear& packed, uint8_t* data,
                 int64_t group_begin, int64_t group_end);
int64_t input_bytes(int32_t format, int64_t n_tokens, int64_t cols);

}  // namespace paddock::cpu
