// Beginnings of texts that a host pins: what stays, for how long, and what gives way when.
#include <paddock/paddock.h>

#include "support/small_requests.h"

namespace paddock::test {
namespace {

/// Whose pool holds so many blocks of four positions, in each of two layers.
EngineOptions pool_of(int32_t blocks, int32_t sequences = 1, const std::string& policy = "full") {
  EngineOptions o = small_options(sequences, policy);
  o.kv.budget_bytes = 0;
  const uint64_t block = [] {
    Engine engine(tiny(), small_options(1));
    return engine.kv_stats().page_bytes * 2;
  }();
  o.kv.budget_bytes = static_cast<uint64_t>(blocks) * block;
  o.context = 4 * blocks;
  return o;
}

/// A prompt that begins as no other.
std::vector<TokenId> other(TokenId i, size_t n) {
  std::vector<TokenId> prompt = prompt_of(n);
  prompt[0] = 60 + i;
  return prompt;
}

int64_t cached(Engine& engine, const std::vector<TokenId>& prompt) {
  const int64_t found = engine.generate(prompt, greedy(1)).cached_tokens;
  engine.check_integrity();
  return found;
}

TEST(Pins, WhatIsPinnedStaysWhereOthersAreReclaimed) {
  Engine engine(tiny(), pool_of(12));
  const auto system = prompt_of(18);
  for (const bool pinned : {false, true}) {
    engine.generate(system, greedy(1));
    Pin pin;
    if (pinned) {
      pin = engine.pin(system);
      EXPECT_EQ(pin.tokens, 16);  // whole blocks
      EXPECT_EQ(engine.stats().pins, 1);
      EXPECT_EQ(engine.kv_stats().sequences, 0);
    }
    for (TokenId i = 0; i < 6; ++i) engine.generate(other(i, 24), greedy(4));
    EXPECT_EQ(cached(engine, system), pinned ? 16 : 0);
    if (!pinned) continue;
    EXPECT_TRUE(engine.unpin(pin.id));
    EXPECT_FALSE(engine.unpin(pin.id));
    EXPECT_EQ(engine.stats().pins, 0);
    EXPECT_EQ(engine.stats().pins_lost, 0);
    EXPECT_EQ(cached(engine, system), 16);  // like others that nobody lists
    for (TokenId i = 0; i < 6; ++i) engine.generate(other(i, 24), greedy(4));
    EXPECT_EQ(cached(engine, system), 0);
  }
  expect_nothing_held(engine);
}

TEST(Pins, HoldAsManyStepsAsWasSaid) {
  Engine engine(tiny(), pool_of(12));
  const auto system = prompt_of(17);
  for (const int64_t steps : {1, 5}) {
    engine.generate(system, greedy(1));
    engine.pin(system, {.steps = steps});
    const RequestId id = engine.add(other(1, 4), greedy(9));  // a step for each token
    for (int64_t step = 1; step <= 7; ++step) {
      engine.step();
      EXPECT_EQ(engine.stats().pins, step < steps ? 1 : 0) << steps << " " << step;
    }
    while (engine.step()) {
    }
    EXPECT_TRUE(engine.take(id));
    EXPECT_EQ(engine.stats().pins_lost, 0);
  }
}

TEST(Pins, GiveWayWhereOneThatIsAloneNeedsThePages) {
  Engine engine(tiny(), pool_of(12));
  const auto low = prompt_of(12), high = other(1, 12), mine = other(2, 8);
  for (const auto& text : {high, low}) engine.generate(text, greedy(1));
  engine.pin(high, {.priority = 2});
  engine.pin(low, {.priority = 1});
  // Six blocks are left. Seven need one of them, which is taken from the lower one.
  Engine alone(tiny(), small_options(1));
  const GenerateResult r = engine.generate(mine, greedy(20));
  EXPECT_EQ(r.finish_reason, FinishReason::kLength);
  EXPECT_EQ(r.tokens, alone.generate(mine, greedy(20)).tokens);
  EXPECT_EQ(engine.stats().pins, 1);
  EXPECT_EQ(engine.stats().pins_lost, 1);
  EXPECT_EQ(cached(engine, high), 8);  // its last token runs
  // A prompt that fits the whole pool alone is not refused for them.
  const auto large = other(3, 44);
  EXPECT_EQ(engine.generate(large, greedy(2)).finish_reason, FinishReason::kLength);
  EXPECT_EQ(engine.stats().pins, 0);
  EXPECT_EQ(engine.stats().pins_lost, 2);
}

TEST(Pins, DoNotGiveWayWhileOthersRun) {
  Engine engine(tiny(), pool_of(12, 3));
  const auto system = prompt_of(24);
  engine.generate(system, greedy(1));
  engine.pin(system);
  // Six blocks are left for two that come to need four each: the later one is parked.
  const RequestId first = engine.add(other(1, 8), greedy(8));
  const RequestId second = engine.add(other(2, 8), greedy(8));
  const RequestId third = engine.add(other(3, 8), greedy(2));
  engine.step();
  EXPECT_EQ(engine.status(second).state, RequestState::kRunning);
  EXPECT_EQ(engine.status(third).state, RequestState::kQueued);  // what is pinned is not there
  while (engine.step()) engine.check_integrity();
  EXPECT_EQ(engine.take(third)->finish_reason, FinishReason::kLength);
  EXPECT_EQ(engine.take(first)->preemptions, 0);
  EXPECT_EQ(engine.take(second)->preemptions, 1);
  EXPECT_EQ(engine.stats().pins_lost, 0);
  EXPECT_EQ(cached(engine, system), 20);
}

TEST(Pins, UnderAWindowHoldWhatIsSeenFromTheirEnd) {
  Engine engine(tiny(), pool_of(14, 1, "sink:4+8"));
  const auto system = prompt_of(40);
  engine.generate(system, greedy(1));
  EXPECT_EQ(engine.pin(system).tokens, 40);
  for (TokenId i = 0; i < 8; ++i) engine.generate(other(i, 30), greedy(4));
  // Its last block runs again for the logits: what that sees was not pinned. A longer text goes on.
  auto longer = system;
  longer.insert(longer.end(), {1, 2, 3});
  Engine alone(tiny(), small_options(1, "sink:4+8"));
  const GenerateResult r = engine.generate(longer, greedy(6));
  EXPECT_EQ(r.cached_tokens, 40);
  EXPECT_EQ(r.tokens, alone.generate(longer, greedy(6)).tokens);
  engine.check_integrity();
}

TEST(Pins, AreRefusedWhereNothingIsKept) {
  Engine engine(tiny(), small_options(1));
  EXPECT_EQ(refusal_of([&] { engine.pin(prompt_of(9)); }),
            "there is nothing to pin: no full block of 4 tokens that the text begins with is kept; "
            "feed() it to a session, pin it, and close the session");
  const SessionId session = engine.open_session();
  engine.feed(session, prompt_of(9));
  EXPECT_EQ(engine.pin(prompt_of(9)).tokens, 8);
  EXPECT_EQ(refusal_of([&] { engine.pin(prompt_of(9), {.priority = 1001}); }),
            "priority is 1001; it must be from -1000 to 1000");
  EXPECT_EQ(refusal_of([&] { engine.pin(prompt_of(9), {.steps = -1}); }),
            "steps is -1; it must be 0, for ever, or more");
  engine.close_session(session);
  engine.set_kv_policy("h2o:16");  // other rules let go of all that was kept
  EXPECT_EQ(engine.stats().pins, 0);
  EXPECT_EQ(refusal_of([&] { engine.pin(prompt_of(9)); }),
            "there is nothing to pin: under these rules, or without KvOptions::reuse, no blocks "
            "are kept; open a session with the text, and keep it");
}

}  // namespace
}  // namespace paddock::test
