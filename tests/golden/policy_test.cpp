// Eviction rules against independent implementations: the same victims, the same logits.
#include <nlohmann/json.hpp>

#include "support/golden.h"

namespace paddock::test {
namespace {

constexpr double kTolerance = 5e-5;

using Victims = std::vector<std::array<int64_t, 3>>;  // layer, length, position

std::string policy_of(const nlohmann::json& golden_case) { return golden_case["policy"]; }

/// Trims in the order of the golden files: by length, then layer, then worst first.
Victims victims(const std::vector<KvEvent>& events) {
  Victims out;
  for (const KvEvent& event : events) {
    if (event.reason != RemovalReason::kPolicyTrim) continue;
    EXPECT_FALSE(event.overruled);
    EXPECT_EQ(event.n_tokens, 1);
    out.push_back({event.layer, event.length, event.first_position});
  }
  return out;
}

TEST(PolicyGolden, VictimsAndLogitsEqualTheRulesOfThePapers) {
  const std::vector<TokenId> tokens = golden_tokens();
  const nlohmann::json cases = golden_json("policies.json");
  ASSERT_GE(cases.size(), 14U);
  for (const nlohmann::json& c : cases) {
    SCOPED_TRACE(c["model"].get<std::string>() + " " + policy_of(c));
    const Victims expected = c["victims"].get<Victims>();
    const auto model = Model::load(golden(c["model"]));
    for (const int chunk : kEmulated ? std::vector{5} : std::vector{1, 5, 512}) {
      EngineOptions options = reference_options();
      options.kv.policy = policy_of(c);
      options.kv.block_size = 1;
      options.batch_size = chunk;
      options.threads = 1 + chunk % 3;
      Engine engine(parts(model, options));
      std::map<int64_t, std::vector<float>> rows;
      engine.forward(
          tokens,
          [&](int64_t position, std::span<const float> row) {
            rows[position].assign(row.begin(), row.end());
            engine.check_integrity();
            return true;
          },
          c["prompt"]);
      EXPECT_EQ(victims(engine.kv_events()), expected) << "chunk " << chunk;
      const KvStats stats = engine.kv_stats();
      EXPECT_EQ(stats.policy_violations, 0);
      EXPECT_EQ(stats.policy_shortfalls, 0);
      EXPECT_EQ(stats.total.pages_removed[static_cast<size_t>(RemovalReason::kPolicyTrim)],
                static_cast<int64_t>(expected.size()));

      const auto positions = c["logits"]["positions"].get<std::vector<int64_t>>();
      const auto values = c["logits"]["values"].get<std::vector<std::vector<float>>>();
      for (size_t i = 0; i < positions.size(); ++i) {
        const std::vector<float>& row = rows[positions[i]];
        ASSERT_EQ(row.size(), values[i].size());
        double error = 0;
        double largest = 0;
        for (size_t j = 0; j < row.size(); ++j) {
          error = std::max(error, std::fabs(double{row[j]} - values[i][j]));
          largest = std::max(largest, std::fabs(double{values[i][j]}));
        }
        EXPECT_LT(error / largest, kTolerance) << "position " << positions[i];
      }
    }
  }
}

/// The text of make_policy_golden.py.
std::vector<TokenId> long_text() {
  std::vector<TokenId> tokens;
  for (int64_t i = 0; i < 50'000; ++i) {
    tokens.push_back(static_cast<TokenId>((i * 7919 + i / 13) % 128));
  }
  return tokens;
}

TEST(PolicyGolden, SinksDoNotDriftOverFiftyThousandTokens) {
  if (kEmulated) GTEST_SKIP() << "too many for the emulation";
  const auto model = Model::load(golden("gqa1-default"));
  // The two ways to place the sinks are far apart by then: neither expectation would pass for both.
  EXPECT_GT(relative_error(read_npy(golden("gqa1-long-sink.npy")),
                           read_npy(golden("gqa1-long-sink-original.npy"))),
            100 * kTolerance);
  for (const auto& [policy, file] :
       {std::pair{"sink:4+12", "gqa1-long-sink.npy"},
        std::pair{"sink:4+12@original", "gqa1-long-sink-original.npy"}}) {
    const Matrix expected = read_npy(golden(file));
    EngineOptions options = reference_options();
    options.kv.policy = policy;
    Engine engine(parts(model, options));
    const SessionId session = engine.open_session();
    const std::vector<TokenId> tokens = long_text();
    engine.feed(session, std::span(tokens).first(tokens.size() - 2));
    Matrix actual{2, expected.cols, {}};
    for (size_t i = tokens.size() - 2; i < tokens.size(); ++i) {
      const std::span<const float> row = engine.feed(session, {&tokens[i], 1});
      actual.values.insert(actual.values.end(), row.begin(), row.end());
    }
    EXPECT_LT(relative_error(actual, expected), kTolerance) << policy;
    engine.check_integrity();
    EXPECT_LE(engine.kv_stats().layers[0].tokens_resident, 4 + 12 + 2 * 16);
  }
}

}  // namespace
}  // namespace paddock::test
