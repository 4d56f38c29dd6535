// The page pool in the host's memory.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "backend/backend.h"
#include "core/aligned_buffer.h"

namespace paddock {

class CpuPages final : public PageStore {
 public:
  /// Bytes that reserve() takes.
  static uint64_t bytes(const BackendLimits& limits);
  void reserve(const BackendLimits& limits);
  const KvView<KeyOrder::kByDim, uint8_t>& view() const { return view_; }

  void read_page(int32_t page, std::span<std::byte> out) const override;
  std::unique_ptr<HostPages> make_host_pages(int64_t n) override;
  /// Copies are done when they have been asked for.
  int64_t save_pages(std::span<const PageCopy> copies) override;
  int64_t load_pages(std::span<const PageCopy> copies) override;
  bool copies_done(int64_t) override { return true; }
  void wait_for_copies(int64_t) override {}
  void copy_page(int32_t from, int32_t to) override;
  void poison_page(int32_t page) override;
  void give_back(int32_t first, int32_t n) override;
  void take_back(int32_t first, int32_t n) override;

 private:
  size_t page_bytes() const { return static_cast<size_t>(view_.page_bytes()); }

  AlignedBuffer pool_;
  KvView<KeyOrder::kByDim, uint8_t> view_;  // of pool_
};

/// Memory of `bytes`: the old one where it has that size, else another, zeroed. The old one goes
/// first, because both may not fit.
inline void fit(AlignedBuffer& buffer, uint64_t bytes, const char* what) {
  if (buffer.size() == bytes) return;
  buffer = AlignedBuffer();
  buffer = AlignedBuffer(bytes, what);
}

}  // namespace paddock
