// Products with packed weights against float64 loops over cpu::dequantize_row, and the bits they
// owe.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "cpu/kernels.h"
#include "cuda/launch.h"
#include "support/random_blocks.h"
#include "support/simt/harness.h"

namespace paddock::cuda {
namespace {

using simt::DeviceBuffer;

constexpr DType kTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ4_0,
                            DType::kQ4_1, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K};
int64_t block_values(DType type) { return dtype_traits(type).block_values; }

struct Case {
  DType type;
  int64_t rows, cols;
  std::vector<uint8_t> weights;
  std::vector<float> x;              // [kMaxGemvTokens, cols]
  std::vector<double> sums, bounds;  // [kMaxGemvTokens, rows]: of w x, of |w x|
};

Case make_case(DType type, int64_t rows, int64_t cols) {
  std::mt19937 random(static_cast<uint32_t>(rows * 7919 + cols));
  std::normal_distribution<float> normal;
  Case c{type, rows, cols, test::random_row(type, rows * cols, random), {}, {}, {}};
  for (int64_t i = 0; i < kMaxGemvTokens * cols; ++i) c.x.push_back(normal(random));
  c.x[static_cast<size_t>(cols - 1)] = 100;  // an outlier
  std::vector<float> w(static_cast<size_t>(cols));
  c.sums.resize(static_cast<size_t>(kMaxGemvTokens * rows));
  c.bounds = c.sums;
  for (int64_t r = 0; r < rows; ++r) {
    cpu::dequantize_row(type, c.weights.data() + r * row_bytes(type, cols), cols, w.data());
    for (int64_t t = 0; t < kMaxGemvTokens; ++t) {
      double sum = 0;
      double bound = 0;
      for (int64_t k = 0; k < cols; ++k) {
        const double product =
            double{w[static_cast<size_t>(k)]} * c.x[static_cast<size_t>(t * cols + k)];
        sum += product;
        bound += std::abs(product);
      }
      c.sums[static_cast<size_t>(t * rows + r)] = sum;
      c.bounds[static_cast<size_t>(t * rows + r)] = bound;
    }
  }
  return c;
}

/// y [n_tokens, rows] of gemv onto `before` (accumulated where `accumulate`); empty after a fault.
/// Between rows of x lie bytes that nobody wrote, between rows of y kGap, which stays.
constexpr float kGap = -12345;
std::vector<float> multiply(const Case& c, int32_t n_tokens, bool accumulate, float before,
                            int32_t multiprocessors = simt::multiprocessors()) {
  const int64_t x_stride = (c.cols + 3) / 4 * 4 + 4;
  const int64_t y_stride = c.rows + 3;
  DeviceBuffer<uint8_t> weights(c.weights, "weights");
  DeviceBuffer<float> x(static_cast<size_t>(n_tokens * x_stride), "x");
  DeviceBuffer<float> y(static_cast<size_t>(n_tokens * y_stride), "y");
  const auto n_floats =
      static_cast<size_t>(gemv_workspace_floats(c.type, c.rows, c.cols, multiprocessors));
  DeviceBuffer<float> workspace(std::max<size_t>(n_floats, 1), "workspace");
  workspace.fill(0);
  y.fill(kGap);
  for (int32_t t = 0; t < n_tokens; ++t) {
    x.upload({c.x.data() + t * c.cols, static_cast<size_t>(c.cols)},
             static_cast<size_t>(t * x_stride));
    if (!accumulate) continue;
    y.upload(std::vector<float>(static_cast<size_t>(c.rows), before),
             static_cast<size_t>(t * y_stride));
  }
  weights.freeze();
  x.freeze();
  const GemvArgs args{weights.data(),
                      c.type,
                      c.rows,
                      c.cols,
                      x.data(),
                      x_stride,
                      y.data(),
                      y_stride,
                      n_tokens,
                      accumulate,
                      n_floats == 0 ? nullptr : workspace.data(),
                      multiprocessors};
  if (gemv(args, nullptr) != 0) return {};
  const std::vector<float> all = y.download();
  std::vector<float> got;
  for (auto at = all.begin(); at != all.end(); at += y_stride) {
    got.insert(got.end(), at, at + c.rows);
    if (std::count(at + c.rows, at + y_stride, kGap) != 3) return {};
  }
  const std::vector<float> after = workspace.download();
  for (size_t i = 0; i < after.size() / 3; ++i) {
    if (after[i] != 0) return {};  // a counter
  }
  return got;
}

/// Float32 sums of cols terms, at worst cols roundings in a row; here the longest chain is 16 steps
/// per chunk of at least 128 columns, its chunks, 5 steps over lanes and the runs.
double tolerance(const Case& c, size_t i) {
  const double roundings = 24.0 + 4.0 * static_cast<double>(c.cols) / 128.0;
  return c.bounds[i] * roundings * 0x1p-24;
}

bool is_right(const Case& c, int32_t n_tokens, bool accumulate = false,
              int32_t multiprocessors = simt::multiprocessors()) {
  const float before = 0.75F;
  const std::vector<float> got = multiply(c, n_tokens, accumulate, before, multiprocessors);
  if (got.size() != static_cast<size_t>(n_tokens * c.rows)) return false;
  for (size_t i = 0; i < got.size(); ++i) {
    const double want = c.sums[i] + (accumulate ? double{before} : 0);
    if (!(std::abs(got[i] - want) <= tolerance(c, i) + std::abs(want) * 0x1p-23)) return false;
  }
  return true;
}

std::string name(const Case& c) {
  return std::string(dtype_traits(c.type).name) + " " + std::to_string(c.rows) + " x " +
         std::to_string(c.cols);
}

TEST(CudaGemv, EqualsAFloat64Loop) {
  for (const DType type : kTypes) {
    // One block, an odd number, a chunk and a block more.
    const int64_t n = block_values(type);
    const int64_t chunk = n == 1 ? (type == DType::kF32 ? 128 : 256) : 512;
    for (const int64_t cols : {n, 3 * n, chunk, chunk + n, 2 * chunk + 3 * n}) {
      for (const int64_t rows : {1, 7, 19}) {
        const Case c = make_case(type, rows, cols);
        for (const int32_t n_tokens : {1, 5}) {
          EXPECT_TRUE(is_right(c, n_tokens)) << name(c) << simt::take_report_text();
        }
      }
    }
  }
}

TEST(CudaGemv, IsRightOnSmallAndLargeDevices) {
  for (const DType type : {DType::kBF16, DType::kQ4_K}) {
    const Case c = make_case(type, 83, 1024);
    for (const int32_t multiprocessors : {1, 2, 7, 300}) {
      EXPECT_TRUE(is_right(c, 3, true, multiprocessors))
          << name(c) << " on " << multiprocessors << simt::take_report_text();
    }
  }
}

TEST(CudaGemv, GivesATokenTheSameBitsWhateverItsCompany) {
  for (const DType type : kTypes) {
    const Case c = make_case(type, 21, block_values(type) == 1 ? 600 : 1280);
    for (const bool accumulate : {false, true}) {
      const std::vector<float> all = multiply(c, kMaxGemvTokens, accumulate, -2);
      for (int32_t n = 1; n <= kMaxGemvTokens; ++n) {
        EXPECT_TRUE(is_right(c, n, accumulate)) << name(c) << " tokens " << n;
        const std::vector<float> got = multiply(c, n, accumulate, -2);
        ASSERT_EQ(got.size(), static_cast<size_t>(n * c.rows));
        EXPECT_EQ(std::memcmp(got.data(), all.data(), got.size() * sizeof(float)), 0)
            << name(c) << " tokens " << n;
      }
    }
  }
  EXPECT_EQ(simt::take_report_text(), "");
}

TEST(CudaGemv, WalksManyItemsPerBlock) {
  // Groups of 16 rows and two chunks in runs of one item or two; groups of 64 and five chunks in
  // runs of one or two and, with more tokens, two runs per block.
  const Case small_groups = make_case(DType::kF32, 16 * 792, 129);
  const Case large_groups = make_case(DType::kF32, 64 * 105 - 3, 516);
  EXPECT_TRUE(is_right(small_groups, 1)) << simt::take_report_text();
  EXPECT_TRUE(is_right(small_groups, 3)) << simt::take_report_text();
  for (const int32_t n_tokens : {2, 8}) {
    EXPECT_TRUE(is_right(large_groups, n_tokens)) << simt::take_report_text();
  }
  EXPECT_TRUE(is_right(make_case(DType::kQ4_0, 64 * 52 - 3, 5 * 1024 - 32), 5))
      << simt::take_report_text();
}

TEST(CudaGemv, IsRightUnderEverySchedule) {
  const Case q6 = make_case(DType::kQ6_K, 17, 1280);
  const Case q4 = make_case(DType::kQ4_0, 17, 1120);
  const Case bf16 = make_case(DType::kBF16, 9, 4 * 256 + 5);
  simt::for_each_schedule([&](const std::string& schedule) {
    EXPECT_TRUE(is_right(q6, 2)) << schedule << simt::take_report_text();
    EXPECT_TRUE(is_right(q4, 6)) << schedule << simt::take_report_text();
    EXPECT_TRUE(is_right(bf16, 7, true)) << schedule << simt::take_report_text();
  });
}

TEST(CudaGemv, NeedsEachOfItsSites) {
  const Case c = make_case(DType::kQ6_K, 17, 768);
  EXPECT_THAT(simt::surviving_mutants([&] { return is_right(c, 3); }), testing::IsEmpty());
  EXPECT_EQ(simt::sites_met().size(), 9U);
}

TEST(CudaGemv, RefusesWhatItCannotMultiply) {
  const Case c = make_case(DType::kQ4_0, 4, 256);
  DeviceBuffer<uint8_t> weights(c.weights, "weights");
  DeviceBuffer<float> x(c.x, "x");
  DeviceBuffer<float> y(32, "y");
  DeviceBuffer<float> workspace(static_cast<size_t>(gemv_workspace_floats(c.type, 4, 256, 1)),
                                "workspace");
  workspace.fill(0);
  const GemvArgs good{weights.data(), c.type, 4, 256,   x.data(),         256,
                      y.data(),       4,      8, false, workspace.data(), 1};
  EXPECT_EQ(gemv(good, nullptr), 0) << simt::take_report_text();
  const auto refused = [&](auto change) {
    GemvArgs args = good;
    change(args);
    return gemv(args, nullptr) == kInvalid;
  };
  EXPECT_TRUE(refused([](auto& a) { a.type = DType::kQ3_K; }));
  EXPECT_TRUE(refused([](auto& a) { a.weights += 2; }));
  EXPECT_TRUE(refused([](auto& a) { a.weights = nullptr; }));
  EXPECT_TRUE(refused([](auto& a) { a.x += 1; }));
  EXPECT_TRUE(refused([](auto& a) { a.x = nullptr; }));
  EXPECT_TRUE(refused([](auto& a) { a.x_stride = 258; }));
  EXPECT_TRUE(refused([](auto& a) { a.x_stride = 252; }));
  EXPECT_TRUE(refused([](auto& a) { a.y = nullptr; }));
  EXPECT_TRUE(refused([](auto& a) { a.y_stride = 3; }));
  EXPECT_TRUE(refused([](auto& a) { a.rows = 0; }));
  EXPECT_TRUE(refused([](auto& a) { a.cols = 48; }));
  EXPECT_TRUE(refused([](auto& a) { a.n_tokens = 0; }));
  EXPECT_TRUE(refused([](auto& a) { a.n_tokens = 9; }));
  EXPECT_TRUE(refused([](auto& a) { a.workspace = nullptr; }));
  EXPECT_TRUE(refused([](auto& a) { a.multiprocessors = 0; }));
  EXPECT_TRUE(refused([](auto& a) { a.multiprocessors = kMostMultiprocessors + 1; }));
  for (const DType type : kDTypes) {
    EXPECT_EQ(gemv_supports(type), std::ranges::count(kTypes, type) == 1)
        << dtype_traits(type).name;
  }
}

}  // namespace
}  // namespace paddock::cuda
