// What the library itself says; see paddock/log.h for who hears it.
#pragma once

#include <fmt/format.h>

#include <utility>

#include "paddock/log.h"

namespace paddock {

bool log_enabled() noexcept;  // false while nobody listens: then messages are not even formatted
void log_message(LogLevel level, std::string_view message) noexcept;
void log_failed() noexcept;  // a message is lost

template <typename... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) noexcept {
  if (!log_enabled()) return;
  try {
    log_message(level, fmt::format(format, std::forward<Args>(args)...));
  } catch (...) {  // no memory for the message
    log_failed();
  }
}

}  // namespace paddock
