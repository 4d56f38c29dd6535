// Many sequences in one memory: who gets tokens in a step, who has to give its pages up, and that
// each makes the text that it makes alone, whatever happened to it.
#include <paddock/paddock.h>

#include <algorithm>
#include <map>
#include <random>

#include "support/rule_examples.h"
#include "support/shared_memory.h"

namespace paddock::test {
namespace {

// ---- what is made does not depend on who else is there
// ------------------------------------------

class InAnyCompany : public testing::TestWithParam<RuleExample> {};

TEST_P(InAnyCompany, RequestsMakeWhatTheyMakeAlone) {
  const std::string& policy = GetParam().policy;
  Engine alone(tiny(), shared_memory(policy, 0, 1));
  const int64_t pool = tight_pool(policy);
  int64_t preemptions = 0;
  std::map<std::tuple<size_t, size_t, int32_t>, std::vector<TokenId>> known;
  for (uint32_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(testing::Message() << policy << ", seed " << seed);
    std::mt19937 random(seed);
    const auto draw = [&](int from, int to) {
      return std::uniform_int_distribution<int>(from, to)(random);
    };
    Engine engine(tiny(), shared_memory(policy, pool, draw(3, 4)));
    struct Wish {
      size_t begin, prompt;
      int32_t n;
      RequestId id;
    };
    std::vector<Wish> wishes;
    for (int i = 0; i < 8; ++i) {
      Wish wish{static_cast<size_t>(draw(0, 3)), static_cast<size_t>(draw(1, 50)), draw(1, 40), 0};
      GenerateOptions options = greedy(wish.n);
      options.priority = draw(-1, 1);
      wish.id = engine.add(text_at(wish.begin, wish.prompt), options);
      wishes.push_back(wish);
      for (int steps = draw(0, 6); steps > 0; --steps) {
        engine.step();
        engine.check_integrity();
      }
    }
    finish_all(engine);
    for (const Wish& wish : wishes) {
      const auto result = engine.take(wish.id);
      ASSERT_TRUE(result);
      auto& expected = known[{wish.begin, wish.prompt, wish.n}];
      if (expected.empty()) {
        expected = alone.generate(text_at(wish.begin, wish.prompt), greedy(wish.n)).tokens;
      }
      EXPECT_EQ(result->tokens, expected);
      EXPECT_EQ(result->finish_reason, FinishReason::kLength);
      EXPECT_EQ(result->prompt_tokens, static_cast<int64_t>(wish.prompt));
      EXPECT_EQ(result->recomputed_tokens > 0, result->preemptions > 0);
      EXPECT_EQ(
          result->cached_tokens + result->timings.prefill_tokens + result->timings.decode_tokens,
          static_cast<int64_t>(wish.prompt) + wish.n - 1 + result->recomputed_tokens);
      preemptions += result->preemptions;
    }
    const KvStats stats = engine.kv_stats();
    EXPECT_EQ(stats.total.pages_active, 0);
    EXPECT_EQ(stats.policy_violations, 0);
  }
  EXPECT_GT(preemptions, 0) << "the pool was not tight";
}

TEST_P(InAnyCompany, SessionsGoOnWhereTheyWere) {
  const std::string& policy = GetParam().policy;
  const int64_t pool = tight_pool(policy);
  for (const int turns : {1, 2, 3}) {
    for (const size_t prompt : {3U, 17U, 25U}) {
      SCOPED_TRACE(testing::Message()
                   << policy << ", " << turns << " turns, prompts of " << prompt);
      Engine undisturbed(tiny(), shared_memory(policy, 0));
      Engine engine(tiny(), shared_memory(policy, pool));
      const SessionId expected = undisturbed.open_session();
      const SessionId session = engine.open_session();
      for (int turn = 0; turn < turns; ++turn) {
        const std::vector<TokenId> tokens = text_at(static_cast<size_t>(7 * turn), prompt - turn);
        EXPECT_EQ(engine.generate(session, tokens, greedy(3 + turn)).tokens,
                  undisturbed.generate(expected, tokens, greedy(3 + turn)).tokens);
        // Two that need nearly all pages drive the session out of its own.
        std::vector<RequestId> others;
        for (int i = 0; i < 2; ++i) others.push_back(engine.add(text_at(11, 40), greedy(40)));
        finish_all(engine);
        for (const RequestId id : others) EXPECT_EQ(engine.take(id)->tokens.size(), 40U);
        EXPECT_EQ(engine.session_length(session), undisturbed.session_length(expected));
      }
      const std::vector<TokenId> last = text_at(30, 9);
      const std::span<const float> logits = engine.feed(session, last, 5);
      const std::vector<float> actual(logits.begin(), logits.end());
      const std::span<const float> row = undisturbed.feed(expected, last, 5);
      EXPECT_EQ(actual, std::vector<float>(row.begin(), row.end()));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, InAnyCompany, testing::ValuesIn(rule_examples()), name_of);

TEST(Parked, ASessionMayBeFedTruncatedMeasuredAndClosed) {
  const auto parked = [](Engine& engine, size_t n) {
    const SessionId session = engine.open_session();
    engine.feed(session, text_at(0, n));
    const RequestId other = engine.add(text_at(9, 50), greedy(30));
    finish_all(engine);
    EXPECT_EQ(engine.take(other)->tokens.size(), 30U);
    EXPECT_EQ(engine.kv_stats().total.pages_active, 0);
    EXPECT_EQ(engine.session_length(session), static_cast<int64_t>(n));
    return session;
  };
  const int64_t pool = tight_pool("full");
  Engine engine(tiny(), shared_memory("full", pool));
  const auto fresh = [](const std::vector<TokenId>& text) {
    Engine other(tiny(), shared_memory("full", 0));
    const std::span<const float> row = other.feed(other.open_session(), text);
    return std::vector<float>(row.begin(), row.end());
  };
  const SessionId one = parked(engine, 30);
  EXPECT_EQ(engine.max_positions(one), engine.max_positions());
  engine.truncate(one, 13);
  EXPECT_EQ(engine.session_length(one), 13);
  const std::span<const float> row = engine.feed(one, text_at(13, 2));
  EXPECT_EQ(std::vector<float>(row.begin(), row.end()), fresh(text_at(0, 15)));
  engine.close_session(one);

  // Logits of what is new alone are handed out.
  const SessionId two = parked(engine, 30);
  std::vector<int64_t> positions;
  std::vector<float> last;
  engine.feed(two, text_at(30, 3), [&](int64_t position, std::span<const float> logits) {
    positions.push_back(position);
    last.assign(logits.begin(), logits.end());
    return true;
  });
  EXPECT_EQ(positions, (std::vector<int64_t>{30, 31, 32}));
  EXPECT_EQ(last, fresh(text_at(0, 33)));
  engine.close_session(two);

  const SessionId three = parked(engine, 30);
  EXPECT_THROW(engine.feed(three, text_at(0, 99)), Error) << "context";
  engine.close_session(three);
  engine.set_kv_policy("sink:2+10");
  engine.check_integrity();
}

TEST(Parked, WhatLeavesSaysSo) {
  EngineOptions options = shared_memory("full", tight_pool("full"));
  options.kv.reuse = false;  // what is kept leaves later, and as "capacity"
  Engine engine(tiny(), options);
  const RequestId first = engine.add(text_at(0, 20), greedy(60));
  const RequestId second = engine.add(text_at(3, 20), greedy(60));
  finish_all(engine);
  EXPECT_EQ(engine.take(first)->preemptions, 0);
  const auto parked = engine.take(second);
  EXPECT_EQ(parked->preemptions, 1);
  EXPECT_GE(parked->recomputed_tokens, 20);
  EXPECT_GT(engine.kv_stats().total.pages_removed[static_cast<size_t>(RemovalReason::kPreempt)], 0);
}

TEST(Parked, AFeedTakesTheMemoryOfWhatWaitsForTheNextStep) {
  const int64_t pool = tight_pool("full");
  Engine engine(tiny(), shared_memory("full", pool));
  const RequestId running = engine.add(text_at(0, 40), greedy(30));
  while (engine.kv_stats().total.pages_active < pool / 2) engine.step();
  const SessionId session = engine.open_session();
  engine.feed(session, text_at(5, 80));
  EXPECT_EQ(engine.session_length(session), 80);
  finish_all(engine);
  const auto result = engine.take(running);
  EXPECT_EQ(result->preemptions, 1);
  EXPECT_EQ(result->tokens,
            Engine(tiny(), shared_memory("full", 0)).generate(text_at(0, 40), greedy(30)).tokens);
}

TEST(Parked, TheSessionThatWasNotUsedForLongestIsTheFirst) {
  EngineOptions options = shared_memory("full", 16);
  options.kv.reuse = false;
  Engine engine(tiny(), options);
  const SessionId busy = engine.open_session(), idle = engine.open_session();
  for (const SessionId session : {busy, idle}) engine.feed(session, text_at(0, 12));
  engine.feed(busy, text_at(12, 1));
  EXPECT_EQ(engine.kv_stats().total.pages_active, 8 + 6);
  engine.generate(text_at(30, 8), greedy(1));
  EXPECT_EQ(engine.stats().sessions_parked, 1);
  EXPECT_EQ(engine.generate(busy, text_at(30, 1), greedy(1)).recomputed_tokens, 0);
  EXPECT_EQ(engine.generate(idle, text_at(30, 1), greedy(1)).recomputed_tokens, 12);
}

TEST_P(InAnyCompany, AForkGoesOnAsItsOriginWould) {
  const std::string& policy = GetParam().policy;
  for (const size_t prompt : {1U, 16U, 30U}) {
    SCOPED_TRACE(testing::Message() << policy << ", prompt of " << prompt);
    Engine undisturbed(tiny(), shared_memory(policy, 0));
    Engine engine(tiny(), shared_memory(policy, 0));
    const SessionId expected = undisturbed.open_session();
    const SessionId origin = engine.open_session();
    undisturbed.generate(expected, text_at(2, prompt), greedy(7));
    engine.generate(origin, text_at(2, prompt), greedy(7));
    const SessionId fork = engine.fork_session(origin);
    EXPECT_EQ(engine.session_length(fork), engine.session_length(origin));
    // Whatever the origin says meanwhile.
    engine.generate(origin, text_at(40, 6), greedy(5));
    const std::vector<TokenId> next = text_at(20, 5);
    const GenerateResult forked = engine.generate(fork, next, greedy(9));
    EXPECT_EQ(forked.tokens, undisturbed.generate(expected, next, greedy(9)).tokens);
    EXPECT_EQ(forked.prompt_tokens, 6) << "the pending token and five";
    EXPECT_EQ(forked.recomputed_tokens, 0) << "all that the origin had is listed";
    engine.check_integrity();
    // Shortened before it goes on, whatever its rule has dropped.
    const SessionId shorter = engine.fork_session(fork);
    const auto length = static_cast<int64_t>(prompt) / 2;
    engine.truncate(shorter, length);
    const SessionId fresh = undisturbed.open_session();
    std::vector<TokenId> begin = text_at(2, prompt / 2);
    begin.insert(begin.end(), next.begin(), next.end());
    EXPECT_EQ(engine.generate(shorter, next, greedy(6)).tokens,
              undisturbed.generate(fresh, begin, greedy(6)).tokens);
    undisturbed.close_session(fresh);
    engine.check_integrity();
  }
}

TEST(Forks, CopyTheirLastBlockAndNoMore) {
  Engine engine(tiny(), shared_memory("full", 0));
  const SessionId origin = engine.open_session();
  engine.feed(origin, text_at(2, 30));  // seven blocks and two positions, in each of two layers
  const auto used = [&] { return engine.kv_stats().total.pages_active; };
  EXPECT_EQ(used(), 2 * 8);
  const SessionId fork = engine.fork_session(origin);
  EXPECT_EQ(used(), 2 * 8);
  engine.feed(fork, text_at(40, 1));
  EXPECT_EQ(used(), 2 * 9);
  engine.feed(origin, text_at(50, 1));
  EXPECT_EQ(used(), 2 * 9);
  EXPECT_EQ(engine.stats().recomputed_tokens, 0);
}

TEST(Parked, APromptThatWasTakenBackDecidesNothingAnywhere) {
  const std::string policy = "snapkv:24";
  EngineOptions options = shared_memory(policy, 0);
  options.batch_size = 16;
  for (const int64_t length : {16, 20}) {
    Engine engine(tiny(), options);
    const SessionId session = engine.open_session();
    const RequestId cancelled = engine.add(session, text_at(0, 60), greedy(1));
    engine.step();
    engine.cancel(cancelled);
    engine.step();
    engine.truncate(session, length);
    const SessionId fork = engine.fork_session(session);
    Engine other(tiny(), options);
    const SessionId fresh = other.open_session();
    std::vector<TokenId> more = text_at(static_cast<size_t>(length), 50);
    const auto copy = [](std::span<const float> row) {
      return std::vector<float>(row.begin(), row.end());
    };
    const std::vector<float> actual = copy(engine.feed(session, more));
    EXPECT_EQ(actual, copy(engine.feed(fork, more)));
    const std::vector<TokenId> begin = text_at(0, static_cast<size_t>(length));
    more.insert(more.begin(), begin.begin(), begin.end());
    EXPECT_EQ(actual, copy(other.feed(fresh, more)));
  }
}

TEST(Fork, OfAParkedSessionTakesAPlaceAndIsReadAgain) {
  EngineOptions options = shared_memory("full", 2 * 20, 2);
  options.kv.reuse = false;
  for (const int32_t places : {2, 3}) {
    options.max_sequences = places;
    Engine engine(tiny(), options);
    const SessionId first = engine.open_session(), second = engine.open_session();
    engine.feed(first, text_at(0, 40));
    engine.feed(second, text_at(3, 60));
    ASSERT_EQ(engine.kv_stats().sequences, 1) << "the first one is parked";
    if (places == 2) {
      EXPECT_NE(refusal_of([&] { engine.fork_session(first); }).find("max_sequences"),
                std::string::npos);
      continue;
    }
    const SessionId fork = engine.fork_session(first);
    const GenerateResult r = engine.generate(fork, text_at(40, 3), greedy(2));
    EXPECT_EQ(r.recomputed_tokens, 40) << "its origin had computed them";
    EXPECT_EQ(r.tokens, Engine(tiny(), options).generate(text_at(0, 43), greedy(2)).tokens);
  }
}

TEST(Fork, TakesAPlaceAndLeavesItsOriginAlone) {
  Engine engine(tiny(), shared_memory("full", 0, 2));
  const SessionId one = engine.open_session();
  const SessionId two = engine.fork_session(one);
  EXPECT_EQ(engine.session_length(two), 0);
  EXPECT_NE(refusal_of([&] { engine.fork_session(one); }).find("max_sequences"), std::string::npos);
  EXPECT_NE(refusal_of([&] { engine.open_session(); }).find("max_sequences"), std::string::npos);
  engine.close_session(two);
  const RequestId place = engine.add(text_at(0, 5), greedy(2));
  engine.step();
  EXPECT_NE(refusal_of([&] { engine.fork_session(one); }).find("max_sequences"), std::string::npos)
      << "what runs has its place";
  finish_all(engine);
  EXPECT_TRUE(engine.take(place));
  const RequestId running = engine.add(one, text_at(0, 5), greedy(2));
  EXPECT_NE(refusal_of([&] { engine.fork_session(one); }).find("running a request"),
            std::string::npos);
  finish_all(engine);
  EXPECT_TRUE(engine.take(running));
  const SessionId shorter = engine.fork_session(one);
  engine.truncate(shorter, 3);
  EXPECT_EQ(engine.session_length(one), 7);
  // What was taken back is not computed again, and what comes in its place is new.
  const GenerateResult next = engine.generate(shorter, text_at(20, 2), greedy(1));
  EXPECT_EQ(next.prompt_tokens, 2);
  EXPECT_EQ(next.recomputed_tokens, 0);
}

// ---- who gets tokens
// ----------------------------------------------------------------------------

/// Tokens said so far by each of several requests.
class Said {
 public:
  RequestId add(Engine& engine, const std::vector<TokenId>& prompt, int32_t n,
                int32_t priority = 0) {
    const size_t place = counts.size();
    counts.push_back(0);
    GenerateOptions options = greedy(n);
    options.priority = priority;
    options.on_token = [this, place](const TokenEvent&) {
      if (counts[place]++ == 0) firsts.push_back(place);
      return true;
    };
    return engine.add(prompt, options);
  }
  std::vector<int> counts;
  std::vector<size_t> firsts;
};

TEST(Shares, WhoDecodesGetsATokenInEachStepWhateverArrives) {
  EngineOptions options = shared_memory("full", 0);
  options.batch_size = 16;
  options.mixed_prefill = 6;
  options.kv.reuse = false;
  Engine engine(tiny(), options);
  Said said;
  said.add(engine, text_at(0, 5), 60);
  while (said.counts[0] == 0) engine.step();
  for (int i = 0; i < 3; ++i) said.add(engine, text_at(1, 50), 5);
  for (int step = 0; step < 20; ++step) {
    const std::vector<int> before = said.counts;
    const int64_t written = engine.kv_stats().tokens_written;
    engine.step();
    int64_t decoding = 0;
    for (size_t i = 0; i < before.size(); ++i) {
      if (before[i] == 0 || before[i] == (i == 0 ? 60 : 5)) continue;
      EXPECT_EQ(said.counts[i], before[i] + 1) << step;
      ++decoding;
    }
    EXPECT_LE(engine.kv_stats().tokens_written - written, decoding + 6);
    EXPECT_GT(engine.kv_stats().tokens_written - written, decoding);
  }
  finish_all(engine);
}

TEST(Shares, NoStepIsLargerThanTheBatch) {
  EngineOptions options = shared_memory("full", 0);
  options.batch_size = 10;
  options.mixed_prefill = 500;
  Engine engine(tiny(), options);
  Said said;
  for (int i = 0; i < 4; ++i) {
    said.add(engine, text_at(0, 50), 20);
    for (int64_t step = 0; step < 3; ++step) {
      const int64_t written = engine.kv_stats().tokens_written;
      engine.step();
      EXPECT_LE(engine.kv_stats().tokens_written - written, 10);
    }
  }
  finish_all(engine);
}

TEST(Shares, AStepHasRoomForATokenOfEachSequenceAlsoWherePromptsAreAlone) {
  EngineOptions options = shared_memory("full", 0, 6);
  options.batch_size = 3;
  Engine engine(tiny(), options);
  Said said;
  said.add(engine, text_at(0, 20), 1);
  said.add(engine, text_at(3, 20), 1);
  engine.step();
  EXPECT_EQ(engine.kv_stats().tokens_written, 6);
  finish_all(engine);
}

TEST(Shares, AShortPromptDoesNotWaitForALongOne) {
  EngineOptions options = shared_memory("full", 0);
  options.batch_size = 8;
  Engine engine(tiny(), options);
  Said said;
  const RequestId together = said.add(engine, text_at(0, 100), 2);
  said.add(engine, text_at(3, 4), 2);
  engine.step();
  EXPECT_EQ(said.counts, (std::vector<int>{0, 1})) << "four tokens each";
  finish_all(engine);
  EXPECT_EQ(engine.take(together)->timings.prefill_tokens, 100);
}

TEST(Shares, WhoHasNothingToGetDoesNotWait) {
  const auto alike = text_at(0, 9), other = text_at(3, 9);
  // Other texts; and a block that ends with the prompt, whose last token runs in any case.
  for (const auto& [first, second] : {std::pair{alike, other}, {text_at(0, 4), text_at(0, 4)}}) {
    Engine engine(tiny(), shared_memory("full", 0));
    Said said;
    said.add(engine, first, 2);
    said.add(engine, second, 2);
    engine.step();
    EXPECT_EQ(said.counts, (std::vector<int>{1, 1})) << first.size();
    finish_all(engine);
  }
}

/// Tokens of one prompt that each step brings beside an answer, up to the prompt's end.
std::vector<int64_t> brought_beside(Engine& engine, size_t prompt) {
  Said said;
  said.add(engine, text_at(0, 3), 60);
  engine.step();
  said.add(engine, text_at(1, prompt), 1);
  std::vector<int64_t> brought;
  for (int64_t before = engine.kv_stats().tokens_written; said.counts[1] == 0;) {
    engine.step();
    const int64_t now = engine.kv_stats().tokens_written;
    brought.push_back(now - before - 1);
    before = now;
  }
  finish_all(engine);
  return brought;
}

TEST(Shares, BesideOneThatDecodesAPromptBringsFewerTokensTheMoreTheySee) {
  for (const std::string policy : {"full", "window:4"}) {
    EngineOptions options = shared_memory(policy, 0);
    options.mixed_prefill = 16;
    options.kv.reuse = false;
    Engine engine(tiny(), options);
    std::vector<int64_t> brought = brought_beside(engine, 100);
    ASSERT_GT(brought.size(), 5U);
    brought.pop_back();  // what was left
    EXPECT_TRUE(std::is_sorted(brought.rbegin(), brought.rend()));
    EXPECT_LE(brought.front(), 16);
    if (policy == "full") {
      EXPECT_LE(brought.back(), brought[1] - 3);
    } else {  // each sees as much as the one before
      EXPECT_GE(brought.back(), brought[1]);
    }
  }
}

TEST(Shares, ATokenOfAPromptCostsOneAndWhatItSeesByTheModelsShape) {
  // A layer's multiplications with weights for one token, divided by those with one position's key
  // and value; one of these, in float32, counts as four on a CPU.
  const ModelInfo& info = tiny()->info();
  const double q = info.n_heads * info.head_dim, kv = info.n_kv_heads * info.head_dim;
  const double weights = info.hidden_size * (2 * q + 2 * kv + 3.0 * info.intermediate_size);
  const double c = weights / (2 * q) / 4;
  const auto cost = [&](int64_t first, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += 1 + (static_cast<double>(first + i) + 0.5) / c;
    return sum;
  };
  EngineOptions options = shared_memory("full", 0);
  options.mixed_prefill = 40;
  options.batch_size = 100;
  options.kv.reuse = false;
  Engine engine(tiny(), options);
  int64_t read = 0;
  for (const int64_t brought : brought_beside(engine, 110)) {
    EXPECT_LE(cost(read, brought), 40 + 1e-6) << "from position " << read;
    read += brought;
    if (read == 110) break;  // that was what was left
    EXPECT_GT(cost(read - brought, brought + 1), 40) << "to position " << read;
  }
  EXPECT_EQ(read, 110);
}

TEST(Shares, WhoNeedsTheSameBlocksWaitsForWhoComputesThem) {
  EngineOptions options = shared_memory("full", 0);
  const std::vector<TokenId> prompt = text_at(0, 50);
  const std::vector<TokenId> expected = Engine(tiny(), options).generate(prompt, greedy(8)).tokens;
  for (const auto& [reuse, batch] :
       {std::pair{true, 24}, std::pair{true, 5}, std::pair{true, 1}, std::pair{false, 24}}) {
    options.kv.reuse = reuse;
    options.batch_size = batch;
    Engine engine(tiny(), options);
    std::vector<RequestId> ids;
    for (int i = 0; i < 3; ++i) ids.push_back(engine.add(prompt, greedy(8)));
    std::vector<TokenId> other = prompt;  // alike for 38 of 50 tokens
    other[38] = other[38] + 1;
    ids.push_back(engine.add(other, greedy(8)));
    finish_all(engine);
    for (int i = 0; i < 3; ++i) {
      const GenerateResult result = *engine.take(ids[i]);
      EXPECT_EQ(result.tokens, expected);
      if (!reuse) continue;
      // Who waited has nothing missing, once it computes something.
      EXPECT_EQ(result.cached_tokens, i == 0 ? 0 : 48);
      EXPECT_EQ(result.miss.reason, i == 0 ? MissReason::kFirstSeen : MissReason::kNone);
    }
    if (reuse) {
      const PrefixMiss miss = engine.take(ids[3])->miss;
      EXPECT_EQ(miss.reason, MissReason::kDiffers);
      EXPECT_EQ(miss.position, 36);
      EXPECT_EQ(engine.kv_stats().prefix_lookups, 2 * 12 + 9 + 2) << "found, and missing once each";
      EXPECT_EQ(engine.kv_stats().prefix_hits, 2 * 12 + 9);
    }
    // 12 blocks and two tokens; the two tokens of each other one; and the last one from its own
    // tenth block on.
    EXPECT_EQ(engine.stats().computed_tokens, reuse ? 50 + 2 * 2 + 14 : 4 * 50);
  }
}

TEST(Shares, MorePromptsThanThereIsWorkForTakeTurns) {
  for (const int32_t mixed : {1, 3, 7, 8}) {
    EngineOptions options = shared_memory("full", 0, 16);
    options.batch_size = 64;
    options.mixed_prefill = mixed;
    Engine engine(tiny(), options);
    Said said;
    said.add(engine, text_at(0, 1), 200);
    engine.step();
    for (int i = 0; i < 12; ++i) said.add(engine, text_at(i, 6), 1);
    int steps = 0;
    for (; said.firsts.size() < 13 && steps < 100; ++steps) {
      const int64_t written = engine.kv_stats().tokens_written;
      const int listened = said.counts[0];
      engine.step();
      EXPECT_EQ(said.counts[0], listened + 1);
      // One prompt brings a token in any case.
      EXPECT_LE(engine.kv_stats().tokens_written - written, 1 + mixed) << mixed;
      EXPECT_GE(engine.kv_stats().tokens_written - written, 2) << mixed;
      if (mixed > 1 || steps >= 30) continue;
      EXPECT_EQ(said.firsts.size(), 1U) << "no prompt is read before the others have come as far";
    }
    EXPECT_EQ(said.firsts.size(), 13U) << "nobody starves";
    EXPECT_LE(steps, 12 * 6);
    finish_all(engine);
  }
}

TEST(Queue, GoesByPriorityAndWaitingCountsToo) {
  EngineOptions options = shared_memory("full", 0, 1);
  Engine engine(tiny(), options);
  Said said;
  said.add(engine, text_at(0, 4), 1);
  said.add(engine, text_at(0, 4), 1, -1);
  said.add(engine, text_at(0, 4), 1, 2);
  said.add(engine, text_at(0, 4), 1, 0);
  finish_all(engine);
  EXPECT_EQ(said.firsts, (std::vector<size_t>{2, 0, 3, 1}));

  // Behind a stream of others of a higher level one comes at last.
  said = {};
  said.add(engine, text_at(0, 2), 1, -1);
  for (int i = 0; said.counts[0] == 0; ++i) {
    ASSERT_LT(i, 200);
    said.add(engine, text_at(0, 2), 1);
    engine.step();
  }
  EXPECT_GE(said.firsts.size(), 60U);
  EXPECT_LE(said.firsts.size(), 70U);
  finish_all(engine);
}

TEST(Queue, TheLeastImportantGivesItsPagesUp) {
  Engine engine(tiny(), shared_memory("full", tight_pool("full")));
  GenerateOptions options = greedy(50);
  const RequestId early = engine.add(text_at(0, 20), options);
  while (engine.kv_stats().steps < 5) engine.step();
  options.priority = 1;
  const RequestId late = engine.add(text_at(3, 20), options);
  finish_all(engine);
  EXPECT_EQ(engine.take(early)->preemptions, 1);
  EXPECT_EQ(engine.take(late)->preemptions, 0);
}

TEST(Queue, HasAnEnd) {
  EngineOptions options = shared_memory("full", 0, 1);
  options.max_queued = 2;
  Engine engine(tiny(), options);
  const std::vector<TokenId> prompt = text_at(0, 4);
  engine.add(prompt, greedy(3));
  engine.add(prompt, greedy(3));
  try {
    engine.add(prompt, greedy(3));
    ADD_FAILURE() << "a third waits";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(std::string(e.what()).find("max_queued"), std::string::npos) << e.what();
  }
  engine.step();  // one runs now
  const RequestId third = engine.add(prompt, greedy(3));
  finish_all(engine);
  EXPECT_TRUE(engine.take(third));
  GenerateOptions wrong = greedy(3);
  wrong.priority = kMaxPriority + 1;
  EXPECT_NE(refusal_of([&] { engine.add(prompt, wrong); }).find("priority is 1001"),
            std::string::npos);
}

TEST(Queue, SessionsMayWaitInItToo) {
  Engine engine(tiny(), shared_memory("full", 0));
  Engine alone(tiny(), shared_memory("full", 0, 1));
  const SessionId one = engine.open_session();
  const SessionId two = engine.open_session();
  const RequestId first = engine.add(one, text_at(0, 9), greedy(6));
  const RequestId second = engine.add(two, text_at(4, 12), greedy(6));
  EXPECT_THROW(engine.session_length(one), Error) << "it is in use";
  finish_all(engine);
  const std::vector<TokenId> said = engine.take(first)->tokens;
  EXPECT_EQ(said, alone.generate(text_at(0, 9), greedy(6)).tokens);
  EXPECT_EQ(engine.take(second)->tokens, alone.generate(text_at(4, 12), greedy(6)).tokens);
  std::vector<TokenId> text = text_at(0, 9);
  text.insert(text.end(), said.begin(), said.end());
  text.push_back(5);
  const RequestId next = engine.add(one, std::vector<TokenId>{5}, greedy(4));
  finish_all(engine);
  EXPECT_EQ(engine.take(next)->tokens, alone.generate(text, greedy(4)).tokens);
}

}  // namespace
}  // namespace paddock::test
