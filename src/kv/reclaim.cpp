// Pages that are kept and that no table lists are taken back when a step needs them, those that
// were let go of first before the others (reclaim_policy.cpp may choose among blocks).
#include <algorithm>
#include <utility>

#include "kv/cache_impl.h"

namespace paddock {

void CacheManager::Impl::reclaim() {
  const Departure how{.step = steps, .request = needing};
  const int32_t page = passed.front(0);
  const int32_t leaf = tree.evictable() > 0 ? tree.next() : -1;
  if (page < 0 || (leaf >= 0 && tree.last_use(leaf) < passed_at[page])) {
    if (leaf < 0) fail(ErrorCode::kInternal, "there is nothing to reclaim");
    return reclaim_block(leaf, RemovalReason::kCapacity, how);
  }
  const int32_t node = node_of[page];
  const std::span<const int32_t> its = tree.pages(node);
  const auto layer = std::find(its.begin(), its.end(), page) - its.begin();
  free_page(node, static_cast<int32_t>(layer), RemovalReason::kCapacity, how.request);
  tree.note_page_gone(node, {how.step, how.request, MissReason::kTrimmed});
}

void CacheManager::Impl::reclaim_block(int32_t leaf, RemovalReason reason, const Departure& how) {
  const int32_t parent = tree.parent(leaf);
  tree.take_out(leaf, &how);
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    free_page(leaf, layer, reason, how.request);
  }
  prune(parent);
}

void CacheManager::Impl::free_page(int32_t node, int32_t layer, RemovalReason reason,
                                   int64_t request) {
  const int32_t page = std::exchange(tree.pages(node)[layer], -1);
  if (page < 0) return;
  if (pool.references(page) > 1) {  // a sequence lists it, or the beginning of it
    node_of[page] = -1;
    release_page(page);
    return;
  }
  RemovalEvent event;
  event.step = steps;
  event.reason = reason;
  event.layer = layer;
  const int32_t root = tree.root_of(node);
  const auto its = std::find_if(rule_sets.begin(), rule_sets.end(), [&](const RuleSet& rules) {
    return rules.shares_blocks && rules.root == root;
  });
  event.rule = its->names[layer];
  event.rules = its->number;
  event.sequence = -1;
  event.first_position = int64_t{tree.depth(node)} * config.block_size;
  event.n_tokens = config.block_size;
  event.request = request;
  event.hash = tree.hash_of(node);
  push_event(event);
  count_cached(layer, page, false);
  node_of[page] = -1;
  release_page(page);
  ++counters[layer].removed[static_cast<size_t>(reason)];
}

void CacheManager::Impl::count_cached(int32_t layer, int32_t page, bool is_cached) {
  pool.set_reclaimable(page, is_cached);
  counters[layer].cached += is_cached ? 1 : -1;
  if (!is_cached) return passed.remove(page);
  if (tree.locks(node_of[page]) == 0) return;  // it leaves with its block
  passed.push_back(0, page);
  passed_at[page] = steps;
}

bool CacheManager::Impl::has_room(int64_t pages_per_layer) {
  for (size_t c = 0; c < wanted.size(); ++c) wanted[c] = pages_per_layer * block_pages[c];
  return pool.fits_after_reclaim(wanted);
}

bool CacheManager::Impl::make_room(int64_t pages_per_layer) {
  if (!has_room(pages_per_layer)) return false;
  while (!pool.fits(wanted)) reclaim();
  return true;
}

}  // namespace paddock
