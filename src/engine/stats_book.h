// The engine's own counters: written by the thread that drives it, read by any.
#pragma once

#include <mutex>

#include "paddock/engine_stats.h"

namespace paddock {

class StatsBook {
 public:
  template <typename Fn>
  void update(const Fn& fn) noexcept {
    const std::lock_guard lock(mutex_);
    fn(stats_);
  }
  EngineStats snapshot() const {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  mutable std::mutex mutex_;
  EngineStats stats_;
};

}  // namespace paddock
