#include "core/log.h"

#include <atomic>
#include <memory>
#include <mutex>

namespace paddock {
namespace {

using Hook = std::function<void(LogLevel, std::string_view)>;

std::mutex g_calling;                // held while the hook runs: one call at a time
std::shared_ptr<const Hook> g_hook;  // guarded by g_calling
std::atomic<bool> g_enabled{false};
std::atomic<uint64_t> g_failures{0};
thread_local bool t_inside = false;  // this thread is in the hook, and holds g_calling

}  // namespace

void set_log_hook(std::function<void(LogLevel, std::string_view)> hook) {
  auto fresh = hook ? std::make_shared<const Hook>(std::move(hook)) : nullptr;
  std::unique_lock lock(g_calling, std::defer_lock);
  if (!t_inside) lock.lock();
  g_hook.swap(fresh);
  g_enabled = g_hook != nullptr;
  if (lock) lock.unlock();  // the old hook is destroyed without the lock
}

uint64_t log_hook_failures() noexcept { return g_failures; }

bool log_enabled() noexcept { return g_enabled.load(std::memory_order_relaxed); }

void log_message(LogLevel level, std::string_view message) noexcept {
  if (t_inside) return;              // the hook's own doing
  std::shared_ptr<const Hook> hook;  // a hook that replaces itself runs to its end
  {
    const std::lock_guard lock(g_calling);
    hook = g_hook;
    if (hook == nullptr) return;
    t_inside = true;
    try {
      (*hook)(level, message);
    } catch (...) {
      log_failed();
    }
    t_inside = false;
  }
}

void log_failed() noexcept { ++g_failures; }

}  // namespace paddock
