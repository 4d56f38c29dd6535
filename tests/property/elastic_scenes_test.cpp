// Elastic rules, scene by scene: who gives pages back, in which order and how many, and what the
// books hold of a sequence that has fallen.
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "support/engine_inside.h"
#include "support/rule_examples.h"
#include "support/shared_memory.h"

namespace paddock::test {
namespace {

constexpr int64_t kInterval = 8;
constexpr int64_t kBlock = 4;
constexpr int32_t kLayers = 2;

struct Scene {
  Scene(const std::string& policy, int64_t pages, int32_t sequences, bool reuse = true,
        const std::vector<std::string>& others = {}) {
    EngineOptions o = shared_memory(policy, pages, sequences);
    o.context = 400;
    o.kv.reuse = reuse;
    o.kv.other_policies = others;
    inside = parts(tiny(), o);
    engine = std::make_unique<Engine>(inside);
  }
  RequestId add(size_t begin, size_t prompt, int32_t n, int32_t priority = 0,
                const std::string& policy = {}) {
    GenerateOptions options = greedy(n);
    options.priority = priority;
    options.kv_policy = policy;
    return engine->add(text_at(begin, prompt), options);
  }
  const Request* find(RequestId id) const {
    for (const auto& request : inside->scheduler->requests()) {
      if (request->id == id) return request.get();
    }
    return nullptr;
  }
  int64_t positions(RequestId id) const {
    return inside->cache->holdings(find(id)->sequence.tables()).positions;
  }
  int32_t budget(RequestId id) const {
    const Request* request = find(id);
    return request == nullptr || !request->sequence.is_open()
               ? -1
               : inside->cache->budget(request->sequence.tables());
  }
  bool step() {
    const bool busy = engine->step();
    engine->check_integrity();
    return busy;
  }
  int64_t falls() const { return engine->kv_stats().budget_falls; }
  std::shared_ptr<Engine::Impl> inside;
  std::unique_ptr<Engine> engine;
};

// ---- fairness

TEST(ElasticScenes, EqualSequencesHaveEqualParts) {
  for (const char* policy : {"lru@every:8", "window@every:8", "knorm@every:8"}) {
    SCOPED_TRACE(policy);
    Scene scene(policy, 64, 4, false);
    std::vector<RequestId> ids;
    for (size_t i = 0; i < 4; ++i) ids.push_back(scene.add(7 * i, 12 + i, 150));
    int compared = 0;
    while (scene.step()) {
      int64_t least = 1000, most = 0;
      const bool all = std::all_of(ids.begin(), ids.end(), [&](RequestId id) {
        return scene.budget(id) >= 0 && scene.budget(id) != kUnlimited;
      });
      if (!all) continue;
      for (const RequestId id : ids) {
        least = std::min(least, scene.positions(id));
        most = std::max(most, scene.positions(id));
      }
      // One decision's worth, and whole blocks leave.
      EXPECT_LE(most - least, kInterval + kBlock);
      EXPECT_GE(least, 64 / kLayers * kBlock / 4 - 2 * kInterval - kBlock);
      ++compared;
    }
    EXPECT_GT(compared, 60);
    for (const RequestId id : ids) {
      const auto result = scene.engine->take(id);
      EXPECT_EQ(result->finish_reason, FinishReason::kLength);
      EXPECT_EQ(result->preemptions, 0);
      EXPECT_LE(result->budget_changes.size(), 4U);
    }
  }
}

/// n equal requests in a pool that one of them would fill: never further apart than that.
void expect_equal_parts(const char* policy, size_t n, bool shares) {
  constexpr size_t kPrompt = 24;
  constexpr int32_t kTokens = 260;
  const auto pages = static_cast<int64_t>(kPrompt + kTokens) / kBlock * kLayers;  // of one
  Scene scene(policy, pages, static_cast<int32_t>(n), shares);
  std::vector<RequestId> ids;
  for (size_t i = 0; i < n; ++i) {
    std::vector<TokenId> prompt = text_at(shares ? 0 : 5 * i, kPrompt);
    prompt.back() = static_cast<TokenId>(i + 3);
    ids.push_back(scene.engine->add(prompt, greedy(kTokens)));
  }
  const int64_t fair = pages / kLayers * kBlock / static_cast<int64_t>(n);
  int compared = 0;
  while (scene.step()) {
    const bool all = std::all_of(ids.begin(), ids.end(), [&](RequestId id) {
      return scene.budget(id) >= 0 && scene.budget(id) != kUnlimited;
    });
    if (!all) continue;
    int64_t least = 1000, most = 0;
    for (const RequestId id : ids) {
      least = std::min(least, scene.positions(id));
      most = std::max(most, scene.positions(id));
      EXPECT_GE(scene.budget(id), scene.inside->cache->least_budget(0));
    }
    EXPECT_LE(most - least, kInterval + kBlock - 1) << "one decision's worth, in whole blocks";
    EXPECT_LE(most, fair + kBlock + (shares ? static_cast<int64_t>(kPrompt) : 0));
    ++compared;
  }
  EXPECT_GT(compared, 100);
  for (const RequestId id : ids) {
    const auto result = scene.engine->take(id);
    EXPECT_EQ(result->finish_reason, FinishReason::kLength);
    EXPECT_EQ(result->preemptions, 0);
    EXPECT_EQ(result->cached_tokens > 0, shares && id != ids[0]);
  }
}

TEST(ElasticScenes, InAPoolForOneEqualSequencesDifferByOneDecisionAtMost) {
  const std::vector<std::pair<const char*, size_t>> cases = {
      {"lru@every:8", 2},    {"lru@every:8", 3},      {"lru@every:8", 8},
      {"window@every:8", 2}, {"window@every:8", 8},   {"h2o@every:8", 3},
      {"sink:3@every:8", 4}, {"cake:lru@every:8", 3}, {"tova@every:8@compact", 5},
      {"knorm@every:8", 4}};
  for (const auto& [policy, n] : cases) {
    for (const bool shares : {false, true}) {
      SCOPED_TRACE(fmt::format("{}, {} sequences, shared {}", policy, n, shares));
      expect_equal_parts(policy, n, shares);
      if (HasFailure()) return;
    }
  }
}

TEST(ElasticScenes, SequencesUnderDifferentElasticRulesHaveEqualParts) {
  const std::vector<std::string> rules = {"lru@every:8", "sink:2@every:8", "h2o@every:8"};
  Scene scene(rules[0], 72, 3, false, {rules[1], rules[2]});
  std::vector<RequestId> ids;
  for (size_t i = 0; i < 3; ++i) ids.push_back(scene.add(7 * i, 12 + i, 150, 0, rules[i]));
  int compared = 0;
  while (scene.step()) {
    int64_t least = 1000, most = 0;
    const bool all = std::all_of(ids.begin(), ids.end(), [&](RequestId id) {
      return scene.budget(id) >= 0 && scene.budget(id) != kUnlimited;
    });
    if (!all) continue;
    for (const RequestId id : ids) {
      least = std::min(least, scene.positions(id));
      most = std::max(most, scene.positions(id));
    }
    EXPECT_LE(most - least, kInterval + kBlock - 1);
    ++compared;
  }
  EXPECT_GT(compared, 60);
}

TEST(ElasticScenes, EachLevelOfPriorityWeighsTwice) {
  Scene scene("lru@every:8", 80, 3, false);
  const RequestId low = scene.add(0, 20, 180, -1);
  const RequestId middle = scene.add(7, 21, 180, 0);
  const RequestId high = scene.add(14, 22, 180, 1);
  int compared = 0;
  while (scene.step()) {
    const int32_t a = scene.budget(low), b = scene.budget(middle), c = scene.budget(high);
    if (std::min({a, b, c}) < 0 || std::max({a, b, c}) == kUnlimited) continue;
    if (a > scene.inside->cache->least_budget(0)) {
      EXPECT_NEAR(b, 2 * a, kInterval + 2);
    }
    EXPECT_NEAR(c, 2 * b, 2 * kInterval + 2);
    ++compared;
  }
  EXPECT_GT(compared, 20);
}

TEST(ElasticScenes, EightLevelsOfPriorityAreTheMost) {
  Scene scene("lru@every:8", 64, 2, false);
  const RequestId eight = scene.add(0, 20, 150, 8), more = scene.add(7, 21, 150, 30);
  int compared = 0;
  while (scene.step()) {
    const int32_t a = scene.budget(eight), b = scene.budget(more);
    if (std::min(a, b) < 0 || std::max(a, b) == kUnlimited) continue;
    EXPECT_NEAR(a, b, kInterval + 2);
    ++compared;
  }
  EXPECT_GT(compared, 60);
}

TEST(ElasticScenes, AFloorHoldsAgainstWhoeverComesFirst) {
  // By their weights the low one would have a 64th of what the high one has.
  Scene scene("lru@every:8@min:24", 64, 2, false);
  const RequestId low = scene.add(0, 20, 150, -3), high = scene.add(7, 21, 150, 3);
  int compared = 0;
  while (scene.step()) {
    const int32_t a = scene.budget(low), b = scene.budget(high);
    if (std::min(a, b) < 0 || std::max(a, b) == kUnlimited) continue;
    EXPECT_EQ(a, 24);
    // The rest of 128 positions is the other one's, but for the room that a fall makes.
    EXPECT_GE(b, 128 - (24 + kInterval + kBlock) - 2 * kInterval - kBlock - kInterval);
    ++compared;
  }
  EXPECT_GT(compared, 40);
  for (const RequestId id : {low, high}) EXPECT_EQ(scene.engine->take(id)->preemptions, 0);
}

TEST(ElasticScenes, NobodyFallsBelowItsFloorAndWhoFindsNonePlaceWaits) {
  // Two floors of 40, a block and an interval fit, and no third one.
  Scene scene("lru@every:8@min:40", 60, 3, false);
  const RequestId a = scene.add(0, 30, 90), b = scene.add(7, 30, 90);
  while (scene.falls() == 0) ASSERT_TRUE(scene.step());
  const RequestId c = scene.add(14, 30, 20);
  while (scene.find(a) != nullptr && scene.find(b) != nullptr && scene.step()) {
    if (scene.find(a) == nullptr || scene.find(b) == nullptr) break;
    EXPECT_FALSE(scene.find(c)->running && scene.falls() > 0) << "its floor is not there";
  }
  while (scene.step()) {
  }
  for (const RequestId id : {a, b, c}) {
    const auto result = scene.engine->take(id);
    EXPECT_EQ(result->finish_reason, FinishReason::kLength);
    EXPECT_EQ(result->preemptions, 0);
    for (const KvBudgetChange& change : result->budget_changes) EXPECT_GE(change.after, 40);
  }
  EXPECT_GE(scene.falls(), 2);
}

TEST(ElasticScenes, AFallLeavesRoomForLongerAndNoMoreThanThat) {
  for (const int64_t pages : {44, 80, 130, 190}) {
    SCOPED_TRACE(pages);
    Scene scene("lru@every:8", pages, 1);
    const int64_t room = pages / kLayers * kBlock;
    const auto id = scene.add(0, 20, static_cast<int32_t>(room + 40));
    while (scene.step()) {
    }
    const auto result = scene.engine->take(id);
    ASSERT_EQ(result->budget_changes.size(), 1U);
    const int64_t budget = result->budget_changes[0].after;
    const int64_t free = std::max(kInterval, budget / 8);
    EXPECT_GE(room - budget, free);
    EXPECT_LE(room - budget, free + 2 * kBlock);
    EXPECT_GT(result->budget_changes[0].length, room - 2 * kInterval);
  }
}

TEST(ElasticScenes, ChunksAreWholeWhilePagesLastAndEndAtDecisionLengthsThen) {
  EngineOptions o = shared_memory("lru@every:8", 40, 2);  // 80 positions
  o.context = 400;
  o.batch_size = 30;
  const auto inside = parts(tiny(), o);
  Engine engine(inside);
  const RequestId id = engine.add(text_at(0, 150), greedy(4));
  std::vector<int64_t> lengths;
  while (engine.step()) {
    if (inside->scheduler->requests().empty()) break;
    lengths.push_back(inside->scheduler->requests()[0]->sequence.computed());
  }
  const GenerateResult result = engine.take(id).value();
  ASSERT_FALSE(result.budget_changes.empty());
  const int64_t fallen = result.budget_changes[0].length;
  EXPECT_EQ(fallen, 80);
  EXPECT_EQ((std::vector<int64_t>(lengths.begin(), lengths.begin() + 3)),
            (std::vector<int64_t>{30, 60, 80}));
  for (size_t i = 3; i < lengths.size() && lengths[i] < 150; ++i) {
    EXPECT_EQ(lengths[i], lengths[i - 1] + kInterval) << "as the rule with that budget";
  }
}

TEST(ElasticScenes, WhoseTrimsReturnNothingIsPassedOver) {
  Scene scene("window@every:8", 60, 3);
  const std::vector<TokenId> prompt = text_at(0, 48);
  EXPECT_EQ(scene.engine->generate(prompt, greedy(1)).finish_reason, FinishReason::kLength);
  const Pin pin = scene.engine->pin(prompt);
  EXPECT_EQ(pin.tokens, 48);
  const RequestId pinned = scene.add(0, 49, 16);  // the oldest are the pin's
  const RequestId other = scene.add(9, 20, 100);
  while (scene.step()) {
  }
  EXPECT_TRUE(scene.engine->take(pinned)->budget_changes.empty());
  const auto result = scene.engine->take(other);
  EXPECT_FALSE(result->budget_changes.empty());
  EXPECT_EQ(result->finish_reason, FinishReason::kLength);
}

TEST(ElasticScenes, NobodyFallsForNothing) {
  Scene scene("window@every:8", 76, 3);
  const std::vector<TokenId> prompt = text_at(0, 48);
  EXPECT_EQ(scene.engine->generate(prompt, greedy(1)).finish_reason, FinishReason::kLength);
  scene.engine->pin(prompt);
  const RequestId pinned = scene.add(0, 49, 70);  // it would give what the pin lists, for long
  const RequestId other = scene.add(9, 20, 120);
  while (scene.step()) {
  }
  for (const RequestId id : {pinned, other}) {
    const auto result = scene.engine->take(id);
    EXPECT_EQ(result->finish_reason, FinishReason::kLength);
    for (const KvBudgetChange& change : result->budget_changes) EXPECT_GT(change.pages, 0);
  }
  EXPECT_GT(scene.falls(), 0);
}

TEST(ElasticScenes, WhatSeveralListComesBackWhenAllOfThemFall) {
  Scene scene("window@every:8", 60, 3);
  GenerateOptions options = greedy(100);
  options.n = 3;
  options.sampling.temperature = 1.2F;
  const RequestId first = scene.engine->add(text_at(0, 48), options);
  while (scene.step()) {
  }
  int64_t pages = 0;
  for (RequestId id = first; id < first + 3; ++id) {
    const auto result = scene.engine->take(id);
    EXPECT_EQ(result->finish_reason, FinishReason::kLength);
    EXPECT_EQ(result->preemptions, 0);
    EXPECT_FALSE(result->budget_changes.empty());
    EXPECT_LE(result->budget_changes.size(), 8U);
    for (const KvBudgetChange& change : result->budget_changes) pages += change.pages;
  }
  EXPECT_GE(pages, 20);
}

// ---- the order of giving way

TEST(ElasticScenes, FreeThenCachedThenIdleThenFallsThenPreemption) {
  Scene scene("0=full,1=lru@every:8@min:24", 150, 4);
  const auto removed = [&](RemovalReason reason) {
    return scene.engine->kv_stats().total.pages_removed[static_cast<size_t>(reason)];
  };
  scene.engine->generate(text_at(30, 40), greedy(1));  // stays as cached blocks
  const SessionId idle = scene.engine->open_session();
  scene.engine->generate(idle, text_at(20, 40), greedy(1));
  ASSERT_GT(scene.engine->kv_stats().total.pages_cached, 10);
  std::vector<RequestId> ids;
  for (size_t i = 0; i < 3; ++i) ids.push_back(scene.add(7 * i, 20 + i, 160));
  int64_t step = 0, reclaims = 0, parks = 0, falls = 0, preemptions = 0;
  const auto note = [&](int64_t& at, bool has_come) { at = at == 0 && has_come ? step : at; };
  while (scene.step()) {
    ++step;
    const int64_t before = falls;
    note(reclaims, removed(RemovalReason::kCapacity) > 0);
    note(parks, scene.inside->scheduler->sessions_parked() > 0);
    note(falls, scene.falls() > 0);
    note(preemptions, scene.inside->scheduler->preemptions() > 0);
    if (before == 0 && falls > 0) {
      EXPECT_FALSE(scene.inside->sessions.at(idle)->sequence.is_open());
    }
  }
  EXPECT_GT(reclaims, 0);
  EXPECT_GT(parks, reclaims);
  EXPECT_GT(falls, parks);
  EXPECT_GT(preemptions, falls);
  for (const RequestId id : ids) {
    EXPECT_EQ(scene.engine->take(id)->finish_reason, FinishReason::kLength);
  }
}

// ---- sessions

TEST(ElasticScenes, TheNextTurnLiftsTheBudgetAndWhatLeftStaysAway) {
  Scene scene("0=full,1=lru@every:8", 38, 2);
  const SessionId session = scene.engine->open_session();
  const auto first = scene.engine->generate(session, text_at(0, 30), greedy(60));
  ASSERT_FALSE(first.budget_changes.empty());
  const int32_t fallen = first.budget_changes.back().after;
  const int64_t there = scene.engine->kv_stats().layers[1].tokens_resident;
  const auto second = scene.engine->generate(session, text_at(40, 4), greedy(1));
  ASSERT_GE(second.budget_changes.size(), 1U);
  EXPECT_EQ(second.budget_changes[0].before, fallen);
  EXPECT_EQ(second.budget_changes[0].after, kUnlimited);
  EXPECT_EQ(second.budget_changes[0].pages, 0);
  EXPECT_EQ(scene.engine->kv_stats().budget_lifts, 1);
  EXPECT_LE(scene.engine->kv_stats().layers[1].tokens_resident, there + 6);
}

TEST(ElasticScenes, AfterGoingBackBehindALiftItIsLiftedParkedOrNot) {
  Scene scene("0=full,1=lru@every:8", 38, 2);
  const SessionId session = scene.engine->open_session();
  const auto first = scene.engine->generate(session, text_at(0, 30), greedy(60));
  const int32_t fallen = first.budget_changes.back().after;
  const int64_t length = scene.engine->session_length(session);
  const int64_t dropped = first.budget_changes.back().length;
  EXPECT_EQ(scene.engine->generate(session, text_at(40, 2), greedy(1)).budget_changes.size(), 1U);
  scene.engine->truncate(session, std::max(length - 2, dropped));
  Sequence& sequence = scene.inside->sessions.at(session)->sequence;
  EXPECT_EQ(scene.inside->cache->budget(sequence.tables()), kUnlimited);
  const auto tables = [&] {
    std::string out;
    for (const KvBlock& b : scene.engine->kv_blocks(1)) {
      if (b.sequence == sequence.tables())
        out += fmt::format("{}+{} ", b.first_position, b.n_tokens);
    }
    return out;
  };
  scene.engine->feed(session, text_at(3, 1));
  const std::string before = tables();
  EXPECT_LT(fallen, length);
  sequence.park();
  scene.engine->feed(session, text_at(4, 1));
  EXPECT_EQ(scene.inside->cache->budget(sequence.tables()), kUnlimited);
  scene.engine->truncate(session, scene.engine->session_length(session) - 1);
  EXPECT_EQ(tables(), before);
}

// ---- the books

/// Tokens of a text, each with a key norm of its own.
int64_t norm_of(int32_t token) { return 1000 + token; }

class Books {
 public:
  explicit Books(const std::string& policy, int32_t blocks = 60)
      : cache(config(blocks), PolicyMap::parse(policy, kLayers)),
        is_knorm_(policy.find("knorm") != std::string::npos) {}
  static CacheConfig config(int32_t blocks) {
    CacheConfig c{kLayers, 4, kBlock, kLayers * blocks, 64, 8, 1000, 64};
    c.keep_blocks = true;
    return c;
  }
  static std::vector<int32_t> text(int d, int64_t n) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(d * 1000 + i % 997));
    return tokens;
  }
  /// As far as `end`, from wherever it is. False: no pages.
  bool write(SequenceId id, std::span<const int32_t> tokens, int64_t end) {
    while (cache.length(id) < end) {
      const int64_t at = cache.length(id);
      const auto n = static_cast<int32_t>(std::min<int64_t>({end - at, cache.max_next(id), 5}));
      if (!cache.reserve(id, n)) return false;
      std::vector<int64_t> norms;
      for (int64_t i = at; i < at + n; ++i)
        norms.push_back(norm_of(tokens[static_cast<size_t>(i)]));
      for (int32_t layer = 0; is_knorm_ && layer < kLayers; ++layer) {
        cache.observe(id, layer, {}, norms);
      }
      cache.commit(id, tokens);
      cache.tick();
      cache.check_integrity();
    }
    return true;
  }
  CacheManager cache;

 private:
  bool is_knorm_;
};

TEST(ElasticBooks, WhatAFallDropsIsThereForOthersUntilItIsReclaimed) {
  Books books("window@every:8");
  CacheManager& cache = books.cache;
  const auto text = Books::text(1, 200);
  const SequenceId a = cache.open();
  books.write(a, text, 80);
  const int64_t before = cache.available_pages();
  EXPECT_EQ(cache.stats().total.pages_cached, 0);
  EXPECT_EQ(cache.plan_fall(a, 40), 20);
  const KvBudgetChange change = cache.fall(a, 7);
  cache.check_integrity();
  EXPECT_EQ(change.pages, 20);
  EXPECT_EQ(change.layer_pages, (std::vector<int64_t>{10, 10}));
  EXPECT_EQ(change.request, 7);
  EXPECT_EQ(change.length, 80);
  EXPECT_EQ(change.before, kUnlimited);
  EXPECT_EQ(change.after, 40);
  EXPECT_EQ(cache.available_pages(), before + 20);
  EXPECT_EQ(cache.stats().total.pages_cached, 20);
  // All of it was published before: others find it, those blocks too that only the tree has now.
  const SequenceId b = cache.open();
  EXPECT_EQ(cache.match_prefix(b, text, 199), 80);
  cache.check_integrity();
  EXPECT_EQ(cache.stats().total.pages_cached, 0);
  cache.close(b);
  // A stranger takes what is free first, then what was dropped.
  const SequenceId c = cache.open();
  EXPECT_TRUE(books.write(c, Books::text(2, 200), 200));
  EXPECT_LT(cache.stats().total.pages_cached, 20);
  const SequenceId d = cache.open();
  EXPECT_LT(cache.match_prefix(d, text, 199), 80);
  cache.check_integrity();
}

TEST(ElasticBooks, APageComesBackOnceAndWhenTheLastHasDroppedIt) {
  Books books("window@every:8");
  CacheManager& cache = books.cache;
  const auto text = Books::text(1, 200);
  const SequenceId a = cache.open(), b = cache.open();
  books.write(a, text, 80);
  cache.fork(a, b);
  std::vector<uint8_t> brings;
  const std::vector<CacheManager::Fall> one = {{a, 40}}, both = {{a, 40}, {b, 40}};
  EXPECT_EQ(cache.plan_falls(one, {}, brings), 0);
  EXPECT_EQ(brings, std::vector<uint8_t>{0});
  EXPECT_EQ(cache.plan_falls(one, std::vector<SequenceId>{b}, brings), 0);
  EXPECT_EQ(brings, std::vector<uint8_t>{1}) << "when the other one falls, too";
  EXPECT_EQ(cache.plan_falls(both, {}, brings), 20);
  EXPECT_EQ(brings, (std::vector<uint8_t>{1, 1}));
  for (const SequenceId id : {a, b}) {
    EXPECT_EQ(cache.plan_fall(id, 40), id == a ? 0 : 20);
    cache.fall(id, 0);
    cache.check_integrity();
  }
}

TEST(ElasticBooks, NothingIsPublishedAfterAFall) {
  for (const char* policy : {"window@every:8", "0=full,1=window@every:8"}) {
    Books books(policy);
    CacheManager& cache = books.cache;
    const auto text = Books::text(1, 200);
    const SequenceId a = cache.open();
    books.write(a, text, 48);
    cache.plan_fall(a, 24);
    cache.fall(a, 0);
    EXPECT_FALSE(cache.shares_blocks(a, 0));
    books.write(a, text, 120);
    const SequenceId b = cache.open();
    EXPECT_EQ(cache.match_prefix(b, text, 199), 48) << policy;
    cache.close(a, text);
    cache.check_integrity();
    const SequenceId c = cache.open();
    EXPECT_EQ(cache.match_prefix(c, text, 199), 48) << policy;
    cache.check_integrity();
  }
}

TEST(ElasticBooks, KeyNormsOfListedBlocksAreThoseOfComputedOnes) {
  Books books("knorm@every:8", 200);
  CacheManager& cache = books.cache;
  const auto text = Books::text(1, 200);
  const auto norms = [&](SequenceId id) {
    std::string out;
    for (const KvBlock& b : cache.blocks(1)) {
      if (b.sequence == id)
        out += fmt::format("{}+{} {:.6f}\n", b.first_position, b.n_tokens, b.key_norm);
    }
    return out;
  };
  const SequenceId a = cache.open();
  books.write(a, text, 62);
  const SequenceId b = cache.open();
  EXPECT_EQ(cache.match_prefix(b, text, 61), 60);
  books.write(b, text, 62);
  EXPECT_EQ(norms(b), norms(a));
  // Goes on from a part of a listed block: a copy of its own.
  const SequenceId c = cache.open();
  cache.fork(a, c);
  auto other = text;
  for (size_t i = 62; i < other.size(); ++i) other[i] += 5000;
  books.write(c, other, 70);
  const SequenceId d = cache.open();
  books.write(d, other, 70);
  EXPECT_EQ(norms(c), norms(d));
  books.write(a, text, 72);
  books.write(b, text, 72);
  EXPECT_EQ(norms(b), norms(a));
  // And after going back into a block, computed again.
  cache.truncate(b, 42);
  books.write(b, other, 70);
  books.write(d, other, 72);
  books.write(b, other, 72);
  EXPECT_EQ(norms(b), norms(d));
  // So all fall alike.
  for (const SequenceId id : {a, b, d}) {
    cache.plan_fall(id, 32);
    cache.fall(id, 0);
  }
  EXPECT_EQ(norms(b), norms(d));
}

TEST(ElasticBooks, EachFallReturnsWhatWasPlanned) {
  int64_t shared = 0, falls = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    const std::vector<RuleExample> all = elastic_examples();
    const std::string& policy = all[seed % all.size()].policy;
    Books books(policy, 90);
    CacheManager& cache = books.cache;
    std::mt19937 random(seed);
    const auto draw = [&](int from, int to) {
      return std::uniform_int_distribution<int>(from, to)(random);
    };
    const int64_t every = cache.policies().interval();
    std::vector<std::pair<SequenceId, int>> open;
    for (int i = 0; i < 60; ++i) {
      if (open.size() < 5) {
        const int d = draw(0, 2);
        open.emplace_back(cache.open(), d);
        const auto text = Books::text(d, 400);
        cache.match_prefix(open.back().first, text, draw(0, 100));
      }
      const size_t k = static_cast<size_t>(draw(0, static_cast<int>(open.size()) - 1));
      const auto [id, d] = open[k];
      const auto text = Books::text(d, 400);
      const int64_t end = std::min<int64_t>(400, (cache.length(id) + draw(1, 40)) / every * every);
      if (draw(0, 9) == 0 || end > 390 || !books.write(id, text, end)) {
        cache.close(id, text);
        open.erase(open.begin() + static_cast<int64_t>(k));
        continue;
      }
      if (cache.length(id) % every != 0 || draw(0, 1) == 0) continue;
      const int64_t now = std::min<int64_t>(cache.budget(id), cache.holdings(id).positions);
      const int64_t budget = std::max<int64_t>(cache.least_budget(0), now - draw(1, 40));
      if (budget > cache.budget(id)) continue;
      const int64_t before = cache.available_pages();
      const int64_t own = cache.holdings(id).own_pages;
      const int64_t dropped = cache.trims(id);
      const int64_t planned = cache.plan_fall(id, static_cast<int32_t>(budget));
      EXPECT_EQ(cache.available_pages(), before) << "a plan changes nothing";
      EXPECT_LE(planned, own);
      EXPECT_EQ(cache.fall(id, 0).pages, planned);
      EXPECT_EQ(cache.available_pages() - before, planned);
      EXPECT_LE(cache.holdings(id).positions, std::max<int64_t>(budget, 0));
      cache.check_integrity();
      shared += cache.trims(id) - dropped > planned ? 1 : 0;
      ++falls;
    }
    EXPECT_EQ(cache.stats().policy_violations, 0);
  }
  EXPECT_GT(falls, 150);
  EXPECT_GT(shared, 10);
}

}  // namespace
}  // namespace paddock::test
