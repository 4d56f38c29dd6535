// Who waits, who runs, and what the next step brings.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
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
  /// Waiting and running ones, in order of rank. There may be very many that wait, so a step goes
  /// through all only where something has changed for them: looked_at() counts, for tests.
  const std::vector<std::unique_ptr<Request>>& requests() const {
    looked_at_ += static_cast<int64_t>(requests_.size());
    return requests_;
  }
  int64_t looked_at() const { return looked_at_; }
  size_t n_requests() const { return requests_.size(); }
  int32_t n_parked() const { return n_parked_; }
  /// Those that run, likewise in order; until the step is over those that have ended, too.
  const std::vector<Request*>& live() const { return live_; }
  /// Calls fn(request) for each that runs, or was parked since the last call: no other has become
  /// another one since.
  template <typename Fn>
  void for_each_changed(const Fn& fn) noexcept;
  /// Whether some request may have been cancelled, by whatever means, or be overdue by now.
  bool may_have_to_end();
  bool has_ended() const { return n_ended_ > 0; }
  /// Takes finished requests out, and gives them to fn(std::unique_ptr<Request>).
  template <typename Fn>
  void sweep(const Fn& fn) noexcept;

  /// Decides the next step: lets requests in, and shares the step's tokens out. Each request that
  /// decodes gets its one, prompts take turns with what is left. Pages of every part are reserved.
  /// `memory`: an earlier batch, whose vectors are used again.
  ScheduledBatch next(ScheduledBatch memory);

  // ---- several answers to one prompt (answers.cpp): the one that has most of it computes the
  // rest, and the others that run await it and begin with a copy
  /// Whether another answer, which still wants to go on, awaits the prompt that this one computes.
  /// Inside a step.
  bool is_needed(const Request& request) const;
  /// Its prompt is in the cache now: those that await it begin with it.
  void share_prompt(const Request& request);
  /// It has ended, and sweep() will take it out. Where its prompt is not computed yet, what there
  /// is of that goes to the next answer, which would have to compute it.
  void hand_over(const Request& request) noexcept;

  /// How far a sequence may begin with what the cache holds: no further than to the last length at
  /// which its budget may fall and up to which the pool holds all of it. Beyond, it might stand
  /// where no budget can fall, without pages to go on. `request`: null: the host's own.
  int64_t sure_length(const Sequence& sequence, const Request* request = nullptr) const;
  /// Parks an open sequence that stands there already, since the pool has become smaller: read
  /// again, its budget falls on its way.
  void park_if_stuck(Sequence& sequence, const Request* request = nullptr);

  /// Reserves pages for up to `n` tokens more of a sequence that the host feeds. Returns for how
  /// many; 0: the pool holds no more of it.
  int32_t reserve(Sequence& sequence, int32_t n) {
    keep_to_budget(&sequence);
    return reserve(sequence, n, nullptr);
  }
  /// Where sequences list more pages than Engine::set_kv_budget() allows by now: parks idle ones,
  /// and then requests from the last in rank on. Where some of those that run are elastic none of
  /// these is parked, and they are left the pages up to their next decision lengths: there their
  /// budgets fall. Between steps. `fed`: what the host feeds.
  void keep_to_budget(const Sequence* fed = nullptr);

  /// How many of EngineOptions::max_sequences are taken: by sessions, and by requests that run
  /// without one.
  int64_t places_in_use() const;
  int64_t step() const { return step_; }  // the last one
  int64_t prefix_queries() const { return prefix_queries_; }
  int64_t prefix_hits() const { return prefix_hits_; }
  int64_t preemptions() const { return preemptions_; }
  int64_t sessions_parked() const { return sessions_parked_; }

 private:
  static RequestId id_of(const Request* request) { return request == nullptr ? 0 : request->id; }
  /// The setup for the rules that the sequence goes by.
  const EngineSetup& setup_of(const Sequence& sequence) const {
    return setup_.of(sequence.rules());
  }
  void let_in(Request& request) noexcept;
  /// It runs no more, but will again.
  void let_out(Request& request) noexcept;
  /// It is taken out.
  void forget(const Request& request) noexcept;
  /// Requests of sessions that do not run: they need no place, and may have pages.
  int64_t waiting_in_sessions() const;

  // ---- who is let in (admission.cpp)
  void admit_waiting(ScheduledBatch& batch);
  /// What is taken and what is left while a step lets requests in.
  struct Admission;
  /// Whether anybody waits, and may take pages.
  bool may_admit() const;
  /// Pages that could be had, but for what those that run are going to take.
  int64_t pages_left();
  /// Lets requests_[at] in, if its turn has come and there is room for it. False: nobody behind it
  /// is to be looked at.
  bool try_admit(size_t at, Admission& now, ScheduledBatch& batch);
  /// Takes a request in that is given its place.
  void start(Request& request, ScheduledBatch& batch);
  /// Pages that the sequence needs, beside those it lists, for the tokens known of it and a block.
  int64_t pages_due(const Sequence& sequence) const;
  /// Pages in pages_due() of its sequence that it will not take from the pool: of blocks that it
  /// will list because a pin, or a request before it, has them or is going to compute them.
  int64_t pages_followed(const Request& request) const;
  /// Pages that the sequence lists, but no sequence that runs and no pin. pages_obtainable() has
  /// been called before, in the same step.
  int64_t pages_apart(const Sequence& sequence);
  /// Pages that could be had if all sequences that do not run were parked.
  int64_t pages_obtainable();

  // ---- what a step brings
  /// Makes a request that reads its prompt list blocks that others have computed. The prompt's last
  /// token runs in any case, for its logits. Blocks that it had itself before it was parked do not
  /// count as found.
  void reuse_blocks(Request& request);
  /// Finds out who computes the prompts of several answers: sets Request::awaits and awaited.
  void find_readers();
  /// Sets token_shares_: how many tokens each that runs may bring.
  void share_tokens();
  /// Each prompt's share is at least one token. Where that alone is more work than `budget`, only
  /// some prompts get theirs in this step, beginning with another one each time.
  void take_turns(double budget);
  /// Whether a request before running_[i] is computing the very block that this one needs next:
  /// then it brings nothing, and lists that block when it is there.
  bool follows(size_t i) const;
  /// What the tokens [first, first + n) of a prompt cost: each of them 1, for what does not depend
  /// on its place, and for attention the number of positions that it sees (the mean over the
  /// layers) divided by EngineSetup::positions_per_token.
  double work(const Sequence& sequence, int64_t first, int64_t n) const;
  /// Most of a chunk's tokens, from the first that is not computed on, that cost no more than
  /// `budget`; at least 1.
  int64_t affordable(const Sequence& sequence, double budget) const;
  void place(Request& request, int64_t n, ScheduledBatch& batch);

  // ---- when pages run short (giving_way.cpp)
  /// In place of a number of tokens: none in this step, but the request need not end for that.
  static constexpr int32_t kWaits = -1;
  int32_t reserve(Sequence& sequence, int32_t n, Request* request);
  /// Parks one sequence, or lets go of a pin, so that `request` (null: the host's own) may go on;
  /// false: there is none.
  bool make_way(const Request* request);
  /// Parks one that nobody runs; false: there is none.
  bool park_idle(const Request* asking);
  /// Parks the last request that runs or, where `request` is alone, lets go of a pin. `asking`,
  /// here and elsewhere: whose need it is; null: the host's.
  bool park_last(const Request* request, const Request* asking);
  void park(Request& request, const Request* asking);
  /// Whether no other one that runs has pages.
  bool is_alone(const Request* request) const;
  /// Lets go of a pin; false: that would bring no page.
  bool release_pin();
  /// That its tables list.
  int64_t pages_of(const Sequence& sequence) const;

  // ---- several answers to one prompt (answers.cpp)
  /// Those that await the prompt of one that is parked wait with it.
  void suspend_awaiting(const Request& request);
  /// Pages that an answer needs which begins with another one's prompt: for a copy of the prompt's
  /// last block, and for the block behind it.
  int64_t pages_beside(const Sequence& sequence) const;

  // ---- elastic rules (pressure.cpp)
  /// Finds pages for up to `n` tokens more, and from there to the next decision length. Where they
  /// are short budgets fall, then sequences are parked. Returns for how many tokens there are
  /// pages; 0: for none before others have come to their decision lengths; kWaits.
  int32_t relieve(Sequence& sequence, int32_t n, Request* request);
  /// Whether the sequence's budget may fall at all. `request`: null for the host's own.
  bool may_fall(const Sequence& sequence, const Request* request) const;
  /// The sequence asks for pages when its length is a multiple of this, for all up to the next
  /// multiple: there its budget may fall. One without elastic rules asks block by block.
  int64_t interval_of(const Sequence& sequence) const;
  /// How many positions more it may have before some elastic layer would hold more than the
  /// context; kUnlimited where the context bounds its length.
  int64_t room_in_context(const Sequence& sequence) const;
  /// Its budget falls where the context leaves no room for an interval. True if there is some now.
  bool stay_in_context(Sequence& sequence, Request* request);
  /// Asks the host to help before budgets fall. True: wait.
  bool host_makes_room(const Sequence& sequence, const Request* request, int64_t needed);
  /// The greatest length that it may come to have, by what is known: max_tokens, the context.
  int64_t last_length(const Sequence& sequence, const Request* request) const;
  /// Pages that the sequence is still going to take on its way to its next decision length. One
  /// that stands at such a length has none to come, unless `waiting_too` and it waits for pages:
  /// then those up to the following length.
  int64_t pages_owed(const Sequence& sequence, const Request* request, bool waiting_too) const;
  /// Blocks that so many positions more may take, one of which may be a copy.
  int64_t blocks_for(int64_t positions) const;
  /// Pages that can be had and are not owed to others. Where there are certainly `enough`, the sum
  /// is not worked out: then it may say fewer than there are, but no fewer than that.
  int64_t pages_unclaimed(const Sequence& asking, bool waiting_too,
                          int64_t enough = kUnlimited) const;
  /// Most of `n` tokens for which there are pages, up to the next decision length behind them.
  int32_t affordable_tokens(const Sequence& sequence, int32_t n, const Request* request,
                            int64_t pages) const;
  /// Pages that it needs to come back as it was before it was parked, and to go on to the next
  /// length at which it decides.
  int64_t pages_it_had(const Sequence& sequence) const;

  // ---- how far budgets fall, and whose (levels.cpp)
  struct Member;
  /// Those that share the pool, `asking` among them.
  std::vector<Member> members(Sequence& asking, Request* request) const;
  /// The member's budget at a level: level times weight, no more than now, no less than the floor.
  int64_t budget_at(const Member& member, double level) const;
  /// Pages that the members' elastic layers may have together: those they hold, and those that can
  /// be had, but for what layers of theirs without a bound will take.
  int64_t pages_shared_out(const std::vector<Member>& all) const;
  /// The highest level at which the pages are enough; nothing if they are not at any.
  std::optional<double> find_level(const std::vector<Member>& all, int64_t pages) const;
  /// Lets budgets fall until `needed` pages are unclaimed, or no budget may fall any more. True if
  /// more will come back later, when others come to their decision lengths.
  bool lower_budgets(Sequence& asking, Request* request, int64_t needed);
  /// Whether some level would give the newcomer and all that run what they need.
  bool has_share(Request& newcomer) const;
  /// The sequence's budget falls as CacheManager::plan_fall() said last. `request`: its own, whose
  /// result tells of it; `asking`: the one for whose need it falls.
  void let_fall(Sequence& sequence, Request* request, const Request* asking);

  CacheManager& cache_;
  const EngineSetup& setup_;
  const Sessions& sessions_;
  Pins& pins_;
  std::function<KvRelief(const KvShortage&)> on_pressure_;
  int32_t vocab_size_;
  /// Somebody got no pages in this step because KvOptions::on_pressure answered that he should
  /// wait, or because the host has cancelled him, so that he ends with it: that nothing runs is no
  /// reason to park anybody.
  bool host_waits_ = false;
  int64_t step_ = 0, preemptions_ = 0, sessions_parked_ = 0;
  int64_t prefix_queries_ = 0, prefix_hits_ = 0;  // tokens
  std::atomic<bool> stop_noted_{false};  // some request was cancelled since it was looked for
  std::optional<std::chrono::steady_clock::time_point> next_deadline_;  // no later than any
  std::vector<std::unique_ptr<Request>> requests_;                      // by rank
  std::vector<Request*> live_;     // of them, those that run, by rank
  std::vector<Request*> let_out_;  // that ran when for_each_changed() was last called
  int32_t n_parked_ = 0, n_ended_ = 0;
  mutable int64_t looked_at_ = 0;
  std::vector<Request*> running_;      // of the step at hand, by rank
  std::vector<int64_t> token_shares_;  // [running_.size()] tokens
  std::vector<SequenceId> tables_;     // of who runs, and pins: pages_obtainable()
  mutable std::mutex mutex_;           // guards requests_ against cancel()
};

template <typename Fn>
void Scheduler::for_each_changed(const Fn& fn) noexcept {
  for (Request* request : live_) fn(*request);
  for (Request* request : let_out_) fn(*request);
  let_out_.clear();
}

template <typename Fn>
void Scheduler::sweep(const Fn& fn) noexcept {
  if (std::exchange(n_ended_, 0) == 0) return;
  for (auto& request : requests_) {
    if (!request->finished) continue;
    std::unique_ptr<Request> gone;
    {
      const std::lock_guard lock(mutex_);
      gone.swap(request);
    }
    forget(*gone);
    fn(std::move(gone));  // the host's destructors run without the lock
  }
  const std::lock_guard lock(mutex_);
  std::erase(requests_, nullptr);
}

}  // namespace paddock
