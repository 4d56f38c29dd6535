// A thread that drives an engine, and the handles by which others follow their requests. Nothing
// here reaches into the engine: it is a host of it like any other.
#include "paddock/runner.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "core/fail.h"

namespace paddock {

// ---- a request, between its host and the driving thread
// ------------------------------------------------------------------------------------

struct RequestHandle::State {
  State(std::optional<SessionId> of, std::vector<TokenId> text, GenerateOptions how,
        EngineRunner::OnDone then)
      : session(of), prompt(std::move(text)), options(std::move(how)), on_done(std::move(then)) {}

  // The host's, until the driving thread has them.
  std::optional<SessionId> session;  // that it continues
  std::vector<TokenId> prompt;
  GenerateOptions options;
  EngineRunner::OnDone on_done;

  std::thread::id driver;
  std::weak_ptr<Engine> engine;

  std::mutex mutex;  // guards what follows; no callback is called under it
  std::condition_variable changed;
  std::optional<RequestId> id;  // once the engine has it
  std::deque<StreamedToken> tokens;
  GenerateResult result;
  std::optional<Error> error;  // in place of the result
  bool cancelled = false;
  bool done = false;

  void push(const TokenEvent& event);
  void end(std::optional<GenerateResult> with, const std::optional<Error>& why);
  /// Waits until `ready` or the request's end.
  template <typename Ready>
  void await(std::unique_lock<std::mutex>& lock, const char* method, const Ready& ready);
};

void RequestHandle::State::push(const TokenEvent& event) {
  StreamedToken token{
      event.id, std::string(event.text), event.logprob, {event.top.begin(), event.top.end()}};
  {
    const std::lock_guard lock(mutex);
    tokens.push_back(std::move(token));
  }
  changed.notify_all();  // one of them takes it, but wait() sleeps there, too
}

void RequestHandle::State::end(std::optional<GenerateResult> with,
                               const std::optional<Error>& why) {
  {
    const std::lock_guard lock(mutex);
    if (with) result = std::move(*with);
    error = why;
    done = true;
  }
  changed.notify_all();
}

template <typename Ready>
void RequestHandle::State::await(std::unique_lock<std::mutex>& lock, const char* method,
                                 const Ready& ready) {
  const auto arrived = [&] { return done || ready(); };
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

std::optional<StreamedToken> RequestHandle::next() const {
  State& s = state();
  std::unique_lock lock(s.mutex);
  s.await(lock, "next", [&] { return !s.tokens.empty(); });
  if (!s.tokens.empty()) {
    StreamedToken token = std::move(s.tokens.front());
    s.tokens.pop_front();
    return token;
  }
  if (s.error) throw Error(*s.error);
  return std::nullopt;
}

GenerateResult RequestHandle::wait() const {
  State& s = state();
  std::unique_lock lock(s.mutex);
  s.await(lock, "wait", [] { return false; });
  if (s.error) throw Error(*s.error);
  return at_the_edge([&] { return s.result; });
}

bool RequestHandle::done() const {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  return s.done;
}

void RequestHandle::cancel() const {
  State& s = state();
  std::shared_ptr<Engine> engine;
  std::optional<RequestId> id;
  {
    const std::lock_guard lock(s.mutex);
    s.cancelled = true;
    id = s.id;
    if (!s.done) engine = s.engine.lock();
  }
  if (id && engine != nullptr) engine->cancel(*id);
}

// ---- the driving thread
// ------------------------------------------------------------------------------------

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
  void collect();
  void settle(const std::shared_ptr<State>& request, std::optional<GenerateResult> result,
              const std::optional<Error>& error);
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
  std::vector<std::shared_ptr<State>> arrived_, running_;
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
  busy_ = engine->step();
  collect();
}

void EngineRunner::Impl::admit(const std::shared_ptr<State>& request) {
  try {
    if (running_.size() == running_.capacity()) running_.reserve(2 * running_.size() + 1);
    GenerateOptions options = std::move(request->options);
    options.on_token = [request, host = std::move(options.on_token)](const TokenEvent& event) {
      request->push(event);
      return !host || host(event);
    };
    const RequestId id = request->session ? engine->add(*request->session, request->prompt, options)
                                          : engine->add(request->prompt, options);
    running_.push_back(request);
    request->prompt = {};  // the engine has its own
    bool cancelled = false;
    {
      const std::lock_guard lock(request->mutex);
      request->id = id;
      cancelled = request->cancelled;
    }
    if (cancelled) engine->cancel(id);
  } catch (const Error& refusal) {
    settle(request, std::nullopt, refusal);
  } catch (...) {  // what the host's function threw when it was copied counts as no memory, too
    settle(request, std::nullopt, no_memory_);
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
  for (std::shared_ptr<State>& request : running_) {
    std::optional<GenerateResult> result = engine->take(*request->id);
    // Where the engine has nothing more to do, nothing more will come.
    if (!result && busy_) continue;
    const std::shared_ptr<State> gone = std::move(request);
    const bool is_there = result.has_value();
    settle(gone, std::move(result), is_there ? std::nullopt : std::optional<Error>(taken_));
  }
  std::erase(running_, nullptr);
}

void EngineRunner::Impl::settle(const std::shared_ptr<State>& request,
                                std::optional<GenerateResult> result,
                                const std::optional<Error>& error) {
  request->end(std::move(result), error);
  const OnDone on_done = std::move(request->on_done);
  if (!on_done) return;
  try {
    on_done(RequestHandle(request));
  } catch (...) {
    ++callback_failures;
  }
}

void EngineRunner::Impl::give_up(const Error& error) {
  {
    const std::lock_guard lock(mutex);
    failure = error;
    closing = Shutdown::kCancel;
    arrived_.swap(inbox);
    called_.swap(calls);
  }
  for (auto* list : {&running_, &arrived_}) {
    for (std::shared_ptr<State>& request : *list) {
      const std::shared_ptr<State> gone = std::move(request);
      if (gone != nullptr) settle(gone, std::nullopt, error);
    }
  }
  for (Call* call : called_) run(*call, error);
}

// ---- the runner
// ------------------------------------------------------------------------------------

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
