// Elements of any DType, eight at a time, on the device: the formulas and the layouts are those of
// kernels/quant_blocks.h, whose whole-block decoder would not fit into registers. Values equal
// cpu::dequantize_row's to the bit, but for the payload of NaNs: all products of a scale and a
// small integer that meet an addition are exact in float32, so that contraction changes nothing.
#pragma once

#include "cuda/device.h"
#include "dtype.h"

namespace paddock::cuda {

/// Eight bytes, or eight small integers of a byte each.
struct Eight {
  uint32_t low, high;
};

PADDOCK_DEVICE uint32_t load_u16(const uint8_t* p) {
  return simt::load_const(reinterpret_cast<const uint16_t*>(p));
}
PADDOCK_DEVICE float load_f16(const uint8_t* p) {
  return simt::to_f32(simt::F16{static_cast<uint16_t>(load_u16(p))});
}
/// Four or eight bytes at an even address.
PADDOCK_DEVICE uint32_t load_four(const uint8_t* p) { return load_u16(p) | load_u16(p + 2) << 16; }
PADDOCK_DEVICE Eight load_eight(const uint8_t* p) { return {load_four(p), load_four(p + 4)}; }

/// The bits `mask` of every byte >> shift, moved up by `to`.
PADDOCK_DEVICE Eight bits_of(Eight v, int shift, uint32_t mask, int to = 0) {
  const uint32_t all = mask * 0x01010101U;
  return {(v.low >> shift & all) << to, (v.high >> shift & all) << to};
}
PADDOCK_DEVICE Eight operator|(Eight a, Eight b) { return {a.low | b.low, a.high | b.high}; }
/// Bit i of `bits` as bit 4 of element i.
PADDOCK_DEVICE Eight fifth_bits(uint32_t bits) {
  constexpr uint32_t kSpread = 1U | 1U << 7 | 1U << 14 | 1U << 21;
  return bits_of({(bits & 15U) * kSpread, (bits >> 4 & 15U) * kSpread}, 0, 1, 4);
}
PADDOCK_DEVICE int byte_of(Eight v, int i) {
  return static_cast<int>((i < 4 ? v.low >> 8 * i : v.high >> 8 * (i - 4)) & 255U);
}

/// v[i] = scale * (q[i] - offset)
PADDOCK_DEVICE void scaled(Eight q, int offset, float scale, float (&v)[8]) {
  PADDOCK_UNROLL for (int i = 0; i < 8; ++i) {
    v[i] = scale * static_cast<float>(byte_of(q, i) - offset);
  }
}
/// v[i] = scale * q[i] + add
PADDOCK_DEVICE void scaled_plus(Eight q, float scale, float add, float (&v)[8]) {
  PADDOCK_UNROLL for (int i = 0; i < 8; ++i) {
    v[i] = scale * static_cast<float>(byte_of(q, i)) + add;
  }
}

/// Q4_0, Q4_1, Q5_0, Q5_1: elements e to e + 7 of the block at b.
PADDOCK_DEVICE void decode_legacy(bool has_min, bool five_bits, const uint8_t* b, int e,
                                  float (&v)[8]) {
  const uint8_t* qs = b + (has_min ? 4 : 2) + (five_bits ? 4 : 0);
  Eight q = bits_of(load_eight(qs + e % 16), e / 16 * 4, 15);
  if (five_bits) q = q | fifth_bits(load_four(qs - 4) >> e);
  const float d = load_f16(b);
  if (has_min) return scaled_plus(q, d, load_f16(b + 2), v);
  scaled(q, five_bits ? 16 : 8, d, v);
}

PADDOCK_DEVICE void decode_q8_0(const uint8_t* b, int e, float (&v)[8]) {
  const Eight q = load_eight(b + 2 + e);
  scaled({q.low ^ 0x80808080U, q.high ^ 0x80808080U}, 128, load_f16(b), v);
}

/// One byte of the even-addressed pair that holds it.
PADDOCK_DEVICE uint32_t load_byte(const uint8_t* block, int i) {
  return load_u16(block + i / 2 * 2) >> i % 2 * 8 & 255U;
}

PADDOCK_DEVICE void decode_q2_k(const uint8_t* b, int e, float (&v)[8]) {
  const Eight q = bits_of(load_eight(b + 16 + e / 128 * 32 + e % 32), e % 128 / 32 * 2, 3);
  const uint32_t s = load_byte(b, e / 16);
  scaled_plus(q, load_f16(b + 80) * static_cast<float>(s & 15U),
              -(load_f16(b + 82) * static_cast<float>(s >> 4)), v);
}

PADDOCK_DEVICE void decode_q3_k(const uint8_t* b, int e, float (&v)[8]) {
  const Eight q = bits_of(load_eight(b + 32 + e / 128 * 32 + e % 32), e % 128 / 32 * 2, 3) |
                  bits_of(load_eight(b + e % 32), e / 32, 1, 2);
  const int j = e / 16;
  const uint32_t low = load_byte(b + 96, j % 8) >> j / 8 * 4 & 15U;
  const uint32_t high = load_byte(b + 96, 8 + j % 4) >> j / 4 * 2 & 3U;
  const int s = static_cast<int>(low | high << 4) - 32;
  scaled(q, 4, load_f16(b + 108) * static_cast<float>(s), v);
}

PADDOCK_DEVICE void decode_q45_k(bool five_bits, const uint8_t* b, int e, float (&v)[8]) {
  const int j = e / 32;
  Eight q = bits_of(load_eight(b + (five_bits ? 48 : 16) + j / 2 * 32 + e % 32), j % 2 * 4, 15);
  if (five_bits) q = q | bits_of(load_eight(b + 16 + e % 32), j, 1, 4);
  uint32_t s = load_byte(b + 4, j % 4);
  uint32_t m = load_byte(b + 4, j % 4 + 4);
  if (j < 4) {
    s &= 63U;
    m &= 63U;
  } else {
    const uint32_t low = load_byte(b + 4, j + 4);
    s = (low & 15U) | s >> 6 << 4;
    m = low >> 4 | m >> 6 << 4;
  }
  scaled_plus(q, load_f16(b) * static_cast<float>(s), -(load_f16(b + 2) * static_cast<float>(m)),
              v);
}

PADDOCK_DEVICE void decode_q6_k(const uint8_t* b, int e, float (&v)[8]) {
  const int j = e / 32;
  const Eight low = load_eight(b + j / 4 * 64 + j % 2 * 32 + e % 32);
  const Eight high = load_eight(b + 128 + j / 4 * 32 + e % 32);
  const Eight q = bits_of(low, j % 4 / 2 * 4, 15) | bits_of(high, j % 4 * 2, 3, 4);
  const int s = static_cast<int>(load_byte(b + 192, e / 16) ^ 128U) - 128;
  scaled(q, 32, load_f16(b + 208) * static_cast<float>(s), v);
}

/// Elements i to i + 7 (i a multiple of 8) of a row, of which only the first `n` exist; the rest
/// become 0. The row is aligned to 2 bytes, to 4 for F32.
PADDOCK_DEVICE void decode_eight(DType type, const uint8_t* row, int64_t i, int n, float (&v)[8]) {
  const auto block = [&](int values, int bytes) { return row + i / values * bytes; };
  const auto e32 = static_cast<int>(i % 32);
  const auto e256 = static_cast<int>(i % 256);
  switch (type) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16: {
      PADDOCK_UNROLL for (int k = 0; k < 8; ++k) {
        v[k] = 0;
        if (!PADDOCK_CHECKED("element", k < n)) continue;
        if (type == DType::kF32) {
          v[k] = simt::load_const(reinterpret_cast<const float*>(row) + i + k);
        } else if (type == DType::kF16) {
          v[k] = load_f16(row + 2 * (i + k));
        } else {
          v[k] = simt::bits_float(load_u16(row + 2 * (i + k)) << 16);
        }
      }
      return;
    }
    case DType::kQ4_0:
      return decode_legacy(false, false, block(32, 18), e32, v);
    case DType::kQ4_1:
      return decode_legacy(true, false, block(32, 20), e32, v);
    case DType::kQ5_0:
      return decode_legacy(false, true, block(32, 22), e32, v);
    case DType::kQ5_1:
      return decode_legacy(true, true, block(32, 24), e32, v);
    case DType::kQ8_0:
      return decode_q8_0(block(32, 34), e32, v);
    case DType::kQ2_K:
      return decode_q2_k(block(256, 84), e256, v);
    case DType::kQ3_K:
      return decode_q3_k(block(256, 110), e256, v);
    case DType::kQ4_K:
      return decode_q45_k(false, block(256, 144), e256, v);
    case DType::kQ5_K:
      return decode_q45_k(true, block(256, 176), e256, v);
    case DType::kQ6_K:
      return decode_q6_k(block(256, 210), e256, v);
  }
}

}  // namespace paddock::cuda
