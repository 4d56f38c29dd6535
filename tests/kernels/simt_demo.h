// Launchers of the demonstration kernels; they show the shape of kernels/cuda/launch.h.
#pragma once

#include "cuda/device.h"

namespace paddock::demo {

struct SoftmaxArgs {
  const float* x;  // [n_rows, n_columns]
  float* y;        // [n_rows, n_columns]
  int32_t n_rows;
  int32_t n_columns;
};
struct MatmulArgs {
  const simt::Bf16* a;  // [m, k]
  const simt::Bf16* w;  // [n, k]
  float* c;             // [m, n] = a * transposed w
  int32_t m, n, k;      // k is a multiple of 8
};
struct HistogramArgs {
  const uint8_t* x;  // [n]
  uint32_t* counts;  // [256], added to
  int32_t n;
};
struct SumArgs {
  const float* x;      // [n]
  float* partial;      // [n_blocks]
  uint32_t* finished;  // [1], zero before and after
  float* sum;          // [1]
  int32_t n;
};

int softmax(const SoftmaxArgs& args, simt::Stream stream);
int matmul(const MatmulArgs& args, simt::Stream stream);
int histogram(const HistogramArgs& args, simt::Stream stream);
int sum(const SumArgs& args, int n_blocks, simt::Stream stream);

}  // namespace paddock::demo
