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

// ---- what exactly is protected

/// Blocks of four that hold any of the positions.
std::set<int64_t> blocks_of(const std::set<int64_t>& positions) {
  std::set<int64_t> blocks;
  for (const int64_t p : positions) blocks.insert(p / 4);
  return blocks;
}

/// Ranges that come and go, texts taken back and forks, against a set of positions. Nothing leaves:
/// what is counted as pinned is what is protected and the newest block.
TEST(Protect, IsTheUnionOfWhatWasAskedForLessWhatWasLetGoOf) {
  int refused = 0;
  for (uint32_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Engine engine(tiny(), options_for("random:64@every:8", 0));
    SessionId session = engine.open_session();
    engine.feed(session, text_at(0, 60));
    std::mt19937 random(seed);
    const auto draw = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
    std::set<int64_t> kept;
    for (int i = 0; i < 40; ++i) {
      const int64_t first = draw(76), n = 1 + draw(draw(2) == 0 ? 4 : 20);
      const int64_t what = draw(9);
      if (what < 5) {
        std::set<int64_t> with = kept;
        for (int64_t p = first; p < first + n; ++p) with.insert(p);
        // All of the budget, but for the newest block, may be protected.
        const bool fits = 4 * blocks_of(with).size() + 4 <= 64;
        EXPECT_EQ(refusal(engine, session, first, n).empty(), fits);
        if (fits) kept = with;
        refused += fits ? 0 : 1;
      } else if (what < 7) {
        engine.unprotect(session, first, n);
        kept.erase(kept.lower_bound(first), kept.lower_bound(first + n));
      } else if (what == 7) {
        const int64_t length = 20 + draw(40);
        engine.truncate(session, length);
        kept.erase(kept.lower_bound(length), kept.end());
        engine.feed(session,
                    text_at(static_cast<size_t>(length), static_cast<size_t>(60 - length)));
      } else {
        const SessionId fork = engine.fork_session(session);
        engine.close_session(std::exchange(session, fork));
      }
      std::set<int64_t> pinned = blocks_of(kept);
      pinned.erase(pinned.lower_bound(15), pinned.end());  // of what is there
      pinned.insert(14);                                   // the newest
      const KvStats stats = engine.kv_stats();
      ASSERT_EQ(stats.layers[0].pages_pinned, static_cast<int64_t>(pinned.size())) << "act " << i;
      ASSERT_EQ(stats.layers[1].pages_pinned, static_cast<int64_t>(pinned.size()));
    }
  }
  EXPECT_GT(refused, 20);
}

TEST(Protect, BlocksBesideItMayGo) {
  for (const std::string policy : {"lru:40@every:8", "random:40@every:8"}) {
    SCOPED_TRACE(policy);
    Engine engine(tiny(), options_for(policy, 0));
    const SessionId session = engine.open_session();
    engine.protect(session, 36, 8);  // two whole blocks
    engine.generate(session, text_at(0, 150), greedy(40));
    for (int32_t layer = 0; layer < 2; ++layer) {
      std::set<int64_t> there;
      for (const KvBlock& block : engine.kv_blocks(layer)) there.insert(block.first_position);
      EXPECT_TRUE(there.contains(36) && there.contains(40));
      EXPECT_FALSE(there.contains(32) || there.contains(44));
    }
  }
}

TEST(Protect, ARefusedTruncationLeavesTheSessionAsItWas) {
  const auto run = [](bool tries) {
    Engine engine(tiny(), options_for("h2o:48@every:8", 0));
    const SessionId session = engine.open_session();
    engine.protect(session, kFirst, kCount);
    engine.feed(session, text_at(0, 60));
    const std::vector<int64_t> before = held(engine);
    if (tries) {
      for (const int64_t length : {5, 35, 59}) {
        EXPECT_THROW(engine.truncate(session, length), Error);
      }
      EXPECT_EQ(engine.session_length(session), 60);
      EXPECT_EQ(held(engine), before);
    }
    const std::vector<TokenId> tokens = engine.generate(session, text_at(60, 90), greedy(9)).tokens;
    EXPECT_TRUE(has_them(engine));
    engine.check_integrity();
    return std::pair(tokens, held(engine));
  };
  EXPECT_EQ(run(true), run(false));
}

/// A rule of a host's own that comes to protect all of whatever budget it is given.
class Greedy final : public EvictionPolicy {
 public:
  bool takes_all = false;
  std::string name() const override { return "greedy"; }
  bool is_elastic() const override { return true; }
  TrimSchedule schedule(int32_t, int32_t, int32_t budget) const override {
    return {.budget = budget, .every = 8, .keep_newest = takes_all ? budget - 4 : 0};
  }
  void trim(const LayerView& view, int64_t n, std::vector<Victim>& victims) const override {
    rank_blocks(view, n, victims, [&](int32_t i) { return double(view.blocks[i].first_position); });
  }
};

TEST(Protect, ARuleThatChangesItsMindRefusesATruncationBeforeAnythingChanges) {
  const auto policy = std::make_shared<Greedy>();
  EngineOptions options = options_for("full", 0);
  options.kv.custom_policy = policy;
  Engine engine(tiny(), options);
  const SessionId session = engine.open_session();
  engine.protect(session, 8, 20);
  engine.feed(session, text_at(0, 60));
  const std::vector<int64_t> before = held(engine);
  policy->takes_all = true;
  const std::string why = refusal_of([&] { engine.truncate(session, 40); });
  EXPECT_NE(why.find("the blocks to be protected have 20 positions"), std::string::npos) << why;
  EXPECT_EQ(engine.session_length(session), 60);
  EXPECT_EQ(held(engine), before);
  policy->takes_all = false;
  engine.truncate(session, 20);
  EXPECT_EQ(engine.session_length(session), 20);
  EXPECT_EQ(engine.kv_stats().layers[0].pages_pinned, 3);
  engine.check_integrity();
}

// ---- beside budgets that fall

uint64_t bytes_of(const Engine& engine, int64_t pages) {
  return static_cast<uint64_t>(pages * engine.kv_stats().page_bytes);
}

/// The smallest budget that a session comes to in pools in which it gets to its end.
int32_t least_budget(const std::function<void(Engine&, SessionId&)>& prepare) {
  int32_t least = kUnlimited;
  for (int64_t pages = 60; pages > 0; pages -= 2) {
    std::optional<Engine> engine;
    try {
      engine.emplace(tiny(), options_for("lru@every:8", pages));
    } catch (const Error&) {  // less than the rule works with
      break;
    }
    SessionId session = engine->open_session();
    prepare(*engine, session);
    const GenerateResult r = engine->generate(session, text_at(0, 60), greedy(60));
    engine->check_integrity();
    if (r.finish_reason != FinishReason::kLength) break;
    for (const KvBudgetChange& c : engine->kv_budget_changes()) least = std::min(least, c.after);
  }
  return least;
}

TEST(Protect, BudgetsFallToWhatIsProtectedTheNewestBlockAndOneMore) {
  const int32_t plain = least_budget([](Engine&, SessionId) {});
  EXPECT_LT(plain, 40);
  const auto protect = [](Engine& e, SessionId s) { e.protect(s, 1, 40); };  // in 11 blocks
  EXPECT_EQ(least_budget(protect), 44 + 4 + 4);
  EXPECT_EQ(least_budget([&](Engine& e, SessionId& s) {
              protect(e, s);
              e.unprotect(s, 0, 50);
            }),
            plain);
  EXPECT_EQ(least_budget([&](Engine& e, SessionId& s) {
              protect(e, s);
              e.feed(s, text_at(0, 2));
              e.truncate(s, 1);
            }),
            plain);
  for (const bool parked : {false, true}) {
    EXPECT_EQ(least_budget([&](Engine& e, SessionId& s) {
                e.feed(s, text_at(0, 20));
                protect(e, s);
                if (parked) e.generate(text_at(9, 100), greedy(1));
                const SessionId fork = e.fork_session(s);
                e.close_session(std::exchange(s, fork));
              }),
              44 + 4 + 4)
        << parked;
  }
}

TEST(Protect, APoolTooSmallForItSaysSoAndWhatHelps) {
  Engine engine(tiny(), options_for("lru@every:8", 60));
  const SessionId session = engine.open_session();
  engine.protect(session, 0, 60);
  engine.generate(session, text_at(0, 70), greedy(1));
  engine.set_kv_budget(bytes_of(engine, 34));  // 17 blocks, of which 15 are protected
  const GenerateResult full = engine.generate(session, text_at(0, 8), greedy(20));
  EXPECT_EQ(full.finish_reason, FinishReason::kKvFull);
  EXPECT_NE(full.error.find("what is protected keeps its budget from falling below 68 positions, "
                            "which the KV pool of 34 pages does not hold"),
            std::string::npos)
      << full.error;
  EXPECT_NE(full.error.find("let go of some, or give the pool more"), std::string::npos);
  ASSERT_EQ(full.proposals.size(), 1U) << "another rule would protect as much";
  EXPECT_TRUE(full.proposals[0].budget_bytes);
  try {
    engine.feed(session, text_at(0, 30));
    ADD_FAILURE() << "it found room";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(std::string(e.what()).find("what is protected keeps its budget"), std::string::npos)
        << e.what();
    ASSERT_EQ(e.proposals().size(), 1U) << e.what();
    EXPECT_TRUE(e.proposals()[0].budget_bytes);
  }
  engine.unprotect(session, 0, 60);
  const GenerateResult free = engine.generate(session, text_at(0, 8), greedy(20));
  EXPECT_EQ(free.finish_reason, FinishReason::kLength);
  EXPECT_EQ(free.error, "");
  engine.check_integrity();
}

TEST(Protect, IsNotBlamedWhereNoBudgetMayFall) {
  for (const bool lossless : {true, false}) {
    EngineOptions o = options_for("lru@every:8", 42);
    if (!lossless) o.kv.pressure = KvPressure::kPreempt;
    Engine engine(tiny(), o);
    const SessionId session = engine.open_session();
    engine.protect(session, 0, 12);
    GenerateOptions asked = greedy(60);
    asked.lossless = lossless;
    const GenerateResult r = engine.generate(session, text_at(0, 60), asked);
    EXPECT_EQ(r.finish_reason, FinishReason::kKvFull);
    EXPECT_EQ(engine.session_length(session), 85) << "the pool is full to its last position";
    EXPECT_EQ(r.error, "");
  }
  Engine engine(tiny(), options_for("full", 42));
  const GenerateResult r = engine.generate(text_at(0, 60), greedy(60));
  EXPECT_EQ(r.finish_reason, FinishReason::kKvFull);
  EXPECT_EQ(r.error, "") << "nothing is protected";
}

TEST(Protect, AFallThatWasLiftedCountsAsLongAsTheTextIsThere) {
  Engine engine(tiny(), options_for("lru@every:8", 80));
  const uint64_t all = engine.options().kv.budget_bytes;
  const SessionId session = engine.open_session();
  engine.feed(session, text_at(0, 64));
  engine.set_kv_budget(bytes_of(engine, 28));
  engine.generate(session, text_at(0, 16), greedy(8));
  engine.set_kv_budget(all);
  engine.generate(session, text_at(0, 1), greedy(1));
  ASSERT_EQ(engine.kv_budget_changes().back().after, kUnlimited) << "lifted";
  EXPECT_NE(refusal(engine, session, 0, 76).find("has fallen to "), std::string::npos);
  engine.truncate(session, 0);
  EXPECT_EQ(refusal(engine, session, 0, 76), "");
}

// ---- parked and back

TEST(Protect, WhoWasParkedComesBackAsOneThatWasNot) {
  for (const std::string policy : {"snapkv:40@recent:8", "h2o:48@every:8", "tova:40@every:6"}) {
    SCOPED_TRACE(policy);
    const auto run = [&](bool parks) {
      EngineOptions o = options_for(policy, 0);
      o.context = 128;
      Engine engine(tiny(), o);
      const SessionId session = engine.open_session();
      engine.protect(session, kFirst, kCount);
      std::pair<std::vector<TokenId>, std::vector<int64_t>> out;
      int64_t recomputed = 0;
      for (size_t turn = 0; turn < 3; ++turn) {
        const GenerateResult r =
            engine.generate(session, text_at(7 * turn, turn == 0 ? 70 : 12), greedy(7));
        EXPECT_EQ(r.finish_reason, FinishReason::kLength);
        recomputed += r.recomputed_tokens;
        out.first.insert(out.first.end(), r.tokens.begin(), r.tokens.end());
        EXPECT_TRUE(has_them(engine));
        if (!parks || turn == 2) continue;
        // Two others take the pool, and the session gives way.
        const uint64_t all = engine.options().kv.budget_bytes;
        engine.set_kv_budget(bytes_of(engine, 60));
        engine.add(text_at(20, 100), greedy(4));
        engine.add(text_at(9, 100), greedy(4));
        finish_all(engine);
        engine.set_kv_budget(all);
      }
      out.second = held(engine);
      EXPECT_EQ(recomputed > 0, parks);
      engine.check_integrity();
      return out;
    };
    EXPECT_EQ(run(true), run(false));
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
