// Weights on a device, byte for byte as in their file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "backend/cuda/device_runtime.h"
#include "backend/weights.h"

namespace paddock::cuda {

struct DeviceMatrix {
  DType type = DType::kF32;
  int64_t rows = 0, cols = 0;
  std::shared_ptr<const DeviceArray> data;
  const uint8_t* bytes() const { return data->as<uint8_t>(); }
};

struct CudaLinear final : LinearWeight {
  std::vector<DeviceMatrix> parts;
};
struct CudaVector final : VectorWeight {
  DeviceArray values;  // float32
};
struct CudaEmbedding final : EmbeddingWeight {
  DeviceMatrix table;
};

class CudaWeights final : public WeightStore {
 public:
  explicit CudaWeights(std::shared_ptr<DeviceRuntime> runtime) : runtime_(std::move(runtime)) {}

  std::string weights_key() const override { return runtime_->name(); }
  bool repacks() const override { return true; }
  /// From the shape: the bytes themselves may not be there, where somebody only asks.
  uint64_t linear_bytes(const TensorView& tensor) const override {
    return static_cast<uint64_t>(tensor.rows() * row_bytes(tensor.dtype, tensor.cols()));
  }
  uint64_t embedding_bytes(const TensorView& tensor) const override { return linear_bytes(tensor); }
  std::unique_ptr<LinearWeight> make_linear(std::span<const TensorView* const> parts,
                                            uint64_t& bytes) override;
  std::unique_ptr<VectorWeight> make_vector(const TensorView& tensor, uint64_t& bytes) override;
  std::unique_ptr<EmbeddingWeight> make_embedding(const TensorView& tensor,
                                                  uint64_t& bytes) override;

 private:
  /// A tensor given twice (tied embeddings) lies there once. What is taken is added to `bytes`.
  DeviceMatrix matrix(const TensorView& tensor, uint64_t& bytes);

  std::shared_ptr<DeviceRuntime> runtime_;
  std::unordered_map<const std::byte*, std::weak_ptr<const DeviceArray>> uploaded_;
};

}  // namespace paddock::cuda
