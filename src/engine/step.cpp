// One step of requests: what is decided runs, and the tokens that come of it are taken.
#include <algorithm>
#include <cmath>
#include <utility>

#include "core/fail.h"
#include "engine/engine_impl.h"

namespace paddock {
namespace {

/// The n most likely tokens, best first.
std::vector<TokenLogprob> top_logprobs(const LogSoftmax& normalizer, std::span<const float> logits,
                                       int32_t n) {
  std::vector<TokenLogprob> top(n);
  for (size_t i = 0; i < logits.size() && n > 0; ++i) {
    // Insertion into a short sorted list: larger first, lower id first among equals.
    const double value = normalizer.logprob(logits[i]);
    if (static_cast<int32_t>(i) >= n && value <= top.back().logprob) continue;
    int32_t at = std::min(static_cast<int32_t>(i), n - 1);
    for (; at > 0 && value > top[at - 1].logprob; --at) top[at] = top[at - 1];
    top[at] = {static_cast<TokenId>(i), value};
  }
  return top;
}

/// Stops a step once all of its requests want to end: where one wants to go on, what the step has
/// computed for it is not thrown away, and the others end when it is done.
class AllWantToStop final : public StopCheck {
 public:
  AllWantToStop(std::span<const BatchPart> parts, const Scheduler& scheduler)
      : parts_(parts), scheduler_(scheduler) {}
  bool should_stop() override {
    return std::all_of(parts_.begin(), parts_.end(), [this](const BatchPart& part) {
      return part.request->wants_to_stop() && !scheduler_.is_needed(*part.request);
    });
  }

 private:
  std::span<const BatchPart> parts_;
  const Scheduler& scheduler_;
};

}  // namespace

bool Engine::Impl::step() {
  if (scheduler->n_requests() == 0) {
    scheduler->keep_to_budget();
    return false;
  }
  if (scheduler->may_have_to_end()) end_stopped();
  if (scheduler->has_ended()) {  // what they held is free for the others now
    deliver_rests();
    retire();
  }
  try {
    batch_ = scheduler->next(std::move(batch_));
  } catch (...) {  // a device that failed to copy a page
    cache->rollback_all();
    throw;
  }
  for (const Ending& ending : batch_.endings) {
    finish(*ending.request, ending.reason, ending.error);
  }
  if (!batch_.parts.empty()) run_batch();
  deliver_rests();
  retire();
  pins->expire(scheduler->step());
  note_requests();
  cache->check_step();
  deliver_events();
  deliver_trace();
  return true;
}

void Engine::Impl::end_stopped() {
  for (const auto& request : scheduler->requests()) {
    if (!request->wants_to_stop()) continue;
    finish(*request, request->is_cancelled() ? FinishReason::kCancelled : FinishReason::kDeadline);
  }
}

void Engine::Impl::run_batch() {
  AllWantToStop stop(batch_.parts, *scheduler);
  const StepResult step = run_step(batch_.parts, stop);
  if (!step.completed) return;  // all have asked to stop, and are ended by the next step
  deliver_events();
  for (size_t i = 0; i < batch_.parts.size(); ++i) {
    const BatchPart& part = batch_.parts[i];
    Timings& timings = part.request->result.timings;
    note_queue(*part.request);
    part.request->result.recomputed_tokens += part.n_recomputed;
    // What is new of the part is prompt up to its end; one that comes back may bring both.
    const int64_t n_new = part.n_tokens - part.n_recomputed;
    const int64_t first_new = part.sequence->computed() - n_new;
    const int64_t n_prompt = std::clamp<int64_t>(part.request->prompt_end - first_new, 0, n_new);
    book.update([&](EngineStats& s) {
      s.recomputed_tokens += part.n_recomputed;
      s.computed_tokens += n_prompt;
    });
    if (n_prompt > 0 && !part.request->reads_prompt()) note_prompt(*part.request);
    (part.decodes ? timings.decode_seconds : timings.prefill_seconds) += step.seconds;
    timings.prefill_tokens += n_prompt + part.n_recomputed;
    timings.decode_tokens += n_new - n_prompt;
    if (!part.wants_logits) continue;
    if (part.request->awaited) scheduler->share_prompt(*part.request);
    accept(*part.request, step.parts[i]);
    if (part.request->awaited) accept_awaiting(*part.request, step.parts[i]);
  }
  note_overflows();
}

void Engine::Impl::accept_awaiting(Request& reader, const PartResult& step) {
  for (Request* request : scheduler->live()) {
    if (request->awaits != &reader) continue;
    note_queue(*request);
    note_prompt(*request);
    accept(*request, step);
  }
}

void Engine::Impl::accept(Request& request, const PartResult& step) {
  try {
    take_next(request, step);
  } catch (const std::bad_alloc&) {  // its own trouble
    finish(request, FinishReason::kError, no_memory());
  }
}

void Engine::Impl::take_next(Request& request, const PartResult& step) {
  if (request.options.max_tokens == 0) return finish(request, FinishReason::kLength);
  std::optional<TokenId> id = step.token;
  if (step.token < 0) id = choose(request, step.logits);
  if (!id) return;
  request.make_room();
  const std::vector<TokenId>& stops = model->stop_tokens();
  if (!request.options.ignore_stop_tokens && std::binary_search(stops.begin(), stops.end(), *id)) {
    request.sampler->observe(*id);
    request.sequence.tokens.push_back(*id);
    request.result.stop_token = *id;
    return finish(request, FinishReason::kStop);
  }
  take_token(request, *id, step.logits);
}

std::optional<TokenId> Engine::Impl::choose(Request& request, std::span<const float> logits) {
  if (const auto trouble = judge(logits, request.sequence.length() - 1)) {
    finish(request, FinishReason::kError, trouble->what());
    return std::nullopt;
  }
  if (request.options.logits_processor) {
    const auto processed = process(request, logits);
    if (!processed) return std::nullopt;
    logits = *processed;
  }
  const TokenId id = request.sampler->choose(logits);
  if (id >= 0) return id;
  finish(request, FinishReason::kError,
         request.sampler->why_none(request.options.logits_processor != nullptr));
  return std::nullopt;
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

void Engine::Impl::take_token(Request& request, TokenId id, std::span<const float> logits) {
  GenerateResult& result = request.result;
  TokenEvent event{id, {}, 0, {}, result.answer};
  std::vector<TokenLogprob> top;
  if (request.options.logprobs) {
    const LogSoftmax normalizer(logits);
    top = top_logprobs(normalizer, logits, *request.options.logprobs);
    event.logprob = normalizer.logprob(logits[id]);
  }
  request.text.push(id);
  // From here on nothing fails: the token is in the answer and in the sequence, or in neither.
  request.sampler->observe(id);
  request.sequence.tokens.push_back(id);
  result.tokens.push_back(id);
  note_token(request);
  if (request.options.logprobs) {
    result.logprobs.push_back({id, event.logprob});
    event.top = result.top_logprobs.emplace_back(std::move(top));
  }
  std::optional<FinishReason> reason;
  if (request.text.stopped()) {
    reason = FinishReason::kStop;
  } else if (static_cast<int64_t>(result.tokens.size()) >= request.options.max_tokens) {
    reason = FinishReason::kLength;
  } else if (request.sequence.length() >= setup.of(request.sequence.rules()).longest) {
    reason = FinishReason::kContext;
  }
  if (reason) request.text.finish();
  event.text = request.text.take();
  if (!deliver(request, event) && !reason) reason = FinishReason::kCancelled;
  if (reason) finish(request, *reason);
}

bool Engine::Impl::deliver(Request& request, const TokenEvent& event) {
  if (!request.options.on_token) return true;
  const Driving::CallOut out(driving);
  const auto broken = [&](std::string why) {
    finish(request, FinishReason::kError);
    request.undelivered = 0;
    request.result.finish_reason = FinishReason::kError;
    request.result.error = std::move(why);
  };
  try {
    return request.options.on_token(event);
  } catch (const std::exception& e) {
    broken(fmt::format("on_token threw: {}", e.what()));
  } catch (...) {
    broken("on_token threw something that is no std::exception");
  }
  return false;
}

}  // namespace paddock
