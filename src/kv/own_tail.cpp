// Before a sequence writes behind its last full block the pages there are its own alone: copied,
// or let go of by the tree.
#include <algorithm>

#include "kv/cache_impl.h"

namespace paddock {

bool CacheManager::Impl::shares_tail(const CachedSequence& sequence) const {
  if (sequence.length % config.block_size == 0) return false;
  return std::any_of(sequence.layers.begin(), sequence.layers.end(), [&](const BlockTable& table) {
    return pool.references(table.entries.back().page) > 1;
  });
}

bool CacheManager::Impl::must_copy_tail(const CachedSequence& sequence) const {
  if (sequence.length % config.block_size == 0) return false;
  return std::any_of(sequence.layers.begin(), sequence.layers.end(), [&](const BlockTable& table) {
    const int32_t page = table.entries.back().page;
    const int32_t node = node_of[page];
    return pool.references(page) > (node < 0 ? 1 : 2) || (node >= 0 && tree.locks(node) > 0);
  });
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
  for (const BlockTable& table : sequence.layers) {
    const int32_t node = node_of[table.entries.back().page];
    for (int32_t leaf = -1; node >= 0 && leaf != node;) {
      leaf = tree.leaf_below(node);
      reclaim_block(leaf, RemovalReason::kCapacity, {.step = steps, .request = needing});
    }
  }
  return make_room(blocks);
}

void CacheManager::Impl::copy_tail(CachedSequence& sequence) {
  own_pages.clear();
  try {
    for (int32_t layer = 0; layer < config.n_layers; ++layer) {
      const int32_t page = sequence.layers[layer].entries.back().page;
      // It listed the page with others, who have let go of it in this layer: their windows have
      // passed it. So it is the sequence's own already.
      if (pool.references(page) == 1) {
        own_pages.push_back(-1);
        continue;
      }
      own_pages.push_back(pool.allocate(config.layout.group(layer).page_class));
      if (config.copy_page) config.copy_page(page, own_pages.back());
      if (!key_norms.empty()) key_norms[own_pages.back()] = key_norms[page];
    }
  } catch (...) {
    for (const int32_t page : own_pages) {
      if (page >= 0) release_page(page);
    }
    throw;
  }
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    if (own_pages[layer] < 0) continue;
    BlockTable& table = sequence.layers[layer];
    Counters& count = counters[layer];
    const int32_t shared = table.entries.back().page;
    table.replace_page(table.entry_of(table.entries.back().first_position), own_pages[layer]);
    ++count.active;
    ++count.allocated;
    if (is_observed()) config.observer->copied(id_of(sequence), layer);
    unlist_page(layer, shared);
    count.peak = std::max(count.peak, count.active);
  }
}

}  // namespace paddock
