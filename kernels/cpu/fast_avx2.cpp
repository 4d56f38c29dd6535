// The fast kernels for AVX2, FMA and F16C.
#include <immintrin.h>

#include <initializer_list>

#include "cpu/attention_tile.h"
#include "cpu/isa.h"
#include "cpu/linear_pack.h"
#include "cpu/vec.h"

namespace paddock::cpu::avx2 {
namespace {

constexpr int kTileTokens = 2;  // tokens that share one pass over the weights
constexpr int kRowBlock = 4, kVectorBlock = 2, kDirectRows = 4;
using Lanes = F8Lanes;
using IntLanes = I8Lanes;

struct Halves {
  __m256i low, high;  // rows 0..7 and 8..15
};

Halves split(I16Lanes v) {
  Halves h;
  std::memcpy(&h, &v, sizeof(h));
  return h;
}
I16Lanes join(__m256i low, __m256i high) {
  const Halves h{low, high};
  I16Lanes v;
  std::memcpy(&v, &h, sizeof(v));
  return v;
}
__m256i load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

F16Lanes madd(F16Lanes a, F16Lanes b, F16Lanes c) {
  F16Lanes out;
  for (int i = 0; i < 2; ++i) {
    __m256 va, vb, vc;
    std::memcpy(&va, reinterpret_cast<const char*>(&a) + 32 * i, 32);
    std::memcpy(&vb, reinterpret_cast<const char*>(&b) + 32 * i, 32);
    std::memcpy(&vc, reinterpret_cast<const char*>(&c) + 32 * i, 32);
    const __m256 r = _mm256_fmadd_ps(va, vb, vc);
    std::memcpy(reinterpret_cast<char*>(&out) + 32 * i, &r, 32);
  }
  return out;
}

F8Lanes madd(F8Lanes a, F8Lanes b, F8Lanes c) {
  return reinterpret_cast<F8Lanes>(_mm256_fmadd_ps(
      reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
}

F16Lanes halves(const uint8_t* p) {
  const __m256 low = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256 high = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16)));
  F16Lanes v;
  std::memcpy(&v, &low, 32);
  std::memcpy(reinterpret_cast<char*>(&v) + 32, &high, 32);
  return v;
}

/// acc + sum of 4 neighbouring products; w below 16, so that no 16-bit sum saturates.
__m256i dot_small(__m256i acc, __m256i w, __m256i x, __m256i weight) {
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), weight));
}
__m256i low_nibbles(__m256i w) { return _mm256_and_si256(w, _mm256_set1_epi8(15)); }
__m256i high_nibbles(__m256i w) { return low_nibbles(_mm256_srli_epi16(w, 4)); }

I16Lanes dot4_low(I16Lanes acc, const uint8_t* w, int32_t x4) {
  const Halves a = split(acc);
  const __m256i x = _mm256_set1_epi32(x4);
  const __m256i one = _mm256_set1_epi16(1);
  return join(dot_small(a.low, low_nibbles(load(w)), x, one),
              dot_small(a.high, low_nibbles(load(w + 32)), x, one));
}
I16Lanes dot4_high(I16Lanes acc, const uint8_t* w, int32_t x4) {
  const Halves a = split(acc);
  const __m256i x = _mm256_set1_epi32(x4);
  const __m256i one = _mm256_set1_epi16(1);
  return join(dot_small(a.low, high_nibbles(load(w)), x, one),
              dot_small(a.high, high_nibbles(load(w + 32)), x, one));
}
/// Whole bytes as 16 * high + low nibble: exact, where one 16-bit product sum could saturate.
I16Lanes dot4(I16Lanes acc, const uint8_t* w, int32_t x4) {
  const Halves a = split(acc);
  const __m256i x = _mm256_set1_epi32(x4);
  const __m256i one = _mm256_set1_epi16(1);
  const __m256i sixteen = _mm256_set1_epi16(16);
  const __m256i w0 = load(w);
  const __m256i w1 = load(w + 32);
  return join(dot_small(dot_small(a.low, low_nibbles(w0), x, one), high_nibbles(w0), x, sixteen),
              dot_small(dot_small(a.high, low_nibbles(w1), x, one), high_nibbles(w1), x, sixteen));
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

// clang-format off: the order matters
#include "cpu/exp_lanes.h"
}  // namespace
#include "cpu/attention_body.h"
#include "cpu/linear_body.h"
#include "cpu/swiglu_body.h"
// clang-format on

}  // namespace paddock::cpu::avx2
