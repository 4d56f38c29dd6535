// What the attention kernel does in registers, for attention_body.h, which says what the including
// file defines: products of some rows with keys and with values, and the softmax between them.
//
// Keys and values come from `Load`, load(i, v): lanes [v * kWidth, ...) of row i. Rows lie in the
// tile's scratch, converted, or still in their pages: which of the two changes no sum.

inline constexpr int kWidth = sizeof(Lanes) / sizeof(float);
static_assert(kTile % (kVectorBlock * kWidth) == 0);

/// acc[r][v] += sum over i in [range) of a[r][i] * load(i, v), i ascending.
template <int kRows, int kVectors, typename Load>
inline void add_products(const float* a, int64_t a_stride, LaneRange range, const Load& load,
                         Lanes (&acc)[kRows][kVectors]) {
  for (int32_t i = range.begin; i < range.end; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      const Lanes lanes = load(i, v);
      for (int r = 0; r < kRows; ++r) {
        acc[r][v] = madd(all_lanes<Lanes>(a[r * a_stride + i]), lanes, acc[r][v]);
      }
    }
  }
}

/// scores[row][lane] = query[row] . keys[.][lane] for kRows rows and kVectorBlock vectors of lanes.
template <int kRows, typename Load>
inline void score_rows(const float* query, int64_t dim, const Load& keys, float* scores) {
  Lanes acc[kRows][kVectorBlock] = {};
  add_products(query, dim, {0, static_cast<int32_t>(dim)}, keys, acc);
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectorBlock; ++v) {
      store_lanes(scores + r * kTile + v * kWidth, acc[r][v]);
    }
  }
}

/// output[row] = output[row] * rescale[row] + sum over lanes of weights[row][lane] * values[lane],
/// for kRows rows that see the same lanes and kVectors vectors of dims. `add(acc)` adds the sums.
template <int kRows, int kVectors, typename Add>
inline void add_values(const float* rescale, int64_t dim, float* output, const Add& add) {
  Lanes acc[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      acc[r][v] = load_lanes<Lanes>(output + r * dim + v * kWidth) * rescale[r];
    }
  }
  add(acc);
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) store_lanes(output + r * dim + v * kWidth, acc[r][v]);
  }
}

/// The lanes of a vector that begins at lane `first` which lie in [lanes); others have `otherwise`.
inline Lanes only(LaneRange lanes, int32_t first, Lanes v, float otherwise) {
  constexpr int32_t kOwn[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  IntLanes lane;
  std::memcpy(&lane, kOwn, sizeof(lane));
  lane += first;
  return (lane >= lanes.begin && lane < lanes.end) ? v : all_lanes<Lanes>(otherwise);
}

inline float largest_of(Lanes v) {
  return join_lanes(v, [](Lanes a, Lanes b) { return b > a ? b : a; });
}

/// Turns one tile's scores into the weights of a row's running softmax. Lanes outside [lanes) have
/// none. Returns what the row's output is to be multiplied by.
template <bool kAll>
inline float weigh_lanes(float* scores, LaneRange lanes, float* largest, float* sum) {
  constexpr float kLeast = -3.0e38F;
  Lanes tops = all_lanes<Lanes>(*largest);
  for (int32_t v = 0; v < kTile; v += kWidth) {
    Lanes s = load_lanes<Lanes>(scores + v);
    if constexpr (!kAll) s = only(lanes, v, s, kLeast);
    tops = s > tops ? s : tops;
  }
  const float top = largest_of(tops);
  Lanes total = {};
  for (int32_t v = 0; v < kTile; v += kWidth) {
    Lanes weights = exp_lanes(load_lanes<Lanes>(scores + v) - all_lanes<Lanes>(top));
    if constexpr (!kAll) weights = only(lanes, v, weights, 0.0F);
    store_lanes(scores + v, weights);
    total = total + weights;
  }
  const float rescale = exp_lanes(all_lanes<Lanes>(*largest - top))[0];
  *sum = *sum * rescale + sum_lanes(total);
  *largest = top;
  return rescale;
}

inline float weigh(float* scores, LaneRange lanes, float* largest, float* sum) {
  const bool all = lanes.begin == 0 && lanes.end == kTile;
  return all ? weigh_lanes<true>(scores, lanes, largest, sum)
             : weigh_lanes<false>(scores, lanes, largest, sum);
}
