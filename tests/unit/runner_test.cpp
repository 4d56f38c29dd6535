// An engine driven by a thread of its own: what many threads ask of it at once, what happens where
// callbacks or the device misbehave, and how it ends.
#include <atomic>
#include <ctime>
#include <latch>
#include <random>
#include <thread>

#include "support/no_threads.h"
#include "support/scripted_model.h"
#include "support/small_runner.h"

namespace paddock::test {
namespace {

EngineOptions small() { return small_options(3); }

std::shared_ptr<Engine> small_engine() { return std::make_shared<Engine>(tiny(), small()); }

/// A request that goes on until it is cancelled, once its first token is there.
struct Endless {
  explicit Endless(EngineRunner& runner) {
    GenerateOptions options = greedy(1 << 20);
    options.on_token = [this](const TokenEvent&) {
      if (!started.exchange(true)) began.count_down();
      return true;
    };
    handle = runner.submit(prompt_of(3), options);
    began.wait();
  }
  ~Endless() {
    handle.cancel();
    handle.wait();
  }
  std::atomic<bool> started{false};
  std::latch began{1};
  RequestHandle handle;
};

EngineOptions endless() {  // a window's context has no end
  EngineOptions o = small();
  o.kv.policy = "window:8";
  return o;
}

// ---- how far they are

RequestState state_of(const RequestHandle& handle) { return handle.status().state; }

TEST(RunnerStatus, GoesFromQueuedToFinishedInTheEyesOfAnyThread) {
  EngineOptions options = endless();
  options.max_sequences = 1;
  EngineRunner runner(std::make_shared<Engine>(tiny(), options));
  Endless running(runner);
  // It has made a token; what is told is of the last step that is over.
  while (state_of(running.handle) == RequestState::kQueued) std::this_thread::yield();
  EXPECT_EQ(state_of(running.handle), RequestState::kRunning);
  const RequestHandle waits = runner.submit(prompt_of(9), greedy(3));
  EXPECT_EQ(state_of(waits), RequestState::kQueued);
  std::atomic<bool> over{false};
  std::thread reader([&] {
    int64_t last = 0;
    while (!over) {
      const RequestStatus status = running.handle.status();
      EXPECT_GE(status.made_tokens, last);
      EXPECT_TRUE(status.state == RequestState::kRunning ||
                  status.state == RequestState::kFinished);
      last = status.made_tokens;
    }
  });
  // While it is queued in the engine, and not just on its way there.
  while (waits.status().prompt_tokens == 0) std::this_thread::yield();
  EXPECT_EQ(waits.status(), (RequestStatus{RequestState::kQueued, 9, 0, 0}));
  running.handle.cancel();
  EXPECT_EQ(waits.wait().tokens.size(), 3U);
  over = true;
  reader.join();
  EXPECT_EQ(waits.status(), (RequestStatus{RequestState::kFinished, 9, 9, 3}));
  const RequestHandle refused = runner.submit({}, greedy(1));
  EXPECT_EQ(code_of([&] { refused.wait(); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused.status(), RequestStatus{.state = RequestState::kFinished});
  EXPECT_EQ(code_of([] { RequestHandle().status(); }), ErrorCode::kInvalidArgument);
}

TEST(RunnerStatus, OfOneThatIsParkedAndOfAnswersIsTheirOwn) {
  EngineOptions options = small_options(2);
  options.kv.reuse = false;
  options.kv.budget_bytes =
      static_cast<uint64_t>(2 * 12 * Engine(tiny(), options).kv_stats().page_bytes);
  EngineRunner runner(std::make_shared<Engine>(tiny(), options));
  bool was_parked = false;
  RequestHandle second;
  std::latch submitted{1};
  GenerateOptions first = greedy(24);
  first.on_token = [&](const TokenEvent&) {
    submitted.wait();
    was_parked |= state_of(second) == RequestState::kParked;
    return true;
  };
  const RequestHandle handle = runner.submit(prompt_of(16), first);
  second = runner.submit(std::vector<TokenId>(16, 7), greedy(24));
  submitted.count_down();
  EXPECT_EQ(handle.wait().tokens.size(), 24U);
  EXPECT_GT(second.wait().preemptions, 0);
  EXPECT_TRUE(was_parked);
  EngineRunner one(std::make_shared<Engine>(tiny(), small_options(1)));
  std::latch seen{1};
  GenerateOptions in_turn = drawn(2, 5, 1);
  in_turn.on_token = [&, n = 0](const TokenEvent&) mutable {
    if (n++ > 0) seen.wait();  // the first is made before anybody is told that it runs
    return true;
  };
  const RequestHandle both = one.submit(prompt_of(3), in_turn);
  while (state_of(both) == RequestState::kQueued) std::this_thread::yield();
  EXPECT_EQ(state_of(both.answer(1)), RequestState::kQueued) << "there is room for one";
  seen.count_down();
  both.answer(1).wait();
  const RequestHandle several = runner.submit(prompt_of(3), drawn(2, 5, 1));
  several.answer(1).cancel();
  several.answer(1).wait();
  EXPECT_EQ(state_of(several.answer(1)), RequestState::kFinished);
  EXPECT_EQ(several.wait().tokens.size(), 5U);
  EXPECT_EQ(several.status(), (RequestStatus{RequestState::kFinished, 3, 3, 5}));
}

TEST(RunnerStatus, LettingGoOfAHandleCancelsNothingAndKeepsNothing) {
  std::weak_ptr<int> kept;
  const auto engine = small_engine();
  EngineRunner runner(engine);
  std::latch ended{1};
  RequestId id = 0;
  {
    const auto token = std::make_shared<int>(1);
    kept = token;
    GenerateOptions options = greedy(5);
    options.on_token = [token](const TokenEvent&) { return true; };
    runner.submit(prompt_of(7), options, [&, token](const RequestHandle& handle) {
      EXPECT_EQ(handle.wait().tokens.size(), 5U) << "it ran to its end";
      ended.count_down();
    });
  }
  ended.wait();
  runner.call([&](Engine& e) {  // the engine has forgotten it, as after discard()
    EXPECT_FALSE(e.finished_after(0));
    for (id = 1; id < 4; ++id) EXPECT_EQ(e.status(id).state, RequestState::kUnknown);
  });
  runner.shutdown(Shutdown::kDrain);
  EXPECT_TRUE(kept.expired()) << "what its callbacks held";
}

// ---- answers

TEST(Runner, GivesEveryThreadTheAnswerOfAnEngineAlone) {
  std::vector<std::vector<TokenId>> expected;
  Engine alone(tiny(), small());
  for (size_t n = 1; n <= 6; ++n) {
    expected.push_back(alone.generate(prompt_of(4 * n), greedy(12)).tokens);
  }
  EngineRunner runner(small_engine());
  std::atomic<int> told{0};
  std::vector<std::thread> hosts;
  for (size_t n = 1; n <= 6; ++n) {
    hosts.emplace_back([&, n] {
      for (int i = 0; i < 4; ++i) {
        const RequestHandle handle =
            runner.submit(prompt_of(4 * n), greedy(12), [&](const RequestHandle&) { ++told; });
        std::vector<TokenId> streamed;
        if (i % 2 == 0) {
          while (const auto token = handle.next()) streamed.push_back(token->id);
        }
        EXPECT_EQ(handle.wait().tokens, expected[n - 1]);
        EXPECT_EQ(handle.wait().finish_reason, FinishReason::kLength);
        EXPECT_TRUE(handle.done());
        if (i % 2 != 0) continue;
        EXPECT_EQ(streamed, expected[n - 1]);
      }
    });
  }
  for (std::thread& host : hosts) host.join();
  runner.shutdown(Shutdown::kDrain);
  EXPECT_EQ(told, 24);
  EXPECT_EQ(runner.callback_failures(), 0);
  EXPECT_FALSE(runner.failure());
  runner.engine().check_integrity();
}

TEST(Runner, StreamsTextAndLogProbabilitiesByValue) {
  const TemporaryFolder folder;
  const auto model = scripted_model(folder, alphabet_script());
  EngineRunner runner(std::make_shared<Engine>(model, small()));
  GenerateOptions options = greedy(10);
  options.logprobs = 2;
  options.stop = {"fz"};  // "f" is held back until it is known what follows
  const RequestHandle handle = runner.submit({'a'}, options);
  std::vector<StreamedToken> tokens;
  while (auto token = handle.next()) tokens.push_back(std::move(*token));
  const GenerateResult result = handle.wait();
  EXPECT_EQ(result.text, "bcdefghijk");
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    text += tokens[i].text;
    EXPECT_EQ(tokens[i].id, result.tokens[i]);
    EXPECT_EQ(tokens[i].logprob, result.logprobs[i].logprob);
    ASSERT_EQ(tokens[i].top.size(), 2U);
    EXPECT_EQ(tokens[i].top[0].id, tokens[i].id);
  }
  EXPECT_EQ(text, result.text);
  EXPECT_EQ(tokens.size(), 10U);
}

TEST(Runner, HandsTokensOutWhileTheAnswerIsMade) {
  EngineRunner runner(std::make_shared<Engine>(tiny(), endless()));
  const RequestHandle handle = runner.submit(prompt_of(3), greedy(1 << 20));
  EXPECT_TRUE(handle.next());
  EXPECT_TRUE(handle.next());
  EXPECT_FALSE(handle.done());
  handle.cancel();
  EXPECT_EQ(handle.wait().finish_reason, FinishReason::kCancelled);
  while (handle.next()) {
  }
  handle.cancel();  // is no more
}

TEST(Runner, ARequestCancelledBeforeTheEngineHasItNeverRuns) {
  EngineRunner runner(small_engine());
  std::latch began(1), go(1);
  GenerateOptions waits = greedy(3);
  waits.on_token = [&, n = 0](const TokenEvent&) mutable {
    if (n++ > 0) return false;  // and a host that has heard enough says so
    began.count_down();
    go.wait();
    return true;
  };
  const RequestHandle first = runner.submit(prompt_of(2), waits);
  began.wait();  // the driving thread is in the callback
  const RequestHandle second = runner.submit(prompt_of(2), greedy(3));
  second.cancel();
  EXPECT_FALSE(second.done());
  go.count_down();
  EXPECT_EQ(second.wait().finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(second.wait().timings.prefill_tokens, 0);
  EXPECT_FALSE(second.next());
  EXPECT_EQ(first.wait().finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(first.wait().tokens.size(), 2U);
}

TEST(Runner, ARefusalComesFromTheHandle) {
  EngineRunner runner(small_engine());
  std::vector<TokenId> wrong = prompt_of(4);
  wrong[2] = 4000;
  const std::string expected = refusal_of([&] { Engine(tiny(), small()).add(wrong, greedy(3)); });
  std::atomic<int> told{0};
  const RequestHandle refused = runner.submit(wrong, greedy(3), [&](const RequestHandle& handle) {
    EXPECT_EQ(code_of([&] { handle.wait(); }), ErrorCode::kInvalidArgument);
    ++told;
  });
  EXPECT_EQ(refusal_of([&] { refused.wait(); }), expected);
  EXPECT_EQ(refusal_of([&] { refused.next(); }), expected);
  GenerateOptions bad = greedy(3);
  bad.sampling.temperature = -1;
  EXPECT_EQ(code_of([&] { runner.submit(prompt_of(4), bad).wait(); }), ErrorCode::kInvalidArgument);
  // Proposals come along.
  try {
    runner.submit(std::vector<TokenId>(500, 1), greedy(3)).wait();
    ADD_FAILURE() << "the context is shorter";
  } catch (const Error& e) {
    EXPECT_FALSE(e.proposals().empty());
  }
  EXPECT_EQ(runner.submit(prompt_of(4), greedy(3)).wait().tokens.size(), 3U);
  runner.shutdown(Shutdown::kDrain);
  EXPECT_EQ(told, 1);
}

TEST(Runner, AHandleOfNothingSaysSo) {
  const RequestHandle none;
  EXPECT_EQ(code_of([&] { none.wait(); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { none.next(); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { none.cancel(); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { none.done(); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([] { EngineRunner nothing(nullptr); }), ErrorCode::kInvalidArgument);
}

// ---- callbacks

TEST(Runner, CallbacksThatThrowDisturbNobody) {
  EngineRunner runner(small_engine());
  GenerateOptions throws = greedy(5);
  throws.on_token = [](const TokenEvent&) -> bool { throw std::runtime_error("no ink"); };
  const RequestHandle bad =
      runner.submit(prompt_of(5), throws, [](const RequestHandle&) { throw 7; });
  const RequestHandle good = runner.submit(
      prompt_of(5), greedy(5), [](const RequestHandle&) { throw std::runtime_error("no paper"); });
  EXPECT_EQ(bad.wait().finish_reason, FinishReason::kError);
  EXPECT_EQ(bad.wait().error, "on_token threw: no ink");
  EXPECT_EQ(good.wait().finish_reason, FinishReason::kLength);
  runner.shutdown(Shutdown::kDrain);
  EXPECT_EQ(runner.callback_failures(), 2);
  EXPECT_FALSE(runner.failure());
}

TEST(Runner, ACallbackCannotWaitForItsOwnThread) {
  EngineRunner runner(small_engine());
  RequestHandle other;
  std::latch submitted(1), inside(1);
  std::vector<std::string> refusals;
  GenerateOptions asks = greedy(2);
  asks.on_token = [&](const TokenEvent&) {
    submitted.wait();
    if (!refusals.empty()) return true;
    refusals.push_back(refusal_of([&] { other.wait(); }));
    refusals.push_back(refusal_of([&] { other.next(); }));
    refusals.push_back(refusal_of([&] { runner.shutdown(Shutdown::kDrain); }));
    EXPECT_FALSE(other.done());
    other.cancel();
    return true;
  };
  std::optional<FinishReason> from_on_done;
  const RequestHandle asking = runner.submit(prompt_of(3), asks, [&](const RequestHandle& handle) {
    from_on_done = handle.wait().finish_reason;  // has ended: nobody waits
    while (handle.next()) {
    }
    // A request of a callback's own, and the engine's methods.
    other = runner.submit(prompt_of(3), greedy(2));
    runner.call([](Engine& engine) { engine.close_session(engine.open_session()); });
    inside.count_down();
  });
  other = runner.submit(prompt_of(3), greedy(5));
  const RequestHandle first = other;
  submitted.count_down();
  EXPECT_EQ(asking.wait().finish_reason, FinishReason::kLength);
  EXPECT_EQ(first.wait().finish_reason, FinishReason::kCancelled);
  inside.wait();
  EXPECT_EQ(other.wait().tokens.size(), 2U);
  EXPECT_EQ(from_on_done, FinishReason::kLength);
  ASSERT_EQ(refusals.size(), 3U);
  for (const std::string& refusal : refusals) {
    EXPECT_NE(refusal.find("drives the engine"), std::string::npos) << refusal;
  }
}

// ---- calls

TEST(Runner, CallsReachSessionsBetweenSteps) {
  EngineRunner runner(std::make_shared<Engine>(tiny(), endless()));
  const Endless beside(runner);
  SessionId session = 0;
  std::vector<TokenId> said;
  runner.call([&](Engine& engine) { session = engine.open_session(); });
  runner.call([&](Engine& engine) {
    EXPECT_EQ(engine.feed(session, prompt_of(5)).size(), 128U);
    said = engine.generate(session, prompt_of(2), greedy(4)).tokens;
  });
  Engine alone(tiny(), endless());
  const SessionId own = alone.open_session();
  alone.feed(own, prompt_of(5));
  EXPECT_EQ(said, alone.generate(own, prompt_of(2), greedy(4)).tokens);
  EXPECT_EQ(code_of([&] { runner.call([](Engine& e) { e.close_session(77); }); }),
            ErrorCode::kInvalidArgument);
  EXPECT_THROW(runner.call([](Engine&) { throw std::runtime_error("mine"); }), std::runtime_error);
  EXPECT_EQ(code_of([&] { runner.call({}); }), ErrorCode::kInvalidArgument);
  EXPECT_FALSE(beside.handle.done());
  // What a host adds there is driven, too.
  RequestId id = 0;
  runner.call([&](Engine& engine) { id = engine.add(prompt_of(5), greedy(3)); });
  std::optional<GenerateResult> result;
  while (!result) runner.call([&](Engine& engine) { result = engine.take(id); });
  EXPECT_EQ(result->tokens.size(), 3U);
}

TEST(Runner, TurnsOfASessionComeOneAfterTheOther) {
  EngineRunner runner(std::make_shared<Engine>(tiny(), endless()));
  const Endless beside(runner);
  SessionId session = 0;
  runner.call([&](Engine& engine) { session = engine.open_session(); });
  Engine alone(tiny(), endless());
  const SessionId own = alone.open_session();
  for (const size_t n : {5U, 3U, 9U}) {
    const RequestHandle turn = runner.submit(session, prompt_of(n), greedy(4));
    EXPECT_EQ(turn.wait().tokens, alone.generate(own, prompt_of(n), greedy(4)).tokens);
  }
  const RequestHandle busy = runner.submit(session, prompt_of(2), greedy(1 << 20));
  EXPECT_TRUE(busy.next());
  const RequestHandle second = runner.submit(session, prompt_of(2), greedy(2));
  EXPECT_NE(refusal_of([&] { second.wait(); }).find("running"), std::string::npos);
  busy.cancel();
  EXPECT_EQ(busy.wait().finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(runner.submit(session, prompt_of(2), greedy(2)).wait().tokens.size(), 2U);
  EXPECT_EQ(code_of([&] { runner.submit(session + 7, prompt_of(2)).wait(); }),
            ErrorCode::kInvalidArgument);
}

TEST(Runner, AResultThatSomebodyElseTookIsAnError) {
  EngineRunner runner(small_engine());
  std::latch began(1), go(1);
  GenerateOptions waits = greedy(2);
  waits.on_token = [&, n = 0](const TokenEvent&) mutable {
    if (n++ > 0) return true;
    began.count_down();
    go.wait();
    return true;
  };
  const RequestHandle first = runner.submit(prompt_of(2), waits, [&](const RequestHandle&) {
    runner.call([](Engine& engine) {  // on the driving thread: at once
      while (engine.step()) {
      }
      EXPECT_TRUE(engine.take(2));
    });
  });
  began.wait();
  const RequestHandle robbed = runner.submit(prompt_of(2), greedy(9));
  go.count_down();
  EXPECT_EQ(first.wait().tokens.size(), 2U);
  const std::string said = refusal_of([&] { robbed.wait(); });
  EXPECT_NE(said.find("somebody else took"), std::string::npos) << said;
  EXPECT_EQ(runner.submit(prompt_of(2), greedy(3)).wait().tokens.size(), 3U);
}

// ---- ends

TEST(Runner, DrainsWhatWasSubmitted) {
  auto runner = std::make_unique<EngineRunner>(small_engine());
  std::vector<RequestHandle> handles;
  std::atomic<int> told{0};
  for (int i = 0; i < 9; ++i) {
    handles.push_back(
        runner->submit(prompt_of(9), greedy(7), [&](const RequestHandle&) { ++told; }));
  }
  runner->shutdown(Shutdown::kDrain);
  EXPECT_EQ(told, 9);
  for (const RequestHandle& handle : handles) EXPECT_TRUE(handle.done());
  EXPECT_EQ(code_of([&] { runner->submit(prompt_of(2)); }), ErrorCode::kCancelled);
  EXPECT_EQ(code_of([&] { runner->call([](Engine&) {}); }), ErrorCode::kCancelled);
  runner->shutdown(Shutdown::kCancel);  // nothing is left to cancel
  runner.reset();
  // Handles outlive it.
  for (const RequestHandle& handle : handles) {
    handle.cancel();
    EXPECT_EQ(handle.wait().finish_reason, FinishReason::kLength);
    int tokens = 0;
    while (handle.next()) ++tokens;
    EXPECT_EQ(tokens, 7);
  }
}

TEST(Runner, ACancellingShutdownEndsADrainThatTakesTooLong) {
  EngineRunner runner(std::make_shared<Engine>(tiny(), endless()));
  std::latch began(1), go(1);
  GenerateOptions waits = greedy(1 << 20);
  waits.on_token = [&, n = 0](const TokenEvent&) mutable {
    if (n++ > 0) return true;
    began.count_down();
    go.wait();
    return true;
  };
  std::vector<RequestHandle> handles = {runner.submit(prompt_of(3), waits)};
  began.wait();  // what comes now is yet to reach the engine
  handles.push_back(runner.submit(prompt_of(9), greedy(1 << 20)));
  std::thread drain([&] { runner.shutdown(Shutdown::kDrain); });
  while (!code_of([&] { handles.push_back(runner.submit(prompt_of(9), greedy(1 << 20))); })) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::thread cancel([&] { runner.shutdown(Shutdown::kCancel); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  go.count_down();
  drain.join();
  cancel.join();
  for (const RequestHandle& handle : handles) {
    EXPECT_EQ(handle.wait().finish_reason, FinishReason::kCancelled);
  }
}

TEST(Runner, ItsEndCancelsWhatIsLeftAndWakesWhoWaits) {
  auto runner = std::make_unique<EngineRunner>(std::make_shared<Engine>(tiny(), endless()));
  const Endless running(*runner);
  const RequestHandle queued = runner->submit(prompt_of(9), greedy(1 << 20));
  std::thread waits([&] {
    EXPECT_EQ(queued.wait().finish_reason, FinishReason::kCancelled);
    while (running.handle.next()) {
    }
  });
  runner.reset();
  EXPECT_TRUE(queued.done());
  waits.join();
}

TEST(Runner, MayBeDestroyedInsideACallback) {
  for (const bool in_on_done : {false, true}) {
    auto engine = std::make_shared<Engine>(tiny(), endless());
    const std::weak_ptr<Engine> watched = engine;
    auto runner = std::make_unique<EngineRunner>(std::move(engine));
    std::latch submitted(1);
    std::atomic<bool> left{false};
    const auto leave = [&] {
      submitted.wait();
      if (!left.exchange(true)) runner.reset();
    };
    GenerateOptions options = greedy(in_on_done ? 2 : 1 << 20);
    options.on_token = [&](const TokenEvent&) {
      if (!in_on_done) leave();
      return true;
    };
    const RequestHandle first =
        runner->submit(prompt_of(3), options, [&](const RequestHandle&) { leave(); });
    const RequestHandle second = runner->submit(prompt_of(3), greedy(1 << 20));
    submitted.count_down();
    const FinishReason expected = in_on_done ? FinishReason::kLength : FinishReason::kCancelled;
    EXPECT_EQ(first.wait().finish_reason, expected);
    EXPECT_EQ(second.wait().finish_reason, FinishReason::kCancelled);
    while (!watched.expired()) std::this_thread::yield();  // the thread takes its engine with it
  }
}

TEST(Runner, WithoutAThreadThereIsNone) {
  if (!kCanForbidThreads) GTEST_SKIP() << "a sanitizer starts threads its own way";
  const auto engine = small_engine();
  {
    const NoThreads none;
    EXPECT_EQ(code_of([&] { EngineRunner runner(engine); }), ErrorCode::kOutOfMemory);
  }
  EngineRunner runner(engine);
  EXPECT_EQ(runner.submit(prompt_of(4), greedy(2)).wait().tokens.size(), 2U);
}

TEST(Runner, SleepsWhileThereIsNothingToDo) {
  EngineRunner runner(small_engine());
  runner.submit(prompt_of(3), greedy(2)).wait();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::clock_t before = std::clock();  // of all threads
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(std::clock() - before, CLOCKS_PER_SEC / 10);
  EXPECT_EQ(runner.submit(prompt_of(3), greedy(2)).wait().tokens.size(), 2U);
}

// ---- a device that fails

TEST(Runner, AnEngineThatFailsEndsEverythingWithItsError) {
  std::atomic<bool> fails{false};
  std::latch inside(1), go(1);
  const InLayer hook([&](int32_t) {
    if (!fails) return;
    inside.count_down();
    go.wait();
    throw Error(ErrorCode::kDevice, "the device has fallen off the bus");
  });
  EngineRunner runner(hooked_engine());
  EXPECT_EQ(runner.submit(prompt_of(5), greedy(3)).wait().tokens.size(), 3U);
  EXPECT_FALSE(runner.failure());
  fails = true;
  std::atomic<int> told{0};
  const auto tell = [&](const RequestHandle& handle) {
    EXPECT_EQ(code_of([&] { handle.wait(); }), ErrorCode::kDevice);
    ++told;
  };
  std::vector<RequestHandle> handles = {runner.submit(prompt_of(5), greedy(3), tell)};
  inside.wait();
  for (int i = 0; i < 3; ++i) handles.push_back(runner.submit(prompt_of(5), greedy(3), tell));
  std::thread calls([&] {
    const auto code = code_of([&] { runner.call([](Engine&) { ADD_FAILURE() << "was run"; }); });
    EXPECT_EQ(code, ErrorCode::kDevice);
  });
  go.count_down();
  for (const RequestHandle& handle : handles) {
    EXPECT_EQ(code_of([&] { handle.wait(); }), ErrorCode::kDevice);
    EXPECT_EQ(code_of([&] { handle.next(); }), ErrorCode::kDevice);
  }
  calls.join();
  ASSERT_TRUE(runner.failure());
  EXPECT_STREQ(runner.failure()->what(), "the device has fallen off the bus");
  EXPECT_EQ(code_of([&] { runner.submit(prompt_of(5)); }), ErrorCode::kDevice);
  EXPECT_EQ(code_of([&] { runner.call([](Engine&) {}); }), ErrorCode::kDevice);
  runner.shutdown(Shutdown::kDrain);
  EXPECT_EQ(told, 4);
}

// ---- a storm

TEST(Runner, StandsAStormOfCancellations) {
  EngineRunner runner(small_engine());
  std::vector<std::thread> hosts;
  std::atomic<int> ended{0};
  for (uint32_t seed = 0; seed < 4; ++seed) {
    hosts.emplace_back([&, seed] {
      std::minstd_rand random(seed + 1);
      for (int i = 0; i < 25; ++i) {
        const RequestHandle handle =
            runner.submit(prompt_of(1 + random() % 30), greedy(1 + int32_t(random() % 9)),
                          [&](const RequestHandle&) { ++ended; });
        const uint64_t reads = random() % 4;
        for (uint64_t n = 0; n < reads && handle.next(); ++n) {
        }
        if (random() % 3 != 0) handle.cancel();
        const FinishReason reason = handle.wait().finish_reason;
        EXPECT_TRUE(reason == FinishReason::kCancelled || reason == FinishReason::kLength);
        if (i % 5 == 0) runner.call([](Engine& engine) { engine.check_integrity(); });
        runner.engine().kv_stats();
      }
    });
  }
  for (std::thread& host : hosts) host.join();
  runner.shutdown(Shutdown::kDrain);
  EXPECT_EQ(ended, 100);
  const KvStats stats = runner.engine().kv_stats();
  EXPECT_EQ(stats.pages_free + stats.total.pages_cached, stats.pool_pages);
  EXPECT_EQ(stats.sequences, 0);
}

}  // namespace
}  // namespace paddock::test
