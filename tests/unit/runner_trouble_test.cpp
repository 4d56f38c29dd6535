// An EngineRunner whose engine finds no memory, is driven by somebody else, or parks and is
// cancelled from all sides; and several answers to one prompt through it.
#include <atomic>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "support/shared_memory.h"
#include "support/small_runner.h"

namespace paddock::test {
namespace {

// ---- several answers

TEST(RunnerAnswers, HaveAHandleEach) {
  Engine alone(tiny(), small_options(3));
  EngineRunner runner(std::make_shared<Engine>(tiny(), small_options(3)));
  std::mutex mutex;
  std::set<int32_t> told;
  const RequestHandle handle =
      runner.submit(prompt_of(11), drawn(4, 7, 50), [&](const RequestHandle& ended) {
        const std::lock_guard lock(mutex);
        told.insert(ended.wait().answer);
      });
  for (const int32_t i : {3, 0, 1, 2}) {
    const RequestHandle answer = handle.answer(i);
    std::vector<TokenId> streamed;
    while (const auto token = answer.next()) streamed.push_back(token->id);
    const GenerateResult result = answer.wait();
    EXPECT_TRUE(answer.done());
    EXPECT_EQ(result.answer, i);
    EXPECT_EQ(result.tokens, alone.generate(prompt_of(11), drawn(1, 7, 50 + i)).tokens);
    EXPECT_EQ(streamed, result.tokens);
    EXPECT_EQ(answer.answer(0).wait().answer, 0);
  }
  EXPECT_EQ(code_of([&] { handle.answer(4); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { handle.answer(-1); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { RequestHandle().answer(0); }), ErrorCode::kInvalidArgument);
  runner.shutdown(Shutdown::kDrain);
  EXPECT_EQ(told, (std::set<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(runner.engine().stats().computed_tokens, 11 + 3) << "the fourth found a place later";
}

TEST(RunnerAnswers, AreCancelledOneByOneAndRefusedTogether) {
  EngineOptions options = small_options(3, "window:8");  // its context has no end
  EngineRunner runner(std::make_shared<Engine>(tiny(), options));
  const RequestHandle handle = runner.submit(prompt_of(5), drawn(3, 1 << 20, 1));
  EXPECT_TRUE(handle.answer(1).next());
  handle.answer(1).cancel();
  EXPECT_EQ(handle.answer(1).wait().finish_reason, FinishReason::kCancelled);
  EXPECT_FALSE(handle.done());
  EXPECT_FALSE(handle.answer(2).done());
  EXPECT_TRUE(handle.answer(2).next());
  handle.cancel();
  handle.answer(2).cancel();
  EXPECT_EQ(handle.wait().finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(handle.answer(2).wait().finish_reason, FinishReason::kCancelled);

  std::atomic<int> told{0};
  const auto tell = [&](const RequestHandle&) { ++told; };
  EXPECT_EQ(code_of([&] { runner.submit(prompt_of(5), drawn(0, 3, 1), tell).wait(); }),
            ErrorCode::kInvalidArgument);
  const RequestHandle refused = runner.submit(prompt_of(0), drawn(3, 3, 1), tell);
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(code_of([&] { refused.answer(i).wait(); }), ErrorCode::kInvalidArgument);
  }
  // One that is cancelled before the engine has it never runs.
  RequestHandle early;
  runner.call([&](Engine&) {
    early = runner.submit(prompt_of(5), drawn(2, 4, 1));
    early.answer(1).cancel();
  });
  EXPECT_EQ(early.answer(1).wait().tokens.size(), 0U);
  EXPECT_EQ(early.wait().tokens.size(), 4U);
  runner.shutdown(Shutdown::kDrain);
  EXPECT_EQ(told, 4);
}

// ---- steps that cannot be made

TEST(RunnerTrouble, AStepThatFindsNoMemoryIsTriedAgain) {
  Engine alone(tiny(), small_options(3));
  std::atomic<int> fails{3};
  const InLayer hook([&](int32_t) {
    if (fails > 0) {
      if (fails-- % 2 == 0) throw std::bad_alloc();
      throw Error(ErrorCode::kOutOfMemory, "no memory for a step");
    }
  });
  EngineRunner runner(hooked_engine());
  std::vector<RequestHandle> handles;
  for (int i = 0; i < 4; ++i) handles.push_back(runner.submit(prompt_of(9 + i), greedy(6)));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(handles[i].wait().tokens, alone.generate(prompt_of(9 + i), greedy(6)).tokens);
  }
  EXPECT_EQ(fails, 0);
  EXPECT_FALSE(runner.failure());
}

TEST(RunnerTrouble, AHostsOwnResultThatNobodyTakesDelaysNobody) {
  EngineRunner runner(hooked_engine());
  runner.call([](Engine& engine) {
    engine.add(prompt_of(3), greedy(1));
    while (engine.step()) {
    }
  });
  std::mutex mutex;
  std::vector<int> ended;
  const auto tell = [&](int which) {
    return [&, which](const RequestHandle&) {
      const std::lock_guard lock(mutex);
      ended.push_back(which);
    };
  };
  std::vector<RequestHandle> handles;
  runner.call([&](Engine&) {  // both before the next step
    handles.push_back(runner.submit(prompt_of(5), greedy(60), tell(60)));
    handles.push_back(runner.submit(prompt_of(6), greedy(2), tell(2)));
  });
  for (const RequestHandle& handle : handles) handle.wait();
  runner.shutdown(Shutdown::kDrain);
  EXPECT_EQ(ended, (std::vector<int>{2, 60}));
}

TEST(RunnerTrouble, WhatComesAfterATroubleIsTriedAsLong) {
  std::atomic<bool> fails{false};
  const InLayer hook([&](int32_t) {
    if (fails) throw std::bad_alloc();
  });
  EngineRunner runner(hooked_engine());
  fails = true;
  runner.call([](Engine& engine) { engine.add(prompt_of(3), greedy(2)); });  // it fails on and on
  const RequestHandle first = runner.submit(prompt_of(5), greedy(3));
  EXPECT_EQ(code_of([&] { first.wait(); }), ErrorCode::kOutOfMemory);
  const RequestHandle second = runner.submit(prompt_of(5), greedy(3));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  fails = false;
  EXPECT_EQ(second.wait().tokens.size(), 3U);
}

TEST(RunnerTrouble, WithoutMemoryForLongWhatIsThereEndsAndWhatComesIsServed) {
  std::atomic<bool> fails{false};
  const InLayer hook([&](int32_t) {
    if (fails) throw std::bad_alloc();
  });
  EngineRunner runner(hooked_engine());
  RequestId own = 0;  // a host's, that the runner knows nothing of
  runner.call([&](Engine& engine) { own = engine.add(prompt_of(3), greedy(2)); });
  EXPECT_EQ(runner.submit(prompt_of(5), greedy(3)).wait().tokens.size(), 3U);
  fails = true;
  std::atomic<int> told{0};
  std::vector<RequestHandle> handles;
  for (int i = 0; i < 5; ++i) {
    handles.push_back(
        runner.submit(prompt_of(5), drawn(1 + i % 2, 3, 1), [&](const RequestHandle&) { ++told; }));
  }
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(code_of([&] { handles[i].wait(); }), ErrorCode::kOutOfMemory);
    EXPECT_EQ(code_of([&] { handles[i].next(); }), ErrorCode::kOutOfMemory);
    EXPECT_EQ(code_of([&] { handles[i].answer(i % 2).wait(); }), ErrorCode::kOutOfMemory);
  }
  fails = false;
  EXPECT_EQ(runner.submit(prompt_of(5), greedy(3)).wait().tokens.size(), 3U);
  EXPECT_FALSE(runner.failure());
  runner.call([&](Engine& engine) {
    EXPECT_EQ(engine.take(own)->tokens.size(), 2U);
    EXPECT_FALSE(engine.finished_after(0)) << "what was given up leaves no results";
    expect_nothing_held(engine);
  });
  runner.shutdown(Shutdown::kDrain);
  EXPECT_EQ(told, 7);
}

TEST(RunnerTrouble, SomebodyElseWhoDrivesBreaksNothing) {
  Engine alone(tiny(), small_options(3));
  const std::vector<TokenId> expected = alone.generate(prompt_of(9), greedy(30)).tokens;
  auto engine = std::make_shared<Engine>(tiny(), small_options(3));
  EngineRunner runner(engine);
  std::atomic<bool> ends{false};
  std::thread stranger([&] {
    while (!ends) {
      code_of([&] { engine->step(); });
      std::this_thread::yield();
    }
  });
  for (int i = 0; i < 20; ++i) {
    const RequestHandle handle = runner.submit(prompt_of(9), greedy(30));
    try {
      EXPECT_EQ(handle.wait().tokens, expected);
    } catch (const Error& e) {  // it met the other one when it was to be added
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    }
  }
  ends = true;
  stranger.join();
  EXPECT_EQ(runner.submit(prompt_of(9), greedy(30)).wait().tokens, expected);
  EXPECT_FALSE(runner.failure());
}

// ---- a storm

TEST(RunnerTrouble, AStormOfCancellationsOverAMemoryThatIsTooSmallDisturbsNobody) {
  for (const std::string policy : {"full", "h2o:32@every:8"}) {
    std::vector<std::vector<TokenId>> expected;  // [prompt * 6 + seed]
    Engine alone(tiny(), shared_memory(policy, 0, 1));
    for (size_t prompt = 0; prompt < 3; ++prompt) {
      for (uint64_t seed = 0; seed < 6; ++seed) {
        expected.push_back(
            alone.generate(text_at(prompt, 25 + 9 * prompt), drawn(1, 20, seed)).tokens);
      }
    }
    auto engine = std::make_shared<Engine>(tiny(), shared_memory(policy, tight_pool(policy)));
    EngineRunner runner(engine);
    std::atomic<int> whole{0}, cancelled{0};
    std::vector<std::thread> hosts;
    for (uint32_t host = 0; host < 4; ++host) {
      hosts.emplace_back([&, host] {
        std::minstd_rand random(host + 1);
        for (int i = 0; i < 12; ++i) {
          const size_t prompt = random() % 3;
          const auto n = static_cast<int32_t>(1 + random() % 3);
          const uint64_t seed = random() % 3;
          std::stop_source stop;
          GenerateOptions options = drawn(n, 20, seed);
          options.stop_token = stop.get_token();
          const RequestHandle handle = runner.submit(text_at(prompt, 25 + 9 * prompt), options);
          if (random() % 2 == 0) handle.next();
          if (random() % 3 == 0) handle.answer(n - 1).cancel();
          if (random() % 7 == 0) stop.request_stop();
          if (random() % 40 == 0) engine->cancel();
          for (int32_t k = 0; k < n; ++k) {
            const GenerateResult result = handle.answer(k).wait();
            const std::vector<TokenId>& right = expected[prompt * 6 + seed + k];
            ASSERT_LE(result.tokens.size(), right.size());
            EXPECT_TRUE(std::equal(result.tokens.begin(), result.tokens.end(), right.begin()));
            if (result.finish_reason == FinishReason::kLength) {
              EXPECT_EQ(result.tokens, right);
              ++whole;
            } else {
              EXPECT_EQ(result.finish_reason, FinishReason::kCancelled) << result.error;
              ++cancelled;
            }
          }
          engine->check_integrity();
        }
      });
    }
    for (std::thread& host : hosts) host.join();
    runner.shutdown(Shutdown::kDrain);
    EXPECT_GT(whole, 10) << policy;
    EXPECT_GT(cancelled, 10) << policy;
    EXPECT_GT(engine->stats().preemptions, 0) << policy;
    expect_nothing_held(*engine);
  }
}

}  // namespace
}  // namespace paddock::test
