#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

#include "core/fail.h"

namespace paddock {
namespace {

constexpr const char* kFinite = "a number from -3.4028e38 to 3.4028e38";

void check(bool ok, const char* name, double value, const char* range) {
  if (!ok) fail(ErrorCode::kInvalidArgument, "{} is {}; it must be {}", name, value, range);
}

/// The fewest candidates, in order, that reach top_p of all their weight; they come to the front.
std::span<Candidate> nucleus(std::span<Candidate> candidates, float best, float top_p) {
  uint64_t total = 0;
  for (const Candidate& c : candidates) total += logit_weight(c.logit(), best, 1.0F);
  const uint64_t target = share_of(top_p, total);
  // A heap gives them out one by one, and few are needed as a rule.
  const auto later = [](const Candidate& a, const Candidate& b) { return b.comes_before(a); };
  std::make_heap(candidates.begin(), candidates.end(), later);
  auto end = candidates.end();
  for (uint64_t kept = 0; kept < target && end != candidates.begin(); --end) {
    kept += logit_weight(candidates.front().logit(), best, 1.0F);
    std::pop_heap(candidates.begin(), end, later);
  }
  return {end, candidates.end()};
}

/// The first of `n` things at which the running sum of their weights exceeds the drawn unit.
template <typename WeightOf>
size_t draw(const SampleRow& row, size_t n, const WeightOf& weight) {
  uint64_t total = 0;
  for (size_t i = 0; i < n; ++i) total += weight(i);
  const uint64_t unit = drawn_unit(row, total);
  uint64_t passed = 0;
  size_t i = 0;
  while ((passed += weight(i)) <= unit) ++i;
  return i;
}

}  // namespace

TokenId draw_token(std::span<const float> logits, const SampleRow& row,
                   std::span<Candidate> candidates) {
  const int32_t winner = greedy_choice(logits.data(), static_cast<int64_t>(logits.size()));
  if (winner < 0 || !is_finite(logits[winner])) return winner;
  const float best = logits[winner];
  const uint64_t least = row.min_p > 0 ? share_of(row.min_p, kWeightOne) : 0;
  const auto weight = [&](float logit) {
    const bool kept = logit == best || logit_weight(logit, best, 1.0F) >= least;
    return kept ? logit_weight(logit, best, row.temperature) : 0;
  };
  const size_t n = logits.size();
  const bool cuts_k = row.top_k > 0 && static_cast<size_t>(row.top_k) < n;
  if (!cuts_k && row.top_p >= 1.0F) {
    return static_cast<TokenId>(draw(row, n, [&](size_t i) { return weight(logits[i]); }));
  }
  for (size_t i = 0; i < n; ++i) candidates[i] = {logits[i], static_cast<int32_t>(i)};
  std::span<Candidate> kept = candidates.first(n);
  if (cuts_k) {
    const auto comes_before = [](const Candidate& a, const Candidate& b) {
      return a.comes_before(b);
    };
    std::nth_element(kept.begin(), kept.begin() + row.top_k, kept.end(), comes_before);
    kept = kept.first(row.top_k);
  }
  if (row.top_p < 1.0F) kept = nucleus(kept, best, row.top_p);
  std::sort(kept.begin(), kept.end(),
            [](const Candidate& a, const Candidate& b) { return a.id() < b.id(); });
  return kept[draw(row, kept.size(), [&](size_t i) { return weight(kept[i].logit()); })].id();
}

void SamplingOptions::validate(int32_t vocab_size) const {
  check(temperature >= 0 && std::isfinite(temperature), "temperature", temperature,
        "from 0 to 3.4028e38");
  check(top_k >= 0, "top_k", top_k, "0 (off) or more");
  check(top_p > 0 && top_p <= 1, "top_p", top_p, "from 1.4e-45 to 1 (off)");
  check(min_p >= 0 && min_p <= 1, "min_p", min_p, "from 0 to 1 (0 is off)");
  check(repeat_penalty > 0 && std::isfinite(repeat_penalty), "repeat_penalty", repeat_penalty,
        "from 1.4e-45 to 3.4028e38 (1 is off)");
  check(std::isfinite(frequency_penalty), "frequency_penalty", frequency_penalty, kFinite);
  check(std::isfinite(presence_penalty), "presence_penalty", presence_penalty, kFinite);
  check(penalty_window >= 0 && penalty_window <= 1 << 20, "penalty_window", penalty_window,
        "from 0 to 1048576");
  for (const auto& [id, bias] : logit_bias) {
    check(id >= 0 && id < vocab_size, "a logit_bias token", id, "a token of the vocabulary");
    check(!std::isnan(bias) && bias < INFINITY, "a logit_bias value", bias,
          "a number or -infinity");
  }
}

Sampler::Sampler(const SamplingOptions& options, int32_t vocab_size)
    : options_(options), bias_(options.logit_bias.begin(), options.logit_bias.end()) {
  std::stable_sort(bias_.begin(), bias_.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  size_t kept = 0;
  for (const auto& [id, bias] : bias_) {
    if (kept > 0 && bias_[kept - 1].first == id) {
      bias_[kept - 1].second += bias;
    } else {
      bias_[kept++] = {id, bias};
    }
  }
  bias_.resize(kept);
  window_.reserve(options.penalty_window);
  sorted_window_.reserve(options.penalty_window);
  if (penalizes() || !bias_.empty()) adjusted_.resize(vocab_size);
  if (options.temperature > 0 && (options.top_k > 0 || options.top_p < 1)) {
    candidates_.resize(vocab_size);
  }
}

bool Sampler::penalizes() const {
  return options_.repeat_penalty != 1.0F || options_.frequency_penalty != 0.0F ||
         options_.presence_penalty != 0.0F;
}

void Sampler::observe(std::span<const TokenId> tokens) {
  observed_ += tokens.size();
  const auto width = static_cast<size_t>(options_.penalty_window);
  if (tokens.size() > width) tokens = tokens.last(width);
  for (const TokenId id : tokens) {
    if (window_.size() < width) {
      window_.push_back(id);
    } else {
      window_[window_next_] = id;
      window_next_ = (window_next_ + 1) % width;
    }
  }
}

double Sampler::bias_of(TokenId id) const {
  const auto at =
      std::lower_bound(bias_.begin(), bias_.end(), id,
                       [](const auto& entry, TokenId key) { return entry.first < key; });
  return at != bias_.end() && at->first == id ? at->second : 0.0;
}

void Sampler::adjust(std::span<const float> logits) {
  std::copy(logits.begin(), logits.end(), adjusted_.begin());
  for (const auto& [id, bias] : bias_) adjusted_[id] = static_cast<float>(logits[id] + bias);
  if (!penalizes()) return;
  sorted_window_.assign(window_.begin(), window_.end());
  std::sort(sorted_window_.begin(), sorted_window_.end());
  for (auto at = sorted_window_.begin(); at != sorted_window_.end();) {
    const auto next = std::upper_bound(at, sorted_window_.end(), *at);
    adjusted_[*at] = static_cast<float>(
        penalize(logits[*at] + bias_of(*at), static_cast<int32_t>(next - at),
                 options_.repeat_penalty, options_.frequency_penalty, options_.presence_penalty));
    at = next;
  }
}

SampleRow Sampler::next_row() const {
  return {options_.temperature, options_.top_k, options_.top_p,
          options_.min_p,       options_.seed,  observed_};
}

TokenId Sampler::choose(std::span<const float> logits) {
  if (adjusts()) {
    adjust(logits);
    logits = adjusted_;
  }
  if (options_.temperature == 0.0F) {
    return greedy_choice(logits.data(), static_cast<int64_t>(logits.size()));
  }
  return draw_token(logits, next_row(), candidates_);
}

std::string Sampler::why_none(bool processed) const {
  std::string set;
  const auto name = [&](bool is_set, const std::string& option) {
    if (is_set) set += (set.empty() ? "" : ", ") + option;
  };
  name(processed, "logits_processor");
  name(!bias_.empty(), fmt::format("logit_bias (of {} tokens)", bias_.size()));
  name(options_.repeat_penalty != 1.0F, fmt::format("repeat_penalty {}", options_.repeat_penalty));
  name(options_.frequency_penalty != 0.0F,
       fmt::format("frequency_penalty {}", options_.frequency_penalty));
  name(options_.presence_penalty != 0.0F,
       fmt::format("presence_penalty {}", options_.presence_penalty));
  return fmt::format("no token may be drawn: {} leave every logit at -infinity; allow some token",
                     set);
}

LogSoftmax::LogSoftmax(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  normalizer_ = largest + std::log(sum);
}

}  // namespace paddock
