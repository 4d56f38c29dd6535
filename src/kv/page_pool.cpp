#include "kv/page_pool.h"

namespace paddock {

PagePool::PagePool(int32_t n_pages) : references_(n_pages, 0) {
  free_.reserve(n_pages);
  for (int32_t page = n_pages - 1; page >= 0; --page) free_.push_back(page);
}

int32_t PagePool::allocate() {
  if (free_.empty()) return -1;
  const int32_t page = free_.back();
  free_.pop_back();
  references_[page] = 1;
  return page;
}

void PagePool::retain(int32_t page) { ++references_[page]; }

bool PagePool::release(int32_t page) {
  if (--references_[page] > 0) return false;
  free_.push_back(page);
  return true;
}

}  // namespace paddock
