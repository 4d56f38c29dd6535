// The engine's inside: admission, steps, and the loops over them.
#pragma once

#include <algorithm>
#include <atomic>
#include <limits>
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
#include "engine/step_planner.h"
#include "kv/cache_manager.h"
#include "model/llama.h"
#include "model/model_data.h"
#include "paddock/engine.h"
#include "paddock/error.h"

namespace paddock {

/// What the constructor decides before anything is reserved.
struct EngineSetup {
  EngineOptions options;  // resolved: threads, context, budget, KV type
  EngineOptions asked;    // likewise, but context, budget and share as they were given
  PolicyMap policies;
  int32_t chunk = 0;  // most tokens of one sequence in one step
  PageGeometry geometry{};
  DType kv_type{};
  int64_t n_pages = 0;
  uint64_t share_bytes = 0;  // what KvOptions::budget_share left for the pool
};

inline constexpr int64_t kMaxPages = std::numeric_limits<int32_t>::max();
struct Wanted;  // advice.h

/// Checks every option by itself, fills in the defaults and lays out what follows, which may be too
/// much or too little. Error kInvalidArgument.
EngineSetup outline(const Model& model, const EngineOptions& options);
/// Likewise, and it works. Errors: kInvalidArgument, kOutOfMemory.
EngineSetup resolve(const Model& model, const EngineOptions& options);
/// Sizes that follow from options and rules, unchecked: n_pages may be more than kMaxPages, or too
/// few.
EngineSetup lay_out(const LlamaConfig& config, const EngineOptions& options, PolicyMap policies);
/// The rules of `setup.asked`. Error kInvalidArgument, with a SPEC that works.
PolicyMap parse_policies(const LlamaConfig& config, const EngineSetup& setup, const Wanted& wanted);
/// Pages that one sequence of `positions` needs.
int64_t pages_needed(const EngineSetup& setup, int64_t positions);
/// Pages without which the rules cannot work at all.
int64_t least_pages(const EngineSetup& setup);
/// Error kOutOfMemory if the pool has fewer, with what works.
void check_pool(const LlamaConfig& config, const EngineSetup& setup, Wanted wanted);

/// Rows of logits computed at a time when every position's are wanted.
inline constexpr int32_t kLogitTile = 32;
/// Most tokens of one step.
inline int32_t most_tokens(const EngineOptions& o) {
  return std::max(o.batch_size, o.max_sequences);
}
/// Most rows of logits computed at a time.
inline int32_t most_logit_rows(const EngineOptions& o) {
  return std::max(o.max_sequences, std::min(kLogitTile, most_tokens(o)));
}
BackendLimits limits_for(const EngineSetup& setup, const detail::ModelData& model,
                         const StepPlanner& planner);

struct Engine::Impl final : StopCheck {
  Impl(std::shared_ptr<const Model> model, EngineSetup setup, std::unique_ptr<Backend> backend);
  /// Refuses a call that is not allowed now, then runs it; the engine outlives it even if a
  /// callback destroys the Engine.
  template <typename Fn>
  static decltype(auto) drive(std::shared_ptr<Impl> impl, const char* method, const Fn& fn) {
    const Driving::Run run(impl->driving, method);
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
  SessionId open_session();
  void close_session(SessionId id);
  int64_t session_length(SessionId id);
  using OnLogits = std::function<bool(int64_t position, std::span<const float> logits)>;
  std::span<const float> feed(SessionId id, std::span<const TokenId> tokens, int64_t prompt_tokens);
  void feed(SessionId id, std::span<const TokenId> tokens, const OnLogits& on_logits,
            int64_t prompt_tokens);
  void forward(std::span<const TokenId> tokens, const OnLogits& on_logits, int64_t prompt_tokens);
  void truncate(SessionId id, int64_t length);
  /// What would become of the setup with other rules. Error if they cannot hold `positions`.
  EngineSetup with_policy(const EngineOptions& asked, int64_t positions) const;
  void set_policies(EngineSetup next);
  int64_t max_positions(const Session* session) const;
  KvStats stats() const;
  EngineOptions options() const;
  /// Runs one request of this call's own to its end.
  GenerateResult generate(std::span<const TokenId> prompt, const GenerateOptions& options,
                          Session* session);
  std::optional<GenerateResult> take(RequestId id);
  /// The Engine is destroyed, perhaps inside a callback: whatever runs is to end.
  void abandon();
  /// What it means, for everyone, that a row of logits is not all finite numbers; nothing if it is.
  std::optional<Error> judge(std::span<const float> logits, int64_t position);
  void cancel(std::optional<RequestId> id);
  bool should_stop() override;

  std::shared_ptr<const Model> model;
  EngineSetup setup;
  std::unique_ptr<Backend> backend;
  std::shared_ptr<const LlamaWeights> weights;
  std::unique_ptr<CacheManager> cache;
  std::unique_ptr<Llama> llama;
  std::unique_ptr<StepPlanner> planner;
  std::atomic<uint64_t> memory_bytes{0};

  std::vector<std::unique_ptr<Request>> requests;  // queued and running, oldest first
  std::map<RequestId, GenerateResult> finished;
  std::map<SessionId, std::unique_ptr<Session>> sessions;

  Driving driving;

 private:
  /// Tells the host of what has left the cache. No lock is held, no step half done.
  void deliver_events();
  /// Hands out what requests that have ended still held back of their texts.
  void deliver_rests();
  /// Logits to the host's callback; false: stop.
  bool hand_out(const OnLogits& on_logits, int64_t position, std::span<const float> logits);
  /// Forgets a request that failed with its step.
  void drop(RequestId id);
  /// Whether the last step can go no further; where the Engine is gone, Error kCancelled.
  void check_abandoned() const;
  /// Makes the cache's books and the planner for a pool of setup.n_pages.
  void make_books();
  /// What the engine takes beside weights and pool.
  uint64_t other_bytes() const;
  /// Fits the pool into KvOptions::budget_share; `weights` are yet to be taken.
  void fit_pool(uint64_t weights_bytes);
  void check_tokens(std::span<const TokenId> tokens, const char* what) const;
  /// Pages that a sequence needs to have `positions`: a new one, or that of a session.
  int64_t pages_for(const Session* session, int64_t positions) const;
  /// Bytes that a pool could have in place of this one; 0: unknown.
  uint64_t pool_limit() const;
  /// What would hold `positions`, or else `least`.
  std::vector<Proposal> proposals(int64_t positions, int64_t least) const;
  bool try_admit(Request& request);
  void plan_step();
  int32_t plan_tokens(Request& request, int32_t most);
  void run_plan();
  bool forward_plan();
  /// Warns once where keys or values have not fitted their type and nobody has said so.
  void note_overflows();
  /// Chooses tokens for the logits at hand where the device can, or brings the logits to the host.
  void choose();
  /// Takes the token of row `row` of the logits.
  void accept(Request& request, int32_t row);
  /// Calls the host's callback; what it throws ends this request alone. False: stop.
  bool deliver(Request& request, const TokenEvent& event);
  void finish(Request& request, FinishReason reason, std::string error = {}) noexcept;
  bool overdue(const Request& request) const;
  void retire() noexcept;
  /// Feeds tokens to a sequence in chunks; after each, on_chunk(first position, n) may end it.
  void feed_sequence(SequenceId sequence, std::span<const TokenId> tokens,
                     const std::function<bool(int64_t first, int32_t n)>& on_chunk);
  /// Likewise, handing out the logits after each token.
  void feed_rows(SequenceId sequence, std::span<const TokenId> tokens, const OnLogits& on_logits);
  /// Calls feed_all with what is pending in the session and `tokens` after it; when it returns or
  /// throws, what it has not fed of the pending ones stays pending, and of `tokens` leaves again.
  void feed_session(Session& session, std::span<const TokenId> tokens,
                    const std::function<void(std::span<const TokenId>)>& feed_all);

  bool noted_overflows_ = false;
  std::atomic<bool> cancel_feed_{false};  // cancel() without an id, for feed() and forward()
  std::atomic<bool> abandoned_{false};
  RequestId own_request_ = 0;  // of the generate() under way; not to be taken by a callback
  std::atomic<int64_t> hook_failures_{0};  // times that on_event threw
  std::string kv_type_;                    // its name
  RequestId next_request_ = 1;
  SessionId next_session_ = 1;
  std::vector<Request*> stepping_;
  std::vector<int32_t> logit_rows_;
  std::vector<SampleRow> sample_rows_;
  std::vector<TokenId> chosen_;        // by the device, per row of logits: -1 where the host has to
  mutable std::mutex requests_mutex_;  // guards the list of requests against cancel()
  mutable std::mutex shown_mutex_;     // guards shown_ against set_policies()
  std::shared_ptr<const EngineOptions> shown_;  // what options() tells
};

/// What an Engine is made of, on the device that `maker` makes for the options. Errors are those of
/// the Engine's constructor.
std::shared_ptr<Engine::Impl> make_engine_impl(std::shared_ptr<const Model> model,
                                               const EngineOptions& options, BackendMaker maker);

}  // namespace paddock
