// config.json and generation_config.json of a Hugging Face folder.
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "core/json.h"
#include "model/config.h"
#include "model/rope_json.h"

namespace paddock {
namespace {

using Json = nlohmann::json;

void refuse_unknown(JsonSettings& config) {
  const std::string type = config.text("model_type").value_or("");
  if (type != "llama") {
    fail(ErrorCode::kUnsupported, "config.json: model_type is '{}'; only 'llama' is supported",
         type);
  }
  if (const Json* architectures = config.find("architectures")) {
    for (const Json& name : *architectures) {
      if (name != "LlamaForCausalLM") {
        fail(ErrorCode::kUnsupported,
             "config.json: architecture {} is not supported; LlamaForCausalLM is", name.dump());
      }
    }
  }
  const std::string activation = config.text("hidden_act").value_or("silu");
  if (activation != "silu" && activation != "swish") {
    fail(ErrorCode::kUnsupported, "config.json: hidden_act is '{}'; only silu is supported",
         activation);
  }
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (config.flag(key).value_or(false)) {
      fail(ErrorCode::kUnsupported, "config.json: {} is true; models with biases are not supported",
           key);
    }
  }
  if (config.find("quantization_config") != nullptr) {
    fail(
        ErrorCode::kUnsupported,
        "config.json: quantization_config is present; only F32, F16 and BF16 weights are supported "
        "in folders (use a GGUF file for quantized ones)");
  }
}

void add_stop_tokens(JsonSettings& object, std::vector<int32_t>& stops) {
  const Json* value = object.find("eos_token_id");
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
                             std::span<const std::byte> generation_bytes, KeySet* asked) {
  const Json document = StrictJson().parse(config_bytes, "config.json");
  if (!document.is_object()) fail(ErrorCode::kBadFile, "config.json is not an object");
  JsonSettings config(document);
  refuse_unknown(config);
  LlamaConfig c;
  c.n_layers = config.required_size("num_hidden_layers");
  c.hidden_size = config.required_size("hidden_size");
  c.intermediate_size = config.required_size("intermediate_size");
  c.n_heads = config.required_size("num_attention_heads");
  c.n_kv_heads = config.size("num_key_value_heads").value_or(c.n_heads);
  c.head_dim = config.size("head_dim").value_or(c.hidden_size / c.n_heads);
  c.vocab_size = config.required_size("vocab_size");
  c.context_length = config.integer("max_position_embeddings").value_or(2048);
  c.norm_eps = static_cast<float>(config.number("rms_norm_eps").value_or(1e-6));
  c.tied_embeddings = config.flag("tie_word_embeddings").value_or(false);
  c.name = config.text("_name_or_path").value_or("");
  KeySet rope_keys = read_rope(config, c);
  add_stop_tokens(config, c.stop_tokens);
  if (asked != nullptr) {
    asked->merge(rope_keys);
    asked->insert(config.asked().begin(), config.asked().end());
  }
  if (!generation_bytes.empty()) {
    const Json generation = StrictJson().parse(generation_bytes, "generation_config.json");
    JsonSettings settings(generation);
    if (generation.is_object()) add_stop_tokens(settings, c.stop_tokens);
  }
  validate(c);
  return c;
}

}  // namespace paddock
