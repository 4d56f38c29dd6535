// Each allocation of an engine fails in turn while it is used at random: what asked for it ends,
// the engine goes on, and all others make what they make alone.
#include <cstdlib>

#include "support/random_schedule.h"

namespace paddock::test {
namespace {

/// Under a rule, the first schedules; the last of them is one in which somebody has to give way.
class ScheduleFaults : public testing::TestWithParam<std::tuple<const char*, int>> {
 protected:
  static constexpr int kActs = 40;
  static std::string policy() { return std::get<0>(GetParam()); }
  static uint32_t seed() {
    const auto n = static_cast<uint32_t>(std::get<1>(GetParam()));
    if (n != kLast) return n;
    for (uint32_t seed = kLast; seed < 100; ++seed) {
      FailOne none;
      if (run(seed, none) > 0) return seed;
    }
    ADD_FAILURE() << "nobody has to give way";
    return n;
  }
  /// Returns how often somebody gave way.
  static int64_t run(uint32_t seed, FailOne& fail) {
    RandomSchedule schedule(seed, policy(), kActs);
    Engine engine(tiny(), schedule.options());
    schedule.run(engine, fail);
    schedule.check(references_of(policy(), schedule.options().precision), 1);
    return schedule.preemptions();
  }

 public:
  static constexpr int kLast = 3;
};

TEST_P(ScheduleFaults, AnAllocationThatFailsEndsOnlyWhatAskedForIt) {
  if (!kCountsBytes) GTEST_SKIP() << "a sanitizer owns operator new";
  const uint32_t its = seed();
  int64_t n = 0;
  for (bool failed = true; failed; ++n) {
    SCOPED_TRACE(testing::Message() << "seed " << its << ", allocation " << n);
    FailOne fail(n);
    run(its, fail);
    failed = fail.failed();
    if (HasFailure()) return;
  }
  EXPECT_GT(n, 100);
  RecordProperty("allocations", static_cast<int>(n - 1));
}

INSTANTIATE_TEST_SUITE_P(EachRule, ScheduleFaults,
                         testing::Combine(testing::Values("full", "h2o:32@every:8", "snapkv:24"),
                                          testing::Range(1, ScheduleFaults::kLast + 1)));

}  // namespace
}  // namespace paddock::test
