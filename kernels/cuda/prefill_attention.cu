// Attention of many consecutive queries on tensor cores: FlashAttention-2 (Dao, arXiv 2307.08691)
// over pages.
//   out[i] = sum_p w[i][p] v[p] / sum_p w[i][p],  w[i][p] = exp(scale * q_i . k_p), over what query
//   i sees
//
// Work:    a block takes a PrefillTile of 64 queries and one query head or, where heads share a KV
//          head, two; each warp 32 rows of 16 queries x 2. Blocks run head by head, then tile by
//          tile in list order.
// KV:      a group is up to 32 consecutive entries of one rotation, a KV tile 64 consecutive slots
//          of a group: bounds that depend on the table alone. So a query's bits do not depend on
//          its tile, its chunk or the batch. Tiles that no query of the block sees are skipped;
//          slots that none of them sees are not loaded but zero, as are missing ones.
// Numbers: q is rotated in float32 and rounded to the KV type; scores, softmax and output are
//          float32; weights are rounded to the KV type, relative to the largest score so far, for
//          the second product, not in the softmax's denominator.
// Copies:  keys and values of the next tile travel while this one is multiplied. Where they lie has
//          been planned before, for as many tiles at once as there are warps, a tile each. Rows in
//          shared memory are 16 bytes longer than a key, so that ldmatrix meets no bank twice.
// Limits:  16-bit KV, head_dim a multiple of 8 up to 128, any block size; entries in position
//          order; scale > 0; q, out, angles and the pool aligned to 16 bytes.
// Bytes:   per block 4 * head_dim * slots seen of keys and values (from L2 for all but the first
//          block of a KV head), 8 * head_dim a row of q and out. 4 * head_dim operations a query,
//          head and slot.
// Test:    tests/kernels/cuda_prefill_test.cpp
// hot: prefill_kernel
#include <cmath>

#include "cuda/device.h"
#include "cuda/launch.h"
#include "cuda/prefill_plan.h"

namespace paddock::cuda {
namespace {

using namespace prefill;
using simt::Bf16;
using simt::F16;
using simt::F32x2;

constexpr float kLog2E = 1.4426950408889634F;
constexpr float kLn2 = 0.6931471805599453F;

template <int kDim>
struct alignas(16) Stage {
  uint16_t k[kKvTile][kDim + 8];
  uint16_t v[kKvTile][kDim + 8];
};
template <int kDim, int kHeads>
struct alignas(16) Shared {
  static constexpr int kWarps = 2 * kHeads;
  uint16_t q[kPrefillTile * kHeads][kDim + 8];  // 32 rows a warp
  Stage<kDim> stages[2];
  Plan plans[2 * kWarps];  // of this and the following tiles, in turn
  Cursor cursors[kWarps];
  Work work;
};

/// Copies a tile's keys and values; what is no slot or past head_dim becomes zero.
template <int kDim, int kThreads>
PADDOCK_DEVICE void copy_tile(const AttentionArgs& args, const Plan* plan, Stage<kDim>* to) {
  constexpr int kLanes = kDim <= 64 ? 8 : 16;  // of a row
  constexpr int kRows = kThreads / kLanes;
  const int column = simt::lane() % kLanes * 8;
  if (column < kDim) {
    const int dim = args.kv.geometry().head_dim;
    const bool inside = column < dim;
    const uint8_t* keys = args.kv.at(inside ? kv_row_bytes(column, sizeof(uint16_t)) : 0);
    const uint8_t* values = keys + args.kv.to_values(sizeof(uint16_t));
    PADDOCK_UNROLL for (int i = 0; i < kKvTile / kRows; ++i) {
      const int row = simt::thread_x() / kLanes + i * kRows;
      const uint32_t from = simt::load(&plan->rows[row]);
      const bool there = inside && from != kNoRow;
      const int64_t offset = there ? args.kv.row_distance(from, sizeof(uint16_t)) : 0;
      simt::cp_async16(&to->k[row][column], keys + offset, there ? 16 : 0);
      simt::cp_async16(&to->v[row][column], values + offset, there ? 16 : 0);
    }
  }
  simt::cp_async_commit();
}

/// Where a warp's two tiles of 16 rows lie: two heads of the same queries, or 32 queries of one.
template <int kHeads>
PADDOCK_DEVICE int head_of(int m) {
  return kHeads == 2 ? m : 0;
}
template <int kHeads>
PADDOCK_DEVICE int query_of(int m) {
  return kHeads == 2 ? simt::warp() * 16 : simt::warp() * 32 + m * 16;
}

/// Writes this warp's queries, rotated and rounded; rows and columns that are none become zero.
template <typename H, int kDim, int kHeads>
PADDOCK_DEVICE void turn_queries(const AttentionArgs& args, const Work* work_at, int32_t rotation,
                                 uint16_t (*to)[kDim + 8]) {
  const Work work = simt::load(work_at);
  constexpr int kUnits = kDim / 4;  // of two pairs each
  const AttentionSequence& s = work.sequence;
  const int dim = args.kv.geometry().head_dim;
  const int half = dim / 2;
  PADDOCK_UNROLL_BY(4) for (int i = 0; i < kUnits; ++i) {
    const int u = i * simt::kWarpSize + simt::lane();
    const int row = u / kUnits;
    const int pair = u % kUnits * 2;
    const int query = query_of<kHeads>(row / 16) + row % 16;
    const int head = head_of<kHeads>(row / 16);
    uint32_t low = 0;
    uint32_t high = 0;
    const bool there = PADDOCK_CHECKED("query", query < work.n) && head < work.n_heads;
    if (there && pair < half) {
      const int64_t angle_row =
          simt::load_const(args.angle_rows + s.first_angle_row + int64_t{rotation} * s.n_tokens +
                           work.first + query);
      const float* angles = args.angles + angle_row * dim + pair;
      const auto cosine = simt::load_const_vec<F32x2>(angles);
      const auto sine = simt::load_const_vec<F32x2>(angles + half);
      const int64_t token = int64_t{s.first_token} + work.first + query;
      const float* q = args.q + (token * args.n_heads + work.head + head) * dim;
      auto x = simt::load_const_vec<F32x2>(q + (args.interleaved ? 2 * pair : pair));
      auto y = simt::load_const_vec<F32x2>(q + (args.interleaved ? 2 * pair + 2 : pair + half));
      if (args.interleaved) {
        const float second = x.y;
        x.y = y.x;
        y.x = second;
      }
      const float x0 = simt::fma(x.x, cosine.x, -(y.x * sine.x));
      const float y0 = simt::fma(x.x, sine.x, y.x * cosine.x);
      const float x1 = simt::fma(x.y, cosine.y, -(y.y * sine.y));
      const float y1 = simt::fma(x.y, sine.y, y.y * cosine.y);
      low = args.interleaved ? simt::pack2<H>(x0, y0) : simt::pack2<H>(x0, x1);
      high = args.interleaved ? simt::pack2<H>(x1, y1) : simt::pack2<H>(y0, y1);
    }
    // Pairs past half fill the columns past head_dim.
    const bool apart = !args.interleaved && pair < half;
    simt::store_vec(&to[row][apart ? pair : 2 * pair], low);
    simt::store_vec(&to[row][apart ? pair + half : 2 * pair + 2], high);
  }
}

/// scores = q k^T of this warp's rows.
template <typename H, int kDim>
PADDOCK_DEVICE void multiply_keys(uint16_t (*q)[kDim + 8], uint16_t (*k)[kDim + 8],
                                  float (&scores)[2][kKvTile / 8][4]) {
  const int lane = simt::lane();
  const uint16_t* q_row = &q[lane % 16][lane / 16 * 8];
  const uint16_t* k_row = &k[lane / 16 * 8 + lane % 8][lane / 8 % 2 * 8];
  PADDOCK_UNROLL for (int d = 0; d < kDim; d += 16) {
    uint32_t a[2][4];
    PADDOCK_UNROLL for (int m = 0; m < 2; ++m) {
      simt::ldmatrix_x4(a[m], q_row + m * 16 * (kDim + 8) + d);
    }
    PADDOCK_UNROLL for (int n = 0; n < kKvTile / 8; n += 2) {
      uint32_t b[4];
      simt::ldmatrix_x4(b, k_row + n * 8 * (kDim + 8) + d);
      PADDOCK_UNROLL for (int m = 0; m < 2; ++m) {
        simt::mma_m16n8k16<H>(scores[m][n], a[m], {b[0], b[1]});
        simt::mma_m16n8k16<H>(scores[m][n + 1], a[m], {b[2], b[3]});
      }
    }
  }
}

/// output += weights v, the weights rounded to H.
template <typename H, int kDim>
PADDOCK_DEVICE void multiply_values(const float (&weights)[2][kKvTile / 8][4],
                                    uint16_t (*v)[kDim + 8], float (&output)[2][kDim / 8][4]) {
  const uint16_t* v_row = &v[simt::lane() % 16][simt::lane() / 16 * 8];
  PADDOCK_UNROLL for (int k = 0; k < kKvTile / 16; ++k) {
    uint32_t a[2][4];
    PADDOCK_UNROLL for (int m = 0; m < 2; ++m) {
      PADDOCK_UNROLL for (int i = 0; i < 4; ++i) {
        const float(&w)[4] = weights[m][2 * k + i / 2];
        a[m][i] = simt::pack2<H>(w[i % 2 * 2], w[i % 2 * 2 + 1]);
      }
    }
    PADDOCK_UNROLL for (int n = 0; n < kDim / 8; n += 2) {
      uint32_t b[4];
      simt::ldmatrix_x4_trans(b, v_row + k * 16 * (kDim + 8) + n * 8);
      PADDOCK_UNROLL for (int m = 0; m < 2; ++m) {
        simt::mma_m16n8k16<H>(output[m][n], a[m], {b[0], b[1]});
        simt::mma_m16n8k16<H>(output[m][n + 1], a[m], {b[2], b[3]});
      }
    }
  }
}

/// A row after the other, for few registers; two heads of the same queries see the same.
template <int kHeads>
PADDOCK_DEVICE void mask_scores(const Work* work_at, const Plan* plan,
                                float (&scores)[2][kKvTile / 8][4]) {
  const Work work = simt::load(work_at);
  const int lane = simt::lane();
  PADDOCK_UNROLL for (int m = 0; m < 2; m += kHeads) {
    PADDOCK_UNROLL for (int r = 0; r < 2; ++r) {
      const int32_t t = work.first_t + query_of<kHeads>(m) + lane / 4 + r * 8;
      PADDOCK_UNROLL for (int n = 0; n < kKvTile / 8; ++n) {
        PADDOCK_UNROLL for (int c = 0; c < 2; ++c) {
          const int32_t position = simt::load(&plan->positions[n * 8 + lane % 4 * 2 + c]);
          if (is_visible(work.sequence.visibility, t, position)) continue;
          PADDOCK_UNROLL for (int h = 0; h < kHeads; ++h) scores[m + h][n][2 * r + c] = -INFINITY;
        }
      }
    }
  }
}

/// A row's softmax so far, for one tile of 16 rows: of rows lane/4 and lane/4 + 8. Scores in powers
/// of two.
struct Softmax {
  float largest[2];
  float sum[2];  // of this lane's columns
};

/// Turns scores into weights relative to the largest so far and rescales what was summed before.
template <int kDim>
PADDOCK_DEVICE void take_scores(float scale, float (&scores)[kKvTile / 8][4], Softmax& softmax,
                                float (&output)[kDim / 8][4]) {
  float rescale[2];
  PADDOCK_UNROLL for (int r = 0; r < 2; ++r) {
    float top = -INFINITY;
    PADDOCK_UNROLL for (int n = 0; n < kKvTile / 8; ++n) {
      top = simt::max(top, simt::max(scores[n][2 * r], scores[n][2 * r + 1]));
    }
    top = simt::max(top, simt::shfl_xor(top, 1));
    top = simt::max(top, simt::shfl_xor(top, 2));
    top = simt::max(softmax.largest[r], top * scale);
    const float base = top == -INFINITY ? 0.0F : top;  // a row that has seen nothing yet
    rescale[r] = simt::fast_exp2(softmax.largest[r] - base);
    softmax.largest[r] = top;
    float sum = 0;
    PADDOCK_UNROLL for (int n = 0; n < kKvTile / 8; ++n) {
      PADDOCK_UNROLL for (int c = 2 * r; c < 2 * r + 2; ++c) {
        scores[n][c] = simt::fast_exp2(simt::fma(scores[n][c], scale, -base));
        sum += scores[n][c];
      }
    }
    softmax.sum[r] = simt::fma(softmax.sum[r], rescale[r], sum);
  }
  if (!simt::any(rescale[0] != 1.0F || rescale[1] != 1.0F)) return;
  PADDOCK_UNROLL for (int n = 0; n < kDim / 8; ++n) {
    PADDOCK_UNROLL for (int i = 0; i < 4; ++i) output[n][i] *= rescale[i / 2];
  }
}

template <int kDim, int kHeads>
PADDOCK_DEVICE void write_rows(const AttentionArgs& args, const Work* work_at, int m,
                               Softmax& softmax, const float (&output)[kDim / 8][4]) {
  const Work work = simt::load(work_at);
  const int column = simt::lane() % 4 * 2;
  PADDOCK_UNROLL for (int r = 0; r < 2; ++r) {
    float sum = softmax.sum[r];
    sum += simt::shfl_xor(sum, 1);
    sum += simt::shfl_xor(sum, 2);
    const float factor = sum > 0 ? 1 / sum : 0.0F;
    const int query = query_of<kHeads>(m) + simt::lane() / 4 + r * 8;
    if (!PADDOCK_CHECKED("row", query < work.n)) continue;
    if (!PADDOCK_CHECKED("head", head_of<kHeads>(m) < work.n_heads)) continue;
    const int64_t token = int64_t{work.sequence.first_token} + work.first + query;
    const int64_t row = token * args.n_heads + work.head + head_of<kHeads>(m);
    float* out = args.out + row * args.kv.geometry().head_dim + column;
    PADDOCK_UNROLL for (int n = 0; n < kDim / 8; ++n) {
      if (n * 8 < args.kv.geometry().head_dim) {
        simt::store_vec(out + n * 8,
                        F32x2{output[n][2 * r] * factor, output[n][2 * r + 1] * factor});
      }
    }
    if (args.lse != nullptr && column == 0) {
      simt::store(args.lse + row, (softmax.largest[r] + simt::fast_log2(sum)) * kLn2);
    }
  }
}

template <int kHeads>
PADDOCK_DEVICE Work find_work(const AttentionArgs& args, const PrefillList& list) {
  const int per_kv_head = args.n_heads / args.kv.geometry().n_kv_heads;
  const int pieces = (per_kv_head + kHeads - 1) / kHeads;
  const int piece = simt::block_x() % (pieces * args.kv.geometry().n_kv_heads);
  const auto tile =
      simt::load_const(list.tiles + simt::block_x() / (pieces * args.kv.geometry().n_kv_heads));
  Work work;
  work.sequence = simt::load_const(args.sequences + tile.sequence);
  work.first = tile.first;
  work.n = simt::min(kPrefillTile, work.sequence.n_tokens - tile.first);
  work.first_t = work.sequence.first_position + tile.first;
  work.last_t = work.first_t + work.n - 1;
  work.kv_head = piece / pieces;
  work.head = work.kv_head * per_kv_head + piece % pieces * kHeads;
  work.n_heads = simt::min(kHeads, per_kv_head - piece % pieces * kHeads);
  return work;
}

template <typename H, int kDim, int kHeads>
PADDOCK_KERNEL(kHeads * 64, 4 / kHeads)
void prefill_kernel(AttentionArgs args, PrefillList list) {
  constexpr int kThreads = kHeads * 64;
  constexpr int kWarps = Shared<kDim, kHeads>::kWarps;
  auto* shared = simt::dynamic_shared<Shared<kDim, kHeads>>();
  uint16_t(*queries)[kDim + 8] = &shared->q[simt::warp() * 32];
  float output[2][kDim / 8][4] = {};
  Softmax softmax[2] = {{{-INFINITY, -INFINITY}, {0, 0}}, {{-INFINITY, -INFINITY}, {0, 0}}};

  const Work* work = &shared->work;
  if (simt::thread_x() == 0) simt::store(&shared->work, find_work<kHeads>(args, list));
  if (simt::lane() == 0) simt::store(&shared->cursors[simt::warp()], Cursor{});
  PADDOCK_SYNC("work found");
  plan_tile(args, work, &shared->cursors[simt::warp()], simt::warp(), &shared->plans[simt::warp()]);
  PADDOCK_SYNC("first tiles planned");
  int32_t rotation = simt::load(&shared->plans[0].rotation);
  int32_t turned = -1;  // the rotation of the queries
  if (rotation >= 0) copy_tile<kDim, kThreads>(args, &shared->plans[0], &shared->stages[0]);
  for (int tile = 0; rotation >= 0; ++tile) {
    const Plan* plan = &shared->plans[tile % (2 * kWarps)];
    const Plan* next = &shared->plans[(tile + 1) % (2 * kWarps)];
    PADDOCK_CP_ASYNC_WAIT("tile", 0);
    PADDOCK_SYNC("tile ready, the one before used");
    const int32_t next_rotation = simt::load(&next->rotation);
    if (next_rotation >= 0) copy_tile<kDim, kThreads>(args, next, &shared->stages[(tile + 1) % 2]);
    if (tile % kWarps == 0) {
      const int to = (tile + kWarps) % (2 * kWarps) + simt::warp();
      plan_tile(args, work, &shared->cursors[simt::warp()], kWarps - 1, &shared->plans[to]);
    }
    if (rotation != turned) {
      turn_queries<H, kDim, kHeads>(args, work, rotation, queries);
      PADDOCK_SYNC_WARP("queries turned");
      turned = rotation;
    }
    Stage<kDim>* stage = &shared->stages[tile % 2];
    float scores[2][kKvTile / 8][4] = {};
    multiply_keys<H, kDim>(queries, stage->k, scores);
    if (simt::load(&plan->masked) != 0) mask_scores<kHeads>(work, plan, scores);
    PADDOCK_UNROLL for (int m = 0; m < 2; ++m) {
      take_scores<kDim>(args.scale * kLog2E, scores[m], softmax[m], output[m]);
    }
    multiply_values<H, kDim>(scores, stage->v, output);
    rotation = next_rotation;
  }
  PADDOCK_UNROLL for (int m = 0; m < 2; ++m) {
    write_rows<kDim, kHeads>(args, work, m, softmax[m], output[m]);
  }
}

template <typename H, int kDim, int kHeads>
int launch(const AttentionArgs& args, const PrefillList& list, Stream stream) {
  const int32_t per_kv_head = args.n_heads / args.kv.geometry().n_kv_heads;
  const int64_t blocks =
      int64_t{list.n} * args.kv.geometry().n_kv_heads * ((per_kv_head + kHeads - 1) / kHeads);
  if (blocks > INT32_MAX) return kInvalid;
  const simt::Grid grid{static_cast<uint32_t>(blocks)};
  return PADDOCK_LAUNCH((prefill_kernel<H, kDim, kHeads>), grid, kHeads * 64,
                        sizeof(Shared<kDim, kHeads>), stream, args, list);
}

template <typename H, int kDim>
int launch_heads(const AttentionArgs& args, const PrefillList& list, Stream stream) {
  return args.n_heads == args.kv.geometry().n_kv_heads ? launch<H, kDim, 1>(args, list, stream)
                                                       : launch<H, kDim, 2>(args, list, stream);
}

template <typename H>
int launch_dim(const AttentionArgs& args, const PrefillList& list, Stream stream) {
  const int32_t dim = args.kv.geometry().head_dim;
  if (dim <= 64) return launch_heads<H, 64>(args, list, stream);
  if (dim <= 80) return launch_heads<H, 80>(args, list, stream);
  if (dim <= 96) return launch_heads<H, 96>(args, list, stream);
  return launch_heads<H, 128>(args, list, stream);
}

}  // namespace

bool prefill_supports(const PageGeometry& geometry, int32_t n_heads) {
  return (geometry.type == DType::kF16 || geometry.type == DType::kBF16) && geometry.head_dim > 0 &&
         geometry.head_dim <= 128 && geometry.head_dim % 8 == 0 && geometry.block_size > 0 &&
         geometry.n_kv_heads > 0 && n_heads > 0 && n_heads % geometry.n_kv_heads == 0;
}

int prefill_attention(const AttentionArgs& args, const PrefillList& list, Stream stream) {
  if (!prefill_supports(args.kv.geometry(), args.n_heads) || !(args.scale > 0)) {
    return kInvalid;
  }
  if (list.n <= 0) return list.n < 0 ? kInvalid : 0;
  static_assert(sizeof(kKvElements) == 3 * sizeof(KvElement));  // what is neither is bf16
  return args.kv.type() == DType::kF16 ? launch_dim<F16>(args, list, stream)
                                       : launch_dim<Bf16>(args, list, stream);
}

}  // namespace paddock::cuda
