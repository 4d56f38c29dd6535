// What many prompts came through stays longer, over leaves.
//
// A leaf's rank is when it was last used, and a credit for each time that it was found again or
// came back after it had left (kMostTimes of them count): twice the age at which leaves that nobody
// found leave at present. So the credit fits any size of cache, and what many came through outlives
// others for a while, and not for ever. docs/replay.md compares it with others. A binary heap that
// knows where each block stands: O(log n).
#include <algorithm>
#include <utility>

#include "kv/recent_hashes.h"
#include "kv/reclaim_policy.h"

namespace paddock {
namespace {

class Depth final : public ReclaimPolicy {
 public:
  std::string name() const override { return "depth"; }

  void reserve(int32_t n_blocks) override {
    leaves_.assign(static_cast<size_t>(n_blocks), {});
    places_.assign(static_cast<size_t>(n_blocks), -1);
    heap_.clear();
    heap_.reserve(static_cast<size_t>(n_blocks));
    const int64_t remembered = std::clamp<int64_t>(16 * int64_t{n_blocks}, 16, 1 << 20);
    gone_ = RecentHashes<int32_t>(static_cast<int32_t>(remembered));
  }

  void on_leaf(const CachedBlock& block) override {
    take_out(block.block);
    newest_use_ = std::max(newest_use_, block.last_use);
    const int32_t returns = gone_.take(block.text).value_or(0);
    if (returns > 0) gone_.add(block.text, returns);
    const int64_t times = std::min<int64_t>(block.prompts - 1 + returns, kMostTimes);
    const double rank =
        static_cast<double>(block.last_use) + kCredit * age_ * static_cast<double>(times);
    leaves_[block.block] = {rank, ++count_, block.last_use, times, block.text};
    places_[block.block] = static_cast<int32_t>(heap_.size());
    heap_.push_back(block.block);
    rise(heap_.size() - 1);
  }

  void on_use(int32_t block) override { take_out(block); }

  void on_removed(int32_t block) override {
    if (places_[block] < 0) return;
    const Leaf& leaf = leaves_[block];
    if (leaf.times == 0) {
      n_ages_ = std::min(n_ages_ + 1, kAges);
      age_ += (static_cast<double>(newest_use_ - leaf.last_use) - age_) / n_ages_;
    }
    gone_.add(leaf.text, gone_.take(leaf.text).value_or(0) + 1);
    take_out(block);
  }

  int32_t next() override { return heap_.empty() ? -1 : heap_.front(); }

 private:
  static constexpr int64_t kMostTimes = 3;
  static constexpr double kCredit = 2;   // ages
  static constexpr int32_t kAges = 256;  // that count
  struct Leaf {
    double rank = 0;
    int64_t count = 0;  // of leaves so far: the order of those of equal rank
    int64_t last_use = 0;
    int64_t times = 0;  // found again
    uint64_t text = 0;
  };

  bool is_before(size_t a, size_t b) const {
    const Leaf& x = leaves_[heap_[a]];
    const Leaf& y = leaves_[heap_[b]];
    return std::pair(x.rank, x.count) < std::pair(y.rank, y.count);
  }

  void swap(size_t a, size_t b) {
    std::swap(heap_[a], heap_[b]);
    places_[heap_[a]] = static_cast<int32_t>(a);
    places_[heap_[b]] = static_cast<int32_t>(b);
  }

  void rise(size_t at) {
    for (; at > 0 && is_before(at, (at - 1) / 2); at = (at - 1) / 2) swap(at, (at - 1) / 2);
  }

  void sink(size_t at) {
    for (size_t child = 2 * at + 1; child < heap_.size(); child = 2 * at + 1) {
      if (child + 1 < heap_.size() && is_before(child + 1, child)) ++child;
      if (!is_before(child, at)) return;
      swap(at, child);
      at = child;
    }
  }

  void take_out(int32_t block) {
    if (places_[block] < 0) return;
    const auto at = static_cast<size_t>(std::exchange(places_[block], -1));
    const int32_t last = heap_.back();
    heap_.pop_back();
    if (last == block) return;
    heap_[at] = last;
    places_[last] = static_cast<int32_t>(at);
    rise(at);
    sink(static_cast<size_t>(places_[last]));
  }

  std::vector<Leaf> leaves_;     // [n_blocks]
  std::vector<int32_t> heap_;    // blocks
  std::vector<int32_t> places_;  // [n_blocks] in the heap, or -1
  int64_t count_ = 0;
  int64_t newest_use_ = 0;
  double age_ = 0;  // a running mean, of leaves that nobody found when they left
  int32_t n_ages_ = 0;
  RecentHashes<int32_t> gone_{1};  // how often each has left
};

}  // namespace

std::unique_ptr<ReclaimPolicy> make_depth() { return std::make_unique<Depth>(); }

}  // namespace paddock
