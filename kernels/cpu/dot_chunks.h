// Products of integer weights, chunk by chunk, for the including files that define
//   I16Lanes dot4(I16Lanes acc, const uint8_t* w, int32_t x4)
//       acc[r] += sum_j w[4r+j] * x4.byte[j]
//   I16Lanes dot4_low(...), dot4_high(...)
//       the same on the nibbles of w
//
// What they give is told in linear_body.h. Two sums a token, so that none waits for itself.

inline constexpr int32_t kZeroByte = 0;

inline int32_t four_bytes(const int8_t* p) {
  int32_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

template <int kTokens>
[[gnu::always_inline]] inline void dot_nibbles(const uint8_t* chunks, const InputPanel* x,
                                               int64_t k, I16Lanes (&sums)[kTokens]) {
  for (int t = 0; t < kTokens; ++t) {
    I16Lanes high = {};
    for (int c = 0; c < 4; ++c) {
      sums[t] = dot4_low(sums[t], chunks + 64 * c, four_bytes(x[t].values + k + 4 * c));
      high = dot4_high(high, chunks + 64 * c, four_bytes(x[t].values + k + 16 + 4 * c));
    }
    sums[t] = sums[t] + high;
  }
}

template <int kChunks, int kTokens>
[[gnu::always_inline]] inline void dot_bytes(const uint8_t* chunks, const InputPanel* x, int64_t k,
                                             I16Lanes (&sums)[kTokens]) {
  for (int t = 0; t < kTokens; ++t) {
    I16Lanes odd = {};
    for (int c = 0; c < kChunks; c += 2) {
      sums[t] = dot4(sums[t], chunks + 64 * c, four_bytes(x[t].values + k + 4 * c));
      odd = dot4(odd, chunks + 64 * (c + 1), four_bytes(x[t].values + k + 4 * (c + 1)));
    }
    sums[t] = sums[t] + odd;
  }
}

template <int kChunks, int kTokens>
[[gnu::always_inline]] inline void dot_small_bytes(const uint8_t* chunks, const InputPanel* x,
                                                   int64_t k, I16Lanes (&sums)[kTokens]) {
  dot_bytes<kChunks>(chunks, x, k, sums);
}
