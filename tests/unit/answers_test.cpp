// Several answers to one prompt: it is computed once, and each is what a request of its own with
// that seed makes, whatever happens to the others.
#include <map>
#include <random>

#include "engine/engine_impl.h"
#include "support/hooked_backend.h"
#include "support/rule_examples.h"
#include "support/shared_memory.h"

namespace paddock::test {
namespace {

/// What requests of one answer make alone.
class Alone {
 public:
  explicit Alone(EngineOptions options) : engine_(tiny(), one(std::move(options))) {}

  const GenerateResult& of(size_t begin, size_t prompt, const GenerateOptions& asked, int32_t i) {
    GenerateOptions options = asked;
    options.n = 1;
    options.sampling.seed += static_cast<uint64_t>(i);
    options.on_token = nullptr;
    auto [at, is_new] =
        known_.try_emplace({begin, prompt, options.max_tokens, options.sampling.seed});
    if (is_new) at->second = engine_.generate(text_at(begin, prompt), options);
    return at->second;
  }

 private:
  static EngineOptions one(EngineOptions options) {
    options.max_sequences = 1;
    options.kv.budget_bytes = 0;
    return options;
  }
  Engine engine_;
  std::map<std::tuple<size_t, size_t, int32_t, uint64_t>, GenerateResult> known_;
};

class AnswersUnder : public testing::TestWithParam<RuleExample> {};

TEST_P(AnswersUnder, EachIsWhatARequestWithItsSeedMakesInAnyCompany) {
  const std::string& policy = GetParam().policy;
  Alone alone(shared_memory(policy, 0));
  const int64_t pool = tight_pool(policy);
  int64_t preemptions = 0, cancelled = 0;
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(testing::Message() << policy << ", seed " << seed);
    std::mt19937 random(seed);
    const auto draw = [&](int from, int to) {
      return std::uniform_int_distribution<int>(from, to)(random);
    };
    Engine engine(tiny(), shared_memory(policy, pool + draw(0, 2), draw(2, 5)));
    struct Wish {
      size_t begin, prompt;
      GenerateOptions options;
      RequestId id;
    };
    std::vector<Wish> wishes;
    for (int i = 0; i < 4; ++i) {
      Wish wish{static_cast<size_t>(draw(0, 3)), static_cast<size_t>(draw(1, 50)),
                drawn(draw(1, 5), draw(1, 30), draw(0, 9)), 0};
      wish.options.priority = draw(-1, 1);
      wish.id = engine.add(text_at(wish.begin, wish.prompt), wish.options);
      wishes.push_back(wish);
      for (int steps = draw(0, 6); steps > 0; --steps) {
        engine.step();
        engine.check_integrity();
      }
      if (draw(0, 2) == 0) engine.cancel(wish.id + draw(0, wish.options.n - 1));
    }
    finish_all(engine);
    for (const Wish& wish : wishes) {
      for (int32_t i = 0; i < wish.options.n; ++i) {
        const auto result = engine.take(wish.id + i);
        ASSERT_TRUE(result);
        EXPECT_EQ(result->answer, i);
        const GenerateResult& expected = alone.of(wish.begin, wish.prompt, wish.options, i);
        preemptions += result->preemptions;
        if (result->finish_reason == FinishReason::kCancelled) {
          ++cancelled;
          ASSERT_LE(result->tokens.size(), expected.tokens.size());
          EXPECT_TRUE(
              std::equal(result->tokens.begin(), result->tokens.end(), expected.tokens.begin()));
          continue;
        }
        EXPECT_EQ(result->tokens, expected.tokens) << "answer " << i;
        EXPECT_EQ(result->trims, expected.trims);
        EXPECT_EQ(
            result->cached_tokens + result->timings.prefill_tokens + result->timings.decode_tokens,
            static_cast<int64_t>(wish.prompt) + wish.options.max_tokens - 1 +
                result->recomputed_tokens);
      }
    }
    expect_nothing_held(engine);
    EXPECT_EQ(engine.kv_stats().policy_violations, 0);
  }
  EXPECT_GT(preemptions, 0) << "the pool was not tight";
  EXPECT_GT(cancelled, 0);
}

TEST_P(AnswersUnder, ThePromptIsComputedOnceAndOnlyItsLastBlockIsCopied) {
  const std::string& policy = GetParam().policy;
  for (const size_t prompt : {1U, 16U, 30U, 43U}) {
    SCOPED_TRACE(testing::Message() << policy << ", prompt of " << prompt);
    EngineOptions options = shared_memory(policy, 0);
    Alone alone(options);
    Engine single(tiny(), options);
    single.add(text_at(2, prompt), drawn(1, 9, 3));
    while (single.stats().generated_tokens == 0) single.step();
    Engine engine(tiny(), options);
    const RequestId id = engine.add(text_at(2, prompt), drawn(4, 9, 3));
    while (engine.stats().generated_tokens == 0) {
      engine.step();
      engine.check_integrity();
    }
    EXPECT_EQ(engine.stats().generated_tokens, 4) << "all have their first token at once";
    EXPECT_EQ(engine.stats().computed_tokens, static_cast<int64_t>(prompt));
    const int64_t pages = engine.kv_stats().total.pages_active;
    EXPECT_EQ(pages, single.kv_stats().total.pages_active);
    engine.step();
    // The last one to write to the block that is partly filled needs no copy; new blocks are each
    // one's own. Rules that drop blocks may let go of some meanwhile.
    const int64_t n_layers = static_cast<int64_t>(engine.kv_stats().layers.size());
    EXPECT_LE(engine.kv_stats().total.pages_active, pages + n_layers * (prompt % 4 == 0 ? 4 : 3));
    finish_all(engine);
    EXPECT_EQ(engine.stats().computed_tokens, static_cast<int64_t>(prompt));
    for (int32_t i = 0; i < 4; ++i) {
      const GenerateResult result = *engine.take(id + i);
      EXPECT_EQ(result.tokens, alone.of(2, prompt, drawn(4, 9, 3), i).tokens);
      EXPECT_EQ(result.timings.prefill_tokens, i == 0 ? static_cast<int64_t>(prompt) : 0);
      EXPECT_EQ(result.cached_tokens, i == 0 ? 0 : static_cast<int64_t>(prompt));
      if (i == 0 && prompt > 4 && policy == "full") {
        EXPECT_EQ(result.miss.reason, MissReason::kFirstSeen);
      }
      EXPECT_EQ(result.prompt_tokens, static_cast<int64_t>(prompt));
    }
    expect_nothing_held(engine);
  }
}

TEST_P(AnswersUnder, WhoFindsAPlaceLaterMakesTheSame) {
  const std::string& policy = GetParam().policy;
  EngineOptions options = shared_memory(policy, 0, 2);
  Alone alone(options);
  Engine engine(tiny(), options);
  const GenerateOptions asked = drawn(5, 12, 40);
  const RequestId id = engine.add(text_at(1, 33), asked);
  finish_all(engine);
  for (int32_t i = 0; i < 5; ++i) {
    const GenerateResult result = *engine.take(id + i);
    EXPECT_EQ(result.tokens, alone.of(1, 33, asked, i).tokens) << i;
    if (policy == "full") {
      EXPECT_GE(result.cached_tokens, i == 0 ? 0 : 32) << i;
    }
  }
  if (policy == "full") {
    EXPECT_LE(engine.stats().computed_tokens, 33 + 3);
  }
  EXPECT_EQ(engine.stats().requests_finished[static_cast<size_t>(FinishReason::kLength)], 5);
  expect_nothing_held(engine);
}

TEST_P(AnswersUnder, WhatOneHasOfThePromptWhenItIsCancelledIsNotLost) {
  const std::string& policy = GetParam().policy;
  EngineOptions options = shared_memory(policy, 0);
  options.batch_size = 10;
  Alone alone(options);
  for (const int steps : {1, 2, 3}) {
    Engine engine(tiny(), options);
    const GenerateOptions asked = drawn(3, 6, 11);
    const RequestId id = engine.add(text_at(3, 44), asked);
    for (int i = 0; i < steps; ++i) engine.step();
    engine.cancel(id);
    if (steps == 2) engine.cancel(id + 1);  // the next in line
    finish_all(engine);
    EXPECT_EQ(engine.take(id)->finish_reason, FinishReason::kCancelled);
    const auto second = engine.take(id + 1);
    if (steps == 2) {
      EXPECT_EQ(second->finish_reason, FinishReason::kCancelled);
    } else {
      EXPECT_EQ(second->tokens, alone.of(3, 44, asked, 1).tokens);
      EXPECT_GT(second->cached_tokens, 0);
    }
    EXPECT_EQ(engine.take(id + 2)->tokens, alone.of(3, 44, asked, 2).tokens);
    EXPECT_EQ(engine.stats().computed_tokens, 44);
    expect_nothing_held(engine);
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, AnswersUnder, testing::ValuesIn(rule_examples()), name_of);

TEST(Answers, EachNeedsAPlaceForACopyOfTheLastBlockAndForTheNext) {
  // Ten tokens and a block are eight pages in two layers; two blocks beside them are four.
  for (const auto& [pages, together] : {std::pair{12, 2}, std::pair{11, 1}}) {
    EngineOptions options = shared_memory("full", pages);
    options.kv.reuse = false;
    Alone alone(options);
    Engine engine(tiny(), options);
    const GenerateOptions asked = drawn(2, 3, 8);
    const RequestId id = engine.add(text_at(0, 10), asked);
    engine.step();
    EXPECT_EQ(engine.stats().requests_running, together) << pages;
    finish_all(engine);
    for (int32_t i = 0; i < 2; ++i) {
      EXPECT_EQ(engine.take(id + i)->tokens, alone.of(0, 10, asked, i).tokens);
    }
  }
}

TEST(Answers, AreTheSameInFastPrecision) {
  for (const std::string policy : {"full", "sink:3+20", "h2o:32@every:8", "snapkv:24"}) {
    EngineOptions options = shared_memory(policy, 0);
    options.precision = Precision::kFast;
    options.kv.type = KvType::kF16;
    Alone alone(options);
    Engine engine(tiny(), options);
    const GenerateOptions asked = drawn(4, 20, 77);
    const RequestId id = engine.add(text_at(0, 41), asked);
    const RequestId other = engine.add(text_at(5, 20), drawn(2, 20, 5));
    finish_all(engine);
    for (int32_t i = 0; i < 4; ++i) {
      EXPECT_EQ(engine.take(id + i)->tokens, alone.of(0, 41, asked, i).tokens) << policy;
    }
    EXPECT_EQ(engine.take(other + 1)->tokens, alone.of(5, 20, drawn(2, 20, 5), 1).tokens);
  }
}

TEST(Answers, ABlockOfSinksAndOfWhatFollowsThemIsCopiedWhole) {
  for (const size_t prompt : {9U, 11U, 14U}) {
    EngineOptions options = shared_memory("sink:3+4", 0);
    options.kv.block_size = 16;
    Alone alone(options);
    Engine engine(tiny(), options);
    const GenerateOptions asked = drawn(3, 20, 7);
    const RequestId id = engine.add(text_at(0, prompt), asked);
    finish_all(engine);
    for (int32_t i = 0; i < 3; ++i) {
      EXPECT_EQ(engine.take(id + i)->tokens, alone.of(0, prompt, asked, i).tokens);
    }
    expect_nothing_held(engine);
  }
}

TEST(Answers, AreToldApartByTheirNumbers) {
  Engine engine(tiny(), shared_memory("full", 0));
  GenerateOptions asked = drawn(3, 8, 21);
  asked.logprobs = 2;
  std::map<int32_t, std::vector<TokenId>> told;
  std::map<int32_t, std::vector<double>> logprobs;
  asked.on_token = [&](const TokenEvent& event) {
    told[event.answer].push_back(event.id);
    logprobs[event.answer].push_back(event.logprob);
    return event.answer != 1 || told[1].size() < 3;
  };
  EXPECT_EQ(engine.status(1).state, RequestState::kUnknown);
  const RequestId id = engine.add(text_at(0, 13), asked);
  const RequestId next = engine.add(text_at(0, 5), greedy(1));
  EXPECT_EQ(next, id + 3);
  EXPECT_EQ(engine.stats().requests_waiting, 4);
  for (int32_t i = 0; i < 3; ++i) EXPECT_EQ(engine.status(id + i).state, RequestState::kQueued);
  EXPECT_FALSE(engine.finished_after(0));
  finish_all(engine);
  EXPECT_EQ(engine.finished_after(0), id);
  EXPECT_EQ(engine.finished_after(id), id + 1);
  EXPECT_EQ(engine.finished_after(id + 2), next);
  EXPECT_FALSE(engine.finished_after(next));
  Alone alone(shared_memory("full", 0));
  for (int32_t i = 0; i < 3; ++i) {
    const RequestStatus status = engine.status(id + i);
    EXPECT_EQ(status.computed_tokens, 13);
    const GenerateResult result = *engine.take(id + i);
    EXPECT_EQ(result.finish_reason, i == 1 ? FinishReason::kCancelled : FinishReason::kLength);
    EXPECT_EQ(result.tokens, told[i]);
    GenerateOptions single = asked;
    const GenerateResult& expected = alone.of(0, 13, single, i);
    ASSERT_LE(result.tokens.size(), expected.tokens.size());
    for (size_t k = 0; k < result.tokens.size(); ++k) {
      EXPECT_EQ(result.tokens[k], expected.tokens[k]);
      EXPECT_EQ(result.logprobs[k].logprob, expected.logprobs[k].logprob);
      EXPECT_EQ(logprobs[i][k], expected.logprobs[k].logprob);
      EXPECT_EQ(result.top_logprobs[k][0].id, expected.top_logprobs[k][0].id);
    }
  }
}

TEST(Answers, OfNoTokensEndAtOnce) {
  Engine engine(tiny(), shared_memory("full", 0));
  const RequestId id = engine.add(text_at(0, 13), drawn(3, 0, 0));
  finish_all(engine);
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(engine.take(id + i)->finish_reason, FinishReason::kLength);
  }
  EXPECT_EQ(engine.stats().computed_tokens, 13);
}

TEST(Answers, OneThatIsRefusedLeavesNone) {
  EngineOptions options = shared_memory("full", 0);
  options.max_queued = 5;
  Engine engine(tiny(), options);
  const std::vector<TokenId> prompt = text_at(0, 5);
  EXPECT_NE(refusal_of([&] { engine.add(prompt, drawn(0, 3, 1)); }).find("n is 0"),
            std::string::npos);
  EXPECT_NE(refusal_of([&] { engine.add(prompt, drawn(kMaxAnswers + 1, 3, 1)); }).find("10000"),
            std::string::npos);
  EXPECT_NE(refusal_of([&] { engine.generate(prompt, drawn(2, 3, 1)); }).find("add()"),
            std::string::npos);
  EXPECT_NE(refusal_of([&] { engine.generate(prompt, drawn(-1, 3, 1)); }).find("n is -1"),
            std::string::npos);
  EXPECT_EQ(
      refusal_of([&] { engine.add(prompt, drawn(6, 3, 1)); }),
      "n is 6, but max_queued admits 5 requests that wait; ask for fewer answers, or raise it");
  const SessionId session = engine.open_session();
  EXPECT_NE(refusal_of([&] { engine.add(session, prompt, drawn(2, 3, 1)); }).find("fork_session"),
            std::string::npos);
  EXPECT_EQ(engine.session_length(session), 0);
  const RequestId id = engine.add(prompt, drawn(4, 3, 1));
  try {
    engine.add(prompt, drawn(2, 3, 1));
    ADD_FAILURE() << "six wait";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory);
  }
  EXPECT_EQ(engine.add(prompt, drawn(1, 3, 1)), id + 4);
  engine.cancel();
  finish_all(engine);
  for (int32_t i = 0; i < 5; ++i) {
    EXPECT_EQ(engine.take(id + i)->finish_reason, FinishReason::kCancelled);
  }
}

TEST(Answers, ThatAwaitThePromptWaitWithTheOneThatIsParked) {
  EngineOptions options = shared_memory("full", tight_pool("full"));
  options.kv.reuse = false;
  options.batch_size = 6;
  Alone alone(options);
  Engine engine(tiny(), options);
  const GenerateOptions asked = drawn(5, 6, 2);
  const SessionId session = engine.open_session();
  const RequestId id = engine.add(text_at(0, 50), asked);
  engine.step();
  engine.step();
  EXPECT_EQ(engine.stats().requests_running, 3);
  engine.feed(session, text_at(0, 90));  // with their memory
  EXPECT_EQ(engine.status(id).state, RequestState::kParked);
  for (int32_t i = 1; i < 5; ++i) EXPECT_EQ(engine.status(id + i).state, RequestState::kQueued);
  engine.check_integrity();
  finish_all(engine);
  for (int32_t i = 0; i < 5; ++i) {
    const GenerateResult result = *engine.take(id + i);
    EXPECT_EQ(result.tokens, alone.of(0, 50, asked, i).tokens) << i;
    if (i == 1) {
      EXPECT_EQ(result.cached_tokens, 50);
    }
  }
}

TEST(Answers, ACancelledOneDoesNotStopAPassThatOthersAwait) {
  for (const bool all : {false, true}) {
    Engine* running = nullptr;
    RequestId id = 0;
    int layers = 0;
    const InLayer hook([&](int32_t) {
      if (++layers != 1) return;
      running->cancel(id);
      if (!all) return;
      running->cancel(id + 1);
      running->cancel(id + 2);
    });
    EngineOptions options = shared_memory("full", 0);
    Engine engine(make_engine_impl(tiny(), options, make_hooked_backend));
    running = &engine;
    id = engine.add(text_at(0, 20), drawn(3, 4, 9));
    engine.step();
    EXPECT_EQ(layers, all ? 1 : 2);
    EXPECT_EQ(engine.kv_stats().tokens_written, all ? 0 : 20);
    finish_all(engine);
    EXPECT_EQ(engine.take(id)->finish_reason, FinishReason::kCancelled);
    EXPECT_EQ(engine.take(id + 1)->finish_reason,
              all ? FinishReason::kCancelled : FinishReason::kLength);
  }
}

TEST(Answers, AProcessorThatThrowsForOneEndsThatOneAlone) {
  Engine engine(tiny(), shared_memory("full", 0));
  GenerateOptions asked = drawn(3, 4, 9);
  asked.logits_processor = [calls = std::make_shared<int>(0)](auto, auto) {
    if ((*calls)++ == 0) throw std::runtime_error("no");
  };
  const RequestId id = engine.add(text_at(0, 20), asked);
  finish_all(engine);
  EXPECT_EQ(engine.take(id)->finish_reason, FinishReason::kError);
  Alone alone(shared_memory("full", 0));
  for (int32_t i = 1; i < 3; ++i) {
    EXPECT_EQ(engine.take(id + i)->tokens, alone.of(0, 20, drawn(3, 4, 9), i).tokens);
  }
}

TEST(Answers, CallbacksMayAddOthersMeanwhile) {
  Engine engine(tiny(), shared_memory("full", 0));
  GenerateOptions asked = drawn(4, 3, 9);
  std::vector<RequestId> added;
  asked.on_token = [&](const TokenEvent&) {
    GenerateOptions urgent = greedy(2);
    urgent.priority = 5;
    if (added.size() < 6) added.push_back(engine.add(text_at(7, 3), urgent));
    return true;
  };
  const RequestId id = engine.add(text_at(0, 10), asked);
  finish_all(engine);
  Alone alone(shared_memory("full", 0));
  for (int32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(engine.take(id + i)->tokens, alone.of(0, 10, drawn(4, 3, 9), i).tokens);
  }
  for (const RequestId other : added) EXPECT_EQ(engine.take(other)->tokens.size(), 2U);
}

}  // namespace
}  // namespace paddock::test
