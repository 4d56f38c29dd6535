// A Llama decoder in double precision that keeps the keys and values of every position of every
// layer, keys before rotation. What a query meets, and by which positions both are turned, it is
// told: it knows no blocks, no pages and no rules. Of several texts each has a memory of its own.
//
// Weights and rotary frequencies come from the loaded model, whose reading other tests hold against
// transformers; all arithmetic is its own.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <span>
#include <stdexcept>
#include <vector>

#include "half.h"
#include "model/model_data.h"
#include "paddock/model.h"

namespace paddock::test {

/// A key that a query meets, and the positions by which query and key are turned for it.
struct Met {
  int64_t position;
  int64_t query_position;
  int64_t key_position = -1;  // -1: its own
};

class DenseOracle {
 public:
  using Row = std::vector<double>;
  /// What the query at `position` meets in a layer, its own key included.
  using View = std::function<std::vector<Met>(int32_t layer, int64_t position)>;
  /// May replace key (unrotated) and value [n_kv_heads * head_dim] before anyone meets them.
  using Store = std::function<void(int32_t layer, int64_t position, Row& key, Row& value)>;
  /// What a query has given to each key that it met, summed over heads.
  using OnAttention = std::function<void(int32_t layer, int64_t position,
                                         const std::vector<Met>& met, const Row& mass)>;
  /// Of one layer of one text.
  struct Rows {
    std::vector<Row> keys, values;  // [position][n_kv_heads * head_dim]
    std::vector<Row> turned;        // keys by their own positions
  };
  using Memory = std::vector<Rows>;  // [n_layers]

  explicit DenseOracle(const Model& model) : config_(model.data().config) {
    if (config_.rope.interleaved) throw std::runtime_error("the oracle reads Hugging Face folders");
    const LlamaTensors& tensors = model.data().tensors;
    embedding_ = read(tensors.embedding);
    output_norm_ = read(tensors.output_norm);
    output_ = read(tensors.output);
    for (const LlamaTensors::Layer& t : tensors.layers) {
      Layer& layer = layers_.emplace_back();
      layer.attn_norm = read(t.attn_norm);
      layer.q = read(t.q);
      layer.k = read(t.k);
      layer.v = read(t.v);
      layer.o = read(t.o);
      layer.ffn_norm = read(t.ffn_norm);
      layer.gate = read(t.gate);
      layer.up = read(t.up);
      layer.down = read(t.down);
    }
    frequencies_ = rope_inverse_frequencies(config_.rope, config_.head_dim);
    factor_ = rope_attention_factor(config_.rope);
    memory_.resize(layers_.size());
  }

  /// Of the text that next() goes on with, to be exchanged for another one's. A new one is
  /// Memory(n_layers).
  Memory& memory() { return memory_; }
  const Memory& memory() const { return memory_; }
  /// Called in each layer of each next().
  void watch(OnAttention on_attention) { on_attention_ = std::move(on_attention); }
  /// Of the keys of all KV heads.
  double sum_of_norms(const Row& key) const {
    double sum = 0;
    for (size_t head = 0; head < key.size(); head += config_.head_dim) {
      double squares = 0;
      for (int32_t d = 0; d < config_.head_dim; ++d) squares += key[head + d] * key[head + d];
      sum += std::sqrt(squares);
    }
    return sum;
  }

  /// Logits after `token` at `position`; earlier positions that anyone meets must have been given.
  Row next(TokenId token, int64_t position, const View& view, const Store& store = {}) {
    const int32_t hidden = config_.hidden_size;
    Row x(embedding_.begin() + int64_t{token} * hidden,
          embedding_.begin() + int64_t{token + 1} * hidden);
    for (int32_t i = 0; i < config_.n_layers; ++i) {
      const Layer& layer = layers_[i];
      Rows& rows = memory_[i];
      const Row normed = norm(x, layer.attn_norm);
      Row key = product(layer.k, normed);
      Row value = product(layer.v, normed);
      if (store) store(i, position, key, value);
      if (position >= static_cast<int64_t>(rows.keys.size())) {
        rows.keys.resize(position + 1);
        rows.turned.resize(position + 1);
        rows.values.resize(position + 1);
      }
      rows.keys[position] = key;
      rotate(key, position);
      rows.turned[position] = std::move(key);
      rows.values[position] = std::move(value);
      const std::vector<Met> met = view(i, position);
      Row mass(met.size());
      add(x, product(layer.o, attend(rows, product(layer.q, normed), met, mass)));
      if (on_attention_) on_attention_(i, position, met, mass);
      const Row gated = norm(x, layer.ffn_norm);
      Row gate = product(layer.gate, gated);
      const Row up = product(layer.up, gated);
      for (size_t j = 0; j < gate.size(); ++j) gate[j] = gate[j] / (1 + std::exp(-gate[j])) * up[j];
      add(x, product(layer.down, gate));
    }
    return product(output_, norm(x, output_norm_));
  }

  /// Turns every head of a row by the angles of a position, or back by them.
  void rotate(Row& row, int64_t position, bool back = false) {
    const int32_t half = config_.head_dim / 2;
    const Row& turn = angles(position);
    for (size_t head = 0; head < row.size(); head += config_.head_dim) {
      for (int32_t i = 0; i < half; ++i) {
        // Yarn's factor stretches what is turned.
        const double c = back ? turn[i] / factor_ : turn[i] * factor_;
        const double s = back ? -turn[half + i] / factor_ : turn[half + i] * factor_;
        double& a = row[head + i];
        double& b = row[head + half + i];
        const double turned = a * c - b * s;
        b = a * s + b * c;
        a = turned;
      }
    }
  }

 private:
  struct Layer {
    Row attn_norm, q, k, v, o, ffn_norm, gate, up, down;
  };

  static Row read(const TensorView& tensor) {
    Row out(static_cast<size_t>(tensor.rows() * tensor.cols()));
    for (size_t i = 0; i < out.size(); ++i) {
      if (tensor.dtype == DType::kF32) {
        float value;
        std::memcpy(&value, tensor.data.data() + 4 * i, 4);
        out[i] = value;
      } else if (tensor.dtype == DType::kBF16) {
        uint16_t value;
        std::memcpy(&value, tensor.data.data() + 2 * i, 2);
        out[i] = bf16_to_f32(value);
      } else {
        throw std::runtime_error("the oracle reads float32 and bfloat16: " + tensor.name);
      }
    }
    return out;
  }

  static Row product(const Row& matrix, const Row& x) {
    Row out(matrix.size() / x.size());
    const double* w = matrix.data();
    for (double& sum : out) {
      for (const double value : x) sum += *w++ * value;
    }
    return out;
  }

  /// Cosines, then sines, of a position's angles.
  const Row& angles(int64_t position) {
    if (position >= static_cast<int64_t>(angles_.size())) angles_.resize(position + 1);
    Row& row = angles_[position];
    if (row.empty()) {
      for (const double f : frequencies_)
        row.push_back(std::cos(static_cast<double>(position) * f));
      for (const double f : frequencies_)
        row.push_back(std::sin(static_cast<double>(position) * f));
    }
    return row;
  }

  static void add(Row& x, const Row& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  Row norm(const Row& x, const Row& weight) const {
    double squares = 0;
    for (const double value : x) squares += value * value;
    const double scale =
        1 / std::sqrt(squares / static_cast<double>(x.size()) + double{config_.norm_eps});
    Row out(x.size());
    for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * weight[i];
    return out;
  }

  /// Attention of one query [n_heads * head_dim]; `mass`: what each key is given.
  Row attend(const Rows& rows, const Row& query, const std::vector<Met>& met, Row& mass) {
    const int32_t dim = config_.head_dim;
    const int32_t group = config_.n_heads / config_.n_kv_heads;
    Row out(query.size());
    std::vector<Row> scores(config_.n_heads, Row(met.size()));
    Row turned;
    for (size_t i = 0; i < met.size(); ++i) {
      if (i == 0 || met[i].query_position != met[i - 1].query_position) {
        turned = query;
        rotate(turned, met[i].query_position);
      }
      Row other;
      if (met[i].key_position >= 0) {
        other = rows.keys.at(met[i].position);
        rotate(other, met[i].key_position);
      }
      const Row& key = other.empty() ? rows.turned.at(met[i].position) : other;
      for (int32_t head = 0; head < config_.n_heads; ++head) {
        double sum = 0;
        for (int32_t d = 0; d < dim; ++d) {
          sum += turned[head * dim + d] * key[head / group * dim + d];
        }
        scores[head][i] = sum / std::sqrt(dim);
      }
    }
    for (int32_t head = 0; head < config_.n_heads; ++head) {
      const double largest = *std::max_element(scores[head].begin(), scores[head].end());
      double total = 0;
      for (double& score : scores[head]) total += score = std::exp(score - largest);
      for (size_t i = 0; i < met.size(); ++i) {
        mass[i] += scores[head][i] / total;
        const Row& value = rows.values.at(met[i].position);
        for (int32_t d = 0; d < dim; ++d) {
          out[head * dim + d] += scores[head][i] / total * value[head / group * dim + d];
        }
      }
    }
    return out;
  }

  const LlamaConfig& config_;
  Row embedding_, output_norm_, output_;  // as the file has them, row after row
  std::vector<Layer> layers_;
  Memory memory_;
  OnAttention on_attention_;
  std::vector<double> frequencies_;
  std::vector<Row> angles_;  // [position], filled in as they are needed
  double factor_;
};

}  // namespace paddock::test
