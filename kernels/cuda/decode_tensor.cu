// Attention of single query tokens over paged 16-bit keys and values on tensor cores, where
// AttentionArgs::tensor_cores permits it. Test: tests/kernels/cuda_decode_test.cpp.
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
#include "cuda/decode_tensor_tile.h"

namespace paddock::cuda {
namespace {

using namespace tensor;
using simt::F32x4;

struct TensorParams {
  AttentionArgs args;
  DecodeList list;
  int32_t splits;  // that a table of max_entries can have
  int32_t pieces;  // blocks that share the splits of a token's group
  int32_t groups;  // of heads, of all KV heads
};

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

/// Which entry of the list a block takes, which group of heads, and which piece of the splits.
struct Work {
  int32_t i, group, piece;

  PADDOCK_DEVICE explicit Work(const TensorParams& p) {
    const int32_t row = simt::block_x() / p.groups;
    group = simt::block_x() - row * p.groups;
    i = row / p.pieces;
    piece = row - i * p.pieces;
  }
};

/// Tiles on their way, the next one first, and the splits that they are of.
template <int kStages>
struct Ahead {
  Tile tiles[kStages] = {};
  int32_t splits[kStages];

  PADDOCK_DEVICE void put(const Tile& tile, int32_t split) {
    tiles[kStages - 1] = tile;
    splits[kStages - 1] = split;
  }
  PADDOCK_DEVICE void advance() {
    PADDOCK_UNROLL for (int k = 1; k < kStages; ++k) {
      tiles[k - 1] = tiles[k];
      splits[k - 1] = splits[k];
    }
  }
};

template <typename H, int kDim>
PADDOCK_KERNEL(kThreads, Form<kDim>::kBlocks)
void tensor_kernel(TensorParams p) {
  constexpr int kStages = Form<kDim>::kStages;
  const Work work(p);
  const int32_t i = work.i;
  const auto [sequence, index] = load_item(p.args, p.list, i);
  const Query query = make_query(p.args, sequence, index, kHeads, work.group);
  const LiveEntries live = live_entries(p.args, query);
  const Splits splits =
      cut_table(p.args.kv.geometry(), sequence.visibility, query.position(), live.n);
  const int32_t per_piece = (splits.n + p.pieces - 1) / p.pieces;
  const int32_t begin = work.piece * per_piece;
  const int32_t end = simt::min(begin + per_piece, splits.n);
  if (begin >= end) return;  // fewer splits than pieces
  // The angles that a piece most likely begins with are asked for before the table is: sinks, if
  // they have a rotation of their own, come first.
  const int32_t likely = begin == 0 ? 0 : simt::max(sequence.n_rotations - 1, 0);
  const int32_t likely_angle = sequence.n_rotations > 0 ? angle_row(p.args, query, likely) : 0;

  Walk walk(p.args, query, live, splits.range(begin), kv_row_bytes(kDim, sizeof(H)));
  const int64_t to_values = p.args.kv.to_values(sizeof(H));
  Stage<kDim>* stages = stages_of<kDim>(simt::warp());
  Ahead<kStages> ahead;
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
    ahead.put(tile, fetched);
    PADDOCK_SYNC_WARP("stage used");
    if (tile.n > 0) copy_tile<kDim>(p.args.kv, to_values, tile, stages + stage);
    simt::cp_async_commit();
    stage = stage + 1 == kStages ? 0 : stage + 1;
    if (number >= 0) {
      const Tile& next = ahead.tiles[0];
      while (split < (next.n > 0 ? ahead.splits[0] : end)) end_split();
      if (next.n == 0) break;
      if (next.rotation != rotation) {
        rotation = next.rotation;
        turn_queries<H, kDim>(
            p.args, query, rotation == likely ? likely_angle : angle_row(p.args, query, rotation),
            q);
      }
      PADDOCK_CP_ASYNC_WAIT("stage", kStages - 1);
      PADDOCK_SYNC_WARP("stage ready");
      running.take(scale, q, next.n, stages + stage);
    }
    ahead.advance();
  }
  if (splits.n == 1) return;
  const int32_t pieces = (splits.n + per_piece - 1) / per_piece;
  uint32_t* arrivals = p.args.arrivals + int64_t{i} * p.groups + work.group;
  if (is_last(arrivals, pieces)) merge_splits<kDim>(p, query, i, splits.n);
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
  switch (params.args.kv.geometry().head_dim) {
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
  const PageGeometry& g = args.kv.geometry();
  return g.element_bytes() == 2 && g.head_dim % 16 == 0 && g.head_dim <= 128 && args.scale > 0 &&
         args.kv.rows_aligned(16);
}

int decode_tensor(const AttentionArgs& args, const DecodeList& list, Stream stream) {
  const PageGeometry& g = args.kv.geometry();
  const int64_t per_kv = args.n_heads / g.n_kv_heads;
  const auto groups = static_cast<int32_t>(g.n_kv_heads * divide_up(per_kv, kHeads));
  const TensorParams params{args, list, split_bound(g, list.max_entries),
                            choose_pieces(g, int64_t{list.n} * groups, list), groups};
  if (params.splits > 1 && (args.workspace == nullptr || args.arrivals == nullptr)) return kInvalid;
  static_assert(sizeof(kKvElements) == 3 * sizeof(KvElement));  // what is neither is bf16
  return args.kv.type() == DType::kF16 ? launch_dim<simt::F16>(params, stream)
                                       : launch_dim<simt::Bf16>(params, stream);
}

}  // namespace paddock::cuda
