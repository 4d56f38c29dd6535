#include "eviction/cake.h"

#include <algorithm>
#include <cmath>

namespace paddock {
namespace {

constexpr int32_t kBase = 32;       // positions that every layer gets, or half of the budget
constexpr double kFaintest = 1e-9;  // of the strongest preference: nobody is left out
constexpr int kBisections = 100;

/// Preferences as numbers above 0 whose largest is 1.
class Wants {
 public:
  explicit Wants(std::span<const Preference> preferences) : preferences_(preferences) {
    for (const Kind kind : {Kind::kBoth, Kind::kEntropy, Kind::kEqual}) {
      kind_ = kind;
      for (const Preference& p : preferences) most_ = std::max(most_, number(p));
      if (most_ > 0) break;
    }
  }
  double of(size_t layer) const { return std::max(number(preferences_[layer]) / most_, kFaintest); }

 private:
  enum class Kind { kBoth, kEntropy, kEqual };
  double number(const Preference& p) const {
    if (kind_ == Kind::kEqual) return 1;
    return kind_ == Kind::kBoth ? p.of_both() : p.entropy;
  }
  std::span<const Preference> preferences_;
  Kind kind_ = Kind::kBoth;
  double most_ = 0;
};

/// `factor` positions for a preference of 1, beside the base.
struct Shares {
  Wants wants;
  std::span<const ShareBounds> bounds;
  int32_t base;

  int64_t of(size_t layer, double factor) const {
    const int64_t low = std::max(bounds[layer].least, base);
    const int64_t high = std::max(low, bounds[layer].most);
    const double share = base + factor * wants.of(layer);
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

Preference preference_of(const LayerView& view) {
  double recent = 0;  // of all blocks
  double after = 0;   // of those that both stretches saw
  double before = 0;
  for (const BlockInfo& block : view.blocks) {
    recent += block.recent_mass;
    if (block.mass <= block.recent_mass) continue;
    after += block.recent_mass;
    before += block.mass - block.recent_mass;
  }
  Preference preference;
  for (const BlockInfo& block : view.blocks) {
    if (block.recent_mass > 0) {
      const double share = block.recent_mass / recent;
      preference.entropy -= share * std::log(share);
    }
    if (block.mass <= block.recent_mass || after <= 0) continue;
    const double moved = block.recent_mass / after - (block.mass - block.recent_mass) / before;
    preference.shift += moved * moved / 4;
  }
  preference.entropy = std::max(preference.entropy, 0.0);  // one block: ln 1 may be rounded
  return preference;
}

void share_out(std::span<const Preference> preferences, std::span<const ShareBounds> bounds,
               int32_t budget, std::span<int32_t> budgets) {
  const Shares shares{Wants(preferences), bounds, std::min(kBase, budget / 2)};
  const int64_t total = int64_t{budget} * static_cast<int64_t>(budgets.size());
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
