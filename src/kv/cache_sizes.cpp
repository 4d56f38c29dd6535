// How many pages sequences need, list and could have.
#include <algorithm>
#include <utility>

#include "core/checked.h"
#include "kv/cache_impl.h"

namespace paddock {

namespace {

/// Pages that a sequence lists at most, in all layers, once it has `positions`: those it holds and
/// those of `fresh` new blocks, but never more in a layer than the rule allows.
template <typename Held>
int64_t sum_pages(const PolicyMap& policies, int64_t block_size, int64_t positions, int64_t chunk,
                  int64_t fresh, const Held& held) {
  return policies.sum_pages(block_size, [&](int32_t layer) {
    const int64_t max = policies.layer(layer).max_pages(block_size, positions, chunk);
    return std::min<int64_t>(max, held(layer) + fresh);
  });
}

}  // namespace

int64_t CacheManager::pages_needed(const PolicyMap& policies, int32_t block_size, int64_t positions,
                                   int64_t chunk) {
  const auto all = static_cast<int64_t>(ceil_div(positions, block_size));
  return sum_pages(policies, block_size, positions, chunk, all, [](int32_t) { return 0; });
}

int64_t CacheManager::pages_to_reach(SequenceId id, int64_t positions) const {
  const CachedSequence& sequence = impl_->at(id);
  const int64_t target = std::max(positions, sequence.length);
  const int64_t fresh = impl_->new_blocks(sequence, target - sequence.length);
  return sum_pages(sequence.rules->policies, impl_->config.block_size, target,
                   impl_->config.max_chunk, fresh,
                   [&](int32_t layer) { return sequence.layers[layer].n_pages(); });
}

int64_t CacheManager::pages_ahead(SequenceId id, int64_t positions) const {
  const CachedSequence& sequence = impl_->at(id);
  const int64_t block = impl_->config.block_size;
  const int64_t now = sequence.length + sequence.reserved;
  if (positions <= now) return 0;
  const auto fresh = static_cast<int64_t>(ceil_div(positions, block) - ceil_div(now, block));
  const int64_t copy = sequence.reserved == 0 && impl_->shares_tail(sequence) ? 1 : 0;
  int64_t pages = 0;
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    const LayerRule& rule = sequence.rule(layer);
    const BlockTable& table = sequence.layers[layer];
    const int64_t held = rule.is_elastic ? table.n_entries() : table.n_pages();
    const int64_t max = rule.max_pages(block, positions, impl_->config.max_chunk);
    pages += std::clamp<int64_t>(max - held, 0, fresh) + copy;
  }
  return pages;
}

int64_t CacheManager::max_entries(const SequenceRules& rules, int32_t layer,
                                  const CacheConfig& config) {
  const LayerRule& rule = rules.policies.layer(layer);
  // An elastic rule may have a bound that is not its own: a page more, where a block is cut.
  const int64_t positions =
      rule.is_elastic ? std::min(rules.max_positions, rules.max_resident) : rules.max_positions;
  const int64_t pages = rule.max_pages(config.block_size, positions, config.max_chunk);
  return std::min<int64_t>(pages + (rule.is_elastic ? 1 : 0), config.n_pages) +
         1;  // one page may be listed in two parts
}

int64_t CacheManager::max_entries(RulesId rules, int32_t layer) const {
  return max_entries(impl_->rules(rules), layer, impl_->config);
}

int64_t CacheManager::free_pages() const {
  return int64_t{impl_->limit} - impl_->pool.used_units();
}

int64_t CacheManager::available_pages() const {
  return free_pages() + impl_->pool.reclaimable_units();
}

int64_t CacheManager::trims(SequenceId id) const { return impl_->at(id).trims; }

int64_t CacheManager::pages_active() const {
  int64_t pages = 0;
  for (const Impl::Counters& count : impl_->counters) pages += count.active;
  return pages;
}

int64_t CacheManager::pages_listed(std::span<const SequenceId> ids) const {
  const int64_t mark = ++impl_->marks;
  int64_t pages = 0;
  for (const SequenceId id : ids) {
    for (const BlockTable& table : impl_->at(id).layers) {
      for (const BlockEntry& e : table.entries) {
        pages += std::exchange(impl_->marked[e.page], mark) == mark ? 0 : 1;
      }
    }
  }
  return pages;
}

int64_t CacheManager::pages_listed(SequenceId id) const {
  int64_t pages = 0;
  for (const BlockTable& table : impl_->at(id).layers) pages += table.n_pages();
  return pages;
}

}  // namespace paddock
