#include "kv/policy_map.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <numeric>

#include "core/fail.h"
#include "core/search.h"
#include "eviction/share_out.h"

namespace paddock {
namespace {

constexpr int64_t kMostInterval = 65536;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Whether a SPEC is LAYERS=RULE,... or meant to be. What follows the name of a custom rule may
/// hold anything; other rules hold neither '=' nor ','.
bool is_list(std::string_view spec, const CustomPolicies& custom) {
  if (is_digit(spec[0]) || spec[0] == '*') return true;
  return !custom.contains(rule_name(spec)) && spec.find_first_of("=,") != std::string_view::npos;
}

int32_t parse_layer(std::string_view part, std::string_view text, int32_t n_layers) {
  int32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) {
    fail(ErrorCode::kInvalidArgument, "policy '{}': '{}' is not a layer; write 3, 0-3, 0-3+29 or *",
         part, text);
  }
  if (value >= n_layers) {
    fail(ErrorCode::kInvalidArgument,
         "policy '{}': there is no layer {}; the model's go from 0 to {}", part, value,
         n_layers - 1);
  }
  return value;
}

/// Calls fn(layer) for every layer that LAYERS names.
template <typename Fn>
void for_each_layer(std::string_view part, std::string_view layers, int32_t n_layers,
                    const Fn& fn) {
  if (layers == "*") {
    for (int32_t i = 0; i < n_layers; ++i) fn(i);
    return;
  }
  for (;;) {
    const size_t plus = layers.find('+');
    const std::string_view range = layers.substr(0, plus);
    const size_t dash = range.find('-');
    const int32_t first = parse_layer(part, range.substr(0, dash), n_layers);
    const int32_t last = dash == std::string_view::npos
                             ? first
                             : parse_layer(part, range.substr(dash + 1), n_layers);
    if (last < first) {
      fail(ErrorCode::kInvalidArgument, "policy '{}': the range {} runs backwards", part, range);
    }
    for (int32_t i = first; i <= last; ++i) fn(i);
    if (plus == std::string_view::npos) return;
    layers.remove_prefix(plus + 1);
  }
}

}  // namespace

bool PolicyMap::names_custom(std::string_view spec, const CustomPolicies& custom) {
  if (spec.empty()) return false;
  if (!is_list(spec, custom)) return custom.contains(rule_name(spec));
  for (std::string_view rest = spec;;) {
    const size_t comma = rest.find(',');
    const std::string_view part = rest.substr(0, comma);
    if (custom.contains(rule_name(part.substr(part.find('=') + 1)))) return true;
    if (comma == std::string_view::npos) return false;
    rest.remove_prefix(comma + 1);
  }
}

PolicyMap PolicyMap::parse(std::string_view spec, int32_t n_layers, const CustomPolicies& custom) {
  if (spec.empty())
    fail(ErrorCode::kInvalidArgument, "the policy is empty; write full or sink:4+252");
  if (!is_list(spec, custom)) return uniform(make_policy(spec, custom), n_layers);

  std::vector<std::shared_ptr<const EvictionPolicy>> chosen(n_layers);
  for (std::string_view rest = spec;;) {
    const size_t comma = rest.find(',');
    const std::string_view part = rest.substr(0, comma);
    const size_t equals = part.find('=');
    if (equals == std::string_view::npos) {
      fail(ErrorCode::kInvalidArgument,
           "policy '{}': the part '{}' is not of the form LAYERS=RULE, such as 0-3=full", spec,
           part);
    }
    if (equals + 1 == part.size()) {
      fail(ErrorCode::kInvalidArgument, "policy '{}': the part '{}' has no rule; write {}=full",
           spec, part, part.substr(0, equals));
    }
    const auto policy = make_policy(part.substr(equals + 1), custom);
    bool reached = false;
    for_each_layer(part, part.substr(0, equals), n_layers, [&](int32_t layer) {
      if (chosen[layer] != nullptr) return;  // the first match wins
      chosen[layer] = policy;
      reached = true;
    });
    if (!reached) {
      fail(ErrorCode::kInvalidArgument,
           "policy '{}': the rule '{}' reaches no layer, because rules before it took them all",
           spec, part);
    }
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  PolicyMap map;
  for (int32_t i = 0; i < n_layers; ++i) {
    if (chosen[i] == nullptr) {
      fail(ErrorCode::kInvalidArgument, "policy '{}' gives layer {} no rule; end it with ',*=full'",
           spec, i);
    }
    map.layers_.emplace_back(chosen[i], i, n_layers);
  }
  map.find_interval();
  map.find_sharers();
  return map;
}

PolicyMap PolicyMap::uniform(const std::shared_ptr<const EvictionPolicy>& policy,
                             int32_t n_layers) {
  PolicyMap map;
  for (int32_t i = 0; i < n_layers; ++i) map.layers_.emplace_back(policy, i, n_layers);
  map.find_interval();
  map.find_sharers();
  return map;
}

bool PolicyMap::keeps_all() const {
  return std::all_of(layers_.begin(), layers_.end(),
                     [](const LayerRule& rule) { return rule.keeps_all(); });
}

bool PolicyMap::has_unbounded_layer() const {
  return std::any_of(layers_.begin(), layers_.end(),
                     [](const LayerRule& rule) { return !rule.bounded(); });
}

bool PolicyMap::is_endless() const {
  return std::all_of(layers_.begin(), layers_.end(), [](const LayerRule& rule) {
    return rule.bounded() || (rule.is_elastic && rule.moves_queries());
  });
}

void PolicyMap::check_block_size(int32_t block_size) const {
  for (int32_t i = 0; i < size(); ++i) layers_[i].check_block_size(block_size, i);
}

void PolicyMap::find_interval() {
  int64_t interval = 0;
  for (const LayerRule& rule : layers_) {
    if (!rule.is_elastic) continue;
    const int64_t every = rule.schedule.every;
    const int64_t together = interval == 0 ? every : std::lcm(interval, every);
    if (together > kMostInterval) {
      fail(ErrorCode::kInvalidArgument,
           "policy '{}' decides every {} positions, which coincides with the other elastic layers "
           "only every {}; intervals must meet at {} or fewer, such as by one @every:N for all",
           rule.name, every, together, kMostInterval);
    }
    interval = together;
  }
  interval_ = static_cast<int32_t>(interval);
}

size_t PolicyMap::group_of(const LayerRule& rule) const {
  const auto is_its = [&](const Sharers& group) {
    return layers_[group.layers[0]].policy == rule.policy;
  };
  return static_cast<size_t>(std::find_if(sharers_.begin(), sharers_.end(), is_its) -
                             sharers_.begin());
}

void PolicyMap::find_sharers() {
  for (int32_t i = 0; i < size(); ++i) {
    const LayerRule& rule = layers_[i];
    if (!rule.shares_by_need) continue;
    const size_t at = group_of(rule);
    if (at == sharers_.size()) sharers_.emplace_back();
    Sharers* const group = &sharers_[at];
    const int32_t every = layers_[group->layers.empty() ? i : group->layers[0]].schedule.every;
    if (rule.schedule.every != every) {
      fail(ErrorCode::kInvalidArgument,
           "policy '{}' shares by need, but layer {} decides every {} positions and layer {} every "
           "{}; all of its layers must decide together",
           rule.name, group->layers[0], every, i, rule.schedule.every);
    }
    group->layers.push_back(i);
  }
  for (Sharers& group : sharers_) {
    if (layers_[group.layers[0]].is_elastic) continue;
    int64_t sum = 0;
    for (const int32_t layer : group.layers) sum += layers_[layer].schedule.budget;
    const auto n = static_cast<int64_t>(group.layers.size());
    group.budget = static_cast<int32_t>(sum / n);
    for (const int32_t layer : group.layers) {
      layers_[layer].most_budget =
          std::max<int64_t>(layers_[layer].schedule.budget, most_share(group.budget, n));
    }
  }
}

int64_t PolicyMap::most_pages(const Sharers& group, int64_t block_size) const {
  const LayerRule& first = layers_[group.layers[0]];
  if (!first.bounded()) return std::numeric_limits<int64_t>::max();
  // Whatever the shares are: the sum of blocks_touched() is largest where nothing is rounded down.
  const auto n = static_cast<int64_t>(group.layers.size());
  int64_t budgets = 0;  // before the first decision
  for (const int32_t layer : group.layers) budgets += layers_[layer].schedule.budget;
  return (budgets + n * (block_size - 2)) / block_size + n +
         n * blocks_touched(first.schedule.every, block_size);
}

bool PolicyMap::is_enough(int32_t layer, int32_t budget, int32_t block_size,
                          std::string& why) const {
  const LayerRule& rule = layers_[layer];
  try {
    if (leaves_choice(rule.schedule_with(budget, layer, size()), block_size)) return true;
    why = fmt::format("policy '{}': protected blocks fill its budget", rule.name);
  } catch (const PolicyThrew&) {
    throw;
  } catch (const PolicyIgnoresBudget&) {
    throw;
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kInvalidArgument) throw;
    why = e.what();
  }
  return false;
}

int32_t PolicyMap::too_small_in(int32_t budget, int32_t block_size, std::string& why) const {
  for (int32_t i = 0; i < size(); ++i) {
    if (layers_[i].is_elastic && !is_enough(i, budget, block_size, why)) return i;
  }
  return -1;
}

int32_t PolicyMap::least_share(int32_t layer, int32_t block_size) const {
  const LayerRule& rule = layers_[layer];
  const int32_t most = rule.is_elastic ? least_budget(block_size) : sharers_[group_of(rule)].budget;
  std::string why;
  if (!is_enough(layer, most, block_size, why)) {
    fail(ErrorCode::kInvalidArgument,
         "layer {} shares by need, but its part of the budget, {}, leaves it nothing to choose "
         "from in blocks of {} ({}); raise the budget or lower the block size",
         layer, most, block_size, why);
  }
  return static_cast<int32_t>(smallest(1, most, [&](int64_t budget) {
    return is_enough(layer, static_cast<int32_t>(budget), block_size, why);
  }));
}

int32_t PolicyMap::least_budget(int32_t block_size) const {
  if (!is_elastic()) return 0;
  int32_t low = 1;
  for (const LayerRule& rule : layers_) low = std::max(low, rule.min_budget);
  // A larger budget leaves no less to choose from. Doubling stays far from kUnlimited, where sums
  // of budget and interval would not fit.
  std::string why;
  int32_t high = low;
  for (int32_t layer = 0; (layer = too_small_in(high, block_size, why)) >= 0; high *= 2) {
    if (high <= kUnlimited / 4) continue;
    fail(ErrorCode::kInvalidArgument,
         "no budget leaves layer {} something to choose from, with blocks of {} positions: {} is "
         "refused ({}); protect fewer positions or lower the block size",
         layer, block_size, high, why);
  }
  return static_cast<int32_t>(smallest(low, high, [&](int64_t budget) {
    return too_small_in(static_cast<int32_t>(budget), block_size, why) < 0;
  }));
}

int32_t PolicyMap::floor_budget(int32_t block_size) const {
  const bool is_said = std::any_of(layers_.begin(), layers_.end(), [](const LayerRule& rule) {
    return rule.is_elastic && rule.min_budget > 0;
  });
  return least_budget(block_size) + (is_said || !is_elastic() ? 0 : block_size);
}

}  // namespace paddock
