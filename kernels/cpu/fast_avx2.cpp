// The fast kernels for AVX2, FMA and F16C.
#include <immintrin.h>

#include <initializer_list>

#include "cpu/attention_tile.h"
#include "cpu/isa.h"
#include "cpu/linear_pack.h"
#include "cpu/vec.h"
#include "half.h"

namespace paddock::cpu::avx2 {
namespace {

constexpr int kTileTokens = 4;  // tokens that share one pass over the weights
constexpr int kPanelVectors = 2, kPanelTokens = 6;
constexpr int kIntVectors = 2, kIntTokens = 4;
/// Bytes take four instructions either way, and for fields of 16 with minima panels bring nothing.
constexpr bool has_panels(int32_t format) { return format != kBytes && format != kExpanded; }
constexpr int kRowBlock = 4, kVectorBlock = 2, kDirectRows = 4;
using Lanes = F8Lanes;
using IntLanes = I8Lanes;

Lanes madd(Lanes a, Lanes b, Lanes c) {
  return reinterpret_cast<Lanes>(_mm256_fmadd_ps(
      reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
}

Lanes halves(const uint8_t* p) {
  return reinterpret_cast<Lanes>(
      _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

// Products of integer weights (see linear_body.h). Neighbouring products add up in 16 bits: two of
// nibbles are at most 2 * 15 * 128, so that the eight of 32 values fit; two of bytes below 64 are
// at most 2 * 63 * 128, and two such sums fit.
__m256i load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
__m256i four_bytes(const int8_t* p) {
  int32_t v;
  std::memcpy(&v, p, sizeof(v));
  return _mm256_set1_epi32(v);
}
/// sum + neighbouring 16-bit sums.
IntLanes add_pairs(IntLanes sum, __m256i sums16) {
  return reinterpret_cast<IntLanes>(_mm256_add_epi32(
      reinterpret_cast<__m256i>(sum), _mm256_madd_epi16(sums16, _mm256_set1_epi16(1))));
}

template <int kTokens>
[[gnu::always_inline]] inline void dot_nibbles(const uint8_t* chunks, const InputPanel* x,
                                               int64_t k, IntLanes (&sums)[kTokens]) {
  const __m256i low = _mm256_set1_epi8(15);
  __m256i sums16[kTokens];
  for (int t = 0; t < kTokens; ++t) sums16[t] = _mm256_setzero_si256();
  for (int c = 0; c < 4; ++c) {
    const __m256i w = load(chunks + 64 * c);
    const __m256i lows = _mm256_and_si256(w, low);
    const __m256i highs = _mm256_and_si256(_mm256_srli_epi16(w, 4), low);
    for (int t = 0; t < kTokens; ++t) {
      const int8_t* values = x[t].values + k + 4 * c;
      sums16[t] = _mm256_add_epi16(sums16[t], _mm256_maddubs_epi16(lows, four_bytes(values)));
      sums16[t] = _mm256_add_epi16(sums16[t], _mm256_maddubs_epi16(highs, four_bytes(values + 16)));
    }
  }
  for (int t = 0; t < kTokens; ++t) sums[t] = add_pairs(sums[t], sums16[t]);
}

/// Two bytes with all their bits do not fit 16: as distances from 128 they do, with the activation
/// of the opposite sign where that is negative (2 * 128 * 127; activations are never -128).
constexpr int32_t kZeroByte = 128;
template <int kChunks, int kTokens>
[[gnu::always_inline]] inline void dot_bytes(const uint8_t* chunks, const InputPanel* x, int64_t k,
                                             IntLanes (&sums)[kTokens]) {
  for (int c = 0; c < kChunks; ++c) {
    const __m256i w = _mm256_xor_si256(load(chunks + 64 * c), _mm256_set1_epi8(-128));
    const __m256i distance = _mm256_abs_epi8(w);
    for (int t = 0; t < kTokens; ++t) {
      const __m256i values = _mm256_sign_epi8(four_bytes(x[t].values + k + 4 * c), w);
      sums[t] = add_pairs(sums[t], _mm256_maddubs_epi16(distance, values));
    }
  }
}

template <int kChunks, int kTokens>
[[gnu::always_inline]] inline void dot_small_bytes(const uint8_t* chunks, const InputPanel* x,
                                                   int64_t k, IntLanes (&sums)[kTokens]) {
  for (int c = 0; c < kChunks; c += 2) {
    const __m256i w0 = load(chunks + 64 * c);
    const __m256i w1 = load(chunks + 64 * (c + 1));
    for (int t = 0; t < kTokens; ++t) {
      const int8_t* values = x[t].values + k + 4 * c;
      sums[t] =
          add_pairs(sums[t], _mm256_add_epi16(_mm256_maddubs_epi16(w0, four_bytes(values)),
                                              _mm256_maddubs_epi16(w1, four_bytes(values + 4))));
    }
  }
}

/// See integer_linear.h: adds the products of kChunks times four columns, that many together in 16
/// bits: eight of nibbles, two of bytes below 64.
template <int kChunks, int kTogether, int kVectors, int kTokens>
[[gnu::always_inline]] inline void dot_small(const uint8_t* values, const InputPanel* x, int64_t k,
                                             IntLanes (&dots)[kTokens][kVectors]) {
  for (int begin = 0; begin < kChunks; begin += kTogether) {
    __m256i sums16[kTokens][kVectors];
    for (int c = begin; c < begin + kTogether; ++c) {
      for (int t = 0; t < kTokens; ++t) {
        const __m256i four = four_bytes(x[t].values + k + 4 * c);
        for (int v = 0; v < kVectors; ++v) {
          const __m256i w = load(values + (c * kIntVectors + v) * 32);
          const __m256i products = _mm256_maddubs_epi16(w, four);
          sums16[t][v] = c == begin ? products : _mm256_add_epi16(sums16[t][v], products);
        }
      }
    }
    for (int t = 0; t < kTokens; ++t) {
      for (int v = 0; v < kVectors; ++v) dots[t][v] = add_pairs(dots[t][v], sums16[t][v]);
    }
  }
}
template <int32_t kFormat, int kVectors, int kTokens>
[[gnu::always_inline]] inline void dot_panel(const uint8_t* values, const InputPanel* x, int64_t k,
                                             IntLanes (&dots)[kTokens][kVectors]) {
  if constexpr (kFormat == kSuper8Q6 || kFormat == kSuper8Q3) {
    dot_small<4, 2>(values, x, k, dots);
  } else {
    dot_small<8, 8>(values, x, k, dots);
  }
}

template <DType kType>
Lanes elements(const uint8_t* from) {
  if constexpr (kType == DType::kF32) {
    return load_lanes<Lanes>(reinterpret_cast<const float*>(from));
  } else {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return reinterpret_cast<Lanes>(kType == DType::kF16 ? _mm256_cvtph_ps(h)
                                                        : _mm256_castsi256_ps(_mm256_slli_epi32(
                                                              _mm256_cvtepu16_epi32(h), 16)));
  }
}
template <DType kType>
void convert(const uint8_t* from, int64_t n, float* to) {
  constexpr int64_t kBytes = dtype_traits(kType).block_bytes;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) store_lanes(to + i, elements<kType>(from + i * kBytes));
  for (; i < n; ++i) to[i] = load_element(from, kType, i);
}

// The order matters.
// clang-format off
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

}  // namespace paddock::cpu::avx2
