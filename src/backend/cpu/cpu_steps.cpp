#include "backend/cpu/cpu_steps.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/checked.h"

namespace paddock {
namespace {

int64_t padded_cols(const BackendLimits& limits) {
  return static_cast<int64_t>(round_up(limits.model.max_cols, 16));
}

int64_t max_parts(const BackendLimits& limits) {
  return cpu::attention_parts(limits.step.max_measured_entries, limits.pool.geometry.block_size);
}

}  // namespace

uint64_t CpuSteps::input_bytes(const BackendLimits& limits) const {
  if (device_.reference) return device_.threads.size() * padded_cols(limits) * sizeof(float);
  int64_t most = 0;
  for (const DType type : kDTypes) {
    most =
        std::max(most, device_.kernels.input_bytes(device_.kernels.packed_format(type),
                                                   limits.step.max_tokens, limits.model.max_cols));
  }
  return static_cast<uint64_t>(most);
}

int64_t CpuSteps::worker_scratch(const BackendLimits& limits) const {
  return device_.kernels.attention_scratch(limits.pool.geometry.head_dim,
                                           limits.model.n_heads / limits.pool.geometry.n_kv_heads,
                                           max_parts(limits));
}

std::vector<CpuSteps::Size> CpuSteps::sizes(const BackendLimits& l) const {
  const uint64_t angle_floats =
      uint64_t(l.step.max_angle_rows) * 2 * l.model.inverse_frequencies.size();
  const uint64_t scratch_floats = static_cast<uint64_t>(worker_scratch(l) * device_.threads.size());
  const uint64_t masses =
      checked_mul(l.step.max_measured_entries, uint64_t(l.step.max_tokens) * sizeof(int64_t),
                  "attention masses", ErrorCode::kOutOfMemory);
  return {{&CpuSteps::angles_, angle_floats * sizeof(float), "rotary angles"},
          {&CpuSteps::input_, input_bytes(l), "packed activations"},
          {&CpuSteps::scratch_, scratch_floats * sizeof(float), "attention scratch"},
          {&CpuSteps::masses_, masses, "attention masses"}};
}

uint64_t CpuSteps::bytes(const BackendLimits& limits) const {
  uint64_t total = 0;
  for (const Size& size : sizes(limits)) total += size.bytes;
  return total;
}

void CpuSteps::reserve(const BackendLimits& limits) {
  limits_ = limits;
  clocks_.resize(limits.step.max_entries.size());
  overflows_.resize(limits.step.max_entries.size());
  for (const auto& [buffer, size, what] : sizes(limits)) fit(this->*buffer, size, what);
  sequences_.reserve(limits.step.max_sequences);
  own_rows_.resize(limits.step.max_tokens);
  std::iota(own_rows_.begin(), own_rows_.end(), 0);
}

bool CpuSteps::run(const StepPlan& plan, StepLayers layers) {
  plan_ = &plan;
  compute_angles();
  return layers(plan.n_tokens());
}

void CpuSteps::compute_angles() {
  const std::vector<double>& frequencies = limits_.model.inverse_frequencies;
  const auto half = static_cast<int64_t>(frequencies.size());
  float* angles = reinterpret_cast<float*>(angles_.data());
  device_.split(static_cast<int64_t>(plan_->angle_positions.size()), [&](int64_t begin,
                                                                         int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* cosines = angles + row * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        const double angle = plan_->angle_positions[row] * frequencies[i];
        cosines[i] = static_cast<float>(std::cos(angle)) * limits_.model.attention_factor;
        cosines[half + i] = static_cast<float>(std::sin(angle)) * limits_.model.attention_factor;
      }
    }
  });
}

void CpuSteps::embed(const EmbeddingWeight& weight, Buffer out) {
  const auto& table = static_cast<const CpuEmbedding&>(weight);
  const int64_t bytes = row_bytes(table.type, table.cols);
  device_.split(plan_->n_tokens(), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      cpu::dequantize_row(table.type, table.data + plan_->tokens[t] * bytes, table.cols,
                          out.data + t * out.stride);
    }
  });
}

void CpuSteps::rms_norm(Buffer x, const VectorWeight& weight, float eps, int32_t n, Buffer out) {
  const float* w = static_cast<const CpuVector&>(weight).values.data();
  device_.split(n, [&](int64_t begin, int64_t end) {
    device_.kernels.rms_norm(x.data + begin * x.stride, w, eps, x.cols, end - begin,
                             out.data + begin * out.stride);
  });
}

void CpuSteps::linear(const LinearWeight& weight, Buffer x, int32_t n,
                      std::span<const Buffer> outputs, bool accumulate) {
  const auto& parts = static_cast<const CpuLinear&>(weight).parts;
  if (device_.reference) {
    linear_reference(parts, x, n, outputs, accumulate);
  } else {
    linear_packed(parts, x, n, outputs, accumulate);
  }
}

void CpuSteps::rope_store(int32_t layer, Buffer k, Buffer v) {
  cpu::RopeStoreArgs args{};
  args.k = k.data;
  args.v = v.data;
  args.k_stride = k.stride;
  args.v_stride = v.stride;
  args.angles = reinterpret_cast<const float*>(angles_.data());
  args.angle_rows = own_rows_.data();
  args.interleaved = limits_.model.rope_interleaved;
  args.kv = pages_.view();
  args.destinations = plan_->layers[layer].destinations.data();
  args.key_norms = plan_->layers[layer].key_norms;
  int64_t overflows = 0;
  args.overflows = &overflows;
  device_.split(plan_->n_tokens(),
                [&](int64_t begin, int64_t end) { device_.kernels.rope_store(args, begin, end); });
  if (overflows > 0) overflows_.add(layer, overflows);
}

void CpuSteps::linear_reference(const std::vector<CpuLinear::Part>& parts, Buffer x, int32_t n,
                                std::span<const Buffer> outputs, bool accumulate) {
  device_.split_parts(
      parts.size(), [&](size_t i) { return parts[i].rows; },
      [&](size_t i, int64_t begin, int64_t end, int worker) {
        const CpuLinear::Part& part = parts[i];
        float* scratch = reinterpret_cast<float*>(input_.data()) + worker * padded_cols(limits_);
        device_.kernels.linear_reference(part.type, part.original, part.cols, x.data, x.stride, n,
                                         outputs[i].data, outputs[i].stride, accumulate, begin, end,
                                         scratch);
      });
}

void CpuSteps::linear_packed(const std::vector<CpuLinear::Part>& parts, Buffer x, int32_t n,
                             std::span<const Buffer> outputs, bool accumulate) {
  // Neighbouring parts of one format share the prepared input.
  for (size_t first = 0; first < parts.size();) {
    const int32_t format = parts[first].packed.format;
    size_t last = first + 1;
    while (last < parts.size() && parts[last].packed.format == format) ++last;
    const cpu::PackedInput input{input_.data(), format, n, x.cols};
    device_.split(n, [&](int64_t begin, int64_t end) {
      device_.kernels.pack_input(x.data, x.stride, input, begin, end);
    });
    device_.split_parts(
        last - first, [&](size_t i) { return parts[first + i].groups(); },
        [&](size_t i, int64_t begin, int64_t end, int) {
          const Buffer& y = outputs[first + i];
          device_.kernels.linear(parts[first + i].packed, input, y.data, y.stride, accumulate,
                                 begin, end);
        });
    first = last;
  }
}

void CpuSteps::attention(int32_t layer, Buffer q, Buffer out) {
  const auto start = std::chrono::steady_clock::now();
  attend(layer, q, out);
  clocks_.add(layer, std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count());
}

void CpuSteps::collect_sequences(int32_t layer) {
  const std::span<const SequenceView> views = plan_->layers[layer].sequences;
  sequences_.clear();
  auto* masses = reinterpret_cast<int64_t*>(masses_.data());
  for (const SequenceView& s : views) {
    const auto n_entries = static_cast<int32_t>(s.entries.size());
    sequences_.push_back({s.queries(), s.entries.data(), s.angle_rows, nullptr});
    if (s.uses == nullptr) continue;
    sequences_.back().mass = masses;
    std::fill_n(masses, int64_t{s.n_tokens} * n_entries, int64_t{0});
    masses += int64_t{s.n_tokens} * n_entries;
  }
}

void CpuSteps::attend(int32_t layer, Buffer q, Buffer out) {
  collect_sequences(layer);
  cpu::AttentionArgs args{};
  args.q = q.data;
  args.out = out.data;
  args.n_heads = limits_.model.n_heads;
  args.scale = 1.0F / std::sqrt(static_cast<float>(limits_.pool.geometry.head_dim));
  args.angles = reinterpret_cast<const float*>(angles_.data());
  args.interleaved = limits_.model.rope_interleaved;
  args.kv = pages_.view().read_only();
  args.sequences = sequences_.data();
  args.n_sequences = static_cast<int32_t>(sequences_.size());
  args.max_parts = static_cast<int32_t>(max_parts(limits_));
  const auto kernel =
      device_.reference ? device_.kernels.attention_reference : device_.kernels.attention;
  const int64_t tasks = device_.kernels.attention_tasks(args);
  const int64_t scratch = worker_scratch(limits_);
  // Tasks differ in length, so workers take the next one as they come free.
  std::atomic<int64_t> next{0};
  device_.threads.run([&](int worker) {
    float* own = reinterpret_cast<float*>(scratch_.data()) + worker * scratch;
    for (int64_t i = next++; i < tasks; i = next++) kernel(args, i, i + 1, own);
  });
  const std::span<const SequenceView> views = plan_->layers[layer].sequences;
  for (size_t i = 0; i < views.size(); ++i) {
    if (views[i].uses != nullptr) {
      cpu::add_up_uses(sequences_[i], limits_.model.n_heads, views[i].uses);
    }
  }
}

void CpuSteps::swiglu(Buffer gate_up, int32_t n, Buffer out) {
  const auto kernel = device_.reference ? device_.kernels.swiglu_reference : device_.kernels.swiglu;
  device_.split(n, [&](int64_t begin, int64_t end) {
    kernel(gate_up.data + begin * gate_up.stride, out.cols, end - begin,
           out.data + begin * out.stride);
  });
}

void CpuSteps::gather(Buffer x, std::span<const int32_t> rows, Buffer out) {
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(out.data + i * out.stride, x.data + rows[i] * x.stride,
                static_cast<size_t>(out.cols) * sizeof(float));
  }
}

}  // namespace paddock
