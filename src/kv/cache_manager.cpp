// Sequences and their tables: pages come, positions are listed, pages go.
#include "kv/cache_manager.h"

#include <algorithm>
#include <utility>

#include "core/checked.h"
#include "kv/cache_impl.h"

namespace paddock {
namespace {

/// Keys met by the queries at positions [first, first + n): each sees min(t + 1, max).
int64_t keys_met(int64_t max, int64_t first, int64_t n) {
  const auto ramp = [](int64_t from, int64_t to) {  // sum of t + 1 for t in [from, to)
    return (to * (to + 1) - from * (from + 1)) / 2;
  };
  const int64_t turn = std::clamp(max, first, first + n);  // from here on every query sees `max`
  return ramp(first, turn) + (first + n - turn) * max;
}

}  // namespace

void fail_all_in_use(int32_t max_sequences) {
  fail(ErrorCode::kInvalidArgument,
       "all {} sequences of the engine are in use; close a session or raise max_sequences",
       max_sequences);
}

// ---- sequences

void CacheManager::Impl::begin(CachedSequence& sequence, DecisionLog* log, const RuleSet& rules) {
  static_cast<SequenceFacts&>(sequence) = {};
  sequence.rules = &rules;
  sequence.live = true;
  sequence.reserved = 0;
  sequence.deciding = false;
  sequence.shared.clear();
  sequence.log = log;
  sequence.protection = nullptr;
  if (log != nullptr) log->rewind();
  sequence.told_hash = PrefixTree::hash_of_root(PrefixTree::root(rules.root));
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    sequence.layers[layer].clear(rules.layer(layer));
  }
}

SequenceId CacheManager::open(DecisionLog* log, RulesId rules, const Protection* protection) {
  for (int32_t id = 0; id < impl_->config.max_sequences; ++id) {
    CachedSequence& sequence = impl_->sequences[id];
    if (sequence.live) continue;
    const std::lock_guard lock(impl_->mutex);
    impl_->begin(sequence, log, impl_->rules(rules));
    sequence.protection = protection;
    ++impl_->live;
    if (impl_->is_observed()) {
      impl_->config.observer->opened(id, false, rules);
      if (protection != nullptr && !protection->is_empty()) {
        impl_->config.observer->protects(id, protection->ranges());
      }
    }
    return id;
  }
  fail_all_in_use(impl_->config.max_sequences);
}

void CacheManager::close(SequenceId id, std::span<const int32_t> tokens, RemovalReason reason) {
  rollback(id);
  CachedSequence& sequence = impl_->at(id);
  const std::lock_guard lock(impl_->mutex);
  impl_->keep_blocks(sequence, tokens, true);
  impl_->unlock_all(sequence);  // so that what the tables list now becomes cached with its block
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    BlockTable& table = sequence.layers[layer];
    impl_->counters[layer].tokens -= table.tokens;
    for (size_t i = 0; i < table.entries.size(); ++i) {
      if (i > 0 && table.entries[i].page == table.entries[i - 1].page) continue;  // its second part
      if (impl_->pool.references(table.entries[i].page) == 1) {
        impl_->log_removal(id, layer, i, reason);
      }
      impl_->drop_page(layer, table.entries[i].page, reason);
    }
    table.clear(sequence.rule(layer));
  }
  if (impl_->is_observed()) impl_->config.observer->closed(id, reason);
  sequence.live = false;
  sequence.log = nullptr;
  sequence.protection = nullptr;
  --(impl_->is_pin(id) ? impl_->pinned : impl_->live);
}

void CacheManager::park(SequenceId id, std::span<const int32_t> tokens) {
  close(id, tokens, RemovalReason::kPreempt);
}

KvPreemption CacheManager::preempt(SequenceId id, std::span<const int32_t> tokens,
                                   KvPreemption whose) {
  rollback(id);  // what it has not committed are no pages that come back
  const int64_t before = available_pages();
  whose.sequence = id;
  whose.step = impl_->steps;
  whose.first_event = impl_->ring.written();
  park(id, tokens);
  whose.pages = available_pages() - before;
  const std::lock_guard lock(impl_->mutex);
  whose.number = impl_->preemptions.next();
  if (impl_->is_observed()) impl_->config.observer->preempted(whose);
  impl_->preemptions.push_or_forget(whose);
  return whose;
}

std::vector<KvPreemption> CacheManager::preemptions(int64_t from) const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->preemptions.since(from);
}

void CacheManager::set_prompt(SequenceId id, int64_t length) {
  CachedSequence& sequence = impl_->at(id);
  const std::lock_guard lock(impl_->mutex);
  if (length <= sequence.length) return;
  sequence.prompt = length;
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {  // it may be time to observe
    if (!sequence.rule(layer).observes_from(sequence.length, length)) continue;
    sequence.layers[layer].is_recent_over = true;
  }
}

bool CacheManager::heeds_prompts(RulesId rules) const {
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    const LayerRule& rule = impl_->rules(rules).layer(layer);
    if (rule.trims() && rule.schedule.every == 0) return true;
  }
  return false;
}

void CacheManager::restore_prompt(SequenceId id, int64_t length) {
  CachedSequence& sequence = impl_->at(id);
  const std::lock_guard lock(impl_->mutex);
  sequence.prompt = length > sequence.length ? length : 0;
}

int64_t CacheManager::max_next(SequenceId id) const {
  const CachedSequence& sequence = impl_->at(id);
  int64_t max = impl_->config.max_chunk;
  if (sequence.log != nullptr && sequence.rules->policies.is_elastic()) {
    max = std::min(max, sequence.log->next_budget_length() - sequence.length);
    if (max <= 0) max = impl_->config.max_chunk;
  }
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    const LayerRule& rule = sequence.rule(layer);
    const int64_t split =
        rule.next_split(sequence.layers[layer].schedule, sequence.length, sequence.prompt);
    max = std::min(max, split - sequence.length);
    if (rule.is_elastic) max = std::min(max, impl_->max_elastic(sequence, layer));
  }
  return max;
}

// ---- a step

int64_t CacheManager::Impl::new_blocks(const CachedSequence& sequence, int64_t n) const {
  const int64_t block = config.block_size;
  return static_cast<int64_t>(ceil_div(sequence.length + n, block)) -
         static_cast<int64_t>(ceil_div(sequence.length, block));
}

int32_t CacheManager::max_reservable(SequenceId id, int32_t n) const {
  const CachedSequence& sequence = impl_->at(id);
  const int64_t block = impl_->config.block_size;
  int64_t blocks = impl_->new_blocks(sequence, n);
  const int64_t copy = impl_->must_copy_tail(sequence) ? 1 : 0;
  while (blocks > 0 && !impl_->has_room(blocks + copy)) --blocks;
  if (blocks == 0 && copy == 1 && !impl_->has_room(copy)) return 0;
  const int64_t listed = static_cast<int64_t>(ceil_div(sequence.length, block)) + blocks;
  return static_cast<int32_t>(std::min<int64_t>(n, listed * block - sequence.length));
}

bool CacheManager::reserve(SequenceId id, int32_t n, int64_t request) {
  CachedSequence& sequence = impl_->at(id);
  const CacheConfig& config = impl_->config;
  if (sequence.reserved != 0 || n < 1 || n > max_next(id) ||
      sequence.length + n > sequence.rules->max_positions) {
    fail(ErrorCode::kInternal, "cannot reserve {} positions after {} (limits {} and {})", n,
         sequence.length, max_next(id), sequence.rules->max_positions);
  }
  const int64_t blocks = impl_->new_blocks(sequence, n);
  const std::lock_guard lock(impl_->mutex);
  impl_->make_log_room(sequence, n);
  impl_->needing = request;
  if (!impl_->find_room(sequence, blocks)) {
    ++impl_->refused;
    if (impl_->is_observed()) impl_->config.observer->refused(id, n);
    return false;
  }
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    impl_->extend(sequence, layer, n);
  }
  sequence.reserved = n;
  impl_->note_pool_peak();
  return true;
}

void CacheManager::Impl::note_pool_peak() {
  pool_peak = std::max<int64_t>(pool_peak, int64_t{pool.used_units()} - pool.reclaimable_units());
}

/// Lists `n` positions more, with new pages where blocks begin.
void CacheManager::Impl::extend(CachedSequence& sequence, int32_t layer, int64_t n) {
  BlockTable& table = sequence.layers[layer];
  const int64_t length = sequence.length;
  const int64_t end = length + n;
  const int64_t block = config.block_size;
  Counters& count = counters[layer];
  table.changes.note(table.n_entries() - (length % block == 0 ? 0 : 1));
  for (int64_t at = length; at < end;) {
    const int64_t first = at / block * block;
    const auto begin = static_cast<int32_t>(at - first);
    const auto stop = static_cast<int32_t>(std::min(end - first, block));
    int32_t page = 0;
    if (begin == 0) {
      page = pool.allocate(config.layout.group(layer).page_class);
      if (!key_norms.empty()) key_norms[page] = 0;
      ++count.active;
      ++count.reserved;
    } else {
      page = table.entries.back().page;
    }
    table.append_part(sequence.rule(layer), page, first, begin, stop, steps);
    count.tokens += stop - begin;
    at = first + stop;
  }
  count.peak = std::max(count.peak, count.active);
}

bool CacheManager::Impl::release_page(int32_t page) {
  if (!pool.release(page)) return false;
  if (config.on_free) config.on_free(page);
  return true;
}

bool CacheManager::Impl::unlist_page(int32_t layer, int32_t page) {
  const bool freed = release_page(page);
  if (!freed && !(pool.references(page) == 1 && node_of[page] >= 0))
    return false;  // others list it
  --counters[layer].active;
  if (!freed) count_cached(layer, page, true);  // the tree alone holds it now
  return freed;
}

void CacheManager::Impl::drop_page(int32_t layer, int32_t page, RemovalReason reason) {
  if (unlist_page(layer, page)) ++counters[layer].removed[static_cast<size_t>(reason)];
}

void CacheManager::Impl::drop_from_view(int32_t layer, int32_t page, RemovalReason reason) {
  ++counters[layer].removed[static_cast<size_t>(reason)];
  if (!unlist_page(layer, page)) ++counters[layer].retained;
}

void CacheManager::commit(SequenceId id, std::span<const int32_t> tokens) {
  CachedSequence& sequence = impl_->at(id);
  std::unique_lock lock(impl_->mutex);
  const int64_t blocks = impl_->new_blocks(sequence, sequence.reserved);
  const int64_t n = sequence.reserved;
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    Impl::Counters& count = impl_->counters[layer];
    const LayerRule& layer_rule = sequence.rule(layer);
    // Under a rule that trims, every query sees all that the table lists up to itself.
    const int64_t held = sequence.layers[layer].tokens - n;
    const int64_t max = layer_rule.max_seen();
    count.read +=
        layer_rule.trims() ? n * held + n * (n + 1) / 2 : keys_met(max, sequence.length, n);
    const int64_t met = std::min(max, layer_rule.trims() ? held + n : sequence.length + n);
    sequence.layers[layer].max_seen = std::max(sequence.layers[layer].max_seen, met);
    count.allocated += blocks;
    count.reserved -= blocks;
  }
  impl_->tokens_written += n;
  sequence.length += n;
  sequence.reserved = 0;
  sequence.deciding = true;
  if (impl_->is_observed()) {
    const bool is_known = static_cast<int64_t>(tokens.size()) >= sequence.length;
    impl_->config.observer->committed(
        id, static_cast<int32_t>(n), blocks,
        is_known ? tokens.subspan(static_cast<size_t>(sequence.length - n), static_cast<size_t>(n))
                 : std::span<const int32_t>());
    impl_->tell_blocks(id, tokens);
  }
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    const LayerRule& layer_rule = sequence.rule(layer);
    if (layer_rule.has_sinks() && sequence.length == layer_rule.splits_at()) {
      sequence.layers[layer].split_sinks(layer_rule);
    }
  }
  impl_->keep_blocks(sequence, tokens, false);  // what is past now, too
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) impl_->release_past(id, layer);
  lock.unlock();  // policies are the host's
  impl_->replay_budgets(id, true);
  impl_->share_by_need(id);
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) impl_->after_commit(id, layer);
  impl_->replay_budgets(id, false);
  lock.lock();
  sequence.deciding = false;
  if (sequence.log != nullptr) sequence.log->reach(sequence.length);
}

void CacheManager::tick() {
  const std::lock_guard lock(impl_->mutex);
  ++impl_->steps;
  if (impl_->is_observed()) {
    impl_->config.observer->ticked(std::max<int64_t>(0, free_pages()),
                                   impl_->pool.reclaimable_units());
  }
}

int64_t CacheManager::steps() const { return impl_->steps; }

/// Drops what no query at the sequence's length or later can see.
void CacheManager::Impl::release_past(SequenceId id, int32_t layer) {
  const CachedSequence& sequence = at(id);
  const Visibility& v = sequence.rule(layer).visibility;
  if (v.window == kUnlimited) return;
  BlockTable& table = sequences[id].layers[layer];
  const auto is_window = [&](const BlockEntry& e) {
    return int64_t{e.first_position} + e.slot_begin >= v.sinks;
  };
  const auto first = static_cast<size_t>(
      std::find_if(table.entries.begin(), table.entries.end(), is_window) - table.entries.begin());
  size_t keep = first;
  for (; keep < table.entries.size(); ++keep) {
    const BlockEntry& e = table.entries[keep];
    const int64_t begin = int64_t{e.first_position} + e.slot_begin;
    const int64_t end = int64_t{e.first_position} + config.block_size;
    if (!is_past(v, sequence.length, begin, end - begin)) break;
    table.tokens -= e.slot_end - e.slot_begin;
    counters[layer].tokens -= e.slot_end - e.slot_begin;
    if (e.slot_begin != 0) {  // the page stays for its sinks
      if (is_observed()) config.observer->passed(id, layer, begin, e.slot_end - e.slot_begin);
      continue;
    }
    log_removal(id, layer, keep, RemovalReason::kWindow);
    drop_from_view(layer, e.page, RemovalReason::kWindow);
  }
  table.erase(first, keep);
}

// ---- what a step reads

int32_t CacheManager::reserved(SequenceId id) const { return impl_->at(id).reserved; }
int64_t CacheManager::length(SequenceId id) const { return impl_->at(id).length; }

std::span<const BlockEntry> CacheManager::table(SequenceId id, int32_t layer) const {
  return impl_->at(id).layers[layer].entries;
}

const ChangeLog& CacheManager::changes(SequenceId id, int32_t layer) const {
  return impl_->at(id).layers[layer].changes;
}

std::span<const Rotation> CacheManager::rotations(SequenceId id, int32_t layer) const {
  const LayerRule& layer_rule = rule(id, layer);
  return layer_rule.moves_queries() ? impl_->at(id).layers[layer].rotations : layer_rule.rotations;
}

RulesId CacheManager::rules_of(SequenceId id) const { return impl_->at(id).rules->number; }
const LayerRule& CacheManager::rule(SequenceId id, int32_t layer) const {
  return impl_->at(id).rule(layer);
}
const PolicyMap& CacheManager::policies(RulesId rules) const {
  return impl_->rules(rules).policies;
}
int64_t CacheManager::max_positions(RulesId rules) const {
  return impl_->rules(rules).max_positions;
}
int32_t CacheManager::n_rules() const { return static_cast<int32_t>(impl_->rule_sets.size()); }

PolicyNeeds CacheManager::needs(SequenceId id, int32_t layer) const {
  const CachedSequence& sequence = impl_->at(id);
  return {.attention = sequence.rule(layer).needs.attention,
          .key_norms = sequence.rules->norms[layer] != 0};
}

PolicyNeeds CacheManager::needs(int32_t layer) const {
  PolicyNeeds needs;
  for (const RuleSet& rules : impl_->rule_sets) {
    needs.attention |= rules.layer(layer).needs.attention;
    needs.key_norms |= rules.layer(layer).needs.key_norms;
  }
  return needs;
}

const CacheConfig& CacheManager::config() const { return impl_->config; }

void CacheManager::destinations(SequenceId id, int32_t layer, std::span<KvDestination> out) const {
  const CachedSequence& sequence = impl_->at(id);
  sequence.layers[layer].find_destinations(sequence.length, out);
}

}  // namespace paddock
