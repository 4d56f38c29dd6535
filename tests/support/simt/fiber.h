// Fibers: one stack per GPU thread, switched by hand on x86-64 and with ucontext elsewhere.
#pragma once

#include <cstddef>
#include <memory>

namespace paddock::simt {

struct FiberContext;

/// A function on a stack of its own. `start` sets it up, `resume` runs it until it suspends itself.
/// A fiber that is never resumed again leaves its locals undestroyed.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// `entry` must not return: it ends with a last suspend().
  void start(void (*entry)());
  void resume();
  /// Back to whoever resumed the running fiber.
  static void suspend();

 private:
  friend struct FiberContext;
  std::byte* memory_ = nullptr;  // guard page, then the stack
  size_t offset_ = 0;            // bytes left unused at the top
  std::unique_ptr<FiberContext> context_;
};

}  // namespace paddock::simt
