// Finding the text of added tokens.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "paddock/tokenizer.h"
#include "text/vocabulary.h"

namespace paddock {

/// Finds some texts in others: leftmost first, the longest where several begin at one place.
class SpecialMatcher {
 public:
  struct Match {
    size_t begin, length;
    TokenId id;
  };

  /// The texts must stay where they are.
  explicit SpecialMatcher(std::vector<Vocabulary::Added> tokens);

  /// The first match at or after `from`. Costs at most kMaxTokenBytes comparisons a byte.
  std::optional<Match> find(std::string_view text, size_t from) const;

 private:
  std::vector<Vocabulary::Added> tokens_;  // ordered by text
  std::array<bool, 256> starts_{};         // by first byte
};

/// Which added tokens are cut out of a text before which others.
enum class CutOrder {
  kEarlyThenLate,  // tokenizers: those of "normalized": false, then the others
  kLongestFirst,   // llama.cpp
};

/// Cuts the added tokens out of a text.
class AddedTokens {
 public:
  AddedTokens() = default;
  /// `vocabulary` must stay where it is.
  AddedTokens(const Vocabulary& vocabulary, bool specials, CutOrder order);

  /// Calls plain(text between tokens, may be empty) and token(id) from left to right.
  template <typename Plain, typename Token>
  void cut(std::string_view text, const Plain& plain, const Token& token, size_t pass = 0) const {
    if (pass == passes_.size()) return plain(text);
    size_t at = 0;
    while (const auto match = passes_[pass].find(text, at)) {
      cut(text.substr(at, match->begin - at), plain, token, pass + 1);
      token(match->id);
      at = match->begin + match->length;
    }
    cut(text.substr(at), plain, token, pass + 1);
  }

 private:
  std::vector<SpecialMatcher> passes_;
};

}  // namespace paddock
