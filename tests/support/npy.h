// Reads float32 matrices of NumPy files (version 1, C order), as the golden scripts write them.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace paddock::test {

struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;

  const float* row(int64_t i) const { return values.data() + i * cols; }
};

inline Matrix read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (bytes.size() < 10 || bytes.compare(0, 8, std::string("\x93NUMPY\x01\x00", 8)) != 0) {
    throw std::runtime_error("not a NumPy file: " + path);
  }
  const size_t header = 10 + static_cast<uint8_t>(bytes[8]) + 256 * static_cast<uint8_t>(bytes[9]);
  const std::string text = bytes.substr(10, header - 10);
  long long rows = 0;
  long long cols = 0;
  const size_t shape = text.find("'shape': (");
  if (text.find("'<f4'") == std::string::npos ||
      text.find("'fortran_order': False") == std::string::npos || shape == std::string::npos ||
      std::sscanf(text.c_str() + shape, "'shape': (%lld, %lld)", &rows, &cols) != 2 ||
      bytes.size() != header + static_cast<size_t>(rows * cols) * sizeof(float)) {
    throw std::runtime_error("not a float32 matrix: " + path);
  }
  Matrix matrix{rows, cols, std::vector<float>(static_cast<size_t>(rows * cols))};
  std::memcpy(matrix.values.data(), bytes.data() + header, matrix.values.size() * sizeof(float));
  return matrix;
}

}  // namespace paddock::test
