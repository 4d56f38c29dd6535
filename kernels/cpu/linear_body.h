// The fast linear kernels, compiled once per instruction set. The including file defines, in its
// own namespace, before it includes this one:
//   Lanes, IntLanes                         vectors of floats and ints that fit its registers: rows
//   Lanes halves(const uint8_t* p)          that many f16 values as float32
//   Lanes madd(Lanes a, Lanes b, Lanes c)   a * b + c, always rounded alike
//   template <int kTokens> void dot_nibbles(const uint8_t* chunks, const InputPanel* x,
//                                           int64_t k, IntLanes (&sums)[kTokens])
//       adds 32 values of nibbles, times x[t].values[k ..], to each token's sum
//   template <int kChunks, int kTokens> void dot_bytes(...), dot_small_bytes(...)
//       the same with 4 kChunks values of bytes, of bytes below 64
//   kZeroByte                               what dot_bytes() takes for zero
//   kTileTokens                             tokens that share a pass, 8 at most
//   constexpr bool has_panels(int32_t format)
//                                           whether integer_linear.h, which then comes before, is
//                                           the faster way for many tokens
//
// y[t][r] = sum_k W[r][k] x[t][k]. Lanes are rows, so every output is summed over k in ascending
// order whatever the number of tokens; kTokens only says how many share one pass over the weights.
// Where 16 rows do not fit the registers, a group is passed over in parts: `row` is a part's first.
// Plain floats have a way of their own, float_linear.h, and many tokens: integer_linear.h.

template <int kTokens>
using Sums = Lanes[kTokens];
template <int kTokens>
using IntSums = IntLanes[kTokens];

// One block of weights, of kRows rows from `row` on, times the tokens of a tile: each format's own
// way. `w`: the block; `k`: its first column in the panel x. Of a large block only as much as falls
// into the panel: from value `from` of it on.
template <int32_t kFormat, int kTokens>
[[gnu::always_inline]] inline void add_nibbles(const uint8_t* w, int row, int64_t k,
                                               const InputPanel* x, Sums<kTokens>& sums) {
  const Lanes scale = halves(w + 2 * row);
  const Lanes min = kFormat == kNibbles4_1 ? halves(w + 32 + 2 * row) : Lanes{};
  IntSums<kTokens> dots;
  for (int t = 0; t < kTokens; ++t) {
    const InputBlock& in = x[t].blocks[k / 32];
    dots[t] = IntLanes{} + (kFormat == kNibbles4_0 ? -8 * (in.sum[0] + in.sum[1]) : 0);
  }
  dot_nibbles(w + (kFormat == kNibbles4_1 ? 64 : 32) + 4 * row, x, k, dots);
  for (int t = 0; t < kTokens; ++t) {
    const InputBlock& in = x[t].blocks[k / 32];
    sums[t] = madd(to_float(dots[t]), scale * in.scale, sums[t]);
    if constexpr (kFormat == kNibbles4_1) {
      sums[t] = madd(min, all_lanes<Lanes>(in.scaled_sum), sums[t]);
    }
  }
}

template <int kTokens>
[[gnu::always_inline]] inline void add_bytes(const uint8_t* w, int row, int64_t k,
                                             const InputPanel* x, Sums<kTokens>& sums) {
  const Lanes scale = halves(w + 2 * row);
  IntSums<kTokens> dots;
  for (int t = 0; t < kTokens; ++t) {
    const InputBlock& in = x[t].blocks[k / 32];
    dots[t] = IntLanes{} + (kZeroByte - 128) * (in.sum[0] + in.sum[1]);
  }
  dot_bytes<8>(w + 32 + 4 * row, x, k, dots);
  for (int t = 0; t < kTokens; ++t) {
    sums[t] = madd(to_float(dots[t]), scale * x[t].blocks[k / 32].scale, sums[t]);
  }
}

template <int kTokens>
[[gnu::always_inline]] inline void add_super4(const uint8_t* w, int row, int64_t from,
                                              const InputPanel* x, Sums<kTokens>& sums) {
  const Lanes d = halves(w + 2 * row);
  const Lanes dmin = halves(w + 32 + 2 * row);
  for (int j = 0; j < kIntCols / 32; ++j) {
    const uint8_t* sub = w + 64 + (from / 32 + j) * 288;
    const Lanes scale = d * bytes_to_float<uint8_t>(sub + row);
    const Lanes min = dmin * bytes_to_float<uint8_t>(sub + 16 + row);
    IntSums<kTokens> dots = {};
    dot_nibbles(sub + 32 + 4 * row, x, 32 * j, dots);
    for (int t = 0; t < kTokens; ++t) {
      const InputBlock& in = x[t].blocks[j];
      sums[t] = madd(to_float(dots[t]), scale * in.scale, sums[t]);
      sums[t] = madd(min, all_lanes<Lanes>(-in.scaled_sum), sums[t]);
    }
  }
}

template <int32_t kFormat, int kTokens>
[[gnu::always_inline]] inline void add_super8(const uint8_t* w, int row, int64_t from,
                                              const InputPanel* x, Sums<kTokens>& sums) {
  constexpr int32_t kOffset = kFormat == kSuper8Q6 ? 32 : 4;
  const Lanes d = halves(w + 2 * row);
  for (int j = 0; j < kIntCols / 16; ++j) {
    const uint8_t* sub = w + 32 + (from / 16 + j) * 272;
    const Lanes scale = d * bytes_to_float<int8_t>(sub + row);
    IntSums<kTokens> dots;
    for (int t = 0; t < kTokens; ++t) {
      dots[t] = IntLanes{} - kOffset * x[t].blocks[j / 2].sum[j % 2];
    }
    dot_small_bytes<4>(sub + 16 + 4 * row, x, 16 * j, dots);
    for (int t = 0; t < kTokens; ++t) {
      sums[t] = madd(to_float(dots[t]), scale * x[t].blocks[j / 2].scale, sums[t]);
    }
  }
}

template <int kTokens>
[[gnu::always_inline]] inline void add_expanded(const uint8_t* w, int row, int64_t k,
                                                const InputPanel* x, Sums<kTokens>& sums) {
  Lanes scale;
  Lanes min;
  std::memcpy(&scale, w + 4 * row, sizeof(scale));
  std::memcpy(&min, w + 64 + 4 * row, sizeof(min));
  const int half = static_cast<int>(k / 16 % 2);
  IntSums<kTokens> dots = {};
  dot_small_bytes<4>(w + 128 + 4 * row, x, k, dots);
  for (int t = 0; t < kTokens; ++t) {
    const InputBlock& in = x[t].blocks[k / 32];
    sums[t] = madd(to_float(dots[t]), scale * in.scale, sums[t]);
    sums[t] = madd(min, all_lanes<Lanes>(in.scale * static_cast<float>(in.sum[half])), sums[t]);
  }
}

template <int32_t kFormat, int kTokens>
inline void add_block(const uint8_t* w, int row, int64_t from, int64_t k, const InputPanel* x,
                      Sums<kTokens>& sums) {
  if constexpr (kFormat == kNibbles4_0 || kFormat == kNibbles4_1) {
    add_nibbles<kFormat>(w, row, k, x, sums);
  } else if constexpr (kFormat == kBytes) {
    add_bytes(w, row, k, x, sums);
  } else if constexpr (kFormat == kSuper4) {
    add_super4(w, row, from, x, sums);
  } else if constexpr (kFormat == kSuper8Q6 || kFormat == kSuper8Q3) {
    add_super8<kFormat>(w, row, from, x, sums);
  } else {
    add_expanded(w, row, k, x, sums);
  }
}

template <int32_t kFormat, int kTokens>
void group_times_tile(const PackedLinear& weights, const PackedInput& input, int64_t group,
                      int64_t token, float* y, int64_t y_stride, bool accumulate) {
  constexpr BlockShape shape = block_shape(kFormat);
  constexpr int64_t kStep = shape.values < kIntCols ? shape.values : kIntCols;
  const uint8_t* begin = weights.data + group * (weights.cols / shape.values) * shape.bytes;
  for (int row = 0; row < kGroupRows; row += kRows) {
    Sums<kTokens> sums = {};
    for (int64_t k = 0; k < weights.cols; k += kIntCols) {
      const InputPanel* x = &input_panel(input, token, k);
      const uint8_t* w = begin + k / shape.values * shape.bytes;
      const int64_t cols = cols_from(weights, k, kIntCols);
      for (int64_t c = 0; c < cols; c += kStep, w += shape.bytes) {
        add_block<kFormat, kTokens>(w, row, k % shape.values, c, x, sums);
      }
    }
    const int64_t first = group * kGroupRows + row;
    const int64_t rows = weights.rows - first < kRows ? weights.rows - first : kRows;
    for (int t = 0; t < kTokens; ++t) {
      float* out = y + (token + t) * y_stride + first;
      if (rows == kRows) {
        store_lanes(out, accumulate ? load_lanes<Lanes>(out) + sums[t] : sums[t]);
        continue;
      }
      for (int64_t r = 0; r < rows; ++r) out[r] = accumulate ? out[r] + sums[t][r] : sums[t][r];
    }
  }
}

template <int32_t kFormat>
void linear_format(const PackedLinear& weights, const PackedInput& input, float* y,
                   int64_t y_stride, bool accumulate, int64_t group_begin, int64_t group_end) {
  if (input.n_tokens > kTileTokens) {
    if constexpr (kFormat >= kFloat32) {
      return floats_times_many<kFormat>(weights, input, y, y_stride, accumulate, group_begin,
                                        group_end);
    } else if constexpr (has_panels(kFormat)) {
      return integers_times_many<kFormat>(weights, input, y, y_stride, accumulate, group_begin,
                                          group_end);
    }
  }
  for (int64_t g = group_begin; g < group_end; ++g) {
    for (int64_t t = 0; t < input.n_tokens; t += kTileTokens) {
      const int64_t left = input.n_tokens - t;
      with_count<kTileTokens>(left < kTileTokens ? left : kTileTokens, [&](auto tokens) {
        if constexpr (kFormat >= kFloat32) {
          floats_times_few<kFormat, tokens()>(weights, input, g, t, y, y_stride, accumulate);
        } else {
          group_times_tile<kFormat, tokens()>(weights, input, g, t, y, y_stride, accumulate);
        }
      });
    }
  }
}

void linear(const PackedLinear& weights, const PackedInput& input, float* y, int64_t y_stride,
            bool accumulate, int64_t group_begin, int64_t group_end) {
  const auto run = [&](auto kernel) {
    kernel(weights, input, y, y_stride, accumulate, group_begin, group_end);
  };
  switch (weights.format) {
    case kNibbles4_0:
      return run(linear_format<kNibbles4_0>);
    case kNibbles4_1:
      return run(linear_format<kNibbles4_1>);
    case kBytes:
      return run(linear_format<kBytes>);
    case kSuper4:
      return run(linear_format<kSuper4>);
    case kSuper8Q6:
      return run(linear_format<kSuper8Q6>);
    case kSuper8Q3:
      return run(linear_format<kSuper8Q3>);
    case kExpanded:
      return run(linear_format<kExpanded>);
    case kFloat32:
      return run(linear_format<kFloat32>);
    case kFloat16:
      return run(linear_format<kFloat16>);
    case kBFloat16:
      return run(linear_format<kBFloat16>);
    default:
      return;
  }
}
