// A thread of its own that drives an engine, for hosts that ask from many threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "paddock/engine.h"
#include "paddock/error.h"
#include "paddock/export.h"

namespace paddock {

/// One token of RequestHandle::next(): a TokenEvent that may be kept.
struct StreamedToken {
  TokenId id = -1;
  std::string text;
  double logprob = 0;
  std::vector<TokenLogprob> top;
};

/// A request that was given to an EngineRunner, or one of several answers to it. Copies stand for
/// the same request. Letting go of all of them cancels nothing: it runs to its end, on_done is
/// called, and its result goes with the last of them, as by Engine::discard(). Whoever wants it to
/// end calls cancel() first. Every method may be called from any thread at any time, also when the
/// runner is gone: its requests have ended by then. A handle made without a request throws Error
/// kInvalidArgument from every method.
class PADDOCK_API RequestHandle {
 public:
  RequestHandle() = default;

  /// Another answer to the same prompt, where GenerateOptions::n asked for several; submit() gives
  /// the first one's handle, answer(0). Error kInvalidArgument if there is none of that number.
  RequestHandle answer(int32_t i) const;
  /// Which one this is.
  int32_t index() const { return static_cast<int32_t>(answer_); }

  /// The next token that nobody has taken yet, once there is one; nothing when the request has
  /// ended. Each token goes to one caller. Throws what wait() throws, once the tokens are taken.
  std::optional<StreamedToken> next() const;
  /// The result, once the request has ended; as often as it is asked for. Throws the Error that
  /// Engine::add() refused the request with, or that broke the runner. next() and wait() cannot
  /// wait on the thread that drives the engine (inside its callbacks): where they would have to,
  /// Error kInvalidArgument.
  GenerateResult wait() const;
  /// Whether next() and wait() return, or throw, at once from now on.
  bool done() const;
  /// How far it is: queued before the driving thread has given it to the engine, then as
  /// Engine::status() says, which is as of the last step. Never waits. kFinished also where it was
  /// refused; wait() then returns, or throws, at once or as soon as the driving thread hands the
  /// result over.
  RequestStatus status() const;
  /// As Engine::cancel(id), wherever the request is by now; of several answers it ends one.
  void cancel() const;

 private:
  friend class EngineRunner;
  struct State;
  explicit RequestHandle(std::shared_ptr<State> state, size_t answer = 0)
      : state_(std::move(state)), answer_(answer) {}
  State& state() const;
  std::shared_ptr<State> state_;
  size_t answer_ = 0;
};

/// Owns the thread that drives an engine. It sleeps while there is nothing to do. Every method but
/// the destructor may be called from any thread at any time, also inside callbacks (on_token,
/// on_event, on_done), except where it says otherwise. All callbacks run on the driving thread,
/// without a lock, and hold up every request while they run.
class PADDOCK_API EngineRunner {
 public:
  /// Called once for each request, and each of its answers, when it has ended, however it ended:
  /// handle.wait() returns or throws at once. Threads that wait may be ahead of it. What it throws
  /// is counted and changes nothing.
  using OnDone = std::function<void(const RequestHandle& handle)>;
  enum class Shutdown {
    kDrain,   ///< what was submitted runs to its end
    kCancel,  ///< what was submitted ends as cancelled, as soon as possible
  };

  /// Nobody else drives the engine until the runner is gone, but by call(): a request that meets
  /// such a driver is refused, a step that does is tried again. Error kInvalidArgument if there
  /// is no engine, kOutOfMemory if there is no thread.
  explicit EngineRunner(std::shared_ptr<Engine> engine);
  /// Cancels what has not ended, tells it so, and waits for the thread. Inside a callback it does
  /// not wait: the thread ends by itself once the callback has returned, with its engine if nobody
  /// else has that.
  ~EngineRunner();
  EngineRunner(const EngineRunner&) = delete;
  EngineRunner& operator=(const EngineRunner&) = delete;

  /// Queues a request; never waits for a step. What Engine::add() says against it is thrown by
  /// wait(), not here. Tokens that nobody takes by next() are kept until the last handle goes.
  /// Error kCancelled after shutdown(), or what broke the runner; then on_done is not called.
  RequestHandle submit(std::vector<TokenId> prompt, GenerateOptions options = {},
                       OnDone on_done = {});
  /// Likewise, continuing a session that call() has opened, as Engine::add(session, ...) does: one
  /// request at a time, a second one is refused.
  RequestHandle submit(SessionId session, std::vector<TokenId> tokens, GenerateOptions options = {},
                       OnDone on_done = {});

  /// Runs fn between two steps on the driving thread and returns when it has returned, throwing
  /// what it throws: for sessions, feed(), truncate(), another policy. On the driving thread itself
  /// it runs at once, and may do what docs/hosts.md allows inside that callback. Errors as
  /// submit().
  void call(const std::function<void(Engine& engine)>& fn);

  /// Refuses requests from now on and returns when all have ended and their on_done have returned.
  /// A second call may turn a drain into a cancellation. Error kInvalidArgument on the driving
  /// thread, which cannot wait for itself.
  void shutdown(Shutdown how);

  /// What Engine::step() threw, if it ever did, that no second try mends (a device that failed):
  /// the runner is broken then. Everything that had not ended has ended with this Error, and so
  /// does what comes. A step that finds no memory breaks nothing: it is tried again, for a second.
  /// Then wait() throws that Error for whatever had not ended, and the runner goes on.
  std::optional<Error> failure() const;
  /// Times that an on_done threw.
  int64_t callback_failures() const;
  /// For what any thread may ask of an engine at any time: statistics, events, the model.
  const Engine& engine() const;

 private:
  struct Impl;
  RequestHandle submit(std::shared_ptr<RequestHandle::State> request);
  std::shared_ptr<Impl> impl_;  // the thread holds it, too
  std::thread thread_;
};

}  // namespace paddock
