// Layer budgets by need: preferences against the formula written anew, and what is shared out
// within its bounds.
#include "eviction/cake.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "eviction/share_out.h"

namespace paddock {
namespace {

/// A layer whose blocks received so much, before and recently.
struct Layer {
  std::vector<BlockInfo> blocks;
  LayerView view;
  Layer(const std::vector<double>& before, const std::vector<double>& recent) {
    for (size_t i = 0; i < before.size(); ++i) {
      BlockInfo block;
      block.first_position = static_cast<int64_t>(i) * 4;
      block.n_tokens = 4;
      block.mass = before[i] + recent[i];
      block.recent_mass = recent[i];
      blocks.push_back(block);
    }
    view.blocks = blocks;
  }
  Layer(const Layer&) = delete;
};

TEST(Cake, AttentionThatIsSpreadHasEntropy) {
  const auto entropy = [](const std::vector<double>& recent) {
    return preference_of(Layer(std::vector<double>(recent.size(), 1), recent).view).entropy;
  };
  EXPECT_EQ(entropy({5}), 0);
  EXPECT_EQ(entropy({0, 5, 0}), 0);
  EXPECT_NEAR(entropy({3, 3, 3, 3}), std::log(4), 1e-12);
  EXPECT_NEAR(entropy({1, 3}), -0.25 * std::log(0.25) - 0.75 * std::log(0.75), 1e-12);
  EXPECT_NEAR(entropy({100, 300}), entropy({1, 3}), 1e-12) << "shares count, not their sum";
  EXPECT_EQ(preference_of(Layer({}, {}).view).entropy, 0);
  EXPECT_EQ(preference_of(Layer({1, 1}, {0, 0}).view).of_both(), 0) << "nobody looked";
  const Preference still = preference_of(Layer({4, 4}, {1, 1}).view);
  EXPECT_GT(still.of_both(), 0) << "where nothing moves entropy decides";
  EXPECT_LT(still.of_both(), 1e-4) << "but counts for little beside what moves";
  EXPECT_NEAR((Preference{3, 16}).of_both(), 6, 1e-12);
}

TEST(Cake, AttentionThatMovesHasShift) {
  const auto shift = [](const std::vector<double>& before, const std::vector<double>& recent) {
    return preference_of(Layer(before, recent).view).shift;
  };
  EXPECT_EQ(shift({4, 4}, {1, 1}), 0) << "as before, though less";
  EXPECT_NEAR(shift({4, 0.5}, {0, 0.5}), 2 * std::pow(8.0 / 9 / 2, 2), 1e-12);
  EXPECT_NEAR(shift({1, 1}, {1, 3}), 2 * std::pow(0.25 / 2, 2), 1e-12);
  EXPECT_NEAR(shift({1, 1, 0}, {1, 3, 90}), shift({1, 1}, {1, 3}), 1e-12)
      << "what was not there before has not moved";
  EXPECT_EQ(shift({0, 0}, {1, 3}), 0) << "there is nothing to compare with";
}

std::vector<int32_t> shared(const std::vector<double>& needs,
                            const std::vector<ShareBounds>& bounds, int32_t budget) {
  std::vector<int32_t> budgets(needs.size());
  share_out(needs, bounds, budget, budgets);
  return budgets;
}

using Budgets = std::vector<int32_t>;

TEST(Cake, LayersGetABaseAndTheRestByPreference) {
  const std::vector<ShareBounds> free(4, {1, 10'000});
  // 32 each; of the other 4 * 68 = 272 four, two, one and one eighths.
  EXPECT_EQ(shared({4, 2, 1, 1}, free, 100), (Budgets{168, 100, 66, 66}));
  EXPECT_EQ(shared({1, 1, 1, 1}, free, 100), (Budgets{100, 100, 100, 100}));
  EXPECT_EQ(shared({1e-5, 1e-5, 2e-5, 0}, free, 100), (Budgets{100, 100, 168, 32}))
      << "however little it is";
  EXPECT_EQ(shared({0, 0, 0, 0}, free, 50), (Budgets{50, 50, 50, 50}))
      << "without any all get the same";
  EXPECT_EQ(shared({1, 0}, {{1, 10'000}, {1, 10'000}}, 10), (Budgets{15, 5}))
      << "half of a small budget is the base";
}

TEST(Cake, SharesStayWithinTheirBounds) {
  EXPECT_EQ(shared({9, 1}, {{1, 120}, {1, 500}}, 100), (Budgets{120, 80}))
      << "what a layer does not hold goes to the others";
  EXPECT_EQ(shared({9, 1}, {{1, 500}, {70, 500}}, 100), (Budgets{130, 70}));
  EXPECT_EQ(shared({9, 1}, {{1, 90}, {1, 60}}, 100), (Budgets{90, 60}))
      << "there is enough for all";
  EXPECT_EQ(shared({9, 0}, {{1, 90}, {1, 160}}, 100), (Budgets{90, 110})) << "nobody is left out";
  EXPECT_EQ(shared({1, 1}, {{100, 500}, {100, 500}}, 100), (Budgets{100, 100}));
  EXPECT_EQ(shared({1}, {{40, 3}}, 100), (Budgets{40}));
  EXPECT_EQ(shared({1, 1, 1}, {{1, 20}, {1, 500}, {1, 500}}, 41), (Budgets{20, 52, 51}))
      << "positions are whole";
}

TEST(Cake, NobodyGetsMoreThanFourTimesTheBudget) {
  std::vector<double> wants(10);
  wants[3] = 1;
  const Budgets got = shared(wants, std::vector<ShareBounds>(10, {1, 10'000}), 100);
  EXPECT_EQ(got, (Budgets{67, 67, 67, 400, 67, 67, 67, 66, 66, 66}));
  EXPECT_EQ(most_share(100, 10), 400);
  EXPECT_EQ(most_share(100, 2), 168) << "the other one has its base";
  EXPECT_EQ(most_share(10, 3), 20);
  EXPECT_EQ(most_share(100, 1), 100);
  EXPECT_EQ(most_share(kUnlimited - 1, 64), 4 * (int64_t{kUnlimited} - 1));
}

TEST(Cake, NobodyGetsMoreThanThereIsNorLessThanItNeeds) {
  std::mt19937 random(11);
  for (int i = 0; i < 3000; ++i) {
    const auto n = static_cast<size_t>(1 + random() % 40);
    const auto budget = static_cast<int32_t>(1 + random() % (i % 2 == 0 ? 300U : 1'000'000U));
    std::vector<double> needs(n);
    std::vector<ShareBounds> bounds(n);
    int64_t could_use = 0;
    const int32_t base = std::min(32, budget / 2);
    const int64_t limit = most_share(budget, static_cast<int64_t>(n));
    const auto most_of = [&](size_t l) {
      return std::max<int64_t>({bounds[l].least, base, std::min(limit, bounds[l].most)});
    };
    for (size_t l = 0; l < n; ++l) {
      const double size = std::exp(static_cast<double>(random() % 30) - 15);
      needs[l] = random() % 4 == 0 ? 0 : size * static_cast<double>(random() % 1000) / 1000;
      bounds[l].least = static_cast<int32_t>(1 + random() % static_cast<uint32_t>(budget));
      bounds[l].most = static_cast<int64_t>(random() % (3 * static_cast<uint64_t>(budget)));
      could_use += most_of(l);
    }
    const Budgets got = shared(needs, bounds, budget);
    const auto total = static_cast<int64_t>(n) * budget;
    const int64_t sum = std::accumulate(got.begin(), got.end(), int64_t{0});
    ASSERT_EQ(sum, std::min(total, could_use)) << i;
    for (size_t l = 0; l < n; ++l) {
      ASSERT_GE(got[l], std::max(bounds[l].least, base)) << i;
      ASSERT_LE(got[l], most_of(l)) << i;
      for (size_t m = 0; m < n; ++m) {  // who wants more and may have it gets no less, but for one
        const bool wants_more = needs[l] > needs[m];
        const bool is_free =
            got[l] < std::min(limit, bounds[l].most) && got[m] > std::max(bounds[m].least, base);
        if (!wants_more || !is_free) continue;
        ASSERT_GE(got[l] + 1, got[m]) << i;
      }
    }
    ASSERT_EQ(got, shared(needs, bounds, budget)) << "asked again";
  }
}

}  // namespace
}  // namespace paddock
