#include "backend/cuda/products.h"

#include <algorithm>

namespace paddock::cuda {
namespace {

/// Expanded rows of a packed weight that a dense product takes at a time.
constexpr int64_t kSlabBytes = int64_t{32} << 20;
/// Up to so many tokens weights are multiplied as they are on tensor cores: with more, dense
/// products are faster, expanding the weights included (measured, docs/gpu.md).
int32_t most_tensor_tokens(DType type) {
  switch (type) {
    case DType::kBF16:
      return 8;
    case DType::kQ8_0:
    case DType::kQ6_K:
      return 32;
    default:
      return 64;
  }
}

}  // namespace

Products::Sizes Products::sizes(const BackendLimits& limits) const {
  Sizes sizes{exact_ ? 0 : uint64_t(limits.step.max_tokens) * uint64_t(limits.model.max_cols) * 2,
              0, 0};
  const int32_t n = runtime_->multiprocessors();
  for (const LinearShape& s : limits.model.linears) {
    const int64_t floats = std::max(gemv_workspace_floats(s.type, s.rows, s.cols, n),
                                    gemv_workspace_floats(DType::kF32, s.rows, s.cols, n));
    sizes.workspace = std::max(sizes.workspace, uint64_t(floats) * sizeof(float));
    sizes.slab = std::max(sizes.slab, uint64_t(slab_rows(s.rows, s.cols) * s.cols) *
                                          (exact_ ? sizeof(float) : sizeof(uint16_t)));
  }
  return sizes;
}

uint64_t Products::bytes(const BackendLimits& limits) const {
  const Sizes s = sizes(limits);
  return s.input + s.slab + s.workspace;
}

void Products::reserve(const BackendLimits& limits) {
  const Sizes s = sizes(limits);
  input_.resize(runtime_, s.input, "rounded activations");
  slab_.resize(runtime_, s.slab, "expanded weights");
  if (s.workspace == workspace_.bytes()) return;
  workspace_.resize(runtime_, s.workspace, "partial sums");
  runtime_->fill(workspace_.as<float>(), 0, s.workspace);  // it holds counters, see GemvArgs
}

int64_t Products::slab_rows(int64_t rows, int64_t cols) const {
  const int64_t bytes = cols * static_cast<int64_t>(exact_ ? sizeof(float) : sizeof(uint16_t));
  return std::min(rows, std::max<int64_t>(1, kSlabBytes / bytes));
}

void Products::multiply(std::span<const DeviceMatrix> parts, Buffer x, int32_t n,
                        std::span<const Buffer> outputs, bool accumulate) {
  bool rounded = false;  // x lies in input_ as bfloat16
  for (size_t i = 0; i < parts.size();) {
    const DeviceMatrix& w = parts[i];
    const Way way = way_for(w, x, n);
    if (way == Way::kPacked) {
      packed(w.bytes(), w.type, w.rows, w.cols, x, n, outputs[i++], accumulate);
      continue;
    }
    const bool rounds = !exact_ && (way == Way::kDense || n > kMaxUnroundedTokens);
    if (rounds && !rounded) {
      runtime_->check(
          to_bf16({x.data, x.stride, x.cols, input_.as<uint16_t>(), n}, runtime_->stream()),
          "to_bf16");
      rounded = true;
    }
    if (way == Way::kDense) {
      dense(w, x, n, outputs[i++], accumulate);
      continue;
    }
    TensorGemvArgs args{.parts = {},
                        .n_parts = 0,
                        .type = w.type,
                        .cols = w.cols,
                        .x = x.data,
                        .x_stride = x.stride,
                        .rounded = input_.as<uint16_t>(),
                        .n_tokens = n,
                        .accumulate = accumulate,
                        .multiprocessors = runtime_->multiprocessors()};
    for (; i < parts.size() && parts[i].type == w.type && args.n_parts < kMostGemvParts; ++i) {
      args.parts[args.n_parts++] = {parts[i].bytes(), outputs[i].data, outputs[i].stride,
                                    static_cast<int32_t>(parts[i].rows)};
    }
    runtime_->check(tensor_gemv(args, runtime_->stream()), "tensor_gemv");
  }
}

Products::Way Products::way_for(const DeviceMatrix& w, Buffer x, int32_t n) const {
  const bool few = exact_ || n <= kMaxGemvTokens;
  const bool aligned = x.stride % 4 == 0;
  if (!exact_ && aligned && n <= most_tensor_tokens(w.type) &&
      tensor_gemv_supports(w.type, w.cols)) {
    return Way::kTensor;
  }
  return few && aligned && gemv_supports(w.type) ? Way::kPacked : Way::kDense;
}

void Products::packed(const uint8_t* weights, DType type, int64_t rows, int64_t cols, Buffer x,
                      int32_t n, Buffer y, bool accumulate) {
  for (int32_t first = 0; first < n; first += kMaxGemvTokens) {
    const GemvArgs args{.weights = weights,
                        .type = type,
                        .rows = rows,
                        .cols = cols,
                        .x = x.data + first * x.stride,
                        .x_stride = x.stride,
                        .y = y.data + first * y.stride,
                        .y_stride = y.stride,
                        .n_tokens = std::min(kMaxGemvTokens, n - first),
                        .accumulate = accumulate,
                        .workspace = workspace_.as<float>(),
                        .multiprocessors = runtime_->multiprocessors()};
    runtime_->check(gemv(args, runtime_->stream()), "gemv");
  }
}

void Products::dense(const DeviceMatrix& w, Buffer x, int32_t n, Buffer y, bool accumulate) {
  const DType type = exact_ ? DType::kF32 : DType::kBF16;
  const void* input = exact_ ? static_cast<const void*>(x.data) : input_.as<uint16_t>();
  const int64_t input_stride = exact_ ? x.stride : x.cols;
  const int64_t most = w.type == type ? w.rows : slab_rows(w.rows, w.cols);
  for (int64_t row = 0; row < w.rows; row += most) {
    const int64_t rows = std::min(most, w.rows - row);
    const uint8_t* expanded = w.bytes() + row * row_bytes(w.type, w.cols);
    if (w.type != type) {
      runtime_->check(
          dequantize({expanded, w.type, rows, w.cols, slab_.as<void>(), type}, runtime_->stream()),
          "dequantize");
      expanded = slab_.as<uint8_t>();
    }
    Buffer part = y;
    part.data += row;
    if (exact_ && x.stride % 4 == 0) {
      packed(expanded, type, rows, w.cols, x, n, part, accumulate);
      continue;
    }
    runtime_->gemm(
        {expanded, input, input_stride, type, part.data, part.stride, rows, w.cols, n, accumulate});
  }
}

}  // namespace paddock::cuda
