// Host bookkeeping of the paged cache: pages, tables, visibility, trims, counters, events. No
// tensor maths, no model.
//
// A step is planned, then committed: reserve() finds pages for new tokens or changes nothing;
// commit() makes them part of the sequence, releases what no later query can see, and trims.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block_use.h"
#include "core/change_log.h"
#include "kv/layout.h"
#include "kv/policy_map.h"
#include "kv/reclaim_policy.h"
#include "paddock/kv_cache.h"
#include "paddock/stats.h"
#include "paged_kv.h"

namespace paddock {

class CacheObserver;
class DecisionLog;
class Protection;

using SequenceId = int32_t;
/// Which of a cache's SequenceRules a sequence goes by, from 0 on.
using RulesId = int32_t;

/// Rules that sequences may go by, and how long those may become.
struct SequenceRules {
  PolicyMap policies;
  int64_t max_positions;              // longest sequence admitted
  int64_t max_resident = kUnlimited;  // of its positions, in a layer of an elastic rule
};

struct CacheConfig {
  int32_t n_layers;
  int32_t n_heads;  // query heads, for a policy's eyes
  int32_t block_size;
  int32_t n_pages;  // of the pool, counted in units of the layout: with one size of pages, pages
  KvLayout layout;
  int32_t max_sequences;              // tables are reserved for this many
  int64_t max_positions;              // for SequenceRules, where one PolicyMap is for all
  int32_t max_chunk;                  // most tokens of one sequence in one step
  int64_t max_resident = kUnlimited;  // for SequenceRules, like max_positions
  int32_t event_capacity = 4096;
  bool queues_events = false;                   // for take_queued()
  std::function<void(int32_t page)> on_free{};  // for tests and debug builds, poisons it; the books
                                                // are locked: it must not call the cache
  bool keep_blocks = false;                     // full ones, for reuse
  /// Whether a block that two sequences computed has the same bits in both, so that one can stand
  /// for the other.
  bool merges_blocks = true;
  /// Makes the order of each shadow (shadows.h); null: there are none.
  std::function<std::unique_ptr<ReclaimPolicy>()> shadow_order{};
  /// Copies a page's bytes where they lie; the books are locked: it must not call the cache. What
  /// it throws, reserve() throws. Null: there are none, only books.
  std::function<void(int32_t from, int32_t to)> copy_page{};
  /// `n` pages from `first` on are not used any more, or are again; the books are locked: it must
  /// not call the cache. May be null.
  std::function<void(int32_t first, int32_t n, bool is_withheld)> on_withheld{};
  CacheObserver* observer = nullptr;  // is told of everything; outlives the cache
};

/// Error kInvalidArgument: there is no place for another sequence.
[[noreturn]] void fail_all_in_use(int32_t max_sequences);

class CacheManager {
 public:
  /// Each sequence goes by one of `rules`; tables have room for whichever needs most. `reclaim`:
  /// the order in which kept blocks leave; null: least recently used.
  CacheManager(const CacheConfig& config, std::vector<SequenceRules> rules,
               std::unique_ptr<ReclaimPolicy> reclaim = nullptr);
  /// All sequences go by `policies`, and may be as long as the configuration says.
  CacheManager(const CacheConfig& config, PolicyMap policies,
               std::unique_ptr<ReclaimPolicy> reclaim = nullptr);
  ~CacheManager();

  /// Other rules from now on; counters go on counting. Error kInvalidArgument while a sequence is
  /// open. If it throws nothing has changed.
  void set_rules(std::vector<SequenceRules> rules);

  /// Opens an empty sequence under one of the rules. Error kInvalidArgument beyond max_sequences.
  /// Allocates nothing. `log`: what rules have decided of its text so far; that is done again,
  /// whatever they would say now, and what they decide beyond is appended. Null: they are always
  /// asked. `protection`: what its host protects; null: nothing. Both outlive the sequence.
  SequenceId open(DecisionLog* log = nullptr, RulesId rules = 0,
                  const Protection* protection = nullptr);
  /// Ends a sequence: drops all its pages. `tokens`: the sequence's, from its first position on;
  /// full blocks that they reach are kept for reuse as by commit() and, unlike there, also those
  /// behind a block that another sequence computed first. `reason`: what events say of the other
  /// pages.
  void close(SequenceId id, std::span<const int32_t> tokens = {},
             RemovalReason reason = RemovalReason::kSequenceEnd);
  /// Makes the empty sequence `to`, which goes by the same rules, begin as `from` is. Both list the
  /// same pages; whichever writes first to a page that is partly filled gets a copy of its own. No
  /// step is under way in either. Allocates nothing.
  void fork(SequenceId from, SequenceId to);
  /// Holds on to the kept blocks of `tokens`, from the first on: a sequence beside max_sequences,
  /// which lists what it would see at its end, never grows, and is let go of with close(). Nothing
  /// if no block of them is kept, or the rules share none. Allocates.
  std::optional<SequenceId> pin(std::span<const int32_t> tokens, RulesId rules = 0);
  /// Says where the sequence's prompt ends, for rules that decide there: in a conversation, that of
  /// the turn at hand. A length that is reached already says nothing.
  void set_prompt(SequenceId id, int64_t length);

  /// Whether one of the rules decides where a prompt ends.
  bool heeds_prompts(RulesId rules) const;
  /// Replaces what set_prompt() said last, because the text was taken back. What lies before the
  /// sequence's length stays decided. 0, or a length that is reached: no end is known.
  void restore_prompt(SequenceId id, int64_t length);
  /// What its log knows beyond `length`, which it has not reached again, is void.
  void forget_decisions(SequenceId id, int64_t length);
  /// Entries that the log of a text of so many positions comes to, with one prompt: rules that
  /// decide where prompts end add more with each later turn.
  int64_t max_logged(RulesId rules, int64_t positions) const;

  /// Most tokens that one step may add to the sequence: steps end where a rule decides.
  int64_t max_next(SequenceId id) const;
  /// Most of `n` tokens after the sequence's length for which reserve() would find pages now.
  int32_t max_reservable(SequenceId id, int32_t n) const;
  /// Reserves pages, in every layer, for `n` tokens after the sequence's length. False if the pool
  /// cannot hold them now: then nothing changed. n <= max_next(), length + n <= max_positions.
  /// Where they begin in a page that others can see, the sequence gets a copy of its own first.
  /// Takes memory where the sequence's log needs room for what is decided at the end; if that or
  /// the copy throws nothing has changed.
  /// `request`: whose need it is, for those who ask later why a block is gone.
  bool reserve(SequenceId id, int32_t n, int64_t request = 0);
  /// Gives back what reserve() took and was not committed (a cancelled or failed step).
  void rollback(SequenceId id);
  /// Likewise, of whichever sequences: a step that was not run has nothing left to undo then.
  void rollback_all();
  /// What the reserved tokens' attention gave to each entry of table(), and their key norms (in
  /// kNormUnits, summed over KV heads). Before commit(), what needs() asks for.
  void observe(SequenceId id, int32_t layer, std::span<const BlockUse> uses,
               std::span<const int64_t> key_norms);
  /// The reserved tokens are written: length grows, what the rules say leaves. `tokens`: the
  /// sequence's, from its first position on. Where shares_blocks(), blocks that they reach and that
  /// are full now are kept for reuse, also what a window passes with this step. Where another
  /// sequence has computed such a block before, its pages take the place of this one's. Without
  /// CacheConfig::merges_blocks they do not: that block and those behind it are then kept only when
  /// the sequence ends.
  void commit(SequenceId id, std::span<const int32_t> tokens = {});
  /// One forward pass is over.
  void tick();
  int64_t steps() const;  // forward passes so far
  /// Takes the sequence back to `length` positions, as if the later ones had never been: a prompt
  /// that would have ended there is void. Error kInvalidArgument, and no change, where a rule has
  /// dropped what would be seen again, or has counted the later positions in scores that decide.
  /// Elastic rules allow it, with two differences: the attention that later positions gave stays
  /// counted, and where key norms are measured for them (a block's sum cannot be taken apart) the
  /// sequence goes back to the end of the last full block.
  void truncate(SequenceId id, int64_t length);

  // ---- what hosts protect (protection.cpp)
  /// Error kInvalidArgument where a sequence under these rules cannot protect it. Returns the least
  /// budget that it may be given then, as least_budget().
  int32_t check_protection(RulesId rules, const Protection& protection) const;
  /// Exchanges the two while the books are locked: `protection` may be what a sequence was opened
  /// with. `tables`: that sequence, if it is open.
  void set_protection(Protection& protection, Protection& next,
                      std::optional<SequenceId> tables) const noexcept;

  // ---- elastic rules: a sequence keeps everything until its budget falls (positions per layer, on
  // ---- average over the model's layers)
  /// Whether any sequence may go by some.
  bool is_elastic() const;
  /// How many of `n` tokens the next step may bring. A rule that observes goes by the last queries
  /// before a decision, and all queries of one step are added up together. So a step that would
  /// reach a length where the budget may fall, or come nearer to it than the rule observes, ends
  /// where those last queries begin; another step brings them. Once a budget has fallen, steps end
  /// where rules decide, which max_next() knows.
  int32_t max_observed(SequenceId id, int32_t n) const;
  /// The least budget that may be given.
  int32_t least_budget(RulesId rules) const;
  /// The largest budget under which no layer comes to hold more than SequenceRules::max_resident.
  int32_t most_budget(RulesId rules) const;
  /// The sequence's; kUnlimited: nothing has fallen, or it was lifted.
  int32_t budget(SequenceId id) const;
  /// What a sequence has in the layers of elastic rules.
  struct Holdings {
    int64_t positions = 0;  // on average
    int64_t pages = 0;
    int64_t own_pages = 0;  // that no other sequence lists
    double fair_pages = 0;  // each shared in equal parts by those that list it
  };
  Holdings holdings(SequenceId id) const;
  /// Positions in that elastic layer which has most.
  int64_t most_resident(SequenceId id) const;
  /// Pages of a block, in all layers.
  int64_t block_pages() const;
  /// Of a block's pages, those in layers of elastic rules.
  int64_t elastic_pages(RulesId rules) const;
  /// Likewise, in layers that have no bound and are not elastic.
  int64_t growing_pages(RulesId rules) const;
  /// Likewise, in layers without a window, so that what is kept of a text has them.
  int64_t lasting_pages(RulesId rules) const;
  /// Asks the rules what would leave under a smaller budget. Returns how many pages would come
  /// back: be free, or kept and referenced by nobody. Its length is a multiple of
  /// PolicyMap::interval(), and nothing of it reserved.
  int64_t plan_fall(SequenceId id, int32_t budget);
  /// A budget that may fall.
  struct Fall {
    SequenceId id;
    int32_t budget;
  };
  /// Asks what would leave if several budgets fell. Returns how many pages would come back: a page
  /// does once all who list it have dropped it. `later`: those whose budgets fall too, but not yet.
  /// `brings[i]`: whether some page that falls[i] drops comes back, now or once those in `later`
  /// have dropped it as well. If `falls` has one entry, fall() may follow as after plan_fall().
  int64_t plan_falls(std::span<const Fall> falls, std::span<const SequenceId> later,
                     std::vector<uint8_t>& brings);
  /// Does what the last plan_fall() asked about; nothing may have changed since. `request`: whose
  /// need it is. What left stays away; the sequence shares no full blocks any more. `was`: the
  /// budget before, as it is told, where that is another than the one in force.
  KvBudgetChange fall(SequenceId id, int64_t request, std::optional<int32_t> was = {});
  /// The text has no budget any more from `length` on, up to which its rules have decided: its log
  /// says so and, where it has tables (`id`) that have come so far, they go by it. What left stays
  /// away. `before`: the budget that it had.
  KvBudgetChange lift(DecisionLog& log, int64_t length, int32_t before,
                      std::optional<SequenceId> id);
  /// The newest, oldest first; from any thread.
  std::vector<KvBudgetChange> budget_changes(int64_t from = 0) const;

  /// Gives up what the sequence has, which will be computed again: closes it as close() does, with
  /// kPreempt. Whatever is parked comes through here.
  void park(SequenceId id, std::span<const int32_t> tokens);
  /// Likewise, for others' sake. `whose`: parked, session, request and tokens; the rest is filled
  /// in, and it is told and remembered.
  KvPreemption preempt(SequenceId id, std::span<const int32_t> tokens, KvPreemption whose);
  /// As budget_changes().
  std::vector<KvPreemption> preemptions(int64_t from = 0) const;

  // ---- blocks kept for reuse (CacheConfig::keep_blocks), where rules do not score
  /// Makes a sequence, whose positions so far are the first of `tokens`, go on with kept blocks
  /// that have the tokens behind them, up to `max_positions`. It then has the length and the tables
  /// that it would have if it had computed them; so blocks are taken only as far as all pages are
  /// there that its layers see from their end. A kept block also takes the place of positions that
  /// the sequence has computed behind its last full block. Returns by how much the sequence grew: 0
  /// where it has full blocks that are its own alone.
  /// Blocks are the same if their token ids are, and the layers of both sequences see the same of
  /// what comes before: all else that decides their contents is the same for all of a manager.
  /// `counts`: whether hits count; not for warm-up, nor where a parked sequence is read again. Of
  /// the pages that could be had, no more than `max_pages` are listed.
  int64_t list_prefix(SequenceId id, std::span<const int32_t> tokens, int64_t max_positions,
                      bool counts, int64_t max_pages = kUnlimited);
  /// Why the block that comes next has to be computed. That is counted as a miss, so it is asked
  /// once for a text; not where the sequence had computed the whole block before it was parked,
  /// which `reached` says: how much it had. kNone: no full block comes before `max_positions`.
  PrefixMiss ask_missing(SequenceId id, std::span<const int32_t> tokens, int64_t max_positions,
                         int64_t reached = 0);
  /// list_prefix(), and then ask_missing() if the sequence was empty before and `counts`.
  int64_t match_prefix(SequenceId id, std::span<const int32_t> tokens, int64_t max_positions,
                       bool counts = true);

  /// Whether full blocks of sequences under these rules are kept, and listed by others whose tokens
  /// begin alike.
  bool keeps_blocks(RulesId rules) const;
  /// Whether sequences under the rules `with` can list full blocks of this sequence, and the other
  /// way round.
  bool shares_blocks(SequenceId id, RulesId with) const;

  int64_t length(SequenceId id) const;    // committed positions
  int32_t reserved(SequenceId id) const;  // positions after them
  /// Entries in position order, reserved ones included.
  std::span<const BlockEntry> table(SequenceId id, int32_t layer) const;
  /// What has changed in table(). Versions go on where another sequence gets the id: none comes
  /// twice.
  const ChangeLog& changes(SequenceId id, int32_t layer) const;
  std::span<const Rotation> rotations(SequenceId id, int32_t layer) const;
  /// The rules that it goes by.
  RulesId rules_of(SequenceId id) const;
  const LayerRule& rule(SequenceId id, int32_t layer) const;
  /// What observe() wants of it in this layer: what its own rule needs and, of key norms, also what
  /// rules of others need that may come to list its blocks.
  PolicyNeeds needs(SequenceId id, int32_t layer) const;
  /// What it wants of one sequence or another.
  PolicyNeeds needs(int32_t layer) const;
  const PolicyMap& policies(RulesId rules = 0) const;
  int64_t max_positions(RulesId rules) const;
  int32_t n_rules() const;
  /// Page and slot of each reserved token; `out` has as many elements as were reserved.
  void destinations(SequenceId id, int32_t layer, std::span<KvDestination> out) const;

  /// Pages that one sequence of `positions` needs at its worst, in all layers, fed in chunks of at
  /// most `chunk` tokens: static so that budgets can be computed before anything is made.
  static int64_t pages_needed(const PolicyMap& policies, int32_t block_size, int64_t positions,
                              int64_t chunk);
  /// Most pages that the sequence lists at once, in all layers, until it has `positions`: from what
  /// it lists now, so that what has left does not count again.
  int64_t pages_to_reach(SequenceId id, int64_t positions) const;
  /// Pages that it needs beside those it lists, reserved ones included, until it has `positions`.
  int64_t pages_ahead(SequenceId id, int64_t positions) const;
  /// Most entries that a table of this layer has at once, in a pool of n_pages, under these rules.
  int64_t max_entries(RulesId rules, int32_t layer) const;
  /// Likewise of a manager that nobody makes.
  static int64_t max_entries(const SequenceRules& rules, int32_t layer, const CacheConfig& config);
  const CacheConfig& config() const;

  // ---- how much of the pool may be in use (limit.cpp)
  /// Pages that may be in use from now on; at most CacheConfig::n_pages, which it is at first. What
  /// is in use stays: keep_to_limit().
  void set_limit(int64_t pages);
  int64_t limit() const;
  /// Whether no more is in use than the limit says, and the pool would give out no more.
  bool is_within_limit() const;
  /// Frees kept pages, and withholds free ones, until no more can be in use than the limit says.
  /// While tables list more than that: no more than they list, and `owed` pages, which sequences
  /// are to have before their budgets can fall.
  void keep_to_limit(int64_t owed);
  /// Pages beyond the limit that may be in use all the same, until keep_to_limit() is called again.
  int64_t pages_beyond_limit() const;

  int64_t free_pages() const;                 // of the limit; below 0: so many too many are in use
  int64_t available_pages() const;            // free, or kept and listed by nobody; likewise
  int64_t pages_listed(SequenceId id) const;  // by the sequence's tables
  int64_t pages_active() const;               // by any tables, each counted once
  /// By those of some sequences, each counted once.
  int64_t pages_listed(std::span<const SequenceId> ids) const;
  int64_t trims(SequenceId id) const;                // blocks that rules dropped, in all layers
  KvStats stats() const;                             // from any thread
  std::vector<KvBlock> blocks(int32_t layer) const;  // from any thread
  /// Events numbered `from` and later that are still in the ring, from any thread.
  std::vector<KvEvent> events(uint64_t from) const;
  /// Removals since the last call, oldest first, where CacheConfig::queues_events: the caller tells
  /// its host of them when no lock is held and no decision is half done.
  std::vector<KvEvent> take_queued();
  /// For proofs, not for hosts: called at every removal, in the middle of it, before the page goes,
  /// while the books are locked. It must not call the cache.
  void watch(std::function<void(const KvEvent&)> on_removal);
  /// Checks every conservation law; throws Error kInternal naming the first that fails. From any
  /// thread.
  void check_integrity() const;
  /// Likewise in builds with PADDOCK_CHECK_STEPS, as tests/run.sh makes them; nothing in others.
  void check_step() const;

  struct Impl;  // for the files of this class

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace paddock
