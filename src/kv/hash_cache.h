// A cache that has no pages: what a PrefixTree of some size would hold and find, told by hashes
// alone. It asks the orders of reclaiming as the tree does, and takes no memory after it was made.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kv/reclaim_policy.h"

namespace paddock {

class HashCache {
 public:
  /// `policy`: null for least recently used.
  HashCache(int32_t capacity, std::unique_ptr<ReclaimPolicy> policy);

  int32_t capacity() const { return static_cast<int32_t>(nodes_.size()); }
  /// How many of a text's blocks are here, from the first one on. A block is the hash of everything
  /// up to its end, which is trusted.
  int64_t find(std::span<const uint64_t> text) const;
  /// A text comes and ends: what is here of it is used, the rest is computed and stays, and others
  /// make room. Of one that is larger than the cache the first `capacity` blocks stay. Returns what
  /// find() said before.
  int64_t pass(std::span<const uint64_t> text);

  int64_t reclaimed() const { return reclaimed_; }  // blocks so far
  int64_t violations() const { return order_.violations(); }
  const std::string& last_violation() const { return order_.last_violation(); }

 private:
  static constexpr int32_t kRoot = -1;
  struct Node {
    uint64_t hash = 0;
    int32_t parent = kRoot;
    int32_t next = -1;  // in its bucket
    int32_t depth = 0;
    int32_t children = 0;
    bool in_use = false;   // by the text that is passing
    int64_t prompts = 1;   // that came through it
    int64_t last_use = 0;  // the number of the text that let go of it
  };
  int32_t& bucket(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }
  int32_t find(int32_t parent, uint64_t hash) const;
  int32_t insert(int32_t parent, uint64_t hash);
  void reclaim(int32_t node);
  CachedBlock cached(int32_t node) const;

  std::vector<Node> nodes_;
  std::vector<int32_t> free_;     // nodes
  std::vector<int32_t> buckets_;  // first node; their number is a power of two
  std::vector<int32_t> passing_;  // nodes of the text that is passing
  ReclaimOrder order_;
  int64_t texts_ = 0;  // so far: the clock
  int64_t reclaimed_ = 0;
};

}  // namespace paddock
