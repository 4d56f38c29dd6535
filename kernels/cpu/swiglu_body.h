// The gate of the feed-forward layer, compiled once per instruction set and once as the reference.
// The including file defines Lanes and exp_lanes() before it includes this one (see
// attention_body.h).

/// out[t][i] = gate / (1 + exp(-gate)) * up
void swiglu(const float* gate_up, int64_t n, int64_t n_tokens, float* out) {
  for (int64_t t = 0; t < n_tokens; ++t) {
    const float* gate = gate_up + t * 2 * n;
    const float* up = gate + n;
    for (int64_t i = 0; i < n; i += kWidth) {
      const auto width = static_cast<size_t>(n - i < kWidth ? n - i : kWidth);
      Lanes g = {};
      Lanes u = {};
      std::memcpy(&g, gate + i, width * sizeof(float));
      std::memcpy(&u, up + i, width * sizeof(float));
      // exp_lanes takes no positive numbers: use exp(-|g|) on either side of zero.
      const Lanes negative = g < 0.0F ? g : -g;
      const Lanes e = exp_lanes(negative);
      const Lanes sigmoid = (g < 0.0F ? e : all_lanes<Lanes>(1.0F)) / (e + 1.0F);
      const Lanes y = g * sigmoid * u;
      std::memcpy(out + t * n + i, &y, width * sizeof(float));
    }
  }
}
