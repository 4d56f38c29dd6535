// A live engine's KV budget, raised and lowered: who gives way, who is let in, what is refused.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "support/shared_memory.h"

namespace paddock::test {
namespace {

constexpr const char* kElastic = "lru@every:8";

int64_t page_bytes_of(const Engine& engine) { return engine.kv_stats().page_bytes; }

void set_pages(Engine& engine, int64_t pages) {
  engine.set_kv_budget(static_cast<uint64_t>(pages * page_bytes_of(engine)));
}

/// With a pool of `pages`, of which `most` are reserved.
EngineOptions resizable(const std::string& policy, int64_t pages, int64_t most, int32_t sequences) {
  EngineOptions options = shared_memory(policy, pages, sequences);
  options.kv.max_budget_bytes =
      options.kv.budget_bytes / static_cast<uint64_t>(pages) * static_cast<uint64_t>(most);
  return options;
}

/// What a request for `n` tokens after text_at(7 * i, 20) makes alone.
std::vector<TokenId> alone(const std::string& policy, int i, int32_t n) {
  Engine engine(tiny(), shared_memory(policy, 0, 1));
  return engine.generate(text_at(static_cast<size_t>(7 * i), 20), greedy(n)).tokens;
}

std::vector<RequestId> add_some(Engine& engine, int n, int32_t tokens) {
  std::vector<RequestId> ids;
  for (int i = 0; i < n; ++i) {
    ids.push_back(engine.add(text_at(static_cast<size_t>(7 * i), 20), greedy(tokens)));
  }
  return ids;
}

int64_t in_use(const Engine& engine) {
  const KvStats stats = engine.kv_stats();
  return stats.total.pages_active + stats.total.pages_cached;
}

TEST(Budget, WhoHasTooMuchIsParkedAndComesBackAsItWas) {
  for (const char* policy : {"full", "h2o:24@every:8", "0=full,1=window:16"}) {
    SCOPED_TRACE(policy);
    Engine engine(tiny(), resizable(policy, 100, 100, 4));
    const std::vector<RequestId> ids = add_some(engine, 4, 30);
    for (int i = 0; i < 12; ++i) engine.step();
    ASSERT_GT(in_use(engine), 40);
    set_pages(engine, 40);
    EXPECT_EQ(engine.kv_stats().pool_pages, 40);
    EXPECT_EQ(engine.kv_stats().pool_bytes, 40 * page_bytes_of(engine));
    EXPECT_EQ(engine.kv_stats().pool_max_pages, 100);
    EXPECT_LE(in_use(engine), 40) << "at once: no step is under way";
    engine.check_integrity();
    for (int steps = 0; engine.step(); ++steps) {
      engine.check_integrity();
      EXPECT_LE(in_use(engine), 40);
      ASSERT_LT(steps, 5000);
    }
    int64_t preemptions = 0;
    for (int i = 0; i < 4; ++i) {
      const GenerateResult result = engine.take(ids[static_cast<size_t>(i)]).value();
      EXPECT_EQ(result.finish_reason, FinishReason::kLength);
      EXPECT_EQ(result.tokens, alone(policy, i, 30));
      preemptions += result.preemptions;
    }
    EXPECT_GT(preemptions, 0);
    expect_nothing_held(engine);
  }
}

TEST(Budget, KeptBlocksAndIdleSessionsGoFirst) {
  Engine engine(tiny(), resizable("full", 120, 120, 4));
  const SessionId session = engine.open_session();
  const std::vector<TokenId> first = engine.generate(session, text_at(5, 30), greedy(2)).tokens;
  engine.generate(text_at(30, 40), greedy(1));
  const RequestId running = engine.add(text_at(0, 20), greedy(30));
  for (int i = 0; i < 4; ++i) engine.step();
  const KvStats before = engine.kv_stats();
  ASSERT_GT(before.total.pages_cached, 10);
  set_pages(engine, before.total.pages_active + 2);  // kept blocks alone
  EXPECT_LE(in_use(engine), before.total.pages_active + 2);
  EXPECT_EQ(engine.kv_stats().total.pages_active, before.total.pages_active);
  EXPECT_EQ(engine.stats().sessions_parked, 0);
  set_pages(engine, before.total.pages_active - 2);  // and the session
  EXPECT_EQ(engine.stats().sessions_parked, 1);
  EXPECT_EQ(engine.stats().preemptions, 0);
  finish_all(engine);
  EXPECT_EQ(engine.take(running)->preemptions, 0);
  set_pages(engine, 120);
  const std::vector<TokenId> second = engine.generate(session, text_at(9, 4), greedy(8)).tokens;
  Engine other(tiny(), shared_memory("full", 0, 1));
  const SessionId same = other.open_session();
  EXPECT_EQ(other.generate(same, text_at(5, 30), greedy(2)).tokens, first);
  EXPECT_EQ(other.generate(same, text_at(9, 4), greedy(8)).tokens, second);
}

TEST(Budget, APinGivesWayWhereNobodyRuns) {
  Engine engine(tiny(), resizable("full", 120, 120, 2));
  engine.generate(text_at(0, 48), greedy(1));
  engine.pin(text_at(0, 48));
  set_pages(engine, 64);
  EXPECT_EQ(engine.stats().pins, 1);
  EXPECT_EQ(engine.kv_stats().pages_free, 64 - 24);
  Engine tight(tiny(), resizable("full", 120, 120, 2));
  tight.generate(text_at(0, 48), greedy(1));
  tight.pin(text_at(0, 48));
  set_pages(tight, 20);
  EXPECT_EQ(tight.stats().pins_lost, 1);
  EXPECT_LE(in_use(tight), 20);
}

TEST(Budget, RaisedItLetsInWhoWaits) {
  Engine engine(tiny(), resizable("full", 20, 60, 2));
  const std::vector<RequestId> ids = add_some(engine, 2, 12);
  engine.step();
  engine.step();
  EXPECT_EQ(engine.status(ids[1]).state, RequestState::kQueued);
  set_pages(engine, 60);
  engine.step();
  EXPECT_EQ(engine.status(ids[1]).state, RequestState::kRunning);
  finish_all(engine);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(engine.take(ids[static_cast<size_t>(i)])->tokens, alone("full", i, 12));
  }
}

TEST(Budget, RaisedUnderPressureNothingFalls) {
  for (const KvRelief answer : {KvRelief::kNone, KvRelief::kWait}) {
    EngineOptions options = resizable(kElastic, 2 * 24, 2 * 80, 3);
    Engine* asked = nullptr;
    int times = 0;
    options.kv.on_pressure = [&](const KvShortage&) {
      ++times;
      set_pages(*asked, 2 * 80);
      return answer;
    };
    Engine engine(tiny(), options);
    asked = &engine;
    const std::vector<RequestId> ids = add_some(engine, 3, 60);
    finish_all(engine);
    EXPECT_EQ(times, 1);
    EXPECT_EQ(engine.kv_stats().budget_falls, 0);
    for (int i = 0; i < 3; ++i) {
      const GenerateResult result = engine.take(ids[static_cast<size_t>(i)]).value();
      EXPECT_EQ(result.tokens, alone("full", i, 60));
      EXPECT_EQ(result.preemptions, 0);
    }
  }
}

TEST(Budget, RaisedItLiftsNothingWithinARequest) {
  Engine engine(tiny(), resizable(kElastic, 24, 100, 1));
  const RequestId id = engine.add(text_at(0, 20), greedy(90));
  while (engine.kv_stats().budget_falls == 0) ASSERT_TRUE(engine.step());
  const auto fallen = engine.kv_budget_changes().at(0).after;
  set_pages(engine, 100);
  while (engine.step()) EXPECT_LE(engine.kv_stats().layers[0].budget, fallen);
  EXPECT_EQ(engine.take(id)->budget_changes.size(), 1U);
}

TEST(Budget, ElasticBudgetsFallAtTheNextDecisionLength) {
  for (int32_t sequences : {1, 3}) {
    for (int steps = 26; steps < 42; ++steps) {  // wherever lengths are then
      SCOPED_TRACE(steps);
      Engine engine(tiny(), resizable(kElastic, 160, 160, sequences));
      const std::vector<RequestId> ids = add_some(engine, sequences, 60);
      for (int i = 0; i < steps; ++i) engine.step();
      const int64_t pages = 20 * sequences;
      ASSERT_GT(in_use(engine), pages);
      set_pages(engine, pages);
      for (int i = 0; i < 12; ++i) {
        engine.step();
        engine.check_integrity();
      }
      EXPECT_GE(engine.kv_stats().budget_falls, sequences);
      EXPECT_LE(in_use(engine), pages);
      while (engine.step()) EXPECT_LE(in_use(engine), pages);
      for (const RequestId id : ids) {
        const GenerateResult result = engine.take(id).value();
        EXPECT_EQ(result.finish_reason, FinishReason::kLength);
        EXPECT_EQ(result.preemptions, 0);
        for (const KvBudgetChange& change : result.budget_changes) EXPECT_EQ(change.length % 8, 0);
      }
    }
  }
}

TEST(Budget, WhatWasParkedAndIsTooMuchNowFallsOnItsWayBack) {
  for (const int64_t before : {160, 44}) {  // it had all; it had fallen already
    SCOPED_TRACE(before);
    Engine engine(tiny(), resizable(kElastic, before, 160, 2));
    const SessionId session = engine.open_session();
    const GenerateResult first = engine.generate(session, text_at(0, 20), greedy(80));
    EXPECT_EQ(first.finish_reason, FinishReason::kLength);
    EXPECT_EQ(first.budget_changes.empty(), before == 160);
    set_pages(engine, 20);
    EXPECT_EQ(engine.kv_stats().total.pages_active, 0) << "parked";
    const GenerateResult second = engine.generate(session, text_at(3, 4), greedy(20));
    EXPECT_EQ(second.finish_reason, FinishReason::kLength);
    ASSERT_FALSE(second.budget_changes.empty());
    for (size_t i = 1; i < second.budget_changes.size(); ++i) {
      EXPECT_EQ(second.budget_changes[i].before, second.budget_changes[i - 1].after);
    }
    EXPECT_LE(in_use(engine), 20);
    engine.check_integrity();
  }
}

// A budget falls at decision lengths alone: one that stands between two of them, and has the pool
// no more in which to reach the next, is read again.
TEST(Budget, NoElasticSequenceAloneIsEndedByALowerOne) {
  for (const char* policy : {"lru@every:8", "h2o@every:16", "sink:3@every:8", "window@every:12"}) {
    for (int32_t length = 40; length < 58; length += 3) {
      for (const int64_t pages : {18, 20, 22, 23, 24, 25, 26, 27, 28, 29, 30, 40}) {
        SCOPED_TRACE(fmt::format("{}, {} positions, {} pages", policy, length, pages));
        for (const int64_t before : {100, 36}) {  // with 36 its budget has fallen already
          for (const bool fed : {false, true}) {
            Engine engine(tiny(), resizable(policy, before, 100, 2));
            const SessionId session = engine.open_session();
            engine.feed(session, text_at(0, static_cast<size_t>(length) + (before == 36 ? 36 : 0)));
            ASSERT_EQ(engine.kv_budget_changes().empty(), before == 100);
            set_pages(engine, pages);
            if (fed) {
              EXPECT_NO_THROW(engine.feed(session, text_at(3, 30)));
            } else {
              const GenerateResult r = engine.generate(session, text_at(3, 2), greedy(30));
              EXPECT_EQ(r.finish_reason, FinishReason::kLength) << r.tokens.size();
            }
            EXPECT_LE(in_use(engine), pages);
            engine.check_integrity();
          }
        }
      }
    }
  }
}

TEST(Budget, NorOneWhoseBudgetHadFallenAndWasLifted) {
  for (int32_t more = 0; more < 16; ++more) {
    for (int64_t pages = 18; pages < 40; pages += 2) {
      SCOPED_TRACE(fmt::format("{} more, {} pages", more, pages));
      Engine engine(tiny(), resizable("lru@every:8", 24, 100, 1));
      const SessionId session = engine.open_session();
      engine.feed(session, text_at(0, 50));
      set_pages(engine, 100);
      engine.generate(session, text_at(3, 2), greedy(1));
      ASSERT_EQ(engine.kv_budget_changes().back().after, kUnlimited) << "lifted";
      engine.feed(session, text_at(5, 1 + static_cast<size_t>(more)));
      set_pages(engine, pages);
      const GenerateResult r = engine.generate(session, text_at(3, 2), greedy(20));
      EXPECT_EQ(r.finish_reason, FinishReason::kLength) << r.tokens.size();
      engine.check_integrity();
    }
  }
}

TEST(Budget, WhatMayNotFallIsNotReadAgainForIt) {
  Engine engine(tiny(), resizable("lru@every:8", 100, 100, 1));
  const SessionId session = engine.open_session();
  engine.feed(session, text_at(0, 41));
  set_pages(engine, 22);  // of 44 positions
  GenerateOptions lossless = greedy(20);
  lossless.lossless = true;
  const GenerateResult r = engine.generate(session, text_at(3, 1), lossless);
  EXPECT_EQ(r.finish_reason, FinishReason::kKvFull);
  EXPECT_EQ(r.recomputed_tokens, 0);
  EXPECT_EQ(engine.session_length(session), 45);
}

// Nor where the cache holds more of its text than that.
TEST(Budget, AKeptTextIsListedNoFurtherThanABudgetMayFall) {
  for (const int64_t pages : {20, 22, 24, 26, 30}) {
    SCOPED_TRACE(pages);
    Engine engine(tiny(), shared_memory("lru@every:16", pages, 1));
    const std::vector<TokenId> text = text_at(0, 2 * static_cast<size_t>(pages));
    GenerateOptions lossless = greedy(1);
    lossless.lossless = true;
    engine.generate(std::vector<TokenId>(text.begin(), text.end() - 1), lossless);
    const GenerateResult r = engine.generate(text, greedy(40));
    EXPECT_EQ(r.finish_reason, FinishReason::kLength);
    EXPECT_EQ(r.cached_tokens, std::min((2 * pages - 1) / 4 * 4, 2 * pages / 16 * 16));
    EXPECT_FALSE(r.budget_changes.empty());
  }
}

// Whoever fell on the way back, and was interrupted there, goes on from there when its budget is
// lifted.
TEST(Budget, AFallOnAWayBackThatWasInterruptedIsLiftedThere) {
  for (const char* policy : {"lru@every:8", "h2o@every:8", "sink:3@every:8", "tova@every:6"}) {
    for (int steps = 1; steps < 24; ++steps) {
      SCOPED_TRACE(fmt::format("{}, {} steps", policy, steps));
      EngineOptions options = resizable(policy, 100, 100, 2);
      options.batch_size = 4;
      Engine engine(tiny(), options);
      const SessionId session = engine.open_session();
      engine.feed(session, text_at(0, 70));
      set_pages(engine, 24);  // of 48 positions
      const RequestId first = engine.add(session, text_at(3, 4), greedy(8));
      for (int i = 0; i < steps; ++i) {
        engine.step();
        engine.check_integrity();
      }
      engine.cancel(first);
      while (engine.step()) engine.check_integrity();
      const int64_t changes = static_cast<int64_t>(engine.kv_budget_changes().size());
      const RequestId second = engine.add(session, text_at(9, 3), greedy(8));
      while (engine.step()) engine.check_integrity();
      EXPECT_EQ(engine.take(second)->finish_reason, FinishReason::kLength);
      const std::vector<KvBudgetChange> all = engine.kv_budget_changes();
      int64_t length = 0;
      for (size_t i = static_cast<size_t>(changes); i < all.size(); ++i) {
        EXPECT_GE(all[i].length, length) << "in the order of lengths";
        length = all[i].length;
      }
    }
  }
}

TEST(Budget, OneThatAloneOutgrowsItEndsAndIsToldWhatHelps) {
  Engine engine(tiny(), resizable("full", 100, 100, 1));
  const RequestId id = engine.add(text_at(0, 20), greedy(50));
  for (int i = 0; i < 30; ++i) engine.step();
  set_pages(engine, 16);
  finish_all(engine);
  const GenerateResult result = engine.take(id).value();
  EXPECT_EQ(result.finish_reason, FinishReason::kKvFull);
  const std::vector<TokenId> all = alone("full", 0, 50);
  ASSERT_GT(result.tokens.size(), 10U);
  EXPECT_TRUE(std::equal(result.tokens.begin(), result.tokens.end(), all.begin()));
  ASSERT_FALSE(result.proposals.empty());
  ASSERT_TRUE(result.proposals[0].budget_bytes);
  engine.set_kv_budget(*result.proposals[0].budget_bytes);
  EXPECT_EQ(engine.generate(text_at(0, 20), greedy(50)).tokens, all);
}

TEST(Budget, FeedingGoesOnUnderALowerOne) {
  for (const char* policy : {"h2o:24@every:8", kElastic}) {
    SCOPED_TRACE(policy);
    Engine engine(tiny(), resizable(policy, 160, 160, 3));
    const SessionId a = engine.open_session(), b = engine.open_session();
    engine.feed(a, text_at(0, 61));
    engine.feed(b, text_at(9, 50));
    set_pages(engine, 34);
    EXPECT_LE(in_use(engine), 34);
    engine.feed(a, text_at(3, 30));
    EXPECT_LE(in_use(engine), 34);
    engine.feed(b, text_at(3, 30));
    EXPECT_LE(in_use(engine), 34);
    engine.check_integrity();
  }
}

TEST(Budget, LoweredInsideACallbackItHoldsFromTheNextStepOn) {
  Engine engine(tiny(), resizable("full", 100, 100, 4));
  GenerateOptions options = greedy(20);
  options.on_token = [&](const TokenEvent&) {
    set_pages(engine, 40);
    return true;
  };
  std::vector<RequestId> ids;
  for (int i = 0; i < 4; ++i) {
    ids.push_back(engine.add(text_at(static_cast<size_t>(7 * i), 20), options));
  }
  while (engine.kv_stats().pool_pages == 100) ASSERT_TRUE(engine.step());
  while (engine.step()) EXPECT_LE(in_use(engine), 40);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(engine.take(ids[static_cast<size_t>(i)])->tokens, alone("full", i, 20));
  }
}

TEST(Budget, WhoAsksWhatFitsIsToldOfTheLimitInForce) {
  Engine engine(tiny(), resizable("full", 20, 60, 2));
  EXPECT_EQ(engine.max_positions(), 40);
  EXPECT_THROW(engine.check_kv_policy("full", 44), Error);
  EXPECT_THROW(engine.add(text_at(0, 44), greedy(1)), Error);
  set_pages(engine, 60);
  EXPECT_EQ(engine.max_positions(), 120);
  engine.check_kv_policy("full", 44);
  EXPECT_EQ(engine.options().kv.budget_bytes, static_cast<uint64_t>(60 * page_bytes_of(engine)));
  set_pages(engine, 24);
  EXPECT_EQ(engine.max_positions(), 48);
  EXPECT_THROW(engine.set_kv_policy("h2o:60@every:8"), Error);
  EXPECT_EQ(engine.generate(text_at(0, 44), greedy(1)).finish_reason, FinishReason::kLength);
  const EngineOptions again = engine.options();
  EXPECT_EQ(Engine(tiny(), again).kv_stats().pool_max_pages, 60);
  EXPECT_EQ(Engine(tiny(), again).kv_stats().pool_pages, 24);
}

/// What is said of a budget, and what it proposes.
Error refused(Engine& engine, uint64_t bytes) {
  const KvStats before = engine.kv_stats();
  std::optional<Error> said;
  try {
    engine.set_kv_budget(bytes);
  } catch (const Error& e) {
    said = e;
  }
  EXPECT_TRUE(said.has_value()) << bytes;
  EXPECT_EQ(engine.kv_stats().pool_pages, before.pool_pages);
  EXPECT_EQ(engine.kv_stats().pages_free, before.pages_free);
  return said.value();
}

TEST(Budget, WhatCannotBeIsRefusedWithNumbersAndWhatWorks) {
  for (const char* policy : {"full", "h2o:24@every:8", kElastic}) {
    SCOPED_TRACE(policy);
    const EngineOptions options = resizable(policy, 60, 80, 2);
    Engine engine(tiny(), options);
    const auto page = static_cast<uint64_t>(page_bytes_of(engine));
    const Error more = refused(engine, 81 * page);
    EXPECT_EQ(more.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(std::string(more.what()).find(std::to_string(81 * page)), std::string::npos);
    EXPECT_NE(std::string(more.what()).find(std::to_string(80 * page)), std::string::npos);
    ASSERT_EQ(more.proposals().size(), 2U);
    engine.set_kv_budget(more.proposals()[0].budget_bytes.value());
    EXPECT_EQ(engine.kv_stats().pool_pages, 80);
    Engine larger(tiny(), with_proposal(options, more.proposals()[1]));
    larger.set_kv_budget(81 * page);
    EXPECT_EQ(larger.kv_stats().pool_pages, 81);

    const Error less = refused(engine, page);
    EXPECT_EQ(less.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(std::string(less.what()).find("at least"), std::string::npos) << less.what();
    ASSERT_FALSE(less.proposals().empty());
    const uint64_t least = less.proposals()[0].budget_bytes.value();
    engine.set_kv_budget(least);
    EXPECT_EQ(engine.generate(text_at(0, 1), greedy(1)).finish_reason, FinishReason::kLength);
    refused(engine, least - page);
  }
}

TEST(Budget, OptionsThatContradictAreRefused) {
  EngineOptions options = resizable("full", 60, 59, 2);
  EXPECT_NE(refusal_of([&] { Engine(tiny(), options); }).find("kv.max_budget_bytes"),
            std::string::npos);
  options.kv.budget_bytes = 0;
  Engine engine(tiny(), options);  // what is not given is what is reserved
  EXPECT_EQ(engine.kv_stats().pool_pages, 59);
  options.kv.budget_share = 0.1;
  EXPECT_NE(refusal_of([&] { Engine(tiny(), options); }).find("kv.max_budget_bytes"),
            std::string::npos);
  options.kv.max_budget_bytes = 0;
  options.kv.budget_share = 1e-2;
  options.max_sequences = 1;
  Engine shared(tiny(), options);
  const int64_t pages = shared.kv_stats().pool_pages;
  set_pages(shared, pages / 2);
  set_pages(shared, pages);
  EXPECT_EQ(shared.options().kv.budget_share, 1e-2);
}

TEST(Budget, WhatIsReservedIsTakenWhenTheEngineIsMade) {
  const EngineOptions options = resizable("full", 20, 60, 1);
  EngineOptions least = options;
  least.kv.max_budget_bytes = 0;
  const Engine small(tiny(), least), large(tiny(), options);
  EXPECT_GE(large.memory_bytes() - small.memory_bytes(),
            options.kv.max_budget_bytes - options.kv.budget_bytes);
  EngineOptions huge = options;
  huge.kv.max_budget_bytes = uint64_t{1} << 46;
  huge.context = 0;
  try {
    Engine(tiny(), huge);
    ADD_FAILURE() << "64 TiB";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory) << e.what();
    ASSERT_FALSE(e.proposals().empty()) << e.what();
    EXPECT_TRUE(e.proposals()[0].max_budget_bytes || e.proposals()[0].budget_bytes) << e.what();
  }
}

TEST(Budget, WhatIsWithheldGoesBackToTheSystem) {
  EngineOptions options = shared_memory("full", 100, 1);
  constexpr uint64_t kMiB = 1 << 20;
  options.kv.max_budget_bytes = 200 * kMiB;
  Engine engine(tiny(), options);
  const auto resident = [&] { return engine.kv_stats().memory.resident_bytes; };
  const uint64_t small = resident();
  engine.set_kv_budget(200 * kMiB);
  EXPECT_GE(resident(), small + 190 * kMiB);
  const std::vector<TokenId> said = engine.generate(text_at(0, 20), greedy(20)).tokens;
  engine.set_kv_budget(50 * kMiB);
  EXPECT_LE(resident(), small + 60 * kMiB);
  engine.set_kv_budget(100 * kMiB);
  EXPECT_GE(resident(), small + 90 * kMiB);
  EXPECT_EQ(engine.generate(text_at(0, 20), greedy(20)).tokens, said);
}

}  // namespace
}  // namespace paddock::test
