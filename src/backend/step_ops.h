// The operations of a forward pass. Written against by src/model/llama.cpp; nothing above this
// header knows which device runs.
#pragma once

#include <cstdint>
#include <span>

#include "backend/step_plan.h"
#include "backend/weights.h"
#include "core/function_ref.h"
#include "sampling.h"

namespace paddock {

/// A float32 matrix of activations in device memory: row t starts at data + t * stride.
struct Buffer {
  float* data = nullptr;
  int64_t cols = 0;
  int64_t stride = 0;

  /// Columns [begin, begin + n) of the same rows.
  Buffer columns(int64_t begin, int64_t n) const { return {data + begin, n, stride}; }
  /// The rows from `begin` on.
  Buffer rows_from(int64_t begin) const { return {data + begin * stride, cols, stride}; }
};

/// Asks for the operations of all layers, from embed() on, for n rows. False: it was told to stop
/// on the way.
using StepLayers = FunctionRef<bool(int32_t n)>;

/// Operations may still be under way when they return.
class StepOps {
 public:
  virtual ~StepOps() = default;

  // ---- a step: its operations are asked for inside run()
  /// Calls `layers` with the number of rows to compute: the plan's tokens, and perhaps a few after
  /// them that belong to nobody. A device that recorded the operations of a step like this one
  /// replays them and does not call; one that failed to record them calls a second time. False if
  /// `layers` returned false. The plan must live until the wait that follows.
  virtual bool run(const StepPlan& plan, StepLayers layers) = 0;
  /// The plan's tokens; rows that belong to nobody get some token's.
  virtual void embed(const EmbeddingWeight& weight, Buffer out) = 0;
  /// Rotates k at each token's own position and writes k and v into the layer's pages.
  virtual void rope_store(int32_t layer, Buffer k, Buffer v) = 0;
  /// Rotates q per entry and attends over the layer's tables.
  virtual void attention(int32_t layer, Buffer q, Buffer out) = 0;

  // ---- inside a step or after it; n is the number of rows
  virtual void rms_norm(Buffer x, const VectorWeight& weight, float eps, int32_t n, Buffer out) = 0;
  /// outputs[i] (=, or += when accumulate) x W_i^T for each part i.
  virtual void linear(const LinearWeight& weight, Buffer x, int32_t n,
                      std::span<const Buffer> outputs, bool accumulate) = 0;
  /// out[t][i] = silu(gate_up[t][i]) * gate_up[t][out.cols + i]
  virtual void swiglu(Buffer gate_up, int32_t n, Buffer out) = 0;

  // ---- after a step
  /// out[i] = x[rows[i]]
  virtual void gather(Buffer x, std::span<const int32_t> rows, Buffer out) = 0;
  // host_rows() and sample() may be asked for other rows of one buffer (Buffer::rows_from), in
  // either order: what one gave stays until it is called again, or a step runs.
  /// The first n rows of a buffer without gaps, in host memory; waits.
  virtual std::span<const float> host_rows(Buffer x, int32_t n) = 0;
  /// Whether sample() chooses on the device. Otherwise the host does, from host_rows().
  virtual bool samples() const = 0;
  /// A token for each of the first rows.size() rows of `logits`, by kernels/sampling.h; -1 where a
  /// logit is not finite. In host memory; waits. Only where samples().
  virtual std::span<const int32_t> sample(Buffer logits, std::span<const SampleRow> rows) = 0;
  /// Waits until what the plan asked for (uses, key norms) has been written.
  virtual void wait() = 0;

  /// Whether what a token becomes, its keys and values included, has the same bits whatever else
  /// the step brings.
  virtual bool is_batch_invariant() const = 0;

  // ---- counts, from any thread
  /// Time spent in a layer's attention up to the last wait.
  virtual int64_t attention_nanoseconds(int32_t layer) const = 0;
  /// Finite keys and values of a layer that became infinite where they were stored, up to the last
  /// host_rows() or sample().
  virtual int64_t kv_overflows(int32_t layer) const = 0;
};

}  // namespace paddock
