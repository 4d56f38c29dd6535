// fail(): throw paddock::Error with a formatted message.
#pragma once

#include <fmt/format.h>

#include <utility>

#include "paddock/error.h"

namespace paddock {

template <typename... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace paddock
