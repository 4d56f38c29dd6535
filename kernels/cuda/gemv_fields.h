// Small integers inside words as floats, and words at even addresses of shared memory.
#pragma once

#include "cuda/device.h"

namespace paddock::cuda {

/// The kBits of w from bit kShift on, as an unsigned number less `bias`, exact. They sit in the
/// mantissa of a float whose exponent makes bit kShift worth one; kFlip inverts the topmost (which
/// turns int8 into an offset of 128).
template <int kShift, int kBits, bool kFlip = false>
PADDOCK_DEVICE float field(uint32_t w, int bias) {
  static_assert(kShift + kBits <= 23);
  constexpr uint32_t kMask = ((1U << kBits) - 1U) << kShift;
  constexpr uint32_t kExponent = static_cast<uint32_t>(150 - kShift) << 23;
  constexpr uint32_t kTop = kFlip ? 1U << (kShift + kBits - 1) : 0U;
  return simt::bits_float((w & kMask) ^ (kExponent | kTop)) -
         static_cast<float>((1 << (23 - kShift)) + bias);
}
template <bool kFlip = false>
PADDOCK_DEVICE void bytes_to_floats(uint32_t w, int bias, float (&f)[4]) {
  f[0] = field<0, 8, kFlip>(w, bias);
  f[1] = field<8, 8, kFlip>(w, bias);
  f[2] = field<0, 8, kFlip>(w >> 16, bias);
  f[3] = field<8, 8, kFlip>(w >> 16, bias);
}
PADDOCK_DEVICE void low_nibbles_to_floats(uint32_t w, int bias, float (&f)[4]) {
  f[0] = field<0, 4>(w, bias);
  f[1] = field<8, 4>(w, bias);
  f[2] = field<16, 4>(w, bias);
  f[3] = field<12, 4>(w >> 12, bias);
}
PADDOCK_DEVICE void high_nibbles_to_floats(uint32_t w, int bias, float (&f)[4]) {
  f[0] = field<4, 4>(w, bias);
  f[1] = field<12, 4>(w, bias);
  f[2] = field<8, 4>(w >> 12, bias);
  f[3] = field<16, 4>(w >> 12, bias);
}

/// kWords words of shared memory at an even address. Reads no word that has none of these bytes.
template <int kWords>
PADDOCK_DEVICE void read_words(const uint8_t* p, uint32_t (&w)[kWords]) {
  const uint32_t odd = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(p)) & 2U;
  const auto* words = reinterpret_cast<const uint32_t*>(p - odd);
  uint32_t now = simt::load(words);
  PADDOCK_UNROLL for (int i = 0; i < kWords; ++i) {
    const uint32_t next = simt::load(i + 1 < kWords ? words + i + 1 : words + i + odd / 2);
    w[i] = static_cast<uint32_t>((uint64_t{next} << 32 | now) >> (8 * odd));
    now = next;
  }
}
PADDOCK_DEVICE float read_f16(const uint8_t* p) {
  return simt::to_f32(simt::F16{simt::load(reinterpret_cast<const uint16_t*>(p))});
}

}  // namespace paddock::cuda
