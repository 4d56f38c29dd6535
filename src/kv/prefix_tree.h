// Full blocks that are kept after their sequences ended, so that another sequence with the same
// beginning can list them instead of computing them again.
//
// A tree over token ids: a node is one full block, the child of the block before it; its pages hold
// what those tokens after that prefix have become. Children are found by a hash, but a node is only
// taken for a block whose tokens it has: no hash is trusted. A page may be absent, where a layer's
// window had passed it: the node stays for the tokens, as what comes after it is still of use. The
// tree knows numbers of pages and nothing of the pool; who uses it owns the pages' references.
//
// What a block holds depends on what each layer sees of the blocks before it, so the tree has a
// root for each way of seeing that sequences have: what is kept under one is never found from
// another.
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
#include "paged_kv.h"

namespace paddock {

/// How a block, or a page of it, left.
struct Departure {
  int64_t step = 0;
  int64_t request = 0;  // whose need it was
  MissReason reason = MissReason::kReclaimed;
  bool is_regretted = false;  // it has been looked for since
};

class PrefixTree {
 public:
  /// In place of a node: the roots are numbered downwards from this one.
  static constexpr int32_t kRoot = -1;
  static constexpr int32_t root(int32_t number) { return kRoot - number; }
  /// What a hash begins with under a root; 0 under kRoot.
  static uint64_t hash_of_root(int32_t root);
  /// The hash of a block after a prefix of the hash `before` (0: none).
  using BlockHash = uint64_t (*)(uint64_t before, std::span<const int32_t> tokens);
  static uint64_t hash_block(uint64_t before, std::span<const int32_t> tokens);

  /// Room for `capacity` blocks of `block_size` tokens with `n_layers` pages each, and one root
  /// under which all is seen. Another hash: for tests, which let blocks collide.
  PrefixTree(int32_t capacity, int32_t block_size, int32_t n_layers,
             std::unique_ptr<ReclaimPolicy> policy, BlockHash hash = hash_block);

  /// The memory that depends on how many blocks there can be, and on what layers see of them; made
  /// apart, as that may fail.
  struct Room;
  /// `seen`: [n_roots, n_layers].
  std::unique_ptr<Room> make_room(int32_t capacity, std::vector<Visibility> seen) const;
  /// Uses this memory from now on. No block is kept at that moment.
  void move_into(std::unique_ptr<Room> room);
  int32_t capacity() const { return static_cast<int32_t>(nodes_.size()); }

  /// `nodes` has the nodes of the first blocks of `tokens`; appends those of the full blocks behind
  /// them, at most to `max_blocks` in all. The last one appended is one behind which every layer
  /// has all pages that it sees; of the blocks that `nodes` had before, the caller has them. Where
  /// `counts`, each node is a lookup and a hit. `root`: where the text begins.
  void extend(int32_t root, std::span<const int32_t> tokens, int64_t max_blocks, bool counts,
              std::vector<int32_t>& nodes);
  /// Why the full block behind those of `nodes` is missing. Counted as a lookup and, the first time
  /// after it was reclaimed, as regret. kNone, and nothing counted, if no block is to be looked
  /// for. Not `counts`: it is only told.
  PrefixMiss ask(int32_t root, std::span<const int32_t> tokens, int64_t max_blocks,
                 std::span<const int32_t> nodes, bool counts = true);
  /// The child of `parent` (a node or a root) with these block_size tokens, or -1.
  int32_t find(int32_t parent, std::span<const int32_t> tokens) const;
  /// A new child, which find() does not know yet, locked once, without pages. -1 if there is no
  /// room.
  int32_t insert(int32_t parent, std::span<const int32_t> tokens);
  std::span<int32_t> pages(int32_t node);  // [n_layers], -1: absent
  std::span<const int32_t> pages(int32_t node) const;
  /// A page of it was reclaimed, which is remembered, or one has come back, and that is forgotten.
  void note_page_gone(int32_t node, const Departure& how);
  void note_page_back(int32_t node) { departed_.take(nodes_[node].hash); }
  /// How many live sequences have locked it.
  int32_t locks(int32_t node) const { return nodes_[node].locks; }
  /// A leaf at or below it: the node itself if it has no children, else a leaf below one of them.
  int32_t leaf_below(int32_t node) const;
  /// Blocks before it.
  int32_t depth(int32_t node) const { return nodes_[node].depth; }
  int32_t parent(int32_t node) const { return nodes_[node].parent; }
  /// The number of the root that it stands under.
  int32_t root_of(int32_t node) const { return kRoot - nodes_[node].root; }
  /// Of everything up to its end.
  uint64_t hash_of(int32_t node) const { return nodes_[node].hash; }
  /// Whether it has no page, no lock and no child: of no use to anybody.
  bool is_void(int32_t node) const;
  /// The clock when the last sequence let go of it.
  int64_t last_use(int32_t node) const { return nodes_[node].last_use; }

  /// One more live sequence lists the block (`is_prompt`: it is a prompt that found it), or one
  /// less. Whoever locks a node has locked its ancestors, and unlocks deeper blocks first.
  void lock(int32_t node, bool is_prompt = true);
  void unlock(int32_t node, int64_t step);
  /// Blocks that nobody has locked.
  int32_t evictable() const { return order_.n_cached(); }
  /// The block that the policy would have leave next, which nothing continues. evictable() > 0.
  int32_t next() { return order_.next(); }
  /// Takes out a block that nobody has locked and nothing continues; its pages() stay readable
  /// until the next insert(). Null: there is nothing to remember of it.
  void take_out(int32_t node, const Departure* how);

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
    int32_t root = kRoot;
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
  void swap_with(Room& room);
  /// Takes the i-th block of a text into account; whether all is there that is seen behind it.
  bool serves(int32_t node, int64_t i);
  CachedBlock cached(int32_t node) const;
  /// Of the last block of `text`, which `parent` does not have.
  PrefixMiss why_missing(int32_t root, int32_t parent, std::span<const int32_t> text,
                         const Departure* departure) const;
  /// Whether a root but this one has all blocks of `tokens`.
  bool is_elsewhere(int32_t root, std::span<const int32_t> tokens) const;

  int32_t block_size_, n_layers_;
  BlockHash hash_;
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;          // [n_nodes, block_size]
  std::vector<int32_t> pages_;           // [n_nodes, n_layers]
  std::vector<int32_t> free_;            // nodes
  std::vector<int32_t> buckets_;         // first node; their number is a power of two
  std::vector<int32_t> roots_children_;  // [n_roots] the one inserted last
  std::vector<Visibility> seen_;         // [n_roots, n_layers]
  std::vector<int64_t> absent_;  // [n_layers] scratch of extend(): the newest block without a page
  ReclaimOrder order_;
  RecentHashes<Departure> departed_;  // so that regret can be told from a first miss
  int64_t lookups_ = 0, hits_ = 0, regrets_ = 0;
};

struct PrefixTree::Room {
  std::vector<Node> nodes;
  std::vector<int32_t> tokens, pages, free, buckets, roots_children;
  std::vector<Visibility> seen;
  ReclaimOrder::Room order;
  std::optional<RecentHashes<Departure>> departed;  // where it is for another number
};

}  // namespace paddock
