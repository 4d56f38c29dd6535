// Attention of single query tokens over paged keys and values, split along the table, in float32;
// hands over to decode_tensor.cu what AttentionArgs::tensor_cores permits.
// Test: tests/kernels/cuda_decode_test.cpp.
// hot: decode_kernel merge_kernel
//
//   out[t][h] = sum_p softmax_p(scale * rot(q[t][h]) . k[p][h / G]) v[p][h / G]    G = heads per KV
//
// decode_kernel: block (list entry * splits + split, KV head * its groups of up to 8 query heads),
//   4 warps that take turns with tiles of 16 slots (decode_walk.h, decode_tile.h). Per warp: keys
//   and values by cp.async in stages, dot products over 8 to 32 lanes with a reduction that
//   scatters, online softmax in exponents of two (Milakov and Gimelshein, arXiv 1805.02867),
//   float32 throughout. Query heads of a KV head share each load. Then the warps' parts are merged
//   in order.
// merge_kernel: one warp per (list entry, head) merges the splits in order.
// Each order depends on the token's table, position and visibility alone. Splits without visible
// slots leave -inf as their maximum and nothing else.
// Shapes: head_dim even, 16 to 256; rows of a multiple of 16 bytes are fast, others come word by
//   word. The pool aligned to 4 bytes (16 to be fast), entries to 16.
// Moves per call: visible slots * 2 * head_dim * element bytes per KV head (and group of 8), and
//   2 * (head_dim + 2) floats for each (token, head, split).
#include "cuda/decode_tensor.h"
#include "cuda/decode_tile.h"

namespace paddock::cuda {
namespace {

using namespace tile;

struct DecodeParams {
  AttentionArgs args;
  DecodeList list;
  Rows rows;
  int32_t splits;
};

/// Where a split leaves its part: [n, n_heads, splits] of {maximum, sum}, then as many rows.
PADDOCK_DEVICE int64_t part_index(const DecodeParams& p, int32_t i, int32_t head, int32_t split) {
  return (int64_t{i} * p.args.n_heads + head) * p.splits + split;
}
PADDOCK_DEVICE float* part_row(const DecodeParams& p, int64_t part) {
  return p.args.workspace + int64_t{p.list.n} * p.args.n_heads * p.splits * 2 +
         part * p.args.kv.geometry().head_dim;
}
PADDOCK_DEVICE void store_part(const DecodeParams& p, int64_t part, float largest, float sum) {
  simt::store(p.args.workspace + 2 * part, largest);
  simt::store(p.args.workspace + 2 * part + 1, sum);
}

/// The parts of a warp's shared memory.
template <typename S>
struct WarpMemory {
  uint8_t* stages;
  float* queries;  // [kHeads][kPitch], in the end the warp's output
  float* weights;  // [kTile][kHeads], in the end {maximum, sum} of each head
};
template <typename S>
PADDOCK_HD inline int32_t warp_bytes(const Rows& rows) {
  return S::kStages * 2 * kTile * rows.vectors * 16 + S::kHeads * (S::kPitch + kTile) * 4;
}
template <typename S>
PADDOCK_DEVICE WarpMemory<S> warp_memory(const Rows& rows, int warp) {
  uint8_t* base = simt::dynamic_shared<uint8_t>() + warp * warp_bytes<S>(rows);
  auto* queries = reinterpret_cast<float*>(base + S::kStages * 2 * kTile * rows.vectors * 16);
  return {base, queries, queries + S::kHeads * S::kPitch};
}

/// A warp's running softmax: maximum and this lane's share of the sum for head lane() % kHeads, and
/// this lane's elements and rows of the output.
template <typename S>
struct Running {
  float largest = -INFINITY;
  float sum = 0;
  float out[S::kHeads][8] = {};

  PADDOCK_DEVICE void take(const Rows& rows, const uint8_t* values, int n, float* weights,
                           const float (&scores)[S::kScores]) {
    const int lane = simt::lane();
    float exponents[S::kScores];
    float top = largest;
    PADDOCK_UNROLL for (int i = 0; i < S::kScores; ++i) {
      exponents[i] = S::row_of_score(i) < n ? scores[i] : -INFINITY;
      top = simt::max(top, exponents[i]);
    }
    PADDOCK_UNROLL for (int mask = S::kHeads; mask < simt::kWarpSize; mask *= 2) {
      top = simt::max(top, simt::shfl_xor(top, mask));
    }
    const float rescale = simt::fast_exp2(largest - top);
    const bool moved = simt::any(top != largest);
    largest = top;
    sum *= rescale;
    PADDOCK_UNROLL for (int i = 0; i < S::kScores; ++i) {
      const float weight = simt::fast_exp2(exponents[i] - top);
      sum += weight;
      simt::store(weights + S::row_of_score(i) * S::kHeads + lane % S::kHeads, weight);
    }
    if (moved) {
      PADDOCK_UNROLL for (int h = 0; h < S::kHeads; ++h) {
        const float factor = simt::shfl(rescale, h);
        PADDOCK_UNROLL for (int e = 0; e < 8; ++e) out[h][e] *= factor;
      }
    }
    PADDOCK_SYNC_WARP("weights ready");
    PADDOCK_UNROLL for (int pass = 0; pass < S::kPasses; ++pass) {
      const int row = pass * S::kRowsAtOnce + lane / S::kLanes;
      float x[8];
      load_row<S>(values + row * rows.vectors * 16, rows.vectors, x);
      PADDOCK_UNROLL for (int h = 0; h < S::kHeads; h += 4) {
        const auto w = simt::load_vec<simt::F32x4>(weights + row * S::kHeads + h);
        PADDOCK_UNROLL for (int e = 0; e < 8; ++e) {
          out[h][e] = simt::fma(w.x, x[e], out[h][e]);
          out[h + 1][e] = simt::fma(w.y, x[e], out[h + 1][e]);
          out[h + 2][e] = simt::fma(w.z, x[e], out[h + 2][e]);
          out[h + 3][e] = simt::fma(w.w, x[e], out[h + 3][e]);
        }
      }
    }
  }

  /// Leaves the warp's sums over its lanes in its shared memory, which no lane reads any more.
  PADDOCK_DEVICE void leave(const WarpMemory<S>& memory) {
    const int lane = simt::lane();
    PADDOCK_UNROLL for (int mask = S::kHeads; mask < simt::kWarpSize; mask *= 2) {
      sum += simt::shfl_xor(sum, mask);
    }
    PADDOCK_UNROLL for (int mask = S::kLanes; mask < simt::kWarpSize; mask *= 2) {
      PADDOCK_UNROLL for (int h = 0; h < S::kHeads; ++h) {
        PADDOCK_UNROLL for (int e = 0; e < 8; ++e) out[h][e] += simt::shfl_xor(out[h][e], mask);
      }
    }
    if (lane < S::kHeads) {
      simt::store_vec(memory.weights + 2 * lane, simt::F32x2{largest, sum});
    }
    if (lane >= S::kLanes) return;
    PADDOCK_UNROLL for (int i = 0; i < 8; i += 4) {
      const int vector = lane + i / S::kElements * S::kLanes;
      const int first = vector * S::kElements + i % S::kElements;
      PADDOCK_UNROLL for (int h = 0; h < S::kHeads; ++h) {
        simt::store_vec(memory.queries + h * S::kPitch + first,
                        simt::F32x4{out[h][i], out[h][i + 1], out[h][i + 2], out[h][i + 3]});
      }
    }
  }
};

/// Merges what the warps left, in order, for the head `h` of those in hand.
template <typename S>
PADDOCK_DEVICE void merge_warps(const DecodeParams& p, const Query& query, int32_t i, int32_t split,
                                int h) {
  float largest = -INFINITY;
  simt::F32x2 parts[kWarps];
  PADDOCK_UNROLL for (int w = 0; w < kWarps; ++w) {
    parts[w] = simt::load_vec<simt::F32x2>(warp_memory<S>(p.rows, w).weights + 2 * h);
    largest = simt::max(largest, parts[w].x);
  }
  float weights[kWarps];
  float sum = 0;
  PADDOCK_UNROLL for (int w = 0; w < kWarps; ++w) {
    weights[w] = parts[w].x == -INFINITY ? 0.0F : simt::fast_exp2(parts[w].x - largest);
    sum = simt::fma(weights[w], parts[w].y, sum);
  }
  const int32_t dim = p.args.kv.geometry().head_dim;
  const int32_t head = query.first_head + h;
  const int64_t part = part_index(p, i, head, split);
  const bool last = p.splits == 1;  // nothing to merge with
  if (simt::thread_x() == 0) {
    if (!last) {
      store_part(p, part, largest, sum);
    } else if (p.args.lse != nullptr) {
      simt::store(p.args.lse + query.token() * p.args.n_heads + head, natural_log(largest, sum));
    }
  }
  const bool empty = largest == -INFINITY;
  if (empty && !last) return;
  float* to = last ? p.args.out + (query.token() * p.args.n_heads + head) * dim : part_row(p, part);
  const float scale = !last ? 1.0F : empty ? 0.0F : 1.0F / sum;
  for (int32_t d = simt::thread_x(); d < dim; d += kThreads) {
    float x = 0;
    PADDOCK_UNROLL for (int w = 0; w < kWarps; ++w) {
      const float* row = warp_memory<S>(p.rows, w).queries + h * S::kPitch;
      x = simt::fma(weights[w], simt::load(row + d), x);
    }
    simt::store(to + d, x * scale);
  }
}

template <typename S>
PADDOCK_KERNEL(kThreads, S::kBlocks)
void decode_kernel(DecodeParams p) {
  const int32_t i = simt::block_x() / p.splits;
  const int32_t split = simt::block_x() % p.splits;
  const auto [sequence, index] = load_item(p.args, p.list, i);
  const Query query = make_query(p.args, sequence, index, S::kHeads, simt::block_y());
  const LiveEntries live = live_entries(p.args, query);
  const EntryRange range =
      cut_table(p.args.kv.geometry(), sequence.visibility, query.position(), live.n).range(split);
  if (range.begin == range.end && p.splits > 1) {  // of a shorter table: nothing to set up
    if (simt::thread_x() < query.n_heads) {
      store_part(p, part_index(p, i, query.first_head + simt::thread_x(), split), -INFINITY, 0);
    }
    return;
  }

  const WarpMemory<S> memory = warp_memory<S>(p.rows, simt::warp());
  const int32_t side_bytes = kTile * p.rows.vectors * 16;
  Walk walk(p.args, query, live, range, p.rows.bytes);
  int32_t stage_rows = 0;      // of stage lane()
  int32_t stage_rotation = 0;  // likewise
  const auto fetch = [&](int stage) {
    const Tile tile = walk.next();
    if (simt::lane() == stage) {
      stage_rows = tile.n;
      stage_rotation = tile.rotation;
    }
    if (tile.n > 0) copy_tile<S>(p.args, p.rows, tile, 2, memory.stages + stage * 2 * side_bytes);
    simt::cp_async_commit();
  };

  Running<S> running;
  float q[S::kHeads][8];
  int32_t rotation = -1;
  for (int stage = 0; stage + 1 < S::kStages; ++stage) fetch(stage);
  for (int tile = 0;; ++tile) {
    PADDOCK_SYNC_WARP("weights used");
    fetch((tile + S::kStages - 1) % S::kStages);
    const int stage = tile % S::kStages;
    const int32_t n = simt::shfl(stage_rows, stage);
    if (n == 0) break;
    const int32_t turned = simt::shfl(stage_rotation, stage);
    if (turned != rotation) {
      rotation = turned;
      rotate_queries<S>(p.args, query, rotation, memory.queries, q);
    }
    PADDOCK_CP_ASYNC_WAIT("stage", S::kStages - 1);
    const uint8_t* keys = memory.stages + stage * 2 * side_bytes;
    float scores[S::kScores];
    score_tile<S>(keys, p.rows.vectors, q, scores);
    running.take(p.rows, keys + side_bytes, n, memory.weights, scores);
  }
  running.leave(memory);
  PADDOCK_SYNC("warps done");
  for (int h = 0; h < query.n_heads; ++h) merge_warps<S>(p, query, i, split, h);
}

PADDOCK_KERNEL(kThreads)
void merge_kernel(DecodeParams p) {
  const int32_t task = simt::block_x() * kWarps + simt::warp();
  const int32_t n_heads = p.args.n_heads;
  if (!PADDOCK_CHECKED("task", task < p.list.n * n_heads)) return;
  const int32_t i = task / n_heads;
  const int64_t first = part_index(p, i, task % n_heads, 0);
  const int lane = simt::lane();
  float maxima[2] = {-INFINITY, -INFINITY};  // of splits lane() and lane() + 32
  float sums[2] = {0, 0};
  PADDOCK_UNROLL for (int k = 0; k < 2; ++k) {
    const int32_t split = lane + k * simt::kWarpSize;
    if (!PADDOCK_CHECKED("split", split < p.splits)) continue;
    maxima[k] = simt::load_const(p.args.workspace + 2 * (first + split));
    sums[k] = simt::load_const(p.args.workspace + 2 * (first + split) + 1);
  }
  const float largest = simt::warp_max(simt::max(maxima[0], maxima[1]));
  float weights[2];
  PADDOCK_UNROLL for (int k = 0; k < 2; ++k) {
    weights[k] = maxima[k] == -INFINITY ? 0.0F : simt::fast_exp2(maxima[k] - largest);
  }
  const float sum = simt::warp_sum(simt::fma(weights[0], sums[0], weights[1] * sums[1]));
  const int32_t token = p.list.tokens == nullptr ? i : simt::load_const(p.list.tokens + i);
  const int64_t row = int64_t{token} * n_heads + task % n_heads;
  if (lane == 0 && p.args.lse != nullptr) {
    simt::store(p.args.lse + row, natural_log(largest, sum));
  }
  const float scale = sum > 0 ? 1.0F / sum : 0.0F;
  const int32_t dim = p.args.kv.geometry().head_dim;
  for (int32_t d0 = 0; d0 < dim; d0 += simt::kWarpSize) {
    const int32_t d = d0 + lane;
    const bool inside = PADDOCK_CHECKED("dim", d < dim);
    float x = 0;
    for (int32_t s0 = 0; s0 < p.splits; s0 += 8) {
      PADDOCK_UNROLL for (int s = s0; s < s0 + 8; ++s) {
        const float weight = simt::shfl(s < simt::kWarpSize ? weights[0] : weights[1], s);
        // Splits that saw nothing have no row.
        const float part =
            inside && weight > 0 ? simt::load_const(part_row(p, first + s) + d) : 0.0F;
        x = simt::fma(weight, part, x);
      }
    }
    if (inside) simt::store(p.args.out + row * dim + d, x * scale);
  }
}

}  // namespace

int64_t decode_workspace_floats(int32_t n_heads, const PageGeometry& geometry, int32_t n_tokens,
                                int32_t max_entries) {
  const int32_t splits = split_bound(geometry, max_entries);
  return splits == 1 ? 0 : int64_t{n_tokens} * n_heads * splits * (geometry.head_dim + 2);
}

int decode_attention(const AttentionArgs& args, const DecodeList& list, Stream stream) {
  if (list.n == 0) return 0;
  if (!is_supported(args) || list.n < 0 || list.max_entries < 0 || list.blocks_at_once < 1) {
    return kInvalid;
  }
  if (args.tensor_cores && decode_tensor_supports(args)) return decode_tensor(args, list, stream);
  const DecodeParams params{args, list, rows_of(args),
                            split_bound(args.kv.geometry(), list.max_entries)};
  const int64_t blocks = int64_t{list.n} * params.splits;
  const int64_t tasks = int64_t{list.n} * args.n_heads;
  if (blocks > INT32_MAX || tasks > INT32_MAX) return kInvalid;
  if (params.splits > 1 && args.workspace == nullptr) return kInvalid;
  const int error = with_shape(args, [&](auto shape) {
    using S = decltype(shape);
    const int64_t per_kv = args.n_heads / args.kv.geometry().n_kv_heads;
    const int64_t groups = args.kv.geometry().n_kv_heads * divide_up(per_kv, S::kHeads);
    const simt::Grid grid{static_cast<uint32_t>(blocks), static_cast<uint32_t>(groups)};
    return PADDOCK_LAUNCH(decode_kernel<S>, grid, kThreads, kWarps * warp_bytes<S>(params.rows),
                          stream, params);
  });
  if (error != 0 || params.splits == 1) return error;
  const simt::Grid grid{static_cast<uint32_t>(divide_up(tasks, kWarps))};
  return PADDOCK_LAUNCH(merge_kernel, grid, kThreads, 0, stream, params);
}

}  // namespace paddock::cuda
