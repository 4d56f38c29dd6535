// Who waits, who runs, and what the next step brings.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/request.h"
#include "engine/setup.h"

namespace paddock {

/// The next tokens of one sequence, for which the cache has reserved pages.
struct BatchPart {
  Sequence* sequence = nullptr;
  Request* request = nullptr;  // whose next token is to be chosen; null: a host's feed()
  int32_t n_tokens = 0;        // of Sequence::uncomputed(), from the first on
  bool decodes = false;        // its token was chosen, not prompted
  bool wants_logits = false;   // its last token is the newest known: what follows is to be chosen
};

/// A request that ends in place of running.
struct Ending {
  Request* request;
  FinishReason reason;
  const char* error;  // with kError
};

/// One step, decided.
struct ScheduledBatch {
  std::vector<BatchPart> parts;
  std::vector<Ending> endings;
};

/// What sessions that nobody runs hold of the engine.
struct HeldBySessions {
  int32_t sequences = 0;      // of all open sessions, running ones included
  int64_t claimed_pages = 0;  // of those that are not running
};

/// cancel() may be called from any thread; all else belongs to the thread that drives the engine.
class Scheduler {
 public:
  /// Goes by the setup as it is at each call.
  Scheduler(CacheManager& cache, const EngineSetup& setup);

  /// Memory for one request more, so that add() cannot fail.
  void make_room();
  void add(std::unique_ptr<Request> request) noexcept;
  /// Marks one request, or all: they end with the next step, and a step under way stops.
  void cancel(std::optional<RequestId> id);
  /// Queued and running ones, oldest first.
  const std::vector<std::unique_ptr<Request>>& requests() const { return requests_; }
  /// Takes finished requests out, oldest first, and gives them to fn(std::unique_ptr<Request>).
  template <typename Fn>
  void sweep(const Fn& fn) noexcept;

  /// Admits who waits, and shares the step's tokens out: those that decode first, then prompts in
  /// the order of their coming. Pages of every part are reserved. `memory` is an earlier batch,
  /// whose vectors are used again.
  ScheduledBatch next(const HeldBySessions& held, ScheduledBatch memory);

 private:
  /// False: it has to wait, and so have those behind it.
  bool admit(Request& request, const HeldBySessions& held, ScheduledBatch& batch);
  /// Tokens taken of `room`.
  int32_t take_tokens(Request& request, int32_t room, ScheduledBatch& batch);

  CacheManager& cache_;
  const EngineSetup& setup_;
  std::vector<std::unique_ptr<Request>> requests_;
  mutable std::mutex mutex_;  // guards the list against cancel()
};

template <typename Fn>
void Scheduler::sweep(const Fn& fn) noexcept {
  for (auto& request : requests_) {
    if (!request->finished) continue;
    std::unique_ptr<Request> gone;
    {
      const std::lock_guard lock(mutex_);
      gone.swap(request);
    }
    fn(std::move(gone));  // the host's destructors run without the lock
  }
  const std::lock_guard lock(mutex_);
  std::erase(requests_, nullptr);
}

}  // namespace paddock
