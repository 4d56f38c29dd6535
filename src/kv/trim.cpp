// Decisions of rules that trim: what attention did is added up, the policy is asked, its answer is
// checked, blocks leave.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <utility>

#include "core/log.h"
#include "kv/cache_impl.h"

namespace paddock {
namespace {

constexpr int64_t kSlowNanoseconds = 1'000'000;

int64_t nanoseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() -
                                                              start)
      .count();
}

/// For each block that leaves, in their order: the smallest budget from which on it would have
/// stayed. Whole blocks leave until what is left fits the budget, so a block stays if those before
/// it are enough. That alone would be one subtraction. But where keep_newest grows with the budget
/// (TrimSchedule::newest_divisor), a larger one also protects some of the blocks before: they would
/// not have left, and this one would have had to go in their place.
class SufficientBudget {
 public:
  SufficientBudget(const TrimSchedule& schedule, int64_t length, int64_t tokens,
                   std::vector<std::pair<int64_t, int64_t>>& scratch)
      : schedule_(schedule), length_(length), tokens_(tokens), spared_(scratch) {
    spared_.clear();
  }

  int64_t of_next(const BlockInfo& block) {
    const int64_t own = protected_from(block);
    int64_t leaves_at = 0;  // the largest budget under which it leaves
    int64_t from = 0;
    int64_t gone = gone_;
    for (const auto& [budget, n_tokens] :
         spared_) {  // upwards: from each on, one block fewer is gone
      const int64_t last = std::min({budget, tokens_ - gone, own}) - 1;
      if (last >= from) leaves_at = last;
      from = budget;
      gone -= n_tokens;
    }
    const int64_t last = std::min(tokens_ - gone, own) - 1;
    if (last >= from) leaves_at = last;
    add(own, block.n_tokens);
    return leaves_at + 1;
  }

 private:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  /// The smallest budget under which the block is among the newest positions that are protected.
  int64_t protected_from(const BlockInfo& block) const {
    if (schedule_.newest_divisor == 0) return kNever;
    return schedule_.newest_divisor * (length_ - block.first_position - block.n_tokens + 1);
  }
  void add(int64_t budget, int64_t n_tokens) {
    gone_ += n_tokens;
    if (budget == kNever) return;
    const std::pair<int64_t, int64_t> entry{budget, n_tokens};
    spared_.insert(std::upper_bound(spared_.begin(), spared_.end(), entry), entry);
  }

  const TrimSchedule& schedule_;
  int64_t length_, tokens_;
  int64_t gone_ = 0;                                  // positions of the blocks before
  std::vector<std::pair<int64_t, int64_t>>& spared_;  // of them, by the budget that protects them
};

}  // namespace

void CacheManager::observe(SequenceId id, int32_t layer, std::span<const BlockUse> uses,
                           std::span<const int64_t> key_norms) {
  CachedSequence& sequence = impl_->at(id);
  BlockTable& table = sequence.layers[layer];
  const std::lock_guard lock(impl_->mutex);
  if (sequence.rule(layer).needs.attention) {
    if (std::exchange(table.is_recent_over, false)) {
      for (BlockRecord& record : table.records) record.recent_mass = 0;
    }
    for (size_t i = 0; i < uses.size(); ++i) {
      BlockRecord& record = table.records[i];
      record.mass += uses[i].mass;
      record.recent_mass += uses[i].mass;
      if (uses[i].last_used >= 0) {
        record.last_used = uses[i].last_used;
        record.last_used_step = impl_->steps;
      }
    }
  }
  if (sequence.rules->norms[layer] != 0) {
    size_t entry = table.entries.size() - 1;
    for (size_t i = key_norms.size(); i-- > 0;) {
      const int64_t position = sequence.length + static_cast<int64_t>(i);
      while (position < table.entries[entry].first_position) --entry;
      impl_->key_norms[table.entries[entry].page] += key_norms[i];
    }
  }
}

void CacheManager::Impl::after_commit(SequenceId id, int32_t layer) {
  CachedSequence& sequence = at(id);
  const LayerRule& rule = sequence.rule(layer);
  if (!rule.trims()) return;
  const bool decides = rule.decides_at(sequence.length, sequence.prompt);
  if (decides) decide(id, layer);
  const std::lock_guard lock(mutex);
  // A rule that decides where prompts end observes the last queries of each. The next prompt may be
  // shorter than that: what came before this decision must not count then.
  if (rule.observes_from(sequence.length, sequence.prompt) ||
      (decides && (rule.schedule.observe == 0 || rule.schedule.every == 0))) {
    sequence.layers[layer].is_recent_over = true;
  }
}

void CacheManager::Impl::decide(SequenceId id, int32_t layer) {
  CachedSequence& sequence = at(id);
  const LayerRule& rule = sequence.rule(layer);
  const int64_t excess = sequence.layers[layer].tokens - sequence.layers[layer].schedule.budget;
  if (excess <= 0) return;
  fill_view(sequence, layer, sequence.layers[layer].schedule);
  const bool known = is_known(sequence, sequence.length);
  if (!known) {
    ask(rule, view_of(sequence, layer), excess);
  }
  rank_all(sequence, layer, candidates);
  const std::lock_guard lock(mutex);
  if (known) {
    recall(sequence, layer);
  } else {
    note_choices(sequence, layer);
  }
  ++counters[layer].decisions;
  remove_victims(id, layer);
}

void CacheManager::Impl::fill_view(const CachedSequence& sequence, int32_t layer,
                                   const TrimSchedule& schedule) {
  const BlockTable& table = sequence.layers[layer];
  view.clear();
  for (size_t i = 0; i < table.entries.size(); ++i) {
    const BlockEntry& e = table.entries[i];
    const BlockRecord& record = table.records[i];
    BlockInfo block;
    block.first_position = int64_t{e.first_position} + e.slot_begin;
    block.n_tokens = e.slot_end - e.slot_begin;
    block.is_protected =
        sequence.protects(schedule, block.first_position, block.first_position + block.n_tokens);
    block.mass = mass_of(record.mass);
    block.recent_mass = mass_of(record.recent_mass);
    block.last_used = record.last_used;
    block.key_norm = key_norm_of(sequence, layer, e);
    view.push_back(block);
  }
}

double CacheManager::Impl::key_norm_of(const CachedSequence& sequence, int32_t layer,
                                       const BlockEntry& e) const {
  if (!sequence.rule(layer).needs.key_norms) return 0;
  return static_cast<double>(key_norms[e.page]) / kNormUnit / (e.slot_end - e.slot_begin);
}

template <typename... Args>
void CacheManager::Impl::violation(const LayerRule& rule, fmt::format_string<Args...> format,
                                   Args&&... args) noexcept {
  std::string what;
  try {
    what =
        fmt::format("policy '{}': {}", rule.name, fmt::format(format, std::forward<Args>(args)...));
  } catch (const std::bad_alloc&) {  // counted all the same
  }
  log(LogLevel::kWarning, "{}; it is overruled", what);
  const std::lock_guard lock(mutex);
  ++violations;
  if (is_observed()) config.observer->violated(what);
  last_violation.swap(what);
}

void CacheManager::Impl::ask(const LayerRule& rule, const LayerView& asked, int64_t excess) {
  victims.clear();
  choices.clear();
  runner_up = -1;
  named.assign(view.size(), 0);
  const auto start = std::chrono::steady_clock::now();
  const bool answered = call(rule, asked, excess);
  const int64_t spent = nanoseconds_since(start);
  int64_t freed = answered ? take_answer(rule, asked.layer, excess) : -1;
  const bool wrong = freed < 0;
  if (wrong) {
    choices.clear();
    named.assign(view.size(), 0);
    freed = 0;
  }
  const bool too_few = !wrong && freed < excess;
  for (size_t i = 0; i < view.size() && freed < excess; ++i) {
    if (view[i].is_protected || named[i] != 0) continue;
    choices.push_back({static_cast<int32_t>(i), 0, true});
    freed += view[i].n_tokens;
  }
  const std::lock_guard lock(mutex);
  policy_nanoseconds += spent;
  if (spent > kSlowNanoseconds) ++slow;
  if (!too_few) return;
  ++shortfalls;
  if (is_observed()) config.observer->fell_short();
}

bool CacheManager::Impl::call(const LayerRule& rule, const LayerView& asked, int64_t excess) {
  try {
    rule.policy->trim(asked, excess, victims);
    return true;
  } catch (const std::exception& e) {
    violation(rule, "trim() threw: {}", e.what());
  } catch (...) {
    violation(rule, "trim() threw something that is no std::exception");
  }
  return false;
}

double CacheManager::Impl::need_of(const CachedSequence& sequence, int32_t layer) {
  const LayerRule& rule = sequence.rule(layer);
  fill_view(sequence, layer, sequence.layers[layer].schedule);
  double need = 0;
  const auto start = std::chrono::steady_clock::now();
  try {
    need = rule.policy->need(view_of(sequence, layer));
  } catch (const std::exception& e) {
    violation(rule, "need() threw: {}", e.what());
  } catch (...) {
    violation(rule, "need() threw something that is no std::exception");
  }
  const int64_t spent = nanoseconds_since(start);
  if (!std::isfinite(need) || need < 0) {
    violation(rule, "need() is {} in layer {}", need, layer);
    need = 0;
  }
  const std::lock_guard lock(mutex);
  policy_nanoseconds += spent;
  return need;
}

int64_t CacheManager::Impl::take_answer(const LayerRule& rule, int32_t layer, int64_t excess) {
  int64_t freed = 0;
  for (const Victim& victim : victims) {
    if (victim.block < 0 || victim.block >= static_cast<int32_t>(view.size())) {
      violation(rule, "trim() named block {} of {}", victim.block, view.size());
      return -1;
    }
    const BlockInfo& block = view[victim.block];
    if (block.is_protected) {
      violation(rule, "trim() named the protected block at position {} in layer {}",
                block.first_position, layer);
      return -1;
    }
    if (named[victim.block] != 0) {
      violation(rule, "trim() named the block at position {} in layer {} twice",
                block.first_position, layer);
      return -1;
    }
    if (!std::isfinite(victim.score)) {
      violation(rule, "trim() gave the block at position {} in layer {} the score {}",
                block.first_position, layer, victim.score);
      return -1;
    }
    if (freed >= excess) {
      runner_up = victim.block;
      runner_up_score = victim.score;
      break;
    }
    named[victim.block] = 1;
    choices.push_back({victim.block, victim.score, false});
    freed += block.n_tokens;
  }
  return freed;
}

void CacheManager::Impl::remove_victims(SequenceId id, int32_t layer) {
  CachedSequence& sequence = at(id);
  BlockTable& table = sequence.layers[layer];
  RemovalEvent details;
  details.left_together = static_cast<int32_t>(choices.size());
  SufficientBudget sufficient(table.schedule, sequence.length, table.tokens, spared);
  if (is_observed()) tell_decision(id, layer);
  for (const Choice& choice : choices) {
    BlockEntry& e = table.entries[choice.block];
    ++details.rank;
    details.sufficient_budget = sufficient.of_next(view[choice.block]);
    details.score = choice.score;
    details.overruled = choice.overruled;
    if (runner_up >= 0) {
      details.runner_up_score = runner_up_score;
      details.runner_up_position = view[runner_up].first_position;
    }
    log_removal(id, layer, static_cast<size_t>(choice.block), RemovalReason::kPolicyTrim, details);
    table.tokens -= e.slot_end - e.slot_begin;
    counters[layer].tokens -= e.slot_end - e.slot_begin;
    drop_from_view(layer, e.page, RemovalReason::kPolicyTrim);
    e.page = -1;
  }
  sequence.trims += static_cast<int64_t>(choices.size());
  if (choices.empty()) return;
  table.erase_dropped();
  table.dropped_at = sequence.length;
  if (sequence.rule(layer).moves_queries()) table.renumber_rotations();
}

}  // namespace paddock
