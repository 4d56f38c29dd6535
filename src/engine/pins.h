// Beginnings of texts that a host wants kept.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/cache_manager.h"
#include "paddock/engine.h"

namespace paddock {

/// Belongs to the thread that drives the engine.
class Pins {
 public:
  explicit Pins(CacheManager& cache) : cache_(cache) {}
  ~Pins() { clear(); }
  Pins(const Pins&) = delete;
  Pins& operator=(const Pins&) = delete;

  /// `step`: the present one. Error kInvalidArgument if nothing of the text is kept.
  Pin add(std::span<const TokenId> tokens, const PinOptions& options, int64_t step);
  /// Whether it was there still.
  bool remove(PinId id);
  /// Lets go of those whose time is over.
  void expire(int64_t step);
  /// Lets go of the one of the lowest priority, of those the oldest; false: there is none.
  bool give_way();
  void clear();
  /// Appends where the cache has their tables.
  void add_tables(std::vector<SequenceId>& out) const {
    for (const Held& pin : pins_) out.push_back(pin.tables);
  }
  int32_t size() const { return static_cast<int32_t>(pins_.size()); }
  int64_t lost() const { return lost_; }  // that had to give way

 private:
  struct Held {
    PinId id;
    int32_t priority;
    int64_t until;  // the step that it does not see; 0: for ever
    SequenceId tables;
  };
  std::vector<Held>::iterator release(std::vector<Held>::iterator at);

  CacheManager& cache_;
  std::vector<Held> pins_;  // in order of their numbers
  PinId next_ = 1;
  int64_t lost_ = 0;
};

}  // namespace paddock
