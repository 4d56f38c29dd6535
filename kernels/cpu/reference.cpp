// The reference kernels: float32, products and sums rounded one by one (this file is compiled
// without contraction), so that every machine gives the same bits; and the small kernels both modes
// share.
#include <cmath>

#include "cpu/attention_tile.h"
#include "cpu/isa.h"
#include "cpu/vec.h"

namespace paddock::cpu {
namespace reference {
namespace {

constexpr int kRowBlock = 2, kVectorBlock = 1, kDirectRows = 0;
using Lanes = F16Lanes;
using IntLanes = I16Lanes;

F16Lanes madd(F16Lanes a, F16Lanes b, F16Lanes c) { return a * b + c; }

F16Lanes exp_lanes(F16Lanes x) {
  for (int i = 0; i < kLanes; ++i) x[i] = std::exp(x[i]);
  return x;
}

#include "cpu/plain_elements.h"

/// Dot products of one row with kTokens inputs: sixteen partial sums over k, then a fixed tree.
template <int kTokens>
void dot_rows(const float* w, int64_t cols, const float* x, int64_t x_stride, float* out) {
  F16Lanes acc[kTokens] = {};
  int64_t k = 0;
  for (; k + kLanes <= cols; k += kLanes) {
    const F16Lanes weights = load_lanes(w + k);
    for (int t = 0; t < kTokens; ++t) {
      acc[t] = madd(weights, load_lanes(x + t * x_stride + k), acc[t]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int64_t i = k; i < cols; ++i) acc[t][i - k] += w[i] * x[t * x_stride + i];
    out[t] = sum_lanes(acc[t]);
  }
}

}  // namespace

void linear(DType type, const void* weights, int64_t cols, const float* x, int64_t x_stride,
            int64_t n_tokens, float* y, int64_t y_stride, bool accumulate, int64_t row_begin,
            int64_t row_end, float* scratch) {
  constexpr int kTokens = 4;
  const int64_t bytes = row_bytes(type, cols);
  for (int64_t r = row_begin; r < row_end; ++r) {
    dequantize_row(type, static_cast<const uint8_t*>(weights) + r * bytes, cols, scratch);
    for (int64_t t = 0; t < n_tokens;) {
      float sums[kTokens];
      int n = 1;
      if (t + kTokens <= n_tokens) {
        dot_rows<kTokens>(scratch, cols, x + t * x_stride, x_stride, sums);
        n = kTokens;
      } else {
        dot_rows<1>(scratch, cols, x + t * x_stride, x_stride, sums);
      }
      for (int i = 0; i < n; ++i, ++t) {
        float& out = y[t * y_stride + r];
        out = accumulate ? out + sums[i] : sums[i];
      }
    }
  }
}

void rms_norm(const float* x, const float* w, float eps, int64_t n, int64_t n_tokens, float* y) {
  for (int64_t t = 0; t < n_tokens; ++t, x += n, y += n) {
    float square = 0.0F;
    dot_rows<1>(x, n, x, 0, &square);
    const float scale = 1.0F / std::sqrt(square / static_cast<float>(n) + eps);
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale * w[i];
  }
}

#include "cpu/attention_body.h"
#include "cpu/swiglu_body.h"

}  // namespace reference

int64_t attention_tasks(const AttentionArgs& args) {
  int64_t tasks = 0;
  for (int32_t i = 0; i < args.n_sequences; ++i) tasks += query_tiles(args.sequences[i]);
  return tasks * args.kv.geometry().n_kv_heads;
}

int64_t attention_scratch(int64_t head_dim, int64_t heads_per_kv, int64_t max_parts) {
  return AttentionScratch::floats(head_dim, heads_per_kv, max_parts);
}

int64_t attention_parts(int64_t n_entries, int64_t block_size) {
  return n_entries * (block_size / kTile + 2);  // tiles that an entry can touch
}

void add_up_uses(const AttentionSequence& s, int32_t n_heads, BlockUse* uses) {
  for (int32_t e = 0; e < s.n_entries; ++e) uses[e] = {0, -1, 0};
  for (int32_t i = 0; i < s.n_tokens; ++i) {
    const int32_t t = s.first_position + i;
    int64_t visible = 0;
    for (int32_t e = 0; e < s.n_entries; ++e) {
      const SlotRange live = live_slots(s.entries[e], s.visibility, t);
      visible += live.end - live.begin;
    }
    for (int32_t e = 0; e < s.n_entries; ++e) {
      const SlotRange live = live_slots(s.entries[e], s.visibility, t);
      const int64_t mass = s.mass[int64_t{i} * s.n_entries + e];
      uses[e].mass += mass;
      if (live.begin < live.end && is_fair_share(mass, n_heads, live.end - live.begin, visible)) {
        uses[e].last_used = t;
      }
    }
  }
}

namespace {

static_assert(sizeof(kKvElements) == 3 * sizeof(KvElement));  // what is neither is bf16
void store_element(uint8_t* base, DType type, int64_t i, float value) {
  if (type == DType::kF32) {
    reinterpret_cast<float*>(base)[i] = value;
  } else {
    reinterpret_cast<uint16_t*>(base)[i] =
        type == DType::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
  }
}

/// Sum over KV heads of the keys' lengths; rotation does not change them.
int64_t key_norms(const RopeStoreArgs& args, int64_t t) {
  int64_t total = 0;
  for (int32_t h = 0; h < args.kv.geometry().n_kv_heads; ++h) {
    const float* k = args.k + t * args.k_stride + int64_t{h} * args.kv.geometry().head_dim;
    float squares = 0.0F;
    for (int32_t d = 0; d < args.kv.geometry().head_dim; ++d) squares += k[d] * k[d];
    total += norm_to_fixed(std::sqrt(squares));
  }
  return total;
}

}  // namespace

void rope_store(const RopeStoreArgs& args, int64_t begin, int64_t end) {
  const PageGeometry& g = args.kv.geometry();
  const DType type = args.kv.type();
  const int64_t to_next_dim = args.kv.dim_bytes();
  const int32_t half = g.head_dim / 2;
  const float least = least_overflow(type);
  int64_t lost = 0;
  for (int64_t t = begin; t < end; ++t) {
    const KvDestination to = args.destinations[t];
    const float* cosines = args.angles + int64_t{args.angle_rows[t]} * 2 * half;
    const float* sines = cosines + half;
    for (int32_t h = 0; h < g.n_kv_heads; ++h) {
      const float* k = args.k + t * args.k_stride + int64_t{h} * g.head_dim;
      const float* v = args.v + t * args.v_stride + int64_t{h} * g.head_dim;
      uint8_t* key = args.kv.k(to.page, h, to.slot, 0);
      uint8_t* value = args.kv.v(to.page, h, to.slot, 0);
      for (int32_t i = 0; i < half; ++i) {
        const int32_t a = args.interleaved ? 2 * i : i;
        const int32_t b = args.interleaved ? 2 * i + 1 : i + half;
        const float x = k[a] * cosines[i] - k[b] * sines[i];
        const float y = k[a] * sines[i] + k[b] * cosines[i];
        store_element(key + a * to_next_dim, type, 0, x);
        store_element(key + b * to_next_dim, type, 0, y);
        lost += int64_t{overflows(x, least)} + int64_t{overflows(y, least)};
      }
      for (int32_t d = 0; d < g.head_dim; ++d) {
        store_element(value, type, d, v[d]);
        lost += int64_t{overflows(v[d], least)};
      }
    }
    if (args.key_norms != nullptr) args.key_norms[t] = key_norms(args, t);
  }
  if (lost > 0 && args.overflows != nullptr) {
    __atomic_fetch_add(args.overflows, lost, __ATOMIC_RELAXED);
  }
}

}  // namespace paddock::cpu
