// One allocation of an engine that fails, in the middle of whatever it is used for.
#pragma once

#include <gtest/gtest.h>
#include <paddock/paddock.h>

#include "support/live_bytes.h"

namespace paddock::test {

/// Fails one allocation of the engine's, if it is told to: not those of the test.
class FailOne {
 public:
  /// After so many; below 0: none.
  explicit FailOne(int64_t after = -1) : left_(after), armed_(after >= 0) {}
  /// Whether it has come to that.
  bool failed() const { return armed_ && left_ < 0; }
  /// Calls the engine. False if it found no memory: only where an allocation was failed here, or
  /// `may_lack` says that it may find no page or place.
  template <typename Fn>
  bool call(const Fn& fn, bool may_lack = false) {
    const bool before = failed();
    g_fail_after = left_;
    bool good = true;
    try {
      fn();
    } catch (const Error& e) {
      take_back();
      good = false;
      const bool is_place = e.code() == ErrorCode::kInvalidArgument;  // of those that run
      EXPECT_TRUE(e.code() == ErrorCode::kOutOfMemory || (may_lack && is_place)) << e.what();
      EXPECT_TRUE(may_lack || (failed() && !before)) << e.what();
    }
    if (good) take_back();
    return good;
  }

 private:
  void take_back() { left_ = g_fail_after.exchange(-1); }
  int64_t left_;
  bool armed_;
};

}  // namespace paddock::test
