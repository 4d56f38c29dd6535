// Whether what is parked comes back as it was: its tables, each time that they are looked at.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>

#include "support/engine_inside.h"

namespace paddock::test {

class ParkedTables {
 public:
  /// Of an engine with that inside, which has to live as long. Where its pool `resizes` texts may
  /// come back with less.
  ParkedTables(const Engine::Impl& inside, bool resizes) : inside_(&inside), resizes_(resizes) {}

  /// Whoever was parked lists what it listed when it has come back.
  void look() {
    std::map<int64_t, Seen> now;
    const auto add = [&](int64_t name, const Sequence& sequence) {
      const auto known = seen_.find(name);
      Seen seen = known == seen_.end() ? Seen{} : known->second;
      const int64_t at = sequence.computed();
      if (!sequence.is_open() || at < sequence.reached()) {
        seen.was_parked = true;
      } else {
        const int32_t budget = inside_->cache->budget(sequence.tables());
        const std::string tables = tables_of(sequence.tables());
        if (seen.was_parked && seen.length == at && seen.budget == budget && at > 0 && !resizes_) {
          EXPECT_EQ(tables, seen.tables) << "at " << at << ", budget " << budget;
          returns_ += budget == kUnlimited ? 0 : 1;
        }
        seen = {at, budget, tables, false};
      }
      now[name] = seen;
    };
    for (const auto& request : inside_->scheduler->requests()) {
      if (request->session == nullptr) add(request->id, request->sequence);
    }
    for (const auto& [id, session] : inside_->sessions) add(-id, session->sequence);
    seen_ = std::move(now);
  }
  /// Sequences that came back after they were parked, with a budget that had fallen.
  int64_t returns() const { return returns_; }

 private:
  /// A text's tables when it was last seen.
  struct Seen {
    int64_t length = 0;
    int32_t budget = 0;
    std::string tables;
    bool was_parked = false;
  };

  std::string tables_of(SequenceId id) const {
    std::string out;
    for (int32_t layer = 0; layer < inside_->model->info().n_layers; ++layer) {
      for (const BlockEntry& e : inside_->cache->table(id, layer)) {
        out += fmt::format("{}:{}-{}/{} ", e.first_position, e.slot_begin, e.slot_end, e.rotation);
      }
      for (const Rotation& r : inside_->cache->rotations(id, layer)) {
        out += fmt::format("[{} {}] ", r.query_shift, r.query_cap);
      }
    }
    return out;
  }

  const Engine::Impl* inside_;
  bool resizes_;
  int64_t returns_ = 0;
  std::map<int64_t, Seen> seen_;  // by the number of a request, of a session with a minus
};

}  // namespace paddock::test
