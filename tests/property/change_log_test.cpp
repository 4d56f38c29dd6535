// The log of a list's changes against every version of the list.
#include "core/change_log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace paddock {
namespace {

TEST(ChangeLogProperty, NamesTheFirstEntryThatMayDiffer) {
  std::mt19937 random(5);
  for (const int width : {1, 3, 12, 60}) {
    ChangeLog log;
    std::vector<int64_t> firsts = {0};  // by version: the first entry that the change reached
    int64_t exact = 0;
    int64_t everything = 0;
    for (int i = 0; i < 3000; ++i) {
      // Lists mostly grow; now and then something further in front changes.
      const auto last = static_cast<int64_t>(i / 4 % width);
      const int64_t first = random() % 6 == 0 ? static_cast<int64_t>(random() % width) : last;
      log.note(first);
      firsts.push_back(first);
      const auto now = static_cast<int64_t>(firsts.size()) - 1;
      ASSERT_EQ(log.version(), now);
      ASSERT_EQ(log.first_changed_since(now), ChangeLog::kNone);
      ASSERT_EQ(log.first_changed_since(-1), 0);
      int64_t expected = ChangeLog::kNone;
      for (int64_t version = now - 1; version >= std::max<int64_t>(0, now - 200); --version) {
        expected = std::min(expected, firsts[version + 1]);
        const int64_t said = log.first_changed_since(version);
        if (now - version <= static_cast<int64_t>(ChangeLog::kRemembered)) {
          ASSERT_EQ(said, expected) << "version " << version << " of " << now;
        } else {
          ASSERT_TRUE(said == 0 || said == expected);
          exact += said == expected ? 1 : 0;
          everything += said == 0 && expected > 0 ? 1 : 0;
        }
      }
    }
    EXPECT_GT(exact, 10'000) << "of those that need not be";
    if (width > 30) {
      EXPECT_GT(everything, 100);
    }
  }
}

TEST(ChangeLog, ALateReaderOfWhatGrowsIsToldWhereItGrew) {
  ChangeLog log;
  log.note(8);
  const int64_t version = log.version();
  for (int i = 0; i < 1000; ++i) log.note(9);
  EXPECT_EQ(log.first_changed_since(version), 9);
  for (int64_t first = 10; first < 24; ++first) log.note(first);
  EXPECT_EQ(log.first_changed_since(version), 9);
  for (int64_t first = 24; first < 40; ++first) log.note(first);
  EXPECT_EQ(log.first_changed_since(version), 0) << "it is too long ago";
}

TEST(ChangeLog, ManyReadersAskWithoutDisturbingEachOther) {
  ChangeLog log;
  log.note(5);
  const int64_t early = log.version();
  log.note(2);
  const int64_t late = log.version();
  log.note(7);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(log.first_changed_since(early), 2);
    EXPECT_EQ(log.first_changed_since(late), 7);
    EXPECT_EQ(log.first_changed_since(0), 2);
    EXPECT_EQ(log.first_changed_since(log.version()), ChangeLog::kNone);
  }
}

}  // namespace
}  // namespace paddock
