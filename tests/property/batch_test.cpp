// Sequences in a batch are what each is alone: the same tokens, log-probabilities and texts of the
// event log, and counters that add up, whatever rule measures what.
#include <map>
#include <nlohmann/json.hpp>

#include "support/small_requests.h"

namespace paddock::test {
namespace {

struct Wish {
  size_t begin, n;  // of golden_tokens()
  GenerateOptions options;
};

/// Prompts that end inside, at and after a chunk; one is drawn, one has a text of its own.
std::vector<Wish> wishes() {
  std::vector<Wish> all = {
      {0, 37, greedy(30)}, {5, 16, greedy(45)}, {11, 45, greedy(20)}, {2, 3, greedy(60)}};
  all[1].options.sampling = {.temperature = 1.2F, .repeat_penalty = 1.2F, .seed = 5};
  for (Wish& wish : all) wish.options.logprobs = 3;
  return all;
}

std::vector<TokenId> prompt(const Wish& wish) {
  const std::vector<TokenId> all = golden_tokens();
  const auto part = std::span(all).subspan(wish.begin, wish.n);
  return {part.begin(), part.end()};
}

EngineOptions options(const std::string& policy, Precision precision, int32_t sequences) {
  EngineOptions o = reference_options();
  o.precision = precision;
  o.threads = 1;
  o.batch_size = 24;
  o.max_sequences = sequences;
  o.context = 128;
  o.kv.block_size = 4;
  o.kv.policy = policy;
  o.kv.reuse = false;  // so that what each sequence takes and gives back is its own
  return o;
}

/// What is said of a removal, but for when it was and in which sequence. A window's pages leave
/// when a step ends, which depends on its chunks: of those only that they left.
std::string line_of(KvEvent event) {
  event.number = 0;
  event.step = event.age_steps = 0;
  event.idle_steps = -1;
  event.sequence = 0;
  if (event.reason != RemovalReason::kPolicyTrim) event.length = 0;
  return to_json(event);
}

/// Each sequence's log, in order; a sequence ends with what leaves at its end.
std::vector<std::vector<std::string>> logs_of(const Engine& engine, uint64_t from = 0) {
  EXPECT_LE(engine.kv_stats().events_lost, from);
  std::map<int32_t, std::vector<std::string>> open;
  std::vector<std::vector<std::string>> logs;
  for (const KvEvent& event : engine.kv_events(from)) {
    open[event.sequence].push_back(line_of(event));
  }
  for (auto& [sequence, lines] : open) {
    // Layers speak in any order.
    std::stable_sort(lines.begin(), lines.end(), [](const std::string& a, const std::string& b) {
      return nlohmann::json::parse(a)["layer"] < nlohmann::json::parse(b)["layer"];
    });
    logs.push_back(lines);
  }
  std::sort(logs.begin(), logs.end());
  return logs;
}

struct Alone {
  std::vector<GenerateResult> results;
  std::vector<std::vector<std::string>> logs;
  int64_t read = 0, written = 0, decisions = 0, allocated = 0;
  std::array<int64_t, kRemovalReasons> removed{};
};

Alone each_alone(const std::string& policy, Precision precision) {
  Alone out;
  for (const Wish& wish : wishes()) {
    Engine engine(tiny(), options(policy, precision, 1));
    out.results.push_back(engine.generate(prompt(wish), wish.options));
    out.logs.push_back(logs_of(engine).at(0));
    const KvStats stats = engine.kv_stats();
    out.read += stats.total.tokens_read;
    out.written += stats.tokens_written;
    out.decisions += stats.total.trim_decisions;
    out.allocated += stats.total.pages_allocated;
    for (int i = 0; i < kRemovalReasons; ++i) out.removed[i] += stats.total.pages_removed[i];
  }
  std::sort(out.logs.begin(), out.logs.end());
  return out;
}

void expect_equal(const GenerateResult& actual, const GenerateResult& expected) {
  EXPECT_EQ(actual.tokens, expected.tokens);
  EXPECT_EQ(actual.finish_reason, expected.finish_reason);
  EXPECT_EQ(actual.prompt_tokens, expected.prompt_tokens);
  EXPECT_EQ(actual.timings.prefill_tokens, expected.timings.prefill_tokens);
  EXPECT_EQ(actual.timings.decode_tokens, expected.timings.decode_tokens);
  ASSERT_EQ(actual.logprobs.size(), expected.logprobs.size());
  for (size_t i = 0; i < expected.logprobs.size(); ++i) {
    ASSERT_EQ(actual.logprobs[i].logprob, expected.logprobs[i].logprob) << i;
    for (size_t j = 0; j < 3; ++j) {
      ASSERT_EQ(actual.top_logprobs[i][j].id, expected.top_logprobs[i][j].id) << i;
      ASSERT_EQ(actual.top_logprobs[i][j].logprob, expected.top_logprobs[i][j].logprob) << i;
    }
  }
}

class EachRule : public testing::TestWithParam<const char*> {};

TEST_P(EachRule, InABatchIsWhatItIsAlone) {
  const std::string policy = GetParam();
  for (const Precision precision : exact_precisions()) {
    SCOPED_TRACE(static_cast<int>(precision));
    const Alone alone = each_alone(policy, precision);
    Engine engine(tiny(), options(policy, precision, 4));
    std::vector<RequestId> ids;
    for (const Wish& wish : wishes()) ids.push_back(engine.add(prompt(wish), wish.options));
    while (engine.step()) engine.check_integrity();
    for (size_t i = 0; i < ids.size(); ++i) {
      SCOPED_TRACE(i);
      expect_equal(*engine.take(ids[i]), alone.results[i]);
    }
    EXPECT_EQ(logs_of(engine), alone.logs);
    const KvStats stats = engine.kv_stats();
    EXPECT_EQ(stats.tokens_written, alone.written);
    EXPECT_EQ(stats.total.tokens_read, alone.read);
    EXPECT_EQ(stats.total.trim_decisions, alone.decisions);
    EXPECT_EQ(stats.total.pages_allocated, alone.allocated);
    EXPECT_EQ(stats.total.pages_removed, alone.removed);
    EXPECT_EQ(stats.policy_violations, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Batch, EachRule,
                         testing::Values("full", "window:14", "sink:3+14", "h2o:16@every:8",
                                         "h2o:24@every:4@sinks:2@recent:7@compact",
                                         "tova:20@every:6", "snapkv:24@recent:5", "lru:20@every:5",
                                         "knorm:20@every:8", "random:20@every:8@seed:3",
                                         "pyramid:h2o:40@every:8", "cake:h2o:32@every:8",
                                         "0=h2o:16@every:8,1=snapkv:24", "0=full,1=tova:12@every:4",
                                         "0=lru:16@every:8@compact,1=sink:2+9"));

/// All that is told of one request in an engine of its own.
std::pair<GenerateResult, std::vector<std::string>> alone_under(const std::string& policy,
                                                                Precision precision,
                                                                const Wish& wish) {
  Engine engine(tiny(), options(policy, precision, 1));
  GenerateResult result = engine.generate(prompt(wish), wish.options);
  return {std::move(result), logs_of(engine).at(0)};
}

TEST(Batch, SequencesUnderRulesOfTheirOwnAreWhatEachIsAloneUnderIts) {
  const std::vector<std::string> rules = {"full",
                                          "window:14",
                                          "sink:3+14",
                                          "h2o:24@every:4@sinks:2@recent:7@compact",
                                          "tova:20@every:6",
                                          "snapkv:24@recent:5",
                                          "lru:20@every:5",
                                          "knorm:20@every:8",
                                          "cake:h2o:32@every:8",
                                          "0=full,1=tova:12@every:4",
                                          "0=lru:16@every:8@compact,1=sink:2+9",
                                          "lru@every:8",
                                          "0=knorm@every:8,1=full",
                                          "sink:2@every:8"};
  const std::vector<Wish> all = wishes();
  for (const Precision precision : exact_precisions()) {
    EngineOptions how = options(rules[0], precision, 4);
    how.kv.other_policies.assign(rules.begin() + 1, rules.end());
    Engine engine(tiny(), how);
    // Rules in turns, so that each wish is met under each.
    for (size_t first = 0; first < rules.size(); ++first) {
      SCOPED_TRACE(rules[first]);
      const uint64_t seen = engine.kv_stats().events;
      std::vector<RequestId> ids;
      std::vector<std::vector<std::string>> logs, expected_logs;
      std::vector<GenerateResult> expected;
      for (size_t i = 0; i < all.size(); ++i) {
        const std::string& policy = rules[(first + 3 * i) % rules.size()];
        Wish wish = all[i];
        auto [result, log] = alone_under(policy, precision, wish);
        expected.push_back(std::move(result));
        expected_logs.push_back(std::move(log));
        wish.options.kv_policy = policy;
        ids.push_back(engine.add(prompt(wish), wish.options));
      }
      while (engine.step()) engine.check_integrity();
      for (size_t i = 0; i < ids.size(); ++i) expect_equal(*engine.take(ids[i]), expected[i]);
      logs = logs_of(engine, seen);
      std::sort(expected_logs.begin(), expected_logs.end());
      EXPECT_EQ(logs, expected_logs);
      EXPECT_EQ(engine.kv_stats().policy_violations, 0);
      if (HasFailure()) return;
    }
  }
}

TEST(Batch, ASessionBesideItIsLeftAsItIs) {
  for (const std::string policy : {"full", "h2o:16@every:8", "snapkv:24", "lru:20@every:5"}) {
    SCOPED_TRACE(policy);
    Engine engine(tiny(), options(policy, Precision::kReference, 4));
    const auto talk = [](Engine& own, const std::function<void()>& meanwhile) {
      std::vector<TokenId> said;
      const SessionId session = own.open_session();
      for (int turn = 0; turn < 3; ++turn) {
        const auto fresh = prompt_of(9 + 5 * static_cast<size_t>(turn));
        const GenerateResult r = own.generate(session, fresh, greedy(7));
        said.insert(said.end(), r.tokens.begin(), r.tokens.end());
        meanwhile();
      }
      own.close_session(session);
      return said;
    };
    const std::vector<TokenId> undisturbed = talk(engine, [] {});
    const std::vector<TokenId> beside = talk(engine, [&] {
      for (const Wish& wish : wishes()) engine.add(prompt(wish), wish.options);
      for (int i = 0; i < 7; ++i) engine.step();
      engine.cancel();
      engine.step();
    });
    EXPECT_EQ(beside, undisturbed);
    engine.check_integrity();
    EXPECT_EQ(engine.kv_stats().total.pages_active, 0);
  }
}

TEST(Batch, ASlotUsedAgainKnowsNothingOfItsLastSequence) {
  // One slot, five sequences; each could be told by prompt ends, drops and masses of those before.
  for (const std::string policy :
       {"full", "window:14", "snapkv:24@recent:5", "h2o:16@every:8", "lru:20@every:5@compact"}) {
    SCOPED_TRACE(policy);
    Engine engine(tiny(), options(policy, Precision::kReference, 1));
    for (const size_t n : {40, 9, 23, 2, 31}) {
      const std::vector<TokenId> text = prompt_of(n);
      Engine fresh(tiny(), options(policy, Precision::kReference, 1));
      EXPECT_EQ(engine.generate(text, greedy(30)).tokens, fresh.generate(text, greedy(30)).tokens);
      const SessionId session = engine.open_session();
      const SessionId other = fresh.open_session();
      const auto logits = [&](Engine& own, SessionId in) {
        own.truncate(in, 0);
        const auto row = own.feed(in, text, static_cast<int64_t>(n) / 2);
        return std::vector<float>(row.begin(), row.end());
      };
      EXPECT_EQ(logits(engine, session), logits(fresh, other)) << n;
      EXPECT_EQ(logits(engine, session), logits(fresh, other)) << n << ", again";
      engine.close_session(session);
      // A raw pass without a prompt, where the last one had one.
      EXPECT_EQ(all_logits(engine, text).values, [&] {
        Engine one(tiny(), options(policy, Precision::kReference, 1));
        return all_logits(one, text).values;
      }()) << n;
    }
  }
}

TEST(Batch, PromptsEndWhereEachCallSays) {
  // snapkv decides once, at the end of the prompt; what is held tells where that was.
  const auto held = [](const Engine& engine) {
    std::vector<int64_t> positions;
    for (const KvBlock& block : engine.kv_blocks(1)) {
      positions.push_back(block.first_position);
      positions.push_back(block.n_tokens);
    }
    return positions;
  };
  const EngineOptions how = options("snapkv:24@recent:5", Precision::kReference, 2);
  const std::vector<TokenId> all = golden_tokens();
  // By feed().
  Engine fed(tiny(), how);
  const SessionId session = fed.open_session();
  fed.feed(session, std::span(all).first(40), 40);
  EXPECT_LE(fed.kv_stats().layers[1].tokens_resident, 24);
  const auto after_forty = held(fed);
  const std::span<const TokenId> rest = std::span(all).subspan(40, 3);
  const auto last = fed.feed(session, rest);
  const std::vector<float> expected(last.begin(), last.end());
  EXPECT_EQ(fed.kv_stats().layers[1].trim_decisions, 1);

  // By feed() before the prompt is there, in pieces.
  Engine pieces(tiny(), how);
  const SessionId other = pieces.open_session();
  pieces.feed(other, std::span(all).first(15), 40);
  EXPECT_EQ(pieces.kv_stats().layers[1].tokens_resident, 15);
  pieces.feed(other, std::span(all).subspan(15, 25));
  EXPECT_EQ(held(pieces), after_forty);

  // By generate(): the prompt of a session's request ends after all that the session holds.
  Engine said(tiny(), how);
  const SessionId third = said.open_session();
  said.feed(third, std::span(all).first(15));
  said.generate(third, std::span(all).subspan(15, 25), greedy(0));
  EXPECT_EQ(held(said), after_forty);

  // By forward().
  Engine raw(tiny(), how);
  std::vector<float> row;
  raw.forward(
      std::span(all).first(43),
      [&](int64_t, std::span<const float> logits) {
        row.assign(logits.begin(), logits.end());
        return true;
      },
      40);
  EXPECT_EQ(row, expected);
  std::vector<float> without;
  raw.forward(std::span(all).first(43), [&](int64_t, std::span<const float> logits) {
    without.assign(logits.begin(), logits.end());
    return true;
  });
  EXPECT_NE(without, expected);
  EXPECT_EQ(raw.kv_stats().layers[1].trim_decisions, 1);

  for (const int64_t prompt_tokens : {int64_t{-1}, int64_t{44}}) {
    EXPECT_THROW(raw.forward(
                     std::span(all).first(43), [](int64_t, std::span<const float>) { return true; },
                     prompt_tokens),
                 Error);
  }
  // All of the input may be prompt.
  EXPECT_NO_THROW(raw.forward(
      std::span(all).first(43), [](int64_t, std::span<const float>) { return true; }, 43));
}

}  // namespace
}  // namespace paddock::test
