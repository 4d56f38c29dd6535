// Weights in a backend's own form: what src/model gives a backend to keep.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/tensor.h"

namespace paddock {

/// Only the backend that made one looks inside.
struct LinearWeight {
  virtual ~LinearWeight() = default;
};
struct VectorWeight {
  virtual ~VectorWeight() = default;
};
struct EmbeddingWeight {
  virtual ~EmbeddingWeight() = default;
};

/// Every backend keeps vectors as float32.
inline uint64_t vector_bytes(const TensorView& tensor) {
  return static_cast<uint64_t>(tensor.cols()) * sizeof(float);
}

/// Bytes that the make functions reserve are added to their `bytes`.
class WeightStore {
 public:
  virtual ~WeightStore() = default;
  /// Names the form this backend gives weights: backends of equal keys can share them.
  virtual std::string weights_key() const = 0;
  /// Parts share their input and are multiplied in one operation.
  virtual std::unique_ptr<LinearWeight> make_linear(std::span<const TensorView* const> parts,
                                                    uint64_t& bytes) = 0;
  virtual std::unique_ptr<VectorWeight> make_vector(const TensorView& tensor, uint64_t& bytes) = 0;
  virtual std::unique_ptr<EmbeddingWeight> make_embedding(const TensorView& tensor,
                                                          uint64_t& bytes) = 0;
  /// True if make_linear copies, so that the mapped original may leave memory.
  virtual bool repacks() const = 0;
  /// Bytes make_linear, and make_embedding, would reserve for a tensor that nobody has given
  /// before.
  virtual uint64_t linear_bytes(const TensorView& tensor) const = 0;
  virtual uint64_t embedding_bytes(const TensorView& tensor) const = 0;
};

}  // namespace paddock
