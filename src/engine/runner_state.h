// What a host submitted to an EngineRunner, between the host and the driving thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "paddock/runner.h"

namespace paddock {

/// One prompt and its answers: GenerateOptions::n of them, or one that says why there are none.
struct RequestHandle::State {
  State(std::optional<SessionId> of, std::vector<TokenId> text, GenerateOptions how,
        EngineRunner::OnDone then);

  // The host's, until the driving thread has them.
  std::optional<SessionId> session;  // that it continues
  std::vector<TokenId> prompt;
  GenerateOptions options;
  EngineRunner::OnDone on_done;

  std::thread::id driver;
  std::weak_ptr<Engine> engine;

  struct Answer {
    std::deque<StreamedToken> tokens;
    GenerateResult result;
    std::optional<Error> error;  // in place of the result
    bool cancelled = false;
    bool done = false;

    /// Of one that is done.
    RequestStatus status() const;
    RequestStatus last;  // of the engine's, that somebody was told
  };
  std::mutex mutex;  // guards what follows; no callback is called under it
  std::condition_variable changed;
  std::optional<RequestId> id;  // of the first answer, once the engine has it
  std::vector<Answer> answers;
  size_t n_open = 0;  // of them, that have not ended

  void push(const TokenEvent& event);
  /// True if it was the last one.
  bool end(size_t answer, std::optional<GenerateResult> with, const std::optional<Error>& why);
  /// Waits until `ready` or the answer's end.
  template <typename Ready>
  void await(std::unique_lock<std::mutex>& lock, const Answer& answer, const char* method,
             const Ready& ready);
};

}  // namespace paddock
