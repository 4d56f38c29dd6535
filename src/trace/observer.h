// What the cache tells while it works, as plain structs: for whoever writes it down. It tells in
// the middle of what it does, on the driving thread, perhaps while its books are locked.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/position_range.h"
#include "paddock/eviction.h"
#include "paddock/kv_cache.h"
#include "paddock/stats.h"

namespace paddock {

/// KvEvent without its strings.
struct RemovalEvent {
  int64_t step = 0;
  RemovalReason reason = RemovalReason::kWindow;
  int32_t layer = 0;
  int32_t sequence = 0;
  int32_t rules = 0;  // number of those that it was kept under
  int32_t rule = 0;   // index of its layer's rule among the names of all that ever ruled
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
  // What the log does not tell.
  bool retained = false;   // it left a view, its page stays: for reuse, or as others list it
  bool measured = false;   // its attention:
  int64_t mass = 0;        // what it received, in kMassUnits,
  int64_t last_used = -1;  // and the newest query position that gave it its fair share
  int64_t request = 0;     // of what was kept and reclaimed: whose need it was,
  uint64_t hash = 0;       // and its text's
};

/// One decision of a rule; the removals that it brings are told next.
struct DecisionFacts {
  int32_t sequence = 0;
  int32_t layer = 0;
  int64_t tokens = 0;       // that the layer held of the sequence
  TrimSchedule schedule{};  // that it went by
  int32_t n_leaving = 0;    // blocks
  int64_t runner_up_position = -1;
  double runner_up_score = 0;
  bool is_replayed = false;  // decided before, of a text that is computed again
};

/// A block among which a rule chose.
struct CandidateFacts {
  int64_t first_position = 0;
  int32_t n_tokens = 0;
  bool is_protected = false;
  bool is_ranked = false;             // the rule named it when it was asked for all
  double score = 0;                   // then
  int64_t mass = 0, recent_mass = 0;  // in kMassUnits
  int64_t last_used = -1;
  float key_norm = 0;
};

/// What a sequence found among blocks kept for reuse.
struct PrefixFacts {
  int32_t sequence = 0;
  int64_t from = 0, to = 0;       // its length grew from here to there
  int64_t lookups = 0, hits = 0;  // that were counted
};

/// Nothing that it does may throw or call the cache: decisions are half done.
class CacheObserver {
 public:
  virtual ~CacheObserver() = default;

  /// `rules`: the number of those that it goes by.
  virtual void opened(int32_t sequence, bool is_pin, int32_t rules) noexcept = 0;
  /// After its removals; it lists nothing any more.
  virtual void closed(int32_t sequence, RemovalReason reason) noexcept = 0;
  /// `to` begins as `from` is.
  virtual void forked(int32_t from, int32_t to) noexcept = 0;
  /// Blocks with these positions are not for rules to choose from now on, and no others.
  virtual void protects(int32_t sequence, std::span<const PositionRange> ranges) noexcept = 0;
  /// The sequence grew by n positions in every layer, with so many new pages in each; `tokens`
  /// are theirs, if they are known.
  virtual void committed(int32_t sequence, int32_t n, int64_t blocks,
                         std::span<const int32_t> tokens) noexcept = 0;
  /// A full block of its text, with the hash of all up to its end.
  virtual void filled(int32_t sequence, int64_t block, uint64_t hash) noexcept = 0;
  /// It lists kept blocks now, of these tokens: in each layer those that listed() tells next.
  virtual void found(const PrefixFacts& facts, std::span<const int32_t> tokens) noexcept = 0;
  virtual void listed(int32_t sequence, int32_t layer, int64_t first_block,
                      int64_t n_blocks) noexcept = 0;
  virtual void missed(int32_t sequence, const PrefixMiss& miss, int64_t lookups,
                      int64_t regrets) noexcept = 0;
  /// Positions from `length` on are no more.
  virtual void cut(int32_t sequence, int64_t length) noexcept = 0;
  /// A window has passed these positions, whose page stays for the sinks in it.
  virtual void passed(int32_t sequence, int32_t layer, int64_t first, int32_t n) noexcept = 0;
  /// A page of its own in place of one that others see.
  virtual void copied(int32_t sequence, int32_t layer) noexcept = 0;
  /// A page was freed, as another sequence had computed the same block.
  virtual void merged(int32_t sequence, int32_t layer) noexcept = 0;
  /// Too few pages for n tokens more.
  virtual void refused(int32_t sequence, int32_t n) noexcept = 0;
  virtual void removed(const RemovalEvent& event) noexcept = 0;
  virtual void decided(const DecisionFacts& facts) noexcept = 0;
  /// Whether candidates are to be told, after each decision.
  virtual bool wants_candidates() const noexcept = 0;
  virtual void chose_among(std::span<const CandidateFacts> candidates) noexcept = 0;
  virtual void budget_changed(const KvBudgetChange& change) noexcept = 0;
  /// After its closed().
  virtual void preempted(const KvPreemption& preemption) noexcept = 0;
  /// So many pages of the pool may be in use from now on.
  virtual void limited(int64_t pages) noexcept = 0;
  virtual void violated(std::string_view what) noexcept = 0;
  virtual void fell_short() noexcept = 0;
  /// A forward pass is over; so many pages are free, and kept while nobody lists them.
  virtual void ticked(int64_t pages_free, int64_t pages_cached) noexcept = 0;
};

}  // namespace paddock
