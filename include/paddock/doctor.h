// What ails a run: a trace's figures, the causes that they show, and the setting that helps each.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/export.h"
#include "paddock/replay.h"
#include "paddock/trace.h"

namespace paddock {

enum class Ailment {
  kPoolTooSmall,       ///< sequences gave way, or ended, for want of pages
  kGreedySequence,     ///< likewise, while one request or session held most of what there was
  kBlocksTooLarge,     ///< pages are mostly empty, and that is a good part of the pool
  kPrefixBroken,       ///< prompts differ early, though long parts of them are equal
  kPrefixNotShared,    ///< prompts begin alike under rules by which nothing is shared
  kPrefixReclaimed,    ///< what was kept for reuse left before it was asked for again
  kWindowDropsStart,   ///< a window has passed the beginning of a text that went on
  kBudgetBelowMemory,  ///< a rule dropped what the pool had room for all the time
  kBudgetSpent,        ///< a rule dropped what its budget, and the pool, had no room for
  kBeyondContext,      ///< positions beyond those that the model is made for
  kContextFull,        ///< texts reached the engine's longest sequence: ended, or lost blocks
  kPolicyViolation,    ///< a policy's answers were overruled, or filled up
  kFailures,           ///< requests ended with errors, or steps failed
};
inline constexpr int32_t kAilments = 13;
/// "pool_too_small" and so on.
PADDOCK_API const char* ailment_name(Ailment ailment) noexcept;

/// A number with its name.
struct DoctorFigure {
  std::string name;
  double value = 0;
};

struct DoctorCause {
  Ailment ailment = Ailment::kFailures;
  std::vector<DoctorFigure> evidence{};
  std::string words{};  ///< with kPolicyViolation: what was said last
  /// What to set: "budget" (bytes), "policy" (a SPEC), "block_size", "context" or "rope_factor".
  /// Empty: no setting helps; what does is a change of the prompts or of the policy.
  std::string setting{};
  std::string value{};
};

/// What the cache held when a step was over, of all steps since the sample before.
struct DoctorSample {
  int64_t step = 0;
  double seconds = 0;       ///< since the engine was made; 0 without times
  double step_seconds = 0;  ///< of the slowest of these steps
  int64_t tokens = 0;       ///< that they wrote
  int64_t pages_active = 0, pages_cached = 0;
  std::vector<int64_t> resident{};  ///< positions in each layer, all sequences together
  std::vector<int64_t> left{};      ///< blocks that windows and rules took of each layer since
};

/// What became of a block of a text in a layer.
enum class BlockFate : uint8_t {
  kAbsent,    ///< it never had it: the text went on from kept blocks that do not see it
  kResident,  ///< it was there to the end
  kWindow,    ///< a window passed it
  kTrimmed,   ///< a rule dropped it
  kTaken,     ///< the host took it back
};

/// Blocks by the power of two of a number of steps: [0] 0, [i] 2^(i-1) to 2^i - 1.
using StepHistogram = std::vector<int64_t>;

/// Removals of one kind.
struct DoctorLoss {
  RemovalReason reason = RemovalReason::kWindow;
  int32_t layer = 0;
  int32_t sequence = 0;  ///< -1: nobody's
  int64_t blocks = 0;
};

struct Diagnosis {
  TraceHeader header{};
  TraceExtent extent{};
  std::string policy{};               ///< the engine's last SPEC
  std::vector<TraceMemory> memory{};  ///< when the engine was made, and at its end
  /// Of the whole run, in one order, always the same names.
  std::vector<DoctorFigure> figures{};
  /// The gravest first; empty: nothing needs to change.
  std::vector<DoctorCause> causes{};
  std::vector<DoctorSample> samples{};  ///< at most 1,024
  /// The longest text: its length, and of each layer what became of its blocks while it was there.
  int64_t map_length = 0;
  std::vector<std::vector<BlockFate>> map{};
  std::map<RemovalReason, StepHistogram> lives{};  ///< ages of what left
  StepHistogram reuse_gaps{};        ///< from a block of a text to its next time, in another text
                                     ///< or in the same one, computed again
  std::vector<DoctorLoss> losses{};  ///< by reason, layer and sequence
  /// Where prompts were looked for among kept blocks: caches of 0.5, 1, 2 and 4 times the pool that
  /// hold whole prompts of these requests, in the engine's order of reclaiming ("lru" for a custom
  /// one); empty otherwise.
  std::vector<ReplayResult> what_if{};
};

/// Errors: those of read_trace(). kBadFile where the trace has no header: the engine never ran.
PADDOCK_API Diagnosis diagnose(const std::string& path);
/// Likewise, of bytes in memory, which messages call `name`.
PADDOCK_API Diagnosis diagnose(std::string_view bytes, const std::string& name);

}  // namespace paddock
