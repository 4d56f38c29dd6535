// What many prompts came through stays longer: greedy-dual with frequency (Cherkasova, 1998), over
// leaves.
//
// A leaf's rank is the number of prompts that came through it, on top of the rank of what left
// last: so a block that many found outlives others for a while, and not for ever. Blocks of equal
// rank leave as they became leaves. A binary heap that knows where each block stands: O(log n).
#include <algorithm>
#include <utility>

#include "kv/reclaim_policy.h"

namespace paddock {
namespace {

class Depth final : public ReclaimPolicy {
 public:
  std::string name() const override { return "depth"; }

  void reserve(int32_t n_blocks) override {
    ranks_.assign(static_cast<size_t>(n_blocks), {});
    places_.assign(static_cast<size_t>(n_blocks), -1);
    heap_.clear();
    heap_.reserve(static_cast<size_t>(n_blocks));
  }

  void on_leaf(const CachedBlock& block) override {
    take_out(block.block);
    ranks_[block.block] = {passed_ + block.prompts, ++count_};
    places_[block.block] = static_cast<int32_t>(heap_.size());
    heap_.push_back(block.block);
    rise(heap_.size() - 1);
  }

  void on_use(int32_t block) override { take_out(block); }

  void on_removed(int32_t block) override {
    if (places_[block] == 0) passed_ = std::max(passed_, ranks_[block].first);
    take_out(block);
  }

  int32_t next() override { return heap_.empty() ? -1 : heap_.front(); }

 private:
  bool is_before(size_t a, size_t b) const { return ranks_[heap_[a]] < ranks_[heap_[b]]; }

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

  std::vector<std::pair<int64_t, int64_t>> ranks_;  // [n_blocks] rank, and when it became a leaf
  std::vector<int32_t> heap_;                       // blocks
  std::vector<int32_t> places_;                     // [n_blocks] in the heap, or -1
  int64_t passed_ = 0;                              // rank of what left last
  int64_t count_ = 0;
};

}  // namespace

std::unique_ptr<ReclaimPolicy> make_depth() { return std::make_unique<Depth>(); }

}  // namespace paddock
