#include "backend/cuda/device_pages.h"

#include <cstring>
#include <vector>

#include "core/checked.h"

namespace paddock::cuda {

uint64_t DevicePages::bytes(const BackendLimits& limits) {
  return checked_mul(limits.pool.n_pages, limits.pool.geometry.page_bytes(), "the page pool",
                     ErrorCode::kOutOfMemory);
}

void DevicePages::reserve(const BackendLimits& limits) {
  pool_.resize(runtime_, bytes(limits), "the page pool");
  view_ = {pool_.as<uint8_t>(), limits.pool.geometry};
}

void DevicePages::read_page(int32_t number, std::span<std::byte> out) const {
  const PageGeometry& g = view_.geometry();
  const auto bytes = static_cast<uint64_t>(g.page_bytes());
  std::vector<uint8_t> own(bytes);
  runtime_->wait_for_side();
  runtime_->copy_out(own.data(), view_.page(number), bytes);
  runtime_->synchronize();
  // Pools of one page each.
  const KvView<KeyOrder::kBySlot> from(own.data(), g);
  const KvView<KeyOrder::kByDim, uint8_t> to(reinterpret_cast<uint8_t*>(out.data()), g);
  const auto element = static_cast<size_t>(g.element_bytes());
  for (int32_t h = 0; h < g.n_kv_heads; ++h) {
    for (int32_t slot = 0; slot < g.block_size; ++slot) {
      for (int32_t d = 0; d < g.head_dim; ++d) {
        std::memcpy(to.k(0, h, slot, d), from.k(0, h, slot, d), element);
        std::memcpy(to.v(0, h, slot, d), from.v(0, h, slot, d), element);
      }
    }
  }
}

void DevicePages::copy_page(int32_t from, int32_t to) {
  join_loads();
  device_.guard([&](DeviceRuntime& r) {
    r.copy_within(view_.page(to), view_.page(from), static_cast<uint64_t>(view_.page_bytes()));
  });
}

void DevicePages::poison_page(int32_t number) {
  runtime_->fill(view_.page(number), 0xFF, static_cast<uint64_t>(view_.page_bytes()));
}

std::unique_ptr<HostPages> DevicePages::make_host_pages(int64_t n) {
  struct Pages final : HostPages {
    Pages(PinnedArray taken, int64_t page_bytes)
        : HostPages(taken.as<std::byte>(), page_bytes), array(std::move(taken)) {}
    PinnedArray array;
  };
  const int64_t bytes = view_.page_bytes();
  return std::make_unique<Pages>(
      PinnedArray(runtime_, static_cast<uint64_t>(n * bytes), "saved pages"), bytes);
}

/// Calls copy_run(host, pages, bytes) for each run of pages that lie side by side at both ends.
template <typename Copy>
int64_t DevicePages::copy(std::span<const PageCopy> copies, const Copy& copy_run) {
  const int64_t bytes = view_.page_bytes();
  runtime_->side_waits();
  for (size_t i = 0; i < copies.size();) {
    size_t n = 1;
    while (i + n < copies.size() &&
           view_.page(copies[i + n].page) == view_.page(copies[i + n - 1].page) + bytes &&
           copies[i + n].host == copies[i + n - 1].host + bytes) {
      ++n;
    }
    copy_run(copies[i].host, view_.page(copies[i].page), n * static_cast<uint64_t>(bytes));
    i += n;
  }
  return runtime_->side_mark();
}

int64_t DevicePages::save_pages(std::span<const PageCopy> copies) {
  return device_.guard([&](DeviceRuntime& r) {
    return copy(copies, [&](std::byte* host, uint8_t* pages, uint64_t bytes) {
      r.side_copy_out(host, pages, bytes);
    });
  });
}

int64_t DevicePages::load_pages(std::span<const PageCopy> copies) {
  loads_ = true;
  return device_.guard([&](DeviceRuntime& r) {
    return copy(copies, [&](const std::byte* host, uint8_t* pages, uint64_t bytes) {
      r.side_copy_in(pages, host, bytes);
    });
  });
}

bool DevicePages::copies_done(int64_t ticket) {
  return device_.guard([&](DeviceRuntime& r) { return r.side_reached(ticket); });
}

void DevicePages::wait_for_copies(int64_t ticket) {
  device_.guard([&](DeviceRuntime& r) { r.side_synchronize(ticket); });
}

void DevicePages::join_loads() {
  if (!loads_) return;
  device_.guard([](DeviceRuntime& r) { r.wait_for_side(); });
  loads_ = false;
}

}  // namespace paddock::cuda
