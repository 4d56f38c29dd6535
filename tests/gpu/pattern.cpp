#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <random>

#include "cpu/kernels.h"
#include "gpu/scene.h"
#include "half.h"
#include "support/random_blocks.h"

namespace paddock::bench {

int Turns::sets(int64_t bytes_each) const {
  const int64_t needed = cold_bytes / std::max<int64_t>(bytes_each, 1) + 1;
  return static_cast<int>(std::min<int64_t>(needed, most_sets));
}

double finite(std::span<const float> values) {
  const bool all =
      std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
  return all ? 0.0 : kBroken;
}

namespace {

/// A prime, so that rows, pages and sets all begin elsewhere in the pattern.
int64_t pattern_values(DType type) {
  const int32_t block = dtype_traits(type).block_values;
  return block == 1 ? 1'000'003 : int64_t{50'021} * block;
}

}  // namespace

Pattern::Pattern(DType type) : type_(type), count_(pattern_values(type)) {
  std::mt19937 random(static_cast<uint32_t>(type) + 1);
  bytes_ = test::random_row(type, count_, random);
}

const Pattern& Pattern::of(DType type) {
  static std::map<DType, std::unique_ptr<Pattern>> all;
  std::unique_ptr<Pattern>& pattern = all[type];
  if (pattern == nullptr) pattern.reset(new Pattern(type));
  return *pattern;
}

float Pattern::value(int64_t i) const {
  const uint8_t* from = &bytes_[static_cast<size_t>(row_bytes(type_, i % count_))];
  if (type_ == DType::kF32) {
    float f = 0;
    std::memcpy(&f, from, sizeof(f));
    return f;
  }
  uint16_t half = 0;
  std::memcpy(&half, from, sizeof(half));
  return type_ == DType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
}

std::vector<float> Pattern::row(int64_t first, int64_t n) const {
  std::vector<float> values(static_cast<size_t>(n));
  for (int64_t i = 0; i < n;) {
    const int64_t from = (first + i) % count_;
    const int64_t part = std::min(n - i, count_ - from);
    cpu::dequantize_row(type_, &bytes_[static_cast<size_t>(row_bytes(type_, from))], part,
                        &values[static_cast<size_t>(i)]);
    i += part;
  }
  return values;
}

template <typename T>
void Pattern::fill_with(simt::DeviceBuffer<T>& to) const {
  const std::span<const T> values(reinterpret_cast<const T*>(bytes_.data()),
                                  bytes_.size() / sizeof(T));
  for (size_t at = 0; at < to.size(); at += values.size()) {
    to.upload(values.first(std::min(values.size(), to.size() - at)), at);
  }
}
void Pattern::fill(simt::DeviceBuffer<uint8_t>& to) const { fill_with(to); }
void Pattern::fill(simt::DeviceBuffer<float>& to) const { fill_with(to); }
void Pattern::fill(simt::DeviceBuffer<uint16_t>& to) const { fill_with(to); }

}  // namespace paddock::bench
