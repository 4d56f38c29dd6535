// device.h for any compiler but nvcc: kernels run on the CPU, checked. Include cuda/device.h
// instead.
#pragma once

#include <cstring>
#include <tuple>
#include <type_traits>

#include "support/simt/core.h"

#define PADDOCK_KERNEL(...)
#define PADDOCK_DEVICE inline
#define PADDOCK_UNROLL
#define PADDOCK_UNROLL_BY(n)
#define PADDOCK_SITE(kind, name)                                                      \
  ([]() -> ::paddock::simt::Site& {                                                   \
    static ::paddock::simt::Site paddock_site{                                        \
        ::paddock::simt::SiteKind::kind, name, {__builtin_FILE(), __builtin_LINE()}}; \
    return paddock_site;                                                              \
  }())
#define PADDOCK_AT_SITE(kind, name, action)                                 \
  do {                                                                      \
    ::paddock::simt::Site& paddock_site_here = PADDOCK_SITE(kind, name);    \
    if (!::paddock::simt::meet(paddock_site_here)) ::paddock::simt::action; \
  } while (false)
#define PADDOCK_SYNC(site) PADDOCK_AT_SITE(kBarrier, site, sync_block(paddock_site_here))
#define PADDOCK_SYNC_WARP(site) PADDOCK_AT_SITE(kWarpBarrier, site, sync_warp(paddock_site_here))
#define PADDOCK_FENCE(site) PADDOCK_AT_SITE(kFence, site, fence())
#define PADDOCK_CP_ASYNC_WAIT(site, n) \
  PADDOCK_AT_SITE(kCopyWait, site, copy_async_wait(n, paddock_site_here.where))
#define PADDOCK_CHECKED(site, condition) \
  (::paddock::simt::meet(PADDOCK_SITE(kBoundsCheck, site)) || (condition))
#define PADDOCK_SHARED(T, name, count)                                                            \
  T* const name = ([] {                                                                           \
    static const char key = 0;                                                                    \
    return static_cast<T*>(::paddock::simt::static_shared(&key, sizeof(T) * (count), #name,       \
                                                          {__builtin_FILE(), __builtin_LINE()})); \
  }())
#define PADDOCK_LAUNCH(kernel, ...) ::paddock::simt::launch(#kernel, kernel, __VA_ARGS__)
// The line of the caller, as last parameters.
#define PADDOCK_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace paddock::simt {

struct U32x2 {
  uint32_t x, y;
};
struct U32x4 {
  uint32_t x, y, z, w;
};
struct F32x2 {
  float x, y;
};
struct F32x4 {
  float x, y, z, w;
};

inline int thread_x() { return place.thread; }
inline int block_x() { return static_cast<int>(place.block.x); }
inline int block_y() { return static_cast<int>(place.block.y); }
inline int block_z() { return static_cast<int>(place.block.z); }
inline int grid_x() { return static_cast<int>(place.grid.x); }
inline int grid_y() { return static_cast<int>(place.grid.y); }
inline int grid_z() { return static_cast<int>(place.grid.z); }
inline int block_size() { return place.block_size; }
inline int lane() { return place.thread % kWarpSize; }
inline int warp() { return place.thread / kWarpSize; }

// ---- memory ----
template <typename T>
T checked_read(const void* p, size_t alignment, Access kind, Where where) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, access(p, sizeof(T), alignment, kind, where), sizeof(T));
  return value;
}
template <typename T>
void checked_write(void* p, const T& value, size_t alignment, Where where) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(access(p, sizeof(T), alignment, Access::kWrite, where), &value, sizeof(T));
}
template <typename T>
T load(const T* p, PADDOCK_HERE) {
  return checked_read<T>(p, alignof(T), Access::kRead, {file, line});
}
template <typename T>
T load_const(const T* p, PADDOCK_HERE) {
  return checked_read<T>(p, alignof(T), Access::kReadConst, {file, line});
}
template <typename T>
T load_stream(const T* p, PADDOCK_HERE) {
  return load_const(p, file, line);
}
template <typename T>
void store(T* p, Same<T> value, PADDOCK_HERE) {
  checked_write(p, value, alignof(T), {file, line});
}
template <typename T>
void store_stream(T* p, Same<T> value, PADDOCK_HERE) {
  checked_write(p, value, sizeof(T), {file, line});
}
template <typename V>
V load_vec(const void* p, PADDOCK_HERE) {
  return checked_read<V>(p, sizeof(V), Access::kRead, {file, line});
}
template <typename V>
V load_const_vec(const void* p, PADDOCK_HERE) {
  return checked_read<V>(p, sizeof(V), Access::kReadConst, {file, line});
}
template <typename V>
V load_stream_vec(const void* p, PADDOCK_HERE) {
  return load_const_vec<V>(p, file, line);
}
template <typename V>
void store_vec(void* p, V value, PADDOCK_HERE) {
  checked_write(p, value, sizeof(V), {file, line});
}

template <typename T, typename Update>
T atomic_update(T* p, Update update, Where where) {
  std::byte* at = access(p, sizeof(T), sizeof(T), Access::kAtomic, where);
  T old;
  std::memcpy(&old, at, sizeof(T));
  const T next = update(old);
  std::memcpy(at, &next, sizeof(T));
  return old;
}
template <typename T>
T atomic_add(T* p, Same<T> v, PADDOCK_HERE) {
  static_assert(std::is_same_v<T, int32_t> || std::is_same_v<T, uint32_t> ||
                std::is_same_v<T, int64_t> || std::is_same_v<T, uint64_t> ||
                std::is_same_v<T, float>);
  if constexpr (std::is_integral_v<T>) {
    using U = std::make_unsigned_t<T>;  // wraps around as the hardware does
    return atomic_update(
        p, [v](T old) { return static_cast<T>(static_cast<U>(old) + static_cast<U>(v)); },
        {file, line});
  } else {
    return atomic_update(p, [v](T old) { return old + v; }, {file, line});
  }
}
template <typename T>
inline constexpr bool kIs32Bits = std::is_same_v<T, int32_t> || std::is_same_v<T, uint32_t>;
template <typename T>
T atomic_max(T* p, Same<T> v, PADDOCK_HERE) {
  static_assert(kIs32Bits<T>);
  return atomic_update(p, [v](T old) { return old < v ? v : old; }, {file, line});
}
template <typename T>
T atomic_exchange(T* p, Same<T> v, PADDOCK_HERE) {
  static_assert(kIs32Bits<T>);
  return atomic_update(p, [v](T) { return v; }, {file, line});
}
template <typename T>
T atomic_cas(T* p, Same<T> expected, Same<T> v, PADDOCK_HERE) {
  static_assert(kIs32Bits<T>);
  return atomic_update(p, [=](T old) { return old == expected ? v : old; }, {file, line});
}

template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(dynamic_shared_base());
}
inline void cp_async16(void* shared, const void* global, int bytes, PADDOCK_HERE) {
  copy_async(shared, global, bytes, {file, line});
}
inline void cp_async_commit() { copy_async_commit(); }

// ---- host ----
template <typename... Params, typename... Args>
int launch(const char* name, void (*kernel)(Params...), Grid grid, int block, size_t dynamic_shared,
           Stream, Args... args) {
  const auto run = [=, values = std::tuple<Params...>(args...)] {
    return run_grid(name, grid, block, dynamic_shared, [&] { std::apply(kernel, values); });
  };
  if (recorder == nullptr) return run();
  recorder->push_back(run);
  return 0;
}

}  // namespace paddock::simt

#include "support/simt/device_host_warp.h"
