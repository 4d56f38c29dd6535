#include "diagnose/cost_growth.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace paddock {
namespace {

constexpr int32_t kFewest = 8;
constexpr int32_t kMost = 8192;
constexpr int32_t kDoublings = 4;      // between the two sizes that are compared
constexpr size_t kRepeats = 5;         // of which the median counts
constexpr int32_t kConfirmations = 3;  // times that the growth must show
constexpr double kLongSeconds = 0.02;
constexpr double kSlack = 1.35;  // per doubling

/// Of fewer than kRepeats where one takes long: then the clock is exact enough.
double median_seconds(const std::function<double(int32_t n)>& seconds_of, int32_t n) {
  std::vector<double> seconds;
  for (double spent = 0; seconds.size() < kRepeats && spent < kLongSeconds;) {
    seconds.push_back(seconds_of(n));
    spent += seconds.back();
  }
  const auto middle = seconds.begin() + static_cast<int64_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

std::optional<CostGrowth> measure(const std::function<double(int32_t n)>& seconds_of) {
  std::vector<double> seconds;  // [doublings of kFewest]
  int32_t n = kFewest;
  for (;; n *= 2) {
    seconds.push_back(median_seconds(seconds_of, n));
    if (n == kMost || seconds.back() > kLongSeconds) break;
  }
  const int32_t doublings = std::min(kDoublings, static_cast<int32_t>(seconds.size()) - 1);
  CostGrowth growth;
  growth.many = n;
  growth.few = n >> doublings;
  growth.many_seconds = seconds.back();
  growth.few_seconds = seconds[seconds.size() - 1 - doublings];
  const auto ideal = [](int32_t blocks) { return blocks * std::log2(blocks); };
  growth.allowed = ideal(growth.many) / ideal(growth.few) * std::pow(kSlack, doublings);
  if (doublings == 0 || growth.many_seconds <= growth.few_seconds * growth.allowed) {
    return std::nullopt;
  }
  return growth;
}

}  // namespace

std::optional<CostGrowth> find_cost_growth(const std::function<double(int32_t n)>& seconds_of) {
  std::optional<CostGrowth> growth;
  for (int32_t i = 0; i < kConfirmations; ++i) {
    growth = measure(seconds_of);
    if (!growth) break;
  }
  return growth;
}

}  // namespace paddock
