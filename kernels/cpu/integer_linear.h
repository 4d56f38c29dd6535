// Products of quantized weights with many tokens, for linear_body.h, which is included after this;
// panels.h comes before. The including file defines, beside what those want of it:
//   kIntVectors, kIntTokens   vectors of rows and tokens of a tile: as many as its sums, the dot
//                             products of a block and the weights of four columns fit the registers
//   template <int32_t kFormat, int kVectors, int kTokens> void dot_panel(
//       const uint8_t* values, const InputPanel* x, int64_t k, IntLanes (&dots)[kTokens][kVectors])
//                             adds a panel's bytes from column k on, four columns of kIntVectors
//                             vectors after the other, as many columns as share a scale, times
//                             x[t].values[k ..], to each token's dots
//
// Weights become bytes and float32 scales, panel by panel. Whole numbers add up exactly in any
// order; blocks are added up in float32 in ascending order, from zero, as for few tokens: both give
// the same bits.

inline constexpr int kIntRows = kIntVectors * kRows;
inline constexpr int64_t kIntBatch = 128 / kIntTokens * kIntTokens;  // tokens of a panel at most
/// Bytes of their activations: a core's second cache holds them beside the weights that come by.
inline constexpr int64_t kIntInput = 768 << 10;

/// Lies on the stack of who multiplies: 28 KiB.
struct IntPanel {
  alignas(64) uint8_t values[kIntCols * kIntRows];  // of four columns row by row, and of the next
  alignas(64) float scales[kIntCols / 16 * kIntRows];
  alignas(64) float minima[kIntCols / 16 * kIntRows];
  alignas(64) float sums[kIntBatch * kIntRows];
};

/// A vector of rows from `row` of a group on, columns [k, k + values) of its form.
template <int32_t kFormat>
[[gnu::always_inline]] inline void unpack(const uint8_t* group, int64_t row, int64_t k,
                                          uint8_t* values, float* scales, float* minima) {
  constexpr BlockShape shape = block_shape(kFormat);
  constexpr int64_t kStep = 4 * kIntRows;  // to the next four columns
  const uint8_t* w = group + k / shape.values * shape.bytes;
  const int64_t j = k % shape.values / integer_form(kFormat).values;
  const auto put = [&](const uint8_t* chunks, int n) {
    for (int c = 0; c < n; ++c)
      std::memcpy(values + c * kStep, chunks + 64 * c + 4 * row, 4 * kRows);
  };
  const auto put_nibbles = [&](const uint8_t* chunks) {
    for (int c = 0; c < 4; ++c) {
      typedef uint8_t Bytes __attribute__((vector_size(4 * kRows)));
      Bytes both;
      std::memcpy(&both, chunks + 64 * c + 4 * row, sizeof(both));
      const Bytes low = both & 15, high = both >> 4;
      std::memcpy(values + c * kStep, &low, sizeof(low));
      std::memcpy(values + (c + 4) * kStep, &high, sizeof(high));
    }
  };
  if constexpr (kFormat == kNibbles4_0 || kFormat == kNibbles4_1) {
    store_lanes(scales, halves(w + 2 * row));
    if (kFormat == kNibbles4_1) store_lanes(minima, halves(w + 32 + 2 * row));
    put_nibbles(w + (kFormat == kNibbles4_1 ? 64 : 32));
  } else if constexpr (kFormat == kBytes) {
    store_lanes(scales, halves(w + 2 * row));
    put(w + 32, 8);
  } else if constexpr (kFormat == kSuper4) {
    const uint8_t* sub = w + 64 + j * 288;
    store_lanes(scales, halves(w + 2 * row) * bytes_to_float<uint8_t>(sub + row));
    store_lanes(minima, -(halves(w + 32 + 2 * row) * bytes_to_float<uint8_t>(sub + 16 + row)));
    put_nibbles(sub + 32);
  } else if constexpr (kFormat == kSuper8Q6 || kFormat == kSuper8Q3) {
    const uint8_t* sub = w + 32 + j * 272;
    store_lanes(scales, halves(w + 2 * row) * bytes_to_float<int8_t>(sub + row));
    put(sub + 16, 4);
  } else {
    std::memcpy(scales, w + 4 * row, 4 * kRows);
    std::memcpy(minima, w + 64 + 4 * row, 4 * kRows);
    put(w + 128, 4);
  }
}

/// A panel's weights: kVectors vectors of rows, the first of which begins with `row`.
template <int32_t kFormat, int kVectors>
inline void unpack_panel(const PackedLinear& weights, int64_t row, int64_t k, IntPanel& panel) {
  constexpr BlockShape shape = block_shape(kFormat);
  constexpr int kValues = integer_form(kFormat).values;
  const int64_t cols = cols_from(weights, k, kIntCols);
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = row + v * kRows;
    const uint8_t* group =
        weights.data + at / kGroupRows * (weights.cols / shape.values) * shape.bytes;
    for (int64_t c = 0; c < cols; c += kValues) {
      const int64_t lanes = c / kValues * kIntRows + v * kRows;
      unpack<kFormat>(group, at % kGroupRows, k + c, panel.values + c * kIntRows + 4 * v * kRows,
                      panel.scales + lanes, panel.minima + lanes);
    }
  }
}

/// What the next panel is unpacked from: fetched a cache line at a time.
struct Ahead {
  const uint8_t* at;
  void fetch() {
    __builtin_prefetch(at, 0, 2);
    at += 64;
  }
};
inline constexpr int kLinesAhead = 3;  // beside each block of a tile
/// That of the panel after the one at row and k, beside tile `tile` of this one.
template <int32_t kFormat, int kVectors>
inline Ahead next_int_panel(const PackedLinear& weights, int64_t row, int64_t k, int64_t tile) {
  constexpr BlockShape shape = block_shape(kFormat);
  constexpr int64_t kPanelBytes = kIntCols * shape.bytes / shape.values;  // of a group
  constexpr int64_t kTileBytes = kIntCols / integer_form(kFormat).values * kLinesAhead * 64;
  const int64_t group_bytes = weights.cols / shape.values * shape.bytes;
  k += kIntCols;
  if (k >= weights.cols) k = 0, row += kVectors * kRows;
  const int64_t done = tile * kTileBytes;
  return {weights.data + (row / kGroupRows + done / kPanelBytes) * group_bytes +
          k / shape.values * shape.bytes + done % kPanelBytes};
}

/// The dot products of a tile's tokens with the columns [k, k + values) of a panel.
template <int32_t kFormat, int kVectors, int kTokens>
[[gnu::always_inline]] inline void dot_block(const IntPanel& panel, const InputPanel* x, int64_t k,
                                             IntLanes (&dots)[kTokens][kVectors]) {
  constexpr IntegerForm form = integer_form(kFormat);
  for (int t = 0; t < kTokens; ++t) {
    const InputBlock& in = x[t].blocks[k / 32];
    const int32_t sum = form.values == 32 ? in.sum[0] + in.sum[1] : in.sum[k / 16 % 2];
    for (int v = 0; v < kVectors; ++v) dots[t][v] = IntLanes{} - form.zero * sum;
  }
  dot_panel<kFormat>(panel.values + k * kIntRows, x, k, dots);
}

/// Adds a panel times kTokens tokens to their sums.
template <int32_t kFormat, int kVectors, int kTokens>
inline void int_panel_times_tile(const IntPanel& panel, const InputPanel* x, int64_t cols,
                                 float* sums, Ahead ahead) {
  constexpr IntegerForm form = integer_form(kFormat);
  Lanes tile[kTokens][kVectors];
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kVectors; ++v) {
      tile[t][v] = load_lanes<Lanes>(sums + t * kIntRows + v * kRows);
    }
  }
  for (int64_t k = 0; k < cols; k += form.values) {
    for (int i = 0; i < kLinesAhead; ++i) ahead.fetch();
    IntLanes dots[kTokens][kVectors];
    dot_block<kFormat>(panel, x, k, dots);
    const float* scales = panel.scales + k / form.values * kIntRows;
    const float* minima = panel.minima + k / form.values * kIntRows;
    for (int t = 0; t < kTokens; ++t) {
      const InputBlock& in = x[t].blocks[k / 32];
      const float sum =
          form.values == 32 ? in.scaled_sum : in.scale * static_cast<float>(in.sum[k / 16 % 2]);
      for (int v = 0; v < kVectors; ++v) {
        tile[t][v] = madd(to_float(dots[t][v]), load_lanes<Lanes>(scales + v * kRows) * in.scale,
                          tile[t][v]);
        if constexpr (form.minimum) {
          tile[t][v] =
              madd(load_lanes<Lanes>(minima + v * kRows), all_lanes<Lanes>(sum), tile[t][v]);
        }
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kVectors; ++v) {
      store_lanes(sums + t * kIntRows + v * kRows, tile[t][v]);
    }
  }
}

template <int32_t kFormat>
void integers_times_many(const PackedLinear& weights, const PackedInput& input, float* y,
                         int64_t y_stride, bool accumulate, int64_t group_begin,
                         int64_t group_end) {
  IntPanel panel;
  const int64_t token_bytes = (input.cols + kIntCols - 1) / kIntCols * int64_t{sizeof(InputPanel)};
  int64_t most = kIntInput / token_bytes / kIntTokens * kIntTokens;
  constexpr int64_t kLeast = 5 * kIntTokens;  // to be worth a panel
  most = most < kLeast ? kLeast : most > kIntBatch ? kIntBatch : most;
  times_many<kIntVectors, kIntTokens>(
      weights, input.n_tokens, most, panel.sums, y, y_stride, accumulate, group_begin, group_end,
      [&](auto vectors, int64_t row, int64_t token, int64_t n) {
        std::memset(panel.sums, 0, static_cast<size_t>(n * kIntRows) * sizeof(float));
        for (int64_t k = 0; k < weights.cols; k += kIntCols) {
          unpack_panel<kFormat, vectors()>(weights, row, k, panel);
          for_tiles<kIntTokens>(n, [&](auto tokens, int64_t t, int64_t i) {
            int_panel_times_tile<kFormat, vectors(), tokens()>(
                panel, &input_panel(input, token + t, k), cols_from(weights, k, kIntCols),
                panel.sums + t * kIntRows, next_int_panel<kFormat, vectors()>(weights, row, k, i));
          });
        }
      });
}
