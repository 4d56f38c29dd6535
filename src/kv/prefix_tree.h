// Full blocks that are kept after their sequences ended, so that another sequence with the same
// beginning can list them instead of computing them again.
//
// A tree over token ids: a node is one full block, the child of the block before it; its pages hold
// what those tokens after that prefix have become. Children are found by a hash, but a node is only
// taken for a block whose tokens it has: no hash is trusted. The tree knows numbers of pages and
// nothing of the pool; who uses it owns the pages' references.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kv/recent_hashes.h"
#include "kv/reclaim_policy.h"
#include "paddock/kv_cache.h"

namespace paddock {

/// How a block left.
struct Departure {
  int64_t step = 0;
  int64_t request = 0;       // whose need it was
  bool is_reclaimed = true;  // false: the rules changed
};

class PrefixTree {
 public:
  static constexpr int32_t kRoot = -1;
  /// The hash of a block after a prefix of the hash `before` (0: none).
  using BlockHash = uint64_t (*)(uint64_t before, std::span<const int32_t> tokens);
  static uint64_t hash_block(uint64_t before, std::span<const int32_t> tokens);

  /// Room for `capacity` blocks of `block_size` tokens with `n_layers` pages each. Another hash:
  /// for tests, which let blocks collide.
  PrefixTree(int32_t capacity, int32_t block_size, int32_t n_layers,
             std::unique_ptr<ReclaimPolicy> policy, BlockHash hash = hash_block);

  /// Appends to `nodes`, which has those of the first blocks of `tokens`, the nodes of the full
  /// blocks after them, until one is missing or there are `max_blocks`. Where `counts`, each is a
  /// lookup and a hit.
  void extend(std::span<const int32_t> tokens, int64_t max_blocks, bool counts,
              std::vector<int32_t>& nodes);
  /// Why the full block after those is missing, which is counted as a lookup, and as regret if it
  /// had been reclaimed; that is forgotten with the answer. Nothing if there is none to look for.
  PrefixMiss ask(std::span<const int32_t> tokens, int64_t max_blocks,
                 std::span<const int32_t> nodes);
  /// The child of `parent` (or kRoot) with these block_size tokens, or -1.
  int32_t find(int32_t parent, std::span<const int32_t> tokens) const;
  /// A new child, which find() does not know yet, locked once; its pages are to be filled in. -1
  /// if there is no room.
  int32_t insert(int32_t parent, std::span<const int32_t> tokens);
  std::span<int32_t> pages(int32_t node);  // [n_layers]
  std::span<const int32_t> pages(int32_t node) const;
  /// How many live sequences have locked it.
  int32_t locks(int32_t node) const { return nodes_[node].locks; }
  /// A block that continues it, or one that continues that and so on, and that nothing continues;
  /// itself if nothing does.
  int32_t leaf_below(int32_t node) const;
  /// Blocks before it.
  int32_t depth(int32_t node) const { return nodes_[node].depth; }

  /// One more live sequence lists the block, or one less. Whoever locks a node has locked its
  /// ancestors, and unlocks deeper blocks first.
  void lock(int32_t node);
  void unlock(int32_t node, int64_t step);
  /// Blocks that nobody has locked.
  int32_t evictable() const { return order_.n_cached(); }
  /// Takes out the block that the policy would have leave next, which nothing continues; its
  /// pages() stay readable until the next insert(). evictable() > 0.
  int32_t evict(const Departure& how = {});
  /// Takes out a block that nobody has locked and nothing continues; likewise.
  void take_out(int32_t node, const Departure& how = {});

  int64_t lookups() const { return lookups_; }
  int64_t hits() const { return hits_; }
  int64_t regrets() const { return regrets_; }
  int64_t violations() const { return order_.violations(); }
  const std::string& last_violation() const { return order_.last_violation(); }
  /// Calls fn(node, pages) for every block here.
  template <typename Fn>
  void for_each(const Fn& fn) const {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (!nodes_[i].used) continue;
      fn(static_cast<int32_t>(i), std::span(pages_).subspan(i * n_layers_, n_layers_));
    }
  }
  /// Error kInternal if a node is not where its parent, its hash or its locks say.
  void check_integrity() const;

 private:
  struct Node {
    bool used = false;
    int32_t locks = 0;
    int32_t parent = kRoot;
    int32_t depth = 0;
    int64_t prompts = 1;  // that came through it
    int64_t last_use = 0;
    int32_t first_child = -1;          // the one inserted last
    int32_t elder = -1, younger = -1;  // other children of its parent
    int32_t next = -1;                 // in its bucket
    uint64_t hash = 0;                 // of everything up to its end
  };
  uint64_t hash_after(int32_t parent, std::span<const int32_t> tokens) const;
  /// The i-th block of `tokens`.
  std::span<const int32_t> block_of(std::span<const int32_t> tokens, int64_t i) const;
  std::span<const int32_t> tokens_of(int32_t node) const;
  int32_t& first_child_of(int32_t parent);
  void unlink(int32_t node);
  CachedBlock cached(int32_t node) const;
  PrefixMiss why_missing(int32_t parent, std::span<const int32_t> tokens, int64_t position,
                         const std::optional<Departure>& departure) const;

  int32_t block_size_, n_layers_;
  BlockHash hash_;
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;   // [n_nodes, block_size]
  std::vector<int32_t> pages_;    // [n_nodes, n_layers]
  std::vector<int32_t> free_;     // nodes
  std::vector<int32_t> buckets_;  // first node; their number is a power of two
  int32_t roots_child_ = -1;
  ReclaimOrder order_;
  RecentHashes<Departure> evicted_;  // so that regret can be told from a first miss
  int64_t lookups_ = 0, hits_ = 0, regrets_ = 0;
};

}  // namespace paddock
