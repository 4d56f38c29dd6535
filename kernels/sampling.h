// The sampling arithmetic, in one fixed order, for hosts and devices alike: equal logits, options
// and random number give the same token everywhere. Probabilities are doubles; every sum runs over
// candidates from the largest logit down, ties by lower id.
//
// Generator: SplitMix64 (Steele, Lea, Flood 2014) as a counter: the n-th number of a seed is
// mix(seed + (n + 1) * golden), so it can be computed anywhere without state.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define PADDOCK_SAMPLING_HD __host__ __device__
#else
#define PADDOCK_SAMPLING_HD
#endif

namespace paddock {

struct Candidate {
  float logit;
  int32_t id;
};

/// The order of candidates: larger logit first, lower id among equals.
PADDOCK_SAMPLING_HD inline bool comes_before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

/// The n-th random number of a seed, in [0, 1): 53 bits.
PADDOCK_SAMPLING_HD inline double random_uniform(uint64_t seed, uint64_t n) {
  uint64_t z = seed + (n + 1) * 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}

/// e^x for x <= 0 in plain double arithmetic, one operation at a time (no contraction), so that
/// every device rounds alike. Relative error below 1e-15; 0 below -700.
PADDOCK_SAMPLING_HD inline double sampling_exp(double x) {
  if (!(x > -700.0)) return 0.0;
  // x = n ln 2 + r; e^r by its series, then n halvings.
  const double scaled = x * 1.4426950408889634;
  const auto n = static_cast<int64_t>(scaled - 0.5);
  const double r = (x - static_cast<double>(n) * 0.6931471803691238) -
                   static_cast<double>(n) * 1.9082149292705877e-10;
  double term = 1.0;
  double sum = 1.0;
  for (int i = 1; i < 16; ++i) {
    term = term * r / i;
    sum = sum + term;
  }
  for (int64_t i = 0; i > n; --i) sum = sum * 0.5;
  return sum;
}

/// Index of the first logit that is not finite, or -1.
PADDOCK_SAMPLING_HD inline int64_t first_non_finite(const float* logits, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (!(logits[i] - logits[i] == 0.0F)) return i;
  }
  return -1;
}

/// The largest logit's id, the lowest among equals.
PADDOCK_SAMPLING_HD inline int32_t greedy_choice(const float* logits, int64_t n) {
  int32_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    if (logits[i] > logits[best]) best = static_cast<int32_t>(i);
  }
  return best;
}

/// Repetition (CTRL, arXiv 1909.05858), frequency and presence penalties for a token that occurs
/// `count` > 0 times in the window.
PADDOCK_SAMPLING_HD inline float penalize(float logit, int32_t count, float repeat, float frequency,
                                          float presence) {
  logit = logit > 0.0F ? logit / repeat : logit * repeat;
  const float by_count = static_cast<float>(count) * frequency;
  return (logit - by_count) - presence;
}

/// Chooses among `n` candidates sorted by comes_before (already cut to top-k): keeps the fewest
/// whose probability reaches top_p (nucleus sampling, arXiv 1904.09751), of those the ones with at
/// least min_p of the best one's (arXiv 2407.01082), divides logits by the temperature and draws
/// with `u` in [0, 1). Probabilities for the cuts are those before the temperature.
PADDOCK_SAMPLING_HD inline int32_t draw(const Candidate* candidates, int64_t n, float top_p,
                                        float min_p, float temperature, double u) {
  const double best = candidates[0].logit;
  if (top_p < 1.0F) {
    double total = 0.0;
    for (int64_t i = 0; i < n; ++i) total = total + sampling_exp(candidates[i].logit - best);
    double kept = 0.0;
    int64_t count = 0;
    while (count < n && kept < top_p * total) {
      kept = kept + sampling_exp(candidates[count].logit - best);
      ++count;
    }
    n = count > 0 ? count : 1;
  }
  if (min_p > 0.0F) {
    while (n > 1 && sampling_exp(candidates[n - 1].logit - best) < min_p) --n;
  }
  double total = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    total = total + sampling_exp((candidates[i].logit - best) / temperature);
  }
  const double target = u * total;
  double passed = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    passed = passed + sampling_exp((candidates[i].logit - best) / temperature);
    if (target < passed) return candidates[i].id;
  }
  return candidates[n - 1].id;
}

}  // namespace paddock
