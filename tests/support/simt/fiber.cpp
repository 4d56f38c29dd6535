#include "fiber.h"

#include <sys/mman.h>

#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define PADDOCK_SIMT_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PADDOCK_SIMT_ASAN
#endif
#endif
#if defined(PADDOCK_SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__) && !defined(PADDOCK_SIMT_UCONTEXT)
#define PADDOCK_SIMT_UCONTEXT
#endif
#if defined(PADDOCK_SIMT_UCONTEXT)
#include <ucontext.h>
#endif

namespace paddock::simt {
namespace {

constexpr size_t kGuard = 4096;
#if defined(PADDOCK_SIMT_ASAN)
constexpr size_t kStack = 256 * 1024;
#else
constexpr size_t kStack = 64 * 1024;
#endif

}  // namespace

#if defined(PADDOCK_SIMT_UCONTEXT)
struct Stack {
  ucontext_t context{};
};
static void switch_stacks(Stack& from, Stack& to) { swapcontext(&from.context, &to.context); }
static void prepare(Stack& stack, std::byte* bottom, size_t size, void (*entry)()) {
  getcontext(&stack.context);
  stack.context.uc_stack.ss_sp = bottom;
  stack.context.uc_stack.ss_size = size;
  stack.context.uc_link = nullptr;
  makecontext(&stack.context, entry, 0);
}
#else
// Saves what a call must keep on the old stack, then takes the same from the new one.
extern "C" void paddock_simt_switch(void** from, void* to);
asm(R"(
.text
.type paddock_simt_switch, @function
paddock_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size paddock_simt_switch, .-paddock_simt_switch
)");
struct Stack {
  void* pointer = nullptr;
};
static void switch_stacks(Stack& from, Stack& to) {
  paddock_simt_switch(&from.pointer, to.pointer);
}
static void prepare(Stack& stack, std::byte* bottom, size_t size, void (*entry)()) {
  // Six registers, the address to return to, and one word so that `entry` finds the stack aligned
  // as after a call.
  auto** top = reinterpret_cast<void**>(bottom + size) - 8;
  for (int i = 0; i < 8; ++i) top[i] = nullptr;
  top[6] = reinterpret_cast<void*>(entry);
  stack.pointer = top;
}
#endif

struct FiberContext {
  Stack stack;
  void* fake_stack = nullptr;  // of the address sanitizer

  static Fiber* running;
  static void (*entry)();
  static Stack host;
  static void* host_fake_stack;
  static const void* host_bottom;
  static size_t host_size;

  static void leave_host(const Fiber& to) {
#if defined(PADDOCK_SIMT_ASAN)
    __sanitizer_start_switch_fiber(&host_fake_stack, to.memory_ + kGuard, kStack);
#else
    (void)to;
#endif
  }
  static void enter_host() {
#if defined(PADDOCK_SIMT_ASAN)
    __sanitizer_finish_switch_fiber(host_fake_stack, nullptr, nullptr);
#endif
  }
  static void leave_fiber() {
#if defined(PADDOCK_SIMT_ASAN)
    __sanitizer_start_switch_fiber(&running->context_->fake_stack, host_bottom, host_size);
#endif
  }
  static void enter_fiber() {
#if defined(PADDOCK_SIMT_ASAN)
    __sanitizer_finish_switch_fiber(running->context_->fake_stack, &host_bottom, &host_size);
#endif
  }
  [[noreturn]] static void run() {
    enter_fiber();
    entry();
    __builtin_trap();
  }
};

Fiber* FiberContext::running = nullptr;
void (*FiberContext::entry)() = nullptr;
Stack FiberContext::host;
void* FiberContext::host_fake_stack = nullptr;
const void* FiberContext::host_bottom = nullptr;
size_t FiberContext::host_size = 0;

Fiber::Fiber() : context_(std::make_unique<FiberContext>()) {
  // Tops of stacks at equal offsets in their pages would compete for few lines of the cache.
  static size_t n_fibers = 0;
  offset_ = n_fibers++ * 320 % 4096;
  void* memory = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
  mprotect(memory_, kGuard, PROT_NONE);
}

Fiber::~Fiber() { munmap(memory_, kGuard + kStack); }

void Fiber::start(void (*entry)()) {
#if defined(PADDOCK_SIMT_ASAN)
  __asan_unpoison_memory_region(memory_ + kGuard, kStack);
  context_->fake_stack = nullptr;
#endif
  FiberContext::entry = entry;
  prepare(context_->stack, memory_ + kGuard, kStack - offset_, FiberContext::run);
}

void Fiber::resume() {
  FiberContext::running = this;
  FiberContext::leave_host(*this);
  switch_stacks(FiberContext::host, context_->stack);
  FiberContext::enter_host();
  FiberContext::running = nullptr;
}

void Fiber::suspend() {
  Fiber* self = FiberContext::running;
  FiberContext::leave_fiber();
  switch_stacks(self->context_->stack, FiberContext::host);
  FiberContext::enter_fiber();
}

}  // namespace paddock::simt
