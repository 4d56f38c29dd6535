// Linear layers on bfloat16 weights with AVX-512 BF16: vdpbf16ps multiplies pairs of columns.
// Activations are rounded to bfloat16; every output is summed over k in ascending pairs.
#include <immintrin.h>

#include "cpu/isa.h"
#include "cpu/linear_pack.h"
#include "cpu/vec.h"

namespace paddock::cpu::avx512_bf16 {
namespace {

constexpr int kTileTokens = 8;  // tokens that share one pass over the weights

template <int kTokens>
void group_times_tile(const PackedLinear& weights, const PackedInput& input, int64_t group,
                      int64_t token, float* y, int64_t y_stride, bool accumulate) {
  const int64_t pairs = (weights.cols + 1) / 2;
  const uint8_t* w = weights.data + group * pairs * 64;
  const uint32_t* x[kTokens];
  for (int t = 0; t < kTokens; ++t) x[t] = input_pairs(input, token + t);
  __m512 sums[kTokens];
  for (int t = 0; t < kTokens; ++t) sums[t] = _mm512_setzero_ps();
  for (int64_t k = 0; k < pairs; ++k) {
    const auto two = (__m512bh)_mm512_loadu_si512(w + k * 64);
    for (int t = 0; t < kTokens; ++t) {
      const __m512i pair = _mm512_set1_epi32(static_cast<int>(x[t][k]));
      sums[t] = _mm512_dpbf16_ps(sums[t], two, (__m512bh)pair);
    }
  }
  const int64_t first = group * kGroupRows;
  const int64_t rows = weights.rows - first < kGroupRows ? weights.rows - first : kGroupRows;
  const auto mask = static_cast<__mmask16>((1U << rows) - 1U);
  for (int t = 0; t < kTokens; ++t) {
    float* out = y + (token + t) * y_stride + first;
    if (accumulate) sums[t] = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), sums[t]);
    _mm512_mask_storeu_ps(out, mask, sums[t]);
  }
}

}  // namespace

void linear(const PackedLinear& weights, const PackedInput& input, float* y, int64_t y_stride,
            bool accumulate, int64_t group_begin, int64_t group_end) {
  if (weights.format != kBFloat16Pairs) {
    return avx512::linear(weights, input, y, y_stride, accumulate, group_begin, group_end);
  }
  for (int64_t g = group_begin; g < group_end; ++g) {
    for (int64_t t = 0; t < input.n_tokens; t += kTileTokens) {
      const int64_t left = input.n_tokens - t;
      with_count<kTileTokens>(left < kTileTokens ? left : kTileTokens, [&](auto tokens) {
        group_times_tile<tokens()>(weights, input, g, t, y, y_stride, accumulate);
      });
    }
  }
}

}  // namespace paddock::cpu::avx512_bf16
