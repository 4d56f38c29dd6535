// Blocks kept for reuse, driven by recorded access sequences: hits, misses, regret and the order of
// reclaims against brute force, and the books after every step.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <random>
#include <set>

#include "kv/cache_manager.h"
#include "paddock/error.h"

namespace paddock {
namespace {

constexpr int32_t kLayers = 2;
constexpr int32_t kBlock = 4;

CacheConfig config_with(int32_t blocks) {
  CacheConfig config{kLayers, 4, kBlock, kLayers * blocks, 64, 4, 1000, 64};
  config.keep_blocks = true;
  return config;
}

/// The first blocks of document `d`.
std::vector<int32_t> tokens_of(int d, int n_blocks) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < n_blocks * kBlock; ++i) tokens.push_back(d * 1000 + i);
  return tokens;
}

/// Reads a document of n_blocks blocks to its end and closes it; returns the positions attached.
int64_t read(CacheManager& cache, std::span<const int32_t> tokens) {
  const SequenceId id = cache.open();
  const auto length = static_cast<int64_t>(tokens.size());
  const int64_t attached = cache.match_prefix(id, tokens, length);
  cache.check_integrity();
  for (int64_t at = attached; at < length; at += kBlock) {
    EXPECT_TRUE(cache.reserve(id, kBlock));
    cache.commit(id);
    cache.check_integrity();
  }
  cache.tick();
  cache.close(id, tokens);
  cache.check_integrity();
  return attached;
}

TEST(Reuse, ASecondReaderAttachesWhatTheFirstLeft) {
  CacheManager cache(config_with(16), PolicyMap::parse("full", kLayers));
  const auto tokens = tokens_of(1, 5);
  EXPECT_EQ(read(cache, tokens), 0);
  KvStats stats = cache.stats();
  EXPECT_EQ(stats.total.pages_cached, 5 * kLayers);
  EXPECT_EQ(stats.total.pages_active, 0);
  EXPECT_EQ(stats.prefix_lookups, 1);
  EXPECT_EQ(stats.prefix_hits, 0);
  EXPECT_EQ(read(cache, tokens), 5 * kBlock);
  EXPECT_EQ(read(cache, std::span(tokens).first(3 * kBlock)), 3 * kBlock);
  stats = cache.stats();
  EXPECT_EQ(stats.prefix_lookups, 1 + 5 + 3);
  EXPECT_EQ(stats.prefix_hits, 8);
  EXPECT_EQ(stats.layers[0].pages_allocated, 5);
  EXPECT_EQ(stats.layers[0].pages_removed[static_cast<size_t>(RemovalReason::kSequenceEnd)], 0);
}

TEST(Reuse, TwoReadersShareAndNeitherFreesWhatTheOtherReads) {
  CacheManager cache(config_with(16), PolicyMap::parse("full", kLayers));
  const auto tokens = tokens_of(7, 4);
  read(cache, tokens);
  const SequenceId a = cache.open();
  const SequenceId b = cache.open();
  const int64_t version = cache.changes(a, 0).version();
  EXPECT_EQ(cache.match_prefix(a, tokens, 100), 16);
  EXPECT_EQ(cache.changes(a, 0).first_changed_since(version), 0);
  EXPECT_EQ(cache.match_prefix(b, tokens, 100), 16);
  EXPECT_EQ(cache.table(a, 1)[2].page, cache.table(b, 1)[2].page);
  EXPECT_EQ(cache.stats().layers[1].pages_active, 4);
  cache.close(a);
  cache.check_integrity();
  EXPECT_EQ(cache.stats().layers[1].pages_active, 4);
  EXPECT_EQ(cache.table(b, 1).size(), 4U);
  cache.truncate(b, 8);
  cache.check_integrity();
  EXPECT_EQ(cache.stats().layers[1].pages_active, 2);
  EXPECT_EQ(cache.stats().layers[1].pages_cached, 2);
  cache.close(b);
  cache.check_integrity();
}

/// Writes tokens [length, end) of `tokens`, block by block.
void write(CacheManager& cache, SequenceId id, std::span<const int32_t> tokens, size_t end) {
  while (cache.length(id) < static_cast<int64_t>(end)) {
    const auto n = std::min({kBlock - cache.length(id) % kBlock, cache.max_next(id),
                             static_cast<int64_t>(end) - cache.length(id)});
    ASSERT_TRUE(cache.reserve(id, static_cast<int32_t>(n)));
    cache.check_integrity();
    cache.commit(id, tokens);
    cache.check_integrity();
  }
}

TEST(Reuse, ABlockIsSharedAsSoonAsItIsFull) {
  CacheManager cache(config_with(16), PolicyMap::parse("full", kLayers));
  const auto tokens = tokens_of(1, 5);
  const SequenceId a = cache.open();
  const SequenceId b = cache.open();
  write(cache, a, tokens, 11);
  EXPECT_EQ(cache.match_prefix(b, tokens, 20), 8);
  write(cache, b, tokens, 10);
  // What the other one has come to meanwhile takes the place of a tail.
  write(cache, a, tokens, 17);
  EXPECT_EQ(cache.match_prefix(b, tokens, 11), 0);
  const int64_t version = cache.changes(b, 1).version();
  EXPECT_EQ(cache.match_prefix(b, tokens, 20), 6);
  cache.check_integrity();
  EXPECT_EQ(cache.changes(b, 1).first_changed_since(version), 2);
  EXPECT_EQ(cache.length(b), 16);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(cache.table(a, 0)[i].page, cache.table(b, 0)[i].page);
  const KvStats stats = cache.stats();
  EXPECT_EQ(stats.layers[1].pages_active, 5);
  EXPECT_EQ(stats.layers[1].pages_merged, 1);
  EXPECT_EQ(stats.layers[1].tokens_resident, 17 + 16);
  // One that was missing is counted when a sequence begins, and not each time it is looked for.
  EXPECT_EQ(stats.prefix_lookups, 3 + 2);
  EXPECT_EQ(stats.prefix_hits, 4);
}

TEST(Reuse, TheSameBlockComputedTwiceIsOne) {
  CacheManager cache(config_with(16), PolicyMap::parse("full", kLayers));
  const auto tokens = tokens_of(1, 3);
  const SequenceId a = cache.open();
  const SequenceId b = cache.open();
  write(cache, a, tokens, 8);
  const int64_t version = cache.changes(b, 0).version();
  ASSERT_TRUE(cache.reserve(b, 11));
  const int64_t reserved = cache.changes(b, 0).version();
  EXPECT_GT(reserved, version);
  cache.commit(b, tokens);
  cache.check_integrity();
  EXPECT_EQ(cache.changes(b, 0).first_changed_since(reserved), 0);
  EXPECT_EQ(cache.table(a, 0)[1].page, cache.table(b, 0)[1].page);
  EXPECT_EQ(cache.stats().layers[0].pages_merged, 2);
  EXPECT_EQ(cache.stats().layers[0].pages_active, 3);
  // A block that nobody lists, but that is kept, is as good.
  cache.close(a);
  cache.close(b);
  ASSERT_TRUE(cache.reserve(cache.open(), 8));
  cache.commit(0, tokens);
  cache.check_integrity();
  EXPECT_EQ(cache.stats().layers[0].pages_active, 2);
  EXPECT_EQ(cache.stats().layers[0].pages_cached, 0);
}

TEST(Reuse, WhereBitsMayDifferEachKeepsItsOwn) {
  CacheConfig config = config_with(16);
  config.merges_blocks = false;
  CacheManager cache(config, PolicyMap::parse("full", kLayers));
  const auto tokens = tokens_of(1, 5);
  const SequenceId a = cache.open();
  const SequenceId b = cache.open();
  write(cache, a, tokens, 8);
  write(cache, b, tokens, 16);
  EXPECT_NE(cache.table(a, 0)[1].page, cache.table(b, 0)[1].page);
  EXPECT_EQ(cache.stats().layers[0].pages_active, 2 + 4);
  EXPECT_EQ(cache.match_prefix(b, tokens, 20), 0);
  cache.close(a);
  cache.check_integrity();
  EXPECT_EQ(cache.stats().layers[0].pages_cached, 2);
  // Its end is the time for what went on below the other's blocks.
  cache.close(b, tokens);
  cache.check_integrity();
  EXPECT_EQ(cache.stats().layers[0].pages_cached, 4);
  EXPECT_EQ(cache.match_prefix(cache.open(), tokens, 20), 16);
  cache.check_integrity();
}

TEST(Reuse, WhoWritesIntoASharedBlockGetsACopy) {
  CacheConfig config = config_with(8);
  std::vector<std::pair<int32_t, int32_t>> copies;
  int fails_at = -1;
  config.copy_page = [&](int32_t from, int32_t to) {
    if (fails_at-- == 0) throw std::runtime_error("no copy");
    copies.emplace_back(from, to);
  };
  CacheManager cache(config, PolicyMap::parse("full", kLayers));
  const auto tokens = tokens_of(1, 3);
  const SequenceId a = cache.open();
  write(cache, a, tokens, 12);
  const SequenceId b = cache.open();
  EXPECT_EQ(cache.match_prefix(b, tokens, 12), 12);
  cache.truncate(b, 6);
  cache.check_integrity();
  EXPECT_EQ(cache.table(b, 0)[1].page, cache.table(a, 0)[1].page);
  fails_at = 1;
  EXPECT_THROW(cache.reserve(b, 1), std::runtime_error);
  cache.check_integrity();
  EXPECT_EQ(cache.free_pages(), 5 * kLayers);
  copies.clear();
  const int64_t version = cache.changes(b, 1).version();
  ASSERT_TRUE(cache.reserve(b, 5));
  cache.check_integrity();
  EXPECT_EQ(cache.changes(b, 1).first_changed_since(version), 1);
  ASSERT_EQ(copies.size(), size_t{kLayers});
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    EXPECT_EQ(copies[layer],
              std::pair(cache.table(a, layer)[1].page, cache.table(b, layer)[1].page));
  }
  cache.rollback(b);
  cache.check_integrity();
  EXPECT_EQ(cache.length(b), 6);
  ASSERT_TRUE(cache.reserve(b, 5));
  cache.commit(b, tokens);  // what it writes now is what it had: one block again
  EXPECT_EQ(copies.size(), size_t{kLayers});
  cache.check_integrity();
  EXPECT_EQ(cache.table(b, 0)[1].page, cache.table(a, 0)[1].page);
}

/// Positions up to `end`, some at once.
void go_on(CacheManager& cache, SequenceId id, std::span<const int32_t> tokens, int64_t end) {
  while (cache.length(id) < end) {
    const int64_t n = std::min({end - cache.length(id), int64_t{kBlock}, cache.max_next(id)});
    ASSERT_TRUE(cache.reserve(id, static_cast<int32_t>(n)));
    cache.commit(id, tokens.first(static_cast<size_t>(cache.length(id) + n)));
    cache.check_integrity();
  }
}

TEST(Reuse, ATailThatSinksHaveSplitGivesWayToAKeptBlock) {
  const auto tokens = tokens_of(1, 6);
  const auto policies = PolicyMap::parse("sink:5+10", kLayers);
  CacheManager cache(config_with(24), policies), plain(config_with(24), policies);
  const SequenceId id = cache.open(), expected = plain.open();
  go_on(cache, id, tokens, 15);  // where the sinks' block is split
  const SequenceId other = cache.open();
  cache.match_prefix(other, tokens, 12);
  go_on(cache, other, tokens, 20);
  EXPECT_EQ(cache.match_prefix(id, tokens, 16), 1);  // it still sees the block's last position
  cache.check_integrity();
  go_on(plain, expected, tokens, 16);
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    const auto its = cache.table(id, layer), computed = plain.table(expected, layer);
    ASSERT_EQ(its.size(), computed.size());
    for (size_t i = 0; i < its.size(); ++i) {
      EXPECT_EQ(its[i].first_position, computed[i].first_position) << i;
      EXPECT_EQ(its[i].slot_begin, computed[i].slot_begin) << i;
      EXPECT_EQ(its[i].slot_end, computed[i].slot_end) << i;
      EXPECT_EQ(its[i].rotation, computed[i].rotation) << i;
    }
  }
}

TEST(Reuse, OnlyWhatOthersListTooIsCopied) {
  CacheConfig config = config_with(24);
  config.keep_blocks = false;
  CacheManager cache(config, PolicyMap::parse("0=full,1=window:9", kLayers));
  const auto tokens = tokens_of(1, 8);
  const SequenceId id = cache.open(), fork = cache.open();
  go_on(cache, id, tokens, 8);
  cache.fork(id, fork);
  go_on(cache, fork, tokens, 24);  // its window has passed all of the other's
  cache.truncate(id, 6);
  const KvStats before = cache.stats();
  go_on(cache, id, tokens, 7);
  const KvStats after = cache.stats();
  EXPECT_EQ(after.layers[0].pages_allocated, before.layers[0].pages_allocated + 1) << "a copy";
  EXPECT_EQ(after.layers[1].pages_allocated, before.layers[1].pages_allocated);
}

TEST(Reuse, AsMuchIsKeptAsLayersWithoutAWindowHold) {
  // Of a long text one layer holds three quarters of the pool, and the other a few pages.
  CacheManager cache(config_with(20), PolicyMap::parse("0=full,1=window:4", kLayers));
  const auto tokens = tokens_of(1, 30);
  const SequenceId id = cache.open();
  go_on(cache, id, tokens, 30 * kBlock);
  cache.close(id, tokens);
  const SequenceId again = cache.open();
  EXPECT_EQ(cache.match_prefix(again, tokens, 30 * kBlock), 30 * kBlock);
  cache.check_integrity();
}

TEST(Reuse, WithoutAPageForACopyOnlyWhatNobodyListsIsTaken) {
  CacheManager cache(config_with(3), PolicyMap::parse("full", kLayers));
  const auto tokens = tokens_of(1, 3);
  const SequenceId a = cache.open();
  write(cache, a, tokens, 12);
  const SequenceId b = cache.open();
  EXPECT_EQ(cache.match_prefix(b, tokens, 12), 12);
  cache.truncate(b, 11);
  EXPECT_FALSE(cache.reserve(b, 1));  // the other one lists all of it
  cache.check_integrity();
  cache.truncate(a, 10);
  EXPECT_FALSE(cache.reserve(b, 1));  // and now its beginning
  EXPECT_FALSE(cache.reserve(a, 1));
  cache.check_integrity();
  cache.truncate(a, 5);
  ASSERT_TRUE(cache.reserve(b, 1));
  cache.check_integrity();
  cache.commit(b, tokens);
  cache.check_integrity();
  cache.close(b);
  // The block that it lists the beginning of may leave the tree without it.
  const SequenceId c = cache.open();
  EXPECT_FALSE(cache.reserve(c, 5));
  ASSERT_TRUE(cache.reserve(c, 4));
  cache.check_integrity();
  EXPECT_EQ(cache.table(a, 0).size(), 2U);
  cache.rollback(c);
  ASSERT_TRUE(cache.reserve(a, 3));
  cache.check_integrity();
}

TEST(Reuse, WarmUpIsNotCounted) {
  CacheManager cache(config_with(8), PolicyMap::parse("full", kLayers));
  const auto tokens = tokens_of(1, 2);
  const SequenceId id = cache.open();
  cache.match_prefix(id, tokens, 8, false);
  EXPECT_EQ(cache.stats().prefix_lookups, 0);
  cache.close(id);
  read(cache, tokens);
  EXPECT_EQ(cache.match_prefix(cache.open(), tokens, 8, false), 8);
  EXPECT_EQ(cache.stats().prefix_lookups, 1);
  EXPECT_EQ(cache.stats().prefix_hits, 0);
}

TEST(Reuse, RulesThatTrimNeitherReadNorKeep) {
  for (const char* spec : {"h2o:32", "random:32", "0=full,1=tova:32", "0=h2o:32,1=window:6"}) {
    CacheManager cache(config_with(64), PolicyMap::parse(spec, kLayers));
    const auto tokens = tokens_of(1, 2);
    EXPECT_EQ(read(cache, tokens), 0);
    EXPECT_EQ(read(cache, tokens), 0);
    EXPECT_EQ(cache.stats().total.pages_cached, 0) << spec;
  }
}

// ---- under rules of position alone

CacheConfig config_of(int32_t pages, int32_t layers = 1, int32_t block = kBlock) {
  CacheConfig config{layers, 4, block, pages, 64, 4, 100'000, 64};
  config.keep_blocks = true;
  return config;
}

TEST(Reuse, WhatAWindowHasPassedIsFoundWhileItsTextGoesOn) {
  CacheManager cache(config_of(60), PolicyMap::parse("window:8", 1));
  const auto tokens = tokens_of(1, 20);
  const SequenceId a = cache.open();
  write(cache, a, tokens, 80);
  EXPECT_EQ(cache.table(a, 0).size(), 2U);  // blocks 18 and 19
  EXPECT_EQ(cache.stats().total.pages_cached, 18);
  EXPECT_EQ(cache.stats().total.pages_removed[static_cast<size_t>(RemovalReason::kWindow)], 18);
  EXPECT_EQ(cache.stats().total.pages_retained, 18);
  const SequenceId b = cache.open();
  EXPECT_EQ(cache.match_prefix(b, tokens, 40), 40);
  cache.check_integrity();
  ASSERT_EQ(cache.table(b, 0).size(), 2U);
  EXPECT_EQ(cache.table(b, 0)[0].first_position, 32);
  EXPECT_EQ(cache.stats().total.pages_cached, 16);
  // What it never listed has not left it.
  EXPECT_EQ(cache.stats().total.pages_removed[static_cast<size_t>(RemovalReason::kWindow)], 18);
  EXPECT_EQ(cache.stats().prefix_hits, 10);
  // It goes on as the other one had, and to a length that the other has passed.
  EXPECT_EQ(cache.match_prefix(b, tokens, 60), 20);
  cache.check_integrity();
  EXPECT_EQ(cache.table(b, 0)[0].first_position, 52);
  EXPECT_EQ(cache.stats().total.pages_removed[static_cast<size_t>(RemovalReason::kWindow)], 20);
  cache.close(a);
  cache.check_integrity();
  cache.close(b);
  cache.check_integrity();
  EXPECT_EQ(cache.stats().total.pages_cached, 20);
}

TEST(Reuse, WhatAWindowHasPassedGoesWhenPagesAreNeeded) {
  CacheManager cache(config_of(24), PolicyMap::parse("window:8", 1));
  const auto tokens = tokens_of(1, 20);
  const SequenceId a = cache.open();
  write(cache, a, tokens, 80);
  EXPECT_EQ(cache.available_pages(), 22);
  // Another text takes 14 pages at once: four are free, so the ten passed first go.
  const SequenceId b = cache.open();
  ASSERT_TRUE(cache.reserve(b, 14 * kBlock, 7));
  cache.check_integrity();
  EXPECT_EQ(cache.stats().total.pages_cached, 8);
  EXPECT_EQ(cache.stats().total.pages_removed[static_cast<size_t>(RemovalReason::kCapacity)], 10);
  cache.rollback(b);
  // Behind blocks 10 and 11 all is there again; before that nothing is.
  EXPECT_EQ(cache.match_prefix(b, tokens, 44), 0);
  PrefixMiss miss = cache.ask_missing(b, tokens, 44);
  EXPECT_EQ(miss.reason, MissReason::kTrimmed);
  EXPECT_EQ(miss.position, 0);
  EXPECT_EQ(miss.step, 0);
  EXPECT_EQ(miss.request, 7);
  EXPECT_EQ(cache.stats().reclaim_regrets, 1);
  EXPECT_EQ(cache.ask_missing(b, tokens, 44).reason, MissReason::kTrimmed);
  EXPECT_EQ(cache.stats().reclaim_regrets, 1);
  EXPECT_EQ(cache.match_prefix(b, tokens, 48), 48);
  cache.check_integrity();
  cache.close(b);
  // Who computes them again puts them back.
  const SequenceId c = cache.open();
  write(cache, c, tokens, 12);
  EXPECT_EQ(cache.match_prefix(cache.open(), tokens, 12), 12);
  cache.check_integrity();
  cache.close(a);
  cache.check_integrity();
}

TEST(Reuse, WhatWasLetGoOfFirstGoesFirst) {
  CacheManager cache(config_of(12), PolicyMap::parse("window:8", 1));
  read(cache, tokens_of(1, 3));  // keeps the two that its window sees at the end
  cache.tick();
  const SequenceId a = cache.open();
  write(cache, a, tokens_of(2, 5), 20);  // passes three blocks
  cache.tick();
  read(cache, tokens_of(3, 3));
  const uint64_t from = cache.stats().events;
  ASSERT_TRUE(cache.reserve(cache.open(), 10 * kBlock));
  cache.check_integrity();
  std::vector<int64_t> left;
  for (const KvEvent& event : cache.events(from)) {
    EXPECT_EQ(event.reason, RemovalReason::kCapacity);
    EXPECT_EQ(event.sequence, -1);
    EXPECT_EQ(event.n_tokens, kBlock);
    left.push_back(event.first_position);
  }
  EXPECT_EQ(left, (std::vector<int64_t>{8, 4, 0, 4, 8, 8, 4}));
}

TEST(Reuse, ALongTextUnderAWindowNeedsNoMorePagesThanItLists) {
  for (const char* spec : {"window:8", "sink:4+12", "0=sink:6+3,1=window:20"}) {
    const PolicyMap rules = PolicyMap::parse(spec, 2);
    const auto one = static_cast<int32_t>(CacheManager::pages_needed(rules, kBlock, 100'000, 4));
    const int32_t pages = one + 8;
    CacheConfig config = config_of(pages, 2);
    config.max_chunk = 4;
    CacheManager cache(config, PolicyMap::parse(spec, 2));
    for (int d = 0; d < 2; ++d) {
      const auto tokens = tokens_of(d, 500);
      const SequenceId a = cache.open();
      write(cache, a, tokens, tokens.size());
      EXPECT_EQ(cache.stats().reservations_refused, 0);
      EXPECT_EQ(cache.available_pages() + cache.pages_listed(a), pages);
      // It had more blocks than there is room for, and holds none of that when others come.
      for (const bool is_open : {true, false}) {
        const auto other = tokens_of(7 + 2 * d + (is_open ? 1 : 0), 3);
        for (const int64_t found : {int64_t{0}, int64_t{3} * kBlock}) {
          const SequenceId b = cache.open();
          EXPECT_EQ(cache.match_prefix(b, other, 3 * kBlock), found) << spec;
          write(cache, b, other, other.size());
          cache.close(b, other);
        }
        if (is_open) cache.close(a, tokens);
        cache.check_integrity();
      }
    }
  }
}

/// Entries of a table, whatever their pages are.
std::vector<std::array<int64_t, 4>> entries_of(const CacheManager& cache, SequenceId id,
                                               int32_t layer) {
  std::vector<std::array<int64_t, 4>> entries;
  for (const BlockEntry& e : cache.table(id, layer)) {
    entries.push_back({e.first_position, e.slot_begin, e.slot_end, e.rotation});
  }
  return entries;
}

/// Texts that share their beginnings, in a cache that shares and in one that does not.
class HitsAndComputed {
 public:
  HitsAndComputed(const char* spec, int32_t block, uint32_t seed)
      : random_(seed),
        cache_(config_of(300, kLayers, block), PolicyMap::parse(spec, kLayers)),
        alone_({kLayers, 4, block, 3000, 64, 4, 1000, 64}, PolicyMap::parse(spec, kLayers)) {}

  void run() {
    const SequenceId id = cache_.open();
    ASSERT_EQ(alone_.open(), id);
    std::vector<int32_t> tokens = text();
    for (int step = 0; step < 12; ++step) {
      const auto length = static_cast<size_t>(cache_.length(id));
      if (random_() % 3 == 0 && length > 0) {
        const auto to =
            static_cast<int64_t>(random_() % 3 == 0 ? random_() % length : length - length % 5);
        ASSERT_EQ(truncated(cache_, id, to), truncated(alone_, id, to));
        if (random_() % 2 == 0) tokens = other_end(tokens, static_cast<size_t>(to));
      }
      const int64_t gained = cache_.match_prefix(id, tokens, static_cast<int64_t>(tokens.size()));
      if (gained > 0) ++hits;
      grow(alone_, id, tokens, gained);
      compare(id);
      const auto n = std::min<int64_t>(static_cast<int64_t>(random_() % 30),
                                       static_cast<int64_t>(tokens.size()) - cache_.length(id));
      grow(cache_, id, tokens, n);
      grow(alone_, id, tokens, n);
      compare(id);
      if (testing::Test::HasFailure()) return;
    }
    cache_.close(id, tokens);
    alone_.close(id);
  }
  int hits = 0;

 private:
  std::vector<int32_t> text() {
    std::vector<int32_t> tokens(100 + random_() % 40);
    const auto own = random_() % tokens.size();
    const auto number = static_cast<int32_t>(random_() % 3);
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<int32_t>(i) + (i < own ? 0 : 1000 * number);
    }
    return tokens;
  }
  std::vector<int32_t> other_end(std::vector<int32_t> tokens, size_t from) {
    const std::vector<int32_t> other = text();
    for (size_t i = from; i < std::min(tokens.size(), other.size()); ++i) tokens[i] = other[i];
    return tokens;
  }
  static bool truncated(CacheManager& cache, SequenceId id, int64_t length) {
    try {
      cache.truncate(id, length);
      return true;
    } catch (const Error&) {
      return false;
    }
  }
  static void grow(CacheManager& cache, SequenceId id, const std::vector<int32_t>& tokens,
                   int64_t n) {
    while (n > 0) {
      const int64_t part = std::min(n, cache.max_next(id));
      ASSERT_TRUE(cache.reserve(id, static_cast<int32_t>(part)));
      cache.commit(id, tokens);
      n -= part;
    }
  }
  void compare(SequenceId id) {
    cache_.check_integrity();
    ASSERT_EQ(cache_.length(id), alone_.length(id));
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      ASSERT_EQ(entries_of(cache_, id, layer), entries_of(alone_, id, layer)) << "layer " << layer;
      EXPECT_EQ(cache_.stats().layers[layer].tokens_resident,
                alone_.stats().layers[layer].tokens_resident);
    }
  }

  std::mt19937 random_;
  CacheManager cache_, alone_;
};

TEST(Reuse, AHitLeavesTheTableThatComputingWouldHaveLeft) {
  int hits = 0;
  for (const char* spec : {"full", "window:1", "window:9", "sink:6+1", "sink:5+11", "sink:2+30",
                           "sink:5+11@original", "0=full,1=sink:2+14"}) {
    for (const int32_t block : {1, 4, 16}) {
      SCOPED_TRACE(std::string(spec) + " blocks of " + std::to_string(block));
      HitsAndComputed both(spec, block, static_cast<uint32_t>(hits + block));
      for (int round = 0; round < 20 && !HasFailure(); ++round) both.run();
      if (HasFailure()) return;
      EXPECT_GT(both.hits, 10);
      hits += both.hits;
    }
  }
}

/// Least recently used over whole blocks, leaves first, by brute force.
struct Model {
  explicit Model(size_t blocks) : room(blocks) {}
  void read(std::span<const int32_t> tokens) {
    std::vector<int32_t> names;  // blocks of different documents never begin alike
    for (size_t i = 0; i < tokens.size(); i += kBlock) names.push_back(tokens[i]);
    size_t found = 0;
    for (; found < names.size(); ++found) {
      ++lookups;
      if (std::find(order.begin(), order.end(), names[found]) == order.end()) {
        if (std::erase(ghosts, names[found]) > 0) ++regrets;
        break;
      }
      ++hits;
    }
    std::vector<int32_t> held(names.begin(), names.begin() + static_cast<int64_t>(found));
    for (const int32_t name : held) std::erase(order, name);
    for (size_t i = found; i < names.size(); ++i) {
      while (order.size() + i >= room) {
        reclaimed.push_back(order.front());
        ghosts.push_back(order.front());
        order.pop_front();
      }
    }
    for (size_t i = names.size(); i-- > 0;) {
      // A name deeper in the chain may still be kept although one before it had left.
      if (i >= found && std::find(order.begin(), order.end(), names[i]) != order.end())
        stale = true;
      order.push_back(names[i]);
    }
  }
  size_t room;
  std::deque<int32_t> order;  // reclaimable, the next to leave first
  std::vector<int32_t> ghosts, reclaimed;
  int64_t lookups = 0, hits = 0, regrets = 0;
  bool stale = false;
};

TEST(Reuse, RecordedAccessesGiveTheHitsAndRegretsOfBruteForce) {
  std::mt19937 random(11);
  for (const int room : {12, 20, 33}) {
    CacheManager cache(config_with(room), PolicyMap::parse("full", kLayers));
    Model model(static_cast<size_t>(room));
    for (int i = 0; i < 400; ++i) {
      const int document = static_cast<int>(random() % 6);
      const auto tokens = tokens_of(document, 1 + static_cast<int>(random() % 9));
      read(cache, tokens);
      model.read(tokens);
      ASSERT_FALSE(model.stale) << "leaves must go before what they continue";
      const KvStats stats = cache.stats();
      ASSERT_EQ(stats.prefix_lookups, model.lookups) << i;
      ASSERT_EQ(stats.prefix_hits, model.hits) << i;
      ASSERT_EQ(stats.reclaim_regrets, model.regrets) << i;
      ASSERT_EQ(stats.layers[0].pages_removed[static_cast<size_t>(RemovalReason::kCapacity)],
                static_cast<int64_t>(model.reclaimed.size()));
    }
    EXPECT_GT(model.regrets, 20);
    EXPECT_GT(model.hits, 100);
    EXPECT_EQ(cache.stats().policy_violations, 0);
  }
}

class Newest final : public ReclaimPolicy {
 public:
  std::string name() const override { return "newest"; }
  void on_leaf(const CachedBlock& block) override { cached_.push_back(block.block); }
  void on_use(int32_t block) override { std::erase(cached_, block); }
  void on_removed(int32_t block) override { std::erase(cached_, block); }
  int32_t next() override { return cached_.back(); }

 private:
  std::vector<int32_t> cached_;
};

class LyingReclaim final : public ReclaimPolicy {
 public:
  std::string name() const override { return "lying"; }
  void on_leaf(const CachedBlock&) override {}
  void on_use(int32_t) override {}
  void on_removed(int32_t) override {}
  int32_t next() override {
    if (++calls_ % 3 == 0) throw std::runtime_error("no idea");
    return calls_ % 3 == 1 ? 12345 : -1;
  }

 private:
  int calls_ = 0;
};

TEST(Reuse, AnotherOrderIsOneSubclass) {
  CacheManager cache(config_with(4), PolicyMap::parse("full", kLayers), std::make_unique<Newest>());
  read(cache, tokens_of(1, 2));
  read(cache, tokens_of(2, 2));
  read(cache, tokens_of(3, 2));  // takes the room of document 2, the newest
  EXPECT_EQ(read(cache, tokens_of(1, 2)), 2 * kBlock);
}

TEST(Reuse, AWrongReclaimPolicyIsCountedAndOverruled) {
  CacheManager cache(config_with(6), PolicyMap::parse("full", kLayers),
                     std::make_unique<LyingReclaim>());
  for (int i = 0; i < 20; ++i) read(cache, tokens_of(i, 3));
  const KvStats stats = cache.stats();
  EXPECT_EQ(stats.policy_violations,
            stats.layers[0].pages_removed[static_cast<size_t>(RemovalReason::kCapacity)]);
  EXPECT_GT(stats.policy_violations, 40);
  EXPECT_FALSE(stats.last_violation.empty());
  // The oldest went: the last documents are still there.
  EXPECT_EQ(read(cache, tokens_of(19, 3)), 3 * kBlock);
  EXPECT_EQ(read(cache, tokens_of(18, 3)), 3 * kBlock);
}

class ThrowingHooks final : public ReclaimPolicy {
 public:
  std::string name() const override { return "throwing"; }
  void on_leaf(const CachedBlock&) override { throw std::runtime_error("a leaf"); }
  void on_use(int32_t) override { throw std::runtime_error("used"); }
  void on_removed(int32_t) override { throw 3; }
  int32_t next() override { return -1; }
};

TEST(Reuse, WhatHooksThrowIsCountedAndTheBooksGoOn) {
  CacheManager cache(config_with(6), PolicyMap::parse("full", kLayers),
                     std::make_unique<ThrowingHooks>());
  EXPECT_EQ(read(cache, tokens_of(1, 3)), 0);
  EXPECT_EQ(cache.stats().policy_violations, 1);  // it is shown the leaf only
  EXPECT_EQ(cache.stats().last_violation, "reclaim policy 'throwing': threw: a leaf");
  EXPECT_EQ(read(cache, tokens_of(1, 3)), 3 * kBlock);
  EXPECT_EQ(cache.stats().policy_violations, 1 + 1 + 1);
  for (int i = 2; i < 10; ++i) EXPECT_EQ(read(cache, tokens_of(i, 3)), 0);
  EXPECT_EQ(read(cache, tokens_of(9, 3)), 3 * kBlock);  // the oldest went
}

}  // namespace
}  // namespace paddock
