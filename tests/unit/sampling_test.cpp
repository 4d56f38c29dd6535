#include "sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <random>

#include "core/mix.h"
#include "engine/sampler.h"
#include "paddock/error.h"

namespace paddock {
namespace {

TEST(Sampling, WeightsAreExponentials) {
  const auto one = static_cast<double>(kWeightOne);
  for (float x = -31.9F; x <= 0; x += 0.0137F) {
    const double expected = std::exp(double{x}) * one;
    ASSERT_NEAR(static_cast<double>(weight_of(x)), expected, 3e-7 * expected + 0.5) << x;
  }
  EXPECT_EQ(weight_of(0), kWeightOne);
  EXPECT_EQ(weight_of(-33), 0U);
  EXPECT_EQ(weight_of(-INFINITY), 0U);
  EXPECT_EQ(weight_of(NAN), 0U);
}

TEST(Sampling, KeysKeepTheOrderOfLogits) {
  const std::vector<float> ascending = {-INFINITY, -3e38F, -1.5F, -1e-40F, 0, 1e-40F, 1.5F, 3e38F};
  for (size_t i = 0; i + 1 < ascending.size(); ++i) {
    EXPECT_LT(logit_key(ascending[i]), logit_key(ascending[i + 1]));
    EXPECT_EQ(key_logit(logit_key(ascending[i])), ascending[i]);
  }
  EXPECT_EQ(logit_key(-0.0F), logit_key(0.0F));
  EXPECT_GT(logit_key(-INFINITY), 0U);
}

/// What the options promise, in sorted doubles: the probability of each token.
std::vector<double> probabilities(const std::vector<float>& logits, const SampleRow& row) {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  const double best = logits[order[0]];
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < order.size()) order.resize(row.top_k);
  double total = 0;
  for (const int id : order) total += std::exp(logits[id] - best);
  double reached = 0;
  size_t n = 0;
  while (n < order.size() && (row.top_p >= 1 || reached < row.top_p * total)) {
    reached += std::exp(logits[order[n++]] - best);
  }
  order.resize(n);
  while (order.size() > 1 && std::exp(logits[order.back()] - best) < row.min_p) order.pop_back();
  total = 0;
  for (const int id : order) total += std::exp((logits[id] - best) / row.temperature);
  std::vector<double> p(logits.size());
  for (const int id : order) p[id] = std::exp((logits[id] - best) / row.temperature) / total;
  return p;
}

TEST(Sampling, DrawsWhereTheRunningSumPassesTheRandomNumber) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 3);
  for (int round = 0; round < 400; ++round) {
    std::vector<float> logits(1 + random() % 300);
    for (float& l : logits) l = normal(random);
    if (round % 3 == 0) {  // ties
      for (float& l : logits) l = std::round(l);
    }
    const SampleRow row{0.3F + 0.01F * static_cast<float>(random() % 100),
                        static_cast<int32_t>(random() % 3 == 0 ? 0 : random() % 80),
                        random() % 2 == 0 ? 1.0F : 0.05F * static_cast<float>(1 + random() % 19),
                        random() % 2 == 0 ? 0.0F : 0.02F * static_cast<float>(random() % 10),
                        7,
                        static_cast<uint64_t>(round)};
    const std::vector<double> p = probabilities(logits, row);
    std::vector<Candidate> scratch(logits.size());
    const TokenId id = draw_token(logits, row, scratch);
    ASSERT_GT(p[id], 0) << round;
    const double before = std::accumulate(p.begin(), p.begin() + id, 0.0);
    const double u = random_uniform(row.seed, row.n);
    EXPECT_GT(u, before - 1e-5) << round;
    EXPECT_LT(u, before + p[id] + 1e-5) << round;
  }
}

TEST(Sampling, WhereEveryTokenIsForbiddenNoneIsChosen) {
  for (const float temperature : {0.0F, 1.0F}) {
    SamplingOptions options;
    options.temperature = temperature;
    options.logit_bias = {{0, -INFINITY}, {1, -INFINITY}};
    options.frequency_penalty = -1e38F;  // what is forbidden stays so
    Sampler sampler(options, 2);
    for (int i = 0; i < 9; ++i) sampler.observe(1);
    EXPECT_EQ(sampler.choose(std::vector<float>{1, 2}), -1);
    EXPECT_EQ(sampler.why_none(false),
              "no token may be drawn: logit_bias (of 2 tokens), frequency_penalty -1e+38 leave "
              "every logit at -infinity; allow some token");
    EXPECT_EQ(greedy_choice(std::vector<float>{-INFINITY}.data(), 1), -1);
  }
}

TEST(Sampling, WhatOverflowsWinsOrIsForbidden) {
  struct Case {
    const char* what;
    std::function<void(SamplingOptions&)> change;
    std::vector<float> logits;
    TokenId expected;
  };
  const Case cases[] = {
      {"several overflow", [](auto& o) { o.repeat_penalty = 1e-38F; }, {1, 9, 8, 20}, 1},
      {"one overflows", [](auto& o) { o.repeat_penalty = 1e-38F; }, {1, -9, 8, 20}, 2},
      {"bias",
       [](auto& o) {
         o.logit_bias = {{3, 3e38F}};
       },
       {1, 9, 8, 3e38F},
       3},
      {"twice the bias",
       [](auto& o) {
         o.logit_bias = {{3, 3e38F}, {3, 3e38F}};
       },
       {1, 9, 8, 2},
       3},
      // Opposite overflows meet in double, where neither overflows.
      {"both",
       [](auto& o) { o.repeat_penalty = 1e-38F, o.frequency_penalty = 3e38F; },
       {1, 20, 20, 0},
       1},
      {"bias against penalty",
       [](auto& o) {
         o.logit_bias = {{1, 3e38F}}, o.presence_penalty = 3.2e38F;
       },
       {1, 0, 0, 0},
       0},
      {"down", [](auto& o) { o.frequency_penalty = 3e38F; }, {-3e38F, 9, 8, -3.4e38F}, 0}};
  for (const Case& c : cases) {
    for (const float temperature : {0.0F, 0.3F, 50.0F}) {
      for (const int32_t top_k : {0, 2}) {
        SamplingOptions options;
        options.temperature = temperature;
        options.top_k = top_k;
        options.top_p = top_k == 0 ? 1.0F : 0.9F;
        c.change(options);
        options.validate(4);
        Sampler sampler(options, 4);
        sampler.observe(std::vector<TokenId>{1, 2, 1, 2});
        EXPECT_EQ(sampler.choose(c.logits), c.expected) << c.what << " at " << temperature;
      }
    }
  }
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
  for (int i = 0; i < kDraws; ++i) {
    const TokenId id = sampler.choose(logits);
    ++counts[id];
    sampler.observe(id);
  }
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
    for (int i = 0; i < 3000; ++i) {
      const TokenId id = sampler.choose(logits);
      ++counts[id];
      sampler.observe(id);
    }
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

TEST(Sampling, SameSeedAndTextSameChoices) {
  SamplingOptions options;
  options.seed = 99;
  options.repeat_penalty = 1.2F;
  options.penalty_window = 5;
  Sampler one(options, 50);
  std::vector<float> logits(50);
  for (int i = 0; i < 50; ++i) logits[i] = static_cast<float>(i % 7);
  std::vector<TokenId> text;
  for (int i = 0; i < 100; ++i) {
    Sampler fresh(options, 50);  // told the text at once
    fresh.observe(text);
    const TokenId id = one.choose(logits);
    ASSERT_EQ(fresh.choose(logits), id);
    EXPECT_EQ(one.next_row().n, text.size());
    one.observe(id);
    text.push_back(id);
  }
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

TEST(Sampling, RandomNumbersAreThoseOfTheOneGenerator) {
  for (const uint64_t seed : {uint64_t{0}, uint64_t{7}, ~uint64_t{0} - 3}) {
    uint64_t state = seed;
    for (uint64_t n = 0; n < 100; ++n) {
      EXPECT_EQ(random_uniform(seed, n), unit_interval(mix(seed + n * kMixStep))) << seed;
      EXPECT_EQ(random_uniform(seed, n), unit_interval(next_random(state))) << seed;
    }
  }
}

/// A seed whose n-th random number is 0: the generator's mixing keeps 0.
uint64_t seed_of_zero(uint64_t n) { return 0 - (n + 1) * 0x9E3779B97F4A7C15ULL; }

TokenId drawn(const std::vector<float>& logits, const SampleRow& row) {
  std::vector<Candidate> scratch(logits.size());
  return draw_token(logits, row, scratch);
}

TEST(Sampling, ANumberOfZeroDrawsTheFirstTokenThatHasAnyWeight) {
  for (const uint64_t n : {0, 7}) {
    const uint64_t seed = seed_of_zero(n);
    ASSERT_EQ(random_uniform(seed, n), 0.0);
    const float none = -INFINITY;
    EXPECT_EQ(drawn({none, none, 1, 2}, {1, 0, 1, 0, seed, n}), 2);
    EXPECT_EQ(drawn({none, none, 1, 2}, {1, 4, 0.99F, 0, seed, n}), 2);
    EXPECT_EQ(drawn({-90, 0, 1, 2}, {1, 0, 1, 0, seed, n}), 1) << "e^-92 has no weight";
    EXPECT_EQ(drawn({0, 1, 2, 3}, {1, 2, 1, 0, seed, n}), 2) << "of the first two, by id";
    EXPECT_EQ(drawn({0, 1, 2, 3}, {1, 0, 1, 0.3F, seed, n}), 2) << "e^-1 is above 0.3";
  }
}

/// Ids that are drawn at all, at a temperature that makes what is kept almost even.
std::vector<TokenId> kept(const std::vector<float>& logits, int32_t top_k, float top_p,
                          float min_p) {
  std::vector<TokenId> ids;
  for (uint64_t n = 0; n < 400; ++n) ids.push_back(drawn(logits, {50, top_k, top_p, min_p, 3, n}));
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

TEST(Sampling, CutsAtTheirEdges) {
  using Ids = std::vector<TokenId>;
  // Of equals the lowest ids stay.
  EXPECT_EQ(kept({1, 2, 2, 2, 1}, 2, 1, 0), (Ids{1, 2}));
  EXPECT_EQ(kept({1, 2, 2, 2, 1}, 4, 1, 0), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(kept({1, 2, 2, 2, 1}, 5, 1, 0), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(kept({1, 2, 2, 2, 1}, 6, 1, 0), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(kept({1, 2, 2, 2, 1}, 1, 1, 0), (Ids{1}));
  // The fewest that reach top_p; exactly is enough.
  EXPECT_EQ(kept({0, 0, 0, 0}, 0, 0.25F, 0), (Ids{0}));
  EXPECT_EQ(kept({0, 0, 0, 0}, 0, 0.5F, 0), (Ids{0, 1}));
  EXPECT_EQ(kept({0, 0, 0, 0}, 0, 0.500001F, 0), (Ids{0, 1, 2}));
  EXPECT_EQ(kept({0, 0, 0, 0}, 0, 1, 0), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(kept({0, 0, 0, 0}, 0, 1e-9F, 0), (Ids{0}));
  // Of what top_k has left.
  EXPECT_EQ(kept({0, 0, 0, 0}, 2, 0.5F, 0), (Ids{0}));
  EXPECT_EQ(kept({0, 0, 0, 0}, 2, 0.51F, 0), (Ids{0, 1}));
  // At least min_p of the best one's; 1 keeps its equals.
  EXPECT_EQ(kept({3, 2, 3, 1}, 0, 1, 1), (Ids{0, 2}));
  EXPECT_EQ(kept({3, 2, 3, 1}, 3, 1, 1), (Ids{0, 2}));
  const float share = static_cast<float>(weight_of(-1)) * 0x1p-45F;  // has 24 bits
  ASSERT_EQ(share_of(share, kWeightOne), weight_of(-1));
  EXPECT_EQ(kept({3, 2, 1, 3}, 0, 1, share), (Ids{0, 1, 3}));
  EXPECT_EQ(kept({3, 2, 1, 3}, 0, 1, std::nextafter(share, 1.0F)), (Ids{0, 3}));
  EXPECT_EQ(kept({3, 2, 1, 3}, 0, 0.999F, share), (Ids{0, 1, 3}));
  // What is forbidden is never drawn, however few are left.
  EXPECT_EQ(kept({-INFINITY, 2, -INFINITY}, 3, 0.999F, 0), (Ids{1}));
  EXPECT_EQ(kept({-INFINITY, 2, -INFINITY}, 0, 1, 0), (Ids{1}));
}

TEST(Sampling, RangesEndWhereTheySay) {
  struct Edge {
    const char* name;
    std::function<void(SamplingOptions&, double)> set;
    std::vector<double> good, bad;
  };
  const double inf = INFINITY;
  const double more = 1.0000002;  // the next float
  const Edge edges[] = {{"temperature",
                         [](auto& o, double v) { o.temperature = static_cast<float>(v); },
                         {0, 1e-30, 3e38},
                         {-1e-30, inf, NAN}},
                        {"top_k",
                         [](auto& o, double v) { o.top_k = static_cast<int32_t>(v); },
                         {0, 1, 2147483647},
                         {-1}},
                        {"top_p",
                         [](auto& o, double v) { o.top_p = static_cast<float>(v); },
                         {1e-30, 1},
                         {0, -1, more, NAN}},
                        {"min_p",
                         [](auto& o, double v) { o.min_p = static_cast<float>(v); },
                         {0, 1},
                         {-1e-30, more, NAN}},
                        {"repeat_penalty",
                         [](auto& o, double v) { o.repeat_penalty = static_cast<float>(v); },
                         {1e-30, 3e38},
                         {0, -1, inf, NAN}},
                        {"frequency_penalty",
                         [](auto& o, double v) { o.frequency_penalty = static_cast<float>(v); },
                         {-3e38, 3e38},
                         {inf, -inf, NAN}},
                        {"presence_penalty",
                         [](auto& o, double v) { o.presence_penalty = static_cast<float>(v); },
                         {-3e38, 3e38},
                         {inf, -inf, NAN}},
                        {"penalty_window",
                         [](auto& o, double v) { o.penalty_window = static_cast<int32_t>(v); },
                         {0, 1048576},
                         {-1, 1048577}},
                        {"logit_bias token",
                         [](auto& o, double v) {
                           o.logit_bias = {{1, 0.5F}, {static_cast<TokenId>(v), 1.0F}};
                         },
                         {0, 9},
                         {-1, 10}},
                        {"logit_bias value",
                         [](auto& o, double v) {
                           o.logit_bias = {{1, 0.5F}, {2, static_cast<float>(v)}};
                         },
                         {-inf, 3e38, -3e38},
                         {inf, NAN}}};
  for (const Edge& edge : edges) {
    for (const double value : edge.good) {
      SamplingOptions options;
      edge.set(options, value);
      EXPECT_NO_THROW(options.validate(10)) << edge.name << " " << value;
    }
    for (const double value : edge.bad) {
      SamplingOptions options;
      edge.set(options, value);
      try {
        options.validate(10);
        ADD_FAILURE() << edge.name << " " << value << " was accepted";
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
        EXPECT_NE(std::string(e.what()).find(edge.name), std::string::npos) << e.what();
      }
    }
  }
}

TEST(LogSoftmax, EqualsTheDefinition) {
  const std::vector<float> logits = {1, 2, 3};
  const double total = std::exp(1.0) + std::exp(2.0) + std::exp(3.0);
  EXPECT_NEAR(LogSoftmax(logits).logprob(2), 2 - std::log(total), 1e-12);
  // However large or small they are.
  for (const float shift : {-3e4F, 3e4F}) {
    const std::vector<float> far = {1 + shift, 2 + shift, 3 + shift};
    EXPECT_NEAR(LogSoftmax(far).logprob(2 + shift), 2 - std::log(total), 1e-9);
  }
}

}  // namespace
}  // namespace paddock
