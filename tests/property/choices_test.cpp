// What requests choose, told again in double from the logits of a raw pass: bias, penalties over
// the window, cuts, and the random number of each position.
#include <map>
#include <numeric>

#include "sampling.h"
#include "support/small_requests.h"

namespace paddock::test {
namespace {

/// Logits after bias and penalties, by their definition.
std::vector<double> adjusted(const float* logits, size_t n, std::span<const TokenId> text,
                             const SamplingOptions& o) {
  std::vector<double> out(logits, logits + n);
  for (const auto& [id, bias] : o.logit_bias) out[id] += double{bias};
  std::map<TokenId, int> count;
  const size_t width = std::min<size_t>(text.size(), static_cast<size_t>(o.penalty_window));
  for (const TokenId id : text.last(width)) ++count[id];
  for (const auto& [id, times] : count) {
    double& logit = out[id];
    logit = logit > 0 ? logit / double{o.repeat_penalty} : logit * double{o.repeat_penalty};
    logit -= times * double{o.frequency_penalty};
    logit -= double{o.presence_penalty};
  }
  for (double& logit : out) logit = double{static_cast<float>(logit)};
  return out;
}

/// The probability of each token after top-k, top-p and min-p.
std::vector<double> probabilities(const std::vector<double>& logits, const SamplingOptions& o) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  const double best = logits[order[0]];
  if (o.top_k > 0) order.resize(std::min<size_t>(order.size(), static_cast<size_t>(o.top_k)));
  double total = 0;
  for (const size_t id : order) total += std::exp(logits[id] - best);
  double reached = 0;
  size_t kept = 0;
  while (kept < order.size() && (o.top_p >= 1 || reached < double{o.top_p} * total)) {
    reached += std::exp(logits[order[kept++]] - best);
  }
  order.resize(kept);
  std::erase_if(order, [&](size_t id) { return std::exp(logits[id] - best) < double{o.min_p}; });
  total = 0;
  for (const size_t id : order) total += std::exp((logits[id] - best) / double{o.temperature});
  std::vector<double> p(logits.size());
  for (const size_t id : order) {
    p[id] = std::exp((logits[id] - best) / double{o.temperature}) / total;
  }
  return p;
}

/// Whether `id` is what `o` says of the logits after `text`.
void expect_choice(TokenId id, const std::vector<double>& logits, size_t position,
                   const SamplingOptions& o) {
  if (o.temperature == 0) {
    EXPECT_EQ(id, std::max_element(logits.begin(), logits.end()) - logits.begin()) << position;
    return;
  }
  const std::vector<double> p = probabilities(logits, o);
  const double before = std::accumulate(p.begin(), p.begin() + id, 0.0);
  const double u = random_uniform(o.seed, position);
  EXPECT_GT(p[id], 0) << position;
  EXPECT_GT(u, before - 1e-5) << position;
  EXPECT_LT(u, before + p[id] + 1e-5) << position;
}

struct Named {
  const char* name;
  SamplingOptions options;
};

const std::vector<Named>& choices() {
  static const auto plain = [](float temperature, int32_t window) {
    SamplingOptions o;
    o.temperature = temperature;
    o.penalty_window = window;
    return o;
  };
  static const std::vector<Named> all = [] {
    std::vector<Named> out;
    for (const float temperature : {0.0F, 0.9F}) {
      for (const int32_t window : {0, 1, 5, 17, 64, 1000}) {
        SamplingOptions o = plain(temperature, window);
        o.repeat_penalty = 1.3F;
        out.push_back({"repeat", o});
        o.repeat_penalty = 0.8F;
        out.push_back({"rewarded", o});
        o.repeat_penalty = 1;
        o.frequency_penalty = 0.7F;
        out.push_back({"frequency", o});
        o.presence_penalty = 0.9F;
        out.push_back({"frequency and presence", o});
        o.repeat_penalty = 1.2F;
        o.presence_penalty = -0.4F;
        o.logit_bias = {{3, 1.5F}, {90, -2.0F}, {3, 0.75F}, {17, 2.5F}, {5, -INFINITY}};
        out.push_back({"all, and bias", o});
      }
      SamplingOptions o = plain(temperature, 8);
      o.presence_penalty = 1;
      out.push_back({"presence", o});
      o = plain(temperature, 8);
      o.logit_bias = {{60, 3.0F}, {9, 2.0F}, {9, 2.0F}};
      out.push_back({"bias", o});
    }
    for (const int32_t top_k : {0, 1, 2, 50, 128, 500}) {
      for (const float top_p : {1.0F, 0.9F, 0.3F}) {
        for (const float min_p : {0.0F, 0.05F, 0.4F, 1.0F}) {
          SamplingOptions o;
          o.temperature = 1.6F;
          o.top_k = top_k;
          o.top_p = top_p;
          o.min_p = min_p;
          o.seed = static_cast<uint64_t>(top_k) * 77 + 1;
          out.push_back({"cuts", o});
        }
      }
    }
    return out;
  }();
  return all;
}

TEST(Choices, EqualTheirDefinitionInDoubleOverLongTexts) {
  EngineOptions how = reference_options();
  how.threads = 1;
  Engine engine(tiny(), how);
  const std::vector<TokenId> prompt = prompt_of(20);
  for (const Named& choice : choices()) {
    const SamplingOptions& o = choice.options;
    SCOPED_TRACE(testing::Message()
                 << choice.name << " at " << o.temperature << " window " << o.penalty_window
                 << " cuts " << o.top_k << " " << o.top_p << " " << o.min_p);
    GenerateOptions options = greedy(100);
    options.sampling = o;
    const std::vector<TokenId> said = engine.generate(prompt, options).tokens;
    ASSERT_EQ(said.size(), 100U);
    std::vector<TokenId> text = prompt;
    text.insert(text.end(), said.begin(), said.end());
    const Matrix logits = all_logits(engine, text);
    for (size_t at = prompt.size(); at < text.size(); ++at) {
      const auto before = std::span(text).first(at);
      expect_choice(text[at],
                    adjusted(logits.row(static_cast<int64_t>(at) - 1),
                             static_cast<size_t>(logits.cols), before, o),
                    at, o);
      if (HasFailure()) return;
    }
  }
}

TEST(Choices, LogprobsAreTheModelsOwnWhateverTheOptions) {
  EngineOptions how = reference_options();
  Engine engine(tiny(), how);
  const std::vector<TokenId> prompt = prompt_of(20);
  GenerateOptions options = greedy(40);
  options.sampling.temperature = 1.5F;
  options.sampling.top_k = 20;
  options.sampling.frequency_penalty = 0.5F;
  options.sampling.logit_bias = {{60, 3.0F}};
  for (const int32_t n : {0, 1, 5, 128}) {
    options.logprobs = n;
    const GenerateResult r = engine.generate(prompt, options);
    std::vector<TokenId> text = prompt;
    text.insert(text.end(), r.tokens.begin(), r.tokens.end());
    const Matrix logits = all_logits(engine, text);
    ASSERT_EQ(r.logprobs.size(), 40U);
    for (size_t i = 0; i < r.tokens.size(); ++i) {
      const float* row = logits.row(static_cast<int64_t>(prompt.size() + i) - 1);
      double sum = 0;
      for (int64_t id = 0; id < logits.cols; ++id) sum += std::exp(double{row[id]});
      EXPECT_EQ(r.logprobs[i].id, r.tokens[i]);
      EXPECT_NEAR(r.logprobs[i].logprob, row[r.tokens[i]] - std::log(sum), 1e-9);
      ASSERT_EQ(r.top_logprobs[i].size(), static_cast<size_t>(n));
      std::vector<TokenId> order(static_cast<size_t>(logits.cols));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](TokenId a, TokenId b) { return row[a] > row[b]; });
      for (int32_t j = 0; j < n; ++j) {
        EXPECT_EQ(r.top_logprobs[i][j].id, order[j]);
        EXPECT_NEAR(r.top_logprobs[i][j].logprob, row[order[j]] - std::log(sum), 1e-9);
      }
    }
  }
}

TEST(Choices, ASeedIsAllThatAChoiceDependsOn) {
  Engine engine(tiny(), reference_options());
  const std::vector<TokenId> prompt = prompt_of(20);
  const auto said = [&](uint64_t seed, float temperature) {
    GenerateOptions options = greedy(40);
    options.sampling = {.temperature = temperature, .seed = seed};
    return engine.generate(prompt, options).tokens;
  };
  EXPECT_EQ(said(0, 1), said(0, 1));
  EXPECT_NE(said(0, 1), said(1, 1));
  EXPECT_NE(said(1, 1), said(uint64_t{1} << 63, 1));
  EXPECT_EQ(said(0, 0), said(1, 0));
}

}  // namespace
}  // namespace paddock::test
