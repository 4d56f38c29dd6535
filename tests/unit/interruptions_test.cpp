// Requests and passes that are ended in their middle, by whatever means: nothing is leaked, what
// runs beside them and what comes after is as if they had never been.
#include <thread>

#include "engine/engine_impl.h"
#include "support/hooked_backend.h"
#include "support/small_requests.h"

namespace paddock::test {
namespace {

using Clock = std::chrono::steady_clock;

EngineOptions small(const std::string& policy = "full") { return small_options(3, policy); }

std::vector<float> logits_after(Engine& engine, SessionId session, std::span<const TokenId> more) {
  const std::span<const float> row = engine.feed(session, more);
  return {row.begin(), row.end()};
}

/// What a fresh engine says after these tokens.
std::vector<float> fresh_logits(const EngineOptions& options, const std::vector<TokenId>& tokens) {
  Engine engine(tiny(), options);
  return logits_after(engine, engine.open_session(), tokens);
}

TEST(Interruptions, ARequestCancelledInItsPromptLeavesTheOthersAlone) {
  for (const std::string policy : {"full", "sink:2+10", "h2o:16@every:8", "snapkv:32"}) {
    SCOPED_TRACE(policy);
    EngineOptions options = small(policy);
    options.kv.reuse = false;  // each time the whole prompt is computed
    Engine engine(tiny(), options);
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
        // Two prompts share 8 tokens until the second has read its 20.
        const int64_t read = cancelled->timings.prefill_tokens;
        EXPECT_EQ(std::min<int64_t>(read, 20), std::min(20, 4 * steps)) << steps;
        EXPECT_LE(read, 20 + 7 * std::max(0, steps - 5)) << steps;
        EXPECT_GE(read, std::min(20, 4 * steps) + std::max(0, steps - 5)) << steps;
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

TEST(Interruptions, EventsOfWhatAHandlerDoesComeBehindThoseBefore) {
  EngineOptions options = small("h2o:16@every:8");
  std::unique_ptr<Engine> engine;
  std::vector<uint64_t> told;
  std::optional<SessionId> idle;
  options.kv.on_event = [&](const KvEvent& event) {
    told.push_back(event.number);
    if (idle) engine->close_session(*std::exchange(idle, std::nullopt));
  };
  engine = std::make_unique<Engine>(tiny(), options);
  const SessionId session = engine->open_session();
  engine->feed(session, prompt_of(12));
  ASSERT_TRUE(told.empty());
  idle = session;
  engine->generate(prompt_of(40), greedy(2));
  EXPECT_FALSE(idle);
  EXPECT_EQ(told.size(), engine->kv_stats().events);
  for (size_t i = 0; i < told.size(); ++i) EXPECT_EQ(told[i], i);
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

/// An engine whose first pass after arm() is interrupted in the first of its two layers.
struct Pass {
  void arm(std::function<void()> interruption) {
    in_pass = std::move(interruption);
    layers = 0;
  }
  /// Tokens of all passes that were completed.
  int64_t written() const { return engine.kv_stats().tokens_written; }

  std::function<void()> in_pass;
  int layers = 0;  // of the passes since
  InLayer hook{[this](int32_t) {
    ++layers;
    if (const auto interruption = std::exchange(in_pass, nullptr)) interruption();
  }};
  EngineOptions options = [] {
    EngineOptions o = small();
    o.batch_size = 64;
    o.kv.reuse = false;  // the prompts begin alike
    return o;
  }();
  Engine engine{make_engine_impl(tiny(), options, make_hooked_backend)};
};

/// What ends a request in the middle of its pass, and as what.
struct Interruption {
  const char* name;
  FinishReason reason;
  std::function<void(Engine&, RequestId, std::stop_source&, Clock::time_point deadline)> act;
};

const std::vector<Interruption>& interruptions() {
  static const std::vector<Interruption> all = {
      {"cancel(id)", FinishReason::kCancelled,
       [](Engine& e, RequestId id, std::stop_source&, Clock::time_point) { e.cancel(id); }},
      {"cancel(id) by another thread", FinishReason::kCancelled,
       [](Engine& e, RequestId id, std::stop_source&, Clock::time_point) {
         std::thread([&] { e.cancel(id); }).join();
       }},
      {"stop_token", FinishReason::kCancelled,
       [](Engine&, RequestId, std::stop_source& stop, Clock::time_point) {
         std::thread([&] { stop.request_stop(); }).join();
       }},
      {"deadline", FinishReason::kDeadline,
       [](Engine&, RequestId, std::stop_source&, Clock::time_point deadline) {
         std::this_thread::sleep_until(deadline);
       }},
  };
  return all;
}

/// A request that may be ended by each of them.
struct Interruptible {
  Interruptible(Engine& engine, const std::vector<TokenId>& prompt, const Interruption& how) {
    GenerateOptions options = greedy(5);
    options.stop_token = stop.get_token();
    if (how.reason == FinishReason::kDeadline) {
      deadline = Clock::now() + std::chrono::milliseconds(200);  // its step begins before that
      options.deadline = deadline;
    }
    id = engine.add(prompt, options);
  }
  std::stop_source stop;
  Clock::time_point deadline{};
  RequestId id = 0;
};

TEST(Interruptions, AloneAPassIsStoppedInItsMiddle) {
  for (const Interruption& how : interruptions()) {
    SCOPED_TRACE(how.name);
    Pass pass;
    Interruptible request(pass.engine, prompt_of(40), how);
    pass.arm([&] { how.act(pass.engine, request.id, request.stop, request.deadline); });
    EXPECT_TRUE(pass.engine.step());
    EXPECT_EQ(pass.layers, 1);
    EXPECT_EQ(pass.written(), 0);
    while (pass.engine.step()) pass.engine.check_integrity();
    EXPECT_EQ(pass.layers, 1);
    const auto r = pass.engine.take(request.id);
    EXPECT_EQ(r->finish_reason, how.reason);
    EXPECT_EQ(r->timings.prefill_tokens, 0);
    expect_nothing_held(pass.engine);
  }
}

TEST(Interruptions, InCompanyAPassGoesOnAndNobodysWorkIsThrownAway) {
  const std::vector<TokenId> beside =
      Engine(tiny(), small()).generate(prompt_of(20), greedy(6)).tokens;
  for (const Interruption& how : interruptions()) {
    SCOPED_TRACE(how.name);
    Pass pass;
    const RequestId other = pass.engine.add(prompt_of(20), greedy(6));
    Interruptible request(pass.engine, prompt_of(40), how);
    pass.arm([&] { how.act(pass.engine, request.id, request.stop, request.deadline); });
    EXPECT_TRUE(pass.engine.step());
    EXPECT_EQ(pass.layers, 2);
    EXPECT_EQ(pass.written(), 60);
    while (pass.engine.step()) pass.engine.check_integrity();
    const auto r = pass.engine.take(request.id);
    EXPECT_EQ(r->finish_reason, how.reason);
    EXPECT_EQ(r->timings.prefill_tokens, 40);
    EXPECT_EQ(r->tokens.size(), 1U);  // of the step that it was in
    EXPECT_EQ(pass.engine.take(other)->tokens, beside);
    EXPECT_EQ(pass.written(), 65);  // the newest token needs no place
    expect_nothing_held(pass.engine);
  }
}

TEST(Interruptions, APassThatAllWantToEndIsStopped) {
  Pass pass;
  const RequestId first = pass.engine.add(prompt_of(20), greedy(6));
  std::stop_source stop;
  GenerateOptions stoppable = greedy(6);
  stoppable.stop_token = stop.get_token();
  const RequestId second = pass.engine.add(prompt_of(30), stoppable);
  pass.arm([&] {
    pass.engine.cancel(first);
    stop.request_stop();
  });
  while (pass.engine.step()) pass.engine.check_integrity();
  EXPECT_EQ(pass.layers, 1);
  EXPECT_EQ(pass.written(), 0);
  for (const RequestId id : {first, second}) {
    EXPECT_EQ(pass.engine.take(id)->finish_reason, FinishReason::kCancelled);
  }
  pass.arm([&] { pass.engine.cancel(); });
  const RequestId third = pass.engine.add(prompt_of(20), greedy(6));
  while (pass.engine.step()) {
  }
  EXPECT_EQ(pass.layers, 1);
  EXPECT_EQ(pass.engine.take(third)->finish_reason, FinishReason::kCancelled);
  expect_nothing_held(pass.engine);
}

TEST(Interruptions, AStopRequestedBeforehandEndsTheRequestUnrun) {
  Pass pass;
  std::stop_source stop;
  stop.request_stop();
  GenerateOptions options = greedy(5);
  options.stop_token = stop.get_token();
  options.on_token = [](const TokenEvent&) {
    ADD_FAILURE() << "a token";
    return true;
  };
  const RequestId other = pass.engine.add(prompt_of(9), greedy(3));
  const RequestId id = pass.engine.add(prompt_of(20), options);
  EXPECT_TRUE(pass.engine.step());
  EXPECT_EQ(pass.written(), 9);
  EXPECT_EQ(pass.engine.take(id)->finish_reason, FinishReason::kCancelled);
  while (pass.engine.step()) {
  }
  EXPECT_EQ(pass.engine.take(other)->tokens.size(), 3U);
  const GenerateResult alone = pass.engine.generate(prompt_of(20), options);
  EXPECT_EQ(alone.finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(alone.prompt_tokens, 20);
  EXPECT_TRUE(alone.tokens.empty());
  expect_nothing_held(pass.engine);
}

TEST(Interruptions, AnotherThreadCancelsAFeedInsideAPass) {
  Pass pass;
  const SessionId session = pass.engine.open_session();
  pass.arm([&] { std::thread([&] { pass.engine.cancel(); }).join(); });
  try {
    pass.engine.feed(session, prompt_of(40));
    ADD_FAILURE() << "went on";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCancelled);
  }
  EXPECT_EQ(pass.layers, 1);
  EXPECT_EQ(pass.engine.session_length(session), 0);
  pass.engine.check_integrity();
  pass.engine.feed(session, prompt_of(40));
  pass.engine.close_session(session);
  expect_nothing_held(pass.engine);
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
    EXPECT_NE(std::string(e.what()).find("position 20"), std::string::npos) << e.what();
    EXPECT_FALSE(e.proposals().empty());
  }
  EXPECT_EQ(engine.session_length(session), 20);
  engine.truncate(session, 16);
  const std::vector<TokenId> more = prompt_of(4);
  std::vector<TokenId> text = prompt_of(16);
  text.insert(text.end(), more.begin(), more.end());
  EXPECT_EQ(logits_after(engine, session, more), fresh_logits(small(), text));
  EXPECT_EQ(engine.kv_stats().pages_free, 0);
  engine.close_session(session);
  expect_nothing_held(engine);
}

TEST(Cancel, EndsWhatIsUnderWayAndNothingThatBeginsLater) {
  Engine engine(tiny(), small());
  const SessionId session = engine.open_session();
  engine.feed(session, prompt_of(5));
  engine.cancel();  // between two feeds
  EXPECT_EQ(engine.feed(session, prompt_of(5)).size(), 128U);
  int rows = 0;
  const auto cancels = [&](int64_t, std::span<const float>) {
    if (++rows == 3) engine.cancel();
    return true;
  };
  EXPECT_THROW(engine.feed(session, prompt_of(20), cancels), Error);
  EXPECT_EQ(engine.session_length(session), 10 + 8) << "one chunk";
  engine.feed(session, prompt_of(9));
  EXPECT_EQ(engine.session_length(session), 27);
  engine.cancel();
  EXPECT_EQ(engine.generate(session, prompt_of(2), greedy(3)).tokens.size(), 3U);
  // A stop_token lasts: what is added later never runs.
  std::stop_source stop;
  stop.request_stop();
  GenerateOptions options = greedy(3);
  options.stop_token = stop.get_token();
  EXPECT_EQ(engine.generate(session, prompt_of(2), options).finish_reason,
            FinishReason::kCancelled);
}

}  // namespace
}  // namespace paddock::test
