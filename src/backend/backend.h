// The operations a device offers to the forward pass. Written against by src/model/llama.cpp;
// nothing above this header knows which device runs.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "block_use.h"
#include "core/tensor.h"
#include "paddock/engine.h"
#include "paged_kv.h"
#include "sampling.h"

namespace paddock {

/// Weights in a backend's own form; only the backend that made them looks inside.
struct LinearWeight {
  virtual ~LinearWeight() = default;
};
struct VectorWeight {
  virtual ~VectorWeight() = default;
};
struct EmbeddingWeight {
  virtual ~EmbeddingWeight() = default;
};

/// A float32 matrix of activations in device memory: row t starts at data + t * stride.
struct Buffer {
  float* data = nullptr;
  int64_t cols = 0;
  int64_t stride = 0;

  /// Columns [begin, begin + n) of the same rows.
  Buffer columns(int64_t begin, int64_t n) const { return {data + begin, n, stride}; }
};

/// One sequence's consecutive tokens in the flat batch, as one layer's attention sees them.
struct SequenceView {
  int32_t sequence;  // 0 to max_sequences - 1, the same from step to step
  int32_t first_token;
  int32_t n_tokens;
  int32_t first_position;
  std::span<const BlockEntry> entries;  // in position order
  int32_t first_changed;                // entries before it are those of plan `plan_before`,
  int64_t plan_before;                  // the last one that the sequence was in; -1: none
  const int32_t* angle_rows;            // [n_rotations, n_tokens]
  int32_t n_rotations;
  Visibility visibility;
  BlockUse* uses;  // [n_entries] to be filled by attention(); null: nobody asks
};

struct LayerPlan {
  std::span<const KvDestination> destinations;  // [n_tokens]
  std::span<const SequenceView> sequences;
  int64_t* key_norms;  // [n_tokens] to be filled by rope_store(); null: nobody asks
};

/// Everything a step needs, decided on the host before it starts.
struct StepPlan {
  int64_t number;                            // from 1 on
  std::span<const int32_t> tokens;           // [n_tokens] ids
  std::span<const int32_t> angle_positions;  // [n_rows] effective positions; row i < n_tokens is
                                             // token i's own position
  std::span<const LayerPlan> layers;

  int32_t n_tokens() const { return static_cast<int32_t>(tokens.size()); }
};

/// The shape of a weight matrix that linear() will meet.
struct LinearShape {
  DType type;
  int64_t rows, cols;
};

/// Memory of Backend::make_host_pages.
class HostPages {
 public:
  virtual ~HostPages() = default;
  std::byte* page(int64_t i) const { return data_ + i * page_bytes_; }

 protected:
  HostPages(std::byte* data, int64_t page_bytes) : data_(data), page_bytes_(page_bytes) {}

 private:
  std::byte* data_;
  int64_t page_bytes_;
};

/// A page of the pool and its place in a HostPages.
struct PageCopy {
  int32_t page;
  std::byte* host;
};

/// What an engine will ask for at most; a backend reserves for it once.
struct BackendLimits {
  int32_t max_tokens = 0;  // in one step
  int32_t max_angle_rows = 0;
  int32_t max_sequences = 0;
  int32_t n_heads = 0;
  int64_t max_cols = 0;              // widest input of a linear layer
  int32_t max_logit_rows = 0;        // of host_rows() and sample()
  int32_t vocab_size = 0;            // columns of those
  std::vector<LinearShape> linears;  // each kind once
  std::vector<int64_t> max_entries;  // [n_layers] longest table of one sequence
  int64_t max_measured_entries = 0;  // longest table with SequenceView::uses; 0: never asked for
  int64_t n_pages = 0;
  PageGeometry geometry{};
  DType kv_type = DType::kF16;
  std::vector<double> inverse_frequencies;  // [head_dim/2]
  float attention_factor = 1.0F;            // on cos and sin
  bool rope_interleaved = false;
};

/// One device. An object belongs to one engine and is used by one thread at a time.
class Backend {
 public:
  virtual ~Backend() = default;

  // ---- weights
  /// Names the form this backend gives weights: backends of equal keys can share them.
  virtual std::string weights_key() const = 0;
  /// Parts share their input and are multiplied in one operation. Bytes it will reserve are added
  /// to `bytes`.
  virtual std::unique_ptr<LinearWeight> make_linear(std::span<const TensorView* const> parts,
                                                    uint64_t& bytes) = 0;
  virtual std::unique_ptr<VectorWeight> make_vector(const TensorView& tensor, uint64_t& bytes) = 0;
  virtual std::unique_ptr<EmbeddingWeight> make_embedding(const TensorView& tensor,
                                                          uint64_t& bytes) = 0;
  /// True if make_linear copies, so that the mapped original may leave memory.
  virtual bool repacks() const = 0;
  /// Bytes make_linear, and make_embedding, would reserve for a tensor that nobody has given
  /// before.
  virtual uint64_t linear_bytes(const TensorView& tensor) const = 0;
  virtual uint64_t embedding_bytes(const TensorView& tensor) const = 0;

  // ---- memory
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

  // ---- one step; n is the number of rows. Operations may still be under way when they return.
  /// True: the operations from embed() on have to be called for all of the plan's tokens. False:
  /// end_step() does what they would.
  virtual bool begin_step(const StepPlan& plan) = 0;
  /// `completed`: all operations were called. False: they have to be called again.
  virtual bool end_step(bool completed) = 0;
  virtual void embed(const EmbeddingWeight& weight, Buffer out) = 0;
  virtual void rms_norm(Buffer x, const VectorWeight& weight, float eps, int32_t n, Buffer out) = 0;
  /// outputs[i] (=, or += when accumulate) x W_i^T for each part i.
  virtual void linear(const LinearWeight& weight, Buffer x, int32_t n,
                      std::span<const Buffer> outputs, bool accumulate) = 0;
  /// Rotates k at each token's own position and writes k and v into the layer's pages.
  virtual void rope_store(int32_t layer, Buffer k, Buffer v) = 0;
  /// Rotates q per entry and attends over the layer's tables.
  virtual void attention(int32_t layer, Buffer q, Buffer out) = 0;
  /// out[t][i] = silu(gate_up[t][i]) * gate_up[t][out.cols + i]
  virtual void swiglu(Buffer gate_up, int32_t n, Buffer out) = 0;
  /// out[i] = x[rows[i]]
  virtual void gather(Buffer x, std::span<const int32_t> rows, Buffer out) = 0;
  /// The first n rows of a buffer without gaps, in host memory until the next operation; waits.
  virtual std::span<const float> host_rows(Buffer x, int32_t n) = 0;
  /// Whether sample() chooses on the device. Otherwise the host does, from host_rows().
  virtual bool samples() const { return false; }
  /// A token for each of the first rows.size() rows of `logits`, by kernels/sampling.h; -1 where a
  /// logit is not finite. In host memory until the next operation; waits.
  virtual std::span<const int32_t> sample(Buffer logits, std::span<const SampleRow> rows) {
    static_cast<void>(logits);
    static_cast<void>(rows);
    return {};
  }
  /// Waits until what the plan asked for (uses, key norms) has been written.
  virtual void wait() = 0;
  /// Time spent in a layer's attention up to the last wait; from any thread.
  virtual int64_t attention_nanoseconds(int32_t layer) const = 0;
  /// Finite keys and values of a layer that became infinite where they were stored, up to the last
  /// host_rows() or sample(); from any thread.
  virtual int64_t kv_overflows(int32_t layer) const = 0;

  // ---- pages, between steps
  /// Copies a page of page_bytes() to host memory, in the order of kernels/paged_kv.h.
  virtual void read_page(int32_t page, std::span<std::byte> out) const = 0;
  /// Host memory for whole pages, in the backend's own order of bytes, one after another. Must go
  /// before the backend does.
  virtual std::unique_ptr<HostPages> make_host_pages(int64_t n) = 0;
  /// Starts copies to host memory, beside what steps do from now on: of what is in the pages after
  /// the steps so far. Pages must not be written, nor the host memory read, before the copies are
  /// done. Returns a ticket; tickets grow.
  virtual int64_t save_pages(std::span<const PageCopy> copies) = 0;
  /// Starts copies from host memory into pages that no step so far will read. Later steps find them
  /// there; the host memory must not be written before the copies are done.
  virtual int64_t load_pages(std::span<const PageCopy> copies) = 0;
  /// Whether all copies up to that ticket are done.
  virtual bool copies_done(int64_t ticket) = 0;
  virtual void wait_for_copies(int64_t ticket) = 0;
  /// Fills a free page with NaN: whoever still read it would be found out.
  virtual void poison_page(int32_t page) = 0;
};

struct BackendOptions {
  Precision precision = Precision::kFast;
  int32_t threads = 1;
  std::string isa;  // CPU only; empty: the best
};

/// Error kInvalidArgument for an unknown or unsupported isa.
std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options);
/// A backend for "cpu", "cuda" or "cuda:N". Error kInvalidArgument for other names, kDevice where
/// there is no such device.
std::unique_ptr<Backend> make_backend(const std::string& device, const BackendOptions& options);
/// The device that "auto" means.
const std::string& auto_device();
void set_auto_device(std::string device);
/// Tests put an emulated device in the place of "cuda" devices; null takes it away.
using CudaBackendMaker = std::unique_ptr<Backend> (*)(const BackendOptions& options, int32_t index);
void set_cuda_backend_maker(CudaBackendMaker maker);

}  // namespace paddock
