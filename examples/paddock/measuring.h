// What the commands that measure have in common.
#pragma once

#include <paddock/paddock.h>

#include <algorithm>
#include <chrono>

namespace cli {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Tokens at the end of a text that are fed one by one, as those of an answer come.
inline constexpr size_t kOneByOne = 16;

/// How near to full a rule was, position by position.
struct Nearness {
  double nll = 0, kl = 0;  // sums
  int64_t agreed = 0, positions = 0;

  void add(const paddock::PositionQuality& at) {
    nll += at.nll;
    kl += at.kl;
    agreed += at.agrees ? 1 : 0;
    ++positions;
  }
  /// Of one of the sums; 0 where there is no position.
  double mean(double sum) const {
    return sum / static_cast<double>(std::max<int64_t>(1, positions));
  }
};

}  // namespace cli
