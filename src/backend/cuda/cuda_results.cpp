// What comes to the host from a step: rows, tokens, measures and counts.
#include <algorithm>
#include <utility>

#include "backend/cuda/cuda_steps.h"

namespace paddock::cuda {

std::span<const float> CudaSteps::host_rows(Buffer x, int32_t n) {
  const uint64_t bytes = static_cast<uint64_t>(n * x.cols) * sizeof(float);
  const SampleLayout layout(limits_);
  device_.copy_out(host_rows_.as<float>(), x.data, bytes);
  device_.copy_out(host_samples_.as<uint8_t>() + layout.overflows, device_overflows(),
                   layout.end - layout.overflows);
  wait();
  count_overflows();
  return {host_rows_.as<const float>(), static_cast<size_t>(n * x.cols)};
}

std::span<const int32_t> CudaSteps::sample(Buffer logits, std::span<const SampleRow> rows) {
  const SampleLayout layout(limits_);
  auto* host_rows = host_samples_.as<SampleRow>();
  auto* host_tokens = reinterpret_cast<int32_t*>(host_samples_.as<uint8_t>() + layout.tokens);
  auto* device_rows = sample_rows_.as<SampleRow>();
  auto* device_tokens = reinterpret_cast<int32_t*>(sample_rows_.as<uint8_t>() + layout.tokens);
  std::copy(rows.begin(), rows.end(), host_rows);
  device_.copy_in(device_rows, host_rows, rows.size_bytes());
  SampleArgs args{.logits = logits.data,
                  .stride = logits.stride,
                  .vocab_size = limits_.model.vocab_size,
                  .rows = device_rows,
                  .tokens = device_tokens,
                  .workspace = sampling_.as<uint8_t>(),
                  .n_rows = static_cast<int32_t>(rows.size()),
                  .any_top_k = false,
                  .any_top_p = false,
                  .any_draw = false};
  for (const SampleRow& row : rows) {
    args.any_top_k |= row.top_k > 0;
    args.any_top_p |= row.top_p < 1.0F;
    args.any_draw |= row.temperature > 0.0F;
  }
  device_.launch("sample", cuda::sample(args, stream()));
  device_.copy_out(host_tokens, device_tokens,
                   layout.end - layout.tokens);  // and overflows, at once
  wait();
  count_overflows();
  return {host_tokens, rows.size()};
}

void CudaSteps::wait() {
  device_.guard([](DeviceRuntime& r) { r.synchronize(); });
  busy_ = rows_busy_ = false;
  const int32_t timed = std::min(std::exchange(timed_layers_, 0), DeviceRuntime::kMarks / 2);
  for (int32_t i = 0; i < timed; ++i) {
    clocks_.add(i, device_.runtime()->nanoseconds(2 * i, 2 * i + 1));
  }
  if (pending_ != nullptr) hand_out_measures(*std::exchange(pending_, nullptr));
}

uint64_t* CudaSteps::device_overflows() {
  return reinterpret_cast<uint64_t*>(sample_rows_.as<uint8_t>() + SampleLayout(limits_).overflows);
}

void CudaSteps::count_overflows() {
  const auto* counts = reinterpret_cast<const uint64_t*>(host_samples_.as<const uint8_t>() +
                                                         SampleLayout(limits_).overflows);
  for (size_t i = 0; i < overflows_seen_.size(); ++i) {
    if (counts[i] == overflows_seen_[i]) continue;
    overflows_.add(static_cast<int32_t>(i), static_cast<int64_t>(counts[i] - overflows_seen_[i]));
    overflows_seen_[i] = counts[i];
  }
}

void CudaSteps::hand_out_measures(const StepPlan& plan) {
  const auto* uses = host_measures_.as<const BlockUse>();
  const auto* norms =
      reinterpret_cast<const int64_t*>(host_measures_.as<const uint8_t>() + uses_bytes(limits_));
  for (const LayerPlan& layer : plan.layers) {
    for (const SequenceView& s : layer.sequences) {
      if (s.uses == nullptr) continue;
      uses = (std::copy_n(uses, s.entries.size(), s.uses), uses + s.entries.size());
    }
    if (layer.key_norms != nullptr) std::copy_n(norms, plan.n_tokens(), layer.key_norms);
    norms += limits_.step.max_tokens;
  }
}

}  // namespace paddock::cuda
