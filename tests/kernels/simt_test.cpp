// The harness that runs CUDA kernels on the CPU must find every class of bug; and the demonstration
// kernels against float64 loops, under every schedule, with every barrier and check switched off.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "half.h"
#include "simt_demo.h"
#include "support/simt/harness.h"

namespace paddock::simt {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

constexpr int kThreads = 64;

/// Launches one block of 64 threads that run `kernel(args)` and returns what was reported.
template <typename Args>
std::vector<Report> reports_of(void (*kernel)(Args), Args args, Grid grid = {}) {
  const int error = PADDOCK_LAUNCH(kernel, grid, kThreads, 1024, nullptr, args);
  std::vector<Report> reports = take_reports();
  EXPECT_EQ(error == 0, reports.empty());
  return reports;
}
/// Expects exactly one fault, of this kind, under every schedule.
template <typename Args>
void expect_fault(const testing::Matcher<Fault>& fault, const std::string& text,
                  void (*kernel)(Args), Args args, Grid grid = {}) {
  for_each_schedule([&](const std::string& schedule) {
    SCOPED_TRACE(schedule);
    const std::vector<Report> reports = reports_of(kernel, args, grid);
    ASSERT_EQ(reports.size(), 1U);
    EXPECT_THAT(reports[0].fault, fault) << reports[0].text;
    EXPECT_THAT(reports[0].text, HasSubstr(text));
  });
}
template <typename Args>
void expect_clean(void (*kernel)(Args), Args args, Grid grid = {}) {
  for_each_schedule([&](const std::string& schedule) {
    SCOPED_TRACE(schedule);
    for (const Report& r : reports_of(kernel, args, grid)) ADD_FAILURE() << r.text;
  });
}

// ---- memory ----
TEST(SimtMemory, ReportsReadsAndWritesOutOfBoundsWithTheirPlace) {
  DeviceBuffer<float> x(std::vector<float>(65, 1.0F), "x");
  struct Args {
    float* x;
    int write;
  };
  const auto kernel = +[](Args args) {
    const int i = block_y() * kThreads + thread_x();
    if (args.write != 0) {
      if (i > 1) store(args.x + i, 0);
    } else if (i > 1) {
      load(args.x + i);
    }
  };
  set_schedule({});
  for (const int write : {0, 1}) {
    const std::vector<Report> reports = reports_of(kernel, Args{x.data(), write}, {1, 2});
    ASSERT_EQ(reports.size(), 1U);
    EXPECT_EQ(reports[0].fault, Fault::kOutOfBounds);
    EXPECT_EQ(reports[0].block.y, 1U);
    EXPECT_EQ(reports[0].thread, 1);
    EXPECT_THAT(reports[0].file, HasSubstr("simt_test.cpp"));
    EXPECT_GT(reports[0].line, 0);
    EXPECT_THAT(reports[0].text,
                HasSubstr("kernel kernel, block (0, 1, 0), thread 1 (warp 0, lane 1)"));
    EXPECT_THAT(
        reports[0].text,
        HasSubstr(std::string(write != 0 ? "write" : "read") +
                  " of 4 bytes at offset 260 of buffer 'x' (260 bytes): 4 bytes past its end"));
  }
}

TEST(SimtMemory, ReportsWhatLiesBeforeStraddlesOrWasFreed) {
  DeviceBuffer<uint32_t> first(std::vector<uint32_t>(7, 1U), "first");
  DeviceBuffer<uint32_t> x(std::vector<uint32_t>(6, 1U), "x");
  expect_fault(
      Fault::kOutOfBounds, "past its end", +[](const uint32_t* p) { load(p - 1); },
      static_cast<const uint32_t*>(x.data()));
  expect_fault(
      Fault::kOutOfBounds, "8 bytes past its end",
      +[](const uint32_t* p) { load_vec<U32x4>(p + 4); }, static_cast<const uint32_t*>(x.data()));
  expect_fault(
      Fault::kOutOfBounds, "not device memory", +[](const uint32_t* p) { load(p); },
      static_cast<const uint32_t*>(nullptr));
  const uint32_t* dangling = nullptr;
  {
    DeviceBuffer<uint32_t> gone(std::vector<uint32_t>(6, 1U), "gone");
    dangling = gone.data();
  }
  expect_fault(
      Fault::kOutOfBounds, "'gone' (24 bytes), which was freed",
      +[](const uint32_t* p) { load(p); }, dangling);
  EXPECT_EQ(first.download(), std::vector<uint32_t>(7, 1U));
}

TEST(SimtMemory, ReportsMisalignedVectors) {
  DeviceBuffer<uint32_t> x(std::vector<uint32_t>(64, 1U), "x");
  expect_fault(
      Fault::kMisaligned, "offset 4 of buffer 'x' (256 bytes): not aligned to 16",
      +[](uint32_t* p) { load_vec<U32x4>(p + 1); }, x.data());
  expect_fault(
      Fault::kMisaligned, "not aligned to 8",
      +[](uint32_t* p) {
        store_vec(p + 1, U32x2{1, 2});
      },
      x.data());
  expect_fault(
      Fault::kMisaligned, "not aligned to 4",
      +[](uint32_t* p) { load(reinterpret_cast<uint32_t*>(reinterpret_cast<char*>(p) + 2)); },
      x.data());
  expect_fault(
      Fault::kMisaligned, "not aligned to 16",
      +[](uint32_t* p) { cp_async16(dynamic_shared<char>() + 8, p, 16); }, x.data());
  expect_fault(
      Fault::kMisaligned, "not aligned to 16",
      +[](uint32_t* p) { cp_async16(dynamic_shared<char>(), p + 1, 0); }, x.data());
  expect_clean(
      +[](uint32_t* p) { load_vec<U32x4>(p + 4); }, x.data());
}

TEST(SimtMemory, ReportsReadsOfWhatNobodyWrote) {
  DeviceBuffer<float> x(64, "x");
  x.upload(std::vector<float>(32, 1.0F));
  expect_fault(
      Fault::kUninitialised, "never written", +[](float* p) { load(p + 32); }, x.data());
  expect_fault(
      Fault::kUninitialised, "byte 128 was never", +[](float* p) { load_vec<F32x4>(p + 32); },
      x.data());
  expect_fault(
      Fault::kUninitialised, "never written", +[](float* p) { atomic_add(p + 32, 1.0F); },
      x.data());
  expect_fault(
      Fault::kUninitialised, "shared 'tile' (256 bytes): byte 252",
      +[](float*) {
        PADDOCK_SHARED(float, tile, kThreads);
        if (thread_x() < kThreads - 1) store(&tile[thread_x()], 0);
        PADDOCK_SYNC("tile");
        if (thread_x() < 32) load(&tile[kThreads - 1]);
      },
      x.data());
  EXPECT_TRUE(x.written(31));
  EXPECT_FALSE(x.written(32));
  EXPECT_THROW(static_cast<void>(x.download()), std::logic_error);
}

TEST(SimtMemory, SharedMemoryHoldsNothingWhenABlockStarts) {
  expect_fault(Fault::kUninitialised, "block (1, 0, 0)",
               +[](int) {
                 int* p = dynamic_shared<int>() + thread_x();
                 if (block_x() == 0) store(p, 1);
                 load(p);
               },
               0, {2});
}

TEST(SimtMemory, ReportsRawAccessFrozenWritesAndConstLoadsOfWhatChanges) {
  DeviceBuffer<float> x(std::vector<float>(64, 1.0F), "x");
  expect_fault(
      Fault::kRawAccess, "raw access to buffer 'x' (256 bytes)",
      +[](float* p) { p[thread_x()] = 2; }, x.data());
  expect_fault(
      Fault::kRawAccess, "raw access to shared 'tile'",
      +[](float*) {
        PADDOCK_SHARED(volatile float, tile, 64);
        tile[0] = 1;
      },
      x.data());
  expect_fault(
      Fault::kReadOnly, "which this launch has written",
      +[](float* p) {
        store(p + thread_x(), 1);
        load_const(p + thread_x());
      },
      x.data());
  x.freeze();
  expect_fault(
      Fault::kReadOnly, "frozen", +[](float* p) { store(p + thread_x(), 1); }, x.data());
}

// ---- races ----
TEST(SimtRace, FindsMissingBlockBarriers) {
  expect_fault(
      Fault::kRace, "races with a",
      +[](int) {
        int* p = dynamic_shared<int>();
        store(p + thread_x(), 1);
        PADDOCK_SYNC("written first");
        store(p + thread_x(), 2);
        load(p + (thread_x() ^ 32));
      },
      0);
  // Read, then overwritten by another warp.
  expect_fault(
      Fault::kRace, "races with a",
      +[](int) {
        int* p = dynamic_shared<int>();
        store(p + thread_x(), 1);
        PADDOCK_SYNC("written");
        load(p + (thread_x() ^ 32));
        store(p + thread_x(), 2);
      },
      0);
  expect_fault(
      Fault::kRace, "races with a write", +[](int) { store(dynamic_shared<int>(), thread_x()); },
      0);
  expect_clean(
      +[](int) {
        int* p = dynamic_shared<int>();
        for (int i = 0; i < 3; ++i) {
          store(p + thread_x(), i);
          PADDOCK_SYNC("written again");
          if (load(p + (thread_x() ^ 32)) != i) store(p + 1000, 0);
          PADDOCK_SYNC("read");
        }
      },
      0);
}

TEST(SimtRace, WarpBarriersOrderOneWarpOnly) {
  expect_clean(
      +[](int) {
        int* p = dynamic_shared<int>();
        store(p + thread_x(), thread_x());
        PADDOCK_SYNC_WARP("a");
        load(p + (thread_x() ^ 1));
        PADDOCK_SYNC_WARP("b");
        store(p + (thread_x() ^ 2), 1);
      },
      0);
  expect_fault(
      Fault::kRace, "races with a",
      +[](int) {
        int* p = dynamic_shared<int>();
        store(p + thread_x(), thread_x());
        PADDOCK_SYNC("once");
        store(p + thread_x(), thread_x());
        PADDOCK_SYNC_WARP("c");
        load(p + (thread_x() ^ 32));
      },
      0);
  // Shuffles order no memory.
  expect_fault(
      Fault::kRace, "races with a",
      +[](int) {
        int* p = dynamic_shared<int>();
        store(p + thread_x(), thread_x());
        PADDOCK_SYNC("before the shuffle");
        store(p + thread_x(), thread_x());
        shfl_xor(1, 1);
        load(p + (thread_x() ^ 1));
      },
      0);
  // Several lanes have read, then the first of them writes.
  expect_fault(
      Fault::kRace, "races with a",
      +[](int) {
        int* p = dynamic_shared<int>();
        if (thread_x() == 0) store(p, 1);
        PADDOCK_SYNC("d");
        if (warp() == 0) load(p);
        if (thread_x() == 0) store(p, 2);
      },
      0);
}

TEST(SimtRace, AtomicsRaceWithPlainAccessesOnly) {
  DeviceBuffer<int32_t> x(std::vector<int32_t>(4, 0), "x");
  expect_clean(+[](int32_t* p) { atomic_add(p, 1); }, x.data(), {3});
  EXPECT_EQ(x.download()[0], 64 * 3 * static_cast<int>(all_schedules().size()));
  expect_fault(
      Fault::kRace, "races with a",
      +[](int32_t* p) {
        if (warp() == 0) atomic_add(p, 1);
        if (thread_x() == 32) load(p);
      },
      x.data());
  expect_fault(
      Fault::kRace, "races with a",
      +[](int32_t* p) {
        if (thread_x() == 0) store(p, 1);
        atomic_add(p, 1);
      },
      x.data());
}

TEST(SimtRace, FindsRacesBetweenBlocks) {
  DeviceBuffer<int32_t> x(std::vector<int32_t>(64, 0), "x");
  expect_fault(Fault::kRace, "write by block (", +[](int32_t* p) { store(p + thread_x(), 1); },
               x.data(), {2});
  // Read by two blocks, then written by one of them.
  expect_fault(Fault::kRace, "by block (",
               +[](int32_t* p) {
                 load(p + thread_x());
                 if (block_x() == 1) store(p + thread_x(), 1);
               },
               x.data(), {2});
  expect_clean(+[](int32_t* p) { load(p + thread_x()); }, x.data(), {2});
}

/// Every thread writes and fences, one tells the second block: p[0] counts both.
template <bool kBarrier>
void tell_kernel(int32_t* p) {
  store(p + 1 + block_x() * 64 + thread_x(), 5);
  PADDOCK_FENCE("told");
  if (kBarrier) PADDOCK_SYNC("all have written");
  PADDOCK_SHARED(int32_t, before, 1);
  if (thread_x() == 63) store(before, atomic_add(p, 1) % 2);
  PADDOCK_SYNC("counted");
  if (load(before) == 0) return;
  PADDOCK_FENCE("heard");
  load(p + 1 + (1 - block_x()) * 64 + thread_x());
}
TEST(SimtRace, AnAtomicHandsOverWhatABarrierPutBeforeIt) {
  DeviceBuffer<int32_t> x(std::vector<int32_t>(129, 0), "x");
  expect_clean(+tell_kernel<true>, x.data(), {2});
  x.fill(0);
  expect_fault(Fault::kRace, "write by block (", +tell_kernel<false>, x.data(), {2});
}

// ---- asynchronous copies ----
struct CopyArgs {
  const float* x;
  int stage;  // what is left out: 1 commit, 2 wait, 3 barrier; 4 waits for too few
};
void copy_kernel(CopyArgs args) {
  auto* tile = dynamic_shared<float>();  // [2][64]
  if (thread_x() < 16) cp_async16(tile + 4 * thread_x(), args.x + 4 * thread_x(), 12);
  if (args.stage != 1) cp_async_commit();
  if (args.stage == 4) {
    PADDOCK_CP_ASYNC_WAIT("too few", 1);
  } else if (args.stage != 2) {
    PADDOCK_CP_ASYNC_WAIT("all", 0);
  }
  if (args.stage != 3) PADDOCK_SYNC("landed");
  const float v = load(tile + (thread_x() ^ 63));
  if (v != (thread_x() % 4 == 0 ? 0.0F : 5.0F)) store(tile - 100, 0);
}
TEST(SimtCopy, LandsAtItsWaitAndIsSeenAfterABarrier) {
  DeviceBuffer<float> x(std::vector<float>(64, 5.0F), "x");
  expect_clean(copy_kernel, CopyArgs{x.data(), 0});
  for (const int stage : {1, 2, 4}) {
    expect_fault(Fault::kInFlight, "under way", copy_kernel, CopyArgs{x.data(), stage});
  }
  // By schedule the reader comes before the copy, during it or after it.
  expect_fault(AnyOf(Fault::kUninitialised, Fault::kInFlight, Fault::kRace), "", copy_kernel,
               CopyArgs{x.data(), 3});
}
TEST(SimtCopy, ChecksBothEnds) {
  DeviceBuffer<float> x(std::vector<float>(6, 5.0F), "x");
  expect_fault(
      Fault::kOutOfBounds, "8 bytes past its end",
      +[](float* p) {
        if (thread_x() == 0) cp_async16(dynamic_shared<float>(), p + 4, 16);
      },
      x.data());
  expect_clean(
      +[](float* p) {
        if (thread_x() == 0) cp_async16(dynamic_shared<float>(), p + 4, 8);
      },
      x.data());
  expect_fault(
      Fault::kOutOfBounds, "shared 'dynamic' (1024 bytes)",
      +[](float* p) { cp_async16(dynamic_shared<float>() + 256, p, 16); }, x.data());
  // A stage is overwritten while another warp may still read it.
  expect_fault(
      AnyOf(Fault::kInFlight, Fault::kRace), "",
      +[](float* p) {
        float* tile = dynamic_shared<float>();
        store(tile + thread_x(), 1);
        PADDOCK_SYNC("written once");
        load(tile + thread_x());
        if (thread_x() == 1) cp_async16(tile + 32, p, 16);
      },
      x.data());
}

// ---- barriers, warps, launches ----
TEST(SimtBarrier, ReportsDeadlockAndDivergence) {
  const auto either = [](void (*kernel)(int)) {
    expect_fault(AnyOf(Fault::kDivergence, Fault::kDeadlock), "", kernel, 0);
  };
  either(+[](int) {
    if (warp() == 0) {
      PADDOCK_SYNC("of warp 0");
    } else {
      PADDOCK_SYNC("of warp 1");
    }
  });
  either(+[](int) {
    if (lane() < 16) {
      shfl_xor(1.0F, 1);
    } else {
      shfl_xor(1.0F, 1);
    }
  });
  expect_fault(
      Fault::kDeadlock, "31 from thread 0 wait at ballot of warp 0",
      +[](int) {
        if (thread_x() != 31) ballot(true);
      },
      0);
  expect_fault(
      Fault::kDeadlock, "wait at the barrier 'half of a warp'",
      +[](int) {
        if (lane() < 16)
          PADDOCK_SYNC("half of a warp");
        else
          any(true);
      },
      0);
  // Threads that have ended are not waited for, as on the device.
  expect_clean(
      +[](int) {
        if (warp() == 1) return;
        PADDOCK_SYNC("those left");
      },
      0);
}

TEST(SimtBarrier, ReportsEndlessKernels) {
  DeviceBuffer<int32_t> flag(std::vector<int32_t>(1, 0), "flag");
  set_step_limit(10000);
  expect_fault(
      Fault::kEndless, "no end after 10000 steps",
      +[](int32_t* p) {
        while (atomic_add(p, 0) == 0) {
        }
      },
      flag.data());
  set_step_limit(2'000'000'000);
}

TEST(SimtLaunch, RefusesWhatCudaRefuses) {
  const auto kernel = +[](int) {};
  const auto refused = [&](Grid grid, int block, size_t shared) {
    const int error = PADDOCK_LAUNCH(kernel, grid, block, shared, nullptr, 0);
    const auto reports = take_reports();
    return error != 0 && reports.size() == 1 && reports[0].fault == Fault::kLaunch;
  };
  EXPECT_TRUE(refused({0}, 32, 0));
  EXPECT_TRUE(refused({1, 65536}, 32, 0));
  EXPECT_TRUE(refused({}, 0, 0));
  EXPECT_TRUE(refused({}, 1056, 0));
  EXPECT_TRUE(refused({}, 33, 0));
  EXPECT_TRUE(refused({}, 32, kMaxDynamicShared + 1));
  EXPECT_FALSE(refused({1, 65535}, 32, kMaxDynamicShared));
  EXPECT_FALSE(refused({}, 1024, 0));
}

struct WarpArgs {
  int32_t* out;  // [6][64]
};
void warp_kernel(WarpArgs args) {
  const int t = thread_x();
  store(args.out + t, shfl(t, lane() + 3));
  store(args.out + 64 + t, shfl_xor(t, 5));
  store(args.out + 128 + t, shfl_down(t, 4));
  store(args.out + 192 + t, static_cast<int32_t>(ballot(t % 3 == 0)));
  store(args.out + 256 + t, (any(t == 40) ? 1 : 0) + (all(t < 32) ? 2 : 0));
  store(args.out + 320 + t, static_cast<int32_t>(warp_sum(static_cast<float>(t)) +
                                                 1000 * warp_max(static_cast<float>(t))));
}
TEST(SimtWarp, OperationsAreThoseOfTheHardware) {
  DeviceBuffer<int32_t> out(6 * 64, "out");
  for_each_schedule([&](const std::string& schedule) {
    SCOPED_TRACE(schedule);
    out.set_unwritten();
    EXPECT_EQ(PADDOCK_LAUNCH(warp_kernel, {}, 64, 0, nullptr, WarpArgs{out.data()}), 0);
    ASSERT_EQ(take_report_text(), "");
    const auto v = out.download();
    for (size_t t = 0; t < 64; ++t) {
      const size_t w = t / 32 * 32;
      EXPECT_EQ(v[t], static_cast<int>(w + (t + 3) % 32));
      EXPECT_EQ(v[64 + t], static_cast<int>(t ^ 5));
      EXPECT_EQ(v[128 + t], static_cast<int>(t % 32 < 28 ? t + 4 : t));
      uint32_t votes = 0;
      for (size_t i = 0; i < 32; ++i) votes |= uint32_t{(w + i) % 3 == 0} << i;
      EXPECT_EQ(static_cast<uint32_t>(v[192 + t]), votes);
      EXPECT_EQ(v[256 + t], t < 32 ? 2 : 1);
      EXPECT_EQ(v[320 + t], t < 32 ? 496 + 31000 : 496 + 1024 + 63000);
    }
  });
}

struct MmaArgs {
  const uint16_t* a;  // [16, 16]
  const uint16_t* b;  // [16, 8]
  float* d;           // [16, 8]
  int bf16;
};
/// Fragments by ldmatrix: A as it lies, B through _trans.
void mma_kernel(MmaArgs args) {
  PADDOCK_SHARED(uint16_t, a_tile, 16 * 16);
  PADDOCK_SHARED(uint16_t, b_tile, 16 * 8);
  for (int i = thread_x(); i < 256; i += 32) store(a_tile + i, load(args.a + i));
  for (int i = thread_x(); i < 128; i += 32) store(b_tile + i, load(args.b + i));
  PADDOCK_SYNC_WARP("tiles");
  uint32_t a[4];
  uint32_t b[2];
  ldmatrix_x4(a, a_tile + lane() % 16 * 16 + lane() / 16 * 8);
  ldmatrix_x2_trans(b, b_tile + lane() % 16 * 8);
  float d[4] = {1, 2, 3, 4};
  if (args.bf16 != 0) {
    mma_m16n8k16<Bf16>(d, a, b);
  } else {
    mma_m16n8k16<F16>(d, a, b);
  }
  const int row = lane() / 4;
  const int column = lane() % 4 * 2;
  for (int i = 0; i < 4; ++i) {
    store(args.d + (row + i / 2 * 8) * 8 + column + i % 2, d[i] - static_cast<float>(1 + i));
  }
}
TEST(SimtMatrix, FragmentsMultiplyAsMatrices) {
  std::mt19937 random(5);
  for (const int bf16 : {0, 1}) {
    std::vector<uint16_t> a(256);
    std::vector<uint16_t> b(128);
    const auto number = [&] {
      const float f = static_cast<float>(random() % 17) - 8.0F;  // exact in both, so are the sums
      return bf16 != 0 ? f32_to_bf16(f) : f32_to_f16(f);
    };
    const auto value = [&](uint16_t h) { return bf16 != 0 ? bf16_to_f32(h) : f16_to_f32(h); };
    for (uint16_t& h : a) h = number();
    for (uint16_t& h : b) h = number();
    DeviceBuffer<uint16_t> a_device(a, "a");
    DeviceBuffer<uint16_t> b_device(b, "b");
    DeviceBuffer<float> d(128, "d");
    EXPECT_EQ(PADDOCK_LAUNCH(mma_kernel, {}, 32, 0, nullptr,
                             MmaArgs{a_device.data(), b_device.data(), d.data(), bf16}),
              0);
    ASSERT_EQ(take_report_text(), "");
    const auto got = d.download();
    for (size_t i = 0; i < 16; ++i) {
      for (size_t j = 0; j < 8; ++j) {
        float sum = 0;
        for (size_t k = 0; k < 16; ++k) sum += value(a[i * 16 + k]) * value(b[k * 8 + j]);
        EXPECT_EQ(got[i * 8 + j], sum) << i << " " << j;
      }
    }
  }
}

TEST(SimtArithmetic, BytesAsTheHardwareTakesThem) {
  EXPECT_EQ(dp4a(static_cast<int32_t>(0x80FF7F02U), static_cast<int32_t>(0x80027F03U), -5),
            -5 + 128 * 128 - 2 + 127 * 127 + 6);
  EXPECT_EQ(byte_perm(0x33221100U, 0x77665544U, 0x7041U), 0x77004411U);
}

TEST(SimtSites, NamesAreUniqueInAFile) {
  forget_sites();
  const auto reports = reports_of(
      +[](int) {
        PADDOCK_SYNC("twice");
        PADDOCK_SYNC("twice");
      },
      0);
  ASSERT_EQ(reports.size(), 1U);
  EXPECT_EQ(reports[0].fault, Fault::kSites);
  EXPECT_THAT(sites_met(), testing::ElementsAre("simt_test.twice"));
  forget_sites();
}

TEST(SimtSites, AMutantThatChangesNothingSurvives) {
  const auto survivors = surviving_mutants([] {
    DeviceBuffer<int32_t> x(std::vector<int32_t>(64, 0), "x");
    return PADDOCK_LAUNCH(
               +[](int32_t* p) {
                 PADDOCK_SYNC("needless");
                 if (PADDOCK_CHECKED("needed", thread_x() < 40)) store(p + thread_x(), 7);
               },
               {}, kThreads, 0, nullptr, x.data()) == 0 &&
           x.download()[50] == 0;
  });
  EXPECT_THAT(survivors, testing::ElementsAre("simt_test.needless"));
}

// ---- the demonstration kernels ----
std::vector<float> random_floats(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(n);
  for (float& v : values) v = static_cast<float>(random() % 2001) / 1000.0F - 1.0F;
  return values;
}

bool softmax_is_right() {
  constexpr int kRows = 3;
  constexpr int kColumns = 300;
  const auto x = random_floats(kRows * kColumns, 1);
  DeviceBuffer<float> x_device(x, "x");
  DeviceBuffer<float> y(x.size(), "y");
  x_device.freeze();
  if (demo::softmax({x_device.data(), y.data(), kRows, kColumns}, nullptr) != 0) return false;
  const auto got = y.download();
  for (size_t r = 0; r < kRows; ++r) {
    double sum = 0;
    for (size_t i = 0; i < kColumns; ++i) sum += std::exp(double{x[r * kColumns + i]});
    for (size_t i = r * kColumns; i < (r + 1) * kColumns; ++i) {
      if (!(std::abs(got[i] / (std::exp(double{x[i]}) / sum) - 1) < 2e-6)) return false;
    }
  }
  return true;
}
bool matmul_is_right() {
  constexpr int kM = 37;
  constexpr int kN = 45;
  constexpr int kK = 104;
  std::vector<Bf16> a;
  std::vector<Bf16> w;
  for (const float f : random_floats(kM * kK, 2)) a.push_back(from_f32<Bf16>(f));
  for (const float f : random_floats(kN * kK, 3)) w.push_back(from_f32<Bf16>(f));
  DeviceBuffer<Bf16> a_device(a, "a");
  DeviceBuffer<Bf16> w_device(w, "w");
  DeviceBuffer<float> c(kM * kN, "c");
  a_device.freeze();
  w_device.freeze();
  if (demo::matmul({a_device.data(), w_device.data(), c.data(), kM, kN, kK}, nullptr) != 0) {
    return false;
  }
  const auto got = c.download();
  for (size_t i = 0; i < kM; ++i) {
    for (size_t j = 0; j < kN; ++j) {
      double sum = 0;
      for (size_t k = 0; k < kK; ++k) {
        sum += double{to_f32(a[i * kK + k])} * double{to_f32(w[j * kK + k])};
      }
      if (!(std::abs(got[i * kN + j] - sum) < 1e-5)) return false;
    }
  }
  return true;
}
bool histogram_is_right() {
  std::mt19937 random(4);
  std::vector<uint8_t> x(1000);
  std::vector<uint32_t> want(256, 0);
  for (uint8_t& v : x) ++want[v = static_cast<uint8_t>(random() % 40 * 6)];
  DeviceBuffer<uint8_t> x_device(x, "x");
  DeviceBuffer<uint32_t> counts(std::vector<uint32_t>(256, 0U), "counts");
  x_device.freeze();
  return demo::histogram({x_device.data(), counts.data(), 1000}, nullptr) == 0 &&
         counts.download() == want;
}
bool sum_is_right() {
  const auto x = random_floats(700, 6);
  double want = 0;
  for (const float v : x) want += v;
  DeviceBuffer<float> x_device(x, "x");
  DeviceBuffer<float> partial(4, "partial");
  DeviceBuffer<uint32_t> finished(std::vector<uint32_t>(1, 0U), "finished");
  DeviceBuffer<float> sum(1, "sum");
  x_device.freeze();
  return demo::sum({x_device.data(), partial.data(), finished.data(), sum.data(), 700}, 4,
                   nullptr) == 0 &&
         std::abs(sum.download()[0] - want) < 1e-4 && finished.download()[0] == 0;
}

TEST(SimtDemo, KernelsAreRightUnderEverySchedule) {
  for_each_schedule([](const std::string& schedule) {
    SCOPED_TRACE(schedule);
    EXPECT_TRUE(softmax_is_right()) << take_report_text();
    EXPECT_TRUE(matmul_is_right()) << take_report_text();
    EXPECT_TRUE(histogram_is_right()) << take_report_text();
    EXPECT_TRUE(sum_is_right()) << take_report_text();
  });
}
TEST(SimtDemo, EveryBarrierWaitAndCheckIsNeeded) {
  using testing::IsEmpty;
  EXPECT_THAT(surviving_mutants(softmax_is_right), IsEmpty());
  EXPECT_EQ(sites_met().size(), 3U);
  EXPECT_THAT(surviving_mutants(matmul_is_right), IsEmpty());
  EXPECT_EQ(sites_met().size(), 8U);
  EXPECT_THAT(surviving_mutants(histogram_is_right), IsEmpty());
  EXPECT_EQ(sites_met().size(), 3U);
  EXPECT_THAT(surviving_mutants(sum_is_right), IsEmpty());
  EXPECT_EQ(sites_met().size(), 4U);
}

}  // namespace
}  // namespace paddock::simt
