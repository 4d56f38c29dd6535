// How tensor_gemv.cu reads packed rows as operands of mma.sync: exact integers in bfloat16, whose
// scales are applied to sums in float32.
//
// A chunk is kGroups groups of 64 columns, a group 4 steps of 16. In step s lane 4 g + t holds, of
// rows g and g + 8, columns 16 s + 4 t to 16 s + 4 t + 3 of the group: the order of columns within
// a step is free as long as x comes in the same one. Formats: kernels/dtype.h and quant_device.h.
#pragma once

#include "cuda/gemv_fields.h"
#include "dtype.h"

namespace paddock::cuda {

template <int kNumber>
struct Step {
  static constexpr int kValue = kNumber;
};
/// use(Step<0>()), use(Step<1>()), ... so many times, with numbers that templates can take.
template <int kCount, int kFirst = 0, typename Use>
PADDOCK_DEVICE void for_steps(const Use& use) {
  if constexpr (kFirst < kCount) {
    use(Step<kFirst>());
    for_steps<kCount, kFirst + 1>(use);
  }
}

// ---- bytes to pairs of bfloat16 ----

/// (first, second) and (third, fourth) of the fields of kBits at bit kShift of each byte, less
/// `bias`. A field sits in the mantissa of 128 + field.
template <int kShift, int kBits>
PADDOCK_DEVICE void fields_to_pairs(uint32_t w, float bias, uint32_t (&pairs)[2]) {
  static_assert(kBits < 7);
  constexpr uint32_t kMask = ((1U << kBits) - 1U) * 0x00010001U;
  const uint32_t ordered = simt::byte_perm(w, 0, 0x3120);  // bytes 0, 2, 1, 3
  const uint32_t less = simt::pack2<simt::Bf16>(-128.0F - bias, -128.0F - bias);
  constexpr uint32_t kOnes = 0x3F803F80U;
  constexpr uint32_t k128 = 0x43004300U;
  pairs[0] = simt::fma2<simt::Bf16>(simt::and_or<kMask>(ordered >> kShift, k128), kOnes, less);
  pairs[1] =
      simt::fma2<simt::Bf16>(simt::and_or<kMask>(ordered >> (kShift + 8), k128), kOnes, less);
}

/// A word of shared memory at a known place modulo 4: 0 or 2.
template <bool kOdd>
PADDOCK_DEVICE uint32_t read_word(const uint8_t* p) {
  if constexpr (!kOdd) return simt::load(reinterpret_cast<const uint32_t*>(p));
  const auto* words = reinterpret_cast<const uint32_t*>(p - 2);
  return simt::byte_perm(simt::load(words), simt::load(words + 1), 0x5432);
}

/// The part of one row's chunk that a lane takes. `chunk` is in shared memory, as far from a
/// multiple of 16 bytes as the row's bytes are.
template <DType kType>
struct TileRow;

struct QuantRow {
  static constexpr int kGroups = 4;
  static constexpr bool kHasMin = false;
  static constexpr int kScaleSteps = 2;  // that share a scale
  static constexpr int kTiles = 2;       // of 16 rows, that share x
  PADDOCK_DEVICE void start(const uint8_t*) {}
};

template <>
struct TileRow<DType::kBF16> {
  static constexpr int kGroups = 1;
  static constexpr bool kHasMin = false;
  static constexpr int kScaleSteps = 4;
  static constexpr int kTiles = 2;
  static constexpr int kPitch = 160;
  uint32_t words[4][2];
  PADDOCK_DEVICE void start(const uint8_t*) {}
  PADDOCK_DEVICE void read(const uint8_t* chunk, int) {
    PADDOCK_UNROLL for (int s = 0; s < 4; ++s) {
      const auto v = simt::load_vec<simt::U32x2>(chunk + 32 * s + 8 * (simt::lane() % 4));
      words[s][0] = v.x;
      words[s][1] = v.y;
    }
  }
  template <int kStep>
  PADDOCK_DEVICE void pairs(uint32_t (&to)[2]) const {
    to[0] = words[kStep][0];
    to[1] = words[kStep][1];
  }
  PADDOCK_DEVICE float scale(int, int) const { return 1; }
};

/// Blocks of kBytes with nibbles from kNibbles on; of each pair of blocks the first begins at a
/// multiple of 4.
template <int kBytes, int kNibbles>
struct NibbleRow : QuantRow {
  uint32_t words[2];  // of two blocks
  PADDOCK_DEVICE void read_nibbles(const uint8_t* chunk, int group) {
    const uint8_t* p = chunk + 2 * group * kBytes + kNibbles + 4 * (simt::lane() % 4);
    words[0] = read_word<kNibbles % 4 != 0>(p);
    words[1] = read_word<(kNibbles + kBytes) % 4 != 0>(p + kBytes);
  }
  template <int kStep>
  PADDOCK_DEVICE void nibbles(float bias, uint32_t (&to)[2]) const {
    fields_to_pairs<kStep % 2 * 4, 4>(words[kStep / 2], bias, to);
  }
};

template <>
struct TileRow<DType::kQ4_0> : NibbleRow<18, 2> {
  static constexpr int kPitch = 144;
  float d[2];
  PADDOCK_DEVICE void read(const uint8_t* chunk, int group) {
    read_nibbles(chunk, group);
    d[0] = read_f16(chunk + 36 * group);
    d[1] = read_f16(chunk + 36 * group + 18);
  }
  template <int kStep>
  PADDOCK_DEVICE void pairs(uint32_t (&to)[2]) const {
    nibbles<kStep>(8, to);
  }
  PADDOCK_DEVICE float scale(int i, int) const { return d[i]; }
};

template <>
struct TileRow<DType::kQ4_1> : NibbleRow<20, 4> {
  static constexpr int kPitch = 176;
  static constexpr bool kHasMin = true;
  simt::F32x2 dm[2];
  PADDOCK_DEVICE void read(const uint8_t* chunk, int group) {
    read_nibbles(chunk, group);
    PADDOCK_UNROLL for (int i = 0; i < 2; ++i) {
      dm[i] = simt::unpack2<simt::F16>(read_word<false>(chunk + 20 * (2 * group + i)));
    }
  }
  template <int kStep>
  PADDOCK_DEVICE void pairs(uint32_t (&to)[2]) const {
    nibbles<kStep>(0, to);
  }
  PADDOCK_DEVICE float scale(int i, int) const { return dm[i].x; }
  PADDOCK_DEVICE float min(int i, int) const { return dm[i].y; }
};

template <>
struct TileRow<DType::kQ8_0> : QuantRow {
  static constexpr int kPitch = 272;
  static constexpr int kTiles = 1;
  uint32_t words[4];
  float d[2];
  PADDOCK_DEVICE void read(const uint8_t* chunk, int group) {
    const uint8_t* p = chunk + 68 * group + 4 * (simt::lane() % 4);
    words[0] = read_word<true>(p + 2);
    words[1] = read_word<true>(p + 18);
    words[2] = read_word<false>(p + 36);
    words[3] = read_word<false>(p + 52);
    d[0] = read_f16(chunk + 68 * group);
    d[1] = read_f16(chunk + 68 * group + 34);
  }
  template <int kStep>
  PADDOCK_DEVICE void pairs(uint32_t (&to)[2]) const {
    float f[4];
    bytes_to_floats<true>(words[kStep], 128, f);
    to[0] = simt::pack2<simt::Bf16>(f[0], f[1]);
    to[1] = simt::pack2<simt::Bf16>(f[2], f[3]);
  }
  PADDOCK_DEVICE float scale(int i, int) const { return d[i]; }
};

template <>
struct TileRow<DType::kQ4_K> : QuantRow {
  static constexpr int kPitch = 144;
  static constexpr bool kHasMin = true;
  simt::F32x4 own;  // of sub-blocks 2 t and 2 t + 1: {d * scale, -dmin * min} of each
  uint32_t words[2];
  PADDOCK_DEVICE void start(const uint8_t* chunk) {
    const int t = simt::lane() % 4;
    const auto head = simt::load_vec<simt::U32x4>(chunk);
    const simt::F32x2 d = simt::unpack2<simt::F16>(head.x);
    // Sub-blocks 4 to 7 have their upper bits apart.
    uint32_t s =
        t >= 2 ? (head.w & 0x0F0F0F0FU) | (head.y >> 2 & 0x30303030U) : head.y & 0x3F3F3F3FU;
    uint32_t m =
        t >= 2 ? (head.w >> 4 & 0x0F0F0F0FU) | (head.z >> 2 & 0x30303030U) : head.z & 0x3F3F3F3FU;
    s >>= t % 2 * 16;
    m >>= t % 2 * 16;
    own = {d.x * field<0, 8>(s, 0), -d.y * field<0, 8>(m, 0), d.x * field<8, 8>(s, 0),
           -d.y * field<8, 8>(m, 0)};
  }
  PADDOCK_DEVICE void read(const uint8_t* chunk, int group) {
    const uint8_t* p = chunk + 16 + 32 * group + 4 * (simt::lane() % 4);
    words[0] = read_word<false>(p);
    words[1] = read_word<false>(p + 16);
  }
  template <int kStep>
  PADDOCK_DEVICE void pairs(uint32_t (&to)[2]) const {
    fields_to_pairs<kStep / 2 * 4, 4>(words[kStep % 2], 0, to);
  }
  PADDOCK_DEVICE float scale(int i, int group) const {
    return simt::shfl(i == 0 ? own.x : own.z, (simt::lane() & ~3) + group);
  }
  PADDOCK_DEVICE float min(int i, int group) const {
    return simt::shfl(i == 0 ? own.y : own.w, (simt::lane() & ~3) + group);
  }
};

template <>
struct TileRow<DType::kQ6_K> : QuantRow {
  static constexpr int kPitch = 240;
  static constexpr int kTiles = 1;
  static constexpr int kScaleSteps = 1;
  uint32_t words[4];
  float scales[4];
  PADDOCK_DEVICE void read(const uint8_t* chunk, int group) {
    const int half = group / 2;
    const int upper = group % 2;
    const int at = 4 * (simt::lane() % 4);
    uint32_t high[2];
    PADDOCK_UNROLL for (int h = 0; h < 2; ++h) {
      high[h] = any_word(chunk + 128 + 32 * half + 16 * h + at);
    }
    PADDOCK_UNROLL for (int s = 0; s < 4; ++s) {
      const uint32_t low = any_word(chunk + 64 * half + 16 * s + at);
      words[s] = (low >> 4 * upper & 0x0F0F0F0FU) |
                 (high[s % 2] >> (4 * upper + 2 * (s / 2)) & 0x03030303U) << 4;
    }
    const float d = read_f16(chunk + 208);
    bytes_to_floats<true>(any_word(chunk + 192 + 4 * group), 128, scales);
    PADDOCK_UNROLL for (int s = 0; s < 4; ++s) scales[s] *= d;
  }
  template <int kStep>
  PADDOCK_DEVICE void pairs(uint32_t (&to)[2]) const {
    fields_to_pairs<0, 6>(words[kStep], 32, to);
  }
  PADDOCK_DEVICE float scale(int i, int) const { return scales[i]; }

 private:
  static PADDOCK_DEVICE uint32_t any_word(const uint8_t* p) {
    uint32_t w[1];
    read_words(p, w);
    return w[0];
  }
};

}  // namespace paddock::cuda
