// What tests of the quality meter begin with: small models and texts for them.
#pragma once

#include <paddock/paddock.h>

#include <filesystem>

#include "support/golden.h"
#include "support/small_tokenizer.h"
#include "support/temporary_folder.h"

namespace paddock::test {

inline std::shared_ptr<const Model> tiny_folder() {
  static const auto model = Model::load(golden("gqa1-default"));
  return model;
}

inline QualityOptions options_for(const std::vector<std::string>& contenders,
                                  const std::string& baseline = "full", int32_t chunk = 64) {
  QualityOptions options;
  options.engine = reference_options();
  options.engine.device = kDevice;
  options.engine.kv.policy = baseline;
  options.engine.kv.block_size = 4;
  options.contenders = contenders;
  options.chunk = chunk;
  return options;
}

inline std::vector<TokenId> some_tokens(int64_t n) {
  std::vector<TokenId> tokens;
  for (int64_t i = 0; i < n; ++i) {
    tokens.push_back(static_cast<TokenId>((i * 7919 + i / 13) % 128));
  }
  return tokens;
}

/// The tiny model with a tokenizer whose tokens are the characters of ASCII.
inline std::shared_ptr<const Model> tiny_with_text() {
  const TemporaryFolder folder;
  std::filesystem::copy(golden("gqa1-default"), folder.path(),
                        std::filesystem::copy_options::recursive);
  nlohmann::json tokenizer = small_tokenizer_json();
  nlohmann::json vocab = nlohmann::json::object();
  for (int id = 0; id < 128; ++id) {
    vocab[alphabet_from_bytes(std::string(1, static_cast<char>(id)))] = id;
  }
  tokenizer["model"]["vocab"] = vocab;
  tokenizer["model"]["merges"] = nlohmann::json::array();
  tokenizer["added_tokens"] = nlohmann::json::array();
  tokenizer["post_processor"] = nullptr;
  folder.write("tokenizer.json", tokenizer.dump());
  return Model::load(folder.path());
}

}  // namespace paddock::test
