// The attention kernel, compiled once per instruction set and once as the reference. The including
// file defines, in its own namespace, before it includes this one:
//   F16Lanes madd(F16Lanes a, F16Lanes b, F16Lanes c)            a * b + c
//   F16Lanes exp_lanes(F16Lanes x)                               for x <= 0
//   void convert(const uint8_t* from, DType type, int64_t n, float* to)   n elements to float32
//   int kRowBlock, kVectorBlock    rows and vectors of sums that its registers hold at once
//
// and holds two kernels:
//   swiglu: out = silu(gate) * up
//   attention: out = softmax(q K^T * scale) V, over what each query sees, by online softmax over
//   tiles (Milakov and Gimelshein, arXiv 1805.02867).

struct LaneRange {
  int32_t begin, end;  // lanes of a tile
};

/// One entry's part in a tile.
struct TilePart {
  const BlockEntry* entry;
  LaneRange lanes;
};

/// Gathers the lanes [lanes.begin, lanes.end) of a tile from an entry's page.
inline void gather(const AttentionArgs& args, const TilePart& part, int32_t head,
                   int64_t tile_position, AttentionScratch& scratch) {
  const auto slot =
      static_cast<int32_t>(tile_position + part.lanes.begin - part.entry->first_position);
  const int32_t n = part.lanes.end - part.lanes.begin;
  const int32_t dim = args.kv.geometry().head_dim;
  const uint8_t* keys = args.kv.k(part.entry->page, head, slot, 0);
  const int64_t to_next_dim = args.kv.dim_bytes();
  for (int32_t d = 0; d < dim; ++d, keys += to_next_dim) {
    convert(keys, args.kv.type(), n, scratch.keys + int64_t{d} * kTile + part.lanes.begin);
  }
  convert(args.kv.v(part.entry->page, head, slot, 0), args.kv.type(), int64_t{n} * dim,
          scratch.values + int64_t{part.lanes.begin} * dim);
}

/// acc[r][v] += sum over i in [range) of a[r][i] * b[i][lanes of v], i ascending.
template <int kRows, int kVectors>
inline void add_products(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                         LaneRange range, F16Lanes (&acc)[kRows][kVectors]) {
  for (int64_t i = range.begin; i < range.end; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      const F16Lanes lanes = load_lanes(b + i * b_stride + v * kLanes);
      for (int r = 0; r < kRows; ++r) {
        acc[r][v] = madd(all_lanes(a[r * a_stride + i]), lanes, acc[r][v]);
      }
    }
  }
}

/// scores[row][lane] = query[row] . keys[.][lane] for kRows rows, all lanes of the tile.
template <int kRows>
inline void score_rows(const float* query, int64_t dim, const float* keys, float* scores) {
  const LaneRange dims{0, static_cast<int32_t>(dim)};
  for (int l = 0; l < kTile; l += kVectorBlock * kLanes) {
    F16Lanes acc[kRows][kVectorBlock] = {};
    add_products<kRows, kVectorBlock>(query, dim, keys + l, kTile, dims, acc);
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectorBlock; ++v) {
        store_lanes(scores + r * kTile + l + v * kLanes, acc[r][v]);
      }
    }
  }
}

/// Dims [d, d + kVectors * kLanes) of add_values().
template <int kRows, int kVectors>
inline void add_dims(const float* weights, LaneRange lanes, const float* values, int64_t dim,
                     const float* rescale, float* output, int64_t d) {
  F16Lanes acc[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      acc[r][v] = load_lanes(output + r * dim + d + v * kLanes) * rescale[r];
    }
  }
  add_products<kRows, kVectors>(weights, kTile, values + d, dim, lanes, acc);
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) store_lanes(output + r * dim + d + v * kLanes, acc[r][v]);
  }
}

/// output[row] = output[row] * rescale[row] + sum over lanes of weights[row][lane] * values[lane],
/// for kRows rows that see the same lanes.
template <int kRows>
inline void add_values(const float* weights, LaneRange lanes, const float* values, int64_t dim,
                       const float* rescale, float* output) {
  int64_t d = 0;
  for (; d + kVectorBlock * kLanes <= dim; d += kVectorBlock * kLanes) {
    add_dims<kRows, kVectorBlock>(weights, lanes, values, dim, rescale, output, d);
  }
  for (; d + kLanes <= dim; d += kLanes) {
    add_dims<kRows, 1>(weights, lanes, values, dim, rescale, output, d);
  }
  for (; d < dim; ++d) {
    for (int r = 0; r < kRows; ++r) {
      float acc = output[r * dim + d] * rescale[r];
      for (int32_t l = lanes.begin; l < lanes.end; ++l) {
        acc += weights[r * kTile + l] * values[l * dim + d];
      }
      output[r * dim + d] = acc;
    }
  }
}

/// Calls fn(integral_constant of n), n <= kRowBlock.
template <typename Fn>
inline void with_rows(int32_t n, const Fn& fn) {
  if constexpr (kRowBlock >= 4) {
    if (n == 4) return fn(std::integral_constant<int, 4>());
    if (n == 3) return fn(std::integral_constant<int, 3>());
  }
  if (n == 2) return fn(std::integral_constant<int, 2>());
  fn(std::integral_constant<int, 1>());
}

/// The lanes of a vector that begins at lane `first` which lie in [lanes); others have `otherwise`.
inline F16Lanes only(LaneRange lanes, int32_t first, F16Lanes v, float otherwise) {
  constexpr I16Lanes kOwn = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const I16Lanes lane = kOwn + first;
  return (lane >= lanes.begin && lane < lanes.end) ? v : all_lanes(otherwise);
}

inline float largest_of(F16Lanes v) {
  float a[kLanes];
  store_lanes(a, v);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) a[i] = a[i + width] > a[i] ? a[i + width] : a[i];
  }
  return a[0];
}

/// Turns one tile's scores into the weights of a row's running softmax. Lanes outside [lanes) have
/// none. Returns what the row's output is to be multiplied by.
inline float weigh(float* scores, LaneRange lanes, float* largest, float* sum) {
  constexpr float kLeast = -3.0e38F;
  F16Lanes tops = all_lanes(*largest);
  for (int32_t v = 0; v < kTile; v += kLanes) {
    const F16Lanes s = only(lanes, v, load_lanes(scores + v), kLeast);
    tops = s > tops ? s : tops;
  }
  const float top = largest_of(tops);
  F16Lanes total = {};
  for (int32_t v = 0; v < kTile; v += kLanes) {
    const F16Lanes weights =
        only(lanes, v, exp_lanes(load_lanes(scores + v) - all_lanes(top)), 0.0F);
    store_lanes(scores + v, weights);
    total = total + weights;
  }
  const float rescale = exp_lanes(all_lanes(*largest - top))[0];
  *sum = *sum * rescale + sum_lanes(total);
  *largest = top;
  return rescale;
}

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
    n_parts_ = 0;
    int32_t at = 0;    // the entry, and
    int64_t next = 0;  // the next of its positions to be taken
    if (sequence_.n_entries > 0) next = begin_of(0);
    while (at < sequence_.n_entries) {
      // What lies in this tile, of one rotation and without a hole, is taken together.
      const int64_t tile = next / kTile * kTile;
      const int32_t rotation = sequence_.entries[at].rotation;
      const auto first = static_cast<int32_t>(next - tile);
      LaneRange lanes{first, first};
      const int32_t first_part = n_parts_;
      while (at < sequence_.n_entries && next == tile + lanes.end && lanes.end < kTile &&
             sequence_.entries[at].rotation == rotation) {
        const int64_t end = end_of(at) < tile + kTile ? end_of(at) : tile + kTile;
        const LaneRange part{lanes.end, static_cast<int32_t>(end - tile)};
        if (seen(tile, part)) {
          gather(args_, {&sequence_.entries[at], part}, task_.kv_head, tile, scratch_);
        }
        if (sequence_.mass != nullptr) {
          part_lanes_[n_parts_ - first_part] = part;
          scratch_.part_entry[n_parts_++] = at;
        }
        lanes.end = part.end;
        next = end;
        if (next == end_of(at) && ++at < sequence_.n_entries) next = begin_of(at);
      }
      if (seen(tile, lanes)) {
        take(tile, lanes, rotation);
        if (sequence_.mass != nullptr) measure(tile, first_part);
      } else {
        n_parts_ = first_part;
      }
    }
    write();
    if (sequence_.mass != nullptr) add_masses();
  }

 private:
  int64_t begin_of(int32_t i) const {
    return int64_t{sequence_.entries[i].first_position} + sequence_.entries[i].slot_begin;
  }
  int64_t end_of(int32_t i) const {
    return int64_t{sequence_.entries[i].first_position} + sequence_.entries[i].slot_end;
  }
  int32_t position(int32_t token) const { return sequence_.first_position + task_.first + token; }

  /// Lanes of `lanes` that a query at t sees; all of them lie on one side of the sink boundary.
  LaneRange visible(int64_t tile, LaneRange lanes, int32_t t) const {
    const BlockEntry as_entry{0, static_cast<int32_t>(tile), static_cast<uint16_t>(lanes.begin),
                              static_cast<uint16_t>(lanes.end), 0};
    const SlotRange live = live_slots(as_entry, sequence_.visibility, t);
    return {live.begin, live.end};
  }
  /// Whether any query of the task sees any of the lanes.
  bool seen(int64_t tile, LaneRange lanes) const {
    for (int32_t i = 0; i < task_.n; ++i) {
      const LaneRange live = visible(tile, lanes, position(i));
      if (live.begin < live.end) return true;
    }
    return false;
  }

  void take(int64_t tile, LaneRange lanes, int32_t rotation) {
    if (rotation != rotation_) rotate(rotation);
    for (int32_t r = 0; r < rows_; r += kRowBlock) {
      const int32_t n = rows_ - r < kRowBlock ? rows_ - r : kRowBlock;
      with_rows(n, [&](auto rows) { take_rows<rows()>(tile, lanes, r); });
    }
  }

  template <int kRows>
  void take_rows(int64_t tile, LaneRange lanes, int32_t first) {
    float* scores = scratch_.scores + first * kTile;
    float* output = scratch_.output + first * dim_;
    score_rows<kRows>(scratch_.query + first * dim_, dim_, scratch_.keys, scores);
    LaneRange sees[kRows];
    float rescale[kRows] = {};
    bool alike = true;
    for (int32_t i = 0; i < kRows; ++i) {
      const int32_t r = first + i;
      sees[i] = visible(tile, lanes, position(r / heads_));
      alike = alike && sees[i].begin == sees[0].begin && sees[i].end == sees[0].end;
      if (sees[i].begin >= sees[i].end) continue;
      rescale[i] = weigh(scores + i * kTile, sees[i], scratch_.largest + r, scratch_.sum + r);
    }
    if (alike) {
      if (sees[0].begin < sees[0].end) {
        add_values<kRows>(scores, sees[0], scratch_.values, dim_, rescale, output);
      }
      return;
    }
    for (int32_t i = 0; i < kRows; ++i) {
      if (sees[i].begin >= sees[i].end) continue;
      add_values<1>(scores + i * kTile, sees[i], scratch_.values, dim_, rescale + i,
                    output + i * dim_);
    }
  }

  /// Keeps what each row has just given to the parts of this tile.
  void measure(int64_t tile, int32_t first_part) {
    for (int32_t p = first_part; p < n_parts_; ++p) {
      const LaneRange lanes = part_lanes_[p - first_part];
      for (int32_t r = 0; r < rows_; ++r) {
        const LaneRange live = visible(tile, lanes, position(r / heads_));
        float given = 0.0F;
        for (int32_t l = live.begin; l < live.end; ++l) given += scratch_.scores[r * kTile + l];
        scratch_.part_sums[int64_t{p} * rows_ + r] = given;
        scratch_.part_largest[int64_t{p} * rows_ + r] = scratch_.largest[r];
      }
    }
  }

  /// Adds to the sequence's masses, now that every row's final sum is known.
  void add_masses() {
    for (int32_t p = 0; p < n_parts_; ++p) {
      for (int32_t i = 0; i < task_.n; ++i) {
        int64_t mass = 0;
        for (int32_t r = i * heads_; r < (i + 1) * heads_; ++r) {
          const float given = scratch_.part_sums[int64_t{p} * rows_ + r];
          if (given == 0.0F) continue;
          const float past = scratch_.part_largest[int64_t{p} * rows_ + r] - scratch_.largest[r];
          mass += to_fixed(given * exp_lanes(all_lanes(past))[0] / scratch_.sum[r]);
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
  int32_t n_parts_ = 0;
  LaneRange part_lanes_[kTile];  // of the tile at hand
};

/// out[t][i] = gate / (1 + exp(-gate)) * up
void swiglu(const float* gate_up, int64_t n, int64_t n_tokens, float* out) {
  for (int64_t t = 0; t < n_tokens; ++t) {
    const float* gate = gate_up + t * 2 * n;
    const float* up = gate + n;
    for (int64_t i = 0; i < n; i += kLanes) {
      const auto width = static_cast<size_t>(n - i < kLanes ? n - i : kLanes);
      F16Lanes g = {};
      F16Lanes u = {};
      std::memcpy(&g, gate + i, width * sizeof(float));
      std::memcpy(&u, up + i, width * sizeof(float));
      // exp_lanes takes no positive numbers: use exp(-|g|) on either side of zero.
      const F16Lanes negative = g < 0.0F ? g : -g;
      const F16Lanes e = exp_lanes(negative);
      const F16Lanes sigmoid = (g < 0.0F ? e : all_lanes(1.0F)) / (e + 1.0F);
      const F16Lanes y = g * sigmoid * u;
      std::memcpy(out + t * n + i, &y, width * sizeof(float));
    }
  }
}

void attention(const AttentionArgs& args, int64_t begin, int64_t end, float* scratch) {
  for (int64_t i = begin; i < end; ++i) {
    const AttentionTask task = attention_task(args, i);
    AttentionRun(args, task, scratch).run();
  }
}
