// Beginnings of texts that a host wants kept.
#pragma once

#include <algorithm>
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

  /// Of what is kept for texts under `rules`. `step`: the present one. Error kInvalidArgument if
  /// nothing of the text is.
  Pin add(std::span<const TokenId> tokens, const PinOptions& options, int64_t step, RulesId rules);
  /// Whether it was there still.
  bool remove(PinId id);
  /// Lets go of those whose time is over with this step.
  void expire(int64_t step);
  /// Lets go of one: of those for which frees(their tables) is true, or of all if it is for none,
  /// the one of the lowest priority, and of several such the oldest. There is a pin.
  template <typename Frees>
  void give_way(const Frees& frees);
  void clear();
  /// Calls fn(where its tables are, its text) for each.
  template <typename Fn>
  void for_each(const Fn& fn) const {
    for (const Held& pin : pins_) fn(pin.tables, std::span<const TokenId>(pin.text));
  }
  int32_t size() const { return static_cast<int32_t>(pins_.size()); }
  int64_t lost() const { return lost_; }  // that had to give way

 private:
  struct Held {
    PinId id;
    int32_t priority;
    int64_t until;  // the last step that it sees; 0: for ever
    SequenceId tables;
    std::vector<TokenId> text;  // that it holds
  };
  std::vector<Held>::iterator release(std::vector<Held>::iterator at);

  CacheManager& cache_;
  std::vector<Held> pins_;  // in order of their numbers
  PinId next_ = 1;
  int64_t lost_ = 0;
};

template <typename Frees>
void Pins::give_way(const Frees& frees) {
  const auto goes_before = [](const Held& a, const Held& b) { return a.priority < b.priority; };
  auto least = pins_.end();
  for (auto at = pins_.begin(); at != pins_.end(); ++at) {
    if (frees(at->tables) && (least == pins_.end() || goes_before(*at, *least))) least = at;
  }
  if (least == pins_.end()) least = std::min_element(pins_.begin(), pins_.end(), goes_before);
  release(least);
  ++lost_;
}

}  // namespace paddock
