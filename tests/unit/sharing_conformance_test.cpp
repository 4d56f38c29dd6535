// The conformance suite on policies whose layers share by need: each way of wanting wrongly, or of
// answering wrongly for a share, is found.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "paddock/error.h"
#include "paddock/testing.h"
#include "support/conformance.h"

namespace paddock {
namespace {

using Victims = std::vector<Victim>;

/// A good policy that shares, to be spoilt.
class Good : public EvictionPolicy {
 public:
  std::string name() const override { return "mine:96"; }
  PolicyNeeds needs() const override { return {.attention = true}; }
  TrimSchedule schedule(int32_t layer, int32_t n_layers) const override {
    return schedule(layer, n_layers, 96);
  }
  TrimSchedule schedule(int32_t layer, int32_t, int32_t budget) const override {
    TrimSchedule s{.budget = budget, .every = 32, .observe = 8, .keep_first = 4};
    spoil(s, layer, budget);
    return s;
  }
  bool shares_by_need() const override { return true; }
  double need(const LayerView& view) const override {
    double need = 0;
    for (const BlockInfo& block : view.blocks) need += block.recent_mass * block.n_tokens;
    return need;
  }
  void trim(const LayerView& view, int64_t n_tokens, Victims& victims) const override {
    rank_blocks(view, n_tokens, victims,
                [&](int32_t i) { return view.blocks[i].mass / view.blocks[i].n_tokens; });
  }

 protected:
  virtual void spoil(TrimSchedule&, int32_t /*layer*/, int32_t /*budget*/) const {}
};

void expect_error(const ConformanceReport& report, FindingKind kind, const std::string& says) {
  expect_only(report, kind, Severity::kError, says);
}

struct GoodElastic : Good {
  bool is_elastic() const override { return true; }
};
TEST(SharingConformance, GoodOnesAreClean) {
  EXPECT_TRUE(check<Good>().clean()) << to_text(check<Good>());
  EXPECT_GT(check<Good>().decisions, 500);
  EXPECT_TRUE(check<GoodElastic>().clean()) << to_text(check<GoodElastic>());
}

struct Throws : Good {
  double need(const LayerView& view) const override {
    if (view.layer == 3) throw std::runtime_error("no idea");
    return 1;
  }
};
struct NoNumber : Good {
  double need(const LayerView& view) const override { return std::log(view.tokens > 150 ? 0 : 2); }
};
struct Negative : Good {
  double need(const LayerView& view) const override { return view.blocks.size() > 4 ? 1 : -1; }
};
TEST(SharingConformance, FindsNeedsThatAreNone) {
  expect_error(check<Throws>(), FindingKind::kThrows, "need() threw: no idea (in layer 3 at ");
  expect_error(check<NoNumber>(), FindingKind::kScore, "need() is -inf in layer ");
  expect_error(check<Negative>(), FindingKind::kScore, "need() is -1 in layer ");
}

struct Counts : Good {
  mutable int calls = 0;
  double need(const LayerView&) const override { return ++calls; }
};
struct Remembers : Good {
  mutable int64_t longest = 0;
  double need(const LayerView& view) const override {
    longest = std::max(longest, view.length);
    return static_cast<double>(longest);
  }
};
struct AnotherPerObject : Good {
  static inline int made = 0;
  int own = made++;
  double need(const LayerView& view) const override { return Good::need(view) + own; }
};
TEST(SharingConformance, FindsNeedsThatDependOnMoreThanTheView) {
  expect_error(check<Counts>(), FindingKind::kNondeterministic, "need() gave two answers");
  expect_error(check<Remembers>(), FindingKind::kState, "need() gave another answer");
  expect_error(check<AnotherPerObject>(), FindingKind::kState, "as another object");
}

struct UnmeasuredMass : Good {
  PolicyNeeds needs() const override { return {}; }
  void trim(const LayerView& view, int64_t n_tokens, Victims& victims) const override {
    rank_blocks(view, n_tokens, victims, [&](int32_t i) { return i; });
  }
};
struct UnmeasuredNorms : Good {
  double need(const LayerView& view) const override {
    return Good::need(view) + (view.blocks.empty() ? 0 : view.blocks[0].key_norm);
  }
};
struct OnlyNeedMeasures : UnmeasuredMass {
  PolicyNeeds needs() const override { return {.attention = true}; }
};
TEST(SharingConformance, FindsNeedsOfWhatIsNotMeasured) {
  expect_error(check<UnmeasuredMass>(), FindingKind::kNeeds, "need() goes by mass");
  expect_error(check<UnmeasuredNorms>(), FindingKind::kNeeds, "need() goes by key_norm");
  EXPECT_TRUE(check<OnlyNeedMeasures>().clean()) << to_text(check<OnlyNeedMeasures>());
}

struct TakesMore : Good {
  void spoil(TrimSchedule& s, int32_t layer, int32_t budget) const override {
    if (layer == 2 && budget > 200) ++s.budget;
  }
};
struct OtherInterval : Good {
  void spoil(TrimSchedule& s, int32_t, int32_t budget) const override {
    if (budget == 64) s.every = 16;
  }
};
struct Apart : Good {
  void spoil(TrimSchedule& s, int32_t layer, int32_t) const override {
    if (layer == 5) s.every = 16;
  }
};
struct ProtectsLess : Good {
  void spoil(TrimSchedule& s, int32_t, int32_t budget) const override {
    if (budget > 300) s.keep_first = 3;
  }
};
struct ChangesItsMind : Good {
  mutable int calls = 0;
  bool shares_by_need() const override { return ++calls % 2 != 0; }
};
TEST(SharingConformance, FindsSharesThatItCannotDealWith) {
  expect_error(check<TakesMore>(), FindingKind::kSettings,
               "of a share of 201 takes 202 in layer 2");
  expect_error(check<OtherInterval>(), FindingKind::kSettings, "shares by need, but for a budget");
  expect_error(check<Apart>(), FindingKind::kSettings, "all of its layers must decide together");
  expect_error(check<ProtectsLess>(), FindingKind::kSettings, "it must not fall");
  expect_error(check<ChangesItsMind>(), FindingKind::kSettings, "shares_by_need() answers");
}

}  // namespace
}  // namespace paddock
