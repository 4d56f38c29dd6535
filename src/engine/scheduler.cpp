#include "engine/scheduler.h"

#include <algorithm>

namespace paddock {

Scheduler::Scheduler(CacheManager& cache, const EngineSetup& setup) : cache_(cache), setup_(setup) {
  requests_.reserve(static_cast<size_t>(setup.options.max_sequences) + 1);
}

void Scheduler::make_room() {
  const std::lock_guard lock(mutex_);
  if (requests_.size() == requests_.capacity()) requests_.reserve(2 * requests_.size() + 1);
}

void Scheduler::add(std::unique_ptr<Request> request) noexcept {
  const std::lock_guard lock(mutex_);
  requests_.push_back(std::move(request));
}

void Scheduler::cancel(std::optional<RequestId> id) {
  const std::lock_guard lock(mutex_);
  for (const auto& request : requests_) {
    if (request != nullptr && (!id || request->id == *id)) request->cancelled = true;
  }
}

ScheduledBatch Scheduler::next(const HeldBySessions& held, ScheduledBatch memory) {
  ScheduledBatch batch = std::move(memory);
  batch.parts.clear();
  batch.endings.clear();
  batch.parts.reserve(requests_.size());  // before anything is admitted or reserved
  batch.endings.reserve(requests_.size());
  for (const auto& request : requests_) {
    if (!request->admitted && !request->finished && !admit(*request, held, batch)) break;
  }
  int32_t room = max_step_tokens(setup_.options);
  for (const bool decoding : {true, false}) {
    for (const auto& request : requests_) {
      if (!request->admitted || request->finished || request->decoding() != decoding) continue;
      room -= take_tokens(*request, std::min(room, setup_.chunk), batch);
      if (room == 0) return batch;
    }
  }
  return batch;
}

bool Scheduler::admit(Request& request, const HeldBySessions& held, ScheduledBatch& batch) {
  // A request is let in when what all admitted ones may come to need fits the pool, so that none of
  // them can starve another. Alone it is always let in, and may end as "kv_full".
  int64_t claimed = request.claimed_pages + held.claimed_pages;
  int32_t live = held.sequences;
  bool others = false;
  for (const auto& other : requests_) {
    if (!other->admitted) continue;
    others = true;
    claimed += other->claimed_pages;
    if (other->session == nullptr) ++live;
  }
  if (others && claimed > setup_.n_pages) return false;
  if (request.session == nullptr) {
    if (live >= setup_.options.max_sequences) {
      if (others) return false;
      batch.endings.push_back(
          {&request, FinishReason::kError,
           "all sequences of the engine are held by open sessions; raise max_sequences"});
      return true;
    }
    request.sequence.open();
  }
  cache_.set_prompt(request.sequence.tables(), request.prompt_end);
  request.admitted = true;
  return true;
}

int32_t Scheduler::take_tokens(Request& request, int32_t room, ScheduledBatch& batch) {
  Sequence& sequence = request.sequence;
  const int64_t left = sequence.length() - sequence.computed();
  const auto n =
      static_cast<int32_t>(std::min({left, int64_t{room}, cache_.max_next(sequence.tables())}));
  if (!cache_.reserve(sequence.tables(), n)) {
    batch.endings.push_back({&request, FinishReason::kKvFull, ""});
    return 0;
  }
  batch.parts.push_back({&sequence, &request, n, request.decoding(), n == left});
  return n;
}

}  // namespace paddock
