#include "kv/shadows.h"

#include <algorithm>
#include <limits>

#include "kv/prefix_tree.h"

namespace paddock {
namespace {

int32_t size_of(double times, int32_t n_blocks) {
  const double blocks = times * n_blocks;
  return static_cast<int32_t>(
      std::min<double>(blocks, static_cast<double>(std::numeric_limits<int32_t>::max() / 2)));
}

}  // namespace

Shadows::Shadows(const Maker& maker) {
  if (!maker) return;
  caches_.reserve(kTimes.size());
  for (size_t i = 0; i < kTimes.size(); ++i) caches_.emplace_back(0, maker());
}

Shadows::Room Shadows::make_room(int32_t n_blocks, int64_t longest) const {
  Room room;
  for (size_t i = 0; i < caches_.size(); ++i) {
    room.caches.push_back(HashCache::make_room(size_of(kTimes[i], n_blocks)));
  }
  if (caches_.empty()) return room;
  room.hashes.reserve(
      static_cast<size_t>(std::min<int64_t>(longest, size_of(kTimes.back(), n_blocks))));
  return room;
}

void Shadows::move_into(Room room) noexcept {
  for (size_t i = 0; i < caches_.size(); ++i) caches_[i].move_into(std::move(room.caches[i]));
  hashes_.swap(room.hashes);
}

void Shadows::make_room(Held& held, int32_t n_blocks, int64_t longest) const {
  for (size_t i = 0; i < caches_.size(); ++i) {
    held[i].reserve(static_cast<size_t>(std::min<int64_t>(longest, size_of(kTimes[i], n_blocks))));
  }
}

std::array<int64_t, Shadows::kTimes.size()> Shadows::hold(std::span<const int32_t> tokens,
                                                          int64_t n_blocks, int32_t block_size,
                                                          IfMissing missing, bool is_prompt,
                                                          Held& held, uint64_t root) {
  std::array<int64_t, kTimes.size()> found{};
  if (caches_.empty()) return found;
  const auto n =
      static_cast<size_t>(std::min({n_blocks, static_cast<int64_t>(tokens.size()) / block_size,
                                    static_cast<int64_t>(caches_.back().capacity())}));
  const auto least = std::min_element(
      held.begin(), held.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
  const size_t first = least->size();
  if (first >= n) return found;
  const HashCache& its = caches_[static_cast<size_t>(least - held.begin())];
  uint64_t hash = first == 0 ? root : its.hash_of(least->back());
  hashes_.clear();  // of the blocks from `first` on
  for (size_t i = first; i < n; ++i) {
    hash = PrefixTree::hash_block(hash, tokens.subspan(i * block_size, block_size));
    hashes_.push_back(hash);
  }
  for (size_t i = 0; i < kTimes.size(); ++i) {
    if (held[i].size() >= n) continue;
    const auto more = std::span<const uint64_t>(hashes_).subspan(held[i].size() - first);
    found[i] = caches_[i].hold(more, missing, is_prompt, held[i]);
  }
  return found;
}

void Shadows::look_up(std::span<const int32_t> tokens, int64_t n_blocks, int32_t block_size,
                      bool counts, Held& held, uint64_t root) {
  const auto found = hold(tokens, n_blocks, block_size, IfMissing::kAdd, counts, held, root);
  for (size_t i = 0; i < found.size(); ++i) hits_[i] += counts ? found[i] : 0;
}

void Shadows::fork(const Held& from, Held& to) {
  for (size_t i = 0; i < caches_.size(); ++i) {
    to[i].assign(from[i].begin(), from[i].end());
    caches_[i].hold_again(to[i]);
  }
}

void Shadows::let_go(Held& held, int64_t keep, int64_t now) {
  for (size_t i = 0; i < caches_.size(); ++i) {
    caches_[i].let_go(held[i], static_cast<size_t>(keep), now);
  }
}

std::vector<KvShadow> Shadows::stats() const {
  std::vector<KvShadow> all;
  for (size_t i = 0; i < caches_.size(); ++i) {
    all.push_back({kTimes[i], caches_[i].capacity(), hits_[i]});
  }
  return all;
}

}  // namespace paddock
