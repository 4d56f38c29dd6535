// What each query gives to each entry of its table, from the logarithms that attention left, and
// the sums over queries that scored eviction rules use. Test: tests/kernels/cuda_mass_test.cpp.
// hot: mass_kernel
//
//   masses[i][e] = sum over heads and over slots p of entry e that query i sees of
//                  fixed(exp(scale * rot(q[i][h]) . k[p] - lse[i][h]))      fixed: units of 2^-32
//
// mass_kernel: block (query * splits + split, KV head * groups of up to 8 query heads, sequence), 4
//   warps that take turns with tiles of 16 keys, as decode_attention.cu (decode_tile.h). Each
//   probability is rounded to fixed point by itself, so that no schedule changes a sum of them.
// add_up_kernel: one block per sequence; a thread owns table entries and walks over the queries.
// Shapes and alignment as in decode_attention.cu. Moves per call: visible slots * head_dim *
// element bytes per KV head (and group of 8), and 8 bytes per (query, entry) for each atomic sum.
#include "cuda/decode_tile.h"

namespace paddock::cuda {
namespace {

using namespace tile;

struct MassParams {
  AttentionArgs args;
  Rows rows;
  int32_t splits;
};

constexpr int kClearThreads = 256;

PADDOCK_KERNEL(kClearThreads)
void clear_kernel(AttentionArgs args) {
  const auto s = simt::load_const(args.sequences + simt::block_y());
  const int64_t i = int64_t{simt::block_x()} * kClearThreads + simt::thread_x();
  if (s.first_mass < 0 || !PADDOCK_CHECKED("mass", i < int64_t{s.n_tokens} * s.n_entries)) return;
  simt::store(args.masses + s.first_mass + i, 0);
}

template <typename S>
PADDOCK_HD inline int32_t mass_warp_bytes(const Rows& rows) {
  return S::kStages * kTile * rows.vectors * 16 + (S::kStages + 1) * kTile * 4 +
         S::kHeads * S::kPitch * 4;
}

/// What the lanes' scores of the `n` rows of a tile give, all heads together, to the rows' entries.
/// `is_real`: this lane's head is one of the query's.
template <typename S>
PADDOCK_DEVICE void add_masses(const float (&scores)[S::kScores], float lse, int32_t n,
                               bool is_real, const int32_t* entries, int64_t* masses) {
  PADDOCK_UNROLL for (int i = 0; i < S::kScores; ++i) {
    const int row = S::row_of_score(i);
    int64_t mass = row < n && is_real ? to_fixed(simt::fast_exp2(scores[i] - lse)) : 0;
    PADDOCK_UNROLL for (int mask = 1; mask < S::kHeads; mask *= 2) {
      mass += simt::shfl_xor(mass, mask);
    }
    const bool leads = simt::lane() % S::kHeads == 0;
    if (leads && row < n) simt::atomic_add(masses + simt::load(entries + row), mass);
  }
}

template <typename S>
PADDOCK_KERNEL(kThreads, S::kBlocks)
void mass_kernel(MassParams p) {
  const auto sequence = simt::load_const(p.args.sequences + simt::block_z());
  const int32_t index = simt::block_x() / p.splits;
  if (sequence.first_mass < 0 || !PADDOCK_CHECKED("query", index < sequence.n_tokens)) return;
  const Query query = make_query(p.args, sequence, index, S::kHeads, simt::block_y());
  const LiveEntries live = live_entries(p.args, query);
  const EntryRange range =
      cut_table(p.args.kv.geometry(), sequence.visibility, query.position(), live.n)
          .range(simt::block_x() % p.splits);
  const int lane = simt::lane();
  const int head = lane % S::kHeads;  // of this lane's scores
  float lse = 0;
  if (PADDOCK_CHECKED("head", head < query.n_heads)) {
    lse = kLog2E *
          simt::load_const(p.args.lse + query.token() * p.args.n_heads + query.first_head + head);
  }

  const int32_t stage_bytes = kTile * p.rows.vectors * 16;
  uint8_t* stages = simt::dynamic_shared<uint8_t>() + simt::warp() * mass_warp_bytes<S>(p.rows);
  // The table entry of each row, [kStages + 1][kTile]: one stage more than rows have, so that the
  // next tile's entries are written where nobody reads and one barrier per tile is enough.
  auto* entries = reinterpret_cast<int32_t*>(stages + S::kStages * stage_bytes);
  auto* queries = reinterpret_cast<float*>(entries + (S::kStages + 1) * kTile);
  int64_t* masses = p.args.masses + sequence.first_mass + int64_t{index} * sequence.n_entries;

  Walk walk(p.args, query, live, range, p.rows.bytes);
  int32_t stage_rows = 0;      // of stage lane()
  int32_t stage_rotation = 0;  // likewise
  const auto fetch = [&](int i) {
    const int stage = i % S::kStages;
    const Tile tile = walk.next();
    if (lane == stage) {
      stage_rows = tile.n;
      stage_rotation = tile.rotation;
    }
    if (tile.n > 0) {
      copy_tile<S>(p.args, p.rows, tile, 1, stages + stage * stage_bytes);
      if (lane < kTile) simt::store(entries + i % (S::kStages + 1) * kTile + lane, tile.entry);
    }
    simt::cp_async_commit();
  };

  float q[S::kHeads][8];
  int32_t rotation = -1;
  for (int tile = 0; tile + 1 < S::kStages; ++tile) fetch(tile);
  for (int tile = 0;; ++tile) {
    fetch(tile + S::kStages - 1);
    PADDOCK_SYNC_WARP("entries ready");
    const int stage = tile % S::kStages;
    const int32_t n = simt::shfl(stage_rows, stage);
    if (n == 0) break;
    const int32_t turned = simt::shfl(stage_rotation, stage);
    if (turned != rotation) {
      rotation = turned;
      rotate_queries<S>(p.args, query, rotation, queries, q);
    }
    PADDOCK_CP_ASYNC_WAIT("stage", S::kStages - 1);
    float scores[S::kScores];
    score_tile<S>(stages + stage * stage_bytes, p.rows.vectors, q, scores);
    add_masses<S>(scores, lse, n, head < query.n_heads, entries + tile % (S::kStages + 1) * kTile,
                  masses);
  }
}

// ---- sums over queries ----
constexpr int kAddThreads = 256;
constexpr int kAddWarps = kAddThreads / simt::kWarpSize;
constexpr int kAddQueries = 128;  // at a time

struct AddParams {
  AttentionArgs args;
  const int64_t* uses_first;
  BlockUse* uses;
};

PADDOCK_DEVICE int32_t live_count(const AttentionArgs& args, const AttentionSequence& s, int32_t e,
                                  int32_t t) {
  const BlockEntry entry = load_entry(args.entries + s.first_entry + e);
  const SlotRange live = live_slots(entry, s.visibility, t);
  return live.end - live.begin;
}

PADDOCK_KERNEL(kAddThreads)
void add_up_kernel(AddParams p) {
  PADDOCK_SHARED(int64_t, visible, kAddQueries);
  const auto s = simt::load_const(p.args.sequences + simt::block_x());
  if (s.first_mass < 0) return;
  BlockUse* uses = p.uses + simt::load_const(p.uses_first + simt::block_x());
  for (int32_t first = 0; first < s.n_tokens; first += kAddQueries) {
    const int32_t n = simt::min(kAddQueries, s.n_tokens - first);
    PADDOCK_SYNC("counts used");
    for (int32_t i = simt::warp(); i < n; i += kAddWarps) {
      int64_t count = 0;
      for (int32_t e = simt::lane(); e < s.n_entries; e += simt::kWarpSize) {
        count += live_count(p.args, s, e, s.first_position + first + i);
      }
      PADDOCK_UNROLL for (int mask = 1; mask < simt::kWarpSize; mask *= 2) {
        count += simt::shfl_xor(count, mask);
      }
      if (simt::lane() == 0) simt::store(visible + i, count);
    }
    PADDOCK_SYNC("counts ready");
    for (int32_t e = simt::thread_x(); e < s.n_entries; e += kAddThreads) {
      BlockUse use{0, -1, 0};
      if (first > 0) use = simt::load(uses + e);
      for (int32_t i = 0; i < n; ++i) {
        const int32_t t = s.first_position + first + i;
        const int64_t mass =
            simt::load_const(p.args.masses + s.first_mass + int64_t{first + i} * s.n_entries + e);
        const int32_t live = live_count(p.args, s, e, t);
        use.mass += mass;
        if (live > 0 && is_fair_share(mass, p.args.n_heads, live, simt::load(visible + i))) {
          use.last_used = t;
        }
      }
      simt::store(uses + e, use);
    }
  }
}

}  // namespace

int attention_mass(const AttentionArgs& args, int32_t n_sequences, int32_t max_tokens,
                   int32_t max_entries, Stream stream) {
  if (n_sequences == 0 || max_tokens == 0 || max_entries == 0) return 0;
  if (!is_supported(args) || n_sequences < 0 || max_tokens < 0 || max_entries < 0) return kInvalid;
  if (n_sequences > 65535 || args.lse == nullptr || args.masses == nullptr) return kInvalid;
  const MassParams params{args, rows_of(args), split_bound(args.kv.geometry(), max_entries)};
  const int64_t blocks = int64_t{max_tokens} * params.splits;
  const int64_t clears = divide_up(int64_t{max_tokens} * max_entries, kClearThreads);
  if (blocks > INT32_MAX || clears > INT32_MAX) return kInvalid;
  const auto sequences = static_cast<uint32_t>(n_sequences);
  const int error =
      PADDOCK_LAUNCH(clear_kernel, simt::Grid{static_cast<uint32_t>(clears), sequences},
                     kClearThreads, 0, stream, args);
  if (error != 0) return error;
  return with_shape(args, [&](auto shape) {
    using S = decltype(shape);
    const int64_t per_kv = args.n_heads / args.kv.geometry().n_kv_heads;
    const int64_t groups = args.kv.geometry().n_kv_heads * divide_up(per_kv, S::kHeads);
    const simt::Grid grid{static_cast<uint32_t>(blocks), static_cast<uint32_t>(groups), sequences};
    return PADDOCK_LAUNCH(mass_kernel<S>, grid, kThreads, kWarps * mass_warp_bytes<S>(params.rows),
                          stream, params);
  });
}

int add_up_uses(const AttentionArgs& args, const int64_t* uses_first, BlockUse* uses,
                int32_t n_sequences, int32_t max_entries, Stream stream) {
  if (n_sequences == 0 || max_entries == 0) return 0;
  if (n_sequences < 0 || max_entries < 0) return kInvalid;
  return PADDOCK_LAUNCH(add_up_kernel, simt::Grid{static_cast<uint32_t>(n_sequences)}, kAddThreads,
                        0, stream, AddParams{args, uses_first, uses});
}

}  // namespace paddock::cuda
