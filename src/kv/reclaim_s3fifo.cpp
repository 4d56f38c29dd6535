// S3-FIFO (Yang et al., SOSP 2023, "FIFO queues are all you need for cache eviction"), over leaves.
//
// New blocks stand in a small queue; those that nobody finds again leave from there soon, and are
// remembered. Those that were found again, or come back while they are remembered, stand in the
// main queue, where each time found lets them pass the front once more.
#include <algorithm>

#include "kv/recent_hashes.h"
#include "kv/reclaim_policy.h"

namespace paddock {
namespace {

class S3Fifo final : public ReclaimPolicy {
 public:
  std::string name() const override { return "s3fifo"; }

  void reserve(int32_t n_blocks) override {
    blocks_.assign(static_cast<size_t>(n_blocks), {});
    queues_.reserve(n_blocks);
    ghosts_ = RecentHashes<char>(std::clamp(n_blocks, 16, 1 << 20));
  }

  void on_leaf(const CachedBlock& block) override {
    Block& b = blocks_[block.block];
    if (b.is_known) {  // it was in use, or continued, meanwhile
      b.found = std::min(b.found + 1, kMostFound);
    } else {
      const bool comes_back = ghosts_.take(block.text).has_value();
      const auto found = static_cast<int32_t>(std::min<int64_t>(block.prompts - 1, kMostFound));
      b = {true, comes_back ? kMain : kSmall, found, block.text};
    }
    queues_.push_back(b.queue, block.block);
  }

  void on_use(int32_t block) override { queues_.remove(block); }

  void on_removed(int32_t block) override {
    queues_.remove(block);
    if (blocks_[block].queue == kSmall) ghosts_.add(blocks_[block].text);
    blocks_[block] = {};
  }

  // Each turn of the loop uses up one time that a block was found: O(1) amortised.
  int32_t next() override {
    for (;;) {
      const int32_t small = queues_.size(kSmall);
      const int32_t main = queues_.size(kMain);
      const bool from_small = small > 0 && (main == 0 || 10 * int64_t{small} >= small + main);
      const int32_t block = queues_.front(from_small ? kSmall : kMain);
      if (block < 0 || blocks_[block].found == 0) return block;
      --blocks_[block].found;
      blocks_[block].queue = kMain;
      queues_.push_back(kMain, block);
    }
  }

 private:
  static constexpr int32_t kSmall = 0, kMain = 1;
  static constexpr int32_t kMostFound = 3;
  struct Block {
    bool is_known = false;
    int32_t queue = kSmall;
    int32_t found = 0;  // times that have not been used up
    uint64_t text = 0;
  };
  std::vector<Block> blocks_;
  BlockLists queues_{2};
  RecentHashes<char> ghosts_{1};
};

}  // namespace

std::unique_ptr<ReclaimPolicy> make_s3fifo() { return std::make_unique<S3Fifo>(); }

}  // namespace paddock
