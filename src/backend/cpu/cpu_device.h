// What the parts of a CPU backend share: one instruction set's kernels, and threads of their own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/thread_pool.h"
#include "cpu/kernels.h"

namespace paddock {

struct CpuDevice {
  const cpu::Kernels& kernels;
  bool reference;
  ThreadPool threads;

  /// fn(begin, end) over [0, n), in one go where a single row would not pay for a barrier.
  template <typename Fn>
  void split(int64_t n, const Fn& fn) {
    if (n < 2 || threads.size() == 1) {
      if (n > 0) fn(int64_t{0}, n);
      return;
    }
    threads.run([&](int worker) {
      const ThreadPool::Range r = ThreadPool::split(n, 1, worker, threads.size());
      if (r.begin < r.end) fn(r.begin, r.end);
    });
  }

  /// fn(part, begin, end, worker): the units(part) of all parts taken as one list and divided over
  /// the workers.
  template <typename Units, typename Fn>
  void split_parts(size_t n_parts, const Units& units, const Fn& fn) {
    int64_t total = 0;
    for (size_t i = 0; i < n_parts; ++i) total += units(i);
    threads.run([&](int worker) {
      const ThreadPool::Range r = ThreadPool::split(total, 1, worker, threads.size());
      int64_t first = 0;
      for (size_t i = 0; i < n_parts; ++i) {
        const int64_t begin = std::max(r.begin, first);
        const int64_t end = std::min(r.end, first + units(i));
        if (begin < end) fn(i, begin - first, end - first, worker);
        first += units(i);
      }
    });
  }
};

}  // namespace paddock
