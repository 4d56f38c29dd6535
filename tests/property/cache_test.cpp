// The cache's books: random schedules against brute force, conservation after each step, SPEC
// parsing.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <set>
#include <utility>

#include "core/fail.h"
#include "kv/cache_manager.h"
#include "paddock/error.h"

namespace paddock {
namespace {

constexpr int32_t kLayers = 3;

/// Positions of a layer's table that a query at t meets.
std::set<int64_t> met(const CacheManager& cache, SequenceId id, int32_t layer, int32_t t) {
  std::set<int64_t> positions;
  for (const BlockEntry& e : cache.table(id, layer)) {
    const SlotRange live = live_slots(e, cache.policies().layer(layer).visibility, t);
    for (int32_t slot = live.begin; slot < live.end; ++slot) {
      EXPECT_TRUE(positions.insert(int64_t{e.first_position} + slot).second) << "listed twice";
    }
  }
  return positions;
}

std::set<int64_t> should_meet(const Visibility& v, int64_t t) {
  std::set<int64_t> positions;
  for (int64_t p = 0; p <= t; ++p) {
    if (p < v.sinks || t - p < v.window) positions.insert(p);
  }
  return positions;
}

TEST(CacheProperty, TablesListExactlyWhatQueriesSee) {
  std::mt19937 random(2026);
  const char* specs[] = {"full",
                         "window:1",
                         "window:5",
                         "sink:1+1",
                         "sink:4+12",
                         "sink:17+3",
                         "0=full,1=window:9,*=sink:3+30",
                         "0-1=sink:16+16,2=window:64"};
  for (const char* spec : specs) {
    for (const int32_t block : {1, 7, 16, 64}) {
      const PolicyMap policies = PolicyMap::parse(spec, kLayers);
      constexpr int32_t kChunk = 20;
      constexpr int64_t kPositions = 150;
      const int64_t one = CacheManager::pages_needed(policies, block, kPositions, kChunk);
      CacheManager cache(
          {kLayers, 4, block, static_cast<int32_t>(2 * one), 64, 3, kPositions, kChunk}, policies);
      std::vector<SequenceId> live;
      for (int step = 0; step < 120; ++step) {
        const auto dice = random() % 10;
        if (live.size() < 2 && dice < 2) {
          live.push_back(cache.open());
        } else if (!live.empty() && dice == 9) {
          cache.close(live.back());
          live.pop_back();
        } else if (!live.empty()) {
          const SequenceId id = live[random() % live.size()];
          const int64_t length = cache.length(id);
          const auto n = static_cast<int32_t>(std::min({static_cast<int64_t>(1 + random() % kChunk),
                                                        kPositions - length, cache.max_next(id)}));
          if (n == 0) continue;
          ASSERT_TRUE(cache.reserve(id, n)) << spec << ": two sequences fit by pages_needed";
          cache.check_integrity();
          if (dice == 8) {
            cache.rollback(id);
          } else {
            std::vector<KvDestination> to(static_cast<size_t>(n));
            for (int32_t layer = 0; layer < kLayers; ++layer) {
              for (int32_t i = 0; i < n; ++i) {
                const auto t = static_cast<int32_t>(length + i);
                ASSERT_EQ(met(cache, id, layer, t),
                          should_meet(cache.policies().layer(layer).visibility, t))
                    << spec << " block " << block << " layer " << layer << " t " << t;
              }
              cache.destinations(id, layer, to);
              for (int32_t i = 0; i < n; ++i) {
                EXPECT_EQ(to[i].slot, (length + i) % block);
              }
            }
            cache.commit(id);
          }
        }
        cache.check_integrity();
      }
      for (const SequenceId id : live) cache.close(id);
      cache.check_integrity();
      EXPECT_EQ(cache.free_pages(), 2 * one);
    }
  }
}

TEST(CacheProperty, EntriesBeforeTheFirstChangeAreAsTheyWere) {
  std::mt19937 random(4);
  for (const char* spec :
       {"full", "sink:5+11", "h2o:24@every:8", "h2o:24@every:8@compact", "cake:h2o:24@every:8"}) {
    CacheManager cache({1, 4, 4, 200, 64, 1, 400, 16}, PolicyMap::parse(spec, 1));
    std::vector<BlockEntry> seen;
    int64_t version = -1;  // of what was seen
    SequenceId id = cache.open();
    for (int step = 0; step < 600; ++step) {
      const int64_t length = cache.length(id);
      if (length > 380 || random() % 50 == 0) {
        cache.close(id);
        id = cache.open();
      } else if (random() % 8 == 0 &&
                 std::string_view(spec).find("h2o") == std::string_view::npos) {
        try {
          cache.truncate(id, std::max<int64_t>(0, length - static_cast<int64_t>(random() % 6)));
        } catch (const Error&) {  // the window has moved on
        }
      } else {
        const auto n =
            static_cast<int32_t>(std::min<int64_t>(1 + random() % 9, cache.max_next(id)));
        ASSERT_TRUE(cache.reserve(id, n));
        if (random() % 3 == 0) {
          version = cache.changes(id, 0).version();
          const std::span<const BlockEntry> table = cache.table(id, 0);
          seen.assign(table.begin(), table.end());
        }
        if (random() % 4 == 0) {
          cache.rollback(id);
        } else {
          const std::vector<BlockUse> uses(cache.table(id, 0).size(), BlockUse{1000, 3, 0});
          cache.observe(id, 0, uses, {});
          cache.commit(id);
        }
      }
      const std::span<const BlockEntry> table = cache.table(id, 0);
      const ChangeLog& changes = cache.changes(id, 0);
      const int64_t first =
          std::min(changes.first_changed_since(version), static_cast<int64_t>(table.size()));
      version = changes.version();
      ASSERT_LE(first, static_cast<int64_t>(seen.size()));
      for (int64_t e = 0; e < first; ++e) {
        ASSERT_EQ(std::memcmp(&table[e], &seen[e], sizeof(BlockEntry)), 0) << spec << " " << e;
      }
      seen.assign(table.begin(), table.end());
    }
  }
}

/// A table's entries, for any pages and with rotations by name.
std::vector<std::array<int64_t, 5>> entries(const CacheManager& cache, SequenceId id) {
  std::vector<std::array<int64_t, 5>> out;
  int32_t last_page = -1;
  for (const BlockEntry& e : cache.table(id, 0)) {
    const bool is_second = std::exchange(last_page, e.page) == e.page;
    const auto rotations = cache.rotations(id, 0);
    const bool is_plain = e.rotation + 1 == static_cast<int32_t>(rotations.size());
    out.push_back(
        {is_second ? 1 : 0, e.first_position, e.slot_begin, e.slot_end, is_plain ? 0 : 1});
  }
  return out;
}

TEST(CacheProperty, UntilSomethingLeavesATableIsThatOfFull) {
  std::mt19937 random(8);
  for (const auto& [sinks, window] : {std::pair{1, 1}, {4, 12}, {5, 11}, {16, 4}, {7, 40}}) {
    for (const int32_t block : {1, 4, 16}) {
      const std::string spec = fmt::format("sink:{}+{}", sinks, window);
      const CacheConfig config{1, 4, block, 200, 64, 1, 200, 16};
      CacheManager full(config, PolicyMap::parse("full", 1));
      CacheManager cache(config, PolicyMap::parse(spec, 1));
      const SequenceId id = cache.open();
      full.open();
      const int64_t turn = sinks + window;
      int apart = 0;
      for (int step = 0; step < 300; ++step) {
        const int64_t length = cache.length(id);
        if (random() % 4 == 0 || length > 150) {
          const auto back =
              static_cast<int64_t>(random() % 8 == 0 ? 0 : std::max<int64_t>(0, length - 5));
          try {
            cache.truncate(id, back);
            full.truncate(id, back);
          } catch (const Error&) {  // the window has moved on
          }
        } else {
          const auto n =
              static_cast<int32_t>(std::min<int64_t>(1 + random() % 9, cache.max_next(id)));
          ASSERT_TRUE(cache.reserve(id, n) && full.reserve(id, n));
          const bool before = length < turn;
          ASSERT_TRUE(!before || length + n <= turn);
          if (before) {
            ASSERT_EQ(entries(cache, id), entries(full, id));
          }
          if (random() % 4 == 0) {
            cache.rollback(id);
            full.rollback(id);
          } else {
            cache.commit(id);
            full.commit(id);
          }
        }
        cache.check_integrity();
        if (cache.length(id) < turn) {
          ASSERT_EQ(entries(cache, id), entries(full, id)) << spec << " " << block;
          continue;
        }
        ++apart;
        for (const BlockEntry& e : cache.table(id, 0)) {
          const bool is_sink = e.first_position + e.slot_begin < sinks;
          ASSERT_EQ(e.rotation, is_sink ? 0 : 1);
          ASSERT_TRUE(!is_sink || e.first_position + e.slot_end <= sinks);
        }
      }
      EXPECT_GT(apart, 20);
    }
  }
}

TEST(CacheManager, AFailedReserveChangesNothing) {
  CacheManager cache({2, 4, 4, 4, 64, 1, 100, 50}, PolicyMap::parse("full", 2));
  const SequenceId id = cache.open();
  EXPECT_FALSE(cache.reserve(id, 9));  // 3 blocks in 2 layers
  EXPECT_EQ(cache.free_pages(), 4);
  EXPECT_TRUE(cache.reserve(id, 8));
  cache.commit(id);
  EXPECT_FALSE(cache.reserve(id, 1));
  cache.check_integrity();
  EXPECT_EQ(cache.length(id), 8);
}

TEST(CacheManager, CountersAddUp) {
  CacheManager cache({2, 4, 4, 64, 100, 1, 1000, 16}, PolicyMap::parse("0=full,1=sink:2+6", 2));
  const SequenceId id = cache.open();
  while (cache.length(id) < 60) {
    const int64_t n = std::min({int64_t{3}, 60 - cache.length(id), cache.max_next(id)});
    ASSERT_TRUE(cache.reserve(id, static_cast<int32_t>(n)));
    cache.commit(id);
  }
  const KvStats stats = cache.stats();
  EXPECT_EQ(stats.tokens_written, 60);
  EXPECT_EQ(stats.layers[0].pages_active, 15);
  EXPECT_EQ(stats.layers[0].tokens_resident, 60);
  EXPECT_EQ(stats.layers[0].tokens_read, 60 * 61 / 2);
  EXPECT_EQ(stats.layers[1].tokens_read, 8 * 9 / 2 + 52 * 8);
  // The sinks' page, and the pages of positions 55..59.
  EXPECT_EQ(stats.layers[1].pages_active, 3);
  EXPECT_EQ(stats.layers[1].pages_removed[static_cast<size_t>(RemovalReason::kWindow)], 12);
  EXPECT_EQ(stats.total.pages_active, 18);
  EXPECT_EQ(stats.total.bytes, 1800);
  EXPECT_EQ(stats.pages_free, 46);
}

TEST(PolicyMap, FirstMatchWins) {
  const PolicyMap map = PolicyMap::parse("0-1+3=window:8,*=sink:2+6@original", 5);
  EXPECT_EQ(map.layer(0).name, "window:8");
  EXPECT_EQ(map.layer(2).name, "sink:2+6@original");
  EXPECT_EQ(map.layer(3).name, "window:8");
  EXPECT_FALSE(map.has_unbounded_layer());
}

TEST(PolicyMap, RefusesHostileSpecs) {
  for (const char* spec : {"",
                           "nope",
                           "window:",
                           "window@sinks:4",
                           "window@recent:4",
                           "window@seed:4",
                           "window@min:0",
                           "window:8@min:4",
                           "window:0",
                           "window:-1",
                           "window:99999999999",
                           "window:1+2",
                           "sink",
                           "sink:",
                           "sink:4+",
                           "sink:0",
                           "sink:4@sinks:4",
                           "sink:4@min:4",
                           "sink:4+8@min:6",
                           "sink:2147483648",
                           "sink:0+8",
                           "sink:2147483647+1",
                           "full:3",
                           "full@every:4",
                           "window:8@compact@original",
                           "sink:4+8@sideways",
                           "0=full",
                           "0-2=full,3=full,9=full",
                           "0-1=full",
                           "2-0=full,*=full",
                           "*=full,0=window:4",
                           "x=full",
                           "0=full,",
                           "0=,*=full",
                           "0+=full,*=full",
                           "-1=full,*=full",
                           "window:8 ",
                           "window:0x8",
                           "h2o:",
                           "h2o@seed:1",
                           "h2o@min",
                           "h2o@min:0",
                           "h2o@min:2147483647",
                           "h2o@min:8@min:8",
                           "h2o@min:8@sinks:4",
                           "h2o@every:65537",
                           "h2o:64@min:32",
                           "full@min:8",
                           "snapkv",
                           "snapkv@min:64",
                           "random",
                           "random@seed:1",
                           "h2o:0",
                           "h2o:-64",
                           "h2o:99999999999",
                           "h2o:64+2",
                           "h2o:64@every:0",
                           "h2o:64@every:-1",
                           "h2o:64@every:4@every:5",
                           "h2o:64@every",
                           "h2o:64@sinks:40",
                           "h2o:64@recent:64",
                           "h2o:64@compact@original",
                           "h2o:2147483647",
                           "h2o:2147483600@every:64",
                           "lru:64@seed:1",
                           "lru:64@sinks:64",
                           "snapkv:64@every:8",
                           "random:64@seed:-1",
                           "random:64@seed:99999999999999999999",
                           "pyramid",
                           "pyramid:64",
                           "pyramid:",
                           "pyramid:h2o:",
                           "pyramid:snapkv",
                           "pyramid:random",
                           "cake",
                           "cake:64",
                           "cake:",
                           "cake:h2o:",
                           "cake:snapkv",
                           "cake:random",
                           "cake:sink:4",
                           "cake:pyramid:h2o:64",
                           "cake:cake:h2o:64",
                           "pyramid:sink:4",
                           "pyramid:window",
                           "pyramid:h2o:64@min:8",
                           "pyramid:full:64",
                           "pyramid:h2o:64@seed:1",
                           "full@sinks:2",
                           "full@compact",
                           "full@original",
                           "sink:4+8@recent:2",
                           "0-1=h2o:64",
                           "0-3=h2o:64,4=full",
                           "99999999999=full,*=full"}) {
    try {
      PolicyMap::parse(spec, 4);
      ADD_FAILURE() << "'" << spec << "' was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument) << spec;
      EXPECT_GT(std::string(e.what()).size(), 20U) << spec;
    }
  }
}

TEST(PolicyMap, RefusalsNameTheFaultAndTheFix) {
  for (const auto& [spec, says] :
       {std::pair{"full@compact", "leave '@original' and '@compact' out"},
        {"h2o:64@compact@original", "only once"},
        {"h2o:64@compact@compact", "only once"},
        {"random:64@seed:1@seed:2", "'@seed' is given twice"},
        {"0=full,*=", "'*=' has no rule; write *=full"},
        {"lru:64,0-1=full", "'lru:64' is not of the form LAYERS=RULE"},
        {"a=full", "'a' is not a layer; write 3"},
        {" *=full", "' *' is not a layer; write 3"},
        {"-1=full,*=full", "'' is not a layer; write 3"}}) {
    try {
      PolicyMap::parse(spec, 4);
      ADD_FAILURE() << "'" << spec << "' was accepted";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
    }
  }
  // Only built-in rules are free of '=' and ','.
  std::string got;
  const CustomPolicies custom = {{"mine", [&](std::string_view arguments) {
                                    got = arguments;
                                    return make_policy("full");
                                  }}};
  EXPECT_EQ(PolicyMap::parse("mine:a=1,b", 4, custom).size(), 4);
  EXPECT_EQ(got, "a=1,b");
}

TEST(PolicyMap, RefusesBudgetsThatTheirBlocksWouldFill) {
  // Newest block protected: 16; recent half of 20 and the block it begins in: 10 + 15.
  for (const auto& [spec, block, fits] :
       {std::tuple{"lru:15", 16, false}, std::tuple{"lru:16", 16, true},
        std::tuple{"h2o:20", 16, false}, std::tuple{"h2o:30", 16, true},
        std::tuple{"h2o:20", 1, true}, std::tuple{"lru:40@sinks:17", 16, false},
        std::tuple{"lru:48@sinks:17", 16, true}, std::tuple{"window:3", 64, true}}) {
    const PolicyMap map = PolicyMap::parse(spec, 2);
    if (fits) {
      EXPECT_NO_THROW(map.check_block_size(block)) << spec;
    } else {
      EXPECT_THROW(map.check_block_size(block), Error) << spec;
    }
  }
}

/// A window of as many positions as its argument has characters.
std::shared_ptr<const EvictionPolicy> by_length(std::string_view arguments) {
  if (arguments.empty()) fail(ErrorCode::kBadFile, "it needs an argument");
  return make_policy("window:" + std::to_string(arguments.size()));
}

TEST(PolicyMap, KnowsRulesOfTheHostsOwn) {
  const CustomPolicies custom = {{"mine", by_length}, {"other-1.x", by_length}};
  const PolicyMap map =
      PolicyMap::parse("0=full,1=mine:abc,2=other-1.x:ab@cd:e+f,*=mine@@", 5, custom);
  EXPECT_EQ(map.layer(0).name, "full");
  EXPECT_EQ(map.layer(1).name, "window:3");
  EXPECT_EQ(map.layer(2).name, "window:9") << "options belong to the arguments";
  EXPECT_EQ(map.layer(3).name, "window:2");
  EXPECT_EQ(map.layer(3).policy, map.layer(4).policy) << "a maker is called once per rule";
  EXPECT_EQ(PolicyMap::parse("mine:a,b=c", 2, custom).layer(1).name, "window:5");
}

TEST(PolicyMap, RefusesRulesOfTheHostsOwnByName) {
  const auto refused = [](const std::string& spec, const CustomPolicies& custom,
                          const std::string& says) {
    try {
      PolicyMap::parse(spec, 2, custom);
      ADD_FAILURE() << "'" << spec << "' was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument) << spec;
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
    }
  };
  const auto broken = [](std::string_view) -> std::shared_ptr<const EvictionPolicy> { throw 7; };
  const auto empty = [](std::string_view) { return std::shared_ptr<const EvictionPolicy>(); };
  const CustomPolicies custom = {
      {"mine", by_length}, {"broken", broken}, {"empty", empty}, {"other", by_length}};
  refused("*=nine:8", custom, "there is no policy 'nine'");
  refused("*=nine:8", custom, "mine (the host's own), other (the host's own)");
  refused("*=nine:8", custom, "sink:S+W");
  refused("0=full,*=mine", custom, "'mine': it needs an argument");
  refused("broken", custom, "'broken'");
  refused("empty:3", custom, "made no policy of '3'");
  refused("pyramid:mine:64", custom, "pyramid wraps");
  for (const char* name : {"", "1mine", "my rule", "a=b", "a,b", "a:b", "a@b", "*"}) {
    refused("full", {{name, by_length}}, "cannot be named in a rule");
  }
  for (const char* name : {"full", "sink", "h2o", "pyramid"}) {
    refused("full", {{name, by_length}}, "the name of a built-in rule");
  }
  refused("full", {{"mine", nullptr}}, "no function that makes it");
}

class Liar final : public EvictionPolicy {
 public:
  std::string name() const override { return "liar"; }
  TokenVisibility visibility(int32_t) const override { return {-1, 0}; }
};

TEST(PolicyMap, RefusesALyingPolicy) {
  EXPECT_THROW(PolicyMap::uniform(std::make_shared<Liar>(), 2), Error);
}

}  // namespace
}  // namespace paddock
