#include "eviction/cake.h"

#include <algorithm>
#include <cmath>

#include "eviction/rules.h"

namespace paddock {
namespace {

constexpr int32_t kQueries = 32;  // that are recent, as in the paper
constexpr double kStill = 1e-20;  // added to shifts: where nothing moves entropy decides

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

std::shared_ptr<const EvictionPolicy> make_cake(std::shared_ptr<const ScoredRule> inner) {
  return std::make_shared<Cake>(std::move(inner));
}

}  // namespace paddock
