// The conformance suite on elastic policies: driven under budgets of all sizes, and each way of
// answering wrongly for a budget is found.
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>

#include "diagnose/elastic_budgets.h"
#include "paddock/error.h"
#include "paddock/testing.h"
#include "support/conformance.h"

namespace paddock {
namespace {

using Victims = std::vector<Victim>;

/// A good elastic policy, to be spoilt.
class Good : public EvictionPolicy {
 public:
  std::string name() const override { return "mine"; }
  PolicyNeeds needs() const override { return {.attention = true}; }
  bool is_elastic() const override { return true; }
  TrimSchedule schedule(int32_t layer, int32_t n_layers, int32_t budget) const override {
    TrimSchedule s{.budget = budget, .every = 32, .keep_first = 4, .newest_divisor = 4};
    if (budget != kUnlimited) s.keep_newest = budget / 4;
    spoil(s, layer, n_layers, budget);
    return s;
  }
  void trim(const LayerView& view, int64_t n_tokens, Victims& victims) const override {
    rank_blocks(view, n_tokens, victims,
                [&](int32_t i) { return view.blocks[i].mass / view.blocks[i].n_tokens; });
  }

 protected:
  virtual void spoil(TrimSchedule&, int32_t /*layer*/, int32_t /*n_layers*/, int32_t) const {}
};

void expect_settings(const ConformanceReport& report, const std::string& says) {
  expect_only(report, FindingKind::kSettings, Severity::kError, says);
}

TEST(ElasticConformance, AGoodOneIsCleanUnderAllBudgets) {
  const auto report = check<Good>();
  EXPECT_TRUE(report.clean()) << to_text(report);
  EXPECT_TRUE(report.notes.empty()) << to_text(report);
  EXPECT_EQ(report.policy, "mine");
  EXPECT_GT(report.decisions, 4 * 500) << "under four budgets";
  const auto single = check_policy(std::make_shared<Good>(), untimed());
  EXPECT_TRUE(single.clean()) << to_text(single);
  EXPECT_EQ(to_text(check<Good>()), to_text(report)) << "asking twice gives the same";
}

TEST(ElasticConformance, BuiltInRulesAreClean) {
  for (const std::string rule :
       {"lru", "h2o", "tova", "knorm", "sink:4", "sink:4@every:16@original", "window",
        "window@min:40@compact", "pyramid:h2o", "pyramid:tova@every:16", "cake:h2o",
        "cake:lru@every:16@min:80@compact", "h2o@every:1@sinks:4",
        "lru@recent:20@min:100@compact"}) {
    const auto report = check_policy([&] { return make_policy(rule); }, untimed());
    EXPECT_TRUE(report.clean()) << to_text(report);
    EXPECT_EQ(report.policy, rule);
    EXPECT_GT(report.decisions, 500) << to_text(report);
  }
}

TEST(ElasticConformance, SaysWhatItCouldNotLookAt) {
  const auto huge = check_policy(make_policy("lru@min:1000000"), untimed());
  EXPECT_TRUE(huge.clean()) << to_text(huge);
  ASSERT_FALSE(huge.notes.empty());
  EXPECT_NE(huge.notes[0].find("with a budget of 1000000: "), std::string::npos) << to_text(huge);
}

TEST(ElasticConformance, IsDrivenUnderBudgetsFromTheLeastToALargeOne) {
  const auto fixed = with_budget(make_policy("pyramid:h2o@every:16@compact"), 90);
  const auto twin = make_policy("pyramid:h2o:90@every:16@compact");
  EXPECT_EQ(fixed->name(), "pyramid:h2o@every:16@compact(90)");
  EXPECT_FALSE(fixed->is_elastic());
  EXPECT_EQ(fixed->positions(), Positions::kCompact);
  EXPECT_TRUE(fixed->needs().attention);
  EXPECT_EQ(fixed->schedule(0, 2).budget, twin->schedule(0, 2).budget);
  EXPECT_EQ(fixed->schedule(1, 2).every, 16);

  Findings findings;
  const auto lru = make_policy("lru@sinks:4");
  const std::vector<int32_t> sizes = {16, 5, 1};
  const auto trials = check_budgets(lru, *lru, 6, sizes, findings);
  EXPECT_TRUE(findings.sorted().empty());
  ASSERT_EQ(trials.size(), 4U);
  const auto expect = [&](size_t i, int32_t budget, const std::vector<int32_t>& block_sizes) {
    EXPECT_EQ(trials[i].budget, budget);
    EXPECT_EQ(trials[i].block_sizes, block_sizes);
  };
  expect(0, 5, {1});
  expect(1, 32, sizes);
  expect(2, 65, sizes);
  expect(3, 600, {16});
}

/// As docs/policies.md has it.
struct Documented : Good {
  TrimSchedule schedule(int32_t, int32_t, int32_t budget) const override {
    return {.budget = budget,
            .every = 32,
            .keep_newest = budget == paddock::kUnlimited ? 0 : budget / 4,
            .newest_divisor = 4};
  }
};
TEST(ElasticConformance, TheDocumentationsExampleIsClean) {
  const auto report = check<Documented>();
  EXPECT_TRUE(report.clean()) << to_text(report);
}

struct DropsAtOnce : Good {
  void spoil(TrimSchedule& s, int32_t, int32_t, int32_t budget) const override {
    s.budget = std::min(budget, 1'000'000);
    s.keep_newest = s.budget / 4;
  }
};
struct Hides : Good {
  TokenVisibility visibility(int32_t) const override { return {4, 60}; }
};
TEST(ElasticConformance, FindsWhatLeavesWithoutABudget) {
  expect_settings(check<DropsAtOnce>(),
                  "answers a budget of 1000000 and every 32 for an unlimited");
  expect_settings(check<Hides>(), "both trims and limits");
}

struct OtherInterval : Good {
  void spoil(TrimSchedule& s, int32_t, int32_t, int32_t budget) const override {
    if (budget < 300) s.every = 16;
  }
};
struct OtherQueries : Good {
  void spoil(TrimSchedule& s, int32_t, int32_t, int32_t budget) const override {
    if (budget == 65) s.observe = 8;
  }
};
struct NoLimit : Good {
  void spoil(TrimSchedule& s, int32_t, int32_t, int32_t budget) const override {
    if (budget == 1 << 20) s.budget = kUnlimited;
  }
};
TEST(ElasticConformance, FindsWhatDependsOnTheBudgetButMustNot) {
  expect_settings(check<OtherInterval>(), "the same for all budgets, 32 and 0");
  expect_settings(check<OtherQueries>(), "with a budget of 65 an engine refuses it");
  expect_settings(check<NoLimit>(), "with a budget of 1048576");
}

struct FirstFalls : Good {
  void spoil(TrimSchedule& s, int32_t layer, int32_t, int32_t budget) const override {
    if (layer == 3 && budget > 70) s.keep_first = 3;
  }
};
struct NewestFalls : Good {
  void spoil(TrimSchedule& s, int32_t, int32_t, int32_t budget) const override {
    if (budget <= 400) return;
    s.newest_divisor = 0;
    s.keep_newest = 90;
  }
};
struct BudgetFalls : Good {
  void spoil(TrimSchedule& s, int32_t layer, int32_t, int32_t budget) const override {
    if (layer != 5 || budget < 120 || budget == kUnlimited) return;
    s.budget = 60;
    s.keep_newest = 15;
  }
};
TEST(ElasticConformance, FindsWhatFallsWhenTheBudgetGrows) {
  expect_settings(check<FirstFalls>(), "in layer 3 keep_first is 4 of a budget of 70, but 3");
  expect_settings(check<NewestFalls>(), "keep_newest");
  expect_settings(check<BudgetFalls>(), "in layer 5 the budget is 119 of a budget of 119, but 60");
}

struct TakesMore : Good {
  void spoil(TrimSchedule& s, int32_t layer, int32_t, int32_t budget) const override {
    if (layer == 0 && budget >= 500 && budget != kUnlimited) s.budget = budget + 1;
    if (budget != kUnlimited) s.keep_newest = s.budget / 4;
  }
};
struct SharesUnevenly : Good {
  void spoil(TrimSchedule& s, int32_t layer, int32_t n_layers, int32_t budget) const override {
    if (budget == kUnlimited) return;
    s.budget = std::max(1, budget + (layer < n_layers / 2 ? budget / 2 : -(budget + 1) / 2));
    s.keep_newest = s.budget / 4;
  }
};
TEST(ElasticConformance, FindsLayersThatTakeMoreThanThereIs) {
  expect_settings(check<TakesMore>(), "take 3001 positions, 500.17 each");
  const auto uneven = check<SharesUnevenly>();
  EXPECT_TRUE(uneven.clean()) << to_text(uneven);
}

struct ThrowsAbove : Good {
  void spoil(TrimSchedule&, int32_t, int32_t, int32_t budget) const override {
    if (budget > 5000 && budget != kUnlimited) throw std::runtime_error("too large");
  }
};
struct ThrowsBelow : Good {
  void spoil(TrimSchedule&, int32_t, int32_t, int32_t budget) const override {
    if (budget < 20) throw std::runtime_error("too small");
  }
};
struct RefusesBelow : Good {  // as it may: an Error says that this is too little
  void spoil(TrimSchedule&, int32_t, int32_t, int32_t budget) const override {
    if (budget < 20) throw Error(ErrorCode::kInvalidArgument, "too small");
  }
};
struct ProtectsAll : Good {
  void spoil(TrimSchedule& s, int32_t, int32_t, int32_t budget) const override {
    if (budget > 300 && budget != kUnlimited) s.keep_first = budget;
  }
};
struct ProtectsNearlyAll : Good {
  void spoil(TrimSchedule& s, int32_t, int32_t, int32_t budget) const override {
    if (budget < 150 || budget == kUnlimited) return;
    s.keep_first = s.budget - 4 - s.keep_newest;
  }
};
struct ProtectsItsBudget : Good {
  void spoil(TrimSchedule& s, int32_t, int32_t, int32_t budget) const override {
    if (budget != kUnlimited) s.keep_newest = budget;
    s.newest_divisor = budget == kUnlimited ? 4 : 1;
  }
};
TEST(ElasticConformance, FindsSizesThatItCannotDealWith) {
  expect_settings(check<ThrowsAbove>(), "with a budget of 8191 an engine refuses it");
  expect_settings(check<ThrowsBelow>(), "threw 'too small'");
  EXPECT_TRUE(check<RefusesBelow>().clean()) << to_text(check<RefusesBelow>());
  expect_settings(check<ProtectsAll>(), "nothing to choose from in a budget of 301");
  expect_settings(check<ProtectsNearlyAll>(), "of layer 0 is protected, in blocks of 16");
  expect_settings(check<ProtectsItsBudget>(), "no budget leaves layer 0 something to choose from");
}

struct ChangesItsMind : Good {
  mutable int calls = 0;
  bool is_elastic() const override { return ++calls % 2 != 0; }
};
struct LeastChanges : Good {
  mutable int calls = 0;
  int32_t min_budget() const override { return ++calls; }
};
struct AnotherPerObject : Good {
  static inline int made = 0;
  int32_t own = made++ % 2;
  void spoil(TrimSchedule& s, int32_t, int32_t, int32_t budget) const override {
    if (budget == 64) s.keep_first += own;
  }
};
struct AnotherTime : Good {
  mutable int calls = 0;
  void spoil(TrimSchedule& s, int32_t layer, int32_t, int32_t budget) const override {
    if (budget == 4096 && layer == 2) s.keep_first += calls++;
  }
};
TEST(ElasticConformance, FindsSettingsThatChange) {
  expect_settings(check<ChangesItsMind>(), "is_elastic() answers differently");
  expect_settings(check<LeastChanges>(), "min_budget() answers differently");
  expect_settings(check<AnotherPerObject>(), "differently for a budget of 64");
  expect_settings(check<AnotherTime>(), "differently for a budget of 4096");
}

struct ElasticThrows : Good {
  bool is_elastic() const override { throw std::runtime_error("who knows"); }
};
struct Taken : Good {
  std::string name() const override { return "h2o"; }
};
TEST(ElasticConformance, FindsWhatIsWrongWithAnyPolicy) {
  expect_only(check<ElasticThrows>(), FindingKind::kThrows, Severity::kError, "is_elastic()");
  const auto taken = check<Taken>();
  expect_only(taken, FindingKind::kName, Severity::kError, "built-in");
}

struct NamesProtected : Good {
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    Good::trim(view, n, victims);
    if (!victims.empty()) victims.back().block = static_cast<int32_t>(view.blocks.size()) - 1;
  }
};
struct Remembers : Good {
  mutable int64_t before = 0;
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    rank_blocks(view, n, victims, [&](int32_t i) {
      return view.blocks[i].mass + static_cast<double>((before + i) % 5);
    });
    before = view.layer;
  }
};
TEST(ElasticConformance, FindsWrongDecisionsUnderEachBudget) {
  const auto report = check<NamesProtected>();
  expect_only(report, FindingKind::kProtected, Severity::kError, "with a budget of ");
  EXPECT_GT(report.findings[0].times, 1000);
  EXPECT_FALSE(check<Remembers>().conforms());
  const auto single = check_policy(std::make_shared<Remembers>(), untimed());
  EXPECT_FALSE(single.conforms()) << "one object shows it, too";
}

}  // namespace
}  // namespace paddock
