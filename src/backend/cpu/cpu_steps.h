// A step on the CPU: splits every operation of step_ops.h over threads and calls the kernels of one
// instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_device.h"
#include "backend/cpu/cpu_pages.h"
#include "backend/cpu/cpu_weights.h"
#include "backend/layer_counters.h"

namespace paddock {

class CpuSteps final : public StepOps {
 public:
  CpuSteps(CpuDevice& device, CpuPages& pages) : device_(device), pages_(pages) {}

  /// Bytes that reserve() takes.
  uint64_t bytes(const BackendLimits& limits) const;
  void reserve(const BackendLimits& limits);

  bool run(const StepPlan& plan, StepLayers layers) override;
  void embed(const EmbeddingWeight& weight, Buffer out) override;
  void rope_store(int32_t layer, Buffer k, Buffer v) override;
  void attention(int32_t layer, Buffer q, Buffer out) override;
  void rms_norm(Buffer x, const VectorWeight& weight, float eps, int32_t n, Buffer out) override;
  void linear(const LinearWeight& weight, Buffer x, int32_t n, std::span<const Buffer> outputs,
              bool accumulate) override;
  void swiglu(Buffer gate_up, int32_t n, Buffer out) override;
  void gather(Buffer x, std::span<const int32_t> rows, Buffer out) override;
  std::span<const float> host_rows(Buffer x, int32_t n) override {
    return {x.data, static_cast<size_t>(n * x.cols)};
  }
  bool samples() const override { return false; }
  bool is_batch_invariant() const override { return true; }
  std::span<const int32_t> sample(Buffer, std::span<const SampleRow>) override { return {}; }
  void wait() override {}
  int64_t attention_nanoseconds(int32_t layer) const override { return clocks_.read(layer); }
  int64_t kv_overflows(int32_t layer) const override { return overflows_.read(layer); }

 private:
  /// Every buffer that reserve() takes, with its size.
  struct Size {
    AlignedBuffer CpuSteps::*buffer;
    uint64_t bytes;
    const char* what;
  };
  std::vector<Size> sizes(const BackendLimits& limits) const;
  uint64_t input_bytes(const BackendLimits& limits) const;
  int64_t worker_scratch(const BackendLimits& limits) const;

  /// Cosines and sines of the step at hand.
  void compute_angles();
  /// The layer's sequences as its kernels see them, with zeroed masses where they are measured.
  void collect_sequences(int32_t layer);
  void attend(int32_t layer, Buffer q, Buffer out);
  void linear_reference(const std::vector<CpuLinear::Part>& parts, Buffer x, int32_t n,
                        std::span<const Buffer> outputs, bool accumulate);
  void linear_packed(const std::vector<CpuLinear::Part>& parts, Buffer x, int32_t n,
                     std::span<const Buffer> outputs, bool accumulate);

  CpuDevice& device_;
  CpuPages& pages_;
  BackendLimits limits_;
  AlignedBuffer angles_;   // [max_angle_rows][2][head_dim/2]
  AlignedBuffer input_;    // activations as linear() wants them
  AlignedBuffer scratch_;  // of attention, for each thread
  AlignedBuffer masses_;   // of the layer at hand: [n_tokens, n_entries] for each measured sequence
  std::vector<cpu::AttentionSequence> sequences_;
  std::vector<int32_t> own_rows_;  // angle row i belongs to token i
  const StepPlan* plan_ = nullptr;
  LayerCounters clocks_;     // nanoseconds of attention
  LayerCounters overflows_;  // of keys and values
};

}  // namespace paddock
