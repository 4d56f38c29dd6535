// LaneRow of gemv_rows.h for superblocks of 256.
#pragma once

#include "cuda/gemv_rows.h"

namespace paddock::cuda {

// The scales of k-quants are decoded once per chunk into a table of 8 vectors per row, of which
// lanes 4 i to 4 i + 3 use vector i. make_scales<n> makes n (1, 2) from `first` on.

/// Lane 16 s + 4 j + p of superblock s: bytes 8 p to 8 p + 7 of sub-blocks 2 j (low) and 2 j + 1.
template <>
struct LaneRow<DType::kQ4_K> {
  static constexpr int kLaneCols = 16;
  static constexpr int kSumGroups = 2;
  static constexpr bool kHasMin = true;
  static constexpr bool kHasTable = true;
  static PADDOCK_DEVICE int lane_of(int group) { return group / 16 * 4 + group % 8 / 2; }
  static PADDOCK_DEVICE int step_of(int group) { return group % 16 / 8 * 2 + group % 2; }
  uint32_t words[2];
  simt::F32x4 scales;  // d * s and -dmin * m of sub-block 2 j, then of 2 j + 1
  template <int kCount>
  static PADDOCK_DEVICE void make_scales(const uint8_t* chunk, int first, simt::F32x4* table) {
    const auto head = simt::load_vec<simt::U32x4>(chunk + 144 * (first / 4));
    const simt::F32x2 d = simt::unpack2<simt::F16>(head.x);
    const bool later = first % 4 >= 2;  // sub-blocks 4 to 7, whose upper bits lie apart
    uint32_t s =
        later ? (head.w & 0x0F0F0F0FU) | (head.y >> 2 & 0x30303030U) : head.y & 0x3F3F3F3FU;
    uint32_t m =
        later ? (head.w >> 4 & 0x0F0F0F0FU) | (head.z >> 2 & 0x30303030U) : head.z & 0x3F3F3F3FU;
    s >>= first % 2 * 16;
    m >>= first % 2 * 16;
    PADDOCK_UNROLL for (int i = 0; i < kCount; ++i, s >>= 16, m >>= 16) {
      simt::store_vec(table + i, simt::F32x4{d.x * field<0, 8>(s, 0), -d.y * field<0, 8>(m, 0),
                                             d.x * field<8, 8>(s, 0), -d.y * field<8, 8>(m, 0)});
    }
  }
  PADDOCK_DEVICE void read(const uint8_t* chunk, const simt::F32x4* table) {
    const int lane = simt::lane();
    const auto v = simt::load_vec<simt::U32x2>(chunk + 144 * (lane / 16) + 16 + 8 * (lane % 16));
    words[0] = v.x;
    words[1] = v.y;
    scales = simt::load_vec<simt::F32x4>(table + lane / 4);
  }
  PADDOCK_DEVICE void weights(int step, float (&w)[4]) const {
    if (step < 2) {
      low_nibbles_to_floats(words[step], 0, w);
    } else {
      high_nibbles_to_floats(words[step - 2], 0, w);
    }
  }
  PADDOCK_DEVICE float scale(int step) const { return step < 2 ? scales.x : scales.z; }
  PADDOCK_DEVICE float min(int step) const { return step < 2 ? scales.y : scales.w; }
};

/// Lane 16 s + 8 n + p of superblock s, half n: elements 32 i + 4 p to 32 i + 4 p + 3 for i = 0
/// to 3.
template <>
struct LaneRow<DType::kQ6_K> {
  static constexpr int kLaneCols = 16;
  static constexpr int kSumGroups = 1;
  static constexpr bool kHasMin = false;
  static constexpr bool kHasTable = true;
  static PADDOCK_DEVICE int lane_of(int group) { return group / 32 * 8 + group % 8; }
  static PADDOCK_DEVICE int step_of(int group) { return group % 32 / 8; }
  uint32_t low[2];
  uint32_t high;
  simt::F32x4 scales;  // d * s, by i
  template <int kCount>
  static PADDOCK_DEVICE void make_scales(const uint8_t* chunk, int first, simt::F32x4* table) {
    const uint8_t* block = chunk + 210 * (first / 4);
    uint32_t words[2];
    read_words(block + 192 + 8 * (first % 4 / 2), words);
    const float d = read_f16(block + 208);
    uint32_t low = words[0] >> first % 2 * 8;
    uint32_t above = words[1] >> first % 2 * 8;
    PADDOCK_UNROLL for (int i = 0; i < kCount; ++i, low >>= 8, above >>= 8) {
      simt::store_vec(
          table + i,
          simt::F32x4{d * field<0, 8, true>(low, 128), d * field<0, 8, true>(low >> 16, 128),
                      d * field<0, 8, true>(above, 128), d * field<0, 8, true>(above >> 16, 128)});
    }
  }
  PADDOCK_DEVICE void read(const uint8_t* chunk, const simt::F32x4* table) {
    const int lane = simt::lane();
    const uint8_t* block = chunk + 210 * (lane / 16);
    const uint8_t* quants = block + 64 * (lane % 16 / 8) + 4 * (lane % 8);
    uint32_t word[1];
    read_words(quants, word);
    low[0] = word[0];
    read_words(quants + 32, word);
    low[1] = word[0];
    read_words(block + 128 + 4 * (lane % 16), word);
    high = word[0];
    scales = simt::load_vec<simt::F32x4>(table + lane / 4);
  }
  PADDOCK_DEVICE void weights(int step, float (&w)[4]) const {
    const uint32_t nibbles = low[step % 2] >> step / 2 * 4 & 0x0F0F0F0FU;
    const uint32_t above = step < 2 ? high << (4 - 2 * step) : high >> (2 * step - 4);
    bytes_to_floats(nibbles | (above & 0x30303030U), 32, w);
  }
  PADDOCK_DEVICE float scale(int step) const {
    return step == 0 ? scales.x : step == 1 ? scales.y : step == 2 ? scales.z : scales.w;
  }
};

}  // namespace paddock::cuda
