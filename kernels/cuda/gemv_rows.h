// How gemv.cu reads a row of each type: a warp takes a chunk of 32 * kLaneCols columns at once, and
// each lane kLaneCols of them in groups of four that share an operand vector of x. Which columns a
// lane takes follows the bytes, so that consecutive lanes read consecutive words of shared memory.
#pragma once

#include "cuda/gemv_fields.h"
#include "dtype.h"

namespace paddock::cuda {

/// A lane's part of one row's chunk. `chunk` is the chunk in shared memory, aligned as its type
/// lies in rows that start aligned to 16 bytes; kGroups of kSumGroups have a common scale.
template <DType kType>
struct LaneRow;

struct FloatRow {
  static constexpr int kSumGroups = 0;  // no scales
  static constexpr bool kHasMin = false;
  static constexpr bool kHasTable = false;
};

template <>
struct LaneRow<DType::kF32> : FloatRow {
  static constexpr int kLaneCols = 4;
  static PADDOCK_DEVICE int lane_of(int group) { return group; }
  static PADDOCK_DEVICE int step_of(int) { return 0; }
  uint32_t words[4];
  PADDOCK_DEVICE void read(const uint8_t* chunk, const simt::F32x4*) {
    read_words(chunk + 16 * simt::lane(), words);
  }
  PADDOCK_DEVICE void weights(int, float (&w)[4]) const {
    PADDOCK_UNROLL for (int i = 0; i < 4; ++i) w[i] = simt::bits_float(words[i]);
  }
};

template <typename H>
struct HalfRow : FloatRow {
  static constexpr int kLaneCols = 8;
  static PADDOCK_DEVICE int lane_of(int group) { return group / 2; }
  static PADDOCK_DEVICE int step_of(int group) { return group % 2; }
  uint32_t words[4];
  PADDOCK_DEVICE void read(const uint8_t* chunk, const simt::F32x4*) {
    const uint8_t* p = chunk + 16 * simt::lane();
    if (reinterpret_cast<uintptr_t>(p) % 16 == 0) {
      const auto v = simt::load_vec<simt::U32x4>(p);
      words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
    } else {
      read_words(p, words);
    }
  }
  PADDOCK_DEVICE void weights(int step, float (&w)[4]) const {
    const simt::F32x2 a = simt::unpack2<H>(words[2 * step]);
    const simt::F32x2 b = simt::unpack2<H>(words[2 * step + 1]);
    w[0] = a.x, w[1] = a.y, w[2] = b.x, w[3] = b.y;
  }
};
template <>
struct LaneRow<DType::kF16> : HalfRow<simt::F16> {};
template <>
struct LaneRow<DType::kBF16> : HalfRow<simt::Bf16> {};

/// Half a block: bytes 16 h to 16 h + 15.
template <>
struct LaneRow<DType::kQ8_0> {
  static constexpr int kLaneCols = 16;
  static constexpr int kSumGroups = 4;
  static constexpr bool kHasMin = false;
  static constexpr bool kHasTable = false;
  static PADDOCK_DEVICE int lane_of(int group) { return group / 4; }
  static PADDOCK_DEVICE int step_of(int group) { return group % 4; }
  uint32_t words[4];
  float d;
  PADDOCK_DEVICE void read(const uint8_t* chunk, const simt::F32x4*) {
    const uint8_t* block = chunk + 34 * (simt::lane() / 2);
    d = read_f16(block);
    read_words(block + 2 + 16 * (simt::lane() % 2), words);
  }
  PADDOCK_DEVICE void weights(int step, float (&w)[4]) const {
    bytes_to_floats<true>(words[step], 128, w);
  }
  PADDOCK_DEVICE float scale(int) const { return d; }
};

/// Half a block: bytes 8 h to 8 h + 7, whose low nibbles are elements 8 h to 8 h + 7 and whose high
/// ones lie 16 further on.
struct HalfNibbleBlock {
  static constexpr int kLaneCols = 16;
  static constexpr int kSumGroups = 4;
  static constexpr bool kHasTable = false;
  static PADDOCK_DEVICE int lane_of(int group) { return group / 8 * 2 + group % 4 / 2; }
  static PADDOCK_DEVICE int step_of(int group) { return group % 8 / 4 * 2 + group % 2; }
  uint32_t words[2];
  float d;
  PADDOCK_DEVICE void nibbles(int step, int bias, float (&w)[4]) const {
    if (step < 2) {
      low_nibbles_to_floats(words[step], bias, w);
    } else {
      high_nibbles_to_floats(words[step - 2], bias, w);
    }
  }
  PADDOCK_DEVICE float scale(int) const { return d; }
};
template <>
struct LaneRow<DType::kQ4_0> : HalfNibbleBlock {
  static constexpr bool kHasMin = false;
  PADDOCK_DEVICE void read(const uint8_t* chunk, const simt::F32x4*) {
    const uint8_t* block = chunk + 18 * (simt::lane() / 2);
    d = read_f16(block);
    read_words(block + 2 + 8 * (simt::lane() % 2), words);
  }
  PADDOCK_DEVICE void weights(int step, float (&w)[4]) const { nibbles(step, 8, w); }
};
template <>
struct LaneRow<DType::kQ4_1> : HalfNibbleBlock {
  static constexpr bool kHasMin = true;
  float m;
  PADDOCK_DEVICE void read(const uint8_t* chunk, const simt::F32x4*) {
    const auto* block = reinterpret_cast<const uint32_t*>(chunk + 20 * (simt::lane() / 2));
    const simt::F32x2 scales = simt::unpack2<simt::F16>(simt::load(block));
    d = scales.x;
    m = scales.y;
    words[0] = simt::load(block + 1 + 2 * (simt::lane() % 2));
    words[1] = simt::load(block + 2 + 2 * (simt::lane() % 2));
  }
  PADDOCK_DEVICE void weights(int step, float (&w)[4]) const { nibbles(step, 0, w); }
  PADDOCK_DEVICE float min(int) const { return m; }
};

}  // namespace paddock::cuda
