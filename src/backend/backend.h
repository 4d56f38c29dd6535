// One device: its memory, and the three things it does for an engine.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/page_store.h"
#include "backend/step_ops.h"
#include "backend/weights.h"
#include "paddock/stats.h"

namespace paddock {

/// The shape of a weight matrix that linear() will meet.
struct LinearShape {
  DType type;
  int64_t rows, cols;
};

/// What the model is, as far as scratch and constants depend on it.
struct ModelShape {
  int32_t n_heads = 0;
  int32_t vocab_size = 0;                   // columns of host_rows() and sample()
  int64_t max_cols = 0;                     // widest input of a linear layer
  std::vector<LinearShape> linears;         // each kind once
  std::vector<double> inverse_frequencies;  // [head_dim/2]
  float attention_factor = 1.0F;            // on cos and sin
  bool rope_interleaved = false;
};

/// What one step may bring at most.
struct StepLimits {
  int32_t max_tokens = 0;
  int32_t max_angle_rows = 0;
  int32_t max_sequences = 0;
  int32_t max_logit_rows = 0;        // of host_rows() and sample()
  std::vector<int64_t> max_entries;  // [n_layers] longest table of one sequence
  int64_t max_measured_entries = 0;  // longest table with SequenceView::uses; 0: never asked for
};

/// The pages of the KV pool: what the engine's setup decides, and all that a backend is told.
struct PoolShape {
  int64_t n_pages = 0;
  PageGeometry geometry{};
};

/// What an engine will ask for; a backend reserves for it once.
struct BackendLimits {
  ModelShape model;
  StepLimits step;
  PoolShape pool;
};

/// An object belongs to one engine and is used by one thread at a time.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual WeightStore& weights() = 0;
  virtual StepOps& ops() = 0;
  virtual PageStore& pages() = 0;

  /// The device and its driver's view; reserved_bytes is left 0. From any thread.
  virtual DeviceMemory memory() const = 0;
  /// Bytes free where this backend reserves; 0: unknown.
  virtual uint64_t available_bytes() const = 0;
  /// Bytes reserve() will take beside weights and buffers.
  virtual uint64_t reserve_bytes(const BackendLimits& limits) const = 0;
  /// Takes the page pool and all scratch; a second call keeps the pool and what lies in it where
  /// their sizes agree. Error kOutOfMemory.
  virtual void reserve(const BackendLimits& limits) = 0;
  /// A zeroed activation matrix that lives as long as the backend.
  virtual Buffer make_buffer(int64_t rows, int64_t cols) = 0;
};

}  // namespace paddock
