// Requests and passes that are ended in their middle, by whatever means: nothing is leaked, what
// runs beside them and what comes after is as if they had never been.
#include <thread>

#include "support/small_requests.h"
#include "support/temporary_folder.h"
#include "support/tiny_model.h"

namespace paddock::test {
namespace {

using Clock = std::chrono::steady_clock;

EngineOptions small(const std::string& policy = "full") {
  EngineOptions o = reference_options();
  o.threads = 1;
  o.max_sequences = 3;
  o.batch_size = 8;
  o.kv.block_size = 4;
  o.kv.policy = policy;
  return o;
}

std::vector<float> logits_after(Engine& engine, SessionId session, std::span<const TokenId> more) {
  const std::span<const float> row = engine.feed(session, more);
  return {row.begin(), row.end()};
}

/// What a fresh engine says after these tokens.
std::vector<float> fresh_logits(const EngineOptions& options, const std::vector<TokenId>& tokens) {
  Engine engine(tiny(), options);
  return logits_after(engine, engine.open_session(), tokens);
}

void expect_nothing_held(const Engine& engine) {
  engine.check_integrity();
  const KvStats stats = engine.kv_stats();
  EXPECT_EQ(stats.total.pages_active, 0);
  EXPECT_EQ(stats.pages_free, stats.pool_pages);
  EXPECT_EQ(stats.sequences, 0);
}

TEST(Interruptions, ARequestCancelledInItsPromptLeavesTheOthersAlone) {
  for (const std::string policy : {"full", "sink:2+10", "h2o:16@every:8", "snapkv:32"}) {
    SCOPED_TRACE(policy);
    Engine engine(tiny(), small(policy));
    const std::vector<TokenId> beside = engine.generate(prompt_of(20), greedy(12)).tokens;
    const std::vector<TokenId> later = engine.generate(prompt_of(30), greedy(12)).tokens;
    for (int steps = 0; steps < 9; ++steps) {
      const RequestId first = engine.add(prompt_of(40), greedy(20));
      const RequestId second = engine.add(prompt_of(20), greedy(12));
      for (int i = 0; i < steps; ++i) engine.step();
      engine.cancel(first);
      const int64_t written = engine.kv_stats().tokens_written;
      const RequestId third = engine.add(prompt_of(30), greedy(12));
      while (engine.step()) engine.check_integrity();
      const auto cancelled = engine.take(first);
      EXPECT_EQ(cancelled->finish_reason, FinishReason::kCancelled);
      if (policy == "full") {  // other rules may end a step before its room is used
        EXPECT_EQ(cancelled->timings.prefill_tokens, std::min(40, 8 * steps)) << steps;
      }
      EXPECT_EQ(cancelled->prompt_tokens, 40);
      EXPECT_GT(engine.kv_stats().tokens_written, written);
      EXPECT_EQ(engine.take(second)->tokens, beside) << steps;
      EXPECT_EQ(engine.take(third)->tokens, later) << steps;
      expect_nothing_held(engine);
    }
  }
}

TEST(Interruptions, AQueuedRequestNeedNotBeAdmittedToBeCancelled) {
  EngineOptions options = small();
  options.max_sequences = 1;
  Engine engine(tiny(), options);
  const RequestId running = engine.add(prompt_of(5), greedy(20));
  const RequestId queued = engine.add(prompt_of(5), greedy(20));
  GenerateOptions late = greedy(20);
  late.deadline = Clock::now();
  const RequestId overdue = engine.add(prompt_of(5), late);
  engine.step();
  engine.cancel(queued);
  engine.step();
  EXPECT_EQ(engine.take(queued)->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(engine.take(overdue)->finish_reason, FinishReason::kDeadline);
  EXPECT_FALSE(engine.take(running));
  engine.cancel(queued);  // is no more
  while (engine.step()) {
  }
  EXPECT_EQ(engine.take(running)->finish_reason, FinishReason::kLength);
}

TEST(Interruptions, CancelWithoutANumberEndsAll) {
  Engine engine(tiny(), small());
  std::vector<RequestId> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(engine.add(prompt_of(12), greedy(20)));
  engine.step();
  engine.cancel();
  EXPECT_TRUE(engine.step());
  EXPECT_FALSE(engine.step());
  for (const RequestId id : ids) {
    EXPECT_EQ(engine.take(id)->finish_reason, FinishReason::kCancelled);
  }
  expect_nothing_held(engine);
  // It reaches what is there, not what comes.
  EXPECT_EQ(engine.generate(prompt_of(12), greedy(2)).finish_reason, FinishReason::kLength);
}

TEST(Interruptions, ACallbackThatThrowsInsideABatchEndsItsRequestAlone) {
  for (const std::string policy : {"full", "h2o:16@every:8"}) {
    Engine engine(tiny(), small(policy));
    const std::vector<TokenId> expected = engine.generate(prompt_of(30), greedy(12)).tokens;
    for (int at = 1; at < 6; ++at) {
      GenerateOptions throws = greedy(9);
      throws.on_token = [at, n = 0](const TokenEvent&) mutable -> bool {
        if (++n == at) throw std::runtime_error("no ink");
        return true;
      };
      const RequestId bad = engine.add(prompt_of(7), throws);
      const RequestId good = engine.add(prompt_of(30), greedy(12));  // reads while the other talks
      while (engine.step()) engine.check_integrity();
      const auto failed = engine.take(bad);
      EXPECT_EQ(failed->finish_reason, FinishReason::kError);
      EXPECT_EQ(failed->tokens.size(), static_cast<size_t>(at));
      EXPECT_EQ(engine.take(good)->tokens, expected) << policy << " " << at;
      expect_nothing_held(engine);
    }
  }
}

TEST(Interruptions, ARequestAddedInsideACallbackMayBeCancelledThere) {
  Engine engine(tiny(), small());
  std::vector<RequestId> added;
  GenerateOptions talks = greedy(4);
  talks.on_token = [&](const TokenEvent&) {
    added.push_back(engine.add(prompt_of(9), greedy(3)));
    engine.cancel(added.back());
    return true;
  };
  EXPECT_EQ(engine.generate(prompt_of(5), talks).tokens.size(), 4U);
  while (engine.step()) {
  }
  EXPECT_EQ(added.size(), 4U);
  for (const RequestId id : added) {
    EXPECT_EQ(engine.take(id)->finish_reason, FinishReason::kCancelled);
  }
  expect_nothing_held(engine);
}

TEST(Interruptions, WhatRunsCannotBeTakenOrUsedFromItsCallbacks) {
  EngineOptions options = small();
  std::unique_ptr<Engine> engine;
  int told = 0;
  options.kv.on_event = [&](const KvEvent&) {  // the last ones when the request is over
    ++told;
    for (RequestId id = 0; id < 9; ++id) EXPECT_FALSE(engine->take(id));
  };
  engine = std::make_unique<Engine>(tiny(), options);
  EXPECT_EQ(engine->generate(prompt_of(9), greedy(5)).tokens.size(), 5U);
  EXPECT_GT(told, 0);

  const SessionId session = engine->open_session();
  GenerateOptions talks = greedy(3);
  int refused = 0;
  talks.on_token = [&](const TokenEvent&) {
    for (const auto& use : std::vector<std::function<void()>>{
             [&] { engine->session_length(session); }, [&] { engine->close_session(session); }}) {
      try {
        use();
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
        EXPECT_NE(std::string(e.what()).find("running"), std::string::npos) << e.what();
        ++refused;
      }
    }
    return true;
  };
  EXPECT_EQ(engine->generate(session, prompt_of(9), talks).tokens.size(), 3U);
  EXPECT_EQ(refused, 6);
  EXPECT_EQ(engine->session_length(session), 12);
  EXPECT_THROW(engine->session_length(session + 1), Error);
}

TEST(Interruptions, EventsAreToldInOrderWhenTheirCallIsDone) {
  EngineOptions options = small("0=h2o:16@every:8,1=sink:2+6");
  std::vector<uint64_t> told;
  options.kv.on_event = [&](const KvEvent& event) { told.push_back(event.number); };
  Engine engine(tiny(), options);
  const auto all_told = [&](const char* after) {
    EXPECT_EQ(told.size(), engine.kv_stats().events) << after;
    for (size_t i = 0; i < told.size(); ++i) EXPECT_EQ(told[i], i);
    const size_t n = told.size();
    EXPECT_GT(n, 0U);
    return n;
  };
  engine.generate(prompt_of(30), greedy(5));
  size_t n = all_told("generate");
  const SessionId session = engine.open_session();
  engine.feed(session, prompt_of(30));
  EXPECT_GT(all_told("feed"), n);
  n = told.size();
  engine.truncate(session, 0);
  EXPECT_GT(all_told("truncate"), n);
  engine.generate(session, prompt_of(7), greedy(2));
  n = all_told("generate in a session");
  engine.close_session(session);
  EXPECT_GT(all_told("close_session"), n);
  engine.forward(prompt_of(30), [](int64_t, std::span<const float>) { return true; });
  const RequestId id = engine.add(prompt_of(9), greedy(4));
  engine.step();
  engine.cancel(id);
  n = told.size();
  engine.step();
  EXPECT_GT(all_told("a step that ends a request"), n);
}

// ---- in the middle of a pass

/// A model whose passes take long enough to be met in their middle.
std::shared_ptr<const Model> slow() {
  static const TemporaryFolder folder;
  static const auto model = tiny_model(folder,
                                       {.n_layers = 8,
                                        .n_heads = 4,
                                        .n_kv_heads = 2,
                                        .head_dim = 32,
                                        .hidden_size = 128,
                                        .intermediate_size = 256,
                                        .context_length = 1024},
                                       4);
  return model;
}

std::vector<TokenId> long_prompt(int64_t n) {
  std::vector<TokenId> tokens(static_cast<size_t>(n));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(i * i % 96);
  return tokens;
}

EngineOptions one_pass() {
  EngineOptions o = small();
  o.batch_size = 512;
  return o;
}

/// A prompt that is one pass, how long that takes, and what a request beside it says.
struct LongPass {
  LongPass() {
    const auto before = Clock::now();
    engine.generate(prompt, greedy(1));
    pass = Clock::now() - before;
  }
  RequestId add_beside() { return engine.add(long_prompt(60), greedy(6)); }

  Engine engine{slow(), one_pass()};
  std::vector<TokenId> prompt = long_prompt(400);
  std::vector<TokenId> beside = engine.generate(long_prompt(60), greedy(6)).tokens;
  Clock::duration pass{};
};

// The machine may be busy elsewhere: that a pass is met in its middle is tried a few times.
constexpr int kTries = 5;

TEST(Interruptions, ADeadlineIsKeptInsideAPassAndTheOthersGoOn) {
  LongPass scene;
  Engine& engine = scene.engine;
  bool met = false;
  for (int i = 0; i < kTries && !met; ++i) {
    GenerateOptions late = greedy(5);
    const RequestId other = scene.add_beside();
    late.deadline = Clock::now() + scene.pass / 4;
    const RequestId id = engine.add(scene.prompt, late);
    while (engine.step()) engine.check_integrity();
    const auto r = engine.take(id);
    EXPECT_EQ(r->finish_reason, FinishReason::kDeadline);
    EXPECT_EQ(r->timings.prefill_seconds > 0, r->timings.prefill_tokens > 0);
    EXPECT_EQ(engine.take(other)->tokens, scene.beside);
    expect_nothing_held(engine);
    met = r->timings.prefill_tokens == 0;
    EXPECT_TRUE(r->tokens.empty() || !met);
  }
  EXPECT_TRUE(met);
}

TEST(Interruptions, AnotherThreadCancelsInsideAPass) {
  LongPass scene;
  Engine& engine = scene.engine;
  bool met = false;
  for (int i = 0; i < kTries && !met; ++i) {
    const RequestId other = scene.add_beside();
    const RequestId id = engine.add(scene.prompt, greedy(5));
    std::thread canceller([&] {
      std::this_thread::sleep_for(scene.pass / 4);
      engine.cancel(id);
    });
    while (engine.step()) engine.check_integrity();
    canceller.join();
    const auto r = engine.take(id);
    EXPECT_EQ(engine.take(other)->tokens, scene.beside);
    expect_nothing_held(engine);
    met = r->finish_reason == FinishReason::kCancelled && r->timings.prefill_tokens == 0;
  }
  EXPECT_TRUE(met);

  met = false;
  for (int i = 0; i < kTries && !met; ++i) {
    const SessionId session = engine.open_session();
    std::thread canceller([&] {
      std::this_thread::sleep_for(scene.pass / 4);
      engine.cancel();
    });
    try {
      engine.feed(session, scene.prompt);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCancelled);
      met = engine.session_length(session) == 0;
    }
    canceller.join();
    engine.check_integrity();
    engine.feed(session, std::span(scene.prompt).first(40));
    engine.close_session(session);
    expect_nothing_held(engine);
  }
  EXPECT_TRUE(met);
}

// ---- raw passes

TEST(Interruptions, ACancelledFeedKeepsWhatWentBeforeAndCancelsNoOther) {
  const std::vector<TokenId> all = prompt_of(56);
  const auto rows = [](int64_t, std::span<const float>) { return true; };
  for (const std::string policy : {"full", "sink:2+10", "h2o:16@every:8", "tova:20@every:4"}) {
    SCOPED_TRACE(policy);
    Engine engine(tiny(), small(policy));
    const SessionId session = engine.open_session();
    int64_t seen = 0;
    std::string said;
    try {
      engine.feed(session, all, [&](int64_t position, std::span<const float>) {
        seen = position;
        if (position == 11) engine.cancel();  // in the second chunk
        return true;
      });
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCancelled);
      said = e.what();
    }
    EXPECT_EQ(said, "cancelled at position " + std::to_string(seen + 1));
    const int64_t held = engine.session_length(session);
    EXPECT_EQ(held, seen + 1);
    EXPECT_EQ(engine.kv_stats().tokens_written, held);
    engine.check_integrity();
    // The chunk that was begun has left nothing, and the cancellation is over.
    std::vector<TokenId> text(all.begin(), all.begin() + held);
    const std::vector<TokenId> more = prompt_of(9);
    text.insert(text.end(), more.begin(), more.end());
    EXPECT_EQ(logits_after(engine, session, more), fresh_logits(small(policy), text));
    engine.feed(session, more, rows);
    engine.forward(more, rows);
    EXPECT_EQ(engine.session_length(session), held + 18);
    engine.close_session(session);
    expect_nothing_held(engine);
  }
}

TEST(Interruptions, ACancelledForwardLeavesNothing) {
  Engine engine(tiny(), small("h2o:16@every:8"));
  EXPECT_THROW(engine.forward(prompt_of(40),
                              [&](int64_t position, std::span<const float>) {
                                if (position == 9) engine.cancel();
                                return true;
                              }),
               Error);
  expect_nothing_held(engine);
  int64_t rows = 0;
  engine.forward(prompt_of(40), [&](int64_t, std::span<const float>) { return ++rows > 0; });
  EXPECT_EQ(rows, 40);
  // A false ends it, after the row at hand.
  rows = 0;
  engine.forward(prompt_of(40), [&](int64_t, std::span<const float>) { return ++rows < 5; });
  EXPECT_EQ(rows, 5);
  expect_nothing_held(engine);
}

TEST(Interruptions, AFullPoolEndsAFeedWithWhatWasIn) {
  EngineOptions options = small();
  options.kv.budget_bytes = 10 * Engine(tiny(), options).kv_stats().page_bytes;  // 20 positions
  Engine engine(tiny(), options);
  const SessionId session = engine.open_session();
  try {
    engine.feed(session, prompt_of(30));
    ADD_FAILURE() << "the pool was not full";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(std::string(e.what()).find("position 16"), std::string::npos) << e.what();
    EXPECT_FALSE(e.proposals().empty());
  }
  EXPECT_EQ(engine.session_length(session), 16);
  const std::vector<TokenId> more = prompt_of(4);
  std::vector<TokenId> text = prompt_of(16);
  text.insert(text.end(), more.begin(), more.end());
  EXPECT_EQ(logits_after(engine, session, more), fresh_logits(small(), text));
  EXPECT_EQ(engine.kv_stats().pages_free, 0);
  engine.close_session(session);
  expect_nothing_held(engine);
}

}  // namespace
}  // namespace paddock::test
