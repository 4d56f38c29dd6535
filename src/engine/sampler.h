// One request's choice of tokens: options, seed, and the window that penalties look at.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "paddock/sampling.h"
#include "sampling.h"

namespace paddock {

/// A logit and its token as one number: a larger one comes first in SampleRow's order.
class Candidate {
 public:
  Candidate() = default;
  Candidate(float logit, int32_t id)
      : rank_(uint64_t{logit_key(logit)} << 32 | static_cast<uint32_t>(~id)) {}
  float logit() const { return key_logit(static_cast<uint32_t>(rank_ >> 32)); }
  int32_t id() const { return ~static_cast<int32_t>(static_cast<uint32_t>(rank_)); }
  bool comes_before(const Candidate& other) const { return rank_ > other.rank_; }

 private:
  uint64_t rank_ = 0;
};

/// Draws a token as `row` says, its temperature above 0; candidates [logits.size()] are scratch,
/// not needed where neither top_k nor top_p cut.
TokenId draw_token(std::span<const float> logits, const SampleRow& row,
                   std::span<Candidate> candidates);

/// Memory is taken by the constructor; observe() and choose() allocate nothing.
class Sampler {
 public:
  Sampler(const SamplingOptions& options, int32_t vocab_size);

  /// A token enters the penalty window (prompt tokens and sampled ones, in order).
  void observe(TokenId id);
  /// Whether raw logits are changed before a token is drawn (bias, penalties): then only choose()
  /// will do. Otherwise a device may draw what next_row() says.
  bool adjusts() const { return !adjusted_.empty(); }
  /// How the next token is drawn; counts as its choice. The n-th choice of a seed is always made
  /// with the same random number.
  SampleRow next_row();
  /// The next token for these raw logits [vocab_size], all finite.
  TokenId choose(std::span<const float> logits) { return choose(logits, next_row()); }
  /// Likewise, for a row of next_row().
  TokenId choose(std::span<const float> logits, const SampleRow& row);

 private:
  bool penalizes() const;
  void apply_penalties();

  SamplingOptions options_;
  uint64_t choices_ = 0;
  std::vector<TokenId> window_;  // ring of the last penalty_window tokens
  size_t window_next_ = 0;
  std::vector<TokenId> sorted_window_;
  std::vector<float> adjusted_;        // [vocab_size] logits with bias and penalties, if any
  std::vector<Candidate> candidates_;  // [vocab_size] where some may be cut off
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
