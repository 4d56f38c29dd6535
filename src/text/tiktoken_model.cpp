// Llama 3's tokenizer.model: tiktoken's file of ranks. The special tokens are not in the file;
// their names and order are those of the tokenizer that Meta publishes beside it (llama-models,
// llama3).
#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "core/fail.h"
#include "text/tokenizer_readers.h"
#include "text/tokenizer_source.h"

namespace paddock {
namespace {

constexpr size_t kSpecialTokens = 256;
constexpr std::string_view kNamedSpecials[] = {"<|begin_of_text|>",
                                               "<|end_of_text|>",
                                               "<|reserved_special_token_0|>",
                                               "<|reserved_special_token_1|>",
                                               "<|finetune_right_pad_id|>",
                                               "<|step_id|>",
                                               "<|start_header_id|>",
                                               "<|end_header_id|>",
                                               "<|eom_id|>",
                                               "<|eot_id|>",
                                               "<|python_tag|>",
                                               "<|image|>"};

constexpr std::array<int8_t, 256> base64_values() {
  std::array<int8_t, 256> values{};
  for (auto& v : values) v = -1;
  const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int8_t i = 0; i < 64; ++i) values[static_cast<uint8_t>(digits[i])] = i;
  return values;
}

// Decodes padded base64 (RFC 4648, section 4); false if it is not.
bool decode_base64(std::string_view text, std::string& bytes) {
  static constexpr auto kValues = base64_values();
  bytes.clear();
  if (text.empty() || text.size() % 4 != 0) return false;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  text.remove_suffix(padding);
  uint32_t bits = 0;
  int n_bits = 0;
  for (const char c : text) {
    const int value = kValues[static_cast<uint8_t>(c)];
    if (value < 0) return false;
    bits = (bits << 6 | static_cast<uint32_t>(value)) & 0xFFFF;
    n_bits += 6;
    if (n_bits >= 8) {
      n_bits -= 8;
      bytes.push_back(static_cast<char>(bits >> n_bits & 0xFF));
    }
  }
  return (bits & ((1u << n_bits) - 1)) == 0;
}

bool decode_rank(std::string_view text, size_t& rank) {
  if (text.empty() || text.size() > 9) return false;
  rank = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    rank = rank * 10 + static_cast<size_t>(c - '0');
  }
  return true;
}

Vocabulary read_ranks(std::string_view text, size_t expected_tokens) {
  const auto lines = static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) +
                     (text.empty() || text.ends_with('\n') ? 0 : 1);
  Vocabulary vocabulary;
  std::string bytes;
  const auto check_number = [&] {
    if (expected_tokens != 0 && lines != expected_tokens) {
      fail(ErrorCode::kUnsupported,
           "tokenizer.model: {} tokens; the only tiktoken vocabulary supported is Llama 3's, of {}",
           lines, expected_tokens);
    }
  };
  if (lines == 0) check_number();
  for (size_t line = 0; line < lines; ++line) {
    const std::string_view entry = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), entry.size() + 1));
    const size_t space = entry.find(' ');
    size_t rank = 0;
    if (space == std::string_view::npos || !decode_base64(entry.substr(0, space), bytes) ||
        !decode_rank(entry.substr(space + 1), rank)) {
      fail(line == 0 ? ErrorCode::kUnsupported : ErrorCode::kBadFile,
           "tokenizer.model: line {} is not \"base64 rank\" as tiktoken writes it{}", line + 1,
           line == 0 ? " (SentencePiece models are not supported)" : "");
    }
    if (line == 0) check_number();  // now that it is a file of this kind
    if (rank >= lines) {
      fail(ErrorCode::kBadFile, "tokenizer.model: line {}: rank {} is outside [0, {})", line + 1,
           rank, lines);
    }
    vocabulary.add(static_cast<int64_t>(rank), bytes, TokenKind::kNormal);
  }
  for (size_t i = 0; i < kSpecialTokens; ++i) {
    const size_t named = std::size(kNamedSpecials);
    vocabulary.add(static_cast<int64_t>(lines + i),
                   i < named ? std::string(kNamedSpecials[i])
                             : fmt::format("<|reserved_special_token_{}|>", 2 + i - named),
                   TokenKind::kSpecial);
  }
  vocabulary.seal();
  return vocabulary;
}

}  // namespace

TokenizerSource read_tiktoken_model(std::span<const std::byte> bytes, size_t expected_tokens) {
  TokenizerSource source;
  source.vocabulary =
      read_ranks({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, expected_tokens);
  const Vocabulary& vocabulary = source.vocabulary;
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    if (!vocabulary.find_normal({&byte, 1})) {
      fail(ErrorCode::kBadFile, "tokenizer.model: the byte {} has no token", b);
    }
  }
  // Any two tokens that make a third may merge, at the rank of the third.
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    const std::string_view token = vocabulary.bytes(id);
    if (vocabulary.kind(id) != TokenKind::kNormal) continue;
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = vocabulary.find_normal(token.substr(0, cut));
      if (!left) continue;
      const auto right = vocabulary.find_normal(token.substr(cut));
      if (right) source.merges.add(*left, *right, static_cast<uint32_t>(id), id);
    }
  }
  source.pre_tokenizer = PreTokenizer::kLlama3;
  source.ignore_merges = true;
  source.bos = vocabulary.find_added("<|begin_of_text|>");
  source.adds_bos = true;
  return source;
}

std::shared_ptr<const Tokenizer> parse_tiktoken_model(std::span<const std::byte> bytes) {
  return make_tokenizer(read_tiktoken_model(bytes));
}

}  // namespace paddock
