// Beginnings of texts that a host pins: what stays, for how long, and what gives way when.
#include <paddock/paddock.h>

#include <algorithm>
#include <limits>
#include <memory>

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
  engine.generate(system, greedy(1));
  engine.pin(system, {.steps = 5});
  engine.pin(system, {.steps = std::numeric_limits<int64_t>::max()});
  engine.add(other(1, 4), greedy(9));  // a step for each token
  for (int64_t step = 1; step <= 7; ++step) {
    engine.step();
    EXPECT_EQ(engine.stats().pins, step < 5 ? 2 : 1) << step;
  }
  while (engine.step()) {
  }
  // In the middle of the only step that it sees it is there.
  const Pin pin = engine.pin(system, {.steps = 1});
  bool was_there = false;
  GenerateOptions options = greedy(1);
  options.on_token = [&](const TokenEvent&) { return was_there = engine.unpin(pin.id); };
  engine.generate(other(2, 4), options);
  EXPECT_TRUE(was_there);
  const Pin gone = engine.pin(system, {.steps = 1});
  engine.generate(other(3, 4), greedy(1));
  EXPECT_FALSE(engine.unpin(gone.id));
  EXPECT_EQ(engine.stats().pins_lost, 0);
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

TEST(Pins, TheLowestGivesWayFirstAndOfThoseTheOldest) {
  Engine engine(tiny(), pool_of(13));
  std::vector<PinId> pins;
  for (const int32_t priority : {2, 1, 0, 1}) {
    const auto text = other(static_cast<TokenId>(pins.size()), 8);
    engine.generate(text, greedy(1));
    pins.push_back(engine.pin(text, {.priority = priority}).id);
  }
  // Five blocks are left of 13, and each pin holds two.
  for (const size_t n : {22, 30, 38}) {
    EXPECT_EQ(engine.generate(other(9, n), greedy(2)).finish_reason, FinishReason::kLength);
  }
  EXPECT_EQ(engine.stats().pins, 1);
  EXPECT_TRUE(engine.unpin(pins[0])) << "the highest one";
  Engine again(tiny(), pool_of(13));
  pins.clear();
  for (const int32_t priority : {1, 0, 1, 0}) {
    const auto text = other(static_cast<TokenId>(pins.size()), 8);
    again.generate(text, greedy(1));
    pins.push_back(again.pin(text, {.priority = priority}).id);
  }
  again.generate(other(9, 22), greedy(2));
  EXPECT_EQ(again.stats().pins, 3);
  EXPECT_FALSE(again.unpin(pins[1])) << "the older one of the lower";
}

TEST(Pins, DoNotGiveWayForOneThatMayWaitForAnother) {
  Engine engine(tiny(), pool_of(12, 2));
  const auto system = prompt_of(24);
  engine.generate(system, greedy(1));
  engine.pin(system);
  // Of six blocks left the second one needs its fourth when the first one has its third: it waits
  // until that has ended.
  const RequestId first = engine.add(other(1, 5), greedy(6));
  const RequestId second = engine.add(other(2, 8), greedy(10));
  while (engine.step()) engine.check_integrity();
  EXPECT_EQ(engine.take(first)->finish_reason, FinishReason::kLength);
  EXPECT_EQ(engine.take(second)->finish_reason, FinishReason::kLength);
  EXPECT_EQ(engine.stats().pins_lost, 0);
  EXPECT_EQ(engine.stats().pins, 1);
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

TEST(Pins, WhoeverBeginsWithAPinnedTextIsNotChargedForIt) {
  Engine engine(tiny(), pool_of(12, 2));
  const auto system = prompt_of(24);
  engine.generate(system, greedy(1));
  engine.pin(system);
  auto mine = system;
  mine.insert(mine.end(), {1, 2, 3});
  // Of the six blocks left one that runs may come to need three, and this one two.
  engine.add(other(1, 8), greedy(4));
  const RequestId id = engine.add(mine, greedy(2));
  engine.step();
  EXPECT_EQ(engine.status(id).state, RequestState::kRunning);
  while (engine.step()) engine.check_integrity();
  EXPECT_EQ(engine.take(id)->cached_tokens, 24);
}

TEST(Pins, DoNotGiveWayWhereThatFreesNothing) {
  Engine engine(tiny(), [] {
    EngineOptions o = pool_of(12);
    o.context = 100;
    return o;
  }());
  const auto low = prompt_of(16), high = other(1, 8);
  engine.generate(low, greedy(1));
  engine.generate(high, greedy(1));
  engine.pin(low, {.priority = 1});
  engine.pin(low, {.priority = 1});
  engine.pin(high, {.priority = 2});
  // It lists what the lower ones hold: to let go of them brings nothing, of the higher one two
  // blocks. Then the pool is its own but for what it lists itself, and it ends.
  const GenerateResult r = engine.generate(low, greedy(60));
  EXPECT_EQ(r.finish_reason, FinishReason::kKvFull);
  EXPECT_EQ(engine.stats().pins, 2);
  EXPECT_EQ(engine.stats().pins_lost, 1);
  // Two of one text go one after the other where another one needs their pages.
  EXPECT_EQ(engine.generate(other(2, 44), greedy(2)).finish_reason, FinishReason::kLength);
  EXPECT_EQ(engine.stats().pins_lost, 3);
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

/// Notes the largest number of prompts that a leaf is said to have had.
class Prompts final : public ReclaimPolicy {
 public:
  explicit Prompts(int64_t* most) : most_(most) {}
  std::string name() const override { return "prompts"; }
  void on_leaf(const CachedBlock& block) override {
    leaves_.push_back(block.block);
    *most_ = std::max(*most_, block.prompts);
  }
  void on_use(int32_t block) override { std::erase(leaves_, block); }
  void on_removed(int32_t block) override { std::erase(leaves_, block); }
  int32_t next() override { return leaves_.front(); }

 private:
  int64_t* most_;
  std::vector<int32_t> leaves_;
};

TEST(Pins, AndAnswersAreNoPromptsThatFindABlockAgain) {
  int64_t most = 0;
  EngineOptions options = pool_of(12, 4);
  options.kv.custom_reclaim = [&] { return std::make_unique<Prompts>(&most); };
  Engine engine(tiny(), options);
  GenerateOptions four = greedy(3);
  four.n = 4;
  engine.add(prompt_of(12), four);
  while (engine.step()) {
  }
  engine.unpin(engine.pin(prompt_of(12)).id);
  EXPECT_EQ(most, 1);
  engine.generate(prompt_of(13), greedy(3));
  EXPECT_EQ(most, 2);
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
