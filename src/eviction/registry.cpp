// The built-in policies by name: what arguments and options each takes, and what it makes of them.
// A rule without its budget is elastic.
#include "eviction/registry.h"

#include <algorithm>
#include <vector>

#include "core/fail.h"
#include "eviction/rule_text.h"
#include "eviction/rules.h"

namespace paddock {
namespace {

/// Of rules with a budget, and those that never have one.
void refuse_floor(const ParsedRule& rule) {
  if (!rule.least) return;
  fail(ErrorCode::kInvalidArgument,
       "policy rule '{}': '@min' is the least that a rule without a budget is given, such as "
       "h2o@min:64; leave it out",
       rule.text);
}

void refuse_trim_options(const ParsedRule& rule) {
  refuse_floor(rule);
  if (!rule.every && !rule.sinks && !rule.recent && !rule.seed) return;
  fail(
      ErrorCode::kInvalidArgument,
      "policy rule '{}': @every, @sinks, @recent and @seed are for rules that trim by score; leave "
      "them out",
      rule.text);
}

std::shared_ptr<const EvictionPolicy> full_rule(ParsedRule& rule) {
  parse_arguments(rule, 0, "full");
  refuse_trim_options(rule);
  if (rule.positions) {
    fail(ErrorCode::kInvalidArgument,
         "policy rule '{}': full keeps everything where it is; leave '@original' and '@compact' "
         "out",
         rule.text);
  }
  return make_full();
}

// ---- rules that trim: by score, and where they have no budget

ScoredOptions options_of(const ParsedRule& rule, int32_t budget, Positions unless_given) {
  ScoredOptions options;
  options.budget = budget;
  options.every = rule.every;
  options.sinks = rule.sinks;
  options.recent = rule.recent;
  options.seed = rule.seed;
  options.least = rule.least;
  options.compact = rule.positions.value_or(unless_given) == Positions::kCompact;
  return options;
}

/// Error if what is protected fills the budget, of an elastic rule the least one.
void check_protected(const ParsedRule& rule, const ScoredRule& made) {
  const bool is_elastic = made.is_elastic();
  if (is_elastic && !rule.least) return;
  const int32_t budget = is_elastic ? *rule.least : made.options().budget;
  const TrimSchedule schedule = made.schedule_for(budget);
  if (int64_t{schedule.keep_first} + schedule.keep_newest < budget) return;
  fail(ErrorCode::kInvalidArgument,
       "policy rule '{}' protects {} sinks and {} recent positions, which must be fewer than its "
       "{} of {}",
       rule.text, schedule.keep_first, schedule.keep_newest, is_elastic ? "least" : "budget",
       budget);
}

/// `sink:S` without sinks: `window`.
std::shared_ptr<const EvictionPolicy> oldest_rule(const ParsedRule& rule, int32_t sinks,
                                                  Positions unless_given) {
  if (rule.sinks || rule.recent || rule.seed) {
    fail(ErrorCode::kInvalidArgument,
         "policy rule '{}': @sinks, @recent and @seed are for rules that trim by score; leave them "
         "out",
         rule.text);
  }
  auto made = make_oldest(sinks, options_of(rule, kUnlimited, unless_given));
  check_protected(rule, *made);
  return made;
}

std::shared_ptr<const EvictionPolicy> window_rule(ParsedRule& rule) {
  if (!rule.has_tail) return oldest_rule(rule, 0, Positions::kOriginal);
  parse_arguments(rule, 1, "window:W");
  refuse_trim_options(rule);
  return make_window(rule.arguments[0], rule.positions.value_or(Positions::kOriginal));
}

std::shared_ptr<const EvictionPolicy> sink_rule(ParsedRule& rule) {
  if (rule.has_tail && !rule.tail.empty() && rule.tail.find('+') == std::string_view::npos) {
    return oldest_rule(rule, parse_tokens(rule.text, rule.tail), Positions::kCompact);
  }
  parse_arguments(rule, 2, "sink:S+W");
  refuse_trim_options(rule);
  const int64_t sum = int64_t{rule.arguments[0]} + rule.arguments[1];
  if (sum >= kUnlimited) {
    fail(ErrorCode::kInvalidArgument, "policy rule '{}': S + W is {}; it must be below {}",
         rule.text, sum, kUnlimited);
  }
  return make_sink(rule.arguments[0], rule.arguments[1],
                   rule.positions.value_or(Positions::kCompact));
}

struct ScoredEntry {
  const char* name;
  const char* form;
  bool has_elastic;  // whether NAME alone is a rule
  std::shared_ptr<const ScoredRule> (*make)(const ScoredOptions& options);
};
constexpr ScoredEntry kScored[] = {
    {"lru", "lru:B", true, make_lru},       {"h2o", "h2o:B", true, make_h2o},
    {"tova", "tova:B", true, make_tova},    {"snapkv", "snapkv:B", false, make_snapkv},
    {"knorm", "knorm:B", true, make_knorm}, {"random", "random:B", false, make_random}};

/// The budget of NAME:B; kUnlimited of NAME alone.
int32_t budget_of(const ScoredEntry& entry, ParsedRule& rule) {
  if (!rule.has_tail) {
    if (entry.has_elastic) return kUnlimited;
    fail(ErrorCode::kInvalidArgument,
         "policy rule '{}': {} has no form without a budget; write {}, or a rule that has one, "
         "such as h2o",
         rule.text, entry.name, entry.form);
  }
  parse_arguments(rule, 1, entry.form);
  refuse_floor(rule);
  if (rule.arguments[0] == kUnlimited) {
    fail(ErrorCode::kInvalidArgument,
         "policy rule '{}': a budget of {} positions is no budget; write full", rule.text,
         kUnlimited);
  }
  return rule.arguments[0];
}

std::shared_ptr<const ScoredRule> scored_rule(const ScoredEntry& entry, ParsedRule& rule) {
  const int32_t budget = budget_of(entry, rule);
  const std::string_view name = entry.name;
  if (rule.seed && name != "random") {
    fail(ErrorCode::kInvalidArgument, "policy rule '{}': '@seed' is for random alone", rule.text);
  }
  if (rule.every && name == "snapkv") {
    fail(ErrorCode::kInvalidArgument,
         "policy rule '{}': snapkv decides once, where the prompt ends; leave '@every' out",
         rule.text);
  }
  auto made = entry.make(options_of(rule, budget, Positions::kOriginal));
  check_protected(rule, *made);
  return made;
}

const ScoredEntry* find_scored(std::string_view name) {
  const auto* found = std::find_if(std::begin(kScored), std::end(kScored),
                                   [&](const ScoredEntry& e) { return name == e.name; });
  return found == std::end(kScored) ? nullptr : found;
}

/// The scored rule in `NAME:B` or `NAME` behind the name of one that wraps it.
std::shared_ptr<const ScoredRule> inner_rule(const ParsedRule& rule) {
  const size_t colon = rule.tail.find(':');
  ParsedRule inner = rule;
  inner.name = rule.tail.substr(0, colon);
  inner.has_tail = colon != std::string_view::npos;
  inner.tail = inner.has_tail ? rule.tail.substr(colon + 1) : std::string_view();
  const ScoredEntry* entry = find_scored(inner.name);
  if (entry == nullptr) {
    fail(ErrorCode::kInvalidArgument,
         "policy rule '{}': {} wraps a rule that trims by score; write it as {}:h2o:B", rule.text,
         rule.name, rule.name);
  }
  return scored_rule(*entry, inner);
}

std::shared_ptr<const EvictionPolicy> pyramid_rule(ParsedRule& rule) {
  return make_pyramid(inner_rule(rule));
}

std::shared_ptr<const EvictionPolicy> cake_rule(ParsedRule& rule) {
  return make_cake(inner_rule(rule));
}

struct Entry {
  const char* name;
  const char* form;
  std::shared_ptr<const EvictionPolicy> (*make)(ParsedRule& rule);
};
constexpr Entry kRegistry[] = {{"full", "full", full_rule},
                               {"window", "window:W", window_rule},
                               {"sink", "sink:S+W", sink_rule},
                               {"pyramid", "pyramid:NAME:B", pyramid_rule},
                               {"cake", "cake:NAME:B", cake_rule}};
/// Beside NAME of scored ones.
constexpr const char* kElasticForms[] = {"window", "sink:S", "pyramid:NAME", "cake:NAME"};

// ---- rules of a host's own

void check_custom(std::string_view name, const PolicyMaker& maker) {
  const auto is_letter = [](char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; };
  const auto is_inner = [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
  };
  if (name.empty() || !is_letter(name[0]) || !std::all_of(name.begin(), name.end(), is_inner)) {
    fail(ErrorCode::kInvalidArgument,
         "the custom policy '{}' cannot be named in a rule; use a letter, then letters, digits, "
         "'_', '-' and '.'",
         name);
  }
  if (find_scored(name) != nullptr ||
      std::any_of(std::begin(kRegistry), std::end(kRegistry),
                  [&](const Entry& entry) { return name == entry.name; })) {
    fail(ErrorCode::kInvalidArgument,
         "the custom policy '{}' has the name of a built-in rule; give it another", name);
  }
  if (!maker) {
    fail(ErrorCode::kInvalidArgument, "the custom policy '{}' has no function that makes it", name);
  }
}

std::shared_ptr<const EvictionPolicy> custom_rule(std::string_view text, std::string_view name,
                                                  const PolicyMaker& maker) {
  std::string_view arguments = text.substr(name.size());
  if (arguments.starts_with(':')) arguments.remove_prefix(1);
  std::shared_ptr<const EvictionPolicy> made;
  try {
    made = maker(arguments);
  } catch (const std::bad_alloc&) {
    throw;  // nothing is wrong with the rule
  } catch (const Error& e) {
    const bool no_memory = e.code() == ErrorCode::kOutOfMemory;
    fail(no_memory ? e.code() : ErrorCode::kInvalidArgument, "policy rule '{}': {}", text,
         e.what());
  } catch (const std::exception& e) {
    fail(ErrorCode::kInvalidArgument, "policy rule '{}': {}", text, e.what());
  } catch (...) {
    fail(ErrorCode::kInvalidArgument,
         "policy rule '{}': the host's function threw something that is no std::exception", text);
  }
  if (made == nullptr) {
    fail(ErrorCode::kInvalidArgument,
         "policy rule '{}': the host's function for '{}' made no policy of '{}'", text, name,
         arguments);
  }
  return made;
}

}  // namespace

void check_custom_policies(const CustomPolicies& custom) {
  for (const auto& [name, maker] : custom) check_custom(name, maker);
}

std::vector<std::string> policy_forms() try {
  std::vector<std::string> forms;
  for (const Entry& entry : kRegistry) forms.emplace_back(entry.form);
  for (const ScoredEntry& entry : kScored) forms.emplace_back(entry.form);
  forms.insert(forms.end(), std::begin(kElasticForms), std::end(kElasticForms));
  for (const ScoredEntry& entry : kScored) {
    if (entry.has_elastic) forms.emplace_back(entry.name);
  }
  return forms;
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

std::shared_ptr<const EvictionPolicy> make_policy(std::string_view text,
                                                  const CustomPolicies& custom) try {
  check_custom_policies(custom);
  const std::string_view name = rule_name(text);
  if (const auto found = custom.find(name); found != custom.end()) {
    return custom_rule(text, name, found->second);
  }
  ParsedRule rule = parse_rule(text);
  for (const Entry& entry : kRegistry) {
    if (rule.name == entry.name) return entry.make(rule);
  }
  if (const ScoredEntry* entry = find_scored(rule.name)) return scored_rule(*entry, rule);
  std::vector<std::string> forms = policy_forms();
  for (const auto& [own, maker] : custom) forms.push_back(own + " (the host's own)");
  fail(ErrorCode::kInvalidArgument, "policy rule '{}': there is no policy '{}'; there are {}", text,
       rule.name, fmt::join(forms, ", "));
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

}  // namespace paddock
