// Printers of the engine's statistics. Names and meanings of metrics follow vLLM's
// (https://docs.vllm.ai/en/latest/usage/metrics.html).
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "core/enum_names.h"
#include "paddock/engine_stats.h"

namespace paddock {
namespace {

constexpr const char* name_of(FinishReason reason) noexcept {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kKvFull:
      return "kv_full";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  return nullptr;
}
static_assert(names_exactly<FinishReason>(kFinishReasons, name_of));

using Json = nlohmann::ordered_json;

const char* reason_name(int32_t i) { return finish_reason_name(static_cast<FinishReason>(i)); }

Json histogram_json(const LatencyHistogram& h) {
  Json buckets = Json::array();
  for (size_t i = 0; i < h.counts.size(); ++i) {
    const Json bound = i < kLatencyBounds.size() ? Json(kLatencyBounds[i]) : Json(nullptr);
    buckets.push_back(Json::array({bound, h.counts[i]}));
  }
  return {{"count", h.count()}, {"sum_seconds", h.sum_seconds}, {"buckets", std::move(buckets)}};
}

std::string histogram_line(const char* name, const LatencyHistogram& h) {
  const int64_t n = h.count();
  if (n == 0) return {};
  // The bound below which so many lie: what a histogram knows of a percentile.
  const auto below = [&](double part) {
    int64_t seen = 0;
    for (size_t i = 0; i < kLatencyBounds.size(); ++i) {
      seen += h.counts[i];
      if (static_cast<double>(seen) >= part * static_cast<double>(n)) {
        return fmt::format("{} ms", 1e3 * kLatencyBounds[i]);
      }
    }
    return std::string("more");
  };
  return fmt::format("{:<12} {:>8}  mean {:.1f} ms, half within {}, 99 % within {}\n", name, n,
                     1e3 * h.sum_seconds / static_cast<double>(n), below(0.5), below(0.99));
}

void add_metric(std::string& text, const char* name, const char* type, const char* help) {
  text += fmt::format("# HELP paddock_{} {}\n# TYPE paddock_{} {}\n", name, help, name, type);
}

void add_histogram(std::string& text, const char* name, const char* help,
                   const LatencyHistogram& h) {
  add_metric(text, name, "histogram", help);
  int64_t below = 0;
  for (size_t i = 0; i < h.counts.size(); ++i) {
    below += h.counts[i];
    const std::string bound =
        i < kLatencyBounds.size() ? fmt::format("{}", kLatencyBounds[i]) : "+Inf";
    text += fmt::format("paddock_{}_bucket{{le=\"{}\"}} {}\n", name, bound, below);
  }
  text += fmt::format("paddock_{}_sum {}\npaddock_{}_count {}\n", name, h.sum_seconds, name, below);
}

}  // namespace

const char* finish_reason_name(FinishReason reason) noexcept {
  return name_or_unknown(name_of(reason));
}

std::string to_json(const LatencyHistogram& histogram) { return histogram_json(histogram).dump(); }

std::string to_json(const EngineStats& s) {
  Json finished = Json::object();
  for (int32_t i = 0; i < kFinishReasons; ++i) finished[reason_name(i)] = s.requests_finished[i];
  const Json out = {{"requests_waiting", s.requests_waiting},
                    {"requests_running", s.requests_running},
                    {"requests_parked", s.requests_parked},
                    {"requests_finished", std::move(finished)},
                    {"prompt_tokens", s.prompt_tokens},
                    {"cached_tokens", s.cached_tokens},
                    {"computed_tokens", s.computed_tokens},
                    {"recomputed_tokens", s.recomputed_tokens},
                    {"generated_tokens", s.generated_tokens},
                    {"prefix_queries", s.prefix_queries},
                    {"prefix_hits", s.prefix_hits},
                    {"preemptions", s.preemptions},
                    {"sessions_parked", s.sessions_parked},
                    {"pins", s.pins},
                    {"pins_lost", s.pins_lost},
                    {"queue", histogram_json(s.queue)},
                    {"first_token", histogram_json(s.first_token)},
                    {"token_gap", histogram_json(s.token_gap)},
                    {"request", histogram_json(s.request)}};
  return out.dump();
}

std::string to_table(const EngineStats& s) {
  std::string text = fmt::format("requests: {} waiting, {} running, {} parked", s.requests_waiting,
                                 s.requests_running, s.requests_parked);
  for (int32_t i = 0; i < kFinishReasons; ++i) {
    if (s.requests_finished[i] == 0) continue;
    text += fmt::format(", {} {}", s.requests_finished[i], reason_name(i));
  }
  text += fmt::format(
      "\ntokens: {} of prompts, {} of them cached; {} computed, {} computed again, {} generated; "
      "{} "
      "preemptions, {} sessions parked\n",
      s.prompt_tokens, s.cached_tokens, s.computed_tokens, s.recomputed_tokens, s.generated_tokens,
      s.preemptions, s.sessions_parked);
  if (s.prefix_queries > 0) {
    text += fmt::format("kept blocks had {} of {} tokens that were looked for\n", s.prefix_hits,
                        s.prefix_queries);
  }
  if (s.pins > 0 || s.pins_lost > 0) {
    text += fmt::format("pins: {} hold, {} had to give way\n", s.pins, s.pins_lost);
  }
  text += histogram_line("queue", s.queue);
  text += histogram_line("first token", s.first_token);
  text += histogram_line("token gap", s.token_gap);
  text += histogram_line("request", s.request);
  return text;
}

std::string to_prometheus(const EngineStats& s) {
  std::string text;
  const auto single = [&](const char* name, const char* type, const char* help, int64_t value) {
    add_metric(text, name, type, help);
    text += fmt::format("paddock_{} {}\n", name, value);
  };
  single("num_requests_waiting", "gauge", "Requests to be let in, parked ones included.",
         int64_t{s.requests_waiting} + s.requests_parked);
  single("num_requests_running", "gauge", "Requests in the batch.", s.requests_running);
  single("num_requests_parked", "gauge", "Of them, that gave their pages up.", s.requests_parked);
  add_metric(text, "request_success_total", "counter", "Requests that have ended, by reason.");
  for (int32_t i = 0; i < kFinishReasons; ++i) {
    text += fmt::format("paddock_request_success_total{{finished_reason=\"{}\"}} {}\n",
                        reason_name(i), s.requests_finished[i]);
  }
  single("prompt_tokens_total", "counter",
         "Tokens of prompts that have been read, cached included.", s.prompt_tokens);
  single("prompt_tokens_cached_total", "counter", "Of them, that were not computed.",
         s.cached_tokens);
  single("prompt_tokens_computed_total", "counter", "Tokens computed for prompts, each once.",
         s.computed_tokens);
  single("recomputed_tokens_total", "counter", "Tokens computed again for what had been parked.",
         s.recomputed_tokens);
  single("prefix_cache_queries_total", "counter", "Tokens looked for among kept blocks.",
         s.prefix_queries);
  single("prefix_cache_hits_total", "counter", "Of them, found.", s.prefix_hits);
  single("generation_tokens_total", "counter", "Tokens generated.", s.generated_tokens);
  single("num_preemptions_total", "counter", "Times that a request was parked.", s.preemptions);
  single("sessions_parked_total", "counter", "Times that an idle session was parked.",
         s.sessions_parked);
  single("pins", "gauge", "Pinned prefixes.", s.pins);
  single("pins_lost_total", "counter", "Pins that had to give way.", s.pins_lost);
  add_histogram(text, "request_queue_time_seconds", "From add() to being let in.", s.queue);
  add_histogram(text, "time_to_first_token_seconds", "From add() to the first token.",
                s.first_token);
  add_histogram(text, "inter_token_latency_seconds", "From each token to its next one.",
                s.token_gap);
  add_histogram(text, "e2e_request_latency_seconds", "From add() to the end.", s.request);
  return text;
}

}  // namespace paddock
