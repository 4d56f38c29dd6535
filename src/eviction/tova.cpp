// `tova:B`: token omission via attention (Oren et al., "Transformers are Multi-State RNNs", arXiv
// 2401.06104). What the newest query attends to least leaves:
//   score(block) = attention of the newest query, summed over heads, / its tokens
// The paper decides at every token (@every:1) and averages over the layer's heads, as here.
// Original positions unless @compact.
#include "eviction/rules.h"

namespace paddock {
namespace {

class Tova final : public ScoredRule {
 public:
  explicit Tova(const ScoredOptions& options) : ScoredRule("tova", options) {}
  PolicyNeeds needs() const override { return {.attention = true}; }
  TrimSchedule schedule_for(int32_t budget) const override {
    TrimSchedule schedule = ScoredRule::schedule_for(budget);
    schedule.observe = 1;
    return schedule;
  }

 protected:
  double score(const LayerView& view, int32_t block) const override {
    return view.blocks[block].recent_mass / view.blocks[block].n_tokens;
  }
};

}  // namespace

std::shared_ptr<const ScoredRule> make_tova(const ScoredOptions& options) {
  return std::make_shared<Tova>(options);
}

}  // namespace paddock
