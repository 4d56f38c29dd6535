// The order of cached blocks that nobody references: least recently used, in O(1) per event.
//
// A doubly linked list through arrays indexed by block; slot 0 is the list's own head, block b
// lives in slot b + 1.
#include "kv/reclaim_policy.h"

#include <fmt/format.h>

namespace paddock {

ReclaimPolicy::ReclaimPolicy() : links_{{0, 0}} {}
ReclaimPolicy::~ReclaimPolicy() = default;

std::string ReclaimPolicy::name() const { return "lru"; }

void ReclaimPolicy::reserve(int32_t n_blocks) { links_.resize(n_blocks + 1, {-1, -1}); }

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

// ---- a policy's answers, checked

ReclaimOrder::ReclaimOrder(std::unique_ptr<ReclaimPolicy> policy, int32_t n_blocks)
    : policy_(std::move(policy)), name_(policy_->name()), is_cached_(n_blocks) {
  policy_->reserve(n_blocks);
  fallback_.reserve(n_blocks);
  victims_.reserve(1);
}

template <typename Hook>
bool ReclaimOrder::tell(const Hook& hook) {
  try {
    hook();
    return true;
  } catch (const std::exception& e) {
    last_violation_ = fmt::format("reclaim policy '{}': threw: {}", name_, e.what());
  } catch (...) {
    last_violation_ = fmt::format("reclaim policy '{}': threw", name_);
  }
  ++violations_;
  return false;
}

void ReclaimOrder::on_cached(int32_t block, int64_t step) {
  is_cached_[block] = 1;
  ++n_cached_;
  tell([&] { policy_->on_cached(block, step); });
  fallback_.on_cached(block, step);
}

void ReclaimOrder::on_use(int32_t block, int64_t step) {
  is_cached_[block] = 0;
  --n_cached_;
  tell([&] { policy_->on_use(block, step); });
  fallback_.on_use(block, step);
}

void ReclaimOrder::on_removed(int32_t block) {
  is_cached_[block] = 0;
  --n_cached_;
  tell([&] { policy_->on_removed(block); });
  fallback_.on_removed(block);
}

int32_t ReclaimOrder::next() {
  victims_.clear();
  if (tell([&] { policy_->reclaim(1, victims_); })) {
    const int32_t block = victims_.empty() ? -1 : victims_[0];
    if (block >= 0 && block < static_cast<int32_t>(is_cached_.size()) && is_cached_[block] != 0) {
      return block;
    }
    last_violation_ =
        victims_.empty()
            ? fmt::format("reclaim policy '{}': named none of {} blocks", name_, n_cached_)
            : fmt::format("reclaim policy '{}': block {} is not reclaimable", name_, block);
    ++violations_;
  }
  victims_.clear();
  fallback_.reclaim(1, victims_);
  return victims_[0];
}

}  // namespace paddock
