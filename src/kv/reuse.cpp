// Blocks that outlive their sequences: named, kept, attached again, reclaimed when pages run short.
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

int64_t CacheManager::attach(SequenceId id, std::span<const uint64_t> names, int64_t most,
                             bool counts) {
  Sequence& sequence = impl_->at(id);
  if (sequence.length != 0 || sequence.reserved != 0) {
    fail(ErrorCode::kInternal, "blocks are attached to empty sequences only");
  }
  const std::lock_guard lock(impl_->mutex);
  sequence.names.assign(names.begin(), names.end());
  if (!impl_->shares()) return 0;
  const int64_t block_size = impl_->config.block_size;
  for (const uint64_t name : names) {
    if (sequence.length + block_size > most) break;
    const int32_t block = impl_->index.look_up(name, counts);
    if (block < 0) break;
    impl_->index.hold(block, impl_->steps);
    sequence.attached.push_back(block);
    for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
      const int32_t page = impl_->index.pages(block)[layer];
      Impl::Counters& count = impl_->counters[layer];
      if (impl_->pool.references(page) == 1) {  // the index alone held it
        --count.cached;
        ++count.active;
        count.peak = std::max(count.peak, count.active);
      }
      impl_->pool.retain(page);
      impl_->append_part(sequence.layers[layer], layer, page, sequence.length, 0,
                         static_cast<int32_t>(block_size));
    }
    sequence.length += block_size;
  }
  return sequence.length;
}

void CacheManager::name_blocks(SequenceId id, std::span<const uint64_t> names) {
  Sequence& sequence = impl_->at(id);
  sequence.names.assign(names.begin(), names.end());
}

void CacheManager::Impl::keep_blocks(Sequence& sequence) {
  if (!shares()) return;
  const auto full = std::min<int64_t>(static_cast<int64_t>(sequence.names.size()),
                                      sequence.length / config.block_size);
  for (auto i = static_cast<int64_t>(sequence.attached.size()); i < full; ++i) {
    const int32_t block = index.insert(sequence.names[i], i * config.block_size);
    if (block < 0) return;  // another sequence computed the same; its copy stays
    sequence.attached.push_back(block);
    for (int32_t layer = 0; layer < config.n_layers; ++layer) {
      const int32_t page = sequence.layers[layer].entries[i].page;
      index.pages(block)[layer] = page;
      pool.retain(page);
      in_index[page] = 1;
    }
  }
}

void CacheManager::Impl::reclaim_block() {
  const int32_t block = index.reclaim();
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    const int32_t page = index.pages(block)[layer];
    RemovalEvent event;
    event.step = steps;
    event.reason = RemovalReason::kCapacity;
    event.layer = layer;
    event.rule = layer_rules[layer];
    event.sequence = -1;
    event.first_position = index.first_position(block);
    event.n_tokens = config.block_size;
    push_event(event);
    in_index[page] = 0;
    release_page(page);
    --counters[layer].cached;
    ++counters[layer].removed[static_cast<size_t>(RemovalReason::kCapacity)];
  }
}

bool CacheManager::Impl::make_room(int64_t pages) {
  // A kept block that nobody references has one page in each layer, held by the index alone.
  const int64_t reclaimable = int64_t{index.reclaimable()} * config.n_layers;
  if (pool.free_pages() + reclaimable < pages) return false;
  while (pool.free_pages() < pages) reclaim_block();
  return true;
}

}  // namespace paddock
