// What decode_tensor.cu does with a tile of decode_walk.h: bring it into shared memory, score it
// and add it up, for up to 8 query heads of one KV head.
//
// Heads are the narrow side of m16n8k16, so that none of it is wasted on 8 of them:
//   scores^T = K q^T (16 slots by 8 heads), out^T = V^T weights^T (16 dims by 8 heads)
// A lane holds heads 2 (l % 4) and the next one, both in scores and in the output. Weights change
// lanes by shuffles, from slots in rows to slots along k.
#pragma once

#include <cmath>

#include "cuda/decode_walk.h"

namespace paddock::cuda::tensor {

using namespace tile;
using simt::F32x2;

inline constexpr int kHeads = 8;  // of a block

// ---- shared memory ----
template <int kDim>
struct Stage {
  uint16_t keys[kTile][kDim + 8];
  uint16_t values[kTile][kDim + 8];
};
/// What a warp leaves of a split. Rows are so long that no bank is met twice.
template <int kDim>
struct Part {
  float rows[kHeads][kDim + 4];
  float largest[kHeads], sum[kHeads];
};

template <int kDim>
struct Form {
  static constexpr int kStages = kDim <= 64 ? 4 : 2;
  static constexpr int kBlocks = kDecodeBlocksEach;
  /// Lanes that share a row in copies: as many as divide its vectors of 16 bytes.
  static constexpr int kLanes = (kDim / 8) & -(kDim / 8);
  static constexpr int kRowsAtOnce = simt::kWarpSize / kLanes;
  static constexpr int kRings = kWarps * kStages * sizeof(Stage<kDim>);
  static constexpr int kBytes = kRings + kWarps * sizeof(Part<kDim>);
};
template <int kDim>
PADDOCK_DEVICE Stage<kDim>* stages_of(int warp) {
  return simt::dynamic_shared<Stage<kDim>>() + warp * Form<kDim>::kStages;
}
template <int kDim>
PADDOCK_DEVICE Part<kDim>* part_of(int warp) {
  return reinterpret_cast<Part<kDim>*>(stages_of<kDim>(kWarps)) + warp;
}

// ---- tiles ----
/// Starts to copy a tile; rows past its last become zeros.
template <int kDim>
PADDOCK_DEVICE void copy_tile(const KvView<KeyOrder::kBySlot>& kv, int64_t to_values,
                              const Tile& tile, Stage<kDim>* to) {
  using F = Form<kDim>;
  constexpr int kRowBytes = kv_row_bytes(kDim, sizeof(uint16_t));
  const int lane = simt::lane();
  const int row = lane / F::kLanes;
  const int column = lane % F::kLanes * 8;
  const int in_row = kv_row_bytes(column, sizeof(uint16_t));
  uint16_t* keys = &to->keys[row][column];
  uint16_t* values = &to->values[row][column];
  if (tile.n == kTile && tile.one_entry) {
    const uint8_t* from = kv.at(simt::shfl(tile.offset, 0)) + row * kRowBytes + in_row;
    const uint8_t* values_from = from + to_values;
    PADDOCK_UNROLL for (int r = 0; r < kTile; r += F::kRowsAtOnce) {
      PADDOCK_UNROLL for (int c = 0; c < kDim; c += F::kLanes * 8) {
        simt::cp_async16(keys + r * (kDim + 8) + c, from + r * kRowBytes + 2 * c, 16);
      }
    }
    PADDOCK_UNROLL for (int r = 0; r < kTile; r += F::kRowsAtOnce) {
      PADDOCK_UNROLL for (int c = 0; c < kDim; c += F::kLanes * 8) {
        simt::cp_async16(values + r * (kDim + 8) + c, values_from + r * kRowBytes + 2 * c, 16);
      }
    }
    return;
  }
  PADDOCK_UNROLL for (int r = 0; r < kTile; r += F::kRowsAtOnce) {
    const uint8_t* from = kv.at(simt::shfl(tile.offset, r + row)) + in_row;
    const int bytes = r + row < tile.n ? 16 : 0;
    PADDOCK_UNROLL for (int c = 0; c < kDim; c += F::kLanes * 8) {
      simt::cp_async16(keys + r * (kDim + 8) + c, from + 2 * c, bytes);
      simt::cp_async16(values + r * (kDim + 8) + c, from + to_values + 2 * c, bytes);
    }
  }
}

PADDOCK_DEVICE int32_t angle_row(const AttentionArgs& args, const Query& query, int32_t rotation) {
  const AttentionSequence& s = query.sequence;
  return simt::load_const(args.angle_rows + s.first_angle_row + int64_t{rotation} * s.n_tokens +
                          query.index);
}

/// Rotates the queries by an angle row: q[f] becomes dims 8 f + 2 (l % 4) and the next one of head
/// l / 4, zeros where there is no such head.
template <typename H, int kDim>
PADDOCK_DEVICE void turn_queries(const AttentionArgs& args, const Query& query, int32_t angle,
                                 uint32_t (&q)[kDim / 8]) {
  const int head = simt::lane() / 4;
  const int column = simt::lane() % 4 * 2;
  if (!PADDOCK_CHECKED("head of q", head < query.n_heads)) {
    PADDOCK_UNROLL for (int f = 0; f < kDim / 8; ++f) q[f] = 0;
    return;
  }
  const float* angles = args.angles + int64_t{angle} * kDim;
  const float* from =
      args.q + (query.token() * args.n_heads + query.first_head + head) * kDim + column;
  if (args.interleaved) {
    PADDOCK_UNROLL for (int f = 0; f < kDim / 8; ++f) {
      const auto x = simt::load_const_vec<F32x2>(from + 8 * f);
      const float cosine = simt::load_const(angles + 4 * f + column / 2);
      const float sine = simt::load_const(angles + kDim / 2 + 4 * f + column / 2);
      q[f] =
          simt::pack2<H>(simt::fma(x.x, cosine, -(x.y * sine)), simt::fma(x.x, sine, x.y * cosine));
    }
    return;
  }
  constexpr int kHalf = kDim / 16;
  PADDOCK_UNROLL for (int f = 0; f < kHalf; ++f) {
    const auto x = simt::load_const_vec<F32x2>(from + 8 * f);
    const auto y = simt::load_const_vec<F32x2>(from + 8 * (f + kHalf));
    const auto cosine = simt::load_const_vec<F32x2>(angles + 8 * f + column);
    const auto sine = simt::load_const_vec<F32x2>(angles + 8 * (f + kHalf) + column);
    q[f] = simt::pack2<H>(simt::fma(x.x, cosine.x, -(y.x * sine.x)),
                          simt::fma(x.y, cosine.y, -(y.y * sine.y)));
    q[f + kHalf] = simt::pack2<H>(simt::fma(x.x, sine.x, y.x * cosine.x),
                                  simt::fma(x.y, sine.y, y.y * cosine.y));
  }
}

/// A warp's softmax and output so far, of heads 2 (l % 4) + {0, 1}. Scores in powers of two.
template <typename H, int kDim>
struct Running {
  float largest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};         // of slots l / 4 and l / 4 + 8 of each tile
  float out[kDim / 16][4] = {};  // [i][2 r + h]: dim 16 i + 8 r + l / 4 of head h of the two

  PADDOCK_DEVICE void take(float scale, const uint32_t (&q)[kDim / 8], int n, Stage<kDim>* stage) {
    const int lane = simt::lane();
    float scores[4] = {};  // [2 r + h]: slot 8 r + l / 4
    float others[4] = {};  // of every second product, so that fewer wait for one another
    const uint16_t* key = &stage->keys[lane % 16][lane / 16 * 8];
    PADDOCK_UNROLL for (int d = 0; d < kDim; d += 16) {
      uint32_t a[4];
      simt::ldmatrix_x4(a, key + d);
      simt::mma_m16n8k16<H>(d % 32 == 0 ? scores : others, a, {q[d / 8], q[d / 8 + 1]});
    }
    PADDOCK_UNROLL for (int i = 0; i < 4; ++i) {
      scores[i] = (scores[i] + others[i]) * scale;
      if (lane / 4 + i / 2 * 8 >= n) scores[i] = -INFINITY;
    }
    raise(simt::max(scores[0], scores[2]), simt::max(scores[1], scores[3]));
    PADDOCK_UNROLL for (int i = 0; i < 4; ++i) {
      scores[i] = simt::fast_exp2(scores[i] - largest[i % 2]);
    }
    sum[0] += scores[0] + scores[2];
    sum[1] += scores[1] + scores[3];

    // Slots 2 (l % 4) and the next one of head l / 4, which two lanes hold.
    const int from = lane % 4 * 8 + lane / 8;
    const uint32_t halves = lane / 4 % 2 == 0 ? 0x5410 : 0x7632;
    uint32_t weights[2];
    PADDOCK_UNROLL for (int r = 0; r < 2; ++r) {
      const uint32_t mine = simt::pack2<H>(scores[2 * r], scores[2 * r + 1]);
      const uint32_t first = simt::shfl(mine, from);
      weights[r] = simt::byte_perm(first, simt::shfl(mine, from + 4), halves);
    }
    const uint16_t* value = &stage->values[lane / 16 * 8 + lane % 8][lane / 8 % 2 * 8];
    PADDOCK_UNROLL for (int i = 0; i < kDim / 16; ++i) {
      uint32_t a[4];
      simt::ldmatrix_x4_trans(a, value + 16 * i);
      simt::mma_m16n8k16<H>(out[i], a, weights);
    }
  }

  /// Leaves it in the warp's shared memory.
  PADDOCK_DEVICE void leave(Part<kDim>* to) {
    const int row = simt::lane() / 4;
    const int head = simt::lane() % 4 * 2;
    PADDOCK_UNROLL for (int h = 0; h < 2; ++h) {
      PADDOCK_UNROLL for (int mask = 4; mask < simt::kWarpSize; mask *= 2) {
        sum[h] += simt::shfl_xor(sum[h], mask);
      }
      if (row == 0) {
        simt::store(&to->largest[head + h], largest[h]);
        simt::store(&to->sum[head + h], sum[h]);
      }
      PADDOCK_UNROLL for (int i = 0; i < kDim / 16; ++i) {
        simt::store(&to->rows[head + h][16 * i + row], out[i][h]);
        simt::store(&to->rows[head + h][16 * i + row + 8], out[i][2 + h]);
      }
    }
  }

 private:
  /// Makes `largest` that of all scores so far, given this lane's.
  PADDOCK_DEVICE void raise(float top0, float top1) {
    if (!simt::any(top0 > largest[0] || top1 > largest[1])) return;
    const float tops[2] = {top0, top1};
    float rescale[2];
    PADDOCK_UNROLL for (int h = 0; h < 2; ++h) {
      float top = simt::max(largest[h], tops[h]);
      PADDOCK_UNROLL for (int mask = 4; mask < simt::kWarpSize; mask *= 2) {
        top = simt::max(top, simt::shfl_xor(top, mask));
      }
      rescale[h] = simt::fast_exp2(largest[h] - top);
      largest[h] = top;
      sum[h] *= rescale[h];
    }
    PADDOCK_UNROLL for (int i = 0; i < kDim / 16; ++i) {
      PADDOCK_UNROLL for (int j = 0; j < 4; ++j) out[i][j] *= rescale[j % 2];
    }
  }
};

}  // namespace paddock::cuda::tensor
