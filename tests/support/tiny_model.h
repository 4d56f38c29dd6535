// Llama folders of random weights from a seed, in shapes that no stored file has.
#pragma once

#include <fmt/format.h>
#include <paddock/paddock.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>

#include "support/safetensors_writer.h"
#include "support/temporary_folder.h"

namespace paddock::test {

struct TinyShape {
  int32_t n_layers = 2, n_heads = 2, n_kv_heads = 1, head_dim = 16, hidden_size = 32;
  int32_t intermediate_size = 40, vocab_size = 96;
  int64_t context_length = 64;
  double key_scale = 1, value_scale = 1;  // of the projections
};

/// Writes config.json and model.safetensors (float32) and loads them; the folder must outlive the
/// model. Queries and keys are wide, so that attention is far from even.
inline std::shared_ptr<const Model> tiny_model(const TemporaryFolder& folder,
                                               const TinyShape& shape, uint32_t seed) {
  std::mt19937 random(seed);
  // Sums of uniform numbers: the same on every standard library.
  const auto normal = [&] {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += static_cast<double>(random()) / 4294967296.0;
    return sum;
  };
  SafetensorsWriter tensors;
  const auto tensor = [&](const std::string& name, const std::vector<int32_t>& dims, double mean,
                          double width) {
    size_t n = 1;
    for (const int32_t dim : dims) n *= static_cast<size_t>(dim);
    std::vector<float> values(n);
    for (float& value : values) value = static_cast<float>(mean + width * normal());
    tensors.add(name, dims, values);
  };
  const int32_t hidden = shape.hidden_size;
  const int32_t q_rows = shape.n_heads * shape.head_dim;
  const int32_t kv_rows = shape.n_kv_heads * shape.head_dim;
  const double wide = 2.0 / std::sqrt(hidden);
  const double plain = 0.85 / std::sqrt(hidden);
  tensor("model.embed_tokens.weight", {shape.vocab_size, hidden}, 0, 0.3);
  tensor("lm_head.weight", {shape.vocab_size, hidden}, 0, plain);
  tensor("model.norm.weight", {hidden}, 1, 0.2);
  for (int32_t i = 0; i < shape.n_layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    tensor(layer + "input_layernorm.weight", {hidden}, 1, 0.2);
    tensor(layer + "self_attn.q_proj.weight", {q_rows, hidden}, 0, wide);
    tensor(layer + "self_attn.k_proj.weight", {kv_rows, hidden}, 0, wide * shape.key_scale);
    tensor(layer + "self_attn.v_proj.weight", {kv_rows, hidden}, 0, plain * shape.value_scale);
    tensor(layer + "self_attn.o_proj.weight", {hidden, q_rows}, 0, plain);
    tensor(layer + "post_attention_layernorm.weight", {hidden}, 1, 0.2);
    tensor(layer + "mlp.gate_proj.weight", {shape.intermediate_size, hidden}, 0, plain);
    tensor(layer + "mlp.up_proj.weight", {shape.intermediate_size, hidden}, 0, plain);
    tensor(layer + "mlp.down_proj.weight", {hidden, shape.intermediate_size}, 0, plain);
  }
  folder.write("model.safetensors", tensors.text());
  folder.write(
      "config.json",
      fmt::format(R"({{"architectures":["LlamaForCausalLM"],"model_type":"llama",)"
                  R"("hidden_size":{},"intermediate_size":{},"num_hidden_layers":{},)"
                  R"("num_attention_heads":{},"num_key_value_heads":{},"head_dim":{},)"
                  R"("vocab_size":{},"max_position_embeddings":{},"rms_norm_eps":1e-5,)"
                  R"("rope_theta":10000.0,"hidden_act":"silu",)"
                  R"("tie_word_embeddings":false}})",
                  hidden, shape.intermediate_size, shape.n_layers, shape.n_heads, shape.n_kv_heads,
                  shape.head_dim, shape.vocab_size, shape.context_length));
  return Model::load(folder.path());
}

}  // namespace paddock::test
