// Rules without a budget of their own: what they answer for the budgets that they are given, and
// what a map of rules by layer makes of that.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>

#include "kv/policy_map.h"
#include "paddock/error.h"
#include "paddock/eviction.h"

namespace paddock {
namespace {

/// An elastic rule with a share of its budget protected, which differs by layer.
struct Stretchy : EvictionPolicy {
  explicit Stretchy(TrimSchedule asked, int32_t least = 0) : schedule_(asked), least_(least) {}
  std::string name() const override { return "stretchy"; }
  bool is_elastic() const override { return true; }
  int32_t min_budget() const override { return least_; }
  TrimSchedule schedule(int32_t layer, int32_t n_layers, int32_t budget) const override {
    TrimSchedule s = schedule_;
    s.budget = budget == kUnlimited ? budget : std::max(1, budget - layer);
    if (s.newest_divisor > 0 && budget != kUnlimited) s.keep_newest = s.budget / s.newest_divisor;
    if (throws_at == budget) throw std::runtime_error("not this one");
    (void)n_layers;
    return s;
  }
  int32_t throws_at = 0;

 private:
  TrimSchedule schedule_;
  int32_t least_;
};

/// Rules named after what follows "s:": keep_first.
CustomPolicies stretchy_rules() {
  return {{"s",
           [](std::string_view first) {
             return std::make_shared<Stretchy>(
                 TrimSchedule{.every = 8, .keep_first = std::stoi(std::string(first))});
           }},
          {"every", [](std::string_view n) {
             return std::make_shared<Stretchy>(TrimSchedule{.every = std::stoi(std::string(n))});
           }}};
}

TEST(ElasticMap, IsElasticWhereSomeLayerIs) {
  const CustomPolicies custom = stretchy_rules();
  for (const char* spec : {"full", "lru:9", "0=sink:4+9,*=h2o:64"}) {
    const PolicyMap map = PolicyMap::parse(spec, 3);
    EXPECT_FALSE(map.is_elastic()) << spec;
    EXPECT_EQ(map.interval(), 0) << spec;
    EXPECT_EQ(map.least_budget(4), 0) << spec;
  }
  for (const char* spec : {"every:5", "0=lru:9@every:7,*=every:5", "0-1=full,2=every:5"}) {
    const PolicyMap map = PolicyMap::parse(spec, 3, custom);
    EXPECT_TRUE(map.is_elastic()) << spec;
    EXPECT_EQ(map.interval(), 5) << spec << ": fixed layers do not count";
  }
  EXPECT_TRUE(PolicyMap::uniform(std::make_shared<Stretchy>(TrimSchedule{}), 2).is_elastic());
}

TEST(ElasticMap, LayersDecideTogetherAtTheirLeastCommonMultiple) {
  const CustomPolicies custom = stretchy_rules();
  const auto interval = [&](const char* spec) {
    return PolicyMap::parse(spec, 4, custom).interval();
  };
  EXPECT_EQ(interval("every:1"), 1);
  EXPECT_EQ(interval("0=every:6,1=every:4,*=every:2"), 12);
  EXPECT_EQ(interval("0=every:32,*=every:64"), 64);
  EXPECT_EQ(interval("0=every:65536,*=every:4096"), 65536);
  EXPECT_EQ(interval("0=every:257,*=every:255"), 65535);
  for (const char* spec :
       {"every:65537", "0=every:257,*=every:256", "0=every:65535,1=every:2,*=full",
        "0=every:2147483647,1=every:2147483646,*=every:2147483645"}) {
    try {
      interval(spec);
      ADD_FAILURE() << spec;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(e.what()).find("65536"), std::string::npos) << e.what();
    }
  }
  EXPECT_THROW(PolicyMap::uniform(std::make_shared<Stretchy>(TrimSchedule{.every = 65537}), 1),
               Error);
}

/// By trying every budget in turn.
int32_t least_by_trial(const PolicyMap& map, int32_t block_size) {
  for (int32_t budget = 1;; ++budget) {
    bool fits = true;
    for (int32_t i = 0; i < map.size() && fits; ++i) {
      const LayerRule& rule = map.layer(i);
      if (!rule.is_elastic) continue;
      try {
        fits = budget >= rule.min_budget &&
               leaves_choice(rule.schedule_with(budget, i, map.size()), block_size);
      } catch (const Error&) {
        fits = false;
      }
    }
    if (fits) return budget;
  }
}

TEST(ElasticMap, TheLeastBudgetLeavesEveryElasticLayerAChoice) {
  for (const int32_t block_size : {1, 7, 16, 64}) {
    for (const TrimSchedule& asked :
         {TrimSchedule{.every = 8}, TrimSchedule{.every = 8, .keep_first = 5},
          TrimSchedule{.every = 8, .keep_first = 64, .keep_newest = 33},
          TrimSchedule{.every = 8, .keep_first = 3, .newest_divisor = 2},
          TrimSchedule{.every = 8, .newest_divisor = 3}}) {
      for (const int32_t least : {0, 1, 2, 100, 1000}) {
        const PolicyMap map = PolicyMap::uniform(std::make_shared<Stretchy>(asked, least), 3);
        const int32_t found = map.least_budget(block_size);
        EXPECT_EQ(found, least_by_trial(map, block_size))
            << block_size << " " << asked.keep_first << " " << asked.keep_newest << " " << least;
        EXPECT_GE(found, least);
      }
    }
  }
  // The newest block is protected, and of the sinks whole blocks.
  const auto least = [](int32_t keep_first, int32_t block_size) {
    const auto rule =
        std::make_shared<Stretchy>(TrimSchedule{.every = 8, .keep_first = keep_first});
    return PolicyMap::uniform(rule, 1).least_budget(block_size);
  };
  EXPECT_EQ(least(0, 1), 1);
  EXPECT_EQ(least(0, 16), 16);
  EXPECT_EQ(least(4, 16), 32);
  EXPECT_EQ(least(17, 16), 48);
}

TEST(ElasticMap, TheLayerThatNeedsMostDecides) {
  const PolicyMap map = PolicyMap::parse("1=s:40,3=full,4=lru:300,*=s:4", 5, stretchy_rules());
  EXPECT_EQ(map.least_budget(8), 49) << "40 + 8 in layer 1, which has one less than the mean";
  EXPECT_EQ(map.least_budget(8), least_by_trial(map, 8));
}

TEST(ElasticMap, SaysWhereNoBudgetIsEnough) {
  /// Protects all that it is given.
  struct Greedy : Stretchy {
    Greedy() : Stretchy(TrimSchedule{}) {}
    TrimSchedule schedule(int32_t layer, int32_t n_layers, int32_t budget) const override {
      TrimSchedule s = Stretchy::schedule(layer, n_layers, budget);
      if (layer == 1 && budget != kUnlimited) s.keep_newest = s.budget - 1;
      return s;
    }
  };
  const PolicyMap map = PolicyMap::uniform(std::make_shared<Greedy>(), 3);
  EXPECT_NO_THROW(map.least_budget(1)) << "one position is no block more than the newest";
  try {
    map.least_budget(4);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(e.what()).find("layer 1"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("'stretchy'"), std::string::npos) << e.what();
  }
  const auto huge = std::make_shared<Stretchy>(TrimSchedule{}, kUnlimited - 2);
  EXPECT_THROW(PolicyMap::uniform(huge, 1).least_budget(4), Error)
      << "budget and interval have no room";
}

TEST(ElasticMap, PassesOnWhatARuleThrows) {
  const auto rule = std::make_shared<Stretchy>(TrimSchedule{});
  const PolicyMap map = PolicyMap::uniform(rule, 1);
  rule->throws_at = 16;
  EXPECT_THROW(map.least_budget(16), PolicyThrew);
}

}  // namespace
}  // namespace paddock
