// What is counted beside the books of the cache, and what became of the numbers: keys and values
// that did not fit their type, logits that are none.
#include <utility>

#include "core/log.h"
#include "core/system.h"
#include "engine/engine_impl.h"
#include "paddock/log.h"

namespace paddock {
namespace {

/// Where keys or values were lost first, and what holds them; empty if none were.
std::string overflow_text(const StepOps& ops, const EngineSetup& setup) {
  for (int32_t layer = 0; layer < setup.policies.size(); ++layer) {
    const int64_t n = ops.kv_overflows(layer);
    if (n == 0) continue;
    // f32 holds all that is finite, and what is neither is bf16.
    static_assert(sizeof(kKvElements) == 3 * sizeof(KvElement));
    const char* type = kv_type_name(setup.options.kv.type);
    const char* wider =
        kv_type_name(setup.pool.geometry.type == DType::kF16 ? KvType::kBF16 : KvType::kF32);
    return fmt::format(
        "layer {} has stored {} keys and values that {} cannot hold; make the engine with kv.type "
        "{} (--kv-type {})",
        layer, n, type, wider, wider);
  }
  return {};
}

}  // namespace

KvStats Engine::Impl::stats() const {
  KvStats stats = cache->stats();
  stats.type = kv_type_;
  stats.hook_failures = hook_failures_ + pressure_failures_ + trace_failures_ +
                        static_cast<int64_t>(log_hook_failures());
  for (KvLayerStats& layer : stats.layers) {
    layer.attention_seconds =
        static_cast<double>(backend->ops().attention_nanoseconds(layer.layer)) * 1e-9;
    stats.total.attention_seconds += layer.attention_seconds;
    layer.kv_overflows = backend->ops().kv_overflows(layer.layer);
    stats.total.kv_overflows += layer.kv_overflows;
  }
  stats.memory = {resident_memory(), available_memory()};
  stats.device = backend->memory();
  stats.device.reserved_bytes = memory_bytes;
  return stats;
}

std::optional<Error> Engine::Impl::judge(std::span<const float> logits, int64_t position) {
  const int64_t bad = first_non_finite(logits.data(), static_cast<int64_t>(logits.size()));
  if (bad < 0) return std::nullopt;
  const std::string what =
      fmt::format("the logit of token {} after position {} is {}", bad, position, logits[bad]);
  const std::string lost = overflow_text(backend->ops(), setup);
  if (!lost.empty()) {
    noted_overflows_ = true;
    return Error(ErrorCode::kUnsupported, what + ": " + lost);
  }
  return Error(ErrorCode::kBadFile,
               what + ": the model's weights are damaged, or too large for float32");
}

void Engine::Impl::note_requests() noexcept {
  scheduler->for_each_changed([this](Request& request) {
    const RequestStatus now = status_of(request);
    if (now == request.shown) return;
    request.shown = now;
    board.update(request.id, now);
  });
  const auto running = static_cast<int32_t>(scheduler->live().size());
  const int32_t parked = scheduler->n_parked();
  book.update([&](EngineStats& s) {
    s.requests_waiting = static_cast<int32_t>(scheduler->n_requests()) - running - parked;
    s.requests_running = running;
    s.requests_parked = parked;
    s.prefix_queries = scheduler->prefix_queries();
    s.prefix_hits = scheduler->prefix_hits();
    s.preemptions = scheduler->preemptions();
    s.sessions_parked = scheduler->sessions_parked();
    s.pins = pins->size();
    s.pins_lost = pins->lost();
  });
}

void Engine::Impl::note_queue(Request& request) noexcept {
  if (!request.sampler || std::exchange(request.queue_noted, true)) return;
  book.update([&](EngineStats& s) { s.queue.add(request.result.timings.queue_seconds); });
}

void Engine::Impl::note_prompt(const Request& request) noexcept {
  book.update([&](EngineStats& s) {
    s.prompt_tokens += request.result.prompt_tokens;
    s.cached_tokens += request.result.cached_tokens;
  });
}

void Engine::Impl::note_token(Request& request) {
  const auto now = std::chrono::steady_clock::now();
  Timings& timings = request.result.timings;
  const bool is_first = request.result.tokens.size() == 1;
  const std::chrono::duration<double> since =
      now - (is_first ? request.added_at : request.last_token_at);
  request.last_token_at = now;
  if (is_first) {
    timings.first_token_seconds = since.count();
  } else {
    timings.token_gaps.add(since.count());
  }
  book.update([&](EngineStats& s) {
    ++s.generated_tokens;
    (is_first ? s.first_token : s.token_gap).add(since.count());
  });
}

void Engine::Impl::note_overflows() {
  if (noted_overflows_) return;
  try {
    const std::string lost = overflow_text(backend->ops(), setup);
    if (lost.empty()) return;
    noted_overflows_ = true;
    log(LogLevel::kWarning, "{}", lost);
  } catch (const std::bad_alloc&) {  // the next step looks again
  }
}

}  // namespace paddock
