// The attention kernel, compiled once per instruction set and once as the reference. The including
// file defines, in its own namespace, before it includes this one:
//   Lanes, IntLanes                      vectors of floats and ints that fit its registers
//   Lanes madd(Lanes a, Lanes b, Lanes c)                        a * b + c
//   Lanes exp_lanes(Lanes x)                                     for x <= 0
//   template <DType kType> Lanes elements(const uint8_t* from)   that many elements as float32
//   template <DType kType> void convert(const uint8_t* from, int64_t n, float* to)
//                                        n elements to float32
//   int kRowBlock, kVectorBlock          rows and vectors of sums that its registers hold at once
//   int kDirectRows                      up to so many rows read keys and values where they lie:
//                                        what is used once is not worth writing down
//
// and holds the kernel:
//   attention: out = softmax(q K^T * scale) V, over what each query sees, by online softmax over
//   tiles (Milakov and Gimelshein, arXiv 1805.02867).

#include "cpu/attention_lanes.h"

/// One entry's part in a tile.
struct TilePart {
  const BlockEntry* entry;
  LaneRange lanes;
};

/// Keys of kN slots (of `n`, where kN is 0): a row of them for each dim.
template <DType kType, int kN>
inline void gather_dims(const uint8_t* from, int64_t to_next_dim, int32_t dim, int32_t n,
                        float* to) {
  for (int32_t d = 0; d < dim; ++d, from += to_next_dim, to += kTile) {
    convert<kType>(from, kN > 0 ? kN : n, to);
  }
}

template <DType kType>
class AttentionRun {
 public:
  AttentionRun(const AttentionArgs& args, const AttentionTask& task, float* base)
      : args_(args),
        task_(task),
        sequence_(*task.sequence),
        scratch_(args, base),
        dim_(args.kv.geometry().head_dim),
        heads_(args.n_heads / args.kv.geometry().n_kv_heads),
        rows_(task.n * heads_) {}

  void run() {
    for (int64_t i = 0; i < rows_ * dim_; ++i) scratch_.output[i] = 0.0F;
    for (int32_t r = 0; r < rows_; ++r) {
      scratch_.largest[r] = -3.0e38F;
      scratch_.sum[r] = 0.0F;
    }
    int32_t at = 0;    // the entry, and
    int64_t next = 0;  // the next of its positions to be taken
    if (sequence_.n_entries > 0) next = begin_of(0);
    while (at < sequence_.n_entries) {
      // What lies in this tile, of one rotation and without a hole, is taken together.
      tile_ = next / kTile * kTile;
      const int32_t rotation = sequence_.entries[at].rotation;
      const auto first = static_cast<int32_t>(next - tile_);
      LaneRange lanes{first, first};
      n_parts_ = 0;
      while (at < sequence_.n_entries && next == tile_ + lanes.end && lanes.end < kTile &&
             sequence_.entries[at].rotation == rotation) {
        const int64_t end = end_of(at) < tile_ + kTile ? end_of(at) : tile_ + kTile;
        const LaneRange part{lanes.end, static_cast<int32_t>(end - tile_)};
        parts_[n_parts_++] = {&sequence_.entries[at], part};
        lanes.end = part.end;
        next = end;
        if (next == end_of(at) && ++at < sequence_.n_entries) next = begin_of(at);
      }
      if (!seen(lanes)) continue;
      take(lanes, rotation);
      if (sequence_.mass != nullptr) measure();
    }
    write();
    if (sequence_.mass != nullptr) add_masses();
  }

 private:
  static constexpr int kPieces = kTile / kWidth;  // vectors of lanes in a tile
  static constexpr int64_t kBytes = dtype_traits(kType).block_bytes;

  int64_t begin_of(int32_t i) const {
    return int64_t{sequence_.entries[i].first_position} + sequence_.entries[i].slot_begin;
  }
  int64_t end_of(int32_t i) const {
    return int64_t{sequence_.entries[i].first_position} + sequence_.entries[i].slot_end;
  }
  int32_t position(int32_t token) const { return sequence_.first_position + task_.first + token; }

  /// Lanes of `lanes` that a query at t sees; all of them lie on one side of the sink boundary.
  LaneRange visible(LaneRange lanes, int32_t t) const {
    const BlockEntry as_entry{0, static_cast<int32_t>(tile_), static_cast<uint16_t>(lanes.begin),
                              static_cast<uint16_t>(lanes.end), 0};
    const SlotRange live = live_slots(as_entry, sequence_.visibility, t);
    return {live.begin, live.end};
  }
  /// Whether any query of the task sees any of the lanes.
  bool seen(LaneRange lanes) const {
    for (int32_t i = 0; i < task_.n; ++i) {
      const LaneRange live = visible(lanes, position(i));
      if (live.begin < live.end) return true;
    }
    return false;
  }

  /// The softmax's step over the tile: scores and weights of all rows, then their values.
  void take(LaneRange lanes, int32_t rotation) {
    if (rotation != rotation_) rotate(rotation);
    const bool direct = rows_ <= kDirectRows && find_pieces();
    if (!direct) gather_keys();
    for (int32_t r = 0; r < rows_; r += kRowBlock) {
      with_count<kRowBlock>(rows_ - r < kRowBlock ? rows_ - r : kRowBlock,
                            [&](auto rows) { score<rows()>(lanes, r, direct); });
    }
    if (!direct) gather_values();
    for (int32_t r = 0; r < rows_; r += kRowBlock) {
      const int32_t n = rows_ - r < kRowBlock ? rows_ - r : kRowBlock;
      const LaneRange* sees = scratch_.sees + r;
      bool alike = true;
      for (int32_t i = 1; i < n; ++i) {
        alike = alike && sees[i].begin == sees[0].begin && sees[i].end == sees[0].end;
      }
      if (alike) {
        with_count<kRowBlock>(n, [&](auto rows) { add<rows()>(r, direct); });
      } else {
        for (int32_t i = 0; i < n; ++i) add<1>(r + i, direct);
      }
    }
  }

  /// Where the tile's vectors of slots lie in pages. False if one of them crosses a page's border.
  bool find_pieces() {
    for (const uint8_t*& keys : keys_at_) keys = nullptr;
    for (int32_t i = 0; i < n_parts_; ++i) {
      const TilePart& part = parts_[i];
      const int32_t end = (part.lanes.end + kWidth - 1) / kWidth;
      for (int32_t v = part.lanes.begin / kWidth; v < end; ++v) {
        const auto slot = static_cast<int32_t>(tile_ + v * kWidth - part.entry->first_position);
        if (slot < 0 || slot + kWidth > args_.kv.geometry().block_size) return false;
        const uint8_t* keys = args_.kv.k(part.entry->page, task_.kv_head, slot, 0);
        if (keys_at_[v] != nullptr && keys_at_[v] != keys) return false;
        keys_at_[v] = keys;
        values_at_[v] = args_.kv.v(part.entry->page, task_.kv_head, slot, 0);
      }
    }
    // What nobody sees may be read, for nothing: any keys will do.
    const uint8_t* some = keys_at_[parts_[0].lanes.begin / kWidth];
    for (const uint8_t*& keys : keys_at_) keys = keys == nullptr ? some : keys;
    return true;
  }

  int32_t first_slot(const TilePart& part) const {
    return static_cast<int32_t>(tile_ + part.lanes.begin - part.entry->first_position);
  }
  void gather_keys() {
    for (int32_t i = 0; i < n_parts_; ++i) {
      const TilePart& part = parts_[i];
      if (!seen(part.lanes)) continue;
      const int32_t n = part.lanes.end - part.lanes.begin;
      const auto dim = static_cast<int32_t>(dim_);
      const int64_t to_next_dim = args_.kv.dim_bytes();
      const uint8_t* from = args_.kv.k(part.entry->page, task_.kv_head, first_slot(part), 0);
      float* to = scratch_.tile + part.lanes.begin;
      // Blocks of 16 slots are the default: no loop inside the loop.
      if (n == 16) {
        gather_dims<kType, 16>(from, to_next_dim, dim, n, to);
      } else {
        gather_dims<kType, 0>(from, to_next_dim, dim, n, to);
      }
    }
  }
  void gather_values() {
    for (int32_t i = 0; i < n_parts_; ++i) {
      const TilePart& part = parts_[i];
      if (!seen(part.lanes)) continue;
      convert<kType>(args_.kv.v(part.entry->page, task_.kv_head, first_slot(part), 0),
                     (part.lanes.end - part.lanes.begin) * dim_,
                     scratch_.tile + part.lanes.begin * dim_);
    }
  }

  /// Weights of kRows rows from `first` on, and what their output is to be multiplied by.
  template <int kRows>
  void score(LaneRange lanes, int32_t first, bool direct) {
    const float* query = scratch_.query + first * dim_;
    float* scores = scratch_.scores + first * kTile;
    for (int32_t l = 0; l < kTile; l += kVectorBlock * kWidth) {
      if (direct) {
        const int64_t to_next_dim = args_.kv.dim_bytes();
        const uint8_t* keys[kVectorBlock];
        for (int v = 0; v < kVectorBlock; ++v) keys[v] = keys_at_[l / kWidth + v];
        score_rows<kRows>(
            query, dim_,
            [&](int32_t d, int v) { return elements<kType>(keys[v] + d * to_next_dim); },
            scores + l);
      } else {
        const float* keys = scratch_.tile + l;
        score_rows<kRows>(
            query, dim_,
            [&](int32_t d, int v) {
              return load_lanes<Lanes>(keys + int64_t{d} * kTile + v * kWidth);
            },
            scores + l);
      }
    }
    for (int32_t i = 0; i < kRows; ++i) {
      const int32_t r = first + i;
      scratch_.sees[r] = visible(lanes, position(r / heads_));
      if (scratch_.sees[r].begin >= scratch_.sees[r].end) continue;
      scratch_.rescale[r] =
          weigh(scores + i * kTile, scratch_.sees[r], scratch_.largest + r, scratch_.sum + r);
    }
  }

  /// Adds the values to the output of kRows rows from `first` on, all of which see the same lanes.
  template <int kRows>
  void add(int32_t first, bool direct) {
    if (scratch_.sees[first].begin >= scratch_.sees[first].end) return;
    int64_t d = 0;
    for (; d + kVectorBlock * kWidth <= dim_; d += kVectorBlock * kWidth) {
      add_dims<kRows, kVectorBlock>(first, d, direct);
    }
    for (; d + kWidth <= dim_; d += kWidth) add_dims<kRows, 1>(first, d, direct);
    for (; d < dim_; ++d) add_dim<kRows>(first, d, direct);
  }

  template <int kRows, int kVectors>
  void add_dims(int32_t first, int64_t d, bool direct) {
    const LaneRange sees = scratch_.sees[first];
    const float* weights = scratch_.scores + first * kTile;
    add_values<kRows, kVectors>(
        scratch_.rescale + first, dim_, scratch_.output + first * dim_ + d, [&](auto& acc) {
          if (!direct) {
            const float* values = scratch_.tile + d;
            return add_products(
                weights, kTile, sees,
                [&](int32_t l, int v) { return load_lanes<Lanes>(values + l * dim_ + v * kWidth); },
                acc);
          }
          for (int32_t l = sees.begin; l < sees.end;) {
            const int32_t piece = l / kWidth;
            const int32_t end = (piece + 1) * kWidth < sees.end ? (piece + 1) * kWidth : sees.end;
            const uint8_t* values = values_at_[piece] + d * kBytes;
            add_products(
                weights, kTile, {l, end},
                [&](int32_t i, int v) {
                  return elements<kType>(values +
                                         ((i - piece * kWidth) * dim_ + v * kWidth) * kBytes);
                },
                acc);
            l = end;
          }
        });
  }

  /// One dim of those that do not fill a vector.
  template <int kRows>
  void add_dim(int32_t first, int64_t d, bool direct) {
    const LaneRange sees = scratch_.sees[first];
    for (int32_t r = first; r < first + kRows; ++r) {
      float acc = scratch_.output[r * dim_ + d] * scratch_.rescale[r];
      for (int32_t l = sees.begin; l < sees.end; ++l) {
        const float value = direct
                                ? load_element(values_at_[l / kWidth], kType, l % kWidth * dim_ + d)
                                : scratch_.tile[l * dim_ + d];
        acc += scratch_.scores[r * kTile + l] * value;
      }
      scratch_.output[r * dim_ + d] = acc;
    }
  }

  /// Keeps what each row has just given to the parts of this tile.
  void measure() {
    for (int32_t i = 0; i < n_parts_; ++i, ++n_measured_) {
      scratch_.part_entry[n_measured_] = static_cast<int32_t>(parts_[i].entry - sequence_.entries);
      for (int32_t r = 0; r < rows_; ++r) {
        const LaneRange live = visible(parts_[i].lanes, position(r / heads_));
        float given = 0.0F;
        for (int32_t l = live.begin; l < live.end; ++l) given += scratch_.scores[r * kTile + l];
        scratch_.part_sums[int64_t{n_measured_} * rows_ + r] = given;
        scratch_.part_largest[int64_t{n_measured_} * rows_ + r] = scratch_.largest[r];
      }
    }
  }

  /// Adds to the sequence's masses, now that every row's final sum is known.
  void add_masses() {
    for (int32_t p = 0; p < n_measured_; ++p) {
      for (int32_t i = 0; i < task_.n; ++i) {
        int64_t mass = 0;
        for (int32_t r = i * heads_; r < (i + 1) * heads_; ++r) {
          const float given = scratch_.part_sums[int64_t{p} * rows_ + r];
          if (given == 0.0F) continue;
          const float past = scratch_.part_largest[int64_t{p} * rows_ + r] - scratch_.largest[r];
          mass += to_fixed(given * exp_lanes(all_lanes<Lanes>(past))[0] / scratch_.sum[r]);
        }
        if (mass == 0) continue;
        int64_t* to = sequence_.mass + int64_t{task_.first + i} * sequence_.n_entries +
                      scratch_.part_entry[p];
        __atomic_fetch_add(to, mass, __ATOMIC_RELAXED);
      }
    }
  }

  void rotate(int32_t rotation) {
    rotation_ = rotation;
    for (int32_t r = 0; r < rows_; ++r) {
      const int32_t token = task_.first + r / heads_;
      const int32_t row = sequence_.angle_rows[int64_t{rotation} * sequence_.n_tokens + token];
      rotate_query(args_, args_.q + element(r), row, scratch_.query + r * dim_);
    }
  }

  /// Offset of row r (query token, head) in q and out.
  int64_t element(int32_t r) const {
    const int64_t token = sequence_.first_token + task_.first + r / heads_;
    const int64_t head = int64_t{task_.kv_head} * heads_ + r % heads_;
    return (token * args_.n_heads + head) * dim_;
  }

  void write() {
    for (int32_t r = 0; r < rows_; ++r) {
      const float scale = 1.0F / scratch_.sum[r];
      float* out = args_.out + element(r);
      for (int64_t d = 0; d < dim_; ++d) out[d] = scratch_.output[r * dim_ + d] * scale;
    }
  }

  const AttentionArgs& args_;
  const AttentionTask& task_;
  const AttentionSequence& sequence_;
  AttentionScratch scratch_;
  int64_t dim_;
  int32_t heads_;
  int32_t rows_;
  int32_t rotation_ = -1;
  int32_t n_measured_ = 0;  // parts of all tiles so far, where masses are measured
  // The tile at hand.
  int64_t tile_ = 0;  // its first position
  int32_t n_parts_ = 0;
  TilePart parts_[kTile];
  const uint8_t* keys_at_[kPieces];
  const uint8_t* values_at_[kPieces];
};

template <DType kType>
void attention_as(const AttentionArgs& args, int64_t begin, int64_t end, float* scratch) {
  for (int64_t i = begin; i < end; ++i) {
    const AttentionTask task = attention_task(args, i);
    AttentionRun<kType>(args, task, scratch).run();
  }
}

void attention(const AttentionArgs& args, int64_t begin, int64_t end, float* scratch) {
  switch (args.kv.type()) {
    case DType::kF32:
      return attention_as<DType::kF32>(args, begin, end, scratch);
    case DType::kF16:
      return attention_as<DType::kF16>(args, begin, end, scratch);
    default:
      static_assert(sizeof(kKvElements) == 3 * sizeof(KvElement));  // what is neither is bf16
      return attention_as<DType::kBF16>(args, begin, end, scratch);
  }
}
