#include "backend/cuda/cuda_steps.h"

#include "core/fail.h"

namespace paddock::cuda {
namespace {

/// Fewer tokens of one sequence than this are attended one by one.
constexpr int32_t kPrefillLeast = 16;

uint64_t sampling_bytes(const BackendLimits& l) {
  if (!sample_supports(l.model.vocab_size)) return 0;
  return static_cast<uint64_t>(sample_workspace_bytes(l.model.vocab_size, l.step.max_logit_rows));
}

}  // namespace

std::vector<CudaSteps::Size> CudaSteps::sizes(const BackendLimits& l) const {
  using B = CudaSteps;
  const auto tokens = static_cast<uint64_t>(l.step.max_tokens);
  const uint64_t half = l.model.inverse_frequencies.size();
  const int32_t decodes = std::min(decode_most(l), l.step.max_tokens);
  const int64_t workspace =
      decode_workspace_floats(l.model.n_heads, l.pool.geometry, decodes,
                              static_cast<int32_t>(*std::max_element(l.step.max_entries.begin(),
                                                                     l.step.max_entries.end())));
  const bool measures = l.step.max_measured_entries > 0;
  const uint64_t masses =
      checked_mul(uint64_t(l.step.max_measured_entries), tokens * sizeof(int64_t),
                  "attention masses", ErrorCode::kOutOfMemory);
  return {
      {&B::frequencies_, half * sizeof(double), "rotary frequencies"},
      {&B::angles_, uint64_t(l.step.max_angle_rows) * 2 * half * sizeof(float), "rotary angles"},
      {&B::rows_, tokens * sizeof(int32_t), "row numbers"},
      {&B::workspace_, uint64_t(workspace) * sizeof(float), "partial sums"},
      {&B::arrivals_, uint64_t(decodes) * uint64_t(l.model.n_heads) * sizeof(uint32_t),
       "counts of partial sums"},
      {&B::lse_, measures ? tokens * uint64_t(l.model.n_heads) * sizeof(float) : 0,
       "softmax denominators"},
      {&B::masses_, masses, "attention masses"},
      {&B::uses_, uses_bytes(l), "uses of blocks"},
      {&B::norms_, norms_bytes(l), "key norms"},
      {&B::sampling_, sampling_bytes(l), "sampling"},
      {&B::sample_rows_, SampleLayout(l).end, "sampling options"}};
}

uint64_t CudaSteps::bytes(const BackendLimits& limits) const {
  uint64_t total = StepUpload::device_bytes(limits) + products_.bytes(limits);
  for (const Size& size : sizes(limits)) total += size.bytes;
  return total;
}

void CudaSteps::settle() {
  pending_ = nullptr;
  wait();
}

void CudaSteps::reserve(const BackendLimits& limits) {
  const std::shared_ptr<DeviceRuntime>& runtime = device_.runtime();
  limits_ = limits;
  for (const auto& [array, size, what] : sizes(limits)) {
    (this->*array).resize(runtime, size, what);
  }
  runtime->fill(arrivals_.as<uint8_t>(), 0, arrivals_.bytes());
  products_.reserve(limits);
  recorder_.clear();
  upload_ = nullptr;
  upload_ = std::make_unique<StepUpload>(runtime, limits);
  runtime->copy_in(frequencies_.as<double>(), limits.model.inverse_frequencies.data(),
                   limits.model.inverse_frequencies.size() * sizeof(double));
  runtime->synchronize();  // `limits` goes
  if (samples()) runtime->fill(sampling_.as<uint8_t>(), 0, sampling_.bytes());
  runtime->fill(sample_rows_.as<uint8_t>(), 0, sample_rows_.bytes());
  const size_t n_layers = limits.step.max_entries.size();
  overflows_seen_.assign(n_layers, 0);
  overflows_.resize(n_layers);
  clocks_.resize(n_layers);
  reserve_host(limits);
}

void CudaSteps::reserve_host(const BackendLimits& limits) {
  const std::shared_ptr<DeviceRuntime>& runtime = device_.runtime();
  host_rows_.resize(
      runtime,
      uint64_t(limits.step.max_logit_rows) * uint64_t(limits.model.vocab_size) * sizeof(float),
      "logits");
  host_gather_.resize(runtime, rows_.bytes(), "row numbers");
  host_samples_.resize(runtime, SampleLayout(limits).end, "tokens");
  host_measures_.resize(runtime, uses_bytes(limits) + norms_bytes(limits), "measures");
}

bool CudaSteps::prefill_fits() const {
  return prefill_supports(limits_.pool.geometry, limits_.model.n_heads);
}

bool CudaSteps::run(const StepPlan& plan, StepLayers layers) {
  device_.check_usable();
  pending_ = nullptr;  // nobody has waited for its measures, and its plan is gone
  if (busy_) wait();
  pages_.join_loads();
  plan_ = &plan;
  const auto [shape, recordable] =
      choose_shape(plan, limits_, reference_ || !prefill_fits() ? INT32_MAX : kPrefillLeast);
  device_.guard([&](DeviceRuntime&) { upload_->upload(plan, shape); });
  busy_ = true;
  device_.launch("angles", cuda::angles({upload_->angle_positions(), frequencies_.as<double>(),
                                         limits_.model.attention_factor, angles_.as<float>(),
                                         static_cast<int32_t>(plan.angle_positions.size()), half()},
                                        stream()));
  const int32_t n = shape.n_tokens;
  const auto launches = [&] { return layers(n); };
  const bool completed = recordable ? device_.guard([&](DeviceRuntime&) {
    return recorder_.run(shape, upload_->layers(), launches);
  })
                                    : launches();
  if (!completed) return false;
  bring_measures();
  pending_ = plan_;
  timed_layers_ = static_cast<int32_t>(plan.layers.size());
  return true;
}

void CudaSteps::embed(const EmbeddingWeight& weight, Buffer out) {
  const DeviceMatrix& table = static_cast<const CudaEmbedding&>(weight).table;
  device_.launch("embed", cuda::embed({upload_->tokens(), table.bytes(), table.type, table.cols,
                                       out.data, out.stride, upload_->n_tokens()},
                                      stream()));
}

void CudaSteps::rms_norm(Buffer x, const VectorWeight& weight, float eps, int32_t n, Buffer out) {
  const auto& w = static_cast<const CudaVector&>(weight);
  device_.launch("rms_norm", cuda::rms_norm({x.data, x.stride, w.values.as<float>(), eps, x.cols,
                                             out.data, out.stride, n},
                                            stream()));
}

void CudaSteps::linear(const LinearWeight& weight, Buffer x, int32_t n,
                       std::span<const Buffer> outputs, bool accumulate) {
  const auto& parts = static_cast<const CudaLinear&>(weight).parts;
  device_.guard([&](DeviceRuntime&) { products_.multiply(parts, x, n, outputs, accumulate); });
}

void CudaSteps::rope_store(int32_t layer, Buffer k, Buffer v) {
  const bool norms = plan_->layers[layer].key_norms != nullptr;
  const RopeStoreArgs args{
      .k = k.data,
      .v = v.data,
      .k_stride = k.stride,
      .v_stride = v.stride,
      .angles = angles_.as<float>(),
      .interleaved = limits_.model.rope_interleaved,
      .kv = pages_.view(),
      .destinations = upload_->layers()[layer].destinations,
      .key_norms =
          norms ? norms_.as<int64_t>() + int64_t{layer} * limits_.step.max_tokens : nullptr,
      .overflows = device_overflows() + layer,
      .n_tokens = upload_->n_tokens()};
  device_.launch("rope_store", cuda::rope_store(args, stream()));
}

void CudaSteps::swiglu(Buffer gate_up, int32_t n, Buffer out) {
  device_.launch(
      "swiglu",
      cuda::swiglu({gate_up.data, gate_up.stride, out.cols, out.data, out.stride, n}, stream()));
}

void CudaSteps::gather(Buffer x, std::span<const int32_t> rows, Buffer out) {
  if (rows_busy_) wait();
  std::copy(rows.begin(), rows.end(), host_gather_.as<int32_t>());
  device_.copy_in(rows_.as<int32_t>(), host_gather_.as<int32_t>(), rows.size_bytes());
  rows_busy_ = true;
  device_.launch("gather", cuda::gather({x.data, x.stride, rows_.as<int32_t>(), out.cols, out.data,
                                         out.stride, static_cast<int32_t>(rows.size())},
                                        stream()));
}

}  // namespace paddock::cuda
