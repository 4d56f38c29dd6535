// Llama-shaped models for measuring: random weights from a seed, or a real file cut short. GGUF
// files without a tokenizer or, cut, with the one they had.
#pragma once

#include <cstdint>
#include <string>

#include "dtype.h"

namespace paddock::bench {

struct ModelShape {
  uint32_t n_layers, hidden_size, intermediate_size, n_heads, n_kv_heads, head_dim, vocab_size;
  bool tied;  // the output matrix is the embedding
};
/// "1B" and "8B" as Llama 3.2 and 3.1 have them, or "tiny". Throws std::runtime_error.
ModelShape shape_named(const std::string& name);

/// Writes a model with all matrices of `type`; the same bytes for the same arguments, whatever the
/// number of threads. Throws std::runtime_error where the file cannot be written.
void make_model(const std::string& path, const ModelShape& shape, DType type, uint64_t seed);

/// Copies a GGUF model of one file, keeping its first layers only and, where `n_tokens` is not 0,
/// the first rows of its embedding (its tokenizer is of no use then). Throws std::runtime_error,
/// and Error where `from` is no GGUF file.
void truncate_model(const std::string& from, int32_t n_layers, const std::string& to,
                    uint64_t n_tokens = 0);

}  // namespace paddock::bench
