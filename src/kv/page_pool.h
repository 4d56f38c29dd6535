// Page ids and their states. The bytes belong to the backend; here are only numbers.
#pragma once

#include <cstdint>
#include <vector>

namespace paddock {

/// Hands out page ids in LIFO order from a fixed set. Reference-counted. No allocation after the
/// constructor.
class PagePool {
 public:
  explicit PagePool(int32_t n_pages);
  int32_t allocate();  // a page with one reference, or -1
  void retain(int32_t page);
  bool release(int32_t page);  // true if that was the last reference
  int32_t references(int32_t page) const { return references_[page]; }
  int32_t free_pages() const { return static_cast<int32_t>(free_.size()); }
  int32_t n_pages() const { return static_cast<int32_t>(references_.size()); }

 private:
  std::vector<int32_t> references_;
  std::vector<int32_t> free_;
};

}  // namespace paddock
