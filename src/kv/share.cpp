// Layers that share what a sequence may keep by need: at a decision, before any of them decides,
// all are asked how much they want, and each goes by its share until the next.
//
// Shares move only where the layers hold more than they may in all. So something leaves whenever
// they do, and a sequence that may be taken back to a length has the shares that it had there.
#include <algorithm>

#include "kv/cache_impl.h"

namespace paddock {

bool CacheManager::Impl::is_over(const CachedSequence& sequence, const PolicyMap::Sharers& group,
                                 int64_t length, int64_t n) {
  const int32_t budget = budget_of(sequence, group);
  if (budget == kUnlimited) return false;
  if (!sequence.rule(group.layers[0]).decides_at(length, sequence.prompt)) return false;
  int64_t held = 0;
  for (const int32_t layer : group.layers) held += sequence.layers[layer].tokens + n;
  return held > int64_t{budget} * static_cast<int64_t>(group.layers.size());
}

void CacheManager::Impl::share_by_need(SequenceId id) {
  CachedSequence& sequence = at(id);
  for (const PolicyMap::Sharers& group : sequence.rules->policies.sharers()) {
    if (!is_over(sequence, group, sequence.length, 0)) continue;
    if (is_known(sequence, sequence.length)) {
      recall_shares(sequence, group);
    } else {
      work_out_shares(sequence, group, budget_of(sequence, group));
      const std::lock_guard lock(mutex);
      note_shares(sequence, group);
    }
    take_shares(sequence, group);
  }
}

void CacheManager::Impl::work_out_shares(const CachedSequence& sequence,
                                         const PolicyMap::Sharers& group, int32_t budget) {
  const size_t n = group.layers.size();
  needs.resize(n);
  bounds.resize(n);
  shared_out.resize(n);
  // Until the next decision a layer must not come to hold more than it may at all.
  const bool is_elastic = group.budget == kUnlimited;
  const RuleSet& rules = *sequence.rules;
  const int64_t room = is_elastic ? slack_of(rules.interval(), budget) : 0;
  const int64_t most = is_elastic ? rules.max_resident - room : kUnlimited;
  for (size_t i = 0; i < n; ++i) {
    const int32_t layer = group.layers[i];
    needs[i] = need_of(sequence, layer);
    bounds[i] = {rules.least_shares[layer], std::min(most, sequence.layers[layer].tokens)};
  }
  share_out(needs, bounds, budget, shared_out);
  for (size_t i = 0; i < n; ++i) shares_of[group.layers[i]] = shared_out[i];
}

void CacheManager::Impl::take_shares(CachedSequence& sequence, const PolicyMap::Sharers& group) {
  for (const int32_t layer : group.layers) {
    const TrimSchedule schedule =
        schedule_for(*sequence.rules, layer, shares_of[layer]);  // policies are the host's
    const std::lock_guard lock(mutex);
    sequence.layers[layer].schedule = schedule;
  }
}

void CacheManager::Impl::recall_shares(CachedSequence& sequence, const PolicyMap::Sharers& group) {
  for (const int32_t layer : group.layers) {
    const std::span<const DecisionEntry> known = sequence.log->take(sequence.length, layer);
    if (known.size() != 1 || known[0].kind != DecisionKind::kShare) {
      fail(ErrorCode::kInternal, "layer {}: its share at length {} is not known any more", layer,
           sequence.length);
    }
    shares_of[layer] = known[0].first_position;
  }
}

void CacheManager::Impl::note_shares(CachedSequence& sequence, const PolicyMap::Sharers& group) {
  if (sequence.log == nullptr) return;
  for (const int32_t layer : group.layers) {
    sequence.log->append({.length = static_cast<int32_t>(sequence.length),
                          .first_position = shares_of[layer],
                          .layer = layer,
                          .kind = DecisionKind::kShare,
                          .begins = true});
  }
}

}  // namespace paddock
