// Snapshots of what the cache holds, and the log of what left it. Plain structs, by value.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/export.h"

namespace paddock {

/// Why a page left a sequence's table or, kept there for reuse, the cache. Six reasons, never one
/// verb.
enum class RemovalReason : int32_t {
  kCapacity,     ///< a cached page that nobody referenced was reclaimed: lossless
  kWindow,       ///< no later query could see any of it (the rule's own visibility)
  kPolicyTrim,   ///< a scored rule dropped it from a live sequence: changes the output
  kSequenceEnd,  ///< its sequence ended
  kPreempt,      ///< its sequence was parked: lossless, slow
  kUser,         ///< the host truncated the sequence, or changed the rules that it was kept under
};
/// As many as there are of RemovalReason.
inline constexpr int32_t kRemovalReasons = static_cast<int32_t>(RemovalReason::kUser) + 1;
/// Whether the sequence's own rule took it from a live sequence, for good.
constexpr bool is_by_rule(RemovalReason reason) noexcept {
  switch (reason) {
    case RemovalReason::kWindow:
    case RemovalReason::kPolicyTrim:
      return true;
    case RemovalReason::kCapacity:
    case RemovalReason::kSequenceEnd:
    case RemovalReason::kPreempt:
    case RemovalReason::kUser:
      return false;
  }
  return false;
}
/// Whether the rule chose it among others, by score, so that KvEvent::score, rank and what stands
/// beside them say something.
constexpr bool is_by_score(RemovalReason reason) noexcept {
  switch (reason) {
    case RemovalReason::kPolicyTrim:
      return true;
    case RemovalReason::kCapacity:
    case RemovalReason::kWindow:
    case RemovalReason::kSequenceEnd:
    case RemovalReason::kPreempt:
    case RemovalReason::kUser:
      return false;
  }
  return false;
}
/// "capacity", "window", "policy_trim", "sequence_end", "preempt", "user".
PADDOCK_API const char* removal_reason_name(RemovalReason reason) noexcept;

/// One layer, or the total of all. Counters count since the engine was made.
struct KvLayerStats {
  int32_t layer = -1;        ///< -1: total
  std::string policy;        ///< the engine's own rule of the layer, whatever others go by
  int64_t pages_active = 0;  ///< pages that some sequence's table lists
  int64_t pages_cached = 0;  ///< pages kept for reuse that no table lists
  int64_t pages_pinned = 0;  ///< of the tables' entries, those that the rule may not name: sinks,
                             ///< the newest, under a rule that trims also what the host protects. A
                             ///< page counts for each sequence that lists it
  int64_t pages_peak = 0;       ///< most pages active at once (for the total: of the pool)
  int64_t tokens_resident = 0;  ///< positions in view of the tables, likewise for each sequence
  int64_t tokens_peak = 0;  ///< most positions that one query of a sequence now live has met, its
                            ///< own included (for the total: in any layer)
  int64_t budget = 0;  ///< the least in force for a live sequence, in positions; 0: none, as under
                       ///< an elastic rule that has given nothing up, and for the total
  int64_t bytes = 0;   ///< pages_active times the page size
  int64_t pages_allocated = 0;
  std::array<int64_t, kRemovalReasons> pages_removed{};  ///< by RemovalReason
  int64_t pages_retained = 0;  ///< of those removed: stay, for reuse or as others list them
  int64_t pages_merged = 0;    ///< freed because another sequence had computed the same block
  int64_t tokens_read = 0;     ///< (query, key) pairs that attention met, per query head group
  int64_t trim_decisions = 0;  ///< of a scored rule, known ones of parked sequences included
  /// Keys and values, finite numbers of the model, that KvOptions::type could only hold as
  /// infinity: what attends to them is wrong. bf16 and f32 hold larger ones.
  int64_t kv_overflows = 0;
  double attention_seconds = 0;
};

/// What the host's own view of memory says, beside the pool's figures.
struct ProcessMemory {
  uint64_t resident_bytes = 0;   ///< of this process, as the operating system reports (0: unknown)
  uint64_t available_bytes = 0;  ///< left for it under the machine's and the cgroup's limits
};

/// The memory of the device that runs the model: what this engine took, and the driver's own view.
struct DeviceMemory {
  std::string device;  ///< "cpu", or such as "cuda:0 (NVIDIA H100)"
  uint64_t reserved_bytes =
      0;  ///< by this engine: weights in its own form, pool, activations, tables
  uint64_t process_bytes = 0;  ///< of this process, as the driver reports (0: unknown, or a CPU)
  uint64_t free_bytes = 0;     ///< likewise, of the whole device
  uint64_t total_bytes = 0;
};

/// What blocks kept for reuse would have come to with another size of pool: KvOptions::shadow.
struct KvShadow {
  double times = 1;    ///< the pool's size: 0.5, 1, 2 and 4
  int64_t blocks = 0;  ///< that it holds
  int64_t hits = 0;    ///< what KvStats::prefix_hits would be
};

struct KvStats {
  int32_t block_size = 0;
  std::string type;            ///< "f16", ...
  int64_t page_bytes = 0;      ///< one block in one layer
  int64_t pool_pages = 0;      ///< that may be in use; any layer may use any page
  int64_t pool_bytes = 0;      ///< of these
  int64_t pool_max_pages = 0;  ///< reserved: the most that Engine::set_kv_budget() can make of them
  int64_t pages_free = 0;      ///< of pool_pages
  int64_t pages_per_block = 0;       ///< what a sequence's next block takes: one in every layer
  int64_t reservations_refused = 0;  ///< times that too few pages were free for what a step needed
  int64_t steps = 0;                 ///< forward passes committed so far: the cache's clock
  int64_t tokens_written = 0;
  int32_t sequences = 0;  ///< live ones

  double policy_seconds = 0;      ///< spent inside trim() and need()
  int64_t policy_violations = 0;  ///< answers overruled: thrown, protected, twice, out of range
  int64_t policy_shortfalls = 0;  ///< answers that named too few blocks and were filled up
  int64_t policy_slow = 0;        ///< calls of trim(), not of need(), that took longer than a
                                  ///< millisecond; only counted
  std::string last_violation;     ///< what the latest one was
  int64_t hook_failures = 0;      ///< times that on_event, on_pressure, the trace's sink or the
                                  ///< process's log hook threw

  // Of blocks kept for reuse.
  int64_t prefix_lookups = 0;   ///< blocks looked for among them, up to the first one missing,
  int64_t prefix_hits = 0;      ///< of them found, warm-up and re-reads after a preemption excluded
  int64_t reclaim_regrets = 0;  ///< blocks looked for in vain that had been reclaimed before
  std::vector<KvShadow> shadows;  ///< by size; empty: off, or rules share no blocks

  int64_t budget_falls = 0;  ///< of elastic rules' budgets, all sequences together
  int64_t budget_lifts = 0;  ///< of those that a session's next turn took away
  /// Attention that scores go by is that of a sequence's own queries: positions that it found among
  /// blocks kept for reuse bring none. The last position, over live sequences, from which on all
  /// count; 0: the first, or no rule measures attention.
  int64_t scored_from = 0;

  uint64_t events = 0;       ///< removals logged so far
  uint64_t events_lost = 0;  ///< of them no longer in the ring
  ProcessMemory memory;
  DeviceMemory device;
  KvLayerStats total;
  std::vector<KvLayerStats> layers;
};

/// One block that left one layer: of a sequence or, reclaimed, of what was kept for reuse.
struct KvEvent {
  uint64_t number = 0;  ///< 0, 1, 2, ... without gaps; a gap between two reads means loss
  int64_t step = 0;     ///< the cache's clock when it left
  RemovalReason reason = RemovalReason::kWindow;
  int32_t layer = 0;
  int32_t sequence = 0;  ///< -1: a kept block that no sequence listed
  int64_t first_position = 0;
  int32_t n_tokens = 0;
  int64_t length = 0;  ///< of the sequence at that moment; 0 where there was none
  int64_t age_steps = 0;
  int64_t idle_steps =
      -1;  ///< steps since it last got its fair share of attention; -1: not measured
  bool overruled = false;           ///< chosen by the manager in place of a wrong or short answer
  double score = 0;                 ///< if is_by_score(reason): what it was ranked by,
  double runner_up_score = 0;       ///< and the same of the block that would have been next,
  int64_t runner_up_position = -1;  ///< which starts here; -1: none was named
  int32_t rank = -1;                ///< likewise: its place among what left then, from 0,
  int32_t left_together = 0;        ///< which were so many blocks of this layer,
  int64_t sufficient_budget = 0;  ///< and the smallest budget of this layer from which on it would
                                  ///< have stayed then, under the same ranking
  std::string policy;             ///< the layer's rule by which the sequence goes; of a block that
                                  ///< nobody listed, one that it was kept under
};

/// A sequence under an elastic rule that had to give pages up, or its budget that was taken away.
struct KvBudgetChange {
  int64_t number = 0;        ///< 0, 1, 2, ... without gaps
  int64_t step = 0;          ///< the cache's clock
  int32_t sequence = 0;      ///< -1: a budget was lifted of a session that was parked
  int64_t length = 0;        ///< of the sequence at that moment, or that it had when it was parked
  int32_t before = 0;        ///< its budget, in positions per layer on average; kUnlimited: none
  int32_t after = 0;         ///< likewise
  int64_t request = 0;       ///< whose need it was; 0: feed() or forward()
  int64_t scored_from = 0;   ///< all its queries from this position on had a say in what left
  uint64_t first_event = 0;  ///< removals of lower KvEvent::number came before it, others after it
  int64_t pages = 0;         ///< that came back, in all layers,
  std::vector<int64_t> layer_pages{};  ///< and in each
};

/// A sequence that was parked: it gave its pages up to others, and is computed again when it goes
/// on.
struct KvPreemption {
  int64_t number = 0;        ///< 0, 1, 2, ... without gaps
  int64_t step = 0;          ///< the cache's clock
  int32_t sequence = 0;      ///< that it was; it may be another one when it goes on
  int64_t parked = 0;        ///< the request that was parked; 0: none, a session that nobody ran
  int64_t session = 0;       ///< whose text it is; 0: of none
  int64_t request = 0;       ///< whose need it was; 0: feed() or forward(), or the budget's fall
  int64_t tokens = 0;        ///< that will be computed again, but for blocks that are kept then
  int64_t pages = 0;         ///< that came back, in all layers: free, or kept and listed by nobody
  uint64_t first_event = 0;  ///< removals of lower KvEvent::number came before it, others with it
                             ///< or after it
};

/// A resident block, as kv_blocks() lists it.
struct KvBlock {
  int32_t sequence = 0;
  int64_t first_position = 0;  ///< of the part in view
  int32_t n_tokens = 0;
  int64_t query_shift = 0;  ///< a query at t meets it as if at min(t - query_shift, query_cap)
  int64_t query_cap = 0;
  int64_t born_step = 0;
  double mass = 0;         ///< attention received, where the rule has it measured
  int64_t last_used = -1;  ///< newest query position that gave it its fair share; -1: not measured
  double key_norm = 0;     ///< likewise
};

/// The snapshot as one JSON object. Layer fields as above in snake_case, removals by reason name.
PADDOCK_API std::string to_json(const KvStats& stats);
/// A table for people: one row per layer and a total, ending in a newline.
PADDOCK_API std::string to_table(const KvStats& stats);
/// Prometheus text exposition format, version 0.0.4; names begin with paddock_kv_.
PADDOCK_API std::string to_prometheus(const KvStats& stats);
/// One event as one line of JSON, without a newline.
PADDOCK_API std::string to_json(const KvEvent& event);
/// Likewise; it begins with "event":"budget", and a budget that there is not is null.
PADDOCK_API std::string to_json(const KvBudgetChange& change);
/// Likewise; it begins with "event":"preemption".
PADDOCK_API std::string to_json(const KvPreemption& preemption);

}  // namespace paddock
