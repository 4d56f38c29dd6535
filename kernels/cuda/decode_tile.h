// What decode_attention.cu and attention_mass.cu do with a tile of decode_walk.h: bring it into
// shared memory, and score it.
//
// kLanes lanes share a row: lane l of them holds 8 elements of it, in 16-byte vectors l (and
// l + kLanes for float32), which makes accesses to shared memory free of conflicts, and the same
// elements of kHeads rotated queries in registers.
#pragma once

#include <cmath>

#include "cuda/decode_walk.h"

namespace paddock::cuda::tile {

// ---- shapes ----
template <typename T, int kHeadsPerBlock, int kLanesPerRow>
struct Shape {
  using Element = T;
  static constexpr int kHeads = kHeadsPerBlock;  // query heads of one KV head, a power of two
  static constexpr int kLanes = kLanesPerRow;    // 8, 16 or 32, for head_dim up to 8 * kLanes
  static constexpr int kPitch = 8 * kLanes;      // floats of a query in shared memory
  static constexpr int kRowsAtOnce = simt::kWarpSize / kLanes;
  static constexpr int kPasses = kTile / kRowsAtOnce;
  static constexpr int kScores = kTile * kHeads / simt::kWarpSize;  // of a tile, per lane
  static constexpr int kPassesPerScore = kLanes / kHeads;
  static constexpr int kElements = 16 / static_cast<int>(sizeof(T));  // of a vector
  static constexpr int kVectors = 8 / kElements;                      // of a row, per lane
  static constexpr int kMostTileBytes = 2 * kTile * kPitch * static_cast<int>(sizeof(T));
  /// So many that kBlocks blocks of 16-bit rows up to 128 long fit into the 228 KiB of shared
  /// memory that a multiprocessor of compute capability 9.0 has.
  static constexpr int kStages = kMostTileBytes <= 4096 ? 4 : kMostTileBytes <= 16384 ? 2 : 1;
  static constexpr int kBlocks = kHeads == 4 && kLanes <= 16 && sizeof(T) == 2 ? 3 : 2;
  /// Row of a tile whose score `i` this lane holds; its head is lane() % kHeads.
  PADDOCK_DEVICE static int row_of_score(int i) {
    const int lane = simt::lane();
    return (i * kPassesPerScore + lane % kLanes / kHeads) * kRowsAtOnce + lane / kLanes;
  }
};

/// Bytes of one row of a page, and of the same in shared memory.
struct Rows {
  int32_t bytes;
  int32_t vectors;  // of 16 bytes, the last one padded with zeros
  bool aligned;     // rows start at multiples of 16 bytes: they come by cp.async
};
inline Rows rows_of(const AttentionArgs& a) {
  const int32_t bytes = a.kv.row_bytes();
  return {bytes, static_cast<int32_t>(divide_up(bytes, 16)), a.kv.rows_aligned(16)};
}

template <int kHeads>
struct Heads {
  static constexpr int kValue = kHeads;
};

/// Calls `use` with the Shape for these arguments, one of 15; returns what `use` does.
template <typename Use>
int with_shape(const AttentionArgs& a, const Use& use) {
  const auto with_lanes = [&](auto type, auto heads) {
    using T = decltype(type);
    constexpr int kHeads = decltype(heads)::kValue;
    if (a.kv.geometry().head_dim <= 64) return use(Shape<T, kHeads, 8>());
    if (a.kv.geometry().head_dim <= 128) return use(Shape<T, kHeads, 16>());
    return use(Shape<T, 4, 32>());  // 8 heads of 256 do not fit into registers
  };
  const bool few = a.n_heads / a.kv.geometry().n_kv_heads <= 4;
  const auto with_heads = [&](auto type) {
    return few ? with_lanes(type, Heads<4>()) : with_lanes(type, Heads<8>());
  };
  if (a.kv.type() == DType::kF32) return with_heads(float());
  if (a.kv.type() == DType::kF16) return with_heads(simt::F16());
  static_assert(sizeof(kKvElements) == 3 * sizeof(KvElement));  // what is neither is bf16
  return with_heads(simt::Bf16());
}

// ---- tiles ----
/// Copies a vector word by word, zeros past `bytes`.
PADDOCK_DEVICE void copy_words(const uint8_t* from, int bytes, uint8_t* to) {
  PADDOCK_UNROLL for (int byte = 0; byte < 16; byte += 4) {
    uint32_t word = 0;
    if (byte < bytes) word = simt::load_stream_vec<uint32_t>(from + byte);
    simt::store_vec(to + byte, word);
  }
}

/// Starts to copy the keys (and the values, for two `sides`) of a tile to `to`, row by row without
/// gaps; rows past the tile's last become zeros. Values follow the keys by kTile rows. A lane
/// copies what it will read in load_row and nothing else, so that no barrier is needed.
template <typename S>
PADDOCK_DEVICE void copy_tile(const AttentionArgs& args, const Rows& rows, const Tile& tile,
                              int sides, uint8_t* to) {
  const int64_t to_values = args.kv.to_values(args.kv.element_bytes());
  const int lane = simt::lane();
  PADDOCK_UNROLL for (int pass = 0; pass < S::kPasses; ++pass) {
    const int row = pass * S::kRowsAtOnce + lane / S::kLanes;
    const uint8_t* row_from = args.kv.at(simt::shfl(tile.offset, row));
    PADDOCK_UNROLL for (int i = 0; i < S::kVectors; ++i) {
      const int vector = lane % S::kLanes + i * S::kLanes;
      if (!PADDOCK_CHECKED("vector to copy", vector < rows.vectors)) continue;
      for (int side = 0; side < sides; ++side) {
        uint8_t* at = to + ((side * kTile + row) * rows.vectors + vector) * 16;
        const uint8_t* from = row_from + side * to_values + vector * 16;
        if (rows.aligned) {
          simt::cp_async16(at, from, row < tile.n ? 16 : 0);
        } else {
          copy_words(from, row < tile.n ? rows.bytes - vector * 16 : 0, at);
        }
      }
    }
  }
}

// ---- queries and scores ----
/// Rotates the queries for one rotation, scaled for exponents of two, and gives each lane its
/// elements. `shared` holds kHeads * kPitch floats of this warp.
template <typename S>
PADDOCK_DEVICE void rotate_queries(const AttentionArgs& args, const Query& query, int32_t rotation,
                                   float* shared, float (&q)[S::kHeads][8]) {
  const int32_t dim = args.kv.geometry().head_dim;
  const int32_t half = dim / 2;
  const AttentionSequence& s = query.sequence;
  const int32_t angle = simt::load_const(args.angle_rows + s.first_angle_row +
                                         int64_t{rotation} * s.n_tokens + query.index);
  const float* cosines = args.angles + int64_t{angle} * dim;
  const float* from = args.q + (query.token() * args.n_heads + query.first_head) * dim;
  const float scale = args.scale * kLog2E;
  for (int32_t i = simt::lane(); i < S::kPitch / 2; i += simt::kWarpSize) {
    const bool inside = PADDOCK_CHECKED("pair", i < half);
    const float c = inside ? simt::load_const(cosines + i) * scale : 0.0F;
    const float sine = inside ? simt::load_const(cosines + half + i) * scale : 0.0F;
    const bool near = args.interleaved || !inside;  // what is past head_dim lies in order
    const int32_t a = near ? 2 * i : i;
    const int32_t b = near ? 2 * i + 1 : i + half;
    PADDOCK_UNROLL for (int h = 0; h < S::kHeads; ++h) {
      const bool real = inside && PADDOCK_CHECKED("head of q", h < query.n_heads);
      const float x = real ? simt::load_const(from + h * dim + a) : 0.0F;
      const float y = real ? simt::load_const(from + h * dim + b) : 0.0F;
      simt::store(shared + h * S::kPitch + a, x * c - y * sine);
      simt::store(shared + h * S::kPitch + b, x * sine + y * c);
    }
  }
  PADDOCK_SYNC_WARP("queries ready");
  PADDOCK_UNROLL for (int i = 0; i < 8; i += 4) {
    const int vector = simt::lane() % S::kLanes + i / S::kElements * S::kLanes;
    const int first = vector * S::kElements + i % S::kElements;
    PADDOCK_UNROLL for (int h = 0; h < S::kHeads; ++h) {
      const auto x = simt::load_vec<simt::F32x4>(shared + h * S::kPitch + first);
      q[h][i] = x.x;
      q[h][i + 1] = x.y;
      q[h][i + 2] = x.z;
      q[h][i + 3] = x.w;
    }
  }
}

/// This lane's 8 elements of a row in shared memory; zeros past its end.
template <typename S>
PADDOCK_DEVICE void load_row(const uint8_t* row, int32_t vectors, float (&x)[8]) {
  PADDOCK_UNROLL for (int i = 0; i < S::kVectors; ++i) {
    const int vector = simt::lane() % S::kLanes + i * S::kLanes;
    simt::U32x4 u{0, 0, 0, 0};
    if (PADDOCK_CHECKED("vector", vector < vectors)) {
      u = simt::load_vec<simt::U32x4>(row + vector * 16);
    }
    const uint32_t words[4] = {u.x, u.y, u.z, u.w};
    PADDOCK_UNROLL for (int w = 0; w < 4; ++w) {
      if constexpr (sizeof(typename S::Element) == 4) {
        x[i * 4 + w] = simt::bits_float(words[w]);
      } else {
        const simt::F32x2 pair = simt::unpack2<typename S::Element>(words[w]);
        x[2 * w] = pair.x;
        x[2 * w + 1] = pair.y;
      }
    }
  }
}

/// Sums 2 * kHalf values over groups of as many lanes; lane l of a group gets the sum of value l.
template <int kHalf, int kN>
PADDOCK_DEVICE float scatter_sum(float (&values)[kN]) {
  const bool upper = (simt::lane() & kHalf) != 0;
  PADDOCK_UNROLL for (int i = 0; i < kHalf; ++i) {
    const float keep = upper ? values[i + kHalf] : values[i];
    const float give = upper ? values[i] : values[i + kHalf];
    values[i] = keep + simt::shfl_xor(give, kHalf);
  }
  if constexpr (kHalf > 1) {
    return scatter_sum<kHalf / 2>(values);
  } else {
    return values[0];
  }
}

/// scores[i] = q[lane() % kHeads] . key of row row_of_score(i).
template <typename S>
PADDOCK_DEVICE void score_tile(const uint8_t* keys, int32_t vectors, const float (&q)[S::kHeads][8],
                               float (&scores)[S::kScores]) {
  PADDOCK_UNROLL for (int i = 0; i < S::kScores; ++i) {
    float sums[S::kLanes];
    PADDOCK_UNROLL for (int pass = 0; pass < S::kPassesPerScore; ++pass) {
      const int row = (i * S::kPassesPerScore + pass) * S::kRowsAtOnce + simt::lane() / S::kLanes;
      float x[8];
      load_row<S>(keys + row * vectors * 16, vectors, x);
      PADDOCK_UNROLL for (int h = 0; h < S::kHeads; ++h) {
        float sum = x[0] * q[h][0];
        PADDOCK_UNROLL for (int e = 1; e < 8; ++e) sum = simt::fma(x[e], q[h][e], sum);
        sums[pass * S::kHeads + h] = sum;
      }
    }
    scores[i] = scatter_sum<S::kLanes / 2>(sums);
  }
}

}  // namespace paddock::cuda::tile
