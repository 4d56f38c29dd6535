// A cache that has no pages: what a PrefixTree of some size would hold and find, told by hashes
// alone. It asks the orders of reclaiming as the tree does, and takes no memory after it was made.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kv/reclaim_policy.h"

namespace paddock {

/// What becomes of blocks that a text is to hold and that are not there.
enum class IfMissing { kAdd, kStop };

class HashCache {
 public:
  /// `policy`: null for least recently used.
  HashCache(int32_t capacity, std::unique_ptr<ReclaimPolicy> policy);

  /// The memory that depends on the capacity; made apart, as that may fail.
  struct Room;
  static Room make_room(int32_t capacity);
  /// Uses this memory from now on, empty. No text holds a block at that moment.
  void move_into(Room room) noexcept;
  int32_t capacity() const { return static_cast<int32_t>(nodes_.size()); }
  /// A live text that holds `nodes`, its first blocks, goes on with `blocks` and holds them, too,
  /// as far as blocks that nobody holds can make room. A block is told by the hash of everything up
  /// to its end, which is trusted. Returns how many of them, from the first one on, were there
  /// before. `is_prompt`: whether a prompt finds them, which counts for those that are found again.
  /// `nodes` comes to have `capacity` elements at most.
  int64_t hold(std::span<const uint64_t> blocks, IfMissing missing, bool is_prompt,
               std::vector<int32_t>& nodes);
  /// The hash of a block that is held.
  uint64_t hash_of(int32_t node) const { return nodes_[node].hash; }
  /// Two texts hold what one did.
  void hold_again(std::span<const int32_t> nodes);
  /// The text holds its first `keep` blocks only. `now`: the clock.
  void let_go(std::vector<int32_t>& nodes, size_t keep, int64_t now);
  /// A whole text comes and ends: as many of its first blocks as there is room for stay. Returns
  /// how many were there.
  int64_t pass(std::span<const uint64_t> blocks);

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
    int32_t holders = 0;
    int64_t prompts = 1;  // that came through it
    int64_t last_use = 0;
  };
  int32_t& bucket(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }
  int32_t find(int32_t parent, uint64_t hash) const;
  int32_t insert(int32_t parent, uint64_t hash);
  void reclaim(int32_t node);
  CachedBlock cached(int32_t node) const;

  void take(Room& room) noexcept;

  std::vector<Node> nodes_;
  std::vector<int32_t> free_;     // nodes
  std::vector<int32_t> buckets_;  // first node; their number is a power of two
  std::vector<int32_t> passing_;  // of pass()
  ReclaimOrder order_;
  int64_t passed_ = 0;  // texts: their clock
  int64_t reclaimed_ = 0;
};

struct HashCache::Room {
  std::vector<Node> nodes;
  std::vector<int32_t> free, buckets, passing;
  ReclaimOrder::Room order;
};

}  // namespace paddock
