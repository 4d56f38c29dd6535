// Several answers to one prompt: one computes it, the others begin as it is then.
#include <algorithm>
#include <new>

#include "engine/scheduler.h"

namespace paddock {
namespace {

/// Begins as the other one is, which may have lost something already.
void begin_as(const Request& other, Request& request) noexcept {
  request.sequence.fork(other.sequence);
  try {
    request.result.budget_changes = other.result.budget_changes;
  } catch (const std::bad_alloc&) {  // it goes on without the list
  }
}

}  // namespace

bool Scheduler::is_needed(const Request& request) const {
  return request.awaited && std::any_of(live_.begin(), live_.end(), [&](const Request* other) {
           return other->awaits == &request && !other->wants_to_stop();
         });
}

void Scheduler::find_readers() {
  for (size_t begin = 0, end = 0; begin < running_.size(); begin = end) {
    Request* reader = nullptr;  // who has most of the prompt
    for (; end < running_.size() && running_[end]->first_answer == running_[begin]->first_answer;
         ++end) {
      Request* const request = running_[end];
      if (!request->reads_prompt()) continue;
      const int64_t most = reader == nullptr ? -1 : reader->sequence.computed();
      if (request->sequence.computed() > most) reader = request;
    }
    for (size_t i = begin; i < end; ++i) {
      if (running_[i] == reader || !running_[i]->is_new()) continue;
      running_[i]->awaits = reader;
      reader->awaited = true;
    }
  }
}

void Scheduler::share_prompt(const Request& request) {
  for (Request* other : live_) {
    if (other->awaits != &request) continue;
    begin_as(request, *other);
    other->result.cached_tokens = other->result.prompt_tokens;
  }
}

void Scheduler::hand_over(const Request& request) noexcept {
  ++n_ended_;
  const bool is_part = request.options.n > 1 && request.sequence.is_open() &&
                       request.reads_prompt() && request.sequence.computed() > 0;
  if (!is_part) return;
  for (Request* other : live_) {
    if (other->first_answer != request.first_answer) continue;
    if (other->finished || !other->is_new()) continue;
    begin_as(request, *other);
    other->result.cached_tokens = other->sequence.computed();
    return;
  }
}

void Scheduler::suspend_awaiting(const Request& request) {
  if (request.options.n == 1 || !request.reads_prompt()) return;
  for (size_t i = live_.size(); i-- > 0;) {
    Request& other = *live_[i];
    if (other.first_answer != request.first_answer || &other == &request) continue;
    if (other.finished || !other.is_new()) continue;
    other.sequence.park();
    let_out(other);
  }
}

int64_t Scheduler::pages_beside(const Sequence& sequence) const {
  const EngineSetup& setup = setup_of(sequence);
  return pages_needed(
      setup, std::min<int64_t>(setup.options.context, 2 * int64_t{setup.options.kv.block_size}));
}

}  // namespace paddock
