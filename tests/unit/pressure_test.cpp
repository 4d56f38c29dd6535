// What a host says of elastic rules: which requests may lose something, what it is asked before
// budgets fall, and where the end of the context is.
#include <algorithm>
#include <optional>

#include "support/shared_memory.h"

namespace paddock::test {
namespace {

constexpr const char* kRule = "lru@every:8";

std::vector<RequestId> add_all(Engine& engine, int n, const GenerateOptions& options) {
  std::vector<RequestId> ids;
  for (int i = 0; i < n; ++i) {
    ids.push_back(engine.add(text_at(static_cast<size_t>(7 * i), 20), options));
  }
  return ids;
}

TEST(Pressure, BudgetsFallBeforeAnyoneIsParked) {
  Engine engine(tiny(), shared_memory(kRule, 2 * 24, 3));
  const std::vector<RequestId> ids = add_all(engine, 3, greedy(60));
  finish_all(engine);
  int64_t falls = 0;
  for (const RequestId id : ids) {
    const GenerateResult result = engine.take(id).value();
    EXPECT_EQ(result.finish_reason, FinishReason::kLength);
    EXPECT_EQ(result.tokens.size(), 60U);
    EXPECT_EQ(result.preemptions, 0);
    int32_t budget = kUnlimited;
    for (const KvBudgetChange& change : result.budget_changes) {
      EXPECT_EQ(change.before, budget);
      EXPECT_LT(change.after, budget);
      EXPECT_EQ(change.length % 8, 0);
      EXPECT_GT(change.pages, 0);
      EXPECT_EQ(change.pages, change.layer_pages.at(0) + change.layer_pages.at(1));
      EXPECT_TRUE(std::count(ids.begin(), ids.end(), change.request)) << change.request;
      budget = change.after;
      ++falls;
    }
  }
  EXPECT_GT(falls, 0);
  EXPECT_EQ(engine.kv_stats().budget_falls, falls);
  expect_nothing_held(engine);
}

TEST(Pressure, NothingIsLostWhereTheHostForbidsIt) {
  EngineOptions options = shared_memory(kRule, 2 * 24, 3);
  options.kv.pressure = KvPressure::kPreempt;
  Engine engine(tiny(), options);
  options.kv.policy = "full";
  Engine full(tiny(), options);
  const std::vector<RequestId> ids = add_all(engine, 3, greedy(60));
  finish_all(engine);
  int64_t preemptions = 0;
  for (int i = 0; i < 3; ++i) {
    const GenerateResult result = engine.take(ids[static_cast<size_t>(i)]).value();
    preemptions += result.preemptions;
    EXPECT_TRUE(result.budget_changes.empty());
    EXPECT_EQ(result.tokens,
              full.generate(text_at(static_cast<size_t>(7 * i), 20), greedy(60)).tokens);
  }
  EXPECT_GT(preemptions, 0);
  EXPECT_EQ(engine.kv_stats().budget_falls, 0);
}

TEST(Pressure, ALosslessRequestGivesNothingAndTheOthersDo) {
  Engine engine(tiny(), shared_memory(kRule, 2 * 30, 3));
  Engine full(tiny(), shared_memory("full", 0, 1));
  GenerateOptions options = greedy(60);
  options.lossless = true;
  const RequestId kept = engine.add(text_at(0, 20), options);
  options.lossless = false;
  const RequestId other = engine.add(text_at(9, 20), options);
  finish_all(engine);
  const GenerateResult result = engine.take(kept).value();
  EXPECT_TRUE(result.budget_changes.empty());
  EXPECT_EQ(result.tokens, full.generate(text_at(0, 20), greedy(60)).tokens);
  EXPECT_FALSE(engine.take(other).value().budget_changes.empty());
}

TEST(Pressure, ALosslessRequestThatOutgrowsThePoolAloneEndsThere) {
  Engine engine(tiny(), shared_memory(kRule, 2 * 12, 1));
  GenerateOptions options = greedy(60);
  options.lossless = true;
  const GenerateResult result = engine.generate(text_at(0, 20), options);
  EXPECT_EQ(result.finish_reason, FinishReason::kKvFull);
  options.lossless = false;
  EXPECT_EQ(engine.generate(text_at(0, 20), options).finish_reason, FinishReason::kLength);
}

TEST(Pressure, TheHostIsAskedFirst) {
  EngineOptions options = shared_memory(kRule, 2 * 24, 3);
  Engine* asked = nullptr;
  std::vector<RequestId> ids;
  std::vector<KvShortage> shortages;
  options.kv.on_pressure = [&](const KvShortage& shortage) {
    shortages.push_back(shortage);
    if (ids.empty()) return KvRelief::kNone;
    asked->cancel(ids.back());
    ids.pop_back();
    return KvRelief::kWait;
  };
  Engine engine(tiny(), options);
  asked = &engine;
  ids = add_all(engine, 3, greedy(24));
  const RequestId first = ids[0], last = ids[2];
  ids.erase(ids.begin());
  finish_all(engine);
  ASSERT_FALSE(shortages.empty());
  EXPECT_GT(shortages[0].needed, shortages[0].available);
  EXPECT_GE(shortages[0].request, first);
  EXPECT_EQ(engine.take(last).value().finish_reason, FinishReason::kCancelled);
  const GenerateResult result = engine.take(first).value();
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_TRUE(result.budget_changes.empty());
}

TEST(Pressure, TheHostMayAddCloseAndLetGoThere) {
  EngineOptions options = shared_memory(kRule, 2 * 24, 3);
  Engine* asked = nullptr;
  std::optional<SessionId> session;
  Pin pin;
  RequestId added = 0;
  options.kv.on_pressure = [&](const KvShortage& shortage) {
    if (!session) return KvRelief::kNone;
    EXPECT_EQ(asked->status(shortage.request).state, RequestState::kRunning);
    EXPECT_THROW(asked->step(), Error);
    EXPECT_TRUE(asked->unpin(pin.id));
    asked->close_session(*session);
    session.reset();
    added = asked->add(text_at(5, 10), greedy(4));
    return KvRelief::kWait;
  };
  Engine engine(tiny(), options);
  asked = &engine;
  session = engine.open_session();
  engine.feed(*session, text_at(3, 40));
  pin = engine.pin(text_at(3, 40));
  const RequestId id = engine.add(text_at(0, 20), greedy(100));
  finish_all(engine);
  EXPECT_FALSE(session.has_value());
  EXPECT_EQ(engine.take(id).value().finish_reason, FinishReason::kLength);
  EXPECT_EQ(engine.take(added).value().finish_reason, FinishReason::kLength);
  expect_nothing_held(engine);
}

TEST(Pressure, AHostThatThrowsIsNotAskedAgain) {
  EngineOptions options = shared_memory(kRule, 2 * 12, 1);
  int times = 0;
  options.kv.on_pressure = [&](const KvShortage&) -> KvRelief {
    ++times;
    throw 1;
  };
  Engine engine(tiny(), options);
  const GenerateResult result = engine.generate(text_at(0, 20), greedy(80));
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(times, 1);
  EXPECT_EQ(engine.kv_stats().hook_failures, 1);
}

TEST(Pressure, CompactRulesGoOnBeyondTheContext) {
  for (const char* rule :
       {"sink:4@every:8", "lru@every:8@compact", "pyramid:h2o@every:8@compact"}) {
    SCOPED_TRACE(rule);
    EngineOptions options = shared_memory(rule, 0, 1);
    options.context = 64;
    Engine engine(tiny(), options);
    const GenerateResult result = engine.generate(text_at(0, 20), greedy(200));
    EXPECT_EQ(result.finish_reason, FinishReason::kLength);
    ASSERT_FALSE(result.budget_changes.empty());
    EXPECT_LE(result.budget_changes[0].length, 64);
    for (const KvLayerStats& layer : engine.kv_stats().layers) EXPECT_LE(layer.tokens_peak, 64);
    EXPECT_GT(engine.max_positions(), 1'000'000);
  }
  Engine engine(tiny(), [] {
    EngineOptions options = shared_memory("lru@every:8", 0, 1);
    options.context = 64;
    return options;
  }());
  EXPECT_EQ(engine.generate(text_at(0, 20), greedy(200)).finish_reason, FinishReason::kContext);
}

TEST(Pressure, TheContextBoundsWhatIsResidentHoweverLargeThePool) {
  EngineOptions options = shared_memory("sink:4@every:8", 0, 4);
  options.context = 64;
  Engine engine(tiny(), options);
  GenerateOptions asked = greedy(100);
  const GenerateResult result = engine.generate(text_at(0, 20), asked);
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_FALSE(result.budget_changes.empty());
  const std::vector<TokenId> long_prompt = text_at(0, 100);  // and what of it is kept by now
  EXPECT_EQ(engine.generate(long_prompt, greedy(4)).finish_reason, FinishReason::kLength);
  for (const KvLayerStats& layer : engine.kv_stats().layers) EXPECT_LE(layer.tokens_peak, 64);
  asked.lossless = true;
  const GenerateResult kept = engine.generate(text_at(0, 20), asked);
  EXPECT_EQ(kept.finish_reason, FinishReason::kContext);
  EXPECT_EQ(kept.tokens.size(), 45U);  // the last one needs no place
  for (const KvLayerStats& layer : engine.kv_stats().layers) EXPECT_LE(layer.tokens_peak, 64);
}

TEST(Pressure, AHostThatSaysWaitEndsNobody) {
  EngineOptions options = shared_memory(kRule, 2 * 12, 1);
  int left = 3;
  options.kv.on_pressure = [&](const KvShortage&) {
    return left-- > 0 ? KvRelief::kWait : KvRelief::kNone;
  };
  Engine engine(tiny(), options);
  const GenerateResult result = engine.generate(text_at(0, 20), greedy(60));
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_FALSE(result.budget_changes.empty());
  EXPECT_LT(left, 0);
}

TEST(Pressure, WhoIsCancelledThereEndsAsCancelled) {
  EngineOptions options = shared_memory(kRule, 2 * 12, 1);
  Engine* asked = nullptr;
  options.kv.on_pressure = [&](const KvShortage& shortage) {
    asked->cancel(shortage.request);
    return KvRelief::kWait;
  };
  Engine engine(tiny(), options);
  asked = &engine;
  EXPECT_EQ(engine.generate(text_at(0, 20), greedy(60)).finish_reason, FinishReason::kCancelled);
}

TEST(Pressure, ASessionsNextTurnIsLifted) {
  Engine engine(tiny(), shared_memory(kRule, 2 * 12, 1));
  const SessionId session = engine.open_session();
  const GenerateResult first = engine.generate(session, text_at(0, 20), greedy(40));
  ASSERT_FALSE(first.budget_changes.empty());
  const GenerateResult second = engine.generate(session, text_at(3, 4), greedy(40));
  ASSERT_GE(second.budget_changes.size(), 2U);
  EXPECT_EQ(second.budget_changes[0].before, first.budget_changes.back().after);
  EXPECT_EQ(second.budget_changes[0].after, kUnlimited);
  EXPECT_EQ(second.budget_changes[1].before, kUnlimited);
  EXPECT_EQ(engine.kv_stats().budget_lifts, 1);
  engine.close_session(session);
  expect_nothing_held(engine);
}

TEST(Pressure, WhatIsProposedIsEnoughAndAPageLessIsNot) {
  for (const char* rule :
       {"lru@every:8", "lru@every:8@min:40", "lru@every:8@min:100", "h2o@every:8@min:200",
        "sink:4@every:8@min:150", "0=window:16,1=lru@every:8@min:120"}) {
    SCOPED_TRACE(rule);
    EngineOptions options = shared_memory(rule, 4, 1);
    options.context = 400;
    const uint64_t page = options.kv.budget_bytes / 4;
    try {
      Engine(tiny(), options);
      ADD_FAILURE() << "four pages";
    } catch (const Error& e) {
      ASSERT_FALSE(e.proposals().empty()) << e.what();
      options = with_proposal(options, e.proposals()[0]);
    }
    for (const size_t prompt : {20, 330}) {
      Engine engine(tiny(), options);
      const auto n = static_cast<int32_t>(390 - prompt);
      const GenerateResult result = engine.generate(text_at(0, prompt), greedy(n));
      EXPECT_EQ(result.finish_reason, FinishReason::kLength) << prompt;
      EXPECT_FALSE(result.budget_changes.empty());
      EXPECT_EQ(result.preemptions, 0);
    }
    options.kv.budget_bytes -= page;
    EXPECT_THROW(Engine(tiny(), options), Error);
  }
}

TEST(Pressure, RefusesWhatIsNoPressure) {
  EngineOptions options = shared_memory(kRule, 0, 1);
  options.kv.pressure = static_cast<KvPressure>(7);
  const std::string said = refusal_of([&] { Engine(tiny(), options); });
  EXPECT_NE(said.find("kv.pressure"), std::string::npos) << said;
}

}  // namespace
}  // namespace paddock::test
