// The laws that the cache's books must obey at any time.
#include <new>

#include "kv/cache_impl.h"

namespace paddock {
namespace {

using Census = CacheManager::Impl::Census;

/// Whether an entry makes sense after one that ended at position `past`.
bool is_sound(const BlockEntry& e, int64_t past, const CacheConfig& config, size_t n_rotations) {
  return e.page >= 0 && e.page < config.n_pages && e.slot_begin < e.slot_end &&
         e.slot_end <= config.block_size && e.first_position % config.block_size == 0 &&
         int64_t{e.first_position} + e.slot_begin > past && e.rotation >= 0 &&
         e.rotation < static_cast<int64_t>(n_rotations);
}

struct Listed {
  int64_t pages = 0;  // that no table before listed
  int64_t tokens = 0;
  int64_t past = -1;  // last position
};

Listed take_census(const BlockTable& table, const LayerRule& rule, int32_t layer,
                   const CacheConfig& config, Census& census) {
  if (table.records.size() != table.entries.size()) {
    fail(ErrorCode::kInternal, "layer {}: {} entries have {} records", layer, table.entries.size(),
         table.records.size());
  }
  const size_t n_rotations = rule.moves_queries() ? table.rotations.size() : rule.rotations.size();
  Listed listed;
  int32_t last_page = -1;
  for (const BlockEntry& e : table.entries) {
    if (!is_sound(e, listed.past, config, n_rotations)) {
      fail(ErrorCode::kInternal, "layer {}: a table entry at position {} is malformed", layer,
           e.first_position);
    }
    listed.past = int64_t{e.first_position} + e.slot_end - 1;
    listed.tokens += e.slot_end - e.slot_begin;
    if (e.page == last_page) continue;
    ++census.references[e.page];
    listed.pages += census.listed[e.page] == 0 ? 1 : 0;  // several sequences may list one
    census.listed[e.page] = 1;
    last_page = e.page;
  }
  return listed;
}

void check_sequence(const CachedSequence& sequence, const Listed& listed, const LayerRule& rule,
                    int32_t layer) {
  const BlockTable& table = sequence.layers[layer];
  if (!sequence.live) {
    if (table.entries.empty()) return;
    fail(ErrorCode::kInternal, "layer {}: a closed sequence still lists pages", layer);
  }
  if (listed.tokens != table.tokens) {
    fail(ErrorCode::kInternal, "layer {}: a table lists {} positions but counts {}", layer,
         listed.tokens, table.tokens);
  }
  const int64_t end = sequence.length + sequence.reserved;
  if (listed.past != end - 1 &&
      !is_past(rule.visibility, sequence.length, listed.past + 1, end - listed.past - 1)) {
    fail(ErrorCode::kInternal,
         "layer {}: a table ends at position {} although later ones, up to {}, will be seen", layer,
         listed.past, end - 1);
  }
  if (rule.decides_at(sequence.length, sequence.prompt) && sequence.reserved == 0 &&
      !sequence.deciding && table.tokens > table.schedule.budget) {
    fail(ErrorCode::kInternal,
         "layer {}: {} positions are resident after a decision of '{}', whose budget is {}", layer,
         table.tokens, rule.name, table.schedule.budget);
  }
}

/// Blocks that a sequence has locked in the tree are its first ones: it lists their pages, but for
/// what its windows have passed.
void check_shared(const CacheManager::Impl& cache, const CachedSequence& sequence, int32_t layer) {
  const BlockTable& table = sequence.layers[layer];
  const int64_t block_size = cache.config.block_size;
  const Visibility& v = sequence.rule(layer).visibility;
  for (size_t i = 0; i < (sequence.live ? sequence.shared.size() : 0); ++i) {
    if (cache.tree.root_of(sequence.shared[i]) != sequence.rules->root) {
      fail(ErrorCode::kInternal, "a sequence shares block {} with others that see otherwise", i);
    }
    const int64_t first = static_cast<int64_t>(i) * block_size;
    const int64_t entry = table.entry_of(first);
    const bool is_listed = entry < table.n_entries() &&
                           cache.tree.pages(sequence.shared[i])[layer] == table.entries[entry].page;
    if (is_listed ||
        (entry == table.n_entries() && is_past(v, sequence.length, first, block_size))) {
      continue;
    }
    fail(ErrorCode::kInternal, "layer {}: a sequence does not list block {}, which it shares",
         layer, i);
  }
}

/// What the log has told so far has left, and what it will tell is still there.
void check_log(const CachedSequence& sequence) {
  if (!sequence.live || sequence.log == nullptr || sequence.deciding) return;
  const DecisionLog& log = *sequence.log;
  bool is_right = sequence.length <= log.reaches();
  for (int64_t i = 0; i < log.n_entries(); ++i) {
    const DecisionEntry& e = log.entries()[static_cast<size_t>(i)];
    const bool is_past = i < log.taken();
    is_right &= is_past == (e.length <= sequence.length) && e.length <= log.reaches();
    if (e.kind == DecisionKind::kBudget || e.kind == DecisionKind::kShare) continue;
    const BlockTable& table = sequence.layers[e.layer];
    if (e.kind == DecisionKind::kRunnerUp || e.first_position >= sequence.length) continue;
    is_right &= is_past == (table.entry_of(e.first_position) == table.n_entries());
  }
  if (is_right) return;
  fail(ErrorCode::kInternal,
       "a sequence of {} positions does not list what {} of {} logged decisions, up to {}, left it",
       sequence.length, log.taken(), log.n_entries(), log.reaches());
}

void check_layer(const CacheManager::Impl& cache, int32_t layer, Census& census) {
  const CacheManager::Impl::Counters& count = cache.counters[layer];
  int64_t tokens = 0;
  int64_t pages = 0;
  for (const CachedSequence& sequence : cache.sequences) {
    const LayerRule& rule = sequence.rule(layer);
    const Listed listed = take_census(sequence.layers[layer], rule, layer, cache.config, census);
    check_sequence(sequence, listed, rule, layer);
    check_shared(cache, sequence, layer);
    tokens += listed.tokens;
    pages += listed.pages;
  }
  int64_t cached = 0;
  cache.tree.for_each([&](int32_t node, std::span<const int32_t> block_pages) {
    const int32_t page = block_pages[layer];
    if (page < 0) return;
    if (cache.node_of[page] != node) {
      fail(ErrorCode::kInternal, "layer {}: page {} of a kept block is not known as its", layer,
           page);
    }
    ++census.references[page];
    const bool is_listed = census.listed[page] != 0;
    if (!is_listed) ++cached;
    if (cache.pool.is_reclaimable(page) == is_listed) {
      fail(ErrorCode::kInternal, "layer {}: whether the kept page {} may leave is not known", layer,
           page);
    }
    if (cache.passed.has(page) != (!is_listed && cache.tree.locks(node) > 0)) {
      fail(ErrorCode::kInternal, "layer {}: whether page {} has been passed is not known", layer,
           page);
    }
  });
  int64_t removed = 0;
  for (const int64_t n : count.removed) removed += n;
  if (pages != count.active || tokens != count.tokens || cached != count.cached ||
      count.allocated + count.reserved + count.retained - removed - count.merged !=
          count.active + count.cached) {
    fail(ErrorCode::kInternal,
         "layer {}: tables list {} pages and {} tokens, {} pages are kept; counters say {}, {} and "
         "{}, {} allocated, {} reserved, {} removed, {} of them retained, {} merged",
         layer, pages, tokens, cached, count.active, count.tokens, count.cached, count.allocated,
         count.reserved, removed, count.retained, count.merged);
  }
  census.units += (pages + cached) * cache.config.layout.page_units(layer);
}

}  // namespace

void CacheManager::check_integrity() const {
  const std::lock_guard lock(impl_->mutex);
  const CacheConfig& config = impl_->config;
  Census& census = impl_->census;
  census.references.assign(static_cast<size_t>(config.n_pages), 0);
  census.listed.assign(static_cast<size_t>(config.n_pages), 0);
  census.units = 0;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) check_layer(*impl_, layer, census);
  for (const CachedSequence& sequence : impl_->sequences) check_log(sequence);
  for (int32_t page = 0; page < config.n_pages; ++page) {
    if (census.references[page] != impl_->pool.references(page)) {
      fail(ErrorCode::kInternal, "page {} is listed by {} tables but has {} references", page,
           census.references[page], impl_->pool.references(page));
    }
  }
  int64_t cached_units = 0;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    cached_units += impl_->counters[layer].cached * config.layout.page_units(layer);
  }
  if (cached_units != impl_->pool.reclaimable_units()) {
    fail(ErrorCode::kInternal, "{} units are kept but {} may be reclaimed", cached_units,
         impl_->pool.reclaimable_units());
  }
  impl_->tree.check_integrity();
  impl_->pool.check_integrity();
  if (census.units != impl_->pool.used_units() || impl_->pool.limit() < impl_->limit) {
    fail(ErrorCode::kInternal, "{} pages are held, {} in use, of {} that may be and {} of the pool",
         census.units, impl_->pool.used_units(), impl_->limit, impl_->pool.limit());
  }
}

void CacheManager::check_step() const {
#ifdef PADDOCK_CHECK_STEPS
  try {
    check_integrity();
  } catch (const std::bad_alloc&) {  // no memory to look with, which is no fault of the books
  }
#endif
}

}  // namespace paddock
