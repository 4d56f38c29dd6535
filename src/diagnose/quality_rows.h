// The baseline's predictions for one chunk, and how another rule's differ from them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "paddock/quality.h"

namespace paddock {

/// Memory is taken by the constructor.
class BaselineRows {
 public:
  /// `compares`: whether score() will be called, which needs every probability.
  BaselineRows(int32_t n_rows, int32_t vocab_size, bool compares);

  /// Keeps the logits [vocab_size] of a row; the baseline's own figures for the token that follows.
  PositionQuality set(int32_t row, std::span<const float> logits, TokenId next);
  /// Another rule's logits for the same prediction.
  PositionQuality score(int32_t row, std::span<const float> logits, TokenId next) const;

  static uint64_t bytes(int32_t n_rows, int32_t vocab_size);

 private:
  struct Row {
    double normalizer;
    size_t best;
  };
  size_t vocab_size_;
  bool compares_;
  std::vector<Row> rows_;
  std::vector<float> logits_;          // [n_rows, vocab_size]
  std::vector<double> probabilities_;  // [n_rows, vocab_size]
};

/// -log of the probability that the logits give `token`, nats.
double token_nll(std::span<const float> logits, TokenId token);
/// Lowest id of the largest logit.
size_t best_token(std::span<const float> logits);

}  // namespace paddock
