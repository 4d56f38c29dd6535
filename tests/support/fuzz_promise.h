// What every fuzz target promises: an input is accepted or refused with an Error about it.
#pragma once

#include <stdexcept>

#include "paddock/error.h"

namespace paddock::test {

inline void check(bool condition, const char* what) {
  if (!condition) throw std::logic_error(what);
}

/// Swallows an Error about the input; an internal one is a broken promise.
template <typename Call>
void may_refuse(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    check(error.code() != ErrorCode::kInternal, error.what());
  }
}

}  // namespace paddock::test
