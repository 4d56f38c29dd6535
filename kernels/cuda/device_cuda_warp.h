// device.h for nvcc, second part: warps, matrices, arithmetic. Include device.h instead.
#pragma once

namespace paddock::simt {

// ---- warps ----
inline constexpr unsigned kAllLanes = 0xFFFFFFFFU;
template <typename T>
PADDOCK_DEVICE T shfl(T v, int source) {
  return __shfl_sync(kAllLanes, v, source);
}
template <typename T>
PADDOCK_DEVICE T shfl_xor(T v, int mask) {
  return __shfl_xor_sync(kAllLanes, v, mask);
}
template <typename T>
PADDOCK_DEVICE T shfl_down(T v, int delta) {
  return __shfl_down_sync(kAllLanes, v, delta);
}
PADDOCK_DEVICE uint32_t ballot(bool p) { return __ballot_sync(kAllLanes, p); }
PADDOCK_DEVICE int first_bit(uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }
PADDOCK_DEVICE bool any(bool p) { return __any_sync(kAllLanes, p) != 0; }
PADDOCK_DEVICE bool all(bool p) { return __all_sync(kAllLanes, p) != 0; }
PADDOCK_DEVICE float warp_sum(float v) {
  PADDOCK_UNROLL for (int mask = 16; mask > 0; mask /= 2) v += shfl_xor(v, mask);
  return v;
}
PADDOCK_DEVICE float warp_max(float v) {
  PADDOCK_UNROLL for (int mask = 16; mask > 0; mask /= 2) v = fmaxf(v, shfl_xor(v, mask));
  return v;
}

// ---- matrices ----
PADDOCK_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
PADDOCK_DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
PADDOCK_DEVICE void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
PADDOCK_DEVICE void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
template <typename H>
PADDOCK_DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
#define PADDOCK_MMA(H, type)                                                            \
  template <>                                                                           \
  PADDOCK_DEVICE void mma_m16n8k16<H>(float(&d)[4], const uint32_t(&a)[4],              \
                                      const uint32_t(&b)[2]) {                          \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                 \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));   \
  }
PADDOCK_MMA(Bf16, "bf16")
PADDOCK_MMA(F16, "f16")
#undef PADDOCK_MMA

// ---- arithmetic ----
PADDOCK_DEVICE uint32_t float_bits(float f) { return __float_as_uint(f); }
PADDOCK_DEVICE float bits_float(uint32_t u) { return __uint_as_float(u); }
PADDOCK_DEVICE float to_f32(Bf16 h) { return __uint_as_float(uint32_t{h.bits} << 16); }
PADDOCK_DEVICE float to_f32(F16 h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits));
  return f;
}
template <typename H>
PADDOCK_DEVICE H from_f32(float f);
template <>
PADDOCK_DEVICE Bf16 from_f32<Bf16>(float f) {
  Bf16 h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h.bits) : "f"(f));
  return h;
}
template <>
PADDOCK_DEVICE F16 from_f32<F16>(float f) {
  F16 h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(f));
  return h;
}
template <typename H>
PADDOCK_DEVICE uint32_t pack2(float low, float high);
template <>
PADDOCK_DEVICE uint32_t pack2<Bf16>(float low, float high) {
  uint32_t u;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(high), "f"(low));
  return u;
}
template <>
PADDOCK_DEVICE uint32_t pack2<F16>(float low, float high) {
  uint32_t u;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(high), "f"(low));
  return u;
}
template <typename H>
PADDOCK_DEVICE F32x2 unpack2(uint32_t u) {
  return {to_f32(H{static_cast<uint16_t>(u)}), to_f32(H{static_cast<uint16_t>(u >> 16)})};
}
template <typename H>
PADDOCK_DEVICE uint32_t fma2(uint32_t a, uint32_t b, uint32_t c);
template <>
PADDOCK_DEVICE uint32_t fma2<Bf16>(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
PADDOCK_DEVICE int32_t dp4a(int32_t a, int32_t b, int32_t c) { return __dp4a(a, b, c); }
template <uint32_t kMask>
PADDOCK_DEVICE uint32_t and_or(uint32_t x, uint32_t bits) {
  uint32_t y;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(y) : "r"(x), "n"(kMask), "r"(bits));
  return y;
}
PADDOCK_DEVICE uint32_t byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
  return __byte_perm(a, b, selector);
}
PADDOCK_DEVICE float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
PADDOCK_DEVICE float fast_exp(float x) { return __expf(x); }
PADDOCK_DEVICE float exp(float x) { return expf(x); }
PADDOCK_DEVICE float sqrt(float x) { return sqrtf(x); }
PADDOCK_DEVICE float fast_log2(float x) { return __log2f(x); }
PADDOCK_DEVICE float rsqrt(float x) { return rsqrtf(x); }
PADDOCK_DEVICE double cos(double x) { return ::cos(x); }
PADDOCK_DEVICE double sin(double x) { return ::sin(x); }
PADDOCK_DEVICE float fmin(float a, float b) { return fminf(a, b); }
PADDOCK_DEVICE float fmax(float a, float b) { return fmaxf(a, b); }
PADDOCK_DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
PADDOCK_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

}  // namespace paddock::simt
