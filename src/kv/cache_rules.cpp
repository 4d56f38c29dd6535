// What the cache's books are made for: the rules that sequences may go by, what follows from them,
// and the memory that they need.
#include <algorithm>
#include <utility>

#include "kv/cache_impl.h"

namespace paddock {
namespace {

int32_t units_of_block(const CacheConfig& config) {
  int32_t units = 0;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    units += config.layout.page_units(layer);
  }
  return units;
}

std::vector<SequenceRules> alone(PolicyMap policies, int64_t max_positions, int64_t max_resident) {
  std::vector<SequenceRules> rules;
  rules.push_back({std::move(policies), max_positions, max_resident});
  return rules;
}

std::vector<RuleSet> as_sets(std::vector<SequenceRules> rules) {
  std::vector<RuleSet> sets;
  for (SequenceRules& one : rules) sets.emplace_back(std::move(one));
  return sets;
}

/// Nodes of the tree, whichever rules the texts that are kept went by.
template <typename Rules>
int32_t most_kept_of(const std::vector<Rules>& all, const CacheConfig& config) {
  int32_t most = 0;
  for (const Rules& one : all) {
    most = std::max(most, CacheManager::Impl::most_kept(one.policies, config));
  }
  return most;
}

/// Whether a block has the same contents under both, as long as neither drops what queries see:
/// what a layer sees, and from how far, decides what the next layer's keys are.
bool see_alike(const RuleSet& a, const RuleSet& b) {
  for (int32_t layer = 0; layer < a.policies.size(); ++layer) {
    const LayerRule& one = a.layer(layer);
    const LayerRule& other = b.layer(layer);
    if (one.visibility.sinks != other.visibility.sinks ||
        one.visibility.window != other.visibility.window || !same_rotations(one, other)) {
      return false;
    }
  }
  return true;
}

}  // namespace

CacheManager::Impl::Impl(const CacheConfig& cache_config, std::vector<SequenceRules> rules,
                         std::unique_ptr<ReclaimPolicy> reclaim)
    : config(cache_config),
      block_units(units_of_block(config)),
      block_pages(config.layout.class_units().size()),
      wanted(block_pages.size()),
      pool(cache_config.n_pages, config.layout.class_units()),
      limit(cache_config.n_pages),
      tree(most_kept_of(rules, config), config.block_size, config.n_layers, std::move(reclaim)),
      shadows(cache_config.shadow_order),
      ring(cache_config.event_capacity),
      budget_changes(cache_config.event_capacity),
      preemptions(cache_config.event_capacity) {
  counters.resize(config.n_layers);
  node_of.resize(config.n_pages, -1);
  passed.reserve(config.n_pages);
  passed_at.resize(config.n_pages);
  marked.resize(config.n_pages);
  own_pages.reserve(config.n_layers);
  needs.reserve(config.n_layers);
  bounds.reserve(config.n_layers);
  shared_out.reserve(config.n_layers);
  shares_of.resize(config.n_layers);
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    ++block_pages[config.layout.group(layer).page_class];
  }
  if (config.queues_events) queue.reserve(config.n_pages);
  sequences.resize(config.max_sequences);
  for (CachedSequence& sequence : sequences) sequence.layers.resize(config.n_layers);
  std::vector<RuleSet> sets = as_sets(std::move(rules));
  adopt(sets);
}

/// Reserves what tables and decisions will need under the new rules, and lets go of what was kept
/// under the old ones. What can fail comes first.
void CacheManager::Impl::adopt(std::vector<RuleSet>& next) {
  complete(next);
  take_memory(next);
  std::vector<Visibility> seen;  // [n_roots, n_layers]
  for (const RuleSet& rules : next) {
    if (rules.root * config.n_layers < static_cast<int32_t>(seen.size())) continue;
    for (int32_t layer = 0; layer < config.n_layers; ++layer) {
      seen.push_back(rules.layer(layer).visibility);
    }
  }
  const int32_t most = most_kept_of(next, config);
  int64_t most_blocks = 0;
  for (const RuleSet& rules : next) {
    most_blocks = std::max(most_blocks, rules.max_positions / config.block_size);
  }
  std::unique_ptr<PrefixTree::Room> room = tree.make_room(most, std::move(seen));
  Shadows::Room shadow_room = shadows.make_room(most, most_blocks);
  for (CachedSequence& sequence : sequences) {
    sequence.shared.reserve(static_cast<size_t>(std::min<int64_t>(most_blocks, most)));
    shadows.make_room(sequence.shadow, most, most_blocks);
  }
  while (tree.evictable() > 0) {
    reclaim_block(tree.next(), RemovalReason::kUser,
                  {.step = steps, .reason = MissReason::kSettings});
  }
  tree.move_into(std::move(room));
  shadows.move_into(std::move(shadow_room));
  rule_sets.swap(next);
  for (CachedSequence& sequence : sequences) sequence.rules = &rule_sets[0];
}

void CacheManager::Impl::take_memory(const std::vector<RuleSet>& next) {
  sequences.resize(config.max_sequences);  // the memory of pins goes
  int64_t longest = 0;                     // table of a rule that trims
  bool is_elastic = false, needs_norms = false;
  for (const RuleSet& rules : next) is_elastic |= rules.policies.is_elastic();
  plan.layers.assign(is_elastic ? config.n_layers : 0, {});
  droppings.assign(is_elastic ? config.n_pages : 0, 0);
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    for (const RuleSet& rules : next) {
      const LayerRule& rule = rules.layer(layer);
      const int64_t entries = max_entries(rules, layer, config);
      for (CachedSequence& sequence : sequences) sequence.layers[layer].reserve(rule, entries);
      if (rule.trims()) longest = std::max(longest, entries);
      if (rule.is_elastic) plan.layers[layer].choices.reserve(entries);
      needs_norms |= rule.needs.key_norms;
    }
  }
  view.reserve(longest);
  victims.reserve(longest);
  choices.reserve(longest);
  spared.reserve(longest);
  named.reserve(longest);
  if (is_observed() && config.observer->wants_candidates()) {
    candidates.reserve(longest);
    ranking.reserve(longest);
  }
  key_norms.resize(needs_norms ? config.n_pages : 0);
}

void CacheManager::Impl::complete(std::vector<RuleSet>& all) {
  int32_t roots = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    RuleSet& rules = all[i];
    rules.number = static_cast<int32_t>(i);
    rules.policies.check_block_size(config.block_size);
    rules.least_budget = rules.policies.floor_budget(config.block_size);
    rules.least_shares.assign(static_cast<size_t>(config.n_layers), 0);
    rules.norms.assign(static_cast<size_t>(config.n_layers), 0);
    rules.shares_blocks = can_share(rules.policies, config);
    for (int32_t layer = 0; layer < config.n_layers; ++layer) {
      const LayerRule& rule = rules.layer(layer);
      if (rule.shares_by_need) {
        rules.least_shares[layer] = rules.policies.least_share(layer, config.block_size);
      }
      const auto known = std::find(rule_names.begin(), rule_names.end(), rule.name);
      rules.names.push_back(static_cast<int32_t>(known - rule_names.begin()));
      if (known == rule_names.end()) rule_names.push_back(rule.name);
    }
    const auto alike = std::find_if(all.begin(), all.begin() + static_cast<int64_t>(i),
                                    [&](const RuleSet& other) { return see_alike(other, rules); });
    rules.root = alike == all.begin() + static_cast<int64_t>(i) ? roots++ : alike->root;
  }
  for (RuleSet& rules : all) {
    for (const RuleSet& other : all) {
      const bool is_own = &other == &rules;
      if (!is_own && !(rules.shares_blocks && other.shares_blocks && rules.root == other.root))
        continue;
      for (int32_t layer = 0; layer < config.n_layers; ++layer) {
        const LayerRule& rule = other.layer(layer);
        if (!rule.needs.key_norms) continue;
        rules.norms[layer] = 1;
        rules.keeps_norms |= rule.is_elastic;
      }
    }
  }
}

CacheManager::CacheManager(const CacheConfig& config, std::vector<SequenceRules> rules,
                           std::unique_ptr<ReclaimPolicy> reclaim)
    : impl_(std::make_unique<Impl>(config, std::move(rules), std::move(reclaim))) {}
CacheManager::CacheManager(const CacheConfig& config, PolicyMap policies,
                           std::unique_ptr<ReclaimPolicy> reclaim)
    : CacheManager(config, alone(std::move(policies), config.max_positions, config.max_resident),
                   std::move(reclaim)) {}
CacheManager::~CacheManager() = default;

void CacheManager::set_rules(std::vector<SequenceRules> rules) {
  if (impl_->live + impl_->pinned > 0) {
    fail(ErrorCode::kInvalidArgument,
         "the policy cannot change while {} sequences are open; finish requests and close sessions "
         "first",
         impl_->live + impl_->pinned);
  }
  std::vector<RuleSet> sets = as_sets(std::move(rules));
  const std::lock_guard lock(impl_->mutex);
  impl_->adopt(sets);
}

}  // namespace paddock
