// Budgets of elastic rules: what a smaller one would give back, and how it falls.
#include <algorithm>
#include <utility>

#include "core/checked.h"
#include "core/search.h"
#include "kv/cache_impl.h"
#include "kv/decision_log.h"

namespace paddock {

bool CacheManager::is_elastic() const {
  return std::any_of(impl_->rule_sets.begin(), impl_->rule_sets.end(),
                     [](const RuleSet& rules) { return rules.policies.is_elastic(); });
}
int32_t CacheManager::least_budget(RulesId rules) const { return impl_->rules(rules).least_budget; }
int32_t CacheManager::most_budget(RulesId rules_id) const {
  const RuleSet& rules = impl_->rules(rules_id);
  const int64_t most = rules.max_resident;
  const auto fits = [&](int64_t budget) {
    const int64_t room = slack_of(rules.interval(), budget);
    for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
      if (!rules.layer(layer).is_elastic) continue;
      const auto asked = static_cast<int32_t>(budget);
      if (impl_->schedule_for(rules, layer, asked).budget + room > most) return false;
    }
    return true;
  };
  return static_cast<int32_t>(largest(rules.least_budget, most - 1, fits));
}
int32_t CacheManager::budget(SequenceId id) const { return impl_->at(id).budget; }

int64_t CacheManager::block_pages() const { return impl_->block_units; }

int64_t CacheManager::elastic_pages(RulesId rules) const {
  return Impl::pages_where(policies(rules), impl_->config,
                           [](const LayerRule& rule) { return rule.is_elastic; });
}

int64_t CacheManager::growing_pages(RulesId rules) const {
  return Impl::pages_where(policies(rules), impl_->config, [](const LayerRule& rule) {
    return !rule.is_elastic && !rule.bounded();
  });
}

int64_t CacheManager::most_resident(SequenceId id) const {
  const CachedSequence& sequence = impl_->at(id);
  int64_t most = 0;
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    if (sequence.rule(layer).is_elastic) most = std::max(most, sequence.layers[layer].tokens);
  }
  return most;
}

CacheManager::Holdings CacheManager::holdings(SequenceId id) const {
  const CachedSequence& sequence = impl_->at(id);
  Holdings held;
  int64_t layers = 0;
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    if (!sequence.rule(layer).is_elastic) continue;
    const int32_t units = impl_->config.layout.page_units(layer);
    const BlockTable& table = sequence.layers[layer];
    held.positions += table.tokens;
    for (const BlockEntry& e : table.entries) {
      held.pages += units;
      held.own_pages += impl_->is_own(e.page) ? units : 0;
      held.fair_pages += static_cast<double>(units) / impl_->listings(e.page);
    }
    ++layers;
  }
  held.positions /= std::max<int64_t>(1, layers);
  return held;
}

int64_t CacheManager::Impl::max_elastic(const CachedSequence& sequence, int32_t layer) const {
  // A step needs a row of angles for each token and each rotation of its table. There is room for
  // as many rows as a table may have entries (step_sizes.cpp).
  const auto n_rotations = static_cast<int64_t>(sequence.layers[layer].rotations.size());
  if (n_rotations <= 1) return config.max_chunk;
  return std::max<int64_t>(1, max_entries(*sequence.rules, layer, config) / n_rotations);
}

int32_t CacheManager::max_observed(SequenceId id, int32_t n) const {
  const CachedSequence& sequence = impl_->at(id);
  for (int32_t before = 0; before != n;) {
    before = n;
    for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
      const LayerRule& rule = sequence.rule(layer);
      const int64_t every = rule.schedule.every;
      const bool is_free = sequence.layers[layer].schedule.budget == kUnlimited;
      if (!rule.is_elastic || rule.schedule.observe == 0 || !is_free) continue;
      const auto next = static_cast<int64_t>(ceil_div(sequence.length + n, every)) * every;
      const int64_t from = next - rule.schedule.observe - sequence.length;
      if (from > 0 && from < n) n = static_cast<int32_t>(from);
    }
  }
  return n;
}

TrimSchedule CacheManager::Impl::schedule_for(const RuleSet& rules, int32_t layer, int32_t budget) {
  const LayerRule& rule = rules.layer(layer);
  if (budget == kUnlimited) return rule.schedule;
  try {
    return rule.schedule_with(budget, layer, config.n_layers);
  } catch (const Error& e) {
    violation(rule, "{}", e.what());
  }
  TrimSchedule plain = rule.schedule;
  plain.budget = budget;
  plain.keep_first = plain.keep_newest = plain.newest_divisor = 0;
  return plain;
}

int64_t CacheManager::plan_fall(SequenceId id, int32_t budget) {
  Impl& cache = *impl_;
  const CachedSequence& sequence = cache.at(id);
  const int64_t interval = sequence.rules->interval();
  if (interval == 0 || sequence.reserved != 0 || sequence.length % interval != 0 ||
      budget > sequence.budget) {
    fail(ErrorCode::kInternal, "the budget of {} positions, {} reserved, cannot fall from {} to {}",
         sequence.length, sequence.reserved, sequence.budget, budget);
  }
  cache.ask_layers(id, budget);
  int64_t pages = 0;
  for (const Impl::Plan::Layer& planned : cache.plan.layers) pages += planned.pages;
  return pages;
}

void CacheManager::Impl::ask_layers(SequenceId id, int32_t budget) {
  const CachedSequence& sequence = at(id);
  plan.sequence = id;
  plan.length = sequence.length;
  plan.budget = budget;
  for (const PolicyMap::Sharers& group : sequence.rules->policies.sharers()) {
    if (group.budget == kUnlimited) work_out_shares(sequence, group, budget);
  }
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    const LayerRule& rule = sequence.rule(layer);
    Plan::Layer& planned = plan.layers[layer];
    planned.choices.clear();
    planned.pages = 0;
    if (!rule.is_elastic) continue;
    const BlockTable& table = sequence.layers[layer];
    planned.share = rule.shares_by_need ? shares_of[layer] : budget;
    planned.schedule = schedule_for(*sequence.rules, layer, planned.share);
    const int64_t excess = table.tokens - planned.schedule.budget;
    if (excess <= 0) continue;
    fill_view(sequence, layer, planned.schedule);
    ask(rule, view_of(sequence, layer), excess);
    planned.choices.assign(choices.begin(), choices.end());
    planned.runner_up = runner_up;
    planned.runner_up_score = runner_up_score;
    for (const Choice& choice : planned.choices) {
      planned.pages +=
          is_own(table.entries[choice.block].page) ? config.layout.page_units(layer) : 0;
    }
  }
}

int64_t CacheManager::plan_falls(std::span<const Fall> falls, std::span<const SequenceId> later,
                                 std::vector<uint8_t>& brings) {
  Impl& cache = *impl_;
  struct Dropping {
    size_t fall;
    int32_t page, units;
  };
  std::vector<Dropping> all;
  brings.assign(falls.size(), 0);
  for (size_t i = 0; i < falls.size(); ++i) {
    plan_fall(falls[i].id, falls[i].budget);
    for (int32_t layer = 0; layer < cache.config.n_layers; ++layer) {
      const std::span<const BlockEntry> entries = table(falls[i].id, layer);
      for (const Impl::Choice& choice : cache.plan.layers[layer].choices) {
        all.push_back({i, entries[choice.block].page, cache.config.layout.page_units(layer)});
      }
    }
  }
  if (falls.size() > 1) cache.plan.sequence = -1;
  int64_t pages = 0;
  for (const Dropping& d : all) {
    if (++cache.droppings[d.page] == cache.listings(d.page)) pages += d.units;
  }
  const auto note_later = [&](int32_t step) {
    for (const SequenceId id : later) {
      for (const BlockTable& its : cache.at(id).layers) {
        for (const BlockEntry& e : its.entries) cache.droppings[e.page] += step;
      }
    }
  };
  note_later(1);
  for (const Dropping& d : all) {
    brings[d.fall] |= cache.droppings[d.page] >= cache.listings(d.page) ? 1 : 0;
  }
  note_later(-1);
  for (const Dropping& d : all) cache.droppings[d.page] = 0;
  return pages;
}

KvBudgetChange CacheManager::fall(SequenceId id, int64_t request, std::optional<int32_t> was) {
  Impl& cache = *impl_;
  CachedSequence& sequence = cache.at(id);
  if (cache.plan.sequence != id || cache.plan.length != sequence.length) {
    fail(ErrorCode::kInternal, "no fall of sequence {} is planned", id);
  }
  KvBudgetChange fall{.step = cache.steps,
                      .sequence = id,
                      .length = sequence.length,
                      .before = was.value_or(sequence.budget),
                      .after = cache.plan.budget,
                      .request = request,
                      .scored_from = cache.first_scored(sequence),
                      .first_event = cache.ring.written()};
  for (const Impl::Plan::Layer& layer : cache.plan.layers) {
    fall.layer_pages.push_back(layer.pages);
    fall.pages += layer.pages;
  }
  const int64_t before = available_pages();
  cache.rank_plan(sequence);
  {
    const std::lock_guard lock(cache.mutex);
    if (sequence.log != nullptr) {
      int64_t entries = 1;
      for (const Impl::Plan::Layer& layer : cache.plan.layers) {
        entries += static_cast<int64_t>(layer.choices.size()) + 2;
      }
      sequence.log->make_room(entries);
    }
    fall.number = cache.budget_changes.next();
    cache.budget_changes.push(fall);
    if (cache.is_observed()) cache.config.observer->budget_changed(fall);
    cache.carry_out(id);
    ++cache.n_falls;
  }
  const int64_t returned = available_pages() - before;
  if (returned != fall.pages) {
    fail(ErrorCode::kInternal, "a fall to {} positions returned {} pages in place of {}",
         fall.after, returned, fall.pages);
  }
  return fall;
}

void CacheManager::Impl::rank_plan(const CachedSequence& sequence) {
  if (!is_observed() || !config.observer->wants_candidates()) return;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    Plan::Layer& planned = plan.layers[layer];
    planned.candidates.clear();
    if (!sequence.rule(layer).is_elastic || planned.choices.empty()) continue;
    fill_view(sequence, layer, planned.schedule);
    rank_all(sequence, layer, planned.candidates);
  }
}

void CacheManager::Impl::carry_out(SequenceId id) {
  CachedSequence& sequence = at(id);
  begin_fall(sequence, plan.budget);
  if (sequence.log != nullptr) sequence.log->append_budget(sequence.length, plan.budget);
  for (const PolicyMap::Sharers& group : sequence.rules->policies.sharers()) {
    if (group.budget != kUnlimited) continue;
    for (const int32_t layer : group.layers) shares_of[layer] = plan.layers[layer].share;
    note_shares(sequence, group);
  }
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    if (!sequence.rule(layer).is_elastic) continue;
    const Plan::Layer& planned = plan.layers[layer];
    sequence.layers[layer].schedule = planned.schedule;
    if (planned.choices.empty()) continue;
    fill_view(sequence, layer, planned.schedule);
    choices.assign(planned.choices.begin(), planned.choices.end());
    runner_up = planned.runner_up;
    runner_up_score = planned.runner_up_score;
    candidates.assign(planned.candidates.begin(), planned.candidates.end());
    note_choices(sequence, layer);
    ++counters[layer].decisions;
    remove_victims(id, layer);
  }
  plan.sequence = -1;
}

void CacheManager::Impl::begin_fall(CachedSequence& sequence, int32_t budget) {
  unlock_all(sequence);  // its blocks stay for others
  sequence.is_apart = sequence.has_fallen = true;
  sequence.budget = budget;
}

void CacheManager::Impl::lift(CachedSequence& sequence) const {
  sequence.budget = kUnlimited;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    const LayerRule& rule = sequence.rule(layer);
    if (rule.is_elastic) sequence.layers[layer].schedule = rule.schedule;
  }
}

KvBudgetChange CacheManager::lift(DecisionLog& log, int64_t length, int32_t before,
                                  std::optional<SequenceId> id) {
  const std::lock_guard lock(impl_->mutex);
  log.make_room(1);
  KvBudgetChange change{.number = impl_->budget_changes.next(),
                        .step = impl_->steps,
                        .sequence = id.value_or(-1),
                        .length = length,
                        .before = before,
                        .after = kUnlimited,
                        .first_event = impl_->ring.written()};
  impl_->budget_changes.push(change);
  if (impl_->is_observed()) impl_->config.observer->budget_changed(change);
  log.append_budget(length, kUnlimited);
  if (id && impl_->at(*id).length == length) impl_->lift(impl_->at(*id));
  ++impl_->n_lifts;
  return change;
}

std::vector<KvBudgetChange> CacheManager::budget_changes(int64_t from) const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->budget_changes.since(from);
}

}  // namespace paddock
