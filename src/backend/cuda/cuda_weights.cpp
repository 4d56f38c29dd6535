#include "backend/cuda/cuda_weights.h"

#include "cpu/kernels.h"

namespace paddock::cuda {

std::unique_ptr<LinearWeight> CudaWeights::make_linear(std::span<const TensorView* const> parts,
                                                       uint64_t& bytes) {
  auto linear = std::make_unique<CudaLinear>();
  for (const TensorView* tensor : parts) linear->parts.push_back(matrix(*tensor, bytes));
  return linear;
}

std::unique_ptr<VectorWeight> CudaWeights::make_vector(const TensorView& tensor, uint64_t& bytes) {
  std::vector<float> values(tensor.cols());
  cpu::dequantize_row(tensor.dtype, tensor.data.data(), tensor.cols(), values.data());
  auto vector = std::make_unique<CudaVector>();
  const uint64_t size = vector_bytes(tensor);
  vector->values = DeviceArray(runtime_, size, tensor.name.c_str());
  runtime_->copy_in(vector->values.as<float>(), values.data(), size);
  runtime_->synchronize();  // `values` goes, and other engines' streams will read the copy
  bytes += size;
  return vector;
}

std::unique_ptr<EmbeddingWeight> CudaWeights::make_embedding(const TensorView& tensor,
                                                             uint64_t& bytes) {
  auto embedding = std::make_unique<CudaEmbedding>();
  embedding->table = matrix(tensor, bytes);
  return embedding;
}

DeviceMatrix CudaWeights::matrix(const TensorView& tensor, uint64_t& bytes) {
  std::weak_ptr<const DeviceArray>& known = uploaded_[tensor.data.data()];
  std::shared_ptr<const DeviceArray> data = known.lock();
  if (data == nullptr) {
    auto array = std::make_shared<DeviceArray>(runtime_, tensor.data.size(), tensor.name.c_str());
    runtime_->copy_in(array->as<uint8_t>(), tensor.data.data(), tensor.data.size());
    runtime_->synchronize();  // other engines' streams will read it
    bytes += tensor.data.size();
    data = std::move(array);
    known = data;
  }
  return {tensor.dtype, tensor.rows(), tensor.cols(), data};
}

}  // namespace paddock::cuda
