// How requests end: every reason at its boundary, with the tokens, the text and the counts that the
// host is then told, and a cache that holds nothing of it.
#include "support/scripted_model.h"
#include "support/small_requests.h"

namespace paddock::test {
namespace {

using Change = std::function<void(Engine&, GenerateOptions&)>;

std::vector<TokenId> bytes(std::string_view text) {
  std::vector<TokenId> tokens;
  for (const char c : text) tokens.push_back(static_cast<uint8_t>(c));
  return tokens;
}

/// After "abcd" it says "efghijkl...", or where `eot_after` is one of those letters, it ends there.
class FinishReasons : public testing::Test {
 protected:
  static std::shared_ptr<const Model> letters(char eot_after = 0) {
    static const TemporaryFolder plain;
    static const TemporaryFolder ending;
    static const auto model = scripted_model(plain, alphabet_script());
    static const auto ends = [] {
      std::vector<TokenId> script = alphabet_script();
      script['g'] = static_cast<TokenId>(256 + kSmallMerges.size() + 4);  // <|eot_id|>
      return scripted_model(ending, script);
    }();
    return eot_after != 0 ? ends : model;
  }
};

struct Case {
  const char* name;
  int64_t context;  // 0: 128
  int64_t pages;    // of the pool, four positions each; 0: enough
  bool ends;        // <|eot_id|> follows "g"
  int32_t max_tokens;
  Change change;
  FinishReason reason;
  const char* tokens;  // "." is <|eot_id|>
  const char* text;
  int64_t decoded;  // Timings::decode_tokens
  bool prefilled = true;
  size_t rests = 0;  // calls after that of the last token, for text held back until then
};

Change stop(std::vector<std::string> strings) {
  return [strings](Engine&, GenerateOptions& o) { o.stop = strings; };
}
/// At the n-th token the callback does `act`.
Change at_token(int n, std::function<bool(Engine&)> act) {
  return [n, act](Engine& engine, GenerateOptions& o) {
    o.on_token = [&engine, act, seen = 0, n](const TokenEvent&) mutable {
      return ++seen != n || act(engine);
    };
  };
}
bool refuse(Engine&) { return false; }
bool cancel(Engine& engine) {
  engine.cancel();
  return true;
}
bool fall_over(Engine&) { throw std::runtime_error("no ink"); }
bool fall_over_oddly(Engine&) { throw 3; }
void forbid_all(Engine&, GenerateOptions& o) {
  for (TokenId id = 0; id < kScriptedVocab; ++id) o.sampling.logit_bias.emplace_back(id, -INFINITY);
}
void too_late(Engine&, GenerateOptions& o) { o.deadline = std::chrono::steady_clock::now(); }
void ignore_stops(Engine&, GenerateOptions& o) { o.ignore_stop_tokens = true; }
void nothing(Engine&, GenerateOptions&) {}

const std::vector<Case>& cases() {
  using enum FinishReason;
  static const std::vector<Case> all = {
      {"no token", 0, 0, false, 0, nothing, kLength, "", "", 0},
      {"one token", 0, 0, false, 1, nothing, kLength, "e", "e", 0},
      {"five tokens", 0, 0, false, 5, nothing, kLength, "efghi", "efghi", 4},
      // The context counts the prompt and all tokens.
      {"context reached with the last token", 9, 0, false, 5, nothing, kLength, "efghi", "efghi",
       4},
      {"context one less", 8, 0, false, 5, nothing, kContext, "efgh", "efgh", 3},
      {"context one more", 10, 0, false, 7, nothing, kContext, "efghij", "efghij", 5},
      {"prompt one less than the context", 5, 0, false, 5, nothing, kContext, "e", "e", 0},
      {"prompt fills the context", 4, 0, false, 5, nothing, kContext, "e", "e", 0},
      {"prompt fills the context, one token", 4, 0, false, 1, nothing, kLength, "e", "e", 0},
      {"prompt fills the context, no token", 4, 0, false, 0, nothing, kLength, "", "", 0},
      // The last token is not fed: eight positions are enough for five.
      {"pool fits exactly", 0, 2, false, 5, nothing, kLength, "efghi", "efghi", 4},
      {"pool full", 0, 2, false, 6, nothing, kKvFull, "efghi", "efghi", 4},
      {"pool with one page more", 0, 3, false, 6, nothing, kLength, "efghij", "efghij", 5},
      {"pool full with the prompt", 0, 1, false, 2, nothing, kKvFull, "e", "e", 0},
      {"stop token", 0, 0, true, 9, nothing, kStop, "efg", "efg", 3},
      {"stop token after the last", 0, 0, true, 3, nothing, kLength, "efg", "efg", 2},
      {"stop token as the last", 0, 0, true, 4, nothing, kStop, "efg", "efg", 3},
      {"stop token and the end of the context", 8, 0, true, 9, nothing, kStop, "efg", "efg", 3},
      {"end of the context before the stop token", 7, 0, true, 9, nothing, kContext, "efg", "efg",
       2},
      {"stop token ignored", 0, 0, true, 6, ignore_stops, kLength, "efg.ab", "efgab", 5},
      {"stop string", 0, 0, false, 9, stop({"gh"}), kStop, "efgh", "ef", 3},
      {"stop string with the last token", 0, 0, false, 4, stop({"gh"}), kStop, "efgh", "ef", 3},
      {"stop string begun", 0, 0, false, 3, stop({"gh"}), kLength, "efg", "efg", 2},
      {"stop string at the end of the context", 8, 0, false, 9, stop({"gh"}), kStop, "efgh", "ef",
       3},
      {"stop string begun there", 7, 0, false, 9, stop({"gh"}), kContext, "efg", "efg", 2},
      {"stop string begun where the pool is full", 0, 2, false, 9, stop({"hij"}), kKvFull, "efghi",
       "efghi", 4, true, 1},
      {"stop string begun before a stop token", 0, 0, true, 9, stop({"fgh"}), kStop, "efg", "efg",
       3, true, 1},
      {"stop string from the first token on", 0, 0, false, 9, stop({"ef"}), kStop, "ef", "", 1},
      {"stop string of one token", 0, 0, false, 9, stop({"e"}), kStop, "e", "", 0},
      {"special token as a stop string", 0, 0, true, 9, stop({"<|eot_id|>"}), kStop, "efg", "efg",
       3},
      {"prompt is no part of a stop string", 0, 0, false, 3, stop({"de"}), kLength, "efg", "efg",
       2},
      {"refused", 0, 0, false, 9, at_token(2, refuse), kCancelled, "ef", "ef", 1},
      {"refused at the first", 0, 0, false, 9, at_token(1, refuse), kCancelled, "e", "e", 0},
      {"refused at the last", 0, 0, false, 3, at_token(3, refuse), kLength, "efg", "efg", 2},
      {"cancelled", 0, 0, false, 9, at_token(2, cancel), kCancelled, "ef", "ef", 1},
      {"cancelled at the last", 0, 0, false, 2, at_token(2, cancel), kLength, "ef", "ef", 1},
      {"deadline before all", 0, 0, false, 9, too_late, kDeadline, "", "", 0, false},
      {"callback that throws", 0, 0, false, 9, at_token(2, fall_over), kError, "ef", "ef", 1},
      {"callback that throws at the last", 0, 0, false, 2, at_token(2, fall_over), kError, "ef",
       "ef", 1},
      {"callback that throws what is no exception", 0, 0, false, 9, at_token(2, fall_over_oddly),
       kError, "ef", "ef", 1},
      {"no token may be drawn", 0, 0, false, 9, forbid_all, kError, "", "", 0}};
  return all;
}

EngineOptions options_of(const Case& c) {
  EngineOptions o;
  o.threads = 1;
  o.context = c.context;
  o.kv.block_size = 4;
  o.kv.budget_bytes = static_cast<uint64_t>(c.pages) * 4 * 2 * 2 * 2;
  return o;
}

GenerateOptions request_of(const Case& c, Engine& engine) {
  GenerateOptions options;
  options.max_tokens = c.max_tokens;
  options.sampling.temperature = 0;
  c.change(engine, options);
  return options;
}

std::vector<TokenId> expected_tokens(const Case& c, const Model& model) {
  std::vector<TokenId> tokens = bytes(c.tokens);
  for (TokenId& id : tokens) {
    if (id == '.') id = *model.tokenizer()->find("<|eot_id|>");
  }
  return tokens;
}

/// `prompt`: tokens of it that this request had to feed.
void expect(const Case& c, const Model& model, const GenerateResult& r, int64_t prompt) {
  EXPECT_EQ(r.finish_reason, c.reason) << finish_reason_name(r.finish_reason) << r.error;
  EXPECT_EQ(r.tokens, expected_tokens(c, model));
  EXPECT_EQ(r.text, c.text);
  EXPECT_EQ(r.stop_token.has_value(), c.ends && c.reason == FinishReason::kStop);
  if (r.stop_token) {
    EXPECT_EQ(*r.stop_token, *model.tokenizer()->find("<|eot_id|>"));
  }
  EXPECT_EQ(r.error.empty(), c.reason != FinishReason::kError);
  EXPECT_EQ(r.proposals.empty(),
            c.reason != FinishReason::kContext && c.reason != FinishReason::kKvFull);
  EXPECT_EQ(r.prompt_tokens, prompt);
  EXPECT_EQ(r.timings.prefill_tokens, c.prefilled ? prompt : 0);
  EXPECT_EQ(r.timings.decode_tokens, c.decoded);
  EXPECT_EQ(r.timings.prefill_seconds > 0, c.prefilled);
  EXPECT_EQ(r.timings.decode_seconds > 0, c.decoded > 0);
  EXPECT_TRUE(r.logprobs.empty());
}

TEST_F(FinishReasons, TellWhatWasSaidAndCounted) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const auto model = letters(c.ends ? 'g' : 0);
    Engine engine(model, options_of(c));
    GenerateOptions options = request_of(c, engine);
    std::string streamed;
    std::vector<TokenId> ids;
    const auto then = options.on_token;
    options.on_token = [&](const TokenEvent& event) {
      streamed += event.text;
      ids.push_back(event.id);
      return !then || then(event);
    };
    const GenerateResult r = engine.generate(bytes("abcd"), options);
    expect(c, *model, r, 4);
    EXPECT_EQ(streamed, r.text);
    std::vector<TokenId> heard = r.tokens;
    if (c.rests > 0) heard.push_back(r.stop_token.value_or(heard.empty() ? 0 : heard.back()));
    EXPECT_EQ(ids, heard);
    engine.check_integrity();
    EXPECT_EQ(engine.kv_stats().total.pages_active, 0);
    EXPECT_EQ(engine.kv_stats().sequences, 0);
    EXPECT_FALSE(engine.step());
  }
}

TEST_F(FinishReasons, AreThoseOfRequestsThatAreStepped) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const auto model = letters(c.ends ? 'g' : 0);
    Engine engine(model, options_of(c));
    const RequestId id = engine.add(bytes("abcd"), request_of(c, engine));
    EXPECT_FALSE(engine.take(id));
    while (engine.step()) engine.check_integrity();
    const auto result = engine.take(id);
    ASSERT_TRUE(result);
    expect(c, *model, *result, 4);
    EXPECT_FALSE(engine.take(id)) << "a result is given out once";
    EXPECT_EQ(engine.kv_stats().total.pages_active, 0);
  }
}

TEST_F(FinishReasons, LeaveASessionThatGoesOn) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const auto model = letters(c.ends ? 'g' : 0);
    Engine engine(model, options_of(c));
    const SessionId session = engine.open_session();
    engine.feed(session, bytes("ab"));
    const GenerateResult r = engine.generate(session, bytes("cd"), request_of(c, engine));
    expect(c, *model, r, 2);
    const auto n = static_cast<int64_t>(r.tokens.size());
    EXPECT_EQ(engine.session_length(session), 4 + n + (r.stop_token ? 1 : 0));
    engine.check_integrity();
    if (c.pages > 0 || (c.context > 0 && engine.session_length(session) >= c.context)) continue;
    // What is pending, the unfed prompt and the stop token included, is fed first.
    const GenerateResult next = engine.generate(session, bytes(n == 0 ? "x" : ""), greedy(2));
    EXPECT_EQ(next.prompt_tokens, c.prefilled ? 1 : 3);
    EXPECT_EQ(next.timings.prefill_tokens, next.prompt_tokens);
    const char last = n == 0 ? 'x' : r.stop_token ? 'a' - 1 : static_cast<char>(r.tokens.back());
    if (c.ends && last == 'g') {
      EXPECT_EQ(next.text, "a") << "after <|eot_id|>, which is ignored";
    } else {
      EXPECT_EQ(next.text, (std::string{static_cast<char>(last + 1), static_cast<char>(last + 2)}));
    }
    engine.close_session(session);
    EXPECT_EQ(engine.kv_stats().total.pages_active, 0);
  }
}

TEST_F(FinishReasons, AHostThatRefusesOrThrowsHearsNoMoreThoughTextIsHeldBack) {
  for (const auto& act : {refuse, fall_over, fall_over_oddly}) {
    Engine engine(letters(), {.threads = 1});
    GenerateOptions options = greedy(9);
    options.stop = {"fgh"};
    int calls = 0;
    std::string streamed;
    options.on_token = [&](const TokenEvent& event) {
      streamed += event.text;
      return ++calls < 3 || act(engine);
    };
    const GenerateResult r = engine.generate(bytes("abcd"), options);
    EXPECT_EQ(r.finish_reason, act == refuse ? FinishReason::kCancelled : FinishReason::kError);
    EXPECT_EQ(r.text, "efg");
    EXPECT_EQ(streamed, "e");
    EXPECT_EQ(calls, 3);
  }
}

TEST_F(FinishReasons, ADeadlineEndsAnAnswerWhereItHasCome) {
  Engine engine(letters(), {.threads = 1});
  GenerateOptions options = greedy(9);
  options.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  options.on_token = [&, seen = 0](const TokenEvent&) mutable {
    if (++seen == 3) {
      while (std::chrono::steady_clock::now() < *options.deadline) {
      }
    }
    return true;
  };
  const GenerateResult r = engine.generate(bytes("abcd"), options);
  EXPECT_EQ(r.finish_reason, FinishReason::kDeadline);
  EXPECT_EQ(r.text, "efg");
  EXPECT_EQ(r.timings.decode_tokens, 2);
}

TEST_F(FinishReasons, OneLogprobForEachTokenHoweverItEnds) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const auto model = letters(c.ends ? 'g' : 0);
    Engine engine(model, options_of(c));
    GenerateOptions options = request_of(c, engine);
    options.logprobs = 3;
    std::vector<double> told;
    const auto then = options.on_token;
    options.on_token = [&](const TokenEvent& event) {
      if (!event.top.empty()) {  // a rest comes without
        EXPECT_EQ(event.top.size(), 3U);
        EXPECT_EQ(event.top[0].id, event.id);
        told.push_back(event.logprob);
      }
      return !then || then(event);
    };
    const GenerateResult r = engine.generate(bytes("abcd"), options);
    ASSERT_EQ(told.size(), r.tokens.size());
    ASSERT_EQ(r.logprobs.size(), r.tokens.size());
    ASSERT_EQ(r.top_logprobs.size(), r.tokens.size());
    // One logit is 17.4, 300 are 0: of those the lowest ids come first.
    const double likely = 1 / std::sqrt(1.0 / 304 + 1e-5);
    const double sum = likely + std::log1p(300 * std::exp(-likely));
    for (size_t i = 0; i < r.tokens.size(); ++i) {
      EXPECT_EQ(r.logprobs[i].id, r.tokens[i]);
      EXPECT_EQ(r.logprobs[i].logprob, told[i]);
      EXPECT_NEAR(r.logprobs[i].logprob, likely - sum, 1e-4);
      const std::vector<TokenLogprob>& top = r.top_logprobs[i];
      ASSERT_EQ(top.size(), 3U);
      EXPECT_EQ(top[0].id, r.tokens[i]);
      EXPECT_EQ(top[0].logprob, r.logprobs[i].logprob);
      EXPECT_EQ(top[1].id, 0);
      EXPECT_EQ(top[2].id, 1);
      EXPECT_NEAR(top[1].logprob, -sum, 1e-4);
      EXPECT_EQ(top[2].logprob, top[1].logprob);
    }
  }
}

}  // namespace
}  // namespace paddock::test
