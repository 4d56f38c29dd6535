// A text made in several calls is the text of one: sequences are cut at random places, taken back
// and made again, with penalties, biases, stop strings and seeds.
#include <gtest/gtest.h>

#include <random>

#include "support/small_tokenizer.h"
#include "support/tiny_model.h"

namespace paddock::test {
namespace {

constexpr int32_t kVocab = 301;  // of the small tokenizer

class Calls : public testing::Test {
 protected:
  Calls() {
    folder_.write("tokenizer.json", small_tokenizer_text());
    TinyShape shape;
    shape.vocab_size = kVocab;
    shape.context_length = 256;
    model_ = tiny_model(folder_, shape, 3);
  }

  std::vector<TokenId> random_tokens(size_t n) {
    std::vector<TokenId> tokens(n);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random_() % 250);
    return tokens;
  }

  GenerateOptions random_options() {
    GenerateOptions options;
    options.max_tokens = 40;
    options.ignore_stop_tokens = true;
    SamplingOptions& s = options.sampling;
    s.temperature = random_() % 4 == 0 ? 0.0F : 0.9F;
    s.top_k = random_() % 2 == 0 ? 0 : 30;
    if (random_() % 4 != 0) {
      s.repeat_penalty = 1.0F + 0.1F * static_cast<float>(random_() % 10);
      s.frequency_penalty = 0.2F * static_cast<float>(random_() % 5);
      s.presence_penalty = 0.1F * static_cast<float>(random_() % 5);
    }
    s.penalty_window = static_cast<int32_t>(random_() % 50);
    if (random_() % 2 == 0) s.logit_bias = {{static_cast<TokenId>(random_() % 250), 2.0F}};
    s.seed = random_();
    return options;
  }

  /// Takes the session back to a random place after its first token.
  void take_back(Engine& engine, SessionId session, std::vector<TokenId>& held) {
    const auto length = static_cast<int64_t>(1 + random_() % held.size());
    try {
      engine.truncate(session, length);
      held.resize(static_cast<size_t>(length));
      ++taken_back_;
    } catch (const Error& e) {  // the window has moved on
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    }
  }

  /// Makes `text`, of which the first `given` tokens are the prompt, in random calls.
  void make_in_pieces(Engine& engine, const std::vector<TokenId>& text, size_t given,
                      const GenerateOptions& options, FinishReason reason) {
    const SessionId session = engine.open_session();
    std::vector<TokenId> held;
    FinishReason last = FinishReason::kLength;
    while (held.size() < text.size() || held.size() < given) {
      const uint32_t dice = random_() % 4;
      if (dice == 0 && !held.empty()) take_back(engine, session, held);
      // Some tokens of the text are told, whether a host or the engine chose them.
      const size_t told = 1 + random_() % std::max<size_t>(1, given);
      const auto fresh = std::span(text).subspan(held.size());
      const auto more = fresh.first(std::min(fresh.size(), told));
      if (dice == 1 && more.size() < fresh.size()) {
        engine.feed(session, more);
        held.insert(held.end(), more.begin(), more.end());
      } else {
        const size_t needed = held.size() < given ? given - held.size() : 0;
        const auto prompt = fresh.first(std::max(needed, dice == 2 ? more.size() : size_t{1}));
        held.insert(held.end(), prompt.begin(), prompt.end());
        if (held.size() == text.size()) break;
        GenerateOptions some = options;
        some.max_tokens = static_cast<int32_t>(std::min<size_t>(
            1 + random_() % 12, static_cast<size_t>(options.max_tokens) + given - held.size()));
        const GenerateResult result = engine.generate(session, prompt, some);
        held.insert(held.end(), result.tokens.begin(), result.tokens.end());
        ASSERT_EQ(held, std::vector<TokenId>(text.begin(),
                                             text.begin() + static_cast<int64_t>(held.size())));
        ASSERT_TRUE(result.finish_reason == FinishReason::kLength || held.size() == text.size());
        last = result.finish_reason;
        ++calls_;
      }
      ASSERT_EQ(engine.session_length(session), static_cast<int64_t>(held.size()));
      engine.check_integrity();
    }
    EXPECT_TRUE(last == FinishReason::kLength || last == reason);
    engine.close_session(session);
  }

  TemporaryFolder folder_;
  std::shared_ptr<const Model> model_;
  std::mt19937 random_{13};
  int calls_ = 0, taken_back_ = 0, stopped_ = 0;
};

TEST_F(Calls, CutAnywhereTheyMakeTheSameText) {
  for (const char* policy : {"full", "sink:3+14", "window:40"}) {
    EngineOptions options;
    options.threads = 1;
    options.kv.policy = policy;
    options.kv.block_size = 4;
    Engine engine(model_, options);
    for (int round = 0; round < 25; ++round) {
      SCOPED_TRACE(fmt::format("{} {}", policy, round));
      const std::vector<TokenId> prompt = random_tokens(1 + random_() % 20);
      GenerateOptions how = random_options();
      GenerateResult whole = engine.generate(prompt, how);
      if (round % 3 == 0) {  // the text of one token ends it
        const Tokenizer& tokenizer = *model_->tokenizer();
        const TokenId id = whole.tokens[random_() % whole.tokens.size()];
        const std::string stop = tokenizer.decode(std::span(&id, 1));
        if (!stop.empty() && static_cast<uint8_t>(stop[0]) < 0x80) {
          how.stop = {stop.substr(0, 1)};
          whole = engine.generate(prompt, how);
          stopped_ += whole.finish_reason == FinishReason::kStop ? 1 : 0;
        }
      }
      std::vector<TokenId> text = prompt;
      text.insert(text.end(), whole.tokens.begin(), whole.tokens.end());
      make_in_pieces(engine, text, prompt.size(), how, whole.finish_reason);
    }
  }
  EXPECT_GT(calls_, 150);
  EXPECT_GT(taken_back_, 30);
  EXPECT_GT(stopped_, 5);
}

TEST_F(Calls, PenaltiesSeeWhatTheSessionHolds) {
  Engine engine(model_, {.threads = 1});
  GenerateOptions how;
  how.max_tokens = 1;
  how.sampling.temperature = 0;
  how.sampling.presence_penalty = -1000;  // what has been there wins
  how.ignore_stop_tokens = true;
  int first_won = 0;
  for (TokenId first = 20; first < 60; ++first) {
    const std::vector<TokenId> text = {first, 7, 8, 9};
    const std::vector<TokenId> expected = engine.generate(text, how).tokens;
    const SessionId session = engine.open_session();
    engine.feed(session, std::span(text).first(2));
    EXPECT_EQ(engine.generate(session, std::span(text).subspan(2), how).tokens, expected) << first;
    engine.close_session(session);
    first_won += expected[0] == first ? 1 : 0;
  }
  EXPECT_GT(first_won, 3);
}

TEST_F(Calls, WhereNothingMayBeDrawnTheRequestSaysWhy) {
  Engine engine(model_, {.threads = 1, .max_sequences = 2});
  const std::vector<TokenId> prompt = {7, 8, 9};
  for (const float temperature : {0.0F, 1.0F}) {
    GenerateOptions none;
    none.sampling.temperature = temperature;
    for (TokenId id = 0; id < kVocab; ++id) none.sampling.logit_bias.emplace_back(id, -INFINITY);
    none.sampling.presence_penalty = 0.5F;
    GenerateOptions some;
    some.max_tokens = 3;
    some.ignore_stop_tokens = true;
    const RequestId bad = engine.add(prompt, none);
    const RequestId good = engine.add(prompt, some);
    while (engine.step()) engine.check_integrity();
    const auto failed = engine.take(bad);
    EXPECT_EQ(failed->finish_reason, FinishReason::kError);
    EXPECT_TRUE(failed->tokens.empty());
    EXPECT_EQ(failed->error,
              "no token may be drawn: logit_bias (of 301 tokens), presence_penalty 0.5 leave every "
              "logit at -infinity; allow some token");
    EXPECT_EQ(engine.take(good)->finish_reason, FinishReason::kLength);
  }
}

TEST_F(Calls, APenaltyThatOverflowsChoosesAsGreedyDoes) {
  Engine engine(model_, {.threads = 1});
  GenerateOptions how;
  how.max_tokens = 12;
  how.ignore_stop_tokens = true;
  how.sampling.repeat_penalty = 1e-44F;
  how.sampling.temperature = 0;
  const std::vector<TokenId> prompt = {40, 41, 42, 43, 44, 45, 46};
  const std::vector<TokenId> greedy = engine.generate(prompt, how).tokens;
  EXPECT_NE(greedy[0], 0);
  how.sampling.temperature = 1;
  EXPECT_EQ(engine.generate(prompt, how).tokens, greedy);
}

}  // namespace
}  // namespace paddock::test
