// What decode_attention.cu and attention_mass.cu share: how one query token's table is cut into
// splits and tiles, how a tile comes into shared memory, and its scores.
//
// A split is a run of table entries with bounds that depend on the table, the token's position and
// its visibility alone. Its slots that the query sees, in table order, are cut into tiles of up to
// kTile slots of one rotation; the warps of a block take turns with them and share nothing, so that
// the main loop needs no block barrier. In a tile, kLanes lanes share a row: lane l of them holds
// 8 elements of it, in 16-byte vectors l (and l + kLanes for float32), which makes accesses to
// shared memory free of conflicts, and the same elements of kHeads rotated queries in registers.
#pragma once

#include <cmath>
#include <cstring>

#include "cuda/device.h"
#include "cuda/launch.h"

namespace paddock::cuda::tile {

inline constexpr int kWarps = 4;
inline constexpr int kThreads = kWarps * simt::kWarpSize;
inline constexpr int kTile = 16;
inline constexpr int kSplitTokens = 128;
inline constexpr int kMaxSplits = 64;
inline constexpr int kMinHeadDim = 16;
inline constexpr int kMaxHeadDim = 256;
inline constexpr float kLog2E = 1.4426950408889634F;
inline constexpr float kLn2 = 0.6931471805599453F;

// ---- splits ----
PADDOCK_HD inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Enough splits that one token's blocks fill a GPU, however few KV heads.
PADDOCK_HD inline int32_t most_splits(int32_t n_kv_heads) {
  const int32_t wanted = 256 / n_kv_heads;
  return wanted < 16 ? 16 : wanted > kMaxSplits ? kMaxSplits : wanted;
}

/// Splits that a table of at most `max_entries` can have.
PADDOCK_HD inline int32_t split_bound(const PageGeometry& g, int32_t max_entries) {
  const int64_t needed = divide_up(max_entries, divide_up(kSplitTokens, g.block_size));
  const int64_t most = most_splits(g.n_kv_heads);
  return static_cast<int32_t>(needed < 1 ? 1 : needed < most ? needed : most);
}

struct EntryRange {
  int32_t begin, end;
};

/// Split `split` of a table as a query at `t` sees it: at least kSplitTokens slots, more for long
/// tables. Empty past the last one.
PADDOCK_HD inline EntryRange split_entries(const PageGeometry& g, const Visibility& v, int32_t t,
                                           int32_t n_entries, int32_t split) {
  const int32_t most = most_splits(g.n_kv_heads);
  int64_t span = int64_t{n_entries} * g.block_size;  // no fewer slots than the query sees
  if (int64_t{t} + 1 < span) span = int64_t{t} + 1;
  const int64_t seen = int64_t{v.sinks} + v.window;
  if (seen < span) span = seen;
  int64_t tokens = span / 16 < 2 * kSplitTokens ? span / 16 : 2 * kSplitTokens;
  if (tokens < kSplitTokens) tokens = kSplitTokens;
  if (tokens < divide_up(span, most)) tokens = divide_up(span, most);
  const int64_t per_split = divide_up(tokens, g.block_size);
  int64_t begin = split * per_split;
  int64_t end = split + 1 == most ? n_entries : begin + per_split;
  if (end > n_entries) end = n_entries;
  if (begin > end) begin = end;
  return {static_cast<int32_t>(begin), static_cast<int32_t>(end)};
}

/// Whether the kernels can take these; `n_heads` is a multiple of KV heads.
inline bool is_supported(const AttentionArgs& a) {
  const PageGeometry& g = a.geometry;
  const bool known = (a.kv_type == DType::kF32 && g.element_bytes == 4) ||
                     (a.kv_type == DType::kF16 && g.element_bytes == 2) ||
                     (a.kv_type == DType::kBF16 && g.element_bytes == 2);
  return known && g.n_kv_heads > 0 && g.block_size > 0 && g.head_dim >= kMinHeadDim &&
         g.head_dim <= kMaxHeadDim && g.head_dim % 2 == 0 && a.n_heads > 0 &&
         a.n_heads % g.n_kv_heads == 0;
}

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
  static constexpr int kStages = kMostTileBytes <= 4096    ? 4
                                 : kMostTileBytes <= 8192  ? (kHeads == 8 ? 3 : 2)
                                 : kMostTileBytes <= 16384 ? 2
                                                           : 1;
  /// Blocks that shared memory lets live on an H100's multiprocessor, for __launch_bounds__.
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
  const int32_t bytes = a.geometry.head_dim * a.geometry.element_bytes;
  return {bytes, static_cast<int32_t>(divide_up(bytes, 16)),
          bytes % 16 == 0 && reinterpret_cast<uintptr_t>(a.pool) % 16 == 0};
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
    if (a.geometry.head_dim <= 64) return use(Shape<T, kHeads, 8>());
    if (a.geometry.head_dim <= 128) return use(Shape<T, kHeads, 16>());
    return use(Shape<T, 4, 32>());  // 8 heads of 256 do not fit into registers
  };
  const bool few = a.n_heads / a.geometry.n_kv_heads <= 4;
  const auto with_heads = [&](auto type) {
    return few ? with_lanes(type, Heads<4>()) : with_lanes(type, Heads<8>());
  };
  if (a.kv_type == DType::kF32) return with_heads(float());
  if (a.kv_type == DType::kF16) return with_heads(simt::F16());
  return with_heads(simt::Bf16());
}

// ---- the query token and its tiles ----
/// What a block works on.
struct Query {
  AttentionSequence sequence;
  int32_t index;  // among the sequence's tokens
  int32_t kv_head;
  int32_t first_head;  // of the heads in hand, and
  int32_t n_heads;     // how many, up to kHeads
  PADDOCK_DEVICE int32_t position() const { return sequence.first_position + index; }
  PADDOCK_DEVICE int64_t token() const { return int64_t{sequence.first_token} + index; }
};

/// `group`: which KV head, and which kHeads of its query heads.
PADDOCK_DEVICE Query make_query(const AttentionArgs& args, const AttentionSequence& sequence,
                                int32_t index, int32_t heads, int32_t group) {
  const int32_t per_kv = args.n_heads / args.geometry.n_kv_heads;
  const int32_t groups = (per_kv + heads - 1) / heads;
  const int32_t first = group % groups * heads;
  return {sequence, index, group / groups, group / groups * per_kv + first,
          simt::min(heads, per_kv - first)};
}

struct Tile {
  int32_t n;         // rows; 0 past the end
  int32_t rotation;  // of all of them
  int64_t offset;    // bytes from the pool to the key of row lane() % kTile, or of the last one
  int32_t entry;     // in the table, of that row
};

/// The tiles of a split that belong to this warp, in order.
class Walk {
 public:
  PADDOCK_DEVICE Walk(const AttentionArgs& args, const Query& query, EntryRange range,
                      int32_t row_bytes)
      : args_(args),
        query_(query),
        entries_(args.entries + query.sequence.first_entry),
        next_(range.begin),
        end_(range.end),
        row_bytes_(row_bytes) {}

  PADDOCK_DEVICE Tile next() {
    for (;;) {
      const int32_t skip = (simt::warp() - tile_) & (kWarps - 1);
      const int32_t at = position_ + skip * kTile;
      if (at < run_end_) {
        tile_ += skip + 1;
        position_ = at + kTile;
        return tile_at(at);
      }
      if (position_ < run_end_) tile_ += (run_end_ - position_ + kTile - 1) / kTile;
      position_ = run_end_;
      if (run_end_ == total_ && !load_entries()) return {0, 0, 0, 0};
      start_run();
    }
  }

 private:
  /// The next 32 entries of which the query sees anything, one per lane.
  PADDOCK_DEVICE bool load_entries() {
    const int32_t t = query_.position();
    const int lane = simt::lane();
    while (next_ < end_) {
      first_ = next_;
      next_ += simt::kWarpSize;
      BlockEntry entry{0, INT32_MAX, 0, 0, 0};
      SlotRange live{0, 0};
      if (PADDOCK_CHECKED("entry", first_ + lane < end_)) {
        const auto words = simt::load_const_vec<simt::U32x4>(entries_ + first_ + lane);
        memcpy(&entry, &words, sizeof(entry));
        live = live_slots(entry, query_.sequence.visibility, t);
      }
      const int32_t count = live.end - live.begin;
      after_ = count;
      PADDOCK_UNROLL for (int delta = 1; delta < simt::kWarpSize; delta *= 2) {
        const int32_t other = simt::shfl(after_, lane - delta);
        if (lane >= delta) after_ += other;
      }
      before_ = after_ - count;
      rotation_ = entry.rotation;
      const PageGeometry& g = args_.geometry;
      base_ = entry.page * g.page_bytes() +
              g.k_slot_offset(query_.kv_head, 0, 0) * g.element_bytes +
              int64_t{live.begin - before_} * row_bytes_;
      total_ = simt::shfl(after_, simt::kWarpSize - 1);
      position_ = 0;
      run_end_ = 0;
      if (total_ > 0) return true;
      if (simt::all(entry.first_position > t)) next_ = end_;
    }
    return false;
  }

  /// Finds where the rotation at position_ ends.
  PADDOCK_DEVICE void start_run() {
    run_rotation_ = simt::shfl(rotation_, simt::first_bit(simt::ballot(after_ > position_)));
    const uint32_t others =
        simt::ballot(after_ > before_ && before_ >= position_ && rotation_ != run_rotation_);
    run_end_ = others == 0 ? total_ : simt::shfl(before_, simt::first_bit(others));
  }

  PADDOCK_DEVICE Tile tile_at(int32_t at) const {
    const int32_t n = simt::min(kTile, run_end_ - at);
    const int32_t row = at + simt::min(simt::lane() % kTile, n - 1);
    int32_t lane = 0;  // the first with after_ > row
    PADDOCK_UNROLL for (int half = simt::kWarpSize / 2; half > 0; half /= 2) {
      if (simt::shfl(after_, lane + half - 1) <= row) lane += half;
    }
    return {n, run_rotation_, simt::shfl(base_, lane) + int64_t{row} * row_bytes_, first_ + lane};
  }

  const AttentionArgs& args_;
  const Query& query_;
  const BlockEntry* entries_;
  int32_t next_, end_;
  int32_t row_bytes_;
  // Of the 32 entries at hand, of which the query sees total_ slots; lane by lane:
  int32_t first_ = 0;
  int32_t total_ = 0;
  int32_t before_ = 0, after_ = 0;  // slots seen before the lane's entry, and up to its end
  int32_t rotation_ = 0;
  int64_t base_ = 0;  // bytes to the key of the lane's entry that would be slot 0 of the 32 entries
  // Where the walk is among those slots:
  int32_t position_ = 0;
  int32_t run_end_ = 0;
  int32_t run_rotation_ = 0;
  int32_t tile_ = 0;  // of all warps, counted from the split's begin
};

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
  const int64_t to_values = args.geometry.side_elements() * args.geometry.element_bytes;
  const int lane = simt::lane();
  PADDOCK_UNROLL for (int pass = 0; pass < S::kPasses; ++pass) {
    const int row = pass * S::kRowsAtOnce + lane / S::kLanes;
    const uint8_t* row_from = args.pool + simt::shfl(tile.offset, row);
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
  const int32_t dim = args.geometry.head_dim;
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
