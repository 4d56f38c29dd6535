// Rotary frequencies. Sources: RoFormer (arXiv 2104.09864); the scaling of Llama 3.1 as in its
// published reference code; YaRN (arXiv 2309.00071), with the ramp of its reference code.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/config.h"

namespace paddock {
namespace {

double llama3_frequency(const RopeConfig& rope, double frequency) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const auto original = static_cast<double>(rope.original_context);
  if (wavelength < original / rope.high_freq_factor) return frequency;
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  const double smooth = (original / wavelength - rope.low_freq_factor) /
                        (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - smooth) * frequency / rope.factor + smooth * frequency;
}

/// The (fractional) dimension that turns `rotations` times over the original context.
double correction_dim(const RopeConfig& rope, double rotations, int32_t head_dim) {
  return head_dim *
         std::log(static_cast<double>(rope.original_context) /
                  (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(rope.theta));
}

}  // namespace

std::vector<double> rope_inverse_frequencies(const RopeConfig& rope, int32_t head_dim) {
  const int32_t half = head_dim / 2;
  std::vector<double> frequencies(half);
  double low = 0;
  double high = 0;
  if (rope.kind == RopeConfig::Kind::kYarn) {
    low = correction_dim(rope, rope.beta_fast, head_dim);
    high = correction_dim(rope, rope.beta_slow, head_dim);
    if (rope.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(head_dim - 1));
    if (low == high) high += 0.001;
  }
  for (int32_t i = 0; i < half; ++i) {
    double frequency = std::pow(rope.theta, -2.0 * i / head_dim);
    switch (rope.kind) {
      case RopeConfig::Kind::kDefault:
        break;
      case RopeConfig::Kind::kLinear:
        frequency /= rope.factor;
        break;
      case RopeConfig::Kind::kLlama3:
        frequency = llama3_frequency(rope, frequency);
        break;
      case RopeConfig::Kind::kYarn: {
        const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
        frequency = frequency / rope.factor * ramp + frequency * (1.0 - ramp);
        break;
      }
    }
    if (!rope.divisors.empty()) frequency /= rope.divisors[i];
    frequencies[i] = frequency;
  }
  return frequencies;
}

double rope_attention_factor(const RopeConfig& rope) {
  if (rope.attention_factor > 0.0) return rope.attention_factor;
  return rope.kind == RopeConfig::Kind::kYarn ? yarn_attention_factor(rope.factor) : 1.0;
}

double yarn_attention_factor(double factor, double scale) {
  return factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

}  // namespace paddock
