// Each allocation of an engine fails in turn while it is used at random: what asked for it ends,
// the engine goes on, and all others make what they make alone.
#include <cstdlib>

#include "support/random_schedule.h"

namespace paddock::test {
namespace {

TEST(ScheduleFaults, AnAllocationThatFailsEndsOnlyWhatAskedForIt) {
  if (!kCountsBytes) GTEST_SKIP() << "a sanitizer owns operator new";
  const bool whole = std::getenv("PADDOCK_TEST_WHOLE") != nullptr;
  for (const std::string policy : {"full", "h2o:32@every:8", "snapkv:24"}) {
    int64_t preemptions = 0;
    // As many as it takes until somebody had to give way.
    for (uint32_t seed = 1; seed <= 3 || (preemptions == 0 && seed <= 40); ++seed) {
      SCOPED_TRACE(testing::Message() << policy << ", seed " << seed);
      int64_t failures = 0;
      bool failed = true;
      for (int64_t after = seed; failed; after += whole ? 1 : 11) {
        SCOPED_TRACE(testing::Message() << "after " << after << " allocations");
        RandomSchedule schedule(seed, policy, 40);
        Engine engine(tiny(), schedule.options());
        FailOne fail(after);
        schedule.run(engine, fail);
        schedule.check(references_of(policy, schedule.options().precision), 1);
        preemptions += schedule.preemptions();
        failed = fail.failed();
        failures += failed ? 1 : 0;
        if (testing::Test::HasFailure()) return;
      }
      EXPECT_GT(failures, 10);
    }
    EXPECT_GT(preemptions, 0);
  }
}

}  // namespace
}  // namespace paddock::test
