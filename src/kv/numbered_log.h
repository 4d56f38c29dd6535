// A bounded log of what is told of seldom: the newest records stay, numbered from 0 without gaps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <new>
#include <vector>

namespace paddock {

/// Not synchronized. A Record has its `number`, which is next() when it comes.
template <typename Record>
class NumberedLog {
 public:
  /// Of so many; 0: it only counts.
  explicit NumberedLog(size_t room) : room_(room) {}

  int64_t next() const { return next_; }
  /// Without memory nothing has changed.
  void push(const Record& record) {
    if (room_ > 0) records_.push_back(record);
    if (records_.size() > room_) records_.pop_front();
    ++next_;
  }
  /// Of what has happened all the same: without memory it is counted, and those before it are
  /// forgotten with it, as there would be a gap.
  void push_or_forget(const Record& record) noexcept {
    try {
      push(record);
    } catch (const std::bad_alloc&) {
      records_.clear();
      ++next_;
    }
  }
  /// Those numbered `from` and later that are still here.
  std::vector<Record> since(int64_t from) const {
    const int64_t oldest = records_.empty() ? 0 : records_.front().number;
    const auto size = static_cast<int64_t>(records_.size());
    return {records_.begin() + std::clamp<int64_t>(from - oldest, 0, size), records_.end()};
  }

 private:
  size_t room_;
  std::deque<Record> records_;
  int64_t next_ = 0;
};

}  // namespace paddock
