// config.json and generation_config.json of a Hugging Face folder.
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/fail.h"
#include "model/config.h"
#include "text/strict_json.h"

namespace paddock {
namespace {

using Json = nlohmann::json;

/// A member that is present and not null.
const Json* find(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::optional<double> number(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) fail(ErrorCode::kBadFile, "config.json: '{}' is not a number", key);
  return value->get<double>();
}

std::optional<int64_t> integer(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_integer()) {
    fail(ErrorCode::kBadFile, "config.json: '{}' is not an integer", key);
  }
  if (value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX) {
    fail(ErrorCode::kBadFile, "config.json: '{}' is too large", key);
  }
  return value->get<int64_t>();
}

int32_t small(const char* key, std::optional<int64_t> value) {
  if (!value) fail(ErrorCode::kBadFile, "config.json: '{}' is missing", key);
  if (*value < 1 || *value > (1 << 24)) {
    fail(ErrorCode::kBadFile, "config.json: '{}' is {}; it must be from 1 to {}", key, *value,
         1 << 24);
  }
  return static_cast<int32_t>(*value);
}

std::optional<std::string> text(const Json& object, const char* key) {
  const Json* value = find(object, key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) fail(ErrorCode::kBadFile, "config.json: '{}' is not a string", key);
  return value->get<std::string>();
}

bool flag(const Json& object, const char* key, bool otherwise) {
  const Json* value = find(object, key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) fail(ErrorCode::kBadFile, "config.json: '{}' is not a boolean", key);
  return value->get<bool>();
}

/// Yarn's factor on the attention: as given, or from mscale, or 0.1 ln(factor) + 1.
double yarn_attention_factor(const Json& scaling, double factor) {
  if (const auto given = number(scaling, "attention_factor")) return *given;
  const auto of = [&](double scale) {
    return factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
  };
  const auto mscale = number(scaling, "mscale");
  const auto all = number(scaling, "mscale_all_dim");
  if (mscale && all && *mscale != 0.0 && *all != 0.0) return of(*mscale) / of(*all);
  return of(1.0);
}

void read_rope(const Json& config, LlamaConfig& c) {
  // Newer files put everything, theta included, under rope_parameters.
  const Json* scaling = find(config, "rope_parameters");
  if (scaling == nullptr) scaling = find(config, "rope_scaling");
  RopeConfig& rope = c.rope;
  rope.theta = number(config, "rope_theta").value_or(10000.0);
  if (scaling == nullptr) return;
  if (!scaling->is_object()) {
    fail(ErrorCode::kBadFile, "config.json: the rope scaling is not an object");
  }
  rope.theta = number(*scaling, "rope_theta").value_or(rope.theta);
  const std::string kind =
      text(*scaling, "rope_type").value_or(text(*scaling, "type").value_or("default"));
  if (kind == "default") return;
  const auto factor = number(*scaling, "factor");
  if (!factor) fail(ErrorCode::kBadFile, "config.json: rope scaling '{}' has no 'factor'", kind);
  rope.factor = *factor;
  rope.original_context =
      integer(*scaling, "original_max_position_embeddings").value_or(c.context_length);
  if (kind == "linear") {
    rope.kind = RopeConfig::Kind::kLinear;
  } else if (kind == "llama3") {
    rope.kind = RopeConfig::Kind::kLlama3;
    rope.low_freq_factor = number(*scaling, "low_freq_factor").value_or(1.0);
    rope.high_freq_factor = number(*scaling, "high_freq_factor").value_or(4.0);
  } else if (kind == "yarn") {
    rope.kind = RopeConfig::Kind::kYarn;
    rope.beta_fast = number(*scaling, "beta_fast").value_or(32.0);
    rope.beta_slow = number(*scaling, "beta_slow").value_or(1.0);
    rope.truncate = flag(*scaling, "truncate", true);
    rope.attention_factor = yarn_attention_factor(*scaling, rope.factor);
  } else {
    fail(ErrorCode::kUnsupported,
         "config.json: rope scaling '{}' is not supported; default, linear, llama3 and yarn are",
         kind);
  }
}

void refuse_unknown(const Json& config) {
  const std::string type = text(config, "model_type").value_or("");
  if (type != "llama") {
    fail(ErrorCode::kUnsupported, "config.json: model_type is '{}'; only 'llama' is supported",
         type);
  }
  if (const Json* architectures = find(config, "architectures")) {
    for (const Json& name : *architectures) {
      if (name != "LlamaForCausalLM") {
        fail(ErrorCode::kUnsupported,
             "config.json: architecture {} is not supported; LlamaForCausalLM is", name.dump());
      }
    }
  }
  const std::string activation = text(config, "hidden_act").value_or("silu");
  if (activation != "silu" && activation != "swish") {
    fail(ErrorCode::kUnsupported, "config.json: hidden_act is '{}'; only silu is supported",
         activation);
  }
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (flag(config, key, false)) {
      fail(ErrorCode::kUnsupported, "config.json: {} is true; models with biases are not supported",
           key);
    }
  }
  if (find(config, "quantization_config") != nullptr) {
    fail(
        ErrorCode::kUnsupported,
        "config.json: quantization_config is present; only F32, F16 and BF16 weights are supported "
        "in folders (use a GGUF file for quantized ones)");
  }
}

void add_stop_tokens(const Json& object, std::vector<int32_t>& stops) {
  const Json* value = find(object, "eos_token_id");
  if (value == nullptr) return;
  const auto add = [&](const Json& id) {
    if (id == -1) return;  // none
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > (1 << 24)) {
      fail(ErrorCode::kBadFile, "config.json: eos_token_id {} is not a token id", id.dump());
    }
    stops.push_back(id.get<int32_t>());
  };
  if (value->is_array()) {
    for (const Json& id : *value) add(id);
  } else {
    add(*value);
  }
}

}  // namespace

LlamaConfig config_from_json(std::span<const std::byte> config_bytes,
                             std::span<const std::byte> generation_bytes) {
  const Json config = StrictJson().parse(config_bytes, "config.json");
  if (!config.is_object()) fail(ErrorCode::kBadFile, "config.json is not an object");
  refuse_unknown(config);
  LlamaConfig c;
  const auto required = [&](const char* key) { return small(key, integer(config, key)); };
  c.n_layers = required("num_hidden_layers");
  c.hidden_size = required("hidden_size");
  c.intermediate_size = required("intermediate_size");
  c.n_heads = required("num_attention_heads");
  c.n_kv_heads =
      small("num_key_value_heads", integer(config, "num_key_value_heads").value_or(c.n_heads));
  c.head_dim = small("head_dim", integer(config, "head_dim").value_or(c.hidden_size / c.n_heads));
  c.vocab_size = required("vocab_size");
  c.context_length = integer(config, "max_position_embeddings").value_or(2048);
  c.norm_eps = static_cast<float>(number(config, "rms_norm_eps").value_or(1e-6));
  c.tied_embeddings = flag(config, "tie_word_embeddings", false);
  c.name = text(config, "_name_or_path").value_or("");
  read_rope(config, c);
  add_stop_tokens(config, c.stop_tokens);
  if (!generation_bytes.empty()) {
    const Json generation = StrictJson().parse(generation_bytes, "generation_config.json");
    if (generation.is_object()) add_stop_tokens(generation, c.stop_tokens);
  }
  validate(c);
  return c;
}

}  // namespace paddock
