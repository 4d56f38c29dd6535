// The order in which kept blocks that nobody references leave when pages run short.
//
// Not public yet: nothing that a host can switch on keeps blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace paddock {

/// Reclaiming is lossless: it only costs computing a block again. The base class is least recently
/// used, O(1) per call; override reclaim() and whichever events it needs for another order. Calls
/// come from the thread that drives the cache, while its books are locked: a policy calls nothing
/// of the cache.
class ReclaimPolicy {
 public:
  ReclaimPolicy();
  virtual ~ReclaimPolicy();
  virtual std::string name() const;
  /// Blocks are numbered from 0 to n_blocks - 1. Called once, before anything else: later calls
  /// should take no memory.
  virtual void reserve(int32_t n_blocks);

  /// Nobody references the block any more: from now on it may be named. Of one sequence that ends,
  /// deeper blocks come first, so that leaves go before what they continue.
  virtual void on_cached(int32_t block, int64_t step);
  /// A sequence references a cached block again.
  virtual void on_use(int32_t block, int64_t step);
  /// The block is gone; its number may come back for another.
  virtual void on_removed(int32_t block);
  /// Appends up to n cached blocks, the first to leave first. No side effects. Where others that
  /// are kept continue the block, one of these leaves in its place.
  virtual void reclaim(int32_t n, std::vector<int32_t>& victims);

 private:
  struct Link {
    int32_t before, after;
  };
  void unlink(int32_t block);
  std::vector<Link> links_;
};

/// A ReclaimPolicy whose answers are checked: what it throws, or names although it is not cached,
/// is counted, and the least recently used block goes instead.
class ReclaimOrder {
 public:
  ReclaimOrder(std::unique_ptr<ReclaimPolicy> policy, int32_t n_blocks);

  void on_cached(int32_t block, int64_t step);
  void on_use(int32_t block, int64_t step);
  void on_removed(int32_t block);
  /// The block that the policy would have leave next. n_cached() > 0.
  int32_t next();

  int32_t n_cached() const { return n_cached_; }
  int64_t violations() const { return violations_; }
  const std::string& last_violation() const { return last_violation_; }

 private:
  /// Calls a hook of the policy; what it throws is counted, and the books go on.
  template <typename Hook>
  bool tell(const Hook& hook);

  std::unique_ptr<ReclaimPolicy> policy_;
  std::string name_;                // the policy's
  ReclaimPolicy fallback_;          // kept in step with policy_, for when its answers are wrong
  std::vector<uint8_t> is_cached_;  // [n_blocks] 1 where the block may be named
  int32_t n_cached_ = 0;
  std::vector<int32_t> victims_;
  int64_t violations_ = 0;
  std::string last_violation_;
};

}  // namespace paddock
