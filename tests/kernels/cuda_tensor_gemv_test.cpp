// Products with packed weights on tensor cores against float64 loops over cpu::dequantize_row and
// the rounded x, and the bits they owe.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "cpu/kernels.h"
#include "cuda/launch.h"
#include "half.h"
#include "support/random_blocks.h"
#include "support/simt/harness.h"

namespace paddock::cuda {
namespace {

using simt::DeviceBuffer;

constexpr DType kTypes[] = {DType::kBF16, DType::kQ4_0, DType::kQ4_1,
                            DType::kQ8_0, DType::kQ4_K, DType::kQ6_K};

struct Case {
  DType type;
  std::vector<int32_t> rows;  // of each part
  int64_t cols;
  int32_t tokens;
  std::vector<std::vector<uint8_t>> weights;
  std::vector<float> unrounded;                   // [tokens, cols]
  std::vector<uint16_t> x;                        // in bfloat16
  std::vector<std::vector<double>> sums, bounds;  // of each part [tokens, rows]: of w x, of |w x|
};

Case make_case(DType type, const std::vector<int32_t>& rows, int64_t cols, int32_t tokens) {
  std::mt19937 random(static_cast<uint32_t>(rows[0] * 7919 + cols));
  std::normal_distribution<float> normal;
  Case c{type, rows, cols, tokens, {}, {}, {}, {}, {}};
  for (int64_t i = 0; i < tokens * cols; ++i) c.unrounded.push_back(normal(random));
  c.unrounded[static_cast<size_t>(cols - 1)] = 100;  // an outlier
  for (const float x : c.unrounded) c.x.push_back(f32_to_bf16(x));
  std::vector<float> w(static_cast<size_t>(cols));
  for (const int32_t n : rows) {
    c.weights.push_back(test::random_row(type, n * cols, random));
    c.sums.emplace_back(static_cast<size_t>(tokens * n));
    c.bounds.push_back(c.sums.back());
    for (int64_t r = 0; r < n; ++r) {
      cpu::dequantize_row(type, c.weights.back().data() + r * row_bytes(type, cols), cols,
                          w.data());
      for (int64_t t = 0; t < tokens; ++t) {
        double sum = 0;
        double bound = 0;
        for (int64_t k = 0; k < cols; ++k) {
          const double product = double{w[static_cast<size_t>(k)]} *
                                 bf16_to_f32(c.x[static_cast<size_t>(t * cols + k)]);
          sum += product;
          bound += std::abs(product);
        }
        c.sums.back()[static_cast<size_t>(t * n + r)] = sum;
        c.bounds.back()[static_cast<size_t>(t * n + r)] = bound;
      }
    }
  }
  return c;
}

/// Each part's y [n_tokens, rows] onto `before` (accumulated where `accumulate`); empty after a
/// fault. Between rows of x lie bytes that nobody wrote, between rows of y kGap, which stays.
constexpr float kGap = -12345;
std::vector<std::vector<float>> multiply(const Case& c, int32_t n_tokens, bool accumulate = false,
                                         float before = 0,
                                         int32_t multiprocessors = simt::multiprocessors()) {
  const int64_t x_stride = c.cols + 8;
  DeviceBuffer<float> x(static_cast<size_t>(n_tokens * x_stride), "x");
  for (int32_t t = 0; t < n_tokens; ++t) {
    x.upload({c.unrounded.data() + t * c.cols, static_cast<size_t>(c.cols)},
             static_cast<size_t>(t * x_stride));
  }
  x.freeze();
  DeviceBuffer<uint16_t> rounded(
      std::vector<uint16_t>(c.x.begin(), c.x.begin() + n_tokens * c.cols), "rounded x");
  rounded.freeze();
  const bool few = n_tokens <= kMaxUnroundedTokens;
  TensorGemvArgs args{
      {},       static_cast<int32_t>(c.rows.size()), c.type,   c.cols,     few ? x.data() : nullptr,
      x_stride, few ? nullptr : rounded.data(),      n_tokens, accumulate, multiprocessors};
  std::vector<DeviceBuffer<uint8_t>> weights;
  std::vector<DeviceBuffer<float>> outputs;
  for (size_t i = 0; i < c.rows.size(); ++i) {
    const int64_t y_stride = c.rows[i] + 3;
    weights.emplace_back(c.weights[i], "weights");
    weights.back().freeze();
    outputs.emplace_back(static_cast<size_t>(n_tokens * y_stride), "y");
    outputs.back().fill(kGap);
    for (int32_t t = 0; accumulate && t < n_tokens; ++t) {
      outputs.back().upload(std::vector<float>(static_cast<size_t>(c.rows[i]), before),
                            static_cast<size_t>(t * y_stride));
    }
    args.parts[i] = {weights.back().data(), outputs.back().data(), y_stride, c.rows[i]};
  }
  if (tensor_gemv(args, nullptr) != 0) return {};
  std::vector<std::vector<float>> got;
  for (size_t i = 0; i < c.rows.size(); ++i) {
    const std::vector<float> all = outputs[i].download();
    got.emplace_back();
    for (auto at = all.begin(); at != all.end(); at += c.rows[i] + 3) {
      got.back().insert(got.back().end(), at, at + c.rows[i]);
      if (std::count(at + c.rows[i], at + c.rows[i] + 3, kGap) != 3) return {};
    }
  }
  return got;
}

/// Float32 sums: of up to 64 columns on the tensor core, the groups of a warp's chunks (of which
/// there are two roundings each), and eight warps.
double roundings(const Case& c) { return 72.0 + 2.0 * static_cast<double>(c.cols) / 128.0; }

bool is_right(const Case& c, int32_t n_tokens, bool accumulate = false,
              int32_t multiprocessors = simt::multiprocessors()) {
  const float before = 0.75F;
  const auto got = multiply(c, n_tokens, accumulate, before, multiprocessors);
  if (got.size() != c.rows.size()) return false;
  for (size_t p = 0; p < got.size(); ++p) {
    for (size_t i = 0; i < got[p].size(); ++i) {
      const double want = c.sums[p][i] + (accumulate ? double{before} : 0);
      // Where there is a minimum, what it takes away had been added: three times the bound.
      const double room = 3 * c.bounds[p][i] * roundings(c) * 0x1p-24 + std::abs(want) * 0x1p-23;
      if (!(std::abs(got[p][i] - want) <= room)) return false;
    }
  }
  return true;
}

std::string name(const Case& c) {
  return std::string(dtype_traits(c.type).name) + " " + std::to_string(c.rows[0]) + " x " +
         std::to_string(c.cols);
}

TEST(CudaTensorGemv, EqualsAFloat64Loop) {
  for (const DType type : kTypes) {
    // One chunk, fewer than warps, as many, more, and more than the stages of all warps hold.
    for (const int64_t cols : {256, 768, 2048, 2304, 8 * 256 * 5 + 256}) {
      const Case c = make_case(type, {cols > 2304 ? 5 : 37}, cols, 5);
      EXPECT_TRUE(is_right(c, 1)) << name(c) << simt::take_report_text();
      EXPECT_TRUE(is_right(c, 5)) << name(c) << simt::take_report_text();
      EXPECT_TRUE(is_right(c, 5, false, 1)) << name(c) << simt::take_report_text();  // four warps
    }
  }
  const Case c = make_case(DType::kBF16, {3}, 64, 2);
  EXPECT_TRUE(is_right(c, 2)) << simt::take_report_text();
}

TEST(CudaTensorGemv, MultipliesSeveralMatricesAtOnce) {
  for (const DType type : kTypes) {
    const Case c = make_case(type, {40, 1, 33}, 512, 3);
    EXPECT_TRUE(is_right(c, 3)) << name(c) << simt::take_report_text();
    EXPECT_TRUE(is_right(c, 2, true)) << name(c) << simt::take_report_text();
  }
}

TEST(CudaTensorGemv, GivesATokenTheSameBitsWhateverItsCompany) {
  for (const DType type : kTypes) {
    const Case c = make_case(type, {37}, 1280, 64);
    const auto all = multiply(c, 64, false, 0, 1);
    ASSERT_EQ(all.size(), 1U);
    for (const int32_t n : {1, 2, 8, 9, 16, 17, 32, 33}) {
      EXPECT_TRUE(is_right(c, n)) << name(c) << " tokens " << n;
      // Too few multiprocessors for more than eight warps, of which many tokens have no more.
      const auto got = multiply(c, n, false, 0, 1);
      ASSERT_EQ(got.size(), 1U);
      ASSERT_EQ(got[0].size(), static_cast<size_t>(n) * 37);
      EXPECT_EQ(std::memcmp(got[0].data(), all[0].data(), got[0].size() * sizeof(float)), 0)
          << name(c) << " tokens " << n;
    }
  }
  EXPECT_EQ(simt::take_report_text(), "");
}

TEST(CudaTensorGemv, IsRightUnderEverySchedule) {
  const Case q6 = make_case(DType::kQ6_K, {17}, 2304, 9);
  const Case q4 = make_case(DType::kQ4_K, {33}, 2304, 2);
  simt::for_each_schedule([&](const std::string& schedule) {
    EXPECT_TRUE(is_right(q6, 9)) << schedule << simt::take_report_text();
    EXPECT_TRUE(is_right(q4, 2, true)) << schedule << simt::take_report_text();
  });
}

TEST(CudaTensorGemv, NeedsEachOfItsSites) {
  // The last row's bytes end within a vector, and every warp uses its stages again.
  const Case c = make_case(DType::kQ6_K, {17}, 256 * 35, 3);
  EXPECT_THAT(simt::surviving_mutants([&] { return is_right(c, 3); }), testing::IsEmpty());
  EXPECT_EQ(simt::sites_met().size(), 7U);
}

TEST(CudaTensorGemv, RefusesWhatItCannotMultiply) {
  const Case c = make_case(DType::kQ4_0, {4}, 256, 1);
  DeviceBuffer<uint8_t> weights(c.weights[0], "weights");
  DeviceBuffer<float> x(c.unrounded, "x");
  DeviceBuffer<float> y(32, "y");
  const TensorGemvArgs good{
      {{weights.data(), y.data(), 4, 4}}, 1, c.type, 256, x.data(), 256, nullptr, 1, false, 1};
  EXPECT_EQ(tensor_gemv(good, nullptr), 0) << simt::take_report_text();
  const auto refused = [&](auto change) {
    TensorGemvArgs args = good;
    change(args);
    return tensor_gemv(args, nullptr) == kInvalid;
  };
  EXPECT_TRUE(refused([](auto& a) { a.type = DType::kQ3_K; }));
  EXPECT_TRUE(refused([](auto& a) { a.parts[0].weights += 2; }));
  EXPECT_TRUE(refused([](auto& a) { a.parts[0].weights = nullptr; }));
  EXPECT_TRUE(refused([](auto& a) { a.parts[0].y = nullptr; }));
  EXPECT_TRUE(refused([](auto& a) { a.parts[0].y_stride = 3; }));
  EXPECT_TRUE(refused([](auto& a) { a.parts[0].rows = 0; }));
  EXPECT_TRUE(refused([](auto& a) { a.n_parts = 2; }));
  EXPECT_TRUE(refused([](auto& a) { a.n_parts = 4; }));
  EXPECT_TRUE(refused([](auto& a) { a.x += 1; }));
  EXPECT_TRUE(refused([](auto& a) { a.x = nullptr; }));
  EXPECT_TRUE(refused([](auto& a) { a.x_stride = 258; }));
  EXPECT_TRUE(refused([](auto& a) { a.n_tokens = 9; })) << "nothing rounded";
  EXPECT_TRUE(refused([](auto& a) { a.multiprocessors = 0; }));
  EXPECT_TRUE(refused([](auto& a) { a.x_stride = 248; }));
  EXPECT_TRUE(refused([](auto& a) { a.cols = 288; }));
  EXPECT_TRUE(refused([](auto& a) { a.n_tokens = 0; }));
  EXPECT_TRUE(refused([](auto& a) { a.n_tokens = kMaxTensorGemvTokens + 1; }));
  for (const DType type : kDTypes) {
    EXPECT_EQ(tensor_gemv_supports(type, 256), std::ranges::count(kTypes, type) == 1)
        << dtype_traits(type).name;
  }
}

}  // namespace
}  // namespace paddock::cuda
