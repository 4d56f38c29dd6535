// The one header that CUDA kernels include: what a kernel may use of a device. nvcc sees intrinsics
// and inline PTX at no cost. Any other compiler sees the header that PADDOCK_DEVICE_HEADER names: a
// harness that runs the same source on the CPU and checks it (docs/cuda-kernels.md).
//
// Rules for a kernel:
//  - Device memory is touched only through the functions below. In the harness its addresses are
//    not mapped, so that `p[i]` is reported ("raw access"). Registers and local arrays are
//    ordinary C++.
//  - Blocks are one-dimensional, a multiple of 32 threads, at most 1024; grids have x, y and z.
//  - A warp operation (marked W) is met by all 32 lanes together, at the same line.
//  - Sites are string literals, unique in their file. A test switches each one off ("mutant") and
//    must then fail; so a barrier, wait or bounds check that no test needs shows itself.
//  - No static or global variables, no exceptions, no recursion, no calls of the C library.
//
// clang-format off
// Kernels
//   PADDOCK_KERNEL(threads_per_block[, min_blocks]) void k(Args args) {...}   may be a template
//   PADDOCK_DEVICE T f(...) {...}                                             likewise
//   PADDOCK_UNROLL                  before a loop; PADDOCK_UNROLL_BY(n): n turns at once
// Where am I
//   thread_x() block_x() block_y() block_z() grid_x() grid_y() grid_z() block_size() lane() warp()
// Barriers
//   PADDOCK_SYNC(site)              all threads of the block that have not ended
//   PADDOCK_SYNC_WARP(site)         W; orders memory within the warp
//   PADDOCK_FENCE(site)             __threadfence: before telling another block something by an
//                                   atomic, and after being told
// Bounds
//   PADDOCK_CHECKED(site, condition)   the condition; `true` where the site is switched off
// Memory, global or shared
//   load(p) store(p, v)             T* of any trivial T
//   load_vec<V>(p) store_vec(p, v)  p of any type, aligned to sizeof(V)
//                                   V: U32x2 U32x4 F32x2 F32x4, with members x y (z w)
//   load_const(p) load_const_vec<V>(p)     of what nobody writes during this launch (ld.global.nc)
//   load_stream(p) load_stream_vec<V>(p)   of that, if read only once: displaces nothing in L1
//   store_stream(p, v)              of what is not read again (st.cs); T of 1, 2, 4, 8 or 16 bytes
// Atomics, which return the old value
//   atomic_add                      int32 uint32 int64 uint64 float
//   atomic_max                      int32 uint32
//   atomic_exchange atomic_cas(p, expected, v)   int32 uint32
// Shared memory, which holds nothing when a block starts
//   PADDOCK_SHARED(T, name, count)  `name` decays to T*; it has no sizeof
//   T* p = dynamic_shared<T>()      of the size that the launch gives; aligned to 16 bytes
// Asynchronous copies
//   cp_async16(shared, global, bytes)   16 bytes, those past `bytes` (0 to 16) become zero; both
//                                   addresses aligned to 16
//   cp_async_commit()               closes a group of this thread's copies
//   PADDOCK_CP_ASYNC_WAIT(site, n)  until at most n groups of this thread are under way (constant);
//                                   for other threads' copies a barrier is needed besides
// Warps; none of these orders memory, only PADDOCK_SYNC_WARP does
//   W shfl(v, lane) shfl_xor(v, mask) shfl_down(v, delta)   of 4 or 8 bytes
//   W ballot(p) any(p) all(p); first_bit(bits): the lowest one, -1 if there is none
//   W warp_sum(v) warp_max(v)       float; by xor 16, 8, 4, 2, 1: all lanes have the same bits
// Matrices
//   W ldmatrix_x4(r, row) ldmatrix_x4_trans(r, row) ldmatrix_x2(r, row) ldmatrix_x2_trans(r, row)
//       lane 8*i + j gives row j (16 bytes, shared) of the 8x8 matrix i; r[i] of lane l holds
//       [l/4][2*(l%4)] (low half) and [l/4][2*(l%4)+1] (high half),
//       with _trans [2*(l%4)][l/4] and [2*(l%4)+1][l/4]
//   W mma_m16n8k16<Bf16 or F16>(d, a, b)   d += a * b; d float[4], a uint32[4], b uint32[2]
//       With g = lane/4, t = lane%4, and pairs (low, high) along k:
//       a[0] A[g][2t..]  a[1] A[g+8][2t..]  a[2] A[g][2t+8..]  a[3] A[g+8][2t+8..]
//       b[0] B[2t..][g]  b[1] B[2t+8..][g]
//       d[0] D[g][2t]    d[1] D[g][2t+1]    d[2] D[g+8][2t]    d[3] D[g+8][2t+1]
// 16-bit floats: struct Bf16, F16 {uint16_t bits}; as in kernels/half.h, but for the payload of NaN
//   to_f32(h) from_f32<H>(f)        to the nearest, ties to even
//   pack2<H>(low, high)             a uint32; unpack2<H>(u): an F32x2
//   fma2<Bf16>(a, b, c)             of packed pairs, each rounded once
// Arithmetic
//   fast_exp(x) fast_exp2(x)        approximate on the device; results below 2^-126 may be zero
//   fast_log2(x) rsqrt(x) fma(a, b, c) float_bits(f) bits_float(u)
//   min(a, b) max(a, b)             of a float and NaN: the float
//   mul(a, b)                       rounded by itself. a * b may be fused with a sum, so where bits
//                                   are claimed to be a host's, products are written with it
//   dp4a(a, b, c)                   c + four products of signed bytes
//   byte_perm(a, b, selector)       and and_or<mask>(x, bits) = (x & mask) | bits
// Host
//   int error = PADDOCK_LAUNCH(kernel, Grid{x, y, z}, block, dynamic_shared_bytes, stream, args...)
//       0 or a cudaError_t; template kernels in brackets: PADDOCK_LAUNCH((k<8, 64>), ...).
//       Stream is cudaStream_t as void*.
// clang-format on
#pragma once

#include <cstddef>
#include <cstdint>

namespace paddock::simt {

using Stream = void*;
struct Grid {
  uint32_t x = 1, y = 1, z = 1;
};
struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
/// T, where it is not to be deduced.
template <typename T>
struct SameType {
  using Type = T;
};
template <typename T>
using Same = typename SameType<T>::Type;
inline constexpr int kWarpSize = 32;
/// Dynamic shared memory that a block may ask for on every architecture from sm_80 except sm_86/89.
inline constexpr size_t kMaxDynamicShared = 163 * 1024;

}  // namespace paddock::simt

#if defined(__CUDACC__)
#include "device_cuda.h"
#include "device_cuda_warp.h"
#elif defined(PADDOCK_DEVICE_HEADER)
#include PADDOCK_DEVICE_HEADER
#else
#error "kernels are compiled by nvcc, or with PADDOCK_DEVICE_HEADER"
#endif

namespace paddock::simt {

template <typename T>
PADDOCK_DEVICE T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
PADDOCK_DEVICE T max(T a, T b) {
  return a < b ? b : a;
}
PADDOCK_DEVICE float min(float a, float b) { return fmin(a, b); }
PADDOCK_DEVICE float max(float a, float b) { return fmax(a, b); }

}  // namespace paddock::simt
