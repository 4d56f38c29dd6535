// The order in which kept blocks leave: a policy's, whose answers are checked, or least recently
// used.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/reclaim.h"

namespace paddock {

/// The order of one of reclaim_names(); null: ReclaimOrder has it itself. Error kInvalidArgument.
std::unique_ptr<ReclaimPolicy> make_reclaim_policy(std::string_view name);
/// One file each.
std::unique_ptr<ReclaimPolicy> make_s3fifo();
std::unique_ptr<ReclaimPolicy> make_depth();

/// Blocks in one or several lists, each in at most one: O(1) per call.
class BlockLists {
 public:
  explicit BlockLists(int32_t n_lists = 1) : n_lists_(n_lists) {}
  void reserve(int32_t n_blocks);
  void push_back(int32_t list, int32_t block);
  /// Does nothing if it is in none.
  void remove(int32_t block);
  bool has(int32_t block) const { return links_[n_lists_ + block].list >= 0; }
  /// The one that has been there longest; -1: the list is empty.
  int32_t front(int32_t list) const;
  int32_t size(int32_t list) const { return sizes_[list]; }

 private:
  struct Link {
    int32_t before = -1, after = -1;  // slots; -1: in no list
    int32_t list = -1;
  };
  int32_t n_lists_;
  std::vector<Link> links_;  // slots 0 to n_lists - 1 are the lists' heads, blocks come after them
  std::vector<int32_t> sizes_;
};

/// What may leave and what leaves next. The least recently used block needs no policy: all blocks
/// that nobody has locked stand in the order in which they were let go of, and as deeper ones are
/// let go of first, the first of all is a leaf.
class ReclaimOrder {
 public:
  /// `policy`: null for least recently used.
  ReclaimOrder(std::unique_ptr<ReclaimPolicy> policy, int32_t n_blocks);

  /// The memory that depends on how many blocks there can be; made apart, as that may fail.
  struct Room {
    explicit Room(int32_t n_blocks = 0) : is_leaf(n_blocks) { lists.reserve(n_blocks); }
    BlockLists lists;              // one, by the time when they were let go of
    std::vector<uint8_t> is_leaf;  // [n_blocks] 1 where the block may be named
  };
  /// Uses this memory from now on. No block is kept at that moment. A policy that throws when it is
  /// told the new number is let go of; the order is then least recently used.
  void move_into(Room room);

  /// Nobody has the block locked any more.
  void on_release(const CachedBlock& block, bool is_leaf);
  /// The last block that continued this one is gone, and nobody has it locked: it is a leaf now.
  void on_leaf(const CachedBlock& block);
  /// Somebody has locked it again.
  void on_use(int32_t block);
  /// A leaf is gone.
  void on_removed(int32_t block);
  /// The block to leave next, a leaf. n_cached() > 0.
  int32_t next();

  int32_t n_cached() const { return room_.lists.size(0); }  // that nobody has locked
  bool is_leaf(int32_t block) const { return room_.is_leaf[block] != 0; }
  int64_t violations() const { return violations_; }
  const std::string& last_violation() const { return last_violation_; }

 private:
  /// Calls a hook of the policy; what it throws is counted, and the books go on.
  template <typename Hook>
  bool tell(const Hook& hook) noexcept;
  template <typename... Args>
  void violation(const char* format, const Args&... args) noexcept;

  std::unique_ptr<ReclaimPolicy> policy_;
  std::string name_;  // the policy's
  Room room_;
  int64_t violations_ = 0;
  std::string last_violation_;
};

}  // namespace paddock
