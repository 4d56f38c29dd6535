// Rewinding under every rule: where it is allowed what follows equals a fresh run, where it is not
// nothing has changed. What is allowed is told from what the engine recorded.
#include <fmt/format.h>

#include <map>
#include <random>

#include "support/golden.h"
#include "support/rule_examples.h"

namespace paddock::test {
namespace {

constexpr int32_t kBlock = 4;
constexpr size_t kLength = 58;

std::vector<TokenId> text() {
  std::vector<TokenId> tokens = golden_tokens();
  for (int i = 0; i < 60; ++i) tokens.push_back(static_cast<TokenId>((i * 53 + 7) % 128));
  return tokens;
}

EngineOptions options_for(const std::string& policy) {
  EngineOptions options = reference_options();
  options.threads = 1;
  options.context = 400;
  options.max_sequences = 3;
  options.kv.policy = policy;
  options.kv.block_size = kBlock;
  return options;
}

std::shared_ptr<const Model> model() {
  static const auto loaded = Model::load(golden("gqa1-default"));
  return loaded;
}

std::vector<float> feed(Engine& engine, SessionId session, std::span<const TokenId> tokens) {
  const auto row = engine.feed(session, tokens);
  engine.check_integrity();
  return {row.begin(), row.end()};
}

/// What a fresh engine says after these tokens.
std::vector<float> fresh(const std::string& policy, std::span<const TokenId> tokens) {
  Engine engine(parts(model(), options_for(policy)));
  return feed(engine, engine.open_session(), tokens);
}

/// A session's text, and where rules that care were told that a prompt ends.
struct Told {
  std::vector<TokenId> tokens;
  int64_t cached = 0;                                // the rest is pending
  std::vector<std::pair<int64_t, int64_t>> prompts;  // positions cached then, where it ends

  void truncate(int64_t length) {
    tokens.resize(static_cast<size_t>(length));
    cached = std::min(cached, length);
    std::erase_if(prompts, [&](const auto& prompt) { return prompt.second > length; });
  }
};

/// Likewise, told the same.
std::vector<float> fresh(const std::string& policy, const Told& told) {
  Engine engine(parts(model(), options_for(policy)));
  const SessionId session = engine.open_session();
  const auto feed_to = [&](int64_t end, int64_t prompt_end) {
    const int64_t from = engine.session_length(session);
    if (end <= from) return;
    engine.feed(session, std::span(told.tokens).subspan(from, end - from), prompt_end);
  };
  for (const auto& [cached, prompt_end] : told.prompts) {
    feed_to(cached, 0);
    feed_to(prompt_end, prompt_end);
  }
  return feed(engine, session, std::span(told.tokens).subspan(engine.session_length(session)));
}

/// Everything the engine tells about its cache, but for times.
std::string told(const Engine& engine) {
  KvStats stats = engine.kv_stats();
  stats.memory = {};
  stats.device = {};
  stats.policy_seconds = stats.total.attention_seconds = 0;
  std::string out;
  for (KvLayerStats& layer : stats.layers) {
    layer.attention_seconds = 0;
    for (const KvBlock& b : engine.kv_blocks(layer.layer)) {
      out += fmt::format("{} {} {} {} {} {} {} {} {}\n", b.sequence, b.first_position, b.n_tokens,
                         b.query_shift, b.query_cap, b.born_step, b.mass, b.last_used, b.key_norm);
    }
  }
  return out + to_json(stats);
}

/// Whether it is a rule by lot: but for `cake`, whose layers look at attention.
bool measures_nothing(const RuleExample& example) {
  return example.policy.find("random") != std::string::npos && example.form != "cake:NAME:B";
}

/// Whether a sequence of kLength positions may go back to `length`: everything that the next query
/// would see has to be there, and no score may know of what never was.
bool may_rewind(const Engine& engine, const RuleExample& example, int64_t length) {
  if (length == 0 || length == kLength) return true;
  if (example.form == "full") return true;
  const bool random = measures_nothing(example);
  if (example.form.back() == 'B' && !random) return false;
  for (const KvEvent& event : engine.kv_events()) {
    if (event.reason == RemovalReason::kPolicyTrim && event.length > length) return false;
  }
  if (random) return true;
  int64_t sinks = 0;
  int64_t window = 0;
  if (std::sscanf(example.policy.c_str(), "sink:%ld+%ld", &sinks, &window) != 2) {
    std::sscanf(example.policy.c_str(), "window:%ld", &window);
  }
  std::set<int64_t> resident;
  for (const KvBlock& b : engine.kv_blocks(0)) {
    for (int32_t i = 0; i < b.n_tokens; ++i) resident.insert(b.first_position + i);
  }
  for (int64_t p = 0; p < length; ++p) {
    const bool needed =
        p < sinks || p > length - window || (p == length - 1 && length % kBlock != 0);
    if (needed && !resident.contains(p)) return false;
  }
  return true;
}

TEST(Rewind, EqualsAFreshRunOrChangesNothing) {
  const std::vector<TokenId> tokens = text();
  const auto first = std::span(tokens).first(kLength);
  const auto rest = std::span(tokens).subspan(kLength + 1, 13);
  for (const RuleExample& example : rule_examples()) {
    int allowed = 0;
    const std::vector<float> without = [&] {
      std::vector<TokenId> joined(first.begin(), first.end());
      joined.insert(joined.end(), rest.begin(), rest.end());
      return fresh(example.policy, joined);
    }();
    for (size_t length = 0; length <= kLength; ++length) {
      SCOPED_TRACE(fmt::format("{} to {}", example.policy, length));
      Engine engine(parts(model(), options_for(example.policy)));
      const SessionId session = engine.open_session();
      feed(engine, session, first);
      const bool expected = may_rewind(engine, example, static_cast<int64_t>(length));
      const std::string before = told(engine);
      bool done = true;
      try {
        engine.truncate(session, static_cast<int64_t>(length));
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
        done = false;
      }
      engine.check_integrity();
      ASSERT_EQ(done, expected);
      if (!done) {
        EXPECT_EQ(told(engine), before);
        EXPECT_EQ(feed(engine, session, rest), without);
        continue;
      }
      ++allowed;
      EXPECT_EQ(engine.session_length(session), static_cast<int64_t>(length));
      std::vector<TokenId> joined(first.begin(), first.begin() + static_cast<int64_t>(length));
      joined.insert(joined.end(), rest.begin(), rest.end());
      EXPECT_EQ(feed(engine, session, rest), fresh(example.policy, joined));
    }
    const bool random = measures_nothing(example);
    const bool scored = example.form.back() == 'B';
    if (scored && !random) {
      EXPECT_EQ(allowed, 2) << example.policy;
    } else {
      EXPECT_GT(allowed, 2) << example.policy;
    }
  }
}

TEST(Rewind, ToTheBeginningForgetsWhereThePromptEnded) {
  const std::vector<TokenId> tokens = text();
  Engine engine(parts(model(), options_for("snapkv:24")));
  const SessionId session = engine.open_session();
  GenerateOptions generate;
  generate.max_tokens = 3;
  engine.generate(session, std::span(tokens).first(40), generate);
  EXPECT_GT(engine.kv_stats().layers[0].trim_decisions, 0);
  engine.truncate(session, 0);
  EXPECT_EQ(feed(engine, session, std::span(tokens).first(70)),
            fresh("snapkv:24", std::span(tokens).first(70)));
}

/// Sessions and requests at random over one engine; each session's next logits against a fresh
/// engine's.
TEST(Rewind, SessionsAtRandomEqualFreshRuns) {
  const std::vector<TokenId> tokens = text();
  for (const RuleExample& example : rule_examples()) {
    SCOPED_TRACE(example.policy);
    std::mt19937 random(41);
    EngineOptions options = options_for(example.policy);
    options.batch_size = 24;
    options.kv.budget_bytes = uint64_t{3} * 2 * (400 / kBlock) * 4 * kBlock * 2 * 64;
    Engine engine(parts(model(), options));
    std::map<SessionId, Told> sessions;
    GenerateOptions greedy;
    greedy.max_tokens = 9;
    greedy.sampling.temperature = 0;
    greedy.ignore_stop_tokens = true;
    int compared = 0;
    for (int i = 0; i < 60; ++i) {
      const auto dice = random() % 10;
      const auto piece =
          std::span(tokens).subspan(random() % 60, 1 + random() % (dice == 0 ? 50 : 20));
      if (sessions.size() < 2 && dice < 4) {
        sessions[engine.open_session()];
        continue;
      }
      if (dice == 9) {  // two requests that share the last sequence; one may be cancelled
        const RequestId a = engine.add(piece, greedy);
        const RequestId b = engine.add(piece, greedy);
        engine.step();
        if (random() % 2 == 0) engine.cancel(a);
        while (engine.step()) engine.check_integrity();
        EXPECT_TRUE(engine.take(a).has_value());
        Engine alone(parts(model(), options_for(example.policy)));
        EXPECT_EQ(engine.take(b)->tokens, alone.generate(piece, greedy).tokens);
        continue;
      }
      if (sessions.empty()) continue;
      auto at = sessions.begin();
      std::advance(at, random() % sessions.size());
      auto& [session, held] = *at;
      if (dice == 8 || held.tokens.size() > 250) {
        engine.close_session(session);
        sessions.erase(at);
      } else if (dice > 5 && !held.tokens.empty()) {
        const size_t length =
            random() % 3 == 0
                ? 0
                : held.tokens.size() - random() % std::min<size_t>(9, held.tokens.size());
        try {
          engine.truncate(session, static_cast<int64_t>(length));
          held.truncate(static_cast<int64_t>(length));
        } catch (const Error& e) {
          EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
        }
      } else if (dice == 5 && !held.tokens.empty()) {
        const std::vector<TokenId> said = engine.generate(session, piece, greedy).tokens;
        held.tokens.insert(held.tokens.end(), piece.begin(), piece.end());
        held.prompts.emplace_back(held.cached, held.tokens.size());
        held.tokens.insert(held.tokens.end(), said.begin(), said.end());
        held.cached = static_cast<int64_t>(held.tokens.size()) - 1;
      } else {
        held.tokens.insert(held.tokens.end(), piece.begin(), piece.end());
        held.cached = static_cast<int64_t>(held.tokens.size());
        EXPECT_EQ(feed(engine, session, piece), fresh(example.policy, held));
        ++compared;
      }
      engine.check_integrity();
    }
    EXPECT_GT(compared, 10);
    EXPECT_EQ(engine.kv_stats().policy_violations, 0);
  }
}

}  // namespace
}  // namespace paddock::test
