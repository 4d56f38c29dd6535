// What public bug reports on comparable systems describe, replayed here. docs/field-reports.md
// lists the reports and the tests that show each, here and elsewhere.
#include <sched.h>

#include <array>
#include <clocale>
#include <filesystem>
#include <locale>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/system.h"
#include "engine/text_stream.h"
#include "io/mapped_file.h"
#include "support/small_model.h"
#include "support/small_requests.h"
#include "support/temporary_folder.h"
#include "support/tiny_model.h"
#include "support/vocabulary_gguf.h"

namespace paddock::test {
namespace {

namespace fs = std::filesystem;

EngineOptions two_threads(const std::string& policy = "full") {
  EngineOptions options;
  options.threads = 2;
  options.kv.policy = policy;
  return options;
}

/// Speaks "a" again and again; its embedding has three rows more than the vocabulary has tokens.
std::shared_ptr<const Model> small_model(const TemporaryFolder& folder) {
  write_small_model(folder);
  auto model = Model::load(folder.path());
  EXPECT_EQ(model->tokenizer()->vocab_size(), 301);
  EXPECT_EQ(model->info().vocab_size, 304);
  return model;
}

std::vector<float> last_logits(const std::shared_ptr<const Model>& model,
                               const EngineOptions& options, std::span<const TokenId> tokens) {
  Engine engine(model, options);
  std::vector<float> last;
  engine.forward(tokens, [&](int64_t, std::span<const float> row) {
    last.assign(row.begin(), row.end());
    return true;
  });
  engine.check_integrity();
  return last;
}

// vllm-project/vllm #340
TEST(FieldReports, IdsBeyondTheVocabularyGiveNoText) {
  const TemporaryFolder folder;
  const auto model = small_model(folder);
  Engine engine(model, two_threads());
  GenerateOptions options = greedy(3);
  options.sampling.logit_bias = {{303, 1e9F}};
  std::string streamed = "-";
  options.on_token = [&](const TokenEvent& event) {
    streamed += event.text;
    return true;
  };
  const GenerateResult padded = engine.generate("a", options);
  EXPECT_EQ(padded.finish_reason, FinishReason::kLength) << padded.error;
  EXPECT_EQ(padded.tokens, (std::vector<TokenId>{303, 303, 303}));
  EXPECT_EQ(padded.text, "");
  EXPECT_EQ(streamed, "-");
  EXPECT_EQ(engine.generate("a", greedy(3)).text, "aaa");  // the engine goes on
  // transformers 5.24: decode([97, 303, 98]) is "ab".
  EXPECT_EQ(model->tokenizer()->decode(std::array<TokenId, 3>{'a', 303, 'b'}), "ab");
  StreamDecoder decoder(model->tokenizer());
  EXPECT_EQ(decoder.push('a') + decoder.push(303) + decoder.push('b') + decoder.finish(), "ab");
}

// ggml-org/llama.cpp #6772
TEST(FieldReports, ASpecialTokenIsAStopString) {
  const TemporaryFolder folder;
  const auto model = small_model(folder);
  Engine engine(model, two_threads());
  for (const bool ignore : {false, true}) {
    GenerateOptions options = greedy(5);
    options.ignore_stop_tokens = ignore;
    options.stop = {"<|im_start|>"};
    options.sampling.logit_bias = {{*model->tokenizer()->find("<|im_start|>"), 1e9F}};
    const GenerateResult result = engine.generate("a", options);
    EXPECT_EQ(result.finish_reason, FinishReason::kStop);
    EXPECT_EQ(result.tokens.size(), 1U);
    EXPECT_EQ(result.text, "");
  }
  // What was held back for another stop string belongs to the text.
  TextStream stream(model->tokenizer(), {"aab", "<|im_start|>"});
  stream.push('a');
  stream.push('a');
  EXPECT_EQ(stream.take(), "");
  stream.push(*model->tokenizer()->find("<|im_start|>"));
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.take(), "aa");
}

// LostRuins/koboldcpp #1031
TEST(FieldReports, AStreamGetsAllOfTheText) {
  const TemporaryFolder folder;
  const auto model = small_model(folder);
  EngineOptions engine_options = two_threads();
  engine_options.kv.block_size = 4;
  const auto run = [&](GenerateOptions options, FinishReason reason) {
    Engine engine(model, engine_options);
    options.stop = {"aaaaaaaaaaaaaaaaaaaaaaaab"};  // may begin at every "a"
    std::string streamed;
    const auto then = options.on_token;
    options.on_token = [&](const TokenEvent& event) {
      streamed += event.text;
      return then == nullptr || then(event);
    };
    const GenerateResult result = engine.generate(std::array<TokenId, 1>{'a'}, options);
    EXPECT_EQ(result.finish_reason, reason);
    EXPECT_EQ(result.text, std::string(result.tokens.size(), 'a'));
    EXPECT_GT(result.tokens.size(), 2U);
    return std::pair(streamed, result.text);
  };
  const auto all = [&](const GenerateOptions& options, FinishReason reason) {
    const auto [streamed, text] = run(options, reason);
    EXPECT_EQ(streamed, text) << finish_reason_name(reason);
  };
  all(greedy(5), FinishReason::kLength);
  // A host that cancels hears no more.
  GenerateOptions cancel = greedy(100);
  cancel.on_token = [n = 0](const TokenEvent&) mutable { return ++n < 3; };
  EXPECT_EQ(run(cancel, FinishReason::kCancelled).first, "");
  engine_options.context = 8;
  all(greedy(100), FinishReason::kContext);
  engine_options.context = 128;
  engine_options.kv.budget_bytes = 3 * Engine(model, engine_options).kv_stats().page_bytes;
  all(greedy(100), FinishReason::kKvFull);

  // A callback that throws then ends its request alone, and is not called again.
  Engine engine(model, engine_options);
  GenerateOptions broken = greedy(100);
  broken.stop = {"aaaaaaaaaaaaaaaaaaaaaaaab"};
  int calls = 0;
  broken.on_token = [&](const TokenEvent& event) -> bool {
    ++calls;
    if (event.text.empty()) return true;
    throw std::runtime_error("no room on the screen");
  };
  const GenerateResult result = engine.generate(std::array<TokenId, 1>{'a'}, broken);
  EXPECT_EQ(result.finish_reason, FinishReason::kError);
  EXPECT_NE(result.error.find("no room on the screen"), std::string::npos);
  EXPECT_EQ(result.text, std::string(result.tokens.size(), 'a'));
  EXPECT_EQ(static_cast<size_t>(calls), result.tokens.size() + 1);
  EXPECT_EQ(engine.generate("a", greedy(3)).text, "aaa");
}

// ggml-org/llama.cpp #2981
TEST(FieldReports, MinusOneIsNoToken) {
  const TemporaryFolder folder;
  SmallGguf small;
  VocabularyGguf file = small.file();
  file.uint32("tokenizer.ggml.eot_token_id", UINT32_MAX)
      .uint32("tokenizer.ggml.eom_token_id", UINT32_MAX);
  const auto with = Tokenizer::load(folder.write("with.gguf", file.bytes()));
  const auto without = Tokenizer::load(folder.write("without.gguf", small.file().bytes()));
  EXPECT_EQ(with->stop_tokens(), without->stop_tokens());

  const auto plain = small_model(folder);
  folder.write("generation_config.json", R"({"eos_token_id": -1})");
  EXPECT_EQ(Model::load(folder.path())->tokenizer()->stop_tokens(),
            plain->tokenizer()->stop_tokens());
  folder.write("generation_config.json", R"({"eos_token_id": [-1, 97]})");
  const std::vector<TokenId> stops = Model::load(folder.path())->stop_tokens();
  EXPECT_EQ(stops.front(), 97);
  EXPECT_EQ(stops.size(), plain->stop_tokens().size() + 1);
}

// microsoft/onnxruntime-extensions #890
TEST(FieldReports, AddedTokensMayStandInTheConfigurationAlone) {
  const TemporaryFolder folder;
  write_small_model(folder);
  const auto configure = [&](const std::string& id, const std::string& content, bool special) {
    folder.write("tokenizer_config.json", nlohmann::json{{"added_tokens_decoder",
                                                          {{id,
                                                            {{"content", content},
                                                             {"lstrip", false},
                                                             {"normalized", false},
                                                             {"rstrip", false},
                                                             {"single_word", false},
                                                             {"special", special}}}}}}
                                              .dump());
    return Tokenizer::load(folder.path());
  };
  // As transformers 5.24 has it: the token exists, and is one token in a text.
  const auto tokenizer = configure("301", "<|extra|>", true);
  EXPECT_EQ(tokenizer->vocab_size(), 302);
  EXPECT_TRUE(tokenizer->is_special(301));
  EXPECT_EQ(tokenizer->encode("a<|extra|>b", {.parse_special = true}),
            (std::vector<TokenId>{'a', 301, 'b'}));
  EXPECT_EQ(tokenizer->encode("a<|extra|>b").size(), 11U);
  EXPECT_EQ(tokenizer->decode(std::array<TokenId, 3>{'a', 301, 'b'}), "ab");

  // Where both have it, the configuration's options count: transformers decodes "ab" here, too.
  const TokenId tool = *tokenizer->find("<tool>");
  const std::array<TokenId, 3> around = {'a', tool, 'b'};
  EXPECT_EQ(tokenizer->decode(around), "a<tool>b");
  EXPECT_EQ(configure(std::to_string(tool), "<tool>", true)->decode(around), "ab");

  try {  // one id, two texts
    configure(std::to_string(tool), "<|other|>", true);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadFile);
    const std::string message = e.what();
    for (const char* part : {"<tool>", "<|other|>", "tokenizer_config.json"}) {
      EXPECT_NE(message.find(part), std::string::npos) << message;
    }
  }
}

// ggml-org/llama.cpp #6111
TEST(FieldReports, ASpecialTokenWithoutARowIsNoHindrance) {
  const TemporaryFolder folder;
  write_small_model(folder);
  const auto with_pad = [&](bool special) {
    folder.write("tokenizer_config.json",
                 nlohmann::json{{"added_tokens_decoder",
                                 {{"304", {{"content", "<pad>"}, {"special", special}}}}}}
                     .dump());
    return Model::load(folder.path());
  };
  const auto model = with_pad(true);  // 305 tokens, 304 rows
  ASSERT_EQ(model->info().warnings.size(), 1U);
  EXPECT_NE(model->info().warnings[0].find("305 tokens"), std::string::npos);
  Engine engine(model, two_threads());
  EXPECT_EQ(engine.generate("a<pad>", greedy(3)).text, "aaa");  // five characters
  GenerateOptions parsed = greedy(3);
  parsed.parse_special = true;
  try {
    engine.generate("a<pad>", parsed);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(e.what()).find("is 304"), std::string::npos) << e.what();
  }
  // Plain text could become this one.
  EXPECT_THROW(with_pad(false)->tokenizer(), Error);
}

// safetensors/safetensors #231
TEST(FieldReports, TensorsMayLieAtOddAddresses) {
  const TemporaryFolder folder;
  fs::copy(golden("gqa1-default"), folder.path(), fs::copy_options::recursive);
  std::string file;
  {
    const MappedFile mapped(fs::path(golden("gqa1-default")) / "model.safetensors");
    file.assign(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
  }
  uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof(header));
  const size_t end = sizeof(header) + header;
  ++header;  // one blank more: every tensor begins at an odd byte
  std::memcpy(file.data(), &header, sizeof(header));
  file.insert(end, " ");
  fs::remove(folder.path() + "/model.safetensors");
  folder.write("model.safetensors", file);
  const auto model = Model::load(folder.path());
  const std::vector<TokenId> tokens = golden_tokens();
  for (const Precision precision : {Precision::kReference, Precision::kFast}) {
    EngineOptions options = two_threads();
    options.precision = precision;
    EXPECT_EQ(last_logits(model, options, tokens),
              last_logits(Model::load(golden("gqa1-default")), options, tokens));
  }
}

// awslabs/keys_values #140
TEST(FieldReports, AWindowLeavesWhatItsTextAloneWouldGive) {
  // In one layer nothing before the window can reach the last query, and rotary scores depend on
  // distances alone: with the window's tokens as a text of their own, the logits are the same.
  const TemporaryFolder folder;
  TinyShape shape;
  shape.n_layers = 1;
  shape.n_heads = 4;
  shape.n_kv_heads = 2;
  const auto model = tiny_model(folder, shape, 5);
  std::vector<TokenId> all;
  for (uint32_t x = 1; all.size() < 230; x = x * 1664525 + 1013904223) all.push_back(x >> 16 & 63);
  const auto window = std::span<const TokenId>(all).last(64);
  const std::vector<float> expected = last_logits(model, reference_options(), window);
  for (const int32_t batch : {512, 64, 44, 1}) {  // chunks that end inside the window and at it
    EngineOptions options = reference_options();
    options.kv.policy = "window:64";
    options.batch_size = batch;
    const std::vector<float> actual = last_logits(model, options, all);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(actual[i], expected[i], 1e-5) << batch;
    }
  }
}

// vllm-project/vllm #51226
TEST(FieldReports, ASeedCountsWhateverElseIsInTheBatch) {
  EngineOptions options = two_threads();
  options.max_sequences = 3;
  Engine engine(tiny(), options);
  const std::vector<TokenId> prompt = prompt_of(12);
  GenerateOptions seeded = greedy(20);
  seeded.sampling = {.seed = 42};
  const std::vector<TokenId> alone = engine.generate(prompt, seeded).tokens;
  for (int other = 0; other < 3; ++other) {
    GenerateOptions beside = greedy(25);
    beside.sampling = {.temperature = other == 0 ? 0.0F : 1.3F, .seed = uint64_t(other)};
    if (other == 1) beside.logprobs = 2;
    if (other == 2) beside.sampling.repeat_penalty = 1.3F;
    const RequestId before = engine.add(prompt_of(9), beside);
    const RequestId id = engine.add(prompt, seeded);
    const RequestId after = engine.add(prompt_of(30), beside);
    while (engine.step()) {
    }
    EXPECT_EQ(engine.take(id)->tokens, alone) << other;
    EXPECT_EQ(engine.take(before)->tokens.size(), 25U);
    EXPECT_EQ(engine.take(after)->tokens.size(), 25U);
  }
}

// vllm-project/vllm #1623
TEST(FieldReports, TheSmallestTemperaturesAndNucleiAreGreedy) {
  Engine engine(tiny(), two_threads());
  const std::vector<TokenId> prompt = prompt_of(10);
  const std::vector<TokenId> best = engine.generate(prompt, greedy(6)).tokens;
  const auto with = [&](float temperature, float top_p, int32_t top_k) {
    GenerateOptions options = greedy(6);
    options.sampling = {
        .temperature = temperature, .top_k = top_k, .top_p = top_p, .min_p = 0, .seed = 7};
    return engine.generate(prompt, options).tokens;
  };
  for (const float temperature : {1e-4F, 1e-30F, 1e-45F}) {
    EXPECT_EQ(with(temperature, 1, 0), best) << temperature;
    EXPECT_EQ(with(temperature, 0.5F, 100000), best) << temperature;  // more than there are tokens
  }
  EXPECT_EQ(with(1, 1e-4F, 0), best);
  EXPECT_EQ(with(1, 1, 1), best);
  EXPECT_EQ(with(3e38F, 1, 0).size(), 6U);
}

// huggingface/text-generation-inference #2108
TEST(FieldReports, CutsLeaveLogProbabilitiesAlone) {
  Engine engine(tiny(), two_threads());
  const std::vector<TokenId> prompt = prompt_of(12);
  GenerateOptions options = greedy(1);
  options.logprobs = 3;
  const auto plain = engine.generate(prompt, options).top_logprobs.at(0);
  options.sampling = {.temperature = 0.5F, .top_k = 1, .top_p = 0.01F, .min_p = 0.9F};
  options.sampling.repeat_penalty = 1.5F;
  const auto cut = engine.generate(prompt, options).top_logprobs.at(0);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(cut[i].id, plain[i].id);
    EXPECT_EQ(cut[i].logprob, plain[i].logprob);
    EXPECT_LT(plain[i].logprob, -0.1);
  }
}

// vllm-project/vllm #16529
TEST(FieldReports, ABiasForNoTokenIsRefusedAndCostsNothingElse) {
  Engine engine(tiny(), two_threads());
  const std::vector<TokenId> prompt = prompt_of(5);
  const RequestId queued = engine.add(prompt, greedy(2));
  for (const TokenId id : {-1, engine.model().info().vocab_size}) {
    GenerateOptions options = greedy(2);
    options.sampling.logit_bias = {{3, 1.0F}, {id, -100.0F}};
    EXPECT_THROW(engine.add(prompt, options), Error) << id;
  }
  while (engine.step()) {
  }
  EXPECT_EQ(engine.take(queued)->finish_reason, FinishReason::kLength);
}

// ggml-org/llama.cpp #3969
TEST(FieldReports, SinksNearlyAsLargeAsTheWindowMakeProgress) {
  for (const std::string policy : {"sink:60+4", "sink:127+1", "sink:4092+4", "window:1"}) {
    EngineOptions options = two_threads(policy);
    options.batch_size = 16;
    Engine engine(tiny(), options);
    const GenerateResult result = engine.generate(prompt_of(50), greedy(150));
    EXPECT_EQ(result.finish_reason, FinishReason::kLength) << policy;
    EXPECT_EQ(result.tokens.size(), 150U) << policy;
    engine.check_integrity();
  }
}

// huggingface/optimum-quanto #391
TEST(FieldReports, PerplexityIsThatOfEveryTokenWhateverTheBatchAndChunk) {
  const std::vector<TokenId> tokens = golden_tokens();
  std::optional<double> expected;
  for (const int32_t batch : {512, 7, 1}) {
    for (const int32_t chunk : {64, 5}) {
      QualityOptions options;
      options.engine = reference_options();
      options.engine.batch_size = batch;
      options.chunk = chunk;
      const QualityReport report = QualityMeter(tiny(), options).compare(tokens);
      EXPECT_EQ(report.scored, static_cast<int64_t>(tokens.size()) - 1);
      if (!expected) expected = report.baseline.nll;
      EXPECT_EQ(report.baseline.nll, *expected) << batch << " " << chunk;
    }
  }
}

// kekzl/imp #1115
TEST(FieldReports, EveryPageComesBackHoweverARequestEnds) {
  EngineOptions options = two_threads();
  options.max_sequences = 3;
  options.batch_size = 8;
  options.kv.block_size = 4;
  Engine engine(tiny(), options);
  const std::vector<TokenId> prompt = prompt_of(21);
  for (int round = 0; round < 6; ++round) {
    GenerateOptions timed = greedy(5);
    timed.deadline = std::chrono::steady_clock::now();
    GenerateOptions refused = greedy(5);
    refused.on_token = [](const TokenEvent&) { return false; };
    GenerateOptions broken = greedy(5);
    broken.on_token = [](const TokenEvent&) -> bool { throw std::runtime_error("no"); };
    const RequestId cancelled = engine.add(prompt, greedy(5));
    std::vector<RequestId> others = {engine.add(prompt, greedy(1 + round)),
                                     engine.add(prompt, timed), engine.add(prompt, refused),
                                     engine.add(prompt, broken)};
    engine.step();  // in the middle of its prompt
    engine.cancel(cancelled);
    while (engine.step()) engine.check_integrity();
    EXPECT_EQ(engine.take(cancelled)->finish_reason, FinishReason::kCancelled);
    for (const RequestId id : others) EXPECT_TRUE(engine.take(id).has_value());
    const SessionId session = engine.open_session();
    engine.generate(session, prompt, greedy(3));
    engine.truncate(session, 10);
    engine.close_session(session);
    const KvStats stats = engine.kv_stats();
    EXPECT_EQ(stats.total.pages_active, 0);
    EXPECT_EQ(stats.pages_free + stats.total.pages_cached, stats.pool_pages);
  }
}

// NVIDIA/kvpress #134
TEST(FieldReports, SnapKvReadsPromptsShorterThanItsWindow) {
  for (const size_t n : {1, 2, 15, 31, 33}) {
    EngineOptions options = two_threads();
    options.kv.block_size = 4;
    Engine full(tiny(), options);
    options.kv.policy = "snapkv:64";
    Engine snap(tiny(), options);
    EXPECT_EQ(snap.generate(prompt_of(n), greedy(8)).tokens,
              full.generate(prompt_of(n), greedy(8)).tokens)
        << n;
  }
}

// huggingface/candle #2516
TEST(FieldReports, TiedEmbeddingsNeedNoOutputMatrixInAnyShard) {
  const TemporaryFolder folder;
  write_small_model(folder);
  const auto expected = last_logits(Model::load(folder.path()), two_threads(), prompt_of(8));
  fs::rename(folder.path() + "/model.safetensors",
             folder.path() + "/model-00001-of-00001.safetensors");
  folder.write("model.safetensors.index.json",
               R"({"metadata": {"total_size": 1}, "weight_map": {"model.embed_tokens.weight":)"
               R"( "model-00001-of-00001.safetensors"}})");
  const auto model = Model::load(folder.path());
  EXPECT_TRUE(model->info().tied_embeddings);
  EXPECT_EQ(last_logits(model, two_threads(), prompt_of(8)), expected);
}

// vllm-project/vllm #336
TEST(FieldReports, HeadsMayHaveAnyEvenSize) {
  const TemporaryFolder folder;
  TinyShape shape;
  shape.n_heads = 3;
  shape.head_dim = 100;
  shape.hidden_size = 36;
  shape.intermediate_size = 50;
  shape.vocab_size = 97;
  const auto model = tiny_model(folder, shape, 11);
  std::vector<TokenId> tokens;
  for (int i = 0; i < 24; ++i) tokens.push_back((i * 37 + 5) % 97);
  // transformers 5.24 (float32, eager attention) of the folder that tiny_model() writes.
  const std::array<std::array<float, 3>, 2> expected = {
      {{0.2154076F, -0.1126601F, -1.1534977F}, {-0.8377531F, -2.2002659F, -0.0470829F}}};
  EngineOptions options = reference_options();
  Engine reference(model, options);
  options.precision = Precision::kFast;
  options.isa = "portable";  // one that rounds no activations
  options.kv.type = KvType::kF32;
  Engine fast(model, options);
  for (Engine* engine : {&reference, &fast}) {
    const Matrix logits = all_logits(*engine, tokens);
    for (const auto& [row, values] : {std::pair{1, expected[0]}, std::pair{23, expected[1]}}) {
      for (const auto& [column, value] :
           {std::pair{0, values[0]}, std::pair{50, values[1]}, std::pair{96, values[2]}}) {
        EXPECT_NEAR(logits.values[row * 97 + column], value, 1e-5) << row << " " << column;
      }
    }
  }
}

// ollama/ollama #17916
TEST(FieldReports, ThreadsFollowTheAffinityMask) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  const int cores = usable_cores();
  const int threads = Engine(tiny()).options().threads;
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
  EXPECT_EQ(cores, 1);
  EXPECT_EQ(threads, 1);
}

// nobodywho-ooo/nobodywho #81
TEST(FieldReports, TwoEnginesShareAModel) {
  const std::vector<TokenId> prompt = prompt_of(20);
  const auto model = Model::load(golden("gqa1-Q8_0.gguf"));
  std::array<std::vector<TokenId>, 2> said;
  const auto speak = [&](size_t i) {
    for (int round = 0; round < 2; ++round) {
      Engine engine(model, two_threads(i == 0 ? "full" : "sink:4+12"));
      said[i] = engine.generate(prompt, greedy(25)).tokens;
    }
  };
  std::thread first(speak, 0), second(speak, 1);
  first.join();
  second.join();
  const std::array<std::vector<TokenId>, 2> together = said;
  speak(0);
  speak(1);
  EXPECT_EQ(together, said);
}

// vllm-project/vllm #16445
TEST(FieldReports, APromptMayFillTheContext) {
  EngineOptions options = two_threads();
  options.context = 32;
  Engine engine(tiny(), options);
  for (const auto& [length, answer] : {std::pair{30, 2}, std::pair{31, 1}, std::pair{32, 1}}) {
    const GenerateResult result = engine.generate(prompt_of(length), greedy(10));
    EXPECT_EQ(result.finish_reason, FinishReason::kContext) << length;
    EXPECT_EQ(result.tokens.size(), static_cast<size_t>(answer)) << length;
  }
  EXPECT_THROW(engine.generate(prompt_of(33), greedy(10)), Error);
}

// alphacep/vosk-api #808
TEST(FieldReports, NumbersAreTheSameInEveryLocale) {
  struct Comma : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };
  const auto read = [] {
    const std::string path = golden("gqa8-yarn");  // its configuration has fractions
    Engine engine(Model::load(path), two_threads("0=sink:4+1000,*=h2o:1024@every:128"));
    const std::vector<TokenId> prompt = prompt_of(9);
    const std::string stats = to_json(engine.kv_stats());
    EXPECT_TRUE(nlohmann::json::accept(stats)) << stats;
    return std::pair(inspect_json(path), engine.generate(prompt, greedy(12)).tokens);
  };
  const auto plain = read();
  const std::string c_locale = setlocale(LC_ALL, nullptr);
  const std::locale before = std::locale::global(std::locale(std::locale(), new Comma));
  setlocale(LC_ALL, "de_DE.UTF-8");  // where it is installed
  const auto german = read();
  std::locale::global(before);
  setlocale(LC_ALL, c_locale.c_str());
  EXPECT_EQ(german, plain);
}

}  // namespace
}  // namespace paddock::test
