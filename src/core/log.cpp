#include "core/log.h"

#include <atomic>
#include <mutex>

namespace paddock {
namespace {

std::mutex g_mutex;
std::function<void(LogLevel, std::string_view)> g_hook;
std::atomic<bool> g_enabled{false};

}  // namespace

void set_log_hook(std::function<void(LogLevel, std::string_view)> hook) {
  const std::lock_guard lock(g_mutex);
  g_hook = std::move(hook);
  g_enabled = static_cast<bool>(g_hook);
}

bool log_enabled() noexcept { return g_enabled.load(std::memory_order_relaxed); }

void log_message(LogLevel level, std::string_view message) noexcept {
  const std::lock_guard lock(g_mutex);
  if (g_hook) g_hook(level, message);
}

}  // namespace paddock
