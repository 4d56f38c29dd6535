// The event log of equal input is equal to the byte, whatever the threads; and whatever the chunks,
// but for what it says in steps, which chunks are.
#include "support/golden.h"
#include "support/rule_examples.h"

namespace paddock::test {
namespace {

std::vector<TokenId> text() {
  std::vector<TokenId> tokens = golden_tokens();
  for (int i = 0; i < 100; ++i) tokens.push_back(static_cast<TokenId>((i * 37 + i / 5) % 128));
  return tokens;
}

/// One line per event and the text that was generated.
struct Log {
  std::string lines, without_steps;
  std::vector<TokenId> tokens;
  int64_t trims = 0;
};

Log log_of(const std::string& policy, Precision precision, int32_t threads, int32_t chunk) {
  static const auto model = Model::load(golden("gqa1-Q8_0.gguf"));
  EngineOptions options;
  options.precision = precision;
  options.threads = threads;
  options.batch_size = chunk;
  options.context = 256;
  options.kv.policy = policy;
  options.kv.block_size = 4;
  Engine engine(parts(model, options));
  GenerateOptions generate;
  generate.max_tokens = 30;
  generate.sampling.temperature = 0;
  generate.ignore_stop_tokens = true;
  Log log;
  log.tokens = engine.generate(text(), generate).tokens;
  for (KvEvent event : engine.kv_events()) {
    log.lines += to_json(event) + "\n";
    log.trims += event.reason == RemovalReason::kPolicyTrim ? 1 : 0;
    event.step = event.age_steps = 0;
    event.idle_steps = -1;
    log.without_steps += to_json(event) + "\n";
  }
  EXPECT_EQ(engine.kv_stats().events_lost, 0U);
  return log;
}

TEST(Log, IsEqualToTheByteWhateverTheThreadsAndChunks) {
  for (const Precision precision : exact_precisions()) {
    for (const RuleExample& example : rule_examples()) {
      SCOPED_TRACE(example.policy);
      const Log log = log_of(example.policy, precision, 1, 64);
      EXPECT_FALSE(log.lines.empty());
      const bool scored = example.form.back() == 'B';
      EXPECT_EQ(log.trims > 0, scored);
      for (const int32_t threads : kOnCuda ? std::vector{2} : std::vector{1, 2, 3}) {
        const Log again = log_of(example.policy, precision, threads, 64);
        EXPECT_EQ(again.lines, log.lines) << threads << " threads";
        EXPECT_EQ(again.tokens, log.tokens);
      }
      for (const int32_t chunk : {1, 5, 16, 512}) {
        const Log other = log_of(example.policy, precision, 2, chunk);
        // A window's pages leave when a step ends, which says when, not what.
        EXPECT_TRUE(!scored || other.without_steps == log.without_steps) << "chunks of " << chunk;
        EXPECT_EQ(other.tokens, log.tokens) << "chunks of " << chunk;
      }
    }
  }
}

}  // namespace
}  // namespace paddock::test
