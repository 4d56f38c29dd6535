// device.h for nvcc: every function is an intrinsic or a line of PTX. Include device.h instead.
// Places, memory and launches; warps and arithmetic are in device_cuda_warp.h.
#pragma once

#include <mutex>
#include <vector>

#define PADDOCK_KERNEL(...) __global__ __launch_bounds__(__VA_ARGS__)
#define PADDOCK_DEVICE __device__ __forceinline__
#define PADDOCK_UNROLL _Pragma("unroll")
#define PADDOCK_UNROLL_BY(n) _Pragma(PADDOCK_TEXT(unroll n))
#define PADDOCK_TEXT(...) #__VA_ARGS__
#define PADDOCK_SHARED(T, name, count) __shared__ __align__(16) T name[count]
#define PADDOCK_SYNC(site) __syncthreads()
#define PADDOCK_SYNC_WARP(site) __syncwarp()
#define PADDOCK_FENCE(site) __threadfence()
#define PADDOCK_CHECKED(site, condition) (condition)
#define PADDOCK_CP_ASYNC_WAIT(site, n) asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory")
#define PADDOCK_LAUNCH(kernel, ...)                        \
  ::paddock::simt::launch(                                 \
      []() -> ::paddock::simt::SharedMemoryLimits& {       \
        static ::paddock::simt::SharedMemoryLimits limits; \
        return limits;                                     \
      }(),                                                 \
      kernel, __VA_ARGS__)

namespace paddock::simt {

using U32x2 = ::uint2;
using U32x4 = ::uint4;
using F32x2 = ::float2;
using F32x4 = ::float4;

PADDOCK_DEVICE int thread_x() { return static_cast<int>(threadIdx.x); }
PADDOCK_DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
PADDOCK_DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
PADDOCK_DEVICE int block_z() { return static_cast<int>(blockIdx.z); }
PADDOCK_DEVICE int grid_x() { return static_cast<int>(gridDim.x); }
PADDOCK_DEVICE int grid_y() { return static_cast<int>(gridDim.y); }
PADDOCK_DEVICE int grid_z() { return static_cast<int>(gridDim.z); }
PADDOCK_DEVICE int block_size() { return static_cast<int>(blockDim.x); }
PADDOCK_DEVICE int lane() { return static_cast<int>(threadIdx.x) & 31; }
PADDOCK_DEVICE int warp() { return static_cast<int>(threadIdx.x) >> 5; }

// ---- memory ----
template <size_t kBytes>
struct Chunk;
template <>
struct Chunk<1> {
  using Type = unsigned char;
};
template <>
struct Chunk<2> {
  using Type = unsigned short;
};
template <>
struct Chunk<4> {
  using Type = unsigned;
};
template <>
struct Chunk<8> {
  using Type = ::uint2;
};
template <>
struct Chunk<16> {
  using Type = ::uint4;
};

PADDOCK_DEVICE unsigned char load_once(const unsigned char* p) { return __ldcs(p); }
PADDOCK_DEVICE unsigned short load_once(const unsigned short* p) { return __ldcs(p); }
PADDOCK_DEVICE unsigned load_once(const unsigned* p) {
  unsigned v;
  asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}
PADDOCK_DEVICE ::uint2 load_once(const ::uint2* p) {
  ::uint2 v;
  asm("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
  return v;
}
PADDOCK_DEVICE ::uint4 load_once(const ::uint4* p) {
  ::uint4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(p));
  return v;
}

template <typename T>
PADDOCK_DEVICE T load(const T* p) {
  return *p;
}
template <typename T>
PADDOCK_DEVICE void store(T* p, Same<T> value) {
  *p = value;
}
template <typename T>
PADDOCK_DEVICE T load_const(const T* p) {
  using C = typename Chunk<alignof(T)>::Type;
  constexpr size_t kChunks = sizeof(T) / alignof(T);
  C chunks[kChunks];
  PADDOCK_UNROLL for (size_t i = 0; i < kChunks; ++i) {
    chunks[i] = __ldg(reinterpret_cast<const C*>(p) + i);
  }
  T value;
  memcpy(&value, chunks, sizeof(T));
  return value;
}
template <typename T>
PADDOCK_DEVICE T load_stream(const T* p) {
  using C = typename Chunk<alignof(T)>::Type;
  constexpr size_t kChunks = sizeof(T) / alignof(T);
  C chunks[kChunks];
  PADDOCK_UNROLL for (size_t i = 0; i < kChunks; ++i) {
    chunks[i] = load_once(reinterpret_cast<const C*>(p) + i);
  }
  T value;
  memcpy(&value, chunks, sizeof(T));
  return value;
}
template <typename T>
PADDOCK_DEVICE void store_stream(T* p, Same<T> value) {
  using C = typename Chunk<sizeof(T)>::Type;
  C chunk;
  memcpy(&chunk, &value, sizeof(T));
  __stcs(reinterpret_cast<C*>(p), chunk);
}
template <typename V>
PADDOCK_DEVICE V load_vec(const void* p) {
  return *static_cast<const V*>(p);
}
template <typename V>
PADDOCK_DEVICE V load_const_vec(const void* p) {
  return load_const(static_cast<const V*>(p));
}
template <typename V>
PADDOCK_DEVICE V load_stream_vec(const void* p) {
  return load_stream(static_cast<const V*>(p));
}
template <typename V>
PADDOCK_DEVICE void store_vec(void* p, V value) {
  *static_cast<V*>(p) = value;
}

PADDOCK_DEVICE int32_t atomic_add(int32_t* p, int32_t v) { return atomicAdd(p, v); }
PADDOCK_DEVICE uint32_t atomic_add(uint32_t* p, uint32_t v) { return atomicAdd(p, v); }
PADDOCK_DEVICE float atomic_add(float* p, float v) { return atomicAdd(p, v); }
PADDOCK_DEVICE uint64_t atomic_add(uint64_t* p, uint64_t v) {
  return atomicAdd(reinterpret_cast<unsigned long long*>(p), static_cast<unsigned long long>(v));
}
PADDOCK_DEVICE int64_t atomic_add(int64_t* p, int64_t v) {
  return static_cast<int64_t>(atomic_add(reinterpret_cast<uint64_t*>(p), static_cast<uint64_t>(v)));
}
PADDOCK_DEVICE int32_t atomic_max(int32_t* p, int32_t v) { return atomicMax(p, v); }
PADDOCK_DEVICE uint32_t atomic_max(uint32_t* p, uint32_t v) { return atomicMax(p, v); }
PADDOCK_DEVICE int32_t atomic_exchange(int32_t* p, int32_t v) { return atomicExch(p, v); }
PADDOCK_DEVICE uint32_t atomic_exchange(uint32_t* p, uint32_t v) { return atomicExch(p, v); }
PADDOCK_DEVICE int32_t atomic_cas(int32_t* p, int32_t old, int32_t v) {
  return atomicCAS(p, old, v);
}
PADDOCK_DEVICE uint32_t atomic_cas(uint32_t* p, uint32_t old, uint32_t v) {
  return atomicCAS(p, old, v);
}

template <typename T>
PADDOCK_DEVICE T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char paddock_dynamic_shared[];
  return reinterpret_cast<T*>(paddock_dynamic_shared);
}
PADDOCK_DEVICE uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
PADDOCK_DEVICE void cp_async16(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(bytes)
               : "memory");
}
PADDOCK_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// ---- host ----
/// The dynamic shared memory that a kernel may have so far, by device. It only grows, because other
/// threads launch the same kernel.
class SharedMemoryLimits {
 public:
  template <typename... Params>
  cudaError_t raise(void (*kernel)(Params...), size_t bytes) {
    if (bytes == 0) return cudaSuccess;
    int device = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error != cudaSuccess) return error;
    const std::lock_guard lock(mutex_);
    if (device >= static_cast<int>(bytes_.size())) bytes_.resize(device + 1);
    if (bytes <= bytes_[device]) return cudaSuccess;
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(bytes));
    if (error != cudaSuccess) return error;
    // Prefer shared memory to L1, so that as many blocks as registers allow run at once.
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                 cudaSharedmemCarveoutMaxShared);
    if (error == cudaSuccess) bytes_[device] = bytes;
    return error;
  }

 private:
  std::mutex mutex_;
  std::vector<size_t> bytes_;
};

template <typename... Params, typename... Args>
int launch(SharedMemoryLimits& limits, void (*kernel)(Params...), Grid grid, int block,
           size_t dynamic_shared, Stream stream, Args... args) {
  cudaError_t error = limits.raise(kernel, dynamic_shared);
  if (error == cudaSuccess) {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(grid.x, grid.y, grid.z);
    config.blockDim = dim3(static_cast<unsigned>(block));
    config.dynamicSmemBytes = dynamic_shared;
    config.stream = static_cast<cudaStream_t>(stream);
    error = cudaLaunchKernelEx(&config, kernel, Params(args)...);
  }
  // The runtime also keeps the error for whoever asks next on this thread: take it away, it has
  // been reported.
  if (error != cudaSuccess) cudaGetLastError();
  return static_cast<int>(error);
}

}  // namespace paddock::simt
