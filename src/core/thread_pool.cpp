#include "core/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <system_error>

#include "core/fail.h"

namespace paddock {
namespace {

/// Rounds of pause before a waiting thread lets others run, and before it sleeps: some 50
/// microseconds.
constexpr int kSpins = 2000;

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int n_threads) : n_threads_(n_threads) {
  threads_.reserve(n_threads - 1);
  try {
    for (int worker = 1; worker < n_threads; ++worker) {
      threads_.emplace_back([this, worker] { work(worker); });
    }
  } catch (const std::system_error& e) {
    const size_t started = threads_.size();
    stop();
    fail(ErrorCode::kOutOfMemory, "threads is {}, but only {} can be had ({}); ask for fewer",
         n_threads, started + 1, e.what());
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    ++generation_;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run_raw(Function function, const void* context) {
  if (n_threads_ == 1) return function(context, 0);
  function_ = function;
  context_ = context;
  unfinished_.store(n_threads_ - 1, std::memory_order_relaxed);
  generation_.fetch_add(1);  // publishes the three above
  if (sleepers_.load() > 0) {
    const std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  function(context, 0);
  for (int spins = 0; unfinished_.load(std::memory_order_acquire) > 0; ++spins) {
    if (spins < kSpins) {
      pause_briefly();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::work(int worker) {
  uint64_t seen = 0;
  for (;;) {
    int spins = 0;
    while (generation_.load() == seen) {
      if (++spins < kSpins) {
        pause_briefly();
        continue;
      }
      std::unique_lock lock(mutex_);
      ++sleepers_;
      wake_.wait(lock, [&] { return generation_.load() != seen; });
      --sleepers_;
    }
    ++seen;
    if (stopping_) return;
    function_(context_, worker);
    unfinished_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace paddock
