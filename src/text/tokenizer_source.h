// How a tokenizer is described before it is built; every loader fills one of these.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/gguf.h"
#include "paddock/tokenizer.h"

namespace paddock {

/// From the metadata of an open GGUF file (tokenizer.ggml.*). kUnsupported for unknown kinds.
std::shared_ptr<const Tokenizer> load_gguf_tokenizer(const gguf::File& file);

/// From a Hugging Face folder: tokenizer.json (or a tiktoken tokenizer.model), plus what
/// tokenizer_config.json, special_tokens_map.json, generation_config.json and config.json say.
std::shared_ptr<const Tokenizer> load_folder_tokenizer(const std::string& folder);

/// Parsers on bytes, for fuzzing and tests. Errors: kBadFile, kUnsupported.
std::shared_ptr<const Tokenizer> parse_tokenizer_json(std::span<const std::byte> bytes);
std::shared_ptr<const Tokenizer> parse_tiktoken_model(std::span<const std::byte> bytes);

}  // namespace paddock
