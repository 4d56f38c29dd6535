#include "backend/cpu/cpu_pages.h"

#include <cstring>

#include "core/checked.h"

namespace paddock {

uint64_t CpuPages::bytes(const BackendLimits& limits) {
  return checked_mul(limits.pool.n_pages, limits.pool.geometry.page_bytes(), "the page pool",
                     ErrorCode::kOutOfMemory);
}

void CpuPages::reserve(const BackendLimits& limits) {
  fit(pool_, bytes(limits), "the page pool");
  view_ = {pool_.data(), limits.pool.geometry};
}

void CpuPages::read_page(int32_t number, std::span<std::byte> out) const {
  std::memcpy(out.data(), view_.page(number), page_bytes());
}

std::unique_ptr<HostPages> CpuPages::make_host_pages(int64_t n) {
  struct Pages final : HostPages {
    Pages(AlignedBuffer taken, int64_t page_bytes)
        : HostPages(reinterpret_cast<std::byte*>(taken.data()), page_bytes),
          buffer(std::move(taken)) {}
    AlignedBuffer buffer;
  };
  return std::make_unique<Pages>(
      AlignedBuffer(static_cast<uint64_t>(n * view_.page_bytes()), "saved pages"),
      view_.page_bytes());
}

int64_t CpuPages::save_pages(std::span<const PageCopy> copies) {
  for (const PageCopy& c : copies) {
    std::memcpy(c.host, view_.page(c.page), page_bytes());
  }
  return 0;
}

int64_t CpuPages::load_pages(std::span<const PageCopy> copies) {
  for (const PageCopy& c : copies) {
    std::memcpy(view_.page(c.page), c.host, page_bytes());
  }
  return 0;
}

void CpuPages::copy_page(int32_t from, int32_t to) {
  std::memcpy(view_.page(to), view_.page(from), page_bytes());
}

void CpuPages::give_back(int32_t first, int32_t n) {
  pool_.give_back(first * view_.page_bytes(), n * view_.page_bytes());
}

void CpuPages::take_back(int32_t first, int32_t n) {
  pool_.take_back(first * view_.page_bytes(), n * view_.page_bytes());
}

void CpuPages::poison_page(int32_t number) { std::memset(view_.page(number), 0xFF, page_bytes()); }

}  // namespace paddock
