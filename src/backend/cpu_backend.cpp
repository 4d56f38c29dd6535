// The CPU backend: splits every operation of step_ops.h over a thread pool of its own and calls the
// kernels of one instruction set.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "backend/devices.h"
#include "backend/layer_counters.h"
#include "core/aligned_buffer.h"
#include "core/checked.h"
#include "core/fail.h"
#include "core/system.h"
#include "core/thread_pool.h"
#include "cpu/kernels.h"

namespace paddock {
namespace {

constexpr int64_t kGroupRows = 16;  // rows of one packed group, see cpu/kernels.h

struct CpuLinear final : LinearWeight {
  struct Part {
    DType type;
    int64_t rows, cols;
    const std::byte* original;  // mapped bytes, for the reference kernels
    cpu::PackedLinear packed;   // for the fast ones
    AlignedBuffer storage;
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

cpu::Isa parse_isa(const std::string& name) {
  if (name.empty()) return cpu::best_isa();
  for (const cpu::Isa isa :
       {cpu::Isa::kPortable, cpu::Isa::kAvx2, cpu::Isa::kAvx512, cpu::Isa::kAvx512Bf16}) {
    if (name != cpu::isa_name(isa)) continue;
    if (!cpu::isa_supported(isa)) {
      fail(ErrorCode::kInvalidArgument, "isa '{}' is not supported by this processor or build",
           name);
    }
    return isa;
  }
  fail(ErrorCode::kInvalidArgument,
       "isa '{}' is unknown; use portable, avx2, avx512 or avx512_bf16", name);
}

class CpuBackend final : public Backend, WeightStore, StepOps, PageStore {
 public:
  explicit CpuBackend(const BackendOptions& options)
      : kernels_(cpu::kernels(parse_isa(options.isa))),
        reference_(options.reference),
        pool_(options.threads) {}

  WeightStore& weights() override { return *this; }
  StepOps& ops() override { return *this; }
  PageStore& pages() override { return *this; }

  // ---- weights

  std::string weights_key() const override {
    return reference_ ? "cpu/reference" : fmt::format("cpu/{}", cpu::isa_name(kernels_.isa));
  }

  bool repacks() const override { return !reference_; }

  uint64_t linear_bytes(const TensorView& tensor) const override {
    if (reference_) return 0;
    return static_cast<uint64_t>(kernels_.packed_linear_bytes(kernels_.packed_format(tensor.dtype),
                                                              tensor.rows(), tensor.cols()));
  }

  uint64_t embedding_bytes(const TensorView&) const override { return 0; }  // read where it lies

  std::unique_ptr<LinearWeight> make_linear(std::span<const TensorView* const> parts,
                                            uint64_t& bytes) override {
    auto linear = std::make_unique<CpuLinear>();
    for (const TensorView* tensor : parts) {
      CpuLinear::Part part{
          tensor->dtype, tensor->rows(), tensor->cols(), tensor->data.data(), {}, {}};
      if (!reference_) pack(*tensor, part);
      bytes += part.storage.size();
      linear->parts.push_back(std::move(part));
    }
    return linear;
  }

  std::unique_ptr<VectorWeight> make_vector(const TensorView& tensor, uint64_t& bytes) override {
    auto vector = std::make_unique<CpuVector>();
    vector->values.resize(tensor.cols());
    cpu::dequantize_row(tensor.dtype, tensor.data.data(), tensor.cols(), vector->values.data());
    bytes += vector->values.size() * sizeof(float);
    return vector;
  }

  std::unique_ptr<EmbeddingWeight> make_embedding(const TensorView& tensor, uint64_t&) override {
    auto embedding = std::make_unique<CpuEmbedding>();
    embedding->type = tensor.dtype;
    embedding->rows = tensor.rows();
    embedding->cols = tensor.cols();
    embedding->data = tensor.data.data();
    return embedding;
  }

  // ---- memory

  DeviceMemory memory() const override { return {"cpu", 0, 0, 0, 0}; }
  uint64_t available_bytes() const override { return available_memory(); }

  uint64_t reserve_bytes(const BackendLimits& limits) const override {
    return pool_bytes(limits) + angle_bytes(limits) + input_bytes(limits) + scratch_bytes(limits) +
           mass_bytes(limits);
  }

  void reserve(const BackendLimits& limits) override {
    limits_ = limits;
    clocks_.resize(limits.step.max_entries.size());
    overflows_.resize(limits.step.max_entries.size());
    const auto fit = [](AlignedBuffer& buffer, uint64_t bytes, const char* what) {
      if (buffer.size() == bytes) return;
      buffer = AlignedBuffer();  // the old one first: both may not fit
      buffer = AlignedBuffer(bytes, what);
    };
    fit(page_pool_, pool_bytes(limits), "the page pool");
    kv_ = {page_pool_.data(), limits.pool.geometry, limits.pool.kv_type};
    fit(angles_, angle_bytes(limits), "rotary angles");
    fit(input_, input_bytes(limits), "packed activations");
    fit(scratch_, scratch_bytes(limits), "attention scratch");
    fit(masses_, mass_bytes(limits), "attention masses");
    sequences_.reserve(limits.step.max_sequences);
    own_rows_.resize(limits.step.max_tokens);
    std::iota(own_rows_.begin(), own_rows_.end(), 0);
  }

  Buffer make_buffer(int64_t rows, int64_t cols) override {
    buffers_.emplace_back(static_cast<uint64_t>(rows * cols) * sizeof(float), "activations");
    return {reinterpret_cast<float*>(buffers_.back().data()), cols, cols};
  }

  // ---- one step

  bool run(const StepPlan& plan, StepLayers layers) override {
    plan_ = &plan;
    compute_angles();
    return layers(plan.n_tokens());
  }

  void embed(const EmbeddingWeight& weight, Buffer out) override {
    const auto& table = static_cast<const CpuEmbedding&>(weight);
    const int64_t bytes = row_bytes(table.type, table.cols);
    split(plan_->n_tokens(), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        cpu::dequantize_row(table.type, table.data + plan_->tokens[t] * bytes, table.cols,
                            out.data + t * out.stride);
      }
    });
  }

  void rms_norm(Buffer x, const VectorWeight& weight, float eps, int32_t n, Buffer out) override {
    const float* w = static_cast<const CpuVector&>(weight).values.data();
    split(n, [&](int64_t begin, int64_t end) {
      kernels_.rms_norm(x.data + begin * x.stride, w, eps, x.cols, end - begin,
                        out.data + begin * out.stride);
    });
  }

  void linear(const LinearWeight& weight, Buffer x, int32_t n, std::span<const Buffer> outputs,
              bool accumulate) override {
    const auto& parts = static_cast<const CpuLinear&>(weight).parts;
    if (reference_) {
      linear_reference(parts, x, n, outputs, accumulate);
    } else {
      linear_packed(parts, x, n, outputs, accumulate);
    }
  }

  void rope_store(int32_t layer, Buffer k, Buffer v) override {
    cpu::RopeStoreArgs args{};
    args.k = k.data;
    args.v = v.data;
    args.k_stride = k.stride;
    args.v_stride = v.stride;
    args.angles = reinterpret_cast<const float*>(angles_.data());
    args.angle_rows = own_rows_.data();
    args.interleaved = limits_.model.rope_interleaved;
    args.kv = kv_;
    args.destinations = plan_->layers[layer].destinations.data();
    args.key_norms = plan_->layers[layer].key_norms;
    int64_t overflows = 0;
    args.overflows = &overflows;
    split(plan_->n_tokens(),
          [&](int64_t begin, int64_t end) { kernels_.rope_store(args, begin, end); });
    if (overflows > 0) overflows_.add(layer, overflows);
  }

  void attention(int32_t layer, Buffer q, Buffer out) override {
    const auto start = std::chrono::steady_clock::now();
    attend(layer, q, out);
    clocks_.add(layer, std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count());
  }

  void swiglu(Buffer gate_up, int32_t n, Buffer out) override {
    const auto kernel = reference_ ? kernels_.swiglu_reference : kernels_.swiglu;
    split(n, [&](int64_t begin, int64_t end) {
      kernel(gate_up.data + begin * gate_up.stride, out.cols, end - begin,
             out.data + begin * out.stride);
    });
  }

  void gather(Buffer x, std::span<const int32_t> rows, Buffer out) override {
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(out.data + i * out.stride, x.data + rows[i] * x.stride,
                  static_cast<size_t>(out.cols) * sizeof(float));
    }
  }

  std::span<const float> host_rows(Buffer x, int32_t n) override {
    return {x.data, static_cast<size_t>(n * x.cols)};
  }
  bool samples() const override { return false; }
  std::span<const int32_t> sample(Buffer, std::span<const SampleRow>) override { return {}; }
  void wait() override {}
  int64_t attention_nanoseconds(int32_t layer) const override { return clocks_.read(layer); }
  int64_t kv_overflows(int32_t layer) const override { return overflows_.read(layer); }

  // ---- pages

  void read_page(int32_t page, std::span<std::byte> out) const override {
    std::memcpy(out.data(), kv_.page(page), static_cast<size_t>(kv_.page_bytes()));
  }

  std::unique_ptr<HostPages> make_host_pages(int64_t n) override {
    struct Pages final : HostPages {
      Pages(AlignedBuffer taken, int64_t page_bytes)
          : HostPages(reinterpret_cast<std::byte*>(taken.data()), page_bytes),
            buffer(std::move(taken)) {}
      AlignedBuffer buffer;
    };
    const int64_t bytes = kv_.page_bytes();
    return std::make_unique<Pages>(AlignedBuffer(static_cast<uint64_t>(n * bytes), "saved pages"),
                                   bytes);
  }
  int64_t save_pages(std::span<const PageCopy> copies) override {
    for (const PageCopy& c : copies) {
      std::memcpy(c.host, kv_.page(c.page), static_cast<size_t>(kv_.page_bytes()));
    }
    return 0;
  }
  int64_t load_pages(std::span<const PageCopy> copies) override {
    for (const PageCopy& c : copies) {
      std::memcpy(kv_.page(c.page), c.host, static_cast<size_t>(kv_.page_bytes()));
    }
    return 0;
  }
  bool copies_done(int64_t) override { return true; }
  void wait_for_copies(int64_t) override {}

  void poison_page(int32_t page) override {
    std::memset(kv_.page(page), 0xFF, static_cast<size_t>(kv_.page_bytes()));
  }

 private:
  /// fn(begin, end) over [0, n), in one go where a single row would not pay for a barrier.
  template <typename Fn>
  void split(int64_t n, const Fn& fn) {
    if (n < 2 || pool_.size() == 1) {
      if (n > 0) fn(int64_t{0}, n);
      return;
    }
    pool_.run([&](int worker) {
      const ThreadPool::Range r = ThreadPool::split(n, 1, worker, pool_.size());
      if (r.begin < r.end) fn(r.begin, r.end);
    });
  }

  /// fn(part, begin, end): the units of all parts taken as one list and divided over the workers.
  template <typename Units, typename Fn>
  void split_parts(size_t n_parts, const Units& units, int64_t grain, const Fn& fn) {
    int64_t total = 0;
    for (size_t i = 0; i < n_parts; ++i) total += units(i);
    pool_.run([&](int worker) {
      const ThreadPool::Range r = ThreadPool::split(total, grain, worker, pool_.size());
      int64_t first = 0;
      for (size_t i = 0; i < n_parts; ++i) {
        const int64_t begin = std::max(r.begin, first);
        const int64_t end = std::min(r.end, first + units(i));
        if (begin < end) fn(i, begin - first, end - first, worker);
        first += units(i);
      }
    });
  }

  /// Cosines and sines of the step at hand.
  void compute_angles() {
    const std::vector<double>& frequencies = limits_.model.inverse_frequencies;
    const auto half = static_cast<int64_t>(frequencies.size());
    float* angles = reinterpret_cast<float*>(angles_.data());
    split(static_cast<int64_t>(plan_->angle_positions.size()), [&](int64_t begin, int64_t end) {
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

  void attend(int32_t layer, Buffer q, Buffer out) {
    const std::span<const SequenceView> views = plan_->layers[layer].sequences;
    sequences_.clear();
    auto* masses = reinterpret_cast<int64_t*>(masses_.data());
    for (const SequenceView& s : views) {
      const auto n_entries = static_cast<int32_t>(s.entries.size());
      sequences_.push_back({s.first_token, s.n_tokens, s.first_position, s.entries.data(),
                            n_entries, s.angle_rows, s.n_rotations, s.visibility, nullptr});
      if (s.uses == nullptr) continue;
      sequences_.back().mass = masses;
      std::fill_n(masses, int64_t{s.n_tokens} * n_entries, int64_t{0});
      masses += int64_t{s.n_tokens} * n_entries;
    }
    cpu::AttentionArgs args{};
    args.q = q.data;
    args.out = out.data;
    args.n_heads = limits_.model.n_heads;
    args.scale = 1.0F / std::sqrt(static_cast<float>(limits_.pool.geometry.head_dim));
    args.angles = reinterpret_cast<const float*>(angles_.data());
    args.interleaved = limits_.model.rope_interleaved;
    args.kv = kv_.read_only();
    args.sequences = sequences_.data();
    args.n_sequences = static_cast<int32_t>(sequences_.size());
    args.max_parts = static_cast<int32_t>(max_parts(limits_));
    const auto kernel = reference_ ? kernels_.attention_reference : kernels_.attention;
    const int64_t tasks = kernels_.attention_tasks(args);
    const int64_t scratch = worker_scratch(limits_);
    // Tasks differ in length, so workers take the next one as they come free.
    std::atomic<int64_t> next{0};
    pool_.run([&](int worker) {
      float* own = reinterpret_cast<float*>(scratch_.data()) + worker * scratch;
      for (int64_t i = next++; i < tasks; i = next++) kernel(args, i, i + 1, own);
    });
    for (size_t i = 0; i < views.size(); ++i) {
      if (views[i].uses != nullptr) {
        cpu::add_up_uses(sequences_[i], limits_.model.n_heads, views[i].uses);
      }
    }
  }

  void pack(const TensorView& tensor, CpuLinear::Part& part) {
    const int32_t format = kernels_.packed_format(tensor.dtype);
    part.storage = AlignedBuffer(linear_bytes(tensor), tensor.name.c_str());
    part.packed = {tensor.dtype, format, part.rows, part.cols, part.storage.data()};
    const auto groups = static_cast<int64_t>(ceil_div(part.rows, kGroupRows));
    split(groups, [&](int64_t begin, int64_t end) {
      kernels_.pack_linear(tensor.dtype, tensor.data.data(), part.packed, part.storage.data(),
                           begin, end);
    });
  }

  void linear_reference(const std::vector<CpuLinear::Part>& parts, Buffer x, int32_t n,
                        std::span<const Buffer> outputs, bool accumulate) {
    split_parts(
        parts.size(), [&](size_t i) { return parts[i].rows; }, 1,
        [&](size_t i, int64_t begin, int64_t end, int worker) {
          const CpuLinear::Part& part = parts[i];
          float* scratch = reinterpret_cast<float*>(input_.data()) + worker * padded_cols(limits_);
          kernels_.linear_reference(part.type, part.original, part.cols, x.data, x.stride, n,
                                    outputs[i].data, outputs[i].stride, accumulate, begin, end,
                                    scratch);
        });
  }

  void linear_packed(const std::vector<CpuLinear::Part>& parts, Buffer x, int32_t n,
                     std::span<const Buffer> outputs, bool accumulate) {
    // Neighbouring parts of one format share the prepared input.
    for (size_t first = 0; first < parts.size();) {
      const int32_t format = parts[first].packed.format;
      size_t last = first + 1;
      while (last < parts.size() && parts[last].packed.format == format) ++last;
      const cpu::PackedInput input{input_.data(), format, n, x.cols};
      split(n, [&](int64_t begin, int64_t end) {
        kernels_.pack_input(x.data, x.stride, input, begin, end);
      });
      split_parts(
          last - first,
          [&](size_t i) {
            return static_cast<int64_t>(ceil_div(parts[first + i].rows, kGroupRows));
          },
          1,
          [&](size_t i, int64_t begin, int64_t end, int) {
            const Buffer& y = outputs[first + i];
            kernels_.linear(parts[first + i].packed, input, y.data, y.stride, accumulate, begin,
                            end);
          });
      first = last;
    }
  }

  static int64_t padded_cols(const BackendLimits& limits) {
    return static_cast<int64_t>(round_up(limits.model.max_cols, 16));
  }
  static uint64_t pool_bytes(const BackendLimits& limits) {
    return checked_mul(limits.pool.n_pages, limits.pool.geometry.page_bytes(), "the page pool",
                       ErrorCode::kOutOfMemory);
  }
  static uint64_t angle_bytes(const BackendLimits& limits) {
    return uint64_t(limits.step.max_angle_rows) * 2 * limits.model.inverse_frequencies.size() *
           sizeof(float);
  }
  uint64_t input_bytes(const BackendLimits& limits) const {
    if (reference_) return pool_.size() * padded_cols(limits) * sizeof(float);
    int64_t most = 0;
    for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ4_0, DType::kQ4_1,
                             DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ2_K, DType::kQ3_K,
                             DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
      most = std::max(most, kernels_.input_bytes(kernels_.packed_format(type),
                                                 limits.step.max_tokens, limits.model.max_cols));
    }
    return static_cast<uint64_t>(most);
  }
  static int64_t max_parts(const BackendLimits& limits) {
    return cpu::attention_parts(limits.step.max_measured_entries, limits.pool.geometry.block_size);
  }
  int64_t worker_scratch(const BackendLimits& limits) const {
    return kernels_.attention_scratch(limits.pool.geometry.head_dim,
                                      limits.model.n_heads / limits.pool.geometry.n_kv_heads,
                                      max_parts(limits));
  }
  static uint64_t mass_bytes(const BackendLimits& limits) {
    return checked_mul(limits.step.max_measured_entries,
                       uint64_t(limits.step.max_tokens) * sizeof(int64_t), "attention masses",
                       ErrorCode::kOutOfMemory);
  }
  uint64_t scratch_bytes(const BackendLimits& limits) const {
    return sizeof(float) * static_cast<uint64_t>(worker_scratch(limits) * pool_.size());
  }

  const cpu::Kernels& kernels_;
  bool reference_;
  ThreadPool pool_;
  BackendLimits limits_;
  KvView<KeyOrder::kByDim, uint8_t> kv_;  // of page_pool_
  AlignedBuffer page_pool_, angles_, input_, scratch_;
  AlignedBuffer masses_;  // of the layer at hand: [n_tokens, n_entries] for each measured sequence
  std::vector<AlignedBuffer> buffers_;
  std::vector<cpu::AttentionSequence> sequences_;
  std::vector<int32_t> own_rows_;  // angle row i belongs to token i
  const StepPlan* plan_ = nullptr;
  LayerCounters clocks_;     // nanoseconds of attention
  LayerCounters overflows_;  // of keys and values
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace paddock
