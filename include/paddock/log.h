// The library never prints. What it has to say goes to one hook, silent by default.
#pragma once

#include <functional>
#include <string_view>

#include "paddock/export.h"

namespace paddock {

enum class LogLevel { kDebug, kInfo, kWarning };

/// Sets the process-wide hook; an empty function silences. The hook may be called from any thread
/// that uses the library, one call at a time, and must not throw. Safe to call at any time.
PADDOCK_API void set_log_hook(std::function<void(LogLevel, std::string_view)> hook);

}  // namespace paddock
