// What a host protects stays under every rule that chooses, whatever comes, and is refused where no
// rule could heed it.
#include <fmt/format.h>

#include <random>
#include <set>

#include "support/shared_memory.h"

namespace paddock::test {
namespace {

constexpr int64_t kFirst = 33, kCount = 6;  // in blocks of 4: two of them

EngineOptions options_for(const std::string& policy, int64_t pages) {
  EngineOptions o = shared_memory(policy, pages, 3);
  o.context = 400;
  o.kv.type = KvType::kF32;
  o.kv.reuse = false;
  return o;
}

/// First positions of the blocks of all layers, layer by layer.
std::vector<int64_t> held(const Engine& engine) {
  std::vector<int64_t> all;
  for (int32_t layer = 0; layer < engine.model().info().n_layers; ++layer) {
    for (const KvBlock& block : engine.kv_blocks(layer)) all.push_back(block.first_position);
    all.push_back(-1);
  }
  return all;
}

/// Whether all layers have all of the positions that are protected here.
bool has_them(const Engine& engine) {
  for (int32_t layer = 0; layer < engine.model().info().n_layers; ++layer) {
    std::set<int64_t> positions;
    for (const KvBlock& block : engine.kv_blocks(layer)) {
      for (int32_t i = 0; i < block.n_tokens; ++i) positions.insert(block.first_position + i);
    }
    for (int64_t p = kFirst; p < kFirst + kCount; ++p) {
      if (positions.count(p) == 0) return false;
    }
  }
  return true;
}

struct Outcome {
  bool stayed = true;  // whenever the session had been used
  int64_t recomputed = 0;
  std::vector<TokenId> tokens;
  std::vector<int64_t> blocks;  // at the end
};

/// A session of many turns, between requests that take its pages where `others`.
Outcome run(const std::string& policy, int64_t pages, uint32_t seed, bool protects, bool others) {
  Engine engine(tiny(), options_for(policy, pages));
  const SessionId session = engine.open_session();
  std::mt19937 random(seed);
  const auto up_to = [&](uint32_t n) { return 1 + random() % n; };
  if (protects) engine.protect(session, kFirst, kCount);
  Outcome out;
  size_t at = 0;
  for (int turn = 0; turn < 12; ++turn) {
    const size_t n = turn == 0 ? 40 : up_to(17);
    const auto made = static_cast<int32_t>(up_to(9));
    const GenerateResult r = engine.generate(session, text_at(at, n), greedy(made));
    EXPECT_EQ(r.finish_reason, FinishReason::kLength) << r.error;
    at += n;
    out.recomputed += r.recomputed_tokens;
    out.tokens.insert(out.tokens.end(), r.tokens.begin(), r.tokens.end());
    out.stayed &= has_them(engine);
    engine.check_integrity();
    const size_t other = 30 + up_to(120);
    if (!others || random() % 2 == 0) continue;
    engine.generate(text_at(at + 7, other), greedy(3));
    engine.check_integrity();
  }
  engine.generate(session, text_at(at, 1), greedy(1));
  out.blocks = held(engine);
  return out;
}

const std::vector<std::string>& fixed_rules() {
  static const std::vector<std::string> all = {
      "lru:40@every:8",           "h2o:48@every:8@sinks:2@recent:7@compact",
      "tova:40@every:6",          "snapkv:40@recent:8",
      "knorm:40@every:9@compact", "random:40@every:8",
      "pyramid:h2o:64@every:8",   "0=full,*=h2o:48@every:8"};
  return all;
}
const std::vector<std::string>& elastic_rules() {
  static const std::vector<std::string> all = {
      "window@every:8", "sink:3@every:8", "lru@every:4@min:30@compact", "h2o@every:8",
      "tova@every:6",   "knorm@every:8",  "pyramid:h2o@every:8"};
  return all;
}

TEST(Protect, FixedRulesNeverChooseItParkedOrNot) {
  for (const std::string& policy : fixed_rules()) {
    SCOPED_TRACE(policy);
    int64_t lost = 0, recomputed = 0;
    for (uint32_t seed = 0; seed < 6; ++seed) {
      // In so few pages others' prompts take the session's.
      Engine probe(tiny(), options_for(policy, 0));
      const int64_t most = 104;
      const int64_t pages = std::min(probe.kv_stats().pool_pages / 3 + 8, most);
      const Outcome o = run(policy, pages, seed, true, true);
      EXPECT_TRUE(o.stayed) << seed;
      recomputed += o.recomputed;
      lost += run(policy, pages, seed, false, true).stayed ? 0 : 1;
      // It comes back as one that was never parked.
      const Outcome alone = run(policy, 0, seed, true, true);
      EXPECT_EQ(o.tokens, alone.tokens) << seed;
      EXPECT_EQ(o.blocks, alone.blocks) << seed;
    }
    EXPECT_GT(lost, 0) << "it would have stayed all the same";
    // SnapKV needs a pool for whole prompts, beside which there is room for the session.
    if (!policy.starts_with("snapkv")) {
      EXPECT_GT(recomputed, 0) << "it was never parked";
    }
  }
}

TEST(Protect, ElasticRulesNeverChooseItHoweverFarBudgetsFall) {
  for (const std::string& policy : elastic_rules()) {
    SCOPED_TRACE(policy);
    int64_t lost = 0;
    for (uint32_t seed = 0; seed < 6; ++seed) {
      EXPECT_TRUE(run(policy, 44, seed, true, true).stayed) << seed;
      lost += run(policy, 44, seed, false, true).stayed ? 0 : 1;
    }
    EXPECT_GT(lost, 0) << "it would have stayed all the same";
  }
}

// ---- what is refused

std::string refusal(Engine& engine, SessionId session, int64_t first, int64_t n) {
  try {
    engine.protect(session, first, n);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
  return "";
}

TEST(Protect, RulesThatCannotHeedItRefuseIt) {
  const struct {
    const char *policy, *why;
    int64_t n;
  } cases[] = {{"window:20", "layer 0 is under 'window:20', which goes by position alone", 1},
               {"sink:3+20", "use a rule that chooses, such as h2o:23", 1},
               {"0=h2o:48@every:8,*=window:20", "layer 1 is under 'window:20'", 1},
               {"cake:h2o:32@every:8", "share their budgets by need", 1},
               {"cake:h2o@every:8", "share their budgets by need", 1},
               {"lru:40@every:8", "protect fewer, or raise the budget to ", 41},
               {"h2o@every:8", "leaves the rules 'h2o@every:8' nothing to choose from", 400}};
  for (const auto& c : cases) {
    Engine engine(tiny(), options_for(c.policy, 0));
    const SessionId session = engine.open_session();
    EXPECT_NE(refusal(engine, session, 0, c.n).find(c.why), std::string::npos)
        << c.policy << ": " << refusal(engine, session, 0, c.n);
    // Nothing has changed: it goes on.
    EXPECT_EQ(engine.generate(session, text_at(0, 60), greedy(20)).tokens.size(), 20U);
    engine.check_integrity();
  }
}

TEST(Protect, TheBudgetThatARefusalNamesIsTheLeast) {
  Engine engine(tiny(), options_for("lru:40@every:8", 0));
  const std::string why = refusal(engine, engine.open_session(), 0, 40);
  const size_t at = why.find("raise the budget to ");
  ASSERT_NE(at, std::string::npos) << why;
  const int64_t least = std::stoll(why.substr(at + 20));
  for (const int64_t budget : {least - 1, least}) {
    Engine other(tiny(), options_for(fmt::format("lru:{}@every:8", budget), 0));
    EXPECT_EQ(refusal(other, other.open_session(), 0, 40).empty(), budget == least) << budget;
  }
}

TEST(Protect, RangesThatAreNoneAreRefused) {
  Engine engine(tiny(), options_for("lru:40@every:8", 0));
  const SessionId session = engine.open_session();
  for (const auto& [first, n] : std::vector<std::pair<int64_t, int64_t>>{
           {-1, 1}, {0, 0}, {0, -1}, {400, 1}, {0, 401}, {INT64_MAX, 1}, {1, INT64_MAX}}) {
    EXPECT_NE(refusal(engine, session, first, n).find("are not to be had"), std::string::npos);
    EXPECT_THROW(engine.unprotect(session, first, n), Error);
  }
  EXPECT_NE(refusal(engine, session + 1, 0, 1).find("is not open"), std::string::npos);
}

TEST(Protect, ABudgetThatFellTooFarBeforeRefusesIt) {
  Engine engine(tiny(), options_for("lru@every:8", 44));
  const SessionId session = engine.open_session();
  engine.generate(session, text_at(0, 200), greedy(20));
  ASSERT_FALSE(engine.kv_budget_changes().empty());
  EXPECT_NE(refusal(engine, session, 0, 80).find("has fallen to "), std::string::npos);
}

// ---- how long it holds

TEST(Protect, ItHoldsUntilItIsLetGoOfAndForForksAndNotBeyondATruncation) {
  const auto goes_on = [](Engine& engine, SessionId id) {
    engine.generate(id, text_at(50, 70), greedy(1));
    return has_them(engine);
  };
  for (const std::string policy : {"lru:40@every:8", "random:40@every:8"}) {
    SCOPED_TRACE(policy);
    Engine engine(tiny(), options_for(policy, 0));
    const SessionId one = engine.open_session();
    engine.protect(one, kFirst, kCount);
    engine.protect(one, 9, 2);
    engine.unprotect(one, 5, 20);  // the other range stays
    engine.generate(one, text_at(0, 30), greedy(1));
    const SessionId fork = engine.fork_session(one);
    engine.close_session(one);
    EXPECT_TRUE(goes_on(engine, fork));
    engine.unprotect(fork, 0, 100);
    EXPECT_FALSE(goes_on(engine, fork));
    engine.truncate(fork, 0);
    engine.protect(fork, kFirst, kCount);
    engine.truncate(fork, 0);
    engine.generate(fork, text_at(0, 30), greedy(1));
    EXPECT_FALSE(goes_on(engine, fork));
    engine.check_integrity();
  }
}

TEST(Protect, FullAcceptsIt) {
  Engine engine(tiny(), options_for("full", 0));
  const SessionId session = engine.open_session();
  engine.protect(session, 0, 400);
  engine.generate(session, text_at(0, 60), greedy(4));
  EXPECT_TRUE(has_them(engine));
}

}  // namespace
}  // namespace paddock::test
