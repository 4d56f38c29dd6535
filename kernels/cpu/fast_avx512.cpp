// The fast kernels for AVX-512 (F, BW, VL, DQ) with VNNI.
#include <immintrin.h>

#include <initializer_list>

#include "cpu/attention_tile.h"
#include "cpu/isa.h"
#include "cpu/linear_pack.h"
#include "cpu/vec.h"
#include "half.h"

namespace paddock::cpu::avx512 {
namespace {

constexpr int kTileTokens = 8;  // tokens that share one pass over the weights
constexpr int kPanelVectors = 3, kPanelTokens = 8;
constexpr int kIntVectors = 2, kIntTokens = 6;
constexpr bool has_panels(int32_t) { return true; }
constexpr int kRowBlock = 4, kVectorBlock = 4, kDirectRows = 8;
using Lanes = F16Lanes;
using IntLanes = I16Lanes;

F16Lanes madd(F16Lanes a, F16Lanes b, F16Lanes c) {
  return reinterpret_cast<F16Lanes>(_mm512_fmadd_ps(
      reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
}

F16Lanes halves(const uint8_t* p) {
  return reinterpret_cast<F16Lanes>(
      _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
}

I16Lanes dot(I16Lanes acc, I16Lanes w, I16Lanes x) {
  return reinterpret_cast<I16Lanes>(_mm512_dpbusd_epi32(
      reinterpret_cast<__m512i>(acc), reinterpret_cast<__m512i>(w), reinterpret_cast<__m512i>(x)));
}
I16Lanes dot(I16Lanes acc, __m512i w, int32_t x4) {
  return dot(acc, reinterpret_cast<I16Lanes>(w), I16Lanes{} + x4);
}
I16Lanes dot4(I16Lanes acc, const uint8_t* w, int32_t x4) {
  return dot(acc, _mm512_loadu_si512(w), x4);
}
I16Lanes dot4_low(I16Lanes acc, const uint8_t* w, int32_t x4) {
  return dot(acc, _mm512_and_si512(_mm512_loadu_si512(w), _mm512_set1_epi8(15)), x4);
}
I16Lanes dot4_high(I16Lanes acc, const uint8_t* w, int32_t x4) {
  const __m512i high = _mm512_srli_epi16(_mm512_loadu_si512(w), 4);
  return dot(acc, _mm512_and_si512(high, _mm512_set1_epi8(15)), x4);
}

/// See integer_linear.h.
template <int32_t kFormat, int kVectors, int kTokens>
[[gnu::always_inline]] inline void dot_panel(const uint8_t* values, const InputPanel* x, int64_t k,
                                             I16Lanes (&dots)[kTokens][kVectors]) {
  for (int c = 0; c < integer_form(kFormat).values; c += 4) {
    I16Lanes w[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      std::memcpy(&w[v], values + (c / 4 * kIntVectors + v) * 64, sizeof(w[v]));
    }
    for (int t = 0; t < kTokens; ++t) {
      int32_t four;
      std::memcpy(&four, x[t].values + k + c, sizeof(four));
      for (int v = 0; v < kVectors; ++v) dots[t][v] = dot(dots[t][v], w[v], I16Lanes{} + four);
    }
  }
}

/// The first elements, as many as `own` has bits; the others are 0.
template <DType kType>
__m512 some_elements(const uint8_t* from, __mmask16 own) {
  if constexpr (kType == DType::kF32) {
    return _mm512_maskz_loadu_ps(own, from);
  } else {
    const __m256i h = _mm256_maskz_loadu_epi16(own, from);
    return kType == DType::kF16
               ? _mm512_cvtph_ps(h)
               : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
  }
}
template <DType kType>
Lanes elements(const uint8_t* from) {
  return reinterpret_cast<Lanes>(some_elements<kType>(from, 0xFFFFU));
}
template <DType kType>
void convert(const uint8_t* from, int64_t n, float* to) {
  constexpr int64_t kBytes = dtype_traits(kType).block_bytes;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_lanes(to + i, elements<kType>(from + i * kBytes));
  if (i == n) return;
  const auto own = static_cast<__mmask16>((1U << (n - i)) - 1U);
  _mm512_mask_storeu_ps(to + i, own, some_elements<kType>(from + i * kBytes, own));
}

// The order matters.
// clang-format off
#include "cpu/dot_chunks.h"
#include "cpu/exp_lanes.h"
}  // namespace
#include "cpu/attention_body.h"
#include "cpu/panels.h"
#include "cpu/float_linear.h"
#include "cpu/input_body.h"
#include "cpu/integer_linear.h"
#include "cpu/linear_body.h"
#include "cpu/swiglu_body.h"
// clang-format on

}  // namespace paddock::cpu::avx512
