// The one header that CUDA kernels include. nvcc sees intrinsics and inline PTX at no cost; any
// other compiler sees a harness that runs the same source on the CPU and checks it
// (docs/cuda-kernels.md).
//
// Rules for a kernel:
//  - Device memory is touched only through the functions below. In the harness its addresses are
//  not
//    mapped, so that `p[i]` is reported ("raw access"). Registers and local arrays are ordinary
//    C++.
//  - Blocks are one-dimensional, a multiple of 32 threads, at most 1024; grids have x, y and z.
//  - A warp operation (marked W) is met by all 32 lanes together, at the same line.
//  - Sites are string literals, unique in their file. A test switches each one off ("mutant") and
//    must then fail; so a barrier, wait or bounds check that no test needs shows itself.
//  - No static or global variables, no exceptions, no recursion, no calls of the C library.
//
// Kernels                    PADDOCK_KERNEL(threads_per_block[, min_blocks]) void k(Args args)
// {...}
//                            PADDOCK_DEVICE T f(...) {...}       both may be templates
//                            PADDOCK_UNROLL before a loop; PADDOCK_UNROLL_BY(n): n turns at once
// Where am I                 thread_x() block_x() block_y() block_z() grid_x() grid_y() grid_z()
//                            block_size() lane() warp()
// Barriers                   PADDOCK_SYNC(site)         all threads of the block that have not
//                                                     ended
//                            PADDOCK_SYNC_WARP(site)    W; orders memory within the warp
//                            PADDOCK_FENCE(site)        __threadfence: before telling another block
//                                                       through an atomic, and after being told
// Bounds                     PADDOCK_CHECKED(site, condition)    the condition; `true` in its
// mutant Memory, global or shared   load(p) store(p, v)                 T* of any trivial T
//                            load_vec<V>(p) store_vec(p, v)      p of any type, aligned to
//                            sizeof(V)
//   read-only in this launch load_const(p) load_const_vec<V>(p)  ld.global.nc
//   ... and read only once   load_stream(p) load_stream_vec<V>(p)  does not displace others in L1
//   written, not read again  store_stream(p, v)                  st.cs, T of 1, 2, 4, 8, 16 bytes
//                            V: U32x2 U32x4 F32x2 F32x4, with members x y (z w)
// Atomics                    atomic_add (int32 uint32 int64 uint64 float) atomic_max (int32 uint32)
//   return the old value     atomic_exchange atomic_cas(p, expected, v) (int32 uint32)
// Shared memory              PADDOCK_SHARED(T, name, count);    `name` decays to T*; no
// sizeof(name)
//                            T* p = dynamic_shared<T>();        size from the launch; 16-byte
//                            aligned Both hold nothing when a block starts.
// Asynchronous copies        cp_async16(shared, global, bytes)  16 bytes, those past `bytes`
// (0..16)
//                            become zero; both addresses aligned to 16
//                            cp_async_commit()                  closes a group of this thread's
//                            copies PADDOCK_CP_ASYNC_WAIT(site, n)     until at most n groups are
//                            under way (n
//                                                               constant); others need a barrier
//                                                               besides
// Warps                      W shfl(v, lane) shfl_xor(v, mask) shfl_down(v, delta)   4 or 8 bytes
//                            W ballot(p) any(p) all(p); first_bit(bits): the lowest, -1 if none
//                            W warp_sum(v) warp_max(v)   float; xor 16, 8, 4, 2, 1: equal in all
//                            lanes
//   None of these orders memory: only PADDOCK_SYNC_WARP does.
// Matrices                   W ldmatrix_x4(r, row) ldmatrix_x4_trans(r, row) ldmatrix_x2[_trans](r,
//                            row)
//                              lane 8*i + j gives row j (16 bytes, shared) of 8x8 matrix i; r[i] of
//                              lane l holds [l/4][2*(l%4)] (low half) and [l/4][2*(l%4)+1] (high);
//                              _trans: [2*(l%4)][l/4] and [2*(l%4)+1][l/4]
//                            W mma_m16n8k16<Bf16 or F16>(d, a, b)    d += a * b, d float[4],
//                              a uint32[4], b uint32[2]. With g = lane/4, t = lane%4 and pairs
//                              (low, high) along k: a[0] A[g][2t..]  a[1] A[g+8][2t..]  a[2]
//                              A[g][2t+8..]  a[3] A[g+8][2t+8..] b[0] B[2t..][g]  b[1] B[2t+8..][g]
//                              d[0] D[g][2t]  d[1] D[g][2t+1]  d[2] D[g+8][2t]  d[3] D[g+8][2t+1]
// 16-bit floats              struct Bf16, F16 {uint16_t bits}; to_f32(h); from_f32<H>(f), nearest
//                            even;
//                            pack2<H>(low, high) -> uint32; unpack2<H>(u) -> F32x2
//                            as in kernels/half.h, but for the payload of NaN;
//                            fma2<Bf16>(a, b, c) of packed pairs, each rounded once
// Arithmetic                 fast_exp(x) fast_exp2(x): approximate on the device, results below
//                            2^-126 may be zero; fast_log2(x) rsqrt(x) fma(a, b, c)
//                            min(a, b) max(a, b) (of a float and NaN: the float); float_bits(f) bits_float(u)
//                            mul(a, b) rounded by itself: a * b may be fused with a sum, so where
//                            bits are claimed to be a host's, products are written with it
//                            dp4a(a, b, c) = c + four products of signed bytes; byte_perm(a, b,
//                            selector); and_or<mask>(x, bits) = (x & mask) | bits
// Host                       int error = PADDOCK_LAUNCH(kernel, Grid{x, y, z}, block,
//                            dynamic_shared_bytes, stream, args...)     0 or a cudaError_t;
//                            brackets around template kernels: PADDOCK_LAUNCH((k<8, 64>), ...).
//                            Stream is cudaStream_t as void*.
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
#else
#include "support/simt/device_host.h"
#include "support/simt/device_host_warp.h"
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
