// The rows of docs/model-settings.md about containers, tokenizers and folders. References: as in
// model_settings_test.cpp, and tokenizers 0.23.
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "io/gguf.h"
#include "model/model_data.h"
#include "paddock/log.h"
#include "paddock/model.h"
#include "support/model_rows.h"

namespace paddock::test {
namespace {

using Json = nlohmann::json;

std::shared_ptr<const Tokenizer> tokenizer_of(const VocabularyGguf& file) {
  const TemporaryFolder folder;
  return Tokenizer::load(folder.write("v.gguf", file.bytes()));
}

std::string refusal(const VocabularyGguf& file) {
  return refusal_of([&] { tokenizer_of(file); });
}

/// What the library says while `action` runs.
std::string said_during(const std::function<void()>& action) {
  std::string said;
  set_log_hook([&](LogLevel level, std::string_view text) {
    if (level == LogLevel::kWarning) said += std::string(text) + "\n";
  });
  action();
  set_log_hook({});
  return said;
}

/// A whole one-layer model; tensors in `left_out` are left out, `shifted` ones hold 1 and not 0.
VocabularyGguf small_gguf() {
  VocabularyGguf file;
  file.text("general.architecture", "llama")
      .uint32("llama.block_count", 1)
      .uint32("llama.embedding_length", 4)
      .uint32("llama.feed_forward_length", 4)
      .uint32("llama.attention.head_count", 2)
      .uint32("llama.context_length", 16)
      .float32("llama.attention.layer_norm_rms_epsilon", 1e-5F)
      .tensor("token_embd.weight", {4, 8})
      .tensor("output_norm.weight", {4})
      .tensor("blk.0.attn_norm.weight", {4})
      .tensor("blk.0.ffn_norm.weight", {4});
  for (const char* name :
       {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}) {
    file.tensor(std::string("blk.0.") + name + ".weight", {4, 4});
  }
  return file;
}

std::shared_ptr<const Model> load(const VocabularyGguf& file) {
  const TemporaryFolder folder;
  return Model::load(folder.write("m.gguf", file.bytes()));
}

std::string split_refusal(const VocabularyGguf& first, const VocabularyGguf& second) {
  const TemporaryFolder folder;
  const std::string path = folder.write("m-00001-of-00002.gguf", first.bytes());
  folder.write("m-00002-of-00002.gguf", second.bytes());
  return refusal_of([&] { Model::load(path); });
}

VocabularyGguf part(uint32_t number, uint32_t count = 2) {
  VocabularyGguf file;
  return file.uint32("split.count", count).uint32("split.no", number);
}

// ---- Folders -----------------------------------------------------------------------------------

struct Values {
  std::vector<int> shape;
  float value;
};
using Tensors = std::map<std::string, Values>;

Tensors small_tensors() {
  Tensors tensors = {{"model.embed_tokens.weight", {{8, 4}, 1}}, {"model.norm.weight", {{4}, 1}}};
  const std::string layer = "model.layers.0.";
  for (const char* name : {"input_layernorm", "post_attention_layernorm"}) {
    tensors[layer + name + ".weight"] = {{4}, 1};
  }
  for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                           "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
    tensors[layer + name + ".weight"] = {{4, 4}, 1};
  }
  return tensors;
}

std::string safetensors_of(const Tensors& tensors) {
  Json header;
  std::vector<float> data;
  for (const auto& [name, values] : tensors) {
    const size_t begin = data.size();
    size_t n = 1;
    for (const int dim : values.shape) n *= static_cast<size_t>(dim);
    data.resize(begin + n, values.value);
    header[name] = {{"dtype", "F32"},
                    {"shape", values.shape},
                    {"data_offsets", {begin * sizeof(float), data.size() * sizeof(float)}}};
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + text + std::string(reinterpret_cast<const char*>(data.data()), data.size() * 4);
}

void write_config(const TemporaryFolder& folder, bool tied) {
  const Json config = {{"model_type", "llama"},      {"hidden_size", 4},
                       {"intermediate_size", 4},     {"num_hidden_layers", 1},
                       {"num_attention_heads", 2},   {"vocab_size", 8},
                       {"tie_word_embeddings", tied}};
  folder.write("config.json", config.dump());
}

float first_of(const TensorView& tensor) {
  float value = 0;
  std::memcpy(&value, tensor.data.data(), sizeof(value));
  return value;
}

struct Loaded {
  TemporaryFolder folder;  // outlives the model
  std::shared_ptr<const Model> model;
  float embedding = 0, output = 0;

  Loaded(const Tensors& tensors, bool tied) {
    write_config(folder, tied);
    folder.write("model.safetensors", safetensors_of(tensors));
    load();
  }
  explicit Loaded(const std::map<std::string, std::string>& index) {
    Tensors first = small_tensors(), second;
    first["lm_head.weight"] = {{8, 4}, 2};
    second["lm_head.weight"] = {{8, 4}, 3};
    second["model.norm.weight"] = first["model.norm.weight"];
    first.erase("model.norm.weight");
    Json map;
    for (const auto& [name, values] : first) map[name] = "a.safetensors";
    map["model.norm.weight"] = "b.safetensors";
    for (const auto& [name, shard] : index) map[name] = shard;
    if (index.empty()) map.erase("lm_head.weight");
    write_config(folder, false);
    folder.write("a.safetensors", safetensors_of(first));
    folder.write("b.safetensors", safetensors_of(second));
    folder.write("model.safetensors.index.json", Json{{"weight_map", map}}.dump());
    load();
  }
  void load() {
    model = Model::load(folder.path());
    embedding = first_of(model->data().tensors.embedding);
    output = first_of(model->data().tensors.output);
  }
};

void check_shards() {
  for (const auto& [shard, value] : {std::pair{"a.safetensors", 2.0F}, {"b.safetensors", 3.0F}}) {
    const Loaded loaded(std::map<std::string, std::string>{{"lm_head.weight", shard}});
    EXPECT_EQ(loaded.output, value);
    EXPECT_TRUE(warns(loaded.model->info().warnings,
                      {"lm_head.weight", "a.safetensors", "b.safetensors", "counts"}));
  }
  EXPECT_TRUE(has(refusal_of([] { Loaded(std::map<std::string, std::string>()); }),
                  {"lm_head.weight", "a.safetensors", "b.safetensors", "names neither"}));
}

void check_head_alone() {
  Tensors head = small_tensors();
  head.erase("model.embed_tokens.weight");
  head["lm_head.weight"] = {{8, 4}, 2};
  const Loaded loaded(head, true);
  EXPECT_EQ(loaded.embedding, 2);
  EXPECT_TRUE(loaded.model->info().tied_embeddings);
}

// ---- tokenizer.json ----------------------------------------------------------------------------

std::shared_ptr<const Tokenizer> parse(const Json& json) {
  const TemporaryFolder folder;
  return Tokenizer::load(folder.write("tokenizer.json", json.dump()));
}

Json added(int id, const char* content, bool normalized, bool special = false) {
  return {{"id", id},        {"content", content}, {"normalized", normalized}, {"special", special},
          {"lstrip", false}, {"rstrip", false},    {"single_word", false}};
}

Json with(std::initializer_list<Json> tokens) {
  Json json = small_tokenizer_json();
  for (const Json& token : tokens) json["added_tokens"].push_back(token);
  return json;
}

using Ids = std::vector<TokenId>;

void check_normalized() {
  const auto tokenizer = parse(with({added(310, "ab cd", true), added(311, "cd ef", false)}));
  EXPECT_EQ(tokenizer->encode("ab cd ef"), (Ids{'a', 'b', ' ', 311}));
  EXPECT_EQ(tokenizer->encode("xab cd efab cd"), (Ids{'x', 'a', 'b', ' ', 311, 310}));
  const auto alike = parse(with({added(310, "ab cd", true), added(311, "cd ef", true)}));
  EXPECT_EQ(alike->encode("ab cd ef"), (Ids{310, ' ', 'e', 'f'}));
  Json absent = with({added(310, "ab cd", true), added(311, "cd ef", false)});
  for (Json& token : absent["added_tokens"]) {
    if (token["id"] == 310) token.erase("normalized");
  }
  EXPECT_EQ(parse(absent)->encode("ab cd ef"), (Ids{'a', 'b', ' ', 311}));
  const auto specials =
      parse(with({added(310, "ab cd", true, true), added(311, "cd ef", false, true)}));
  EXPECT_EQ(specials->encode("ab cd ef", {.parse_special = true}), (Ids{'a', 'b', ' ', 311}));
}

void check_content() {
  // " w" is token 260, spelled "Ġw" in the vocabulary: the same bytes, another token.
  const auto same_bytes = parse(with({added(310, " w", false)}));
  EXPECT_EQ(same_bytes->encode("a wa"), (Ids{'a', 310, 'a'}));
  EXPECT_EQ(same_bytes->token_bytes(260), " w");
  // Spelled as the entry it is that entry, and merges still make it.
  const auto spelled = parse(with({added(260, "\xC4\xA0w", false)}));
  EXPECT_EQ(spelled->encode("a wa\xC4\xA0w"), (Ids{'a', 260, 'a', 260}));
  EXPECT_EQ(spelled->token_bytes(260), " w");
  EXPECT_EQ(parse(with({added(256, "he", false)}))->encode("hex"), (Ids{256, 'x'}));
  EXPECT_TRUE(
      has(refusal_of([] { parse(with({added(310, "he", false)})); }), {"he", "256", "310"}));
}

}  // namespace

void check_tied_embeddings() {
  Tensors tensors = small_tensors();
  {
    const Loaded loaded(tensors, true);
    EXPECT_TRUE(loaded.model->info().tied_embeddings);
  }
  EXPECT_TRUE(has(refusal_of([&] { Loaded(tensors, false); }), {"lm_head.weight", "missing"}));
  tensors["lm_head.weight"] = {{8, 4}, 2};
  {
    const Loaded loaded(tensors, true);
    EXPECT_EQ(loaded.output, 2);
    EXPECT_EQ(loaded.embedding, 1);
    EXPECT_FALSE(loaded.model->info().tied_embeddings);
    EXPECT_TRUE(warns(loaded.model->info().warnings,
                      {"tie_word_embeddings: true", "lm_head.weight", "not tied"}));
  }
  tensors["lm_head.weight"].value = 1;
  const Loaded loaded(tensors, true);
  EXPECT_TRUE(loaded.model->info().tied_embeddings);
  EXPECT_TRUE(loaded.model->info().warnings.empty());
}

const std::vector<Row>& container_rows() {
  static const std::vector<Row> rows = {
      {"general.alignment",
       [] {
         EXPECT_EQ(gguf::parse(bytes_of(small_gguf().bytes())).alignment, 32U);
         const auto aligned = [](uint32_t to) {
           return small_gguf().uint32("general.alignment", to).bytes();
         };
         EXPECT_EQ(gguf::parse(bytes_of(aligned(16))).alignment, 16U);
         EXPECT_TRUE(
             has(refusal_of([&] { gguf::parse(bytes_of(aligned(24))); }), {"general.alignment"}));
       }},
      {"split.count",
       [] {
         EXPECT_NE(load(small_gguf()), nullptr);
         EXPECT_TRUE(has(split_refusal(part(0), part(1, 3)), {"split.count"}));
       }},
      {"split.no", [] { EXPECT_TRUE(has(split_refusal(part(0), part(0)), {"split.no"})); }},
      {"split.tensors.count",
       [] {
         EXPECT_TRUE(has(split_refusal(part(0).uint32("split.tensors.count", 3), part(1)),
                         {"split.tensors.count", "3"}));
       }},
      {"output.weight",
       [] {
         EXPECT_TRUE(load(small_gguf())->info().tied_embeddings);
         EXPECT_FALSE(load(small_gguf().tensor("output.weight", {4, 8}))->info().tied_embeddings);
         EXPECT_TRUE(has(
             refusal_of([] {
               load(small_gguf().tensor("output.weight", {4, 8}).tensor("output.weight", {4, 8}));
             }),
             {"output.weight", "twice"}));
       }},
      {"rope_freqs.weight", [] {
         const auto model = load(small_gguf()
                                     .float32("llama.rope.scaling.factor", 4)
                                     .tensor("rope_freqs.weight", {1}, 2));
         EXPECT_EQ(rope_inverse_frequencies(model->data().config.rope, 2)[0], 1.0 / 8);
       }}};
  return rows;
}

const std::vector<Row>& gguf_tokenizer_rows() {
  static const std::vector<Row> rows = {
      {"tokenizer.ggml.model",
       [] {
         SmallGguf small;
         small.model = "llama";
         EXPECT_TRUE(has(refusal(small.file()), {"tokenizer.ggml.model", "llama"}));
         EXPECT_TRUE(has(refusal(VocabularyGguf()), {"tokenizer.ggml.model"}));
       }},
      {"tokenizer.ggml.pre",
       [] {
         SmallGguf small;
         small.pre = "";
         EXPECT_TRUE(has(refusal(small.file()), {"tokenizer.ggml.pre"}));
       }},
      {"tokenizer.ggml.tokens",
       [] {
         SmallGguf small;
         small.add("<tool>", 4);
         EXPECT_TRUE(has(refusal(small.file()), {"<tool>", "two ids"}));
       }},
      {"tokenizer.ggml.token_type",
       [] {
         SmallGguf small;
         small.types.pop_back();
         EXPECT_TRUE(has(refusal(small.file()), {"tokenizer.ggml.token_type"}));
       }},
      {"tokenizer.ggml.merges",
       [] {
         SmallGguf small;
         small.merges.emplace_back("q q");
         EXPECT_TRUE(has(refusal(small.file()), {"merge", "qq"}));
       }},
      {"tokenizer.ggml.bos_token_id",
       [] {
         SmallGguf small;
         small.bos = 100000;
         EXPECT_TRUE(has(refusal(small.file()), {"bos_token_id", "100000"}));
       }},
      {"tokenizer.ggml.add_bos_token",
       [] {
         SmallGguf small;
         EXPECT_TRUE(tokenizer_of(small.file())->adds_bos());
         small.pre = "smollm";
         EXPECT_FALSE(tokenizer_of(small.file())->adds_bos());
       }},
      {"tokenizer.ggml.eos_token_id",
       [] {
         SmallGguf small;
         small.eos = 100000;
         EXPECT_TRUE(has(refusal(small.file()), {"eos_token_id", "100000"}));
       }},
      {"tokenizer.ggml.eot_token_id",
       [] {
         const auto stops =
             tokenizer_of(SmallGguf().file().uint32("tokenizer.ggml.eot_token_id", 65))
                 ->stop_tokens();
         EXPECT_EQ(std::count(stops.begin(), stops.end(), 65), 1);
       }},
      {"tokenizer.ggml.eom_token_id",
       [] {
         const auto stops =
             tokenizer_of(SmallGguf().file().uint32("tokenizer.ggml.eom_token_id", 66))
                 ->stop_tokens();
         EXPECT_EQ(std::count(stops.begin(), stops.end(), 66), 1);
       }},
      {"tokenizer.ggml.add_eos_token",
       [] {
         const auto load_it = [](bool adds) {
           tokenizer_of(SmallGguf().file().boolean("tokenizer.ggml.add_eos_token", adds));
         };
         EXPECT_TRUE(has(said_during([&] { load_it(true); }), {"tokenizer.ggml.add_eos_token"}));
         EXPECT_EQ(said_during([&] { load_it(false); }), "");
       }},
      {"tokenizer.ggml.add_space_prefix",
       [] {
         EXPECT_TRUE(
             has(refusal(SmallGguf().file().boolean("tokenizer.ggml.add_space_prefix", true)),
                 {"add_space_prefix"}));
       }},
      {"tokenizer.chat_template", [] {
         EXPECT_EQ(tokenizer_of(SmallGguf().file())->chat_template(), "");
         EXPECT_EQ(
             tokenizer_of(SmallGguf().file().text("tokenizer.chat_template", "x"))->chat_template(),
             "x");
       }}};
  return rows;
}

TEST(ModelFiles, OlderExportsCarryFrequencies) {
  Tensors tensors = small_tensors();
  tensors["model.rotary_emb.inv_freq"] = {{1}, 1};
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {{1}, 1};
  EXPECT_EQ(Loaded(tensors, true).embedding, 1);
}

TEST(ModelFiles, AnIndexBesideAWholeFileIsNotRead) {
  Loaded loaded(small_tensors(), true);
  loaded.folder.write("model.safetensors.index.json",
                      R"({"weight_map": {"model.norm.weight": "gone.safetensors"}})");
  loaded.load();
  EXPECT_EQ(loaded.embedding, 1);
}

TEST(ModelFiles, TensorsAreThoseOfTheConfiguration) {
  Tensors more = small_tensors();
  more["model.layers.1.self_attn.q_proj.weight"] = {{4, 4}, 1};
  EXPECT_TRUE(has(refusal_of([&] { Loaded(more, true); }),
                  {"model.layers.1.self_attn.q_proj.weight", "is not part of a Llama decoder"}));
  Tensors other = small_tensors();
  other["model.norm.weight"] = {{5}, 1};
  EXPECT_TRUE(has(refusal_of([&] { Loaded(other, true); }),
                  {"model.norm.weight", "shape [5] where the configuration needs [4]"}));
}

TEST(ModelFiles, StopTokensAreTheModelsAndTheTokenizers) {
  Loaded loaded(small_tensors(), true);
  loaded.folder.write("generation_config.json", R"({"eos_token_id": [5, 3]})");
  loaded.load();
  EXPECT_EQ(loaded.model->stop_tokens(), (Ids{3, 5}));
}

const std::vector<Row>& folder_rows() {
  static const std::vector<Row> rows = {
      {"weight_map", check_shards},
      {"lm_head.weight", check_head_alone},
      {"normalized", check_normalized},
      {"special",
       [] {
         const auto tokenizer = parse(small_tokenizer_json());
         EXPECT_FALSE(tokenizer->is_special(*tokenizer->find("<tool>")));
         const Json bare = {{"id", 310}, {"content", "ab cd"}};
         const auto absent = parse(with({bare}));
         EXPECT_FALSE(absent->is_special(310));
         EXPECT_EQ(absent->encode("ab cd"), (Ids{310}));
         Json json = small_tokenizer_json();
         for (Json& token : json["added_tokens"]) token["special"] = false;
         const auto changed = parse(json);
         EXPECT_TRUE(changed->is_special(*changed->find("<|eot_id|>")));
       }},
      {"added_tokens_decoder",
       [] {
         const auto with_config = [](const Json& config) {
           const TemporaryFolder folder;
           folder.write("tokenizer.json",
                        with({added(310, "ab cd", true), added(311, "cd ef", true)}).dump());
           folder.write("tokenizer_config.json", config.dump());
           return Tokenizer::load(folder.path());
         };
         EXPECT_EQ(with_config(Json::object())->encode("ab cd ef"), (Ids{310, ' ', 'e', 'f'}));
         Json config;
         config["added_tokens_decoder"]["311"] = added(311, "cd ef", false);
         EXPECT_EQ(with_config(config)->encode("ab cd ef"), (Ids{'a', 'b', ' ', 311}));
         config["added_tokens_decoder"]["311"]["content"] = "kettle";
         EXPECT_TRUE(has(refusal_of([&] { with_config(config); }), {"311", "cd ef", "kettle"}));
       }},
      {"content", check_content},
      {"bos_token",
       [] {
         const TemporaryFolder folder;
         folder.write("tokenizer.json", small_tokenizer_text());
         EXPECT_EQ(Tokenizer::load(folder.path())->bos(), 274);
         folder.write("special_tokens_map.json", R"({"bos_token": "2"})");
         EXPECT_EQ(Tokenizer::load(folder.path())->bos(), '2');
         folder.write("tokenizer_config.json", R"({"bos_token": "1"})");
         EXPECT_EQ(Tokenizer::load(folder.path())->bos(), '1');
       }},
      {"eos_token",
       [] {
         const TemporaryFolder folder;
         folder.write("tokenizer.json", small_tokenizer_text());
         folder.write("special_tokens_map.json", R"({"eos_token": "2"})");
         folder.write("tokenizer_config.json", R"({"eos_token": "1"})");
         const auto stops = Tokenizer::load(folder.path())->stop_tokens();
         EXPECT_EQ(std::count(stops.begin(), stops.end(), '1'), 1);
         EXPECT_EQ(std::count(stops.begin(), stops.end(), '2'), 1);
       }},
      {"add_bos_token",
       [] {
         const TemporaryFolder folder;
         folder.write("tokenizer.json", small_tokenizer_text());
         EXPECT_TRUE(Tokenizer::load(folder.path())->adds_bos());
         folder.write("tokenizer_config.json", R"({"add_bos_token": false})");
         EXPECT_FALSE(Tokenizer::load(folder.path())->adds_bos());
       }},
      {"post_processor",
       [] {
         Json json = small_tokenizer_json();
         EXPECT_EQ(said_during([&] { parse(json); }), "");
         json["post_processor"]["single"].push_back(
             {{"SpecialToken", {{"id", "<|eot_id|>"}, {"type_id", 0}}}});
         std::shared_ptr<const Tokenizer> tokenizer;
         EXPECT_TRUE(
             has(said_during([&] { tokenizer = parse(json); }), {"post_processor", "<|eot_id|>"}));
         EXPECT_EQ(tokenizer->encode("a", {.add_bos = true}), (Ids{274, 'a'}));
       }},
      {"chat_template", [] {
         const TemporaryFolder folder;
         folder.write("tokenizer.json", small_tokenizer_text());
         folder.write("tokenizer_config.json", R"({"chat_template": "a"})");
         EXPECT_EQ(Tokenizer::load(folder.path())->chat_template(), "a");
         folder.write("chat_template.jinja", "b");
         EXPECT_EQ(Tokenizer::load(folder.path())->chat_template(), "b");
       }}};
  return rows;
}

}  // namespace paddock::test
