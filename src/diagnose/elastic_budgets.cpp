#include "diagnose/elastic_budgets.h"

#include <algorithm>

#include "kv/policy_map.h"

namespace paddock {
namespace {

constexpr int32_t kFewBudgets = 1000;     // next to each other, from the least on
constexpr int32_t kMostBudget = 1 << 24;  // positions
constexpr int32_t kLargeBudget = 600;     // that is driven
constexpr FindingKind kSettings = FindingKind::kSettings;

class WithBudget final : public EvictionPolicy {
 public:
  WithBudget(std::shared_ptr<const EvictionPolicy> policy, int32_t budget)
      : policy_(std::move(policy)), budget_(budget) {}

  std::string name() const override { return fmt::format("{}({})", policy_->name(), budget_); }
  TokenVisibility visibility(int32_t layer) const override { return policy_->visibility(layer); }
  Positions positions() const override { return policy_->positions(); }
  PolicyNeeds needs() const override { return policy_->needs(); }
  TrimSchedule schedule(int32_t layer, int32_t n_layers) const override {
    return policy_->schedule(layer, n_layers, budget_);
  }
  bool shares_by_need() const override { return policy_->shares_by_need(); }
  TrimSchedule schedule(int32_t layer, int32_t n_layers, int32_t share) const override {
    return policy_->schedule(layer, n_layers, share);
  }
  double need(const LayerView& view) const override { return policy_->need(view); }
  void trim(const LayerView& view, int64_t n_tokens, std::vector<Victim>& victims) const override {
    policy_->trim(view, n_tokens, victims);
  }

 private:
  std::shared_ptr<const EvictionPolicy> policy_;
  int32_t budget_;
};

/// Every one at first, then powers of two and their neighbours.
std::vector<int32_t> budgets_from(int32_t least) {
  std::vector<int32_t> budgets;
  for (int32_t i = 0; i < kFewBudgets && least <= kMostBudget; ++i) budgets.push_back(least + i);
  for (int32_t power = 1; power <= kMostBudget; power *= 2) {
    for (const int32_t budget : {power - 1, power, power + 1}) {
      if (budget - kFewBudgets >= least) budgets.push_back(budget);
    }
  }
  if (budgets.empty()) budgets.push_back(least);
  return budgets;
}

/// What the layers answer for one budget; empty after a finding.
std::vector<TrimSchedule> ask_all(const PolicyMap& map, int32_t budget, Findings& findings) {
  std::vector<TrimSchedule> answers;
  int64_t sum = 0;
  try {
    for (int32_t layer = 0; layer < map.size(); ++layer) {
      answers.push_back(map.layer(layer).schedule_with(budget, layer, map.size()));
      sum += answers.back().budget;
    }
  } catch (const Error& e) {
    findings.error(kSettings,
                   "with a budget of {} an engine refuses it: {}; where that is too little to work "
                   "with, min_budget() says so",
                   budget, e.what());
    return {};
  }
  if (sum > int64_t{budget} * map.size()) {
    findings.error(kSettings,
                   "of a budget of {} its {} layers take {} positions, {:.2f} each; they may share "
                   "it unevenly, but the mean must not exceed it",
                   budget, map.size(), sum, static_cast<double>(sum) / map.size());
    return {};
  }
  return answers;
}

/// False, and a finding, where more of a larger budget leaves, or less is protected.
bool grows(int32_t layer, int32_t less, const TrimSchedule& a, int32_t more, const TrimSchedule& b,
           Findings& findings) {
  const auto check = [&](const char* what, int32_t before, int32_t after) {
    if (after >= before) return true;
    findings.error(kSettings,
                   "in layer {} {} is {} of a budget of {}, but {} of one of {}; it must not fall "
                   "when the budget grows",
                   layer, what, before, less, after, more);
    return false;
  };
  return check("the budget", a.budget, b.budget) &&
         check("keep_first", a.keep_first, b.keep_first) &&
         check("keep_newest", a.keep_newest, b.keep_newest);
}

bool check_choice(const std::vector<TrimSchedule>& answers, int32_t budget,
                  std::span<const BudgetTrial> leasts, Findings& findings) {
  for (size_t layer = 0; layer < answers.size(); ++layer) {
    for (const BudgetTrial& least : leasts) {
      if (budget < least.budget || leaves_choice(answers[layer], least.block_sizes[0])) continue;
      findings.error(kSettings,
                     "with a budget of {} all of layer {} is protected, in blocks of {}, though "
                     "{} leaves it something to choose from; a larger budget must leave no less",
                     budget, layer, least.block_sizes[0], least.budget);
      return false;
    }
  }
  return true;
}

bool check_answers(const PolicyMap& map, const EvictionPolicy& twin, int32_t least,
                   std::span<const BudgetTrial> leasts, Findings& findings) {
  std::vector<TrimSchedule> before;
  int32_t less = 0;
  for (const int32_t budget : budgets_from(least)) {
    const std::vector<TrimSchedule> answers = ask_all(map, budget, findings);
    if (answers.empty() || !check_choice(answers, budget, leasts, findings)) return false;
    for (int32_t layer = 0; layer < map.size(); ++layer) {
      if (!before.empty() && !grows(layer, less, before[layer], budget, answers[layer], findings)) {
        return false;
      }
      for (const EvictionPolicy* again : {map.layer(layer).policy.get(), &twin}) {
        if (answers[layer] == again->schedule(layer, map.size(), budget)) continue;
        findings.error(kSettings,
                       "schedule() answers differently for a budget of {} when it is asked again, "
                       "or as another object of the factory; it must depend on its arguments alone",
                       budget);
        return false;
      }
    }
    before = answers;
    less = budget;
  }
  return true;
}

}  // namespace

std::shared_ptr<const EvictionPolicy> with_budget(std::shared_ptr<const EvictionPolicy> policy,
                                                  int32_t budget) {
  return std::make_shared<WithBudget>(std::move(policy), budget);
}

std::vector<BudgetTrial> check_budgets(const std::shared_ptr<const EvictionPolicy>& policy,
                                       const EvictionPolicy& twin, int32_t n_layers,
                                       std::span<const int32_t> block_sizes, Findings& findings) {
  std::vector<BudgetTrial> leasts;  // one block size each
  try {
    const PolicyMap map = PolicyMap::uniform(policy, n_layers);
    for (const int32_t size : block_sizes) leasts.push_back({map.least_budget(size), {size}});
    const auto by_budget = [](const BudgetTrial& a, const BudgetTrial& b) {
      return a.budget < b.budget;
    };
    const auto [first, last] = std::minmax_element(leasts.begin(), leasts.end(), by_budget);
    if (!check_answers(map, twin, first->budget, leasts, findings)) return {};
    const int32_t few = std::min(last->budget, kMostBudget);
    std::vector<int32_t> budgets = {first->budget, last->budget,
                                    std::max(last->budget, 2 * few | 1),
                                    std::max({last->budget, 4 * few, kLargeBudget})};
    budgets.erase(std::unique(budgets.begin(), budgets.end()), budgets.end());
    std::vector<BudgetTrial> trials;
    for (const int32_t budget : budgets) {
      trials.push_back({budget, {}});
      for (const BudgetTrial& least : leasts) {
        if (budget >= least.budget) trials.back().block_sizes.push_back(least.block_sizes[0]);
      }
    }
    trials.back().block_sizes.resize(1);  // many small blocks take long
    return trials;
  } catch (...) {
    findings.error(kSettings, "an engine refuses it: {}", current_exception_text());
    return {};
  }
}

void check_shares(const std::shared_ptr<const EvictionPolicy>& policy, const EvictionPolicy& twin,
                  int32_t n_layers, std::span<const int32_t> block_sizes, Findings& findings) {
  try {
    const PolicyMap map = PolicyMap::uniform(policy, n_layers);
    std::vector<BudgetTrial> leasts;  // one block size each
    int32_t least = kUnlimited;
    for (const int32_t size : block_sizes) {
      int32_t own = 0;
      for (int32_t layer = 0; layer < n_layers; ++layer) {
        own = std::max(own, map.least_share(layer, size));
      }
      leasts.push_back({own, {size}});
      least = std::min(least, own);
    }
    check_answers(map, twin, least, leasts, findings);
  } catch (...) {
    findings.error(kSettings, "an engine refuses it: {}", current_exception_text());
  }
}

}  // namespace paddock
