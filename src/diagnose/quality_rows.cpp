#include "diagnose/quality_rows.h"

#include <algorithm>
#include <cmath>

#include "engine/sampler.h"

namespace paddock {

double token_nll(std::span<const float> logits, TokenId token) {
  return -LogSoftmax(logits).logprob(logits[token]);
}

size_t best_token(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

BaselineRows::BaselineRows(int32_t n_rows, int32_t vocab_size, bool compares)
    : vocab_size_(static_cast<size_t>(vocab_size)), compares_(compares) {
  if (!compares) return;
  const size_t n = static_cast<size_t>(n_rows);
  rows_.resize(n);
  logits_.resize(n * vocab_size_);
  probabilities_.resize(n * vocab_size_);
}

uint64_t BaselineRows::bytes(int32_t n_rows, int32_t vocab_size) {
  return static_cast<uint64_t>(n_rows) * static_cast<uint64_t>(vocab_size) *
         (sizeof(float) + sizeof(double));
}

PositionQuality BaselineRows::set(int32_t row, std::span<const float> logits, TokenId next) {
  const LogSoftmax softmax(logits);
  PositionQuality own;
  own.nll = -softmax.logprob(logits[next]);
  if (!compares_) return own;
  const size_t first = static_cast<size_t>(row) * vocab_size_;
  rows_[row] = {-softmax.logprob(0.0F), best_token(logits)};
  std::copy(logits.begin(), logits.end(), logits_.begin() + static_cast<int64_t>(first));
  for (size_t i = 0; i < vocab_size_; ++i) {
    probabilities_[first + i] = std::exp(softmax.logprob(logits[i]));
  }
  return own;
}

PositionQuality BaselineRows::score(int32_t row, std::span<const float> logits,
                                    TokenId next) const {
  const LogSoftmax softmax(logits);
  const Row& baseline = rows_[row];
  const float* own = logits_.data() + static_cast<size_t>(row) * vocab_size_;
  const double* p = probabilities_.data() + static_cast<size_t>(row) * vocab_size_;
  double kl = 0;
  for (size_t i = 0; i < vocab_size_; ++i) {
    kl += p[i] * ((own[i] - baseline.normalizer) - softmax.logprob(logits[i]));
  }
  PositionQuality other;
  other.nll = -softmax.logprob(logits[next]);
  other.kl = std::max(kl, 0.0);  // rounding alone can make it negative
  other.agrees = best_token(logits) == baseline.best;
  return other;
}

}  // namespace paddock
