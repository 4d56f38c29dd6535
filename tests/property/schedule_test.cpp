// Random schedules of everything that may happen to the cache, against books of our own: what each
// slot of each page holds, and which positions of each sequence are still there. A freed page holds
// nothing from that moment on.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <set>

#include "core/mix.h"
#include "kv/cache_manager.h"
#include "paddock/error.h"
#include "support/rule_examples.h"

namespace paddock::test {
namespace {

constexpr int32_t kLayers = 3;
constexpr int64_t kPositions = 120;
constexpr int32_t kChunk = 17;
constexpr uint64_t kNothing = 0;

/// What a rule lets a layer see, as far as that decides what is computed of what it sees, before
/// anything has been dropped for its score.
std::string sight_of(const LayerRule& rule) {
  const Visibility& v = rule.visibility;
  if (v.window == kUnlimited) return "all";
  const bool turns = v.sinks > 0 && rule.positions == Positions::kCompact;
  return std::to_string(v.sinks) + "+" + std::to_string(v.window) + (turns ? " turned" : "");
}

/// A sequence as our books have it. What a position holds depends on all tokens up to it, and on
/// what layers see of them.
struct Text {
  RulesId rules = 0;
  uint64_t sight = 1;
  std::vector<int32_t> tokens;              // [length]
  std::vector<uint64_t> content;            // [length]
  std::vector<std::set<int64_t>> resident;  // [n_layers]
  int document = 0;
  bool reserved = false;
};

class Schedule {
 public:
  /// `n_pages` in units of the layout. With several SPECs each sequence goes by one of them.
  Schedule(const std::string& spec, int32_t block, int32_t n_pages, const KvLayout& layout,
           uint32_t seed)
      : Schedule(std::vector{spec}, block, n_pages, layout, seed) {}
  Schedule(const std::vector<std::string>& specs, int32_t block, int32_t n_pages,
           const KvLayout& layout, uint32_t seed)
      : random_(seed),
        block_(block),
        layout_(layout),
        pages_(n_pages, std::vector<uint64_t>(block, kNothing)),
        units_(n_pages) {
    CacheConfig config{kLayers, 4, block, n_pages, layout, 4, kPositions, kChunk};
    config.keep_blocks = true;
    config.on_free = [this](int32_t page) {
      for (int32_t u = 0; u < units_[page]; ++u) {
        std::fill(pages_[page + u].begin(), pages_[page + u].end(), kNothing);
      }
    };
    config.copy_page = [this](int32_t from, int32_t to) {
      units_[to] = units_[from];
      for (int32_t u = 0; u < units_[to]; ++u) pages_[to + u] = pages_[from + u];
      ++counts_.copies;
    };
    cache_ = std::make_unique<CacheManager>(config, rules_of(specs));
    cache_->watch([this](const KvEvent& event) { forget(event); });
  }

  void run(int n_steps, const std::vector<std::string>& other_specs) {
    for (int i = 0; i < n_steps && !testing::Test::HasFailure(); ++i) {
      const auto dice = random_() % 100;
      if (texts_.empty() || (texts_.size() < 4 && dice < 12)) {
        if (texts_.empty() && dice < 30) {
          std::vector<std::string> next;
          for (int32_t n = cache_->n_rules(); n > 0; --n) {
            next.push_back(other_specs[random_() % other_specs.size()]);
          }
          cache_->set_rules(rules_of(next));
        }
        open();
      } else {
        auto at = texts_.begin();
        std::advance(at, random_() % texts_.size());
        if (dice < 74)
          grow(at->first, at->second);
        else if (dice < 86)
          truncate(at->first, at->second);
        else
          close(at->first, at->second);
      }
      cache_->tick();
      cache_->check_integrity();
      for (const auto& [id, text] : texts_) check(id, text);
    }
    while (!texts_.empty()) close(texts_.begin()->first, texts_.begin()->second);
    cache_->check_integrity();
    const KvStats stats = cache_->stats();
    EXPECT_EQ(stats.total.pages_active, 0);
    EXPECT_EQ(stats.policy_violations, 0);
    int64_t cached_units = 0, block_units = 0;
    for (int32_t layer = 0; layer < kLayers; ++layer) block_units += layout_.page_units(layer);
    EXPECT_EQ(stats.pages_per_block, block_units);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      cached_units += stats.layers[layer].pages_cached * layout_.page_units(layer);
    }
    EXPECT_EQ(stats.pages_free, stats.pool_pages - cached_units);
    counts_.hits += stats.prefix_hits;
    counts_.merges += stats.total.pages_merged;
    counts_.trims += stats.total.pages_removed[static_cast<size_t>(RemovalReason::kPolicyTrim)];
    counts_.reclaims += stats.total.pages_removed[static_cast<size_t>(RemovalReason::kCapacity)];
  }

  struct Counts {
    int64_t hits = 0, trims = 0, reclaims = 0, full = 0, rollbacks = 0, rewinds = 0, refused = 0;
    int64_t copies = 0, merges = 0, norms = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  static std::vector<SequenceRules> rules_of(const std::vector<std::string>& specs) {
    std::vector<SequenceRules> rules;
    for (const std::string& spec : specs) {
      rules.push_back({PolicyMap::parse(spec, kLayers), kPositions});
    }
    return rules;
  }
  static int64_t norm_of(uint64_t content, int32_t layer) {
    return static_cast<int64_t>(mix(content + static_cast<uint64_t>(layer)) % 1000);
  }
  /// The token of a document's text at a position; documents begin alike.
  static int32_t token(const Text& text, int64_t position) {
    // Few of them, so that blocks of equal tokens stand after different prefixes.
    const uint64_t lot = position < 8 ? mix(position) : mix(position * 16 + text.document);
    return static_cast<int32_t>(lot % 5);
  }
  /// Appends n tokens of its document.
  static void follow(Text& text, int64_t n) {
    for (; n > 0; --n) {
      const int32_t next = token(text, static_cast<int64_t>(text.tokens.size()));
      const uint64_t before = text.content.empty() ? text.sight : text.content.back();
      text.tokens.push_back(next);
      text.content.push_back(mix(before ^ static_cast<uint64_t>(next + 1)) | 1);
    }
  }
  static void cut(Text& text, int64_t length) {
    text.tokens.resize(length);
    text.content.resize(length);
  }

  void open() {
    RulesId rules = 0;
    if (cache_->n_rules() > 1) rules = static_cast<RulesId>(random_()) & 0xFFFF;
    rules %= cache_->n_rules();
    const SequenceId id = cache_->open(nullptr, rules);
    Text& text = texts_[id];
    text.rules = rules;
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      for (const char c : sight_of(cache_->policies(rules).layer(layer)) + ";") {
        text.sight = mix(text.sight + static_cast<uint8_t>(c));
      }
    }
    text.document = static_cast<int>(random_() % 3);
    text.resident.resize(kLayers);
    if (random_() % 2 == 0) cache_->set_prompt(id, 20 + static_cast<int64_t>(random_() % 20));
    if (random_() % 4 == 0) return;
    const auto most = static_cast<int64_t>(random_() % 60);
    follow(text, most);
    const int64_t attached = cache_->match_prefix(id, text.tokens, most);
    ASSERT_LE(attached, most);
    cut(text, attached);
    for (std::set<int64_t>& resident : text.resident) {
      for (int64_t p = 0; p < attached; ++p) resident.insert(p);
    }
  }

  /// Takes what others have come to meanwhile.
  void catch_up(SequenceId id, Text& text) {
    const auto length = static_cast<int64_t>(text.content.size());
    follow(text, std::min<int64_t>(20, kPositions - length));
    const int64_t gained =
        cache_->match_prefix(id, text.tokens, static_cast<int64_t>(text.tokens.size()));
    cut(text, length + gained);
    for (std::set<int64_t>& resident : text.resident) {
      for (int64_t p = length; p < length + gained; ++p) resident.insert(p);
    }
  }

  void grow(SequenceId id, Text& text) {
    if (random_() % 3 == 0) catch_up(id, text);
    const auto length = static_cast<int64_t>(text.content.size());
    if (random_() % 16 == 0) text.document = static_cast<int>(random_() % 3);  // not as announced
    const int64_t most = std::min(cache_->max_next(id), kPositions - length);
    if (most < 1) return;
    const auto n = static_cast<int32_t>(1 + random_() % most);
    const int64_t free = cache_->free_pages();
    if (!cache_->reserve(id, n)) {
      ++counts_.full;
      EXPECT_EQ(cache_->free_pages(), free);
      return;
    }
    cache_->check_integrity();
    Text grown = text;
    follow(grown, n);
    const std::vector<uint64_t>& content = grown.content;
    std::vector<KvDestination> to(n);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      cache_->destinations(id, layer, to);
      for (int32_t i = 0; i < n; ++i) {
        ASSERT_EQ(to[i].slot, (length + i) % block_);
        units_[to[i].page] = layout_.page_units(layer);
        for (int32_t u = 0; u < units_[to[i].page]; ++u) {
          pages_[to[i].page + u][to[i].slot] = content[length + i];
        }
      }
      for (int32_t i = 0; i < n; ++i) read(id, layer, length + i, content);
    }
    if (random_() % 8 == 0) {
      ++counts_.rollbacks;
      return cache_->rollback(id);
    }
    text = grown;
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      for (int32_t i = 0; i < n; ++i) text.resident[layer].insert(length + i);
      std::vector<BlockUse> uses;
      for (size_t e = 0; e < cache_->table(id, layer).size(); ++e) {
        uses.push_back({static_cast<int64_t>(random_() % 1000),
                        random_() % 2 == 0 ? -1 : static_cast<int32_t>(length + random_() % n), 0});
      }
      std::vector<int64_t> norms(n);
      for (int32_t i = 0; i < n; ++i) norms[i] = norm_of(content[length + i], layer);
      cache_->observe(id, layer, uses, norms);
    }
    if (random_() % 2 == 0) {
      cache_->commit(id, text.tokens);
    } else {
      cache_->commit(id);
    }
  }

  void truncate(SequenceId id, Text& text) {
    const auto length = static_cast<int64_t>(text.content.size());
    const int64_t to = random_() % 4 == 0 ? 0 : length - std::min<int64_t>(length, random_() % 12);
    std::vector<std::vector<BlockEntry>> before;
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      const auto table = cache_->table(id, layer);
      before.emplace_back(table.begin(), table.end());
    }
    try {
      cache_->truncate(id, to);
    } catch (const Error& e) {
      ++counts_.refused;
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_EQ(cache_->length(id), length);
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        const auto table = cache_->table(id, layer);
        ASSERT_EQ(table.size(), before[layer].size());
        if (table.empty()) continue;
        EXPECT_EQ(std::memcmp(table.data(), before[layer].data(), table.size_bytes()), 0);
      }
      return;
    }
    ++counts_.rewinds;
    const int64_t now = cache_->length(id);  // with the block, where key norms are added up
    EXPECT_TRUE(now == to || (now == to - to % block_ && measures_norms()));
    cut(text, now);
    if (to < length) text.document = static_cast<int>(random_() % 3);
    for (std::set<int64_t>& resident : text.resident) {
      resident.erase(resident.lower_bound(now), resident.end());
    }
  }

  void close(SequenceId id, Text& text) {
    if (random_() % 3 != 0) {
      cache_->close(id, text.tokens);
    } else {
      cache_->close(id);
    }
    texts_.erase(id);
  }

  void forget(const KvEvent& event) {
    if (event.reason != RemovalReason::kPolicyTrim && event.reason != RemovalReason::kWindow)
      return;
    std::set<int64_t>& resident = texts_.at(event.sequence).resident[event.layer];
    for (int32_t i = 0; i < event.n_tokens; ++i) {
      EXPECT_EQ(resident.erase(event.first_position + i), 1U) << "it had left before";
    }
  }

  /// The query at t meets just what it should, and finds it as it was written.
  void read(SequenceId id, int32_t layer, int64_t t, const std::vector<uint64_t>& content) {
    const Visibility& v = cache_->rule(id, layer).visibility;
    std::set<int64_t> met;
    for (const BlockEntry& e : cache_->table(id, layer)) {
      const SlotRange live = live_slots(e, v, static_cast<int32_t>(t));
      for (int32_t slot = live.begin; slot < live.end; ++slot) {
        const int64_t p = int64_t{e.first_position} + slot;
        EXPECT_TRUE(met.insert(p).second) << "position " << p << " is listed twice";
        for (int32_t u = 0; u < layout_.page_units(layer); ++u) {
          ASSERT_EQ(pages_[e.page + u][slot], content.at(p)) << layer << " position " << p;
        }
      }
    }
    std::set<int64_t> expected;
    const auto add = [&](int64_t p) {
      if (p <= t && (p < v.sinks || t - p < v.window)) expected.insert(p);
    };
    const auto& text = texts_.at(id);
    for (const int64_t p : text.resident[layer]) add(p);
    for (auto p = static_cast<int64_t>(text.content.size()); p <= t; ++p) add(p);
    ASSERT_EQ(met, expected) << "layer " << layer << " query " << t;
    // Windows are exact to the token: nothing that is visible may have left.
    if (v.window == kUnlimited) return;
    for (int64_t p = 0; p <= t; ++p) {
      ASSERT_EQ(met.contains(p), p < v.sinks || t - p < v.window) << p;
    }
  }

  void check(SequenceId id, const Text& text) {
    ASSERT_EQ(cache_->length(id), static_cast<int64_t>(text.content.size()));
    if (text.content.empty()) return;
    // The next query's view, its own position left out.
    const auto t = static_cast<int64_t>(text.content.size());
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      const Visibility& v = cache_->rule(id, layer).visibility;
      check_norms(id, layer, text);
      for (const BlockEntry& e : cache_->table(id, layer)) {
        const SlotRange live = live_slots(e, v, static_cast<int32_t>(t));
        for (int32_t slot = live.begin; slot < live.end; ++slot) {
          for (int32_t u = 0; u < layout_.page_units(layer); ++u) {
            ASSERT_EQ(pages_[e.page + u][slot], text.content.at(int64_t{e.first_position} + slot));
          }
        }
      }
    }
  }

  bool measures_norms() const {
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      if (cache_->needs(layer).key_norms) return true;
    }
    return false;
  }

  /// Norms of a block's keys are those of what it holds, whoever computed it.
  void check_norms(SequenceId id, int32_t layer, const Text& text) {
    if (!cache_->rule(id, layer).needs.key_norms) return;
    for (const KvBlock& block : cache_->blocks(layer)) {
      if (block.sequence != id) continue;
      int64_t sum = 0;
      for (int32_t i = 0; i < block.n_tokens; ++i) {
        sum += norm_of(text.content.at(block.first_position + i), layer);
      }
      const double expected = static_cast<double>(sum) / kNormUnit / block.n_tokens;
      ASSERT_EQ(block.key_norm, expected) << layer << ", block at " << block.first_position;
      ++counts_.norms;
    }
  }

  std::mt19937 random_;
  int32_t block_;
  KvLayout layout_;
  std::vector<std::vector<uint64_t>> pages_;  // [n_units][block_size] what each slot holds there
  std::vector<int32_t> units_;                // [n_units] of the page that begins there
  std::unique_ptr<CacheManager> cache_;
  std::map<SequenceId, Text> texts_;
  Counts counts_;
};

TEST(Schedules, EverySlotReadIsTheOneWritten) {
  std::vector<std::string> specs = {"0=full,1=window:9,2=h2o:32@every:8",
                                    "0=sink:3+9,1=random:20@every:5@compact,*=snapkv:24"};
  for (const RuleExample& example : rule_examples()) specs.push_back(example.policy);
  Schedule::Counts sum;
  for (size_t i = 0; i < specs.size(); ++i) {
    for (const int32_t block : {1, 3, 4}) {
      SCOPED_TRACE(specs[i] + " blocks of " + std::to_string(block));
      // Room for about two whole sequences, and then for five.
      for (const int32_t sequences : {2, 5}) {
        const auto pages = static_cast<int32_t>(sequences * kLayers * (kPositions / block + 1));
        Schedule schedule(specs[i], block, pages / 2, 64, static_cast<uint32_t>(17 * i + block));
        schedule.run(500, specs);
        if (HasFailure()) return;
        const Schedule::Counts& c = schedule.counts();
        sum.hits += c.hits, sum.trims += c.trims, sum.reclaims += c.reclaims, sum.full += c.full;
        sum.rollbacks += c.rollbacks, sum.rewinds += c.rewinds, sum.refused += c.refused;
        sum.copies += c.copies, sum.merges += c.merges;
      }
    }
  }
  // All of it happened, often.
  for (const int64_t n : {sum.hits, sum.trims, sum.reclaims, sum.full, sum.rollbacks, sum.rewinds,
                          sum.refused, sum.copies, sum.merges}) {
    EXPECT_GT(n, 50);
  }
}

// Elastic rules keep everything here, as nobody lets budgets fall: they share with `full`.
TEST(Schedules, SequencesUnderRulesOfTheirOwnReadWhatWasWrittenForSuch) {
  std::vector<std::string> specs = {
      "full",          "lru@every:8",
      "knorm@every:8", "0=full,1=knorm@every:8,2=sink:2@every:8",
      "window:9",      "0=window:9,*=full",
      "*=sink:3+9",    "sink:3+9@original",
      "sink:3+9",      "0=sink:3+9,1=random:20@every:5@compact,*=snapkv:24"};
  for (const RuleExample& example : rule_examples()) specs.push_back(example.policy);
  std::mt19937 random(7);
  Schedule::Counts sum;
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    std::vector<std::string> some;
    for (int n = 0; n < 4; ++n) some.push_back(specs[random() % (n < 3 ? 9 : specs.size())]);
    const auto block = static_cast<int32_t>(1 + seed % 4);
    const auto pages = static_cast<int32_t>((2 + seed % 4) * kLayers * (kPositions / block + 1));
    SCOPED_TRACE(some[0] + " and " + some[1] + " and " + some[2] + " and " + some[3] +
                 " blocks of " + std::to_string(block));
    Schedule schedule(some, block, pages / 2, KvLayout(64), seed);
    schedule.run(500, specs);
    if (HasFailure()) return;
    const Schedule::Counts& c = schedule.counts();
    sum.hits += c.hits, sum.trims += c.trims, sum.reclaims += c.reclaims, sum.full += c.full;
    sum.rewinds += c.rewinds, sum.copies += c.copies, sum.merges += c.merges;
    sum.norms += c.norms;
  }
  for (const int64_t n : {sum.hits, sum.trims, sum.reclaims, sum.full, sum.rewinds, sum.copies,
                          sum.merges, sum.norms}) {
    EXPECT_GT(n, 50);
  }
}

TEST(Schedules, WindowsShareInPoolsThatBarelyHoldOne) {
  const std::vector<std::string> specs = {"window:9", "0=full,*=sink:2+14", "sink:6+1",
                                          "0=window:1,1=sink:5+3,2=window:30",
                                          "0=sink:3+9@original,1=sink:3+9,2=full"};
  Schedule::Counts sum;
  uint32_t seed = 1;
  for (const std::string& spec : specs) {
    for (const int32_t block : {1, 4, 16}) {
      for (const int tenths : {10, 14, 30}) {
        SCOPED_TRACE(spec + " blocks of " + std::to_string(block));
        const int64_t one =
            CacheManager::pages_needed(PolicyMap::parse(spec, kLayers), block, kPositions, kChunk);
        const auto pages = static_cast<int32_t>(one * tenths / 10);
        Schedule schedule(spec, block, pages, 64, seed++);
        schedule.run(400, {spec});
        if (HasFailure()) return;
        const Schedule::Counts& c = schedule.counts();
        sum.hits += c.hits, sum.reclaims += c.reclaims, sum.full += c.full;
        sum.rollbacks += c.rollbacks, sum.rewinds += c.rewinds, sum.refused += c.refused;
        sum.copies += c.copies, sum.merges += c.merges;
      }
    }
  }
  for (const int64_t n : {sum.hits, sum.reclaims, sum.full, sum.rollbacks, sum.rewinds, sum.refused,
                          sum.copies, sum.merges}) {
    EXPECT_GT(n, 50);
  }
}

TEST(Schedules, LayersMayHavePagesOfDifferentSizes) {
  const std::vector<KvLayout> layouts = {KvLayout({{96, 0}, {64, 0}, {96, 0}}),
                                         KvLayout({{32, 0}, {160, 0}, {128, 0}})};
  const std::vector<std::string> specs = {"full", "0=full,1=window:9,2=h2o:32@every:8",
                                          "0=sink:3+9,1=random:20@every:5@compact,*=full"};
  Schedule::Counts sum;
  uint32_t seed = 1;
  for (const KvLayout& layout : layouts) {
    int32_t units = 0;
    for (int32_t layer = 0; layer < kLayers; ++layer) units += layout.page_units(layer);
    for (const std::string& spec : specs) {
      for (const int32_t block : {1, 4}) {
        for (const int32_t sequences : {2, 4}) {
          SCOPED_TRACE(spec + " blocks of " + std::to_string(block));
          const auto all = static_cast<int32_t>(sequences * units * (kPositions / block + 1));
          Schedule schedule(spec, block, all / 2 + 50, layout, seed++);
          schedule.run(500, specs);
          if (HasFailure()) return;
          const Schedule::Counts& c = schedule.counts();
          sum.hits += c.hits, sum.reclaims += c.reclaims, sum.full += c.full;
        }
      }
    }
  }
  for (const int64_t n : {sum.hits, sum.reclaims, sum.full}) EXPECT_GT(n, 50);
}

}  // namespace
}  // namespace paddock::test
