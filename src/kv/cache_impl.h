// The cache manager's inside: tables, counters, and what happens to them.
#pragma once

#include <algorithm>
#include <array>
#include <mutex>
#include <vector>

#include "core/fail.h"
#include "kv/cache_manager.h"
#include "kv/cached_sequence.h"
#include "kv/decision_scratch.h"
#include "kv/event_ring.h"
#include "kv/numbered_log.h"
#include "kv/page_pool.h"
#include "kv/prefix_tree.h"
#include "kv/shadows.h"
#include "trace/observer.h"

namespace paddock {

struct CacheManager::Impl : DecisionScratch {
  /// What the tables of all layers list, page by page: of check_integrity(), which takes no memory
  /// the second time.
  struct Census {
    std::vector<int32_t> references;  // [n_units]
    std::vector<uint8_t> listed;      // [n_units] by some table
    int64_t units = 0;                // of pages that somebody holds
  };

  Impl(const CacheConfig& config, std::vector<SequenceRules> rules,
       std::unique_ptr<ReclaimPolicy> reclaim);

  const CachedSequence& at(SequenceId id) const {
    if (id < 0 || id >= static_cast<SequenceId>(sequences.size()) || !sequences[id].live) {
      fail(ErrorCode::kInternal, "sequence {} is not open", id);
    }
    return sequences[id];
  }
  CachedSequence& at(SequenceId id) {
    return const_cast<CachedSequence&>(std::as_const(*this).at(id));
  }

  /// Takes the rules over; `rules` has the old ones afterwards, for the caller to let go of where
  /// no lock is held: policies are the host's, and may look at the cache in their destructors.
  void adopt(std::vector<RuleSet>& rules);
  /// Fills in what a RuleSet has beside the rules. They are not those of the cache yet.
  void complete(std::vector<RuleSet>& rules);
  /// Takes memory for tables and decisions under them.
  void take_memory(const std::vector<RuleSet>& rules);
  const RuleSet& rules(RulesId id) const { return rule_sets[static_cast<size_t>(id)]; }
  /// Makes it an empty sequence, which is open.
  void begin(CachedSequence& sequence, DecisionLog* log, const RuleSet& rules);
  bool is_pin(SequenceId id) const { return id >= config.max_sequences; }
  int64_t new_blocks(const CachedSequence& sequence, int64_t n) const;
  void extend(CachedSequence& sequence, int32_t layer, int64_t n);
  /// True if nobody references the page any more.
  bool release_page(int32_t page);
  /// Frees kept pages until every layer can have so many. False, and nothing is freed, where all
  /// that could be reclaimed is not enough.
  bool make_room(int64_t pages_per_layer);
  /// Whether make_room() would succeed; frees nothing.
  bool has_room(int64_t pages_per_layer);
  /// Frees what was let go of first: a page that a live sequence's window has passed, or a block
  /// that nobody has locked.
  void reclaim();
  void reclaim_block(int32_t leaf, RemovalReason reason, const Departure& how);
  /// Takes the node's page from the tree.
  void free_page(int32_t node, int32_t layer, RemovalReason reason, int64_t request);
  /// A page that only the tree holds, or does so no longer.
  void count_cached(int32_t layer, int32_t page, bool is_cached);
  void lock(int32_t node, bool is_prompt);
  void unlock(int32_t node);
  /// Takes the node out of the tree if it is void, then the one before it, and so on.
  void prune(int32_t node);
  void unlock_all(CachedSequence& sequence);
  /// Whether blocks can be shared: what layers see depends on positions alone.
  static bool can_share(const PolicyMap& policies, const CacheConfig& config);
  /// Nodes that the tree has room for under these rules.
  static int32_t most_kept(const PolicyMap& policies, const CacheConfig& config);
  /// Puts full blocks of a sequence into the tree.
  void keep_blocks(CachedSequence& sequence, std::span<const int32_t> tokens, bool is_ending);
  int32_t insert(int32_t parent, std::span<const int32_t> tokens);
  /// The node and the sequence's block i hold the same. Where the node lacks a page it gets the
  /// sequence's; where both have one, the sequence lists the node's from now on and its own is let
  /// go of, unless it `is_ending` and lets go of all in a moment.
  void merge(CachedSequence& sequence, int64_t i, int32_t node, bool is_ending);
  /// Takes out the positions after the last full block; a kept block that has them comes next.
  void drop_tail(CachedSequence& sequence);
  /// Whether it cannot list the kept block that comes next in its text, whatever that is.
  bool stays_apart(const CachedSequence& sequence) const;
  /// Lists the pages of the sequence's shared blocks from `first` on, as far as they will be seen
  /// from its length on.
  void list_blocks(SequenceId id, int32_t layer, size_t first);
  void note_pool_peak();
  /// Tells CacheConfig::on_withheld what the pool has withheld, and what has come back.
  void tell_withheld();
  /// A page of the sequence's own was freed, as another one had computed the same.
  void note_merge(const CachedSequence& sequence, int32_t layer);
  /// One more table lists a page of the tree.
  void list_kept(int32_t layer, int32_t page);
  /// Whether others can see a page that the sequence would write next.
  bool shares_tail(const CachedSequence& sequence) const;
  /// Whether they are sequences, so that the tree cannot just let go of it.
  bool must_copy_tail(const CachedSequence& sequence) const;
  /// Pages for `blocks` more, and the tail is the sequence's own. False: nothing has changed.
  bool find_room(CachedSequence& sequence, int64_t blocks);
  void copy_tail(CachedSequence& sequence);
  /// One table lists a page no more. True if it is free now.
  bool unlist_page(int32_t layer, int32_t page);
  void drop_page(int32_t layer, int32_t page, RemovalReason reason);
  /// A rule takes it out of a live sequence's view, which counts whether or not others hold it.
  void drop_from_view(int32_t layer, int32_t page, RemovalReason reason);
  /// Takes back every position at or beyond `length`. `reserved`: they were never committed, so
  /// that nothing tells of a removal.
  void shrink(SequenceId id, int32_t layer, int64_t length, bool reserved);
  void release_past(SequenceId id, int32_t layer);
  void log_removal(SequenceId id, int32_t layer, size_t entry, RemovalReason reason,
                   const RemovalEvent& details = {});
  // ---- what an observer is told (telling.cpp)
  bool is_observed() const { return config.observer != nullptr; }
  SequenceId id_of(const CachedSequence& sequence) const {
    return static_cast<SequenceId>(&sequence - sequences.data());
  }
  /// What it found kept, behind its first `known` blocks.
  void tell_found(SequenceId id, std::span<const int32_t> tokens, size_t known, int64_t lookups,
                  int64_t hits);
  /// Hashes of blocks that are full now.
  void tell_blocks(SequenceId id, std::span<const int32_t> tokens);
  /// The victims that were chosen, before they go.
  void tell_decision(SequenceId id, int32_t layer);
  /// All blocks in view in the order in which the rule would drop them. It is asked for the sake of
  /// the observer alone, so not at all where that does not want to know. No lock is held.
  void rank_all(const CachedSequence& sequence, int32_t layer, std::vector<CandidateFacts>& all);

  // ---- trims (trim.cpp)
  void after_commit(SequenceId id, int32_t layer);
  void decide(SequenceId id, int32_t layer);
  void fill_view(const CachedSequence& sequence, int32_t layer, const TrimSchedule& schedule);
  /// The view that was filled, for a policy's eyes.
  LayerView view_of(const CachedSequence& sequence, int32_t layer) const {
    return {layer,
            config.n_layers,
            config.n_heads,
            config.block_size,
            sequence.length,
            sequence.layers[layer].tokens,
            view};
  }
  /// Asks the policy; what it throws or names wrongly is counted. Leaves checked victims.
  void ask(const LayerRule& rule, const LayerView& view, int64_t excess);
  /// False if it threw.
  bool call(const LayerRule& rule, const LayerView& view, int64_t excess);
  /// Takes victims over as choices, as many as are needed. Returns their positions; -1 if one of
  /// them is wrong.
  int64_t take_answer(const LayerRule& rule, int32_t layer, int64_t excess);
  template <typename... Args>
  void violation(const LayerRule& rule, fmt::format_string<Args...> format,
                 Args&&... args) noexcept;
  void remove_victims(SequenceId id, int32_t layer);
  /// What EvictionPolicy::need() says; what it says wrongly is counted, and 0 taken.
  double need_of(const CachedSequence& sequence, int32_t layer);
  /// Of a table's entry, in a policy's units; 0 where its rule has none measured.
  double key_norm_of(const CachedSequence& sequence, int32_t layer, const BlockEntry& e) const;

  // ---- layers that share by need (share.cpp)
  /// Where layers that share are to decide at the sequence's length, and hold more together than
  /// they may, gives each its share: the one in the log or, the first time, by what it wants now.
  void share_by_need(SequenceId id);
  /// Whether the group decides at this length and would hold too much, if each of its layers had
  /// `n` positions more than now.
  static bool is_over(const CachedSequence& sequence, const PolicyMap::Sharers& group,
                      int64_t length, int64_t n);
  /// What the group's layers may keep on average.
  static int32_t budget_of(const CachedSequence& sequence, const PolicyMap::Sharers& group) {
    return group.budget == kUnlimited ? sequence.budget : group.budget;
  }
  /// Asks the group's layers how much they want, and fills shares_of.
  void work_out_shares(const CachedSequence& sequence, const PolicyMap::Sharers& group,
                       int32_t budget);
  /// Fills shares_of as they were when the sequence had this length before.
  void recall_shares(CachedSequence& sequence, const PolicyMap::Sharers& group);
  /// Writes them into its log.
  void note_shares(CachedSequence& sequence, const PolicyMap::Sharers& group);
  /// Lets the tables go by them.
  void take_shares(CachedSequence& sequence, const PolicyMap::Sharers& group);

  // ---- what was decided before (recall.cpp)
  /// Whether the sequence's log says what is decided at this length.
  static bool is_known(const CachedSequence& sequence, int64_t length);
  /// Makes room for what a step of `n` tokens may decide: commit() takes no memory.
  void make_log_room(CachedSequence& sequence, int32_t n);
  /// Goes by the budgets that the log knows up to the sequence's length, and drops what their falls
  /// dropped. `is_before`: rules have yet to decide at this length.
  void replay_budgets(SequenceId id, bool is_before);
  /// Choices and runner-up, as they were when the sequence had this length before.
  void recall(CachedSequence& sequence, int32_t layer);
  /// Writes them into its log.
  void note_choices(CachedSequence& sequence, int32_t layer);
  // ---- beginning with what is kept (reuse.cpp)
  /// How far a sequence may begin so, of so many positions: no further than to where its budget
  /// falls, and to the last length at which an elastic rule holds no more than it has room for.
  int64_t most_found(const CachedSequence& sequence, int64_t max_positions) const;
  /// What it would find in caches of other sizes.
  void ask_shadows(SequenceId id, std::span<const int32_t> tokens, int64_t max_blocks, bool counts);
  /// How many of up to `max_blocks` blocks from its beginning on it may list, if that takes no more
  /// than `max_pages` from those that can be had.
  int64_t blocks_within(CachedSequence& sequence, std::span<const int32_t> tokens,
                        int64_t max_blocks, int64_t max_pages);
  /// How many of the nodes in `shared`, from `first` on, a sequence may list: listing a page that
  /// nobody else lists takes it from those that can be had, of which no more than `max_pages`.
  int64_t nodes_within(std::span<const int32_t> shared, size_t first, int64_t max_pages) const;

  // ---- elastic rules (fall.cpp)
  /// What the rule answers for a budget; what it answers wrongly is counted, and a plain schedule
  /// taken.
  TrimSchedule schedule_for(const RuleSet& rules, int32_t layer, int32_t budget);
  /// Most tokens that a step may bring under an elastic rule: a table with many rotations has as
  /// many rows of angles for each token, and there is room for so many only.
  int64_t max_elastic(const CachedSequence& sequence, int32_t layer) const;
  /// What plan_fall() asks, into `plan`.
  void ask_layers(SequenceId id, int32_t budget);
  /// Drops what was planned, and goes by the schedules of the plan from now on.
  void carry_out(SequenceId id);
  /// rank_all() for each layer of the plan.
  void rank_plan(const CachedSequence& sequence);
  /// The sequence has this budget now; its schedules are the caller's to set. Tokens that come
  /// later see less than the whole text, so their keys serve no other sequence: it shares no full
  /// blocks any more.
  void begin_fall(CachedSequence& sequence, int32_t budget);
  void lift(CachedSequence& sequence) const;
  /// Whether the sequence's table alone lists the page: dropped, it would be free, or kept and
  /// referenced by nobody.
  bool is_own(int32_t page) const { return listings(page) == 1; }
  /// How many tables list it.
  int32_t listings(int32_t page) const {
    return pool.references(page) - (node_of[page] < 0 ? 0 : 1);
  }

  /// Of a block's pages, those in layers whose rule is so.
  template <typename IsSo>
  static int64_t pages_where(const PolicyMap& policies, const CacheConfig& config,
                             const IsSo& is_so) {
    int64_t pages = 0;
    for (int32_t layer = 0; layer < config.n_layers; ++layer) {
      pages += is_so(policies.layer(layer)) ? config.layout.page_units(layer) : 0;
    }
    return pages;
  }

  KvLayerStats layer_stats(int32_t layer) const;
  /// From which position on queries count in its scores; 0 also where no rule measures attention.
  int64_t first_scored(const CachedSequence& sequence) const;
  void push_event(const RemovalEvent& event);
  KvEvent event(uint64_t number, const RemovalEvent& raw) const;

  CacheConfig config;
  std::vector<RuleSet> rule_sets;       // by their numbers; changed where no sequence is live
  std::vector<std::string> rule_names;  // of all rules so far, for events that outlive them
  int32_t block_units = 0;              // of a block's pages in all layers
  std::vector<int64_t> block_pages;     // [n_classes] of them, by size
  std::vector<int64_t> wanted;          // [n_classes] scratch of make_room()
  PagePool pool;
  int32_t limit = 0;  // of pages in use, as it was set; the pool's own may be above (limit.cpp)
  PrefixTree tree;
  Shadows shadows;
  std::vector<int32_t> node_of;  // [n_units] the node that holds a reference to the page, or -1
  // Sum over what is written in it, in kNormUnits, where a rule needs it: like keys and values it
  // is there for whoever lists the page [n_units].
  std::vector<int64_t> key_norms;
  // Pages that the tree keeps and no table lists, though their blocks are locked: windows have
  // passed them. In the order in which that happened, and the clock then [n_units].
  BlockLists passed;
  std::vector<int64_t> passed_at;
  std::vector<int32_t> own_pages;         // [n_layers] scratch of copy_tail()
  std::vector<int64_t> marked;            // [n_units] which call of pages_listed() met it last
  int64_t marks = 0;                      // calls so far
  std::vector<CachedSequence> sequences;  // [max_sequences], and pins behind them

  // Guarded by `mutex`, so that stats(), blocks() and events() may be called from any thread. The
  // driving thread alone writes, and holds it for every change of a table or a counter. Nothing of
  // the host's is called under it: policies are asked before and let go of after, events are told
  // after. What is called under it is ours: CacheConfig::on_free, copy_page and on_withheld, the
  // observer, and what a test has given to watch(); but for a ReclaimPolicy, which is told so.
  mutable std::mutex mutex;
  mutable Census census;
  struct Counters {
    int64_t active = 0, cached = 0, reserved = 0, peak = 0, tokens = 0, allocated = 0, read = 0;
    int64_t decisions = 0, merged = 0, retained = 0;
    std::array<int64_t, kRemovalReasons> removed{};
  };
  std::vector<Counters> counters;
  EventRing ring;
  // The newest, as many of each as the ring holds removals.
  NumberedLog<KvBudgetChange> budget_changes;
  NumberedLog<KvPreemption> preemptions;
  int64_t n_falls = 0, n_lifts = 0;
  struct Queued {
    uint64_t number;
    RemovalEvent event;
  };
  std::vector<Queued> queue;  // removals that nobody has taken yet
  std::function<void(const KvEvent&)> watcher;
  int64_t pool_peak = 0;
  int64_t needing = 0;  // the request that reserve() is called for
  int64_t refused = 0;  // calls of reserve() that found too few pages
  int64_t steps = 0;
  int64_t tokens_written = 0;
  int32_t live = 0;    // sequences,
  int32_t pinned = 0;  // and pins
  int64_t policy_nanoseconds = 0, violations = 0, shortfalls = 0, slow = 0;
  std::string last_violation;
};

}  // namespace paddock
