#include "model/rope_json.h"

#include "core/fail.h"

namespace paddock {
namespace {

using Json = nlohmann::json;

/// The object under `key`; nullptr if it is absent or says nothing.
const Json* described(JsonSettings& config, const char* key) {
  const Json* value = config.find(key);
  if (value == nullptr || value->empty()) return nullptr;
  if (!value->is_object()) fail(ErrorCode::kBadFile, "config.json: '{}' is not an object", key);
  return value;
}

std::string said(const JsonSettings& settings, const char* key, const Json& value) {
  constexpr size_t kShown = 200;
  const std::string text = value.dump();
  return fmt::format("{} = {}{}", settings.name(key), text.substr(0, kShown),
                     text.size() > kShown ? "..." : "");
}

/// Where one setting stands in two places and the first counts.
void warn_of_two(LlamaConfig& c, const std::string& wins, const std::string& loses) {
  c.warnings.push_back(
      fmt::format("config.json: {} and {} contradict each other; the former counts, as in "
                  "transformers",
                  wins, loses));
}

/// Says so where `key` stands in both and differs; the first counts.
void compare_levels(JsonSettings& first, JsonSettings& second, const char* key, LlamaConfig& c) {
  const Json* wins = first.find(key);
  const Json* loses = second.find(key);
  if (wins == nullptr || loses == nullptr || *wins == *loses) return;
  warn_of_two(c, said(first, key, *wins), said(second, key, *loses));
}

/// Readers disagree about what a part of the dimensions means: transformers' Llama rotates all of
/// them nevertheless, others rotate the part.
void refuse_partial(JsonSettings& settings) {
  const double part = settings.number("partial_rotary_factor").value_or(1.0);
  if (part != 1.0) {
    fail(ErrorCode::kUnsupported, "config.json: {} is {}; only 1 is supported",
         settings.name("partial_rotary_factor"), part);
  }
}

std::string rope_type(JsonSettings& scaling) {
  const auto modern = scaling.text("rope_type");
  const auto legacy = scaling.text("type");
  if (modern && legacy && *modern != *legacy) {
    fail(ErrorCode::kUnsupported,
         "config.json: {} is '{}' but {} is '{}'; readers disagree about which of them counts: "
         "remove one",
         scaling.name("rope_type"), *modern, scaling.name("type"), *legacy);
  }
  return modern.value_or(legacy.value_or("default"));
}

/// Yarn's factor on cos and sin: as given, or from both mscales, or from the factor.
double attention_factor(JsonSettings& scaling, double factor) {
  const auto given = scaling.number("attention_factor");
  if (given && !(*given > 0.0)) {
    fail(ErrorCode::kBadFile, "config.json: {} is {}; it must be positive",
         scaling.name("attention_factor"), *given);
  }
  const double mscale = scaling.number("mscale").value_or(0.0);
  const double all = scaling.number("mscale_all_dim").value_or(0.0);
  if (given) return *given;
  if (mscale == 0.0 || all == 0.0) return yarn_attention_factor(factor);
  return yarn_attention_factor(factor, mscale) / yarn_attention_factor(factor, all);
}

void read_yarn(JsonSettings& scaling, const Json& object, RopeConfig& rope) {
  rope.kind = RopeConfig::Kind::kYarn;
  // transformers: `beta_fast or 32`, so that 0 is absent; a null `truncate` is false.
  const auto beta = [&](const char* key, double otherwise) {
    const double value = scaling.number(key).value_or(0.0);
    return value == 0.0 ? otherwise : value;
  };
  rope.beta_fast = beta("beta_fast", 32.0);
  rope.beta_slow = beta("beta_slow", 1.0);
  rope.truncate = scaling.flag("truncate").value_or(!object.contains("truncate"));
  rope.attention_factor = attention_factor(scaling, rope.factor);
}

double scaling_factor(JsonSettings& scaling, const Json& object, const std::string& kind,
                      const LlamaConfig& c) {
  if (const auto factor = scaling.number("factor")) return *factor;
  // transformers: yarn's null is the ratio of the two lengths.
  if (kind == "yarn" && object.contains("factor") && c.rope.original_context > 0) {
    return static_cast<double>(c.context_length) / static_cast<double>(c.rope.original_context);
  }
  fail(ErrorCode::kBadFile, "config.json: rope scaling '{}' has no {}", kind,
       scaling.name("factor"));
}

void read_scaling(JsonSettings& scaling, const Json& object, JsonSettings& config, LlamaConfig& c) {
  RopeConfig& rope = c.rope;
  const std::string kind = rope_type(scaling);
  if (kind == "default") return;
  if (kind != "linear" && kind != "llama3" && kind != "yarn") {
    fail(ErrorCode::kUnsupported,
         "config.json: rope scaling '{}' is not supported; default, linear, llama3 and yarn are",
         kind);
  }
  if (kind != "linear") {
    const char* key = "original_max_position_embeddings";
    compare_levels(config, scaling, key, c);
    const auto inner = scaling.integer(key);
    rope.original_context = config.integer(key).value_or(inner.value_or(c.context_length));
  }
  rope.factor = scaling_factor(scaling, object, kind, c);
  if (kind == "linear") {
    rope.kind = RopeConfig::Kind::kLinear;
  } else if (kind == "yarn") {
    read_yarn(scaling, object, rope);
  } else {
    rope.kind = RopeConfig::Kind::kLlama3;
    rope.low_freq_factor = scaling.number("low_freq_factor").value_or(1.0);
    rope.high_freq_factor = scaling.number("high_freq_factor").value_or(4.0);
  }
}

/// Reads the object under `key` into c.rope; the keys it looked for.
KeySet read_object(const Json& object, const char* key, JsonSettings& config, LlamaConfig& c) {
  JsonSettings rope(object, fmt::format("{}.", key));
  c.rope = {};
  refuse_partial(rope);
  compare_levels(rope, config, "rope_theta", c);
  const auto outer = config.number("rope_theta");
  c.rope.theta = rope.number("rope_theta").value_or(outer.value_or(10000.0));
  read_scaling(rope, object, config, c);
  for (const std::string& left : rope.unasked()) {
    if (object[left].is_object()) {
      fail(ErrorCode::kUnsupported,
           "config.json: {} is an object; RoPE that differs between layers is not supported",
           rope.name(left));
    }
    c.warnings.push_back(fmt::format(
        "config.json: {} was ignored: nothing reads it for this kind of RoPE", rope.name(left)));
  }
  return rope.asked();
}

/// Whether `object` describes another RoPE than c.rope, or none that can be read.
bool differs(const Json& object, const char* key, JsonSettings& config, const LlamaConfig& c) {
  LlamaConfig other = c;
  try {
    read_object(object, key, config, other);
  } catch (const Error&) {
    return true;
  }
  return other.rope != c.rope;
}

}  // namespace

KeySet read_rope(JsonSettings& config, LlamaConfig& c) {
  refuse_partial(config);
  const Json* scaling = described(config, "rope_scaling");
  const Json* parameters = described(config, "rope_parameters");
  KeySet keys;
  if (scaling != nullptr) {
    keys = read_object(*scaling, "rope_scaling", config, c);
    if (parameters != nullptr && differs(*parameters, "rope_parameters", config, c)) {
      warn_of_two(c, said(config, "rope_scaling", *scaling),
                  said(config, "rope_parameters", *parameters));
    }
  } else {
    keys = read_object(parameters == nullptr ? Json::object() : *parameters, "rope_parameters",
                       config, c);
  }
  KeySet named;
  for (const std::string& key : keys) named.insert("rope." + key);
  return named;
}

}  // namespace paddock
