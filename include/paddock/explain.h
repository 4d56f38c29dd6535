// Why something left the cache: facts from a trace (paddock/trace.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/trace.h"

namespace paddock {

/// What is asked about. Nothing: the summary alone.
struct ExplainQuery {
  std::string text{};                 ///< wherever it occurs; needs a trace with tokens
  std::optional<int64_t> position{};  ///< the block that has it
  std::optional<int64_t> turn{};      ///< what was said and answered then, from 1
  std::optional<int32_t> layer{};     ///< of that, one layer alone
  std::optional<int32_t> sequence{};  ///< of that, the sequences of this number alone
};

/// A block that left one layer of a live sequence.
struct ExplainedLoss {
  TraceRemoval removal;
  double seconds = 0;       ///< when, since the engine was made (0 without times)
  int64_t request = 0;      ///< that the sequence served then; 0: it was fed
  int64_t turn = 0;         ///< of its session; 0: it was fed
  TrimSchedule schedule{};  ///< with kPolicyTrim: what the rule went by
  bool by_fall = false;     ///< with kPolicyTrim: a budget fell, for
  int64_t needed_by = 0;    ///< this request's need (0: text that was fed)
  /// A rule as it would be written that keeps the block, by the rule's own protection: with so many
  /// sinks. Empty: there is none, or (a rule of the host's own) nobody knows.
  std::string with_sinks{};
  int64_t sinks = 0;         ///< the least number of them; 0: none helps
  bool sinks_fit = false;    ///< in the budget in force; else
  int64_t sinks_budget = 0;  ///< from this budget on; 0: in none
  /// Likewise, by what is kept: kPolicyTrim: the smallest budget of the whole rule that gives this
  /// layer its KvEvent::sufficient_budget; kWindow: the smallest window that sees the block to the
  /// end of the trace. Empty: nobody knows, as where layers share by need.
  std::string with_budget{};
};

/// While a host protected positions of a block (Engine::protect()): no rule may choose it then.
struct ExplainedProtection {
  int64_t from_step = 0;
  int64_t to_step = -1;  ///< -1: to the end of its sequence, or of the trace
};

struct ExplainedBlock {
  int64_t first_position = 0;
  int32_t n_tokens = 0;
  int64_t written_step = 0;  ///< the cache's clock when its first position came in: was computed,
                             ///< or found kept
  std::vector<ExplainedLoss> losses{};  ///< in the order of time, one in a layer at most
  std::vector<int32_t> kept_in{};       ///< layers that had it to the end of its sequence
  std::vector<ExplainedProtection> protections{};  ///< in the order of time
  int64_t asked_again = 0;  ///< later texts, not this one read again, that begin as this one does
                            ///< up to the block's end; -1: it was not full, or nobody knows
  int64_t found_again = 0;  ///< of them, found it kept; the others computed it again
  int64_t reclaimed = 0;    ///< layers that gave its kept page up later, for lack of pages
};

/// A request that a sequence served.
struct ExplainedTurn {
  int64_t begin = 0;       ///< position where what is new of its prompt begins,
  int64_t prompt_end = 0;  ///< and where the prompt ends
};

/// One place where what was asked for lay.
struct ExplainedSpan {
  int32_t sequence = 0;
  int64_t session = 0, request = 0;  ///< that it came with; 0: none
  int64_t turn = 0;                  ///< likewise
  bool is_answer = false;            ///< the model said it
  int64_t first_position = 0;
  int64_t n_tokens = 0;
  std::string text{};      ///< where the trace has tokens
  int64_t length = 0;      ///< of its sequence at its end, or the trace's
  bool has_ended = false;  ///< it was closed, not parked, before the trace's end
  int32_t times_parked = 0;
  std::vector<ExplainedBlock> blocks{};
  std::vector<TokenId> tokens{};  ///< of all of its sequence, where the trace has them; -1: one
                                  ///< that was not told
  std::vector<ExplainedTurn> turns{};  ///< of its sequence, in order
};

/// What left a layer for one reason.
struct ExplainedLayer {
  int32_t layer = 0;
  RemovalReason reason = RemovalReason::kWindow;
  int64_t blocks = 0;
  TraceRemoval first{};
  TraceRemoval worst{};      ///< of them what had received most attention,
  bool is_measured = false;  ///< if any was measured
};

struct Explanation {
  TraceHeader header{};
  TraceExtent extent{};
  std::string policy{};                  ///< the last SPEC
  std::vector<ExplainedLayer> layers{};  ///< the summary, by layer and reason
  std::vector<ExplainedSpan> spans{};    ///< what was asked about, in order
};

/// Errors: those of read_trace(); kInvalidArgument where a text is asked for and the trace has no
/// tokens, or a layer is not there.
PADDOCK_API Explanation explain(const std::string& path, const ExplainQuery& query);
/// Likewise, of bytes in memory, which messages call `name`.
PADDOCK_API Explanation explain(std::string_view bytes, const std::string& name,
                                const ExplainQuery& query);

/// All of it as one JSON object.
PADDOCK_API std::string to_json(const Explanation& explanation);

}  // namespace paddock
