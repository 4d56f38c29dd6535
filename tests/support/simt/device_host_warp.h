// device.h for any compiler but nvcc, second part: warps, matrices, arithmetic. Include
// cuda/device.h instead.
#pragma once

#include <bit>
#include <cmath>

#include "half.h"

namespace paddock::simt {

// ---- warps ----
template <typename T>
struct ShuffleOperand {
  T value;
  T result;
  int source;
};
template <typename T>
T shuffle(const char* name, T v, int source, Where where) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  ShuffleOperand<T> operand{v, v, source};
  collective(
      name, &operand,
      [](void** all) {
        for (int i = 0; i < kWarpSize; ++i) {
          auto* mine = static_cast<ShuffleOperand<T>*>(all[i]);
          mine->result = static_cast<ShuffleOperand<T>*>(all[mine->source])->value;
        }
      },
      where);
  return operand.result;
}
template <typename T>
T shfl(T v, int source, PADDOCK_HERE) {
  return shuffle("shfl", v, source & 31, {file, line});
}
template <typename T>
T shfl_xor(T v, int mask, PADDOCK_HERE) {
  return shuffle("shfl_xor", v, (lane() ^ mask) & 31, {file, line});
}
template <typename T>
T shfl_down(T v, int delta, PADDOCK_HERE) {
  return shuffle("shfl_down", v, lane() + delta < kWarpSize ? lane() + delta : lane(),
                 {file, line});
}
struct BallotOperand {
  bool vote;
  uint32_t votes;
};
inline uint32_t ballot(bool p, PADDOCK_HERE) {
  BallotOperand operand{p, 0};
  collective("ballot", &operand,
             [](void** all) {
               uint32_t votes = 0;
               for (int i = 0; i < kWarpSize; ++i) {
                 votes |= uint32_t{static_cast<BallotOperand*>(all[i])->vote} << i;
               }
               for (int i = 0; i < kWarpSize; ++i)
                 static_cast<BallotOperand*>(all[i])->votes = votes;
             },
             {file, line});
  return operand.votes;
}
inline int first_bit(uint32_t bits) { return bits == 0 ? -1 : std::countr_zero(bits); }
inline bool any(bool p, PADDOCK_HERE) { return ballot(p, file, line) != 0; }
inline bool all(bool p, PADDOCK_HERE) { return ballot(p, file, line) == 0xFFFFFFFFU; }
inline float warp_sum(float v, PADDOCK_HERE) {
  for (int mask = 16; mask > 0; mask /= 2) v += shfl_xor(v, mask, file, line);
  return v;
}
inline float warp_max(float v, PADDOCK_HERE) {
  for (int mask = 16; mask > 0; mask /= 2) v = std::fmax(v, shfl_xor(v, mask, file, line));
  return v;
}

// ---- matrices ----
template <int kMatrices, bool kTransposed>
void ldmatrix(const char* name, uint32_t* r, const void* row, Where where) {
  MatrixOperand operand{nullptr, r};
  if (lane() < 8 * kMatrices) operand.row = access(row, 16, 16, Access::kRead, where);
  collective(
      name, &operand, [](void** all) { load_matrices(all, kMatrices, kTransposed); }, where);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, PADDOCK_HERE) {
  ldmatrix<4, false>("ldmatrix_x4", r, row, {file, line});
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, PADDOCK_HERE) {
  ldmatrix<4, true>("ldmatrix_x4_trans", r, row, {file, line});
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, PADDOCK_HERE) {
  ldmatrix<2, false>("ldmatrix_x2", r, row, {file, line});
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, PADDOCK_HERE) {
  ldmatrix<2, true>("ldmatrix_x2_trans", r, row, {file, line});
}
template <typename H>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], PADDOCK_HERE) {
  static_assert(std::is_same_v<H, Bf16> || std::is_same_v<H, F16>);
  MmaOperand operand{d, a, b};
  collective("mma_m16n8k16", &operand, std::is_same_v<H, Bf16> ? mma_bf16 : mma_f16, {file, line});
}

// ---- arithmetic ----
inline uint32_t float_bits(float f) { return std::bit_cast<uint32_t>(f); }
inline float bits_float(uint32_t u) { return std::bit_cast<float>(u); }
inline float to_f32(Bf16 h) { return bf16_to_f32(h.bits); }
inline float to_f32(F16 h) { return f16_to_f32(h.bits); }
template <typename H>
H from_f32(float f) {
  if constexpr (std::is_same_v<H, Bf16>) {
    return {f32_to_bf16(f)};
  } else {
    static_assert(std::is_same_v<H, F16>);
    return {f32_to_f16(f)};
  }
}
template <typename H>
uint32_t pack2(float low, float high) {
  return uint32_t{from_f32<H>(low).bits} | uint32_t{from_f32<H>(high).bits} << 16;
}
template <typename H>
F32x2 unpack2(uint32_t u) {
  return {to_f32(H{static_cast<uint16_t>(u)}), to_f32(H{static_cast<uint16_t>(u >> 16)})};
}
template <typename H>
uint32_t fma2(uint32_t a, uint32_t b, uint32_t c) {
  const F32x2 x = unpack2<H>(a);
  const F32x2 y = unpack2<H>(b);
  const F32x2 z = unpack2<H>(c);
  // Products of 16-bit floats are exact in double, and so are these sums where exponents are near.
  return pack2<H>(static_cast<float>(double{x.x} * y.x + z.x),
                  static_cast<float>(double{x.y} * y.y + z.y));
}
inline int32_t dp4a(int32_t a, int32_t b, int32_t c) {
  uint32_t sum = static_cast<uint32_t>(c);
  for (int shift = 0; shift < 32; shift += 8) {
    sum += static_cast<uint32_t>(static_cast<int8_t>(a >> shift) * static_cast<int8_t>(b >> shift));
  }
  return static_cast<int32_t>(sum);
}
/// Byte i of the result is byte (selector >> 4 * i) & 7 of b:a. The mode that repeats signs is left
/// out.
template <uint32_t kMask>
inline uint32_t and_or(uint32_t x, uint32_t bits) {
  return (x & kMask) | bits;
}
inline uint32_t byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t from = selector >> (4 * i) & 7U;
    result |= static_cast<uint32_t>(bytes >> (8 * from) & 0xFFU) << (8 * i);
  }
  return result;
}
inline float fast_exp2(float x) { return std::exp2(x); }
inline float fast_exp(float x) { return std::exp(x); }
inline float exp(float x) { return std::exp(x); }
inline float sqrt(float x) { return std::sqrt(x); }
inline double cos(double x) { return std::cos(x); }
inline double sin(double x) { return std::sin(x); }
inline float fast_log2(float x) { return std::log2(x); }
inline float rsqrt(float x) { return 1.0F / std::sqrt(x); }
inline float fmin(float a, float b) { return std::fmin(a, b); }
inline float fmax(float a, float b) { return std::fmax(a, b); }
inline float mul(float a, float b) { return a * b; }
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }

}  // namespace paddock::simt
