// Kernels on inputs of their own, to be launched again and again: gpu_bench times them on a device,
// bench_scenes_test runs small ones under the harness.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "backend/cuda/device_runtime.h"
#include "cuda/launch.h"
#include "dtype.h"
#include "support/simt/harness.h"

namespace paddock::bench {

/// What a launch does: bytes moved or operations done, as the opening comment of the kernel's file
/// counts them. Partial sums and activations that stay in L2 are not counted.
struct Work {
  double amount;
  bool flops = false;
};

/// A kernel with some sets of inputs, to be taken in turn: together they exceed the L2 cache, so
/// that no launch finds there what an earlier one read.
struct Scene {
  int sets = 1;
  bool recorded = true;  // launched from a graph, or one by one
  Work work{};
  /// Asynchronous; 0 or an error, as launchers return it.
  std::function<int(int set, cuda::Stream stream)> launch;
  /// Launches set 0 over an output that nobody has written, and holds a sample of it against
  /// float64:
  /// ||out - expected|| / ||expected||. NaN where anything written is not finite.
  std::function<double()> error;
  double room = 0;  // of error()
};

/// How the inputs of a scene are to be made.
struct Turns {
  int64_t cold_bytes = 0;  // all sets together are to be at least so large; 0: one set
  int most_sets = 256;
  int sets(int64_t bytes_each) const;
};

/// One row of gpu_bench's table.
struct Case {
  std::string kernel, shape;
  bool headline;  // belongs into a short table
  std::function<Scene(const Turns&)> make;
};

// ---- inputs ----

/// Random values, the same ones over and over: element i of an array is value i % count.
class Pattern {
 public:
  static const Pattern& of(DType type);

  DType type() const { return type_; }
  float value(int64_t i) const;
  /// Values [first, first + n) in float32; both multiples of the type's block.
  std::vector<float> row(int64_t first, int64_t n) const;
  /// Fills a buffer with the bytes of the values, from value 0 on.
  void fill(simt::DeviceBuffer<uint8_t>& to) const;
  void fill(simt::DeviceBuffer<float>& to) const;
  void fill(simt::DeviceBuffer<uint16_t>& to) const;

 private:
  explicit Pattern(DType type);
  template <typename T>
  void fill_with(simt::DeviceBuffer<T>& to) const;

  DType type_;
  std::vector<uint8_t> bytes_;
  int64_t count_;
};

/// A sum of squared errors and of squares.
class Deviation {
 public:
  void add(double actual, double expected) {
    error_ += (actual - expected) * (actual - expected);
    size_ += expected * expected;
  }
  double relative() const { return std::sqrt(error_ / size_); }  // NaN stays; 0/0 is NaN too

 private:
  double error_ = 0, size_ = 0;
};
/// The error of what could not be computed.
inline constexpr double kBroken = std::numeric_limits<double>::quiet_NaN();
/// NaN where a value is not finite, else 0: to be added to an error.
double finite(std::span<const float> values);

// ---- attention (attention_scenes.cpp) ----

struct AttentionShape {
  int32_t heads = 32, kv_heads = 8, head_dim = 128, block = 16;
  DType type = DType::kBF16;
  int32_t sequences = 1;
  int32_t context = 0;  // positions of each, those of the batch included
  int32_t queries = 1;  // the last so many of each are in the batch
  Visibility visibility = {};
};
Scene decode_scene(const AttentionShape& shape, const Turns& turns);
Scene prefill_scene(const AttentionShape& shape, const Turns& turns);
/// attention_mass, after decode (1 query) or prefill.
Scene mass_scene(const AttentionShape& shape, const Turns& turns);

// ---- weights (product_scenes.cpp) ----

struct MatrixShape {
  DType type;
  int64_t rows, cols;
  int32_t tokens = 1;
};
Scene gemv_scene(const MatrixShape& shape, const Turns& turns);
Scene tensor_gemv_scene(const MatrixShape& shape, const Turns& turns);
Scene dequantize_scene(const MatrixShape& shape, const Turns& turns);
Scene embed_scene(const MatrixShape& shape, const Turns& turns);
/// A dense product of whoever offers one: 0, or an error to be shown.
using Dense = std::function<int(const cuda::GemmArgs& args, cuda::Stream stream)>;
Scene dense_scene(const MatrixShape& shape, const Dense& dense, const Turns& turns);

// ---- small operations (small_scenes.cpp) ----

Scene rms_norm_scene(int32_t tokens, int64_t cols, const Turns& turns);
Scene swiglu_scene(int32_t tokens, int64_t cols, const Turns& turns);
Scene to_bf16_scene(int32_t tokens, int64_t cols, const Turns& turns);
Scene angles_scene(int32_t rows, int32_t half, const Turns& turns);
/// `tokens` of one sequence, or one token each of many where `scattered`.
Scene rope_store_scene(int32_t tokens, const PageGeometry& geometry, bool scattered,
                       const Turns& turns);
Scene change_tables_scene(int64_t changes, int64_t entries, const Turns& turns);

/// Rows of logits that are all sampled in one way (sampling_scene.cpp).
Scene sample_scene(int32_t rows, int32_t vocab_size, const SampleRow& how, const Turns& turns);

// ---- the list (bench_cases.cpp) ----

std::vector<Case> all_cases(const Dense& dense);

}  // namespace paddock::bench
