// One layer's policy, asked once and checked: what the manager goes by afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "paddock/error.h"
#include "paddock/eviction.h"
#include "paged_kv.h"

namespace paddock {

/// What a policy threw when it was asked, as an Error that names it.
struct PolicyThrew final : Error {
  using Error::Error;
};

/// An elastic rule's answer that makes no sense for any budget, as an Error that names it.
struct PolicyIgnoresBudget final : Error {
  using Error::Error;
};

/// Whether a block is one that trim() may not name.
inline bool is_protected(const TrimSchedule& schedule, int64_t first, int64_t end, int64_t length) {
  return first < schedule.keep_first || end >= length || end > length - schedule.keep_newest;
}
/// Most blocks that `n` consecutive positions can touch.
inline int64_t blocks_touched(int64_t n, int64_t block_size) {
  return (n + block_size - 2) / block_size + 1;
}
/// Most positions that are protected, as whole blocks are.
int64_t most_protected(const TrimSchedule& schedule, int32_t block_size);
/// Whether blocks of this size leave something that could be trimmed.
bool leaves_choice(const TrimSchedule& schedule, int32_t block_size);

struct LayerRule {
  /// Error kInvalidArgument if the policy's answers make no sense, whatever the block size, and
  /// PolicyThrew (kInvalidArgument) where it throws what is no Error.
  LayerRule(std::shared_ptr<const EvictionPolicy> policy, int32_t layer, int32_t n_layers);

  /// Error kInvalidArgument if blocks of this size leave nothing that could be trimmed.
  void check_block_size(int32_t block_size, int32_t layer) const;

  /// True if positions leave for how far back they are, whatever they hold.
  bool has_window() const { return visibility.window != kUnlimited; }
  /// True if nothing ever leaves.
  bool keeps_all() const { return !trims() && !has_window(); }
  bool trims() const { return is_elastic || schedule.budget != kUnlimited; }
  /// Of an elastic rule, or one whose layers share: what it answers for a budget. Errors as the
  /// constructor's, and PolicyIgnoresBudget (kInvalidArgument) where no other budget would mend the
  /// answer.
  TrimSchedule schedule_with(int32_t budget, int32_t layer, int32_t n_layers) const;
  /// True if the layer needs no more than so many positions however long the sequence grows, and
  /// whatever its budget.
  bool bounded() const {
    return has_window() || (schedule.budget != kUnlimited && schedule.every > 0);
  }
  /// True if survivors of trims are to look contiguous: rotations then belong to each table.
  bool moves_queries() const { return trims() && positions == Positions::kCompact; }

  /// True if queries meet sinks by a rotation of their own once something has left. From the length
  /// splits_at() on tables list them apart for that; before it every query sees everything.
  bool has_sinks() const { return rotations.size() > 1; }
  int64_t splits_at() const { return int64_t{visibility.sinks} + visibility.window; }

  /// Whether a decision falls due when the length becomes `length`. `prompt`: where the prompt
  /// ends, 0 if nobody said.
  bool decides_at(int64_t length, int64_t prompt) const;
  /// Whether recent_mass starts anew at this length.
  bool observes_from(int64_t length, int64_t prompt) const;
  /// The next length beyond `length` at which a step must end, for a sequence whose schedule in
  /// this layer is `asked`: where it decides, and where what it observes begins.
  int64_t next_split(const TrimSchedule& asked, int64_t length, int64_t prompt) const;

  /// Most positions resident at once while chunks of up to `chunk` tokens are read; kUnlimited if
  /// the rule sets no bound.
  int64_t max_resident(int64_t chunk) const;
  /// Most pages one sequence of `positions` needs at once.
  int64_t max_pages(int64_t block_size, int64_t positions, int64_t chunk) const;

  /// Most keys that one query meets of all that were written; kUnlimited where none are hidden.
  int64_t max_seen() const { return has_window() ? splits_at() : int64_t{kUnlimited}; }

  std::shared_ptr<const EvictionPolicy> policy;
  std::string name;
  Visibility visibility;
  Positions positions = Positions::kOriginal;
  PolicyNeeds needs;
  bool is_elastic = false;
  bool shares_by_need = false;  // what it may keep, with others under the same object
  int32_t min_budget = 0;       // of an elastic one; 0: it did not say
  TrimSchedule schedule;        // of an elastic one: while its budget is kUnlimited
  int64_t most_budget = 0;      // of its own; where layers share, the largest that a share may be
  /// Of every table, unless moves_queries(): one that turns nothing and, before it where
  /// has_sinks(), that of the sinks.
  std::vector<Rotation> rotations;
};

/// Whether queries are turned alike by both, in tables whose rotations are the rules'.
bool same_rotations(const LayerRule& a, const LayerRule& b);

}  // namespace paddock
