#include "sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "engine/sampler.h"
#include "paddock/error.h"

namespace paddock {
namespace {

TEST(Sampling, ExpIsAccurate) {
  for (double x = -690; x <= 0; x += 0.37) {
    ASSERT_NEAR(sampling_exp(x) / std::exp(x), 1.0, 1e-13) << x;
  }
  EXPECT_EQ(sampling_exp(-800), 0.0);
  EXPECT_EQ(sampling_exp(0), 1.0);
}

TEST(Sampling, GreedyTakesTheLowestIdAmongEquals) {
  SamplingOptions options;
  options.temperature = 0;
  Sampler sampler(options, 4);
  EXPECT_EQ(sampler.choose(std::vector<float>{1, 3, 3, 2}), 1);
}

TEST(Sampling, DrawsWithTheModelsProbabilities) {
  SamplingOptions options;
  options.temperature = 0.8F;
  options.top_k = 0;
  options.top_p = 1;
  options.min_p = 0;
  options.seed = 42;
  const std::vector<float> logits = {1.0F, 0.5F, -0.5F, 2.0F, 0.0F};
  Sampler sampler(options, 5);
  std::map<int, int> counts;
  constexpr int kDraws = 40000;
  for (int i = 0; i < kDraws; ++i) ++counts[sampler.choose(logits)];
  double total = 0;
  for (const float l : logits) total += std::exp(l / 0.8);
  for (int id = 0; id < 5; ++id) {
    const double p = std::exp(logits[id] / 0.8) / total;
    EXPECT_NEAR(counts[id], p * kDraws, 5 * std::sqrt(kDraws * p * (1 - p))) << id;
  }
}

TEST(Sampling, CutsKeepWhatTheyPromise) {
  const std::vector<float> logits = {4, 3, 2, 1, 0, -1};
  const auto seen = [&](SamplingOptions options) {
    options.temperature = 5;  // flat, so that everything kept is soon drawn
    options.seed = 7;
    Sampler sampler(options, 6);
    std::map<int, int> counts;
    for (int i = 0; i < 3000; ++i) ++counts[sampler.choose(logits)];
    return counts.size();
  };
  SamplingOptions off;
  off.top_k = 0;
  off.top_p = 1;
  off.min_p = 0;
  EXPECT_EQ(seen(off), 6U);
  SamplingOptions k = off;
  k.top_k = 2;
  EXPECT_EQ(seen(k), 2U);
  SamplingOptions p = off;
  p.top_p = 0.8F;  // 0.632 + 0.232 reach it
  EXPECT_EQ(seen(p), 2U);
  SamplingOptions m = off;
  m.min_p = 0.1F;  // e^-1 and e^-2 are above a tenth, e^-3 is not
  EXPECT_EQ(seen(m), 3U);
}

TEST(Sampling, PenaltiesCountTheWindow) {
  SamplingOptions options;
  options.temperature = 0;
  options.repeat_penalty = 2;
  options.penalty_window = 2;
  Sampler sampler(options, 3);
  const std::vector<float> logits = {3, 2, -1};
  sampler.observe(0);
  EXPECT_EQ(sampler.choose(logits), 1);  // 3 / 2 is below 2
  sampler.observe(1);
  sampler.observe(2);
  EXPECT_EQ(sampler.choose(logits), 0);  // 0 has left the window
}

TEST(Sampling, SameSeedSameChoices) {
  SamplingOptions options;
  options.seed = 99;
  Sampler a(options, 50);
  Sampler b(options, 50);
  std::vector<float> logits(50);
  for (int i = 0; i < 50; ++i) logits[i] = static_cast<float>(i % 7);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.choose(logits), b.choose(logits));
}

TEST(Sampling, RangesAreChecked) {
  const auto bad = [](const std::function<void(SamplingOptions&)>& change) {
    SamplingOptions options;
    change(options);
    EXPECT_THROW(options.validate(10), Error);
  };
  bad([](auto& o) { o.temperature = -1; });
  bad([](auto& o) { o.temperature = NAN; });
  bad([](auto& o) { o.top_k = -1; });
  bad([](auto& o) { o.top_p = 0; });
  bad([](auto& o) { o.min_p = 2; });
  bad([](auto& o) { o.repeat_penalty = 0; });
  bad([](auto& o) { o.logit_bias = {{10, 1.0F}}; });
  SamplingOptions().validate(10);
}

TEST(LogSoftmax, EqualsTheDefinition) {
  const std::vector<float> logits = {1, 2, 3};
  const double total = std::exp(1.0) + std::exp(2.0) + std::exp(3.0);
  EXPECT_NEAR(LogSoftmax(logits).logprob(2), 2 - std::log(total), 1e-12);
}

}  // namespace
}  // namespace paddock
