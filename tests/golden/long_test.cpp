// A hundred thousand generated tokens under sinks, in a cache of 256 positions: nothing grows,
// nothing drifts.

#include "support/dense_oracle.h"
#include "support/golden.h"
#include "support/live_bytes.h"

namespace paddock::test {
namespace {

constexpr int32_t kSinks = 4;
constexpr int32_t kWindow = 252;

/// The last logits of a text, by the definition of StreamingLLM: the query sees the sinks and the
/// window's positions, all numbered anew from 0. What lies further back than the window reaches
/// through all layers cannot matter and is left out.
std::vector<double> last_logits(const Model& model, std::span<const TokenId> tokens) {
  DenseOracle oracle(model);
  const auto n = static_cast<int64_t>(tokens.size());
  const int64_t tail = std::max<int64_t>(kSinks, n - int64_t{model.info().n_layers + 1} * kWindow);
  std::vector<double> logits;
  for (int64_t t = 0; t < n; t = t + 1 == kSinks ? tail : t + 1) {
    logits = oracle.next(tokens[t], t, [&](int32_t, int64_t at) {
      std::vector<Met> met;
      for (int64_t p = 0; p < kSinks && p <= at; ++p) met.push_back({p, 0});
      for (int64_t p = std::max<int64_t>(tail, at - kWindow + 1); p <= at; ++p) {
        if (p >= kSinks) met.push_back({p, 0});
      }
      for (size_t i = 0; i < met.size(); ++i) {
        met[i].key_position = static_cast<int64_t>(i);
        met[i].query_position = static_cast<int64_t>(met.size()) - 1;
      }
      return met;
    });
  }
  return logits;
}

TEST(Long, AHundredThousandTokensInFlatMemoryWithoutDrift) {
  constexpr int32_t kRounds = 10;
  constexpr int32_t kRound = 10'000;
  const auto model = Model::load(golden("gqa1-default"));  // trained for 128 positions
  EngineOptions options = reference_options();
  options.threads = 1;
  options.batch_size = 64;
  options.kv.policy = "sink:4+252";
  Engine engine(model, options);
  const SessionId session = engine.open_session();
  std::vector<TokenId> tokens = golden_tokens();
  tokens.reserve(tokens.size() + kRounds * (kRound + 1));
  GenerateOptions generate;
  generate.max_tokens = kRound;
  generate.sampling.temperature = 1;
  generate.ignore_stop_tokens = true;

  KvStats first;
  int64_t first_bytes = 0;
  int64_t first_allocations = 0;
  size_t first_tokens = 0;
  std::vector<TokenId> input = tokens;
  for (int32_t round = 0; round < kRounds; ++round) {
    generate.sampling.seed = static_cast<uint64_t>(round);
    const int64_t before = g_allocations;
    int64_t held = 0;
    {
      const GenerateResult result = engine.generate(session, input, generate);
      held = g_live_bytes;
      ASSERT_EQ(result.finish_reason, FinishReason::kLength);
      tokens.insert(tokens.end(), result.tokens.begin(), result.tokens.end());
    }
    const int64_t allocations = g_allocations - before;
    engine.check_integrity();
    ASSERT_EQ(engine.session_length(session), static_cast<int64_t>(tokens.size()));
    const KvStats stats = engine.kv_stats();
    if (round < 2) {  // the first also read the prompt
      first = stats;
      first_bytes = held;
      first_allocations = allocations;
      first_tokens = tokens.size();
    } else if (kCountsBytes) {
      // The session knows its text; large blocks of memory come in whole pages.
      const auto text = static_cast<int64_t>((tokens.size() - first_tokens) * sizeof(TokenId));
      EXPECT_LE(std::abs(held - first_bytes - text), 4096) << "round " << round;
      EXPECT_EQ(allocations, first_allocations) << "round " << round;
    }
    EXPECT_EQ(stats.total.pages_peak, first.total.pages_peak);
    EXPECT_LE(stats.layers[0].tokens_resident, kSinks + kWindow + 2 * 16);
    EXPECT_LT(stats.memory.resident_bytes, first.memory.resident_bytes + (8U << 20));
    input = {static_cast<TokenId>(3 + round)};
    tokens.push_back(input[0]);
  }
  // The session's last token and the one beside it are fed now.
  const std::span<const float> row = engine.feed(session, input);
  const std::vector<double> expected = last_logits(*model, tokens);
  EXPECT_GT(tokens.size(), 100'000U);
  double error = 0;
  double largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double e = std::fabs(row[i] - expected[i]);
    if (!(e <= error)) error = e;
    largest = std::max(largest, std::fabs(expected[i]));
  }
  EXPECT_LT(error / largest, 5e-5);
}

}  // namespace
}  // namespace paddock::test
