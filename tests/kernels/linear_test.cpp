// Linear layers of every type and instruction set against float64 loops, and the bits they owe.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/linear_pack.h"
#include "half.h"

namespace paddock::cpu {
namespace {

enum class Values { kAny, kExtreme };

/// Random blocks whose f16 fields are small finite numbers. Extreme: each other byte has all of its
/// nibbles' lowest or highest values.
std::vector<uint8_t> random_weights(DType type, int64_t rows, int64_t cols, Values values,
                                    std::mt19937& random) {
  const DTypeTraits traits = dtype_traits(type);
  std::vector<uint8_t> bytes(static_cast<size_t>(rows * row_bytes(type, cols)));
  constexpr uint8_t kExtremes[] = {0x00, 0x7F, 0x80, 0xFF};
  // Rows of one and the same extreme, and mixed ones.
  for (size_t i = 0; i < bytes.size(); ++i) {
    const size_t row = i / static_cast<size_t>(row_bytes(type, cols));
    const auto any = static_cast<uint8_t>(random());
    bytes[i] = values == Values::kAny ? any : kExtremes[row % 5 < 4 ? row % 5 : any % 4];
  }
  const auto put_f16 = [&](uint8_t* at) {
    const auto h = static_cast<uint16_t>(0x2000 + random() % 0x0800 + (random() % 2) * 0x8000);
    std::memcpy(at, &h, 2);
  };
  for (size_t at = 0; at < bytes.size(); at += traits.block_bytes) {
    uint8_t* block = bytes.data() + at;
    switch (type) {
      case DType::kF32: {
        const float f = static_cast<float>(random() % 2001) / 1000.0F - 1.0F;
        std::memcpy(block, &f, 4);
        break;
      }
      case DType::kBF16: {
        const auto h = static_cast<uint16_t>(0x3E00 + random() % 0x0180 + (random() % 2) * 0x8000);
        std::memcpy(block, &h, 2);
        break;
      }
      case DType::kF16:
        put_f16(block);
        break;
      case DType::kQ2_K:
        put_f16(block + 80), put_f16(block + 82);
        break;
      case DType::kQ3_K:
        put_f16(block + 108);
        break;
      case DType::kQ6_K:
        put_f16(block + 208);
        break;
      case DType::kQ4_K:
      case DType::kQ5_K:
      case DType::kQ4_1:
      case DType::kQ5_1:
        put_f16(block), put_f16(block + 2);
        break;
      default:
        put_f16(block);
    }
  }
  return bytes;
}

struct Case {
  DType type;
  int64_t rows, cols;
  std::vector<uint8_t> weights;
  std::vector<float> decoded;  // [rows, cols]
};

Case make_case(DType type, int64_t rows, int64_t cols, uint32_t seed,
               Values values = Values::kAny) {
  std::mt19937 random(seed);
  Case c{type, rows, cols, random_weights(type, rows, cols, values, random), {}};
  c.decoded.resize(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r) {
    dequantize_row(type, c.weights.data() + r * row_bytes(type, cols), cols,
                   c.decoded.data() + r * cols);
  }
  return c;
}

std::vector<float> random_input(int64_t n, int64_t cols) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(n * cols));
  for (float& v : x) v = normal(random);
  x[1] = 40.0F;  // an outlier
  return x;
}

std::vector<float> fast(const Kernels& k, const Case& c, const std::vector<float>& x, int64_t n,
                        bool accumulate = false) {
  const int32_t format = k.packed_format(c.type);
  std::vector<uint8_t> packed(static_cast<size_t>(k.packed_linear_bytes(format, c.rows, c.cols)) +
                              64);
  std::vector<uint8_t> input(static_cast<size_t>(k.input_bytes(format, n, c.cols)) + 64);
  const auto align = [](std::vector<uint8_t>& v) {
    return v.data() + (64 - reinterpret_cast<uintptr_t>(v.data()) % 64) % 64;
  };
  const PackedLinear w{c.type, format, c.rows, c.cols, align(packed)};
  const PackedInput in{align(input), format, n, c.cols};
  const int64_t groups = (c.rows + 15) / 16;
  k.pack_linear(c.type, c.weights.data(), w, align(packed), 0, groups);
  k.pack_input(x.data(), c.cols, in, 0, n);
  const int64_t stride = c.rows + 3;
  std::vector<float> y(static_cast<size_t>(n * stride), 2.5F);
  // In two parts, as two threads would.
  k.linear(w, in, y.data(), stride, accumulate, 0, groups / 2);
  k.linear(w, in, y.data(), stride, accumulate, groups / 2, groups);
  std::vector<float> out;
  for (int64_t t = 0; t < n; ++t) {
    out.insert(out.end(), y.begin() + t * stride, y.begin() + t * stride + c.rows);
    for (int64_t i = c.rows; i < stride; ++i) EXPECT_EQ(y[t * stride + i], 2.5F) << "overrun";
  }
  return out;
}

/// The activations as the integer kernels round them: 8 bits per 32 values.
std::vector<float> rounded(const std::vector<float>& x) {
  std::vector<float> out(x.size());
  for (size_t b = 0; b < x.size(); b += 32) {
    float largest = 0;
    for (size_t i = b; i < b + 32; ++i) largest = std::max(largest, std::fabs(x[i]));
    for (size_t i = b; i < b + 32; ++i) {
      out[i] = std::nearbyint(x[i] * (127.0F / largest)) * (largest / 127.0F);
    }
  }
  return out;
}

/// The activations as kernels on pairs of bfloat16 round them.
std::vector<float> rounded_to_bf16(const std::vector<float>& x) {
  std::vector<float> out;
  for (const float v : x) out.push_back(bf16_to_f32(f32_to_bf16(v)));
  return out;
}

/// What an instruction set makes of activations before it multiplies.
std::vector<float> as_seen(const Kernels& k, DType type, const std::vector<float>& x) {
  if (dtype_traits(type).block_values > 1) return rounded(x);
  return type == DType::kBF16 && k.packed_format(type) != kBFloat16 ? rounded_to_bf16(x) : x;
}

class Linear : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!isa_supported(GetParam()))
      GTEST_SKIP() << isa_name(GetParam()) << " is not supported here";
  }
};

/// What row r makes of token t, in float64, and what its products come to without their signs.
struct Product {
  double sum = 0, size = 0;
};
Product product(const Case& c, int64_t r, const std::vector<float>& x, int64_t t) {
  Product out;
  for (int64_t i = 0; i < c.cols; ++i) {
    const double p = double{c.decoded[r * c.cols + i]} * x[t * c.cols + i];
    out.sum += p;
    out.size += std::fabs(p);
  }
  return out;
}

/// y against the float64 loop over the decoded weights and what is seen of the activations.
void expect_products(const Case& c, int64_t n, const std::vector<float>& seen,
                     const std::vector<float>& y) {
  double magnitude = 0;
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t r = 0; r < c.rows; ++r) {
      const auto [sum, size] = product(c, r, seen, t);
      magnitude += std::fabs(sum);
      ASSERT_NEAR(y[t * c.rows + r], sum, 2e-6 * size)
          << dtype_traits(c.type).name << " n " << n << " row " << r;
    }
  }
  EXPECT_GT(magnitude, 1.0);
}

TEST_P(Linear, EqualsFloat64Loop) {
  const Kernels& k = kernels(GetParam());
  for (const DType type : kDTypes) {
    const Case c = make_case(type, 37, 512, 11 + static_cast<uint32_t>(type));
    for (const int64_t n : {1, 2, 3, 5, 8, 9, 17}) {
      const std::vector<float> x = random_input(n, c.cols);
      expect_products(c, n, as_seen(k, type, x), fast(k, c, x, n));
    }
  }
}

// Sums of few products may be kept in 16 bits: the largest that can be must fit.
TEST_P(Linear, LosesNothingOfTheLargestProducts) {
  const Kernels& k = kernels(GetParam());
  for (const DType type : kDTypes) {
    if (dtype_traits(type).block_values == 1) continue;
    const Case c = make_case(type, 37, 512, 4, Values::kExtreme);
    for (const int64_t n : {1, 2, 5, 8, 12}) {
      std::mt19937 random(6);
      std::vector<float> x(static_cast<size_t>(n * c.cols));
      for (size_t i = 0; i < x.size(); ++i) {
        const auto any = random();
        const size_t part = i / 64 % 3;  // all alike, alternating, mixed
        x[i] = part == 0 || (part == 1 ? i % 2 == 0 : any % 2 == 0) ? 2.0F : -2.0F;
      }
      expect_products(c, n, as_seen(k, type, x), fast(k, c, x, n));
    }
  }
}

/// Each of the first tokens of x on its own.
std::vector<float> one_by_one(const Kernels& k, const Case& c, const std::vector<float>& x,
                              int64_t n) {
  std::vector<float> out;
  for (int64_t t = 0; t < n; ++t) {
    const std::vector<float> row(x.begin() + t * c.cols, x.begin() + (t + 1) * c.cols);
    const std::vector<float> alone = fast(k, c, row, 1);
    out.insert(out.end(), alone.begin(), alone.end());
  }
  return out;
}

TEST_P(Linear, OneTokenGetsTheSameBitsInAnyBatch) {
  const Kernels& k = kernels(GetParam());
  for (const DType type : kDTypes) {
    const Case c = make_case(type, 48, 512, 3);
    const std::vector<float> x = random_input(40, c.cols);
    const std::vector<float> alone = one_by_one(k, c, x, 40);
    for (int64_t n = 1; n <= 40; ++n) {
      const std::vector<float> together = fast(k, c, x, n);
      ASSERT_EQ(std::memcmp(alone.data(), together.data(), together.size() * sizeof(float)), 0)
          << dtype_traits(type).name << ", " << n << " tokens";
    }
  }
}

/// Numbers of columns that end within a panel, as far as the type's blocks allow.
std::vector<int64_t> odd_cols(DType type) {
  const int64_t block = dtype_traits(type).block_values;
  if (block == 1) return {13, 128, 129, 397};
  return block == 32 ? std::vector<int64_t>{32, 288, 608} : std::vector<int64_t>{256, 768};
}

// Rows and tokens are taken in tiles, tokens in batches of tiles, columns in panels: whatever is
// left over at an end gets the bits that it gets alone.
TEST_P(Linear, TokensGetTheSameBitsInTilesOfAnySize) {
  const Kernels& k = kernels(GetParam());
  for (const DType type : kDTypes) {
    for (const int64_t rows : {1, 15, 33, 49, 100, 131}) {
      const Case c = make_case(type, rows, odd_cols(type)[rows % 2], 3);
      const std::vector<float> x = random_input(300, c.cols);
      const std::vector<float> alone = one_by_one(k, c, x, 300);
      for (const int64_t n : {9, 17, 31, 127, 128, 129, 145, 300}) {
        const std::vector<float> together = fast(k, c, x, n);
        ASSERT_EQ(std::memcmp(alone.data(), together.data(), together.size() * sizeof(float)), 0)
            << dtype_traits(type).name << " " << rows << " rows, " << n << " tokens";
      }
    }
  }
}

// Long rows, so that a batch is as small as it gets.
TEST_P(Linear, TokensGetTheSameBitsInSmallBatches) {
  const Kernels& k = kernels(GetParam());
  for (const DType type : {DType::kQ8_0, DType::kQ4_K, DType::kBF16}) {
    const Case c = make_case(type, 33, 16384, 3);
    const std::vector<float> x = random_input(67, c.cols);
    const std::vector<float> alone = one_by_one(k, c, x, 67);
    const std::vector<float> together = fast(k, c, x, 67);
    ASSERT_EQ(std::memcmp(alone.data(), together.data(), together.size() * sizeof(float)), 0);
  }
}

TEST_P(Linear, ManyTokensEqualFloat64Loop) {
  const Kernels& k = kernels(GetParam());
  for (const DType type : kDTypes) {
    for (const int64_t cols : odd_cols(type)) {
      const Case c = make_case(type, 83, cols, 11);
      for (const int64_t n : {9, 40, 133}) {
        const std::vector<float> x = random_input(n, c.cols);
        expect_products(c, n, as_seen(k, type, x), fast(k, c, x, n));
      }
    }
  }
}

// Whatever the instruction set, whole numbers are the same ones.
TEST_P(Linear, ActivationsBecomeTheSameWholeNumbers) {
  const Kernels& k = kernels(GetParam());
  const int64_t n = 3, cols = 608;
  std::vector<float> x = random_input(n, cols);
  for (size_t i = 0; i < 32; ++i)
    x[64 + i] = 0, x[128 + i] = 1e-38F, x[96 + i] = (i % 2 == 0 ? 127.5F : -0.5F) - i;
  const auto packed = [&](const Kernels& by) {
    const int32_t format = by.packed_format(DType::kQ8_0);
    std::vector<uint8_t> bytes(static_cast<size_t>(by.input_bytes(format, n, cols)) + 64);
    uint8_t* data = bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
    by.pack_input(x.data(), cols, {data, format, n, cols}, 0, 2);
    by.pack_input(x.data(), cols, {data, format, n, cols}, 2, n);
    return std::vector<uint8_t>(data, data + bytes.size() - 64);
  };
  EXPECT_EQ(packed(k), packed(kernels(Isa::kPortable)));
}

// An infinite or undefined activation must not vanish when it becomes a whole number.
TEST_P(Linear, WhatIsNotFiniteIsCarriedOn) {
  const Kernels& k = kernels(GetParam());
  for (const DType type : kDTypes) {
    const Case c = make_case(type, 20, 512, 3);
    for (const float bad : {INFINITY, -INFINITY, NAN, -NAN}) {
      for (const size_t at : {0, 17, 511}) {
        std::vector<float> x(12 * 512, 1.0F);
        x[512 + at] = bad;
        const std::vector<float> y = fast(k, c, x, 12);
        for (int64_t r = 0; r < c.rows; ++r) {
          ASSERT_TRUE(std::isfinite(y[r])) << dtype_traits(type).name;
          // A weight of zero times what is infinite is undefined, so that it shows in every row.
          ASSERT_FALSE(std::isfinite(y[c.rows + r]))
              << dtype_traits(type).name << " " << bad << " at " << at << ", row " << r;
        }
      }
    }
  }
}

/// The packed bytes, made in one go or group by group.
std::vector<uint8_t> packed(const Kernels& k, const Case& c, bool is_split) {
  const int32_t format = k.packed_format(c.type);
  std::vector<uint8_t> out(static_cast<size_t>(k.packed_linear_bytes(format, c.rows, c.cols)));
  const PackedLinear w{c.type, format, c.rows, c.cols, out.data()};
  const int64_t groups = (c.rows + kGroupRows - 1) / kGroupRows;
  for (int64_t g = 0; g < groups; g += is_split ? 1 : groups) {
    k.pack_linear(c.type, c.weights.data(), w, out.data(), g, is_split ? g + 1 : groups);
  }
  return out;
}

TEST_P(Linear, PacksTheSameBytesHoweverManyShareTheWork) {
  const Kernels& k = kernels(GetParam());
  for (const DType type : kDTypes) {
    const Case c = make_case(type, 37, 512, 3);
    EXPECT_EQ(packed(k, c, true), packed(k, c, false)) << dtype_traits(type).name;
  }
}

// Whole groups are turned by vectors as far as these go, the rest value by value.
TEST_P(Linear, PacksFloatsColumnByColumn) {
  const Kernels& k = kernels(GetParam());
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    const int64_t size = dtype_traits(type).block_bytes;
    const int32_t format = k.packed_format(type);
    const int64_t width = format == kBFloat16Pairs || format == kBFloat16Tiles ? 2 : 1;
    const int64_t whole = format == kBFloat16Tiles ? 32 : width;
    for (const int64_t cols : {1, 15, 32, 77, 128}) {
      const Case c = make_case(type, 37, cols, 3);
      const std::vector<uint8_t> bytes = packed(k, c, false);
      const int64_t columns = (cols + whole - 1) / whole * whole;
      for (int64_t r = 0; r < 48; ++r) {
        for (int64_t i = 0; i < columns; ++i) {
          const int64_t at = r / 16 * 16 * columns + (i / width * 16 + r % 16) * width + i % width;
          const std::vector<uint8_t> got(bytes.begin() + at * size,
                                         bytes.begin() + (at + 1) * size);
          std::vector<uint8_t> expected(static_cast<size_t>(size));  // padding is 0
          if (r < c.rows && i < cols) {
            const auto from = c.weights.begin() + (r * cols + i) * size;
            expected.assign(from, from + size);
          }
          ASSERT_EQ(got, expected)
              << dtype_traits(type).name << " row " << r << " column " << i << " of " << cols;
        }
      }
    }
  }
}

TEST_P(Linear, AccumulatesOntoWhatIsThere) {
  const Kernels& k = kernels(GetParam());
  for (const DType type : {DType::kQ4_1, DType::kF16, DType::kBF16}) {
    const Case c = make_case(type, 21, 160, 9);
    for (const int64_t n : {3, 20}) {
      const std::vector<float> x = random_input(n, c.cols);
      const std::vector<float> plain = fast(k, c, x, n);
      const std::vector<float> onto = fast(k, c, x, n, true);
      for (size_t i = 0; i < plain.size(); ++i) ASSERT_EQ(onto[i], plain[i] + 2.5F);
    }
  }
}

TEST_P(Linear, FloatColumnsMayBeAnyNumber) {
  const Kernels& k = kernels(GetParam());
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    const Case c = make_case(type, 5, 13, 2);
    const std::vector<float> x = random_input(2, c.cols);
    const std::vector<float> seen = as_seen(k, type, x);
    const std::vector<float> y = fast(k, c, x, 2);
    for (int64_t r = 0; r < c.rows; ++r) {
      EXPECT_NEAR(y[r], product(c, r, seen, 0).sum, 1e-4);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, Linear, testing::ValuesIn(kIsas),
                         [](const auto& tested) { return std::string(isa_name(tested.param)); });

TEST(LinearReference, EqualsFloat64AndIgnoresTheBatch) {
  const Kernels& k = kernels(Isa::kPortable);
  std::vector<float> scratch(1024);
  for (const DType type : kDTypes) {
    const Case c = make_case(type, 7, 512, 21);
    const int64_t n = 9;
    const std::vector<float> x = random_input(n, c.cols);
    std::vector<float> y(static_cast<size_t>(n * c.rows));
    k.linear_reference(type, c.weights.data(), c.cols, x.data(), c.cols, n, y.data(), c.rows, false,
                       0, c.rows, scratch.data());
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t r = 0; r < c.rows; ++r) {
        const auto [sum, size] = product(c, r, x, t);
        ASSERT_NEAR(y[t * c.rows + r], sum, 1e-6 * size);
        float alone = 0;
        k.linear_reference(type, c.weights.data() + r * row_bytes(type, c.cols), c.cols,
                           x.data() + t * c.cols, c.cols, 1, &alone, 1, false, 0, 1,
                           scratch.data());
        ASSERT_EQ(alone, y[t * c.rows + r]);
      }
    }
  }
}

}  // namespace
}  // namespace paddock::cpu
