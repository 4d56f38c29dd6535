// A model that says what it is told to: after each token the one that a table names. It has the
// small tokenizer, whose first 256 tokens are bytes.
#pragma once

#include <fmt/format.h>
#include <paddock/paddock.h>

#include <string>
#include <vector>

#include "support/safetensors_writer.h"
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
  SafetensorsWriter tensors;
  // Tokens are unit vectors, attention and the MLP add nothing.
  std::vector<float> embed(size_t{kScriptedVocab} * kHidden);
  std::vector<float> output(embed.size());
  for (int32_t id = 0; id < kScriptedVocab; ++id) {
    embed[size_t(id) * kHidden + id] = 1;
    output[size_t(next[id]) * kHidden + id] = 1;
  }
  const std::vector<float> ones(kHidden, 1);
  const auto zeros = [](int32_t n) { return std::vector<float>(static_cast<size_t>(n)); };
  tensors.add("model.embed_tokens.weight", {kScriptedVocab, kHidden}, embed);
  tensors.add("lm_head.weight", {kScriptedVocab, kHidden}, output);
  tensors.add("model.norm.weight", {kHidden}, ones);
  const std::string layer = "model.layers.0.";
  tensors.add(layer + "input_layernorm.weight", {kHidden}, ones);
  tensors.add(layer + "post_attention_layernorm.weight", {kHidden}, ones);
  for (const char* name : {"q", "k", "v"}) {
    tensors.add(fmt::format("{}self_attn.{}_proj.weight", layer, name), {2, kHidden},
                zeros(2 * kHidden));
  }
  tensors.add(layer + "self_attn.o_proj.weight", {kHidden, 2}, zeros(2 * kHidden));
  for (const char* name : {"gate", "up"}) {
    tensors.add(fmt::format("{}mlp.{}_proj.weight", layer, name), {4, kHidden}, zeros(4 * kHidden));
  }
  tensors.add(layer + "mlp.down_proj.weight", {kHidden, 4}, zeros(4 * kHidden));
  folder.write("model.safetensors", tensors.text());
  folder.write("tokenizer.json", small_tokenizer_text());
  folder.write("config.json",
               fmt::format(R"({{"model_type":"llama","hidden_size":{},"intermediate_size":4,)"
                           R"("num_hidden_layers":1,"num_attention_heads":1,"head_dim":2,)"
                           R"("num_key_value_heads":1,"vocab_size":{},"rms_norm_eps":1e-5,)"
                           R"("max_position_embeddings":{},"tie_word_embeddings":false}})",
                           kHidden, kScriptedVocab, context_length));
  return Model::load(folder.path());
}

}  // namespace paddock::test
