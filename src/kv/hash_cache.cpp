#include "kv/hash_cache.h"

#include <bit>
#include <utility>

namespace paddock {

HashCache::HashCache(int32_t capacity, std::unique_ptr<ReclaimPolicy> policy)
    : order_(std::move(policy), capacity) {
  Room room = make_room(capacity);
  take(room);
}

HashCache::Room HashCache::make_room(int32_t capacity) {
  Room room;
  room.nodes.resize(static_cast<size_t>(capacity));
  room.buckets.assign(std::bit_ceil(room.nodes.size() + 1), -1);
  room.passing.reserve(room.nodes.size());
  room.free.reserve(room.nodes.size());
  for (int32_t i = capacity; i-- > 0;) room.free.push_back(i);
  room.order = ReclaimOrder::Room(capacity);
  return room;
}

void HashCache::take(Room& room) noexcept {
  nodes_.swap(room.nodes);
  free_.swap(room.free);
  buckets_.swap(room.buckets);
  passing_.swap(room.passing);
}

void HashCache::move_into(Room room) noexcept {
  while (order_.n_cached() > 0) reclaim(order_.next());
  take(room);
  order_.move_into(std::move(room.order));
}

int32_t HashCache::find(int32_t parent, uint64_t hash) const {
  int32_t node = buckets_[hash & (buckets_.size() - 1)];
  while (node >= 0 && (nodes_[node].hash != hash || nodes_[node].parent != parent)) {
    node = nodes_[node].next;
  }
  return node;
}

int64_t HashCache::hold(std::span<const uint64_t> blocks, IfMissing missing, bool is_prompt,
                        std::vector<int32_t>& nodes) {
  const size_t before = nodes.size();
  int64_t found = -1;  // -1: all so far
  for (const uint64_t hash : blocks) {
    const int32_t parent = nodes.empty() ? kRoot : nodes.back();
    int32_t node = find(parent, hash);
    if (node >= 0) {
      nodes_[node].prompts += is_prompt ? 1 : 0;
      if (nodes_[node].holders++ == 0) order_.on_use(node);
    } else {
      if (found < 0) found = static_cast<int64_t>(nodes.size() - before);
      if (missing == IfMissing::kStop) break;
      if (free_.empty() && order_.n_cached() == 0) break;
      if (free_.empty()) reclaim(order_.next());
      node = insert(parent, hash);
    }
    nodes.push_back(node);
  }
  return found < 0 ? static_cast<int64_t>(nodes.size() - before) : found;
}

void HashCache::hold_again(std::span<const int32_t> nodes) {
  for (const int32_t node : nodes) ++nodes_[node].holders;
}

void HashCache::let_go(std::vector<int32_t>& nodes, size_t keep, int64_t now) {
  // Deeper blocks first, so that leaves are reclaimed before what they continue.
  while (nodes.size() > keep) {
    Node& n = nodes_[nodes.back()];
    n.last_use = now;
    if (--n.holders == 0) order_.on_release(cached(nodes.back()), n.children == 0);
    nodes.pop_back();
  }
}

int64_t HashCache::pass(std::span<const uint64_t> blocks) {
  const int64_t found = hold(blocks, IfMissing::kAdd, true, passing_);
  let_go(passing_, 0, ++passed_);
  return found;
}

int32_t HashCache::insert(int32_t parent, uint64_t hash) {
  const int32_t node = free_.back();
  free_.pop_back();
  Node& n = nodes_[node];
  n = {};
  n.hash = hash;
  n.parent = parent;
  n.holders = 1;
  if (parent != kRoot) {
    n.depth = nodes_[parent].depth + 1;
    ++nodes_[parent].children;
  }
  n.next = std::exchange(bucket(hash), node);
  return node;
}

void HashCache::reclaim(int32_t node) {
  order_.on_removed(node);
  const Node& n = nodes_[node];
  int32_t* at = &bucket(n.hash);
  while (*at != node) at = &nodes_[*at].next;
  *at = n.next;
  if (n.parent != kRoot) {
    Node& parent = nodes_[n.parent];
    if (--parent.children == 0 && parent.holders == 0) order_.on_leaf(cached(n.parent));
  }
  free_.push_back(node);
  ++reclaimed_;
}

CachedBlock HashCache::cached(int32_t node) const {
  const Node& n = nodes_[node];
  return {node, n.depth, n.prompts, n.last_use, n.hash};
}

}  // namespace paddock
