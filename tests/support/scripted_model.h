// A model that says what it is told to: after each token the one that a table names. It has the
// small tokenizer, whose first 256 tokens are bytes.
#pragma once

#include <fmt/format.h>
#include <paddock/paddock.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "support/small_tokenizer.h"
#include "support/temporary_folder.h"

namespace paddock::test {

inline constexpr int32_t kScriptedVocab = 301;  // of the small tokenizer

/// Each byte is followed by the next one: after "a" it says "bcdefgh...".
inline std::vector<TokenId> alphabet_script() {
  std::vector<TokenId> next(kScriptedVocab);
  for (int32_t id = 0; id < kScriptedVocab; ++id) next[id] = id < 255 ? id + 1 : 'a';
  return next;
}

/// The logit of next[i] after i is 17.4, those of all other tokens are 0. What came before i
/// changes nothing. The folder must outlive the model.
inline std::shared_ptr<const Model> scripted_model(const TemporaryFolder& folder,
                                                   const std::vector<TokenId>& next,
                                                   int64_t context_length = 128) {
  constexpr int32_t kHidden = 304;
  std::string header;
  std::string data;
  const auto tensor = [&](const std::string& name, std::vector<int32_t> dims,
                          const std::vector<float>& values) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    header +=
        fmt::format(R"({}"{}":{{"dtype":"F32","shape":[{}],"data_offsets":[{},{}]}})",
                    header.empty() ? "" : ",", name, fmt::join(dims, ","), begin, data.size());
  };
  // Tokens are unit vectors, attention and the MLP add nothing.
  std::vector<float> embed(size_t{kScriptedVocab} * kHidden);
  std::vector<float> output(embed.size());
  for (int32_t id = 0; id < kScriptedVocab; ++id) {
    embed[size_t(id) * kHidden + id] = 1;
    output[size_t(next[id]) * kHidden + id] = 1;
  }
  const std::vector<float> ones(kHidden, 1);
  const auto zeros = [](int32_t n) { return std::vector<float>(static_cast<size_t>(n)); };
  tensor("model.embed_tokens.weight", {kScriptedVocab, kHidden}, embed);
  tensor("lm_head.weight", {kScriptedVocab, kHidden}, output);
  tensor("model.norm.weight", {kHidden}, ones);
  const std::string layer = "model.layers.0.";
  tensor(layer + "input_layernorm.weight", {kHidden}, ones);
  tensor(layer + "post_attention_layernorm.weight", {kHidden}, ones);
  for (const char* name : {"q", "k", "v"}) {
    tensor(fmt::format("{}self_attn.{}_proj.weight", layer, name), {2, kHidden},
           zeros(2 * kHidden));
  }
  tensor(layer + "self_attn.o_proj.weight", {kHidden, 2}, zeros(2 * kHidden));
  for (const char* name : {"gate", "up"}) {
    tensor(fmt::format("{}mlp.{}_proj.weight", layer, name), {4, kHidden}, zeros(4 * kHidden));
  }
  tensor(layer + "mlp.down_proj.weight", {kHidden, 4}, zeros(4 * kHidden));
  header = "{" + header + "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  std::string file(8, '\0');
  const uint64_t length = header.size();
  std::memcpy(file.data(), &length, sizeof(length));
  folder.write("model.safetensors", file + header + data);
  folder.write("tokenizer.json", small_tokenizer_json().dump());
  folder.write("config.json",
               fmt::format(R"({{"model_type":"llama","hidden_size":{},"intermediate_size":4,)"
                           R"("num_hidden_layers":1,"num_attention_heads":1,"head_dim":2,)"
                           R"("num_key_value_heads":1,"vocab_size":{},"rms_norm_eps":1e-5,)"
                           R"("max_position_embeddings":{},"tie_word_embeddings":false}})",
                           kHidden, kScriptedVocab, context_length));
  return Model::load(folder.path());
}

}  // namespace paddock::test
