// Blocks that requests, sessions and turns share: the texts are those of an engine that shares
// nothing, whatever the schedule, and fewer tokens are computed.
#include <fmt/format.h>

#include <map>
#include <random>
#include <set>

#include "engine/engine_impl.h"
#include "support/hooked_backend.h"
#include "support/live_bytes.h"
#include "support/small_requests.h"
#include "support/tiny_model.h"

namespace paddock::test {
namespace {

constexpr int32_t kBlock = 4;

/// Blocks of four positions in each of two layers.
EngineOptions options_with(int64_t pages, int32_t sequences, bool reuse = true,
                           Precision precision = Precision::kReference) {
  EngineOptions o = reference_options();
  o.threads = 1;
  o.precision = precision;
  o.max_sequences = sequences;
  o.batch_size = 24;
  o.context = 128;
  o.kv.block_size = kBlock;
  o.kv.reuse = reuse;
  if (pages > 0) {
    const int64_t page_bytes = Engine(parts(tiny(), o)).kv_stats().page_bytes;
    o.kv.budget_bytes = static_cast<uint64_t>(pages * page_bytes);
  }
  return o;
}

GenerateResult run(Engine& engine, std::span<const TokenId> prompt, int32_t n) {
  const GenerateResult result = engine.generate(prompt, greedy(n));
  engine.check_integrity();
  EXPECT_EQ(result.cached_tokens + result.timings.prefill_tokens, result.prompt_tokens);
  return result;
}

/// What an engine that shares nothing says; asked once for each prompt.
class Alone {
 public:
  explicit Alone(Precision precision, const std::string& policy = "full")
      : engine_(parts(tiny(), options(precision, policy))) {}
  const std::vector<TokenId>& operator()(const std::vector<TokenId>& prompt, int32_t n) {
    auto& known = known_[{prompt, n}];
    if (known.empty() && n > 0) known = engine_.generate(prompt, greedy(n)).tokens;
    return known;
  }

 private:
  static EngineOptions options(Precision precision, const std::string& policy) {
    EngineOptions o = options_with(0, 1, false, precision);
    o.kv.policy = policy;
    return o;
  }

  Engine engine_;
  std::map<std::pair<std::vector<TokenId>, int32_t>, std::vector<TokenId>> known_;
};

std::vector<TokenId> joined(std::vector<TokenId> a, const std::vector<TokenId>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(Sharing, ASecondRequestTakesWhatTheFirstComputed) {
  for (const Precision precision : exact_precisions()) {
    Alone alone(precision);
    Engine engine(parts(tiny(), options_with(0, 1, true, precision)));
    const auto prompt = prompt_of(24);
    EXPECT_EQ(run(engine, prompt, 6).cached_tokens, 0);
    KvStats stats = engine.kv_stats();
    EXPECT_EQ(stats.prefix_lookups, 1);
    // 24 + 5 positions were written, which are seven blocks.
    EXPECT_EQ(stats.total.pages_cached, 7 * 2);
    EXPECT_EQ(stats.total.pages_active, 0);
    // The same again: the last token runs for its logits, and with it the block that it ends.
    GenerateResult again = run(engine, prompt, 6);
    EXPECT_EQ(again.cached_tokens, 20);
    EXPECT_EQ(again.tokens, alone(prompt, 6));
    stats = engine.kv_stats();
    EXPECT_EQ(stats.prefix_lookups, 1 + 5);
    EXPECT_EQ(stats.prefix_hits, 5);
    // A longer one also takes what was generated.
    const auto longer = joined(joined(prompt, again.tokens), {1, 2, 3});
    again = run(engine, longer, 6);
    EXPECT_EQ(again.cached_tokens, 28);
    EXPECT_EQ(again.tokens, alone(longer, 6));
    // One that begins likewise and goes on otherwise.
    const auto other = joined(prompt_of(14), {7, 7, 7});
    again = run(engine, other, 6);
    EXPECT_EQ(again.cached_tokens, 12);
    EXPECT_EQ(again.tokens, alone(other, 6));
  }
}

TEST(Sharing, OfAThousandTokensFewerThanABlockAndSixteenAreComputedAgain) {
  const TemporaryFolder folder;
  TinyShape shape;
  shape.context_length = 2048;
  const auto model = tiny_model(folder, shape, 3);
  std::mt19937 random(5);
  std::vector<TokenId> prompt;
  for (int i = 0; i < 1000; ++i) prompt.push_back(static_cast<TokenId>(random() % 96));
  EngineOptions options = reference_options();
  options.batch_size = 128;
  Engine engine(parts(model, options));
  const auto first = joined(prompt, {1, 2, 3, 4, 5, 6, 7});
  const auto second = joined(prompt, {11, 12, 13, 14, 15, 16, 17});
  EXPECT_EQ(run(engine, first, 2).timings.prefill_tokens, 1007);
  const GenerateResult result = run(engine, second, 2);
  EXPECT_LT(result.timings.prefill_tokens, options.kv.block_size + 16);
  EXPECT_EQ(result.cached_tokens, 992);
  options.kv.reuse = false;
  Engine fresh(parts(model, options));
  EXPECT_EQ(fresh.generate(second, greedy(2)).tokens, result.tokens);
}

TEST(Sharing, RequestsOfOneBatchShareWhileTheyRun) {
  for (const Precision precision : exact_precisions()) {
    Alone alone(precision);
    Engine engine(parts(tiny(), options_with(0, 4, true, precision)));
    const auto prompt = prompt_of(40);
    std::vector<RequestId> ids;
    std::vector<std::vector<TokenId>> prompts;
    for (TokenId i = 0; i < 4; ++i) {
      prompts.push_back(joined(prompt, {i, 9}));
      ids.push_back(engine.add(prompts.back(), greedy(30)));
      if (i == 0) engine.step();  // the others come while it reads
    }
    int64_t most_active = 0;
    while (engine.step()) {
      engine.check_integrity();
      most_active = std::max(most_active, engine.kv_stats().layers[0].pages_active);
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      const GenerateResult result = *engine.take(ids[i]);
      EXPECT_EQ(result.tokens, alone(prompts[i], 30));
      EXPECT_EQ(result.cached_tokens + result.timings.prefill_tokens, 42);
      // The first had read 24 tokens.
      if (i > 0) {
        EXPECT_GE(result.cached_tokens, 24) << i;
      }
    }
    // Ten blocks are shared, and each has eight of its own.
    EXPECT_LE(most_active, 10 + 4 * 8);
    EXPECT_EQ(engine.kv_stats().total.pages_active, 0);
  }
}

TEST(Sharing, IdenticalBlocksComputedTwiceBecomeOne) {
  Engine engine(parts(tiny(), options_with(0, 2)));
  const auto prompt = prompt_of(25);
  std::vector<SessionId> sessions;
  for (int i = 0; i < 2; ++i) {  // who wants all logits computes all
    sessions.push_back(engine.open_session());
    engine.feed(sessions.back(), prompt, [](int64_t, std::span<const float>) { return true; });
    engine.check_integrity();
  }
  const KvStats stats = engine.kv_stats();
  EXPECT_EQ(stats.layers[0].pages_active, 6 + 2);
  EXPECT_EQ(stats.layers[0].pages_merged, 6);
  EXPECT_EQ(stats.layers[0].pages_allocated, 14);
  Alone alone(Precision::kReference);
  const auto expected = alone(joined(prompt, {5}), 8);
  for (const SessionId session : sessions) {
    EXPECT_EQ(engine.generate(session, std::vector<TokenId>{5}, greedy(8)).tokens, expected);
  }
}

TEST(Sharing, IdenticalBlocksStayTwoWhereTheirBitsMayDiffer) {
  for (const bool is_invariant : {true, false}) {
    const BackendMaker maker = is_invariant ? make_hooked_backend : make_variant_backend;
    Engine engine(make_engine_impl(tiny(), options_with(0, 2), maker));
    const auto prompt = prompt_of(25);
    for (int i = 0; i < 2; ++i) {
      engine.feed(engine.open_session(), prompt,
                  [](int64_t, std::span<const float>) { return true; });
    }
    EXPECT_EQ(engine.kv_stats().layers[0].pages_merged, is_invariant ? 6 : 0);
    EXPECT_EQ(engine.kv_stats().layers[0].pages_active, is_invariant ? 6 + 2 : 14);
  }
}

TEST(Sharing, TurnsAndOtherSessionsShare) {
  Alone alone(Precision::kReference);
  Engine engine(parts(tiny(), options_with(0, 3)));
  std::vector<TokenId> text = prompt_of(18);
  const SessionId first = engine.open_session();
  for (int turn = 0; turn < 2; ++turn) {
    const auto said =
        engine.generate(first, turn == 0 ? text : std::vector<TokenId>{5, 6, 7}, greedy(6));
    if (turn > 0) text = joined(text, {5, 6, 7});
    EXPECT_EQ(said.tokens, alone(text, 6));
    text = joined(text, said.tokens);
  }
  // While it is open another one tells the same, and goes on otherwise.
  const SessionId second = engine.open_session();
  const GenerateResult other = engine.generate(second, joined(text, {1}), greedy(6));
  engine.check_integrity();
  EXPECT_EQ(other.cached_tokens, 32);  // of 33, the newest of which had not been computed
  EXPECT_EQ(other.tokens, alone(joined(text, {1}), 6));
  engine.close_session(first);
  engine.check_integrity();
  // By feed(), which owes logits after the last token only.
  const SessionId third = engine.open_session();
  const int64_t written = engine.kv_stats().tokens_written;
  const auto row = engine.feed(third, text);
  const std::vector<float> fed(row.begin(), row.end());
  EXPECT_EQ(engine.kv_stats().tokens_written - written, 33 - 32);
  Engine fresh(parts(tiny(), options_with(0, 1, false)));
  const auto expected = fresh.feed(fresh.open_session(), text);
  EXPECT_EQ(fed, (std::vector<float>(expected.begin(), expected.end())));
}

TEST(Sharing, WhoOwesLogitsAfterEachTokenComputesThem) {
  Engine engine(parts(tiny(), options_with(0, 2)));
  const auto text = prompt_of(30);
  run(engine, text, 2);
  EXPECT_EQ(all_logits(engine, text).rows, 30);
  const SessionId session = engine.open_session();
  int64_t next = 0;
  engine.feed(session, text, [&](int64_t position, std::span<const float>) {
    EXPECT_EQ(position, next++);
    return true;
  });
  EXPECT_EQ(next, 30);
  engine.check_integrity();
}

TEST(Sharing, TruncatingIntoASharedBlockCopiesBeforeItWrites) {
  for (const Precision precision : exact_precisions()) {
    Alone alone(precision);
    Engine engine(parts(tiny(), options_with(0, 3, true, precision)));
    const auto text = prompt_of(30);
    const SessionId a = engine.open_session();
    const SessionId b = engine.open_session();
    engine.feed(a, text);
    engine.feed(b, text);
    for (const size_t length : {26, 18, 9, 1}) {
      engine.truncate(a, static_cast<int64_t>(length));
      engine.check_integrity();
      EXPECT_EQ(engine.session_length(a), static_cast<int64_t>(length));
      const std::vector<TokenId> more = {3, 1, 4, 1, 5, 9};
      const GenerateResult r = engine.generate(a, more, greedy(5));
      engine.check_integrity();
      EXPECT_EQ(r.tokens, alone(joined(prompt_of(length), more), 5)) << length;
      engine.truncate(a, static_cast<int64_t>(length));
      engine.check_integrity();
    }
    // The other one has not noticed, nor has the tree.
    EXPECT_EQ(engine.generate(b, std::vector<TokenId>{8, 8}, greedy(5)).tokens,
              alone(joined(text, {8, 8}), 5));
    EXPECT_EQ(run(engine, text, 5).tokens, alone(text, 5));
  }
}

TEST(Sharing, TruncatingWorksWhereNoPageIsLeftForACopy) {
  Alone alone(Precision::kReference);
  for (const int64_t length : {30, 29, 27, 25, 22, 17, 3}) {
    // Eight blocks: the whole pool.
    Engine engine(parts(tiny(), options_with(8 * 2, 1)));
    const auto text = prompt_of(32);
    const SessionId session = engine.open_session();
    engine.feed(session, text);
    EXPECT_EQ(engine.kv_stats().pages_free, 0);
    engine.truncate(session, length);
    engine.check_integrity();
    std::vector<TokenId> prompt = prompt_of(static_cast<size_t>(length));
    prompt.push_back(77);
    const auto n = static_cast<int32_t>(32 - length);
    const GenerateResult r = engine.generate(session, std::vector<TokenId>{77}, greedy(n));
    engine.check_integrity();
    EXPECT_EQ(r.finish_reason, FinishReason::kLength);
    EXPECT_EQ(r.tokens, alone(prompt, n)) << length;
  }
}

TEST(Sharing, RulesThatScoreNeitherReadNorPublish) {
  for (const std::string policy :
       {"h2o:32@every:8", "0=window:40,1=knorm:32@every:8", "snapkv:90", "random:90@every:8"}) {
    SCOPED_TRACE(policy);
    EngineOptions options = options_with(0, 2);
    options.kv.policy = policy;
    Engine engine(parts(tiny(), options));
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(run(engine, prompt_of(40), 4).cached_tokens, 0);
      engine.feed(engine.open_session(), prompt_of(20));
    }
    const KvStats stats = engine.kv_stats();
    EXPECT_EQ(stats.total.pages_cached, 0);
    EXPECT_EQ(stats.prefix_lookups, 0);
  }
}

TEST(Sharing, WhatWasKeptUnderOtherRulesIsNeverServed) {
  const auto prompt = prompt_of(40);
  Engine engine(parts(tiny(), options_with(0, 1)));
  run(engine, prompt, 4);
  int64_t kept = 0;
  uint64_t seen = 0;
  std::string before = "full";
  for (const std::string policy :
       {"h2o:16@every:8", "full", "window:12", "full", "sink:4+8", "sink:4+8@original",
        "0=full,1=window:12", "0=window:12,1=full", "window:11", "window:12", "full"}) {
    kept += engine.kv_stats().layers[0].pages_cached;
    seen = engine.kv_stats().events;
    engine.set_kv_policy(policy);
    for (const KvEvent& event : engine.kv_events(seen)) {
      EXPECT_EQ(event.reason, RemovalReason::kUser);
      if (before.find('=') == std::string::npos) {
        EXPECT_EQ(event.policy, before);
      }
    }
    before = policy;
    engine.check_integrity();
    EXPECT_EQ(engine.kv_stats().total.pages_cached, 0);
    EXPECT_EQ(engine.kv_stats().pages_free, engine.kv_stats().pool_pages);
    const GenerateResult r = run(engine, prompt, 20);
    EXPECT_EQ(r.cached_tokens, 0) << policy;
    EngineOptions options = options_with(0, 1, false);
    options.kv.policy = policy;
    Engine fresh(parts(tiny(), options));
    EXPECT_EQ(r.tokens, fresh.generate(prompt, greedy(20)).tokens) << policy;
  }
  const auto removed = engine.kv_stats().layers[0].pages_removed;
  EXPECT_EQ(removed[static_cast<size_t>(RemovalReason::kCapacity)], 0);
  EXPECT_EQ(removed[static_cast<size_t>(RemovalReason::kUser)], kept);
}

TEST(Sharing, OffMeansOff) {
  Engine engine(parts(tiny(), options_with(0, 2, false)));
  for (int i = 0; i < 2; ++i) EXPECT_EQ(run(engine, prompt_of(40), 4).cached_tokens, 0);
  EXPECT_EQ(engine.kv_stats().total.pages_cached, 0);
  EXPECT_EQ(engine.kv_stats().prefix_lookups, 0);
  EXPECT_FALSE(engine.options().kv.reuse);
}

TEST(Sharing, WhatIsKeptGivesWayToWhoNeedsThePages) {
  Alone alone(Precision::kReference);
  // Ten blocks; each request needs eight.
  Engine engine(parts(tiny(), options_with(10 * 2, 2)));
  for (TokenId i = 0; i < 6; ++i) {
    std::vector<TokenId> prompt = prompt_of(23);
    prompt.insert(prompt.begin(), i);
    EXPECT_EQ(run(engine, prompt, 8).tokens, alone(prompt, 8));
  }
  const KvStats stats = engine.kv_stats();
  EXPECT_GT(stats.total.pages_removed[static_cast<size_t>(RemovalReason::kCapacity)], 0);
  EXPECT_EQ(stats.reservations_refused, 0);
  EXPECT_EQ(stats.total.pages_active, 0);
  EXPECT_EQ(stats.pages_free + stats.total.pages_cached, stats.pool_pages);
}

TEST(Sharing, DecodingTakesNoMemory) {
  if (!kCountsBytes || kOnCuda) GTEST_SKIP();
  EngineOptions options = options_with(16 * 2, 2);
  options.threads = 1;
  Engine engine(tiny(), options);
  run(engine, prompt_of(40), 2);
  int64_t allocations = -1;
  int said = 0;
  GenerateOptions talks = greedy(30);
  talks.on_token = [&](const TokenEvent&) {
    ++said;
    if (said == 3) allocations = g_allocations;
    if (said == 29) allocations = g_allocations - allocations;
    return true;
  };
  // Blocks become full, enter the tree, and push out those of the other text.
  engine.generate(joined({1}, prompt_of(20)), talks);
  EXPECT_EQ(allocations, 0);
  EXPECT_GT(engine.kv_stats().total.pages_removed[static_cast<size_t>(RemovalReason::kCapacity)],
            0);
}

TEST(Sharing, ATurnOfASessionIsToldWhatMissed) {
  Engine engine(parts(tiny(), options_with(12 * 2, 2)));
  const std::vector<TokenId> turn = {1, 2, 3, 4, 5, 6};
  const SessionId session = engine.open_session();
  EXPECT_EQ(engine.generate(session, prompt_of(18), greedy(2)).miss.reason, MissReason::kFirstSeen);
  // It holds 19 positions, four full blocks of them, and a token that is pending.
  int64_t lookups = engine.kv_stats().prefix_lookups;
  PrefixMiss miss = engine.generate(session, turn, greedy(1)).miss;
  EXPECT_EQ(to_json(miss), R"({"reason":"differs","position":16,"differs_at":19})");
  EXPECT_EQ(engine.kv_stats().prefix_lookups, lookups + 1);
  // A turn that fills no block misses none.
  miss = engine.generate(session, std::vector<TokenId>{7}, greedy(1)).miss;
  EXPECT_EQ(miss.reason, MissReason::kNone);

  // Another one takes all pages: the session is parked, and what it had is reclaimed.
  const int64_t held = engine.session_length(session) - 1;
  std::vector<TokenId> large = prompt_of(45);
  large.insert(large.begin(), 99);
  const RequestId id = engine.add(large, greedy(1));
  while (engine.step()) engine.check_integrity();
  engine.take(id);
  ASSERT_EQ(engine.stats().sessions_parked, 1);
  lookups = engine.kv_stats().prefix_lookups;
  const int64_t regrets = engine.kv_stats().reclaim_regrets;
  const GenerateResult result = engine.generate(session, turn, greedy(1));
  EXPECT_EQ(result.miss.reason, MissReason::kReclaimed);
  EXPECT_TRUE(result.miss.again);
  EXPECT_EQ(result.miss.position, 0);
  EXPECT_EQ(result.miss.request, id);
  EXPECT_EQ(
      to_json(result.miss),
      fmt::format(R"({{"reason":"reclaimed","again":true,"position":0,"step":{},"request":{}}})",
                  result.miss.step, id));
  EXPECT_EQ(result.recomputed_tokens, held);
  EXPECT_EQ(engine.kv_stats().prefix_lookups, lookups) << "a text that is read again counts once";
  EXPECT_EQ(engine.kv_stats().reclaim_regrets, regrets);

  // Rules that share nothing say so of every turn.
  EngineOptions options = options_with(0, 2);
  options.kv.policy = "h2o:16@every:8";
  Engine scored(parts(tiny(), options));
  const SessionId other = scored.open_session();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(scored.generate(other, turn, greedy(2)).miss.reason, MissReason::kNotShared);
  }
}

TEST(Sharing, ARequestThatWasParkedIsToldWhatMissedThen) {
  // The second one finds its whole prompt, is parked for the first, and finds it reclaimed.
  Engine engine(parts(tiny(), options_with(14 * 2, 2)));
  engine.generate(prompt_of(20), greedy(1));
  std::vector<TokenId> other(20, 7);
  GenerateOptions first = greedy(34);
  first.priority = 1;
  const RequestId a = engine.add(other, first);
  const RequestId b = engine.add(prompt_of(20), greedy(12));
  while (engine.step()) engine.check_integrity();
  EXPECT_EQ(engine.take(a)->miss.reason, MissReason::kFirstSeen);
  const GenerateResult result = *engine.take(b);
  ASSERT_GT(result.preemptions, 0);
  EXPECT_EQ(result.cached_tokens, 16) << "found when it came";
  EXPECT_EQ(result.miss.reason, MissReason::kReclaimed);
  EXPECT_TRUE(result.miss.again);
  EXPECT_EQ(result.miss.request, a);
  EXPECT_EQ(result.tokens, Alone(Precision::kReference)(prompt_of(20), 12));
}

TEST(Sharing, TheReasonOfTheFirstMissIsTold) {
  EngineOptions options = options_with(12 * 2, 1);
  Engine engine(parts(tiny(), options));
  const auto miss_of = [&](const std::vector<TokenId>& prompt) {
    const RequestId id = engine.add(prompt, greedy(1));
    while (engine.step()) engine.check_integrity();
    return engine.take(id)->miss;
  };
  PrefixMiss miss = miss_of(prompt_of(22));
  EXPECT_EQ(miss.reason, MissReason::kFirstSeen);
  EXPECT_EQ(miss.position, 0);
  EXPECT_EQ(to_json(miss), R"({"reason":"first_seen","position":0})");
  // The same again: all that can be there is.
  miss = miss_of(prompt_of(22));
  EXPECT_EQ(miss.reason, MissReason::kNone);
  EXPECT_EQ(to_json(miss), R"({"reason":"none"})");
  // One token is another.
  auto other = prompt_of(22);
  other[10] += 1;
  miss = miss_of(other);
  EXPECT_EQ(miss.reason, MissReason::kDiffers);
  EXPECT_EQ(miss.position, 8);
  EXPECT_EQ(miss.differs_at, 10);
  EXPECT_EQ(to_json(miss), R"({"reason":"differs","position":8,"differs_at":10})");
  // Of several that continue a block the one counts that is alike for longest.
  other[11] += 1;
  EXPECT_EQ(miss_of(other).differs_at, 11);
  // It goes on where what is kept ends.
  miss = miss_of(prompt_of(30));
  EXPECT_EQ(miss.reason, MissReason::kDiffers);
  EXPECT_EQ(miss.differs_at, 20);
  // Another text takes all the room.
  std::vector<TokenId> large = prompt_of(45);
  large.insert(large.begin(), 99);
  EXPECT_EQ(miss_of(large).reason, MissReason::kFirstSeen);
  const int64_t step = engine.kv_stats().steps;
  miss = miss_of(prompt_of(22));
  EXPECT_EQ(miss.reason, MissReason::kReclaimed);
  EXPECT_EQ(miss.request, 6);
  EXPECT_LT(miss.step, step);
  EXPECT_GE(miss.step, step - 2);
  EXPECT_EQ(miss.position, 0);
  EXPECT_EQ(
      to_json(miss),
      fmt::format(R"({{"reason":"reclaimed","position":0,"step":{},"request":6}})", miss.step));
  EXPECT_EQ(engine.kv_stats().reclaim_regrets, 1);
  // Other rules and back.
  engine.set_kv_policy("h2o:16@every:8");
  EXPECT_EQ(miss_of(prompt_of(22)).reason, MissReason::kNotShared);
  engine.set_kv_policy("full");
  miss = miss_of(prompt_of(22));
  EXPECT_EQ(miss.reason, MissReason::kSettings);
  EXPECT_EQ(miss.request, 0);
  EXPECT_EQ(engine.kv_stats().reclaim_regrets, 1) << "more memory would not have kept it";
  options.kv.reuse = false;
  Engine alone(parts(tiny(), options));
  EXPECT_EQ(alone.generate(prompt_of(22), greedy(1)).miss.reason, MissReason::kNotShared);
  EXPECT_STREQ(miss_reason_name(MissReason::kSettings), "settings");
  EXPECT_STREQ(miss_reason_name(MissReason::kNotShared), "not_shared");
  EXPECT_STREQ(miss_reason_name(static_cast<MissReason>(9)), "unknown");
}

/// The newest leaf leaves first.
class NewestFirst final : public ReclaimPolicy {
 public:
  explicit NewestFirst(int* asked) : asked_(asked) {}
  std::string name() const override { return "newest"; }
  void on_leaf(const CachedBlock& block) override { leaves_.push_back(block.block); }
  void on_use(int32_t block) override { std::erase(leaves_, block); }
  void on_removed(int32_t block) override { std::erase(leaves_, block); }
  int32_t next() override {
    ++*asked_;
    return leaves_.back();
  }

 private:
  int* asked_;
  std::vector<int32_t> leaves_;
};

TEST(Sharing, TheOrderOfReclaimsIsTheHostsChoice) {
  // Twelve blocks. A text of five that is read again and again, and others that come once.
  const auto hits_under = [](const std::string& name, const ReclaimMaker& own) {
    EngineOptions options = options_with(12 * 2, 1);
    options.kv.reclaim = name;
    options.kv.custom_reclaim = own;
    Engine engine(parts(tiny(), options));
    int64_t hits = 0;
    Alone alone(Precision::kReference);
    for (TokenId i = 0; i < 40; ++i) {
      std::vector<TokenId> prompt = prompt_of(21);
      if (i > 2 && i % 4 != 0) prompt.insert(prompt.begin(), {50 + i, 1, 2, i, i, i, i});
      const GenerateResult r = run(engine, prompt, 2);
      EXPECT_EQ(r.tokens, alone(prompt, 2));
      hits += r.cached_tokens;
    }
    EXPECT_EQ(engine.kv_stats().policy_violations, 0);
    return hits;
  };
  const int64_t lru = hits_under("lru", nullptr);
  EXPECT_GT(hits_under("s3fifo", nullptr), lru);
  EXPECT_GT(hits_under("depth", nullptr), lru);
  int asked = 0;
  hits_under("lru", [&] { return std::make_unique<NewestFirst>(&asked); });
  EXPECT_GT(asked, 0);
  EXPECT_EQ(reclaim_names(), (std::vector<std::string>{"lru", "s3fifo", "depth"}));
  EXPECT_EQ(KvOptions().reclaim, reclaim_names().front());
  EngineOptions options = options_with(0, 1);
  options.kv.reclaim = "mru";
  EXPECT_EQ(refusal_of([&] { Engine(parts(tiny(), options)); }),
            "kv.reclaim is 'mru'; it must be lru, s3fifo or depth");
  options.kv.reclaim = "custom";  // what traces call a host's
  EXPECT_THROW(Engine(parts(tiny(), options)), Error);
  options.kv.custom_reclaim = [] { return std::unique_ptr<ReclaimPolicy>(); };
  EXPECT_EQ(refusal_of([&] { Engine(parts(tiny(), options)); }),
            "kv.custom_reclaim made no policy");
  options.kv.custom_reclaim = []() -> std::unique_ptr<ReclaimPolicy> {
    throw std::runtime_error("not today");
  };
  EXPECT_EQ(refusal_of([&] { Engine(parts(tiny(), options)); }),
            "kv.custom_reclaim threw: not today");
  struct Nameless final : ReclaimPolicy {
    std::string name() const override { throw std::runtime_error("no name"); }
    void on_leaf(const CachedBlock&) override {}
    void on_use(int32_t) override {}
    void on_removed(int32_t) override {}
    int32_t next() override { return -1; }
  };
  options.kv.custom_reclaim = [] { return std::make_unique<Nameless>(); };
  EXPECT_EQ(refusal_of([&] { Engine(parts(tiny(), options)); }),
            "a reclaim policy's name() threw: no name");
}

/// Requests, sessions, truncations, cancellations in any order, over texts that begin alike, beside
/// an engine that shares nothing and runs each alone.
class AnySchedule {
 public:
  AnySchedule(uint32_t seed, Precision precision)
      : random_(seed), alone_(precision), engine_(parts(tiny(), options(seed, precision))) {}
  /// Under a rule of position alone, in a pool of so many times what one sequence needs.
  AnySchedule(uint32_t seed, Precision precision, const std::string& policy, int32_t block,
              double times)
      : random_(seed),
        alone_(precision, policy),
        engine_(parts(tiny(), windowed(seed, precision, policy, block, times))) {}

  void run(int n) {
    for (int i = 0; i < n && !testing::Test::HasFailure(); ++i) {
      switch (random_() % 6) {
        case 0:
          add();
          break;
        case 1:
          talk();
          break;
        case 2:
          rewind();
          break;
        default:
          for (int k = static_cast<int>(random_() % 6); k >= 0; --k) step();
      }
    }
    while (engine_.step()) engine_.check_integrity();
    collect();
    cached_ = engine_.kv_stats().prefix_hits;
  }
  int64_t cached() const { return cached_; }
  int64_t refused() const { return engine_.kv_stats().reservations_refused; }
  int64_t reclaimed() const {
    return engine_.kv_stats().total.pages_removed[static_cast<size_t>(RemovalReason::kCapacity)];
  }
  int64_t merged() const { return engine_.kv_stats().total.pages_merged; }
  int64_t parked() const { return engine_.stats().sessions_parked; }

 private:
  static EngineOptions windowed(uint32_t seed, Precision precision, const std::string& policy,
                                int32_t block, double times) {
    EngineOptions o = options(seed, precision);
    o.kv.policy = policy;
    o.kv.block_size = block;
    o.kv.budget_bytes = 0;
    o.max_sequences = 1;
    const KvStats one = Engine(parts(tiny(), o)).kv_stats();
    o.max_sequences = 3;
    o.kv.budget_bytes = static_cast<uint64_t>(times * static_cast<double>(one.pool_bytes));
    return o;
  }
  static EngineOptions options(uint32_t seed, Precision precision) {
    EngineOptions o = options_with(pages(seed), 3, true, precision);
    o.kv.reclaim = std::array{"lru", "s3fifo", "depth"}[seed / 3 % 3];
    return o;
  }
  static int64_t pages(uint32_t seed) { return 2 * (std::array{30, 48, 120}[seed % 3]); }

  std::vector<TokenId> text() {
    std::vector<TokenId> tokens = prompt_of(3 + random_() % 30);
    for (int k = static_cast<int>(random_() % 7); k > 0; --k) tokens.push_back(random_() % 3);
    return tokens;
  }

  void add() {
    if (wanted_.size() > 4) return;
    const auto prompt = text();
    const auto n = static_cast<int32_t>(1 + random_() % 20);
    wanted_[engine_.add(prompt, greedy(n))] = {prompt, n};
  }

  void step() {
    engine_.step();
    engine_.check_integrity();
    collect();
  }

  void collect() {
    for (auto it = wanted_.begin(); it != wanted_.end();) {
      const auto result = engine_.take(it->first);
      if (!result) {
        ++it;
        continue;
      }
      EXPECT_EQ(result->finish_reason, FinishReason::kLength) << result->error;
      EXPECT_EQ(result->tokens, alone_(it->second.first, it->second.second));
      EXPECT_EQ(result->cached_tokens + result->timings.prefill_tokens, result->prompt_tokens);
      it = wanted_.erase(it);
    }
  }

  /// A turn of one session; others run on meanwhile.
  void talk() {
    if (!session_ || random_() % 8 == 0) {
      if (session_) engine_.close_session(*session_);
      session_.reset();
      said_.clear();
      if (engine_.kv_stats().sequences == 3) return;  // requests have all places
      session_ = engine_.open_session();
    }
    const auto more = random_() % 2 == 0 ? text() : std::vector<TokenId>{4, 5};
    if (said_.size() + more.size() > 70) return rewind();
    said_ = joined(said_, more);
    const auto n = static_cast<int32_t>(1 + random_() % 8);
    const GenerateResult result = engine_.generate(*session_, more, greedy(n));
    engine_.check_integrity();
    if (result.finish_reason == FinishReason::kKvFull) {  // it had come without an announcement
      engine_.close_session(*session_);
      session_.reset();
      return;
    }
    EXPECT_EQ(result.tokens, alone_(said_, n));
    said_ = joined(said_, result.tokens);
  }

  void rewind() {
    if (!session_ || said_.empty()) return;
    const size_t length = random_() % said_.size();
    try {
      engine_.truncate(*session_, static_cast<int64_t>(length));
      said_.resize(length);
    } catch (const Error&) {  // the window has moved on
    }
    engine_.check_integrity();
  }

  std::mt19937 random_;
  Alone alone_;
  Engine engine_;
  std::map<RequestId, std::pair<std::vector<TokenId>, int32_t>> wanted_;
  std::optional<SessionId> session_;
  std::vector<TokenId> said_;
  int64_t cached_ = 0;
};

TEST(Sharing, AnyScheduleSaysWhatEachSaysAlone) {
  int64_t hits = 0;
  int64_t reclaimed = 0;
  int64_t merged = 0;
  for (const Precision precision : exact_precisions()) {
    for (uint32_t seed = 1; seed <= (kEmulated ? 1 : 12); ++seed) {
      SCOPED_TRACE(fmt::format("seed {}", seed));
      AnySchedule schedule(seed, precision);
      schedule.run(kEmulated ? 12 : 120);
      hits += schedule.cached();
      reclaimed += schedule.reclaimed();
      merged += schedule.merged();
    }
  }
  EXPECT_GT(hits, kEmulated ? 0 : 1000);
  if (kEmulated) return;
  EXPECT_GT(reclaimed, 100);
  EXPECT_GT(merged, 10);
}

TEST(Sharing, AnyScheduleUnderAWindowSaysWhatEachSaysAlone) {
  int64_t hits = 0, reclaimed = 0, merged = 0, parked = 0;
  uint32_t seed = 1;
  for (const Precision precision : exact_precisions()) {
    for (const std::string policy :
         {"window:12", "sink:3+9", "sink:5+20@original", "0=full,*=sink:2+14"}) {
      for (const int32_t block : {1, 4, 16}) {
        for (const double times : {1.0, 1.5, 3.0}) {
          if (kEmulated && (block != 4 || times != 1.5)) continue;
          SCOPED_TRACE(fmt::format("{} blocks of {}, {} times", policy, block, times));
          AnySchedule schedule(seed++, precision, policy, block, times);
          schedule.run(kEmulated ? 8 : 60);
          if (HasFailure()) return;
          hits += schedule.cached();
          reclaimed += schedule.reclaimed();
          merged += schedule.merged();
          parked += schedule.parked();
        }
      }
    }
  }
  EXPECT_GT(hits, kEmulated ? 0 : 1000);
  if (kEmulated) return;
  EXPECT_GT(reclaimed, 1000);
  EXPECT_GT(merged, 10);
  EXPECT_GT(parked, 10);
}

TEST(Sharing, PromptsShareWhatAWindowHasPassed) {
  for (const std::string policy : {"window:12", "sink:4+12", "0=full,1=sink:2+10"}) {
    SCOPED_TRACE(policy);
    EngineOptions options = options_with(400, 3);
    options.kv.policy = policy;
    Engine engine(parts(tiny(), options));
    Alone alone(Precision::kReference, policy);
    const auto prompt = prompt_of(40);
    const GenerateResult first = run(engine, joined(prompt, {1, 2, 3}), 8);
    EXPECT_EQ(first.cached_tokens, 0);
    const GenerateResult again = run(engine, joined(prompt, {9, 8, 7}), 8);
    EXPECT_EQ(again.cached_tokens, 40);
    EXPECT_EQ(again.tokens, alone(joined(prompt, {9, 8, 7}), 8));
    // A session, parked or not, goes on from there.
    const SessionId session = engine.open_session();
    EXPECT_EQ(engine.generate(session, joined(prompt, {5}), greedy(6)).cached_tokens, 40);
    const SessionId other = engine.fork_session(session);
    const auto text = joined(joined(prompt, {5}), alone(joined(prompt, {5}), 6));
    EXPECT_EQ(engine.generate(other, std::vector<TokenId>{6}, greedy(6)).tokens,
              alone(joined(text, {6}), 6));
    EXPECT_EQ(engine.generate(session, std::vector<TokenId>{7}, greedy(6)).tokens,
              alone(joined(text, {7}), 6));
    engine.check_integrity();
    // At the same time.
    std::vector<RequestId> ids;
    for (TokenId i = 0; i < 3; ++i) ids.push_back(engine.add(joined({i}, prompt), greedy(5)));
    while (engine.step()) engine.check_integrity();
    for (TokenId i = 0; i < 3; ++i) {
      EXPECT_EQ(engine.take(ids[static_cast<size_t>(i)])->tokens, alone(joined({i}, prompt), 5));
    }
  }
}

TEST(Sharing, APageThatAWindowPassedAndThatWasReclaimedIsTheReason) {
  EngineOptions options = options_with(0, 1);
  options.kv.policy = "window:12";
  options.kv.budget_bytes =
      static_cast<uint64_t>(Engine(parts(tiny(), options)).kv_stats().pool_bytes);
  options.max_sequences = 2;  // in a pool for one
  Engine engine(parts(tiny(), options));
  const SessionId session = engine.open_session();
  engine.generate(session, prompt_of(50), greedy(60));
  engine.check_integrity();
  // Its beginning had to go: the session lives on.
  const RequestId id = engine.add(prompt_of(30), greedy(1));
  while (engine.step()) engine.check_integrity();
  const PrefixMiss miss = engine.take(id)->miss;
  EXPECT_EQ(miss.reason, MissReason::kTrimmed);
  EXPECT_EQ(miss.position, 0);
  EXPECT_GE(miss.step, 0);
  EXPECT_EQ(to_json(miss),
            fmt::format(R"({{"reason":"trimmed","position":0,"step":{},"request":1}})", miss.step));
  EXPECT_STREQ(miss_reason_name(MissReason::kTrimmed), "trimmed");
}

}  // namespace
}  // namespace paddock::test
