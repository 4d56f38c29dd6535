// The engine's promises: sessions, stops, limits, cancellation, and no allocation during decode.
#include <atomic>
#include <thread>

#include "support/live_bytes.h"
#include "support/poisoned_model.h"
#include "support/small_requests.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

EngineOptions small_engine(const std::string& policy = "full") {
  EngineOptions options;
  options.threads = 2;
  options.kv.policy = policy;
  return options;
}

ErrorCode code_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    EXPECT_GT(std::string(e.what()).size(), 15U);
    return e.code();
  }
  ADD_FAILURE() << "no error was thrown";
  return ErrorCode::kInternal;
}

TEST(Engine, AllocatesNothingWhileItDecodes) {
  if (!kCountsBytes) GTEST_SKIP() << "a sanitizer owns operator new";
  if (kEmulated) GTEST_SKIP() << "the emulation allocates";
  for (const std::string policy :
       {"full", "window:24", "sink:3+21", "h2o:32@every:8", "lru:32@every:16@compact",
        "tova:48@every:4", "pyramid:knorm:64@every:8", "cake:lru:48@every:8", "random:32@every:8",
        "snapkv:32"}) {
    Engine engine(parts(tiny(), small_engine(policy)));
    const std::vector<TokenId> prompt = golden_tokens();
    GenerateOptions options = greedy(60);
    options.sampling.temperature = 0.7F;
    options.sampling.repeat_penalty = 1.1F;
    const RequestId id = engine.add(std::span(prompt).first(20), options);
    engine.step();  // the prefill, and the first token
    engine.step();
    const int64_t before = g_allocations;
    for (int i = 0; i < 50; ++i) engine.step();
    // A device records a step of a shape that it has not met.
    EXPECT_LE(g_allocations, before + (kOnCuda ? 8 : 0)) << policy;
    while (engine.step()) {
    }
    EXPECT_EQ(engine.take(id)->tokens.size(), 60U);
    engine.check_integrity();
  }
}

TEST(Engine, ASecondTurnFeedsOnlyItsNewTokens) {
  const std::vector<TokenId> tokens = golden_tokens();
  for (const std::string policy : {"full", "sink:2+10"}) {
    Engine engine(parts(tiny(), small_engine(policy)));
    const SessionId session = engine.open_session();
    const GenerateResult first = engine.generate(session, std::span(tokens).first(9), greedy(5));
    const int64_t written = engine.kv_stats().tokens_written;
    EXPECT_EQ(written, 9 + 4);  // the last sampled token is pending
    EXPECT_EQ(engine.session_length(session), 9 + 5);
    const GenerateResult second =
        engine.generate(session, std::span(tokens).subspan(20, 6), greedy(4));
    EXPECT_EQ(engine.kv_stats().tokens_written - written, 1 + 6 + 3);
    engine.check_integrity();

    // The same as one text in one go.
    std::vector<TokenId> joined(tokens.begin(), tokens.begin() + 9);
    joined.insert(joined.end(), first.tokens.begin(), first.tokens.end());
    joined.insert(joined.end(), tokens.begin() + 20, tokens.begin() + 26);
    Engine fresh(parts(tiny(), small_engine(policy)));
    EXPECT_EQ(fresh.generate(joined, greedy(4)).tokens, second.tokens) << policy;
  }
}

TEST(Engine, FeedingInPiecesGivesTheLogitsOfOneForward) {
  const std::vector<TokenId> tokens = golden_tokens();
  for (const std::string policy : {"full", "snapkv:32"}) {
    EngineOptions options = small_engine(policy);
    options.precision = exact_precisions().back();
    options.kv.block_size = 4;
    Engine engine(parts(tiny(), options));
    std::vector<float> whole;
    const auto keep_in = [](std::vector<float>& to) {
      return [&to](int64_t, std::span<const float> row) {
        to.insert(to.end(), row.begin(), row.end());
        return true;
      };
    };
    engine.forward(tokens, keep_in(whole), 40);
    std::vector<float> pieces;
    const SessionId session = engine.open_session();
    engine.feed(session, std::span(tokens).first(9), keep_in(pieces), 40);
    engine.feed(session, std::span(tokens).subspan(9, 30), keep_in(pieces));
    engine.feed(session, std::span(tokens).subspan(39), keep_in(pieces));
    EXPECT_EQ(pieces, whole) << policy;
    EXPECT_EQ(code_of([&] { engine.feed(session, tokens, keep_in(pieces), -1); }),
              ErrorCode::kInvalidArgument);
    engine.close_session(session);

    // What generate() left pending is fed first.
    const SessionId talk = engine.open_session();
    const GenerateResult said = engine.generate(talk, std::span(tokens).first(9), greedy(3));
    int64_t rows = 0;
    int64_t last = 0;
    engine.feed(talk, std::span(tokens).subspan(9, 4),
                [&](int64_t position, std::span<const float>) {
                  last = position;
                  ++rows;
                  return true;
                });
    EXPECT_EQ(rows, 1 + 4);
    EXPECT_EQ(last, 9 + 3 + 4 - 1);
    EXPECT_EQ(engine.session_length(talk), 9 + 3 + 4);
  }
}

TEST(Engine, EndsForEveryReason) {
  const std::vector<TokenId> tokens = golden_tokens();
  const auto prompt = std::span(tokens).first(10);
  EngineOptions options = small_engine();
  options.context = 16;
  Engine engine(parts(tiny(), options));
  EXPECT_EQ(engine.generate(prompt, greedy(3)).finish_reason, FinishReason::kLength);
  const GenerateResult full = engine.generate(prompt, greedy(100));
  EXPECT_EQ(full.finish_reason, FinishReason::kContext);
  EXPECT_EQ(full.tokens.size(), 6U);

  GenerateOptions stop = greedy(100);
  stop.ignore_stop_tokens = false;
  stop.sampling.logit_bias = {{2, 1e9F}};  // the end-of-sequence token
  Engine folder(parts(Model::load(golden("gqa1-default")), small_engine()));
  const GenerateResult stopped = folder.generate(prompt, stop);
  EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
  EXPECT_TRUE(stopped.tokens.empty());

  GenerateOptions late = greedy(5);
  late.deadline = std::chrono::steady_clock::now();
  EXPECT_EQ(engine.generate(prompt, late).finish_reason, FinishReason::kDeadline);

  GenerateOptions cancel = greedy(100);
  int seen = 0;
  cancel.on_token = [&](const TokenEvent&) { return ++seen < 3; };
  const GenerateResult cancelled = engine.generate(prompt, cancel);
  EXPECT_EQ(cancelled.finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(cancelled.tokens.size(), 3U);

  EngineOptions tight = small_engine();
  tight.kv.budget_bytes = 2 * 2 * engine.kv_stats().page_bytes;  // two blocks in each of two layers
  Engine small(parts(tiny(), tight));
  const GenerateResult out_of_room = small.generate(prompt, greedy(100));
  EXPECT_EQ(out_of_room.finish_reason, FinishReason::kKvFull);
  EXPECT_EQ(out_of_room.tokens.size(), 32U - 10 + 1);
  small.check_integrity();
  EXPECT_EQ(code_of([&] { small.generate(std::span(tokens).first(40), greedy(1)); }),
            ErrorCode::kOutOfMemory);
  EXPECT_EQ(engine.kv_stats().total.pages_active, 0);
}

TEST(Engine, ANonFiniteLogitEndsItsRequestAlone) {
  const TemporaryFolder folder;
  EngineOptions options = small_engine();
  options.max_sequences = 2;
  Engine engine(parts(Model::load(poisoned_folder(folder)), options));
  GenerateOptions without = greedy(3);
  without.sampling.logit_bias = {{5, -INFINITY}};
  const RequestId bad = engine.add(std::vector<TokenId>{3, 5, 9}, without);
  const RequestId good = engine.add(std::vector<TokenId>{3, 4, 9}, without);
  while (engine.step()) engine.check_integrity();
  const auto failed = engine.take(bad);
  EXPECT_EQ(failed->finish_reason, FinishReason::kError);
  EXPECT_NE(failed->error.find("logit"), std::string::npos) << failed->error;
  EXPECT_NE(failed->error.find("after position 2 "), std::string::npos) << failed->error;
  EXPECT_EQ(engine.take(good)->finish_reason, FinishReason::kLength);
}

TEST(Engine, ACallbackThatThrowsEndsItsRequestAlone) {
  EngineOptions options = small_engine();
  options.max_sequences = 2;
  Engine engine(parts(tiny(), options));
  const std::vector<TokenId> tokens = golden_tokens();
  GenerateOptions throws = greedy(6);
  throws.on_token = [](const TokenEvent&) -> bool {
    throw std::runtime_error("the printer is on fire");
  };
  const RequestId bad = engine.add(std::span(tokens).first(5), throws);
  const RequestId good = engine.add(std::span(tokens).first(7), greedy(6));
  while (engine.step()) engine.check_integrity();
  const auto failed = engine.take(bad);
  EXPECT_EQ(failed->finish_reason, FinishReason::kError);
  EXPECT_NE(failed->error.find("printer"), std::string::npos);
  Engine alone(parts(tiny(), options));
  EXPECT_EQ(engine.take(good)->tokens,
            alone.generate(std::span(tokens).first(7), greedy(6)).tokens);
}

TEST(Engine, CancelFromAnotherThreadAndSnapshotsMeanwhile) {
  Engine engine(parts(tiny(), small_engine("sink:4+12")));
  const std::vector<TokenId> tokens = golden_tokens();
  std::atomic<bool> started{false};
  std::thread other([&] {
    while (!started) std::this_thread::yield();
    for (int i = 0; i < 200; ++i) {
      const KvStats stats = engine.kv_stats();
      EXPECT_EQ(stats.total.pages_active + stats.total.pages_cached + stats.pages_free,
                stats.pool_pages);
    }
    engine.cancel();
  });
  GenerateOptions options = greedy(1000000);
  options.on_token = [&](const TokenEvent&) {
    started = true;
    return true;
  };
  const GenerateResult result = engine.generate(std::span(tokens).first(8), options);
  other.join();
  EXPECT_EQ(result.finish_reason, FinishReason::kCancelled);
  engine.check_integrity();
}

TEST(Engine, BoundedPoliciesRunPastTheContextInFlatMemory) {
  Engine engine(parts(tiny(), small_engine("sink:4+28")));
  const std::vector<TokenId> tokens = golden_tokens();
  const int32_t n = kEmulated ? 200 : 3000;  // the model was trained for 128
  const RequestId id = engine.add(tokens, greedy(n));
  while (engine.step()) {
  }
  EXPECT_EQ(engine.take(id)->tokens.size(), static_cast<size_t>(n));
  const KvStats stats = engine.kv_stats();
  EXPECT_LE(stats.layers[0].pages_peak, (4 + 28 + 512 + 15) / 16 + 2);
  EXPECT_GT(stats.layers[0].pages_removed[static_cast<size_t>(RemovalReason::kWindow)], n / 20);
  engine.check_integrity();
}

TEST(Engine, RefusesBadOptionsWithASentence) {
  const auto with = [](const std::function<void(EngineOptions&)>& change) {
    return code_of([&] {
      EngineOptions options;
      change(options);
      Engine engine(parts(tiny(), options));
    });
  };
  using O = EngineOptions;
  EXPECT_EQ(with([](O& o) { o.threads = -1; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(with([](O& o) { o.batch_size = 0; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(with([](O& o) { o.context = -5; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(with([](O& o) { o.device = "gpu"; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(with([](O& o) { o.device = kOnCuda ? "cuda:99" : "cuda"; }), ErrorCode::kDevice);
  EXPECT_EQ(with([](O& o) { o.isa = "mmx"; }), ErrorCode::kInvalidArgument);
  if (!kOnCuda) {
    EngineOptions options;
    for (const std::string& isa : isa_names()) {
      options.isa = isa;
      EXPECT_NO_THROW(Engine(parts(tiny(), options))) << isa;
    }
    EXPECT_EQ(isa_names().front(), "portable");
  }
  EXPECT_EQ(with([](O& o) { o.kv.block_size = 0; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(with([](O& o) { o.kv.budget_bytes = 100; }), ErrorCode::kOutOfMemory);
  EXPECT_EQ(with([](O& o) {
              o.kv.policy = "window:1000";
              o.kv.budget_bytes = 1 << 16;
            }),
            ErrorCode::kOutOfMemory);
  EXPECT_EQ(with([](O& o) { o.context = INT64_C(1) << 40; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(with([](O& o) { o.kv.budget_share = 1.5; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(with([](O& o) { o.kv.budget_share = NAN; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(with([](O& o) {
              o.kv.budget_share = 0.5;
              o.kv.budget_bytes = 1 << 20;
            }),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(with([](O& o) { o.kv.budget_share = 1e-12; }), ErrorCode::kOutOfMemory);
}

TEST(Engine, StopStringsMayStraddleTokensAndAreNeverShown) {
  PADDOCK_REAL_FILE(path, "PADDOCK_TEST_MODEL")
  EngineOptions engine_options = small_engine();
  engine_options.context = 256;
  Engine engine(parts(Model::load(path), engine_options));
  GenerateOptions options = greedy(40);
  const std::string prompt = "The capital of France is";
  const std::string whole = engine.generate(prompt, options).text;
  const size_t cut = whole.find("ited Sta");  // the middle of " United States"
  ASSERT_NE(cut, std::string::npos) << whole;
  options.stop = {"ited Sta", "never"};
  std::string streamed;
  options.on_token = [&](const TokenEvent& event) {
    streamed += event.text;
    return true;
  };
  const GenerateResult result = engine.generate(prompt, options);
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_EQ(result.text, whole.substr(0, cut));
  EXPECT_EQ(streamed, result.text);
}

}  // namespace
}  // namespace paddock::test
