// Constructors of the built-in policies, used by the registry alone. Arguments are checked there.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "paddock/eviction.h"

namespace paddock {

std::shared_ptr<const EvictionPolicy> make_full();
std::shared_ptr<const EvictionPolicy> make_window(int32_t window, Positions positions);
std::shared_ptr<const EvictionPolicy> make_sink(int32_t sinks, int32_t window, Positions positions);

/// Positions that leave no choice, of the newest queries or of each layer's share: the window of 32
/// of SnapKV's and PyramidKV's papers, or half of a budget that is small.
constexpr int32_t window_within(int64_t budget) {
  return static_cast<int32_t>(budget / 2 < 32 ? budget / 2 : 32);
}

/// What all rules that trim by score have in common: NAME:B, or NAME, and its options.
struct ScoredOptions {
  int32_t budget = 0;             // kUnlimited: none of its own, it is elastic
  std::optional<int32_t> every;   // @every:N
  std::optional<int32_t> sinks;   // @sinks:N, protects the first positions
  std::optional<int32_t> recent;  // @recent:N, protects the newest
  std::optional<int64_t> seed;    // @seed:N, of `random`
  std::optional<int32_t> least;   // @min:N, of an elastic one
  bool compact = false;           // @compact
};

/// A rule that keeps the blocks of highest score within a budget. A new one overrides score().
class ScoredRule : public EvictionPolicy {
 public:
  ScoredRule(const char* rule_name, const ScoredOptions& options)
      : rule_name_(rule_name), options_(options) {}

  std::string name() const override;
  Positions positions() const override {
    return options_.compact ? Positions::kCompact : Positions::kOriginal;
  }
  TrimSchedule schedule(int32_t, int32_t) const override { return schedule_for(options_.budget); }
  bool is_elastic() const override { return options_.budget == kUnlimited; }
  TrimSchedule schedule(int32_t, int32_t, int32_t budget) const override {
    return schedule_for(budget);
  }
  int32_t min_budget() const override { return options_.least.value_or(0); }
  void trim(const LayerView& view, int64_t n_tokens, std::vector<Victim>& victims) const override;

  /// The schedule this rule would have with another budget: layers may differ (pyramid).
  virtual TrimSchedule schedule_for(int32_t budget) const;
  const ScoredOptions& options() const { return options_; }

 protected:
  /// Of one unprotected block; the smallest leaves first.
  virtual double score(const LayerView& view, int32_t block) const = 0;
  /// What follows the budget in a name, but where survivors lie.
  std::string options_text() const;

 private:
  const char* rule_name_;
  ScoredOptions options_;
};

std::shared_ptr<const ScoredRule> make_lru(const ScoredOptions& options);
std::shared_ptr<const ScoredRule> make_h2o(const ScoredOptions& options);
std::shared_ptr<const ScoredRule> make_tova(const ScoredOptions& options);
std::shared_ptr<const ScoredRule> make_snapkv(const ScoredOptions& options);
std::shared_ptr<const ScoredRule> make_knorm(const ScoredOptions& options);
std::shared_ptr<const ScoredRule> make_random(const ScoredOptions& options);
/// Elastic: `sink`, without sinks `window`; the oldest leave.
std::shared_ptr<const ScoredRule> make_oldest(int32_t sinks, const ScoredOptions& options);
/// `inner` with a budget that falls from layer to layer.
std::shared_ptr<const EvictionPolicy> make_pyramid(std::shared_ptr<const ScoredRule> inner);
/// `inner` with a budget that layers share out by need.
std::shared_ptr<const EvictionPolicy> make_cake(std::shared_ptr<const ScoredRule> inner);

}  // namespace paddock
