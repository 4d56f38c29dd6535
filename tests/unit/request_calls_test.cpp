// What a host asks about its requests, and how it takes part in the choice of their tokens.
#include <cmath>

#include "support/scripted_model.h"
#include "support/small_requests.h"

namespace paddock::test {
namespace {

EngineOptions small() { return small_options(2); }

void expect_status(const Engine& engine, RequestId id, RequestState state, int64_t prompt,
                   int64_t computed, int64_t made) {
  const RequestStatus status = engine.status(id);
  EXPECT_EQ(status.state, state);
  EXPECT_EQ(status.prompt_tokens, prompt);
  EXPECT_EQ(status.computed_tokens, computed);
  EXPECT_EQ(status.made_tokens, made);
}

void run(Engine& engine) {
  while (engine.step()) engine.check_integrity();
}

// ---- status

// What the board tells is of the last step.
TEST(RequestStatus, InACallbackIsThatOfNow) {
  Engine engine(tiny(), small());
  std::vector<int64_t> made;
  GenerateOptions options = greedy(3);
  RequestId id = 0;
  options.on_token = [&](const TokenEvent&) {
    made.push_back(engine.status(id).made_tokens);
    return true;
  };
  id = engine.add(prompt_of(3), options);
  run(engine);
  EXPECT_EQ(made, (std::vector<int64_t>{1, 2, 3}));
}

TEST(RequestStatus, FollowsARequestThroughItsLife) {
  EngineOptions options = small();
  options.max_sequences = 1;
  Engine engine(tiny(), options);
  expect_status(engine, 1, RequestState::kUnknown, 0, 0, 0);
  const RequestId first = engine.add(prompt_of(20), greedy(3));
  const RequestId second = engine.add(prompt_of(5), greedy(2));
  expect_status(engine, first, RequestState::kQueued, 20, 0, 0);
  engine.step();
  expect_status(engine, first, RequestState::kRunning, 20, 8, 0);
  expect_status(engine, second, RequestState::kQueued, 5, 0, 0);
  engine.step();
  engine.step();
  expect_status(engine, first, RequestState::kRunning, 20, 20, 1);
  engine.step();
  expect_status(engine, first, RequestState::kRunning, 20, 20, 2);
  engine.step();
  expect_status(engine, first, RequestState::kFinished, 20, 20, 3);
  run(engine);
  expect_status(engine, second, RequestState::kFinished, 5, 5, 2);
  EXPECT_TRUE(engine.take(first));
  expect_status(engine, first, RequestState::kUnknown, 0, 0, 0);
}

TEST(RequestStatus, OfWhoWasParkedByAFeedIsKnownAtOnce) {
  EngineOptions options = small_options(3);
  options.kv.reuse = false;
  options.kv.budget_bytes =
      static_cast<uint64_t>(2 * 9 * Engine(tiny(), options).kv_stats().page_bytes);
  Engine engine(tiny(), options);
  const SessionId session = engine.open_session();
  const RequestId id = engine.add(prompt_of(8), greedy(20));
  engine.step();
  engine.feed(session, std::vector<TokenId>(30, 7));
  EXPECT_EQ(engine.status(id).state, RequestState::kParked);
  EXPECT_EQ(engine.stats().requests_parked, 1);
  engine.close_session(session);
  run(engine);
  EXPECT_EQ(engine.status(id).state, RequestState::kFinished);
  engine.discard(id);
  EXPECT_EQ(engine.status(id).state, RequestState::kUnknown);
  engine.generate(prompt_of(5), greedy(1));
  EXPECT_EQ(engine.status(id + 1).state, RequestState::kUnknown) << "generate() gave its result";
}

TEST(RequestStatus, CountsOnlyWhatWasComputedOfACancelledPrompt) {
  Engine engine(tiny(), small());
  const RequestId id = engine.add(prompt_of(20), greedy(3));
  engine.step();
  engine.cancel(id);
  run(engine);
  expect_status(engine, id, RequestState::kFinished, 20, 8, 0);
}

// ---- discard

TEST(RequestStatus, OfGenerateItselfNobodyElseIsTold) {
  Engine engine(tiny(), small());
  std::stop_source stop;
  std::vector<std::optional<RequestId>> told;
  GenerateOptions other = greedy(6);
  other.on_token = [&](const TokenEvent&) {
    told.push_back(engine.finished_after(0));
    return true;
  };
  const RequestId id = engine.add(prompt_of(5), other);
  GenerateOptions own = greedy(6);
  own.stop_token = stop.get_token();
  own.on_token = [&](const TokenEvent&) { return stop.request_stop(); };
  // It has ended before the step in which the other one is told its second token.
  EXPECT_EQ(engine.generate(prompt_of(3), own).finish_reason, FinishReason::kCancelled);
  ASSERT_EQ(told.size(), 2U);
  for (const auto& finished : told) EXPECT_FALSE(finished);
  run(engine);
  EXPECT_EQ(engine.finished_after(0), id);
}

TEST(Discard, ForgetsAResult) {
  Engine engine(tiny(), small());
  const RequestId id = engine.add(prompt_of(5), greedy(3));
  const RequestId other = engine.add(prompt_of(5), greedy(3));
  run(engine);
  engine.discard(id);
  EXPECT_FALSE(engine.take(id));
  engine.discard(id);
  engine.discard(12345);
  EXPECT_TRUE(engine.take(other));
}

TEST(Discard, CancelsWhatIsNotFinishedAndItsResultNeverAppears) {
  for (int steps = 0; steps < 5; ++steps) {
    Engine engine(tiny(), small());
    const std::vector<TokenId> beside = engine.generate(prompt_of(6), greedy(6)).tokens;
    const RequestId id = engine.add(prompt_of(20), greedy(20));
    const RequestId other = engine.add(prompt_of(6), greedy(6));
    const RequestId queued = engine.add(prompt_of(6), greedy(6));
    for (int i = 0; i < steps; ++i) engine.step();
    engine.discard(id);
    engine.discard(queued);
    const int64_t written = engine.kv_stats().tokens_written;
    run(engine);
    EXPECT_LT(engine.kv_stats().tokens_written - written, 20);
    for (const RequestId gone : {id, queued}) {
      EXPECT_FALSE(engine.take(gone)) << steps;
      EXPECT_EQ(engine.status(gone).state, RequestState::kUnknown);
    }
    EXPECT_EQ(engine.take(other)->tokens, beside);
    expect_nothing_held(engine);
  }
}

TEST(Discard, InsideACallbackOfTheRequest) {
  Engine engine(tiny(), small());
  RequestId id = 0;
  GenerateOptions options = greedy(20);
  int heard = 0;
  options.on_token = [&](const TokenEvent&) {
    ++heard;
    engine.discard(id);
    return true;
  };
  id = engine.add(prompt_of(5), options);
  run(engine);
  EXPECT_EQ(heard, 1);
  EXPECT_FALSE(engine.take(id));
  // A generate() keeps its own.
  options.on_token = [&](const TokenEvent&) {
    engine.discard(id + 1);
    return true;
  };
  EXPECT_EQ(engine.generate(prompt_of(5), options).finish_reason, FinishReason::kCancelled);
  expect_nothing_held(engine);
}

// ---- logits processors

/// A model that says "bcd..." after "a".
std::shared_ptr<const Model> alphabet() {
  static const TemporaryFolder folder;
  static const auto model = scripted_model(folder, alphabet_script());
  return model;
}

TEST(LogitsProcessor, SeesTheTextAndChangesWhatIsChosen) {
  Engine engine(alphabet(), small());
  GenerateOptions options = greedy(5);
  std::vector<std::vector<TokenId>> texts;
  options.logits_processor = [&](std::span<const TokenId> tokens, std::span<float> logits) {
    texts.emplace_back(tokens.begin(), tokens.end());
    EXPECT_EQ(logits.size(), static_cast<size_t>(kScriptedVocab));
    EXPECT_GT(logits[static_cast<size_t>(tokens.back() + 1)], 17.0F);
    if (tokens.back() == 'c') logits['x'] = 100;  // in place of d
  };
  const std::vector<TokenId> prompt = {'z', 'a'};
  const GenerateResult result = engine.generate(prompt, options);
  EXPECT_EQ(result.text, "bcxyz");
  ASSERT_EQ(texts.size(), 5U);
  EXPECT_EQ(texts[0], prompt);
  EXPECT_EQ(texts[3], (std::vector<TokenId>{'z', 'a', 'b', 'c', 'x'}));

  // In a session it sees the turns before.
  texts.clear();
  const SessionId session = engine.open_session();
  engine.generate(session, std::vector<TokenId>{'a'}, greedy(2));
  engine.generate(session, std::vector<TokenId>{'m'}, options);
  EXPECT_EQ(texts[0], (std::vector<TokenId>{'a', 'b', 'c', 'm'}));
}

TEST(LogitsProcessor, ActsBeforeBiasPenaltiesAndSampling) {
  Engine engine(alphabet(), small());
  GenerateOptions options = greedy(1);
  options.logits_processor = [](std::span<const TokenId>, std::span<float> logits) {
    std::fill(logits.begin(), logits.end(), -INFINITY);
    logits['x'] = 5;
    logits['y'] = 4;
  };
  const std::vector<TokenId> prompt = {'a'};
  EXPECT_EQ(engine.generate(prompt, options).text, "x");
  options.sampling.logit_bias = {{'y', 2.0F}};
  EXPECT_EQ(engine.generate(prompt, options).text, "y");
  options.sampling.logit_bias = {{'q', 50.0F}};  // what was ruled out stays out
  EXPECT_EQ(engine.generate(prompt, options).text, "x");
  options.sampling.logit_bias = {};
  options.sampling.temperature = 3;
  options.sampling.top_k = 2;
  std::string drawn;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    options.sampling.seed = seed;
    drawn += engine.generate(prompt, options).text;
  }
  EXPECT_EQ(drawn.find_first_not_of("xy"), std::string::npos);
  EXPECT_NE(drawn.find('y'), std::string::npos);
  EXPECT_NE(drawn.find('x'), std::string::npos);
}

TEST(LogitsProcessor, LogProbabilitiesStayTheModelsOwn) {
  Engine engine(alphabet(), small());
  GenerateOptions options = greedy(1);
  options.logprobs = 1;
  options.logits_processor = [](std::span<const TokenId>, std::span<float> logits) {
    logits['x'] = 100;
  };
  const GenerateResult result = engine.generate(std::vector<TokenId>{'a'}, options);
  EXPECT_EQ(result.text, "x");
  EXPECT_LT(result.logprobs[0].logprob, -10);
  EXPECT_EQ(result.top_logprobs[0][0].id, 'b');
}

TEST(LogitsProcessor, TroubleEndsItsRequestAlone) {
  using Processor = std::function<void(std::span<const TokenId>, std::span<float>)>;
  const std::vector<std::pair<Processor, std::string>> cases = {
      {[](auto, auto) { throw std::runtime_error("no grammar"); },
       "logits_processor threw: no grammar"},
      {[](auto, auto) { throw 7; }, "logits_processor threw something that is no std::exception"},
      {[](auto tokens, auto logits) {
         if (tokens.size() == 6) logits[17] = NAN;
       },
       "logits_processor left the logit of token 17 at nan after position 5; it must be a number "
       "or "
       "-infinity"},
      {[](auto, auto logits) { logits[127] = INFINITY; },
       "logits_processor left the logit of token 127 at inf after position 4; it must be a number "
       "or -infinity"},
      {[](auto, auto logits) { std::fill(logits.begin(), logits.end(), -INFINITY); },
       "no token may be drawn: logits_processor leave every logit at -infinity; allow some token"}};
  for (const auto& [processor, expected] : cases) {
    Engine engine(tiny(), small());
    const std::vector<TokenId> beside = engine.generate(prompt_of(9), greedy(6)).tokens;
    GenerateOptions options = greedy(6);
    options.logits_processor = processor;
    const RequestId bad = engine.add(prompt_of(5), options);
    const RequestId good = engine.add(prompt_of(9), greedy(6));
    run(engine);
    const auto result = engine.take(bad);
    EXPECT_EQ(result->finish_reason, FinishReason::kError);
    EXPECT_EQ(result->error, expected);
    EXPECT_EQ(engine.take(good)->tokens, beside);
    expect_nothing_held(engine);
  }
}

TEST(LogitsProcessor, MayUseTheEngineAsOnTokenMay) {
  Engine engine(tiny(), small());
  RequestId added = 0;
  GenerateOptions options = greedy(3);
  options.logits_processor = [&](std::span<const TokenId>, std::span<float>) {
    if (added == 0) added = engine.add(prompt_of(4), greedy(2));
    EXPECT_NE(refusal_of([&] { engine.step(); }).find("inside a callback"), std::string::npos);
  };
  EXPECT_EQ(engine.generate(prompt_of(5), options).tokens.size(), 3U);
  run(engine);
  EXPECT_EQ(engine.take(added)->tokens.size(), 2U);
}

}  // namespace
}  // namespace paddock::test
