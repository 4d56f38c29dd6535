// What a host asks about requests and does to them beside running them.
#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "engine/engine_impl.h"

namespace paddock {

RequestStatus status_of(const Request& request) {
  const GenerateResult& result = request.result;
  const int64_t begin = request.prompt_end - result.prompt_tokens;
  const RequestState waits = result.preemptions > 0 ? RequestState::kParked : RequestState::kQueued;
  return {request.running ? RequestState::kRunning : waits, result.prompt_tokens,
          std::clamp<int64_t>(request.sequence.computed() - begin, 0, result.prompt_tokens),
          static_cast<int64_t>(result.tokens.size())};
}

RequestStatus status_of(const GenerateResult& result) {
  return {RequestState::kFinished, result.prompt_tokens,
          std::min(result.cached_tokens + result.timings.prefill_tokens - result.recomputed_tokens,
                   result.prompt_tokens),
          static_cast<int64_t>(result.tokens.size())};
}

RequestStatus Engine::Impl::status(RequestId id) const {
  if (!driving.is_calling()) return board.of(id);
  for (const auto& request : scheduler->requests()) {
    if (request != nullptr && request->id == id) return status_of(*request);
  }
  const auto at = finished.find(id);
  return at == finished.end() || id == own_request_ ? RequestStatus{} : status_of(at->second);
}

void Engine::Impl::discard(RequestId id) {
  cancel(id);
  if (id == own_request_) return;  // generate() waits for it
  for (const auto& request : scheduler->requests()) {
    if (request != nullptr && request->id == id) request->discarded = true;
  }
  if (finished.erase(id) > 0) board.erase(id);
}

std::optional<std::span<const float>> Engine::Impl::process(Request& request,
                                                            std::span<const float> logits) {
  const auto broken = [&](std::string why) {
    finish(request, FinishReason::kError, std::move(why));
    return std::nullopt;
  };
  request.processed.assign(logits.begin(), logits.end());
  try {
    const Driving::CallOut out(driving);
    request.options.logits_processor(request.sequence.tokens, request.processed);
  } catch (const std::exception& e) {
    return broken(fmt::format("logits_processor threw: {}", e.what()));
  } catch (...) {
    return broken("logits_processor threw something that is no std::exception");
  }
  for (size_t i = 0; i < request.processed.size(); ++i) {
    const float logit = request.processed[i];
    if (!std::isnan(logit) && logit < INFINITY) continue;
    return broken(fmt::format(
        "logits_processor left the logit of token {} at {} after position {}; it must be a number "
        "or -infinity",
        i, logit, request.sequence.length() - 1));
  }
  return request.processed;
}

}  // namespace paddock
