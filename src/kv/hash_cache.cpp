#include "kv/hash_cache.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace paddock {

HashCache::HashCache(int32_t capacity, std::unique_ptr<ReclaimPolicy> policy)
    : nodes_(static_cast<size_t>(capacity)),
      buckets_(std::bit_ceil(static_cast<size_t>(capacity) + 1), -1),
      order_(std::move(policy), capacity) {
  free_.reserve(nodes_.size());
  for (int32_t i = capacity; i-- > 0;) free_.push_back(i);
  passing_.reserve(nodes_.size());
}

int32_t HashCache::find(int32_t parent, uint64_t hash) const {
  int32_t node = buckets_[hash & (buckets_.size() - 1)];
  while (node >= 0 && (nodes_[node].hash != hash || nodes_[node].parent != parent)) {
    node = nodes_[node].next;
  }
  return node;
}

int64_t HashCache::find(std::span<const uint64_t> text) const {
  int32_t node = kRoot;
  for (size_t i = 0; i < text.size(); ++i) {
    node = find(node, text[i]);
    if (node < 0) return static_cast<int64_t>(i);
  }
  return static_cast<int64_t>(text.size());
}

int64_t HashCache::pass(std::span<const uint64_t> text) {
  ++texts_;
  text = text.first(std::min(text.size(), nodes_.size()));
  passing_.clear();
  int32_t node = kRoot;
  for (const uint64_t hash : text) {
    node = find(node, hash);
    if (node < 0) break;
    passing_.push_back(node);
    ++nodes_[node].prompts;
    nodes_[node].in_use = true;
    order_.on_use(node);
  }
  const size_t found = passing_.size();
  while (free_.size() < text.size() - found) reclaim(order_.next());
  for (size_t i = found; i < text.size(); ++i) {
    passing_.push_back(insert(i == 0 ? kRoot : passing_.back(), text[i]));
  }
  // Deeper blocks first, so that leaves are reclaimed before what they continue.
  for (size_t i = passing_.size(); i-- > 0;) {
    Node& n = nodes_[passing_[i]];
    n.in_use = false;
    n.last_use = texts_;
    order_.on_release(cached(passing_[i]), n.children == 0);
  }
  return static_cast<int64_t>(found);
}

int32_t HashCache::insert(int32_t parent, uint64_t hash) {
  const int32_t node = free_.back();
  free_.pop_back();
  Node& n = nodes_[node];
  n = {};
  n.hash = hash;
  n.parent = parent;
  n.in_use = true;
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
    if (--parent.children == 0 && !parent.in_use) order_.on_leaf(cached(n.parent));
  }
  free_.push_back(node);
  ++reclaimed_;
}

CachedBlock HashCache::cached(int32_t node) const {
  const Node& n = nodes_[node];
  return {node, n.depth, n.prompts, n.last_use, n.hash};
}

}  // namespace paddock
