// Weights as the CPU's kernels read them: repacked, or where they lie for the reference kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/cpu_device.h"
#include "backend/weights.h"
#include "core/aligned_buffer.h"
#include "core/checked.h"

namespace paddock {

struct CpuLinear final : LinearWeight {
  struct Part {
    DType type;
    int64_t rows, cols;
    const std::byte* original;  // mapped bytes, for the reference kernels
    cpu::PackedLinear packed;   // for the fast ones
    AlignedBuffer storage;
    /// Groups of rows that the packed form consists of.
    int64_t groups() const { return static_cast<int64_t>(ceil_div(rows, cpu::kGroupRows)); }
  };
  std::vector<Part> parts;
};

struct CpuVector final : VectorWeight {
  std::vector<float> values;
};

struct CpuEmbedding final : EmbeddingWeight {
  DType type;
  int64_t rows, cols;
  const std::byte* data;
};

class CpuWeights final : public WeightStore {
 public:
  explicit CpuWeights(CpuDevice& device) : device_(device) {}

  std::string weights_key() const override;
  bool repacks() const override { return !device_.reference; }
  uint64_t linear_bytes(const TensorView& tensor) const override;
  uint64_t embedding_bytes(const TensorView&) const override { return 0; }  // read where it lies
  std::unique_ptr<LinearWeight> make_linear(std::span<const TensorView* const> parts,
                                            uint64_t& bytes) override;
  std::unique_ptr<VectorWeight> make_vector(const TensorView& tensor, uint64_t& bytes) override;
  std::unique_ptr<EmbeddingWeight> make_embedding(const TensorView& tensor,
                                                  uint64_t& bytes) override;

 private:
  void pack(const TensorView& tensor, CpuLinear::Part& part);

  CpuDevice& device_;
};

}  // namespace paddock
