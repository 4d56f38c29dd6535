// What the CUDA backend needs of a device beside our kernels: memory, one stream, dense products,
// clocks. Two are made: over the CUDA runtime and cuBLAS (cuda_runtime.cpp), and over the harness
// that runs kernels on the CPU (tests/support/simt).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "cuda/launch.h"
#include "paddock/stats.h"

namespace paddock::cuda {

struct DeviceMemoryInfo {
  uint64_t free_bytes = 0;
  uint64_t total_bytes = 0;
  uint64_t headroom_bytes = 0;  // of the free ones, not to be planned with
};

/// y[n, rows] (=, or += when accumulate) x[n, cols] * w[rows, cols]^T, float32 accumulation.
struct GemmArgs {
  const void* w;  // rows without gaps
  const void* x;
  int64_t x_stride;  // elements
  DType type;        // of w and x: kBF16 or kF32
  float* y;
  int64_t y_stride;
  int64_t rows, cols;
  int32_t n;
  bool accumulate;
};

/// Operations that were recorded, to be run again and again with the arguments they had.
class Recording {
 public:
  virtual ~Recording() = default;
};

/// One device and one stream on it: everything is asynchronous and in order unless it says
/// otherwise. Used by one thread at a time. Errors: kDevice, and kOutOfMemory where memory is asked
/// for.
class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;
  virtual std::string name() const = 0;  ///< such as "cuda:0 (NVIDIA H100)"
  virtual Stream stream() const = 0;
  virtual DeviceMemoryInfo memory() const = 0;
  /// How much runs at once: some launches cut their work to fit.
  virtual int32_t multiprocessors() const = 0;

  /// Aligned to 256 bytes. Error kOutOfMemory naming `what`, the bytes needed and those free.
  virtual void* allocate(uint64_t bytes, const char* what) = 0;
  virtual void release(void* memory) noexcept = 0;
  /// Host memory that copies need not stage.
  virtual void* allocate_pinned(uint64_t bytes, const char* what) = 0;
  virtual void release_pinned(void* memory) noexcept = 0;

  /// Pinned `host` memory must stay as it is until synchronize(); other memory may be reused at
  /// once.
  virtual void copy_in(void* device, const void* host, uint64_t bytes) = 0;
  virtual void copy_out(void* host, const void* device, uint64_t bytes) = 0;
  /// From one place of the device to another; they do not overlap.
  virtual void copy_within(void* to, const void* from, uint64_t bytes) = 0;
  virtual void fill(void* device, uint8_t byte, uint64_t bytes) = 0;
  virtual void gemm(const GemmArgs& args) = 0;
  /// Waits for everything asked for so far.
  virtual void synchronize() = 0;
  /// After an error: false if the process cannot use the device any more.
  virtual bool usable() noexcept = 0;
  /// Throws kDevice with the error's own words if `error`, returned by the launcher of `kernel`, is
  /// not 0.
  virtual void check(int error, const char* kernel) = 0;

  /// From here to end_recording() launches, products and marks are recorded instead of run; nothing
  /// else may be asked for.
  virtual void begin_recording() = 0;
  virtual std::unique_ptr<Recording> end_recording() = 0;
  virtual void discard_recording() noexcept = 0;
  virtual void replay(Recording& recording) = 0;

  /// The driver's view of the device, with the bytes of this process where it tells them. From any
  /// thread.
  virtual DeviceMemory driver_view() const = 0;

  // ---- a second stream, for copies beside the first
  /// Copies asked for from now on start when the first stream has come to where it is now.
  virtual void side_waits() = 0;
  /// The first stream goes on when the second has come to where it is now.
  virtual void wait_for_side() = 0;
  /// `host` memory is pinned.
  virtual void side_copy_in(void* device, const void* host, uint64_t bytes) = 0;
  virtual void side_copy_out(void* host, const void* device, uint64_t bytes) = 0;
  /// A number for where the second stream is now; numbers grow.
  virtual int64_t side_mark() = 0;
  virtual bool side_reached(int64_t mark) = 0;
  /// Waits until it has been reached.
  virtual void side_synchronize(int64_t mark) = 0;

  /// Remembers the moment the stream reaches this point, under a number from 0 to kMarks - 1.
  static constexpr int kMarks = 2048;
  virtual void mark(int number) = 0;
  /// Nanoseconds between two marks, once synchronize() has passed both.
  virtual int64_t nanoseconds(int from, int to) = 0;
};

/// Error kDevice if there is no driver, no such device, or it is too old.
std::shared_ptr<DeviceRuntime> open_device(int index);

/// Memory of a device, or pinned on the host, that goes back by itself.
template <bool kPinned>
class RuntimeArray {
 public:
  RuntimeArray() = default;
  RuntimeArray(std::shared_ptr<DeviceRuntime> runtime, uint64_t bytes, const char* what)
      : runtime_(std::move(runtime)), bytes_(bytes) {
    if (bytes == 0) return;
    data_ = kPinned ? runtime_->allocate_pinned(bytes, what) : runtime_->allocate(bytes, what);
  }
  ~RuntimeArray() {
    if (data_ == nullptr) return;
    kPinned ? runtime_->release_pinned(data_) : runtime_->release(data_);
  }
  RuntimeArray(RuntimeArray&& other) noexcept { swap(other); }
  RuntimeArray& operator=(RuntimeArray&& other) noexcept {
    RuntimeArray(std::move(other)).swap(*this);
    return *this;
  }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  uint64_t bytes() const { return bytes_; }
  /// Other memory where the size differs; the old one goes first, because both may not fit.
  void resize(const std::shared_ptr<DeviceRuntime>& runtime, uint64_t bytes, const char* what) {
    if (bytes == bytes_) return;
    *this = RuntimeArray();
    *this = RuntimeArray(runtime, bytes, what);
  }

 private:
  void swap(RuntimeArray& other) noexcept {
    std::swap(runtime_, other.runtime_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  std::shared_ptr<DeviceRuntime> runtime_;
  void* data_ = nullptr;
  uint64_t bytes_ = 0;
};
using DeviceArray = RuntimeArray<false>;
using PinnedArray = RuntimeArray<true>;

}  // namespace paddock::cuda
