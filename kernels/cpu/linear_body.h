// The fast linear kernels, compiled once per instruction set. The including file defines, in its
// own namespace, before it includes this one:
// clang-format off
//   I16Lanes dot4(I16Lanes acc, const uint8_t* w, int32_t x4)   acc[r] += sum_j w[4r+j] * x4.byte[j]
//   I16Lanes dot4_low(...), dot4_high(...)                      the same on the nibbles of w
//   F16Lanes halves(const uint8_t* p)                           16 f16 values as float32
//   F16Lanes madd(F16Lanes a, F16Lanes b, F16Lanes c)           a * b + c, always rounded alike
//   kTileTokens                                                 tokens that share a pass, 8 at most
// clang-format on
//
// y[t][r] = sum_k W[r][k] x[t][k]. Lanes are rows, so every output is summed over k in ascending
// order whatever the number of tokens; kTokens only says how many share one pass over the weights.

template <int kTokens>
using Sums = F16Lanes[kTokens];

struct Tile {
  const int8_t* x[8];
  const InputBlock* blocks[8];
  const float* floats[8];
};

inline int32_t four_bytes(const int8_t* p) {
  int32_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

inline F16Lanes to_float(I16Lanes v) { return __builtin_convertvector(v, F16Lanes); }

inline F16Lanes bytes_to_float(const uint8_t* p) {
  typedef uint8_t U8 __attribute__((vector_size(16)));
  U8 v;
  std::memcpy(&v, p, sizeof(v));
  return to_float(__builtin_convertvector(v, I16Lanes));
}

inline F16Lanes signed_bytes_to_float(const uint8_t* p) {
  typedef int8_t S8 __attribute__((vector_size(16)));
  S8 v;
  std::memcpy(&v, p, sizeof(v));
  return to_float(__builtin_convertvector(v, I16Lanes));
}

/// 32 values of nibbles against one token.
inline I16Lanes dot_nibbles(const uint8_t* chunks, const int8_t* x, int32_t start) {
  I16Lanes low = I16Lanes{} + start;
  I16Lanes high = {};
  for (int c = 0; c < 4; ++c) {
    low = dot4_low(low, chunks + 64 * c, four_bytes(x + 4 * c));
    high = dot4_high(high, chunks + 64 * c, four_bytes(x + 16 + 4 * c));
  }
  return low + high;
}

/// 4n values of bytes against one token.
template <int kChunks>
inline I16Lanes dot_bytes(const uint8_t* chunks, const int8_t* x, int32_t start) {
  I16Lanes even = I16Lanes{} + start;
  I16Lanes odd = {};
  for (int c = 0; c < kChunks; c += 2) {
    even = dot4(even, chunks + 64 * c, four_bytes(x + 4 * c));
    odd = dot4(odd, chunks + 64 * (c + 1), four_bytes(x + 4 * (c + 1)));
  }
  return even + odd;
}

// One block of weights, of 16 rows, times the tokens of a tile: each format's own way. `w`: the
// block; `k`: its first column.
template <int32_t kFormat, int kTokens>
[[gnu::always_inline]] inline void add_nibbles(const uint8_t* w, int64_t k, const Tile& tile,
                                               Sums<kTokens>& sums) {
  const int64_t b = k / 32;
  const F16Lanes scale = halves(w);
  const F16Lanes min = kFormat == kNibbles4_1 ? halves(w + 32) : F16Lanes{};
  const uint8_t* chunks = w + (kFormat == kNibbles4_1 ? 64 : 32);
  for (int t = 0; t < kTokens; ++t) {
    const InputBlock& in = tile.blocks[t][b];
    const int32_t start = kFormat == kNibbles4_0 ? -8 * (in.sum[0] + in.sum[1]) : 0;
    const F16Lanes dot = to_float(dot_nibbles(chunks, tile.x[t] + k, start));
    sums[t] = madd(dot, scale * in.scale, sums[t]);
    if constexpr (kFormat == kNibbles4_1) sums[t] = madd(min, all_lanes(in.scaled_sum), sums[t]);
  }
}

template <int kTokens>
[[gnu::always_inline]] inline void add_bytes(const uint8_t* w, int64_t k, const Tile& tile,
                                             Sums<kTokens>& sums) {
  const int64_t b = k / 32;
  const F16Lanes scale = halves(w);
  for (int t = 0; t < kTokens; ++t) {
    const InputBlock& in = tile.blocks[t][b];
    const int32_t start = -128 * (in.sum[0] + in.sum[1]);
    const F16Lanes dot = to_float(dot_bytes<8>(w + 32, tile.x[t] + k, start));
    sums[t] = madd(dot, scale * in.scale, sums[t]);
  }
}

template <int kTokens>
[[gnu::always_inline]] inline void add_super4(const uint8_t* w, int64_t k, const Tile& tile,
                                              Sums<kTokens>& sums) {
  const int64_t b = k / 32;
  const F16Lanes d = halves(w);
  const F16Lanes dmin = halves(w + 32);
  for (int j = 0; j < 8; ++j) {
    const uint8_t* sub = w + 64 + j * 288;
    const F16Lanes scale = d * bytes_to_float(sub);
    const F16Lanes min = dmin * bytes_to_float(sub + 16);
    for (int t = 0; t < kTokens; ++t) {
      const InputBlock& in = tile.blocks[t][b + j];
      const F16Lanes dot = to_float(dot_nibbles(sub + 32, tile.x[t] + k + 32 * j, 0));
      sums[t] = madd(dot, scale * in.scale, sums[t]);
      sums[t] = madd(min, all_lanes(-in.scaled_sum), sums[t]);
    }
  }
}

template <int32_t kFormat, int kTokens>
[[gnu::always_inline]] inline void add_super8(const uint8_t* w, int64_t k, const Tile& tile,
                                              Sums<kTokens>& sums) {
  const int64_t b = k / 32;
  constexpr int32_t kOffset = kFormat == kSuper8Q6 ? 32 : 4;
  const F16Lanes d = halves(w);
  for (int j = 0; j < 16; ++j) {
    const uint8_t* sub = w + 32 + j * 272;
    const F16Lanes scale = d * signed_bytes_to_float(sub);
    for (int t = 0; t < kTokens; ++t) {
      const InputBlock& in = tile.blocks[t][b + j / 2];
      const F16Lanes dot =
          to_float(dot_bytes<4>(sub + 16, tile.x[t] + k + 16 * j, -kOffset * in.sum[j % 2]));
      sums[t] = madd(dot, scale * in.scale, sums[t]);
    }
  }
}

template <int kTokens>
[[gnu::always_inline]] inline void add_expanded(const uint8_t* w, int64_t k, const Tile& tile,
                                                Sums<kTokens>& sums) {
  const int64_t b = k / 32;
  F16Lanes scale;
  F16Lanes min;
  std::memcpy(&scale, w, 64);
  std::memcpy(&min, w + 64, 64);
  const int half = static_cast<int>(k / 16 % 2);
  for (int t = 0; t < kTokens; ++t) {
    const InputBlock& in = tile.blocks[t][b];
    const F16Lanes dot = to_float(dot_bytes<4>(w + 128, tile.x[t] + k, 0));
    sums[t] = madd(dot, scale * in.scale, sums[t]);
    sums[t] = madd(min, all_lanes(in.scale * static_cast<float>(in.sum[half])), sums[t]);
  }
}

template <int32_t kFormat, int kTokens>
[[gnu::always_inline]] inline void add_floats(const uint8_t* w, int64_t k, const Tile& tile,
                                              Sums<kTokens>& sums) {
  F16Lanes weights;
  if constexpr (kFormat == kFloat32) {
    std::memcpy(&weights, w, 64);
  } else if constexpr (kFormat == kFloat16) {
    weights = halves(w);
  } else {
    typedef uint16_t U16 __attribute__((vector_size(32)));
    typedef uint32_t U32 __attribute__((vector_size(64)));
    U16 raw;
    std::memcpy(&raw, w, sizeof(raw));
    const U32 wide = __builtin_convertvector(raw, U32) << 16;
    std::memcpy(&weights, &wide, sizeof(weights));
  }
  for (int t = 0; t < kTokens; ++t) {
    sums[t] = madd(weights, all_lanes(tile.floats[t][k]), sums[t]);
  }
}

template <int32_t kFormat, int kTokens>
inline void add_block(const uint8_t* w, int64_t k, const Tile& tile, Sums<kTokens>& sums) {
  if constexpr (kFormat == kNibbles4_0 || kFormat == kNibbles4_1) {
    add_nibbles<kFormat>(w, k, tile, sums);
  } else if constexpr (kFormat == kBytes) {
    add_bytes(w, k, tile, sums);
  } else if constexpr (kFormat == kSuper4) {
    add_super4(w, k, tile, sums);
  } else if constexpr (kFormat == kSuper8Q6 || kFormat == kSuper8Q3) {
    add_super8<kFormat>(w, k, tile, sums);
  } else if constexpr (kFormat == kExpanded) {
    add_expanded(w, k, tile, sums);
  } else {
    add_floats<kFormat>(w, k, tile, sums);
  }
}

template <int32_t kFormat, int kTokens>
void group_times_tile(const PackedLinear& weights, const PackedInput& input, int64_t group,
                      int64_t token, float* y, int64_t y_stride, bool accumulate) {
  constexpr bool kFloats = kFormat >= kFloat32;
  Tile tile;
  for (int t = 0; t < kTokens; ++t) {
    if constexpr (kFloats) {
      tile.floats[t] = input_floats(input, token + t);
    } else {
      tile.x[t] = input_values(input, token + t);
      tile.blocks[t] = input_blocks(input, token + t);
    }
  }
  constexpr BlockShape shape = block_shape(kFormat);
  const uint8_t* w = weights.data + group * (weights.cols / shape.values) * shape.bytes;
  Sums<kTokens> sums = {};
  for (int64_t k = 0; k < weights.cols; k += shape.values, w += shape.bytes) {
    add_block<kFormat, kTokens>(w, k, tile, sums);
  }
  const int64_t first = group * kGroupRows;
  const int64_t rows = weights.rows - first < kGroupRows ? weights.rows - first : kGroupRows;
  for (int t = 0; t < kTokens; ++t) {
    float* out = y + (token + t) * y_stride + first;
    if (rows == kGroupRows) {
      store_lanes(out, accumulate ? load_lanes(out) + sums[t] : sums[t]);
      continue;
    }
    for (int64_t r = 0; r < rows; ++r) out[r] = accumulate ? out[r] + sums[t][r] : sums[t][r];
  }
}

template <int32_t kFormat>
void linear_format(const PackedLinear& weights, const PackedInput& input, float* y,
                   int64_t y_stride, bool accumulate, int64_t group_begin, int64_t group_end) {
  for (int64_t g = group_begin; g < group_end; ++g) {
    int64_t t = 0;
    for (; t + kTileTokens <= input.n_tokens; t += kTileTokens) {
      group_times_tile<kFormat, kTileTokens>(weights, input, g, t, y, y_stride, accumulate);
    }
    for (; t + 2 <= input.n_tokens; t += 2) {
      group_times_tile<kFormat, 2>(weights, input, g, t, y, y_stride, accumulate);
    }
    if (t < input.n_tokens) {
      group_times_tile<kFormat, 1>(weights, input, g, t, y, y_stride, accumulate);
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
