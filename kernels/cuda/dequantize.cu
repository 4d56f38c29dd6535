// out = a matrix of any DType, expanded to float32 or bfloat16.
//   weights [rows] of row_bytes(type, cols)  ->  out [rows, cols]
// A block of threads per row; a thread expands 8 elements at a time, so that a warp writes 512
// (bf16) or 1024 (f32) bytes of a row in 16-byte vectors. Moves row_bytes(type, cols) + 2 or 4 *
// cols bytes per row. Weights are aligned to 2 bytes (F32: 4), out to its elements.
// Test: tests/kernels/cuda_dequantize_test.cpp

//

// hot: expand_kernel
#include "cuda/expand.h"

namespace paddock::cuda {

int dequantize(const DequantizeArgs& args, Stream stream) {
  const ExpandArgs expanded{nullptr,   args.weights, args.type, 0,
                            args.cols, args.out,     args.cols, false};
  if (args.out_type == DType::kF32) return expand<float>(expanded, args.rows, stream);
  if (args.out_type == DType::kBF16) return expand<simt::Bf16>(expanded, args.rows, stream);
  return kInvalid;
}

}  // namespace paddock::cuda
