// A named, typed view of bytes that somebody else owns (usually a mapped file).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dtype.h"

namespace paddock {

struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // row-major, slowest first, as Hugging Face writes it: [rows, cols]
  std::span<const std::byte> data;  // exactly rows * row_bytes(dtype, cols) bytes, checked

  int64_t rows() const { return shape.size() < 2 ? 1 : shape[0]; }
  int64_t cols() const { return shape.empty() ? 1 : shape.back(); }
};

}  // namespace paddock
