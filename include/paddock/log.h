// The library never prints. What it has to say goes to one hook, silent by default.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "paddock/export.h"

namespace paddock {

enum class LogLevel { kDebug, kInfo, kWarning };

/// Sets the process-wide hook; an empty function silences. The hook may be called from any thread
/// that uses the library, one call at a time, and never under a lock of an engine: it may call what
/// "any thread" may (docs/hosts.md). What the library says while the hook runs, on its thread, is
/// not passed on. What it throws is caught and counted. Safe to call at any time, also inside the
/// hook; elsewhere it returns when the old hook is not running any more.
PADDOCK_API void set_log_hook(std::function<void(LogLevel, std::string_view)> hook);

/// Messages lost since the process began because the hook threw. Any thread.
PADDOCK_API uint64_t log_hook_failures() noexcept;

}  // namespace paddock
