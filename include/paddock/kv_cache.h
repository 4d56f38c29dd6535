// Options of the paged KV cache.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/eviction.h"
#include "paddock/export.h"
#include "paddock/reclaim.h"
#include "paddock/stats.h"

namespace paddock {

/// Element type of cached keys and values. kAuto: f16, or f32 with Precision::kReference.
enum class KvType { kAuto, kF32, kF16, kBF16 };
/// "f32", "f16" or "bf16"; "auto".
PADDOCK_API const char* kv_type_name(KvType type) noexcept;
/// All but that of kAuto.
PADDOCK_API std::vector<std::string> kv_type_names();
/// By one of these names; Error kInvalidArgument otherwise.
PADDOCK_API KvType parse_kv_type(std::string_view name);

/// Why a prompt had to be computed from some block on, although blocks are kept for reuse.
enum class MissReason : int32_t {
  kNone,       ///< every full block before its last token was there
  kFirstSeen,  ///< nothing that is kept begins like it
  kDiffers,    ///< what is kept begins like it, up to PrefixMiss::differs_at
  kReclaimed,  ///< the block had been kept, and was reclaimed when pages were needed
  kTrimmed,    ///< the block is known, but a rule had let go of pages that are seen behind it, and
               ///< those were reclaimed
  kSettings,   ///< the block is kept for texts under rules by which it has other contents, or had
               ///< been kept under rules that have changed since (PrefixMiss::step says when)
  kNotShared,  ///< the rules share no blocks, or KvOptions::reuse is off; or its sequence takes
               ///< part in it no more: its budget has fallen, the text has outgrown what is
               ///< remembered of texts, or blocks of its own stay apart (CUDA, Precision::kFast)
};
/// As many as there are of MissReason.
inline constexpr int32_t kMissReasons = static_cast<int32_t>(MissReason::kNotShared) + 1;
/// "none", "first_seen", "differs", "reclaimed", "trimmed", "settings" or "not_shared".
PADDOCK_API const char* miss_reason_name(MissReason reason) noexcept;

/// The first block of a prompt that was missing, or of what its session holds. What left is
/// remembered for sixteen times as many blocks as can be kept, at least 4,096 and at most
/// 1,048,576.
struct PrefixMiss {
  MissReason reason = MissReason::kNone;
  bool again = false;     ///< its sequence had computed the block, and was parked since
  int64_t position = -1;  ///< where the block begins
  int64_t differs_at =
      -1;               ///< with kDiffers: the first position that what is kept has otherwise,
                        ///< or not at all (of blocks with many continuations: among the 256 newest)
  int64_t step = -1;    ///< with kReclaimed, kTrimmed and kSettings: the cache's clock when it left
                        ///< (-1: not known, or with kSettings it is there),
  int64_t request = 0;  ///< and with the first two: whose need it was; 0: not that of a request
};
/// As one line of JSON, without a newline: fields as above, "reason" by name, what is unknown left
/// out.
PADDOCK_API std::string to_json(const PrefixMiss& miss);

/// What may happen to sequences under elastic rules when pages run short.
enum class KvPressure {
  kTrim,     ///< budgets fall before anyone is parked
  kPreempt,  ///< nothing is lost: they are as under "full", are parked, and wait
};

/// What KvOptions::on_pressure is told: that budgets are about to fall.
struct KvShortage {
  int64_t request = 0;    ///< whose need it is; 0: feed() or forward()
  int64_t needed = 0;     ///< pages, up to its next decision length,
  int64_t available = 0;  ///< and those that can be had for it
};
/// What the host says to it.
enum class KvRelief {
  kNone,  ///< go on
  kWait,  ///< it has done something, or will: nothing falls for it in this step, which it sits out
};

/// A trace of all that the cache and its requests do, for later: `paddock trace`, `paddock
/// explain`, and paddock/trace.h, which reads it. docs/trace-format.md describes the bytes.
struct KvTrace {
  /// Gets the bytes, in order: trace_file() makes one that writes a file. Called on the thread that
  /// drives the engine when a step (or a call) is done and no lock is held, as on_event is, and a
  /// last time when the engine goes. If it throws, that is counted (KvStats::hook_failures), and
  /// nothing more is recorded. Null: nothing is recorded.
  std::function<void(std::string_view bytes)> sink{};
  bool tokens = false;  ///< the ids of the texts, and what they stand for; else hashes of blocks
  bool scores = false;  ///< all blocks among which a rule chose, not only those that left; the rule
                        ///< is then asked twice: for the trace, how it ranks the others
  bool times = true;    ///< how long steps took; without, equal runs give equal bytes
};

struct KvOptions {
  /// Bytes of the whole page pool. 0: what sequences of the admitted length need under the
  /// policy, a prefill chunk each included: as many of them as EngineOptions::max_sequences. A pool
  /// that cannot be had, or a rule that cannot fit, is refused when the engine is made, with both
  /// numbers.
  uint64_t budget_bytes = 0;
  /// Bytes that are reserved for the pool, so that Engine::set_kv_budget() may raise the budget up
  /// to them. 0: as many as the budget. Not with budget_share.
  uint64_t max_budget_bytes = 0;
  /// In place of budget_bytes: the engine may take this share (above 0, at most 1) of the memory
  /// that is free on its device, and the pool is what weights, activations and tables leave of it;
  /// no more than sequences of the admitted length can need. 0: off.
  double budget_share = 0;
  KvType type = KvType::kAuto;
  int32_t block_size = 16;  ///< positions per block, 1..4096
  /// Full blocks stay when nobody lists them any more, until their pages are needed, and a prompt
  /// that begins like an earlier text lists them instead of computing them again: across requests,
  /// sessions and turns, also while the other one still runs. Under rules by which what layers see
  /// depends on positions alone ("full", "window", "sink" and mixes of them, and rules of the
  /// host's own without a schedule): pages that a window has passed stay as well, until pages are
  /// needed. Rules that score neither read nor keep; those without a budget do both
  /// until a sequence's budget falls. Token ids are compared. The same bits as
  /// without on the CPU and with Precision::kReference; elsewhere within what the device's sums
  /// differ by from one batch to another.
  bool reuse = true;
  /// Which of the blocks that nobody lists leaves first: "lru" (least recently used), "s3fifo" (new
  /// ones on probation, those found again stay) or "depth" (what many prompts came through stays).
  std::string reclaim = "lru";
  /// Makes an order of the host's own; overrides `reclaim` when set. Called when the engine is
  /// made, perhaps more than once.
  ReclaimMaker custom_reclaim{};
  /// Whether KvStats::shadows tell what the prefixes' cache would find with half, twice and four
  /// times the memory: the order above over hashes of blocks. docs/replay.md says what that costs,
  /// and what differs.
  bool shadow = false;
  /// What each layer keeps: one RULE, or comma-separated LAYERS=RULE ("0-3=full,*=sink:4+1020").
  /// docs/policies.md lists the rules.
  std::string policy = "full";
  /// SPECs, beside `policy`, that requests, sessions and pins may name (GenerateOptions::kv_policy
  /// and kin), whose sequences then go by them in place of `policy`. The pool is one for all;
  /// tables, and where budget_bytes is 0 the pool, are as large as any of them needs. Each is
  /// checked when the engine is made, as `policy` is.
  std::vector<std::string> other_policies{};
  /// Of elastic rules, those without a budget.
  KvPressure pressure = KvPressure::kTrim;
  /// Called before budgets fall for want of pages, on the thread that drives the engine: the host
  /// may end a request, let go of a pin, close a session or raise the budget
  /// (Engine::set_kv_budget()) first. Asked again with every step that
  /// it waits. What it throws counts as kNone and in KvStats::hook_failures, and it is not called
  /// again.
  std::function<KvRelief(const KvShortage&)> on_pressure{};
  /// Rules of the host's own that `policy` and Engine::set_kv_policy() may name:
  /// {"mine", maker} makes "0-3=full,*=mine:256" possible. A maker is called once per RULE. Names
  /// and makers are checked when the engine is made, whether or not a SPEC names them.
  CustomPolicies custom_policies{};
  /// A policy of the host's own, for all layers; overrides `policy` when set.
  std::shared_ptr<const EvictionPolicy> custom_policy{};
  /// Removals that kv_events() can look back on; 0 to 1,000,000.
  int32_t event_capacity = 4096;
  /// Called for every removal, in order, on the thread that drives the engine, when the step (or
  /// the call) that removed it is done and no lock is held; docs/hosts.md says which methods it may
  /// call. If it throws, that is counted (KvStats::hook_failures) and it is not called again.
  std::function<void(const KvEvent&)> on_event{};
  /// What is recorded of it all.
  KvTrace trace{};
};

}  // namespace paddock
