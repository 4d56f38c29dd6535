// The sampling arithmetic for hosts and devices alike: equal logits, options and random number give
// the same token everywhere.
//
// Probabilities are integers: e^(logit - best) in units of 2^-45, so that sums do not depend on the
// order of threads. 2^17 candidates fit into 63 bits; a weight is within 3e-7 of its value or
// 2^-46, whichever is more. Each float32 operation is rounded by itself (no contraction).
//
// Generator: SplitMix64 (Steele, Lea, Flood 2014) as a counter: the n-th number of a seed is
// mix(seed + (n + 1) * golden), so it can be computed anywhere without state.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define PADDOCK_SAMPLING_HD __host__ __device__
#else
#define PADDOCK_SAMPLING_HD
#endif

namespace paddock {

/// How one row of logits becomes a token. Candidates are ordered by logit, the largest first, ties
/// by lower id. Of that order stay: the first top_k; of those the fewest whose probability reaches
/// top_p of theirs (nucleus sampling, arXiv 1904.09751); of those the ones with at least min_p of
/// the best one's probability (arXiv 2407.01082). Then logits are divided by the temperature and
/// one candidate is drawn: the first, in the order of ids, at which the running sum of weights
/// exceeds u times their total. Where bias or penalties made a logit +infinity, the lowest such id
/// is drawn; one of -infinity never is.
struct SampleRow {
  float temperature;  // 0: the largest logit, lowest id among equals
  int32_t top_k;      // 0: off
  float top_p;        // 1: off
  float min_p;        // 0: off
  uint64_t seed, n;   // u is the n-th random number of the seed, n the position to be filled
};

/// The order of logits as unsigned numbers: larger logit, larger key; -0 and 0 are equal.
PADDOCK_SAMPLING_HD inline uint32_t logit_key(float logit) {
  const float zero_is_positive = logit + 0.0F;
  uint32_t bits;
  memcpy(&bits, &zero_is_positive, sizeof(bits));
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
PADDOCK_SAMPLING_HD inline float key_logit(uint32_t key) {
  const uint32_t bits = (key & 0x80000000U) != 0 ? key & 0x7FFFFFFFU : ~key;
  float logit;
  memcpy(&logit, &bits, sizeof(logit));
  return logit;
}

PADDOCK_SAMPLING_HD inline bool is_finite(float x) { return x - x == 0.0F; }

/// a * b + c with both operations rounded.
PADDOCK_SAMPLING_HD inline float multiply_add(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(__fmul_rn(a, b), c);
#else
  return a * b + c;
#endif
}

inline constexpr uint64_t kWeightOne = uint64_t{1} << 45;

/// e^x for x <= 0 in units of 2^-45.
PADDOCK_SAMPLING_HD inline uint64_t weight_of(float x) {
  if (!(x > -32.0F)) return 0;
  // x = r - n ln 2 with |r| <= ln 2 / 2; ln 2 in two parts, the first with few bits.
  const auto n = static_cast<int32_t>(multiply_add(x, -1.44269504F, 0.5F));
  const auto steps = static_cast<float>(n);
  const float r = multiply_add(steps, -2.12194440e-4F, multiply_add(steps, 0.693359375F, x));
  float sum = 1.0F / 5040.0F;
  sum = multiply_add(sum, r, 1.0F / 720.0F);
  sum = multiply_add(sum, r, 1.0F / 120.0F);
  sum = multiply_add(sum, r, 1.0F / 24.0F);
  sum = multiply_add(sum, r, 1.0F / 6.0F);
  sum = multiply_add(sum, r, 0.5F);
  sum = multiply_add(sum, r, 1.0F);
  sum = multiply_add(sum, r, 1.0F);
  const auto mantissa = static_cast<uint64_t>(sum * 16777216.0F);  // exact: sum > 1/2
  return n <= 21 ? mantissa << (21 - n) : (mantissa + (uint64_t{1} << (n - 22))) >> (n - 21);
}
/// Weight of a logit beside the best one, at a temperature.
PADDOCK_SAMPLING_HD inline uint64_t logit_weight(float logit, float best, float temperature) {
  return weight_of((logit - best) / temperature);
}

/// The smallest whole number that is at least `share` of `total`, from 1 to total.
PADDOCK_SAMPLING_HD inline uint64_t share_of(float share, uint64_t total) {
  const double wanted = static_cast<double>(share) * static_cast<double>(total);
  auto units = static_cast<uint64_t>(wanted);
  if (static_cast<double>(units) < wanted) ++units;
  return units < 1 ? 1 : units > total ? total : units;
}

/// The n-th random number of a seed, in [0, 1): 53 bits.
PADDOCK_SAMPLING_HD inline double random_uniform(uint64_t seed, uint64_t n) {
  uint64_t z = seed + (n + 1) * 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}
/// The unit of `total` > 0 that a draw falls on.
PADDOCK_SAMPLING_HD inline uint64_t drawn_unit(const SampleRow& row, uint64_t total) {
  const double u = random_uniform(row.seed, row.n);
  const auto unit = static_cast<uint64_t>(u * static_cast<double>(total));
  return unit < total ? unit : total - 1;
}

/// Index of the first logit that is not finite, or -1.
PADDOCK_SAMPLING_HD inline int64_t first_non_finite(const float* logits, int64_t n) {
  constexpr int64_t kRun = 1024;  // looked at as a whole, which is quicker where all are finite
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const int64_t end = n - begin < kRun ? n : begin + kRun;
    uint32_t any = 0;
    for (int64_t i = begin; i < end; ++i) {
      uint32_t bits;
      memcpy(&bits, logits + i, sizeof(bits));
      any |= (bits & 0x7F800000U) == 0x7F800000U ? 1U : 0U;
    }
    for (int64_t i = begin; any != 0; ++i) {
      if (!is_finite(logits[i])) return i;
    }
  }
  return -1;
}

/// The largest logit's id, the lowest among equals; -1 where all are -infinity.
PADDOCK_SAMPLING_HD inline int32_t greedy_choice(const float* logits, int64_t n) {
  int32_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    if (logits[i] > logits[best]) best = static_cast<int32_t>(i);
  }
  return is_finite(logits[best]) || logits[best] > 0.0F ? best : -1;
}

/// Repetition (CTRL, arXiv 1909.05858), frequency and presence penalties for a token that occurs
/// `count` > 0 times in the window. Numbers that fit float32 give one that fits double, so that
/// only rounding the result can overflow; -infinity stays what it is.
PADDOCK_SAMPLING_HD inline double penalize(double logit, int32_t count, double repeat,
                                           double frequency, double presence) {
  logit = logit > 0.0 ? logit / repeat : logit * repeat;
  const double by_count = static_cast<double>(count) * frequency;
  return (logit - by_count) - presence;
}

}  // namespace paddock
