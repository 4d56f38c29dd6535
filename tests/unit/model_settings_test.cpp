// docs/model-settings.md row by row: defaults, places and contradictions of every key that the
// readers of model files know. References: transformers 5.24 through tests/data/rope_settings.json
// and its sources; llama.cpp b11549, whose token probabilities were the same for each pair of files
// that a row calls equal.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <variant>

#include "model/config.h"
#include "paddock/engine.h"
#include "paddock/error.h"
#include "paddock/log.h"
#include "paddock/model.h"
#include "support/model_rows.h"

namespace paddock::test {
namespace {

using Kind = RopeConfig::Kind;

// ---- GGUF --------------------------------------------------------------------------------------

using MetaValue = std::variant<int, float, bool, std::string, std::vector<int32_t>>;
using Meta = std::map<std::string, MetaValue>;

/// A small model's metadata with `edits`; a key whose edit is empty text goes.
std::string small_gguf(const Meta& edits, bool rope_freqs = false) {
  Meta all = {{"general.architecture", "llama"},
              {"llama.block_count", 2},
              {"llama.embedding_length", 32},
              {"llama.feed_forward_length", 48},
              {"llama.attention.head_count", 4},
              {"llama.context_length", 128},
              {"llama.attention.layer_norm_rms_epsilon", 1e-5F}};
  for (const auto& [key, value] : edits) all[key] = value;
  VocabularyGguf file;
  for (const auto& [key, value] : all) {
    if (const auto* number = std::get_if<int>(&value)) {
      file.uint32(key, static_cast<uint32_t>(*number));
    } else if (const auto* real = std::get_if<float>(&value)) {
      file.float32(key, *real);
    } else if (const auto* flag = std::get_if<bool>(&value)) {
      file.boolean(key, *flag);
    } else if (const auto* array = std::get_if<std::vector<int32_t>>(&value)) {
      file.int32s(key, *array);
    } else if (const auto& text = std::get<std::string>(value); !text.empty()) {
      file.text(key, text);
    }
  }
  file.tensor("token_embd.weight", {32, 96});
  if (rope_freqs) file.tensor("rope_freqs.weight", {4}, 2.0F);
  return file.bytes();
}

KeySet g_asked;  // by config_from_gguf and config_from_json in all rows

LlamaConfig gguf(const Meta& edits, bool rope_freqs = false) {
  const TemporaryFolder folder;
  const auto file = gguf::File::open(folder.write("m.gguf", small_gguf(edits, rope_freqs)));
  return config_from_gguf(*file, &g_asked);
}

std::string refusal(const Meta& edits) {
  return refusal_of([&] { gguf(edits); });
}

void expect_missing(const std::string& key) {
  EXPECT_TRUE(has(refusal({{key, ""}}), {key.c_str()}));
}

// ---- config.json -------------------------------------------------------------------------------

using Json = nlohmann::json;

const Json& settings_golden() {
  static const Json golden =
      Json::parse(std::ifstream(std::string(PADDOCK_TEST_DATA) + "/rope_settings.json"));
  return golden;
}

LlamaConfig json(const Json& edits) {
  Json config = settings_golden()["plain"];
  for (const auto& [key, value] : edits.items()) config[key] = value;
  const std::string text = config.dump();
  return config_from_json(bytes_of(text), {}, &g_asked);
}

std::string json_refusal(const Json& edits) {
  return refusal_of([&] { json(edits); });
}

Json without(const char* key) {
  Json config = settings_golden()["plain"];
  config.erase(key);
  return config;
}

LlamaConfig read(const Json& config) {
  const std::string text = config.dump();
  return config_from_json(bytes_of(text), {}, &g_asked);
}

std::string refusal_without(const char* key) {
  return refusal_of([&] { read(without(key)); });
}

void expect_required(const char* key) { EXPECT_TRUE(has(refusal_without(key), {key, "missing"})); }

const Json kLinear = {{"rope_type", "linear"}, {"factor", 4.0}};
const Json kLlama3 = {
    {"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}};

Json yarn(const Json& more = Json::object()) {
  Json scaling = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}};
  scaling.update(more);
  return {{"rope_scaling", scaling}};
}

/// What transformers makes of `edits`, which are a case of the golden file.
void expect_transformers(const LlamaConfig& config, const Json& edits) {
  for (const Json& reference : settings_golden()["cases"]) {
    if (reference["edits"] != edits) continue;
    const auto frequencies = rope_inverse_frequencies(config.rope, config.head_dim);
    const auto expected = reference["inverse_frequencies"].get<std::vector<double>>();
    ASSERT_EQ(frequencies.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(frequencies[i], expected[i], 1e-5 * expected[i]) << edits.dump() << " " << i;
    }
    EXPECT_NEAR(rope_attention_factor(config.rope), reference["attention_factor"].get<double>(),
                1e-6)
        << edits.dump();
    return;
  }
  FAIL() << "no such case: " << edits.dump();
}

void expect_transformers(const Json& edits) { expect_transformers(json(edits), edits); }

// ---- The rows ----------------------------------------------------------------------------------

const std::string kScaling = "llama.rope.scaling.";

/// A GGUF file whose RoPE is that of a configuration for transformers. The head has 16 dimensions.
void expect_yarn(Meta edits, const Json& reference) {
  edits["llama.attention.key_length"] = 16;
  edits[kScaling + "type"] = "yarn";
  edits[kScaling + "factor"] = 4.0F;
  expect_transformers(gguf(edits), reference);
}

void expect_linear(const Meta& edits, double factor) {
  const LlamaConfig config = gguf(edits);
  const auto scaled = rope_inverse_frequencies(config.rope, config.head_dim);
  for (size_t i = 0; i < scaled.size(); ++i) {
    EXPECT_NEAR(scaled[i], std::pow(10000.0, -static_cast<double>(i) / 4) / factor, 1e-12);
  }
}

void refuses_unless_zero(const char* key) {
  EXPECT_TRUE(gguf({{key, 0}}).warnings.empty());
  EXPECT_TRUE(has(refusal({{key, 4}}), {key, "4"}));
}

void says_nothing(const char* key, const MetaValue& value) {
  EXPECT_TRUE(gguf({{key, value}}).warnings.empty());
}

/// A key that llama.cpp does not read for llama: its own value or none.
void only(const std::string& key, std::initializer_list<float> right, float wrong) {
  Meta edits = {{kScaling + "type", "yarn"}, {kScaling + "factor", 4.0F}};
  for (const float value : right) {
    edits[kScaling + key] = value;
    EXPECT_TRUE(gguf(edits).warnings.empty());
  }
  edits[kScaling + key] = wrong;
  EXPECT_TRUE(has(refusal(edits), {key.c_str(), "llama.cpp"}));
}

void of_layers(const std::string& key, int32_t value, int32_t other) {
  EXPECT_TRUE(gguf({{key, std::vector<int32_t>{value, value}}}).warnings.empty());
  EXPECT_TRUE(has(refusal({{key, std::vector<int32_t>{value, other}}}),
                  {key.c_str(), "in layer 0", "in layer 1"}));
  EXPECT_TRUE(has(refusal({{key, std::vector<int32_t>{value, value, value}}}),
                  {key.c_str(), "3 elements for 2 layers"}));
}

const std::vector<Row> kGgufRows = {
    {"general.architecture",
     [] {
       EXPECT_TRUE(has(refusal({{"general.architecture", "gemma"}}), {"gemma"}));
     }},
    {"general.name",
     [] {
       EXPECT_EQ(gguf({}).name, "");
       EXPECT_EQ(gguf({{"general.name", "Kettle"}}).name, "Kettle");
     }},
    {"llama.block_count", [] { expect_missing("llama.block_count"); }},
    {"llama.embedding_length", [] { expect_missing("llama.embedding_length"); }},
    {"llama.feed_forward_length",
     [] {
       expect_missing("llama.feed_forward_length");
       of_layers("llama.feed_forward_length", 48, 64);
       EXPECT_EQ(
           gguf({{"llama.feed_forward_length", std::vector<int32_t>{64, 64}}}).intermediate_size,
           64);
     }},
    {"llama.attention.head_count",
     [] {
       expect_missing("llama.attention.head_count");
       of_layers("llama.attention.head_count", 4, 2);
     }},
    {"llama.attention.head_count_kv",
     [] {
       EXPECT_EQ(gguf({}).n_kv_heads, 4);
       of_layers("llama.attention.head_count_kv", 2, 1);
       EXPECT_EQ(gguf({{"llama.attention.head_count_kv", std::vector<int32_t>{2, 2}}}).n_kv_heads,
                 2);
       EXPECT_TRUE(has(refusal({{"llama.attention.head_count_kv", 3}}), {"4", "3"}));
     }},
    {"llama.attention.key_length",
     [] {
       EXPECT_EQ(gguf({}).head_dim, 8);
       EXPECT_EQ(gguf({{"llama.attention.key_length", 16}}).head_dim, 16);
     }},
    {"llama.attention.value_length",
     [] {
       EXPECT_TRUE(has(refusal({{"llama.attention.value_length", 16}}), {"16", "8"}));
     }},
    {"llama.rope.dimension_count",
     [] {
       EXPECT_TRUE(has(refusal({{"llama.rope.dimension_count", 4}}), {"4", "8"}));
     }},
    {"llama.context_length", [] { expect_missing("llama.context_length"); }},
    {"llama.attention.layer_norm_rms_epsilon",
     [] { expect_missing("llama.attention.layer_norm_rms_epsilon"); }},
    {"llama.vocab_size",
     [] {
       EXPECT_EQ(gguf({}).vocab_size, 96);
       EXPECT_TRUE(gguf({{"llama.vocab_size", 96}}).warnings.empty());
       const LlamaConfig config = gguf({{"llama.vocab_size", 100}});
       EXPECT_EQ(config.vocab_size, 96);
       EXPECT_TRUE(warns(config, {"llama.vocab_size", "100", "96"}));
     }},
    {"llama.rope.freq_base",
     [] {
       EXPECT_EQ(gguf({}).rope.theta, 10000.0);
       EXPECT_EQ(gguf({{"llama.rope.freq_base", 500.0F}}).rope.theta, 500.0);
     }},
    {"llama.rope.scaling.type",
     [] {
       expect_linear({{kScaling + "factor", 4.0F}}, 4.0);
       const Meta none = {{kScaling + "type", "none"}, {kScaling + "factor", 4.0F}};
       expect_linear(none, 1.0);
       EXPECT_TRUE(warns(gguf(none), {"none", "4"}));
       expect_linear({{kScaling + "type", "none"}, {"llama.rope.scale_linear", 4.0F}}, 1.0);
       EXPECT_TRUE(has(refusal({{kScaling + "type", "longrope"}}), {"longrope"}));
     }},
    {"llama.rope.scaling.factor",
     [] {
       expect_linear({{kScaling + "type", "linear"}, {kScaling + "factor", 4.0F}}, 4.0);
       expect_linear({{kScaling + "type", "linear"}}, 1.0);
       expect_linear({{kScaling + "type", "linear"}, {kScaling + "factor", 0.0F}}, 1.0);
       EXPECT_TRUE(has(refusal({{kScaling + "factor", -2.0F}}), {"-2"}));
       EXPECT_EQ(rope_attention_factor(
                     gguf({{kScaling + "type", "yarn"}, {kScaling + "factor", 0.5F}}).rope),
                 1.0);
     }},
    {"llama.rope.scale_linear",
     [] {
       expect_linear({{"llama.rope.scale_linear", 4.0F}}, 4.0);
       expect_linear({{"llama.rope.scale_linear", 0.0F}}, 1.0);
       const Meta both = {{"llama.rope.scale_linear", 4.0F}, {kScaling + "factor", 2.0F}};
       expect_linear(both, 2.0);
       EXPECT_TRUE(warns(gguf(both), {"scaling.factor is 2", "scale_linear 4"}));
     }},
    {"llama.rope.scaling.original_context_length",
     [] {
       const std::string key = kScaling + "original_context_length";
       expect_yarn({{key, 32}}, yarn());
       const Json absent = {{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}}};
       expect_yarn({}, absent);
       expect_yarn({{key, 0}}, absent);
     }},
    {"llama.rope.scaling.attn_factor",
     [] {
       const std::string key = kScaling + "attn_factor";
       EXPECT_EQ(rope_attention_factor(gguf({}).rope), 1.0);
       EXPECT_EQ(rope_attention_factor(gguf({{key, 1.5F}}).rope), 1.5);
       EXPECT_EQ(rope_attention_factor(gguf({{key, 1.5F}, {kScaling + "factor", 4.0F}}).rope), 1.5);
       const LlamaConfig config =
           gguf({{key, 1.5F}, {kScaling + "type", "yarn"}, {kScaling + "factor", 4.0F}});
       EXPECT_NEAR(rope_attention_factor(config.rope), 1.5 * (0.1 * std::log(4.0) + 1), 1e-12);
       EXPECT_TRUE(has(refusal({{key, 0.0F}}), {"attn_factor", "0"}));
     }},
    {"llama.rope.scaling.yarn_beta_fast", [] { only("yarn_beta_fast", {32.0F}, 16.0F); }},
    {"llama.rope.scaling.yarn_beta_slow", [] { only("yarn_beta_slow", {1.0F}, 2.0F); }},
    {"llama.rope.scaling.yarn_ext_factor",
     [] {
       only("yarn_ext_factor", {1.0F, -1.0F}, 0.5F);
     }},
    {"llama.rope.scaling.yarn_attn_factor",
     [] {
       only("yarn_attn_factor", {1.0F, 1.1386294F}, 1.5F);
     }},
    {"llama.rope.scaling.finetuned", [] { says_nothing("llama.rope.scaling.finetuned", true); }},
    {"llama.tensor_data_layout",
     [] { says_nothing("llama.tensor_data_layout", "Meta AI original pth"); }},
    {"llama.pooling_type", [] { says_nothing("llama.pooling_type", 0); }},
    {"llama.attention.causal",
     [] {
       EXPECT_TRUE(gguf({{"llama.attention.causal", true}}).warnings.empty());
       EXPECT_TRUE(has(refusal({{"llama.attention.causal", false}}), {"llama.attention.causal"}));
     }},
    {"llama.attention.sliding_window",
     [] { refuses_unless_zero("llama.attention.sliding_window"); }},
    {"llama.expert_count", [] { refuses_unless_zero("llama.expert_count"); }},
    {"llama.expert_used_count", [] { refuses_unless_zero("llama.expert_used_count"); }}};

const std::vector<Row> kJsonRows = {
    {"model_type",
     [] {
       EXPECT_TRUE(has(refusal_without("model_type"), {"model_type"}));
       EXPECT_TRUE(has(json_refusal(Json{{"model_type", "qwen2"}}), {"qwen2"}));
     }},
    {"architectures",
     [] {
       EXPECT_EQ(read(without("architectures")).n_layers, 2);
       EXPECT_TRUE(has(json_refusal(Json{{"architectures", {"LlamaModel"}}}), {"LlamaModel"}));
     }},
    {"hidden_act",
     [] {
       EXPECT_EQ(json({{"hidden_act", "swish"}}).n_layers, 2);
       EXPECT_TRUE(has(json_refusal(Json{{"hidden_act", "gelu"}}), {"hidden_act", "gelu"}));
     }},
    {"attention_bias",
     [] {
       EXPECT_TRUE(has(json_refusal(Json{{"attention_bias", true}}), {"attention_bias"}));
     }},
    {"mlp_bias",
     [] {
       EXPECT_TRUE(has(json_refusal(Json{{"mlp_bias", true}}), {"mlp_bias"}));
     }},
    {"quantization_config",
     [] {
       EXPECT_TRUE(has(json_refusal(Json{{"quantization_config", Json::object()}}),
                       {"quantization_config"}));
     }},
    {"num_hidden_layers", [] { expect_required("num_hidden_layers"); }},
    {"hidden_size", [] { expect_required("hidden_size"); }},
    {"intermediate_size", [] { expect_required("intermediate_size"); }},
    {"num_attention_heads", [] { expect_required("num_attention_heads"); }},
    {"vocab_size", [] { expect_required("vocab_size"); }},
    {"num_key_value_heads",
     [] {
       EXPECT_EQ(read(without("num_key_value_heads")).n_kv_heads, 4);
       EXPECT_EQ(json({{"num_key_value_heads", nullptr}}).n_kv_heads, 4);
       EXPECT_TRUE(has(json_refusal(Json{{"num_key_value_heads", 3}}), {"3"}));
     }},
    {"head_dim",
     [] {
       EXPECT_EQ(read(without("head_dim")).head_dim, 8);
       EXPECT_EQ(json({{"head_dim", nullptr}}).head_dim, 8);
     }},
    {"max_position_embeddings",
     [] { EXPECT_EQ(read(without("max_position_embeddings")).context_length, 2048); }},
    {"rms_norm_eps",
     [] {
       EXPECT_EQ(json(Json::object()).norm_eps, 1e-6F);
       EXPECT_EQ(json({{"rms_norm_eps", 1e-5}}).norm_eps, 1e-5F);
     }},
    {"tie_word_embeddings",
     [] {
       EXPECT_FALSE(json(Json::object()).tied_embeddings);
       check_tied_embeddings();
     }},
    {"eos_token_id",
     [] {
       EXPECT_TRUE(json(Json::object()).stop_tokens.empty());
       const std::string both = R"({"eos_token_id": [5, 6]})";
       Json config = settings_golden()["plain"];
       config["eos_token_id"] = 4;
       const std::string text = config.dump();
       EXPECT_EQ(config_from_json(bytes_of(text), bytes_of(both)).stop_tokens,
                 (std::vector<int32_t>{4, 5, 6}));
     }},
    {"_name_or_path",
     [] {
       EXPECT_EQ(json({{"_name_or_path", "Kettle"}}).name, "Kettle");
     }},
    {"rope_scaling",
     [] {
       const Json both = {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 10000.0}}},
                          {"rope_scaling", kLinear}};
       expect_transformers(both);
       EXPECT_TRUE(warns(json(both), {"rope_scaling", "linear", "rope_parameters", "default"}));
       Json same = {{"rope_parameters", kLinear}, {"rope_scaling", kLinear}};
       same["rope_parameters"]["rope_theta"] = 10000.0;
       EXPECT_TRUE(json(same).warnings.empty());
       // What does not count need not be readable.
       EXPECT_TRUE(
           warns(json({{"rope_parameters", {{"rope_type", "kettle"}}}, {"rope_scaling", kLinear}}),
                 {"rope_scaling", "linear", "rope_parameters", "kettle"}));
       expect_transformers(Json{{"rope_parameters", kLinear}, {"rope_scaling", Json::object()}});
       EXPECT_TRUE(has(json_refusal(Json{{"rope_scaling", "linear"}}), {"rope_scaling"}));
     }},
    {"rope_parameters",
     [] {
       const Json empty = {{"rope_parameters", Json::object()}, {"rope_scaling", kLinear}};
       expect_transformers(empty);
       EXPECT_TRUE(json(empty).warnings.empty());
       expect_transformers(Json{{"rope_parameters", kLinear}});
       EXPECT_TRUE(has(json_refusal(Json{{"rope_parameters", {{"full_attention", kLinear}}}}),
                       {"rope_parameters.full_attention"}));
     }},
    {"rope_theta",
     [] {
       expect_transformers(Json::object());
       expect_transformers(Json{{"rope_theta", 500.0}});
       const Json both = {{"rope_theta", 500.0},
                          {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1000.0}}}};
       expect_transformers(both);
       EXPECT_TRUE(
           warns(json(both), {"'rope_parameters.rope_theta' = 1000", "'rope_theta' = 500"}));
       Json same = both;
       same["rope_theta"] = 1000.0;
       EXPECT_TRUE(json(same).warnings.empty());
     }},
    {"original_max_position_embeddings",
     [] {
       expect_transformers(
           Json{{"original_max_position_embeddings", 64}, {"rope_scaling", kLlama3}});
       Json both = {{"original_max_position_embeddings", 64}, {"rope_scaling", kLlama3}};
       both["rope_scaling"]["original_max_position_embeddings"] = 32;
       expect_transformers(both);
       EXPECT_TRUE(warns(json(both), {"'original_max_position_embeddings' = 64",
                                      "'rope_scaling.original_max_position_embeddings' = 32"}));
     }},
    {"partial_rotary_factor", [] {
       EXPECT_TRUE(json({{"partial_rotary_factor", 1.0}}).warnings.empty());
       EXPECT_TRUE(has(json_refusal(Json{{"partial_rotary_factor", 0.5}}),
                       {"partial_rotary_factor", "0.5"}));
     }}};

void scaling_is_refused(const Json& scaling, std::initializer_list<const char*> parts) {
  EXPECT_TRUE(has(json_refusal(Json{{"rope_scaling", scaling}}), parts));
}

const std::vector<Row> kRopeRows = {
    {"rope_type",
     [] {
       scaling_is_refused({{"rope_type", "longrope"}, {"factor", 2}}, {"longrope"});
       scaling_is_refused({{"rope_type", "default"}, {"type", "linear"}, {"factor", 2}},
                          {"rope_scaling.rope_type", "default", "rope_scaling.type", "linear"});
     }},
    {"type",
     [] {
       expect_transformers(Json{{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}});
       Json same = kLinear;
       same["type"] = "linear";
       EXPECT_TRUE(json({{"rope_scaling", same}}).warnings.empty());
     }},
    {"rope_theta",
     [] {
       expect_transformers(
           Json{{"rope_theta", 500.0}, {"rope_parameters", {{"rope_type", "default"}}}});
     }},
    {"factor",
     [] {
       scaling_is_refused({{"rope_type", "linear"}}, {"linear", "factor"});
       scaling_is_refused({{"rope_type", "linear"}, {"factor", 0}}, {"factor", "0"});
       const Json ignored = {{"rope_scaling", {{"factor", 2.0}}}};
       expect_transformers(ignored);
       EXPECT_TRUE(warns(json(ignored), {"rope_scaling.factor", "ignored"}));
       expect_transformers(yarn({{"factor", nullptr}}));
     }},
    {"original_max_position_embeddings",
     [] {
       expect_transformers(Json{{"rope_scaling", kLlama3}});
       expect_transformers(Json{{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}}});
       expect_transformers(yarn());
     }},
    {"low_freq_factor",
     [] {
       Json scaling = kLlama3;
       scaling.erase("low_freq_factor");
       EXPECT_EQ(json({{"rope_scaling", scaling}}).rope, json({{"rope_scaling", kLlama3}}).rope);
       scaling["low_freq_factor"] = 4.0;
       scaling_is_refused(scaling, {"low_freq_factor", "high_freq_factor"});
     }},
    {"high_freq_factor",
     [] {
       Json scaling = kLlama3;
       scaling.erase("high_freq_factor");
       EXPECT_EQ(json({{"rope_scaling", scaling}}).rope, json({{"rope_scaling", kLlama3}}).rope);
     }},
    {"beta_fast",
     [] {
       expect_transformers(yarn({{"beta_fast", 16}, {"beta_slow", 2}}));
       expect_transformers(yarn({{"beta_fast", 0}, {"beta_slow", 0}}));
     }},
    {"beta_slow",
     [] {
       EXPECT_EQ(json(yarn({{"beta_slow", 2}})).rope.beta_slow, 2.0);
     }},
    {"truncate",
     [] {
       expect_transformers(yarn());
       expect_transformers(yarn({{"truncate", false}}));
       expect_transformers(yarn({{"truncate", nullptr}}));
     }},
    {"attention_factor",
     [] {
       expect_transformers(yarn({{"attention_factor", 1.5}}));
       EXPECT_TRUE(has(json_refusal(yarn({{"attention_factor", 0.0}})), {"attention_factor", "0"}));
       Json ignored = {{"rope_scaling", kLinear}};
       ignored["rope_scaling"]["attention_factor"] = 1.5;
       expect_transformers(ignored);
       EXPECT_TRUE(warns(json(ignored), {"attention_factor", "ignored"}));
     }},
    {"mscale",
     [] {
       expect_transformers(yarn({{"mscale", 0.7}}));
       EXPECT_EQ(rope_attention_factor(
                     json(yarn({{"mscale", 0.7}, {"mscale_all_dim", 1.2}, {"attention_factor", 2}}))
                         .rope),
                 2.0);
     }},
    {"mscale_all_dim",
     [] {
       expect_transformers(yarn({{"mscale", 0.7}, {"mscale_all_dim", 1.2}}));
     }},
    {"partial_rotary_factor", [] {
       scaling_is_refused({{"partial_rotary_factor", 0.5}},
                          {"rope_scaling.partial_rotary_factor", "0.5"});
     }}};

const std::map<std::string, const std::vector<Row>*> kSections = {
    {"GGUF: the model", &kGgufRows},
    {"GGUF: container and tensors", &container_rows()},
    {"GGUF: the tokenizer", &gguf_tokenizer_rows()},
    {"config.json", &kJsonRows},
    {"config.json: the object that describes RoPE", &kRopeRows},
    {"The other files of a folder", &folder_rows()}};

/// The keys of each table of the page, by the heading over it.
std::map<std::string, std::vector<std::string>> keys_of_the_page() {
  std::ifstream page(std::string(PADDOCK_TEST_DATA) + "/../../docs/model-settings.md");
  std::map<std::string, std::vector<std::string>> keys;
  std::string heading;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("## ")) heading = line.substr(3);
    if (line.starts_with("| `")) keys[heading].push_back(line.substr(3, line.find('`', 3) - 3));
  }
  return keys;
}

std::vector<std::string> keys_of(const std::vector<Row>& rows) {
  std::vector<std::string> keys;
  for (const Row& row : rows) keys.emplace_back(row.key);
  return keys;
}

TEST(ModelSettings, EveryRowOfThePageHolds) {
  for (const auto& [section, rows] : kSections) {
    for (const Row& row : *rows) {
      SCOPED_TRACE(section + ": " + row.key);
      row.check();
    }
  }
}

TEST(ModelSettings, ThePageHasTheRowsOfTheTest) {
  const auto page = keys_of_the_page();
  EXPECT_EQ(page.size(), kSections.size());
  for (const auto& [section, rows] : kSections) {
    SCOPED_TRACE(section);
    ASSERT_TRUE(page.contains(section));
    EXPECT_EQ(page.at(section), keys_of(*rows));
  }
}

TEST(ModelSettings, ThePageNamesEveryKeyThatIsAskedFor) {
  g_asked.clear();
  for (const auto* rows : {&kGgufRows, &kJsonRows, &kRopeRows}) {
    for (const Row& row : *rows) row.check();
  }
  KeySet named;
  for (const auto* rows : {&kGgufRows, &kJsonRows}) {
    for (const std::string& key : keys_of(*rows)) named.insert(key);
  }
  for (const std::string& key : keys_of(kRopeRows)) named.insert("rope." + key);
  EXPECT_EQ(g_asked, named);
}

TEST(ModelSettings, RopeEqualsTransformersInEveryVariant) {
  for (const Json& reference : settings_golden()["cases"]) {
    if (!reference.contains("refused")) {
      expect_transformers(reference["edits"]);
    } else {
      EXPECT_NE(json_refusal(reference["edits"]), "") << reference.dump();
    }
  }
}

TEST(ModelSettings, AContextBeyondTheTrainedOneIsSaid) {
  const auto model = Model::load(std::string(PADDOCK_TEST_DATA) + "/golden/gqa1-Q8_0.gguf");
  const auto said = [&](const char* policy, int64_t context) {
    std::vector<std::string> warnings;
    set_log_hook([&](LogLevel level, std::string_view text) {
      if (level == LogLevel::kWarning) warnings.emplace_back(text);
    });
    EngineOptions options;
    options.threads = 1;
    options.batch_size = 16;
    options.context = context;
    options.kv.policy = policy;
    const Engine engine(model, options);
    set_log_hook({});
    return warnings;
  };
  EXPECT_TRUE(warns(said("full", 100000), {"100000", "128"}));
  EXPECT_TRUE(warns(said("h2o:64@original", 100000), {"100000", "128"}));
  EXPECT_TRUE(warns(said("window:200", 100000), {"100000", "128"}));
  EXPECT_TRUE(said("full", 128).empty());
  EXPECT_TRUE(said("full", 0).empty());
  EXPECT_TRUE(said("sink:4+60", 100000).empty());  // nothing lies further away than 80 positions
  EXPECT_TRUE(said("h2o:64@compact", 100000).empty());
}

TEST(ModelSettings, SizesAreSizes) {
  for (const int size : {0, -1, (1 << 24) + 1}) {
    const std::string text = std::to_string(size);
    EXPECT_TRUE(has(json_refusal(Json{{"num_hidden_layers", size}}),
                    {"'num_hidden_layers' is ", text.c_str(), "it must be from 1 to 16777216"}));
  }
  EXPECT_TRUE(has(refusal({{"llama.block_count", 0}}), {"llama.block_count is 0; it must be"}));
}

TEST(ModelSettings, KeysThatNobodyReadsAreNamed) {
  EXPECT_TRUE(warns(gguf({{"llama.logit_scale", 2.0F}}), {"llama.logit_scale", "ignored"}));
  EXPECT_TRUE(warns(json({{"rope_scaling", {{"rope_type", "default"}, {"kettle", 1}}}}),
                    {"rope_scaling.kettle", "ignored"}));
  EXPECT_TRUE(
      json({{"rope_scaling", {{"rope_type", "default"}, {"kettle", nullptr}}}}).warnings.empty());
}

}  // namespace
}  // namespace paddock::test
