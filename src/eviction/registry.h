// The rules by name, beside make_policy() and policy_forms() of the public header.
#pragma once

#include <string_view>

#include "paddock/eviction.h"

namespace paddock {

/// Error kInvalidArgument if one of `custom` could never be named in a rule, or has no maker.
void check_custom_policies(const CustomPolicies& custom);

/// What a rule is called in its text, built in or a host's own: what comes before ':' or '@'.
inline std::string_view rule_name(std::string_view text) {
  return text.substr(0, text.find_first_of(":@"));
}

}  // namespace paddock
