// Blocks that outlive their sequences: kept, listed again, reclaimed when pages run short.
#include <algorithm>

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

int64_t CacheManager::match_prefix(SequenceId id, std::span<const int32_t> tokens,
                                   int64_t max_positions, bool counts) {
  CachedSequence& sequence = impl_->at(id);
  if (sequence.length != 0 || sequence.reserved != 0) {
    fail(ErrorCode::kInternal, "only an empty sequence can begin with kept blocks");
  }
  const std::lock_guard lock(impl_->mutex);
  if (!impl_->shares()) return 0;
  const auto block_size = int64_t{impl_->config.block_size};
  impl_->tree.match(tokens, max_positions / block_size, counts, sequence.shared);
  for (BlockTable& table : sequence.layers) table.changes.note(0);
  for (const int32_t node : sequence.shared) {
    impl_->tree.lock(node, impl_->steps);
    for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
      const int32_t page = impl_->tree.pages(node)[layer];
      Impl::Counters& count = impl_->counters[layer];
      if (impl_->pool.references(page) == 1) {  // the tree alone held it
        impl_->pool.set_reclaimable(page, false);
        --count.cached;
        ++count.active;
        count.peak = std::max(count.peak, count.active);
      }
      impl_->pool.retain(page);
      sequence.layers[layer].append_part(rule(layer), page, sequence.length, 0,
                                         static_cast<int32_t>(block_size), impl_->steps);
      count.tokens += block_size;
    }
    sequence.length += block_size;
  }
  return sequence.length;
}

void CacheManager::Impl::keep_blocks(CachedSequence& sequence, std::span<const int32_t> tokens) {
  if (!shares()) return;
  const int64_t block_size = config.block_size;
  const int64_t full = std::min(static_cast<int64_t>(tokens.size()), sequence.length) / block_size;
  for (auto i = static_cast<int64_t>(sequence.shared.size()); i < full; ++i) {
    const int32_t parent = i == 0 ? PrefixTree::kRoot : sequence.shared.back();
    const auto block = tokens.subspan(static_cast<size_t>(i * block_size), block_size);
    int32_t node = tree.find(parent, block);
    if (node >= 0) {
      // Another sequence computed the same and was first. Ours goes with its table, and deeper
      // blocks are kept below the other's.
      tree.lock(node, steps);
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
      in_tree[page] = 1;
    }
  }
}

void CacheManager::Impl::reclaim_block() {
  const int32_t node = tree.evict();
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    const int32_t page = tree.pages(node)[layer];
    RemovalEvent event;
    event.step = steps;
    event.reason = RemovalReason::kCapacity;
    event.layer = layer;
    event.rule = layer_rules[layer];
    event.sequence = -1;
    event.first_position = int64_t{tree.depth(node)} * config.block_size;
    event.n_tokens = config.block_size;
    push_event(event);
    in_tree[page] = 0;
    release_page(page);
    --counters[layer].cached;
    ++counters[layer].removed[static_cast<size_t>(RemovalReason::kCapacity)];
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
