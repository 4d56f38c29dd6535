// The tensors of a Llama decoder by role, and their backend-owned forms.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "backend/weights.h"
#include "core/tensor.h"
#include "model/config.h"

namespace paddock {

/// Tensors as they lie in the file. Shapes in the configuration's own names.
struct LlamaTensors {
  struct Layer {
    TensorView attn_norm;  // [hidden_size]
    TensorView q;          // [n_heads * head_dim, hidden_size]
    TensorView k, v;       // [n_kv_heads * head_dim, hidden_size]
    TensorView o;          // [hidden_size, n_heads * head_dim]
    TensorView ffn_norm;   // [hidden_size]
    TensorView gate, up;   // [intermediate_size, hidden_size]
    TensorView down;       // [hidden_size, intermediate_size]

    /// Those that are multiplied with, in the order of a step.
    auto matrices() const { return std::array{&q, &k, &v, &o, &gate, &up, &down}; }
    /// The others.
    auto vectors() const { return std::array{&attn_norm, &ffn_norm}; }
  };
  TensorView embedding;    // [vocab_size, hidden_size]
  TensorView output_norm;  // [hidden_size]
  TensorView output;       // [vocab_size, hidden_size]; the embedding where tied
  std::vector<Layer> layers;
};

/// The same in a backend's own form. Parts of one LinearWeight share their input.
struct LlamaWeights {
  struct Layer {
    std::unique_ptr<VectorWeight> attn_norm;
    std::unique_ptr<LinearWeight> qkv;  // parts q, k, v
    std::unique_ptr<LinearWeight> o;
    std::unique_ptr<VectorWeight> ffn_norm;
    std::unique_ptr<LinearWeight> gate_up;  // parts gate, up
    std::unique_ptr<LinearWeight> down;
  };
  std::unique_ptr<EmbeddingWeight> embedding;
  std::unique_ptr<VectorWeight> output_norm;
  std::unique_ptr<LinearWeight> output;
  std::vector<Layer> layers;
  uint64_t bytes = 0;  // that the backend reserved beside the file's own maps
};

/// Finds every tensor of `config` among `tensors` (GGUF or Hugging Face names), checks shapes, and
/// refuses by name what is missing, misshapen or left over (a bias, an expert, an adapter).
LlamaTensors bind_gguf(const LlamaConfig& config, std::vector<TensorView> tensors);
/// The second adds to `warnings` where the file contradicts tie_word_embeddings, and then does what
/// transformers does: a matrix of its own for the output counts.
LlamaTensors bind_safetensors(const LlamaConfig& config, std::vector<TensorView> tensors,
                              std::vector<std::string>& warnings);

}  // namespace paddock
