// Activations for the fast linear kernels, compiled once per instruction set and alike to the bit.
// How they lie: linear_pack.h.

/// 32 values to whole numbers of 8 bits and what they are times.
inline void quantize_block(const float* x, int8_t* q, InputBlock& block) {
  constexpr int kVectors = 32 / kRows;
  Lanes values[kVectors];
  // Without their signs floats are in order as whole numbers are, and NaN comes last.
  IntLanes most = {};
  for (int v = 0; v < kVectors; ++v) {
    values[v] = load_lanes<Lanes>(x + v * kRows);
    const IntLanes bits = reinterpret_cast<IntLanes>(values[v]) & INT32_MAX;
    most = most > bits ? most : bits;
  }
  const int32_t bits = join_lanes(most, [](IntLanes a, IntLanes b) { return a > b ? a : b; });
  float largest;
  std::memcpy(&largest, &bits, sizeof(largest));
  // A value that is not finite must not vanish in the rounding: the scale carries it on.
  if (!(largest <= 3.4e38F)) {
    std::memset(q, 1, 32);
    block = {largest, {16, 16}, largest};
    return;
  }
  block.scale = largest / 127.0F;
  // What is so small that its inverse is infinite becomes nothing.
  const float inverse = largest > 1e-36F ? 127.0F / largest : 0.0F;
  // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even.
  constexpr float kRound = 12582912.0F;
  typedef int8_t Bytes __attribute__((vector_size(kRows)));
  IntLanes sums[2] = {};  // of each half
  for (int v = 0; v < kVectors; ++v) {
    const IntLanes whole =
        __builtin_convertvector((values[v] * inverse + kRound) - kRound, IntLanes);
    const Bytes bytes = __builtin_convertvector(whole, Bytes);
    std::memcpy(q + v * kRows, &bytes, sizeof(bytes));
    sums[v * kRows / 16] += whole;
  }
  for (int half = 0; half < 2; ++half) {
    block.sum[half] = join_lanes(sums[half], [](IntLanes a, IntLanes b) { return a + b; });
  }
  block.scaled_sum = block.scale * static_cast<float>(block.sum[0] + block.sum[1]);
}

void pack_input(const float* x, int64_t x_stride, const PackedInput& input, int64_t token_begin,
                int64_t token_end) {
  for (int64_t t = token_begin; t < token_end; ++t) {
    const float* row = x + t * x_stride;
    if (input.format == kBFloat16Tiles) {
      for (int64_t k = 0; k < input.cols; k += 32) {
        auto* to = const_cast<uint16_t*>(input_bf16(input, t, k));
        for (int64_t c = 0; c < 32; ++c) to[c] = k + c < input.cols ? f32_to_bf16(row[k + c]) : 0;
      }
      continue;
    }
    if (input.format == kBFloat16Pairs) {
      auto* pairs = const_cast<uint32_t*>(input_pairs(input, t));
      for (int64_t k = 0; k < input.cols; k += 2) {
        const uint32_t high = k + 1 < input.cols ? f32_to_bf16(row[k + 1]) : 0U;
        pairs[k / 2] = f32_to_bf16(row[k]) | high << 16;
      }
      continue;
    }
    if (is_float_format(input.format)) {
      for (int64_t k = 0; k < input.cols; k += kInputCols) {
        const int64_t left = input.cols - k;
        std::memcpy(const_cast<float*>(input_floats(input, t, k)), row + k,
                    static_cast<size_t>(left < kInputCols ? left : kInputCols) * sizeof(float));
      }
      continue;
    }
    for (int64_t k = 0; k < input.cols; k += 32) {
      auto& panel = const_cast<InputPanel&>(input_panel(input, t, k));
      const int64_t c = k % kIntCols;
      quantize_block(row + k, panel.values + c, panel.blocks[c / 32]);
    }
  }
}
