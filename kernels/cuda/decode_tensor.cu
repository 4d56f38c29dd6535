// Attention of single query tokens over paged 16-bit keys and values on tensor cores, where
// AttentionArgs::tensor_cores permits it. Test: tests/kernels/cuda_decode_tensor_test.cpp.
// hot: tensor_kernel
//
//   out[t][h] = sum_p softmax_p(scale * rot(q[t][h]) . k[p][h / G]) v[p][h / G]    G = heads per KV
//
// Work:    a block takes a list entry, up to 8 query heads of one KV head and some splits of the
//          table that follow one another (decode_walk.h): one each where that fills the device,
//          more in large batches, so that the next split's tiles travel while the last one ends.
//          Its 4 warps take turns with tiles of 16 slots and share nothing until a split is done.
//          Groups of heads come first in the grid: those of one KV head meet its rows in L2, and
//          heads of one page run together.
// Products: heads are the narrow side of m16n8k16, so that none of it is wasted on 8 of them:
//          scores^T = K q^T (16 slots by 8 heads), out^T = V^T weights^T (16 dims by 8 heads). A
//          lane holds heads 2 (l % 4) and the next one, both in scores and in the output. Weights
//          change lanes by shuffles, from slots in rows to slots along k.
// Numbers: as prefill_attention.cu: queries rotated in float32 and rounded to the KV type; scores,
//          softmax (Milakov and Gimelshein, arXiv 1805.02867) and output float32; weights rounded
//          to the KV type relative to the warp's largest score so far, not in the denominator.
// Copies:  per warp a ring of stages filled by cp.async. A full tile of one table entry lies
//          without gaps: constant distances from one address. Rows in shared memory are 16 bytes
//          longer than a key, so that ldmatrix meets no bank twice.
// Merging: the warps' parts of a split in order, then, by the last block to arrive, the splits'
//          parts in order. Which block that is, and how many splits a block takes, changes no bit:
//          each order depends on the token's table, position and visibility alone.
// Limits:  head_dim a multiple of 16 up to 128; scale > 0; q and angles aligned to 8 bytes, pool,
//          entries, workspace and out to 16.
// Bytes:   visible slots * 4 * head_dim per KV head (and group of 8), and 8 * (head_dim + 2) for
//          each (token, head, split).
#include "cuda/decode_tensor.h"
#include "cuda/decode_walk.h"

namespace paddock::cuda {
namespace {

using namespace tile;
using simt::F32x2;
using simt::F32x4;

constexpr int kHeads = 8;  // of a block

struct TensorParams {
  AttentionArgs args;
  DecodeList list;
  int32_t splits;  // that a table of max_entries can have
  int32_t pieces;  // blocks that share the splits of a token's group
  int32_t groups;  // of heads, of all KV heads
};

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
  static constexpr int kBlocks = 2;  // on a multiprocessor
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

// ---- workspace: rows of [n, n_heads, splits], then {largest, sum} of each ----
PADDOCK_DEVICE int64_t part_index(const TensorParams& p, int32_t i, int32_t head, int32_t split) {
  return (int64_t{i} * p.args.n_heads + head) * p.splits + split;
}
template <int kDim>
PADDOCK_DEVICE float* part_row(const TensorParams& p, int64_t part) {
  return p.args.workspace + part * kDim;
}
template <int kDim>
PADDOCK_DEVICE float* part_sums(const TensorParams& p, int64_t part) {
  return p.args.workspace + part_index(p, p.list.n, 0, 0) * kDim + 2 * part;
}

// ---- tiles ----
/// Starts to copy a tile; rows past its last become zeros.
template <int kDim>
PADDOCK_DEVICE void copy_tile(const uint8_t* pool, int64_t to_values, const Tile& tile,
                              Stage<kDim>* to) {
  using F = Form<kDim>;
  constexpr int kRowBytes = 2 * kDim;
  const int lane = simt::lane();
  const int row = lane / F::kLanes;
  const int column = lane % F::kLanes * 8;
  uint16_t* keys = &to->keys[row][column];
  uint16_t* values = &to->values[row][column];
  if (tile.n == kTile && tile.one_entry) {
    const uint8_t* from = pool + simt::shfl(tile.offset, 0) + row * kRowBytes + 2 * column;
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
    const uint8_t* from = pool + simt::shfl(tile.offset, r + row) + 2 * column;
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

// ---- merging ----
PADDOCK_DEVICE void add(F32x4& x, float weight, const F32x4& y) {
  x.x = simt::fma(weight, y.x, x.x);
  x.y = simt::fma(weight, y.y, x.y);
  x.z = simt::fma(weight, y.z, x.z);
  x.w = simt::fma(weight, y.w, x.w);
}
PADDOCK_DEVICE F32x4 times(const F32x4& x, float y) { return {x.x * y, x.y * y, x.z * y, x.w * y}; }
/// A part's factor beside `largest` of all; nothing was seen where both are -infinity.
PADDOCK_DEVICE float part_weight(float own, float largest) {
  return own == -INFINITY ? 0.0F : simt::fast_exp2(own - largest);
}

PADDOCK_DEVICE void write_lse(const TensorParams& p, int64_t row, float largest, float sum) {
  if (p.args.lse != nullptr) simt::store(p.args.lse + row, natural_log(largest, sum));
}

/// Merges what the warps left: into the result if this is the only split.
template <int kDim>
PADDOCK_DEVICE void merge_warps(const TensorParams& p, const Query& query, int32_t i, int32_t split,
                                bool only) {
  constexpr int kVectors = kDim / 4;
  for (int at = simt::thread_x(); at < query.n_heads * kVectors; at += kThreads) {
    const int h = at / kVectors;
    const int d = at % kVectors * 4;
    float maxima[kWarps];
    float largest = -INFINITY;
    PADDOCK_UNROLL for (int w = 0; w < kWarps; ++w) {
      maxima[w] = simt::load(&part_of<kDim>(w)->largest[h]);
      largest = simt::max(largest, maxima[w]);
    }
    float sum = 0;
    F32x4 x{0, 0, 0, 0};
    PADDOCK_UNROLL for (int w = 0; w < kWarps; ++w) {
      const Part<kDim>* part = part_of<kDim>(w);
      const float weight = part_weight(maxima[w], largest);
      sum = simt::fma(weight, simt::load(&part->sum[h]), sum);
      add(x, weight, simt::load_vec<F32x4>(&part->rows[h][d]));
    }
    if (only) {
      const int64_t row = query.token() * p.args.n_heads + query.first_head + h;
      simt::store_vec(p.args.out + row * kDim + d, times(x, sum > 0 ? 1.0F / sum : 0.0F));
      if (d == 0) write_lse(p, row, largest, sum);
    } else {
      const int64_t part = part_index(p, i, query.first_head + h, split);
      simt::store_vec(part_row<kDim>(p, part) + d, x);
      if (d == 0) simt::store_vec(part_sums<kDim>(p, part), F32x2{largest, sum});
    }
  }
}

/// Whether this block is the last of `n` to come here; it then sees what the others left.
PADDOCK_DEVICE bool is_last(uint32_t* arrivals, int32_t n) {
  PADDOCK_SHARED(uint32_t, last, 1);
  PADDOCK_SYNC("part left");
  if (n == 1) return true;
  if (simt::thread_x() == 0) {
    PADDOCK_FENCE("part visible");
    const bool all = simt::atomic_add(arrivals, 1U) + 1 == static_cast<uint32_t>(n);
    simt::store(last, all ? 1U : 0U);
    if (all) {
      PADDOCK_FENCE("parts seen");
      simt::store(arrivals, 0U);
    }
  }
  PADDOCK_SYNC("arrival counted");
  return simt::load(last) != 0;
}

/// Merges what `n` splits left; a warp takes a head.
template <int kDim>
PADDOCK_DEVICE void merge_splits(const TensorParams& p, const Query& query, int32_t i, int32_t n) {
  const int lane = simt::lane();
  for (int h = simt::warp(); h < query.n_heads; h += kWarps) {
    const int64_t first = part_index(p, i, query.first_head + h, 0);
    F32x2 sums[2];  // of splits lane() and lane() + 32
    PADDOCK_UNROLL for (int k = 0; k < 2; ++k) {
      const int32_t split = lane + k * simt::kWarpSize;
      sums[k] = {-INFINITY, 0};
      if (PADDOCK_CHECKED("split", split < n)) {
        sums[k] = simt::load_vec<F32x2>(part_sums<kDim>(p, first + split));
      }
    }
    const float largest = simt::warp_max(simt::max(sums[0].x, sums[1].x));
    const float weights[2] = {part_weight(sums[0].x, largest), part_weight(sums[1].x, largest)};
    const float sum = simt::warp_sum(simt::fma(weights[0], sums[0].y, weights[1] * sums[1].y));
    F32x4 x{0, 0, 0, 0};
    for (int32_t s0 = 0; s0 < n; s0 += 8) {
      PADDOCK_UNROLL for (int s = s0; s < s0 + 8; ++s) {
        const float weight = simt::shfl(s < simt::kWarpSize ? weights[0] : weights[1], s);
        F32x4 row{0, 0, 0, 0};
        if (weight > 0 && lane < kDim / 4) {
          row = simt::load_vec<F32x4>(part_row<kDim>(p, first + s) + lane * 4);
        }
        add(x, weight, row);
      }
    }
    const int64_t row = query.token() * p.args.n_heads + query.first_head + h;
    if (lane == 0) write_lse(p, row, largest, sum);
    if (lane < kDim / 4) {
      simt::store_vec(p.args.out + row * kDim + lane * 4, times(x, sum > 0 ? 1.0F / sum : 0.0F));
    }
  }
}

template <typename H, int kDim>
PADDOCK_KERNEL(kThreads, Form<kDim>::kBlocks)
void tensor_kernel(TensorParams p) {
  constexpr int kStages = Form<kDim>::kStages;
  const int32_t row = simt::block_x() / p.groups;
  const int32_t group = simt::block_x() - row * p.groups;
  const int32_t i = row / p.pieces;
  const int32_t piece = row - i * p.pieces;
  const auto [sequence, index] = load_item(p.args, p.list, i);
  const Query query = make_query(p.args, sequence, index, kHeads, group);
  const LiveEntries live = live_entries(p.args, query);
  const Splits splits = cut_table(p.args.geometry, sequence.visibility, query.position(), live.n);
  const int32_t per_piece = (splits.n + p.pieces - 1) / p.pieces;
  const int32_t begin = piece * per_piece;
  const int32_t end = simt::min(begin + per_piece, splits.n);
  if (begin >= end) return;  // fewer splits than pieces
  // The angles that a piece most likely begins with are asked for before the table is: sinks, if
  // they have a rotation of their own, come first.
  const int32_t likely = begin == 0 ? 0 : simt::max(sequence.n_rotations - 1, 0);
  const int32_t likely_angle = sequence.n_rotations > 0 ? angle_row(p.args, query, likely) : 0;

  Walk walk(p.args, query, live, splits.range(begin), 2 * kDim);
  const int64_t to_values = 2 * p.args.geometry.side_elements();
  Stage<kDim>* stages = stages_of<kDim>(simt::warp());
  Tile tiles[kStages] = {};    // on their way, the next one first
  int32_t of_splits[kStages];  // likewise
  const float scale = p.args.scale * kLog2E;
  Running<H, kDim> running;
  uint32_t q[kDim / 8];
  int32_t rotation = -1;
  int32_t fetched = begin;  // the split of the walk,
  int32_t split = begin;    // and of `running`
  int stage = 0;
  const auto end_split = [&] {
    running.leave(part_of<kDim>(simt::warp()));
    PADDOCK_SYNC("warps done");
    merge_warps<kDim>(p, query, i, split, splits.n == 1);
    if (++split == end) return;
    running = {};
    PADDOCK_SYNC("parts merged");
  };
  for (int number = 1 - kStages;; ++number) {
    Tile tile = walk.next();
    while (tile.n == 0 && fetched + 1 < end) {
      walk.go_on(splits.range(++fetched));
      tile = walk.next();
    }
    tiles[kStages - 1] = tile;
    of_splits[kStages - 1] = fetched;
    PADDOCK_SYNC_WARP("stage used");
    if (tile.n > 0) copy_tile<kDim>(p.args.pool, to_values, tile, stages + stage);
    simt::cp_async_commit();
    stage = stage + 1 == kStages ? 0 : stage + 1;
    if (number >= 0) {
      while (split < (tiles[0].n > 0 ? of_splits[0] : end)) end_split();
      if (tiles[0].n == 0) break;
      if (tiles[0].rotation != rotation) {
        rotation = tiles[0].rotation;
        turn_queries<H, kDim>(
            p.args, query, rotation == likely ? likely_angle : angle_row(p.args, query, rotation),
            q);
      }
      PADDOCK_CP_ASYNC_WAIT("stage", kStages - 1);
      PADDOCK_SYNC_WARP("stage ready");
      running.take(scale, q, tiles[0].n, stages + stage);
    }
    PADDOCK_UNROLL for (int k = 1; k < kStages; ++k) {
      tiles[k - 1] = tiles[k];
      of_splits[k - 1] = of_splits[k];
    }
  }
  if (splits.n == 1) return;
  const int32_t pieces = (splits.n + per_piece - 1) / per_piece;
  if (is_last(p.args.arrivals + int64_t{i} * p.groups + group, pieces)) {
    merge_splits<kDim>(p, query, i, splits.n);
  }
}

/// Into how many pieces to cut the splits of each row of work: few long ones that run at once
/// rather than many short ones in turns, but so short that a long table among short ones is no
/// tail.
int32_t choose_pieces(const PageGeometry& g, int64_t rows, const DecodeList& list) {
  constexpr int64_t kMostTokens = 2048;
  const int32_t splits = cut_table(g, {}, INT32_MAX - 1, list.max_entries).n;
  const int64_t least = divide_up(int64_t{list.max_entries} * g.block_size, kMostTokens);
  int32_t best = 1;
  int64_t best_cost = INT64_MAX;
  for (int32_t pieces = 1; pieces <= splits; ++pieces) {
    if (pieces < least && pieces < splits) continue;
    // In half splits: what a turn takes, of which half a split is its start.
    const int64_t cost =
        divide_up(rows * pieces, list.blocks_at_once) * (2 * divide_up(splits, pieces) + 1);
    if (cost >= best_cost) continue;
    best = pieces;
    best_cost = cost;
  }
  return best;
}

template <typename H, int kDim>
int launch(const TensorParams& params, Stream stream) {
  const int64_t blocks = int64_t{params.list.n} * params.pieces * params.groups;
  if (blocks > INT32_MAX) return kInvalid;
  return PADDOCK_LAUNCH((tensor_kernel<H, kDim>), simt::Grid{static_cast<uint32_t>(blocks)},
                        kThreads, Form<kDim>::kBytes, stream, params);
}

template <typename H>
int launch_dim(const TensorParams& params, Stream stream) {
  switch (params.args.geometry.head_dim) {
    case 16:
      return launch<H, 16>(params, stream);
    case 32:
      return launch<H, 32>(params, stream);
    case 48:
      return launch<H, 48>(params, stream);
    case 64:
      return launch<H, 64>(params, stream);
    case 80:
      return launch<H, 80>(params, stream);
    case 96:
      return launch<H, 96>(params, stream);
    case 112:
      return launch<H, 112>(params, stream);
    default:
      return launch<H, 128>(params, stream);
  }
}

}  // namespace

bool decode_tensor_supports(const AttentionArgs& args) {
  const PageGeometry& g = args.geometry;
  return g.element_bytes == 2 && g.head_dim % 16 == 0 && g.head_dim <= 128 && args.scale > 0 &&
         reinterpret_cast<uintptr_t>(args.pool) % 16 == 0;
}

int decode_tensor(const AttentionArgs& args, const DecodeList& list, Stream stream) {
  const PageGeometry& g = args.geometry;
  const int64_t per_kv = args.n_heads / g.n_kv_heads;
  const auto groups = static_cast<int32_t>(g.n_kv_heads * divide_up(per_kv, kHeads));
  const TensorParams params{args, list, split_bound(g, list.max_entries),
                            choose_pieces(g, int64_t{list.n} * groups, list), groups};
  if (params.splits > 1 && (args.workspace == nullptr || args.arrivals == nullptr)) return kInvalid;
  return args.kv_type == DType::kF16 ? launch_dim<simt::F16>(params, stream)
                                     : launch_dim<simt::Bf16>(params, stream);
}

}  // namespace paddock::cuda
