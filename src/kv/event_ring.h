// A bounded log of removals: the newest events stay, the oldest make room, numbers show the loss.
#pragma once

#include <cstdint>
#include <vector>

#include "trace/observer.h"

namespace paddock {

/// Not synchronized. Allocates in the constructor only.
class EventRing {
 public:
  explicit EventRing(size_t capacity) : events_(capacity) {}

  void push(const RemovalEvent& event) {
    if (!events_.empty()) events_[written_ % events_.size()] = event;
    ++written_;
  }
  uint64_t written() const { return written_; }
  /// Number of the oldest event still here.
  uint64_t oldest() const { return written_ < events_.size() ? 0 : written_ - events_.size(); }
  const RemovalEvent& at(uint64_t number) const { return events_[number % events_.size()]; }

 private:
  std::vector<RemovalEvent> events_;
  uint64_t written_ = 0;
};

}  // namespace paddock
