// One request's choice of tokens: options, seed, and the window that penalties look at.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "paddock/engine.h"
#include "paddock/sampling.h"
#include "sampling.h"

namespace paddock {

class Sampler {
 public:
  Sampler(const SamplingOptions& options, int32_t vocab_size);

  /// A token enters the penalty window (prompt tokens and sampled ones, in order).
  void observe(TokenId id);
  /// The next token for these raw logits [vocab_size], all finite. The n-th choice of a seed is
  /// always made with the same random number.
  TokenId choose(std::span<const float> logits);

 private:
  SamplingOptions options_;
  uint64_t choices_ = 0;
  std::vector<TokenId> window_;  // ring of the last penalty_window tokens
  size_t window_next_ = 0;
};

}  // namespace paddock
