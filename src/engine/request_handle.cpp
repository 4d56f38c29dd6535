// Handles by which hosts follow what they submitted to an EngineRunner.
#include <algorithm>

#include "core/fail.h"
#include "engine/request.h"
#include "engine/runner_state.h"

namespace paddock {

RequestHandle::State::State(std::optional<SessionId> of, std::vector<TokenId> text,
                            GenerateOptions how, EngineRunner::OnDone then)
    : session(of),
      prompt(std::move(text)),
      options(std::move(how)),
      on_done(std::move(then)),
      answers(options.n > 1 && options.n <= kMaxAnswers ? static_cast<size_t>(options.n) : 1),
      n_open(answers.size()) {}

RequestStatus RequestHandle::State::Answer::status() const {
  return error ? RequestStatus{.state = RequestState::kFinished} : status_of(result);
}

void RequestHandle::State::push(const TokenEvent& event) {
  StreamedToken token{
      event.id, std::string(event.text), event.logprob, {event.top.begin(), event.top.end()}};
  {
    const std::lock_guard lock(mutex);
    answers[static_cast<size_t>(event.answer)].tokens.push_back(std::move(token));
  }
  changed.notify_all();  // one of them takes it, but wait() sleeps there, too
}

bool RequestHandle::State::end(size_t answer, std::optional<GenerateResult> with,
                               const std::optional<Error>& why) {
  bool is_last = false;
  {
    const std::lock_guard lock(mutex);
    Answer& a = answers[answer];
    if (with) a.result = std::move(*with);
    a.error = why;
    a.done = true;
    is_last = --n_open == 0;
  }
  changed.notify_all();
  return is_last;
}

template <typename Ready>
void RequestHandle::State::await(std::unique_lock<std::mutex>& lock, const Answer& answer,
                                 const char* method, const Ready& ready) {
  const auto arrived = [&] { return answer.done || ready(); };
  if (!arrived() && std::this_thread::get_id() == driver) {
    fail(ErrorCode::kInvalidArgument,
         "{}() would wait for the thread that it was called on, which drives the engine; call it "
         "on another thread, or from on_done",
         method);
  }
  changed.wait(lock, arrived);
}

RequestHandle::State& RequestHandle::state() const {
  if (state_ == nullptr) {
    fail(ErrorCode::kInvalidArgument, "this handle stands for no request; submit() gives one");
  }
  return *state_;
}

RequestHandle RequestHandle::answer(int32_t i) const {
  const auto n = static_cast<int32_t>(state().answers.size());
  if (i < 0 || i >= n) {
    fail(ErrorCode::kInvalidArgument, "answer {} was asked for; there are {}, from 0", i, n);
  }
  return RequestHandle(state_, static_cast<size_t>(i));
}

std::optional<StreamedToken> RequestHandle::next() const {
  State& s = state();
  std::unique_lock lock(s.mutex);
  State::Answer& answer = s.answers[answer_];
  s.await(lock, answer, "next", [&] { return !answer.tokens.empty(); });
  if (!answer.tokens.empty()) {
    StreamedToken token = std::move(answer.tokens.front());
    answer.tokens.pop_front();
    return token;
  }
  if (answer.error) throw Error(*answer.error);
  return std::nullopt;
}

GenerateResult RequestHandle::wait() const {
  State& s = state();
  std::unique_lock lock(s.mutex);
  const State::Answer& answer = s.answers[answer_];
  s.await(lock, answer, "wait", [] { return false; });
  if (answer.error) throw Error(*answer.error);
  return at_the_edge([&] { return answer.result; });
}

bool RequestHandle::done() const {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  return s.answers[answer_].done;
}

RequestStatus RequestHandle::status() const {
  State& s = state();
  std::shared_ptr<Engine> engine;
  std::optional<RequestId> id;
  {
    const std::lock_guard lock(s.mutex);
    const State::Answer& answer = s.answers[answer_];
    if (answer.done) return answer.status();
    id = s.id;
    engine = s.engine.lock();
  }
  if (!id || engine == nullptr) return {.state = RequestState::kQueued};
  RequestStatus status = engine->status(*id + static_cast<RequestId>(answer_));
  const std::lock_guard lock(s.mutex);
  State::Answer& answer = s.answers[answer_];
  if (answer.done) return answer.status();
  if (status.state == RequestState::kUnknown) {
    // Its result is on the way from the engine to here: no less than what was said before.
    status = answer.last;
    status.state = RequestState::kFinished;
  } else if (status.made_tokens >= answer.last.made_tokens) {  // another thread may know better
    answer.last = status;
  }
  return status;
}

void RequestHandle::cancel() const {
  State& s = state();
  std::shared_ptr<Engine> engine;
  std::optional<RequestId> id;
  {
    const std::lock_guard lock(s.mutex);
    State::Answer& answer = s.answers[answer_];
    answer.cancelled = true;
    id = s.id;
    if (!answer.done) engine = s.engine.lock();
  }
  if (id && engine != nullptr) engine->cancel(*id + static_cast<RequestId>(answer_));
}

}  // namespace paddock
