// Expanded matrices and rows of tables against cpu::dequantize_row, to the bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
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

struct Matrix {
  DType type;
  int64_t rows, cols;
  std::vector<uint8_t> bytes;
  std::vector<float> values;  // [rows, cols]
};

Matrix make_matrix(DType type, int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  Matrix m{type, rows, cols, test::random_row(type, rows * cols, random), {}};
  m.values.resize(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r) {
    cpu::dequantize_row(type, m.bytes.data() + r * row_bytes(type, cols), cols,
                        m.values.data() + r * cols);
  }
  return m;
}

int64_t block_values(DType type) { return dtype_traits(type).block_values; }

/// Whether all elements come out as they should. `skip` blocks make the matrix start at an address
/// that is as little aligned as its type allows.
bool expands(const Matrix& m, DType out_type, size_t skip = 0) {
  const size_t offset = skip * static_cast<size_t>(dtype_traits(m.type).block_bytes);
  DeviceBuffer<uint8_t> weights(offset + m.bytes.size(), "weights");
  weights.upload(m.bytes, offset);
  weights.freeze();
  const auto run = [&](auto& out) {
    return dequantize({weights.data() + offset, m.type, m.rows, m.cols, out.data(), out_type},
                      nullptr) == 0;
  };
  if (out_type == DType::kF32) {
    DeviceBuffer<float> out(m.values.size(), "out");
    return run(out) &&
           std::ranges::equal(out.download(), m.values, {}, std::bit_cast<uint32_t, float>,
                              std::bit_cast<uint32_t, float>);
  }
  DeviceBuffer<uint16_t> out(m.values.size(), "out");
  return run(out) && std::ranges::equal(out.download(), m.values, {}, {}, f32_to_bf16);
}

TEST(CudaDequantize, EqualsTheCpuToTheBit) {
  for (const DType type : kDTypes) {
    for (const int64_t blocks : {1, 3, 9}) {
      const Matrix m = make_matrix(type, 3, blocks * block_values(type), 7);
      for (const DType out : {DType::kF32, DType::kBF16}) {
        for (const size_t skip : {0, 1}) {
          EXPECT_TRUE(expands(m, out, skip)) << dtype_traits(type).name << " " << m.cols << " to "
                                             << dtype_traits(out).name << simt::take_report_text();
        }
      }
    }
  }
}

TEST(CudaDequantize, WalksRowsLongerThanABlockOfThreads) {
  EXPECT_TRUE(expands(make_matrix(DType::kQ4_0, 2, 2048 + 96, 1), DType::kBF16));
  EXPECT_TRUE(expands(make_matrix(DType::kBF16, 2, 4096 + 13, 2), DType::kF32));
}

bool embeds(const Matrix& m, int64_t stride) {
  const std::vector<int32_t> tokens{4, 0, 4, 2, 1};
  DeviceBuffer<uint8_t> table(m.bytes, "table");
  DeviceBuffer<int32_t> ids(tokens, "tokens");
  DeviceBuffer<float> out(static_cast<size_t>(stride) * tokens.size(), "out");
  table.freeze();
  ids.freeze();
  out.fill(-7);
  if (embed({ids.data(), table.data(), m.type, m.cols, out.data(), stride, 5}, nullptr) != 0) {
    return false;
  }
  const std::vector<float> got = out.download();
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (int64_t i = 0; i < stride; ++i) {
      const float want = i < m.cols ? m.values[static_cast<size_t>(tokens[t] * m.cols + i)] : -7.0F;
      if (got[t * static_cast<size_t>(stride) + static_cast<size_t>(i)] != want) return false;
    }
  }
  return true;
}

TEST(CudaEmbed, TakesTheRowsOfTheTokens) {
  for (const DType type : kDTypes) {
    const int64_t cols = 3 * block_values(type);
    const Matrix m = make_matrix(type, 5, cols, 3);
    for (const int64_t stride : {cols, cols + 4, cols + 1}) {
      EXPECT_TRUE(embeds(m, stride)) << dtype_traits(type).name << " " << stride;
    }
  }
}

TEST(CudaDequantize, IsRightUnderEverySchedule) {
  simt::for_each_schedule([](const std::string& schedule) {
    EXPECT_TRUE(expands(make_matrix(DType::kQ5_K, 3, 512, 4), DType::kBF16)) << schedule;
    EXPECT_TRUE(embeds(make_matrix(DType::kF16, 5, 37, 5), 40)) << schedule;
  });
  EXPECT_EQ(simt::take_report_text(), "");
}

TEST(CudaDequantize, NeedsEachOfItsSites) {
  EXPECT_THAT(simt::surviving_mutants([] {
                return expands(make_matrix(DType::kF16, 2, 11, 6), DType::kF32) &&
                       expands(make_matrix(DType::kF16, 2, 11, 6), DType::kBF16);
              }),
              testing::IsEmpty());
  EXPECT_EQ(simt::sites_met().size(), 3U);
}

TEST(CudaDequantize, RefusesWhatItCannotExpand) {
  const Matrix m = make_matrix(DType::kQ4_0, 2, 64, 1);
  DeviceBuffer<uint8_t> weights(m.bytes, "weights");
  DeviceBuffer<float> out(128, "out");
  const DequantizeArgs good{weights.data(), m.type, 2, 64, out.data(), DType::kF32};
  EXPECT_EQ(dequantize(good, nullptr), 0);
  const auto refused = [&](auto change) {
    DequantizeArgs args = good;
    change(args);
    return dequantize(args, nullptr) == kInvalid;
  };
  EXPECT_TRUE(refused([](auto& a) { a.weights = nullptr; }));
  EXPECT_TRUE(refused([](auto& a) { a.weights += 1; }));
  EXPECT_TRUE(refused([](auto& a) { a.rows = 0; }));
  EXPECT_TRUE(refused([](auto& a) { a.cols = 48; }));
  EXPECT_TRUE(refused([](auto& a) { a.out = nullptr; }));
  EXPECT_TRUE(refused([](auto& a) { a.out_type = DType::kF16; }));
  EXPECT_TRUE(refused([](auto& a) { a.type = static_cast<DType>(99); }));
  EXPECT_EQ(embed({nullptr, weights.data(), m.type, 64, out.data(), 64, 2}, nullptr), kInvalid);
  DeviceBuffer<int32_t> tokens(std::vector<int32_t>{0, 1}, "tokens");
  EXPECT_EQ(embed({tokens.data(), weights.data(), m.type, 64, out.data(), 63, 2}, nullptr),
            kInvalid);
}

}  // namespace
}  // namespace paddock::cuda
