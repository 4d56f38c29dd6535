// How far each request is, for any thread: written by the one that drives the engine.
#pragma once

#include <mutex>
#include <unordered_map>

#include "paddock/engine.h"

namespace paddock {

class StatusBoard {
 public:
  /// A new one, which waits. Takes memory; nothing else does.
  void put(RequestId id, const RequestStatus& status) {
    const std::lock_guard lock(mutex_);
    statuses_.emplace(id, status);
  }
  /// Of one that is there.
  void update(RequestId id, const RequestStatus& status) noexcept {
    const std::lock_guard lock(mutex_);
    const auto at = statuses_.find(id);
    if (at != statuses_.end()) at->second = status;
  }
  void erase(RequestId id) noexcept {
    const std::lock_guard lock(mutex_);
    statuses_.erase(id);
  }
  /// kUnknown where there is none of the number.
  RequestStatus of(RequestId id) const {
    const std::lock_guard lock(mutex_);
    const auto at = statuses_.find(id);
    return at == statuses_.end() ? RequestStatus{} : at->second;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<RequestId, RequestStatus> statuses_;
};

}  // namespace paddock
