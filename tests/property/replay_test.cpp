// What rules have decided of a text is decided again when it is computed again, whatever they would
// answer then: the tables, and what is told of the decisions, are what they were.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "engine/sequence.h"
#include "support/fickle_policy.h"
#include "support/live_bytes.h"
#include "support/rule_examples.h"
#include "support/shared_memory.h"

namespace paddock::test {
namespace {

constexpr int32_t kLayers = 2;
constexpr int32_t kSequences = 4;

std::vector<std::string> specs() {
  std::vector<std::string> out = {"0=fickle:snapkv:24,1=window:9",
                                  "0=sink:2+7,1=fickle:h2o:20",
                                  "0=fickle:lru:24@every:8,1=fickle:knorm:20@every:5",
                                  "0=full,1=fickle:pyramid:tova:32@every:8",
                                  "cake:h2o:32@every:8",
                                  "fickle:cake:h2o:24@every:8",
                                  "fickle:cake:lru:20@every:5@compact",
                                  "fickle:cake:snapkv:24",
                                  "0=fickle:cake:tova:20@every:6,1=fickle:cake:h2o:24@every:8"};
  for (const RuleExample& example : rule_examples()) {
    out.push_back(example.policy);  // what is measured differs each time
    out.push_back("fickle:" + example.policy);
  }
  return out;
}

/// What can be seen of a sequence.
std::string seen(const CacheManager& cache, SequenceId id) {
  std::string out;
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    for (const Rotation& r : cache.rotations(id, layer)) {
      out += fmt::format("[{} {}] ", r.query_shift, r.query_cap);
    }
    for (const BlockEntry& e : cache.table(id, layer)) {
      out += fmt::format("{}:{}-{}/{} ", e.first_position, e.slot_begin, e.slot_end, e.rotation);
    }
    out += "\n";
  }
  return out;
}

int64_t decisions(const CacheManager& cache) {
  int64_t n = 0;
  for (const KvLayerStats& layer : cache.stats().layers) n += layer.trim_decisions;
  return n;
}

/// What was told of decisions since `from`.
std::string told(const CacheManager& cache, uint64_t from) {
  std::string out;
  for (const KvEvent& e : cache.events(from)) {
    if (e.reason != RemovalReason::kPolicyTrim) continue;
    out += fmt::format("{} {} {}+{} {} {} {} {} {}/{} {}\n", e.length, e.layer, e.first_position,
                       e.n_tokens, e.overruled, e.score, e.runner_up_score, e.runner_up_position,
                       e.rank, e.left_together, e.sufficient_budget);
  }
  return out;
}

/// A text, and what was seen of it at each length that a step ended at.
struct Text {
  explicit Text(CacheManager& cache) : sequence(cache) {}
  Sequence sequence;
  std::map<int64_t, std::string> tables, events;

  void forget(int64_t length) {
    tables.erase(tables.upper_bound(length), tables.end());
    events.erase(events.upper_bound(length), events.end());
  }
};

class Texts {
 public:
  Texts(const std::string& spec, int32_t block, uint32_t seed)
      : random_(seed),
        is_fickle_(spec.find("fickle") != std::string::npos),
        cache_({kLayers, 4, block, 2000, 64, kSequences, 400, 13, 10'000},
               PolicyMap::parse(spec, kLayers, fickle_policies())) {}

  void act() {
    const int what = draw(0, 9);
    if (what == 0 || texts_.empty()) {
      add();
      return;
    }
    const size_t i = at_random();
    switch (what) {
      case 1:
        return park(*texts_[i]);
      case 2:
        return truncate(*texts_[i]);
      case 3:
        return fork(*texts_[i]);
      case 4:
        return copy(*texts_[i]);
      case 5:
        if (texts_.size() > 2) texts_.erase(texts_.begin() + static_cast<int64_t>(i));
        return;
      default:
        return feed(*texts_[i], draw(1, 40));
    }
  }
  void check() { cache_.check_integrity(); }
  int64_t replayed() const { return replayed_; }

 private:
  int draw(int from, int to) { return std::uniform_int_distribution<int>(from, to)(random_); }
  size_t at_random() { return static_cast<size_t>(draw(0, static_cast<int>(texts_.size()) - 1)); }
  Text* add() {
    if (texts_.size() == kSequences) return nullptr;
    texts_.push_back(std::make_unique<Text>(cache_));
    return texts_.back().get();
  }
  static void park(Text& text) {
    if (text.sequence.is_open()) text.sequence.park();
  }

  void truncate(Text& text) {
    const int64_t length = draw(0, static_cast<int>(text.sequence.length()));
    try {
      text.sequence.truncate(length);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      return;
    }
    text.forget(length);
  }

  void fork(const Text& from) {
    if (!from.sequence.is_open()) return;
    Text* const to = add();
    if (to == nullptr) return;
    const int64_t length = from.sequence.computed();
    to->sequence.copy(from.sequence);
    to->sequence.open();
    to->sequence.fork(from.sequence);
    to->sequence.truncate(length);  // it was copied to have the prompts, with more than was asked
    to->tables = from.tables;
    to->events = from.events;
    to->forget(length);
  }

  void copy(const Text& from) {
    Text* const to = add();
    if (to == nullptr) return;
    to->sequence.copy(from.sequence);
    to->tables = from.tables;
    to->events = from.events;
  }

  /// As far as it was, and so many tokens more; half of the time they are a prompt.
  void feed(Text& text, int n) {
    Sequence& sequence = text.sequence;
    if (sequence.length() + n > 200) return;
    if (draw(0, 1) == 0) sequence.set_prompt(sequence.length() + n);
    for (; n > 0; --n) sequence.tokens.push_back(draw(0, 99));
    if (!sequence.is_open()) sequence.open();
    const int64_t end =
        draw(0, 4) > 0 ? sequence.length() : draw(0, static_cast<int>(sequence.length()));
    while (sequence.computed() < end && !testing::Test::HasFailure()) step(text, end);
  }

  void step(Text& text, int64_t end) {
    Sequence& sequence = text.sequence;
    const SequenceId id = sequence.tables();
    const int64_t before = sequence.computed();
    const auto n = static_cast<int32_t>(
        std::min<int64_t>(draw(1, static_cast<int>(sequence.max_next())), end - before));
    const bool known = before + n <= sequence.reached();
    ASSERT_TRUE(cache_.reserve(id, n));
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      std::vector<BlockUse> uses;
      for (size_t i = cache_.table(id, layer).size(); i > 0; --i) {
        uses.push_back({draw(0, 1000), draw(0, 2) > 0 ? -1 : draw(0, static_cast<int>(before)), 0});
      }
      std::vector<int64_t> norms;
      for (int32_t i = 0; i < n; ++i) norms.push_back(draw(0, 1000));
      cache_.observe(id, layer, uses, norms);
    }
    const uint64_t seen_events = cache_.stats().events;
    const int64_t asked = g_asked, decided = decisions(cache_);
    cache_.commit(id, sequence.tokens);
    cache_.tick();
    if (!known && is_fickle_) {
      EXPECT_EQ(g_asked - asked, decisions(cache_) - decided) << "at " << before + n;
    }
    if (known) {
      EXPECT_EQ(g_asked, asked) << "asked again at " << before + n;
      replayed_ += decisions(cache_) - decided;
    }
    const int64_t length = before + n;
    const auto compare = [&](std::map<int64_t, std::string>& of, const std::string& now) {
      const auto [at, is_new] = of.try_emplace(length, now);
      EXPECT_EQ(at->second, now) << "at length " << length;
    };
    compare(text.tables, seen(cache_, id));
    compare(text.events, told(cache_, seen_events));
    check();
  }

  std::mt19937 random_;
  bool is_fickle_;  // all rules that are asked count it
  CacheManager cache_;
  std::vector<std::unique_ptr<Text>> texts_;
  int64_t replayed_ = 0;  // decisions
};

TEST(Replay, ParkedTextsComeBackAsTheyWereWhateverRulesWouldSayNow) {
  for (const std::string& spec : specs()) {
    int64_t replayed = 0;
    for (uint32_t seed = 1; seed <= 12; ++seed) {
      SCOPED_TRACE(testing::Message() << spec << ", seed " << seed);
      Texts texts(spec, 1 + static_cast<int32_t>(seed % 4), seed);
      for (int i = 0; i < 60 && !HasFailure(); ++i) {
        texts.act();
        texts.check();
      }
      if (HasFailure()) return;
      replayed += texts.replayed();
    }
    const bool decides = spec.find(':') != std::string::npos && spec.substr(0, 6) != "window" &&
                         spec.substr(0, 4) != "sink" &&
                         spec.find("fickle:full") == std::string::npos &&
                         spec.find("fickle:window") == std::string::npos &&
                         spec.find("fickle:sink") == std::string::npos;
    EXPECT_EQ(replayed > 0, decides || spec.find(',') != std::string::npos) << spec;
  }
}

/// Feeds one text by hand, with what is measured the same for all blocks.
void feed(CacheManager& cache, SequenceId id, int64_t end) {
  while (cache.length(id) < end) {
    const auto n = static_cast<int32_t>(std::min(cache.max_next(id), end - cache.length(id)));
    ASSERT_TRUE(cache.reserve(id, n));
    cache.commit(id);
  }
}

std::unique_ptr<CacheManager> cache_for(const std::string& spec, int32_t block) {
  return std::make_unique<CacheManager>(
      CacheConfig{kLayers, 4, block, 40'000, 64, kSequences, 40'000, 64},
      PolicyMap::parse(spec, kLayers, fickle_policies()));
}

TEST(Replay, ALogIsSmallAndForeseen) {
  for (const std::string spec :
       {"h2o:128", "lru:64@every:1", "knorm:100@every:7", "0=full,1=tova:256@every:32",
        "fickle:lru:64@every:16", "cake:lru:64@every:16"}) {
    for (const int32_t block : {1, 4, 16}) {
      SCOPED_TRACE(testing::Message() << spec << ", blocks of " << block);
      const auto cache = cache_for(spec, block);
      DecisionLog log;
      const SequenceId id = cache->open(&log);
      for (const int64_t n : {1000, 8000, 30'000}) {
        feed(*cache, id, n);
        EXPECT_LE(log.n_entries(), cache->max_logged(0, n));
        // Of each block one entry when it leaves, and one at most as a runner-up; a log that grows
        // doubles.
        EXPECT_LE(log.bytes(), int64_t{2 * 2 * 24} * kLayers * n / block);
        // Foreseen without waste; where the manager chooses there is no runner-up.
        const int64_t spare = kLayers * (64 / block + 16) + (spec[0] == 'f' ? n / 16 : 0);
        EXPECT_GE(log.n_entries() + spare, cache->max_logged(0, n));
      }
      EXPECT_GT(log.n_entries(), 0);
      cache->close(id);
    }
  }
}

TEST(Replay, ALogGivesTheDecisionThatIsDueOrNone) {
  DecisionLog log;
  log.make_room(5);
  log.append({.length = 8, .layer = 0, .begins = true});
  log.append({.length = 8, .layer = 0, .kind = DecisionKind::kRunnerUp});
  log.append({.length = 8, .layer = 0, .begins = true});  // the same layer once more
  log.append({.length = 8, .layer = 1, .begins = true});
  log.append({.length = 16, .layer = 1, .begins = true});
  log.reach(20);
  EXPECT_TRUE(log.take(8, 0).empty());  // all is taken
  log.rewind();
  EXPECT_TRUE(log.take(8, 1).empty());
  EXPECT_EQ(log.take(8, 0).size(), 2U);
  EXPECT_EQ(log.take(8, 0).size(), 1U);
  EXPECT_TRUE(log.take(8, 0).empty());
  EXPECT_EQ(log.take(8, 1).size(), 1U);
  EXPECT_TRUE(log.take(8, 1).empty());
  log.cut(8);
  EXPECT_EQ(log.reaches(), 8);
  EXPECT_EQ(log.n_entries(), 4);
  EXPECT_EQ(log.taken(), 4);
  log.rewind();
  EXPECT_THROW(log.append({.length = 16}), Error) << "not all is taken";
}

TEST(Replay, NothingIsAllocatedWhereARuleDecides) {
  if (!kCountsBytes) GTEST_SKIP() << "a sanitizer owns operator new";
  for (const std::string spec : {"h2o:64@every:16", "cake:h2o:64@every:16"}) {
    const auto cache = cache_for(spec, 4);
    DecisionLog log;
    const SequenceId id = cache->open(&log);
    const int64_t at_first = g_allocations;
    for (int32_t i = 0; i < 60; ++i) {
      ASSERT_TRUE(cache->reserve(id, 16));
      const int64_t before = g_allocations;
      cache->commit(id);
      EXPECT_EQ(g_allocations, before) << i;
    }
    EXPECT_GT(log.n_entries(), 100);
    EXPECT_LT(g_allocations - at_first, 30) << "it doubles";
    // With room from the beginning steps take none either.
    const auto entries = log.n_entries();
    cache->close(id);
    log.cut(0);
    log.make_room(entries);
    const SequenceId again = cache->open(&log);
    const int64_t before = g_allocations;
    feed(*cache, again, 960);
    EXPECT_EQ(g_allocations, before);
    // Nor where a log does not grow any more.
    cache->close(again);
    const SequenceId once_more = cache->open(&log);
    feed(*cache, once_more, 960);
    EXPECT_EQ(g_allocations, before);
    cache->check_integrity();
  }
}

TEST(Replay, WithoutMemoryForTheLogAStepIsRefused) {
  if (!kCountsBytes) GTEST_SKIP() << "a sanitizer owns operator new";
  const auto cache = cache_for("h2o:64@every:16", 4);
  DecisionLog log;
  const SequenceId id = cache->open(&log);
  feed(*cache, id, 64);
  const std::string before = seen(*cache, id);
  const int64_t free = cache->free_pages();
  for (const int64_t after : {0, 1}) {
    g_fail_after = after;
    EXPECT_THROW(cache->reserve(id, 16), std::bad_alloc);
    g_fail_after = -1;
    EXPECT_EQ(cache->free_pages(), free);
    EXPECT_EQ(seen(*cache, id), before);
    cache->check_integrity();
  }
  feed(*cache, id, 80);
  EXPECT_GT(log.n_entries(), 0);
}

TEST(Replay, AForkTakesNoMemoryAndNothingOfWhatCameAfter) {
  const auto cache = cache_for("fickle:h2o:32@every:8", 4);
  DecisionLog log, other;
  const SequenceId id = cache->open(&log);
  feed(*cache, id, 100);
  const int64_t all = log.n_entries();
  cache->close(id);
  // Computed again as far as half.
  const SequenceId again = cache->open(&log);
  feed(*cache, again, 48);
  const SequenceId fork = cache->open(&other);
  const int64_t allocations = g_allocations;
  cache->fork(again, fork);
  EXPECT_EQ(g_allocations, allocations);
  EXPECT_EQ(log.n_entries(), all);
  EXPECT_LT(other.n_entries(), all);
  EXPECT_EQ(other.reaches(), 48);
  // The fork is asked of what comes; the other one is not.
  int64_t asked = g_asked;
  feed(*cache, fork, 100);
  EXPECT_GT(g_asked, asked);
  const std::string forked = seen(*cache, fork);
  // One that has room of its own uses it.
  DecisionLog roomy;
  roomy.make_room(1000);
  const SequenceId another = cache->open(&roomy);
  const int64_t now = g_allocations;
  cache->fork(fork, another);
  feed(*cache, another, 200);
  EXPECT_EQ(g_allocations, now);
  asked = g_asked;
  feed(*cache, again, 100);
  EXPECT_EQ(g_asked, asked);
  EXPECT_NE(seen(*cache, again), forked);
  cache->check_integrity();
}

TEST(Replay, ABlockThatIsNotThereCannotLeave) {
  const auto cache = cache_for("h2o:32@every:8", 4);
  DecisionLog log;
  log.make_room(1);
  log.append({.length = 40, .first_position = 400, .layer = 0, .begins = true});
  log.reach(64);
  const SequenceId id = cache->open(&log);
  feed(*cache, id, 32);
  try {
    feed(*cache, id, 40);
    FAIL() << "nothing noticed it";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInternal) << e.what();
    EXPECT_NE(std::string(e.what()).find("400"), std::string::npos) << e.what();
  }
}

TEST(Replay, ALogOfAnotherTextIsAFault) {
  const auto cache = cache_for("h2o:32@every:8", 4);
  DecisionLog log;
  const SequenceId id = cache->open(&log);
  feed(*cache, id, 64);
  cache->close(id);
  const auto other = cache_for("h2o:24@every:8", 4);
  const SequenceId wrong = other->open(&log);
  try {
    feed(*other, wrong, 64);
    FAIL() << "nothing noticed it";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInternal) << e.what();
  }
}

// ---- in an engine: to the bit
// -----------------------------------------------------------------------

TEST(Replay, ASessionThatWasParkedGoesOnToTheBit) {
  for (const std::string rule :
       {"h2o:32@every:8", "lru:24@every:8", "tova:20@every:6", "snapkv:24", "knorm:20@every:9",
        "pyramid:h2o:48@every:8", "random:20@every:8", "snapkv:24@recent:5@compact"}) {
    SCOPED_TRACE(rule);
    const auto options = [&](int64_t pages) {
      EngineOptions o = shared_memory("full", 0);
      o.kv.custom_policies = fickle_policies();
      o.kv.policy = "fickle:" + rule;
      const int64_t page_bytes = Engine(tiny(), o).kv_stats().page_bytes;
      if (pages > 0) o.kv.budget_bytes = static_cast<uint64_t>(pages * page_bytes);
      return o;
    };
    // Each engine asks the rule as often, and in the same order.
    const auto run = [&](int64_t pages, int64_t& asked) {
      Engine engine(tiny(), options(pages));
      g_asked = 0;
      const SessionId session = engine.open_session();
      engine.feed(session, text_at(0, 45), 45);
      EXPECT_EQ(engine.generate(text_at(11, 40), greedy(40)).tokens.size(), 40U);
      engine.check_integrity();
      std::vector<float> all;
      for (const size_t n : {9U, 14U}) {
        const std::span<const float> row = engine.feed(session, text_at(45, n), n);
        all.insert(all.end(), row.begin(), row.end());
        engine.generate(text_at(17, 40), greedy(30));
        engine.check_integrity();
      }
      asked = g_asked;
      const int64_t parked = engine.stats().sessions_parked;
      EXPECT_EQ(parked > 0, pages > 0);
      return all;
    };
    int64_t asked = 0, asked_again = 0;
    const std::vector<float> expected = run(0, asked);
    EXPECT_EQ(run(tight_pool(rule), asked_again), expected);
    EXPECT_EQ(asked_again, asked) << "a decision was asked for twice";
    EXPECT_GT(asked, 0);
  }
}

}  // namespace
}  // namespace paddock::test
