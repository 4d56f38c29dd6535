// The log of a sequence's decisions: what is decided for the first time is written there, and what
// was decided before is read.
#include <algorithm>

#include "core/checked.h"
#include "kv/cache_impl.h"

namespace paddock {
namespace {

/// Entries of a decision that frees `excess` positions: all blocks that may leave are full, and one
/// is the runner-up.
int64_t max_entries_of(int64_t excess, int64_t block_size) {
  return static_cast<int64_t>(ceil_div(excess, block_size)) + 1;
}

}  // namespace

int64_t CacheManager::max_logged(RulesId rules_id, int64_t positions) const {
  const RuleSet& rules = impl_->rules(rules_id);
  const int64_t block_size = impl_->config.block_size;
  int64_t n = 0;
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    const LayerRule& rule = rules.layer(layer);
    const TrimSchedule& schedule = rule.schedule;
    if (!rule.trims() || positions <= schedule.budget) continue;
    // A share may be as little as that.
    const int64_t budget = rule.shares_by_need ? rules.least_shares[layer] : schedule.budget;
    const auto victims = static_cast<int64_t>(ceil_div(positions - budget, block_size)) + 1;
    const int64_t decisions = schedule.every == 0 ? 1 : positions / schedule.every;
    n += victims + std::min(victims, decisions) + (rule.shares_by_need ? decisions : 0);
  }
  return n;
}

void CacheManager::forget_decisions(SequenceId id, int64_t length) {
  CachedSequence& sequence = impl_->at(id);
  const std::lock_guard lock(impl_->mutex);
  if (sequence.log != nullptr) sequence.log->cut(length);
}

bool CacheManager::Impl::is_known(const CachedSequence& sequence, int64_t length) {
  return sequence.log != nullptr && length <= sequence.log->reaches();
}

void CacheManager::Impl::make_log_room(CachedSequence& sequence, int32_t n) {
  const int64_t length = sequence.length + n;
  if (sequence.log == nullptr || is_known(sequence, length)) return;
  int64_t entries = 0;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    if (!sequence.rule(layer).decides_at(length, sequence.prompt)) continue;
    const BlockTable& table = sequence.layers[layer];
    const int64_t excess = table.tokens + n - table.schedule.budget;
    if (excess > 0) entries += max_entries_of(excess, config.block_size);
  }
  for (const PolicyMap::Sharers& group : sequence.rules->policies.sharers()) {
    if (!is_over(sequence, group, length, n)) continue;
    for (const int32_t layer : group.layers) {
      const int64_t least = sequence.rules->least_shares[layer];
      const int64_t excess = std::max<int64_t>(0, sequence.layers[layer].tokens + n - least);
      entries += 1 + max_entries_of(excess, config.block_size);
    }
  }
  sequence.log->make_room(entries);
}

void CacheManager::Impl::replay_budgets(SequenceId id, bool is_before) {
  CachedSequence& sequence = at(id);
  while (sequence.log != nullptr && sequence.log->next_length() <= sequence.length) {
    const int64_t length = sequence.log->next_length();
    if (is_before && length == sequence.length) return;  // first what was decided there
    const std::span<const DecisionEntry> known = sequence.log->take(length, kAllLayers);
    if (known.empty()) return;
    const int32_t budget = known[0].first_position;
    {
      const std::lock_guard lock(mutex);
      if (budget == kUnlimited) {
        lift(sequence);
        continue;
      }
      begin_fall(sequence, budget);
    }
    for (const PolicyMap::Sharers& group : sequence.rules->policies.sharers()) {
      if (group.budget != kUnlimited) continue;
      recall_shares(sequence, group);
      take_shares(sequence, group);
    }
    for (int32_t layer = 0; layer < config.n_layers; ++layer) {
      const LayerRule& rule = sequence.rule(layer);
      if (!rule.is_elastic) continue;
      BlockTable& table = sequence.layers[layer];
      const TrimSchedule schedule =
          rule.shares_by_need ? table.schedule : schedule_for(*sequence.rules, layer, budget);
      const std::lock_guard lock(mutex);
      table.schedule = schedule;
      if (sequence.log->next_length() != length || table.tokens <= schedule.budget) continue;
      fill_view(sequence, layer, schedule);
      recall(sequence, layer);
      candidates.clear();
      ++counters[layer].decisions;
      remove_victims(id, layer);
    }
  }
}

void CacheManager::Impl::recall(CachedSequence& sequence, int32_t layer) {
  choices.clear();
  runner_up = -1;
  const std::span<const DecisionEntry> known = sequence.log->take(sequence.length, layer);
  for (const DecisionEntry& entry : known) {
    const BlockTable& table = sequence.layers[layer];
    const int64_t block = table.entry_of(entry.first_position);
    if (block == table.n_entries()) {
      fail(ErrorCode::kInternal,
           "layer {}: the block at position {} left at length {}, but is not there now", layer,
           entry.first_position, sequence.length);
    }
    if (entry.kind == DecisionKind::kRunnerUp) {
      runner_up = static_cast<int32_t>(block);
      runner_up_score = entry.score;
    } else {
      choices.push_back(
          {static_cast<int32_t>(block), entry.score, entry.kind == DecisionKind::kOverruled});
    }
  }
  if (choices.empty()) {
    fail(ErrorCode::kInternal, "layer {}: what was decided at length {} is not known any more",
         layer, sequence.length);
  }
}

void CacheManager::Impl::note_choices(CachedSequence& sequence, int32_t layer) {
  if (sequence.log == nullptr) return;
  DecisionEntry entry{.length = static_cast<int32_t>(sequence.length), .layer = layer};
  const auto append = [&](int32_t block, double score, DecisionKind kind) {
    entry.first_position = static_cast<int32_t>(view[block].first_position);
    entry.score = score;
    entry.kind = kind;
    entry.begins = kind != DecisionKind::kRunnerUp && block == choices.front().block;
    sequence.log->append(entry);
  };
  for (const Choice& choice : choices) {
    append(choice.block, choice.score,
           choice.overruled ? DecisionKind::kOverruled : DecisionKind::kVictim);
  }
  if (runner_up >= 0) append(runner_up, runner_up_score, DecisionKind::kRunnerUp);
}

}  // namespace paddock
