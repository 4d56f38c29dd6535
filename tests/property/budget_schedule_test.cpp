// Random schedules in which the host raises and lowers the budget of a live engine: rules that lose
// nothing say the same to the bit, the others do until they fall, everything ends, and equal orders
// of calls give equal logs.
#include <cstdlib>

#include "support/random_schedule.h"

namespace paddock::test {
namespace {

struct Sum {
  int64_t falls = 0, preemptions = 0, changes = 0, refusals = 0, ends = 0;
};

std::vector<std::string> specs() {
  std::vector<std::string> all = {"full", "0=full,1=window:12", "0=full,1=lru@every:8",
                                  "0=lru@every:4,1=sink:4@every:8", "0=sink:4+20,1=h2o@every:8"};
  for (const RuleExample& example : rule_examples()) all.push_back(example.policy);
  for (const RuleExample& example : elastic_examples()) all.push_back(example.policy);
  return all;
}

/// What it is until budgets of elastic rules fall.
std::string whole(const std::string& policy) {
  if (policy == "0=sink:4+20,1=h2o@every:8") return "0=sink:4+20,1=full";
  const bool is_elastic = PolicyMap::parse(policy, tiny()->info().n_layers).is_elastic();
  return is_elastic ? "full" : policy;
}

void run_seed(uint32_t seed, Sum& sum) {
  static const std::vector<std::string> policies = specs();
  const std::string& policy = policies[seed % policies.size()];
  SCOPED_TRACE(fmt::format("seed {}, {}", seed, policy));
  std::string log;
  for (int run = 0; run < 2; ++run) {
    RandomSchedule schedule(seed, policy, 30, true);
    auto inside = parts(tiny(), schedule.options());
    Engine engine(inside);
    FailOne none;
    schedule.run(engine, none, inside.get());
    schedule.check(references_of(whole(policy), schedule.options().precision), 0);
    if (run == 0) log = schedule.log();
    EXPECT_EQ(schedule.log(), log) << "equal calls, other events";
    sum.falls += schedule.falls();
    sum.preemptions += schedule.preemptions();
    sum.changes += schedule.budgets_set();
    sum.refusals += schedule.budgets_refused();
    sum.ends += schedule.kv_full();
    if (testing::Test::HasFailure()) return;
  }
}

TEST(BudgetSchedules, AnyOrderOfBudgetsKeepsThePromises) {
  const char* text = std::getenv("PADDOCK_SEEDS");
  const uint32_t first = 1;
  const int n = text == nullptr ? 60 : std::atoi(text);
  Sum sum;
  for (uint32_t seed = first; seed < first + static_cast<uint32_t>(n); ++seed) {
    run_seed(seed, sum);
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "seed " << seed;
      return;
    }
  }
  EXPECT_GT(sum.falls, 20);
  EXPECT_GT(sum.preemptions, 20);
  EXPECT_GT(sum.changes, 200);
  EXPECT_GT(sum.refusals, 5);
  EXPECT_GT(sum.ends, 0);
}

/// Under a rule, from a seed.
class BudgetFaults : public testing::TestWithParam<std::tuple<const char*, int>> {};

TEST_P(BudgetFaults, AnAllocationThatFailsChangesNoBudget) {
  if (!kCountsBytes) GTEST_SKIP() << "a sanitizer owns operator new";
  const auto [policy, seed] = GetParam();
  int64_t n = 0;
  for (bool failed = true; failed; ++n) {
    SCOPED_TRACE(fmt::format("{}, seed {}, allocation {}", policy, seed, n));
    RandomSchedule schedule(static_cast<uint32_t>(seed), policy, 16, true);
    Engine engine(tiny(), schedule.options());
    FailOne fail(n);
    schedule.run(engine, fail);
    schedule.check(references_of(whole(policy), schedule.options().precision), 1);
    failed = fail.failed();
    if (HasFailure()) return;
  }
  EXPECT_GT(n, 60);
  RecordProperty("allocations", static_cast<int>(n));
}

INSTANTIATE_TEST_SUITE_P(EachRule, BudgetFaults,
                         testing::Combine(testing::Values("full", "h2o:32@every:8", "lru@every:8"),
                                          testing::Range(1, 3)));

}  // namespace
}  // namespace paddock::test
