#include "eviction/share_out.h"

#include <algorithm>

#include "eviction/rules.h"

namespace paddock {
namespace {

constexpr int32_t kMostTimes = 4;   // the budget, of what a layer gets
constexpr double kFaintest = 1e-9;  // of the strongest need: nobody is left out
constexpr int kBisections = 100;

/// `factor` positions for the largest need, beside the base.
struct Shares {
  std::span<const double> needs;
  std::span<const ShareBounds> bounds;
  int32_t base;
  int64_t limit;
  double largest;  // of the needs

  int64_t of(size_t layer, double factor) const {
    const int64_t low = std::max(bounds[layer].least, base);
    const int64_t high = std::max(low, std::min(limit, bounds[layer].most));
    const double want = largest > 0 ? std::max(needs[layer] / largest, kFaintest) : 1;
    const double share = base + factor * want;
    // Compared before it is converted: it may be too large for any integer.
    return share >= static_cast<double>(high) ? high : std::max(low, static_cast<int64_t>(share));
  }
  int64_t sum(double factor) const {
    int64_t sum = 0;
    for (size_t layer = 0; layer < bounds.size(); ++layer) sum += of(layer, factor);
    return sum;
  }
};

}  // namespace

int64_t most_share(int32_t budget, int64_t n_layers) {
  const int64_t others = (n_layers - 1) * window_within(budget);
  return std::min(int64_t{kMostTimes} * budget, n_layers * budget - others);
}

void share_out(std::span<const double> needs, std::span<const ShareBounds> bounds, int32_t budget,
               std::span<int32_t> budgets) {
  const auto n = static_cast<int64_t>(budgets.size());
  const Shares shares{needs, bounds, window_within(budget), most_share(budget, n),
                      *std::max_element(needs.begin(), needs.end())};
  const int64_t total = int64_t{budget} * n;
  // The largest factor whose shares are no more than there is.
  double low = 0;
  double high = 1;
  for (const ShareBounds& b : bounds) high = std::max(high, static_cast<double>(b.most));
  high = high / kFaintest;  // everybody has the most that is of use
  if (shares.sum(high) <= total) low = high;
  for (int i = 0; i < kBisections && low < high; ++i) {
    const double middle = low + (high - low) / 2;
    (shares.sum(middle) <= total ? low : high) = middle;
  }
  int64_t left = total;
  for (size_t layer = 0; layer < budgets.size(); ++layer) {
    budgets[layer] = static_cast<int32_t>(std::min<int64_t>(shares.of(layer, low), kUnlimited - 1));
    left -= budgets[layer];
  }
  // What rounding left over, a position each, where the next larger factor gives one.
  for (size_t layer = 0; layer < budgets.size() && left > 0; ++layer) {
    if (shares.of(layer, high) <= budgets[layer]) continue;
    ++budgets[layer];
    --left;
  }
}

}  // namespace paddock
