// Random schedules from seeds: whatever was asked, in whatever order and company, and whatever
// hosts do to their own requests, each answer is what it is alone. In every run a few; for
// PADDOCK_FUZZ_SECONDS, shared by the tests, where that is set (tests/run.sh: a minute in CI,
// thirty with --long).
#include <chrono>
#include <cstdlib>

#include "support/random_schedule.h"

namespace paddock::test {
namespace {

/// What a seed runs under, where hosts are whimsical: every other time rules that share blocks, as
/// no others can be pinned.
std::string whimsical_rule(uint32_t seed) {
  static const std::vector<std::string> sharing = {"full", "sink:3+20", "0=full,1=window:12",
                                                   "full", "window:20"};
  static const std::vector<std::string> all = [] {
    std::vector<std::string> rules = {"moody:h2o:32@every:8",   "moody:lru:24@every:8",
                                      "moody:knorm:20@every:9", "moody:tova:20@every:6@compact",
                                      "0=full,1=lru@every:8",   "0=full,1=h2o:24@every:8"};
    for (const RuleExample& example : rule_examples()) rules.push_back(example.policy);
    for (const RuleExample& example : elastic_examples()) rules.push_back(example.policy);
    return rules;
  }();
  const std::vector<std::string>& rules = seed % 2 == 0 ? sharing : all;
  return rules[seed / 2 % rules.size()];
}

/// What it is until budgets of elastic rules fall.
std::string whole(const std::string& policy) {
  const PolicyMap map = PolicyMap::parse(calm(policy), tiny()->info().n_layers);
  return map.is_elastic() ? "full" : policy;
}

/// What came of the seeds so far.
struct Sum {
  int64_t pins_lost = 0;
  int64_t seeds = 0, failures = 0, discards = 0, found = 0, told = 0, protections = 0,
          violations = 0;
};

void run_seed(uint32_t seed, bool is_whimsical = false, Sum* sum = nullptr) {
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  RandomSchedule schedule(seed, is_whimsical ? whimsical_rule(seed) : std::string(),
                          is_whimsical ? 50 : 30);
  if (is_whimsical) schedule.let_host_be_whimsical();
  const EngineOptions& options = schedule.options();
  SCOPED_TRACE(options.kv.policy);
  Engine engine(tiny(), options);
  FailOne none;
  schedule.run(engine, none);
  schedule.check(references_of(whole(options.kv.policy), options.precision), 0);
  if (sum == nullptr) return;
  ++sum->seeds;
  sum->failures += schedule.failures();
  sum->discards += schedule.discards();
  sum->found += schedule.found_pinned();
  sum->told += schedule.told();
  sum->pins_lost += schedule.pins_lost();
  sum->protections += schedule.protections();
  sum->violations += schedule.violations();
}

/// At least `n` seeds, and for half of the time that there is. Other ones each time where there is
/// time for many, so that they add up over the runs.
void run_seeds(int n, bool is_whimsical, Sum* sum = nullptr) {
  const char* text = std::getenv("PADDOCK_FUZZ_SECONDS");
  const std::chrono::seconds length((text == nullptr ? 0 : std::atoi(text)) / 2);
  const auto start = std::chrono::steady_clock::now();
  uint32_t seed = text == nullptr ? 100 : std::random_device{}();
  for (; n > 0 || std::chrono::steady_clock::now() - start < length; --n, ++seed) {
    run_seed(seed, is_whimsical, sum);
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "keep seed " << seed << " among those that found faults";
      return;
    }
  }
}

TEST(ScheduleFuzz, SeedsThatFoundFaultsFindNoneAnyMore) {
  for (const uint32_t seed : {1U}) run_seed(seed);
}

TEST(ScheduleFuzz, AnyOrderMakesWhatEachMakesAlone) { run_seeds(24, false); }

TEST(ScheduleFuzz, WhatHostsDoToTheirOwnCostsNobodyElseAToken) {
  Sum sum;
  run_seeds(80, true, &sum);
  fmt::print(
      "{} seeds: {} callbacks threw, {} requests forgotten, {} told to end, {} found what was "
      "pinned, "
      "{} pins gave way, {} protections, {} answers of policies overruled\n",
      sum.seeds, sum.failures, sum.discards, sum.told, sum.found, sum.pins_lost, sum.protections,
      sum.violations);
  EXPECT_GT(sum.failures, sum.seeds / 4) << "callbacks that threw";
  EXPECT_GT(sum.discards, sum.seeds / 8);
  EXPECT_GT(sum.told, sum.seeds / 8);
  EXPECT_GT(sum.found, sum.seeds / 16) << "pins";
  EXPECT_TRUE(sum.pins_lost > 0 || sum.seeds < 500) << "pins that had to give way";
  EXPECT_GT(sum.protections, sum.seeds / 16);
  EXPECT_GT(sum.violations, sum.seeds / 4);
}

}  // namespace
}  // namespace paddock::test
