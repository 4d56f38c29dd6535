// Who may call an engine now. One thread drives it at a time; while it does, its callbacks may call
// some methods and not others, and other threads only those that are safe at any time. The table is
// in docs/hosts.md.
#pragma once

#include <atomic>
#include <thread>

#include "core/fail.h"

namespace paddock {

class Driving {
 public:
  /// kCalling: inside a callback between two pieces of work, where books may be touched.
  enum class State { kIdle, kWorking, kCalling };

  /// A method that runs the engine. Error kInvalidArgument, and no change, unless it is idle.
  class Run {
   public:
    Run(Driving& driving, const char* method) : driving_(driving) { driving_.enter(method); }
    ~Run() { driving_.state_ = State::kIdle; }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

   private:
    Driving& driving_;
  };

  /// A method that only changes what is queued or open: allowed inside those callbacks, too.
  class Touch {
   public:
    Touch(Driving& driving, const char* method) : driving_(driving) {
      nested_ = driving_.is_mine() && driving_.state_ == State::kCalling;
      if (nested_) {
        driving_.state_ = State::kWorking;
      } else {
        driving_.enter(method);
      }
    }
    ~Touch() { driving_.state_ = nested_ ? State::kCalling : State::kIdle; }
    Touch(const Touch&) = delete;
    Touch& operator=(const Touch&) = delete;

   private:
    Driving& driving_;
    bool nested_ = false;
  };

  /// Around a callback that may touch the books.
  class CallOut {
   public:
    explicit CallOut(Driving& driving) : driving_(driving) { driving_.state_ = State::kCalling; }
    ~CallOut() { driving_.state_ = State::kWorking; }
    CallOut(const CallOut&) = delete;
    CallOut& operator=(const CallOut&) = delete;

   private:
    Driving& driving_;
  };

  bool is_idle() const { return state_ == State::kIdle; }
  /// Inside a callback that may touch the books: they stand still.
  bool is_calling() const { return is_mine() && state_ == State::kCalling; }

 private:
  bool is_mine() const { return thread_.load() == std::this_thread::get_id(); }

  void enter(const char* method) {
    State idle = State::kIdle;
    if (!state_.compare_exchange_strong(idle, State::kWorking)) {
      fail(ErrorCode::kInvalidArgument,
           "{}() was called {} {}() is under way; call it when that has returned ({})", method,
           is_mine() ? "from inside a callback while" : "from a second thread while",
           method_.load(), "cancel(), status() and the statistics may be called at any time");
    }
    thread_ = std::this_thread::get_id();
    method_ = method;
  }

  std::atomic<State> state_{State::kIdle};
  std::atomic<std::thread::id> thread_{};
  std::atomic<const char*> method_{""};
};

}  // namespace paddock
