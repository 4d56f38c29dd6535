// Logits against transformers in float32 and an independent StreamingLLM, and bit equality of ours.
#include <nlohmann/json.hpp>

#include "support/golden.h"

namespace paddock::test {
namespace {

constexpr double kTolerance = 5e-5;

class Folder : public testing::TestWithParam<const char*> {};

TEST_P(Folder, EqualsTransformers) {
  const std::string name = GetParam();
  const Matrix expected = read_npy(golden(name + "/logits.npy"));
  EXPECT_LT(relative_error(all_logits(name, reference_options()), expected), kTolerance);
}

TEST_P(Folder, DecodeEqualsPrefillToTheBit) {
  const auto model = Model::load(golden(GetParam()));
  EngineOptions options = reference_options();
  Engine prefill(parts(model, options));
  const std::vector<TokenId> tokens = golden_tokens();
  const Matrix expected = all_logits(prefill, tokens);
  Engine decode(parts(model, options));
  const SessionId session = decode.open_session();
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::span<const float> row = decode.feed(session, {&tokens[i], 1});
    decode.check_integrity();
    ASSERT_EQ(std::memcmp(row.data(), expected.row(static_cast<int64_t>(i)), row.size_bytes()), 0)
        << "position " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Folder,
                         testing::Values("gqa1-default", "gqa2-linear", "gqa4-llama3", "gqa8-yarn",
                                         "wide-head"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(GgufTwin, EqualsTransformersWithRopeFreqs) {
  const Matrix expected = read_npy(golden("gqa4-llama3/logits.npy"));
  EXPECT_LT(relative_error(all_logits("gqa4-llama3.gguf", reference_options()), expected),
            kTolerance);
}

TEST(GgufTwin, QuantizedEqualsTransformersOnDecodedWeights) {
  for (const std::string name : {"gqa1-Q8_0", "gqa1-Q4_0", "gqa1-Q4_1"}) {
    const Matrix expected = read_npy(golden(name + ".npy"));
    EXPECT_LT(relative_error(all_logits(name + ".gguf", reference_options()), expected), kTolerance)
        << name;
  }
}

TEST(Fast, FloatWeightsEqualTransformers) {
  if (kOnCuda) GTEST_SKIP() << "float weights are rounded there, as the next test says";
  // With float weights and a float32 cache nothing is rounded but sums.
  for (const std::string isa : {"portable", "avx2", "avx512"}) {
    for (const std::string name : {"gqa1-default", "gqa4-llama3", "gqa8-yarn", "wide-head"}) {
      EngineOptions options;
      options.threads = 2;
      options.isa = isa;
      options.kv.type = KvType::kF32;
      try {
        const Matrix expected = read_npy(golden(name + "/logits.npy"));
        EXPECT_LT(relative_error(all_logits(name, options), expected), kTolerance)
            << name << " " << isa;
      } catch (const Error& e) {
        ASSERT_EQ(e.code(), ErrorCode::kInvalidArgument) << e.what();  // not on this processor
      }
    }
  }
}

TEST(Fast, RoundingToBfloat16IsHalfAsFarOffAsTransformersInBfloat16) {
  // Activations are rounded to 8 significant bits before each product, as bfloat16 models were
  // trained. With each folder: the error of transformers' own bfloat16 run on the same tokens.
  bool rounds = false;
  for (const auto& [folder, theirs] :
       {std::pair{"gqa4-llama3", 0.0730}, std::pair{"gqa8-yarn", 0.0449},
        std::pair{"wide-head", 0.0399}}) {
    const std::string name = folder;
    const Matrix expected = read_npy(golden(name + "/logits.npy"));
    for (const std::string& isa : isas()) {
      if (!kOnCuda && isa != "avx512_bf16" && isa != "amx") continue;
      EngineOptions options;
      options.isa = isa;
      options.kv.type = KvType::kF32;
      const double error = relative_error(all_logits(name, options), expected);
      EXPECT_LT(error, theirs / 2) << name << " " << isa;
      EXPECT_GT(error, kTolerance) << name << " " << isa << ": nothing was rounded";
      rounds = true;
    }
  }
  if (!rounds) GTEST_SKIP() << "no instruction set here rounds activations to bfloat16";
}

TEST(BitEqual, WhateverTheChunkThreadsBlocksAndInstructionSet) {
  // Attention on CUDA sums block by block.
  const std::vector<int> blocks = kOnCuda ? std::vector{16} : std::vector{1, 7, 16, 64};
  const std::vector<int> chunks = kEmulated ? std::vector{1, 7} : std::vector{1, 2, 7, 16, 33};
  for (const Precision precision : exact_precisions()) {
    EngineOptions options = reference_options();
    options.precision = precision;
    options.kv.type = KvType::kF16;
    for (const std::string policy : {"full", "window:8", "sink:3+9", "0=sink:5+16,1=window:20"}) {
      options.kv.policy = policy;
      options.context = 128;
      options.kv.block_size = 16;
      options.batch_size = 512;
      options.threads = 2;
      const Matrix expected = all_logits("gqa1-Q8_0.gguf", options);
      for (const int chunk : chunks) {
        for (const int block : blocks) {
          options.batch_size = chunk;
          options.kv.block_size = block;
          options.threads = 1 + chunk % 3;
          EXPECT_EQ(all_logits("gqa1-Q8_0.gguf", options).values, expected.values)
              << policy << " chunk " << chunk << " block " << block;
        }
      }
    }
  }
}

TEST(BitEqual, WhateverElseIsInTheBatch) {
  for (const Precision precision : exact_precisions()) {
    EngineOptions options = reference_options();
    options.precision = precision;
    options.max_sequences = 4;
    options.batch_size = 24;
    const auto model = Model::load(golden("gqa1-Q8_0.gguf"));
    GenerateOptions generate;
    generate.max_tokens = 20;
    generate.sampling.temperature = 0;
    generate.ignore_stop_tokens = true;
    generate.logprobs = 3;
    const std::vector<TokenId> tokens = golden_tokens();
    const auto prompt = [&](int i) { return std::span(tokens).subspan(i * 7, 5 + 9 * i); };

    std::vector<GenerateResult> alone;
    for (int i = 0; i < 4; ++i) {
      Engine engine(parts(model, options));
      alone.push_back(engine.generate(prompt(i), generate));
    }
    Engine engine(parts(model, options));
    std::vector<RequestId> ids;
    for (int i = 0; i < 4; ++i) ids.push_back(engine.add(prompt(i), generate));
    while (engine.step()) engine.check_integrity();
    for (int i = 0; i < 4; ++i) {
      const auto result = engine.take(ids[i]);
      ASSERT_TRUE(result.has_value());
      EXPECT_EQ(result->finish_reason, FinishReason::kLength);
      EXPECT_EQ(result->tokens, alone[i].tokens);
      for (size_t t = 0; t < result->logprobs.size(); ++t) {
        EXPECT_EQ(result->logprobs[t].logprob, alone[i].logprobs[t].logprob);
      }
    }
  }
}

class Streaming : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(Streaming, EqualsReRotatingEveryKey) {
  const auto [sinks, window] = GetParam();
  const Matrix expected =
      read_npy(golden("gqa1-sink" + std::to_string(sinks) + "+" + std::to_string(window) + ".npy"));
  EngineOptions options = reference_options();
  options.kv.policy = sinks == 0 ? "window:" + std::to_string(window)
                                 : "sink:" + std::to_string(sinks) + "+" + std::to_string(window);
  for (const int block : kEmulated ? std::vector{16} : std::vector{1, 7, 16, 64}) {
    for (const int chunk : kEmulated ? std::vector{5} : std::vector{1, 5, 512}) {
      options.kv.block_size = block;
      options.batch_size = chunk;
      EXPECT_LT(relative_error(all_logits("gqa1-default", options), expected), kTolerance)
          << "block " << block << " chunk " << chunk;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Streaming,
                         testing::Values(std::pair{0, 8}, std::pair{4, 12}, std::pair{1, 1},
                                         std::pair{5, 7}));

/// What a text's first tokens are to a model: the mean of -log p, and the best token of each place.
class Judgement {
 public:
  explicit Judgement(std::span<const TokenId> text) : text_(text) {}
  void add(int64_t position, std::span<const float> row) {
    if (position >= static_cast<int64_t>(text_.size())) return;
    const auto top = std::max_element(row.begin(), row.end());
    best_.push_back(top - row.begin());
    if (position + 1 == static_cast<int64_t>(text_.size())) return;
    double total = 0;
    for (const float x : row) total += std::exp(x - *top);
    sum_ += *top + std::log(total) - row[text_[position + 1]];
  }
  double nll() const { return sum_ / static_cast<double>(text_.size() - 1); }
  const std::vector<int64_t>& best() const { return best_; }

 private:
  std::span<const TokenId> text_;
  std::vector<int64_t> best_;
  double sum_ = 0;
};

// The reference pass takes most of a minute: the fast one is compared with it at once.
TEST(RealModel, EqualsTransformersAtEveryPositionAndFastIsWithinOnePercentOfPerplexity) {
  PADDOCK_REAL_FILE(path, "PADDOCK_TEST_MODEL")
  const auto model = Model::load(path);
  const auto info = golden_json("real.json");
  const auto tokens = info["tokens"].get<std::vector<TokenId>>();
  const auto probes = info["probes"].get<std::vector<int>>();
  const double largest = info["largest"];
  const Matrix expected = read_npy(golden("real_probes.npy"));
  // The prose is repeated in the list; its first pass alone is text.
  const std::span<const TokenId> text = std::span(tokens).first(320);
  EngineOptions options = reference_options();
  options.context = 1024;
  Engine engine(parts(model, options));
  double error = 0;
  int64_t rows = 0;
  Judgement reference(text);
  engine.forward(tokens, [&](int64_t position, std::span<const float> row) {
    const float* want = expected.row(position);
    for (size_t i = 0; i < probes.size(); ++i) {
      error = std::max(error, std::fabs(double{row[probes[i]]} - want[i]));
    }
    const double top = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const float x : row) sum += std::exp(x - top);
    error = std::max(error, std::fabs(top - want[probes.size()]));
    error = std::max(error, std::fabs(top + std::log(sum) - want[probes.size() + 1]));
    reference.add(position, row);
    ++rows;
    return true;
  });
  EXPECT_EQ(rows, expected.rows);
  EXPECT_LT(error / largest, kTolerance);

  options = {};
  options.context = 512;
  Engine fast_engine(parts(model, options));
  Judgement fast(text);
  fast_engine.forward(text, [&](int64_t position, std::span<const float> row) {
    fast.add(position, row);
    return true;
  });
  EXPECT_LT(std::fabs(std::exp(fast.nll() - reference.nll()) - 1), 0.01);
  int agreed = 0;
  for (size_t i = 0; i < text.size(); ++i) agreed += fast.best()[i] == reference.best()[i];
  EXPECT_GT(agreed, static_cast<int>(text.size() * 95 / 100));
}

TEST(RealModel, SaysParis) {
  PADDOCK_REAL_FILE(path, "PADDOCK_TEST_MODEL")
  for (const Precision precision : {Precision::kReference, Precision::kFast}) {
    EngineOptions options;
    options.context = 256;
    options.precision = precision;
    Engine engine(parts(Model::load(path), options));
    GenerateOptions generate;
    generate.max_tokens = 1;
    generate.sampling.temperature = 0;
    const GenerateResult result = engine.generate("The capital of France is", generate);
    EXPECT_EQ(result.prompt_tokens, 5);
    EXPECT_EQ(result.tokens, std::vector<TokenId>{7042});
    EXPECT_EQ(result.text, " Paris");
  }
}

}  // namespace
}  // namespace paddock::test
