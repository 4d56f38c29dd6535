// A fixed set of worker threads owned by one engine. The caller is worker 0.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace paddock {

/// Runs one function on all workers at a time; run() is a barrier. Workers spin for a short while
/// between runs and then sleep, so that an idle engine costs nothing. run() allocates nothing.
class ThreadPool {
 public:
  /// Error kOutOfMemory if so many threads cannot be started.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return n_threads_; }

  /// Calls fn(worker) for worker 0..size()-1 at once and waits for all of them. fn must not throw.
  template <typename Fn>
  void run(const Fn& fn) {
    run_raw([](const void* context, int worker) { (*static_cast<const Fn*>(context))(worker); },
            &fn);
  }

  /// Splits [0, n) into one contiguous range per worker, boundaries at multiples of `grain`.
  struct Range {
    int64_t begin, end;
  };
  static Range split(int64_t n, int64_t grain, int worker, int n_workers) {
    const int64_t units = (n + grain - 1) / grain;
    const int64_t begin = units * worker / n_workers * grain;
    const int64_t end = units * (worker + 1) / n_workers * grain;
    return {begin < n ? begin : n, end < n ? end : n};
  }

 private:
  using Function = void (*)(const void* context, int worker);
  void run_raw(Function function, const void* context);
  void work(int worker);
  /// Ends the threads that there are.
  void stop();

  int n_threads_;
  std::vector<std::thread> threads_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> unfinished_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  Function function_ = nullptr;
  const void* context_ = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace paddock
