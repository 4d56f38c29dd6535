// Rows of every tensor type against what gguf-py makes of them, to the bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace paddock::cpu {
namespace {

struct Row {
  DType type;
  std::vector<uint8_t> bytes;
  std::vector<float> values;
};

/// The rows of dequant.bin, whose layout is in tests/golden/make_dequant_golden.py.
std::vector<Row> golden_rows() {
  std::ifstream file(std::string(PADDOCK_TEST_DATA) + "/golden/dequant.bin", std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(file), {}};
  size_t at = 0;
  const auto take = [&](void* to, size_t size) {
    if (size > all.size() - at) throw std::runtime_error("dequant.bin ends early");
    std::memcpy(to, all.data() + at, size);
    at += size;
  };
  std::vector<Row> rows;
  while (at < all.size()) {
    uint32_t header[3];  // type, values, bytes
    take(header, sizeof(header));
    Row row{static_cast<DType>(header[0]), std::vector<uint8_t>(header[2]),
            std::vector<float>(header[1])};
    take(row.bytes.data(), row.bytes.size());
    take(row.values.data(), row.values.size() * sizeof(float));
    rows.push_back(std::move(row));
  }
  return rows;
}

TEST(DequantizeGolden, HoldsEveryType) {
  std::set<std::string> names;
  for (const Row& row : golden_rows()) {
    const DTypeTraits traits = dtype_traits(row.type);
    names.insert(traits.name);
    EXPECT_GE(row.values.size(), static_cast<size_t>(8 * traits.block_values)) << traits.name;
    EXPECT_EQ(row_bytes(row.type, static_cast<int64_t>(row.values.size())),
              static_cast<int64_t>(row.bytes.size()))
        << traits.name;
  }
  EXPECT_EQ(names, (std::set<std::string>{"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1",
                                          "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}));
}

TEST(DequantizeGolden, EqualsGgufPyToTheBit) {
  for (const Row& row : golden_rows()) {
    // At an odd address: tensors need no alignment.
    std::vector<uint8_t> shifted(row.bytes.size() + 1);
    std::copy(row.bytes.begin(), row.bytes.end(), shifted.begin() + 1);
    std::vector<float> actual(row.values.size(), 12345.0F);
    dequantize_row(row.type, shifted.data() + 1, static_cast<int64_t>(actual.size()),
                   actual.data());
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(row.values[i]))
          << dtype_traits(row.type).name << " value " << i << ": " << actual[i] << " for "
          << row.values[i];
    }
  }
}

}  // namespace
}  // namespace paddock::cpu
