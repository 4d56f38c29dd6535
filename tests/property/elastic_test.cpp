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

}  // namespace
}  // namespace paddock::test
