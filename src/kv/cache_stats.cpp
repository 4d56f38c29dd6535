// What the books say: snapshots and the event log.
#include <algorithm>
#include <new>

#include "kv/cache_impl.h"

namespace paddock {

void CacheManager::Impl::log_removal(SequenceId id, int32_t layer, size_t entry,
                                     RemovalReason reason, const RemovalEvent& details) {
  const CachedSequence& sequence = at(id);
  const BlockEntry& e = sequence.layers[layer].entries[entry];
  const BlockRecord& record = sequence.layers[layer].records[entry];
  RemovalEvent event = details;
  event.step = steps;
  event.reason = reason;
  event.layer = layer;
  event.rule = sequence.rules->names[layer];
  event.rules = sequence.rules->number;
  event.sequence = id;
  event.first_position = e.first_position + e.slot_begin;
  event.n_tokens = e.slot_end - e.slot_begin;
  event.length = sequence.length;
  event.age_steps = steps - record.born_step;
  if (record.last_used_step >= 0) event.idle_steps = steps - record.last_used_step;
  event.retained = is_by_rule(reason) && pool.references(e.page) > 1;
  event.measured = sequence.rule(layer).needs.attention;
  event.mass = record.mass;
  if (record.last_used_step >= 0) event.last_used = record.last_used;
  push_event(event);
}

void CacheManager::Impl::push_event(const RemovalEvent& event) {
  const uint64_t number = ring.written();
  ring.push(event);
  if (is_observed()) config.observer->removed(event);
  if (watcher) watcher(this->event(number, event));
  if (!config.queues_events) return;
  try {
    queue.push_back({number, event});
  } catch (const std::bad_alloc&) {  // the ring has it; a decision must not stay half done
  }
}

std::vector<KvEvent> CacheManager::take_queued() {
  std::vector<KvEvent> events;
  if (impl_->queue.empty()) return events;
  const std::lock_guard lock(impl_->mutex);
  events.reserve(impl_->queue.size());
  for (const Impl::Queued& queued : impl_->queue) {
    events.push_back(impl_->event(queued.number, queued.event));
  }
  impl_->queue.clear();
  return events;
}

void CacheManager::watch(std::function<void(const KvEvent&)> on_removal) {
  impl_->watcher = std::move(on_removal);
}

namespace {

KvEvent as_event(uint64_t number, const RemovalEvent& raw,
                 const std::vector<std::string>& rule_names) {
  // All fields by name: the compiler asks here for a new one. The last ones traces alone tell.
  const auto& [step, reason, layer, sequence, rules, rule, n_tokens, first_position, length,
               age_steps, idle_steps, score, runner_up_score, runner_up_position, rank,
               left_together, sufficient_budget, overruled, retained, measured, mass, last_used,
               request, hash] = raw;
  KvEvent event;
  event.number = number;
  event.step = step;
  event.reason = reason;
  event.layer = layer;
  event.sequence = sequence;
  event.first_position = first_position;
  event.n_tokens = n_tokens;
  event.length = length;
  event.age_steps = age_steps;
  event.idle_steps = idle_steps;
  event.overruled = overruled;
  event.score = score;
  event.runner_up_score = runner_up_score;
  event.runner_up_position = runner_up_position;
  event.rank = rank;
  event.left_together = left_together;
  event.sufficient_budget = sufficient_budget;
  event.policy = rule_names[rule];
  return event;
}

}  // namespace

KvEvent CacheManager::Impl::event(uint64_t number, const RemovalEvent& raw) const {
  return as_event(number, raw, rule_names);
}

std::vector<KvEvent> CacheManager::events(uint64_t from) const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<KvEvent> events;
  for (uint64_t i = std::max(from, impl_->ring.oldest()); i < impl_->ring.written(); ++i) {
    events.push_back(impl_->event(i, impl_->ring.at(i)));
  }
  return events;
}

namespace {

void add(KvLayerStats& total, const KvLayerStats& layer) {
  // All fields by name: the compiler asks here for a new one. What is not added up is each layer's
  // own, or the engine's to add (engine_numbers.cpp).
  const auto& [number, policy, pages_active, pages_cached, pages_pinned, pages_peak,
               tokens_resident, tokens_peak, budget, bytes, pages_allocated, pages_removed,
               pages_retained, pages_merged, tokens_read, trim_decisions, kv_overflows,
               attention_seconds] = layer;
  total.pages_active += pages_active;
  total.pages_cached += pages_cached;
  total.pages_pinned += pages_pinned;
  total.tokens_resident += tokens_resident;
  total.tokens_peak = std::max(total.tokens_peak, tokens_peak);
  total.bytes += bytes;
  total.pages_allocated += pages_allocated;
  total.pages_retained += pages_retained;
  total.pages_merged += pages_merged;
  total.tokens_read += tokens_read;
  total.trim_decisions += trim_decisions;
  for (size_t r = 0; r < pages_removed.size(); ++r) total.pages_removed[r] += pages_removed[r];
}

}  // namespace

KvStats CacheManager::stats() const {
  const CacheConfig& config = impl_->config;
  KvStats stats;
  stats.block_size = config.block_size;
  stats.page_bytes = config.layout.unit_bytes();
  stats.pool_max_pages = config.n_pages;
  const std::lock_guard lock(impl_->mutex);
  stats.pool_pages = impl_->limit;
  stats.pool_bytes = stats.pool_pages * config.layout.unit_bytes();
  stats.pages_per_block = block_pages();
  stats.reservations_refused = impl_->refused;
  stats.budget_falls = impl_->n_falls;
  stats.budget_lifts = impl_->n_lifts;
  stats.steps = impl_->steps;
  stats.tokens_written = impl_->tokens_written;
  stats.sequences = impl_->live;
  stats.policy_seconds = static_cast<double>(impl_->policy_nanoseconds) * 1e-9;
  stats.policy_violations = impl_->violations + impl_->tree.violations();
  stats.policy_shortfalls = impl_->shortfalls;
  stats.policy_slow = impl_->slow;
  stats.last_violation =
      impl_->last_violation.empty() ? impl_->tree.last_violation() : impl_->last_violation;
  stats.prefix_lookups = impl_->tree.lookups();
  stats.prefix_hits = impl_->tree.hits();
  stats.reclaim_regrets = impl_->tree.regrets();
  const auto shares = [](const RuleSet& rules) { return rules.shares_blocks; };
  if (std::any_of(impl_->rule_sets.begin(), impl_->rule_sets.end(), shares))
    stats.shadows = impl_->shadows.stats();
  stats.events = impl_->ring.written();
  stats.events_lost = impl_->ring.oldest();
  for (int32_t i = 0; i < config.n_layers; ++i) {
    stats.layers.push_back(impl_->layer_stats(i));
    add(stats.total, stats.layers.back());
  }
  stats.total.pages_peak = impl_->pool_peak;
  stats.pages_free = std::max<int64_t>(0, free_pages());
  for (SequenceId id = 0; id < config.max_sequences; ++id) {  // pins ask nothing
    const CachedSequence& sequence = impl_->sequences[id];
    if (!sequence.live) continue;
    stats.scored_from = std::max(stats.scored_from, impl_->first_scored(sequence));
  }
  return stats;
}

int64_t CacheManager::Impl::first_scored(const CachedSequence& sequence) const {
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    if (sequence.rule(layer).needs.attention) return sequence.scored_from;
  }
  return 0;
}

KvLayerStats CacheManager::Impl::layer_stats(int32_t i) const {
  const Counters& count = counters[i];
  KvLayerStats layer;
  layer.layer = i;
  layer.policy = rule_sets[0].layer(i).name;
  layer.pages_active = count.active;
  layer.pages_cached = count.cached;
  layer.pages_peak = count.peak;
  layer.tokens_resident = count.tokens;
  layer.bytes = count.active * config.layout.group(i).page_bytes;
  layer.pages_allocated = count.allocated;
  layer.pages_removed = count.removed;
  layer.pages_retained = count.retained;
  layer.pages_merged = count.merged;
  layer.tokens_read = count.read;
  layer.trim_decisions = count.decisions;
  for (const CachedSequence& sequence : sequences) {
    if (!sequence.live) continue;
    const LayerRule& rule = sequence.rule(i);
    layer.tokens_peak = std::max(layer.tokens_peak, sequence.layers[i].max_seen);
    const int32_t budget = sequence.layers[i].schedule.budget;
    if (budget != kUnlimited && (layer.budget == 0 || budget < layer.budget)) layer.budget = budget;
    for (const BlockEntry& e : sequence.layers[i].entries) {
      const int64_t first = int64_t{e.first_position} + e.slot_begin;
      const int64_t end = int64_t{e.first_position} + e.slot_end;
      const bool sink = rule.has_window() && first < rule.visibility.sinks;
      if (sink || (rule.trims() && sequence.protects(sequence.layers[i].schedule, first, end))) {
        ++layer.pages_pinned;
      }
    }
  }
  return layer;
}

std::vector<KvBlock> CacheManager::blocks(int32_t layer) const {
  const CacheConfig& config = impl_->config;
  if (layer < 0 || layer >= config.n_layers) {
    fail(ErrorCode::kInvalidArgument, "there is no layer {}; the model's go from 0 to {}", layer,
         config.n_layers - 1);
  }
  const std::lock_guard lock(impl_->mutex);
  std::vector<KvBlock> blocks;
  for (SequenceId id = 0; id < static_cast<SequenceId>(impl_->sequences.size()); ++id) {
    const CachedSequence& sequence = impl_->sequences[id];
    if (!sequence.live) continue;
    const BlockTable& table = sequence.layers[layer];
    const LayerRule& rule = sequence.rule(layer);
    const std::vector<Rotation>& rotations =
        rule.moves_queries() ? table.rotations : rule.rotations;
    for (size_t i = 0; i < table.entries.size(); ++i) {
      const BlockEntry& e = table.entries[i];
      const BlockRecord& record = table.records[i];
      KvBlock block;
      block.sequence = id;
      block.first_position = int64_t{e.first_position} + e.slot_begin;
      block.n_tokens = e.slot_end - e.slot_begin;
      block.query_shift = rotations[e.rotation].query_shift;
      block.query_cap = rotations[e.rotation].query_cap;
      block.born_step = record.born_step;
      block.mass = mass_of(record.mass);
      if (record.last_used_step >= 0) block.last_used = record.last_used;
      block.key_norm = impl_->key_norm_of(sequence, layer, e);
      blocks.push_back(block);
    }
  }
  return blocks;
}

}  // namespace paddock
