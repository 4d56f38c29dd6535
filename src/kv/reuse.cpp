// Blocks that others can list too, and how a sequence lists those that were kept: keep.cpp keeps
// them, reclaim.cpp takes them back when pages run short, own_tail.cpp sees to it that nobody
// writes them.
//
// What becomes of a page. A window has passed the pages of a block that somebody still has locked;
// cached ones belong to blocks that nobody has.
//
//   free --reserve()--> reserved --commit()--> listed --keep_blocks()--> listed and kept <---+
//    |                     |                    |  |                        |   |            |
//    |<----- rollback() ---+                    |  +<---- find_room() ------+   |            |
//    |                                          |                               |            |
//    |<----- close(), truncate(), trims, -------+      the last table lists it no more:      |
//    |       windows, drop_tail(), merge()             its block is locked, or it is not     |
//    |                                                       |                |              |
//    |                                                       |                v              |
//    |<----- reclaim(): with its block ----------------------|------------- cached --------->+
//    |                                                       v     lock()   |  ^             |
//    |<----- reclaim(): the page alone ------------------- passed <---------+  |             |
//                                                            |  |     unlock() |             |
//                                                            |  +--------------+ list_kept() |
//                                                            +------------------------------>+
#include <algorithm>
#include <optional>
#include <utility>

#include "kv/cache_impl.h"

namespace paddock {

// A rule that does not trim goes by visibility(): positions alone, whoever wrote it. Under an
// elastic one a sequence is as under `full` until its budget falls; then it shares no more.
bool CacheManager::Impl::can_share(const PolicyMap& policies, const CacheConfig& config) {
  if (!config.keep_blocks) return false;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    const LayerRule& rule = policies.layer(layer);
    if (rule.trims() && !rule.is_elastic) return false;
  }
  return true;
}

// A node is of use while it has its pages in the layers without a window, so no more of them are of
// use than the pool can hold such pages for. If all layers have a window, nodes of a text outlive
// their pages, and texts may be longer than what is resident of them: there is room for a node per
// page.
int32_t CacheManager::Impl::most_kept(const PolicyMap& policies, const CacheConfig& config) {
  if (!config.keep_blocks) return 0;
  const int64_t units =
      pages_where(policies, config, [](const LayerRule& rule) { return !rule.has_window(); });
  return static_cast<int32_t>(config.n_pages / std::max<int64_t>(1, units));
}

int64_t CacheManager::lasting_pages(RulesId rules) const {
  return Impl::pages_where(policies(rules), impl_->config,
                           [](const LayerRule& rule) { return !rule.has_window(); });
}

bool CacheManager::keeps_blocks(RulesId rules) const { return impl_->rules(rules).shares_blocks; }
bool CacheManager::shares_blocks(SequenceId id, RulesId with) const {
  const CachedSequence& sequence = impl_->at(id);
  const RuleSet& other = impl_->rules(with);
  return sequence.rules->shares_blocks && other.shares_blocks &&
         sequence.rules->root == other.root && !sequence.is_apart;
}

int64_t CacheManager::match_prefix(SequenceId id, std::span<const int32_t> tokens,
                                   int64_t max_positions, bool counts) {
  const bool is_empty = length(id) == 0;
  const int64_t listed = list_prefix(id, tokens, max_positions, counts);
  if (is_empty && counts) ask_missing(id, tokens, max_positions);
  return listed;
}

PrefixMiss CacheManager::ask_missing(SequenceId id, std::span<const int32_t> tokens,
                                     int64_t max_positions, int64_t reached) {
  const CachedSequence& sequence = impl_->at(id);
  const std::lock_guard lock(impl_->mutex);
  const int64_t lookups = impl_->tree.lookups(), regrets = impl_->tree.regrets();
  const auto block_size = int64_t{impl_->config.block_size};
  PrefixMiss miss;
  if (impl_->stays_apart(sequence)) {
    miss = {.reason = MissReason::kNotShared, .position = sequence.length};
  } else {
    const int64_t end = (static_cast<int64_t>(sequence.shared.size()) + 1) * block_size;
    const bool again = end <= reached && sequence.length < reached;
    miss = impl_->tree.ask(PrefixTree::root(sequence.rules->root), tokens,
                           max_positions / block_size, sequence.shared, !again);
    miss.again = again && miss.reason != MissReason::kNone;
    // What is kept begins like it at least as far as the sequence itself has it.
    const bool differs =
        miss.reason == MissReason::kFirstSeen || miss.reason == MissReason::kDiffers;
    if (differs && sequence.length > std::max(miss.position, miss.differs_at)) {
      miss.reason = MissReason::kDiffers;
      miss.differs_at = sequence.length;
    }
  }
  if (impl_->is_observed()) {
    impl_->config.observer->missed(id, miss, impl_->tree.lookups() - lookups,
                                   impl_->tree.regrets() - regrets);
  }
  return miss;
}

bool CacheManager::Impl::stays_apart(const CachedSequence& sequence) const {
  const auto n_shared = static_cast<int64_t>(sequence.shared.size());
  const RuleSet& rules = *sequence.rules;
  if (!rules.shares_blocks || sequence.is_apart ||
      sequence.length / config.block_size != n_shared) {
    return true;
  }
  // What follows a fall that it comes back to is not kept.
  return sequence.log != nullptr && rules.policies.is_elastic() &&
         sequence.log->next_budget_length() <= (n_shared + 1) * config.block_size;
}

int64_t CacheManager::list_prefix(SequenceId id, std::span<const int32_t> tokens,
                                  int64_t max_positions, bool counts, int64_t max_pages) {
  CachedSequence& sequence = impl_->at(id);
  if (sequence.reserved != 0) fail(ErrorCode::kInternal, "a step is under way");
  const std::lock_guard lock(impl_->mutex);
  if (!sequence.rules->shares_blocks) return 0;
  const auto block_size = int64_t{impl_->config.block_size};
  const size_t known = sequence.shared.size();
  const int64_t before = sequence.length;
  if (before / block_size != static_cast<int64_t>(known)) return 0;
  int64_t max_blocks = impl_->most_found(sequence, max_positions) / block_size;
  impl_->ask_shadows(id, tokens, max_blocks, counts);
  if (max_pages < available_pages()) {
    max_blocks = impl_->blocks_within(sequence, tokens, max_blocks, max_pages);
  }
  const int32_t root = PrefixTree::root(sequence.rules->root);
  const int64_t lookups = impl_->tree.lookups(), hits = impl_->tree.hits();
  impl_->tree.extend(root, tokens, max_blocks, counts, sequence.shared);
  if (sequence.shared.size() == known) return 0;
  if (before % block_size != 0) impl_->drop_tail(sequence);
  sequence.length = static_cast<int64_t>(sequence.shared.size()) * block_size;
  sequence.scored_from = sequence.length;
  if (impl_->is_observed()) {
    impl_->tell_found(id, tokens, known, impl_->tree.lookups() - lookups,
                      impl_->tree.hits() - hits);
  }
  // Nothing was decided on the way: rules that share blocks drop none.
  if (sequence.log != nullptr) sequence.log->reach(sequence.length);
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    impl_->list_blocks(id, layer, known);
  }
  for (size_t i = known; i < sequence.shared.size(); ++i) impl_->lock(sequence.shared[i], counts);
  impl_->note_pool_peak();
  return sequence.length - before;
}

int64_t CacheManager::Impl::most_found(const CachedSequence& sequence,
                                       int64_t max_positions) const {
  const RuleSet& rules = *sequence.rules;
  if (!rules.policies.is_elastic()) return max_positions;
  if (sequence.log != nullptr) {  // what follows a fall is not kept
    max_positions = std::min(max_positions, sequence.log->next_budget_length() - 1);
  }
  if (rules.max_resident < rules.max_positions) {
    const int64_t most = rules.max_resident - rules.interval();
    max_positions = std::min(max_positions, most / rules.interval() * rules.interval());
  }
  return max_positions;
}

void CacheManager::Impl::ask_shadows(SequenceId id, std::span<const int32_t> tokens,
                                     int64_t max_blocks, bool counts) {
  CachedSequence& sequence = at(id);
  const uint64_t root = PrefixTree::hash_of_root(PrefixTree::root(sequence.rules->root));
  if (is_pin(id)) {
    shadows.pin(tokens, max_blocks, config.block_size, sequence.shadow, root);
  } else {
    shadows.look_up(tokens, max_blocks, config.block_size, counts, sequence.shadow, root);
  }
}

int64_t CacheManager::Impl::blocks_within(CachedSequence& sequence, std::span<const int32_t> tokens,
                                          int64_t max_blocks, int64_t max_pages) {
  const size_t known = sequence.shared.size();
  tree.extend(PrefixTree::root(sequence.rules->root), tokens, max_blocks, false, sequence.shared);
  const int64_t more = nodes_within(sequence.shared, known, max_pages);
  sequence.shared.resize(known);  // they were only looked at
  return static_cast<int64_t>(known) + more;
}

int64_t CacheManager::Impl::nodes_within(std::span<const int32_t> shared, size_t first,
                                         int64_t max_pages) const {
  int64_t pages = 0;
  for (size_t i = first; i < shared.size(); ++i) {
    const std::span<const int32_t> its = tree.pages(shared[i]);
    for (int32_t layer = 0; layer < config.n_layers; ++layer) {
      if (its[layer] >= 0 && pool.is_reclaimable(its[layer])) {
        pages += config.layout.page_units(layer);
      }
    }
    if (pages > max_pages) return static_cast<int64_t>(i - first);
  }
  return static_cast<int64_t>(shared.size() - first);
}

// The table is then as if the sequence had computed the blocks, and dropped what is past.
void CacheManager::Impl::list_blocks(SequenceId id, int32_t layer, size_t first) {
  const CachedSequence& sequence = at(id);
  const LayerRule& rule = sequence.rule(layer);
  BlockTable& table = sequences[id].layers[layer];
  const auto block_size = int64_t{config.block_size};
  release_past(id, layer);  // first, so that the table never holds more than it has room for
  table.changes.note(table.n_entries());
  int64_t told_from = static_cast<int64_t>(first), told_to = told_from;
  const auto tell = [&] {
    if (!is_observed() || told_to == told_from) return;
    config.observer->listed(id, layer, told_from, told_to - told_from);
  };
  for (size_t i = first; i < sequence.shared.size(); ++i) {
    const int64_t position = static_cast<int64_t>(i) * block_size;
    if (is_past(rule.visibility, sequence.length, position, block_size)) continue;
    if (static_cast<int64_t>(i) != told_to) {
      tell();
      told_from = static_cast<int64_t>(i);
    }
    told_to = static_cast<int64_t>(i) + 1;
    const int32_t page = tree.pages(sequence.shared[i])[layer];
    list_kept(layer, page);
    table.append_part(rule, page, position, 0, config.block_size, steps);
    counters[layer].tokens += block_size;
  }
  tell();
  const int64_t before = static_cast<int64_t>(first) * block_size;
  if (!rule.has_sinks() || before >= rule.splits_at()) return;
  if (sequence.length < rule.splits_at()) return;
  table.split_sinks(rule);
  release_past(id, layer);  // what shares a page with sinks
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

void CacheManager::Impl::drop_tail(CachedSequence& sequence) {
  const int64_t n = sequence.length % config.block_size;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    BlockTable& table = sequence.layers[layer];
    const LayerRule& rule = sequence.rule(layer);
    const bool is_split = rule.has_sinks() && sequence.length >= rule.splits_at();
    if (is_split && sequence.length - n < rule.splits_at()) table.join_sinks(rule);
    table.changes.note(table.n_entries() - 1);
    if (unlist_page(layer, table.entries.back().page)) note_merge(sequence, layer);
    table.entries.pop_back();
    table.records.pop_back();
    table.tokens -= n;
    counters[layer].tokens -= n;
  }
  sequence.length -= n;
  if (is_observed()) config.observer->cut(id_of(sequence), sequence.length);
}

std::optional<SequenceId> CacheManager::pin(std::span<const int32_t> tokens, RulesId rules_id) {
  const RuleSet& rules = impl_->rules(rules_id);
  if (!rules.shares_blocks) return std::nullopt;
  const CacheConfig& config = impl_->config;
  std::vector<CachedSequence>& all = impl_->sequences;
  SequenceId id = config.max_sequences;
  {
    const std::lock_guard lock(impl_->mutex);
    while (id < static_cast<SequenceId>(all.size()) && all[id].live) ++id;
    if (id == static_cast<SequenceId>(all.size())) {
      CachedSequence fresh;
      fresh.layers.resize(config.n_layers);
      fresh.rules = &rules;  // where what follows finds no memory, too
      all.push_back(std::move(fresh));
    }
    const size_t blocks = tokens.size() / config.block_size;
    all[id].shared.reserve(blocks);
    impl_->shadows.make_room(all[id].shadow, impl_->tree.capacity(), static_cast<int64_t>(blocks));
    for (int32_t layer = 0; layer < config.n_layers; ++layer) {
      // One block may be listed in two parts.
      all[id].layers[layer].reserve(rules.layer(layer), static_cast<int64_t>(blocks) + 1);
    }
    impl_->begin(all[id], nullptr, rules);
    ++impl_->pinned;
    if (impl_->is_observed()) impl_->config.observer->opened(id, true, rules_id);
  }
  if (list_prefix(id, tokens, static_cast<int64_t>(tokens.size()), false) > 0) return id;
  close(id);
  return std::nullopt;
}

}  // namespace paddock
