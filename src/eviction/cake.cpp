#include "eviction/cake.h"

#include <algorithm>
#include <cmath>

#include "eviction/rules.h"

namespace paddock {
namespace {

constexpr int32_t kQueries = 32;    // that are recent, as in the paper
constexpr int32_t kMostTimes = 4;   // the budget, of what a layer gets
constexpr double kFaintest = 1e-9;  // of the strongest preference: nobody is left out
constexpr double kStill = 1e-20;    // added to shifts: where nothing moves entropy decides
constexpr int kBisections = 100;

/// `factor` positions for the largest need, beside the base.
struct Shares {
  std::span<const double> needs;
  std::span<const ShareBounds> bounds;
  int32_t base;
  int64_t limit;
  double largest;  // of the needs

  int64_t of(size_t layer, double factor) const {
    const int64_t low = std::max(bounds[layer].least, base);
    const int64_t high = std::max(low, std::min(limit, bounds[layer].most));
    const double want = largest > 0 ? std::max(needs[layer] / largest, kFaintest) : 1;
    const double share = base + factor * want;
    // Compared before it is converted: it may be too large for any integer.
    return share >= static_cast<double>(high) ? high : std::max(low, static_cast<int64_t>(share));
  }
  int64_t sum(double factor) const {
    int64_t sum = 0;
    for (size_t layer = 0; layer < bounds.size(); ++layer) sum += of(layer, factor);
    return sum;
  }
};

class Cake final : public EvictionPolicy {
 public:
  explicit Cake(std::shared_ptr<const ScoredRule> inner) : inner_(std::move(inner)) {}

  std::string name() const override { return "cake:" + inner_->name(); }
  Positions positions() const override { return inner_->positions(); }
  PolicyNeeds needs() const override {
    PolicyNeeds needs = inner_->needs();
    needs.attention = true;
    return needs;
  }
  TrimSchedule schedule(int32_t layer, int32_t n_layers) const override {
    return schedule(layer, n_layers, inner_->options().budget);
  }
  bool is_elastic() const override { return inner_->is_elastic(); }
  TrimSchedule schedule(int32_t, int32_t, int32_t budget) const override {
    TrimSchedule schedule = inner_->schedule_for(budget);
    schedule.observe = inner_->schedule_for(inner_->options().budget).observe;
    if (schedule.observe == 0) schedule.observe = std::min(kQueries, schedule.every);
    return schedule;
  }
  int32_t min_budget() const override { return inner_->min_budget(); }
  bool shares_by_need() const override { return true; }
  double need(const LayerView& view) const override { return preference_of(view).of_both(); }
  void trim(const LayerView& view, int64_t n_tokens, std::vector<Victim>& victims) const override {
    inner_->trim(view, n_tokens, victims);
  }

 private:
  std::shared_ptr<const ScoredRule> inner_;
};

}  // namespace

double Preference::of_both() const { return entropy * std::sqrt(std::sqrt(shift + kStill)); }

Preference preference_of(const LayerView& view) {
  double recent = 0;  // of all blocks
  double after = 0;   // of those that both stretches saw
  double before = 0;
  for (const BlockInfo& block : view.blocks) {
    recent += block.recent_mass;
    if (block.mass <= block.recent_mass) continue;
    after += block.recent_mass;
    before += block.mass - block.recent_mass;
  }
  Preference preference;
  for (const BlockInfo& block : view.blocks) {
    if (block.recent_mass > 0) {
      const double share = block.recent_mass / recent;
      preference.entropy -= share * std::log(share);
    }
    if (block.mass <= block.recent_mass || after <= 0) continue;
    const double moved = block.recent_mass / after - (block.mass - block.recent_mass) / before;
    preference.shift += moved * moved / 4;
  }
  preference.entropy = std::max(preference.entropy, 0.0);  // one block: ln 1 may be rounded
  return preference;
}

int64_t most_share(int32_t budget, int64_t n_layers) {
  const int64_t others = (n_layers - 1) * window_within(budget);
  return std::min(int64_t{kMostTimes} * budget, n_layers * budget - others);
}

void share_out(std::span<const double> needs, std::span<const ShareBounds> bounds, int32_t budget,
               std::span<int32_t> budgets) {
  const auto n = static_cast<int64_t>(budgets.size());
  const Shares shares{needs, bounds, window_within(budget), most_share(budget, n),
                      *std::max_element(needs.begin(), needs.end())};
  const int64_t total = int64_t{budget} * n;
  // The largest factor whose shares are no more than there is.
  double low = 0;
  double high = 1;
  for (const ShareBounds& b : bounds) high = std::max(high, static_cast<double>(b.most));
  high = high / kFaintest;  // everybody has the most that is of use
  if (shares.sum(high) <= total) low = high;
  for (int i = 0; i < kBisections && low < high; ++i) {
    const double middle = low + (high - low) / 2;
    (shares.sum(middle) <= total ? low : high) = middle;
  }
  int64_t left = total;
  for (size_t layer = 0; layer < budgets.size(); ++layer) {
    budgets[layer] = static_cast<int32_t>(std::min<int64_t>(shares.of(layer, low), kUnlimited - 1));
    left -= budgets[layer];
  }
  // What rounding left over, a position each, where the next larger factor gives one.
  for (size_t layer = 0; layer < budgets.size() && left > 0; ++layer) {
    if (shares.of(layer, high) <= budgets[layer]) continue;
    ++budgets[layer];
    --left;
  }
}

std::shared_ptr<const EvictionPolicy> make_cake(std::shared_ptr<const ScoredRule> inner) {
  return std::make_shared<Cake>(std::move(inner));
}

}  // namespace paddock
