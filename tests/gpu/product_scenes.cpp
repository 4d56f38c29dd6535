// Scenes of kernels that read weights: gemv, dense products, dequantize, embed.
#include <algorithm>
#include <memory>
#include <numeric>
#include <random>

#include "gpu/scene.h"
#include "half.h"

namespace paddock::bench {
namespace {

using simt::DeviceBuffer;

constexpr int64_t kAlignment = 256;  // of a set's weights

/// Some indices below n: the first, the last and others between.
std::vector<int64_t> sample(int64_t n, int64_t most) {
  std::vector<int64_t> all;
  const int64_t count = std::min(n, most);
  for (int64_t i = 0; i < count; ++i) all.push_back(count == 1 ? 0 : i * (n - 1) / (count - 1));
  return all;
}

int64_t padded(int64_t bytes, int64_t type_block_bytes) {
  // A set begins at a whole block of the pattern too, so that its values are known.
  const int64_t step = std::lcm(kAlignment, type_block_bytes);
  return (bytes + step - 1) / step * step;
}

/// Matrices of one shape, one for each set.
struct Weights {
  Weights(const MatrixShape& shape, int n_sets)
      : set_bytes(padded(shape.rows * row_bytes(shape.type, shape.cols),
                         dtype_traits(shape.type).block_bytes)),
        bytes(static_cast<size_t>(n_sets * set_bytes), "weights") {
    Pattern::of(shape.type).fill(bytes);
    bytes.freeze();
  }
  const uint8_t* set(int i) const { return bytes.data() + i * set_bytes; }

  int64_t set_bytes;
  DeviceBuffer<uint8_t> bytes;
};

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  return std::inner_product(
      a.begin(), a.end(), b.begin(), 0.0, [](double sum, double product) { return sum + product; },
      [](float x, float y) { return double{x} * double{y}; });
}

/// y [tokens, rows] of set 0 against a sample of rows; x are the first values of a pattern.
double product_error(const MatrixShape& shape, const std::vector<float>& y, const Pattern& x) {
  std::vector<std::vector<float>> inputs;
  for (int64_t t = 0; t < shape.tokens; ++t) inputs.push_back(x.row(t * shape.cols, shape.cols));
  Deviation deviation;
  for (const int64_t r : sample(shape.rows, 97)) {
    const std::vector<float> w = Pattern::of(shape.type).row(r * shape.cols, shape.cols);
    for (int64_t t = 0; t < shape.tokens; ++t) {
      deviation.add(y[static_cast<size_t>(t * shape.rows + r)],
                    dot(w, inputs[static_cast<size_t>(t)]));
    }
  }
  return deviation.relative() + finite(y);
}

}  // namespace

Scene gemv_scene(const MatrixShape& shape, const Turns& turns) {
  struct State {
    State(const MatrixShape& s, int n_sets)
        : weights(s, n_sets),
          x(static_cast<size_t>(s.tokens * s.cols), "x"),
          y(static_cast<size_t>(s.tokens * s.rows), "y"),
          n_floats(cuda::gemv_workspace_floats(s.type, s.rows, s.cols, simt::multiprocessors())),
          workspace(static_cast<size_t>(std::max<int64_t>(n_floats, 1)), "workspace") {
      Pattern::of(DType::kF32).fill(x);
      x.freeze();
      workspace.fill(0);
    }
    Weights weights;
    DeviceBuffer<float> x, y;
    int64_t n_floats;
    DeviceBuffer<float> workspace;
  };
  const int64_t bytes = shape.rows * row_bytes(shape.type, shape.cols);
  Scene scene;
  scene.sets = turns.sets(bytes);
  scene.work = {static_cast<double>(bytes)};
  scene.room = 1e-5;
  const auto state = std::make_shared<State>(shape, scene.sets);
  scene.launch = [shape, state](int set, cuda::Stream stream) {
    return cuda::gemv(
        {state->weights.set(set), shape.type, shape.rows, shape.cols, state->x.data(), shape.cols,
         state->y.data(), shape.rows, shape.tokens, false,
         state->n_floats > 0 ? state->workspace.data() : nullptr, simt::multiprocessors()},
        stream);
  };
  scene.error = [shape, state, launch = scene.launch] {
    state->y.set_unwritten();
    if (launch(0, nullptr) != 0) return kBroken;
    return product_error(shape, state->y.download(), Pattern::of(DType::kF32));
  };
  return scene;
}

Scene tensor_gemv_scene(const MatrixShape& shape, const Turns& turns) {
  struct State {
    State(const MatrixShape& s, int n_sets)
        : weights(s, n_sets),
          unrounded(static_cast<size_t>(s.tokens * s.cols), "x"),
          x(unrounded.size(), "rounded x"),
          y(static_cast<size_t>(s.tokens * s.rows), "y") {
      Pattern::of(DType::kBF16).fill(x);
      std::vector<float> floats;
      for (const uint16_t bits : x.download()) floats.push_back(bf16_to_f32(bits));
      unrounded.upload(floats);
      x.freeze();
      unrounded.freeze();
    }
    Weights weights;
    DeviceBuffer<float> unrounded;
    DeviceBuffer<uint16_t> x;
    DeviceBuffer<float> y;
  };
  const int64_t bytes = shape.rows * row_bytes(shape.type, shape.cols);
  Scene scene;
  scene.sets = turns.sets(bytes);
  scene.work = {static_cast<double>(bytes)};
  scene.room = 1e-4;
  const auto state = std::make_shared<State>(shape, scene.sets);
  scene.launch = [shape, state](int set, cuda::Stream stream) {
    return cuda::tensor_gemv(
        {{{state->weights.set(set), state->y.data(), shape.rows, static_cast<int32_t>(shape.rows)}},
         1,
         shape.type,
         shape.cols,
         state->unrounded.data(),
         shape.cols,
         state->x.data(),
         shape.tokens,
         false,
         simt::multiprocessors()},
        stream);
  };
  scene.error = [shape, state, launch = scene.launch] {
    state->y.set_unwritten();
    if (launch(0, nullptr) != 0) return kBroken;
    return product_error(shape, state->y.download(), Pattern::of(DType::kBF16));
  };
  return scene;
}

Scene dense_scene(const MatrixShape& shape, const Dense& dense, const Turns& turns) {
  struct State {
    State(const MatrixShape& s, int n_sets)
        : weights(s, n_sets),
          x(static_cast<size_t>(s.tokens * s.cols), "x"),
          y(static_cast<size_t>(s.tokens * s.rows), "y") {
      Pattern::of(s.type).fill(x);
    }
    Weights weights;
    DeviceBuffer<uint16_t> x;
    DeviceBuffer<float> y;
  };
  const int64_t bytes = shape.rows * row_bytes(shape.type, shape.cols);
  Scene scene;
  scene.sets = turns.sets(bytes);
  // Past the few tokens of gemv it is operations that count.
  scene.work = {static_cast<double>(bytes)};
  if (shape.tokens > 64) scene.work = {2.0 * shape.tokens * shape.rows * shape.cols, true};
  scene.room = 1e-3;
  const auto state = std::make_shared<State>(shape, scene.sets);
  scene.launch = [shape, state, dense](int set, cuda::Stream stream) {
    return dense({state->weights.set(set), state->x.data(), shape.cols, shape.type, state->y.data(),
                  shape.rows, shape.rows, shape.cols, shape.tokens, false},
                 stream);
  };
  scene.error = [shape, state, launch = scene.launch] {
    state->y.set_unwritten();
    if (launch(0, nullptr) != 0) return kBroken;
    return product_error(shape, state->y.download(), Pattern::of(shape.type));
  };
  return scene;
}

Scene dequantize_scene(const MatrixShape& shape, const Turns& turns) {
  struct State {
    State(const MatrixShape& s, int n_sets)
        : weights(s, n_sets), out(static_cast<size_t>(n_sets * s.rows * s.cols), "out") {}
    Weights weights;
    DeviceBuffer<uint16_t> out;
  };
  const int64_t bytes = shape.rows * (row_bytes(shape.type, shape.cols) + 2 * shape.cols);
  Scene scene;
  scene.sets = turns.sets(bytes);
  scene.work = {static_cast<double>(bytes)};
  scene.room = 4e-3;  // rounding to bfloat16
  const auto state = std::make_shared<State>(shape, scene.sets);
  scene.launch = [shape, state](int set, cuda::Stream stream) {
    return cuda::dequantize({state->weights.set(set), shape.type, shape.rows, shape.cols,
                             state->out.data() + set * shape.rows * shape.cols, DType::kBF16},
                            stream);
  };
  scene.error = [shape, state, launch = scene.launch] {
    // Of set 0 alone: the others are not to be brought home.
    DeviceBuffer<uint16_t> out(static_cast<size_t>(shape.rows * shape.cols), "out");
    const int error = cuda::dequantize(
        {state->weights.set(0), shape.type, shape.rows, shape.cols, out.data(), DType::kBF16},
        nullptr);
    if (error != 0) return kBroken;
    const std::vector<uint16_t> got = out.download();
    Deviation deviation;
    for (const int64_t r : sample(shape.rows, 97)) {
      const std::vector<float> w = Pattern::of(shape.type).row(r * shape.cols, shape.cols);
      for (int64_t c = 0; c < shape.cols; ++c) {
        deviation.add(bf16_to_f32(got[static_cast<size_t>(r * shape.cols + c)]),
                      w[static_cast<size_t>(c)]);
      }
    }
    return deviation.relative();
  };
  return scene;
}

Scene embed_scene(const MatrixShape& shape, const Turns& turns) {
  struct State {
    State(const MatrixShape& s, int n_sets)
        : table(s, 1),
          tokens(random_tokens(s, n_sets)),
          device_tokens(tokens, "tokens"),
          out(static_cast<size_t>(s.tokens * s.cols), "out") {}
    static std::vector<int32_t> random_tokens(const MatrixShape& s, int n_sets) {
      std::mt19937 random(3);
      std::vector<int32_t> ids(static_cast<size_t>(n_sets * s.tokens));
      for (int32_t& id : ids) {
        id = static_cast<int32_t>(random() % static_cast<uint32_t>(s.rows));
      }
      return ids;
    }
    Weights table;
    std::vector<int32_t> tokens;
    DeviceBuffer<int32_t> device_tokens;
    DeviceBuffer<float> out;
  };
  const int64_t row = row_bytes(shape.type, shape.cols);
  Scene scene;
  scene.sets = turns.sets(shape.tokens * row);
  scene.work = {static_cast<double>(shape.tokens * (row + 4 * shape.cols))};
  scene.room = 1e-6;
  const auto state = std::make_shared<State>(shape, scene.sets);
  scene.launch = [shape, state](int set, cuda::Stream stream) {
    return cuda::embed(
        {state->device_tokens.data() + int64_t{set} * shape.tokens, state->table.set(0), shape.type,
         shape.cols, state->out.data(), shape.cols, shape.tokens},
        stream);
  };
  scene.error = [shape, state, launch = scene.launch] {
    state->out.set_unwritten();
    if (launch(0, nullptr) != 0) return kBroken;
    const std::vector<float> got = state->out.download();
    Deviation deviation;
    for (const int64_t t : sample(shape.tokens, 33)) {
      const int64_t id = state->tokens[static_cast<size_t>(t)];
      const std::vector<float> w = Pattern::of(shape.type).row(id * shape.cols, shape.cols);
      for (int64_t c = 0; c < shape.cols; ++c) {
        deviation.add(got[static_cast<size_t>(t * shape.cols + c)], w[static_cast<size_t>(c)]);
      }
    }
    return deviation.relative() + finite(got);
  };
  return scene;
}

}  // namespace paddock::bench
