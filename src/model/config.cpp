// Ranges every configuration must keep, and the GGUF form of it.
#include "model/config.h"

#include <cmath>
#include <cstring>
#include <string_view>

#include "core/fail.h"

namespace paddock {
namespace {

void check(const char* what, int64_t value, int64_t least, int64_t most) {
  if (value < least || value > most) {
    fail(ErrorCode::kBadFile, "{} is {}; it must be from {} to {}", what, value, least, most);
  }
}

int32_t small(std::string_view key, int64_t value) {
  if (value < 1 || value > (1 << 24)) {
    fail(ErrorCode::kBadFile, "GGUF: {} is {}; it must be from 1 to {}", key, value, 1 << 24);
  }
  return static_cast<int32_t>(value);
}

const gguf::TensorInfo* find_tensor(const gguf::File& file, std::string_view name,
                                    const gguf::Header** owner) {
  for (const gguf::Header& header : file.headers()) {
    for (const gguf::TensorInfo& info : header.tensors) {
      if (info.name == name) {
        *owner = &header;
        return &info;
      }
    }
  }
  return nullptr;
}

void read_scaling(const gguf::File& file, LlamaConfig& config) {
  RopeConfig& rope = config.rope;
  const std::string kind = file.get_string("llama.rope.scaling.type").value_or("none");
  const double legacy = file.get_float("llama.rope.scale_linear").value_or(1.0);
  if (kind == "none") {
    if (legacy != 1.0) {
      rope.kind = RopeConfig::Kind::kLinear;
      rope.factor = legacy;
    }
    return;
  }
  rope.factor = file.get_float("llama.rope.scaling.factor").value_or(legacy);
  if (kind == "linear") {
    rope.kind = RopeConfig::Kind::kLinear;
  } else if (kind == "yarn") {
    rope.kind = RopeConfig::Kind::kYarn;
    rope.original_context = file.require_int("llama.rope.scaling.original_context_length");
    rope.beta_fast = file.get_float("llama.rope.scaling.yarn_beta_fast").value_or(32.0);
    rope.beta_slow = file.get_float("llama.rope.scaling.yarn_beta_slow").value_or(1.0);
    const double factor =
        file.get_float("llama.rope.scaling.attn_factor")
            .value_or(file.get_float("llama.rope.scaling.yarn_attn_factor").value_or(1.0));
    rope.attention_factor = factor * (0.1 * std::log(rope.factor) + 1.0);
    const double extrapolation = file.get_float("llama.rope.scaling.yarn_ext_factor").value_or(1.0);
    if (extrapolation != 1.0 && extrapolation != -1.0) {
      fail(ErrorCode::kUnsupported,
           "GGUF: llama.rope.scaling.yarn_ext_factor is {}; only 1 is "
           "supported",
           extrapolation);
    }
  } else {
    fail(ErrorCode::kUnsupported,
         "GGUF: llama.rope.scaling.type is '{}'; supported are none, linear and yarn (and the "
         "rope_freqs tensor of Llama 3.1)",
         kind);
  }
}

void read_divisors(const gguf::File& file, LlamaConfig& config) {
  for (const TensorView& tensor : file.tensors()) {
    if (tensor.name != "rope_freqs.weight") continue;
    const auto n = static_cast<size_t>(config.head_dim / 2);
    if (tensor.dtype != DType::kF32 || tensor.data.size() != n * sizeof(float)) {
      fail(ErrorCode::kBadFile, "tensor 'rope_freqs.weight' must be F32 with {} values", n);
    }
    config.rope.divisors.resize(n);
    std::memcpy(config.rope.divisors.data(), tensor.data.data(), tensor.data.size());
    for (const float divisor : config.rope.divisors) {
      if (!(divisor > 0.0F) || !std::isfinite(divisor)) {
        fail(ErrorCode::kBadFile, "tensor 'rope_freqs.weight' holds the value {}", divisor);
      }
    }
  }
}

}  // namespace

LlamaConfig config_from_gguf(const gguf::File& file) {
  const std::string architecture = file.get_string("general.architecture").value_or("");
  if (architecture != "llama") {
    fail(ErrorCode::kUnsupported, "GGUF: general.architecture is '{}'; only 'llama' is supported",
         architecture);
  }
  for (const char* key : {"llama.expert_count", "llama.attention.sliding_window"}) {
    const auto value = file.get_int(key);
    if (value && *value != 0) {
      fail(ErrorCode::kUnsupported, "GGUF: {} is {}; models with it are not supported", key,
           *value);
    }
  }
  LlamaConfig c;
  const auto required = [&](const char* key) { return small(key, file.require_int(key)); };
  c.name = file.get_string("general.name").value_or("");
  c.n_layers = required("llama.block_count");
  c.hidden_size = required("llama.embedding_length");
  c.intermediate_size = required("llama.feed_forward_length");
  c.n_heads = required("llama.attention.head_count");
  c.n_kv_heads = small("llama.attention.head_count_kv",
                       file.get_int("llama.attention.head_count_kv").value_or(c.n_heads));
  c.head_dim =
      small("llama.attention.key_length",
            file.get_int("llama.attention.key_length").value_or(c.hidden_size / c.n_heads));
  const int64_t value_dim = file.get_int("llama.attention.value_length").value_or(c.head_dim);
  if (value_dim != c.head_dim) {
    fail(ErrorCode::kUnsupported,
         "GGUF: llama.attention.value_length {} differs from key_length {}", value_dim, c.head_dim);
  }
  const int64_t rotated = file.get_int("llama.rope.dimension_count").value_or(c.head_dim);
  if (rotated != c.head_dim) {
    fail(ErrorCode::kUnsupported,
         "GGUF: llama.rope.dimension_count {} differs from the head size {}", rotated, c.head_dim);
  }
  c.context_length = file.require_int("llama.context_length");
  c.norm_eps = static_cast<float>(file.require_float("llama.attention.layer_norm_rms_epsilon"));
  c.rope.theta = file.get_float("llama.rope.freq_base").value_or(10000.0);
  c.rope.interleaved = true;  // converters permute Q and K rows for rotary pairs (2i, 2i+1)

  const gguf::Header* owner = nullptr;
  const gguf::TensorInfo* embedding = find_tensor(file, "token_embd.weight", &owner);
  if (embedding == nullptr || embedding->dims.size() != 2) {
    fail(ErrorCode::kBadFile, "the matrix 'token_embd.weight' is missing");
  }
  c.vocab_size = small("rows of token_embd.weight", static_cast<int64_t>(embedding->dims[1]));
  c.tied_embeddings = find_tensor(file, "output.weight", &owner) == nullptr;
  read_scaling(file, c);
  read_divisors(file, c);
  validate(c);
  if (c.context_length > 8192 && c.rope.theta == 500000.0 && c.rope.divisors.empty() &&
      c.rope.kind == RopeConfig::Kind::kDefault) {
    c.warnings.push_back(
        "a Llama 3.1-like file without the tensor rope_freqs.weight: its answers will degrade "
        "beyond "
        "8192 positions; convert the model again with a current converter");
  }
  return c;
}

void validate(const LlamaConfig& c) {
  check("the number of layers", c.n_layers, 1, 4096);
  check("hidden_size", c.hidden_size, 1, 1 << 20);
  check("intermediate_size", c.intermediate_size, 1, 1 << 22);
  check("the number of heads", c.n_heads, 1, 4096);
  check("the number of KV heads", c.n_kv_heads, 1, c.n_heads);
  check("head_dim", c.head_dim, 2, 1024);
  check("vocab_size", c.vocab_size, 1, 1 << 24);
  check("the context length", c.context_length, 1, INT32_MAX);
  if (c.n_heads % c.n_kv_heads != 0) {
    fail(ErrorCode::kBadFile, "{} heads are not a multiple of {} KV heads", c.n_heads,
         c.n_kv_heads);
  }
  if (c.head_dim % 2 != 0) fail(ErrorCode::kBadFile, "head_dim {} is odd", c.head_dim);
  if (!(c.norm_eps >= 0.0F) || !std::isfinite(c.norm_eps)) {
    fail(ErrorCode::kBadFile, "the norm epsilon is {}", c.norm_eps);
  }
  const RopeConfig& r = c.rope;
  if (!(r.theta > 0.0) || !std::isfinite(r.theta)) {
    fail(ErrorCode::kBadFile, "the rope base is {}; it must be positive", r.theta);
  }
  if (!(r.factor > 0.0) || !std::isfinite(r.factor)) {
    fail(ErrorCode::kBadFile, "the rope scaling factor is {}; it must be positive", r.factor);
  }
  const bool needs_original =
      r.kind == RopeConfig::Kind::kLlama3 || r.kind == RopeConfig::Kind::kYarn;
  if (needs_original && r.original_context < 1) {
    fail(ErrorCode::kBadFile, "the rope scaling's original context length is {}",
         r.original_context);
  }
  if (r.kind == RopeConfig::Kind::kLlama3 && !(r.low_freq_factor < r.high_freq_factor)) {
    fail(ErrorCode::kBadFile, "rope scaling: low_freq_factor {} must be below high_freq_factor {}",
         r.low_freq_factor, r.high_freq_factor);
  }
}

}  // namespace paddock
