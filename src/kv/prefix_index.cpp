#include "kv/prefix_index.h"

#include <fmt/format.h>

namespace paddock {
namespace {

constexpr size_t kGhosts = 4096;

}  // namespace

PrefixIndex::PrefixIndex(int32_t capacity, int32_t n_layers, std::unique_ptr<ReclaimPolicy> policy)
    : n_layers_(n_layers), policy_(std::move(policy)), name_(policy_->name()) {
  blocks_.resize(capacity);
  pages_.assign(static_cast<size_t>(capacity) * n_layers, -1);
  for (int32_t i = capacity; i-- > 0;) free_.push_back(i);
  by_name_.reserve(capacity);
  ghosts_.assign(kGhosts, 0);
}

int32_t PrefixIndex::look_up(uint64_t name, bool counts) {
  const auto found = by_name_.find(name);
  if (counts) {
    ++lookups_;
    if (found != by_name_.end()) ++hits_;
    if (found == by_name_.end() && ghost_names_.erase(name) > 0) ++regrets_;
  }
  return found == by_name_.end() ? -1 : found->second;
}

int32_t PrefixIndex::insert(uint64_t name, int64_t first_position) {
  if (free_.empty() || by_name_.contains(name)) return -1;
  const int32_t block = free_.back();
  free_.pop_back();
  blocks_[block] = {true, 1, name, first_position};
  by_name_.emplace(name, block);
  return block;
}

std::span<int32_t> PrefixIndex::pages(int32_t block) {
  return std::span(pages_).subspan(static_cast<size_t>(block) * n_layers_, n_layers_);
}

template <typename Hook>
void PrefixIndex::tell(const Hook& hook) {
  try {
    hook();
    return;
  } catch (const std::exception& e) {
    last_violation_ = fmt::format("reclaim policy '{}': threw: {}", name_, e.what());
  } catch (...) {
    last_violation_ = fmt::format("reclaim policy '{}': threw", name_);
  }
  ++violations_;
}

void PrefixIndex::hold(int32_t block, int64_t step) {
  if (blocks_[block].references++ > 0) return;
  --reclaimable_;
  tell([&] { policy_->on_use(block, step); });
  fallback_.on_use(block, step);
}

void PrefixIndex::release(int32_t block, int64_t step) {
  if (--blocks_[block].references > 0) return;
  ++reclaimable_;
  tell([&] { policy_->on_cached(block, step); });
  fallback_.on_cached(block, step);
}

int32_t PrefixIndex::choose() {
  victims_.clear();
  const int64_t before = violations_;
  tell([&] { policy_->reclaim(1, victims_); });
  if (violations_ == before) {
    const int32_t block = victims_.empty() ? -1 : victims_[0];
    if (block >= 0 && block < static_cast<int32_t>(blocks_.size()) && blocks_[block].used &&
        blocks_[block].references == 0) {
      return block;
    }
    last_violation_ =
        victims_.empty()
            ? fmt::format("reclaim policy '{}': named none of {} blocks", name_, reclaimable_)
            : fmt::format("reclaim policy '{}': block {} is not reclaimable", name_, block);
    ++violations_;
  }
  victims_.clear();
  fallback_.reclaim(1, victims_);
  return victims_[0];
}

int32_t PrefixIndex::reclaim() {
  const int32_t block = choose();
  tell([&] { policy_->on_removed(block); });
  fallback_.on_removed(block);
  remember(blocks_[block].name);
  by_name_.erase(blocks_[block].name);
  blocks_[block].used = false;
  free_.push_back(block);
  --reclaimable_;
  return block;
}

void PrefixIndex::remember(uint64_t name) {
  ghost_names_.erase(ghosts_[next_ghost_]);
  ghosts_[next_ghost_] = name;
  ghost_names_.insert(name);
  next_ghost_ = (next_ghost_ + 1) % ghosts_.size();
}

}  // namespace paddock
