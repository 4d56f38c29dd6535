// What the linear kernels for many tokens have in common, floats' and integers'. Included before
// them, in the namespace of an instruction set, which has defined Lanes and IntLanes.
//
// Weights are unpacked once: a panel of some rows and columns, which a core's first cache holds,
// serves a batch of tokens, a tile of them at a time. Sums that are put down between two panels are
// taken up as they were.

inline constexpr int kRows = sizeof(Lanes) / sizeof(float);

inline Lanes to_float(IntLanes v) { return __builtin_convertvector(v, Lanes); }

template <typename Byte>
inline Lanes bytes_to_float(const uint8_t* p) {
  typedef Byte Bytes __attribute__((vector_size(kRows)));
  Bytes v;
  std::memcpy(&v, p, sizeof(v));
  return to_float(__builtin_convertvector(v, IntLanes));
}

/// Columns of a panel that begins with k: `most`, fewer at the end of a row.
inline int64_t cols_from(const PackedLinear& weights, int64_t k, int64_t most) {
  return weights.cols - k < most ? weights.cols - k : most;
}

/// Sums of n_tokens tokens, `stride` floats apart, to the outputs of the rows from `row` on, of
/// which there are `rows` at most.
inline void put_sums(const float* sums, int64_t stride, const PackedLinear& weights, int64_t row,
                     int64_t rows, int64_t n_tokens, float* y, int64_t y_stride, bool accumulate) {
  if (weights.rows - row < rows) rows = weights.rows - row;
  for (int64_t t = 0; t < n_tokens; ++t, sums += stride, y += y_stride) {
    int64_t r = 0;
    for (; r + kRows <= rows; r += kRows) {
      const Lanes sum = load_lanes<Lanes>(sums + r);
      store_lanes(y + row + r, accumulate ? load_lanes<Lanes>(y + row + r) + sum : sum);
    }
    for (; r < rows; ++r) y[row + r] = accumulate ? y[row + r] + sums[r] : sums[r];
  }
}

/// Calls fn(a constant: tokens of a tile, its first token, its number) for tiles of n tokens: as
/// many as kMost at most, all about alike: a small one would wait for its sums.
template <int kMost, typename Fn>
inline void for_tiles(int64_t n, const Fn& fn) {
  const int64_t tiles = (n + kMost - 1) / kMost;
  const int64_t tile = (n + tiles - 1) / tiles;
  for (int64_t t = 0, i = 0; t < n; t += tile, ++i) {
    with_count<kMost>(n - t < tile ? n - t : tile, [&](auto tokens) { fn(tokens, t, i); });
  }
}

/// Calls fn(a constant: vectors of rows, the first row, the first token, tokens), which leaves
/// `sums`, kVectors vectors of them for each token, for all groups and tokens. Batches are of one
/// size, at most `most` tokens, and of whole tiles: for a small one panels would be unpacked for
/// few.
template <int kVectors, int kTileTokens, typename Fn>
inline void times_many(const PackedLinear& weights, int64_t n_tokens, int64_t most,
                       const float* sums, float* y, int64_t y_stride, bool accumulate,
                       int64_t group_begin, int64_t group_end, const Fn& fn) {
  constexpr int64_t kPanel = kVectors * kRows;
  const int64_t batches = (n_tokens + most - 1) / most;
  const int64_t share = (n_tokens + batches - 1) / batches;
  const int64_t size = (share + kTileTokens - 1) / kTileTokens * kTileTokens;
  const int64_t end = group_end * kGroupRows;
  for (int64_t token = 0; token < n_tokens; token += size) {
    const int64_t n = n_tokens - token < size ? n_tokens - token : size;
    for (int64_t row = group_begin * kGroupRows; row < end; row += kPanel) {
      with_count<kVectors>((end - row) / kRows, [&](auto vectors) { fn(vectors, row, token, n); });
      put_sums(sums, kPanel, weights, row, end - row < kPanel ? end - row : kPanel, n,
               y + token * y_stride, y_stride, accumulate);
    }
  }
}
