#include "diagnose/policy_settings.h"

#include <algorithm>
#include <memory>
#include <typeinfo>

#include "paddock/error.h"

namespace paddock {

std::optional<Settings> ask_settings(const EvictionPolicy& policy, int32_t n_layers,
                                     Findings& findings) {
  Settings s;
  const char* method = "name()";
  try {
    s.name = policy.name();
    method = "positions()";
    s.positions = policy.positions();
    method = "needs()";
    s.needs = policy.needs();
    method = "is_elastic()";
    s.is_elastic = policy.is_elastic();
    method = "min_budget()";
    if (s.is_elastic) s.min_budget = policy.min_budget();
    method = "shares_by_need()";
    s.shares = policy.shares_by_need();
    for (int32_t layer = 0; layer < n_layers; ++layer) {
      method = "visibility()";
      s.visibility.push_back(policy.visibility(layer));
      method = "schedule()";
      s.schedules.push_back(s.is_elastic ? policy.schedule(layer, n_layers, kUnlimited)
                                         : policy.schedule(layer, n_layers));
    }
    return s;
  } catch (...) {
    findings.error(FindingKind::kThrows, "{} threw: {}", method, current_exception_text());
    return std::nullopt;
  }
}

void compare_settings(const Settings& a, const Settings& b, const char* when, Findings& findings) {
  if (a.name != b.name) {
    findings.error(FindingKind::kName,
                   "name() was '{}' and '{}' {}; it identifies the policy, so it must not change",
                   a.name, b.name, when);
  }
  const auto differs = [&](const char* method) {
    findings.error(FindingKind::kSettings,
                   "{} answers differently {}; it is asked once, so it must not change", method,
                   when);
  };
  if (a.positions != b.positions) differs("positions()");
  if (a.needs != b.needs) {
    differs("needs()");
  }
  if (a.is_elastic != b.is_elastic) differs("is_elastic()");
  if (a.min_budget != b.min_budget) differs("min_budget()");
  if (a.shares != b.shares) differs("shares_by_need()");
  if (a.visibility != b.visibility) differs("visibility()");
  if (a.schedules != b.schedules) differs("schedule()");
}

void check_name(const EvictionPolicy& policy, const std::string& name, Findings& findings) {
  if (name.empty()) {
    findings.error(FindingKind::kName, "name() is empty; statistics and logs need one");
    return;
  }
  std::shared_ptr<const EvictionPolicy> built_in;
  try {
    built_in = make_policy(name);
  } catch (const Error&) {  // so it is the host's own
  }
  if (built_in != nullptr) {
    const EvictionPolicy& ours = *built_in;
    const EvictionPolicy& theirs = policy;
    if (typeid(ours) == typeid(theirs)) return;
    findings.error(FindingKind::kName,
                   "name() is '{}', which is a built-in rule; equal names must mean equal "
                   "behaviour, so choose another",
                   name);
    return;
  }
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return c > ' ' && c < 127 && c != ',' && c != '=' && c != '"' && c != '\\';
  });
  if (!plain) {
    findings.warning(FindingKind::kName,
                     "name() is '{}'; leave out blanks, quotes, ',' and '=', which part rules in "
                     "a SPEC",
                     name);
  }
}

}  // namespace paddock
