// Very many requests that wait: a step does not go through them where nothing has changed for
// them, and each that has to end does so at the next one.
#include <thread>

#include "support/engine_inside.h"
#include "support/shared_memory.h"

namespace paddock::test {
namespace {

using Clock = std::chrono::steady_clock;

/// How many requests the steps have looked at, one by one, that make no difference to them.
int64_t looked_at(const std::shared_ptr<Engine::Impl>& inside, Engine& engine, int steps) {
  const int64_t before = inside->scheduler->looked_at();
  for (int i = 0; i < steps; ++i) EXPECT_TRUE(engine.step());
  return inside->scheduler->looked_at() - before;
}

TEST(Waiting, WhereAllPlacesAreTakenAStepLooksAtNobodyWhoWaits) {
  constexpr int kWaiting = 3000;
  const auto inside = parts(tiny(), small_options(2));
  Engine engine(inside);
  for (int i = 0; i < 2; ++i) engine.add(prompt_of(20), greedy(60));
  engine.step();
  std::stop_source stop;
  for (int i = 0; i < kWaiting; ++i) {
    GenerateOptions options = greedy(5);
    options.priority = -1;
    if (i % 2 == 0) options.deadline = Clock::now() + std::chrono::hours(1);
    if (i % 3 == 0) options.stop_token = stop.get_token();
    engine.add(prompt_of(9), options);
  }
  EXPECT_EQ(looked_at(inside, engine, 20), 0);
  EXPECT_EQ(engine.stats().requests_waiting, kWaiting);
  EXPECT_EQ(engine.stats().requests_running, 2);
}

TEST(Waiting, WherePagesAreShortAStepLooksAtTheFirstWhoWait) {
  const auto inside = parts(tiny(), shared_memory("full", tight_pool("full"), 8));
  Engine engine(inside);
  const RequestId first = engine.add(text_at(0, 40), greedy(50));
  const RequestId second = engine.add(text_at(5, 40), greedy(50));
  for (int i = 0; i < 3000; ++i) {
    GenerateOptions options = greedy(5);
    options.priority = -1;
    engine.add(text_at(static_cast<size_t>(i) % 50, 60), options);
  }
  engine.step();
  EXPECT_LE(looked_at(inside, engine, 20), 20 * 40) << "32 that do not fit, and those that run";
  while (!engine.take(first)) engine.step();
  EXPECT_GT(engine.stats().preemptions, 0) << "the second had to give way to it";
  EXPECT_NE(engine.status(second).state, RequestState::kUnknown);
}

TEST(Waiting, EachEndsByItsOwnDeadlineOrStop) {
  Engine engine(tiny(), small_options(1));
  GenerateOptions options = greedy(2000);
  options.max_tokens = 100;
  const RequestId runs = engine.add(prompt_of(4), options);
  const auto now = Clock::now();
  const auto with = [&](std::chrono::milliseconds after) {
    GenerateOptions own = greedy(5);
    own.deadline = now + after;
    return engine.add(prompt_of(5), own);
  };
  using std::chrono::milliseconds;
  const RequestId late = with(std::chrono::hours(1));
  const RequestId second = with(milliseconds(60));
  const RequestId first = with(milliseconds(30));
  const RequestId third = with(milliseconds(90));
  const RequestId later = with(std::chrono::hours(2));
  std::stop_source stop;
  GenerateOptions stopped = greedy(5);
  stopped.stop_token = stop.get_token();
  const RequestId stops = engine.add(prompt_of(5), stopped);
  const auto ended = [&] {
    std::vector<RequestId> ids;
    for (auto id = engine.finished_after(0); id; id = engine.finished_after(*id))
      ids.push_back(*id);
    return ids;
  };
  std::vector<RequestId> expected;
  int after = 30;
  for (const RequestId id : {first, second, third}) {
    std::this_thread::sleep_until(now + milliseconds(after));
    after += 30;
    engine.step();
    expected.push_back(id);
    std::sort(expected.begin(), expected.end());
    const std::vector<RequestId> all = ended();
    EXPECT_TRUE(std::includes(all.begin(), all.end(), expected.begin(), expected.end()));
    EXPECT_EQ(engine.status(id).state, RequestState::kFinished);
  }
  EXPECT_EQ(ended(), expected) << "and no other";
  std::thread([&] { stop.request_stop(); }).join();
  engine.step();
  EXPECT_EQ(engine.take(stops)->finish_reason, FinishReason::kCancelled);
  for (const RequestId id : expected) {
    EXPECT_EQ(engine.take(id)->finish_reason, FinishReason::kDeadline);
  }
  finish_all(engine);
  for (const RequestId id : {runs, late, later}) {
    EXPECT_EQ(engine.take(id)->finish_reason, FinishReason::kLength);
  }
}

TEST(Waiting, ARequestOfASessionNeedsNoPlaceOfItsOwn) {
  Engine engine(tiny(), small_options(2));
  const SessionId session = engine.open_session();
  const RequestId runs = engine.add(prompt_of(4), greedy(60));
  engine.step();
  const RequestId waits = engine.add(prompt_of(4), greedy(3));
  const RequestId turn = engine.add(session, prompt_of(5), greedy(3));
  engine.step();
  EXPECT_EQ(engine.status(runs).state, RequestState::kRunning);
  EXPECT_EQ(engine.status(turn).state, RequestState::kRunning);
  EXPECT_EQ(engine.status(waits).state, RequestState::kQueued);
  finish_all(engine);
}

TEST(Waiting, WhatIsParkedIsCountedUntilItEndsOrComesBack) {
  Engine engine(tiny(), shared_memory("full", tight_pool("full"), 4));
  std::vector<RequestId> ids;
  for (size_t i = 0; i < 3; ++i) ids.push_back(engine.add(text_at(7 * i, 20), greedy(60)));
  int cancelled = 0, back = 0, parked_before = 0;
  while (engine.step()) {
    const EngineStats stats = engine.stats();
    int waiting = 0, running = 0, parked = 0;
    for (const RequestId id : ids) {
      const RequestState state = engine.status(id).state;
      waiting += state == RequestState::kQueued ? 1 : 0;
      running += state == RequestState::kRunning ? 1 : 0;
      parked += state == RequestState::kParked ? 1 : 0;
    }
    ASSERT_EQ(stats.requests_waiting, waiting);
    ASSERT_EQ(stats.requests_running, running);
    ASSERT_EQ(stats.requests_parked, parked);
    back += parked < parked_before ? 1 : 0;
    parked_before = parked;
    if (parked == 0 || cancelled > 0) continue;
    for (const RequestId id : ids) {
      if (engine.status(id).state != RequestState::kParked) continue;
      engine.cancel(id);
      ++cancelled;
    }
    // Another one takes its place, to be parked and to come back.
    ids.push_back(engine.add(text_at(3, 20), greedy(60)));
    ids.push_back(engine.add(text_at(4, 20), greedy(60)));
  }
  EXPECT_GT(cancelled, 0);
  EXPECT_GT(back, 1);
  EXPECT_EQ(engine.stats().requests_parked, 0);
}

}  // namespace
}  // namespace paddock::test
