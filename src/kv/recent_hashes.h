// Hashes of what left last, with what is known of each.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <vector>

namespace paddock {

/// Each is there once; the oldest make room. Allocates in constructors only.
template <typename Value>
class RecentHashes {
 public:
  /// For so many, or some more: up to the next power of two.
  explicit RecentHashes(int32_t capacity)
      : asked_for_(capacity),
        slots_(std::bit_ceil(static_cast<uint32_t>(capacity))),
        buckets_(slots_.size(), -1) {}
  int32_t asked_for() const { return asked_for_; }

  /// What the other one knows, in the order in which it came; this one knows nothing yet.
  void take_over(const RecentHashes& other) {
    for (size_t i = 0; i < other.slots_.size(); ++i) {
      const Slot& slot = other.slots_[(other.oldest_ + i) % other.slots_.size()];
      if (slot.used) add(slot.hash, slot.value);
    }
  }

  void add(uint64_t hash, const Value& value = {}) {
    take(hash);
    Slot& slot = slots_[oldest_];
    if (slot.used) take(slot.hash);
    int32_t& first = buckets_[bucket(hash)];
    slot = {hash, true, first, value};
    first = static_cast<int32_t>(oldest_);
    oldest_ = (oldest_ + 1) % slots_.size();
  }

  /// What is known of it, until the next call; null if it is not there.
  Value* find(uint64_t hash) {
    int32_t at = buckets_[bucket(hash)];
    while (at >= 0 && slots_[at].hash != hash) at = slots_[at].next;
    return at >= 0 ? &slots_[at].value : nullptr;
  }

  /// Takes it out; nothing if it was not there.
  std::optional<Value> take(uint64_t hash) {
    for (int32_t* at = &buckets_[bucket(hash)]; *at >= 0; at = &slots_[*at].next) {
      Slot& slot = slots_[*at];
      if (slot.hash != hash) continue;
      *at = slot.next;
      slot.used = false;
      return slot.value;
    }
    return std::nullopt;
  }

 private:
  struct Slot {
    uint64_t hash = 0;
    bool used = false;
    int32_t next = -1;  // in its bucket
    Value value{};
  };
  size_t bucket(uint64_t hash) const { return hash & (buckets_.size() - 1); }
  int32_t asked_for_;
  std::vector<Slot> slots_;       // a ring
  std::vector<int32_t> buckets_;  // the first slot of each
  size_t oldest_ = 0;
};

}  // namespace paddock
