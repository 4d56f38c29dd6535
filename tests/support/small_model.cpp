#include "support/small_model.h"

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "support/small_tokenizer.h"

namespace paddock::test {

namespace {

void write_model(const TemporaryFolder& folder, bool is_random) {
  constexpr int kVocab = 304, kHidden = 4;
  const nlohmann::json config = {{"model_type", "llama"},
                                 {"hidden_size", kHidden},
                                 {"intermediate_size", kHidden},
                                 {"num_hidden_layers", 1},
                                 {"num_attention_heads", 2},
                                 {"num_key_value_heads", 1},
                                 {"head_dim", 2},
                                 {"vocab_size", kVocab},
                                 {"max_position_embeddings", 128},
                                 {"tie_word_embeddings", true}};
  const std::string layer = "model.layers.0.";
  const std::vector<std::pair<std::string, std::vector<int>>> tensors = {
      {"model.embed_tokens.weight", {kVocab, kHidden}},
      {"model.norm.weight", {kHidden}},
      {layer + "input_layernorm.weight", {kHidden}},
      {layer + "self_attn.q_proj.weight", {4, kHidden}},
      {layer + "self_attn.k_proj.weight", {2, kHidden}},
      {layer + "self_attn.v_proj.weight", {2, kHidden}},
      {layer + "self_attn.o_proj.weight", {kHidden, 4}},
      {layer + "post_attention_layernorm.weight", {kHidden}},
      {layer + "mlp.gate_proj.weight", {kHidden, kHidden}},
      {layer + "mlp.up_proj.weight", {kHidden, kHidden}},
      {layer + "mlp.down_proj.weight", {kHidden, kHidden}}};
  nlohmann::json header;
  std::vector<uint16_t> data;  // BF16
  for (const auto& [name, shape] : tensors) {
    const size_t begin = data.size();
    size_t values = 1;
    for (const int n : shape) values *= static_cast<size_t>(n);
    data.resize(begin + values, 0x3F00);  // 0.5
    header[name] = {{"dtype", "BF16"},
                    {"shape", shape},
                    {"data_offsets", {begin * sizeof(uint16_t), data.size() * sizeof(uint16_t)}}};
  }
  for (int i = 0; i < kHidden; ++i) data['a' * kHidden + i] = 0x3F80;  // 1
  uint32_t state = 1;
  for (uint16_t& value : data) {
    if (!is_random) break;
    state = state * 1664525U + 1013904223U;
    const float number = static_cast<float>(state >> 8) / (1U << 23) - 1.0F;
    uint32_t bits = 0;
    std::memcpy(&bits, &number, sizeof(bits));
    value = static_cast<uint16_t>(bits >> 16);
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  file += text;
  file.append(reinterpret_cast<const char*>(data.data()), data.size() * sizeof(uint16_t));
  folder.write("config.json", config.dump());
  folder.write("model.safetensors", file);
  folder.write("tokenizer.json", small_tokenizer_text());
}

}  // namespace

void write_small_model(const TemporaryFolder& folder) { write_model(folder, false); }

void write_random_model(const TemporaryFolder& folder) { write_model(folder, true); }

}  // namespace paddock::test
