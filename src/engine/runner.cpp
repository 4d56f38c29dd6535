// A thread that drives an engine. Nothing here reaches into the engine: it is a host of it like any
// other.
#include "paddock/runner.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "core/fail.h"
#include "engine/runner_state.h"

namespace paddock {
namespace {

using Clock = std::chrono::steady_clock;

/// How long a step that found no memory is tried again, and how long it rests in between.
constexpr std::chrono::milliseconds kPatience{1000};
constexpr std::chrono::milliseconds kRest{10};

/// Whether a step that throws this may succeed later: nothing was wrong with the engine.
bool may_pass(ErrorCode code) {
  return code == ErrorCode::kOutOfMemory || code == ErrorCode::kInvalidArgument;
}

}  // namespace

// ---- the driving thread

struct EngineRunner::Impl {
  using State = RequestHandle::State;
  /// A call() that another thread waits for.
  struct Call {
    const std::function<void(Engine&)>& fn;
    std::exception_ptr thrown{};
    std::optional<Error> refusal{};
    bool done = false;
  };

  explicit Impl(std::shared_ptr<Engine> e) : engine(std::move(e)) {}

  // ---- any thread
  bool is_driver() const { return std::this_thread::get_id() == driver; }
  /// Error if nothing more is taken. `mutex` is held.
  void check_open() const;
  /// Takes nothing more from now on; with kCancel what is there ends, too.
  void close(Shutdown how);

  // ---- the driving thread; exceptions leave only turn()
  void drive() noexcept;
  /// Sleeps until there is something to do. False: all is done, and nothing more can come.
  bool take_work();
  /// Gives what has come to the engine, lets it make a step, and hands out what has ended.
  void turn();
  void admit(const std::shared_ptr<State>& request);
  void run(Call& call, const std::optional<Error>& refusal);
  /// Asks for what has ended alone: the others cost nothing.
  void collect();
  /// The step could not be made. Waits a little; once that has gone on for too long, what the
  /// engine has ends with the error.
  void wait_or_end(const Error& error);
  void settle(std::shared_ptr<State> request, size_t answer, std::optional<GenerateResult> result,
              const std::optional<Error>& error);
  /// All answers of one that the engine never had.
  void refuse(const std::shared_ptr<State>& request, const Error& error);
  /// The engine is of no more use: all that is there ends with this.
  void give_up(const Error& error);

  const std::shared_ptr<Engine> engine;
  std::thread::id driver;
  std::atomic<int64_t> callback_failures{0};

  mutable std::mutex mutex;         // guards what follows; no callback is called under it
  std::condition_variable wake;     // of the driving thread
  std::condition_variable changed;  // a call is done, or the thread has ended
  std::vector<std::shared_ptr<State>> inbox;
  std::vector<Call*> calls;
  std::optional<Shutdown> closing;
  std::optional<Error> failure;
  bool ended = false;

 private:
  /// An answer that the engine is to make.
  struct Running {
    RequestId id;
    std::shared_ptr<State> request;  // null once it has ended
    size_t answer;
  };
  std::vector<std::shared_ptr<State>> arrived_;
  std::vector<Running> running_;  // by id
  std::optional<Clock::time_point> failing_since_;
  std::vector<Call*> called_;
  bool cancels_ = false;  // all is to end
  bool busy_ = false;     // the engine had something to do when it was last asked

  // Made beforehand: where they are needed there may be no memory for them.
  const Error no_memory_{ErrorCode::kOutOfMemory, kNoMemory};
  const Error taken_{ErrorCode::kInvalidArgument,
                     "somebody else took this request's result from the engine; let only the "
                     "runner take() what was submitted to it"};
  const Error stranger_{ErrorCode::kInternal, "a step threw something that is no paddock::Error"};
};

void EngineRunner::Impl::check_open() const {
  if (failure) throw Error(*failure);
  if (closing) fail(ErrorCode::kCancelled, "the runner was shut down; it takes nothing more");
}

void EngineRunner::Impl::close(Shutdown how) {
  {
    const std::lock_guard lock(mutex);
    if (closing != Shutdown::kCancel) closing = how;
  }
  wake.notify_all();
  if (how == Shutdown::kCancel) engine->cancel();
}

void EngineRunner::Impl::drive() noexcept {
  try {
    while (take_work()) turn();
  } catch (const Error& error) {
    give_up(error);
  } catch (const std::bad_alloc&) {
    give_up(no_memory_);
  } catch (...) {
    give_up(stranger_);
  }
  {
    const std::lock_guard lock(mutex);
    ended = true;
  }
  changed.notify_all();
}

bool EngineRunner::Impl::take_work() {
  std::unique_lock lock(mutex);
  wake.wait(lock, [&] { return busy_ || !inbox.empty() || !calls.empty() || closing; });
  arrived_.swap(inbox);
  called_.swap(calls);
  cancels_ = closing == Shutdown::kCancel;
  return busy_ || !arrived_.empty() || !called_.empty() || !closing;
}

void EngineRunner::Impl::turn() {
  for (const auto& request : arrived_) admit(request);
  arrived_.clear();
  for (Call* call : called_) run(*call, std::nullopt);
  called_.clear();
  if (cancels_) engine->cancel();
  try {
    busy_ = engine->step();
    collect();
    failing_since_.reset();
  } catch (const Error& error) {
    if (!may_pass(error.code())) throw;
    wait_or_end(error);
  }
}

void EngineRunner::Impl::wait_or_end(const Error& error) {
  const Clock::time_point now = Clock::now();
  if (!failing_since_) failing_since_ = now;
  busy_ = now - *failing_since_ < kPatience;
  if (busy_) return std::this_thread::sleep_for(kRest);
  failing_since_.reset();
  for (Running& running : running_) {
    if (running.request == nullptr) continue;  // it had ended before
    try {
      engine->discard(running.id);
    } catch (const Error&) {  // another thread drives it just now
      engine->cancel(running.id);
    }
  }
  for (Running& running : running_) {
    if (running.request == nullptr) continue;
    settle(std::move(running.request), running.answer, std::nullopt, error);
  }
  running_.clear();
  busy_ = true;  // the engine may have others of its own
}

void EngineRunner::Impl::admit(const std::shared_ptr<State>& request) {
  try {
    const size_t n = request->answers.size();
    const size_t size = running_.size() + n;
    if (size > running_.capacity()) running_.reserve(2 * size);
    GenerateOptions options = std::move(request->options);
    options.on_token = [request, host = std::move(options.on_token)](const TokenEvent& event) {
      request->push(event);
      return !host || host(event);
    };
    const RequestId id = request->session ? engine->add(*request->session, request->prompt, options)
                                          : engine->add(request->prompt, options);
    for (size_t i = 0; i < n; ++i) {
      running_.push_back({id + static_cast<RequestId>(i), request, i});
    }
    request->prompt = {};  // the engine has its own
    const std::lock_guard lock(request->mutex);
    request->id = id;
    for (size_t i = 0; i < n; ++i) {
      if (request->answers[i].cancelled) engine->cancel(id + static_cast<RequestId>(i));
    }
  } catch (const Error& refusal) {
    refuse(request, refusal);
  } catch (...) {  // what the host's function threw when it was copied counts as no memory, too
    refuse(request, no_memory_);
  }
}

void EngineRunner::Impl::run(Call& call, const std::optional<Error>& refusal) {
  if (!refusal) {
    try {
      call.fn(*engine);
    } catch (...) {
      call.thrown = std::current_exception();
    }
  }
  {
    const std::lock_guard lock(mutex);
    call.refusal = refusal;
    call.done = true;
  }
  changed.notify_all();
}

void EngineRunner::Impl::collect() {
  bool any = false;
  const auto take = [&](Running& running, const std::optional<Error>& otherwise) {
    std::optional<GenerateResult> result = engine->take(running.id);
    const bool is_there = result.has_value();
    if (!is_there && !otherwise) return;
    any = true;
    settle(std::move(running.request), running.answer, std::move(result),
           is_there ? std::nullopt : otherwise);
  };
  for (auto id = engine->finished_after(0); id; id = engine->finished_after(*id)) {
    const auto at = std::lower_bound(running_.begin(), running_.end(), *id,
                                     [](const Running& r, RequestId i) { return r.id < i; });
    if (at == running_.end() || at->id != *id || at->request == nullptr) continue;  // a host's own
    take(*at, std::nullopt);
  }
  if (!busy_) {  // where the engine has nothing more to do, nothing more will come
    for (Running& running : running_) {
      if (running.request != nullptr) take(running, taken_);
    }
  }
  if (any) std::erase_if(running_, [](const Running& r) { return r.request == nullptr; });
}

void EngineRunner::Impl::settle(std::shared_ptr<State> request, size_t answer,
                                std::optional<GenerateResult> result,
                                const std::optional<Error>& error) {
  const bool is_last = request->end(answer, std::move(result), error);
  if (!request->on_done) return;
  try {
    request->on_done(RequestHandle(request, answer));
  } catch (...) {
    ++callback_failures;
  }
  if (is_last) request->on_done = nullptr;  // with what it holds
}

void EngineRunner::Impl::refuse(const std::shared_ptr<State>& request, const Error& error) {
  for (size_t i = 0; i < request->answers.size(); ++i) settle(request, i, std::nullopt, error);
}

void EngineRunner::Impl::give_up(const Error& error) {
  {
    const std::lock_guard lock(mutex);
    failure = error;
    closing = Shutdown::kCancel;
    arrived_.swap(inbox);
    called_.swap(calls);
  }
  for (Running& running : running_) {
    if (running.request == nullptr) continue;
    settle(std::move(running.request), running.answer, std::nullopt, error);
  }
  running_.clear();
  for (const std::shared_ptr<State>& request : arrived_) refuse(request, error);
  arrived_.clear();
  for (Call* call : called_) run(*call, error);
}

// ---- the runner

EngineRunner::EngineRunner(std::shared_ptr<Engine> engine) {
  if (engine == nullptr) fail(ErrorCode::kInvalidArgument, "the runner was given no engine");
  at_the_edge([&] {
    impl_ = std::make_shared<Impl>(std::move(engine));
    // The thread begins with this mutex: it knows its own number by then.
    const std::lock_guard lock(impl_->mutex);
    try {
      thread_ = std::thread([impl = impl_] { impl->drive(); });
    } catch (const std::system_error& e) {
      fail(ErrorCode::kOutOfMemory, "there is no thread for the runner: {}", e.what());
    }
    impl_->driver = thread_.get_id();
  });
}

EngineRunner::~EngineRunner() {
  impl_->close(Shutdown::kCancel);
  if (impl_->is_driver()) {
    thread_.detach();  // it holds what it needs
  } else {
    thread_.join();
  }
}

RequestHandle EngineRunner::submit(std::vector<TokenId> prompt, GenerateOptions options,
                                   OnDone on_done) {
  return at_the_edge([&] {
    return submit(std::make_shared<RequestHandle::State>(std::nullopt, std::move(prompt),
                                                         std::move(options), std::move(on_done)));
  });
}

RequestHandle EngineRunner::submit(SessionId session, std::vector<TokenId> tokens,
                                   GenerateOptions options, OnDone on_done) {
  return at_the_edge([&] {
    return submit(std::make_shared<RequestHandle::State>(session, std::move(tokens),
                                                         std::move(options), std::move(on_done)));
  });
}

RequestHandle EngineRunner::submit(std::shared_ptr<RequestHandle::State> request) {
  request->driver = impl_->driver;
  request->engine = impl_->engine;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->check_open();
    impl_->inbox.push_back(request);
  }
  impl_->wake.notify_all();
  return RequestHandle(std::move(request));
}

void EngineRunner::call(const std::function<void(Engine& engine)>& fn) {
  if (!fn) fail(ErrorCode::kInvalidArgument, "fn is null; give a function");
  if (impl_->is_driver()) return fn(*impl_->engine);
  Impl::Call call{fn};
  std::unique_lock lock(impl_->mutex);
  impl_->check_open();
  at_the_edge([&] { impl_->calls.push_back(&call); });
  impl_->wake.notify_all();
  impl_->changed.wait(lock, [&] { return call.done; });
  lock.unlock();
  if (call.refusal) throw Error(*call.refusal);
  if (call.thrown) std::rethrow_exception(call.thrown);
}

void EngineRunner::shutdown(Shutdown how) {
  if (impl_->is_driver()) {
    fail(ErrorCode::kInvalidArgument,
         "shutdown() was called on the thread that drives the engine and cannot wait for itself; "
         "call it on another thread");
  }
  impl_->close(how);
  std::unique_lock lock(impl_->mutex);
  impl_->changed.wait(lock, [&] { return impl_->ended; });
}

std::optional<Error> EngineRunner::failure() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->failure;
}

int64_t EngineRunner::callback_failures() const { return impl_->callback_failures; }
const Engine& EngineRunner::engine() const { return *impl_->engine; }

}  // namespace paddock
