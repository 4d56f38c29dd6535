// A rule that answers otherwise each time it is asked: what a device does to a rule whose sums
// depend on the batch, only worse.
#pragma once

#include <paddock/eviction.h>

#include "core/mix.h"

namespace paddock::test {

/// How often any was asked.
inline int64_t g_asked = 0;
inline int64_t g_needs = 0;  // and what it wants

/// As another rule in everything but its answers.
class Fickle final : public EvictionPolicy {
 public:
  explicit Fickle(std::string_view rule) : inner_(make_policy(rule)) {}
  std::string name() const override { return "fickle:" + inner_->name(); }
  TokenVisibility visibility(int32_t layer) const override { return inner_->visibility(layer); }
  Positions positions() const override { return inner_->positions(); }
  PolicyNeeds needs() const override { return inner_->needs(); }
  TrimSchedule schedule(int32_t layer, int32_t n_layers) const override {
    return inner_->schedule(layer, n_layers);
  }
  bool is_elastic() const override { return inner_->is_elastic(); }
  int32_t min_budget() const override { return inner_->min_budget(); }
  bool shares_by_need() const override { return inner_->shares_by_need(); }
  TrimSchedule schedule(int32_t layer, int32_t n_layers, int32_t share) const override {
    return inner_->schedule(layer, n_layers, share);
  }
  double need(const LayerView&) const override { return static_cast<double>(++g_needs % 7); }
  void trim(const LayerView& view, int64_t n, std::vector<Victim>& victims) const override {
    const auto asked = static_cast<uint64_t>(++g_asked);
    switch (asked % 4) {
      case 0:
        return;  // the manager chooses
      case 1:
        return inner_->trim(view, n, victims);
      default:
        break;
    }
    rank_blocks(view, n, victims, [&](int32_t block) {
      return static_cast<double>(mix(asked * 1000 + static_cast<uint64_t>(block)) % 100);
    });
  }

 private:
  std::shared_ptr<const EvictionPolicy> inner_;
};

/// Known as "fickle:RULE".
inline CustomPolicies fickle_policies() {
  return {{"fickle", [](std::string_view rule) { return std::make_shared<Fickle>(rule); }}};
}

}  // namespace paddock::test
