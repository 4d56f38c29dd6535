// One request's choice of tokens: options, seed, and the window that penalties look at.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
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

/// Draws a token as `row` says, its temperature above 0; -1 where every logit is -infinity.
/// Candidates [logits.size()] are scratch, not needed where neither top_k nor top_p cut.
TokenId draw_token(std::span<const float> logits, const SampleRow& row,
                   std::span<Candidate> candidates);

/// What is drawn depends on the text so far, not on the calls in which it came. Memory is taken by
/// the constructor; observe() and choose() allocate nothing.
class Sampler {
 public:
  Sampler(const SamplingOptions& options, int32_t vocab_size);

  /// Tokens of the sequence, from its first on and in order: penalties look at the last of them.
  void observe(std::span<const TokenId> tokens);
  void observe(TokenId id) { observe({&id, 1}); }
  /// Whether raw logits are changed before a token is drawn (bias, penalties): then only choose()
  /// will do. Otherwise a device may draw what next_row() says.
  bool adjusts() const { return !adjusted_.empty(); }
  /// How the next token is drawn: with its position's random number.
  SampleRow next_row() const;
  /// The next token for these raw logits [vocab_size], none NaN or +infinity; -1 where they, bias
  /// and penalties leave none that may be drawn.
  TokenId choose(std::span<const float> logits);
  /// What leaves none, for people; `processed`: the host's processor has changed the logits.
  std::string why_none(bool processed) const;

 private:
  bool penalizes() const;
  double bias_of(TokenId id) const;
  void adjust(std::span<const float> logits);

  SamplingOptions options_;
  std::vector<std::pair<TokenId, double>> bias_;  // by id, each once
  uint64_t observed_ = 0;
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
