// The engine's inside. Requests: requests.cpp, and what a host asks about them: request_books.cpp;
// a step and its tokens: step.cpp; sessions and raw passes: sessions.cpp; rules and budgets that
// change, and options(): settings.cpp; what a trace is told: tracing.cpp; how it is made:
// make_engine.cpp; what became of the numbers, and what is counted, stats(): engine_numbers.cpp.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "backend/devices.h"
#include "core/fail.h"
#include "engine/driving.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/setup.h"
#include "engine/stats_book.h"
#include "engine/status_board.h"
#include "engine/step_runner.h"
#include "kv/cache_manager.h"
#include "paddock/engine.h"
#include "paddock/error.h"
#include "trace/recorder.h"

namespace paddock {

struct Engine::Impl {
  Impl(std::shared_ptr<const Model> model, EngineSetup setup, std::unique_ptr<Backend> backend);
  ~Impl() { trace_memory(); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  /// Refuses a call that is not allowed now, then runs it; the engine outlives it even if a
  /// callback destroys the Engine.
  template <typename Fn>
  static decltype(auto) drive(std::shared_ptr<Impl> impl, const char* method, const Fn& fn) {
    const Driving::Run run(impl->driving, method);
    struct Noting {  // whoever was let in, or parked, meanwhile
      Impl& impl;
      ~Noting() { impl.note_requests(); }
    } noting{*impl};
    return at_the_edge([&]() -> decltype(auto) { return fn(*impl); });
  }
  template <typename Fn>
  static decltype(auto) touch(std::shared_ptr<Impl> impl, const char* method, const Fn& fn) {
    const Driving::Touch touch(impl->driving, method);
    return at_the_edge([&]() -> decltype(auto) { return fn(*impl); });
  }

  RequestId add(std::span<const TokenId> prompt, const GenerateOptions& options, Session* session);
  bool step();
  Session& session(SessionId id);
  SessionId open_session(const SessionOptions& options);
  SessionId fork_session(SessionId id);
  void close_session(SessionId id);
  Pin pin(std::span<const TokenId> tokens, const PinOptions& options);
  bool unpin(PinId id);
  int64_t session_length(SessionId id);
  using OnLogits = std::function<bool(int64_t position, std::span<const float> logits)>;
  std::span<const float> feed(SessionId id, std::span<const TokenId> tokens, int64_t prompt_tokens);
  void feed(SessionId id, std::span<const TokenId> tokens, const OnLogits& on_logits,
            int64_t prompt_tokens);
  void forward(std::span<const TokenId> tokens, const OnLogits& on_logits, int64_t prompt_tokens);
  void truncate(SessionId id, int64_t length);
  void protect(SessionId id, int64_t first, int64_t n);
  void unprotect(SessionId id, int64_t first, int64_t n);
  /// What would become of the setup with other rules. Error if they cannot hold `positions`.
  EngineSetup with_policy(const EngineOptions& asked, int64_t positions) const;
  void set_policies(EngineSetup next);
  /// Error if the pool cannot be so, or the rules not work in it.
  void check_budget(const EngineSetup& next, uint64_t bytes) const;
  /// `is_idle`: no step is under way.
  void set_budget(uint64_t bytes, bool is_idle);
  int64_t max_positions(const Session* session) const;
  KvStats stats() const;
  EngineOptions options() const;
  /// Runs one request to its end, which nobody else knows of, and with it all others that run.
  GenerateResult generate(std::span<const TokenId> prompt, const GenerateOptions& options,
                          Session* session);
  std::optional<GenerateResult> take(RequestId id);
  std::optional<RequestId> finished_after(RequestId id) const;
  /// Exact inside a callback; else as of the last step.
  RequestStatus status(RequestId id) const;
  void discard(RequestId id);
  /// The Engine is destroyed, perhaps inside a callback: whatever runs is to end.
  void abandon();
  /// The error that a row of logits stands for which is not all finite numbers; nothing if it is.
  std::optional<Error> judge(std::span<const float> logits, int64_t position);
  void cancel(std::optional<RequestId> id);

  std::shared_ptr<const Model> model;
  EngineSetup setup;
  std::unique_ptr<Backend> backend;
  std::shared_ptr<const LlamaWeights> weights;
  std::unique_ptr<TraceRecorder> trace;  // null: nothing is recorded. Outlives the cache
  std::unique_ptr<CacheManager> cache;   // outlives all sequences
  std::unique_ptr<StepRunner> step_runner;
  std::unique_ptr<Pins> pins;
  std::unique_ptr<Scheduler> scheduler;
  std::atomic<uint64_t> memory_bytes{0};
  StatsBook book;
  StatusBoard board;  // of all requests that are there, those in `finished` included

  std::map<RequestId, GenerateResult> finished;
  Sessions sessions;

  Driving driving;

 private:
  // ---- rules
  /// Error kInvalidArgument if the engine has none of this name. Empty: its own.
  RulesId rules_named(const std::string& spec) const;
  /// Likewise; of a session, its own, beside which no others are taken.
  RulesId rules_for(const Session* session, const std::string& spec) const;

  // ---- requests
  void check_tokens(std::span<const TokenId> tokens, const char* what) const;
  /// The requests of an add(), which are on the board; nothing has changed if there is no memory.
  std::vector<std::unique_ptr<Request>> make_answers(std::span<const TokenId> prompt,
                                                     const GenerateOptions& options,
                                                     Session* session, RulesId rules);
  /// Pages that a sequence needs to have `positions`: a new one, or that of a session.
  int64_t pages_for(const Session* session, RulesId rules, int64_t positions) const;
  /// Bytes that the pool could have if it were made anew; 0: unknown.
  uint64_t pool_limit() const;
  /// What would hold `positions`, or else `least`.
  std::vector<Proposal> proposals(RulesId rules, int64_t positions, int64_t least) const;
  /// Where protected positions are why the pool is full: so, and what helps; else nothing.
  std::string what_is_kept(const Sequence& sequence) const;
  /// As proposals(), for a sequence that the pool has no room for: where protected positions are
  /// why, no other rule and no smaller batch helps.
  std::vector<Proposal> proposals_for(const Sequence& sequence, int64_t positions,
                                      int64_t least) const;
  /// Error, with what works, if context or pool can never hold a prompt that ends at `total`.
  void check_prompt(const Session* session, RulesId rules, int64_t total, int32_t max_tokens) const;

  // ---- a step (step.cpp; how requests end: requests.cpp)
  /// Ends those that were cancelled, or are overdue.
  void end_stopped();
  /// Runs a batch of requests and takes the tokens that come of it.
  void run_batch();
  /// One pass, of which the trace is told (tracing.cpp).
  StepResult run_step(std::span<const BatchPart> parts, StopCheck& stop);
  /// Takes the next token of a request from what its step gave; where there is no memory for it
  /// the request ends.
  void accept(Request& request, const PartResult& step);
  void take_next(Request& request, const PartResult& step);
  /// Likewise, for the other answers to the prompt that `reader` has just computed for them.
  void accept_awaiting(Request& reader, const PartResult& step);
  /// The token that the host chooses; nothing, and the request has ended, where there is none.
  std::optional<TokenId> choose(Request& request, std::span<const float> logits);
  /// Lets the host's logits_processor change a copy of the logits, and returns that. If the host
  /// throws, or leaves what cannot be used: nothing, and the request has ended.
  std::optional<std::span<const float>> process(Request& request, std::span<const float> logits);
  /// Puts a chosen token into text and result and hands it to the host.
  void take_token(Request& request, TokenId id, std::span<const float> logits);
  /// Calls the host's callback; what it throws ends this request alone. False: stop.
  bool deliver(Request& request, const TokenEvent& event);
  /// Hands out what requests that have ended still held back of their texts.
  void deliver_rests();
  void finish(Request& request, FinishReason reason, std::string_view error = {}) noexcept;
  /// Moves results of finished requests to where take() finds them.
  void retire() noexcept;
  /// Forgets a request that failed with its step.
  void drop(RequestId id);

  // ---- callbacks
  /// Tells the host of what has left the cache. No lock is held, no step half done.
  void deliver_events();
  /// Hands over what the trace has recorded. As deliver_events().
  void deliver_trace();
  /// Tells the host that budgets are about to fall.
  KvRelief ask_for_room(const KvShortage& shortage);
  /// Logits to the host's callback; false: stop.
  bool hand_out(const OnLogits& on_logits, int64_t position, std::span<const float> logits);
  /// Error kCancelled if a callback has destroyed the Engine.
  void check_abandoned() const;

  /// Error kInvalidArgument if open sessions and running requests leave no sequence for one more.
  void check_place() const;

  // ---- raw passes
  /// Error, with what works, if the context does not admit so many tokens more.
  void check_context(const Sequence& sequence, size_t more) const;
  /// Runs what the sequence has uncomputed up to position `end`, in steps; after each,
  /// on_step(first position, n) may end it. `wants_logits`: after the last token.
  void feed_sequence(
      Sequence& sequence, int64_t end, bool wants_logits,
      const std::function<bool(int64_t first, const StepResult& step, int32_t n)>& on_step);
  /// Computes again what a parked sequence had.
  void restore(Sequence& sequence);
  /// Lists what others have computed of its first `end` tokens.
  void reuse_blocks(Sequence& sequence, int64_t end);
  /// Runs what the sequence has not had computed yet, handing out the logits after each token.
  void feed_rows(Sequence& sequence, const OnLogits& on_logits);
  /// Adds `tokens` to the session's text and calls feed_all, which runs what is uncomputed of it.
  /// If that returns or throws before all has run, those of `tokens` that have not run leave the
  /// text again; tokens that were pending before stay pending.
  void feed_session(Session& session, std::span<const TokenId> tokens,
                    const std::function<void()>& feed_all);

  // ---- making
  /// Makes the cache's books for a pool of setup.reserved_pages, and the planner that goes with
  /// them.
  std::unique_ptr<StepPlanner> make_books();
  void make_trace();
  /// What a trace says of it first.
  TraceHeader trace_header() const;
  void trace_rules();
  /// Of the process and its device, as KvStats has it.
  void trace_memory() noexcept;
  /// What the engine takes beside weights and pool.
  uint64_t other_bytes(const StepPlanner& planner) const;
  /// Fits the pool into KvOptions::budget_share; `weights` are yet to be taken.
  void fit_pool(uint64_t weights_bytes);

  // ---- numbers
  /// Counts who waits, runs and is parked, and shows it on the board.
  void note_requests() noexcept;
  /// How long it waited, once it has been let in.
  void note_queue(Request& request) noexcept;
  /// Its prompt has been read to the end.
  void note_prompt(const Request& request) noexcept;
  void note_token(Request& request);
  /// Warns once where keys or values have not fitted their type and no request has failed of it.
  void note_overflows();

  bool noted_overflows_ = false;
  std::atomic<bool> cancel_feed_{false};  // cancel() without an id, for feed() and forward()
  std::atomic<bool> abandoned_{false};
  RequestId own_request_ = 0;     // of the generate() under way; not to be taken by a callback
  bool delivers_events_ = false;  // on_event is being called
  std::atomic<int64_t> hook_failures_{0};      // times that on_event threw
  std::atomic<int64_t> pressure_failures_{0};  // and on_pressure,
  std::atomic<int64_t> trace_failures_{0};     // and the trace's sink
  std::string kv_type_;                        // its name
  RequestId next_request_ = 1;
  SessionId next_session_ = 1;
  ScheduledBatch batch_;                        // of the step at hand
  mutable std::mutex shown_mutex_;              // guards shown_ against set_policies()
  std::shared_ptr<const EngineOptions> shown_;  // what options() tells
};

/// What an Engine is made of, on the device that `maker` makes for the options. Errors are those of
/// the Engine's constructor.
std::shared_ptr<Engine::Impl> make_engine_impl(std::shared_ptr<const Model> model,
                                               const EngineOptions& options, BackendMaker maker);

}  // namespace paddock
