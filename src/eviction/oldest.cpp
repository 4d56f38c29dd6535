// `sink:S` and `window` without a budget: elastic. Under a budget whole blocks leave at decision
// lengths, the oldest first; blocks with any of the first S positions stay:
//   score(block) = its first position
// So these trim, as every other elastic rule does, where their fixed forms hide: what pages come
// back is known beforehand, and between two decisions queries see more than the budget. As in the
// fixed forms `sink` is compact unless @original, `window` original unless @compact.
#include <fmt/format.h>

#include "eviction/rules.h"

namespace paddock {
namespace {

class Oldest final : public ScoredRule {
 public:
  Oldest(int32_t sinks, const ScoredOptions& options)
      : ScoredRule("window", options), sinks_(sinks) {}

  std::string name() const override {
    if (sinks_ == 0) return ScoredRule::name();
    return fmt::format("sink:{}{}{}", sinks_, options_text(), options().compact ? "" : "@original");
  }
  TrimSchedule schedule_for(int32_t budget) const override {
    TrimSchedule schedule = ScoredRule::schedule_for(budget);
    schedule.keep_first = sinks_;
    return schedule;
  }

 protected:
  double score(const LayerView& view, int32_t block) const override {
    return static_cast<double>(view.blocks[block].first_position);
  }

 private:
  int32_t sinks_;
};

}  // namespace

std::shared_ptr<const ScoredRule> make_oldest(int32_t sinks, const ScoredOptions& options) {
  return std::make_shared<Oldest>(sinks, options);
}

}  // namespace paddock
