// A slot used again, and a sequence taken back, against one that never held anything else: the same
// tables, the same decisions, the same refusals.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <random>

#include "core/mix.h"
#include "kv/cache_manager.h"
#include "paddock/error.h"
#include "support/rule_examples.h"

namespace paddock::test {
namespace {

constexpr int32_t kLayers = 2;
constexpr int64_t kPositions = 120;

/// Decides where prompts end, and measures nothing: such a sequence may be taken back.
class AtPrompts final : public EvictionPolicy {
 public:
  std::string name() const override { return "prompts"; }
  TrimSchedule schedule(int32_t, int32_t) const override { return {.budget = 16, .every = 0}; }
  void trim(const LayerView& view, int64_t n, std::vector<Victim>& victims) const override {
    rank_blocks(view, n, victims, [&](int32_t b) { return (b * 7) % 5; });
  }
};

std::vector<std::string> specs() {
  std::vector<std::string> out = {"prompts", "0=prompts,1=window:9",
                                  "0=sink:2+7,1=random:20@every:5"};
  for (const RuleExample& example : rule_examples()) out.push_back(example.policy);
  return out;
}

std::unique_ptr<CacheManager> cache_for(const std::string& spec, int32_t block) {
  const CustomPolicies custom = {
      {"prompts", [](std::string_view) { return std::make_shared<AtPrompts>(); }}};
  return std::make_unique<CacheManager>(
      CacheConfig{kLayers, 4, block, 400, 64, 2, kPositions, 13, 10'000},
      PolicyMap::parse(spec, kLayers, custom));
}

/// Feeds up to `end`; what attention gives to a block depends on where both are.
void feed(CacheManager& cache, SequenceId id, int64_t end, std::mt19937& random) {
  while (cache.length(id) < end) {
    const int64_t length = cache.length(id);
    const int64_t most = std::min(cache.max_next(id), end - length);
    const auto n = static_cast<int32_t>(1 + random() % most);
    ASSERT_TRUE(cache.reserve(id, n));
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      std::vector<BlockUse> uses;
      for (const BlockEntry& e : cache.table(id, layer)) {
        BlockUse use{0, -1, 0};
        for (int64_t t = length; t < length + n; ++t) {
          const uint64_t given = mix(static_cast<uint64_t>(t * 1000 + e.first_position));
          use.mass += static_cast<int64_t>(given % 1000);
          if (given % 3 == 0) use.last_used = static_cast<int32_t>(t);
        }
        uses.push_back(use);
      }
      std::vector<int64_t> norms;
      for (int64_t t = length; t < length + n; ++t) {
        norms.push_back(static_cast<int64_t>(mix(static_cast<uint64_t>(t)) % 1000));
      }
      cache.observe(id, layer, uses, norms);
    }
    cache.commit(id);
    cache.tick();
  }
  cache.check_integrity();
}

/// What a step would meet: entries for any pages, and where queries stand.
std::string tables(const CacheManager& cache, SequenceId id) {
  std::string out = fmt::format("length {} next {}\n", cache.length(id), cache.max_next(id));
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    for (const Rotation& r : cache.rotations(id, layer)) {
      out += fmt::format("[{} {}] ", r.query_shift, r.query_cap);
    }
    int32_t page = -1;
    for (const BlockEntry& e : cache.table(id, layer)) {
      out += fmt::format("{}{}:{}-{}/{} ", page == e.page ? "+" : "", e.first_position,
                         e.slot_begin, e.slot_end, e.rotation);
      page = e.page;
    }
    out += "\n";
  }
  return out;
}

/// Everything told of events from `seen` on that does not depend on what was before.
std::string told(const CacheManager& cache, uint64_t seen, bool with_ages) {
  std::string out;
  for (KvEvent event : cache.events(seen)) {
    event.number = 0;
    event.step = 0;
    if (!with_ages) event.age_steps = event.idle_steps = 0;
    out += to_json(event) + "\n";
  }
  return out;
}

/// Half a prompt, its end, more, a few positions back where that is allowed, more.
std::string use(CacheManager& cache, SequenceId id, uint32_t seed) {
  std::mt19937 random(seed);
  const uint64_t seen = cache.stats().events;
  std::string out = tables(cache, id);
  for (const int64_t end : {3, 20, 33, 41, 60}) {
    if (end == 20) cache.set_prompt(id, 31);
    feed(cache, id, end, random);
    out += tables(cache, id);
    try {
      cache.truncate(id, end - 2);
      out += "back\n";
    } catch (const Error&) {
      out += "refused\n";
    }
    out += tables(cache, id);
  }
  cache.set_prompt(id, 90);
  feed(cache, id, 95, random);
  out += tables(cache, id) + told(cache, seen, true);
  return out;
}

/// Ways to leave something behind.
std::vector<std::function<void(CacheManager&, SequenceId)>> traces() {
  const auto feed_to = [](int64_t prompt, int64_t end) {
    return [=](CacheManager& cache, SequenceId id) {
      std::mt19937 random(3);
      if (prompt > 0) cache.set_prompt(id, prompt);
      feed(cache, id, end, random);
    };
  };
  return {feed_to(0, 7), feed_to(30, 100), feed_to(80, 70), feed_to(33, 33),
          [](CacheManager& cache, SequenceId id) {
            std::mt19937 random(4);
            feed(cache, id, 25, random);
            ASSERT_TRUE(cache.reserve(id, 1));  // and no commit
            cache.rollback(id);
          }};
}

/// After each trace, what `again` makes of the sequence is used as a new one would be.
void expect_as_if_new(const std::function<SequenceId(CacheManager&, SequenceId)>& again) {
  for (const std::string& spec : specs()) {
    for (const int32_t block : {1, 4}) {
      const auto fresh = cache_for(spec, block);
      const std::string expected = use(*fresh, fresh->open(), 9);
      for (const auto& trace : traces()) {
        SCOPED_TRACE(fmt::format("{} blocks of {}", spec, block));
        const auto cache = cache_for(spec, block);
        const SequenceId first = cache->open();
        trace(*cache, first);
        const SequenceId id = again(*cache, first);
        ASSERT_EQ(id, first);
        ASSERT_EQ(use(*cache, id, 9), expected);
      }
    }
  }
}

TEST(Afresh, ASlotUsedAgainIsAsIfNew) {
  expect_as_if_new([](CacheManager& cache, SequenceId id) {
    const int64_t version = cache.changes(id, 0).version();
    cache.close(id);
    const SequenceId next = cache.open();
    EXPECT_EQ(cache.changes(next, 0).first_changed_since(version), 0);
    return next;
  });
}

TEST(Afresh, ASequenceTakenBackToNothingIsAsIfNew) {
  expect_as_if_new([](CacheManager& cache, SequenceId id) {
    cache.truncate(id, 0);
    return id;
  });
}

/// Whether the next query would find all that it sees, and nobody decided by what goes.
bool may_go_back(const CacheManager& cache, SequenceId id, int64_t to, int32_t block) {
  if (to == 0 || to == cache.length(id)) return true;
  for (const KvEvent& event : cache.events(0)) {
    if (event.reason == RemovalReason::kPolicyTrim && event.length > to) return false;
  }
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    const PolicyNeeds needs = cache.policies().layer(layer).needs;
    if (needs.attention || needs.key_norms) return false;  // scores know of what never was
    const Visibility& v = cache.policies().layer(layer).visibility;
    std::vector<bool> held(static_cast<size_t>(cache.length(id)), false);
    for (const BlockEntry& e : cache.table(id, layer)) {
      for (int32_t s = e.slot_begin; s < e.slot_end; ++s) held[e.first_position + s] = true;
    }
    for (int64_t p = 0; p < to && v.window != kUnlimited; ++p) {
      const bool seen = p < v.sinks || p > to - v.window;
      const bool same_page = p == to - 1 && to % block != 0;  // the next position is written there
      if ((seen || same_page) && !held[p]) return false;
    }
  }
  return true;
}

TEST(Afresh, ASequenceTakenBackIsAsIfItHadNotGoneOn) {
  int allowed = 0;
  int refused = 0;
  for (const std::string& spec :
       {std::string("full"), std::string("prompts"), std::string("window:7"),
        std::string("sink:3+6"), std::string("sink:5+8@original"),
        std::string("0=prompts,1=sink:2+30"), std::string("random:20@every:8"),
        std::string("random:24@every:12@compact"), std::string("0=random:30@every:9,1=window:12"),
        std::string("0=full,1=knorm:60@every:40"), std::string("0=lru:60@every:40,1=full")}) {
    for (const int32_t block : {1, 3, 4}) {
      for (const int64_t prompt : {0, 18, 26, 40}) {
        const int64_t end = 31;
        for (int64_t to = 0; to <= end; ++to) {
          SCOPED_TRACE(fmt::format("{} blocks of {} prompt {} to {}", spec, block, prompt, to));
          const auto cache = cache_for(spec, block);
          const SequenceId id = cache->open();
          if (prompt > 0) cache->set_prompt(id, prompt);
          std::mt19937 random(11);
          feed(*cache, id, end, random);
          const bool expected = may_go_back(*cache, id, to, block);
          const std::string before = tables(*cache, id);
          bool done = true;
          try {
            cache->truncate(id, to);
          } catch (const Error&) {
            done = false;
          }
          cache->check_integrity();
          ASSERT_EQ(done, expected);
          ++(done ? allowed : refused);
          const auto other = cache_for(spec, block);
          ASSERT_EQ(other->open(), id);
          // A prompt that ends within what stays is still one; one that would end later is void.
          if (prompt > 0 && (!done || prompt <= to || to == end)) other->set_prompt(id, prompt);
          std::mt19937 again(11);
          feed(*other, id, done ? to : end, again);
          ASSERT_EQ(tables(*cache, id), tables(*other, id));
          const uint64_t seen = cache->stats().events;
          const uint64_t other_seen = other->stats().events;
          std::mt19937 on(12);
          std::mt19937 on_too(12);
          feed(*cache, id, 70, on);
          feed(*other, id, 70, on_too);
          ASSERT_EQ(tables(*cache, id), tables(*other, id));
          ASSERT_EQ(told(*cache, seen, false), told(*other, other_seen, false));
          if (!done) {
            ASSERT_EQ(before.substr(0, 9), fmt::format("length {}", end));
          }
        }
      }
    }
  }
  EXPECT_GT(allowed, 500);
  EXPECT_GT(refused, 500);
}

TEST(Afresh, OnlyWhatIsStillThereIsKept) {
  CacheConfig config{kLayers, 4, 4, 100, 64, 2, kPositions, 13};
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", kLayers));
  std::vector<int32_t> tokens(24);
  std::iota(tokens.begin(), tokens.end(), 0);
  std::mt19937 random(1);
  const SequenceId id = cache.open();
  EXPECT_EQ(cache.match_prefix(id, tokens, 24), 0);
  feed(cache, id, 24, random);
  cache.truncate(id, 10);
  cache.close(id, tokens);
  EXPECT_EQ(cache.stats().layers[0].pages_cached, 2);
  const SequenceId next = cache.open();
  EXPECT_EQ(cache.match_prefix(next, tokens, 100), 8);
  EXPECT_EQ(cache.length(next), 8);
  // Other tokens follow from here on.
  std::vector<int32_t> others = tokens;
  for (size_t i = 8; i < others.size(); ++i) others[i] += 100;
  feed(cache, next, 24, random);
  cache.close(next, others);
  EXPECT_EQ(cache.stats().layers[0].pages_cached, 6);
  const SequenceId first = cache.open();
  EXPECT_EQ(cache.match_prefix(first, tokens, 100), 8);
  cache.truncate(first, 4);  // what it takes back stays for others, and is not its own any more
  feed(cache, first, 12, random);
  cache.close(first, tokens);
  EXPECT_EQ(cache.stats().layers[1].pages_cached, 7);
  // Of whose tokens nobody speaks, nothing is kept.
  const SequenceId unknown = cache.open();
  EXPECT_EQ(cache.match_prefix(unknown, std::vector<int32_t>{21, 22, 23, 24}, 100), 0);
  feed(cache, unknown, 24, random);
  cache.close(unknown);
  EXPECT_EQ(cache.stats().layers[1].pages_cached, 7);
  cache.check_integrity();
}

}  // namespace
}  // namespace paddock::test
