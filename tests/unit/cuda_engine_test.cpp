// The whole engine on the CUDA backend, held against the CPU backend: what it computes and what it
// evicts. Its kernels are run by the harness, or (PADDOCK_GPU_TEST) by a real device.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "support/device_rules.h"
#include "support/golden.h"
#include "support/meter.h"
#include "support/simt/harness.h"
#include "support/tiny_model.h"
#if !defined(PADDOCK_GPU_TEST)
#include "support/simt/simt_runtime.h"
#endif

namespace paddock::test {
namespace {

/// Rules for golden sequences of some 50 tokens in blocks of 4, one of each kind and a mixture.
const std::vector<std::string> kRules = {"full",
                                         "window:17",
                                         "sink:3+14",
                                         "sink:3+14@original",
                                         "lru:24@every:8",
                                         "h2o:24@every:8",
                                         "h2o:24@every:8@compact",
                                         "tova:24@every:8",
                                         "snapkv:20",
                                         "knorm:24@every:8",
                                         "random:24@every:8",
                                         "pyramid:h2o:24@every:8",
                                         "cake:h2o:24@every:8",
                                         "0=full,*=sink:2+9"};

class CudaEngine : public testing::Test {
 protected:
  void TearDown() override {
    look_for_races(true);
    EXPECT_EQ(simt::take_report_text(), "");
  }
  /// The harness takes half its time for them; a real device cannot tell.
  static void look_for_races([[maybe_unused]] bool on) {
#if !defined(PADDOCK_GPU_TEST)
    simt::set_race_checks(on);
#endif
  }
};

EngineOptions on(const std::string& device, Precision precision = Precision::kReference) {
  EngineOptions options;
  options.threads = 2;
  options.device = device;
  options.precision = precision;
  options.kv.block_size = 4;
  return options;
}

std::string removals(const Engine& engine) {
  std::string log;
  for (const KvEvent& e : engine.kv_events()) {
    log += fmt::format("{} {} {} {} {}\n", removal_reason_name(e.reason), e.layer, e.first_position,
                       e.n_tokens, e.length);
  }
  return log;
}

TEST_F(CudaEngine, EveryRuleIsInTheList) {
  EXPECT_EQ(forms_without_rule(kRules), std::vector<std::string>());
}

TEST_F(CudaEngine, LogitsEqualTheCpusForEveryModel) {
  for (const char* model :
       {"gqa1-default", "gqa1-Q4_0.gguf", "gqa1-Q4_1.gguf", "gqa1-Q8_0.gguf", "gqa2-linear",
        "gqa4-llama3", "gqa4-llama3.gguf", "gqa8-yarn", "wide-head"}) {
    SCOPED_TRACE(model);
    EXPECT_LT(relative_error(all_logits(model, on("cuda")), all_logits(model, on("cpu"))), 5e-5);
  }
}

TEST_F(CudaEngine, ShapesThatNeedSplitSumsOrHaveOddRows) {
  // Rows of 320 and 520 are summed in parts; rows of 30 are no multiple of 16 bytes.
  for (const TinyShape& shape :
       {TinyShape{2, 4, 1, 80, 320, 520}, TinyShape{2, 3, 1, 18, 30, 50}}) {
    SCOPED_TRACE(shape.hidden_size);
    const TemporaryFolder folder;
    const auto model = tiny_model(folder, shape, 5);
    std::vector<TokenId> tokens;
    for (int i = 0; i < 24; ++i) tokens.push_back(i * 7 % shape.vocab_size);
    EngineOptions options = on("cuda");
    options.batch_size = 6;
    Engine device(parts(model, options));
    options.device = "cpu";
    Engine host(parts(model, options));
    EXPECT_LT(relative_error(all_logits(device, tokens), all_logits(host, tokens)), 5e-5);
  }
}

TEST_F(CudaEngine, FastStaysNearTheReference) {
  // Inputs of dense products are rounded to bfloat16, queries and weights of values to the cache's
  // type. Small random models make much of that: the CPU's bfloat16 products err by 0.034 here.
  for (const char* model : {"gqa1-default", "gqa1-Q8_0.gguf", "gqa4-llama3", "wide-head"}) {
    for (const KvType type : {KvType::kF16, KvType::kBF16, KvType::kF32}) {
      EngineOptions options = on("cuda", Precision::kFast);
      options.kv.type = type;
      for (const int chunk : {512, 8}) {  // dense products and prefill; packed ones and decode
        options.batch_size = chunk;
        EXPECT_LT(relative_error(all_logits(model, options), all_logits(model, on("cpu"))),
                  type == KvType::kBF16 ? 0.12 : 0.05)
            << chunk;
      }
    }
  }
}

TEST_F(CudaEngine, EveryRuleSeesAndEvictsWhatItDoesOnTheCpu) {
  const auto model = Model::load(golden("gqa4-llama3"));
  // Rules differ in the blocks that a kernel walks, not in how its threads meet: with sinks, with
  // turned queries and attention that is added up, and with neither is enough.
  const std::set<std::string> for_races = {"full", "sink:3+14", "h2o:24@every:8@compact"};
  for (const std::string& rule : kRules) {
    look_for_races(for_races.contains(rule));
    for (const int32_t batch : {1, 5, 64}) {  // one by one: replayed
      SCOPED_TRACE(rule + " in chunks of " + std::to_string(batch));
      EngineOptions options = on("cuda");
      options.kv.policy = rule;
      options.batch_size = batch;
      Engine device(parts(model, options));
      options.device = "cpu";
      Engine host(parts(model, options));
      std::vector<TokenId> tokens = golden_tokens();
      if (batch == 1) tokens.resize(34);
      EXPECT_LT(relative_error(all_logits(device, tokens), all_logits(host, tokens)), 5e-5);
      EXPECT_EQ(removals(device), removals(host));
      EXPECT_EQ(device.kv_stats().total.tokens_read, host.kv_stats().total.tokens_read);
    }
  }
}

TEST_F(CudaEngine, SixteenBitCachesUnderRules) {
  const auto model = Model::load(golden("gqa2-linear"));
  for (const char* rule : {"full", "sink:3+14", "h2o:24@every:8"}) {
    for (const KvType type : {KvType::kF16, KvType::kBF16}) {
      SCOPED_TRACE(std::string(rule) + " " + kv_type_name(type));
      EngineOptions options = on("cuda", Precision::kFast);
      options.kv.policy = rule;
      options.kv.type = type;
      Engine device(parts(model, options));
      options.device = "cpu";
      Engine host(parts(model, options));
      const std::vector<TokenId> tokens = golden_tokens();
      EXPECT_LT(relative_error(all_logits(device, tokens), all_logits(host, tokens)),
                type == KvType::kBF16 ? 0.12 : 0.05);
    }
  }
}

TEST_F(CudaEngine, ManySequencesAtOnceGiveEachItsOwnTokens) {
  const auto model = Model::load(golden("gqa2-linear"));
  EngineOptions options = on("cuda");
  options.max_sequences = 3;
  options.batch_size = 16;
  Engine device(parts(model, options));
  options.device = "cpu";
  Engine host(parts(model, options));
  const std::vector<TokenId> tokens = golden_tokens();
  GenerateOptions greedy;
  greedy.max_tokens = 6;
  greedy.sampling.temperature = 0;
  greedy.ignore_stop_tokens = true;
  std::vector<std::pair<RequestId, std::vector<TokenId>>> expected;
  for (const size_t length : {3, 19, 33}) {
    const auto prompt = std::span(tokens).first(length);
    expected.emplace_back(device.add(prompt, greedy), host.generate(prompt, greedy).tokens);
  }
  while (device.step()) device.check_integrity();
  for (const auto& [id, want] : expected) {
    const std::optional<GenerateResult> got = device.take(id);
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(got->tokens, want);
  }
}

TEST_F(CudaEngine, TokensDrawnOnTheDeviceAreTheHosts) {
  const auto model = Model::load(golden("gqa1-default"));
  EngineOptions options = on("cuda");
  options.max_sequences = 3;
  std::vector<SamplingOptions> ways(5);
  ways[1].top_k = 0;
  ways[2] = {.temperature = 1.7F, .top_k = 0, .top_p = 1, .min_p = 0};
  ways[3].temperature = 0;
  ways[4] = {.temperature = 1.3F, .top_k = 20, .repeat_penalty = 1.2F};
  const std::vector<TokenId> tokens = golden_tokens();
  std::vector<std::vector<TokenId>> results;
  for (const bool on_host : {false, true}) {
    Engine engine(parts(model, options));
    std::vector<RequestId> requests;
    for (size_t i = 0; i < ways.size(); ++i) {
      GenerateOptions how;
      how.max_tokens = 8 + static_cast<int32_t>(i);
      how.ignore_stop_tokens = true;
      how.sampling = ways[i];
      how.sampling.seed = 5 + i;
      if (on_host) how.logprobs = 0;  // these need the logits
      requests.push_back(engine.add(std::span(tokens).first(5 + i), how));
    }
    while (engine.step()) engine.check_integrity();
    for (const RequestId id : requests) results.push_back(engine.take(id)->tokens);
  }
  for (size_t i = 0; i < ways.size(); ++i) {
    EXPECT_EQ(results[i].size(), 8 + i);
    EXPECT_EQ(results[i], results[ways.size() + i]) << i;
  }
}

#if !defined(PADDOCK_GPU_TEST)
TEST_F(CudaEngine, OneRequestThatLooksAtLogitsBringsNobodyElsesToTheHost) {
  const auto model = Model::load(golden("gqa1-default"));
  const int64_t row_bytes = int64_t{model->info().vocab_size} * int64_t{sizeof(float)};
  EngineOptions options = on("cuda");
  options.max_sequences = 3;
  const std::vector<TokenId> tokens = golden_tokens();
  std::vector<int64_t> copied;  // in one step of three that decode, of which so many look
  std::vector<std::vector<TokenId>> answers;
  for (const int lookers : {0, 1, 2, 3}) {
    Engine engine(parts(model, options));
    std::vector<RequestId> requests;
    for (int i = 0; i < 3; ++i) {
      GenerateOptions how;
      how.max_tokens = 6;
      how.ignore_stop_tokens = true;
      how.sampling.seed = static_cast<uint64_t>(7 + i);
      // The middle one first, so that rows that stay and rows that go alternate.
      const bool looks = i == 1 ? lookers >= 1 : (i == 0 ? lookers >= 2 : lookers >= 3);
      if (looks && i == 1) {
        how.logits_processor = [](std::span<const TokenId>, std::span<float>) {};
      } else if (looks) {
        how.logprobs = 1;
      }
      requests.push_back(engine.add(std::span(tokens).first(static_cast<size_t>(4 + i)), how));
    }
    engine.step();  // the prompts
    const int64_t before = simt::copied_out_bytes();
    engine.step();
    copied.push_back(simt::copied_out_bytes() - before);
    while (engine.step()) engine.check_integrity();
    for (const RequestId id : requests) answers.push_back(engine.take(id)->tokens);
  }
  EXPECT_LT(copied[0], row_bytes);
  for (int n = 1; n <= 3; ++n) {
    EXPECT_GE(copied[n], n * row_bytes);
    EXPECT_LT(copied[n], (n + 1) * row_bytes);
  }
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(answers[i].size(), 6);
    for (size_t n = 1; n <= 3; ++n) EXPECT_EQ(answers[i], answers[3 * n + i]) << n;
  }
}
#endif

TEST_F(CudaEngine, SessionsContinueAndRewind) {
  const auto model = Model::load(golden("gqa2-linear"));
  const std::vector<TokenId> tokens = golden_tokens();
  std::vector<std::vector<float>> rows;
  for (const char* name : {"cuda", "cpu"}) {
    Engine engine(parts(model, on(name)));
    const SessionId session = engine.open_session();
    engine.feed(session, std::span(tokens).first(30));
    engine.truncate(session, 13);
    const std::span<const float> row = engine.feed(session, std::span(tokens).subspan(30, 9));
    rows.emplace_back(row.begin(), row.end());
  }
  const auto cols = static_cast<int64_t>(rows[0].size());
  EXPECT_LT(relative_error({1, cols, rows[0]}, {1, cols, rows[1]}), 5e-5);
}

#if !defined(PADDOCK_GPU_TEST)  // where a layer's attention takes one nanosecond
TEST_F(CudaEngine, AttentionOfChunksWithoutLogitsIsCounted) {
  const auto model = Model::load(golden("gqa2-linear"));
  const std::vector<TokenId> tokens = golden_tokens();
  for (const char* policy : {"full", "h2o:24@every:8"}) {  // the second waits for every step
    SCOPED_TRACE(policy);
    EngineOptions options = on("cuda");
    options.batch_size = 4;
    options.kv.policy = policy;
    options.kv.reuse = false;  // every chunk is computed
    Engine engine(parts(model, options));
    const auto expect = [&](int steps) {
      for (const KvLayerStats& layer : engine.kv_stats().layers) {
        EXPECT_DOUBLE_EQ(layer.attention_seconds, steps * 1e-9) << layer.layer;
      }
    };
    GenerateOptions how;
    how.max_tokens = 1;
    engine.generate(std::span(tokens).first(11), how);  // the last of three chunks has logits
    expect(3);
    engine.feed(engine.open_session(), std::span(tokens).first(15));
    expect(3 + 4);
  }
  // Once, however often the host waits for rows of a step's logits.
  EngineOptions options = on("cuda");
  options.batch_size = 64;
  Engine engine(parts(model, options));
  engine.forward(std::span(tokens).first(50), [](int64_t, std::span<const float>) { return true; });
  for (const KvLayerStats& layer : engine.kv_stats().layers) {
    EXPECT_DOUBLE_EQ(layer.attention_seconds, 1e-9) << layer.layer;
  }
}
#endif

TEST_F(CudaEngine, DevicesThatAreNotThereAreNamed) {
  const auto model = Model::load(golden("gqa2-linear"));
  const auto refusal = [&](const std::string& device) {
    try {
      Engine engine(parts(model, on(device)));
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(refusal("cuda:99").find("cuda:99"), std::string::npos);
  EXPECT_NE(refusal("cuda:-1").find("'cuda:-1' is unknown"), std::string::npos);
  EXPECT_NE(refusal("cuda:x").find("'cuda:x' is unknown"), std::string::npos);
  EXPECT_NE(refusal("cuda:0x").find("'cuda:0x' is unknown"), std::string::npos);
  EXPECT_NE(refusal("tpu").find("'tpu' is unknown"), std::string::npos);
}

TEST_F(CudaEngine, MemoryThatIsNotThereIsRefusedWithBothNumbers) {
  EngineOptions options = on("cuda");
  options.kv.budget_bytes = uint64_t{4} << 40;
  try {
    Engine engine(parts(Model::load(golden("gqa2-linear")), options));
    FAIL() << "no error was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(std::string(e.what()).find("are available"), std::string::npos) << e.what();
  }
}

#if !defined(PADDOCK_GPU_TEST)
TEST_F(CudaEngine, AFailingStepEndsNobodyTwice) {
  EngineOptions options = on("cuda");
  options.max_sequences = 2;
  Engine engine(parts(tiny_with_text(), options));
  GenerateOptions greedy;
  greedy.max_tokens = 40;
  greedy.sampling.temperature = 0;
  greedy.ignore_stop_tokens = true;
  const RequestId one = engine.add(some_tokens(5), greedy);
  engine.add(some_tokens(7), greedy);
  for (int i = 0; i < 5; ++i) engine.step();  // both have some text
  engine.cancel(one);
  simt::fail_launch_after(3);
  EXPECT_THROW(engine.step(), Error);  // has ended the one before it failed
  EXPECT_THROW(engine.step(), Error);
  simt::fail_launch_after(-1);
  engine.check_integrity();
}

TEST_F(CudaEngine, AFailingLaunchEndsNothingButTheEngine) {
  const auto model = Model::load(golden("gqa2-linear"));
  const std::vector<TokenId> tokens = golden_tokens();
  GenerateOptions greedy;
  greedy.max_tokens = 4;
  greedy.sampling.temperature = 0;
  for (const int64_t after : {0, 3, 20, 40}) {
    Engine engine(parts(model, on("cuda")));
    simt::fail_launch_after(after);
    simt::lose_devices(after == 20);
    std::string first;
    try {
      engine.generate(std::span(tokens).first(9), greedy);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kDevice);
      first = e.what();
    }
    EXPECT_NE(first.find("illegal memory access"), std::string::npos) << after;
    engine.check_integrity();
    simt::fail_launch_after(-1);
    // A device that failed once is not trusted again.
    try {
      engine.generate(std::span(tokens).first(9), greedy);
      ADD_FAILURE() << "the engine went on";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kDevice);
      const char* advice = after == 20 ? "restart the process" : "make a new engine";
      EXPECT_NE(std::string(e.what()).find(advice), std::string::npos) << e.what();
    }
    simt::lose_devices(false);
    Engine another(parts(model, on("cuda")));
    EXPECT_EQ(another.generate(std::span(tokens).first(9), greedy).tokens.size(), 4U);
  }
}
#endif

}  // namespace
}  // namespace paddock::test
