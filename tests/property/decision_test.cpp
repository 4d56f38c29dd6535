// Decisions of rules that trim, against books of our own: what a rule is shown, what becomes of its
// answer whatever that is, and what the log says of every block that left.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <list>
#include <random>
#include <set>
#include <thread>

#include "kv/cache_manager.h"
#include "kv/protection.h"
#include "paddock/error.h"

namespace paddock {
namespace {

constexpr int32_t kLayers = 3;
constexpr int32_t kHeads = 4;
constexpr int64_t kPositions = 150;

/// A block as our books have it. Masses and norms in the units of the cache.
struct Block {
  int64_t first = 0;
  int32_t n_tokens = 0;
  int64_t born = 0;                                 // on the cache's clock
  std::vector<std::pair<int64_t, int64_t>> masses;  // length before a step, what it gave
  int64_t norm = 0;
  int64_t last_used = 0;  // position
  int64_t used = -1;      // on the cache's clock

  int64_t mass_since(int64_t length) const {
    int64_t sum = 0;
    for (const auto& [before, mass] : masses) sum += before >= length ? mass : 0;
    return sum;
  }
};

struct Text {
  int64_t length = 0;
  int64_t prompt = 0;
  int64_t told = 0;  // the length at which the prompt's end was told
  std::vector<std::vector<Block>> blocks = std::vector<std::vector<Block>>(kLayers);
  std::vector<int64_t> decided = std::vector<int64_t>(kLayers, 0);  // length of the last decision
  Protection* kept = nullptr;  // by a host, as the cache has it
  std::set<int64_t> is_kept;   // and position by position
};

/// A rule that says what the test wants it to say.
class Scripted final : public EvictionPolicy {
 public:
  using Script = std::function<void(const LayerView&, int64_t, std::vector<Victim>&)>;
  Scripted(std::string name, TrimSchedule schedule, PolicyNeeds needs, Positions positions,
           const Script* script)
      : name_(std::move(name)),
        schedule_(schedule),
        needs_(needs),
        positions_(positions),
        script_(script) {}
  std::string name() const override { return name_; }
  PolicyNeeds needs() const override { return needs_; }
  Positions positions() const override { return positions_; }
  TrimSchedule schedule(int32_t, int32_t) const override { return schedule_; }
  void trim(const LayerView& view, int64_t n_tokens, std::vector<Victim>& victims) const override {
    (*script_)(view, n_tokens, victims);
  }

 private:
  std::string name_;
  TrimSchedule schedule_;
  PolicyNeeds needs_;
  Positions positions_;
  const Script* script_;
};

struct Layer {
  TrimSchedule schedule;
  PolicyNeeds needs;
  Positions positions = Positions::kOriginal;
};

/// Each test of a schedule has other layers; between them they have every field.
std::vector<std::vector<Layer>> settings() {
  const PolicyNeeds all = {.attention = true, .key_norms = true};
  return {{{{.budget = 24, .every = 8, .observe = 3, .keep_first = 2, .keep_newest = 5}, all},
           {{.budget = 20, .every = 5}, {.attention = true}, Positions::kCompact},
           {{.budget = 32, .every = 0, .observe = 8, .keep_newest = 16, .newest_divisor = 2}, all}},
          {{{.budget = 24, .every = 4, .observe = 4, .keep_newest = 8, .newest_divisor = 3}, all},
           {{.budget = 17, .every = 0}, {.attention = true}},
           {{.budget = 22, .every = 11, .keep_first = 3, .keep_newest = 2},
            {.key_norms = true},
            Positions::kCompact}}};
}

class Decisions {
 public:
  Decisions(const std::vector<Layer>& layers, int32_t block, uint32_t seed)
      : layers_(layers), block_(block), random_(seed) {
    script_ = [this](const LayerView& view, int64_t n, std::vector<Victim>& out) {
      answer(view, n, out);
    };
    CustomPolicies custom;
    std::string spec;
    for (int32_t i = 0; i < kLayers; ++i) {
      const auto policy =
          std::make_shared<Scripted>(fmt::format("rule{}", i), layers[i].schedule, layers[i].needs,
                                     layers[i].positions, &script_);
      custom[policy->name()] = [policy](std::string_view) { return policy; };
      spec += fmt::format("{}{}=rule{}", i > 0 ? "," : "", i, i);
    }
    const auto pages = static_cast<int32_t>(3 * kLayers * (kPositions / block + 2));
    cache_ = std::make_unique<CacheManager>(
        CacheConfig{kLayers, kHeads, block, pages, 64, 3, kPositions, 20, 100'000},
        PolicyMap::parse(spec, kLayers, custom));
  }

  void run(int n_steps) {
    for (int i = 0; i < n_steps && !testing::Test::HasFailure(); ++i) {
      const auto dice = random_() % 40;
      if (texts_.empty() || (texts_.size() < 3 && dice < 2)) {
        Text text;
        text.kept = &kept_.emplace_back();
        texts_.emplace(cache_->open(nullptr, 0, text.kept), text);
      } else {
        auto at = texts_.begin();
        std::advance(at, random_() % texts_.size());
        if (dice == 3 || (dice > 20 && at->second.length > 120)) {
          cache_->close(at->first);
          texts_.erase(at);
        } else if (dice == 4) {
          cache_->truncate(at->first, 0);
          Text again;
          again.kept = at->second.kept;
          again.is_kept = at->second.is_kept;
          at->second = again;
        } else if (dice == 5 || dice == 6) {
          protect(at->first, at->second, dice == 5);
        } else {
          grow(at->first, at->second);
        }
        seen_ = cache_->stats().events;
      }
      for (const auto& [id, text] : texts_) compare(id, text);
      cache_->tick();
      ++clock_;
    }
    const KvStats stats = cache_->stats();
    EXPECT_EQ(stats.policy_violations, wrong_);
    EXPECT_EQ(stats.policy_shortfalls, short_);
    EXPECT_GE(stats.policy_slow, slow_);
    EXPECT_LE(stats.policy_slow, asked_);
    EXPECT_GE(stats.policy_seconds, 0.002 * static_cast<double>(slow_));
    EXPECT_LT(stats.policy_seconds, 60.0);
    EXPECT_NE(stats.last_violation.find("policy 'rule"), std::string::npos) << stats.last_violation;
    int64_t decisions = 0;
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      EXPECT_EQ(stats.layers[layer].trim_decisions, decisions_[layer]) << layer;
      decisions += decisions_[layer];
    }
    EXPECT_EQ(stats.total.trim_decisions, decisions);
    EXPECT_EQ(asked_, decisions);
    EXPECT_GT(by_host_, 10);
    for (const int64_t n : {wrong_, short_, slow_, decisions - wrong_ - short_}) EXPECT_GT(n, 3);
  }

 private:
  /// What a host asks of some positions, now and to come; refused where too little could leave.
  void protect(SequenceId id, Text& text, bool is_on) {
    const auto first = static_cast<int64_t>(random_() % kPositions);
    const auto end = first + 1 + static_cast<int64_t>(random_() % (is_on ? 4 : 40));
    Protection next = is_on ? text.kept->with({first, end}) : text.kept->without({first, end});
    try {
      cache_->check_protection(0, next);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_TRUE(is_on);
      return;
    }
    cache_->set_protection(*text.kept, next, id);
    for (int64_t p = first; p < end; ++p) {
      if (is_on) {
        text.is_kept.insert(p);
      } else {
        text.is_kept.erase(p);
      }
    }
  }

  void grow(SequenceId id, Text& text) {
    if (text.length >= text.prompt && random_() % 3 == 0) {
      text.told = text.length;
      text.prompt = text.length + 1 + static_cast<int64_t>(random_() % 30);
      cache_->set_prompt(id, text.prompt);
    }
    const int64_t most = std::min(cache_->max_next(id), kPositions - text.length);
    if (most < 1) return;
    const auto n = static_cast<int32_t>(1 + random_() % most);
    ASSERT_TRUE(cache_->reserve(id, n));
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      std::vector<Block>& blocks = text.blocks[layer];
      std::vector<int64_t> norms(n);
      for (int32_t i = 0; i < n; ++i) {
        const int64_t position = text.length + i;
        if (position % block_ == 0) {
          Block& block = blocks.emplace_back();
          block.first = block.last_used = position;
          block.born = clock_;
        }
        ++blocks.back().n_tokens;
        norms[i] = static_cast<int64_t>(random_() % 4'000'000);
        if (layers_[layer].needs.key_norms) blocks.back().norm += norms[i];
      }
      ASSERT_EQ(cache_->table(id, layer).size(), blocks.size());
      std::vector<BlockUse> uses;
      for (Block& block : blocks) {
        const bool used = random_() % 2 == 0;
        const auto by = static_cast<int32_t>(text.length + random_() % n);
        uses.push_back({static_cast<int64_t>(random_() % 9'000'000'000), used ? by : -1, 0});
        if (!layers_[layer].needs.attention) continue;
        block.masses.emplace_back(text.length, uses.back().mass);
        if (!used) continue;
        block.last_used = by;
        block.used = clock_;
      }
      cache_->observe(id, layer, uses, norms);
    }
    text.length += n;
    now_ = &text;
    id_ = id;
    expected_.clear();
    views_.assign(kLayers, false);
    cache_->commit(id);
    const std::vector<KvEvent> events = cache_->events(seen_);
    ASSERT_EQ(events.size(), expected_.size());
    for (size_t i = 0; i < events.size(); ++i) {
      expected_[i].number = seen_ + i;
      ASSERT_EQ(to_json(events[i]), to_json(expected_[i]));
    }
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      if (!due(layer, text)) continue;
      text.decided[layer] = text.length;
      int64_t tokens = 0;
      for (const Block& block : text.blocks[layer]) tokens += block.n_tokens;
      EXPECT_LE(tokens, layers_[layer].schedule.budget);
    }
  }

  bool due(int32_t layer, const Text& text) const {
    const int32_t every = layers_[layer].schedule.every;
    return every == 0 ? text.length == text.prompt : text.length % every == 0;
  }

  /// Where the queries begin whose attention is recent at this decision.
  int64_t recent_from(int32_t layer, const Text& text) const {
    const TrimSchedule& s = layers_[layer].schedule;
    // Told too late for that, those since the last decision count.
    const bool in_time = s.every > 0 || text.told <= text.prompt - s.observe;
    return s.observe > 0 && in_time ? text.length - s.observe : text.decided[layer];
  }

  /// Checks what the rule is shown, answers somehow, and writes down what should come of it.
  void answer(const LayerView& view, int64_t n_tokens, std::vector<Victim>& out) {
    const Text& text = *now_;
    const int32_t layer = view.layer;
    const TrimSchedule& s = layers_[layer].schedule;
    std::vector<Block>& blocks = now_->blocks[layer];
    EXPECT_TRUE(due(layer, text));
    EXPECT_FALSE(views_[layer]) << "asked twice";
    views_[layer] = true;
    throws_ = 0;
    ++asked_;
    ++decisions_[layer];
    int64_t tokens = 0;
    for (const Block& block : blocks) tokens += block.n_tokens;
    EXPECT_EQ(view.n_layers, kLayers);
    EXPECT_EQ(view.n_heads, kHeads);
    EXPECT_EQ(view.block_size, block_);
    EXPECT_EQ(view.length, text.length);
    EXPECT_EQ(view.tokens, tokens);
    EXPECT_EQ(n_tokens, tokens - s.budget);
    EXPECT_GT(n_tokens, 0);
    ASSERT_EQ(view.blocks.size(), blocks.size());
    std::vector<int32_t> free, guarded;
    for (size_t i = 0; i < blocks.size(); ++i) {
      const BlockInfo& shown = view.blocks[i];
      const Block& block = blocks[i];
      const int64_t end = block.first + block.n_tokens;
      const bool newest = end == text.length;
      const auto kept = text.is_kept.lower_bound(block.first);
      const bool by_host = kept != text.is_kept.end() && *kept < end;
      const bool is_protected =
          newest || block.first < s.keep_first || text.length - end < s.keep_newest || by_host;
      by_host_ += by_host ? 1 : 0;
      EXPECT_EQ(shown.first_position, block.first);
      EXPECT_EQ(shown.n_tokens, block.n_tokens);
      EXPECT_EQ(shown.is_protected, is_protected) << block.first;
      EXPECT_EQ(shown.mass, static_cast<double>(block.mass_since(0)) / kMassUnit);
      EXPECT_EQ(shown.recent_mass,
                static_cast<double>(block.mass_since(recent_from(layer, text))) / kMassUnit)
          << "layer " << layer << " at " << text.length << ", told at " << text.told;
      EXPECT_EQ(shown.last_used, block.last_used);
      EXPECT_EQ(shown.key_norm, static_cast<double>(block.norm) / kNormUnit / block.n_tokens);
      (is_protected ? guarded : free).push_back(static_cast<int32_t>(i));
    }

    std::shuffle(free.begin(), free.end(), random_);
    for (const int32_t block : free) {
      out.push_back({block, static_cast<double>(random_() % 1000) / 8 - 50});
    }
    size_t enough = 0;  // how many of them are
    for (int64_t freed = 0; freed < n_tokens; ++enough) freed += blocks[free.at(enough)].n_tokens;
    const auto dice = random_() % 12;
    bool wrong = false;
    if (dice < 6) {
      out.resize(std::min(out.size(), enough + random_() % 3));
    } else if (dice == 6) {
      out.resize(random_() % enough);
    } else if (dice > 7) {
      wrong = true;
      ruin(out, enough, static_cast<int>(dice) - 8, blocks, guarded);
    }
    if (dice == 7 && slow_ < 5) {
      ++slow_;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    wrong_ += wrong ? 1 : 0;
    short_ += !wrong && out.size() < enough ? 1 : 0;
    std::vector<Victim> leaves;
    if (!wrong) leaves.assign(out.begin(), out.begin() + std::min(out.size(), enough));
    const size_t ranked = leaves.size();
    // In place of a wrong answer, or after a short one, the oldest.
    std::sort(free.begin(), free.end());
    int64_t freed = 0;
    for (const Victim& victim : leaves) freed += blocks[victim.block].n_tokens;
    for (const int32_t block : free) {
      const auto is = [&](const Victim& victim) { return victim.block == block; };
      if (freed >= n_tokens || std::any_of(leaves.begin(), leaves.end(), is)) continue;
      leaves.push_back({block, 0});
      freed += blocks[block].n_tokens;
    }
    const bool has_next = !wrong && out.size() > enough;
    for (size_t i = 0; i < leaves.size(); ++i) {
      const Block& block = blocks[leaves[i].block];
      KvEvent event;
      event.step = clock_;
      event.reason = RemovalReason::kPolicyTrim;
      event.layer = layer;
      event.sequence = id_;
      event.first_position = block.first;
      event.n_tokens = block.n_tokens;
      event.length = text.length;
      event.age_steps = clock_ - block.born;
      if (block.used >= 0) event.idle_steps = clock_ - block.used;
      event.overruled = i >= ranked;
      event.score = leaves[i].score;
      if (has_next) {
        event.runner_up_position = blocks[out[enough].block].first;
        event.runner_up_score = out[enough].score;
      }
      event.rank = static_cast<int32_t>(i);
      event.left_together = static_cast<int32_t>(leaves.size());
      event.sufficient_budget = sufficient(layer, leaves, i, tokens);
      event.policy = fmt::format("rule{}", layer);
      expected_.push_back(event);
    }
    std::vector<Block> left;
    for (size_t b = 0; b < blocks.size(); ++b) {
      const auto is = [&](const Victim& victim) { return victim.block == static_cast<int32_t>(b); };
      if (std::none_of(leaves.begin(), leaves.end(), is)) left.push_back(blocks[b]);
    }
    blocks = std::move(left);
    if (throws_ == 1) throw std::runtime_error("no idea");
    if (throws_ == 2) throw 5;
  }

  /// Spoils an answer among those that count: the first `enough` and the runner-up.
  void ruin(std::vector<Victim>& out, size_t enough, int how, const std::vector<Block>& blocks,
            const std::vector<int32_t>& guarded) {
    const size_t at = random_() % std::min(out.size(), enough + 1);
    if (how == 0) {
      out[at].block = random_() % 2 == 0 ? -1 : static_cast<int32_t>(blocks.size());
    } else if (how == 1) {
      out[at].block = guarded[random_() % guarded.size()];
    } else if (how == 2 && at > 0) {
      out[at].block = out[random_() % std::min(at, enough)].block;
    } else if (how == 3 && at > 0) {
      out[at].score = at % 2 == 0 ? std::numeric_limits<double>::quiet_NaN()
                                  : -std::numeric_limits<double>::infinity();
    } else {
      throws_ = 1 + static_cast<int>(random_() % 2);
    }
  }

  /// The smallest budget from which on leaves[at] would have stayed, by trying all.
  int64_t sufficient(int32_t layer, const std::vector<Victim>& leaves, size_t at, int64_t tokens) {
    const TrimSchedule& s = layers_[layer].schedule;
    const std::vector<Block>& blocks = now_->blocks[layer];
    int64_t leaves_at = 0;
    for (int64_t budget = 1; budget <= tokens; ++budget) {
      const int64_t newest = s.newest_divisor > 0 ? budget / s.newest_divisor : s.keep_newest;
      const auto is_protected = [&](const Block& block) {
        return now_->length - block.first - block.n_tokens < newest;
      };
      int64_t gone = 0;
      for (size_t i = 0; i < at; ++i) {
        const Block& block = blocks[leaves[i].block];
        if (!is_protected(block)) gone += block.n_tokens;
      }
      const Block& block = blocks[leaves[at].block];
      if (!is_protected(block) && tokens - gone > budget) leaves_at = budget;
    }
    return leaves_at + 1;
  }

  /// What any thread is told of the blocks, and where queries meet them.
  void compare(SequenceId id, const Text& text) {
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      const std::vector<Block>& blocks = text.blocks[layer];
      std::vector<KvBlock> told = cache_->blocks(layer);
      std::erase_if(told, [&](const KvBlock& block) { return block.sequence != id; });
      ASSERT_EQ(told.size(), blocks.size());
      int64_t shift = 0;
      for (size_t i = blocks.size(); i-- > 0;) {
        const Block& block = blocks[i];
        if (i + 1 < blocks.size()) shift += blocks[i + 1].first - block.first - block.n_tokens;
        EXPECT_EQ(told[i].first_position, block.first);
        EXPECT_EQ(told[i].n_tokens, block.n_tokens);
        EXPECT_EQ(told[i].query_cap, kUnlimited);
        EXPECT_EQ(told[i].query_shift, layers_[layer].positions == Positions::kCompact ? shift : 0);
        EXPECT_EQ(told[i].born_step, block.born);
        EXPECT_EQ(told[i].mass, static_cast<double>(block.mass_since(0)) / kMassUnit);
        EXPECT_EQ(told[i].last_used, block.used >= 0 ? block.last_used : -1);
        EXPECT_EQ(told[i].key_norm, static_cast<double>(block.norm) / kNormUnit / block.n_tokens);
      }
    }
  }

  std::vector<Layer> layers_;
  int32_t block_;
  std::mt19937 random_;
  Scripted::Script script_;
  std::unique_ptr<CacheManager> cache_;
  std::list<Protection> kept_;
  std::map<SequenceId, Text> texts_;
  int64_t clock_ = 0;
  uint64_t seen_ = 0;  // events
  // Of the step at hand.
  Text* now_ = nullptr;
  SequenceId id_ = 0;
  std::vector<KvEvent> expected_;
  std::vector<bool> views_;
  int throws_ = 0;
  int64_t asked_ = 0, wrong_ = 0, short_ = 0, slow_ = 0, by_host_ = 0;
  std::vector<int64_t> decisions_ = std::vector<int64_t>(kLayers, 0);
};

TEST(Decisions, AreWhatTheAnswersSayAndLoggedAsSuch) {
  uint32_t seed = 5;
  for (const std::vector<Layer>& layers : settings()) {
    for (const int32_t block : {1, 3, 4}) {
      SCOPED_TRACE(fmt::format("blocks of {}, seed {}", block, seed));
      Decisions(layers, block, seed++).run(900);
      if (HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace paddock
