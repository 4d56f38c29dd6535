// A step on a CUDA device: every operation as our kernels and dense products, asked for on one
// stream.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/device_pages.h"
#include "backend/cuda/guarded_device.h"
#include "backend/cuda/products.h"
#include "backend/cuda/step_recorder.h"
#include "backend/cuda/step_upload.h"
#include "backend/layer_counters.h"
#include "core/checked.h"

namespace paddock::cuda {

/// In three files: the step and its plain operations (cuda_steps), attention with what it measures
/// (cuda_attention), and what comes to the host (cuda_results).
class CudaSteps final : public StepOps {
 public:
  CudaSteps(GuardedDevice& device, DevicePages& pages, bool reference)
      : device_(device),
        pages_(pages),
        reference_(reference),
        products_(device.runtime(), reference),
        recorder_(device.runtime()) {}

  /// Bytes that reserve() takes.
  uint64_t bytes(const BackendLimits& limits) const;
  /// After settle().
  void reserve(const BackendLimits& limits);
  /// Waits for what is under way; nobody asks for its measures any more.
  void settle();

  bool run(const StepPlan& plan, StepLayers layers) override;
  void embed(const EmbeddingWeight& weight, Buffer out) override;
  void rope_store(int32_t layer, Buffer k, Buffer v) override;
  void attention(int32_t layer, Buffer q, Buffer out) override;
  void rms_norm(Buffer x, const VectorWeight& weight, float eps, int32_t n, Buffer out) override;
  void linear(const LinearWeight& weight, Buffer x, int32_t n, std::span<const Buffer> outputs,
              bool accumulate) override;
  void swiglu(Buffer gate_up, int32_t n, Buffer out) override;
  void gather(Buffer x, std::span<const int32_t> rows, Buffer out) override;
  std::span<const float> host_rows(Buffer x, int32_t n) override;
  bool samples() const override { return sample_supports(limits_.model.vocab_size); }
  /// Products choose their order of sums by the number of rows, unless one order is fixed.
  bool is_batch_invariant() const override { return reference_; }
  std::span<const int32_t> sample(Buffer logits, std::span<const SampleRow> rows) override;
  void wait() override;
  int64_t attention_nanoseconds(int32_t layer) const override { return clocks_.read(layer); }
  int64_t kv_overflows(int32_t layer) const override { return overflows_.read(layer); }

 private:
  /// Every array of the device that reserve() takes, with its size.
  struct Size {
    DeviceArray CudaSteps::*array;
    uint64_t bytes;
    const char* what;
  };
  std::vector<Size> sizes(const BackendLimits& l) const;
  void reserve_host(const BackendLimits& limits);

  Stream stream() const { return device_.stream(); }
  int32_t half() const { return static_cast<int32_t>(limits_.model.inverse_frequencies.size()); }
  bool prefill_fits() const;
  bool asks_for_norms() const;
  AttentionArgs attention_args(const LayerUpload& of, Buffer q, Buffer out) const;
  void measure(int32_t layer, const AttentionArgs& args);
  /// Starts to copy what the step measured to the host.
  void bring_measures();
  void hand_out_measures(const StepPlan& plan);
  uint64_t* device_overflows();
  /// Adds what has come to the host since the last call.
  void count_overflows();

  GuardedDevice& device_;
  DevicePages& pages_;
  bool reference_;
  Products products_;
  StepRecorder recorder_;
  BackendLimits limits_;
  std::unique_ptr<StepUpload> upload_;
  DeviceArray frequencies_;    // [head_dim/2] double
  DeviceArray angles_;         // [max_angle_rows][2][head_dim/2]
  DeviceArray rows_;           // [max_tokens] of gather
  DeviceArray workspace_;      // partial sums of decode attention
  DeviceArray arrivals_;       // AttentionArgs::arrivals
  DeviceArray lse_;            // [max_tokens, n_heads]
  DeviceArray masses_;         // of the layer at hand: [n_tokens, n_entries] per measured sequence
  DeviceArray uses_;           // of all layers
  DeviceArray norms_;          // [n_layers, max_tokens]
  DeviceArray sampling_;       // scratch of sample()
  DeviceArray sample_rows_;    // as SampleLayout says
  PinnedArray host_gather_;    // as rows_
  PinnedArray host_rows_;      // logits
  PinnedArray host_samples_;   // as sample_rows_
  PinnedArray host_measures_;  // uses, then key norms
  const StepPlan* plan_ = nullptr;     // the step at hand
  const StepPlan* pending_ = nullptr;  // the last one, until its measures have been waited for
  int32_t timed_layers_ = 0;           // layers of a completed step whose time is yet to be read
  bool busy_ = false;
  bool rows_busy_ = false;                // host_gather_ is being read
  LayerCounters clocks_;                  // nanoseconds of attention
  LayerCounters overflows_;               // of keys and values
  std::vector<uint64_t> overflows_seen_;  // [n_layers] of the device's counts
};

/// Where things lie in sample_rows_ and host_samples_: what sample() brings, and what comes back
/// with its tokens.
struct SampleLayout {
  explicit SampleLayout(const BackendLimits& l)
      : tokens(uint64_t(l.step.max_logit_rows) * sizeof(SampleRow)),
        overflows(
            round_up(tokens + uint64_t(l.step.max_logit_rows) * sizeof(int32_t), sizeof(uint64_t))),
        end(overflows + l.step.max_entries.size() * sizeof(uint64_t)) {}
  uint64_t tokens;     // offset of [max_logit_rows] int32, after as many SampleRows
  uint64_t overflows;  // offset of [n_layers] uint64
  uint64_t end;
};

/// Single queries of one launch of decode attention; the workspace grows with it.
inline int32_t decode_most(const BackendLimits& l) { return std::max(64, l.step.max_sequences); }
/// Bytes of uses and of key norms in host_measures_, in this order.
inline uint64_t uses_bytes(const BackendLimits& l) {
  return l.step.max_entries.size() * uint64_t(l.step.max_sequences) *
         uint64_t(l.step.max_measured_entries) * sizeof(BlockUse);
}
inline uint64_t norms_bytes(const BackendLimits& l) {
  return l.step.max_entries.size() * uint64_t(l.step.max_tokens) * sizeof(int64_t);
}

}  // namespace paddock::cuda
