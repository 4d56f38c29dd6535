// How decode_attention.cu, decode_tensor.cu and attention_mass.cu cut one query token's table into
// splits and tiles.
//
// A split is a run of table entries with bounds that depend on the entries that the query may still
// see, its position and its visibility alone. Its slots that the query sees, in table order, are
// cut into tiles of up to kTile slots of one rotation; the warps of a block take turns with them
// and share nothing, so that the main loop needs no block barrier.
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

/// How many LiveEntries of a query at `t` make a split: at least kSplitTokens slots, more in long
/// tables. Computed in 32 bits, because a division of 64 takes a block as long as a load does.
PADDOCK_HD inline uint32_t entries_per_split(const PageGeometry& g, const Visibility& v, int32_t t,
                                             int32_t n_entries) {
  const auto most = static_cast<uint32_t>(most_splits(g.n_kv_heads));
  int64_t seen = int64_t{n_entries} * g.block_size;  // no fewer slots than the query sees
  if (int64_t{t} + 1 < seen) seen = int64_t{t} + 1;
  if (int64_t{v.sinks} + v.window < seen) seen = int64_t{v.sinks} + v.window;
  const auto span = static_cast<uint32_t>(seen);
  uint32_t tokens = span / 16 < 2 * kSplitTokens ? span / 16 : 2 * kSplitTokens;
  if (tokens < kSplitTokens) tokens = kSplitTokens;
  const uint32_t fewest = (span + most - 1) / most;
  if (tokens < fewest) tokens = fewest;
  const auto block = static_cast<uint32_t>(g.block_size);
  return (tokens + block - 1) / block;
}

struct EntryRange {
  int32_t begin, end;
};

/// How one query's LiveEntries are cut.
struct Splits {
  int32_t n;          // splits that are not empty; 1 for an empty table
  int32_t per_split;  // entries of each; the last of `most` takes all that are left
  int32_t n_entries;  // of all splits together
  int32_t most;       // splits that any table can have
  /// Empty past the last one.
  PADDOCK_HD EntryRange range(int32_t split) const {
    const int64_t from = int64_t{split} * per_split;
    const int64_t to = split + 1 == most ? n_entries : from + per_split;
    const auto end = static_cast<int32_t>(to < n_entries ? to : n_entries);
    return {from < end ? static_cast<int32_t>(from) : end, end};
  }
};
PADDOCK_HD inline Splits cut_table(const PageGeometry& g, const Visibility& v, int32_t t,
                                   int32_t n_entries) {
  const int32_t most = most_splits(g.n_kv_heads);
  const uint32_t per_split = entries_per_split(g, v, t, n_entries);
  const auto needed =
      static_cast<int32_t>((static_cast<uint32_t>(n_entries) + per_split - 1) / per_split);
  return {needed < 1      ? 1
          : needed < most ? needed
                          : most,
          static_cast<int32_t>(per_split), n_entries, most};
}

/// Whether the kernels can take these; `n_heads` is a multiple of KV heads.
inline bool is_supported(const AttentionArgs& a) {
  const PageGeometry& g = a.kv.geometry();
  return a.kv.is_known() && g.n_kv_heads > 0 && g.block_size > 0 && g.head_dim >= kMinHeadDim &&
         g.head_dim <= kMaxHeadDim && g.head_dim % 2 == 0 && a.n_heads > 0 &&
         a.n_heads % g.n_kv_heads == 0;
}

// ---- softmax ----
/// log of the denominator from the largest exponent of two and the sum beside it.
PADDOCK_DEVICE float natural_log(float largest, float sum) {
  return largest == -INFINITY ? largest : (largest + simt::fast_log2(sum)) * kLn2;
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

/// What item `i` of the list is about.
struct ListItem {
  AttentionSequence sequence;
  int32_t index;  // of the token among the sequence's
};
PADDOCK_DEVICE ListItem load_item(const AttentionArgs& args, const DecodeList& list, int32_t i) {
  if (list.tokens == nullptr) return {simt::load_const(args.sequences + i), 0};
  const auto sequence = simt::load_const(args.sequences + simt::load_const(list.sequences + i));
  return {sequence, simt::load_const(list.tokens + i) - sequence.first_token};
}

/// `group`: which KV head, and which kHeads of its query heads.
PADDOCK_DEVICE Query make_query(const AttentionArgs& args, const AttentionSequence& sequence,
                                int32_t index, int32_t heads, int32_t group) {
  const int32_t per_kv = args.n_heads / args.kv.geometry().n_kv_heads;
  const int32_t groups = (per_kv + heads - 1) / heads;
  const int32_t first = group % groups * heads;
  return {sequence, index, group / groups, group / groups * per_kv + first,
          simt::min(heads, per_kv - first)};
}

PADDOCK_DEVICE BlockEntry load_entry(const BlockEntry* at) {
  const auto words = simt::load_const_vec<simt::U32x4>(at);
  BlockEntry entry;
  memcpy(&entry, &words, sizeof(entry));
  return entry;
}

/// The entries of a table that a query may still see, numbered without those that its window has
/// passed. The host takes such entries out of a table when it gets to it, sooner or later; splits
/// are cut by these numbers, so that a result does not depend on when it does.
struct LiveEntries {
  int32_t n;          // how many there are
  int32_t sinks = 0;  // numbers below it are the table's own;
  int32_t skip = 0;   // number i from there on is the table's entry i + skip
  PADDOCK_DEVICE int32_t in_table(int32_t i) const { return i < sinks ? i : i + skip; }
};
PADDOCK_DEVICE LiveEntries live_entries(const AttentionArgs& args, const Query& query) {
  const AttentionSequence& s = query.sequence;
  const int32_t block = args.kv.geometry().block_size;
  LiveEntries live{s.n_entries};
  const int64_t oldest = int64_t{query.position()} - s.visibility.window + 1;
  if (oldest <= s.visibility.sinks) return live;
  const auto sinks = static_cast<int32_t>((static_cast<uint32_t>(s.visibility.sinks) + block - 1) /
                                          static_cast<uint32_t>(block));
  if (sinks >= s.n_entries) return live;
  // After sinks, blocks follow one another.
  const BlockEntry* entries = args.entries + s.first_entry + sinks;
  const auto first = load_entry(entries).first_position / block;
  const int32_t gone = simt::min(static_cast<int32_t>(oldest) / block - first, s.n_entries - sinks);
  if (gone <= 0) return live;
  const BlockEntry last = load_entry(entries + gone - 1);
  // A policy has taken blocks out of the middle: what was counted as passed is partly in view.
  if (last.first_position + last.slot_end > oldest) return live;
  return {s.n_entries - gone, sinks, gone};
}

struct Tile {
  int32_t n;         // rows; 0 past the end
  int32_t rotation;  // of all of them
  int64_t offset;    // bytes from the pool to the key of row lane() % kTile, or of the last one
  int32_t entry;     // in the table, of that row
  bool one_entry;    // all rows are of one: they follow one another in memory
};

/// The tiles of a split that belong to this warp, in order.
class Walk {
 public:
  PADDOCK_DEVICE Walk(const AttentionArgs& args, const Query& query, const LiveEntries& live,
                      EntryRange range, int32_t row_bytes)
      : args_(args),
        query_(query),
        live_(live),
        entries_(args.entries + query.sequence.first_entry),
        next_(range.begin),
        end_(range.end),
        row_bytes_(row_bytes) {}

  /// Goes on with another split, once next() has come to the end.
  PADDOCK_DEVICE void go_on(EntryRange range) {
    next_ = range.begin;
    end_ = range.end;
    total_ = position_ = run_end_ = tile_ = 0;
  }

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
      if (run_end_ == total_ && !load_entries()) return {0, 0, 0, 0, true};
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
        entry = load_entry(entries_ + live_.in_table(first_ + lane));
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
      base_ = args_.kv.key_distance(entry.page, query_.kv_head) +
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
    int32_t lane = simt::first_bit(simt::ballot(after_ > at));  // the first with after_ > row
    const bool one_entry = simt::shfl(after_, lane) >= at + n;
    if (!one_entry) {
      lane = 0;
      PADDOCK_UNROLL for (int half = simt::kWarpSize / 2; half > 0; half /= 2) {
        if (simt::shfl(after_, lane + half - 1) <= row) lane += half;
      }
    }
    return {n, run_rotation_, simt::shfl(base_, lane) + int64_t{row} * row_bytes_,
            live_.in_table(first_ + lane), one_entry};
  }

  const AttentionArgs& args_;
  const Query& query_;
  LiveEntries live_;
  const BlockEntry* entries_;
  int32_t next_, end_;
  int32_t row_bytes_;
  // The 32 entries at hand, one a lane. The slots of them that the query sees are numbered from 0.
  int32_t first_ = 0;               // the first entry's place among the LiveEntries
  int32_t total_ = 0;               // slots seen in all 32
  int32_t before_ = 0, after_ = 0;  // the lane's entry has the slots from before_ to after_ - 1
  int32_t rotation_ = 0;            // the lane's
  int64_t base_ = 0;                // where the lane's entry would have the key of slot number 0
  // Where the walk is among those slots:
  int32_t position_ = 0;
  int32_t run_end_ = 0;
  int32_t run_rotation_ = 0;
  int32_t tile_ = 0;  // the next tile of any warp, counted from the split's begin
};

}  // namespace paddock::cuda::tile
