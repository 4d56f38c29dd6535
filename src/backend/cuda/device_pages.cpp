#include "backend/cuda/device_pages.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/checked.h"

namespace paddock::cuda {

uint64_t DevicePages::bytes(const BackendLimits& limits) {
  return checked_mul(limits.pool.n_pages, limits.pool.geometry.page_bytes(), "the page pool",
                     ErrorCode::kOutOfMemory);
}

void DevicePages::reserve(const BackendLimits& limits) {
  geometry_ = limits.pool.geometry;
  pool_.resize(runtime_, bytes(limits), "the page pool");
}

void DevicePages::read(int32_t number, std::span<std::byte> out) const {
  const PageGeometry& g = geometry_;
  const auto bytes = static_cast<uint64_t>(g.page_bytes());
  std::vector<std::byte> own(bytes);
  runtime_->wait_for_side();
  runtime_->copy_out(own.data(), page(number), bytes);
  runtime_->synchronize();
  const auto size = static_cast<size_t>(g.element_bytes);
  for (int32_t h = 0; h < g.n_kv_heads; ++h) {
    for (int32_t slot = 0; slot < g.block_size; ++slot) {
      for (int32_t d = 0; d < g.head_dim; ++d) {
        std::memcpy(out.data() + static_cast<size_t>(g.k_offset(h, d, slot)) * size,
                    own.data() + static_cast<size_t>(g.k_slot_offset(h, slot, d)) * size, size);
      }
    }
  }
  const auto values = own.begin() + static_cast<int64_t>(bytes / 2);
  std::copy(values, own.end(), out.begin() + static_cast<int64_t>(bytes / 2));
}

void DevicePages::poison(int32_t number) {
  runtime_->fill(page(number), 0xFF, static_cast<uint64_t>(geometry_.page_bytes()));
}

std::unique_ptr<HostPages> DevicePages::make_host_pages(int64_t n) {
  struct Pages final : HostPages {
    Pages(PinnedArray taken, int64_t page_bytes)
        : HostPages(taken.as<std::byte>(), page_bytes), array(std::move(taken)) {}
    PinnedArray array;
  };
  const int64_t bytes = geometry_.page_bytes();
  return std::make_unique<Pages>(
      PinnedArray(runtime_, static_cast<uint64_t>(n * bytes), "saved pages"), bytes);
}

/// Calls copy_run(host, pages, bytes) for each run of pages that lie side by side at both ends.
template <typename Copy>
int64_t DevicePages::copy(std::span<const PageCopy> copies, const Copy& copy_run) {
  const int64_t bytes = geometry_.page_bytes();
  runtime_->side_waits();
  for (size_t i = 0; i < copies.size();) {
    size_t n = 1;
    while (i + n < copies.size() &&
           copies[i + n].page == copies[i].page + static_cast<int32_t>(n) &&
           copies[i + n].host == copies[i].host + static_cast<int64_t>(n) * bytes) {
      ++n;
    }
    copy_run(copies[i].host, page(copies[i].page),
             static_cast<uint64_t>(static_cast<int64_t>(n) * bytes));
    i += n;
  }
  return runtime_->side_mark();
}

int64_t DevicePages::save(std::span<const PageCopy> copies) {
  return copy(copies, [&](std::byte* host, uint8_t* pages, uint64_t bytes) {
    runtime_->side_copy_out(host, pages, bytes);
  });
}

int64_t DevicePages::load(std::span<const PageCopy> copies) {
  loads_ = true;
  return copy(copies, [&](const std::byte* host, uint8_t* pages, uint64_t bytes) {
    runtime_->side_copy_in(pages, host, bytes);
  });
}

void DevicePages::join_loads() {
  if (!loads_) return;
  runtime_->wait_for_side();
  loads_ = false;
}

}  // namespace paddock::cuda
