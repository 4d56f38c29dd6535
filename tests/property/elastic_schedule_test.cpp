// Random schedules under elastic rules, in memories that are too small: until a sequence falls its
// tokens are those of `full`; whoever was parked comes back as it was; equal orders of calls give
// equal logs. In every run some; for PADDOCK_FUZZ_SECONDS, or so many seeds as PADDOCK_SEEDS says,
// where these are set.
#include <chrono>
#include <cstdlib>

#include "support/random_schedule.h"

namespace paddock::test {
namespace {

struct Sum {
  int64_t falls = 0, lifts = 0, returns = 0, preemptions = 0;
};

std::vector<std::string> specs() {
  std::vector<std::string> all = {"0=full,1=lru@every:8", "0=lru@every:4,1=sink:4@every:8",
                                  "0=sink:4+20,1=h2o@every:8"};
  for (const RuleExample& example : elastic_examples()) all.push_back(example.policy);
  return all;
}

/// All that was told of the cache, but for the time of day.
std::string events_of(const Engine& engine) {
  std::string out;
  for (const KvEvent& event : engine.kv_events()) out += to_json(event) + "\n";
  return out;
}

/// What makes the same of a text as long as nothing has fallen.
References& before_falls(const std::string& policy, Precision precision) {
  std::string whole = policy;
  if (PolicyMap::parse(policy, tiny()->info().n_layers).is_elastic()) {
    whole = policy.find("sink:4+20") != std::string::npos ? "0=sink:4+20,1=full" : "full";
  }
  return references_of(whole, precision);
}

void run_seed(uint32_t seed, Sum& sum) {
  static const std::vector<std::string> policies = specs();
  const std::string& policy = policies[seed % policies.size()];
  SCOPED_TRACE(fmt::format("seed {}, {}", seed, policy));
  std::string log;
  for (int run = 0; run < 2; ++run) {
    RandomSchedule schedule(seed, policy);
    auto inside = parts(tiny(), schedule.options());
    Engine engine(inside);
    FailOne none;
    schedule.run(engine, none, inside.get());
    schedule.check(before_falls(policy, schedule.options().precision), 0);
    const std::string own = schedule.log() + events_of(engine);
    if (run == 0) log = own;
    EXPECT_EQ(own, log) << "equal calls, other events";
    sum.falls += schedule.falls();
    sum.lifts += schedule.lifts();
    sum.returns += schedule.returns();
    sum.preemptions += schedule.preemptions();
    if (testing::Test::HasFailure()) return;
  }
}

TEST(ElasticSchedules, AnyOrderKeepsThePromises) {
  const char* text = std::getenv("PADDOCK_FUZZ_SECONDS");
  const std::chrono::seconds length(text == nullptr ? 0 : std::atoi(text));
  const auto start = std::chrono::steady_clock::now();
  const char* seeds = std::getenv("PADDOCK_SEEDS");
  const int n_seeds = seeds == nullptr ? 48 : std::atoi(seeds);
  uint32_t seed = text == nullptr ? 1 : std::random_device{}();
  Sum sum;
  for (int n = 0; n < n_seeds || std::chrono::steady_clock::now() - start < length; ++n, ++seed) {
    run_seed(seed, sum);
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "seed " << seed;
      return;
    }
  }
  EXPECT_GT(sum.falls, 100);
  EXPECT_GT(sum.lifts, 4);
  EXPECT_GT(sum.returns, 4);
  EXPECT_GT(sum.preemptions, 4);
}

/// Sequences under three rules and the engine's own.
void run_mixed(uint32_t seed, Sum& sum) {
  static const std::vector<std::string> elastic = specs();
  static const std::vector<RuleExample> fixed = rule_examples();
  const std::string policy =
      seed % 3 == 0 ? fixed[seed % fixed.size()].policy : elastic[seed % elastic.size()];
  const std::vector<std::string> others = {
      elastic[seed * 7 % elastic.size()], fixed[seed * 5 % fixed.size()].policy,
      seed % 2 == 0 ? std::string("full") : fixed[seed * 11 % fixed.size()].policy};
  SCOPED_TRACE(fmt::format("seed {}, {} with {}", seed, policy, fmt::join(others, " ")));
  std::string log;
  for (int run = 0; run < 2; ++run) {
    RandomSchedule schedule(seed, policy, others);
    auto inside = parts(tiny(), schedule.options());
    Engine engine(inside);
    FailOne none;
    schedule.run(engine, none, inside.get());
    const Precision precision = schedule.options().precision;
    schedule.check(
        [&](const std::string& spec) -> References& { return before_falls(spec, precision); }, 0);
    const std::string own = schedule.log() + events_of(engine);
    if (run == 0) log = own;
    EXPECT_EQ(own, log) << "equal calls, other events";
    sum.falls += schedule.falls();
    sum.lifts += schedule.lifts();
    sum.returns += schedule.returns();
    sum.preemptions += schedule.preemptions();
    if (testing::Test::HasFailure()) return;
  }
}

TEST(ElasticSchedules, FixedAndElasticRulesInOneEngineKeepTheirPromises) {
  const char* text = std::getenv("PADDOCK_FUZZ_SECONDS");
  const std::chrono::seconds length(text == nullptr ? 0 : std::atoi(text));
  const auto start = std::chrono::steady_clock::now();
  uint32_t seed = text == nullptr ? 1 : std::random_device{}();
  Sum sum;
  for (int n = 0; n < 80 || std::chrono::steady_clock::now() - start < length; ++n, ++seed) {
    run_mixed(seed, sum);
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "seed " << seed;
      return;
    }
  }
  EXPECT_GT(sum.falls, 50);
  EXPECT_GT(sum.lifts, 1);
  EXPECT_GT(sum.preemptions, 4);
}

}  // namespace
}  // namespace paddock::test
