// What tests of the quality meter begin with: small models and texts for them.
#pragma once

#include <paddock/paddock.h>

#include "support/golden.h"

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
std::shared_ptr<const Model> tiny_with_text();

}  // namespace paddock::test
