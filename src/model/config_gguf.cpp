// The hyper-parameters of a GGUF file. Defaults are llama.cpp's for the architecture "llama"
// (llama_model::load_hparams and the context's constructor).
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>

#include "core/fail.h"
#include "model/config.h"
#include "model/settings.h"

namespace paddock {
namespace {

const gguf::TensorInfo* find_tensor(const gguf::File& file, std::string_view name) {
  for (const gguf::Header& header : file.headers()) {
    for (const gguf::TensorInfo& info : header.tensors) {
      if (info.name == name) return &info;
    }
  }
  return nullptr;
}

/// llama.cpp reads some yarn keys for other architectures only and computes with `own` here; what
/// wrote them meant them. Where the two differ there is no right answer.
void check_yarn_key(GgufSettings& file, const std::string& key, std::initializer_list<double> own) {
  const auto value = file.number(key);
  if (!value) return;
  for (const double right : own) {
    if (std::abs(*value - right) <= 1e-4 * std::abs(right)) return;
  }
  fail(ErrorCode::kUnsupported,
       "GGUF: {} is {}, but llama.cpp computes with {} for a llama model whatever this key says; "
       "only that value is supported",
       key, *value, *own.begin());
}

void read_yarn(GgufSettings& file, LlamaConfig& c) {
  RopeConfig& rope = c.rope;
  rope.kind = RopeConfig::Kind::kYarn;
  rope.original_context = file.integer("llama.rope.scaling.original_context_length").value_or(0);
  if (rope.original_context == 0) rope.original_context = c.context_length;
  check_yarn_key(file, "llama.rope.scaling.yarn_beta_fast", {rope.beta_fast});
  check_yarn_key(file, "llama.rope.scaling.yarn_beta_slow", {rope.beta_slow});
  check_yarn_key(file, "llama.rope.scaling.yarn_ext_factor", {1.0, -1.0});
  check_yarn_key(file, "llama.rope.scaling.yarn_attn_factor",
                 {yarn_attention_factor(rope.factor), 1.0});
}

void read_scaling(GgufSettings& file, LlamaConfig& c) {
  RopeConfig& rope = c.rope;
  const auto kind = file.text("llama.rope.scaling.type");
  const auto factor = file.number("llama.rope.scaling.factor");
  const auto legacy = file.number("llama.rope.scale_linear");
  if (factor && legacy && *factor != *legacy) {
    c.warnings.push_back(
        fmt::format("llama.rope.scaling.factor is {} and llama.rope.scale_linear {}; the former "
                    "counts, as in llama.cpp",
                    *factor, *legacy));
  }
  const double scale = factor.value_or(legacy.value_or(0.0));
  rope.factor = scale == 0.0 ? 1.0 : scale;
  if (!kind || *kind == "linear") {
    if (rope.factor != 1.0) rope.kind = RopeConfig::Kind::kLinear;
  } else if (*kind == "yarn") {
    read_yarn(file, c);
  } else if (*kind == "none") {
    if (rope.factor != 1.0) {
      c.warnings.push_back(fmt::format(
          "llama.rope.scaling.type is none, so that the factor {} beside it does nothing, as in "
          "llama.cpp",
          rope.factor));
      rope.factor = 1.0;
    }
  } else {
    fail(ErrorCode::kUnsupported,
         "GGUF: llama.rope.scaling.type is '{}'; supported are none, linear and yarn (and the "
         "rope_freqs tensor of Llama 3.1)",
         *kind);
  }
  // llama.cpp multiplies cos and sin by it whatever the type.
  const double attention = file.number("llama.rope.scaling.attn_factor").value_or(1.0);
  if (!(attention > 0.0)) {
    fail(ErrorCode::kBadFile, "GGUF: llama.rope.scaling.attn_factor is {}; it must be positive",
         attention);
  }
  rope.attention_factor = attention * rope_attention_factor(rope);
}

void read_divisors(const gguf::File& file, LlamaConfig& config) {
  for (const TensorView& tensor : file.tensors()) {
    if (tensor.name != "rope_freqs.weight") continue;
    const auto n = static_cast<size_t>(config.head_dim / 2);
    if (tensor.data.empty()) {  // the file is cut behind its header
      config.rope.divisors.assign(n, 1);
      continue;
    }
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

void refuse_unknown(GgufSettings& file) {
  const std::string architecture = file.text("general.architecture").value_or("");
  if (architecture != "llama") {
    fail(ErrorCode::kUnsupported, "GGUF: general.architecture is '{}'; only 'llama' is supported",
         architecture);
  }
  for (const char* key :
       {"llama.expert_count", "llama.expert_used_count", "llama.attention.sliding_window"}) {
    const auto value = file.integer(key);
    if (value && *value != 0) {
      fail(ErrorCode::kUnsupported, "GGUF: {} is {}; models with it are not supported", key,
           *value);
    }
  }
  if (!file.flag("llama.attention.causal").value_or(true)) {
    fail(ErrorCode::kUnsupported,
         "GGUF: llama.attention.causal is false; only causal models are supported");
  }
}

void read_shape(GgufSettings& file, LlamaConfig& c) {
  c.n_layers = file.required_size("llama.block_count");
  c.hidden_size = file.required_size("llama.embedding_length");
  c.intermediate_size = file.required_size("llama.feed_forward_length", c.n_layers);
  c.n_heads = file.required_size("llama.attention.head_count", c.n_layers);
  c.n_kv_heads = file.size("llama.attention.head_count_kv", c.n_layers).value_or(c.n_heads);
  c.head_dim = file.size("llama.attention.key_length").value_or(c.hidden_size / c.n_heads);
  const int32_t value_dim = file.size("llama.attention.value_length").value_or(c.head_dim);
  if (value_dim != c.head_dim) {
    fail(ErrorCode::kUnsupported,
         "GGUF: llama.attention.value_length {} differs from key_length {}", value_dim, c.head_dim);
  }
  const int64_t rotated = file.integer("llama.rope.dimension_count").value_or(c.head_dim);
  if (rotated != c.head_dim) {
    fail(ErrorCode::kUnsupported,
         "GGUF: llama.rope.dimension_count {} differs from the head size {}", rotated, c.head_dim);
  }
}

void read_vocabulary_size(const gguf::File& file, GgufSettings& settings, LlamaConfig& c) {
  const gguf::TensorInfo* embedding = find_tensor(file, "token_embd.weight");
  if (embedding == nullptr || embedding->dims.size() != 2) {
    fail(ErrorCode::kBadFile, "the matrix 'token_embd.weight' is missing");
  }
  const uint64_t rows = embedding->dims[1];
  if (rows > (1 << 24)) {
    fail(ErrorCode::kBadFile, "GGUF: token_embd.weight has {} rows; at most {} are allowed", rows,
         1 << 24);
  }
  c.vocab_size = static_cast<int32_t>(rows);
  const auto said = settings.integer("llama.vocab_size");
  if (said && *said != c.vocab_size) {
    c.warnings.push_back(
        fmt::format("llama.vocab_size is {}, but token_embd.weight has {} rows; the tensor counts",
                    *said, c.vocab_size));
  }
}

}  // namespace

LlamaConfig config_from_gguf(const gguf::File& file, KeySet* asked) {
  GgufSettings settings(file);
  refuse_unknown(settings);
  LlamaConfig c;
  c.name = settings.text("general.name").value_or("");
  read_shape(settings, c);
  c.context_length = settings.required_integer("llama.context_length");
  c.norm_eps =
      static_cast<float>(settings.required_number("llama.attention.layer_norm_rms_epsilon"));
  c.rope.theta = settings.number("llama.rope.freq_base").value_or(10000.0);
  c.rope.interleaved = true;  // converters permute Q and K rows for rotary pairs (2i, 2i+1)
  read_vocabulary_size(file, settings, c);
  c.tied_embeddings = find_tensor(file, "output.weight") == nullptr;
  read_scaling(settings, c);
  read_divisors(file, c);
  for (const char* key :
       {"llama.rope.scaling.finetuned", "llama.tensor_data_layout", "llama.pooling_type"}) {
    settings.ignore(key);
  }
  if (asked != nullptr) asked->insert(settings.asked().begin(), settings.asked().end());
  validate(c);
  for (const std::string& key : settings.unasked("llama.")) {
    c.warnings.push_back(fmt::format("{} was ignored: nothing here reads it for this model", key));
  }
  if (c.context_length > 8192 && c.rope.theta == 500000.0 && c.rope.divisors.empty() &&
      c.rope.kind == RopeConfig::Kind::kDefault) {
    c.warnings.push_back(
        "a Llama 3.1-like file without the tensor rope_freqs.weight: its answers will degrade "
        "beyond 8192 positions; convert the model again with a current converter");
  }
  return c;
}

}  // namespace paddock
