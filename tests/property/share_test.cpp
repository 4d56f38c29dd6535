// Layers that share by need, in the cache: what each gets at a decision, that it is never more than
// there is in all, and that it is what it was when a text is computed again.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <random>

#include "engine/sequence.h"
#include "eviction/cake.h"
#include "support/fickle_policy.h"
#include "support/shared_memory.h"

namespace paddock::test {
namespace {

/// The shares that a log knows, by length and layer.
std::map<int64_t, std::map<int32_t, int32_t>> shares_in(const DecisionLog& log) {
  std::map<int64_t, std::map<int32_t, int32_t>> shares;
  for (const DecisionEntry& e : log.entries()) {
    if (e.kind == DecisionKind::kShare) shares[e.length][e.layer] = e.first_position;
  }
  return shares;
}

/// Gives the first entries of a layer's table so much attention, per query and head as one.
void observe(CacheManager& cache, SequenceId id, int32_t layer, const std::vector<double>& masses) {
  std::vector<BlockUse> uses(cache.table(id, layer).size(), BlockUse{0, -1, 0});
  for (size_t i = 0; i < masses.size(); ++i) {
    uses[i].mass = static_cast<int64_t>(masses[i] * kMassUnit);
  }
  cache.observe(id, layer, uses, {});
}

CacheManager cache_for(const std::string& spec, int32_t n_layers, int32_t block) {
  return {CacheConfig{n_layers, 4, block, 4000, 64, 4, 400, 32, 1000},
          PolicyMap::parse(spec, n_layers)};
}

/// The next 32 positions, with what the layers' first entries receive in them.
void feed_32(CacheManager& cache, SequenceId id, const std::vector<std::vector<double>>& masses) {
  ASSERT_EQ(cache.max_next(id), 32) << "what comes before the recent queries is counted apart";
  ASSERT_TRUE(cache.reserve(id, 32));
  for (size_t layer = 0; layer < masses.size(); ++layer) {
    observe(cache, id, static_cast<int32_t>(layer), masses[layer]);
  }
  cache.commit(id);
  cache.check_integrity();
}

TEST(Share, LayersGetWhatTheFormulaSaysOfTheirMasses) {
  CacheManager cache = cache_for("cake:lru:16", 2, 1);
  DecisionLog log;
  const SequenceId id = cache.open(&log);
  feed_32(cache, id, {{1, 1}, {1, 1}});
  feed_32(cache, id, {{9, 1}, {2, 1}});
  // H is 0.3251 and 0.6365, V 2 (0.4 / 2)^2 and 2 (1/6 / 2)^2, their fourth roots 0.5318 and
  // 0.3433: of 2 * 16 positions 8 each, and of the other 16 0.4417 and 0.5583, rounded down to 7
  // and 8; the last goes to who is next.
  EXPECT_EQ(shares_in(log)[64], (std::map<int32_t, int32_t>{{0, 15}, {1, 17}}));
  EXPECT_EQ(cache.stats().layers[0].tokens_resident, 15);
  EXPECT_EQ(cache.stats().layers[1].tokens_resident, 17);
  feed_32(cache, id, {{}, {}});
  feed_32(cache, id, {{2, 1}, {0, 0, 5}});
  EXPECT_EQ(shares_in(log)[128], (std::map<int32_t, int32_t>{{0, 24}, {1, 8}}))
      << "attention to one block alone has no entropy, and whoever wants nothing has its base";
  cache.close(id);
}

TEST(Share, WithoutAttentionAllGetTheSame) {
  CacheManager cache = cache_for("cake:knorm:20@every:32", 3, 4);
  DecisionLog log;
  const SequenceId id = cache.open(&log);
  feed_32(cache, id, {{}, {}, {}});
  EXPECT_EQ(shares_in(log)[32], (std::map<int32_t, int32_t>{{0, 20}, {1, 20}, {2, 20}}));
  for (const KvLayerStats& layer : cache.stats().layers) EXPECT_EQ(layer.tokens_resident, 20);
}

TEST(Share, OnlyLayersUnderOneObjectShare) {
  const PolicyMap map = PolicyMap::parse("0+2=cake:lru:20,1=full,3-4=cake:lru:20,*=cake:h2o", 8);
  ASSERT_EQ(map.sharers().size(), 3U);
  EXPECT_EQ(map.sharers()[0].layers, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(map.sharers()[1].layers, (std::vector<int32_t>{3, 4}));
  EXPECT_EQ(map.sharers()[2].layers, (std::vector<int32_t>{5, 6, 7}));
  EXPECT_EQ(map.sharers()[1].budget, 20);
  EXPECT_EQ(map.sharers()[2].budget, kUnlimited);
  EXPECT_EQ(map.layer(0).most_budget, 30) << "the other one has its base of 10";
  EXPECT_EQ(map.least_share(0, 4), 4) << "the newest block";
  EXPECT_EQ(map.least_share(5, 4), 5) << "half of the share, and up to a block less one";
  EXPECT_TRUE(PolicyMap::parse("pyramid:lru:40", 4).sharers().empty());
}

TEST(Share, PagesAreCountedForAllLayersTogether) {
  const auto pages = [](const char* spec) {
    return CacheManager::pages_needed(PolicyMap::parse(spec, 8), 4, 10'000, 32);
  };
  EXPECT_GT(PolicyMap::parse("cake:lru:64", 8).layer(3).max_pages(4, 10'000, 32),
            2 * PolicyMap::parse("lru:64", 8).layer(3).max_pages(4, 10'000, 32));
  EXPECT_GE(pages("cake:lru:64"), pages("lru:64"));
  EXPECT_LE(pages("cake:lru:64"), pages("lru:64") + 8) << "but for what rounding may add";
  EXPECT_EQ(CacheManager::pages_needed(PolicyMap::parse("cake:lru:64", 8), 1, 10'000, 32), 8 * 128);
  EXPECT_EQ(CacheManager::pages_needed(PolicyMap::parse("cake:lru:64", 8), 4, 40, 32), 8 * 10);
}

/// Shares by need; what it wants and how it answers can be spoilt.
class Sharing : public EvictionPolicy {
 public:
  std::string name() const override { return "sharing"; }
  TrimSchedule schedule(int32_t layer, int32_t n_layers) const override {
    return schedule(layer, n_layers, 16);
  }
  TrimSchedule schedule(int32_t layer, int32_t, int32_t budget) const override {
    return {.budget = budget + (budget == 16 ? 0 : extra), .every = layer == 1 ? every : 8};
  }
  bool shares_by_need() const override { return true; }
  double need(const LayerView& view) const override {
    if (throws) throw std::runtime_error("no idea");
    return wants[static_cast<size_t>(view.layer)];
  }
  void trim(const LayerView& view, int64_t n, std::vector<Victim>& victims) const override {
    rank_blocks(view, n, victims, [&](int32_t b) { return b; });
  }
  std::vector<double> wants = {3, 1};
  bool throws = false;
  int32_t extra = 0;
  int32_t every = 8;
};

TEST(Share, WhatAPolicyWantsWronglyIsCountedAndTheCapHolds) {
  const auto shares = [](const std::function<void(Sharing&)>& spoil, int64_t violations) {
    const auto policy = std::make_shared<Sharing>();
    CacheManager cache({2, 4, 1, 4000, 64, 4, 400, 8, 1000}, PolicyMap::uniform(policy, 2));
    spoil(*policy);
    DecisionLog log;
    const SequenceId id = cache.open(&log);
    while (cache.length(id) < 24) {
      EXPECT_TRUE(cache.reserve(id, 8));
      cache.commit(id);
      cache.check_integrity();
    }
    EXPECT_EQ(cache.stats().policy_violations, violations) << cache.stats().last_violation;
    const KvStats stats = cache.stats();
    EXPECT_EQ(stats.total.tokens_resident, 32);
    EXPECT_EQ(shares_in(log).size(), 1U) << "before there was enough for all";
    EXPECT_EQ(shares_in(log)[24][0], stats.layers[0].tokens_resident);
    return std::pair{stats.layers[0].tokens_resident, stats.layers[1].tokens_resident};
  };
  using Pair = std::pair<int64_t, int64_t>;
  EXPECT_EQ(shares([](Sharing&) {}, 0), (Pair{20, 12}));
  EXPECT_EQ(shares([](Sharing& s) { s.wants = {-1, 1}; }, 1), (Pair{8, 24}));
  EXPECT_EQ(shares([](Sharing& s) { s.wants = {std::nan(""), 1}; }, 1), (Pair{8, 24}));
  EXPECT_EQ(shares(
                [](Sharing& s) {
                  s.wants = {1, std::numeric_limits<double>::infinity()};
                },
                1),
            (Pair{24, 8}));
  EXPECT_EQ(shares([](Sharing& s) { s.throws = true; }, 2), (Pair{16, 16}));
  EXPECT_EQ(shares([](Sharing& s) { s.extra = 1; }, 2), (Pair{20, 12}))
      << "who takes more than its share gets a plain schedule";
  const auto greedy_one = std::make_shared<Sharing>();
  greedy_one->extra = 1;
  EXPECT_THROW(
      CacheManager({2, 4, 1, 4000, 64, 4, 400, 8, 1000}, PolicyMap::uniform(greedy_one, 2)), Error)
      << "refused where it shows at once";
}

/// Would share, but nothing ever leaves.
struct KeepsAll : Sharing {
  using Sharing::schedule;
  TrimSchedule schedule(int32_t, int32_t) const override { return {}; }
};
TEST(Share, WhoKeepsEverythingSharesNothing) {
  EXPECT_TRUE(PolicyMap::uniform(std::make_shared<KeepsAll>(), 3).sharers().empty());
}

TEST(Share, LayersThatShareDecideTogether) {
  const auto policy = std::make_shared<Sharing>();
  policy->every = 16;
  try {
    PolicyMap::uniform(policy, 2);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    EXPECT_STREQ(e.what(),
                 "policy 'sharing' shares by need, but layer 0 decides every 8 positions and layer "
                 "1 every 16; all of its layers must decide together");
  }
}

TEST(Share, ASequenceThatBeginsAnewHasNoShares) {
  const auto policy = std::make_shared<Sharing>();
  CacheManager cache({2, 4, 1, 4000, 64, 4, 400, 8, 1000}, PolicyMap::uniform(policy, 2));
  const SequenceId id = cache.open();
  const auto grow = [&](int64_t end) {
    while (cache.length(id) < end) {
      ASSERT_TRUE(cache.reserve(id, 8));
      cache.commit(id);
      cache.check_integrity();
    }
  };
  grow(24);
  EXPECT_EQ(cache.stats().layers[1].tokens_resident, 12);
  cache.truncate(id, 0);
  policy->wants = {1, 1};
  grow(16);
  EXPECT_EQ(cache.stats().layers[1].tokens_resident, 16);
}

struct Rule {
  const char* spec;
  int32_t every;
  std::vector<int32_t> layers;  // that share
  int32_t budget;
};

TEST(Share, TheSumIsCappedAtEveryDecisionWhateverLayersWant) {
  const std::vector<Rule> rules = {
      {"cake:h2o:24@every:8", 8, {0, 1, 2, 3}, 24},
      {"fickle:cake:lru:20@every:5@compact", 5, {0, 1, 2, 3}, 20},
      {"cake:tova:40@every:16@sinks:5", 16, {0, 1, 2, 3}, 40},
      {"0=full,1+3=fickle:cake:h2o:24@every:8,2=window:9", 8, {1, 3}, 24}};
  std::mt19937 random(5);
  int64_t uneven = 0;
  for (const Rule& rule : rules) {
    for (const int32_t block : {1, 3, 4}) {
      SCOPED_TRACE(fmt::format("{} blocks of {}", rule.spec, block));
      const PolicyMap map = PolicyMap::parse(rule.spec, 4, fickle_policies());
      const int64_t one = CacheManager::pages_needed(map, block, 400, 16);
      CacheManager cache({4, 4, block, static_cast<int32_t>(one), 64, 1, 400, 16, 1000}, map);
      DecisionLog log;
      const SequenceId id = cache.open(&log);
      while (cache.length(id) < 380) {
        const auto most = static_cast<uint32_t>(std::min<int64_t>(cache.max_next(id), 20));
        const auto n = static_cast<int32_t>(1 + random() % most);
        ASSERT_TRUE(cache.reserve(id, n)) << "a sequence fits by pages_needed()";
        for (int32_t layer = 0; layer < 4; ++layer) {
          std::vector<BlockUse> uses;
          for (size_t i = 0; i < cache.table(id, layer).size(); ++i) {
            const auto mass = static_cast<int64_t>(random() % 4 == 0 ? random() % 100'000 : 0);
            uses.push_back({mass, -1, 0});
          }
          cache.observe(id, layer, uses, std::vector<int64_t>(static_cast<size_t>(n), 7));
        }
        cache.commit(id);
        cache.check_integrity();
        if (cache.length(id) % rule.every != 0) continue;
        const auto now = shares_in(log)[cache.length(id)];
        int64_t shares = 0, resident = 0;
        for (const int32_t layer : rule.layers) {
          int64_t tokens = 0;
          for (const BlockEntry& e : cache.table(id, layer)) tokens += e.slot_end - e.slot_begin;
          resident += tokens;
          if (now.empty()) continue;
          ASSERT_TRUE(now.contains(layer));
          shares += now.at(layer);
          uneven += now.at(layer) != rule.budget ? 1 : 0;
          ASSERT_LE(tokens, now.at(layer));
          ASSERT_GE(now.at(layer), map.least_share(layer, block));
          ASSERT_LE(now.at(layer), map.layer(layer).most_budget);
        }
        const auto total = static_cast<int64_t>(rule.layers.size()) * rule.budget;
        ASSERT_LE(shares, total);
        ASSERT_LE(resident, total);
        ASSERT_TRUE(now.empty() || now.size() == rule.layers.size());
      }
      EXPECT_EQ(cache.stats().policy_violations, 0);
    }
  }
  EXPECT_GT(uneven, 1000);
}

TEST(Share, AnEngineNeverKeepsMoreThanTheBudgetOnAverage) {
  for (const std::string policy : {"cake:h2o:24@every:8", "cake:lru:20@every:4@compact"}) {
    EngineOptions options = shared_memory(policy, 0, 1);
    options.kv.block_size = 1;
    Engine engine(tiny(), options);
    const int32_t every = policy.ends_with("8") ? 8 : 4;
    const int64_t budget = policy.ends_with("8") ? 24 : 20;
    int64_t decisions = 0, uneven = 0, length = 0;
    engine.forward(text_at(0, 120), [&](int64_t, std::span<const float>) {
      const KvStats stats = engine.kv_stats();
      if (stats.tokens_written == length) return true;
      length = stats.tokens_written;
      if (length % every != 0 || length <= budget) return true;
      ++decisions;
      const auto n = static_cast<int64_t>(stats.layers.size());
      EXPECT_EQ(stats.total.tokens_resident, n * budget) << "nothing is left over";
      for (const KvLayerStats& layer : stats.layers) uneven += layer.tokens_resident != budget;
      return true;
    });
    EXPECT_GT(decisions, 5);
    EXPECT_GT(uneven, 2) << policy;
  }
}

TEST(Share, AForkGoesOnAsItsOriginDoes) {
  CacheManager cache({2, 4, 1, 4000, 64, 4, 400, 32, 1000},
                     PolicyMap::parse("cake:lru:16@every:16", 2));
  DecisionLog log, forked_log;
  const SequenceId id = cache.open(&log);
  const auto feed_16 = [&](SequenceId to, const std::vector<std::vector<double>>& masses) {
    ASSERT_TRUE(cache.reserve(to, 16));
    for (int32_t layer = 0; layer < 2; ++layer)
      observe(cache, to, layer, masses[static_cast<size_t>(layer)]);
    cache.commit(to);
  };
  feed_16(id, {{1, 1}, {9, 1}});
  const SequenceId fork = cache.open(&forked_log);
  cache.fork(id, fork);
  for (const SequenceId to : {id, fork}) feed_16(to, {{3, 1}, {2, 1}});
  EXPECT_EQ(shares_in(log)[32], shares_in(forked_log)[32]);
  EXPECT_EQ(shares_in(log)[32], (std::map<int32_t, int32_t>{{0, 16}, {1, 16}}));
}

// ---- elastic ones

TEST(Share, NoLayerComesToHoldMoreThanThereIsRoomFor) {
  CacheConfig config{4, 4, 1, 4000, 64, 4, 400, 32, 1000};
  config.max_resident = 64;
  CacheManager cache(config, PolicyMap::parse("cake:lru@every:8@compact", 4));
  const SequenceId id = cache.open();
  int64_t most = 0;
  while (cache.length(id) < 200) {
    if (cache.length(id) == 56) {
      EXPECT_EQ(cache.most_budget(0), 56);
      EXPECT_GT(cache.plan_fall(id, 40), 0);
      cache.fall(id, 0);
    }
    ASSERT_TRUE(cache.reserve(id, 1));
    for (int32_t layer = 0; layer < 4; ++layer) {  // the last one's attention moves, to all
      const auto n = cache.table(id, layer).size();
      const double last = layer == 3 ? static_cast<double>(cache.length(id) / 4 % 3) : 0;
      std::vector<double> masses(n, last);
      masses[0] = 1;
      observe(cache, id, layer, masses);
    }
    cache.commit(id);
    cache.check_integrity();
    for (const KvLayerStats& layer : cache.stats().layers) {
      most = std::max(most, layer.tokens_resident);
    }
  }
  EXPECT_LE(most, 64);
  EXPECT_GT(most, 60) << "but up to that it may";
}

TEST(Share, AFixedBudgetStaysBesideOneThatFalls) {
  CacheManager cache = cache_for("0-1=cake:lru:40@every:32,*=cake:lru@every:32", 4, 1);
  const SequenceId id = cache.open();
  const auto grow = [&](int64_t end) {
    while (cache.length(id) < end) {
      ASSERT_TRUE(cache.reserve(id, 32));
      cache.commit(id);
      cache.check_integrity();
    }
  };
  grow(64);
  EXPECT_GT(cache.plan_fall(id, 20), 0);
  cache.fall(id, 0);
  grow(96);
  const auto resident = [&](size_t layer) { return cache.stats().layers[layer].tokens_resident; };
  EXPECT_EQ(resident(0) + resident(1), 2 * 40);
  EXPECT_EQ(resident(2) + resident(3), 2 * 20);
}

/// An elastic text and what was seen of it.
class Elastic {
 public:
  explicit Elastic(const std::string& spec, uint32_t seed)
      : random_(seed),
        cache_({3, 4, 2, 4000, 64, 2, 400, 16, 1000},
               PolicyMap::parse(spec, 3, fickle_policies())) {}

  void grow(Sequence& sequence, int64_t end) {
    if (!sequence.is_open()) sequence.open();
    while (sequence.length() < end) sequence.tokens.push_back(7);
    while (sequence.computed() < end) {
      const auto most =
          static_cast<uint32_t>(std::min(sequence.max_next(), end - sequence.computed()));
      const auto n = static_cast<int32_t>(1 + random_() % most);
      const SequenceId id = sequence.tables();
      ASSERT_TRUE(cache_.reserve(id, n));
      for (int32_t layer = 0; layer < 3; ++layer) {
        std::vector<BlockUse> uses;
        for (size_t i = 0; i < cache_.table(id, layer).size(); ++i) {
          uses.push_back({static_cast<int64_t>(random_() % 100'000), -1, 0});
        }
        cache_.observe(id, layer, uses, std::vector<int64_t>(static_cast<size_t>(n), 7));
      }
      cache_.commit(id, sequence.tokens);
      cache_.check_integrity();
      const auto [at, is_new] = seen_.try_emplace(sequence.computed(), seen(id));
      EXPECT_EQ(at->second, seen(id)) << "at " << sequence.computed();
    }
  }
  std::string seen(SequenceId id) const {
    std::string out;
    for (int32_t layer = 0; layer < 3; ++layer) {
      for (const BlockEntry& e : cache_.table(id, layer))
        out += fmt::format("{} ", e.first_position);
      out += "\n";
    }
    return out;
  }
  int64_t resident(SequenceId id) const { return cache_.holdings(id).positions; }
  CacheManager& cache() { return cache_; }
  void forget() { seen_.clear(); }
  void note(const Sequence& s) { seen_[s.computed()] = seen(s.tables()); }

 private:
  std::mt19937 random_;
  CacheManager cache_;
  std::map<int64_t, std::string> seen_;
};

TEST(Share, ElasticLayersShareTheBudgetInForceAndComeBackAsTheyWere) {
  int64_t uneven = 0;
  for (const std::string spec : {"cake:h2o@every:8", "fickle:cake:lru@every:4@compact",
                                 "0=full,*=cake:tova@every:8", "fickle:cake:h2o@every:1"}) {
    for (uint32_t seed = 1; seed <= 10; ++seed) {
      SCOPED_TRACE(fmt::format("{}, seed {}", spec, seed));
      Elastic world(spec, seed);
      Sequence sequence(world.cache());
      world.grow(sequence, 64);
      EXPECT_EQ(world.cache().stats().total.tokens_resident, 3 * 64) << "as full";
      int32_t budget = 40;
      for (int64_t end : {64, 96, 136}) {
        world.grow(sequence, end);
        const int64_t pages = world.cache().plan_fall(sequence.tables(), budget);
        const KvBudgetChange change = sequence.fall(1);
        EXPECT_EQ(change.pages, pages);
        EXPECT_GT(pages, 0);
        EXPECT_LE(world.resident(sequence.tables()), budget);
        const auto layers = world.cache().stats().layers;
        uneven += layers[1].tokens_resident != layers[2].tokens_resident ? 1 : 0;
        world.cache().check_integrity();
        world.note(sequence);
        budget -= 9;
      }
      world.grow(sequence, 150);
      const std::string before = world.seen(sequence.tables());
      sequence.park();
      world.grow(sequence, 150);
      EXPECT_EQ(world.seen(sequence.tables()), before);
      world.grow(sequence, 200);
      EXPECT_LE(world.resident(sequence.tables()), budget + 9);
      EXPECT_EQ(world.cache().stats().policy_violations, 0);
      sequence.truncate(0);
      world.forget();
      world.grow(sequence, 50);
      EXPECT_EQ(world.resident(sequence.tables()), 50) << "nothing falls any more";
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(uneven, 60) << "of 120 falls";
}

}  // namespace
}  // namespace paddock::test
