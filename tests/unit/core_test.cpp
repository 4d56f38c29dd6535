// The thread pool, large memory, what the system lets us use, 16-bit floats, text streams, the log
// hook.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/log.h"
#include "core/system.h"
#include "core/thread_pool.h"
#include "half.h"
#include "paddock/error.h"
#include "support/no_threads.h"

namespace paddock {
namespace {

TEST(ErrorCodes, HaveStableNames) {
  EXPECT_STREQ(error_code_name(ErrorCode::kInvalidArgument), "invalid_argument");
  EXPECT_STREQ(error_code_name(ErrorCode::kNotFound), "not_found");
  EXPECT_STREQ(error_code_name(ErrorCode::kIo), "io");
  EXPECT_STREQ(error_code_name(ErrorCode::kBadFile), "bad_file");
  EXPECT_STREQ(error_code_name(ErrorCode::kUnsupported), "unsupported");
  EXPECT_STREQ(error_code_name(ErrorCode::kOutOfMemory), "out_of_memory");
  EXPECT_STREQ(error_code_name(ErrorCode::kCancelled), "cancelled");
  EXPECT_STREQ(error_code_name(ErrorCode::kDevice), "device");
  EXPECT_STREQ(error_code_name(ErrorCode::kInternal), "internal");
}

TEST(ThreadPool, RunsEveryWorkerOnceAndWaits) {
  for (const int n : {1, 2, 5}) {
    ThreadPool pool(n);
    for (int round = 0; round < 300; ++round) {
      std::vector<int> calls(static_cast<size_t>(n), 0);
      pool.run([&](int worker) { ++calls[static_cast<size_t>(worker)]; });
      for (const int c : calls) ASSERT_EQ(c, 1);
      // Now and then long enough for the workers to fall asleep.
      if (round % 100 == 99) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
}

TEST(ThreadPool, AsksForFewerWhereThreadsCannotBeHad) {
  if (!test::kCanForbidThreads) GTEST_SKIP() << "a sanitizer starts threads its own way";
  const test::NoThreads none;
  ThreadPool(1).run([](int worker) { EXPECT_EQ(worker, 0); });
  try {
    ThreadPool(3);
    ADD_FAILURE() << "three were to be had";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory);
    EXPECT_TRUE(std::string(e.what()).starts_with("threads is 3, but only 1 can be had"))
        << e.what();
  }
}

TEST(ThreadPool, SplitCoversEverythingOnce) {
  for (const int64_t n : {0, 1, 7, 64, 1000}) {
    for (const int workers : {1, 2, 3, 8}) {
      int64_t at = 0;
      for (int w = 0; w < workers; ++w) {
        const ThreadPool::Range r = ThreadPool::split(n, 16, w, workers);
        EXPECT_EQ(r.begin, at);
        EXPECT_TRUE(r.begin % 16 == 0 || r.begin == n);
        at = r.end;
      }
      EXPECT_EQ(at, n);
    }
  }
}

TEST(System, ReadsTheKernelsFiles) {
  using namespace system_text;
  EXPECT_EQ(mem_available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), 2048U * 1024);
  EXPECT_EQ(mem_available("nothing"), std::nullopt);
  EXPECT_EQ(cpu_max("max 100000\n"), std::nullopt);
  EXPECT_EQ(cpu_max("150000 100000\n"), 2);
  EXPECT_EQ(cpu_max("50000 100000\n"), 1);
  EXPECT_EQ(cpu_max("garbage"), std::nullopt);
  EXPECT_EQ(memory_limit("max\n"), std::nullopt);
  EXPECT_EQ(memory_limit("9223372036854771712\n"), std::nullopt);  // v1: no limit
  EXPECT_EQ(memory_limit("1048576\n"), 1048576U);
  EXPECT_EQ(cgroup_path("0::/user.slice/a\n", ""), "/user.slice/a");
  EXPECT_EQ(cgroup_path("5:cpu,cpuacct:/x\n4:memory:/y\n", "memory"), "/y");
  EXPECT_EQ(cgroup_path("5:cpu,cpuacct:/x\n4:memory:/y\n", "cpu"), "/x");
  EXPECT_GE(usable_cores(), 1);
  EXPECT_GT(available_memory(), 1U << 20);
}

TEST(Half, EveryF16SurvivesTheRoundTrip) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = f16_to_f32(static_cast<uint16_t>(h));
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(f))));
    } else {
      ASSERT_EQ(f32_to_f16(f), h);
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(f32_to_f16(1.0F + 0x1p-11F), f32_to_f16(1.0F));          // a tie goes down to even
  EXPECT_EQ(f32_to_f16(1.0F + 3 * 0x1p-11F), f32_to_f16(1.0F) + 2);  // and up to even
  EXPECT_EQ(f32_to_f16(1.0F + 0x1p-11F + 0x1p-20F), f32_to_f16(1.0F) + 1);
  EXPECT_EQ(f32_to_f16(65519.0F), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0F), 0x7C00);
  EXPECT_EQ(f32_to_f16(-0x1p-24F), 0x8001);
  EXPECT_EQ(f32_to_f16(0x1p-26F), 0);
  EXPECT_EQ(bf16_to_f32(f32_to_bf16(1.0F + 0x1p-8F)), 1.0F);
  EXPECT_EQ(bf16_to_f32(f32_to_bf16(1.0F + 3 * 0x1p-8F)), 1.0F + 0x1p-6F);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::quiet_NaN()))));
}

/// System pages of a buffer that are in memory.
int64_t resident_pages(const AlignedBuffer& buffer) {
  std::vector<unsigned char> pages(buffer.size() / 4096);
  EXPECT_EQ(mincore(buffer.data(), buffer.size(), pages.data()), 0);
  return std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return (p & 1) != 0; });
}

TEST(AlignedBuffer, IsResidentUnlessItIsMadeUntouched) {
  constexpr uint64_t kBytes = 64 * 4096;
  const AlignedBuffer whole(kBytes, "a test");
  EXPECT_EQ(resident_pages(whole), 64);
  const AlignedBuffer untouched = AlignedBuffer::untouched(kBytes, "a test");
  EXPECT_EQ(untouched.size(), kBytes);
  EXPECT_EQ(resident_pages(untouched), 0);
  untouched.data()[5 * 4096] = 1;
  EXPECT_EQ(resident_pages(untouched), 1);
  EXPECT_EQ(untouched.data()[7 * 4096], 0);
}

TEST(AlignedBuffer, TooLargeNamesWhatItWasFor) {
  constexpr uint64_t kTooMuch = uint64_t{1} << 60;
  for (const bool is_touched : {false, true}) {
    try {
      is_touched ? AlignedBuffer(kTooMuch, "a test") : AlignedBuffer::untouched(kTooMuch, "a test");
      FAIL() << "there is no such memory";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory);
      EXPECT_STREQ(e.what(), "cannot reserve 1152921504606846976 bytes for a test");
    }
  }
}

TEST(Log, ReachesTheHookAndIsSilentWithoutOne) {
  std::vector<std::string> heard;
  set_log_hook([&](LogLevel, std::string_view text) { heard.emplace_back(text); });
  log(LogLevel::kInfo, "seven is {}", 7);
  set_log_hook({});
  log(LogLevel::kInfo, "unheard");
  EXPECT_EQ(heard, std::vector<std::string>{"seven is 7"});
}

}  // namespace
}  // namespace paddock
