// The cache at its edges: what is refused and what just passes, blocks kept for reuse and whoever
// orders them, the ring of events when it is full.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <new>
#include <random>
#include <thread>

#include "kv/cache_manager.h"
#include "kv/numbered_log.h"
#include "kv/page_pool.h"
#include "paddock/error.h"
#include "support/cache_policies.h"

namespace paddock {
namespace {

using test::set_policies;

/// A record whose copy finds no memory, if it is told to.
struct Scarce {
  int64_t number = 0;
  bool lacks = false;
  explicit Scarce(int64_t n, bool lacks_memory = false) : number(n), lacks(lacks_memory) {}
  Scarce(const Scarce& other) : number(other.number), lacks(other.lacks) {
    if (lacks) throw std::bad_alloc();
  }
  Scarce& operator=(const Scarce&) = default;
};

TEST(NumberedLog, KeepsTheNewestWithoutGapsWhateverMemoryThereIs) {
  NumberedLog<Scarce> log(3);
  const auto numbers = [&](int64_t from) {
    std::vector<int64_t> out;
    for (const Scarce& record : log.since(from)) out.push_back(record.number);
    return out;
  };
  EXPECT_EQ(numbers(0), (std::vector<int64_t>{}));
  for (int64_t n = 0; n < 5; ++n) log.push(Scarce(log.next()));
  EXPECT_EQ(numbers(0), (std::vector<int64_t>{2, 3, 4}));
  EXPECT_EQ(numbers(3), (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(numbers(9), (std::vector<int64_t>{}));
  EXPECT_THROW(log.push(Scarce(log.next(), true)), std::bad_alloc);
  EXPECT_EQ(log.next(), 5) << "nothing has happened";
  EXPECT_EQ(numbers(0), (std::vector<int64_t>{2, 3, 4}));
  log.push_or_forget(Scarce(log.next(), true));
  EXPECT_EQ(numbers(0), (std::vector<int64_t>{})) << "5 is missing behind them";
  log.push_or_forget(Scarce(log.next()));
  EXPECT_EQ(numbers(0), (std::vector<int64_t>{6}));

  NumberedLog<Scarce> counts(0);
  counts.push(Scarce(0));
  EXPECT_EQ(counts.next(), 1);
  EXPECT_TRUE(counts.since(0).empty());
}

constexpr int32_t kBlock = 4;

/// A rule of given answers.
class Answers final : public EvictionPolicy {
 public:
  explicit Answers(TrimSchedule schedule, TokenVisibility visibility = {},
                   Positions positions = Positions::kOriginal)
      : schedule_(schedule), visibility_(visibility), positions_(positions) {}
  std::string name() const override { return "answers"; }
  PolicyNeeds needs() const override { return {.attention = true, .key_norms = true}; }
  TrimSchedule schedule(int32_t, int32_t) const override { return schedule_; }
  TokenVisibility visibility(int32_t) const override { return visibility_; }
  Positions positions() const override { return positions_; }
  void trim(const LayerView&, int64_t, std::vector<Victim>&) const override {}

 private:
  TrimSchedule schedule_;
  TokenVisibility visibility_;
  Positions positions_;
};

LayerRule rule_with(TrimSchedule schedule, TokenVisibility visibility = {},
                    Positions positions = Positions::kOriginal) {
  return {std::make_shared<Answers>(schedule, visibility, positions), 0, 1};
}

TEST(LayerRules, AcceptWhatIsJustRight) {
  for (const TokenVisibility v : {TokenVisibility{0, 1},
                                  {1, 1},
                                  {0, kUnlimited},
                                  {5, kUnlimited},
                                  {1, kUnlimited - 2},
                                  {kUnlimited - 2, 1}}) {
    EXPECT_NO_THROW(rule_with({}, v)) << v.sinks << "+" << v.window;
  }
  for (const TokenVisibility v : {TokenVisibility{0, 0},
                                  {-1, 4},
                                  {4, 0},
                                  {0, -1},
                                  {-1, kUnlimited},
                                  {2, kUnlimited - 2},
                                  {kUnlimited - 1, 1}}) {
    EXPECT_THROW(rule_with({}, v), Error) << v.sinks << "+" << v.window;
  }
  for (const TrimSchedule s : {TrimSchedule{.budget = 1},
                               {.budget = 8, .every = 0},
                               {.budget = 8, .every = 1},
                               {.budget = 8, .every = 5, .observe = 5},
                               {.budget = 8, .every = 0, .observe = 50},
                               {.budget = 8, .keep_first = 3, .keep_newest = 4},
                               {.budget = 8, .keep_newest = 2, .newest_divisor = 4},
                               {.budget = kUnlimited - 65},
                               {.budget = kUnlimited - 1, .every = 0}}) {
    EXPECT_NO_THROW(rule_with(s)) << s.budget << " " << s.every;
  }
  for (const TrimSchedule s : {TrimSchedule{.budget = 0},
                               {.budget = -1},
                               {.budget = 8, .every = -1},
                               {.budget = 8, .observe = -1},
                               {.budget = 8, .keep_first = -1},
                               {.budget = 8, .keep_newest = -1},
                               {.budget = 8, .every = 5, .observe = 6},
                               {.budget = 8, .keep_first = 4, .keep_newest = 4},
                               {.budget = 8, .keep_first = 8},
                               {.budget = 8, .keep_newest = 2, .newest_divisor = 5},
                               {.budget = 8, .keep_newest = 2, .newest_divisor = -4},
                               {.budget = kUnlimited - 64}}) {
    EXPECT_THROW(rule_with(s), Error) << s.budget << " " << s.every << " " << s.observe;
  }
  EXPECT_THROW(rule_with({.budget = 8}, {0, 4}), Error) << "it trims and has a window";
  EXPECT_THROW(rule_with({}, {}, static_cast<Positions>(2)), Error);
}

TEST(LayerRules, HaveMeasuredOnlyWhatTheyCanUse) {
  EXPECT_TRUE(rule_with({.budget = 8}).needs.attention);
  EXPECT_TRUE(rule_with({.budget = 8}).needs.key_norms);
  EXPECT_FALSE(rule_with({}).needs.attention) << "it never decides";
  EXPECT_FALSE(rule_with({}, {0, 4}).needs.key_norms);
}

TEST(LayerRules, AreBoundedWhereAWindowOrAnIntervalBoundsThem) {
  EXPECT_FALSE(rule_with({}).bounded());
  EXPECT_TRUE(rule_with({}, {0, 4}).bounded());
  EXPECT_TRUE(rule_with({.budget = 8}).bounded());
  EXPECT_FALSE(rule_with({.budget = 8, .every = 0}).bounded()) << "what follows a prompt stays";
  EXPECT_EQ(rule_with({}).max_resident(7), kUnlimited);
  EXPECT_EQ(rule_with({.budget = 8, .every = 0}).max_resident(7), kUnlimited);
  EXPECT_EQ(rule_with({.budget = 8, .every = 5}).max_resident(7), 13);
  EXPECT_EQ(rule_with({}, {3, 4}).max_resident(7), 14);
  for (const auto& [spec, unbounded] : {std::pair{"full", true},
                                        {"window:4", false},
                                        {"0=full,*=window:4", true},
                                        {"0=window:4,*=full", true},
                                        {"0=lru:9,*=snapkv:9", true},
                                        {"0=lru:9,*=sink:1+4", false}}) {
    EXPECT_EQ(PolicyMap::parse(spec, 2).has_unbounded_layer(), unbounded) << spec;
  }
}

TEST(LayerRules, ProtectWholeBlocksOfTheFirstAndTheNewest) {
  const LayerRule rule = rule_with({.budget = 30, .keep_first = 5, .keep_newest = 6});
  struct Case {
    int64_t first, end;
    bool is_protected;
  };
  for (const Case& c : {Case{4, 8, true},
                        {5, 8, false},
                        {88, 92, false},
                        {90, 94, false},
                        {91, 95, true},
                        {96, 100, true}}) {
    EXPECT_EQ(is_protected(rule.schedule, c.first, c.end, 100), c.is_protected) << c.first;
  }
  const LayerRule bare = rule_with({.budget = 30});
  EXPECT_TRUE(is_protected(bare.schedule, 96, 100, 100)) << "the newest always is";
  EXPECT_FALSE(is_protected(bare.schedule, 92, 96, 100));
  EXPECT_FALSE(is_protected(bare.schedule, 0, 4, 100));
}

TEST(LayerRules, LetCompactSinksBeMetWhereTheyWouldLieInTheCache) {
  const LayerRule compact(make_policy("sink:4+12"), 0, 1);
  ASSERT_EQ(compact.rotations.size(), 2U);
  for (const auto& [t, met_at] : {std::pair{0, 0}, {14, 14}, {15, 15}, {16, 15}, {900, 15}}) {
    EXPECT_EQ(query_position(compact.rotations[0], t), met_at);
    EXPECT_EQ(query_position(compact.rotations[1], t), t);
  }
  EXPECT_EQ(query_position({7, 20}, 27), 20);
  EXPECT_EQ(query_position({7, 20}, 26), 19);
  const LayerRule original(make_policy("sink:4+12@original"), 0, 1);
  EXPECT_EQ(query_position(original.rotations.at(0), 900), 900);
  EXPECT_EQ(LayerRule(make_policy("window:12"), 0, 1).rotations.size(), 1U);
  // A query at 20 with four sinks and a window of six.
  for (const auto& [p, seen] : {std::pair{0, true},
                                {3, true},
                                {4, false},
                                {14, false},
                                {15, true},
                                {20, true},
                                {21, false}}) {
    EXPECT_EQ(is_visible({4, 6}, 20, p), seen) << p;
  }
}

TEST(PolicyMaps, KnowTheLayersOfTheModel) {
  for (const char* spec :
       {"3=full,*=lru:9", "0-3=full", "0+3=full,1-2=lru:9", "2-2=full,*=lru:9", "3+0-2=full"}) {
    EXPECT_EQ(PolicyMap::parse(spec, 4).size(), 4) << spec;
  }
  for (const char* spec : {"4=full,*=lru:9", "0-4=full", "0+4=full,*=lru:9", "4-4=full,*=full"}) {
    EXPECT_THROW(PolicyMap::parse(spec, 4), Error) << spec;
  }
  const PolicyMap map = PolicyMap::parse("2=lru:9,1-3=h2o:20,*=full", 5);
  const char* names[] = {"full", "h2o:20", "lru:9", "h2o:20", "full"};
  for (int32_t i = 0; i < 5; ++i) EXPECT_EQ(map.layer(i).name, names[i]);
  EXPECT_THROW(PolicyMap::parse("0-1=full,1=lru:9,*=full", 4), Error) << "lru reaches no layer";
}

TEST(PagePools, HandOutEachPageOnce) {
  PagePool pool(3, std::vector<int32_t>{1});
  EXPECT_EQ(pool.n_units(), 3);
  for (int32_t page = 0; page < 3; ++page) {
    EXPECT_EQ(pool.allocate(0), page);
    EXPECT_EQ(pool.references(page), 1);
    EXPECT_EQ(pool.used_units(), page + 1);
  }
  EXPECT_EQ(pool.allocate(0), -1);
  pool.retain(1);
  EXPECT_FALSE(pool.release(1));
  EXPECT_EQ(pool.used_units(), pool.limit());
  EXPECT_TRUE(pool.release(1));
  EXPECT_TRUE(pool.release(0));
  EXPECT_EQ(pool.allocate(0), 0) << "the page freed last is warm";
}

CacheConfig small_config(int32_t n_layers, int32_t n_pages) {
  return {n_layers, 2, kBlock, n_pages, 64, 3, 4000, 64};
}

/// The tokens of a document's first n blocks.
std::vector<int32_t> tokens_of(int32_t document, int32_t n) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < n * kBlock; ++i) tokens.push_back(document * 100 + i);
  return tokens;
}

void grow(CacheManager& cache, SequenceId id, int64_t end) {
  while (cache.length(id) < end) {
    const int64_t n = std::min(end - cache.length(id), cache.max_next(id));
    ASSERT_TRUE(cache.reserve(id, static_cast<int32_t>(n)));
    cache.commit(id);
  }
  cache.check_integrity();
}

TEST(CacheEdges, TakesWhatFitsExactly) {
  CacheConfig config = small_config(2, 12);
  config.max_positions = 30;
  config.max_chunk = 24;
  CacheManager cache(config, PolicyMap::parse("full", 2));
  const SequenceId id = cache.open();
  EXPECT_EQ(cache.max_next(id), 24);
  EXPECT_THROW(cache.reserve(id, 25), Error);
  EXPECT_THROW(cache.reserve(id, 0), Error);
  EXPECT_TRUE(cache.reserve(id, 24)) << "six blocks in two layers are twelve pages";
  EXPECT_THROW(cache.reserve(id, 1), Error) << "a step is under way";
  EXPECT_THROW(cache.truncate(id, 0), Error);
  cache.commit(id);
  EXPECT_FALSE(cache.reserve(id, 1));
  EXPECT_EQ(cache.stats().reservations_refused, 1);
  EXPECT_THROW(cache.reserve(id, 7), Error) << "beyond max_positions";
  EXPECT_THROW(cache.truncate(id, 25), Error);
  EXPECT_THROW(cache.truncate(id, -1), Error);
  cache.truncate(id, 24);
  EXPECT_EQ(cache.length(id), 24);
  EXPECT_EQ(cache.stats().pages_free, 0);
}

TEST(CacheEdges, OpensAsManySequencesAsItHasTablesFor) {
  CacheManager cache(small_config(1, 12), PolicyMap::parse("full", 1));
  for (int32_t i = 0; i < 3; ++i) EXPECT_EQ(cache.open(), i);
  EXPECT_THROW(cache.open(), Error);
  EXPECT_EQ(cache.stats().sequences, 3);
  cache.close(1);
  EXPECT_THROW(cache.length(1), Error);
  EXPECT_THROW(cache.length(3), Error);
  EXPECT_THROW(cache.length(-1), Error);
  EXPECT_EQ(cache.open(), 1);
  EXPECT_THROW(cache.blocks(1), Error);
  EXPECT_THROW(cache.blocks(-1), Error);
}

TEST(CacheEdges, APromptThatHasEndedCannotBeTold) {
  CacheManager cache(small_config(1, 40), PolicyMap::parse("snapkv:8", 1));
  const SequenceId id = cache.open();
  grow(cache, id, 20);
  cache.set_prompt(id, 20);
  cache.set_prompt(id, 7);
  EXPECT_EQ(cache.max_next(id), 64) << "no step has to end anywhere";
  cache.set_prompt(id, 30);
  cache.set_prompt(id, 20);
  EXPECT_EQ(cache.max_next(id), 6) << "what is observed begins four before the end";
  grow(cache, id, 26);
  EXPECT_EQ(cache.max_next(id), 4);
}

TEST(CacheEdges, ATableMayBeOneEntryLongerThanItsPages) {
  CacheConfig config{1, 2, 64, 1, 64, 1, 60, 60};
  CacheManager cache(config, PolicyMap::parse("sink:3+4", 1));
  const SequenceId id = cache.open();
  grow(cache, id, 20);
  ASSERT_EQ(cache.table(id, 0).size(), 2U) << "one page, listed for its sinks and for the rest";
  EXPECT_EQ(cache.max_entries(0, 0), 2);
}

/// Looks at the cache when it goes.
class Looks final : public EvictionPolicy {
 public:
  explicit Looks(const CacheManager** cache, int* looked) : cache_(cache), looked_(looked) {}
  ~Looks() override {
    if (*cache_ == nullptr) return;
    EXPECT_EQ((*cache_)->stats().sequences, 0);
    ++*looked_;
  }
  std::string name() const override { return "looks"; }
  TrimSchedule schedule(int32_t, int32_t) const override { return {.budget = 20}; }

 private:
  const CacheManager** cache_;
  int* looked_;
};

TEST(CacheEdges, APolicyThatIsLetGoMayLookAtTheCache) {
  const CacheManager* seen = nullptr;
  int looked = 0;
  const auto looks = [&] { return PolicyMap::uniform(std::make_shared<Looks>(&seen, &looked), 1); };
  CacheManager cache(small_config(1, 12), looks());
  seen = &cache;
  set_policies(cache, PolicyMap::parse("full", 1));
  EXPECT_EQ(looked, 1);
  set_policies(cache, looks());
  EXPECT_EQ(looked, 1);
  set_policies(cache, PolicyMap::parse("full", 1));
  EXPECT_EQ(looked, 2);
  CacheConfig config = small_config(1, 12);
  config.block_size = 64;  // the rule cannot work with it
  CacheManager coarse(config, PolicyMap::parse("full", 1));
  seen = &coarse;
  EXPECT_THROW(set_policies(coarse, looks()), Error);
  EXPECT_EQ(looked, 3);
}

TEST(CacheEdges, OtherRulesFindNothingThatWasKept) {
  CacheConfig config = small_config(2, 40);
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 2));
  const std::vector<int32_t> tokens = tokens_of(1, 3);
  SequenceId id = cache.open();
  EXPECT_THROW(set_policies(cache, PolicyMap::parse("full", 2)), Error) << "a sequence is open";
  cache.match_prefix(id, tokens, 100);
  grow(cache, id, 12);
  cache.close(id, tokens);
  EXPECT_EQ(cache.stats().total.pages_cached, 6);
  set_policies(cache, PolicyMap::parse("full", 2));
  EXPECT_EQ(cache.stats().total.pages_cached, 0);
  EXPECT_EQ(cache.stats().pages_free, 40);
  id = cache.open();
  EXPECT_EQ(cache.match_prefix(id, tokens, 100), 0);
  cache.close(id);
  // Rules that cannot work change nothing, the longest sequence included.
  EXPECT_THROW(set_policies(cache, PolicyMap::parse("lru:3", 2), 9000), Error);
  EXPECT_EQ(cache.policies().layer(0).name, "full");
  EXPECT_EQ(cache.max_positions(0), 4000);
  set_policies(cache, PolicyMap::parse("window:8", 2), 9000);
  EXPECT_EQ(cache.max_positions(0), 9000);
  set_policies(cache, PolicyMap::parse("window:9", 2));
  EXPECT_EQ(cache.max_positions(0), 9000);
}

TEST(CacheEdges, ChecksTheBlocksOfEveryLayer) {
  for (const char* spec : {"0=lru:3,1=full", "0=full,1=lru:3"}) {
    EXPECT_THROW(CacheManager(small_config(2, 40), PolicyMap::parse(spec, 2)), Error) << spec;
  }
}

TEST(CacheEdges, EventsKeepTheNameOfTheRuleThatRuled) {
  CacheManager cache(small_config(1, 40), PolicyMap::parse("window:4", 1));
  for (const char* next : {"window:8", "window:4", "full"}) {
    const SequenceId id = cache.open();
    grow(cache, id, 20);
    cache.close(id);
    set_policies(cache, PolicyMap::parse(next, 1));
  }
  std::vector<std::string> names;
  for (const KvEvent& event : cache.events(0)) {
    if (names.empty() || names.back() != event.policy) names.push_back(event.policy);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"window:4", "window:8", "window:4"}));
}

TEST(CacheEdges, TellsApartThePartsOfABlockThatSinksSplit) {
  CacheManager cache(small_config(1, 40), PolicyMap::parse("sink:6+7", 1));
  const SequenceId id = cache.open();
  grow(cache, id, 13);
  const std::vector<KvBlock> blocks = cache.blocks(0);
  struct Part {
    int64_t first;
    int32_t n_tokens;
    int64_t cap;
  };
  const Part parts[] = {
      {0, 4, 12}, {4, 2, 12}, {6, 2, kUnlimited}, {8, 4, kUnlimited}, {12, 1, kUnlimited}};
  ASSERT_EQ(blocks.size(), std::size(parts));
  for (size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(blocks[i].first_position, parts[i].first);
    EXPECT_EQ(blocks[i].n_tokens, parts[i].n_tokens);
    EXPECT_EQ(blocks[i].query_cap, parts[i].cap);
    EXPECT_EQ(blocks[i].query_shift, 0);
    EXPECT_EQ(blocks[i].last_used, -1);
  }
  EXPECT_EQ(cache.pages_to_reach(id, 16), 4) << "a page in two parts is one";
  EXPECT_EQ(cache.pages_listed(id), 4);
  EXPECT_EQ(cache.stats().layers[0].pages_pinned, 2);
  EXPECT_EQ(cache.stats().layers[0].pages_active, 4);
}

TEST(CacheEdges, PinsNothingWhereNothingLeaves) {
  const auto rule = std::make_shared<Answers>(TrimSchedule{}, TokenVisibility{5, kUnlimited});
  CacheManager cache(small_config(1, 40), PolicyMap::uniform(rule, 1));
  grow(cache, cache.open(), 30);
  EXPECT_EQ(cache.stats().total.pages_active, 8);
  EXPECT_EQ(cache.stats().total.pages_pinned, 0);
}

/// Pages that the sequence lists, in all layers.
int64_t listed(const CacheManager& cache, SequenceId id) {
  int64_t pages = 0;
  for (int32_t layer = 0; layer < cache.config().n_layers; ++layer) {
    int32_t last = -1;
    for (const BlockEntry& e : cache.table(id, layer)) {
      pages += e.page != last ? 1 : 0;
      last = e.page;
    }
  }
  return pages;
}

TEST(CacheEdges, NeedsNoMorePagesThanItSays) {
  std::mt19937 random(31);
  for (const char* spec : {"full", "window:9", "sink:6+7", "lru:20@every:8", "snapkv:12",
                           "0=full,1=sink:2+5", "0=h2o:24@every:5,1=window:3",
                           "cake:lru:20@every:8", "cake:knorm:9@every:3", "cake:snapkv:12"}) {
    const PolicyMap policies = PolicyMap::parse(spec, 2);
    for (int i = 0; i < 60; ++i) {
      CacheConfig config = small_config(2, 200);
      config.max_chunk = 1 + static_cast<int32_t>(random() % 12);
      CacheManager cache(config, policies);
      const SequenceId id = cache.open();
      if (random() % 2 == 0) cache.set_prompt(id, 25);
      const auto from = static_cast<int64_t>(random() % 60);
      const auto to = from + static_cast<int64_t>(random() % 30);
      const int64_t whole = CacheManager::pages_needed(policies, kBlock, to, config.max_chunk);
      int64_t peak = 0;
      const auto grow_to = [&](int64_t end) {
        while (cache.length(id) < end) {
          const int64_t most = std::min(end - cache.length(id), cache.max_next(id));
          ASSERT_TRUE(cache.reserve(id, static_cast<int32_t>(1 + random() % most)));
          peak = std::max(peak, listed(cache, id));
          cache.commit(id);
        }
      };
      grow_to(from);
      EXPECT_LE(peak, CacheManager::pages_needed(policies, kBlock, from, config.max_chunk)) << spec;
      const int64_t held = listed(cache, id);
      const int64_t enough = cache.pages_to_reach(id, to);
      EXPECT_EQ(cache.pages_to_reach(id, from / 2), cache.pages_to_reach(id, from)) << spec;
      EXPECT_GE(enough, held);
      peak = held;
      grow_to(to);
      EXPECT_LE(peak, enough) << spec << " from " << from << " to " << to;
      // What has left does not count again, and no more than a new block in each layer is asked
      // for.
      EXPECT_LE(enough, held + 2 * ((to + kBlock - 1) / kBlock - (from + kBlock - 1) / kBlock));
      EXPECT_LE(enough, std::max(held, whole)) << spec;
      if (std::string_view(spec) == "full") {
        EXPECT_EQ(enough, peak);
      }
    }
  }
}

// ---- blocks kept for reuse

/// Names what the test says.
class Says final : public ReclaimPolicy {
 public:
  explicit Says(const std::vector<int32_t>* answer) : answer_(answer) {}
  std::string name() const override { return "says"; }
  void on_leaf(const CachedBlock&) override {}
  void on_use(int32_t) override {}
  void on_removed(int32_t) override {}
  int32_t next() override { return answer_->empty() ? -1 : answer_->front(); }

 private:
  const std::vector<int32_t>* answer_;
};

/// Reads a document to its end and leaves it open.
SequenceId read(CacheManager& cache, const std::vector<int32_t>& tokens) {
  const SequenceId id = cache.open();
  cache.match_prefix(id, tokens, 10'000);
  grow(cache, id, static_cast<int64_t>(tokens.size()));
  return id;
}

void read_and_keep(CacheManager& cache, const std::vector<int32_t>& tokens) {
  cache.close(read(cache, tokens), tokens);
}

TEST(Kept, ABlockInUseIsNeverReclaimed) {
  std::vector<int32_t> answer;
  CacheConfig config = small_config(1, 5);
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 1), std::make_unique<Says>(&answer));
  for (const int32_t document : {1, 2}) read_and_keep(cache, tokens_of(document, 2));
  const SequenceId reader = read(cache, tokens_of(1, 2));
  ASSERT_EQ(cache.stats().prefix_hits, 2);
  const auto pages = [&] {
    std::vector<int32_t> out;
    for (const BlockEntry& e : cache.table(reader, 0)) out.push_back(e.page);
    return out;
  };
  const std::vector<int32_t> held = pages();
  int64_t violations = 0;
  // Blocks are numbered as they come; those of document 1 are in use, and 4 is none yet.
  for (const int32_t block : {0, 1, 4, 5, -1}) {
    answer = {block};
    const SequenceId other = cache.open();
    ASSERT_TRUE(cache.reserve(other, 2 * kBlock));
    EXPECT_EQ(cache.stats().policy_violations, ++violations) << block;
    EXPECT_NE(cache.stats().last_violation.find("reclaim policy 'says'"), std::string::npos);
    cache.commit(other);
    cache.check_integrity();
    EXPECT_EQ(pages(), held);
    EXPECT_EQ(cache.stats().total.pages_cached, 1);
    cache.close(other);
    read_and_keep(cache, tokens_of(2, 2));  // there again
    ASSERT_EQ(cache.stats().policy_violations, violations);
    ASSERT_EQ(cache.stats().total.pages_cached, 2);
  }
}

TEST(Kept, OnlyWhatWasWrittenIs) {
  CacheConfig config = small_config(2, 40);
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 2));
  const SequenceId id = cache.open();
  EXPECT_EQ(cache.match_prefix(id, tokens_of(1, 6), 100), 0);
  grow(cache, id, 2 * kBlock + 3);
  cache.close(id, tokens_of(1, 6));
  EXPECT_EQ(cache.stats().layers[1].pages_cached, 2);
  const SequenceId next = cache.open();
  EXPECT_EQ(cache.match_prefix(next, tokens_of(1, 6), 2 * kBlock), 2 * kBlock)
      << "as many as fit exactly";
}

TEST(Kept, EveryBlockIsThereForOthersOnceNobodyReadsIt) {
  CacheConfig config = small_config(1, 6);
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 1));
  const std::vector<int32_t> tokens = tokens_of(1, 4);
  read_and_keep(cache, tokens);
  const SequenceId a = read(cache, tokens);
  const SequenceId b = read(cache, tokens);
  cache.truncate(a, kBlock);
  cache.close(a, tokens);
  cache.truncate(b, 2 * kBlock);
  cache.close(b, tokens);
  EXPECT_EQ(cache.stats().total.pages_cached, 4);
  grow(cache, cache.open(), 6 * kBlock);
  EXPECT_EQ(cache.stats().reservations_refused, 0);
}

TEST(Kept, OneCopyIsEnough) {
  CacheConfig config = small_config(1, 20);
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 1));
  const SequenceId a = read(cache, tokens_of(1, 3));
  const SequenceId b = read(cache, tokens_of(1, 3));  // a has not ended: computed again
  EXPECT_EQ(cache.stats().total.pages_active, 6);
  cache.close(a, tokens_of(1, 3));
  cache.close(b, tokens_of(1, 3));
  EXPECT_EQ(cache.stats().total.pages_cached, 3);
  EXPECT_EQ(cache.stats().pages_free, 17);
}

TEST(Kept, WhatGoesOnBehindAnothersCopyIsKeptBelowIt) {
  CacheConfig config = small_config(2, 40);
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 2));
  const SequenceId longer = read(cache, tokens_of(1, 5));
  read_and_keep(cache, tokens_of(1, 2));  // ends first, and keeps the first two
  cache.close(longer, tokens_of(1, 5));
  cache.check_integrity();
  EXPECT_EQ(cache.stats().total.pages_cached, 2 * 5);
  const SequenceId next = cache.open();
  EXPECT_EQ(cache.match_prefix(next, tokens_of(1, 5), 1000), 5 * kBlock);
  // A block of the same tokens behind other ones is another block.
  std::vector<int32_t> moved = tokens_of(2, 1);
  const std::vector<int32_t> first = tokens_of(1, 1);
  moved.insert(moved.end(), first.begin(), first.end());
  read_and_keep(cache, tokens_of(2, 1));
  const SequenceId other = cache.open();
  EXPECT_EQ(cache.match_prefix(other, moved, 1000), kBlock);
}

TEST(Kept, ABlockThatOthersContinueStaysUntilTheyHaveLeft) {
  std::vector<int32_t> answer;
  CacheConfig config = small_config(1, 6);
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 1), std::make_unique<Says>(&answer));
  read_and_keep(cache, tokens_of(1, 4));  // blocks 0 to 3, each the child of the one before
  const auto kept = [&] {
    const SequenceId id = cache.open();
    const int64_t found = cache.match_prefix(id, tokens_of(1, 4), 1000, false);
    cache.close(id);
    return found / kBlock;
  };
  const SequenceId other = cache.open();
  for (int32_t block = 0; block < 4; ++block) {
    answer = {block == 0 ? 1 : 0};  // a prefix of what is left
    grow(cache, other, (3 + block) * kBlock);
    EXPECT_EQ(kept(), 3 - block);
    cache.check_integrity();
  }
  EXPECT_EQ(cache.stats().policy_violations, 3) << "it was shown leaves only";
}

TEST(Kept, LeaveInTheOrderOfTheirLastUseWhereAPolicyIsWrong) {
  const std::vector<int32_t> nothing;
  CacheConfig config = small_config(1, 6);
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 1), std::make_unique<Says>(&nothing));
  for (const int32_t document : {1, 2, 3}) {
    read_and_keep(cache, tokens_of(document, 2));
    cache.tick();
  }
  read_and_keep(cache, tokens_of(1, 2));  // used again: 2 is the oldest now
  const SequenceId other = cache.open();
  grow(cache, other, 2 * kBlock);
  EXPECT_EQ(cache.stats().policy_violations, 2);
  EXPECT_NE(cache.stats().last_violation.find("block -1 may not leave"), std::string::npos);
  const SequenceId id = cache.open();
  EXPECT_EQ(cache.match_prefix(id, tokens_of(2, 2), 100), 0);
  cache.close(id);
  for (const int32_t document : {1, 3}) {
    const SequenceId again = cache.open();
    EXPECT_EQ(cache.match_prefix(again, tokens_of(document, 2), 100), 2 * kBlock) << document;
    cache.close(again);
  }
}

TEST(Kept, WhatIsReclaimedIsLoggedWithAllThatIsKnown) {
  CacheConfig config = small_config(2, 8);
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 2));
  read_and_keep(cache, tokens_of(1, 3));
  for (int i = 0; i < 7; ++i) cache.tick();
  const uint64_t seen = cache.stats().events;
  EXPECT_EQ(seen, 0U) << "all of it was kept";
  const SequenceId id = cache.open();
  grow(cache, id, 2 * kBlock);  // one page in each layer is free: the deepest block goes
  const std::vector<KvEvent> events = cache.events(0);
  ASSERT_EQ(events.size(), 2U);
  for (int32_t layer = 0; layer < 2; ++layer) {
    KvEvent expected;
    expected.number = static_cast<uint64_t>(layer);
    expected.step = 7;
    expected.reason = RemovalReason::kCapacity;
    expected.layer = layer;
    expected.sequence = -1;
    expected.first_position = 2 * kBlock;
    expected.n_tokens = kBlock;
    expected.policy = "full";
    EXPECT_EQ(to_json(events[layer]), to_json(expected));
    const auto removed = cache.stats().layers[layer].pages_removed;
    EXPECT_EQ(removed[static_cast<size_t>(RemovalReason::kCapacity)], 1);
  }
}

TEST(Kept, AReservationThatCannotBeMetReclaimsNothing) {
  CacheConfig config = small_config(2, 2 * 6);
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 2));
  read_and_keep(cache, tokens_of(1, 3));
  const SequenceId other = cache.open();
  grow(cache, other, kBlock);
  // Two blocks are free, three kept: six do not fit, five do.
  const auto changed = [&](int64_t refused) {
    KvStats stats = cache.stats();
    EXPECT_EQ(stats.reservations_refused, refused);
    stats.reservations_refused = 0;
    return to_json(stats);
  };
  const std::string before = changed(0);
  EXPECT_FALSE(cache.reserve(other, 6 * kBlock));
  EXPECT_EQ(changed(1), before);
  EXPECT_EQ(cache.free_pages(), 2 * 2);
  EXPECT_EQ(cache.stats().events, 0U);
  cache.check_integrity();
  EXPECT_TRUE(cache.reserve(other, 5 * kBlock));
  EXPECT_EQ(cache.stats().total.pages_cached, 0);
  EXPECT_EQ(cache.free_pages(), 0);
  cache.check_integrity();
}

TEST(Kept, ABlockIsRegrettedOnceAndInTheEndForgotten) {
  CacheConfig config = small_config(1, 2);
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 1));
  const auto look_for = [&](int32_t document) {
    const SequenceId id = cache.open();
    EXPECT_EQ(cache.match_prefix(id, tokens_of(document, 1), 100), 0);
    cache.close(id);
  };
  for (const int32_t document : {1, 2, 3, 4}) read_and_keep(cache, tokens_of(document, 1));
  EXPECT_EQ(cache.stats().reclaim_regrets, 0) << "a first miss is none";
  look_for(1);
  EXPECT_EQ(cache.stats().reclaim_regrets, 1);
  look_for(1);
  EXPECT_EQ(cache.stats().reclaim_regrets, 1) << "it was counted already";
  look_for(2);
  EXPECT_EQ(cache.stats().reclaim_regrets, 2);
  for (int32_t document = 5; document < 10'000; ++document) {
    read_and_keep(cache, tokens_of(document, 1));
  }
  look_for(4);  // which left ten thousand blocks ago
  EXPECT_EQ(cache.stats().reclaim_regrets, 2);
  look_for(9'000);
  EXPECT_EQ(cache.stats().reclaim_regrets, 3);
}

// ---- the ring of events, and who else reads

TEST(Ring, KeepsTheNewestWhateverItsCapacity) {
  for (const int32_t capacity : {0, 1, 5, 12, 13}) {
    CacheConfig config = small_config(1, 40);
    config.block_size = 1;
    config.event_capacity = capacity;
    config.queues_events = true;
    CacheManager cache(config, PolicyMap::parse("window:3", 1));
    const SequenceId id = cache.open();
    uint64_t taken = 0;
    for (int64_t length = 1; length <= 15; ++length) {
      grow(cache, id, length);
      const auto written = static_cast<uint64_t>(std::max<int64_t>(0, length - 3 + 1));
      const uint64_t lost = written - std::min<uint64_t>(written, capacity);
      ASSERT_EQ(cache.stats().events, written);
      ASSERT_EQ(cache.stats().events_lost, lost);
      for (uint64_t from = 0; from <= written + 1; ++from) {
        const std::vector<KvEvent> events = cache.events(from);
        uint64_t number = std::max(from, lost);
        ASSERT_EQ(events.size(), written > number ? written - number : 0);
        for (const KvEvent& event : events) {
          ASSERT_EQ(event.number, number);
          ASSERT_EQ(event.first_position, static_cast<int64_t>(number));
          ++number;
        }
      }
      // Who takes each event gets it once, whatever the ring holds.
      if (length % 4 != 0) continue;
      for (const KvEvent& event : cache.take_queued()) {
        ASSERT_EQ(event.number, taken++);
        ASSERT_EQ(event.policy, "window:3");
      }
      ASSERT_EQ(taken, written);
      ASSERT_TRUE(cache.take_queued().empty());
    }
  }
}

TEST(Snapshots, AreOfOneMoment) {
  constexpr int32_t kManyLayers = 200;
  CacheConfig config = small_config(kManyLayers, 8 * kManyLayers);
  CacheManager cache(config, PolicyMap::parse("full", kManyLayers));
  std::atomic<bool> done = false;
  std::atomic<int> taken = 0;
  std::thread reader([&] {
    while (!done) {
      const KvStats stats = cache.stats();
      for (const KvLayerStats& layer : stats.layers) {
        EXPECT_EQ(layer.pages_active, stats.layers[0].pages_active);
        EXPECT_EQ(layer.tokens_resident, stats.layers[0].tokens_resident);
        EXPECT_EQ(layer.pages_removed, stats.layers[0].pages_removed);
      }
      if (HasFailure()) return;
      cache.check_integrity();
      ++taken;
    }
  });
  for (int i = 0; i < 100'000 && taken < 400 && !HasFailure(); ++i) {
    const SequenceId id = cache.open();
    for (int k = 0; k < 4; ++k) {
      EXPECT_TRUE(cache.reserve(id, 6));
      cache.commit(id);
    }
    cache.truncate(id, 9);
    cache.close(id);
  }
  done = true;
  reader.join();
  EXPECT_GT(taken, 20);
}

}  // namespace
}  // namespace paddock
