// What a host asks about requests, and those that nobody wants any more.
#include <algorithm>

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

}  // namespace paddock
