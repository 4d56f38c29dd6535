// Random schedules from seeds: whatever was asked, in whatever order and company, each answer is
// what it is alone. In every run a few; for PADDOCK_FUZZ_SECONDS where that is set
// (tests/run.sh: a minute in CI, thirty with --long).
#include <chrono>
#include <cstdlib>

#include "support/random_schedule.h"

namespace paddock::test {
namespace {

/// Of one rule.
void run_seed(uint32_t seed, const std::string& policy = {}) {
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  RandomSchedule schedule(seed, policy);
  const EngineOptions& options = schedule.options();
  SCOPED_TRACE(options.kv.policy);
  Engine engine(tiny(), options);
  FailOne none;
  schedule.run(engine, none);
  schedule.check(references_of(options.kv.policy, options.precision), 0);
}

TEST(ScheduleFuzz, SeedsThatFoundFaultsFindNoneAnyMore) {
  for (const uint32_t seed : {1U}) run_seed(seed);
}

TEST(ScheduleFuzz, AnyOrderMakesWhatEachMakesAlone) {
  const char* text = std::getenv("PADDOCK_FUZZ_SECONDS");
  const std::chrono::seconds length(text == nullptr ? 0 : std::atoi(text));
  const auto start = std::chrono::steady_clock::now();
  // Other ones each time where there is time for many, so that they add up over the runs.
  uint32_t seed = text == nullptr ? 100 : std::random_device{}();
  for (int n = 0; n < 24 || std::chrono::steady_clock::now() - start < length; ++n, ++seed) {
    run_seed(seed);
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "keep seed " << seed << " in SeedsThatFoundFaultsFindNoneAnyMore";
      return;
    }
  }
}

}  // namespace
}  // namespace paddock::test
