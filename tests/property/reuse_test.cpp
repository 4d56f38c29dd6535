// Blocks kept for reuse, driven by recorded access sequences: hits, misses, regret and the order of
// reclaims against brute force, and the books after every step.
#include <gtest/gtest.h>

#include <algorithm>
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
    const auto n = std::min<int64_t>(kBlock - cache.length(id) % kBlock,
                                     static_cast<int64_t>(end) - cache.length(id));
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
}

TEST(Reuse, ScoredAndWindowedRulesNeitherReadNorKeep) {
  for (const char* spec : {"h2o:32", "window:8", "0=full,1=sink:2+6"}) {
    CacheManager cache(config_with(64), PolicyMap::parse(spec, kLayers));
    const auto tokens = tokens_of(1, 2);
    EXPECT_EQ(read(cache, tokens), 0);
    EXPECT_EQ(read(cache, tokens), 0);
    EXPECT_EQ(cache.stats().total.pages_cached, 0) << spec;
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
