// Requests replayed without a model: against the cache itself, against programs so plain that they
// are the definition, and against every choice that could have been made.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "kv/cache_manager.h"
#include "paddock/error.h"
#include "paddock/replay.h"
#include "support/temporary_folder.h"

namespace paddock {
namespace {

using Text = std::vector<int32_t>;

/// Texts that begin alike: each goes on from a random beginning of an earlier one, or is new. Ids
/// say what a block holds; equal ones after different beginnings are different blocks.
std::vector<Text> random_texts(uint32_t seed, int n_texts, int most_blocks) {
  std::mt19937 random(seed);
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
  std::vector<Text> texts;
  for (int i = 0; i < n_texts; ++i) {
    Text text;
    if (i > 0 && pick(5) > 0) {
      const Text& earlier = texts[static_cast<size_t>(i - 1 - pick(std::min(i, 12)))];
      text.assign(earlier.begin(), earlier.begin() + pick(static_cast<int>(earlier.size()) + 1));
    }
    const int more = pick(most_blocks - static_cast<int>(text.size()) + 1);
    for (int j = 0; j < more; ++j) text.push_back(pick(3));
    texts.push_back(text);
  }
  return texts;
}

RequestTrace trace_of(const std::vector<Text>& texts) {
  RequestTrace trace;
  for (const Text& text : texts) trace.add(std::vector<uint64_t>(text.begin(), text.end()));
  return trace;
}

ReplayResult replay(const std::vector<Text>& texts, const std::string& order, int64_t capacity) {
  ReplayOptions options;
  options.reclaim = {order};
  options.capacities = {capacity};
  return replay_requests(trace_of(texts), options).results.at(0);
}

// ---- the cache itself

struct CacheRun {
  int64_t found = 0, reclaimed = 0;
};

/// Through the books of an engine, with a block for each token.
CacheRun run_cache(const std::vector<Text>& texts, const std::string& order, int32_t capacity) {
  CacheConfig config{1, 1, 1, capacity, 64, 1, 64, 64};
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 1), make_reclaim_policy(order));
  CacheRun run;
  for (const Text& text : texts) {
    const auto n = static_cast<int32_t>(text.size());
    const SequenceId id = cache.open();
    const int64_t hits = cache.match_prefix(id, text, n);
    run.found += hits;
    if (hits < n) {
      EXPECT_TRUE(cache.reserve(id, n - static_cast<int32_t>(hits)));
      cache.commit(id, text);
    }
    cache.close(id, text);
    cache.tick();
  }
  run.reclaimed = cache.stats().total.pages_removed[static_cast<size_t>(RemovalReason::kCapacity)];
  return run;
}

TEST(PrefixReplay, FindsWhatTheCacheFindsUnderEveryOrder) {
  for (uint32_t seed = 0; seed < 120; ++seed) {
    const std::vector<Text> texts = random_texts(seed, 80, 12);
    for (const int32_t capacity : {12, 15, 24, 60}) {
      for (const char* order : {"lru", "s3fifo", "depth"}) {
        const CacheRun cache = run_cache(texts, order, capacity);
        const ReplayResult ours = replay(texts, order, capacity);
        ASSERT_EQ(ours.found, cache.found) << order << " " << capacity << ", seed " << seed;
        ASSERT_EQ(ours.reclaimed, cache.reclaimed) << order << " " << capacity << ", seed " << seed;
        ASSERT_EQ(ours.violations, 0);
      }
    }
  }
}

// ---- a plain program

struct Plain {
  int64_t found = 0, regret = 0, too_large = 0, references = 0, infinite = 0;
  std::set<Text> distinct;
};

/// Least recently used by the book: the cache is a list of whole texts up to each block, the one
/// used last at its end.
Plain run_plainly(const std::vector<Text>& texts, size_t capacity) {
  Plain plain;
  std::vector<Text> kept;
  std::set<Text> ever_kept;
  const auto is_kept = [&](const Text& block) {
    return std::find(kept.begin(), kept.end(), block) != kept.end();
  };
  for (const Text& text : texts) {
    plain.too_large += text.size() > capacity ? 1 : 0;
    bool all = true;
    for (size_t i = 1; i <= text.size(); ++i) {
      const Text block(text.begin(), text.begin() + static_cast<int64_t>(i));
      ++plain.references;
      plain.infinite += plain.distinct.insert(block).second ? 0 : 1;
      all = all && is_kept(block);
      plain.found += all ? 1 : 0;
      plain.regret += !is_kept(block) && ever_kept.contains(block) ? 1 : 0;
    }
    for (size_t i = std::min(text.size(), capacity); i > 0; --i) {  // the first block is used last
      const Text block(text.begin(), text.begin() + static_cast<int64_t>(i));
      std::erase(kept, block);
      kept.push_back(block);
      ever_kept.insert(block);
    }
    while (kept.size() > capacity) kept.erase(kept.begin());
  }
  return plain;
}

TEST(PrefixReplay, LeastRecentlyUsedIsWhatAPlainProgramSays) {
  for (uint32_t seed = 0; seed < 100; ++seed) {
    const std::vector<Text> texts = random_texts(seed, 40, 10);
    for (const int64_t capacity : {0, 1, 3, 9, 10, 17, 200}) {
      const Plain plain = run_plainly(texts, static_cast<size_t>(capacity));
      ReplayOptions options;
      options.reclaim = {"lru"};
      options.capacities = {capacity};
      const ReplayReport report = replay_requests(trace_of(texts), options);
      const ReplayResult& ours = report.results.at(0);
      ASSERT_EQ(ours.found, plain.found) << "seed " << seed << ", " << capacity;
      ASSERT_EQ(ours.regret, plain.regret) << "seed " << seed << ", " << capacity;
      ASSERT_EQ(ours.too_large, plain.too_large) << "seed " << seed << ", " << capacity;
      ASSERT_EQ(report.references, plain.references);
      ASSERT_EQ(report.distinct, static_cast<int64_t>(plain.distinct.size()));
      ASSERT_DOUBLE_EQ(report.infinite_hit_rate, double(plain.infinite) / double(plain.references));
      ASSERT_DOUBLE_EQ(ours.hit_rate, double(plain.found) / double(plain.references));
    }
  }
}

TEST(PrefixReplay, TheCurveIsTheReplayOfEveryCapacity) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const std::vector<Text> texts = random_texts(seed, 60, 12);
    ReplayOptions options;
    options.reclaim = {"lru"};
    for (int64_t capacity = 0; capacity < 90; ++capacity) options.capacities.push_back(capacity);
    options.capacities.push_back(100'000);
    const RequestTrace trace = trace_of(texts);
    const ReplayReport report = replay_requests(trace, options);
    const std::vector<CurvePoint> curve = lru_curve(trace, options.capacities);
    ASSERT_EQ(curve.size(), options.capacities.size());
    for (size_t i = 0; i < curve.size(); ++i) {
      ASSERT_EQ(curve[i].capacity, options.capacities[i]);
      ASSERT_NEAR(curve[i].hit_rate, report.results[i].hit_rate, 1e-12)
          << "seed " << seed << ", " << curve[i].capacity;
    }
    EXPECT_NEAR(curve.back().hit_rate, report.infinite_hit_rate, 1e-12);
  }
}

// ---- the most that can be found

/// Tries everything: after each request any part of what was there and what came may stay.
int64_t most_found(const std::vector<Text>& texts, size_t capacity) {
  std::map<Text, int> numbers;
  std::vector<std::vector<int>> requests;
  for (const Text& text : texts) {
    requests.emplace_back();
    for (size_t i = 1; i <= text.size(); ++i) {
      const Text block(text.begin(), text.begin() + static_cast<int64_t>(i));
      requests.back().push_back(numbers.try_emplace(block, numbers.size()).first->second);
    }
  }
  std::map<uint32_t, int64_t> best{{0U, 0}};  // by the set of blocks that are kept
  for (const std::vector<int>& request : requests) {
    std::map<uint32_t, int64_t> then;
    for (const auto& [kept, found_before] : best) {
      int64_t found = found_before;
      uint32_t all = kept;
      for (const int block : request) {
        if ((all >> block & 1U) == 0) break;
        ++found;
      }
      for (const int block : request) all |= 1U << block;
      for (uint32_t part = all;; part = (part - 1) & all) {  // every subset
        if (static_cast<size_t>(__builtin_popcount(part)) <= capacity) {
          int64_t& most = then.try_emplace(part, found).first->second;
          most = std::max(most, found);
        }
        if (part == 0) break;
      }
    }
    best = std::move(then);
  }
  int64_t most = 0;
  for (const auto& [kept, found] : best) most = std::max(most, found);
  return most;
}

TEST(PrefixReplay, NothingFindsMoreThanBelady) {
  int n = 0;
  for (uint32_t seed = 0; n < 60; ++seed) {
    const std::vector<Text> texts = random_texts(seed, 7, 4);
    std::set<Text> blocks;
    for (const Text& text : texts) {
      for (size_t i = 1; i <= text.size(); ++i)
        blocks.emplace(text.begin(), text.begin() + static_cast<int64_t>(i));
    }
    if (blocks.size() > 9) continue;
    ++n;
    for (const size_t capacity : {0U, 1U, 2U, 3U, 5U}) {
      const ReplayResult ours = replay(texts, "lru", static_cast<int64_t>(capacity));
      ASSERT_EQ(ours.belady_found, most_found(texts, capacity))
          << "seed " << seed << ", " << capacity;
      ASSERT_LE(ours.found, ours.belady_found);
    }
  }
}

TEST(PrefixReplay, OrdersStayBelowBelady) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    const std::vector<Text> texts = random_texts(seed, 150, 14);
    for (const char* order : {"lru", "s3fifo", "depth"}) {
      for (const int64_t capacity : {3, 14, 40}) {
        const ReplayResult ours = replay(texts, order, capacity);
        ASSERT_LE(ours.found, ours.belady_found) << order << " " << capacity;
        ASSERT_DOUBLE_EQ(ours.of_belady, ours.belady_found == 0
                                             ? 1
                                             : double(ours.found) / double(ours.belady_found));
      }
    }
  }
}

// ---- samples

TEST(PrefixReplay, ASampleIsNearTheWhole) {
  const RequestTrace trace = trace_of(random_texts(7, 6'000, 60));
  std::vector<int64_t> capacities;
  for (int64_t capacity = 100; capacity <= 50'000; capacity *= 2) capacities.push_back(capacity);
  const std::vector<CurvePoint> whole = lru_curve(trace, capacities);
  for (const double rate : {0.5, 0.1}) {
    const std::vector<CurvePoint> sample = lru_curve(trace, capacities, rate);
    for (size_t i = 0; i < whole.size(); ++i) {
      EXPECT_NEAR(sample[i].hit_rate, whole[i].hit_rate, 0.02) << rate << " " << capacities[i];
    }
  }
  EXPECT_THROW(lru_curve(trace, capacities, 0), Error);
  EXPECT_THROW(lru_curve(trace, capacities, 1.5), Error);
  const std::vector<int64_t> negative = {-1};
  EXPECT_THROW(lru_curve(trace, negative), Error);
}

// ---- edges

TEST(PrefixReplay, NothingComesOfNothing) {
  ReplayOptions options;
  options.capacities = {0, 5};
  const ReplayReport report = replay_requests({}, options);
  EXPECT_EQ(report.requests + report.references + report.distinct, 0);
  EXPECT_EQ(report.infinite_hit_rate, 0);
  ASSERT_EQ(report.results.size(), 6U);
  for (const ReplayResult& result : report.results) {
    EXPECT_EQ(result.hit_rate, 0);
    EXPECT_EQ(result.of_belady, 1);
  }
  EXPECT_EQ(lru_curve({}, options.capacities).at(1).hit_rate, 0);
}

TEST(PrefixReplay, WithoutRoomNothingIsFoundAndWithAllOfItAll) {
  const std::vector<Text> texts = {{1, 2}, {1, 2}, {1, 3}};
  const ReplayResult none = replay(texts, "depth", 0);
  EXPECT_EQ(none.found, 0);
  EXPECT_EQ(none.too_large, 3);
  EXPECT_EQ(none.regret, 0);
  const ReplayResult all = replay(texts, "depth", INT32_MAX);  // takes no such memory
  EXPECT_EQ(all.found, 3);
  EXPECT_EQ(all.reclaimed, 0);
}

TEST(PrefixReplay, OfATextLargerThanTheCacheTheBeginningStays) {
  const std::vector<Text> texts = {{1, 2, 3, 4}, {1, 2, 3, 4}, {1, 2, 5}};
  const ReplayResult result = replay(texts, "s3fifo", 2);
  EXPECT_EQ(result.found, 4);
  EXPECT_EQ(result.too_large, 3);
  EXPECT_EQ(result.reclaimed, 0);
}

TEST(PrefixReplay, WhatIsWrongIsRefused) {
  ReplayOptions options;
  options.capacities = {-1};
  EXPECT_THROW(replay_requests({}, options), Error);
  options.capacities = {int64_t{1} << 31};
  EXPECT_THROW(replay_requests({}, options), Error);
  options.capacities = {3};
  options.reclaim = {"fifo"};
  EXPECT_THROW(replay_requests({}, options), Error);
  options.reclaim = {};
  options.custom_reclaim = {nullptr};
  EXPECT_THROW(replay_requests({}, options), Error);
  options.custom_reclaim = {[] { return nullptr; }};
  EXPECT_THROW(replay_requests({}, options), Error);
  options.custom_reclaim.clear();
  RequestTrace wrong;
  wrong.requests.push_back({0, 1});
  EXPECT_THROW(replay_requests(wrong, options), Error);
  wrong.requests[0] = {1, -1};
  wrong.blocks = {1};
  EXPECT_THROW(replay_requests(wrong, options), Error);
}

/// Newest first; throws once.
class Newest final : public ReclaimPolicy {
 public:
  std::string name() const override { return "newest"; }
  void on_leaf(const CachedBlock& block) override { leaves_.push_back(block.block); }
  void on_use(int32_t block) override { std::erase(leaves_, block); }
  void on_removed(int32_t block) override { std::erase(leaves_, block); }
  int32_t next() override {
    if (!std::exchange(threw_, true)) throw std::runtime_error("not yet");
    return leaves_.back();
  }

 private:
  std::vector<int32_t> leaves_;
  bool threw_ = false;
};

TEST(PrefixReplay, TakesOrdersOfTheHostsOwn) {
  ReplayOptions options;
  options.reclaim = {"lru"};
  options.custom_reclaim = {[] { return std::make_unique<Newest>(); }};
  options.capacities = {2, 100};
  // Room for two: {1} and {2}, then {3} takes the place of {1} as the policy throws, {4} that of
  // {3}, and {2} is still there.
  const ReplayReport report = replay_requests(trace_of({{1}, {2}, {3}, {4}, {2}}), options);
  ASSERT_EQ(report.results.size(), 4U);
  EXPECT_EQ(report.results[0].policy, "lru");
  EXPECT_EQ(report.results[0].found, 0);
  EXPECT_EQ(report.results[2].policy, "newest");
  EXPECT_EQ(report.results[2].capacity, 2);
  EXPECT_EQ(report.results[2].found, 1);
  EXPECT_EQ(report.results[2].violations, 1);
  EXPECT_EQ(report.results[2].last_violation, "reclaim policy 'newest': threw: not yet");
  EXPECT_EQ(report.results[3].found, 1);
  EXPECT_EQ(report.results[3].violations, 0);
}

/// Writes down how deep the leaves are that it is told of, and lets go of the newest.
class Depths final : public ReclaimPolicy {
 public:
  explicit Depths(std::vector<int32_t>& told) : told_(told) {}
  std::string name() const override { return "depths"; }
  void on_leaf(const CachedBlock& block) override {
    told_.push_back(block.depth);
    leaves_.push_back(block.block);
  }
  void on_use(int32_t block) override { std::erase(leaves_, block); }
  void on_removed(int32_t block) override { std::erase(leaves_, block); }
  int32_t next() override { return leaves_.back(); }

 private:
  std::vector<int32_t>& told_;
  std::vector<int32_t> leaves_;
};

TEST(PrefixReplay, OrdersAreToldHowDeepLeavesAre) {
  std::vector<int32_t> told;
  ReplayOptions options;
  options.reclaim = {};
  options.custom_reclaim = {[&] { return std::make_unique<Depths>(told); }};
  options.capacities = {4};
  // The third text takes the places of 5 and of 3, so that 2 is a leaf, and the last one that of 7.
  replay_requests(trace_of({{1, 2, 3}, {1, 5}, {6, 7}, {8}}), options);
  EXPECT_EQ(told, (std::vector<int32_t>{2, 1, 1, 1, 0, 0}));
}

// ---- files

TEST(PrefixReplay, ReadsMooncakesAndBailiansLines) {
  const RequestTrace trace = parse_request_trace(
      "{\"timestamp\": 1500, \"input_length\": 600, \"output_length\": 5, \"hash_ids\": [7, 8]}\n"
      "\n"
      "{\"chat_id\":1,\"parent_chat_id\":-1,\"timestamp\":61.5,\"input_length\":33,"
      "\"output_length\":2,\"type\":\"text\",\"turn\":1,\"hash_ids\":[7,18446744073709551615,-1]}"
      "\r\n"
      "{\"hash_ids\": []}",
      "lines");
  ASSERT_EQ(trace.requests.size(), 3U);
  EXPECT_EQ(trace.blocks, (std::vector<uint64_t>{7, 8, 7, UINT64_MAX, UINT64_MAX}));
  EXPECT_EQ(trace.requests[0].seconds, 1.5);
  EXPECT_EQ(trace.requests[0].input_tokens, 600);
  EXPECT_EQ(trace.requests[0].output_tokens, 5);
  EXPECT_EQ(trace.requests[1].seconds, 61.5);
  EXPECT_EQ(trace.requests[1].first_block, 2);
  EXPECT_EQ(trace.requests[1].n_blocks, 3);
  EXPECT_EQ(trace.requests[2].n_blocks, 0);
  const test::TemporaryFolder folder;
  EXPECT_EQ(read_request_trace(folder.write("trace", "{\"hash_ids\":[3]}")).blocks.at(0), 3U);
  EXPECT_TRUE(read_request_trace(folder.write("empty", "")).requests.empty());
}

TEST(PrefixReplay, ABadLineIsNamedWithItsFix) {
  const std::map<std::string, std::string> wrong = {
      {"{", "not valid JSON at byte 2"},
      {"\x01\x02 paddock", "not valid JSON at byte 1"},
      {"[1]", "no \"hash_ids\" is here"},
      {"{\"input_length\": 3}", "no \"hash_ids\" is here"},
      {"{\"hash_ids\": 3}", "\"hash_ids\" is no list"},
      {"{\"hash_ids\": null}", "\"hash_ids\" is no list"},
      {"{\"hash_ids\": {}}", "\"hash_ids\" is no list"},
      {"{\"hash_ids\": [[1]]}", "has a list in it"},
      {"{\"hash_ids\": [1.5]}", "\"1.5\" in \"hash_ids\""},
      {"{\"hash_ids\": [\"a\"]}", "in \"hash_ids\""},
      {"{\"hash_ids\": [99999999999999999999]}", "in \"hash_ids\""},
      {"{\"hash_ids\": [1], \"hash_ids\": [2]}", "twice"},
      {"{\"hash_ids\": [1], \"timestamp\": \"now\"}", "\"timestamp\" is no number"},
      {"{\"hash_ids\": [1], \"input_length\": -1}", "\"input_length\" is -1"},
      {"{\"hash_ids\": [1], \"output_length\": 1.5}", "\"output_length\" is 1.5"},
      {"{\"hash_ids\": [1], \"output_length\": 1e300}", "\"output_length\" is 1e+300"},
      {"{\"hash_ids\": [1]} x", "not valid JSON"},
  };
  for (const auto& [line, words] : wrong) {
    try {
      parse_request_trace("{\"hash_ids\": [1]}\n\n" + line + "\n", "my.jsonl");
      ADD_FAILURE() << line;
    } catch (const Error& e) {
      const std::string what = e.what();
      EXPECT_EQ(e.code(), ErrorCode::kBadFile) << line;
      EXPECT_EQ(what.rfind("my.jsonl, line 3: ", 0), 0U) << what;
      EXPECT_NE(what.find(words), std::string::npos) << what;
      const std::string fix = "; mend the line, a request such as {";
      EXPECT_NE(what.find(fix), std::string::npos) << what;
      EXPECT_EQ(what.find(fix), what.rfind(fix)) << what;
    }
  }
  EXPECT_THROW(read_request_trace("/no/such/file"), Error);
  EXPECT_THROW(read_request_trace("/"), Error);
}

TEST(PrefixReplay, LinesCutAnywhereAreReadOrRefused) {
  const std::string lines =
      "{\"timestamp\": 5, \"hash_ids\": [1, 2]}\n{\"chat_id\": 3, \"hash_ids\": [1, -4]}\n";
  for (size_t cut = 0; cut <= lines.size(); ++cut) {
    for (const char byte : {'\0', '[', '}', '"', '\x80'}) {
      std::string bytes = lines.substr(0, cut);
      try {
        parse_request_trace(bytes, "cut");
        if (cut == lines.size()) break;
        bytes = lines;
        bytes[cut] = byte;
        parse_request_trace(bytes, "changed");
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kBadFile);
      }
    }
  }
}

}  // namespace
}  // namespace paddock
