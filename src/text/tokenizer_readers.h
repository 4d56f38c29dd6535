// From a file's bytes to the description of a tokenizer. All errors are kBadFile or kUnsupported.
#pragma once

#include <cstddef>
#include <span>

#include "core/json.h"
#include "text/bpe_tokenizer.h"

namespace paddock {

/// A Hugging Face tokenizer.json. `config`: the tokenizer_config.json beside it, an object; of it
/// only what it says of added tokens is read.
TokenizerSource read_tokenizer_json(std::span<const std::byte> bytes,
                                    const StrictJson::Json& config = StrictJson::Json::object());

/// The vocabulary of Llama 3's tokenizer.model, and how many tokens it has.
inline constexpr size_t kLlama3Tokens = 128000;

/// A tiktoken file: lines of "base64(token) rank", ranks 0 to n - 1. As nothing in such a file says
/// what it is, only one of `expected_tokens` lines is accepted; it then gets Llama 3's
/// pre-tokenizer and special tokens. 0 accepts any number.
TokenizerSource read_tiktoken_model(std::span<const std::byte> bytes,
                                    size_t expected_tokens = kLlama3Tokens);

}  // namespace paddock
