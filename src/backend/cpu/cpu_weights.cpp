#include "backend/cpu/cpu_weights.h"

#include <fmt/format.h>

namespace paddock {

std::string CpuWeights::weights_key() const {
  return device_.reference ? "cpu/reference"
                           : fmt::format("cpu/{}", cpu::isa_name(device_.kernels.isa));
}

uint64_t CpuWeights::linear_bytes(const TensorView& tensor) const {
  if (device_.reference) return 0;
  return static_cast<uint64_t>(device_.kernels.packed_linear_bytes(
      device_.kernels.packed_format(tensor.dtype), tensor.rows(), tensor.cols()));
}

std::unique_ptr<LinearWeight> CpuWeights::make_linear(std::span<const TensorView* const> parts,
                                                      uint64_t& bytes) {
  auto linear = std::make_unique<CpuLinear>();
  for (const TensorView* tensor : parts) {
    CpuLinear::Part part{
        tensor->dtype, tensor->rows(), tensor->cols(), tensor->data.data(), {}, {}};
    if (!device_.reference) pack(*tensor, part);
    bytes += part.storage.size();
    linear->parts.push_back(std::move(part));
  }
  return linear;
}

std::unique_ptr<VectorWeight> CpuWeights::make_vector(const TensorView& tensor, uint64_t& bytes) {
  auto vector = std::make_unique<CpuVector>();
  vector->values.resize(tensor.cols());
  cpu::dequantize_row(tensor.dtype, tensor.data.data(), tensor.cols(), vector->values.data());
  bytes += vector_bytes(tensor);
  return vector;
}

std::unique_ptr<EmbeddingWeight> CpuWeights::make_embedding(const TensorView& tensor, uint64_t&) {
  auto embedding = std::make_unique<CpuEmbedding>();
  embedding->type = tensor.dtype;
  embedding->rows = tensor.rows();
  embedding->cols = tensor.cols();
  embedding->data = tensor.data.data();
  return embedding;
}

void CpuWeights::pack(const TensorView& tensor, CpuLinear::Part& part) {
  const int32_t format = device_.kernels.packed_format(tensor.dtype);
  // Packing writes to every page of it: each group has rows.
  part.storage = AlignedBuffer::untouched(linear_bytes(tensor), tensor.name.c_str());
  part.packed = {tensor.dtype, format, part.rows, part.cols, part.storage.data()};
  device_.split(part.groups(), [&](int64_t begin, int64_t end) {
    device_.kernels.pack_linear(tensor.dtype, tensor.data.data(), part.packed, part.storage.data(),
                                begin, end);
  });
}

}  // namespace paddock
