#include "backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "backend/cuda/device_pages.h"
#include "backend/cuda/products.h"
#include "backend/cuda/step_recorder.h"
#include "backend/cuda/step_upload.h"
#include "backend/layer_counters.h"
#include "core/checked.h"
#include "core/fail.h"
#include "cpu/kernels.h"

namespace paddock {
namespace {

using cuda::DeviceArray;
using cuda::DeviceRuntime;
using cuda::PinnedArray;

struct CudaLinear final : LinearWeight {
  std::vector<cuda::DeviceMatrix> parts;
};
struct CudaVector final : VectorWeight {
  DeviceArray values;
};
struct CudaEmbedding final : EmbeddingWeight {
  cuda::DeviceMatrix table;
};

/// Fewer tokens of one sequence than this are attended one by one.
constexpr int32_t kPrefillLeast = 16;
/// Single queries of one launch; the workspace grows with it.
constexpr int32_t kDecodeLeast = 64;
/// What sample() brings and what comes back with its tokens.
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

class CudaBackend final : public Backend, WeightStore, StepOps, PageStore {
 public:
  CudaBackend(const BackendOptions& options, std::shared_ptr<DeviceRuntime> runtime)
      : runtime_(std::move(runtime)),
        reference_(options.reference),
        pages_(runtime_),
        products_(runtime_, reference_),
        recorder_(runtime_) {}

  ~CudaBackend() override {
    try {
      runtime_->synchronize();  // nothing may be under way when memory goes
    } catch (const Error&) {
    }
  }

  WeightStore& weights() override { return *this; }
  StepOps& ops() override { return *this; }
  PageStore& pages() override { return *this; }

  // ---- weights

  std::string weights_key() const override { return runtime_->name(); }
  bool repacks() const override { return true; }
  uint64_t linear_bytes(const TensorView& tensor) const override { return tensor.data.size(); }
  uint64_t embedding_bytes(const TensorView& tensor) const override { return tensor.data.size(); }

  std::unique_ptr<LinearWeight> make_linear(std::span<const TensorView* const> parts,
                                            uint64_t& bytes) override {
    auto linear = std::make_unique<CudaLinear>();
    for (const TensorView* tensor : parts)
      linear->parts.push_back(products_.matrix(*tensor, bytes));
    return linear;
  }

  std::unique_ptr<VectorWeight> make_vector(const TensorView& tensor, uint64_t& bytes) override {
    std::vector<float> values(tensor.cols());
    cpu::dequantize_row(tensor.dtype, tensor.data.data(), tensor.cols(), values.data());
    auto vector = std::make_unique<CudaVector>();
    const uint64_t size = values.size() * sizeof(float);
    vector->values = DeviceArray(runtime_, size, tensor.name.c_str());
    runtime_->copy_in(vector->values.as<float>(), values.data(), size);
    runtime_->synchronize();  // `values` goes, and other engines' streams will read the copy
    bytes += size;
    return vector;
  }

  std::unique_ptr<EmbeddingWeight> make_embedding(const TensorView& tensor,
                                                  uint64_t& bytes) override {
    auto embedding = std::make_unique<CudaEmbedding>();
    embedding->table = products_.matrix(tensor, bytes);
    return embedding;
  }

  // ---- memory

  DeviceMemory memory() const override { return runtime_->driver_view(); }
  uint64_t available_bytes() const override {
    const cuda::DeviceMemoryInfo memory = runtime_->memory();
    return memory.free_bytes - std::min(memory.free_bytes, memory.headroom_bytes);
  }

  uint64_t reserve_bytes(const BackendLimits& limits) const override {
    uint64_t total = cuda::DevicePages::bytes(limits) + cuda::StepUpload::device_bytes(limits) +
                     products_.bytes(limits);
    for (const auto& [array, bytes, what] : sizes(limits)) total += bytes;
    return total;
  }

  void reserve(const BackendLimits& limits) override {
    pending_ = nullptr;
    wait();
    limits_ = limits;
    pages_.reserve(limits);
    for (const auto& [array, bytes, what] : sizes(limits)) {
      (this->*array).resize(runtime_, bytes, what);
    }
    runtime_->fill(arrivals_.as<uint8_t>(), 0, arrivals_.bytes());
    products_.reserve(limits);
    recorder_.clear();
    upload_ = nullptr;
    upload_ = std::make_unique<cuda::StepUpload>(runtime_, limits);
    runtime_->copy_in(frequencies_.as<double>(), limits.model.inverse_frequencies.data(),
                      limits.model.inverse_frequencies.size() * sizeof(double));
    runtime_->synchronize();  // `limits` goes
    if (samples()) runtime_->fill(sampling_.as<uint8_t>(), 0, sampling_.bytes());
    runtime_->fill(sample_rows_.as<uint8_t>(), 0, sample_rows_.bytes());
    overflows_seen_.assign(limits.step.max_entries.size(), 0);
    overflows_.resize(limits.step.max_entries.size());
    host_rows_.resize(
        runtime_,
        uint64_t(limits.step.max_logit_rows) * uint64_t(limits.model.vocab_size) * sizeof(float),
        "logits");
    host_gather_.resize(runtime_, rows_.bytes(), "row numbers");
    host_samples_.resize(runtime_, SampleLayout(limits).end, "tokens");
    host_measures_.resize(runtime_, uses_bytes(limits) + norms_bytes(limits), "measures");
    clocks_.resize(limits.step.max_entries.size());
  }

  Buffer make_buffer(int64_t rows, int64_t cols) override {
    const auto bytes = static_cast<uint64_t>(rows * cols) * sizeof(float);
    buffers_.emplace_back(runtime_, bytes, "activations");
    runtime_->fill(buffers_.back().as<float>(), 0, bytes);
    return {buffers_.back().as<float>(), cols, cols};
  }

  // ---- one step

  bool run(const StepPlan& plan, StepLayers layers) override {
    if (!failure_.empty()) {
      fail(ErrorCode::kDevice, "the device failed before ({}); {}", failure_,
           device_lost_ ? "restart the process" : "make a new engine");
    }
    pending_ = nullptr;  // nobody has waited for its measures, and its plan is gone
    if (busy_) wait();
    guard([&] { pages_.join_loads(); });
    plan_ = &plan;
    const auto [shape, recordable] = cuda::choose_shape(
        plan, limits_, reference_ || !prefill_fits() ? INT32_MAX : kPrefillLeast);
    guard([&] { upload_->upload(plan, shape); });
    busy_ = true;
    launch("angles", cuda::angles({upload_->angle_positions(), frequencies_.as<double>(),
                                   limits_.model.attention_factor, angles_.as<float>(),
                                   static_cast<int32_t>(plan.angle_positions.size()), half()},
                                  stream()));
    const int32_t n = shape.n_tokens;
    if (!recordable) {
      if (!layers(n)) return false;
    } else {
      bool completed = false;
      guard(
          [&] { completed = recorder_.run(shape, upload_->layers(), [&] { return layers(n); }); });
      if (!completed) return false;
    }
    bring_measures();
    pending_ = plan_;
    timed_layers_ = static_cast<int32_t>(plan.layers.size());
    return true;
  }

  void embed(const EmbeddingWeight& weight, Buffer out) override {
    const cuda::DeviceMatrix& table = static_cast<const CudaEmbedding&>(weight).table;
    launch("embed", cuda::embed({upload_->tokens(), table.bytes(), table.type, table.cols, out.data,
                                 out.stride, upload_->n_tokens()},
                                stream()));
  }

  void rms_norm(Buffer x, const VectorWeight& weight, float eps, int32_t n, Buffer out) override {
    const auto& w = static_cast<const CudaVector&>(weight);
    launch("rms_norm", cuda::rms_norm({x.data, x.stride, w.values.as<float>(), eps, x.cols,
                                       out.data, out.stride, n},
                                      stream()));
  }

  void linear(const LinearWeight& weight, Buffer x, int32_t n, std::span<const Buffer> outputs,
              bool accumulate) override {
    const auto& parts = static_cast<const CudaLinear&>(weight).parts;
    guard([&] { products_.multiply(parts, x, n, outputs, accumulate); });
  }

  void rope_store(int32_t layer, Buffer k, Buffer v) override {
    const bool norms = plan_->layers[layer].key_norms != nullptr;
    launch(
        "rope_store",
        cuda::rope_store(
            {k.data, v.data, k.stride, v.stride, angles_.as<float>(),
             limits_.model.rope_interleaved, pages_.view(), upload_->layers()[layer].destinations,
             norms ? norms_.as<int64_t>() + int64_t{layer} * limits_.step.max_tokens : nullptr,
             device_overflows() + layer, upload_->n_tokens()},
            stream()));
  }

  void attention(int32_t layer, Buffer q, Buffer out) override {
    mark(2 * layer);
    const cuda::LayerUpload& of = upload_->layers()[layer];
    const cuda::AttentionArgs args{
        q.data,
        out.data,
        limits_.model.n_heads,
        1.0F / std::sqrt(static_cast<float>(limits_.pool.geometry.head_dim)),
        angles_.as<float>(),
        limits_.model.rope_interleaved,
        pages_.view().read_only(),
        of.sequences,
        of.entries,
        of.angle_rows,
        of.measured ? lse_.as<float>() : nullptr,
        masses_.as<int64_t>(),
        workspace_.as<float>(),
        !reference_,
        arrivals_.as<uint32_t>()};
    if (upload_->n_tiles() > 0) {
      launch("prefill_attention",
             cuda::prefill_attention(args, {upload_->tiles(), upload_->n_tiles()}, stream()));
    }
    // Where every sequence has one token, no list need be read.
    const bool alone = upload_->n_decode() == upload_->n_sequences() &&
                       upload_->n_decode() <= decode_most(limits_);
    for (int32_t first = 0; first < upload_->n_decode(); first += decode_most(limits_)) {
      launch("decode_attention",
             cuda::decode_attention(
                 args,
                 {alone ? nullptr : upload_->decode_tokens() + first,
                  alone ? nullptr : upload_->decode_sequences() + first,
                  std::min(decode_most(limits_), upload_->n_decode() - first), of.max_entries},
                 stream()));
    }
    if (of.measured) measure(layer, args);
    mark(2 * layer + 1);
  }

  void swiglu(Buffer gate_up, int32_t n, Buffer out) override {
    launch("swiglu", cuda::swiglu({gate_up.data, gate_up.stride, out.cols, out.data, out.stride, n},
                                  stream()));
  }

  void gather(Buffer x, std::span<const int32_t> rows, Buffer out) override {
    if (rows_busy_) wait();
    std::copy(rows.begin(), rows.end(), host_gather_.as<int32_t>());
    copy_in(rows_.as<int32_t>(), host_gather_.as<int32_t>(), rows.size_bytes());
    rows_busy_ = true;
    launch("gather", cuda::gather({x.data, x.stride, rows_.as<int32_t>(), out.cols, out.data,
                                   out.stride, static_cast<int32_t>(rows.size())},
                                  stream()));
  }

  std::span<const float> host_rows(Buffer x, int32_t n) override {
    const uint64_t bytes = static_cast<uint64_t>(n * x.cols) * sizeof(float);
    const SampleLayout layout(limits_);
    copy_out(host_rows_.as<float>(), x.data, bytes);
    copy_out(host_samples_.as<uint8_t>() + layout.overflows, device_overflows(),
             layout.end - layout.overflows);
    wait();
    count_overflows();
    return {host_rows_.as<const float>(), static_cast<size_t>(n * x.cols)};
  }

  bool samples() const override { return cuda::sample_supports(limits_.model.vocab_size); }

  std::span<const int32_t> sample(Buffer logits, std::span<const SampleRow> rows) override {
    const SampleLayout layout(limits_);
    auto* host_rows = host_samples_.as<SampleRow>();
    auto* host_tokens = reinterpret_cast<int32_t*>(host_samples_.as<uint8_t>() + layout.tokens);
    auto* device_rows = sample_rows_.as<SampleRow>();
    auto* device_tokens = reinterpret_cast<int32_t*>(sample_rows_.as<uint8_t>() + layout.tokens);
    std::copy(rows.begin(), rows.end(), host_rows);
    copy_in(device_rows, host_rows, rows.size_bytes());
    const auto n = static_cast<int32_t>(rows.size());
    cuda::SampleArgs args{logits.data, logits.stride, limits_.model.vocab_size,
                          device_rows, device_tokens, sampling_.as<uint8_t>(),
                          n,           false,         false,
                          false};
    for (const SampleRow& row : rows) {
      args.any_top_k |= row.top_k > 0;
      args.any_top_p |= row.top_p < 1.0F;
      args.any_draw |= row.temperature > 0.0F;
    }
    launch("sample", cuda::sample(args, stream()));
    copy_out(host_tokens, device_tokens, layout.end - layout.tokens);  // and overflows, at once
    wait();
    count_overflows();
    return {host_tokens, rows.size()};
  }

  void wait() override {
    guard([&] { runtime_->synchronize(); });
    busy_ = rows_busy_ = false;
    const int32_t timed = std::min(std::exchange(timed_layers_, 0), DeviceRuntime::kMarks / 2);
    for (int32_t i = 0; i < timed; ++i) clocks_.add(i, runtime_->nanoseconds(2 * i, 2 * i + 1));
    if (pending_ != nullptr) hand_out_measures(*std::exchange(pending_, nullptr));
  }

  int64_t attention_nanoseconds(int32_t layer) const override { return clocks_.read(layer); }
  int64_t kv_overflows(int32_t layer) const override { return overflows_.read(layer); }

  // ---- pages

  void read_page(int32_t page, std::span<std::byte> out) const override { pages_.read(page, out); }
  void poison_page(int32_t page) override { pages_.poison(page); }
  std::unique_ptr<HostPages> make_host_pages(int64_t n) override {
    return pages_.make_host_pages(n);
  }
  int64_t save_pages(std::span<const PageCopy> copies) override {
    int64_t ticket = 0;
    guard([&] { ticket = pages_.save(copies); });
    return ticket;
  }
  int64_t load_pages(std::span<const PageCopy> copies) override {
    int64_t ticket = 0;
    guard([&] { ticket = pages_.load(copies); });
    return ticket;
  }
  bool copies_done(int64_t ticket) override {
    bool done = false;
    guard([&] { done = pages_.is_done(ticket); });
    return done;
  }
  void wait_for_copies(int64_t ticket) override {
    guard([&] { pages_.wait_for(ticket); });
  }

 private:
  struct Size {
    DeviceArray CudaBackend::*array;
    uint64_t bytes;
    const char* what;
  };

  cuda::Stream stream() const { return runtime_->stream(); }

  void launch(const char* kernel, int error) {
    guard([&] { runtime_->check(error, kernel); });
  }
  void copy_in(void* device, const void* host, uint64_t bytes) {
    guard([&] { runtime_->copy_in(device, host, bytes); });
  }
  void copy_out(void* host, const void* device, uint64_t bytes) {
    guard([&] { runtime_->copy_out(host, device, bytes); });
  }
  void mark(int number) {
    if (number < DeviceRuntime::kMarks) guard([&] { runtime_->mark(number); });
  }
  /// A device that failed once may have lost anything: from then on every step is refused.
  template <typename Fn>
  void guard(const Fn& fn) {
    try {
      fn();
    } catch (const Error& e) {
      if (failure_.empty()) {
        failure_ = e.what();
        device_lost_ = !runtime_->usable();
      }
      throw;
    }
  }
  int32_t half() const { return static_cast<int32_t>(limits_.model.inverse_frequencies.size()); }
  bool prefill_fits() const {
    return cuda::prefill_supports(limits_.pool.geometry, limits_.model.n_heads,
                                  limits_.pool.kv_type);
  }
  int64_t measured_uses() const { return upload_->n_uses(); }
  bool asks_for_norms() const {
    return std::any_of(plan_->layers.begin(), plan_->layers.end(),
                       [](const LayerPlan& l) { return l.key_norms != nullptr; });
  }
  static int32_t decode_most(const BackendLimits& l) {
    return std::max(kDecodeLeast, l.step.max_sequences);
  }

  static uint64_t uses_bytes(const BackendLimits& l) {
    return l.step.max_entries.size() * uint64_t(l.step.max_sequences) *
           uint64_t(l.step.max_measured_entries) * sizeof(BlockUse);
  }
  static uint64_t sampling_bytes(const BackendLimits& l) {
    if (!cuda::sample_supports(l.model.vocab_size)) return 0;
    return static_cast<uint64_t>(
        cuda::sample_workspace_bytes(l.model.vocab_size, l.step.max_logit_rows));
  }
  static uint64_t norms_bytes(const BackendLimits& l) {
    return l.step.max_entries.size() * uint64_t(l.step.max_tokens) * sizeof(int64_t);
  }

  /// Every array that reserve() takes, with its size.
  std::vector<Size> sizes(const BackendLimits& l) const {
    using B = CudaBackend;
    const auto tokens = static_cast<uint64_t>(l.step.max_tokens);
    const uint64_t half = l.model.inverse_frequencies.size();
    const int32_t decodes = std::min(decode_most(l), l.step.max_tokens);
    const int64_t workspace =
        cuda::decode_workspace_floats(l.model.n_heads, l.pool.geometry, decodes,
                                      static_cast<int32_t>(*std::max_element(
                                          l.step.max_entries.begin(), l.step.max_entries.end())));
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

  // ---- measures

  uint64_t* device_overflows() {
    return reinterpret_cast<uint64_t*>(sample_rows_.as<uint8_t>() +
                                       SampleLayout(limits_).overflows);
  }
  /// Adds what has come to the host since the last call.
  void count_overflows() {
    const auto* counts = reinterpret_cast<const uint64_t*>(host_samples_.as<const uint8_t>() +
                                                           SampleLayout(limits_).overflows);
    for (size_t i = 0; i < overflows_seen_.size(); ++i) {
      if (counts[i] == overflows_seen_[i]) continue;
      overflows_.add(static_cast<int32_t>(i), static_cast<int64_t>(counts[i] - overflows_seen_[i]));
      overflows_seen_[i] = counts[i];
    }
  }

  /// Starts to copy what the step measured to the host.
  void bring_measures() {
    if (measured_uses() > 0) {
      copy_out(host_measures_.as<uint8_t>(), uses_.as<BlockUse>(),
               static_cast<uint64_t>(measured_uses()) * sizeof(BlockUse));
    }
    if (asks_for_norms()) {
      copy_out(host_measures_.as<uint8_t>() + uses_bytes(limits_), norms_.as<int64_t>(),
               norms_bytes(limits_));
    }
  }

  void measure(int32_t layer, const cuda::AttentionArgs& args) {
    const cuda::LayerUpload& of = upload_->layers()[layer];
    int32_t most = 0;
    for (const SequenceView& s : plan_->layers[layer].sequences) most = std::max(most, s.n_tokens);
    const int32_t n = upload_->n_sequences();
    launch("attention_mass", cuda::attention_mass(args, n, most, of.max_entries, stream()));
    launch("add_up_uses", cuda::add_up_uses(args, of.uses_first, uses_.as<BlockUse>(), n,
                                            of.max_entries, stream()));
  }

  void hand_out_measures(const StepPlan& plan) {
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

  std::shared_ptr<DeviceRuntime> runtime_;
  bool reference_;
  cuda::DevicePages pages_;
  cuda::Products products_;
  cuda::StepRecorder recorder_;
  BackendLimits limits_;
  std::unique_ptr<cuda::StepUpload> upload_;
  std::vector<DeviceArray> buffers_;
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
  bool rows_busy_ = false;  // host_gather_ is being read
  std::string failure_;     // the device's first, if any
  bool device_lost_ = false;
  LayerCounters clocks_;                  // nanoseconds of attention
  LayerCounters overflows_;               // of keys and values
  std::vector<uint64_t> overflows_seen_;  // [n_layers] of the device's counts
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options,
                                           std::shared_ptr<DeviceRuntime> runtime) {
  return std::make_unique<CudaBackend>(options, std::move(runtime));
}

}  // namespace paddock
