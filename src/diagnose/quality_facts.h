// Facts planted in a text: the tokens to feed, and which of them are answers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "paddock/quality.h"

namespace paddock {

struct PlantedText {
  std::vector<TokenId> tokens;     // text with statements, then questions with answers
  std::vector<int32_t> fact_of;    // [tokens] the fact whose answer a token belongs to, or -1
  std::vector<int64_t> positions;  // [facts] where each statement begins
  int64_t prompt_tokens = 0;       // text and statements
};

/// Errors as of QualityMeter::recall().
PlantedText plant(const Tokenizer& tokenizer, std::span<const TokenId> text,
                  std::span<const PlantedFact> facts);

}  // namespace paddock
