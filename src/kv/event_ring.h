// A bounded log of removals: the newest events stay, the oldest make room, numbers show the loss.
#pragma once

#include <cstdint>
#include <vector>

#include "paddock/stats.h"

namespace paddock {

/// KvEvent without its strings.
struct RemovalEvent {
  int64_t step = 0;
  RemovalReason reason = RemovalReason::kWindow;
  int32_t layer = 0;
  int32_t sequence = 0;
  int32_t rule = 0;  // index of its layer's rule among the names of all that ever ruled
  int32_t n_tokens = 0;
  int64_t first_position = 0;
  int64_t length = 0;
  int64_t age_steps = 0;
  int64_t idle_steps = -1;
  double score = 0;
  double runner_up_score = 0;
  int64_t runner_up_position = -1;
  int32_t rank = -1;
  int32_t left_together = 0;
  int64_t sufficient_budget = 0;
  bool overruled = false;
};

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
