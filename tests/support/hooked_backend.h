// The CPU's backend with a function of the test's own inside each pass: to meet a pass in its
// middle without a clock, and to let a device fail there.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backend/devices.h"

namespace paddock::test {

/// Called for each layer of each pass, on the thread that drives the engine.
inline std::function<void(int32_t layer)> g_in_layer;

/// Called before each pass, and after each that ran to its end, with what it was to do.
inline std::function<void()> g_before_pass;
inline std::function<void(const StepPlan& plan)> g_after_pass;

/// Sets one of them while it lives.
struct BeforePass {
  explicit BeforePass(std::function<void()> hook) { g_before_pass = std::move(hook); }
  ~BeforePass() { g_before_pass = nullptr; }
};
struct AfterPass {
  explicit AfterPass(std::function<void(const StepPlan& plan)> hook) {
    g_after_pass = std::move(hook);
  }
  ~AfterPass() { g_after_pass = nullptr; }
};

/// Tokens that passes have run.
inline int64_t g_tokens_run = 0;

/// Sets it while it lives.
struct InLayer {
  explicit InLayer(std::function<void(int32_t layer)> hook) { g_in_layer = std::move(hook); }
  ~InLayer() { g_in_layer = nullptr; }
};

class HookedOps final : public StepOps {
 public:
  HookedOps(StepOps& inner, bool says_invariant) : inner_(inner), says_invariant_(says_invariant) {}
  bool run(const StepPlan& plan, StepLayers layers) override {
    if (g_before_pass) g_before_pass();
    g_tokens_run += plan.n_tokens();
    const bool done = inner_.run(plan, layers);
    if (done && g_after_pass) g_after_pass(plan);
    return done;
  }
  void embed(const EmbeddingWeight& weight, Buffer out) override { inner_.embed(weight, out); }
  void rope_store(int32_t layer, Buffer k, Buffer v) override { inner_.rope_store(layer, k, v); }
  void attention(int32_t layer, Buffer q, Buffer out) override {
    if (g_in_layer) g_in_layer(layer);
    inner_.attention(layer, q, out);
  }
  void rms_norm(Buffer x, const VectorWeight& weight, float eps, int32_t n, Buffer out) override {
    inner_.rms_norm(x, weight, eps, n, out);
  }
  void linear(const LinearWeight& weight, Buffer x, int32_t n, std::span<const Buffer> outputs,
              bool accumulate) override {
    inner_.linear(weight, x, n, outputs, accumulate);
  }
  void swiglu(Buffer gate_up, int32_t n, Buffer out) override { inner_.swiglu(gate_up, n, out); }
  void gather(Buffer x, std::span<const int32_t> rows, Buffer out) override {
    inner_.gather(x, rows, out);
  }
  std::span<const float> host_rows(Buffer x, int32_t n) override { return inner_.host_rows(x, n); }
  bool samples() const override { return inner_.samples(); }
  bool is_batch_invariant() const override {
    return says_invariant_ && inner_.is_batch_invariant();
  }
  std::span<const int32_t> sample(Buffer logits, std::span<const SampleRow> rows) override {
    return inner_.sample(logits, rows);
  }
  void wait() override { inner_.wait(); }
  int64_t attention_nanoseconds(int32_t layer) const override {
    return inner_.attention_nanoseconds(layer);
  }
  int64_t kv_overflows(int32_t layer) const override { return inner_.kv_overflows(layer); }

 private:
  StepOps& inner_;
  bool says_invariant_;
};

class HookedBackend final : public Backend {
 public:
  /// `says_invariant`: whether it says so of its steps if they are.
  explicit HookedBackend(std::unique_ptr<Backend> inner, bool says_invariant = true)
      : inner_(std::move(inner)), ops_(inner_->ops(), says_invariant) {}
  WeightStore& weights() override { return inner_->weights(); }
  StepOps& ops() override { return ops_; }
  PageStore& pages() override { return inner_->pages(); }
  DeviceMemory memory() const override { return inner_->memory(); }
  uint64_t available_bytes() const override { return inner_->available_bytes(); }
  uint64_t reserve_bytes(const BackendLimits& limits) const override {
    return inner_->reserve_bytes(limits);
  }
  void reserve(const BackendLimits& limits) override { inner_->reserve(limits); }
  Buffer make_buffer(int64_t rows, int64_t cols) override {
    return inner_->make_buffer(rows, cols);
  }

 private:
  std::unique_ptr<Backend> inner_;
  HookedOps ops_;
};

/// For make_engine_impl().
inline std::unique_ptr<Backend> make_hooked_backend(const std::string& device,
                                                    const BackendOptions& options) {
  return std::make_unique<HookedBackend>(make_backend(device, options));
}

/// Likewise, of a device whose bits may depend on the batch.
inline std::unique_ptr<Backend> make_variant_backend(const std::string& device,
                                                     const BackendOptions& options) {
  return std::make_unique<HookedBackend>(make_backend(device, options), false);
}

}  // namespace paddock::test
