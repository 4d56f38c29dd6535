// Every figure of the statistics, counted again after each step of a random schedule: from the
// event log, from the tables, and from what was asked for.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <tuple>

#include "kv/cache_manager.h"
#include "support/rule_examples.h"

namespace paddock::test {
namespace {

constexpr int32_t kLayers = 3;
constexpr int32_t kPages = 150;
constexpr int64_t kPageBytes = 640;
constexpr int64_t kPositions = 90;

/// What the test knows of one layer.
struct Count {
  int64_t allocated = 0, read = 0, peak = 0, decisions = 0, retained = 0;
  std::array<int64_t, kRemovalReasons> removed{};
};

struct Text {
  uint64_t document = 0;
  int64_t length = 0;
  std::vector<int64_t> met = std::vector<int64_t>(kLayers, 0);  // the most by one query
  std::map<int64_t, int64_t> born;                              // by the block's first position
};

class Ledger {
 public:
  Ledger(const std::string& spec, int32_t block, uint32_t seed) : block_(block), random_(seed) {
    CacheConfig config{kLayers, 2, block, kPages, kPageBytes, 3, kPositions, 11, 100'000};
    config.keep_blocks = true;
    config.copy_page = [this](int32_t, int32_t to) { copies_.insert(to); };
    config.on_free = [this](int32_t page) { freed_.insert(page); };
    cache_ = std::make_unique<CacheManager>(config, PolicyMap::parse(spec, kLayers));
  }

  void run(int n_steps) {
    for (int i = 0; i < n_steps && !testing::Test::HasFailure(); ++i) {
      const auto dice = random_() % 100;
      if (texts_.empty() || (texts_.size() < 3 && dice < 15)) {
        open();
      } else {
        auto at = texts_.begin();
        std::advance(at, random_() % texts_.size());
        auto& [id, text] = *at;
        if (dice < 80) {
          grow(id, text);
        } else if (dice < 90) {
          truncate(id, text);
        } else {
          cache_->close(id, tokens(text));
          closed_ = *at;
          texts_.erase(at);
        }
      }
      check();
      cache_->tick();
      ++clock_;
      freed_.clear();
    }
  }

  int64_t removed(RemovalReason reason) const {
    int64_t sum = 0;
    for (const Count& count : counts_) sum += count.removed[static_cast<size_t>(reason)];
    return sum;
  }

 private:
  static std::vector<int32_t> tokens(const Text& text) {
    std::vector<int32_t> out;
    for (int64_t i = 0; i < text.length; ++i) {
      out.push_back(static_cast<int32_t>(text.document * 1000 + static_cast<uint64_t>(i)));
    }
    return out;
  }

  void open() {
    const SequenceId id = cache_->open();
    Text& text = texts_[id];
    text.document = random_() % 3;
    if (random_() % 2 == 0) cache_->set_prompt(id, 20 + static_cast<int64_t>(random_() % 20));
    if (random_() % 4 == 0) return;
    text.length = static_cast<int64_t>(random_() % 60);
    text.length = cache_->match_prefix(id, tokens(text), text.length);
    for (int64_t p = 0; p < text.length; p += block_) text.born[p] = clock_;
  }

  void grow(SequenceId id, Text& text) {
    const int64_t most = std::min(cache_->max_next(id), kPositions - text.length);
    if (most < 1) return;
    const auto n = static_cast<int32_t>(1 + random_() % most);
    if (!cache_->reserve(id, n)) {
      ++refused_;
      return;
    }
    note_peaks();
    for (int32_t layer = 0; layer < kLayers; ++layer) {  // of what others see it gets a copy
      for (const BlockEntry& e : cache_->table(id, layer)) {
        if (e.slot_begin == 0 && copies_.contains(e.page)) ++counts_[layer].allocated;
      }
    }
    copies_.clear();
    if (random_() % 10 == 0) return cache_->rollback(id);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      const Visibility& v = cache_->policies().layer(layer).visibility;
      for (int64_t t = text.length; t < text.length + n; ++t) {
        int64_t met = 0;
        for (const BlockEntry& e : cache_->table(id, layer)) {
          const SlotRange live = live_slots(e, v, static_cast<int32_t>(t));
          met += live.end - live.begin;
        }
        counts_[layer].read += met;
        text.met[layer] = std::max(text.met[layer], met);
        if (t % block_ == 0) ++counts_[layer].allocated;
      }
      const std::vector<BlockUse> uses(cache_->table(id, layer).size(), BlockUse{7, -1, 0});
      cache_->observe(id, layer, uses, std::vector<int64_t>(n, 5));
    }
    for (int64_t t = text.length; t < text.length + n; ++t) {
      if (t % block_ == 0) text.born[t] = clock_;
    }
    written_ += n;
    text.length += n;
    cache_->commit(id);
  }

  void truncate(SequenceId id, Text& text) {
    const int64_t to =
        random_() % 4 == 0 ? 0 : text.length - std::min<int64_t>(text.length, random_() % 12);
    before_ = text.length;
    try {
      cache_->truncate(id, to);
      text.length = to;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    }
  }

  /// Pages that live tables list, of one layer.
  std::set<int32_t> active(int32_t layer) const {
    std::set<int32_t> pages;
    for (const auto& [id, text] : texts_) {
      for (const BlockEntry& e : cache_->table(id, layer)) pages.insert(e.page);
    }
    return pages;
  }

  void note_peaks() {
    for (const auto& [id, text] : texts_) {
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        for (const BlockEntry& e : cache_->table(id, layer)) {
          listed_[{id, layer, e.first_position + e.slot_begin}] = e.page;
        }
      }
    }
    int64_t all = 0;
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      all += static_cast<int64_t>(active(layer).size());
    }
    pool_peak_ = std::max(pool_peak_, all);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      counts_[layer].peak =
          std::max(counts_[layer].peak, static_cast<int64_t>(active(layer).size()));
    }
  }

  void read_log() {
    std::set<std::pair<int32_t, int32_t>> decided;  // sequence and layer
    for (const KvEvent& event : cache_->events(seen_)) {
      ASSERT_EQ(event.number, seen_++);
      ASSERT_EQ(event.step, clock_);
      ASSERT_EQ(event.policy, cache_->policies().layer(event.layer).name);
      ++counts_[event.layer].removed[static_cast<size_t>(event.reason)];
      if (event.reason == RemovalReason::kPolicyTrim) decided.insert({event.sequence, event.layer});
      if (event.reason == RemovalReason::kWindow) {
        const int32_t page = listed_.at({event.sequence, event.layer, event.first_position});
        counts_[event.layer].retained += freed_.contains(page) ? 0 : 1;
      }
      if (event.reason == RemovalReason::kCapacity) continue;
      const bool ended = event.reason == RemovalReason::kSequenceEnd;
      if (ended) {
        ASSERT_EQ(event.sequence, closed_.first);
      }
      const Text& text = ended ? closed_.second : texts_.at(event.sequence);
      const bool user = event.reason == RemovalReason::kUser;
      ASSERT_EQ(event.length, user ? before_ : text.length);
      ASSERT_EQ(event.first_position % block_, 0);
      ASSERT_EQ(event.age_steps, clock_ - text.born.at(event.first_position));
      if (cache_->policies().layer(event.layer).has_sinks())
        continue;  // one block may be in two parts
      ASSERT_EQ(event.n_tokens, std::min<int64_t>(block_, event.length - event.first_position));
    }
    for (const auto& [sequence, layer] : decided) ++counts_[layer].decisions;
  }

  int64_t pinned(int32_t layer) const {
    const LayerRule& rule = cache_->policies().layer(layer);
    int64_t n = 0;
    for (const auto& [id, text] : texts_) {
      for (const BlockEntry& e : cache_->table(id, layer)) {
        const int64_t first = e.first_position + e.slot_begin;
        const int64_t left = text.length - e.first_position - e.slot_end;  // positions after it
        if (rule.visibility.window != kUnlimited) {
          n += first < rule.visibility.sinks ? 1 : 0;
        } else if (rule.schedule.budget != kUnlimited) {
          const TrimSchedule& s = rule.schedule;
          n += first < s.keep_first || left == 0 || left < s.keep_newest ? 1 : 0;
        }
      }
    }
    return n;
  }

  void check() {
    note_peaks();
    read_log();
    if (testing::Test::HasFailure()) return;
    const KvStats stats = cache_->stats();
    KvLayerStats total;
    int64_t held = 0;
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      SCOPED_TRACE(fmt::format("layer {}", layer));
      const KvLayerStats& s = stats.layers.at(layer);
      const Count& count = counts_[layer];
      int64_t resident = 0;
      int64_t met = 0;
      for (const auto& [id, text] : texts_) {
        for (const BlockEntry& e : cache_->table(id, layer)) resident += e.slot_end - e.slot_begin;
        met = std::max(met, text.met[layer]);
      }
      int64_t gone = 0;
      for (const int64_t n : count.removed) gone += n;
      EXPECT_EQ(s.layer, layer);
      EXPECT_EQ(s.policy, cache_->policies().layer(layer).name);
      EXPECT_EQ(s.pages_active, static_cast<int64_t>(active(layer).size()));
      EXPECT_EQ(s.pages_cached, count.allocated + count.retained - gone - s.pages_active);
      EXPECT_EQ(s.pages_pinned, pinned(layer));
      EXPECT_EQ(s.pages_peak, count.peak);
      EXPECT_EQ(s.tokens_resident, resident);
      EXPECT_EQ(s.tokens_peak, met);
      EXPECT_EQ(s.bytes, s.pages_active * kPageBytes);
      EXPECT_EQ(s.pages_allocated, count.allocated);
      EXPECT_EQ(s.pages_removed, count.removed);
      EXPECT_EQ(s.pages_retained, count.retained);
      EXPECT_EQ(s.tokens_read, count.read);
      EXPECT_EQ(s.trim_decisions, count.decisions);
      total.pages_active += s.pages_active;
      total.pages_cached += s.pages_cached;
      total.pages_pinned += s.pages_pinned;
      total.tokens_resident += s.tokens_resident;
      total.tokens_peak = std::max(total.tokens_peak, s.tokens_peak);
      total.bytes += s.bytes;
      total.pages_allocated += s.pages_allocated;
      total.pages_retained += s.pages_retained;
      total.tokens_read += s.tokens_read;
      total.trim_decisions += s.trim_decisions;
      for (size_t r = 0; r < s.pages_removed.size(); ++r) {
        total.pages_removed[r] += s.pages_removed[r];
      }
      held += s.pages_active + s.pages_cached;
    }
    total.pages_peak = pool_peak_;
    KvStats sum;
    sum.total = total;
    KvStats shown;
    shown.total = stats.total;
    EXPECT_EQ(to_json(shown), to_json(sum));
    EXPECT_EQ(stats.total.layer, -1);
    EXPECT_EQ(stats.block_size, block_);
    EXPECT_EQ(stats.page_bytes, kPageBytes);
    EXPECT_EQ(stats.pool_pages, kPages);
    EXPECT_EQ(stats.pool_bytes, kPages * kPageBytes);
    EXPECT_EQ(stats.pages_free, kPages - held);
    EXPECT_EQ(stats.pages_free, cache_->free_pages());
    EXPECT_EQ(stats.pages_per_block, kLayers);
    EXPECT_EQ(stats.reservations_refused, refused_);
    EXPECT_EQ(stats.steps, clock_);
    EXPECT_EQ(stats.tokens_written, written_);
    EXPECT_EQ(stats.sequences, static_cast<int32_t>(texts_.size()));
    EXPECT_EQ(stats.events, seen_);
    EXPECT_EQ(stats.events_lost, 0U);
    EXPECT_EQ(stats.policy_violations + stats.policy_shortfalls, 0);
  }

  int32_t block_;
  std::mt19937 random_;
  std::unique_ptr<CacheManager> cache_;
  std::map<SequenceId, Text> texts_;
  std::pair<SequenceId, Text> closed_;
  int64_t before_ = 0;  // length of what is taken back
  std::vector<Count> counts_ = std::vector<Count>(kLayers);
  int64_t clock_ = 0, written_ = 0, refused_ = 0, pool_peak_ = 0;
  uint64_t seen_ = 0;                                                // events
  std::set<int32_t> freed_, copies_;                                 // pages, in this step
  std::map<std::tuple<int32_t, int32_t, int64_t>, int32_t> listed_;  // sequence, layer, position
};

TEST(Ledgers, AgreeWithTheStatisticsAfterEveryStep) {
  std::vector<std::string> specs = {"0=full,1=window:9,2=h2o:32@every:8@sinks:3",
                                    "0=sink:6+9,1=random:20@every:5@compact,*=snapkv:24"};
  for (const RuleExample& example : rule_examples()) specs.push_back(example.policy);
  std::array<int64_t, kRemovalReasons> sum{};
  uint32_t seed = 1;
  for (const std::string& spec : specs) {
    for (const int32_t block : {2, 4}) {
      SCOPED_TRACE(fmt::format("{} blocks of {}", spec, block));
      Ledger ledger(spec, block, seed++);
      ledger.run(250);
      if (HasFailure()) return;
      for (int32_t r = 0; r < kRemovalReasons; ++r) {
        sum[r] += ledger.removed(static_cast<RemovalReason>(r));
      }
    }
  }
  for (int32_t r = 0; r < kRemovalReasons; ++r) {
    if (static_cast<RemovalReason>(r) == RemovalReason::kPreempt) continue;
    EXPECT_GT(sum[r], 100) << removal_reason_name(static_cast<RemovalReason>(r));
  }
}

}  // namespace
}  // namespace paddock::test
