// How the next token is chosen.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "paddock/export.h"
#include "paddock/tokenizer.h"

namespace paddock {

/// Applied in this order: logit bias, penalties, top-k, top-p, min-p, temperature, draw. The
/// arithmetic is fixed (kernels/sampling.h): equal logits, options and seed give the same token on
/// any device. Bias and penalties are computed in double and rounded once to float32. Where that
/// overflows, +infinity wins (drawn or greedy, the lowest id among equals) and -infinity forbids;
/// a request whose tokens are all forbidden ends with an error that names the options.
struct PADDOCK_API SamplingOptions {
  float temperature = 0.8f;        ///< 0: greedy (the largest logit, lowest id among equals)
  int32_t top_k = 40;              ///< 0: off
  float top_p = 0.95f;             ///< 1: off
  float min_p = 0.05f;             ///< 0: off
  float repeat_penalty = 1.0f;     ///< > 0; 1: off
  float frequency_penalty = 0.0f;  ///< times the count of the token in the window
  float presence_penalty = 0.0f;   ///< once for each token in the window
  int32_t penalty_window = 64;     ///< last tokens that penalties look at, 0: none; the prompt and
                                   ///< whatever else the session holds are included
  std::vector<std::pair<TokenId, float>> logit_bias{};  ///< added to logits; -infinity forbids
  /// The same seed gives the same choices: the random number of a token is that of its position in
  /// the sequence, so that a text made in several calls is the text of one.
  uint64_t seed = 0;

  /// Checks every range. Error kInvalidArgument naming the option, its value and the range.
  void validate(int32_t vocab_size) const;
};

}  // namespace paddock
