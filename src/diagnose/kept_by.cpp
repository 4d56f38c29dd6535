#include "diagnose/kept_by.h"

#include <algorithm>
#include <optional>

#include "core/fail.h"
#include "core/search.h"
#include "kv/layer_rule.h"
#include "paddock/eviction.h"

namespace paddock {
namespace {

/// How far to look for a budget of the whole rule: the last layer of a pyramid gets a twentieth of
/// what the budget grows by, and may protect half of it.
constexpr int64_t kMostShares = 64;

/// "h2o:256@every:8@sinks:2": its head, and its options without the one that is named.
struct Parts {
  std::string head, options;
};
Parts parts_without(const std::string& rule, const std::string& option) {
  const size_t at = rule.find('@');
  Parts parts{rule.substr(0, at), at == std::string::npos ? "" : rule.substr(at)};
  const size_t from = parts.options.find("@" + option + ":");
  if (from == std::string::npos) return parts;
  const size_t to = parts.options.find('@', from + 1);
  parts.options.erase(from, to == std::string::npos ? to : to - from);
  return parts;
}

/// The head without its last argument, if that is a number: "pyramid:h2o" of "pyramid:h2o:48".
std::string name_of(const std::string& head) {
  const size_t colon = head.rfind(':');
  const bool has_number = colon != std::string::npos && colon + 1 < head.size() &&
                          head.find_first_not_of("0123456789", colon + 1) == std::string::npos;
  return has_number ? head.substr(0, colon) : head;
}

/// The rule in that layer, as the cache would take it; nothing where it is refused. `budget`: given
/// to one that has none.
std::optional<TrimSchedule> schedule_of(const std::string& rule, const RuleAt& at, int32_t budget) {
  try {
    const LayerRule made(make_policy(rule), at.layer, at.n_layers);
    if (!made.trims()) return std::nullopt;
    const TrimSchedule s = made.is_elastic && budget != kUnlimited
                               ? made.schedule_with(budget, at.layer, at.n_layers)
                               : made.schedule;
    if (s.budget != kUnlimited && !leaves_choice(s, at.block_size)) return std::nullopt;
    return s;
  } catch (const Error&) {
    return std::nullopt;
  }
}

bool is_elastic(const std::string& rule) {
  try {
    return make_policy(rule)->is_elastic();
  } catch (const Error&) {
    return false;
  }
}

bool shares(const std::string& rule) {
  try {
    return make_policy(rule)->shares_by_need();
  } catch (const Error&) {
    return true;  // it is not known here
  }
}

}  // namespace

KeptBySinks kept_by_sinks(const RuleAt& at, int32_t budget, const KvEvent& trim) {
  KeptBySinks out;
  if (shares(at.rule)) return out;
  const Parts parts = parts_without(at.rule, "sinks");
  const bool elastic = is_elastic(at.rule);
  const int64_t end = trim.first_position + trim.n_tokens;
  const auto rule_with = [&](int64_t sinks, int64_t total) {
    const std::string head =
        elastic ? parts.head : name_of(parts.head) + ":" + std::to_string(total);
    return head + parts.options + "@sinks:" + std::to_string(sinks);
  };
  const auto protects = [&](const std::string& rule, int32_t given) {
    const auto s = schedule_of(rule, at, given);
    return s && is_protected(*s, trim.first_position, end, trim.length);
  };
  const int64_t sinks = trim.first_position + 1;
  const size_t colon = parts.head.rfind(':');
  const int64_t own = elastic ? budget : std::atoll(parts.head.c_str() + colon + 1);
  const int64_t most =
      std::min<int64_t>(kUnlimited - 1, own + kMostShares * (sinks + at.block_size));
  const auto works = [&](int64_t total) {
    if (total >= kUnlimited) return false;
    return protects(rule_with(sinks, total), elastic ? static_cast<int32_t>(total) : kUnlimited);
  };
  const int64_t least = works(own) ? own : smallest(own, most, works);
  if (!works(least)) return out;
  out.sinks = sinks;
  out.fits = least == own;
  out.budget = out.fits ? 0 : least;
  out.rule = rule_with(sinks, least);
  return out;
}

std::string kept_by_budget(const RuleAt& at, int64_t budget) {
  if (budget <= 0 || budget >= kUnlimited || shares(at.rule)) return {};
  if (is_elastic(at.rule)) {
    const Parts parts = parts_without(at.rule, "min");
    const auto gives = [&](int64_t least) {
      const auto s = schedule_of(at.rule, at, static_cast<int32_t>(least));
      return s && s->budget >= budget;
    };
    const int64_t most = std::min<int64_t>(kUnlimited - 1, kMostShares * budget);
    const int64_t least = smallest(1, most, gives);
    return gives(least) ? parts.head + parts.options + "@min:" + std::to_string(least) : "";
  }
  const Parts parts = parts_without(at.rule, "no such option");
  const auto rule_with = [&](int64_t total) {
    return name_of(parts.head) + ":" + std::to_string(total) + parts.options;
  };
  const auto gives = [&](int64_t total) {
    const auto s = schedule_of(rule_with(total), at, kUnlimited);
    return s && s->budget >= budget;
  };
  const int64_t most = std::min<int64_t>(kUnlimited - 1, kMostShares * budget);
  const int64_t least = smallest(1, most, gives);
  return gives(least) ? rule_with(least) : "";
}

namespace {

/// The rule with that, if it is one, and sees the first positions or so far back.
std::string checked(const std::string& rule, int32_t layer, int64_t sinks, int64_t window) {
  try {
    const TokenVisibility v = make_policy(rule)->visibility(layer);
    return v.sinks >= sinks && v.window >= window ? rule : "";
  } catch (const Error&) {
    return {};
  }
}

struct Windowed {
  std::string options;
  TokenVisibility visibility;
};
std::optional<Windowed> windowed(const RuleAt& at) {
  const Parts parts = parts_without(at.rule, "no such option");
  try {
    const TokenVisibility v = make_policy(at.rule)->visibility(at.layer);
    if (v.bounded()) return Windowed{parts.options, v};
  } catch (const Error&) {
  }
  return std::nullopt;
}

}  // namespace

std::string kept_by_window_sinks(const RuleAt& at, int64_t sinks) {
  const auto rule = windowed(at);
  if (!rule) return {};
  return checked(fmt::format("sink:{}+{}{}", sinks, rule->visibility.window, rule->options),
                 at.layer, sinks, 1);
}

std::string kept_by_window(const RuleAt& at, int64_t window) {
  const auto rule = windowed(at);
  if (!rule) return {};
  const std::string head =
      rule->visibility.sinks > 0 ? fmt::format("sink:{}+", rule->visibility.sinks) : "window:";
  return checked(head + std::to_string(window) + rule->options, at.layer, 0, window);
}

}  // namespace paddock
