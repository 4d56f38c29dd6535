#include "text/special_matcher.h"

#include <algorithm>

namespace paddock {

SpecialMatcher::SpecialMatcher(const Vocabulary& vocabulary, bool specials)
    : vocabulary_(&vocabulary) {
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    const TokenKind kind = vocabulary.kind(id);
    if (kind != TokenKind::kUserDefined && !(specials && kind == TokenKind::kSpecial)) continue;
    ids_.push_back(id);
    starts_[static_cast<uint8_t>(vocabulary.bytes(id)[0])] = true;
  }
  std::sort(ids_.begin(), ids_.end(),
            [&](TokenId a, TokenId b) { return vocabulary.bytes(a) < vocabulary.bytes(b); });
}

std::optional<SpecialMatcher::Match> SpecialMatcher::find(std::string_view text,
                                                          size_t from) const {
  if (ids_.empty()) return std::nullopt;
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<uint8_t>(text[begin])]) continue;
    // [low, high) shrinks to the tokens that share the first `depth` bytes with the text.
    auto low = ids_.begin();
    auto high = ids_.end();
    std::optional<Match> longest;
    for (size_t depth = 0; begin + depth < text.size(); ++depth) {
      const auto byte = static_cast<uint8_t>(text[begin + depth]);
      const auto key = [&](TokenId id) {  // -1: the token ends here
        const std::string_view token = vocabulary_->bytes(id);
        return depth < token.size() ? static_cast<int>(static_cast<uint8_t>(token[depth])) : -1;
      };
      low = std::lower_bound(low, high, static_cast<int>(byte),
                             [&](TokenId id, int value) { return key(id) < value; });
      high = std::upper_bound(low, high, static_cast<int>(byte),
                              [&](int value, TokenId id) { return value < key(id); });
      if (low == high) break;
      // In this order a token comes before those it is a prefix of.
      if (vocabulary_->bytes(*low).size() == depth + 1) longest = Match{begin, depth + 1, *low};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

}  // namespace paddock
