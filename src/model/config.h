// The hyper-parameters of a Llama decoder, from GGUF metadata or config.json.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "paddock/model.h"

namespace paddock {

/// Names of keys, as docs/model-settings.md lists them.
using KeySet = std::set<std::string>;

struct RopeConfig {
  bool operator==(const RopeConfig&) const = default;

  enum class Kind { kDefault, kLinear, kLlama3, kYarn } kind = Kind::kDefault;
  double theta = 10000.0;
  double factor = 1.0;            // linear, llama3, yarn
  double low_freq_factor = 1.0;   // llama3
  double high_freq_factor = 4.0;  // llama3
  int64_t original_context = 0;   // llama3, yarn
  double beta_fast = 32.0;        // yarn
  double beta_slow = 1.0;         // yarn
  double attention_factor = 0.0;  // on cos and sin; 0: yarn_attention_factor(factor), else 1
  bool truncate = true;           // yarn: round the correction range to whole dimensions
  std::vector<float> divisors;    // [head_dim/2] of a rope_freqs tensor, or empty
  bool interleaved = false;       // pairs (2i, 2i+1) as in GGUF; else (i, i + head_dim/2)
};

struct LlamaConfig {
  int32_t n_layers = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t n_heads = 0;
  int32_t n_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t vocab_size = 0;
  int64_t context_length = 0;
  float norm_eps = 1e-5f;
  bool tied_embeddings = false;
  RopeConfig rope;
  std::vector<int32_t> stop_tokens;   // from config.json and generation_config.json; GGUF: empty
  std::string name;                   // for people; may be empty
  std::vector<std::string> warnings;  // for people: what the file lacks
};

/// Reads and validates a GGUF header's hyper-parameters, as llama.cpp reads a llama file.
/// vocab_size comes from the embedding tensor's shape. Errors name the key, its value and what
/// would be right; kUnsupported for anything a Llama decoder here does not do (architecture,
/// scaling kind, sliding window, biases, expert layers) and for what the format's readers disagree
/// about. `asked` gets every key that was looked for. docs/model-settings.md lists the keys and
/// their defaults.
LlamaConfig config_from_gguf(const gguf::File& file, KeySet* asked = nullptr);

/// The same from the texts of config.json and generation_config.json (may be empty), as
/// transformers reads them. `asked`: keys of the object that describes RoPE have "rope." before
/// them.
LlamaConfig config_from_json(std::span<const std::byte> config,
                             std::span<const std::byte> generation_config, KeySet* asked = nullptr);

/// Puts what the host asks for in place of the file's scaling. Error kInvalidArgument.
void override_rope(LlamaConfig& config, const RopeOptions& options);

/// Checks ranges and divisibility of any config; what every loader ends with.
void validate(const LlamaConfig& config);

/// inv_freq[i] in radians per position, i < head_dim/2, all scaling applied, in double.
/// Sources: RoFormer; Llama 3.1 release notes (llama3); YaRN, arXiv 2309.00071.
std::vector<double> rope_inverse_frequencies(const RopeConfig& rope, int32_t head_dim);

/// Factor on cos and sin.
double rope_attention_factor(const RopeConfig& rope);

/// Yarn's own: 0.1 `scale` ln(factor) + 1, and 1 where nothing is stretched.
double yarn_attention_factor(double factor, double scale = 1.0);

}  // namespace paddock
