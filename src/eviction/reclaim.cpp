// The order of cached blocks that nobody references: least recently used, in O(1) per event.
//
// A doubly linked list through arrays indexed by block; slot 0 is the list's own head, block b
// lives in slot b + 1.
#include "paddock/eviction.h"

namespace paddock {

ReclaimPolicy::ReclaimPolicy() : links_{{0, 0}} {}
ReclaimPolicy::~ReclaimPolicy() = default;

std::string ReclaimPolicy::name() const { return "lru"; }

void ReclaimPolicy::on_cached(int32_t block, int64_t) {
  const int32_t slot = block + 1;
  if (slot >= static_cast<int32_t>(links_.size())) links_.resize(slot + 1, {-1, -1});
  unlink(block);
  const int32_t newest = links_[0].before;
  links_[slot] = {newest, 0};
  links_[newest].after = slot;
  links_[0].before = slot;
}

void ReclaimPolicy::on_use(int32_t block, int64_t) { unlink(block); }
void ReclaimPolicy::on_removed(int32_t block) { unlink(block); }

void ReclaimPolicy::reclaim(int32_t n, std::vector<int32_t>& victims) {
  int32_t slot = links_[0].after;
  for (; n > 0 && slot != 0; --n, slot = links_[slot].after) victims.push_back(slot - 1);
}

void ReclaimPolicy::unlink(int32_t block) {
  const int32_t slot = block + 1;
  if (slot >= static_cast<int32_t>(links_.size()) || links_[slot].before < 0) return;
  const Link link = links_[slot];
  links_[link.before].after = link.after;
  links_[link.after].before = link.before;
  links_[slot] = {-1, -1};
}

}  // namespace paddock
