// What an observer is told beyond single events: the hashes of full blocks, each decision before
// its victims go, and all blocks among which a rule chose, in the order of its scores.
#include <algorithm>
#include <cmath>

#include "kv/cache_impl.h"

namespace paddock {

void CacheManager::Impl::note_merge(const CachedSequence& sequence, int32_t layer) {
  ++counters[layer].merged;
  if (is_observed()) config.observer->merged(id_of(sequence), layer);
}

void CacheManager::Impl::tell_found(SequenceId id, std::span<const int32_t> tokens, size_t known,
                                    int64_t lookups, int64_t hits) {
  const int64_t from = static_cast<int64_t>(known) * config.block_size;
  const int64_t to = at(id).length;
  config.observer->found({.sequence = id, .from = from, .to = to, .lookups = lookups, .hits = hits},
                         tokens.subspan(static_cast<size_t>(from), static_cast<size_t>(to - from)));
  tell_blocks(id, tokens);
}

void CacheManager::Impl::tell_blocks(SequenceId id, std::span<const int32_t> tokens) {
  CachedSequence& sequence = at(id);
  const int64_t block_size = config.block_size;
  const int64_t full = std::min(static_cast<int64_t>(tokens.size()), sequence.length) / block_size;
  for (int64_t& i = sequence.told_blocks; i < full; ++i) {
    const auto first = static_cast<size_t>(i * block_size);
    sequence.told_hash = PrefixTree::hash_block(
        sequence.told_hash, tokens.subspan(first, static_cast<size_t>(block_size)));
    config.observer->filled(id, i, sequence.told_hash);
  }
}

void CacheManager::Impl::tell_decision(SequenceId id, int32_t layer) {
  const CachedSequence& sequence = at(id);
  const BlockTable& table = sequence.layers[layer];
  DecisionFacts facts{.sequence = id,
                      .layer = layer,
                      .tokens = table.tokens,
                      .schedule = table.schedule,
                      .n_leaving = static_cast<int32_t>(choices.size()),
                      .is_replayed = is_known(sequence, sequence.length)};
  if (runner_up >= 0) {
    facts.runner_up_position = view[runner_up].first_position;
    facts.runner_up_score = runner_up_score;
  }
  config.observer->decided(facts);
  if (!candidates.empty()) config.observer->chose_among(candidates);
}

void CacheManager::Impl::rank_all(const CachedSequence& sequence, int32_t layer,
                                  std::vector<CandidateFacts>& all) {
  all.clear();
  if (!is_observed() || !config.observer->wants_candidates()) return;
  const BlockTable& table = sequence.layers[layer];
  int64_t open = 0;  // positions that may leave
  for (size_t i = 0; i < view.size(); ++i) {
    const BlockRecord& record = table.records[i];
    all.push_back({.first_position = view[i].first_position,
                   .n_tokens = view[i].n_tokens,
                   .is_protected = view[i].is_protected,
                   .mass = record.mass,
                   .recent_mass = record.recent_mass,
                   .last_used = record.last_used_step >= 0 ? record.last_used : -1,
                   .key_norm = static_cast<float>(view[i].key_norm)});
    if (!view[i].is_protected) open += view[i].n_tokens;
  }
  ranking.clear();
  try {
    sequence.rule(layer).policy->trim(view_of(sequence, layer), open, ranking);
  } catch (...) {  // what it says when it really decides is judged there
    return;
  }
  for (const Victim& victim : ranking) {
    if (victim.block < 0 || victim.block >= static_cast<int32_t>(view.size())) continue;
    CandidateFacts& candidate = all[static_cast<size_t>(victim.block)];
    if (candidate.is_protected || candidate.is_ranked || !std::isfinite(victim.score)) continue;
    candidate.is_ranked = true;
    candidate.score = victim.score;
  }
}

}  // namespace paddock
