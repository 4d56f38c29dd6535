// `pyramid:NAME:B`: another scored rule whose budget falls with depth (Cai et al., "PyramidKV",
// arXiv 2406.02069): lower layers spread their attention, upper ones gather it. B is the mean over
// layers. Every layer gets W = min(32, B/2); the rest is an arithmetic sequence over layers l = 0
// .. L-1:
//   budget(l) = W + first - l * (first - last) / (L - 1),
//   last = (B - W) / 20,  first = 2 * (B - W) - last
// with the paper's beta of 20. All else is as under the inner rule. `pyramid:NAME` is elastic: B is
// what it is given; layers' budgets are then rounded down, so that their mean is never more than B.
#include <algorithm>

#include "eviction/rules.h"

namespace paddock {
namespace {

class Pyramid final : public EvictionPolicy {
 public:
  explicit Pyramid(std::shared_ptr<const ScoredRule> inner) : inner_(std::move(inner)) {}

  std::string name() const override { return "pyramid:" + inner_->name(); }
  Positions positions() const override { return inner_->positions(); }
  PolicyNeeds needs() const override { return inner_->needs(); }
  TrimSchedule schedule(int32_t layer, int32_t n_layers) const override {
    return schedule(layer, n_layers, inner_->options().budget);
  }
  bool is_elastic() const override { return inner_->is_elastic(); }
  TrimSchedule schedule(int32_t layer, int32_t n_layers, int32_t budget) const override {
    return inner_->schedule_for(share_of(budget, layer, n_layers));
  }
  int32_t min_budget() const override { return inner_->min_budget(); }
  void trim(const LayerView& view, int64_t n_tokens, std::vector<Victim>& victims) const override {
    inner_->trim(view, n_tokens, victims);
  }

 private:
  int32_t share_of(int64_t mean, int32_t layer, int32_t n_layers) const {
    if (n_layers < 2 || mean == kUnlimited) return static_cast<int32_t>(mean);
    const int64_t base = window_within(mean);
    const int64_t last = (mean - base) / 20;
    const int64_t first = 2 * (mean - base) - last;
    const int32_t steps = n_layers - 1;
    const int64_t below = (layer * (first - last) + (is_elastic() ? steps - 1 : 0)) / steps;
    return static_cast<int32_t>(std::min<int64_t>(kUnlimited - 1, base + first - below));
  }

  std::shared_ptr<const ScoredRule> inner_;
};

}  // namespace

std::shared_ptr<const EvictionPolicy> make_pyramid(std::shared_ptr<const ScoredRule> inner) {
  return std::make_shared<Pyramid>(std::move(inner));
}

}  // namespace paddock
