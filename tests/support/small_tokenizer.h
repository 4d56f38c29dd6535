// A tokenizer small enough to reason about: all bytes, a few merges, the special tokens of the chat
// formats. Tests change the JSON before they parse it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "text/byte_alphabet.h"

namespace paddock::test {

inline constexpr const char* kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Bytes have their own value as id; merges follow from 256 on, in order; then the special tokens.
inline const std::vector<std::pair<std::string, std::string>> kSmallMerges = {
    {"h", "e"},   {"l", "l"},   {"he", "ll"}, {"hell", "o"}, {" ", "w"}, {"o", "r"},
    {" w", "or"}, {"l", "d"},   {"a", "a"},   {"aa", "aa"},  {" ", " "}, {"u", "s"},
    {"e", "r"},   {"us", "er"}, {"1", "2"},   {"\n", "\n"},  {"l", "o"}, {"\xE4\xBD", "\xA0"}};
inline const std::vector<std::string> kSmallSpecials = {
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>",        "<|eom_id|>",      "<|im_start|>",        "<|im_end|>"};

/// A tokenizer.json document with the Llama 3 pre-tokenizer.
nlohmann::json small_tokenizer_json();
std::string small_tokenizer_text();

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// A tiktoken file with the same bytes and merges.
std::string small_tiktoken_model();

}  // namespace paddock::test
