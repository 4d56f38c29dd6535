// The pages of the KV pool as bytes: read, saved to host memory and brought back, between steps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace paddock {

/// Memory of PageStore::make_host_pages.
class HostPages {
 public:
  virtual ~HostPages() = default;
  std::byte* page(int64_t i) const { return data_ + i * page_bytes_; }

 protected:
  HostPages(std::byte* data, int64_t page_bytes) : data_(data), page_bytes_(page_bytes) {}

 private:
  std::byte* data_;
  int64_t page_bytes_;
};

/// A page of the pool and its place in a HostPages.
struct PageCopy {
  int32_t page;
  std::byte* host;
};

/// Steps need copy_page(), give_back() and take_back(). The copies to host memory, and read_page(),
/// are asked for by tests alone: what a second place of pages would stand on (docs/architecture.md,
/// Tiers) is held by tests until there is one.
class PageStore {
 public:
  virtual ~PageStore() = default;
  /// Copies a page of page_bytes() to host memory, in the CPU's order of keys (KeyOrder::kByDim).
  virtual void read_page(int32_t page, std::span<std::byte> out) const = 0;
  /// Host memory for whole pages, in the backend's own order of bytes, one after another. Must go
  /// before the backend does.
  virtual std::unique_ptr<HostPages> make_host_pages(int64_t n) = 0;
  /// Starts copies to host memory, beside what steps do from now on: of what is in the pages after
  /// the steps so far. Pages must not be written, nor the host memory read, before the copies are
  /// done. Returns a ticket; tickets grow.
  virtual int64_t save_pages(std::span<const PageCopy> copies) = 0;
  /// Starts copies from host memory into pages that no step so far will read. Later steps find them
  /// there; the host memory must not be written before the copies are done.
  virtual int64_t load_pages(std::span<const PageCopy> copies) = 0;
  /// Whether all copies up to that ticket are done.
  virtual bool copies_done(int64_t ticket) = 0;
  virtual void wait_for_copies(int64_t ticket) = 0;
  /// Copies a page into another one, which nothing under way reads: after the steps so far, before
  /// the next.
  virtual void copy_page(int32_t from, int32_t to) = 0;
  /// Pages that nobody uses before take_back(): their memory goes back to the system, where a
  /// device can do that, and with it what was in them.
  virtual void give_back(int32_t /*first*/, int32_t /*n*/) {}
  /// They are to be used again: their memory is really there once this returns.
  virtual void take_back(int32_t /*first*/, int32_t /*n*/) {}
  /// Fills a free page with NaN: whoever still read it would be found out.
  virtual void poison_page(int32_t page) = 0;
};

}  // namespace paddock
