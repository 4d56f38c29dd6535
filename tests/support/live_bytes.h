// How often operator new was called, and the bytes it has given out and not got back, now and at
// their most: live_bytes.cpp defines the operators. Sanitizers need them themselves.
#pragma once

#include <atomic>
#include <cstdint>

namespace paddock::test {
inline std::atomic<int64_t> g_allocations{0};
inline std::atomic<int64_t> g_live_bytes{0};
inline std::atomic<int64_t> g_most_live_bytes{0};
/// So many allocations succeed, then one fails; below 0: none does.
inline std::atomic<int64_t> g_fail_after{-1};

inline void count_live_bytes(int64_t change) {
  const int64_t now = g_live_bytes += change;
  int64_t most = g_most_live_bytes;
  while (now > most && !g_most_live_bytes.compare_exchange_weak(most, now)) {
  }
}

/// Counts from where it is made.
class LiveBytes {
 public:
  LiveBytes() : before_(g_live_bytes) { g_most_live_bytes = before_; }
  int64_t most() const { return g_most_live_bytes - before_; }

 private:
  int64_t before_;
};
}  // namespace paddock::test

/// Link support/live_bytes.cpp.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCountsBytes = false;
#else
constexpr bool kCountsBytes = true;
#endif
