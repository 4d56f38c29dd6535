// The order in which blocks that are kept for reuse leave when pages run short.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "paddock/export.h"

namespace paddock {

/// A block that no sequence lists and that nothing kept continues: a leaf. Deeper blocks go before
/// what they continue, so leaves are all that may leave.
struct CachedBlock {
  int32_t block = 0;  ///< its number
  int32_t depth = 0;  ///< blocks before it in its text
  int64_t prompts =
      0;  ///< texts that came through it: the one that computed it, those that found it
  int64_t last_use = 0;  ///< the cache's clock when the last sequence let go of it
  uint64_t text = 0;     ///< a hash of everything up to its end, the same whenever it comes
};

/// Ranks leaves. Reclaiming is lossless: it only costs computing a block again. Calls come from the
/// thread that drives the engine, while the cache's books are locked: a policy calls nothing of the
/// engine. What it throws, or names although it is no leaf, is counted
/// (KvStats::policy_violations), and the least recently used block goes instead.
class PADDOCK_API ReclaimPolicy {
 public:
  virtual ~ReclaimPolicy();
  virtual std::string name() const = 0;
  /// Blocks are numbered from 0 to n_blocks - 1. Called before anything else, and again, when
  /// nothing is kept, where other rules change how many there can be: take memory here, as later
  /// calls come in the middle of decoding.
  virtual void reserve(int32_t n_blocks);
  /// From now on the block may be named. Of one sequence that ends it is the deepest.
  virtual void on_leaf(const CachedBlock& block) = 0;
  /// Not any more: a sequence lists it again.
  virtual void on_use(int32_t block) = 0;
  /// A leaf is gone, named or not; its number may come back for another block.
  virtual void on_removed(int32_t block) = 0;
  /// The leaf that leaves next; there is one. It may stay after all, and the next call asks again:
  /// a page that a live sequence's window passed before that leaf was last used goes in its place.
  virtual int32_t next() = 0;
};

/// The orders that KvOptions::reclaim may name, its default first.
PADDOCK_API std::vector<std::string> reclaim_names();

/// Makes a policy of the host's own, for one engine.
using ReclaimMaker = std::function<std::unique_ptr<ReclaimPolicy>()>;

}  // namespace paddock
