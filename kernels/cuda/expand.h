// Expands rows of any DType to float32 or bfloat16: what dequantize.cu and embed.cu share.
#pragma once

#include "cuda/launch.h"
#include "cuda/quant_device.h"

namespace paddock::cuda {
namespace {

constexpr int kMaxThreads = 256;

struct ExpandArgs {
  const int32_t* tokens;  // row of each output row; null: its own number
  const uint8_t* weights;
  DType type;
  int64_t row_bytes, cols;
  void* out;
  int64_t out_stride;  // elements
  bool vectors;        // rows of out are aligned to 16 bytes, cols is a multiple of 8
};

PADDOCK_DEVICE void write_eight(float* out, const float (&v)[8], bool vectors, int n) {
  if (vectors) {
    simt::store_vec(out, simt::F32x4{v[0], v[1], v[2], v[3]});
    simt::store_vec(out + 4, simt::F32x4{v[4], v[5], v[6], v[7]});
    return;
  }
  for (int i = 0; PADDOCK_CHECKED("float", i < n) && i < 8; ++i) simt::store(out + i, v[i]);
}
PADDOCK_DEVICE void write_eight(simt::Bf16* out, const float (&v)[8], bool vectors, int n) {
  uint32_t pairs[4];
  PADDOCK_UNROLL for (int i = 0; i < 4; ++i) {
    pairs[i] = simt::pack2<simt::Bf16>(v[2 * i], v[2 * i + 1]);
  }
  if (vectors) {
    simt::store_vec(out, simt::U32x4{pairs[0], pairs[1], pairs[2], pairs[3]});
    return;
  }
  for (int i = 0; PADDOCK_CHECKED("bf16", i < n) && i < 8; ++i) {
    simt::store(out + i, {static_cast<uint16_t>(pairs[i / 2] >> i % 2 * 16)});
  }
}

template <typename Out>
PADDOCK_KERNEL(kMaxThreads)
void expand_kernel(ExpandArgs args) {
  const int64_t r = args.tokens != nullptr ? simt::load_const(args.tokens + simt::block_x())
                                           : int64_t{simt::block_x()};
  const uint8_t* row = args.weights + r * args.row_bytes;
  Out* out = static_cast<Out*>(args.out) + int64_t{simt::block_x()} * args.out_stride;
  for (int64_t i = 8 * simt::thread_x(); i < args.cols; i += 8 * simt::block_size()) {
    const auto n = static_cast<int>(simt::min(args.cols - i, int64_t{8}));
    float v[8];
    decode_eight(args.type, row, i, n, v);
    write_eight(out + i, v, args.vectors, n);
  }
}

bool aligned(const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

template <typename Out>
int expand(ExpandArgs args, int64_t rows, Stream stream) {
  const DTypeTraits traits = dtype_traits(args.type);
  if (args.weights == nullptr || args.out == nullptr || rows < 1 || rows > INT32_MAX ||
      args.cols < 1 || traits.block_bytes == 0 || args.cols % traits.block_values != 0 ||
      !aligned(args.weights, args.type == DType::kF32 ? 4 : 2) || !aligned(args.out, sizeof(Out)) ||
      args.out_stride < args.cols) {
    return kInvalid;
  }
  args.row_bytes = row_bytes(args.type, args.cols);
  args.vectors = args.cols % 8 == 0 && aligned(args.out, 16) &&
                 args.out_stride * static_cast<int64_t>(sizeof(Out)) % 16 == 0;
  const int64_t warps = (args.cols + 8 * simt::kWarpSize - 1) / (8 * simt::kWarpSize);
  const int threads = warps * simt::kWarpSize < kMaxThreads
                          ? static_cast<int>(warps) * simt::kWarpSize
                          : kMaxThreads;
  return PADDOCK_LAUNCH(expand_kernel<Out>, {static_cast<uint32_t>(rows)}, threads, 0, stream,
                        args);
}

}  // namespace
}  // namespace paddock::cuda
