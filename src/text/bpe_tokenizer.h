// Byte-level BPE, and the description every loader fills to make one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/tokenizer.h"
#include "text/merge_table.h"
#include "text/pre_tokenizer.h"
#include "text/special_matcher.h"
#include "text/vocabulary.h"

namespace paddock {

/// All that makes a tokenizer. Loaders fill the vocabulary, seal it, then the rest.
struct TokenizerSource {
  Vocabulary vocabulary;
  MergeTable merges;  // sealed by make_tokenizer()
  PreTokenizer pre_tokenizer = PreTokenizer::kGpt2;
  CutOrder cut_order = CutOrder::kEarlyThenLate;
  bool ignore_merges = false;  // a whole piece that is a token is taken before any merge
  std::optional<TokenId> bos;
  bool adds_bos = false;
  std::vector<TokenId> stop_tokens;  // as the files name them; well-known ones join them
  std::string chat_template;

  /// Adds the merge of two tokens given by their bytes. Error kBadFile, naming `rank`, if they or
  /// their concatenation are no tokens, or if it is a special one.
  void add_merge(std::string_view left, std::string_view right, uint32_t rank);
};

/// Errors kBadFile: ids out of range, merges given twice.
std::shared_ptr<const Tokenizer> make_tokenizer(TokenizerSource source);

/// A byte that the vocabulary has no token for is left out of the ids, as the reference
/// implementations do (SmolLM2's vocabulary lacks 21 bytes, most of which no UTF-8 text contains).
class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(TokenizerSource source);
  BpeTokenizer(const BpeTokenizer&) = delete;
  BpeTokenizer& operator=(const BpeTokenizer&) = delete;

  std::vector<TokenId> encode(std::string_view text, EncodeOptions options) const override;
  std::string_view token_bytes(TokenId id) const override;
  int32_t vocab_size() const override { return source_.vocabulary.size(); }
  bool is_special(TokenId id) const override;
  std::optional<TokenId> find(std::string_view text) const override {
    return source_.vocabulary.find(text);
  }
  std::optional<TokenId> bos() const override { return source_.bos; }
  bool adds_bos() const override { return source_.adds_bos; }
  const std::vector<TokenId>& stop_tokens() const override { return source_.stop_tokens; }
  const std::string& chat_template() const override { return source_.chat_template; }

 private:
  std::vector<TokenId> encode_checked(std::string_view text, EncodeOptions options) const;
  void check_id(TokenId id) const;

  TokenizerSource source_;
  RegexSplitter splitter_;
  AddedTokens user_defined_, all_added_;
  TokenId byte_tokens_[256];  // -1: the vocabulary lacks it
};

}  // namespace paddock
