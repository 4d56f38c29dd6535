// `h2o:B`: heavy hitters and recent tokens (Zhang et al., "H2O: Heavy-Hitter Oracle", arXiv
// 2306.14048). Half of the budget, B/2, are the newest positions (@recent:N for another share); of
// the others those stay that have received most attention from all queries so far:
//   score(block) = sum over queries and heads of its attention probability / its tokens
// The paper chooses per head; here the heads of a layer choose together, by their sum. Original
// positions unless @compact.
#include "eviction/rules.h"

namespace paddock {
namespace {

class H2o final : public ScoredRule {
 public:
  explicit H2o(const ScoredOptions& options) : ScoredRule("h2o", options) {}
  PolicyNeeds needs() const override { return {.attention = true}; }
  TrimSchedule schedule_for(int32_t budget) const override {
    TrimSchedule schedule = ScoredRule::schedule_for(budget);
    if (!options().recent) {
      schedule.keep_newest = budget == kUnlimited ? 0 : budget / 2;
      schedule.newest_divisor = 2;
    }
    return schedule;
  }

 protected:
  double score(const LayerView& view, int32_t block) const override {
    return view.blocks[block].mass / view.blocks[block].n_tokens;
  }
};

}  // namespace

std::shared_ptr<const ScoredRule> make_h2o(const ScoredOptions& options) {
  return std::make_shared<H2o>(options);
}

}  // namespace paddock
