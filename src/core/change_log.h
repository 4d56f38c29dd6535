// Since when which entries of a list have changed, for readers that each keep a copy of it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace paddock {

/// The owner of the list notes every change. A reader remembers the version() that its copy has,
/// and asks from which entry on that copy may differ from the list. Versions never come twice: a
/// list that is cleared and filled anew goes on counting, so that a version says what the list
/// held.
class ChangeLog {
 public:
  /// Entries from `first` on may have changed, come or gone. O(1) amortised.
  void note(int64_t first) {
    while (size_ > 0 && newest(0).first >= first) --size_;
    if (size_ == kRemembered) forget_oldest();
    ++size_;
    newest(0) = {++version_, first};
  }
  int64_t version() const { return version_; }
  /// The first entry that may differ from what it was at `version`; kNone if nothing has changed
  /// since. 0 for a version that is older than what is remembered, or none of this log's (-1).
  int64_t first_changed_since(int64_t version) const {
    if (version < forgotten_) return 0;
    int64_t first = kNone;
    for (size_t i = 0; i < size_ && newest(i).version > version; ++i) first = newest(i).first;
    return first;
  }

  static constexpr int64_t kNone = INT64_MAX;
  static constexpr size_t kRemembered = 16;

 private:
  /// The change that made `version`, and every later one, touched entries from `first` on only.
  struct Change {
    int64_t version = 0;
    int64_t first = 0;
  };
  const Change& newest(size_t i) const { return changes_[(oldest_ + size_ - 1 - i) % kRemembered]; }
  Change& newest(size_t i) { return changes_[(oldest_ + size_ - 1 - i) % kRemembered]; }
  void forget_oldest() {
    forgotten_ = changes_[oldest_].version;
    oldest_ = (oldest_ + 1) % kRemembered;
    --size_;
  }

  // A ring, oldest first: both numbers of a change are greater than those of the one before it, as
  // an earlier change of a later entry no longer matters.
  std::array<Change, kRemembered> changes_{};
  size_t oldest_ = 0, size_ = 0;
  int64_t version_ = 0;
  int64_t forgotten_ = 0;  // the version of the newest change that is no longer remembered
};

}  // namespace paddock
