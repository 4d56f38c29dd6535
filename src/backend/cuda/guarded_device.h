// A device whose first failure is remembered: it may have lost anything, so that from then on every
// step is refused.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend/cuda/device_runtime.h"
#include "core/fail.h"

namespace paddock::cuda {

class GuardedDevice {
 public:
  explicit GuardedDevice(std::shared_ptr<DeviceRuntime> runtime) : runtime_(std::move(runtime)) {}

  /// For what may fail without consequences, such as taking memory.
  const std::shared_ptr<DeviceRuntime>& runtime() const { return runtime_; }
  Stream stream() const { return runtime_->stream(); }

  /// Error kDevice if anything guarded has failed before.
  void check_usable() const {
    if (failure_.empty()) return;
    fail(ErrorCode::kDevice, "the device failed before ({}); {}", failure_,
         lost_ ? "restart the process" : "make a new engine");
  }

  /// Calls fn(runtime), and remembers what it throws.
  template <typename Fn>
  decltype(auto) guard(const Fn& fn) {
    try {
      return fn(*runtime_);
    } catch (const Error& e) {
      if (failure_.empty()) {
        failure_ = e.what();
        lost_ = !runtime_->usable();
      }
      throw;
    }
  }
  /// `error` is what the launcher of `kernel` returned.
  void launch(const char* kernel, int error) {
    guard([&](DeviceRuntime& r) { r.check(error, kernel); });
  }
  void copy_in(void* device, const void* host, uint64_t bytes) {
    guard([&](DeviceRuntime& r) { r.copy_in(device, host, bytes); });
  }
  void copy_out(void* host, const void* device, uint64_t bytes) {
    guard([&](DeviceRuntime& r) { r.copy_out(host, device, bytes); });
  }
  /// Numbers beyond the marks that there are: nothing happens.
  void mark(int number) {
    if (number < DeviceRuntime::kMarks) guard([&](DeviceRuntime& r) { r.mark(number); });
  }

 private:
  std::shared_ptr<DeviceRuntime> runtime_;
  std::string failure_;  // the first, if any
  bool lost_ = false;    // for the whole process
};

}  // namespace paddock::cuda
