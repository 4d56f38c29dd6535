// Products with weights as they lie on a device.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "backend/backend.h"
#include "backend/cuda/cuda_weights.h"
#include "backend/cuda/device_runtime.h"

namespace paddock::cuda {

/// Few tokens are multiplied with the packed weights, on tensor cores where the type allows; more
/// by dense products over weights expanded slab by slab to bfloat16. Where it has to be exact,
/// packed float32 products do it all, kMaxGemvTokens tokens at a time (from types that have none by
/// way of float32): a token's bits then do not depend on its company. Only where rows of x are no
/// multiple of 16 bytes a dense float32 product takes their place.
class Products {
 public:
  Products(std::shared_ptr<DeviceRuntime> runtime, bool exact)
      : runtime_(std::move(runtime)), exact_(exact) {}

  /// Bytes that reserve() takes.
  uint64_t bytes(const BackendLimits& limits) const;
  void reserve(const BackendLimits& limits);

  /// outputs[i] (=, or += when accumulate) x W_i^T for n tokens.
  void multiply(std::span<const DeviceMatrix> parts, Buffer x, int32_t n,
                std::span<const Buffer> outputs, bool accumulate);

 private:
  struct Sizes {
    uint64_t input, slab, workspace;
  };
  Sizes sizes(const BackendLimits& limits) const;
  int64_t slab_rows(int64_t rows, int64_t cols) const;
  enum class Way { kPacked, kTensor, kDense };
  Way way_for(const DeviceMatrix& w, Buffer x, int32_t n) const;
  void packed(const uint8_t* weights, DType type, int64_t rows, int64_t cols, Buffer x, int32_t n,
              Buffer y, bool accumulate);
  void dense(const DeviceMatrix& w, Buffer x, int32_t n, Buffer y, bool accumulate);

  std::shared_ptr<DeviceRuntime> runtime_;
  bool exact_;
  DeviceArray input_;      // [max_tokens, max_cols] bfloat16
  DeviceArray slab_;       // expanded rows
  DeviceArray workspace_;  // partial sums
};

}  // namespace paddock::cuda
