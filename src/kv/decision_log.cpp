#include "kv/decision_log.h"

#include <algorithm>
#include <limits>

#include "core/fail.h"

namespace paddock {

std::span<const DecisionEntry> DecisionLog::entries() const {
  if (size_ == 0) return {};
  return std::span<const DecisionEntry>(*entries_).first(static_cast<size_t>(size_));
}

int64_t DecisionLog::bytes() const {
  if (entries_ == nullptr) return 0;
  return static_cast<int64_t>(entries_->capacity() * sizeof(DecisionEntry));
}

void DecisionLog::make_room(int64_t n) {
  const auto least = static_cast<size_t>(size_ + n);
  if (n == 0 || (is_own() && entries_->capacity() >= least)) return;
  const auto most = std::max(least, 2 * static_cast<size_t>(size_));
  auto fresh = std::make_shared<Entries>();
  fresh->reserve(most);
  const std::span<const DecisionEntry> mine = entries();
  fresh->assign(mine.begin(), mine.end());
  entries_ = std::move(fresh);
}

void DecisionLog::append(const DecisionEntry& entry) {
  if (next_ != size_ || !is_own()) {
    fail(ErrorCode::kInternal, "a decision at length {} comes between {} that are known",
         entry.length, size_);
  }
  push(entry);
  next_ = size_;
}

void DecisionLog::push(const DecisionEntry& entry) {
  entries_->resize(static_cast<size_t>(size_));  // what was cut goes
  entries_->push_back(entry);
  ++size_;
}

void DecisionLog::append_budget(int64_t length, int32_t budget) {
  const bool all_taken = next_ == size_;
  push({.length = static_cast<int32_t>(length),
        .first_position = budget,
        .layer = kAllLayers,
        .kind = DecisionKind::kBudget,
        .begins = true});
  if (all_taken) next_ = size_;
}

int32_t DecisionLog::last_budget() const {
  const std::span<const DecisionEntry> all = entries();
  for (size_t i = all.size(); i-- > 0;) {
    if (all[i].kind == DecisionKind::kBudget) return all[i].first_position;
  }
  return kUnlimited;
}

int32_t DecisionLog::least_budget() const {
  int32_t least = kUnlimited;
  for (const DecisionEntry& entry : entries()) {
    if (entry.kind == DecisionKind::kBudget) least = std::min(least, entry.first_position);
  }
  return least;
}

int64_t DecisionLog::next_length() const {
  return next_ == size_ ? std::numeric_limits<int64_t>::max()
                        : entries()[static_cast<size_t>(next_)].length;
}

int64_t DecisionLog::next_budget_length() const {
  const auto left = entries().subspan(static_cast<size_t>(next_));
  const auto at = std::find_if(left.begin(), left.end(), [](const DecisionEntry& entry) {
    return entry.kind == DecisionKind::kBudget;
  });
  return at == left.end() ? std::numeric_limits<int64_t>::max() : at->length;
}

void DecisionLog::reach(int64_t length) { reaches_ = std::max(reaches_, length); }

std::span<const DecisionEntry> DecisionLog::take(int64_t length, int32_t layer) {
  const std::span<const DecisionEntry> left = entries().subspan(static_cast<size_t>(next_));
  if (left.empty() || left[0].length != length || left[0].layer != layer) return {};
  size_t n = 1;
  while (n < left.size() && !left[n].begins) ++n;
  next_ += static_cast<int64_t>(n);
  return left.first(n);
}

void DecisionLog::cut(int64_t length) {
  const std::span<const DecisionEntry> all = entries();
  const auto end = std::partition_point(
      all.begin(), all.end(), [&](const DecisionEntry& entry) { return entry.length <= length; });
  size_ = end - all.begin();
  next_ = std::min(next_, size_);
  reaches_ = std::min(reaches_, length);
}

void DecisionLog::begin_as(const DecisionLog& other, int64_t length) noexcept {
  const std::span<const DecisionEntry> its = other.entries();
  if (is_own() && entries_ != other.entries_ && entries_->capacity() >= its.size()) {
    entries_->assign(its.begin(), its.end());
  } else {
    entries_ = other.entries_;
  }
  size_ = other.size_;
  reaches_ = other.reaches_;
  next_ = size_;
  cut(length);
}

}  // namespace paddock
