// Products of plain floats, for linear_body.h, which is included after this; panels.h comes before.
// The including file defines, beside what those want of it:
//   kPanelVectors, kPanelTokens   vectors of rows and tokens of a tile: as many as its sums and the
//                                 weights of a column fit the registers
//
// Few tokens read the weights where they lie. For many, weights are widened to float32 once: a
// panel of some rows and of kInputCols columns, which a core's first cache holds, serves a batch of
// tokens, a tile of them at a time. Both sum over k in ascending order, from zero, in float32; a
// sum that is put down between two panels is taken up as it was. So both give the same bits.

inline constexpr int kPanelRows = kPanelVectors * kRows;
inline constexpr int64_t kPanelBatch = 128 / kPanelTokens * kPanelTokens;  // tokens of a panel

/// Lies on the stack of who multiplies: 48 KiB at most.
struct Panel {
  alignas(64) float weights[kInputCols * kPanelRows];
  alignas(64) float sums[kPanelBatch * kPanelRows];
};

/// One column of kRows rows from `row` of a group on.
template <int32_t kFormat>
[[gnu::always_inline]] inline Lanes float_weights(const uint8_t* column, int64_t row) {
  Lanes weights;
  if constexpr (kFormat == kFloat32) {
    std::memcpy(&weights, column + 4 * row, sizeof(weights));
  } else if constexpr (kFormat == kFloat16) {
    weights = halves(column + 2 * row);
  } else {
    typedef uint16_t U16 __attribute__((vector_size(2 * kRows)));
    typedef uint32_t U32 __attribute__((vector_size(4 * kRows)));
    U16 raw;
    std::memcpy(&raw, column + 2 * row, sizeof(raw));
    const U32 wide = __builtin_convertvector(raw, U32) << 16;
    std::memcpy(&weights, &wide, sizeof(weights));
  }
  return weights;
}

/// One group times a few tokens.
template <int32_t kFormat, int kTokens>
void floats_times_few(const PackedLinear& weights, const PackedInput& input, int64_t group,
                      int64_t token, float* y, int64_t y_stride, bool accumulate) {
  constexpr int64_t kBytes = block_shape(kFormat).bytes;
  for (int64_t row = 0; row < kGroupRows; row += kRows) {
    const uint8_t* w = weights.data + group * weights.cols * kBytes;
    Lanes sums[kTokens] = {};
    for (int64_t k = 0; k < weights.cols; k += kInputCols) {
      const int64_t cols = cols_from(weights, k, kInputCols);
      const float* x = input_floats(input, token, k);
      for (int64_t c = 0; c < cols; ++c, w += kBytes) {
        const Lanes column = float_weights<kFormat>(w, row);
        for (int t = 0; t < kTokens; ++t) {
          sums[t] = madd(column, all_lanes<Lanes>(x[t * kInputCols + c]), sums[t]);
        }
      }
    }
    float out[kTokens * kRows];
    std::memcpy(out, sums, sizeof(out));
    put_sums(out, kRows, weights, group * kGroupRows + row, kRows, kTokens, y + token * y_stride,
             y_stride, accumulate);
  }
}

/// A panel's weights: kVectors vectors of rows, the first of which begins with `row`.
template <int32_t kFormat, int kVectors>
inline void widen(const PackedLinear& weights, int64_t row, int64_t k, float* to) {
  constexpr int64_t kBytes = block_shape(kFormat).bytes;
  const int64_t cols = cols_from(weights, k, kInputCols);
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = row + v * kRows;
    const uint8_t* from = weights.data + (at / kGroupRows * weights.cols + k) * kBytes;
    for (int64_t c = 0; c < cols; ++c) {
      const Lanes column = float_weights<kFormat>(from + c * kBytes, at % kGroupRows);
      store_lanes(to + c * kPanelRows + v * kRows, column);
    }
  }
}

/// What is fetched of the next panel beside tile `tile` of this one: kAhead bytes from here on.
inline constexpr int64_t kAhead = 1024;
template <int32_t kFormat>
inline const uint8_t* next_panel(const PackedLinear& weights, int64_t row, int64_t k,
                                 int64_t tile) {
  constexpr int64_t kBytes = block_shape(kFormat).bytes;
  constexpr int64_t kPieces = kInputCols * kBytes / kAhead;  // of a group
  const int64_t group = row / kGroupRows + tile / kPieces;
  return weights.data + (group * weights.cols + k + kInputCols) * kBytes + tile % kPieces * kAhead;
}

/// Adds a panel times kTokens tokens to their sums.
template <int kVectors, int kTokens>
inline void panel_times_tile(const float* weights, const float* x, int64_t cols, float* sums,
                             const uint8_t* ahead) {
  Lanes tile[kTokens][kVectors];
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kVectors; ++v) {
      tile[t][v] = load_lanes<Lanes>(sums + t * kPanelRows + v * kRows);
    }
  }
  for (int64_t k = 0; k < cols; ++k) {
    __builtin_prefetch(x + kTokens * kInputCols + k * kTokens);  // the next tile's
    __builtin_prefetch(ahead + k * (kAhead / kInputCols));
    Lanes column[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      column[v] = load_lanes<Lanes>(weights + k * kPanelRows + v * kRows);
    }
    for (int t = 0; t < kTokens; ++t) {
      const Lanes value = all_lanes<Lanes>(x[t * kInputCols + k]);
      for (int v = 0; v < kVectors; ++v) tile[t][v] = madd(column[v], value, tile[t][v]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kVectors; ++v) {
      store_lanes(sums + t * kPanelRows + v * kRows, tile[t][v]);
    }
  }
}

/// kVectors vectors of rows, from `row` on, times n tokens: their sums.
template <int32_t kFormat, int kVectors>
void rows_times_batch(const PackedLinear& weights, const PackedInput& input, int64_t row,
                      int64_t token, int64_t n, Panel& panel) {
  std::memset(panel.sums, 0, static_cast<size_t>(n * kPanelRows) * sizeof(float));
  for (int64_t k = 0; k < weights.cols; k += kInputCols) {
    widen<kFormat, kVectors>(weights, row, k, panel.weights);
    for_tiles<kPanelTokens>(n, [&](auto tokens, int64_t t, int64_t i) {
      panel_times_tile<kVectors, tokens()>(
          panel.weights, input_floats(input, token + t, k), cols_from(weights, k, kInputCols),
          panel.sums + t * kPanelRows, next_panel<kFormat>(weights, row, k, i));
    });
  }
}

template <int32_t kFormat>
void floats_times_many(const PackedLinear& weights, const PackedInput& input, float* y,
                       int64_t y_stride, bool accumulate, int64_t group_begin, int64_t group_end) {
  Panel panel;
  times_many<kPanelVectors, kPanelTokens>(
      weights, input.n_tokens, kPanelBatch, panel.sums, y, y_stride, accumulate, group_begin,
      group_end, [&](auto vectors, int64_t row, int64_t token, int64_t n) {
        rows_times_batch<kFormat, vectors()>(weights, input, row, token, n, panel);
      });
}
