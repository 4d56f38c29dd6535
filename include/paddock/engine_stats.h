// What an engine's requests did and how long they waited. Plain structs, by value.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "paddock/export.h"

namespace paddock {

/// Seconds: the buckets of every LatencyHistogram.
inline constexpr std::array<double, 18> kLatencyBounds = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 1000};

struct LatencyHistogram {
  /// [i]: how many took at most kLatencyBounds[i] and more than the bound before it; the last one:
  /// more than all bounds.
  std::array<int64_t, kLatencyBounds.size() + 1> counts{};
  double sum_seconds = 0;

  void add(double seconds) {
    size_t at = 0;
    while (at < kLatencyBounds.size() && seconds > kLatencyBounds[at]) ++at;
    ++counts[at];
    sum_seconds += seconds;
  }
  int64_t count() const {
    int64_t sum = 0;
    for (const int64_t n : counts) sum += n;
    return sum;
  }
};

enum class FinishReason { kStop, kLength, kContext, kKvFull, kCancelled, kDeadline, kError };
/// As many as there are of FinishReason.
inline constexpr int32_t kFinishReasons = static_cast<int32_t>(FinishReason::kError) + 1;
/// "stop", "length", "context", "kv_full", "cancelled", "deadline" or "error".
PADDOCK_API const char* finish_reason_name(FinishReason reason) noexcept;

/// Counters count since the engine was made; all requests of add() and generate() are counted.
struct EngineStats {
  int32_t requests_waiting = 0;  ///< to be let in, now
  int32_t requests_running = 0;  ///< now
  int32_t requests_parked = 0;   ///< that gave their pages up and wait to go on, now
  std::array<int64_t, kFinishReasons> requests_finished{};  ///< by FinishReason
  int64_t prompt_tokens = 0;      ///< of prompts that have been read to their end, as vLLM counts:
                                  ///< those of each of several answers, cached ones included
  int64_t cached_tokens = 0;      ///< of them, that were there: GenerateResult::cached_tokens
  int64_t computed_tokens = 0;    ///< computed for prompts, each token once, also for those that
                                  ///< ended on the way: of all others prompt less cached tokens
  int64_t recomputed_tokens = 0;  ///< computed again for what had been parked
  int64_t generated_tokens = 0;   ///< stop tokens left out
  int64_t prefix_queries = 0;     ///< tokens of prompts that were looked for among kept blocks when
                                  ///< they began to be read, once each,
  int64_t prefix_hits = 0;        ///< and that were found there, then or while others computed them
  int64_t preemptions = 0;        ///< times that a request was parked,
  int64_t sessions_parked = 0;    ///< and that a session was which no request ran
  int32_t pins = 0;               ///< Engine::pin(), that hold now
  int64_t pins_lost = 0;          ///< that had to give way
  LatencyHistogram queue;         ///< from add() to being let in for the first time
  LatencyHistogram first_token;   ///< from add() to the first token
  LatencyHistogram token_gap;     ///< from each token of an answer to its next one
  LatencyHistogram request;       ///< from add() to the end
};

/// One JSON object: "count", "sum_seconds" and "buckets", a list of [bound or null, count].
PADDOCK_API std::string to_json(const LatencyHistogram& histogram);
/// The snapshot as one JSON object: fields as above, reasons by name, histograms likewise.
PADDOCK_API std::string to_json(const EngineStats& stats);
/// A few lines for people.
PADDOCK_API std::string to_table(const EngineStats& stats);
/// Prometheus text exposition format, version 0.0.4; names begin with paddock_, and go on as
/// vLLM's do where it has the metric.
PADDOCK_API std::string to_prometheus(const EngineStats& stats);

}  // namespace paddock
