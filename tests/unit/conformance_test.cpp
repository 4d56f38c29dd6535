// The conformance suite: built-in rules are clean, and each way of being wrong is found by its
// kind.
#include "support/conformance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <stdexcept>

#include "diagnose/cost_growth.h"
#include "paddock/error.h"
#include "paddock/testing.h"
#include "support/device_rules.h"

namespace paddock {
namespace {

using Victims = std::vector<Victim>;

/// A good policy, to be spoilt: the attention a block received per token.
class Good : public EvictionPolicy {
 public:
  std::string name() const override { return "mine:96"; }
  PolicyNeeds needs() const override { return {.attention = true}; }
  TrimSchedule schedule(int32_t, int32_t) const override {
    return {.budget = 96, .every = 32, .keep_first = 4, .keep_newest = 8};
  }
  void trim(const LayerView& view, int64_t n_tokens, Victims& victims) const override {
    rank_blocks(view, n_tokens, victims, [&](int32_t i) { return score(view, i); });
  }

 protected:
  virtual double score(const LayerView& view, int32_t i) const {
    return view.blocks[i].mass / view.blocks[i].n_tokens;
  }
};

// ---- good ones

TEST(Conformance, BuiltInRulesAreClean) {
  const std::vector<std::string> rules = {"full",
                                          "window:100",
                                          "sink:4+60",
                                          "sink:4+60@original",
                                          "lru:128",
                                          "h2o:128",
                                          "tova:128",
                                          "snapkv:128",
                                          "knorm:128",
                                          "random:128@seed:3",
                                          "pyramid:h2o:128",
                                          "pyramid:snapkv:200",
                                          "cake:h2o:128",
                                          "cake:snapkv:200",
                                          "cake:random:128@compact",
                                          "cake:knorm:100@every:16@sinks:4",
                                          "h2o:64@every:1@sinks:4@compact",
                                          "tova:96@every:16@recent:20",
                                          "lru:1024",
                                          "random:40@every:200"};
  EXPECT_EQ(test::forms_without_rule(rules), std::vector<std::string>());
  for (const std::string& rule : rules) {
    const auto report = check_policy([&] { return make_policy(rule); }, untimed());
    EXPECT_TRUE(report.clean()) << to_text(report);
    EXPECT_EQ(report.policy, rule);
    const bool trims =
        !rule.starts_with("full") && !rule.starts_with("window") && !rule.starts_with("sink");
    EXPECT_EQ(report.decisions > 500, trims) << to_text(report);
    EXPECT_EQ(report.decisions == 0, !trims) << to_text(report);
  }
}

TEST(Conformance, AGoodPolicyOfOnesOwnIsClean) {
  const auto report = check<Good>();
  EXPECT_TRUE(report.clean()) << to_text(report);
  EXPECT_TRUE(report.notes.empty()) << to_text(report);
  EXPECT_NE(to_text(report).find("policy 'mine:96': clean"), std::string::npos);
  const auto single = check_policy(std::make_shared<Good>(), untimed());
  EXPECT_TRUE(single.clean()) << to_text(single);
}

TEST(Conformance, AskingTwiceGivesTheSameReport) {
  EXPECT_EQ(to_text(check<Good>()), to_text(check<Good>()));
}

TEST(Conformance, SaysWhatItCouldNotLookAt) {
  const auto huge = check_policy(make_policy("lru:1000000"), untimed());
  EXPECT_TRUE(huge.clean()) << to_text(huge);
  ASSERT_FALSE(huge.notes.empty());
  EXPECT_NE(huge.notes[0].find("smaller budget"), std::string::npos) << to_text(huge);
  const auto small = check_policy(make_policy("h2o:20"), untimed());
  EXPECT_TRUE(small.clean()) << to_text(small);
  ASSERT_EQ(small.notes.size(), 1U) << to_text(small);
  EXPECT_NE(small.notes[0].find("blocks of 16"), std::string::npos) << to_text(small);
}

TEST(Conformance, RefusesWrongUse) {
  EXPECT_THROW(check_policy(std::shared_ptr<const EvictionPolicy>()), Error);
  EXPECT_THROW(check_policy(PolicyFactory()), Error);
  EXPECT_THROW(check_policy([]() -> std::shared_ptr<EvictionPolicy> { return nullptr; }), Error);
  EXPECT_THROW(check_policy([]() -> std::shared_ptr<EvictionPolicy> { throw 1; }), Error);
  EXPECT_THROW(check_policy(make_policy("full"), {.n_layers = 3}), Error);
  EXPECT_THROW(check_policy(make_policy("full"), {.n_heads = 0}), Error);
}

TEST(Conformance, TheDocumentationListsEveryRuleAndFinding) {
  std::ifstream file(PADDOCK_TEST_DATA "/../../docs/policies.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  for (const std::string& form : policy_forms()) {
    EXPECT_NE(text.find("| `" + form + "` |"), std::string::npos) << form;
  }
  for (int kind = 0; kind <= static_cast<int>(FindingKind::kCost); ++kind) {
    const std::string name = finding_kind_name(static_cast<FindingKind>(kind));
    EXPECT_NE(text.find('`' + name + '`'), std::string::npos) << name;
  }
}

// ---- one bad one per kind

struct Throws : Good {
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    if (view.layer == 2) throw std::runtime_error("layer two");
    Good::trim(view, n, victims);
  }
};
TEST(Conformance, FindsThrowing) {
  expect_only(check<Throws>(), FindingKind::kThrows, Severity::kError, "layer two");
}

struct ThrowsAnInt : Good {
  TokenVisibility visibility(int32_t) const override { throw 7; }
};
template <int kCalls>
struct NameThrowsLater : Good {
  mutable int calls = 0;
  std::string name() const override {
    if (++calls > kCalls) throw std::runtime_error("no name left");
    return Good::name();
  }
};
TEST(Conformance, FindsThrowingInSettings) {
  for (const auto& report :
       {check<NameThrowsLater<0>>(), check<NameThrowsLater<1>>(), check<NameThrowsLater<2>>()}) {
    expect_only(report, FindingKind::kThrows, Severity::kError, "no name left");
  }
  expect_only(check<ThrowsAnInt>(), FindingKind::kThrows, Severity::kError, "visibility()");
}

struct NameChanges : Good {
  mutable int calls = 0;
  std::string name() const override { return "mine:" + std::to_string(++calls); }
};
struct NamePerObject : Good {
  std::string own = "mine:" + std::to_string(++made);
  static inline int made = 0;
  std::string name() const override { return own; }
};
struct NameEmpty : Good {
  std::string name() const override { return ""; }
};
struct NameTaken : Good {
  std::string name() const override { return "h2o:96"; }
};
struct NameOdd : Good {
  std::string name() const override { return "my rule, of 96"; }
};
TEST(Conformance, FindsBadNames) {
  expect_only(check<NameChanges>(), FindingKind::kName, Severity::kError, "one call to the next");
  expect_only(check<NamePerObject>(), FindingKind::kName, Severity::kError, "one object");
  expect_only(check<NameEmpty>(), FindingKind::kName, Severity::kError, "empty");
  expect_only(check<NameTaken>(), FindingKind::kName, Severity::kError, "built-in");
  expect_only(check<NameOdd>(), FindingKind::kName, Severity::kWarning, "my rule, of 96");
}

struct ScheduleChanges : Good {
  mutable int calls = 0;
  TrimSchedule schedule(int32_t, int32_t) const override { return {.budget = 96 + ++calls}; }
};
struct VisibilityChanges : EvictionPolicy {
  mutable int calls = 0;
  std::string name() const override { return "mine"; }
  TokenVisibility visibility(int32_t) const override { return {0, 32 + ++calls}; }
};
struct PositionsChange : Good {
  mutable int calls = 0;
  Positions positions() const override {
    return ++calls % 2 == 0 ? Positions::kCompact : Positions::kOriginal;
  }
};
struct NeedsPerObject : Good {
  static inline int made = 0;
  bool first = made++ % 2 == 0;
  PolicyNeeds needs() const override { return {.attention = true, .key_norms = first}; }
};
struct NeedsAfterDecisions : Good {
  mutable bool decided = false;
  PolicyNeeds needs() const override { return {.attention = true, .key_norms = decided}; }
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    decided = true;
    Good::trim(view, n, victims);
  }
};
struct BudgetOfNone : Good {
  TrimSchedule schedule(int32_t, int32_t) const override { return {.budget = 0}; }
};
struct TrimsAndHides : Good {
  TokenVisibility visibility(int32_t) const override { return {4, 60}; }
};
struct NoPositions : Good {
  Positions positions() const override { return static_cast<Positions>(7); }
};
struct BudgetOfNoneLater : Good {
  mutable int calls = 0;
  TrimSchedule schedule(int32_t layer, int32_t n_layers) const override {
    TrimSchedule schedule = Good::schedule(layer, n_layers);
    if (++calls > 2 * n_layers) schedule.budget = 0;
    return schedule;
  }
};
TEST(Conformance, FindsBadSettings) {
  const auto kind = FindingKind::kSettings;
  expect_only(check<ScheduleChanges>(), kind, Severity::kError, "schedule() answers differently");
  expect_only(check<VisibilityChanges>(), kind, Severity::kError, "visibility() answers");
  expect_only(check<PositionsChange>(), kind, Severity::kError, "positions() answers");
  expect_only(check<NeedsPerObject>(), kind, Severity::kError, "one object");
  expect_only(check<NeedsAfterDecisions>(), kind, Severity::kError, "before and after decisions");
  expect_only(check<BudgetOfNone>(), kind, Severity::kError, "budget of 0");
  expect_only(check<BudgetOfNoneLater>(), kind, Severity::kError, "budget of 0");
  expect_only(check<TrimsAndHides>(), kind, Severity::kError, "both trims and limits");
  expect_only(check<NoPositions>(), kind, Severity::kError, "positions() is 7");
}

struct OutOfRange : Good {
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    Good::trim(view, n, victims);
    if (!victims.empty()) victims.back().block = static_cast<int32_t>(view.blocks.size());
  }
};
struct Negative : Good {
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    Good::trim(view, n, victims);
    if (!victims.empty()) victims.back().block = -1;
  }
};
TEST(Conformance, FindsIndicesOutOfRange) {
  expect_only(check<OutOfRange>(), FindingKind::kOutOfRange, Severity::kError, "named block 8");
  expect_only(check<Negative>(), FindingKind::kOutOfRange, Severity::kError, "block -1");
}

struct NamesProtected : Good {
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    Good::trim(view, n, victims);
    if (!victims.empty()) victims.back().block = static_cast<int32_t>(view.blocks.size()) - 1;
  }
};
TEST(Conformance, FindsProtectedBlocks) {
  expect_only(check<NamesProtected>(), FindingKind::kProtected, Severity::kError, "protected");
}

struct NamesTwice : Good {
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    Good::trim(view, n, victims);
    if (!victims.empty()) victims.push_back(victims.back());
  }
};
TEST(Conformance, FindsBlocksNamedTwice) {
  expect_only(check<NamesTwice>(), FindingKind::kDuplicate, Severity::kError, "twice");
}

struct DividesByZero : Good {
  double score(const LayerView& view, int32_t i) const override {
    return view.blocks[i].mass == 0 ? -1 / 0.0 : view.blocks[i].mass;
  }
};
struct Unranked : Good {
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    Good::trim(view, n, victims);
    if (!victims.empty()) victims[0].score = -1 / 0.0;
  }
};
TEST(Conformance, FindsScoresThatAreNotFinite) {
  expect_only(check<Unranked>(), FindingKind::kScore, Severity::kError, "-inf");
  // rank_blocks() does not take them.
  expect_only(check<DividesByZero>(), FindingKind::kThrows, Severity::kError, "is -inf");
}

struct Backwards : Good {
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    Good::trim(view, n, victims);
    for (Victim& victim : victims) victim.score = -victim.score;
  }
};
struct TiesByAge : Good {
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    rank_blocks(view, n, victims, [&](int32_t i) { return std::floor(score(view, i)); });
    std::stable_sort(victims.begin(), victims.end(), [](const Victim& a, const Victim& b) {
      return a.score != b.score ? a.score < b.score : a.block < b.block;
    });
  }
};
TEST(Conformance, FindsWrongOrder) {
  expect_only(check<Backwards>(), FindingKind::kOrder, Severity::kError, "smaller score");
  expect_only(check<TiesByAge>(), FindingKind::kOrder, Severity::kWarning, "less recently used");
}

struct Chance : Good {
  mutable std::mt19937 dice{1};
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    const uint32_t salt = dice();
    rank_blocks(view, n, victims, [&](int32_t i) {
      return score(view, i) * static_cast<double>((salt ^ static_cast<uint32_t>(i)) % 1000 + 1);
    });
  }
};
struct SeedPerObject : Good {
  static inline int made = 0;
  int seed = ++made;
  double score(const LayerView& view, int32_t i) const override {
    return view.blocks[i].mass + seed * static_cast<double>(i % 7);
  }
};
TEST(Conformance, FindsChance) {
  expect_only(check<Chance>(), FindingKind::kNondeterministic, Severity::kError, "twice in a row");
  expect_only(check<SeedPerObject>(), FindingKind::kNondeterministic, Severity::kError,
              "two objects");
}

// Remembers scores by layer and place, as if there were one sequence only.
struct OneSequenceOnly : Good {
  mutable std::map<std::tuple<int32_t, int64_t, int64_t>, double> known;
  double score(const LayerView& view, int32_t i) const override {
    const auto key = std::tuple(view.layer, view.length, view.blocks[i].first_position);
    return known.emplace(key, Good::score(view, i)).first->second;
  }
};
// Ranks by what the layer asked about before had.
struct LeaksLayers : Good {
  mutable int32_t layer = -1, before = -1;
  double score(const LayerView& view, int32_t i) const override {
    if (view.layer != layer) {
      before = layer;
      layer = view.layer;
    }
    return Good::score(view, i) * (1 + (before * 31 + i) % 5);
  }
};
TEST(Conformance, FindsState) {
  expect_only(check<OneSequenceOnly>(), FindingKind::kState, Severity::kError, "another answer");
  expect_only(check<LeaksLayers>(), FindingKind::kState, Severity::kError, "another answer");
  // One object is enough to see this one.
  const auto single = check_policy(std::make_shared<LeaksLayers>(), untimed());
  expect_only(single, FindingKind::kState, Severity::kError, "another answer");
}

struct UnmeasuredMass : Good {
  PolicyNeeds needs() const override { return {}; }
};
struct UnmeasuredUse : Good {
  PolicyNeeds needs() const override { return {}; }
  double score(const LayerView& view, int32_t i) const override {
    return static_cast<double>(view.blocks[i].last_used);
  }
};
struct UnmeasuredNorms : Good {
  double score(const LayerView& view, int32_t i) const override {
    return view.blocks[i].mass - view.blocks[i].key_norm;
  }
};
struct UnusedNorms : Good {
  PolicyNeeds needs() const override { return {.attention = true, .key_norms = true}; }
};
struct UnusedAttention : Good {
  double score(const LayerView& view, int32_t i) const override {
    return static_cast<double>(view.blocks[i].first_position);
  }
};
TEST(Conformance, FindsWrongNeeds) {
  const auto kind = FindingKind::kNeeds;
  expect_only(check<UnmeasuredMass>(), kind, Severity::kError, "needs().attention is false");
  expect_only(check<UnmeasuredUse>(), kind, Severity::kError, "needs().attention is false");
  expect_only(check<UnmeasuredNorms>(), kind, Severity::kError, "needs().key_norms is false");
  expect_only(check<UnusedNorms>(), kind, Severity::kWarning, "needs().key_norms is true");
  expect_only(check<UnusedAttention>(), kind, Severity::kWarning, "needs().attention is true");
}

struct NamesOne : Good {
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    Good::trim(view, n, victims);
    if (!victims.empty()) victims.resize(1);
  }
};
TEST(Conformance, FindsShortfalls) {
  expect_only(check<NamesOne>(), FindingKind::kShortfall, Severity::kWarning, "not protected");
}

// Sinks of its own that it does not tell the cache about.
struct SecretSink : Good {
  TrimSchedule schedule(int32_t, int32_t) const override { return {.budget = 96, .every = 32}; }
  void trim(const LayerView& view, int64_t n, Victims& victims) const override {
    Good::trim(view, n + view.block_size, victims);
    std::erase_if(victims,
                  [&](const Victim& v) { return view.blocks[v.block].first_position == 0; });
  }
};
// Names it when there is nothing else, which never comes to pass.
struct FirstIsHoly : Good {
  TrimSchedule schedule(int32_t, int32_t) const override { return {.budget = 96, .every = 32}; }
  double score(const LayerView& view, int32_t i) const override {
    return view.blocks[i].first_position == 0 ? 1e12 : Good::score(view, i);
  }
};
TEST(Conformance, FindsForgottenBlocks) {
  expect_only(check<SecretSink>(), FindingKind::kForgotten, Severity::kWarning, "position 0");
  expect_only(check<FirstIsHoly>(), FindingKind::kForgotten, Severity::kWarning,
              "whatever was measured");
}

// With many blocks, looks at all pairs, and at all of them again for each block.
struct Cubic : Good {
  double score(const LayerView& view, int32_t i) const override {
    int64_t sum = 0;
    if (view.blocks.size() <= 256) return Good::score(view, i);
    for (const BlockInfo& a : view.blocks) {
      for (const BlockInfo& b : view.blocks) sum += (a.first_position ^ b.first_position) & i;
    }
    return view.blocks[i].mass + (sum == -1 ? 1 : 0);
  }
};
TEST(Conformance, FindsCostThatGrowsTooFast) {
  const auto report = check_policy([] { return std::make_shared<Cubic>(); });
  expect_only(report, FindingKind::kCost, Severity::kWarning, "log blocks");
}

TEST(CostGrowth, TellsGrowthFromNoise) {
  std::mt19937 dice(5);
  const auto noise = [&] { return 0.7 + 0.6 * (dice() % 1000) / 1000.0; };
  const auto found = [&](const std::function<double(double n)>& cost) {
    return find_cost_growth([&](int32_t n) { return cost(n) * noise(); }).has_value();
  };
  for (int i = 0; i < 50; ++i) {
    EXPECT_FALSE(found([](double n) { return 1e-8 * n; }));
    EXPECT_FALSE(found([](double n) { return 1e-6 + 2e-8 * n * std::log2(n); }));
    // Past a cache of the processor everything takes twice as long.
    EXPECT_FALSE(found([](double n) { return 1e-8 * n * std::log2(n) * (n > 2000 ? 2 : 1); }));
    EXPECT_TRUE(found([](double n) { return 1e-9 * n * n; }));
    EXPECT_TRUE(found([](double n) { return 1e-5 + 1e-9 * n * n; }));
    EXPECT_TRUE(found([](double n) { return 1e-9 * n * n * n; }));
    EXPECT_TRUE(found([](double n) { return 2e-6 * n * n; }));  // seconds: stops early
  }
  // One slow measurement among five is not counted, nor one slow round among three.
  int calls = 0;
  EXPECT_FALSE(find_cost_growth([&](int32_t n) { return n * (++calls % 5 == 0 ? 1e-3 : 1e-8); }));
  int large = 0;
  EXPECT_FALSE(
      find_cost_growth([&](int32_t n) { return n * (n == 8192 && ++large == 1 ? 1e-5 : 1e-8); }));
}

}  // namespace
}  // namespace paddock
