// What most tests of engines begin with: a small model, prompts for it, and options that leave
// nothing to chance.
#pragma once

#include <paddock/paddock.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support/golden.h"

namespace paddock::test {

/// Two layers, 128 tokens, trained for 128 positions; it has no tokenizer.
inline std::shared_ptr<const Model> tiny() {
  static const auto model = Model::load(golden("gqa1-Q8_0.gguf"));
  return model;
}

/// The first `n` of golden_tokens(), of which there are 56.
inline std::vector<TokenId> prompt_of(size_t n = 24) {
  std::vector<TokenId> tokens = golden_tokens();
  EXPECT_LE(n, tokens.size());
  tokens.resize(n);
  return tokens;
}

/// The likeliest tokens, `n` of them whatever they are.
inline GenerateOptions greedy(int32_t n) {
  GenerateOptions options;
  options.max_tokens = n;
  options.sampling.temperature = 0;
  options.ignore_stop_tokens = true;
  return options;
}

/// Several answers, each drawn with a seed of its own.
inline GenerateOptions drawn(int32_t n, int32_t tokens, uint64_t seed) {
  GenerateOptions options = greedy(tokens);
  options.n = n;
  options.sampling.temperature = 1.2F;
  options.sampling.top_k = 0;
  options.sampling.seed = seed;
  return options;
}

/// Exact, small steps, blocks of four positions.
inline EngineOptions small_options(int32_t sequences, const std::string& policy = "full") {
  EngineOptions o = reference_options();
  o.threads = 1;
  o.max_sequences = sequences;
  o.batch_size = 8;
  o.kv.block_size = 4;
  o.kv.policy = policy;
  return o;
}

/// No sequence is left, and no page but what is kept for reuse.
inline void expect_nothing_held(const Engine& engine) {
  engine.check_integrity();
  const KvStats stats = engine.kv_stats();
  EXPECT_EQ(stats.total.pages_active, 0);
  EXPECT_EQ(stats.pages_free + stats.total.pages_cached, stats.pool_pages);
  EXPECT_EQ(stats.sequences, 0);
}

/// What is said of wrong arguments.
inline std::string refusal_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return {};
}

}  // namespace paddock::test
