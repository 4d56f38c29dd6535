// The page pool in device memory, and copies of its pages to and from the host.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "backend/backend.h"
#include "backend/cuda/guarded_device.h"

namespace paddock::cuda {

/// Copies run on the second stream, beside the steps.
class DevicePages final : public PageStore {
 public:
  explicit DevicePages(GuardedDevice& device) : device_(device), runtime_(device.runtime()) {}

  /// Bytes that reserve() takes.
  static uint64_t bytes(const BackendLimits& limits);
  void reserve(const BackendLimits& limits);
  const KvView<KeyOrder::kBySlot, uint8_t>& view() const { return view_; }
  /// What is asked for from now on sees the pages loaded so far.
  void join_loads();

  /// A page in the CPU's order of keys, once everything asked for so far has been done.
  void read_page(int32_t page, std::span<std::byte> out) const override;
  void copy_page(int32_t from, int32_t to) override;
  void poison_page(int32_t page) override;
  std::unique_ptr<HostPages> make_host_pages(int64_t n) override;
  int64_t save_pages(std::span<const PageCopy> copies) override;
  int64_t load_pages(std::span<const PageCopy> copies) override;
  bool copies_done(int64_t ticket) override;
  void wait_for_copies(int64_t ticket) override;

 private:
  template <typename Copy>
  int64_t copy(std::span<const PageCopy> copies, const Copy& copy_run);

  GuardedDevice& device_;
  std::shared_ptr<DeviceRuntime> runtime_;
  DeviceArray pool_;
  KvView<KeyOrder::kBySlot, uint8_t> view_;  // of pool_
  bool loads_ = false;                       // pages may be on their way in
};

}  // namespace paddock::cuda
