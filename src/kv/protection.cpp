// What a host protects: the ranges, whether a rule can heed them, and from which budget on.
#include "kv/protection.h"

#include <algorithm>

#include "core/search.h"
#include "kv/cache_impl.h"

namespace paddock {

bool Protection::meets(int64_t first, int64_t end) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const PositionRange& range) {
    return range.first < end && first < range.end;
  });
}

int64_t Protection::n_blocks(int64_t block_size) const {
  int64_t n = 0, next = 0;  // the first block that is not counted yet
  for (const PositionRange& range : ranges_) {
    const int64_t end = (range.end - 1) / block_size + 1;
    n += std::max<int64_t>(0, end - std::max(next, range.first / block_size));
    next = end;
  }
  return n;
}

Protection Protection::with(PositionRange range) const {
  Protection all;
  for (const PositionRange& other : ranges_) {
    if (other.end < range.first || range.end < other.first) {
      all.ranges_.push_back(other);
    } else {
      range = {std::min(range.first, other.first), std::max(range.end, other.end)};
    }
  }
  const auto at = std::find_if(all.ranges_.begin(), all.ranges_.end(),
                               [&](const PositionRange& r) { return range.end < r.first; });
  all.ranges_.insert(at, range);
  return all;
}

Protection Protection::without(PositionRange range) const {
  Protection all;
  for (const PositionRange& other : ranges_) {
    const PositionRange before{other.first, std::min(other.end, range.first)};
    const PositionRange after{std::max(other.first, range.end), other.end};
    if (before.first < before.end) all.ranges_.push_back(before);
    if (after.first < after.end) all.ranges_.push_back(after);
  }
  return all;
}

void Protection::cut(int64_t length) {
  while (!ranges_.empty() && ranges_.back().first >= length) ranges_.pop_back();
  if (!ranges_.empty()) ranges_.back().end = std::min(ranges_.back().end, length);
}

namespace {

/// Error kInvalidArgument where the rule of a layer, whatever its budget, cannot heed it.
void check_heeds(const LayerRule& rule, int32_t layer) {
  if (rule.has_window()) {
    fail(ErrorCode::kInvalidArgument,
         "layer {} is under '{}', which goes by position alone: nothing in it can be protected; "
         "use a rule that chooses, such as h2o:{}",
         layer, rule.name, rule.splits_at());
  }
  if (rule.shares_by_need) {
    fail(ErrorCode::kInvalidArgument,
         "layer {} is under '{}', whose layers share their budgets by need, so that none is sure "
         "to have room for what is protected; use a rule whose budgets are its own, such as h2o",
         layer, rule.name);
  }
}

}  // namespace

int32_t CacheManager::check_protection(RulesId rules_id, const Protection& protection) const {
  const RuleSet& rules = impl_->rules(rules_id);
  const int32_t block_size = impl_->config.block_size;
  if (protection.is_empty()) return rules.least_budget;
  const int64_t tokens = protection.n_blocks(block_size) * block_size;
  bool is_elastic = false;
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    const LayerRule& rule = rules.layer(layer);
    check_heeds(rule, layer);
    is_elastic |= rule.is_elastic;
    const int64_t budget = rule.schedule.budget;
    const int64_t needed = tokens + most_protected(rule.schedule, block_size);
    if (budget == kUnlimited || needed <= budget) continue;
    fail(ErrorCode::kInvalidArgument,
         "layer {} under '{}' keeps {} positions, too few for the {} in the blocks to be protected "
         "and up to {} that the rule protects itself; protect fewer, or raise the budget to {}",
         layer, rule.name, budget, tokens, needed - tokens, needed);
  }
  if (!is_elastic) return rules.least_budget;
  const auto fits = [&](int64_t budget) {
    for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
      if (!rules.layer(layer).is_elastic) continue;
      const TrimSchedule asked =
          impl_->schedule_for(rules, layer, static_cast<int32_t>(budget - block_size));
      if (tokens + most_protected(asked, block_size) > asked.budget) return false;
    }
    return true;
  };
  const int64_t low = int64_t{rules.least_budget} + block_size;
  const int64_t most = std::min<int64_t>(most_budget(rules_id), kUnlimited / 4);
  if (most < low || !fits(most)) {
    fail(ErrorCode::kInvalidArgument,
         "the blocks to be protected have {} positions, which leaves the rules '{}' nothing to "
         "choose from in any budget up to {}; protect fewer positions",
         tokens, rules.layer(0).name, most);
  }
  return static_cast<int32_t>(smallest(low, most, fits));
}

void CacheManager::set_protection(Protection& protection, Protection& next,
                                  std::optional<SequenceId> tables) const noexcept {
  const std::lock_guard lock(impl_->mutex);
  std::swap(protection, next);
  if (!impl_->is_observed() || !tables || protection == next) return;
  impl_->config.observer->protects(*tables, protection.ranges());
}

}  // namespace paddock
