// The quantized blocks of GGUF files, taken apart. Sizes are in kernels/dtype.h; every d and m is
// an f16, little-endian, and element order is as listed.
//   Q4_0 d, qs[16]             elements 0-15 low nibbles, 16-31 high ones; d * (q - 8)
//   Q4_1 d, m, qs[16]          d * q + m
//   Q5_0 d, qh[4], qs[16]      bit i of qh is bit 4 of element i; d * (q - 16)
//   Q5_1 d, m, qh[4], qs[16]   d * q + m
//   Q8_0 d, qs[32]             int8; d * q
//   Q2_K scales[16], qs[64], d, dmin      per 16: scale low nibble, minimum high; d*s*q - dmin*m
//   Q3_K hmask[32], qs[64], scales[12], d per 16 a 6-bit scale; d * (s - 32) * (q - 4)
//   Q4_K d, dmin, scales[12], qs[128]     per 32 a 6-bit scale and minimum; d*s*q - dmin*m
//   Q5_K d, dmin, scales[12], qh[32], qs[128]   likewise
//   Q6_K ql[128], qh[64], scales[16], d   per 16 an int8 scale; d * s * (q - 32)
#pragma once

#include <cstdint>
#include <cstring>

#include "dtype.h"

namespace paddock {

/// What turns the unsigned q of a block into weights. s and m are the sub-block's small integers.
enum class Scales : uint8_t {
  kNone,        // plain floats
  kPer32,       // d * (q - offset)
  kPer32Min,    // d * q + m
  kSuper32Min,  // per 256 d, dmin; per 32 s, m: d * s * q - dmin * m
  kSuper16,     // per 256 d; per 16 signed s: d * s * (q - offset)
  kSuper16Min,  // per 256 d, dmin; per 16 s, m: d * s * q - dmin * m
};

struct QuantTraits {
  Scales scales;
  int32_t bits;    // of q, as the packed linear kernels store it: 4, 5, 6 or 8
  int32_t offset;  // subtracted from q
};

constexpr QuantTraits quant_traits(DType type) {
  switch (type) {
    case DType::kQ4_0:
      return {Scales::kPer32, 4, 8};
    case DType::kQ4_1:
      return {Scales::kPer32Min, 4, 0};
    case DType::kQ5_0:
      return {Scales::kPer32, 5, 16};
    case DType::kQ5_1:
      return {Scales::kPer32Min, 5, 0};
    case DType::kQ8_0:
      return {Scales::kPer32, 8, 128};
    case DType::kQ2_K:
      return {Scales::kSuper16Min, 4, 0};
    case DType::kQ3_K:
      return {Scales::kSuper16, 4, 4};
    case DType::kQ4_K:
      return {Scales::kSuper32Min, 4, 0};
    case DType::kQ5_K:
      return {Scales::kSuper32Min, 5, 0};
    case DType::kQ6_K:
      return {Scales::kSuper16, 6, 32};
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
  }
  return {Scales::kNone, 0, 0};
}

/// One block taken apart; the first block_values of q count.
struct QuantBlock {
  uint8_t q[256];
  uint16_t d;         // f16 bits
  uint16_t m;         // f16 bits of m or dmin; 0 where there is none
  uint8_t scale[16];  // of sub-blocks; int8 bits for kSuper16
  uint8_t min[16];
};

inline uint16_t u16_at(const uint8_t* p) {
  uint16_t v = 0;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

/// Q4_0, Q4_1, Q5_0, Q5_1.
inline void unpack_legacy(bool has_min, bool five_bits, const uint8_t* block, QuantBlock& out) {
  out.d = u16_at(block);
  out.m = has_min ? u16_at(block + 2) : uint16_t{0};
  const uint8_t* qs = block + (has_min ? 4 : 2);
  uint32_t fifth = 0;
  if (five_bits) {
    std::memcpy(&fifth, qs, sizeof(fifth));
    qs += sizeof(fifth);
  }
  for (int i = 0; i < 16; ++i) {
    out.q[i] = static_cast<uint8_t>((qs[i] & 15U) | ((fifth >> i & 1U) << 4));
    out.q[i + 16] = static_cast<uint8_t>((qs[i] >> 4) | ((fifth >> (i + 16) & 1U) << 4));
  }
}

inline void unpack_q8_0(const uint8_t* block, QuantBlock& out) {
  out.d = u16_at(block);
  out.m = 0;
  for (int i = 0; i < 32; ++i) out.q[i] = block[2 + i] ^ 0x80U;
}

/// The 2-bit values of Q2_K and Q3_K: element i of a half of 128 is in byte i % 32.
inline void unpack_two_bits(const uint8_t* qs, uint8_t* q) {
  for (int n = 0; n < 8; ++n) {
    for (int l = 0; l < 32; ++l) q[32 * n + l] = qs[32 * (n / 4) + l] >> (2 * (n % 4)) & 3U;
  }
}

inline void unpack_q2_k(const uint8_t* block, QuantBlock& out) {
  out.d = u16_at(block + 80);
  out.m = u16_at(block + 82);
  for (int j = 0; j < 16; ++j) {
    out.scale[j] = block[j] & 15U;
    out.min[j] = block[j] >> 4;
  }
  unpack_two_bits(block + 16, out.q);
}

inline void unpack_q3_k(const uint8_t* block, QuantBlock& out) {
  const uint8_t* s = block + 96;
  out.d = u16_at(block + 108);
  out.m = 0;
  for (int j = 0; j < 16; ++j) {
    const unsigned low = j < 8 ? s[j] & 15U : s[j - 8] >> 4U;
    const unsigned high = s[8 + j % 4] >> (2 * (j / 4)) & 3U;
    out.scale[j] = static_cast<uint8_t>((low | high << 4) - 32U);
  }
  unpack_two_bits(block + 32, out.q);
  for (int n = 0; n < 8; ++n) {
    for (int l = 0; l < 32; ++l) out.q[32 * n + l] |= (block[l] >> n & 1U) << 2;
  }
}

/// Q4_K and Q5_K.
inline void unpack_q45_k(bool five_bits, const uint8_t* block, QuantBlock& out) {
  const uint8_t* s = block + 4;
  out.d = u16_at(block);
  out.m = u16_at(block + 2);
  for (int j = 0; j < 4; ++j) {
    out.scale[j] = s[j] & 63U;
    out.min[j] = s[j + 4] & 63U;
    out.scale[j + 4] = static_cast<uint8_t>((s[j + 8] & 15U) | (s[j] >> 6U) << 4);
    out.min[j + 4] = static_cast<uint8_t>((s[j + 8] >> 4U) | (s[j + 4] >> 6U) << 4);
  }
  const uint8_t* fifth = block + 16;
  const uint8_t* qs = block + (five_bits ? 48 : 16);
  for (int j = 0; j < 8; ++j) {
    const int shift = j % 2 * 4;
    for (int l = 0; l < 32; ++l) out.q[32 * j + l] = qs[32 * (j / 2) + l] >> shift & 15U;
    if (!five_bits) continue;
    for (int l = 0; l < 32; ++l) out.q[32 * j + l] |= (fifth[l] >> j & 1U) << 4;
  }
}

inline void unpack_q6_k(const uint8_t* block, QuantBlock& out) {
  out.d = u16_at(block + 208);
  out.m = 0;
  std::memcpy(out.scale, block + 192, 16);
  for (int j = 0; j < 8; ++j) {
    const uint8_t* low = block + 64 * (j / 4) + 32 * (j % 2);
    const uint8_t* high = block + 128 + 32 * (j / 4);
    const int low_shift = j % 4 / 2 * 4;
    const int high_shift = j % 4 * 2;
    for (int l = 0; l < 32; ++l) {
      out.q[32 * j + l] =
          static_cast<uint8_t>((low[l] >> low_shift & 15U) | (high[l] >> high_shift & 3U) << 4);
    }
  }
}

/// Takes a block of a quantized type apart; does nothing for plain floats.
inline void unpack_block(DType type, const uint8_t* block, QuantBlock& out) {
  switch (type) {
    case DType::kQ4_0:
      return unpack_legacy(false, false, block, out);
    case DType::kQ4_1:
      return unpack_legacy(true, false, block, out);
    case DType::kQ5_0:
      return unpack_legacy(false, true, block, out);
    case DType::kQ5_1:
      return unpack_legacy(true, true, block, out);
    case DType::kQ8_0:
      return unpack_q8_0(block, out);
    case DType::kQ2_K:
      return unpack_q2_k(block, out);
    case DType::kQ3_K:
      return unpack_q3_k(block, out);
    case DType::kQ4_K:
      return unpack_q45_k(false, block, out);
    case DType::kQ5_K:
      return unpack_q45_k(true, block, out);
    case DType::kQ6_K:
      return unpack_q6_k(block, out);
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return;
  }
}

}  // namespace paddock
