// Rules without a budget of their own: what they answer for the budgets that they are given, and
// what a map of rules by layer makes of that.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <stdexcept>

#include "kv/policy_map.h"
#include "paddock/error.h"
#include "paddock/eviction.h"
#include "support/rule_examples.h"

namespace paddock {
namespace {

constexpr Positions kOwn = Positions::kOriginal;
constexpr Positions kTurned = Positions::kCompact;

// ---- built-in rules

TEST(ElasticRules, DropNothingUntilTheyAreGivenABudget) {
  struct Row {
    const char* rule;
    int32_t every, observe, keep_first, keep_newest, divisor, least;  // with a budget of 100
    Positions positions;
    bool attention, key_norms;
  };
  for (const Row& row :
       {Row{"lru", 64, 0, 0, 0, 0, 0, kOwn, true, false},
        {"lru@every:7@sinks:3@recent:5@min:40@compact", 7, 0, 3, 5, 0, 40, kTurned, true, false},
        {"h2o", 64, 0, 0, 50, 2, 0, kOwn, true, false},
        {"h2o@every:32@min:64", 32, 0, 0, 50, 2, 64, kOwn, true, false},
        {"h2o@recent:9", 64, 0, 0, 9, 0, 0, kOwn, true, false},
        {"tova@every:1", 1, 1, 0, 0, 0, 0, kOwn, true, false},
        {"knorm@sinks:4", 64, 0, 4, 0, 0, 0, kOwn, false, true},
        {"sink:4", 64, 0, 4, 0, 0, 0, kTurned, false, false},
        {"sink:9@every:16@min:10@original", 16, 0, 9, 0, 0, 10, kOwn, false, false},
        {"window", 64, 0, 0, 0, 0, 0, kOwn, false, false},
        {"window@every:3@min:2@compact", 3, 0, 0, 0, 0, 2, kTurned, false, false}}) {
    SCOPED_TRACE(row.rule);
    const auto policy = make_policy(row.rule);
    EXPECT_EQ(policy->name(), row.rule);
    EXPECT_TRUE(policy->is_elastic());
    EXPECT_EQ(policy->min_budget(), row.least);
    EXPECT_EQ(policy->positions(), row.positions);
    EXPECT_EQ(policy->needs().attention, row.attention);
    EXPECT_EQ(policy->needs().key_norms, row.key_norms);
    EXPECT_FALSE(policy->visibility(0).bounded());
    for (const TrimSchedule& s : {policy->schedule(1, 4, kUnlimited), policy->schedule(1, 4)}) {
      EXPECT_EQ(s.budget, kUnlimited);
      EXPECT_EQ(s.every, row.every);
      EXPECT_EQ(s.observe, row.observe);
      EXPECT_EQ(s.keep_newest, row.divisor > 0 ? 0 : row.keep_newest);
    }
    const TrimSchedule s = policy->schedule(1, 4, 100);
    EXPECT_EQ(s.budget, 100);
    EXPECT_EQ(s.every, row.every);
    EXPECT_EQ(s.observe, row.observe);
    EXPECT_EQ(s.keep_first, row.keep_first);
    EXPECT_EQ(s.keep_newest, row.keep_newest);
    EXPECT_EQ(s.newest_divisor, row.divisor);
  }
  EXPECT_EQ(make_policy("sink:4@compact")->name(), "sink:4");
  EXPECT_EQ(make_policy("window@original@min:9@every:2")->name(), "window@every:2@min:9");
  EXPECT_FALSE(make_policy("lru:9")->is_elastic());
  EXPECT_FALSE(make_policy("pyramid:lru:9")->is_elastic());
  EXPECT_FALSE(make_policy("sink:4+9")->is_elastic());
}

void expect_equal(const TrimSchedule& a, const TrimSchedule& b) {
  EXPECT_EQ(a.budget, b.budget);
  EXPECT_EQ(a.every, b.every);
  EXPECT_EQ(a.observe, b.observe);
  EXPECT_EQ(a.keep_first, b.keep_first);
  EXPECT_EQ(a.keep_newest, b.keep_newest);
  EXPECT_EQ(a.newest_divisor, b.newest_divisor);
}

TEST(ElasticRules, GoByABudgetAsTheFixedRuleWithThatBudget) {
  for (const char* name : {"lru", "h2o", "tova", "knorm"}) {
    for (const char* options : {"", "@every:9", "@sinks:2", "@recent:1@every:2"}) {
      const auto elastic = make_policy(fmt::format("{}{}", name, options));
      for (const int32_t budget : {8, 9, 31, 64, 1000, 2147483646}) {
        SCOPED_TRACE(fmt::format("{}{} {}", name, options, budget));
        const auto fixed = make_policy(fmt::format("{}:{}{}", name, budget, options));
        expect_equal(elastic->schedule(0, 2, budget), fixed->schedule(0, 2));
      }
    }
  }
}

TEST(ElasticRules, APyramidSharesOutNoMoreThanItIsGiven) {
  EXPECT_EQ(make_policy("cake:h2o@min:70")->min_budget(), 70);
  const auto elastic = make_policy("pyramid:h2o@every:16@min:70@compact");
  EXPECT_EQ(elastic->name(), "pyramid:h2o@every:16@min:70@compact");
  EXPECT_TRUE(elastic->is_elastic());
  EXPECT_EQ(elastic->min_budget(), 70);
  EXPECT_EQ(elastic->positions(), kTurned);
  EXPECT_EQ(elastic->schedule(1, 5, kUnlimited).budget, kUnlimited);
  EXPECT_EQ(elastic->schedule(1, 5, kUnlimited).keep_newest, 0);
  for (const int32_t n_layers : {1, 2, 4, 5, 30, 31}) {
    std::vector<int32_t> before(static_cast<size_t>(n_layers));
    for (int32_t budget = 2; budget < 400; ++budget) {
      SCOPED_TRACE(fmt::format("{} in {} layers", budget, n_layers));
      const auto fixed = make_policy(fmt::format("pyramid:h2o:{}@every:16", budget));
      int64_t sum = 0;
      for (int32_t layer = 0; layer < n_layers; ++layer) {
        const TrimSchedule s = elastic->schedule(layer, n_layers, budget);
        const int32_t twin = fixed->schedule(layer, n_layers).budget;
        EXPECT_LE(s.budget, twin);
        EXPECT_GE(s.budget, twin - 1) << "rounded down";
        EXPECT_GE(s.budget, before[layer]);
        EXPECT_EQ(s.every, 16);
        EXPECT_EQ(s.keep_newest, s.budget / 2);
        before[layer] = s.budget;
        sum += s.budget;
      }
      EXPECT_LE(sum, int64_t{budget} * n_layers);
      EXPECT_GT(sum, (int64_t{budget} - 1) * n_layers);
    }
  }
  // 94.5, 74, 53.5 and 33 if it were not for whole positions.
  const auto plain = make_policy("pyramid:lru");
  for (int32_t layer = 0; layer < 4; ++layer) {
    EXPECT_EQ(plain->schedule(layer, 4, 63).budget, (std::array{94, 73, 52, 32})[layer]);
  }
}

TEST(ElasticRules, SinkAndWindowLoseTheOldestBlocksFirst) {
  std::mt19937 random(5);
  for (const char* rule : {"window", "sink:4", "sink:4@original"}) {
    const auto policy = make_policy(rule);
    for (int i = 0; i < 200; ++i) {
      std::vector<BlockInfo> blocks(2 + random() % 12);
      int64_t position = 0;
      for (BlockInfo& block : blocks) {
        block.first_position = position;
        block.last_used = static_cast<int64_t>(random() % 50);
        block.n_tokens = 4;
        block.is_protected = random() % 3 == 0;
        position += 4 + 4 * static_cast<int64_t>(random() % 3);
      }
      std::vector<int32_t> oldest;
      for (size_t b = 0; b < blocks.size(); ++b) {
        if (!blocks[b].is_protected) oldest.push_back(static_cast<int32_t>(b));
      }
      const auto n = static_cast<int64_t>(1 + random() % 20);
      oldest.resize(std::min<size_t>(oldest.size(), static_cast<size_t>((n + 3) / 4 + 1)));
      std::vector<Victim> victims;
      const LayerView view = {0,     1, 1, 4, position, 4 * static_cast<int64_t>(blocks.size()),
                              blocks};
      policy->trim(view, n, victims);
      ASSERT_EQ(victims.size(), oldest.size());
      for (size_t v = 0; v < victims.size(); ++v) {
        EXPECT_EQ(victims[v].block, oldest[v]);
        EXPECT_EQ(victims[v].score, blocks[oldest[v]].first_position);
      }
    }
  }
}

TEST(ElasticRules, HaveFormsInTheRegistry) {
  std::vector<std::string> elastic;
  for (const std::string& form : policy_forms()) {
    if (test::is_elastic_form(form)) elastic.push_back(form);
  }
  EXPECT_EQ(elastic, (std::vector<std::string>{"window", "sink:S", "pyramid:NAME", "cake:NAME",
                                               "lru", "h2o", "tova", "knorm"}));
}

TEST(ElasticRules, SayWhatToWriteWhereThereIsNoElasticForm) {
  const auto refusal = [](const char* rule) -> std::string {
    try {
      make_policy(rule);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      return e.what();
    }
    ADD_FAILURE() << rule;
    return {};
  };
  EXPECT_EQ(refusal("snapkv"),
            "policy rule 'snapkv': snapkv has no form without a budget; write snapkv:B, or a rule "
            "that has one, such as h2o");
  for (const char* rule : {"pyramid:random", "cake:random"}) {
    EXPECT_NE(refusal(rule).find("random has no form without a budget; write random:B"),
              std::string::npos);
  }
  for (const char* rule : {"lru:9@min:4", "window:9@min:4", "sink:1+9@min:4", "full@min:4"}) {
    EXPECT_NE(refusal(rule).find("'@min' is the least that a rule without a budget is given"),
              std::string::npos)
        << rule;
  }
  EXPECT_NE(refusal("lru@sinks:8@min:8").find("fewer than its least of 8"), std::string::npos);
  EXPECT_NE(refusal("sink:8@min:8").find("fewer than its least of 8"), std::string::npos);
  EXPECT_NE(refusal("lru:8@sinks:8").find("fewer than its budget of 8"), std::string::npos);
  EXPECT_NO_THROW(make_policy("lru@sinks:8@min:9"));
  EXPECT_NO_THROW(make_policy("lru@min:2147483646"));
  EXPECT_NE(refusal("lru@min:2147483647").find("from 1 to 2147483646"), std::string::npos);
}

TEST(ElasticRules, NeedABlockBesideWhatTheyProtect) {
  const auto least = [](const char* spec, int32_t block_size) {
    return PolicyMap::parse(spec, 4).least_budget(block_size);
  };
  EXPECT_EQ(least("lru", 16), 16);
  EXPECT_EQ(least("lru@min:100", 16), 100);
  EXPECT_EQ(least("window", 7), 7);
  EXPECT_EQ(least("sink:4", 16), 32);
  EXPECT_EQ(least("sink:17@min:40", 16), 48);
  EXPECT_EQ(least("h2o", 16), 29) << "14 newest can lie in blocks of 29 positions";
  EXPECT_EQ(least("0=sink:4,1=lru:9,2=full,*=h2o", 16), 32);
  // The uppermost layer of a pyramid has w = B/2 and a twentieth of the rest.
  EXPECT_EQ(make_policy("pyramid:lru")->schedule(3, 4, least("pyramid:lru", 16)).budget, 16);
  EXPECT_EQ(PolicyMap::parse("0=lru@every:6,*=h2o@every:4", 4).interval(), 12);
}

// ---- whatever a rule answers

LayerRule layer_of(const std::shared_ptr<const EvictionPolicy>& policy) { return {policy, 0, 3}; }

/// An elastic rule with a share of its budget protected, which differs by layer.
struct Stretchy : EvictionPolicy {
  explicit Stretchy(TrimSchedule asked, int32_t least = 0) : schedule_(asked), least_(least) {}
  std::string name() const override { return "stretchy"; }
  bool is_elastic() const override { return true; }
  int32_t min_budget() const override { return least_; }
  TrimSchedule schedule(int32_t layer, int32_t n_layers, int32_t budget) const override {
    TrimSchedule s = schedule_;
    s.budget = budget != kUnlimited ? std::max(1, budget - layer) : std::min(s.budget, budget);
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

TEST(ElasticAnswers, MustBeLimitedByTheirBudgetAlone) {
  /// Answers this, whatever the budget.
  struct Stiff : Stretchy {
    explicit Stiff(TrimSchedule answer) : Stretchy({}), answer_(answer) {}
    TrimSchedule schedule(int32_t layer, int32_t n_layers, int32_t budget) const override {
      if (budget == kUnlimited) return Stretchy::schedule(layer, n_layers, budget);
      return answer_;
    }
    TrimSchedule answer_;
  };
  const auto accepts = [](TrimSchedule answer) {
    const LayerRule rule = layer_of(std::make_shared<Stiff>(answer));
    try {
      rule.schedule_with(90, 0, 3);
      return true;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(e.what()).find("'stretchy'"), std::string::npos) << e.what();
      return false;
    }
  };
  EXPECT_TRUE(accepts({.budget = 90}));
  EXPECT_TRUE(accepts({.budget = 80, .keep_first = 4, .keep_newest = 40, .newest_divisor = 2}));
  EXPECT_FALSE(accepts({})) << "no budget";
  EXPECT_FALSE(accepts({.budget = 90, .every = 32})) << "another interval";
  EXPECT_FALSE(accepts({.budget = 90, .observe = 1})) << "other queries count";
  EXPECT_FALSE(accepts({.budget = 90, .keep_first = 90})) << "nothing to choose from";
  EXPECT_FALSE(accepts({.budget = 0}));
  for (const int32_t least : {-1, kUnlimited}) {
    EXPECT_THROW(layer_of(std::make_shared<Stretchy>(TrimSchedule{}, least)), Error) << least;
  }
  EXPECT_NO_THROW(layer_of(std::make_shared<Stretchy>(TrimSchedule{}, kUnlimited - 1)));
  EXPECT_THROW(layer_of(std::make_shared<Stretchy>(TrimSchedule{.every = 0})), Error);
  EXPECT_THROW(layer_of(std::make_shared<Stretchy>(TrimSchedule{.budget = 9})), Error);
}

// ---- maps of rules by layer

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
