// A hash that spreads every bit of its argument over all of the result (splitmix64, Steele et al.,
// "Fast Splittable Pseudorandom Number Generators", 2014).
#pragma once

#include <cstdint>

namespace paddock {

constexpr uint64_t kMixStep = 0x9E3779B97F4A7C15U;

constexpr uint64_t mix(uint64_t x) {
  x += kMixStep;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

/// The next number of the generator SplitMix64. The n-th that begins with a seed is
/// mix(seed + n * kMixStep), as kernels/sampling.h draws them.
inline uint64_t next_random(uint64_t& state) {
  const uint64_t number = mix(state);
  state += kMixStep;
  return number;
}

/// The top 53 bits of `x` as a number from 0 to below 1.
constexpr double unit_interval(uint64_t x) { return static_cast<double>(x >> 11) * 0x1p-53; }

}  // namespace paddock
