// Traces: what KvOptions::trace recorded, read again. docs/trace-format.md describes the bytes.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "paddock/engine.h"
#include "paddock/eviction.h"
#include "paddock/export.h"
#include "paddock/kv_cache.h"
#include "paddock/stats.h"

namespace paddock {

/// A trace begins with these bytes.
inline constexpr std::string_view kTraceMagic = "PADTRACE";
/// Of the format that this library writes, and reads.
inline constexpr uint32_t kTraceVersion = 3;

/// As KvTrace has one.
using TraceSink = std::function<void(std::string_view bytes)>;
/// One that writes a file, which is emptied first. Error kIo where it cannot be opened; what it
/// throws later is one, too.
PADDOCK_API TraceSink trace_file(const std::string& path);

/// The first record: the engine.
struct TraceHeader {
  uint32_t version = kTraceVersion;
  std::string library;  ///< its version
  std::string model;    ///< its name, from the file; may be empty
  int32_t n_layers = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, vocab_size = 0;
  std::string device, kv_type;
  int32_t block_size = 0;
  int64_t page_bytes = 0, pool_pages = 0;
  int64_t context = 0;        ///< longest sequence admitted, in positions
  int64_t model_context = 0;  ///< positions that the model is made for, RoPE scaling included
  int32_t batch_size = 0, max_sequences = 0;
  bool reuse = false;
  std::string reclaim;
  bool has_tokens = false, has_scores = false, has_times = false;
  int64_t started = 0;  ///< seconds since 1970; 0 without times
};

/// Rules from here on, one for each layer: those of the engine, and by their numbers those of
/// KvOptions::other_policies.
struct TraceRules {
  struct Layer {
    std::string policy;
    TokenVisibility visibility;
    TrimSchedule schedule;
    PolicyNeeds needs;
    bool is_elastic = false, shares_by_need = false, is_compact = false;
  };
  int32_t number = 0;  ///< 0: the engine's own; all are told anew when these change
  std::string policy;  ///< as a SPEC
  std::vector<Layer> layers;
};

// ---- requests and steps

/// A request was added.
struct TraceRequest {
  int64_t request = 0;
  int64_t session = 0;        ///< 0: none
  int32_t answer = 0;         ///< of GenerateOptions::n
  int64_t begin = 0;          ///< where what is new of its prompt begins: the session's length
  int64_t prompt_tokens = 0;  ///< where its prompt ends
  int32_t priority = 0, max_tokens = 0;
};
/// Memory as the operating system and the device's driver (NVML, where it is found) see it, when
/// the engine is made and when it ends; of a trace with times.
struct TraceMemory {
  ProcessMemory process{};
  DeviceMemory device{};
};
/// From here on the sequence serves this request (0: what a host feeds) of this session (0: none).
struct TraceRun {
  int32_t sequence = 0;
  int64_t request = 0, session = 0;
};
struct TraceFinish {
  int64_t request = 0;
  FinishReason reason = FinishReason::kError;
  int64_t made_tokens = 0, cached_tokens = 0, recomputed_tokens = 0;
  int32_t preemptions = 0;
};
struct TraceStepBegin {};
/// `completed`: no pass failed or was stopped.
struct TraceStepEnd {
  bool completed = false;
  double seconds = 0;
};
/// The cache's clock goes on. Pages: free, and kept while nobody lists them.
struct TraceTick {
  int64_t pages_free = 0, pages_cached = 0;
};

// ---- sequences

/// A number is given again when its sequence is closed.
struct TraceOpen {
  int32_t sequence = 0;
  bool is_pin = false;
  int32_t rules = 0;  ///< TraceRules::number
};
/// kPreempt: it was parked.
struct TraceClose {
  int32_t sequence = 0;
  RemovalReason reason = RemovalReason::kSequenceEnd;
};
struct TraceFork {
  int32_t from = 0, to = 0;  ///< `to` lists what `from` does
};
/// What a host protects of the sequence from here on (Engine::protect()): no rule chooses blocks
/// with these positions, there already or to come. In order, apart from one another; none: nothing.
struct TraceProtection {
  struct Range {
    int64_t first_position = 0, n_tokens = 0;
  };
  int32_t sequence = 0;
  std::vector<Range> ranges{};
};
/// n positions more, in every layer, for which each allocated so many pages.
struct TraceCommit {
  int32_t sequence = 0;
  int64_t length = 0;  ///< afterwards
  int32_t n_tokens = 0;
  int64_t pages_per_layer = 0;
};
/// The ids of those positions, or of those that a prefix brought, where the trace has tokens.
struct TraceTokens {
  int32_t sequence = 0;
  int64_t first_position = 0;
  std::vector<int32_t> ids{};
};
/// What an id stands for, told once, before it is used.
struct TracePiece {
  int32_t id = 0;
  std::string bytes{};
};
/// A full block of the sequence's text: equal hashes mean equal texts up to its end, under rules by
/// which layers see alike.
struct TraceBlock {
  int32_t sequence = 0;
  int64_t block = 0;
  uint64_t hash = 0;
};
/// Blocks kept for reuse were found, so that its length grew. Which of them each layer lists, the
/// next records say.
struct TracePrefix {
  int32_t sequence = 0;
  int64_t from = 0, to = 0;
  int64_t lookups = 0, hits = 0;
};
struct TraceListed {
  int32_t sequence = 0, layer = 0;
  int64_t first_position = 0, n_tokens = 0;
};
struct TraceMiss {
  int32_t sequence = 0;
  PrefixMiss miss{};
  int64_t lookups = 0, regrets = 0;
};
/// Positions from `length` on are no more.
struct TraceCut {
  int32_t sequence = 0;
  int64_t length = 0;
};
/// A window has passed these positions, whose page stays for the sinks in it: no removal.
struct TracePassed {
  int32_t sequence = 0, layer = 0;
  int64_t first_position = 0;
  int32_t n_tokens = 0;
};
/// A layer allocated one page more, for a copy of one that others see.
struct TraceCopy {
  int32_t sequence = 0, layer = 0;
};
/// A layer freed a page, as another sequence had computed the same block.
struct TraceMerge {
  int32_t sequence = 0, layer = 0;
};
struct TraceRefusal {
  int32_t sequence = 0, n_tokens = 0;
};

// ---- what leaves

/// A rule chose. The removals that it brought follow.
struct TraceDecision {
  int32_t sequence = 0, layer = 0;
  int64_t length = 0;
  int64_t tokens = 0;       ///< positions that the layer held
  TrimSchedule schedule{};  ///< that it went by; of an elastic rule, with the budget in force
  int32_t left_together = 0;
  int64_t runner_up_position = -1;
  double runner_up_score = 0;
  bool is_replayed = false;  ///< it was decided before, of a text that was computed again
};
/// Among what it chose, where the trace has scores.
struct TraceCandidates {
  struct Block {
    int64_t first_position = 0;
    int32_t n_tokens = 0;
    bool is_protected = false;
    bool is_ranked = false;  ///< it has a score
    double score = 0;
    double mass = 0, recent_mass = 0, key_norm = 0;  ///< as in BlockInfo
    int64_t last_used = -1;
  };
  int32_t sequence = 0, layer = 0;
  std::vector<Block> blocks{};
};
/// Everything that the event log says, and more.
struct TraceRemoval {
  KvEvent event{};
  bool retained = false;   ///< the page stays: for reuse, or as others list it
  bool measured = false;   ///< attention that it received was:
  double mass = 0;         ///< as in BlockInfo
  int64_t last_used = -1;  ///< likewise; -1: nobody gave it its fair share
  int64_t request = 0;     ///< of what was reclaimed: whose need it was,
  uint64_t text_hash = 0;  ///< and as in TraceBlock
};
struct TraceBudget {
  KvBudgetChange change{};
};
/// Follows the TraceClose of the sequence.
struct TracePreemption {
  KvPreemption preemption{};
};
/// The host changed the budget: so many pages of the pool may be in use from now on.
struct TraceLimit {
  int64_t pool_pages = 0;
};
/// An answer of a policy was overruled, or too short.
struct TraceViolation {
  std::string what;  ///< empty: it named too few blocks
};
/// The last record of a trace that is whole.
struct TraceEnd {};

struct TraceRecord {
  int64_t step = 0;  ///< the cache's clock
  double seconds =
      0;  ///< since the engine was made, when the last step began or a request was told
  std::variant<TraceHeader, TraceRules, TraceMemory, TraceRequest, TraceRun, TraceFinish,
               TraceStepBegin, TraceStepEnd, TraceTick, TraceOpen, TraceClose, TraceFork,
               TraceProtection, TraceCommit, TraceTokens, TracePiece, TraceBlock, TracePrefix,
               TraceListed, TraceMiss, TraceCut, TracePassed, TraceCopy, TraceMerge, TraceRefusal,
               TraceDecision, TraceCandidates, TraceRemoval, TraceBudget, TracePreemption,
               TraceViolation, TraceLimit, TraceEnd>
      what;
};

/// How far a trace could be read.
struct TraceExtent {
  uint64_t bytes = 0;  ///< read,
  uint64_t total = 0;  ///< of so many
  int64_t records = 0;
  bool is_whole = false;  ///< it has its end; else the engine, or the file, was cut off
};

/// Calls on_record for each record, in order. Of a file that was cut off anywhere those that are
/// whole are read. Errors: kNotFound, kIo, kBadFile (it is no trace, of another version, or
/// damaged), with file, byte and fix; what on_record throws.
PADDOCK_API TraceExtent read_trace(const std::string& path,
                                   const std::function<void(const TraceRecord&)>& on_record);
/// Likewise, of bytes in memory, which messages call `name`.
PADDOCK_API TraceExtent read_trace(std::string_view bytes, const std::string& name,
                                   const std::function<void(const TraceRecord&)>& on_record);

/// One record as one line of JSON, without a newline.
PADDOCK_API std::string to_json(const TraceRecord& record);

}  // namespace paddock
