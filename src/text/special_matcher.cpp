#include "text/special_matcher.h"

#include <algorithm>
#include <map>
#include <utility>

namespace paddock {

SpecialMatcher::SpecialMatcher(std::vector<Vocabulary::Added> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(),
            [](const auto& a, const auto& b) { return a.text < b.text; });
  for (const auto& token : tokens_) starts_[static_cast<uint8_t>(token.text[0])] = true;
}

std::optional<SpecialMatcher::Match> SpecialMatcher::find(std::string_view text,
                                                          size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<uint8_t>(text[begin])]) continue;
    // [low, high) shrinks to the tokens that share the first `depth` bytes with the text.
    auto low = tokens_.begin();
    auto high = tokens_.end();
    std::optional<Match> longest;
    for (size_t depth = 0; begin + depth < text.size(); ++depth) {
      const auto byte = static_cast<uint8_t>(text[begin + depth]);
      const auto key = [&](const Vocabulary::Added& token) {  // -1: the token ends here
        return depth < token.text.size() ? static_cast<int>(static_cast<uint8_t>(token.text[depth]))
                                         : -1;
      };
      low = std::lower_bound(low, high, static_cast<int>(byte),
                             [&](const auto& token, int value) { return key(token) < value; });
      high = std::upper_bound(low, high, static_cast<int>(byte),
                              [&](int value, const auto& token) { return value < key(token); });
      if (low == high) break;
      // In this order a token comes before those it is a prefix of.
      if (low->text.size() == depth + 1) longest = Match{begin, depth + 1, low->id};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

AddedTokens::AddedTokens(const Vocabulary& vocabulary, bool specials, CutOrder order) {
  std::map<size_t, std::vector<Vocabulary::Added>> passes;
  for (const Vocabulary::Added& token : vocabulary.added(specials)) {
    const size_t pass =
        order == CutOrder::kLongestFirst ? kMaxTokenBytes - token.text.size() : token.late;
    passes[pass].push_back(token);
  }
  for (auto& [pass, tokens] : passes) passes_.emplace_back(std::move(tokens));
}

}  // namespace paddock
