// `snapkv:B`: the prompt is compressed once, where it ends (Li et al., "SnapKV", arXiv 2404.14469).
// The W = min(32, B/2) newest positions stay (@recent:N for another W); of the others those that
// these W queries attend to most, smoothed over neighbours so that phrases stay whole:
//   score(i) = mean over positions i-2 .. i+2 of the attention of the W queries, summed over heads
// with zeros beyond either end. Blocks of three positions and more are neighbourhoods themselves
// and are not smoothed again. What is generated afterwards all stays, so the cache is not bounded.
// The paper chooses per head; here the heads of a layer choose together, by their sum. Original
// positions unless @compact.
#include <algorithm>

#include "eviction/rules.h"

namespace paddock {
namespace {

constexpr int32_t kReach = 2;  // positions on either side that are averaged with one

class SnapKv final : public ScoredRule {
 public:
  explicit SnapKv(const ScoredOptions& options) : ScoredRule("snapkv", options) {}
  PolicyNeeds needs() const override { return {.attention = true}; }
  TrimSchedule schedule_for(int32_t budget) const override {
    TrimSchedule schedule = ScoredRule::schedule_for(budget);
    schedule.every = 0;
    schedule.observe = options().recent.value_or(window_within(budget));
    schedule.keep_newest = schedule.observe;
    return schedule;
  }

 protected:
  double score(const LayerView& view, int32_t block) const override {
    const int32_t reach = kReach / view.block_size;
    double sum = 0;
    const auto n = static_cast<int32_t>(view.blocks.size());
    for (int32_t i = std::max(0, block - reach); i <= std::min(n - 1, block + reach); ++i) {
      if (!view.blocks[i].is_protected) sum += view.blocks[i].recent_mass / view.blocks[i].n_tokens;
    }
    return sum / (2 * reach + 1);
  }
};

}  // namespace

std::shared_ptr<const ScoredRule> make_snapkv(const ScoredOptions& options) {
  return std::make_shared<SnapKv>(options);
}

}  // namespace paddock
