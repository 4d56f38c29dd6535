// One request's choice of tokens: options, seed, and the window that penalties look at.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "paddock/sampling.h"
#include "sampling.h"

namespace paddock {

/// Memory is taken by the constructor; observe() and choose() allocate nothing.
class Sampler {
 public:
  Sampler(const SamplingOptions& options, int32_t vocab_size);

  /// A token enters the penalty window (prompt tokens and sampled ones, in order).
  void observe(TokenId id);
  /// The next token for these raw logits [vocab_size], all finite. The n-th choice of a seed is
  /// always made with the same random number.
  TokenId choose(std::span<const float> logits);

 private:
  bool penalizes() const;
  void apply_penalties();

  SamplingOptions options_;
  uint64_t choices_ = 0;
  std::vector<TokenId> window_;  // ring of the last penalty_window tokens
  size_t window_next_ = 0;
  std::vector<TokenId> sorted_window_;
  std::vector<float> adjusted_;        // [vocab_size] logits with bias and penalties, if any
  std::vector<Candidate> candidates_;  // [vocab_size] or empty when greedy
};

/// log-softmax of raw logits in double, summed in index order.
class LogSoftmax {
 public:
  explicit LogSoftmax(std::span<const float> logits);
  double logprob(float logit) const { return logit - normalizer_; }

 private:
  double normalizer_;
};

}  // namespace paddock
