// What a policy is asked once: the conformance suite asks more often.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "diagnose/findings.h"

namespace paddock {

/// Everything a policy is asked once.
struct Settings {
  std::string name;
  Positions positions;
  PolicyNeeds needs;
  bool is_elastic = false;
  int32_t min_budget = 0;                   // of an elastic one
  bool shares = false;                      // by need
  std::vector<TokenVisibility> visibility;  // [n_layers]
  std::vector<TrimSchedule> schedules;      // [n_layers]; of an elastic one, with no budget
};

/// Nothing where a method threw, which is a finding.
std::optional<Settings> ask_settings(const EvictionPolicy& policy, int32_t n_layers,
                                     Findings& findings);
/// `when`: between which two occasions, such as "from one call to the next".
void compare_settings(const Settings& a, const Settings& b, const char* when, Findings& findings);
/// Whether the name can stand for the policy.
void check_name(const EvictionPolicy& policy, const std::string& name, Findings& findings);

}  // namespace paddock
