// One text on its way through the engine: its tokens, and how many of them the cache holds.
// Requests and sessions are views of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kv/cache_manager.h"
#include "kv/decision_log.h"
#include "kv/protection.h"
#include "paddock/tokenizer.h"

namespace paddock {

/// Its tables in the cache go with it. Used by the thread that drives the engine.
///
/// It may be parked: then it has no tables, and its tokens are computed again when it goes on. What
/// rules decided of them before is in its log and is decided again, and steps end where rules
/// decide, so it comes back as it was, whatever rules would answer now.
class Sequence {
 public:
  /// `rules`: of the cache's, those that it goes by, parked or not.
  explicit Sequence(CacheManager& cache, RulesId rules = 0)
      : cache_(cache), rules_(rules), least_budget_(cache.least_budget(rules)) {}
  ~Sequence() {
    if (tables_) cache_.close(*tables_, tokens);
  }
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  RulesId rules() const { return rules_; }
  /// Takes its place in the cache; without one it waits, or is parked. Error kInvalidArgument if
  /// all are taken.
  void open();
  bool is_open() const { return tables_.has_value(); }
  /// Where the cache has its tables. It is open.
  SequenceId tables() const { return *tables_; }
  /// Gives its pages up. It is open, and no step is under way. `pages`: what it will need at least,
  /// where it needs more than it has had.
  void park(int64_t pages = 0);
  /// Likewise, for others' sake, which is told. `parked`: the request that it is of; 0: of none
  /// that runs. `request`: whose need it is; 0: the host's.
  KvPreemption give_way(int64_t parked, int64_t request, int64_t pages = 0);
  /// Takes over the text of another one, as if it had been parked where that is. It is new, and
  /// goes by the same rules, here and with fork().
  void copy(const Sequence& other);

  /// Begins with what the cache holds of another one, whose text is the beginning of this one's;
  /// prompts of the two end alike, and hosts protect the same. This one is open and has nothing in
  /// the cache yet.
  void fork(const Sequence& other);
  /// Blocks that rules have dropped from it, in all layers.
  int64_t trims() const { return std::max(trims_, tables_ ? cache_.trims(*tables_) : 0); }

  /// Pages that it had at most, in all layers, when budgets of elastic rules fell, and now: it will
  /// have as many again when it comes back after it was parked. 0: no budget has fallen.
  int64_t peak_pages() const { return peak_pages_; }
  /// The budget that it has or, where it is computed again, will have; kUnlimited: none.
  int32_t last_budget() const { return log_.last_budget(); }
  /// Its budget falls as CacheManager::plan_fall() said last. `request`: whose need it is. Where it
  /// is computed again, what was decided beyond is decided anew.
  KvBudgetChange fall(int64_t request);
  /// Its budget is lifted, if it has one.
  std::optional<KvBudgetChange> lift();

  /// How many of `tokens`, from the first on, have their keys and values in the cache.
  int64_t computed() const { return tables_ ? cache_.length(*tables_) : 0; }
  /// How many had them before it was parked, if it was: what lies before is computed again, what
  /// lies after has never been computed.
  int64_t reached() const { return std::max(reached_, computed()); }
  /// Whether it is computed again, and what rules are to decide next was decided before.
  bool comes_back() const { return computed() < log_.reaches(); }
  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  /// What the next steps have to run.
  std::span<const TokenId> uncomputed() const {
    return std::span(tokens).subspan(static_cast<size_t>(computed()));
  }

  /// Takes memory for a text of so many tokens, and for what rules decide of it, but not for more
  /// than some; it grows beyond by itself.
  void make_room(int64_t length);
  /// Says where a prompt ends, for rules that decide there. A length that is reached says nothing.
  void set_prompt(int64_t end);
  /// Most tokens that the next step may bring. It is open.
  int64_t max_next();
  /// Rules do not choose blocks with these positions any more; void where truncate() takes them
  /// back. Error kInvalidArgument, and no change, where its rules cannot heed it.
  void protect(PositionRange range);
  void unprotect(PositionRange range);
  /// The least budget that it may be given.
  int32_t least_budget() const { return least_budget_; }
  /// Whether what is protected keeps its budget above what its rules admit.
  bool is_kept_up() const { return least_budget_ > cache_.least_budget(rules_); }
  /// Back to its first `length` tokens. Errors: those of CacheManager::truncate(), and of protect()
  /// where a host's rule cannot heed what is left; then it is as before.
  void truncate(int64_t length);

  int64_t session = 0;          // the number of the session that it is of; 0: of none
  std::vector<TokenId> tokens;  // its text, from its first token to the last one chosen or fed

 private:
  /// At the length `said_at` it became known that a prompt ends at `end`.
  struct PromptEnd {
    int64_t said_at, end;
  };

  /// What it has to know of itself before its tables are closed.
  void note_parking(int64_t pages);

  CacheManager& cache_;
  RulesId rules_;
  std::optional<SequenceId> tables_;
  Protection protected_;  // by the host
  int32_t least_budget_;
  int64_t reached_ = 0;  // when it was parked
  int64_t trims_ = 0;    // likewise
  int64_t peak_pages_ = 0;
  std::vector<PromptEnd> prompt_ends_;  // one for each turn
  size_t n_told_ = 0;                   // of them, to the cache since it was opened
  DecisionLog log_;                     // what rules have decided of its text
};

}  // namespace paddock
