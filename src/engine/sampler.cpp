#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

#include "core/fail.h"

namespace paddock {
namespace {

void check(bool ok, const char* name, double value, const char* range) {
  if (!ok) fail(ErrorCode::kInvalidArgument, "{} is {}; it must be {}", name, value, range);
}

}  // namespace

void SamplingOptions::validate(int32_t vocab_size) const {
  check(temperature >= 0 && std::isfinite(temperature), "temperature", temperature, "0 or more");
  check(top_k >= 0, "top_k", top_k, "0 (off) or more");
  check(top_p > 0 && top_p <= 1, "top_p", top_p, "above 0 and at most 1 (off)");
  check(min_p >= 0 && min_p <= 1, "min_p", min_p, "from 0 (off) to 1");
  check(repeat_penalty > 0 && std::isfinite(repeat_penalty), "repeat_penalty", repeat_penalty,
        "above 0 (1 is off)");
  check(std::isfinite(frequency_penalty), "frequency_penalty", frequency_penalty, "finite");
  check(std::isfinite(presence_penalty), "presence_penalty", presence_penalty, "finite");
  check(penalty_window >= 0 && penalty_window <= 1 << 20, "penalty_window", penalty_window,
        "from 0 to 1048576");
  for (const auto& [id, bias] : logit_bias) {
    check(id >= 0 && id < vocab_size, "a logit_bias token", id, "a token of the vocabulary");
    check(!std::isnan(bias) && bias < INFINITY, "a logit_bias value", bias,
          "a number or -infinity");
  }
}

Sampler::Sampler(const SamplingOptions& options, int32_t vocab_size) : options_(options) {
  window_.reserve(options.penalty_window);
  sorted_window_.reserve(options.penalty_window);
  if (penalizes() || !options.logit_bias.empty()) adjusted_.resize(vocab_size);
  if (options.temperature > 0) candidates_.resize(vocab_size);
}

bool Sampler::penalizes() const {
  return options_.repeat_penalty != 1.0F || options_.frequency_penalty != 0.0F ||
         options_.presence_penalty != 0.0F;
}

void Sampler::observe(TokenId id) {
  if (window_.size() < static_cast<size_t>(options_.penalty_window)) {
    window_.push_back(id);
  } else if (!window_.empty()) {
    window_[window_next_] = id;
    window_next_ = (window_next_ + 1) % window_.size();
  }
}

void Sampler::apply_penalties() {
  sorted_window_.assign(window_.begin(), window_.end());
  std::sort(sorted_window_.begin(), sorted_window_.end());
  for (auto at = sorted_window_.begin(); at != sorted_window_.end();) {
    const auto next = std::upper_bound(at, sorted_window_.end(), *at);
    float& logit = adjusted_[*at];
    logit = penalize(logit, static_cast<int32_t>(next - at), options_.repeat_penalty,
                     options_.frequency_penalty, options_.presence_penalty);
    at = next;
  }
}

TokenId Sampler::choose(std::span<const float> logits) {
  const uint64_t n = choices_++;
  if (!adjusted_.empty()) {
    std::copy(logits.begin(), logits.end(), adjusted_.begin());
    for (const auto& [id, bias] : options_.logit_bias) adjusted_[id] += bias;
    if (penalizes()) apply_penalties();
    logits = adjusted_;
  }
  const auto size = static_cast<int64_t>(logits.size());
  if (options_.temperature == 0.0F) return greedy_choice(logits.data(), size);

  for (int64_t i = 0; i < size; ++i) candidates_[i] = {logits[i], static_cast<int32_t>(i)};
  const int64_t kept = options_.top_k == 0 ? size : std::min<int64_t>(options_.top_k, size);
  // The draw needs the whole order only as far as it looks, but a fixed order costs little.
  std::partial_sort(candidates_.begin(), candidates_.begin() + kept, candidates_.end(),
                    comes_before);
  return draw(candidates_.data(), kept, options_.top_p, options_.min_p, options_.temperature,
              random_uniform(options_.seed, n));
}

LogSoftmax::LogSoftmax(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  normalizer_ = largest + std::log(sum);
}

}  // namespace paddock
