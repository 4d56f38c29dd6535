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

/// Finds added tokens in text: leftmost first, the longest where several begin at one place.
class SpecialMatcher {
 public:
  struct Match {
    size_t begin, length;
    TokenId id;
  };

  SpecialMatcher() = default;
  /// Knows the tokens of kind kUserDefined, and with `specials` those of kind kSpecial too.
  /// `vocabulary` must stay where it is.
  SpecialMatcher(const Vocabulary& vocabulary, bool specials);

  /// The first match at or after `from`. Costs at most kMaxTokenBytes comparisons a byte.
  std::optional<Match> find(std::string_view text, size_t from) const;

 private:
  const Vocabulary* vocabulary_ = nullptr;
  std::vector<TokenId> ids_;        // ordered by text
  std::array<bool, 256> starts_{};  // by first byte
};

}  // namespace paddock
