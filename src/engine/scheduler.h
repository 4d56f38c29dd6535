// Who waits, who runs, and what the next step brings.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/pins.h"
#include "engine/request.h"
#include "engine/setup.h"

namespace paddock {

/// The next tokens of one sequence, for which the cache has reserved pages.
struct BatchPart {
  Sequence* sequence = nullptr;
  Request* request = nullptr;  // whose next token is to be chosen; null: a host's feed()
  int32_t n_tokens = 0;        // of Sequence::uncomputed(), from the first on
  int32_t n_recomputed = 0;    // of them, that had been computed before
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

/// Requests wait in the order of their rank, and are let in when what all that run need for the
/// tokens known of them, and a block more each, can be had. When pages run short nevertheless, idle
/// sessions are parked, then requests from the last in that order on.
///
/// cancel() may be called from any thread; all else belongs to the thread that drives the engine.
class Scheduler {
 public:
  /// Goes by the setup and the sessions as they are at each call.
  /// `on_pressure`: the host's, as it can be called; may be empty.
  Scheduler(CacheManager& cache, const EngineSetup& setup, const Sessions& sessions, Pins& pins,
            int32_t vocab_size, std::function<KvRelief(const KvShortage&)> on_pressure);

  /// Memory for `n` requests more, so that add() cannot fail. Error kOutOfMemory where more would
  /// wait than EngineOptions::max_queued admits.
  void make_room(int32_t n);
  void add(std::unique_ptr<Request> request) noexcept;
  /// Marks one request, or all: they end with the next step, and a step under way stops.
  void cancel(std::optional<RequestId> id);
  /// Waiting and running ones, in order of rank.
  const std::vector<std::unique_ptr<Request>>& requests() const { return requests_; }
  /// Takes finished requests out, and gives them to fn(std::unique_ptr<Request>).
  template <typename Fn>
  void sweep(const Fn& fn) noexcept;

  /// Lets in who may come, and shares the step's tokens out: each that decodes gets its own,
  /// prompts take turns with what is left. Pages of every part are reserved. `memory` is an earlier
  /// batch, whose vectors are used again.
  ScheduledBatch next(ScheduledBatch memory);

  // ---- several answers to one prompt (answers.cpp): the one that runs first computes it, and the
  // others that run begin as it is then
  /// Whether another answer that wants to go on awaits what this one computes. Inside a step.
  bool is_needed(const Request& request) const;
  /// Its prompt is in the cache now: it is for those that await it, too.
  void share_prompt(const Request& request);
  /// It has ended: what it has of its prompt goes to the next one that would have to compute it.
  void hand_over(const Request& request) noexcept;

  /// Reserves pages for up to `n` tokens more of a sequence that the host feeds. Returns for how
  /// many; 0: the pool holds no more of it.
  int32_t reserve(Sequence& sequence, int32_t n) {
    keep_to_budget(&sequence);
    return reserve(sequence, n, nullptr);
  }
  /// Where sequences list more pages than there may be by now (Engine::set_kv_budget()), idle ones
  /// are parked, then requests from the last on; under elastic rules those keep what they are owed
  /// up to their decision lengths, where budgets fall. Between steps. `fed`: what the host feeds.
  void keep_to_budget(const Sequence* fed = nullptr);

  /// Of EngineOptions::max_sequences: sessions, and requests that run without one.
  int64_t places_in_use() const;
  int64_t step() const { return step_; }  // the last one
  int64_t preemptions() const { return preemptions_; }
  int64_t sessions_parked() const { return sessions_parked_; }

 private:
  /// The setup, as it is for the rules that the sequence goes by.
  const EngineSetup& setup_of(const Sequence& sequence) const {
    return setup_.of(sequence.rules());
  }
  // ---- who is let in (admission.cpp)
  void admit_waiting(ScheduledBatch& batch);
  /// Takes a request in that is given its place.
  void start(Request& request, ScheduledBatch& batch);
  /// Pages that the sequence needs, beside those it lists, for the tokens known of it and a block.
  int64_t pages_due(const Sequence& sequence) const;
  /// Pages that an answer needs which gets its prompt from another one: a block that is a copy of
  /// the prompt's last one, and the next.
  int64_t pages_beside(const Sequence& sequence) const;
  /// Of pages_due() of requests_[at], those it need not have for itself: blocks that a request
  /// before it has computed, or is going to compute, and that it will list.
  int64_t pages_followed(size_t at) const;
  /// Pages that the sequence lists, and nobody that runs, nor a pin. After pages_obtainable().
  int64_t pages_apart(const Sequence& sequence);
  /// Pages that can be had, or that only sequences list which do not run.
  int64_t pages_obtainable();

  // ---- what a step brings
  /// Lists what others have computed of what comes next of a prompt; its last token runs in any
  /// case, for its logits. What was there before it was parked is nothing new.
  void list_kept(Request& request);
  /// Sets Request::awaits and awaited of those that run.
  void find_readers();
  /// Sets shares_: how many tokens each that runs may bring.
  void share_tokens();
  /// Each prompt's share is a token at least: where that is more work than there is for all, those
  /// whose turn it is not get nothing in this step.
  void take_turns(double budget);
  /// Whether one that comes before running_[i] computes the very block that it needs next: then it
  /// waits for that, and lists it.
  bool follows(size_t i) const;
  /// What the tokens [first, first + n) of a prompt cost: each 1, and the positions that it sees,
  /// on average over the layers, over EngineSetup::positions_per_token.
  double work(const Sequence& sequence, int64_t first, int64_t n) const;
  /// Most of a chunk's tokens, from the first that is not computed on, that cost no more than
  /// `budget`; at least 1.
  int64_t affordable(const Sequence& sequence, double budget) const;
  void place(Request& request, int64_t n, ScheduledBatch& batch);

  // ---- when pages run short (giving_way.cpp)
  /// In place of a number of tokens: none now, and that is no reason to end.
  static constexpr int32_t kWaits = -1;
  int32_t reserve(Sequence& sequence, int32_t n, Request* request);
  /// Parks one sequence, or lets go of a pin, so that `request` (null: the host's own) may go on;
  /// false: there is none.
  bool make_way(const Request* request);
  /// Parks one that nobody runs; false: there is none.
  bool park_idle();
  /// Parks the last request that runs or, where `request` is alone, lets go of a pin.
  bool park_last(const Request* request);
  void park(Request& request);
  /// Whether no other one that runs has pages.
  bool is_alone(const Request* request) const;
  /// Lets go of a pin; false: that would bring no page.
  bool release_pin();
  /// Those that await the prompt of one that is parked wait with it.
  void suspend_awaiting(const Request& request);
  /// That its tables list.
  int64_t pages_of(const Sequence& sequence) const;

  // ---- elastic rules (pressure.cpp)
  struct Member;
  /// Finds pages for up to `n` tokens more, and up to the next decision length behind them; where
  /// they are short budgets fall, then sequences are parked. Returns for how many tokens; 0: it
  /// waits for others to come to their decision lengths.
  int32_t relieve(Sequence& sequence, int32_t n, Request* request);
  /// Whether the sequence's budget may fall at all. `request`: null for the host's own.
  bool may_fall(const Sequence& sequence, const Request* request) const;
  /// Lengths at which it asks for pages, up to the next one: where its budget may fall. One that
  /// has none asks by the block.
  int64_t interval_of(const Sequence& sequence) const;
  /// Does what was planned last, for `asking`; the result of the sequence's own request tells of
  /// it.
  void let_fall(Sequence& sequence, Request* request, const Request* asking);
  /// How many positions more it may have before some elastic layer would hold more than the
  /// context; kUnlimited where the context bounds its length.
  int64_t room_in_context(const Sequence& sequence) const;
  /// Its budget falls where the context leaves no room for an interval. True if there is some now.
  bool stay_in_context(Sequence& sequence, Request* request);
  /// Asks the host to help before budgets fall. True: wait.
  bool host_makes_room(const Sequence& sequence, const Request* request, int64_t needed);
  /// How far it will grow at most, as far as is known.
  int64_t last_length(const Sequence& sequence, const Request* request) const;
  /// Pages that it is still to take up to its next decision length.
  /// `waiting_too`: one that stands at a decision length and waits for pages counts up to the next.
  int64_t pages_owed(const Sequence& sequence, const Request* request, bool waiting_too) const;
  /// Pages that can be had, and are not owed to others; perhaps fewer, but not fewer than `enough`.
  int64_t pages_unclaimed(const Sequence& asking, bool waiting_too,
                          int64_t enough = kUnlimited) const;
  /// Most of `n` tokens for which there are pages, up to the next decision length behind them.
  int32_t affordable_tokens(const Sequence& sequence, int32_t n, const Request* request,
                            int64_t pages) const;
  /// Pages that it needs to come back as it was before it was parked.
  int64_t pages_it_had(const Sequence& sequence) const;
  std::vector<Member> members(Sequence& asking, Request* request) const;
  /// Its budget at a level.
  int64_t budget_at(const Member& member, double level) const;
  /// Pages that members have for themselves, or can have.
  int64_t pages_shared_out(const std::vector<Member>& all) const;
  /// The highest level at which the pages are enough; nothing if they are not at any.
  std::optional<double> find_level(const std::vector<Member>& all, int64_t pages) const;
  /// Lets budgets fall until `needed` pages are unclaimed, or none falls any more. True: those of
  /// others will, when they come to their decision lengths.
  bool lower_budgets(Sequence& asking, Request* request, int64_t needed);
  /// Whether there is a level with the newcomer among those that run.
  bool has_share(Request& newcomer) const;

  CacheManager& cache_;
  const EngineSetup& setup_;
  const Sessions& sessions_;
  Pins& pins_;
  std::function<KvRelief(const KvShortage&)> on_pressure_;
  int32_t vocab_size_;
  bool host_waits_ = false;  // in this step: it has said so, or wants a request to end
  int64_t step_ = 0, preemptions_ = 0, sessions_parked_ = 0;
  std::vector<std::unique_ptr<Request>> requests_;  // by rank
  std::vector<Request*> running_;                   // of the step at hand, by rank
  std::vector<int64_t> shares_;                     // [running_.size()] tokens
  std::vector<SequenceId> tables_;                  // of who runs, and pins: pages_obtainable()
  mutable std::mutex mutex_;                        // guards requests_ against cancel()
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
