// The page pool in device memory, and copies of its pages to and from the host.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "backend/backend.h"
#include "backend/cuda/device_runtime.h"

namespace paddock::cuda {

/// Copies run on the second stream, beside the steps. Errors: kDevice, and kOutOfMemory where
/// memory is taken.
class DevicePages {
 public:
  explicit DevicePages(std::shared_ptr<DeviceRuntime> runtime) : runtime_(std::move(runtime)) {}

  /// Bytes that reserve() takes.
  static uint64_t bytes(const BackendLimits& limits);
  void reserve(const BackendLimits& limits);
  const KvView<KeyOrder::kBySlot, uint8_t>& view() const { return view_; }

  /// A page in the CPU's order of keys, once everything asked for so far has been done.
  void read(int32_t page, std::span<std::byte> out) const;
  void poison(int32_t page);

  std::unique_ptr<HostPages> make_host_pages(int64_t n);
  /// Number for is_done() and wait_for().
  int64_t save(std::span<const PageCopy> copies);
  int64_t load(std::span<const PageCopy> copies);
  bool is_done(int64_t ticket) { return runtime_->side_reached(ticket); }
  void wait_for(int64_t ticket) { runtime_->side_synchronize(ticket); }
  /// What is asked for from now on sees the pages loaded so far.
  void join_loads();

 private:
  template <typename Copy>
  int64_t copy(std::span<const PageCopy> copies, const Copy& copy_run);

  std::shared_ptr<DeviceRuntime> runtime_;
  DeviceArray pool_;
  KvView<KeyOrder::kBySlot, uint8_t> view_;  // of pool_
  bool loads_ = false;                       // pages may be on their way in
};

}  // namespace paddock::cuda
