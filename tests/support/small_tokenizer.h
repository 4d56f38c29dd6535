// A tokenizer small enough to reason about: all bytes, a few merges, the special tokens of the chat
// formats. Tests change the JSON before they parse it.
#pragma once

#include <nlohmann/json.hpp>
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
inline nlohmann::json small_tokenizer_json() {
  nlohmann::json vocab = nlohmann::json::object();
  nlohmann::json merges = nlohmann::json::array();
  nlohmann::json added = nlohmann::json::array();
  int id = 0;
  for (; id < 256; ++id) vocab[alphabet_from_bytes(std::string(1, static_cast<char>(id)))] = id;
  vocab[alphabet_from_bytes("\xE4\xBD")] = 300;  // reached by no merge
  for (const auto& [left, right] : kSmallMerges) {
    vocab[alphabet_from_bytes(left + right)] = id++;
    merges.push_back(alphabet_from_bytes(left) + " " + alphabet_from_bytes(right));
  }
  const auto add = [&](const std::string& text, bool special) {
    added.push_back({{"id", id++},
                     {"content", text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", special}});
  };
  for (const std::string& text : kSmallSpecials) add(text, true);
  add("<tool>", false);
  add("<tool>s", false);
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "Split"},
               {"pattern", {{"Regex", kLlama3Regex}}},
               {"behavior", "Isolated"},
               {"invert", false}},
              {{"type", "ByteLevel"},
               {"add_prefix_space", false},
               {"trim_offsets", true},
               {"use_regex", false}}}}}},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single",
             {{{"SpecialToken", {{"id", "<|begin_of_text|>"}, {"type_id", 0}}}},
              {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", true},
            {"vocab", vocab},
            {"merges", merges}}}};
}

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// A tiktoken file with the same bytes and merges.
inline std::string small_tiktoken_model() {
  const auto base64 = [](const std::string& bytes) {
    const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (size_t i = 0; i < bytes.size(); i += 3) {
      uint32_t bits = 0;
      for (size_t j = 0; j < 3; ++j) {
        bits = bits << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0);
      }
      for (size_t j = 0; j < 4; ++j) {
        out += i + j <= bytes.size() ? digits[bits >> (18 - 6 * j) & 63] : '=';
      }
    }
    return out;
  };
  std::string text;
  int rank = 0;
  for (; rank < 256; ++rank) {
    text += base64(std::string(1, static_cast<char>(rank))) + " " + std::to_string(rank) + "\n";
  }
  for (const auto& [left, right] : kSmallMerges) {
    if (left.size() > 1 && (left[0] & 0x80) != 0) continue;  // its left side is no token
    text += base64(left + right) + " " + std::to_string(rank++) + "\n";
  }
  return text;
}

}  // namespace paddock::test
