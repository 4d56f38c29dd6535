#include "support/small_tokenizer.h"

#include <nlohmann/json.hpp>

namespace paddock::test {

nlohmann::json small_tokenizer_json() {
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

std::string small_tokenizer_text() { return small_tokenizer_json().dump(); }

std::string small_tiktoken_model() {
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
