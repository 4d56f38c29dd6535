// Scenes from the real cache manager.
#include <algorithm>
#include <cmath>
#include <set>

#include "core/fail.h"
#include "core/mix.h"
#include "diagnose/scenes.h"
#include "kv/cache_manager.h"

namespace paddock {
namespace {

constexpr int32_t kSequences = 4;  // two pairs
constexpr int32_t kMostChunk = 96;
constexpr int64_t kMostWork = 40'000'000;  // blocks looked at in one run
constexpr double kSample = 400;            // scenes kept of one run
constexpr int64_t kFreeLength = 8192;      // most positions where nothing is trimmed

/// Passes everything on, and keeps questions and answers.
class Recorder final : public EvictionPolicy {
 public:
  Recorder(std::shared_ptr<const EvictionPolicy> inner, Findings& findings)
      : inner_(std::move(inner)), findings_(findings) {}

  std::string name() const override { return inner_->name(); }
  TokenVisibility visibility(int32_t layer) const override { return inner_->visibility(layer); }
  Positions positions() const override { return inner_->positions(); }
  PolicyNeeds needs() const override { return inner_->needs(); }
  TrimSchedule schedule(int32_t layer, int32_t n_layers) const override {
    return inner_->schedule(layer, n_layers);
  }
  bool shares_by_need() const override { return inner_->shares_by_need(); }
  TrimSchedule schedule(int32_t layer, int32_t n_layers, int32_t budget) const override {
    return inner_->schedule(layer, n_layers, budget);
  }
  double need(const LayerView& view) const override { return inner_->need(view); }
  void trim(const LayerView& view, int64_t n_tokens, std::vector<Victim>& victims) const override {
    Scene scene{view, {view.blocks.begin(), view.blocks.end()}, n_tokens, sequence};
    scene.head.blocks = {};
    const Answer answer = findings_.ask(*inner_, scene);
    if (answer) {
      findings_.judge(scene, *answer);
      victims = *answer;
    }
    if (unit_interval(dice()) < share) kept.push_back({scene, answer});
  }

  struct Kept {
    Scene scene;
    Answer answer;
  };
  mutable std::vector<Kept> kept;
  mutable Dice dice{1};
  double share = 1;      // of the questions that are kept
  int32_t sequence = 0;  // whose turn it is

 private:
  std::shared_ptr<const EvictionPolicy> inner_;
  Findings& findings_;
};

/// How far sequences grow, and what that takes.
struct Extent {
  int64_t length = 0;  // of every sequence
  int64_t prompt = 0;
  int64_t decisions = 0;  // expected, of all sequences and layers
  int64_t work = 0;
};

Extent extent_of(const PolicyMap& policies, int32_t block_size, int64_t budgets,
                 int64_t intervals) {
  Extent e;
  int64_t tokens = 512;  // resident at most, where nothing is trimmed
  int64_t every = kMostChunk;
  e.length = tokens;
  for (int32_t layer = 0; layer < policies.size(); ++layer) {
    const LayerRule& rule = policies.layer(layer);
    const TrimSchedule& s = rule.schedule;
    if (!rule.trims()) {
      if (rule.visibility.window == kUnlimited) continue;
      tokens = rule.splits_at() + kMostChunk;
      e.length = std::max(e.length, std::min(2 * tokens, kFreeLength));
      continue;
    }
    if (s.every == 0) {
      e.prompt = std::max(e.prompt, int64_t{3} * s.budget);
      e.length = std::max(e.length, e.prompt + 5 * block_size);
      tokens = std::max(tokens, e.length);
      e.decisions += kSequences;
      continue;
    }
    every = std::min<int64_t>(every, s.every);
    tokens = std::max(tokens, int64_t{s.budget} + s.every);
    e.length = std::max(e.length, budgets * s.budget + intervals * s.every);
    e.decisions += kSequences * (intervals + (budgets - 1) * s.budget / s.every);
  }
  e.length += kSequences * block_size;  // prompts differ by a block
  const int64_t steps = e.length / std::max<int64_t>(1, every / 2) + 1;
  const int64_t blocks = std::min(tokens, e.length) / block_size + 2;
  if (__builtin_mul_overflow(steps * kSequences, blocks * policies.size(), &e.work)) {
    e.work = kMostWork + 1;
  }
  return e;
}

/// Made-up attention and key norms of one sequence in one layer, the same in every run. Of two
/// sequences that make a pair, what is hot in one is cold in the other: a rule that measures must
/// drop different blocks in them.
struct Heat {
  uint64_t seed;
  int64_t sequence, layer;
  double at(int64_t position) const {
    const uint64_t pair = mix(seed ^ mix(static_cast<uint64_t>(sequence / 2)));
    const double heat = unit_interval(
        mix(pair ^ mix(static_cast<uint64_t>(layer) << 40 ^ static_cast<uint64_t>(position))));
    return sequence % 2 == 0 ? heat : 1 - heat;
  }
};

void observe(CacheManager& cache, SequenceId id, int32_t layer, int32_t n, uint64_t seed,
             Dice& dice) {
  const LayerRule& rule = cache.policies().layer(layer);
  const std::span<const BlockEntry> entries = cache.table(id, layer);
  const Heat heat{seed, id, layer};
  const CacheConfig& config = cache.config();
  const int64_t last = cache.length(id) + n - 1;
  std::vector<BlockUse> uses(entries.size());
  std::vector<int64_t> norms(static_cast<size_t>(n));
  if (rule.needs.attention) {
    std::vector<double> weights(entries.size());
    double sum = 0;
    int64_t visible = 0;
    for (size_t i = 0; i < entries.size(); ++i) {
      const BlockEntry& e = entries[i];
      const int32_t tokens = e.slot_end - e.slot_begin;
      const double jitter = 0.5 + unit_interval(dice());
      weights[i] = tokens * jitter * std::exp(8 * heat.at(e.first_position) - 4);
      sum += weights[i];
      visible += tokens;
    }
    for (size_t i = 0; i < entries.size(); ++i) {
      const auto mass = static_cast<int64_t>(config.n_heads * kMassUnit * weights[i] / sum);
      const int64_t tokens = entries[i].slot_end - entries[i].slot_begin;
      uses[i].mass = mass * n;
      uses[i].last_used =
          is_fair_share(mass, config.n_heads, tokens, visible) ? static_cast<int32_t>(last) : -1;
    }
  }
  for (int32_t i = 0; i < n; ++i) {
    const int64_t first = (cache.length(id) + i) / config.block_size * config.block_size;
    norms[i] = norm_to_fixed(static_cast<float>(1 + 20 * heat.at(first + (int64_t{1} << 32))));
  }
  cache.observe(id, layer, uses, norms);
}

/// Blocks of one table, by position, that the rule could have dropped long before `decided`, the
/// length of its last decision.
std::set<int64_t> old_blocks(const CacheManager& cache, SequenceId id, int32_t layer,
                             int64_t decided) {
  const LayerRule& rule = cache.policies().layer(layer);
  const TrimSchedule& s = rule.schedule;
  // Younger ones may merely not have had their turn.
  const int64_t age = s.every == 0 ? 0 : int64_t{2} * s.budget + int64_t{8} * s.every;
  std::set<int64_t> old;
  for (const BlockEntry& e : cache.table(id, layer)) {
    const int64_t end = int64_t{e.first_position} + e.slot_end;
    if (!is_protected(s, e.first_position, end, decided) && end + age <= decided) {
      old.insert(e.first_position);
    }
  }
  return old;
}

/// Blocks that stayed everywhere, though what was measured differed.
void report_stayed(const CacheManager& cache, const std::vector<SequenceId>& ids,
                   const std::vector<int64_t>& prompts, Findings& findings) {
  std::set<int64_t> stayed;
  int64_t tables = 0;
  for (int32_t layer = 0; layer < cache.config().n_layers; ++layer) {
    if (!cache.policies().layer(layer).trims()) continue;
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool once = cache.policies().layer(layer).schedule.every == 0;
      std::set<int64_t> old =
          old_blocks(cache, ids[i], layer, once ? prompts[i] : cache.length(ids[i]));
      if (tables++ == 0) {
        stayed = std::move(old);
      } else {
        std::erase_if(stayed, [&](int64_t position) { return !old.contains(position); });
      }
    }
  }
  if (stayed.empty()) return;
  findings.warning(
      FindingKind::kForgotten,
      "the block at position {} (blocks of {}) stayed in all {} tables of a long run, "
      "whatever was measured, as {} did in all; if it is to stay, have it protected by "
      "TrimSchedule::keep_first",
      *stayed.begin(), cache.config().block_size, tables, stayed.size());
}

/// Steps of the sequences in any order until each has `length` positions.
void grow_all(CacheManager& cache, std::vector<SequenceId> growing, int64_t length, uint64_t seed,
              Dice& dice, Recorder& recorder) {
  while (!growing.empty()) {
    const SequenceId id = growing[dice() % growing.size()];
    const int64_t most = std::min(cache.max_next(id), length - cache.length(id));
    const auto n = static_cast<int32_t>(1 + dice() % static_cast<uint64_t>(most));
    if (!cache.reserve(id, n)) fail(ErrorCode::kInternal, "a simulated run ran out of pages");
    for (int32_t layer = 0; layer < cache.config().n_layers; ++layer) {
      observe(cache, id, layer, n, seed, dice);
    }
    recorder.sequence = id;
    cache.commit(id);
    cache.tick();
    if (cache.length(id) == length) std::erase(growing, id);
  }
}

}  // namespace

CacheRun run_cache(const std::shared_ptr<const EvictionPolicy>& policy,
                   const ConformanceOptions& options, int32_t block_size, Dice& dice,
                   Findings& findings) {
  const auto recorder = std::make_shared<Recorder>(policy, findings);
  const PolicyMap policies = PolicyMap::uniform(recorder, options.n_layers);
  CacheRun run;
  bool is_long = true;
  Extent extent = extent_of(policies, block_size, 4, 24);
  if (extent.work > kMostWork) {
    is_long = false;
    extent = extent_of(policies, block_size, 1, 8);
  }
  if (extent.work > kMostWork) {
    run.skipped = fmt::format(
        "no run of {} positions in blocks of {}: that takes too long; check the rule with a "
        "smaller budget too",
        extent.length, block_size);
    return run;
  }
  recorder->share = kSample / static_cast<double>(std::max<int64_t>(1, extent.decisions));
  recorder->dice.seed(options.seed);
  const int64_t pages =
      kSequences * CacheManager::pages_needed(policies, block_size, extent.length, kMostChunk);
  const CacheConfig config{.n_layers = options.n_layers,
                           .n_heads = options.n_heads,
                           .block_size = block_size,
                           .n_pages = static_cast<int32_t>(pages),
                           .layout = 1,
                           .max_sequences = kSequences,
                           .max_positions = extent.length,
                           .max_chunk = kMostChunk,
                           .event_capacity = 0};
  CacheManager cache(config, policies);

  std::vector<SequenceId> ids;
  std::vector<int64_t> prompts;
  for (int32_t i = 0; i < kSequences; ++i) {
    ids.push_back(cache.open());
    prompts.push_back(extent.prompt + (extent.prompt > 0 ? i * block_size : 0));
    cache.set_prompt(ids.back(), prompts.back());
  }
  grow_all(cache, ids, extent.length, options.seed, dice, *recorder);
  cache.check_integrity();
  if (is_long) report_stayed(cache, ids, prompts, findings);

  std::stable_sort(recorder->kept.begin(), recorder->kept.end(), [](const auto& a, const auto& b) {
    return a.scene.sequence < b.scene.sequence;
  });
  for (auto& [scene, answer] : recorder->kept) {
    run.scenes.push_back(std::move(scene));
    run.answers.push_back(std::move(answer));
  }
  return run;
}

}  // namespace paddock
