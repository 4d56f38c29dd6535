// Elastic rules in an engine: everything stays until pages run short, then budgets fall at decision
// lengths, the same whatever the size of steps.
#include <fmt/format.h>

#include <algorithm>

#include "support/engine_inside.h"
#include "support/rule_examples.h"
#include "support/shared_memory.h"

namespace paddock::test {
namespace {

/// What can be compared of a change.
std::string told(const std::vector<KvBudgetChange>& changes) {
  std::string out;
  for (const KvBudgetChange& c : changes) {
    out += fmt::format("at {} from {} to {}: {} pages ({})\n", c.length, c.before, c.after, c.pages,
                       fmt::join(c.layer_pages, " "));
  }
  return out;
}

EngineOptions elastic_options(const std::string& policy, int64_t pages, int32_t sequences = 1) {
  EngineOptions o = shared_memory(policy, pages, sequences);
  o.context = 400;
  o.kv.type = KvType::kF32;
  return o;
}

int64_t interval_of(const std::string& policy) {
  return make_policy(policy)->schedule(0, 2, kUnlimited).every;
}

class Elastic : public testing::TestWithParam<RuleExample> {};
INSTANTIATE_TEST_SUITE_P(Property, Elastic, testing::ValuesIn(elastic_examples()), name_of);

// ---- falls and the size of steps

TEST_P(Elastic, FallsDoNotDependOnTheSizeOfSteps) {
  const std::string& policy = GetParam().policy;
  for (const auto& [pages, prompt] : {std::pair<int64_t, size_t>{44, 5}, {59, 90}, {44, 203}}) {
    SCOPED_TRACE(fmt::format("{}, {} pages, a prompt of {}", policy, pages, prompt));
    std::string expected;
    std::vector<TokenId> tokens;
    for (const int32_t batch : {1, 7, 64, 512}) {
      EngineOptions options = elastic_options(policy, pages);
      options.batch_size = batch;
      Engine engine(tiny(), options);
      const GenerateResult result =
          engine.generate(text_at(0, prompt), greedy(static_cast<int32_t>(230 - prompt)));
      engine.check_integrity();
      EXPECT_EQ(result.finish_reason, FinishReason::kLength);
      EXPECT_EQ(result.preemptions, 0);
      const std::vector<KvBudgetChange>& falls = result.budget_changes;
      EXPECT_GE(falls.size(), 1U);
      for (size_t i = 0; i < falls.size(); ++i) {
        EXPECT_EQ(falls[i].length % interval_of(policy), 0);
        EXPECT_EQ(falls[i].before, i == 0 ? kUnlimited : falls[i - 1].after);
        EXPECT_LE(falls[i].after, falls[i].before);
        EXPECT_GT(falls[i].pages, 0);
      }
      if (tokens.empty()) {
        expected = told(falls);
        tokens = result.tokens;
      }
      EXPECT_EQ(told(falls), expected) << "batches of " << batch;
      EXPECT_EQ(result.tokens, tokens) << "batches of " << batch;
    }
  }
}

// ---- until the first fall it is `full`

/// How many of a request's tokens were chosen before its sequence fell. `begin`: its first token's
/// position.
size_t chosen_before_falls(const GenerateResult& result, int64_t begin) {
  auto n = static_cast<int64_t>(result.tokens.size());
  for (const KvBudgetChange& c : result.budget_changes) {
    if (c.after != kUnlimited) n = std::min(n, std::max<int64_t>(0, c.length - begin + 1));
  }
  return static_cast<size_t>(n);
}

/// Where a table's blocks lie, and how queries meet them.
std::string tables_of(const Engine& engine) {
  std::string out;
  for (int32_t layer = 0; layer < engine.model().info().n_layers; ++layer) {
    for (const KvBlock& b : engine.kv_blocks(layer)) {
      out += fmt::format("{}:{}+{}-{}/{} ", b.sequence, b.first_position, b.n_tokens, b.query_shift,
                         b.query_cap);
    }
    out += "\n";
  }
  return out;
}

std::vector<Precision> precisions() { return {Precision::kReference, Precision::kFast}; }

TEST_P(Elastic, AloneEqualsFullToTheBitUntilItFalls) {
  const std::string& policy = GetParam().policy;
  const std::vector<TokenId> text = text_at(3, 130);
  for (const Precision precision : precisions()) {
    for (const auto& [block, pages, batch] : {std::tuple{4, 40, 512}, {1, 150, 33}, {16, 16, 1}}) {
      SCOPED_TRACE(fmt::format("{}, blocks of {}, batches of {}", policy, block, batch));
      const auto options = [&](const std::string& rule, int64_t n_pages) {
        EngineOptions o = elastic_options(rule, 0);
        o.precision = precision;
        o.kv.block_size = block;
        o.batch_size = batch;
        if (n_pages > 0) {
          const int64_t bytes = Engine(tiny(), o).kv_stats().page_bytes;
          o.kv.budget_bytes = static_cast<uint64_t>(n_pages * bytes);
        }
        return o;
      };
      Engine full(tiny(), options("full", 0));
      const Matrix expected = all_logits(full, text);
      for (const int64_t n_pages : {int64_t{pages}, int64_t{0}}) {
        auto inside = parts(tiny(), options(policy, n_pages));
        Engine engine(inside);
        int64_t equal = 0;
        engine.forward(text, [&](int64_t t, std::span<const float> row) {
          const auto changes = inside->cache->budget_changes();
          if (!changes.empty() && t >= changes[0].length) return true;
          EXPECT_TRUE(std::equal(row.begin(), row.end(), expected.row(t))) << t;
          const int64_t end = engine.kv_stats().tokens_written;
          for (int32_t layer = 0; layer < 2 && changes.empty(); ++layer) {
            int64_t next = 0;
            for (const KvBlock& b : engine.kv_blocks(layer)) {
              EXPECT_EQ(b.first_position, next);
              EXPECT_EQ(b.query_shift, 0);
              next += b.n_tokens;
            }
            EXPECT_EQ(next, end);
          }
          ++equal;
          return true;
        });
        EXPECT_EQ(inside->cache->budget_changes().empty(), n_pages == 0);
        EXPECT_GE(equal, n_pages == 0 ? 130 : 64);
      }
    }
  }
}

struct Wish {
  size_t begin, prompt;
  GenerateOptions options;
};

/// Prompts that begin alike, and in company others that do not.
std::vector<Wish> wishes() {
  std::vector<Wish> all = {{0, 60, greedy(50)}, {0, 33, greedy(60)}, {0, 44, greedy(30)},
                           {9, 21, greedy(70)}, {0, 60, greedy(20)}, {2, 3, greedy(90)}};
  all[1].options.sampling = {.temperature = 1.2F, .seed = 5};
  for (Wish& wish : all) wish.options.logprobs = 2;
  return all;
}

void expect_equal_logprobs(const GenerateResult& a, const GenerateResult& b, size_t n) {
  ASSERT_GE(a.tokens.size(), n);
  ASSERT_GE(b.tokens.size(), n);
  for (size_t i = 0; i < n; ++i) {
    EXPECT_EQ(a.tokens[i], b.tokens[i]) << i;
    EXPECT_EQ(a.logprobs[i].logprob, b.logprobs[i].logprob) << i;
  }
}

TEST_P(Elastic, InCompanyEqualsFullToTheBitUntilItFalls) {
  const std::string& policy = GetParam().policy;
  for (const Precision precision : precisions()) {
    std::vector<GenerateResult> expected;
    EngineOptions alone = elastic_options("full", 0);
    alone.precision = precision;
    Engine full(tiny(), alone);
    for (const Wish& wish : wishes()) {
      expected.push_back(full.generate(text_at(wish.begin, wish.prompt), wish.options));
    }
    for (const bool reuse : {true, false}) {
      for (const int64_t pages : {70, 110}) {
        SCOPED_TRACE(fmt::format("{} {} pages, reuse {}", policy, pages, reuse));
        EngineOptions options = elastic_options(policy, pages, 4);
        options.precision = precision;
        options.kv.reuse = reuse;
        Engine engine(tiny(), options);
        std::vector<RequestId> ids;
        for (const Wish& wish : wishes()) {
          ids.push_back(engine.add(text_at(wish.begin, wish.prompt), wish.options));
          engine.step();
        }
        finish_all(engine);
        size_t fallen = 0, compared = 0;
        int64_t cached = 0;
        for (size_t i = 0; i < ids.size(); ++i) {
          const auto result = engine.take(ids[i]);
          ASSERT_TRUE(result);
          EXPECT_EQ(result->finish_reason, FinishReason::kLength);
          const size_t n = chosen_before_falls(*result, static_cast<int64_t>(wishes()[i].prompt));
          fallen += result->budget_changes.empty() ? 0 : 1;
          compared += n;
          cached += result->cached_tokens;
          expect_equal_logprobs(*result, expected[i], n);
        }
        EXPECT_GE(fallen, interval_of(policy) > 16 ? 0U : 1U);
        EXPECT_GE(compared, 60U);
        EXPECT_EQ(cached > 0, reuse);
        expect_nothing_held(engine);
      }
    }
  }
}

TEST_P(Elastic, WithRoomForAllEqualsFullStepByStep) {
  const std::string& policy = GetParam().policy;
  // Where it observes queries its steps end otherwise.
  const bool observes = make_policy(policy)->schedule(0, 2, kUnlimited).observe > 0;
  for (const Precision precision : precisions()) {
    const auto options = [&](const std::string& rule) {
      EngineOptions o = elastic_options(rule, 0, 4);
      o.precision = precision;
      return o;
    };
    Engine full(tiny(), options("full")), engine(tiny(), options(policy));
    std::vector<RequestId> ids;
    const auto step = [&] {
      const bool busy = full.step() | engine.step();
      EXPECT_TRUE(observes || tables_of(engine) == tables_of(full));
      return busy;
    };
    for (const Wish& wish : wishes()) {
      ids.push_back(full.add(text_at(wish.begin, wish.prompt), wish.options));
      EXPECT_EQ(engine.add(text_at(wish.begin, wish.prompt), wish.options), ids.back());
      step();
    }
    while (step()) {
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto result = engine.take(ids[i]);
      const auto expected = full.take(ids[i]);
      EXPECT_TRUE(result->budget_changes.empty());
      EXPECT_EQ(result->trims, 0);
      EXPECT_EQ(result->tokens.size(), expected->tokens.size());
      EXPECT_EQ(result->cached_tokens, expected->cached_tokens);
      expect_equal_logprobs(*result, *expected, expected->tokens.size());
    }
    EXPECT_EQ(engine.kv_stats().prefix_hits, full.kv_stats().prefix_hits);
    EXPECT_EQ(engine.kv_stats().prefix_lookups, full.kv_stats().prefix_lookups);
    EXPECT_GT(engine.kv_stats().prefix_hits, 0);
    EXPECT_EQ(engine.kv_stats().total.pages_cached, full.kv_stats().total.pages_cached);
    EXPECT_EQ(engine.kv_stats().budget_falls, 0);
  }
}

}  // namespace
}  // namespace paddock::test
