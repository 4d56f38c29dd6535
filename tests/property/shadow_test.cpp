// Caches of other sizes that go with the live one: what they say is what those would have found.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "kv/cache_manager.h"
#include "kv/hash_cache.h"
#include "support/cache_policies.h"
#include "support/engine_inside.h"
#include "support/live_bytes.h"
#include "support/small_requests.h"

namespace paddock::test {
namespace {

using Text = std::vector<int32_t>;

/// Texts that go on from an earlier one, or are new, of up to `most` tokens.
std::vector<Text> random_texts(uint32_t seed, int n_texts, size_t most) {
  std::mt19937 random(seed);
  const auto pick = [&](size_t n) { return random() % n; };
  std::vector<Text> texts;
  for (int i = 0; i < n_texts; ++i) {
    Text text;
    if (i > 0 && pick(5) > 0) {
      const Text& earlier = texts[texts.size() - 1 - pick(std::min<size_t>(texts.size(), 12))];
      text.assign(earlier.begin(),
                  earlier.begin() + static_cast<int64_t>(pick(earlier.size() + 1)));
    }
    const size_t more = pick(most - text.size() + 1);
    for (size_t j = 0; j < more; ++j) text.push_back(static_cast<int32_t>(pick(3)));
    if (text.empty()) text.push_back(0);
    texts.push_back(text);
  }
  return texts;
}

std::unique_ptr<CacheManager> cache_of(int32_t pages, int32_t block_size, const std::string& order,
                                       int32_t sequences = 1) {
  CacheConfig config{1, 1, block_size, pages, 64, sequences, 256, 256};
  config.keep_blocks = true;
  config.shadow_order = [order] { return make_reclaim_policy(order); };
  return std::make_unique<CacheManager>(config, PolicyMap::parse("full", 1),
                                        make_reclaim_policy(order));
}

/// Computes what is not found, if there is room, and stays open.
bool compute(CacheManager& cache, SequenceId id, const Text& text) {
  const auto n = static_cast<int32_t>(text.size() - static_cast<size_t>(cache.length(id)));
  if (n == 0) return true;
  if (!cache.reserve(id, n)) return false;
  cache.commit(id, text);
  return true;
}

TEST(Shadow, OneAfterAnotherEverySizeSaysWhatThatCacheFinds) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    const std::vector<Text> texts = random_texts(seed, 80, 12);
    for (const char* order : {"lru", "s3fifo", "depth"}) {
      const auto run = [&](int32_t pages) {
        auto cache = cache_of(pages, 1, order);
        for (const Text& text : texts) {
          const SequenceId id = cache->open();
          cache->match_prefix(id, text, static_cast<int64_t>(text.size()));
          EXPECT_TRUE(compute(*cache, id, text));
          cache->close(id, text);
          cache->tick();
        }
        return cache->stats();
      };
      const KvStats stats = run(26);
      ASSERT_EQ(stats.shadows.size(), 4U);
      const std::vector<int32_t> sizes = {13, 26, 52, 104};
      for (size_t i = 0; i < 4; ++i) {
        const KvShadow& shadow = stats.shadows[i];
        ASSERT_EQ(shadow.blocks, sizes[i]);
        ASSERT_EQ(shadow.times, std::vector<double>({0.5, 1, 2, 4})[i]);
        ASSERT_EQ(shadow.hits, run(sizes[i]).prefix_hits)
            << order << " " << sizes[i] << " " << seed;
      }
    }
  }
}

/// Sequences come, go on, are forked, taken back, parked and read again, and end.
class Traffic {
 public:
  Traffic(uint32_t seed, int32_t pages, const std::string& order)
      : random_(seed), cache_(cache_of(pages, 4, order, kSequences)) {
    for (const Text& text : random_texts(seed, 400, 60)) prompts_.push_back(text);
  }

  KvStats run() {
    for (size_t next = 0; next < prompts_.size();) {
      if (open_.size() < 3 && pick(2) == 0) {
        begin(prompts_[next++]);
      } else if (!open_.empty()) {
        act(pick(open_.size()));
      }
      cache_->tick();
      cache_->check_integrity();
    }
    while (!open_.empty()) end(0, RemovalReason::kSequenceEnd);
    return cache_->stats();
  }

 private:
  static constexpr int32_t kSequences = 4;
  struct Open {
    SequenceId id;
    Text text;
  };
  size_t pick(size_t n) { return random_() % n; }

  void begin(const Text& prompt) {
    const SequenceId id = cache_->open();
    cache_->match_prefix(id, prompt, static_cast<int64_t>(prompt.size()) - 1);
    open_.push_back({id, prompt});
    if (!compute(*cache_, id, prompt)) end(open_.size() - 1, RemovalReason::kSequenceEnd);
  }

  void act(size_t i) {
    Open& o = open_[i];
    switch (pick(6)) {
      case 0:
        return end(i, RemovalReason::kSequenceEnd);
      case 1: {  // parked, and read again at once
        cache_->park(o.id, o.text);
        o.id = cache_->open();
        cache_->match_prefix(o.id, o.text, static_cast<int64_t>(o.text.size()), false);
        if (!compute(*cache_, o.id, o.text)) end(i, RemovalReason::kSequenceEnd);
        return;
      }
      case 2: {
        const size_t keep = 1 + pick(o.text.size());
        cache_->truncate(o.id, static_cast<int64_t>(keep));
        o.text.resize(keep);
        return;
      }
      case 3: {
        if (open_.size() == kSequences) return;
        const SequenceId id = cache_->open();
        cache_->fork(o.id, id);
        open_.push_back({id, o.text});
        return;
      }
      default:  // an answer grows
        for (size_t n = 1 + pick(3); n > 0; --n) o.text.push_back(static_cast<int32_t>(pick(3)));
        if (o.text.size() > 100 || !compute(*cache_, o.id, o.text)) {
          o.text.resize(static_cast<size_t>(cache_->length(o.id)));
          end(i, RemovalReason::kSequenceEnd);
        }
    }
  }

  void end(size_t i, RemovalReason reason) {
    open_[i].text.resize(static_cast<size_t>(cache_->length(open_[i].id)));
    cache_->close(open_[i].id, open_[i].text, reason);
    open_.erase(open_.begin() + static_cast<int64_t>(i));
  }

  std::mt19937 random_;
  std::unique_ptr<CacheManager> cache_;
  std::vector<Text> prompts_;
  std::vector<Open> open_;
};

// Beside each other sequences also hold blocks that are not full, and what two computed twice; and
// a shadow has a prompt's blocks before they are computed. That is worth little where the pool
// holds many times what is live: here up to three texts of fifteen blocks among two hundred.
TEST(Shadow, BesideEachOtherTheSameSizeIsNearTheLiveCache) {
  for (uint32_t seed = 0; seed < 4; ++seed) {
    for (const char* order : {"lru", "s3fifo", "depth"}) {
      const KvStats stats = Traffic(seed, 200, order).run();
      const KvStats twice = Traffic(seed, 400, order).run();
      const auto near = [&](int64_t a, int64_t b) {
        EXPECT_LE(std::abs(a - b), b / 20 + 5)
            << order << ", seed " << seed << ": " << a << " " << b;
      };
      EXPECT_GT(stats.total.pages_removed[static_cast<size_t>(RemovalReason::kCapacity)], 100);
      near(stats.shadows[1].hits, stats.prefix_hits);
      near(stats.shadows[2].hits, twice.prefix_hits);
    }
  }
}

TEST(Shadow, WhatIsPinnedStays) {
  auto cache = cache_of(8, 1, "lru");
  const auto pass = [&](const Text& text) {
    const SequenceId id = cache->open();
    cache->match_prefix(id, text, static_cast<int64_t>(text.size()));
    EXPECT_TRUE(compute(*cache, id, text));
    cache->close(id, text);
  };
  pass({1, 2, 3});
  const auto pin = cache->pin(Text{1, 2, 3, 4});
  ASSERT_TRUE(pin.has_value());
  for (int32_t i = 0; i < 20; ++i) pass({10 + i, 0});
  pass({1, 2, 3});
  EXPECT_EQ(cache->stats().prefix_hits, 3);
  EXPECT_EQ(cache->stats().shadows[0].hits, 3);  // four blocks, three of them pinned
  cache->close(*pin);
  for (int32_t i = 0; i < 20; ++i) pass({10 + i, 0});
  pass({1, 2, 3});
  EXPECT_EQ(cache->stats().shadows[0].hits, 3);
}

TEST(Shadow, OtherRulesBeginAnewAndGoOnCounting) {
  auto cache = cache_of(16, 1, "s3fifo");
  const auto pass = [&](const Text& text) {
    const SequenceId id = cache->open();
    cache->match_prefix(id, text, static_cast<int64_t>(text.size()));
    EXPECT_TRUE(compute(*cache, id, text));
    cache->close(id, text);
  };
  for (int i = 0; i < 2; ++i) pass({1, 2, 3});
  EXPECT_EQ(cache->stats().shadows[1].hits, 3);
  set_policies(*cache, PolicyMap::parse("window:8", 1));
  pass({1, 2, 3});
  EXPECT_EQ(cache->stats().shadows[1].hits, 3);
  pass({1, 2, 3});
  EXPECT_EQ(cache->stats().shadows[1].hits, 6);
  set_policies(*cache, PolicyMap::parse("h2o:8", 1));
  EXPECT_TRUE(cache->stats().shadows.empty());
}

// ---- what they hold

TEST(Shadow, ABlockIsItsHashAndWhatItContinues) {
  HashCache cache(8, nullptr);
  EXPECT_EQ(cache.pass(std::vector<uint64_t>{1, 7}), 0);
  EXPECT_EQ(cache.pass(std::vector<uint64_t>{2, 7}), 0);
  EXPECT_EQ(cache.pass(std::vector<uint64_t>{2, 7}), 2);
  EXPECT_EQ(cache.pass(std::vector<uint64_t>{7}), 0);
}

TEST(Shadow, ABlockStaysUntilTheLastTextThatHoldsItEnds) {
  HashCache cache(2, nullptr);
  const std::vector<uint64_t> text = {1};
  std::vector<int32_t> one, other;
  one.reserve(2);
  other.reserve(2);
  EXPECT_EQ(cache.hold(text, IfMissing::kAdd, true, one), 0);
  EXPECT_EQ(cache.hold(text, IfMissing::kAdd, true, other), 1);
  cache.let_go(one, 0, 0);
  for (uint64_t hash = 10; hash < 14; ++hash) cache.pass(std::vector<uint64_t>{hash});
  EXPECT_EQ(cache.reclaimed(), 3);
  EXPECT_EQ(cache.pass(text), 1);
  cache.let_go(other, 0, 0);
  for (uint64_t hash = 20; hash < 24; ++hash) cache.pass(std::vector<uint64_t>{hash});
  EXPECT_EQ(cache.pass(text), 0);
  EXPECT_EQ(cache.violations(), 0);
}

TEST(Shadow, WhatIsOnlyHeldWhereItIsThereIsNotAdded) {
  HashCache cache(4, nullptr);
  cache.pass(std::vector<uint64_t>{1});
  std::vector<int32_t> nodes;
  const std::vector<uint64_t> text = {1, 2, 3};
  EXPECT_EQ(cache.hold(text, IfMissing::kStop, false, nodes), 1);
  EXPECT_EQ(nodes.size(), 1U);
  cache.let_go(nodes, 0, 2);
  EXPECT_EQ(cache.pass(text), 1);
}

/// A text of `n` that begins with `first`.
Text counting(int32_t first, int32_t n) {
  Text text;
  for (int32_t i = 0; i < n; ++i) text.push_back(first + i);
  return text;
}

int64_t look_up(CacheManager& cache, size_t shadow, const Text& text) {
  const int64_t before = cache.stats().shadows[shadow].hits;
  const SequenceId id = cache.open();
  cache.match_prefix(id, text, static_cast<int64_t>(text.size()));
  EXPECT_TRUE(compute(cache, id, text));
  cache.close(id, text);
  return cache.stats().shadows[shadow].hits - before;
}

TEST(Shadow, AnAnswerGoesOnWhereEachSizeStands) {
  auto cache = cache_of(26, 1, "lru");
  const Text text = counting(1, 24), prompt(text.begin(), text.begin() + 20);
  const SequenceId id = cache->open();
  cache->match_prefix(id, prompt, 20);  // the least holds 13 of them, the others all
  ASSERT_TRUE(compute(*cache, id, prompt));
  ASSERT_TRUE(compute(*cache, id, text));
  cache->close(id, text);
  EXPECT_EQ(look_up(*cache, 1, text), 24);
}

TEST(Shadow, WhatIsTakenBackMakesRoom) {
  auto cache = cache_of(8, 1, "lru", 2);
  const SequenceId id = cache->open();
  const Text text = counting(1, 4);
  cache->match_prefix(id, text, 4);  // all four blocks of the least
  ASSERT_TRUE(compute(*cache, id, text));
  const Text other = counting(20, 3);
  EXPECT_EQ(look_up(*cache, 0, other), 0);
  EXPECT_EQ(look_up(*cache, 0, other), 0);
  cache->truncate(id, 1);
  EXPECT_EQ(look_up(*cache, 0, other), 0);
  EXPECT_EQ(look_up(*cache, 0, other), 3);
}

TEST(Shadow, AForkHoldsWhatItBeganAs) {
  auto cache = cache_of(8, 1, "lru", 3);
  const Text text = counting(1, 4);
  const SequenceId origin = cache->open();
  cache->match_prefix(origin, text, 4);
  ASSERT_TRUE(compute(*cache, origin, text));
  const SequenceId fork = cache->open();
  cache->fork(origin, fork);
  cache->close(origin, text);
  for (int32_t i = 0; i < 6; ++i) look_up(*cache, 0, {20 + i});
  EXPECT_EQ(look_up(*cache, 0, text), 4);
  cache->close(fork, text);
  for (int32_t i = 0; i < 6; ++i) look_up(*cache, 0, {30 + i});
  EXPECT_LT(look_up(*cache, 0, text), 4);
}

// ---- engines

EngineOptions shadowed(int64_t blocks, int32_t sequences = 2) {
  EngineOptions options = small_options(sequences);
  const auto model = tiny();
  options.context = 64;
  options.kv.shadow = true;
  options.kv.budget_bytes = 1 << 20;
  const int64_t page = Engine(model, options).kv_stats().page_bytes;
  options.kv.budget_bytes = static_cast<uint64_t>(blocks * 2 * page);
  return options;
}

std::vector<int64_t> run_conversations(const EngineOptions& options) {
  Engine engine(tiny(), options);
  std::mt19937 random(5);
  for (int i = 0; i < 120; ++i) {
    std::vector<TokenId> prompt = {static_cast<TokenId>(random() % 9)};
    for (int j = 0; j < 23; ++j) prompt.push_back(static_cast<TokenId>(prompt[0] * 3 + j));
    engine.generate(prompt, greedy(4));
  }
  std::vector<int64_t> hits = {engine.kv_stats().prefix_hits};
  for (const KvShadow& shadow : engine.kv_stats().shadows) hits.push_back(shadow.hits);
  return hits;
}

TEST(Shadow, AnEngineSaysWhatMoreMemoryWouldFind) {
  const std::vector<int64_t> hits = run_conversations(shadowed(24));
  const std::vector<int64_t> twice = run_conversations(shadowed(48));
  ASSERT_EQ(hits.size(), 5U);
  // The block that a text ends in is not full: of 24 one is never kept, so a little more is found
  // by hashes.
  EXPECT_NEAR(double(hits[2]), double(hits[0]), double(hits[0]) * 0.1);
  EXPECT_NEAR(double(hits[3]), double(twice[0]), double(twice[0]) * 0.1);
  EXPECT_LT(hits[1], hits[2]);
  EXPECT_LT(hits[2], hits[3]);
  EXPECT_GT(2 * twice[0], 3 * hits[0]);
}

TEST(Shadow, IsOffUnlessAskedForAndWhereNothingIsShared) {
  EngineOptions options = shadowed(24);
  options.kv.shadow = false;
  EXPECT_TRUE(Engine(tiny(), options).kv_stats().shadows.empty());
  options.kv.shadow = true;
  options.kv.reuse = false;
  EXPECT_TRUE(Engine(tiny(), options).kv_stats().shadows.empty());
  options.kv.reuse = true;
  EXPECT_EQ(Engine(tiny(), options).kv_stats().shadows.size(), 4U);
}

TEST(Shadow, DecodingTakesNoMemory) {
  if (!kCountsBytes || kOnCuda) GTEST_SKIP();
  for (const char* order : {"lru", "s3fifo", "depth"}) {
    EngineOptions options = shadowed(16);
    options.kv.reclaim = order;
    Engine engine(tiny(), options);
    engine.generate(prompt_of(40), greedy(2));
    int64_t allocations = -1;
    int said = 0;
    GenerateOptions talks = greedy(30);
    talks.on_token = [&](const TokenEvent&) {
      ++said;
      if (said == 3) allocations = g_allocations;
      if (said == 29) allocations = g_allocations - allocations;
      return true;
    };
    engine.generate(prompt_of(20), talks);
    EXPECT_EQ(allocations, 0) << order;
  }
}

}  // namespace
}  // namespace paddock::test
