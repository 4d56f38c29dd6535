// Blocks that others can list too: kept when they are full, listed again, merged, reclaimed when
// pages run short, and never written.
#include <algorithm>
#include <utility>

#include "kv/cache_impl.h"

namespace paddock {

bool CacheManager::Impl::shares() const {
  if (!config.keep_blocks) return false;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    const LayerRule& rule = policies.layer(layer);
    if (rule.trims() || rule.visibility.window != kUnlimited) return false;
  }
  return true;
}

bool CacheManager::shares_blocks() const { return impl_->shares(); }

// ---- listed again

int64_t CacheManager::match_prefix(SequenceId id, std::span<const int32_t> tokens,
                                   int64_t max_positions, bool counts) {
  const bool is_empty = length(id) == 0;
  const int64_t listed = list_prefix(id, tokens, max_positions, counts);
  if (is_empty && counts) ask_missing(id, tokens, max_positions);
  return listed;
}

PrefixMiss CacheManager::ask_missing(SequenceId id, std::span<const int32_t> tokens,
                                     int64_t max_positions) {
  const CachedSequence& sequence = impl_->at(id);
  const std::lock_guard lock(impl_->mutex);
  if (!impl_->shares()) return {.reason = MissReason::kNotShared, .position = sequence.length};
  const auto block_size = int64_t{impl_->config.block_size};
  if (sequence.length != static_cast<int64_t>(sequence.shared.size()) * block_size) return {};
  return impl_->tree.ask(tokens, max_positions / block_size, sequence.shared);
}

int64_t CacheManager::list_prefix(SequenceId id, std::span<const int32_t> tokens,
                                  int64_t max_positions, bool counts) {
  CachedSequence& sequence = impl_->at(id);
  if (sequence.reserved != 0) fail(ErrorCode::kInternal, "a step is under way");
  const std::lock_guard lock(impl_->mutex);
  if (!impl_->shares()) return 0;
  const auto block_size = int64_t{impl_->config.block_size};
  const size_t known = sequence.shared.size();
  if (sequence.length / block_size != static_cast<int64_t>(known)) return 0;
  const int64_t before = sequence.length;
  impl_->tree.extend(tokens, max_positions / block_size, counts, sequence.shared);
  if (sequence.shared.size() == known) return 0;
  if (before % block_size != 0) impl_->drop_tail(sequence);
  const auto first = static_cast<int64_t>(known);
  for (BlockTable& table : sequence.layers) table.changes.note(first);
  for (size_t i = known; i < sequence.shared.size(); ++i) {
    const int32_t node = sequence.shared[i];
    impl_->tree.lock(node);
    for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
      const int32_t page = impl_->tree.pages(node)[layer];
      impl_->list_kept(layer, page);
      sequence.layers[layer].append_part(rule(layer), page, sequence.length, 0,
                                         static_cast<int32_t>(block_size), impl_->steps);
      impl_->counters[layer].tokens += block_size;
    }
    sequence.length += block_size;
  }
  impl_->note_pool_peak();
  return sequence.length - before;
}

void CacheManager::Impl::list_kept(int32_t layer, int32_t page) {
  Counters& count = counters[layer];
  if (pool.references(page) == 1) {  // the tree alone held it
    count_cached(layer, page, false);
    ++count.active;
    count.peak = std::max(count.peak, count.active);
  }
  pool.retain(page);
}

void CacheManager::Impl::count_cached(int32_t layer, int32_t page, bool is_cached) {
  pool.set_reclaimable(page, is_cached);
  counters[layer].cached += is_cached ? 1 : -1;
}

void CacheManager::Impl::drop_tail(CachedSequence& sequence) {
  const int64_t n = sequence.length % config.block_size;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    BlockTable& table = sequence.layers[layer];
    if (unlist_page(layer, table.entries.back().page)) ++counters[layer].merged;
    table.entries.pop_back();
    table.records.pop_back();
    table.tokens -= n;
    counters[layer].tokens -= n;
  }
  sequence.length -= n;
}

// ---- kept

void CacheManager::Impl::keep_blocks(CachedSequence& sequence, std::span<const int32_t> tokens,
                                     bool is_ending) {
  const int64_t block_size = config.block_size;
  const int64_t full = std::min(static_cast<int64_t>(tokens.size()), sequence.length) / block_size;
  if (static_cast<int64_t>(sequence.shared.size()) >= full || !shares()) return;
  for (auto i = static_cast<int64_t>(sequence.shared.size()); i < full; ++i) {
    const int32_t parent = i == 0 ? PrefixTree::kRoot : sequence.shared.back();
    const auto block = tokens.subspan(static_cast<size_t>(i * block_size), block_size);
    int32_t node = tree.find(parent, block);
    if (node >= 0) {
      // Another sequence computed the same and was first. Who locks a node lists its pages, so that
      // what a sequence holds of the pool is what its tables list: where bits may differ it waits
      // for its end to put deeper blocks below the other's.
      if (!config.merges_blocks && !is_ending) return;
      tree.lock(node);
      if (!is_ending) merge(sequence, i, node);
      sequence.shared.push_back(node);
      continue;
    }
    node = tree.insert(parent, block);
    if (node < 0) return;
    sequence.shared.push_back(node);
    for (int32_t layer = 0; layer < config.n_layers; ++layer) {
      const int32_t page = sequence.layers[layer].entries[i].page;
      tree.pages(node)[layer] = page;
      pool.retain(page);
      node_of[page] = node;
    }
  }
}

void CacheManager::Impl::merge(CachedSequence& sequence, int64_t i, int32_t node) {
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    BlockTable& table = sequence.layers[layer];
    const int32_t page = tree.pages(node)[layer];
    list_kept(layer, page);
    const int32_t own = std::exchange(table.entries[i].page, page);
    table.changes.note(i);
    if (unlist_page(layer, own)) ++counters[layer].merged;
  }
}

// ---- not written

bool CacheManager::Impl::shares_tail(const CachedSequence& sequence) const {
  if (sequence.length % config.block_size == 0) return false;
  // What is shared is shared in every layer.
  return pool.references(sequence.layers[0].entries.back().page) > 1;
}

bool CacheManager::Impl::must_copy_tail(const CachedSequence& sequence) const {
  if (!shares_tail(sequence)) return false;
  const int32_t page = sequence.layers[0].entries.back().page;
  return node_of[page] < 0 || pool.references(page) > 2;
}

bool CacheManager::Impl::find_room(CachedSequence& sequence, int64_t blocks) {
  if (!shares_tail(sequence)) return make_room(blocks);
  if (make_room(blocks + 1)) {
    if (shares_tail(sequence)) copy_tail(sequence);  // unless what was reclaimed was that block
    return true;
  }
  // There is no page for a copy. Where no other sequence lists the block, the tree lets go of it
  // and of what continues it; then it is this sequence's own.
  if (must_copy_tail(sequence) || !has_room(blocks)) return false;
  const int32_t node = node_of[sequence.layers[0].entries.back().page];
  for (int32_t leaf = -1; leaf != node;) {
    leaf = tree.leaf_below(node);
    tree.take_out(leaf, {.step = steps, .request = needing});
    free_block(leaf, RemovalReason::kCapacity);
  }
  return make_room(blocks);
}

void CacheManager::Impl::copy_tail(CachedSequence& sequence) {
  own_pages.clear();
  try {
    for (int32_t layer = 0; layer < config.n_layers; ++layer) {
      own_pages.push_back(pool.allocate(config.layout.group(layer).page_class));
      if (config.copy_page) {
        config.copy_page(sequence.layers[layer].entries.back().page, own_pages.back());
      }
    }
  } catch (...) {
    for (const int32_t page : own_pages) release_page(page);
    throw;
  }
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    BlockTable& table = sequence.layers[layer];
    Counters& count = counters[layer];
    const int32_t shared = std::exchange(table.entries.back().page, own_pages[layer]);
    int64_t first = table.n_entries() - 1;
    if (table.entries.back().slot_begin != 0) {  // sinks have an entry of their own in it
      table.entries[--first].page = own_pages[layer];
    }
    table.changes.note(first);
    ++count.active;
    ++count.allocated;
    unlist_page(layer, shared);
    count.peak = std::max(count.peak, count.active);
  }
}

// ---- reclaimed

void CacheManager::Impl::reclaim_block() {
  free_block(tree.evict({.step = steps, .request = needing}), RemovalReason::kCapacity);
}

void CacheManager::Impl::free_block(int32_t node, RemovalReason reason) {
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    const int32_t page = tree.pages(node)[layer];
    node_of[page] = -1;
    if (pool.references(page) > 1) {  // a sequence lists the beginning of it
      release_page(page);
      continue;
    }
    RemovalEvent event;
    event.step = steps;
    event.reason = reason;
    event.layer = layer;
    event.rule = layer_rules[layer];
    event.sequence = -1;
    event.first_position = int64_t{tree.depth(node)} * config.block_size;
    event.n_tokens = config.block_size;
    push_event(event);
    count_cached(layer, page, false);
    release_page(page);
    ++counters[layer].removed[static_cast<size_t>(reason)];
  }
}

bool CacheManager::Impl::has_room(int64_t pages_per_layer) {
  for (size_t c = 0; c < wanted.size(); ++c) wanted[c] = pages_per_layer * block_pages[c];
  return pool.fits_after_reclaim(wanted);
}

bool CacheManager::Impl::make_room(int64_t pages_per_layer) {
  if (!has_room(pages_per_layer)) return false;
  while (!pool.fits(wanted)) reclaim_block();
  return true;
}

}  // namespace paddock
