// Full blocks go into the tree, for others to list (reuse.cpp), and sequences lock those that they
// list. Of blocks that two sequences have computed one may go, where the bits are the same.
#include <algorithm>

#include "kv/cache_impl.h"

namespace paddock {

void CacheManager::Impl::keep_blocks(CachedSequence& sequence, std::span<const int32_t> tokens,
                                     bool is_ending) {
  const int64_t block_size = config.block_size;
  const int64_t full = std::min(static_cast<int64_t>(tokens.size()), sequence.length) / block_size;
  if (static_cast<int64_t>(sequence.shared.size()) >= full) return;
  if (sequence.is_apart || !sequence.rules->shares_blocks) return;
  const uint64_t root_hash = PrefixTree::hash_of_root(PrefixTree::root(sequence.rules->root));
  shadows.keep(tokens, full, config.block_size, sequence.shadow, root_hash);
  for (auto i = static_cast<int64_t>(sequence.shared.size()); i < full; ++i) {
    const int32_t parent = i == 0 ? PrefixTree::root(sequence.rules->root) : sequence.shared.back();
    const auto block = tokens.subspan(static_cast<size_t>(i * block_size), block_size);
    int32_t node = tree.find(parent, block);
    if (node >= 0) {
      // Another sequence computed the same and was first. A sequence that has locked a node lists
      // the node's pages, not its own beside them: else it would keep more of the pool in use than
      // its tables say. Where the bits may differ it cannot list the node's pages, so it locks
      // nothing; when it ends, what it computed behind this block goes below the node.
      if (!config.merges_blocks && !is_ending) return;
      lock(node, true);
    } else {
      node = insert(parent, block);
      if (node < 0) {
        // All nodes belong to live texts. A block is found only together with those before it and
        // what windows see behind it: if this text's next blocks have no room, those that it has in
        // the tree will soon serve nobody. It gives them back, and keeps nothing more.
        unlock_all(sequence);
        sequence.is_apart = true;
        return;
      }
    }
    sequence.shared.push_back(node);
    merge(sequence, i, node, is_ending);
  }
}

int32_t CacheManager::Impl::insert(int32_t parent, std::span<const int32_t> tokens) {
  int32_t node = tree.insert(parent, tokens);
  if (node >= 0 || tree.evictable() == 0) return node;
  reclaim_block(tree.next(), RemovalReason::kCapacity, {.step = steps, .request = needing});
  return tree.insert(parent, tokens);
}

void CacheManager::Impl::merge(CachedSequence& sequence, int64_t i, int32_t node, bool is_ending) {
  bool is_back = false;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    BlockTable& table = sequence.layers[layer];
    const int64_t entry = table.entry_of(i * config.block_size);
    if (entry == table.n_entries()) continue;  // the window has passed it
    const int32_t own = table.entries[entry].page;
    int32_t& page = tree.pages(node)[layer];
    if (page < 0) {
      page = own;
      pool.retain(page);
      node_of[page] = node;
      is_back = true;
    } else if (page != own && !is_ending) {
      list_kept(layer, page);
      table.replace_page(entry, page);
      if (unlist_page(layer, own)) note_merge(sequence, layer);
    }
  }
  if (is_back) tree.note_page_back(node);
}

void CacheManager::Impl::lock(int32_t node, bool is_prompt) {
  if (tree.locks(node) == 0) {
    for (const int32_t page : tree.pages(node)) {
      if (page < 0 || !pool.is_reclaimable(page)) continue;
      passed.push_back(0, page);
      passed_at[page] = steps;
    }
  }
  tree.lock(node, is_prompt);
}

void CacheManager::Impl::unlock(int32_t node) {
  tree.unlock(node, steps);
  if (tree.locks(node) > 0) return;
  for (const int32_t page : tree.pages(node)) {
    if (page >= 0) passed.remove(page);
  }
  prune(node);
}

void CacheManager::Impl::unlock_all(CachedSequence& sequence) {
  // Deeper blocks first, so that leaves are reclaimed before what they continue.
  for (size_t i = sequence.shared.size(); i-- > 0;) unlock(sequence.shared[i]);
  sequence.shared.clear();
  shadows.let_go(sequence.shadow, 0, steps);
}

void CacheManager::Impl::prune(int32_t node) {
  while (node >= 0 && tree.is_void(node)) {
    const int32_t parent = tree.parent(node);
    tree.take_out(node, nullptr);
    node = parent;
  }
}

}  // namespace paddock
