// Full blocks that are kept after their sequences ended, by name, so that another sequence with the
// same beginning can attach them instead of computing them again.
//
// A name is a hash of everything up to the block's end, made by the caller. The order in which
// unreferenced blocks are reclaimed is a ReclaimPolicy's; its answers are validated here.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "paddock/eviction.h"

namespace paddock {

class PrefixIndex {
 public:
  /// Room for `capacity` blocks of `n_layers` pages each.
  PrefixIndex(int32_t capacity, int32_t n_layers, std::unique_ptr<ReclaimPolicy> policy);

  /// The block of that name, or -1. Counted as a lookup, hit, or regret where `counts`.
  int32_t look_up(uint64_t name, bool counts);
  /// A new block, referenced once, or -1 if the name is taken. Its pages are to be filled in.
  int32_t insert(uint64_t name, int64_t first_position);
  std::span<int32_t> pages(int32_t block);  // [n_layers]
  int64_t first_position(int32_t block) const { return blocks_[block].first_position; }
  /// One more live sequence lists the block, or one less.
  void hold(int32_t block, int64_t step);
  void release(int32_t block, int64_t step);
  /// Unreferenced blocks.
  int32_t reclaimable() const { return reclaimable_; }
  /// Takes out the block that leaves next; the caller frees its pages(). reclaimable() > 0.
  int32_t reclaim();
  bool references(int32_t block) const { return blocks_[block].references > 0; }

  int64_t lookups() const { return lookups_; }
  int64_t hits() const { return hits_; }
  int64_t regrets() const { return regrets_; }
  int64_t violations() const { return violations_; }
  const std::string& last_violation() const { return last_violation_; }
  /// Calls fn(pages, referenced) for every block here.
  template <typename Fn>
  void for_each(const Fn& fn) const {
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (blocks_[i].used)
        fn(std::span(pages_).subspan(i * n_layers_, n_layers_), blocks_[i].references > 0);
    }
  }

 private:
  struct Block {
    bool used = false;
    int32_t references = 0;
    uint64_t name = 0;
    int64_t first_position = 0;
  };
  int32_t choose();
  /// Calls a hook of the host's policy; what it throws is counted, and the books go on.
  template <typename Hook>
  void tell(const Hook& hook);
  void remember(uint64_t name);

  int32_t n_layers_;
  std::vector<Block> blocks_;
  std::vector<int32_t> pages_;  // [n_blocks, n_layers]
  std::vector<int32_t> free_;
  std::unordered_map<uint64_t, int32_t> by_name_;
  std::unique_ptr<ReclaimPolicy> policy_;
  std::string name_;        // the policy's
  ReclaimPolicy fallback_;  // kept in step with policy_, for when its answers are wrong
  std::vector<int32_t> victims_;
  int32_t reclaimable_ = 0;
  // The names of blocks reclaimed last, so that regret can be told from a first miss.
  std::vector<uint64_t> ghosts_;
  size_t next_ghost_ = 0;
  std::unordered_set<uint64_t> ghost_names_;
  int64_t lookups_ = 0, hits_ = 0, regrets_ = 0, violations_ = 0;
  std::string last_violation_;
};

}  // namespace paddock
