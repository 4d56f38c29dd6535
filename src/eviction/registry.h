// The rules by name, beside make_policy() and policy_forms() of the public header.
#pragma once

#include "paddock/eviction.h"

namespace paddock {

/// Error kInvalidArgument if one of `custom` could never be named in a rule, or has no maker.
void check_custom_policies(const CustomPolicies& custom);

}  // namespace paddock
