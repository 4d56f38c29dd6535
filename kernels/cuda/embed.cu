// out[t] = row tokens[t] of a table of any DType, in float32.
//   tokens [n_tokens], table [rows] of row_bytes(type, cols)  ->  out [n_tokens, cols]
// A block of threads per token, 8 elements per thread at a time, as in dequantize.cu. Moves
// row_bytes(type, cols) + 4 * cols bytes per token. Test: tests/kernels/cuda_dequantize_test.cpp

//

// hot: expand_kernel
#include "cuda/expand.h"

namespace paddock::cuda {

int embed(const EmbedArgs& args, Stream stream) {
  if (args.tokens == nullptr) return kInvalid;
  return expand<float>(
      {args.tokens, args.table, args.type, 0, args.cols, args.out, args.out_stride, false},
      args.n_tokens, stream);
}

}  // namespace paddock::cuda
