// The matrix operations of a warp, lane by lane, as the PTX manual lays out their fragments.
#include <array>
#include <cstring>

#include "cuda/device.h"

namespace paddock::simt {
namespace {

/// d += a * b for A [16][16] and B [16][8]: products and their sum in float64, one rounding.
template <typename H>
void multiply(void** operands) {
  std::array<std::array<double, 16>, 16> a{};
  std::array<std::array<double, 8>, 16> b{};
  for (int l = 0; l < kWarpSize; ++l) {
    const auto& mine = *static_cast<MmaOperand*>(operands[l]);
    const auto row = static_cast<size_t>(l / 4);
    const auto k = static_cast<size_t>(l % 4 * 2);
    const auto put = [](uint32_t pair, double& low, double& high) {
      const F32x2 values = unpack2<H>(pair);
      low = values.x;
      high = values.y;
    };
    for (size_t i = 0; i < 4; ++i) {
      auto& to = a[row + i % 2 * 8];
      put(mine.a[i], to[k + i / 2 * 8], to[k + i / 2 * 8 + 1]);
    }
    for (size_t i = 0; i < 2; ++i) put(mine.b[i], b[k + i * 8][row], b[k + i * 8 + 1][row]);
  }
  for (int l = 0; l < kWarpSize; ++l) {
    const auto& mine = *static_cast<MmaOperand*>(operands[l]);
    for (size_t i = 0; i < 4; ++i) {
      const size_t row = static_cast<size_t>(l / 4) + i / 2 * 8;
      const size_t column = static_cast<size_t>(l % 4 * 2) + i % 2;
      double sum = mine.d[i];
      for (size_t k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      mine.d[i] = static_cast<float>(sum);
    }
  }
}

}  // namespace

void mma_bf16(void** operands) { multiply<Bf16>(operands); }
void mma_f16(void** operands) { multiply<F16>(operands); }

void load_matrices(void** operands, int n_matrices, bool transposed) {
  const auto element = [&](int matrix, int row, int column) {
    uint16_t bits = 0;
    std::memcpy(&bits, static_cast<MatrixOperand*>(operands[8 * matrix + row])->row + 2 * column,
                2);
    return uint32_t{bits};
  };
  for (int l = 0; l < kWarpSize; ++l) {
    for (int i = 0; i < n_matrices; ++i) {
      const int a = l / 4;
      const int b = l % 4 * 2;
      const uint32_t low = transposed ? element(i, b, a) : element(i, a, b);
      const uint32_t high = transposed ? element(i, b + 1, a) : element(i, a, b + 1);
      static_cast<MatrixOperand*>(operands[l])->r[i] = low | high << 16;
    }
  }
}

}  // namespace paddock::simt
