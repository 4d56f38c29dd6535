// The small operations of a forward pass: all bound by memory or by being launched at all.
//
//   rms_norm       y = x / sqrt(mean(x^2) + eps) * w      one block per row, sums in a fixed order
//   angles         cos and sin of position * frequency    one thread per angle, in double
//   rope_store     (a, b) -> (a cos - b sin, a sin + b cos), into pages; one block per token
//   swiglu         silu(gate) * up                        one thread per element
//   gather         rows by index                          one thread per element
//   to_bf16        nearest even                           one thread per element
//   change_tables  scattered 16-byte entries              one thread per entry
//
// Any sizes; pointers aligned to their elements. Test: tests/kernels/cuda_small_ops_test.cpp
#include "cuda/device.h"
#include "cuda/launch.h"

namespace paddock::cuda {
namespace {

using simt::Bf16;
using simt::F16;

constexpr int kThreads = 256;

/// Blocks for n elements of one row; rows are the grid's y.
simt::Grid row_grid(int64_t n, int32_t rows) {
  return {static_cast<uint32_t>((n + kThreads - 1) / kThreads), static_cast<uint32_t>(rows), 1};
}
PADDOCK_DEVICE int64_t element() { return int64_t{simt::block_x()} * kThreads + simt::thread_x(); }

PADDOCK_KERNEL(kThreads)
void rms_norm_kernel(RmsNormArgs args) {
  constexpr int kHeld = 16;  // columns of a thread that are read once, all at a time
  PADDOCK_SHARED(float, partial, kThreads / simt::kWarpSize);
  const float* x = args.x + simt::block_x() * args.x_stride;
  float* out = args.out + simt::block_x() * args.out_stride;
  const auto first = static_cast<int64_t>(simt::thread_x());
  float held[kHeld] = {};
  float weights[kHeld] = {};
  PADDOCK_UNROLL for (int k = 0; k < kHeld; ++k) {
    const int64_t i = first + k * kThreads;
    if (!PADDOCK_CHECKED("column", i < args.cols)) continue;
    held[k] = simt::load(x + i);
    weights[k] = simt::load_const(args.weight + i);
  }
  float sum = 0.0F;
  PADDOCK_UNROLL for (int k = 0; k < kHeld; ++k) sum = simt::fma(held[k], held[k], sum);
  for (int64_t i = first + kHeld * kThreads; i < args.cols; i += kThreads) {
    const float v = simt::load(x + i);
    sum = simt::fma(v, v, sum);
  }
  sum = simt::warp_sum(sum);
  if (simt::lane() == 0) simt::store(&partial[simt::warp()], sum);
  PADDOCK_SYNC("sums ready");
  float square = 0.0F;
  for (int i = 0; i < kThreads / simt::kWarpSize; ++i) square += simt::load(&partial[i]);
  const float scale = simt::rsqrt(square / static_cast<float>(args.cols) + args.eps);
  PADDOCK_UNROLL for (int k = 0; k < kHeld; ++k) {
    const int64_t i = first + k * kThreads;
    if (PADDOCK_CHECKED("column of out", i < args.cols)) {
      simt::store(out + i, held[k] * scale * weights[k]);
    }
  }
  for (int64_t i = first + kHeld * kThreads; i < args.cols; i += kThreads) {
    simt::store(out + i, simt::load(x + i) * scale * simt::load_const(args.weight + i));
  }
}

PADDOCK_KERNEL(kThreads)
void angles_kernel(AnglesArgs args) {
  const int64_t i = element();
  if (!PADDOCK_CHECKED("angle exists", i < args.half)) return;
  const int64_t row = simt::block_y();
  const double angle = static_cast<double>(simt::load_const(args.positions + row)) *
                       simt::load_const(args.inverse_frequencies + i);
  float* to = args.angles + row * 2 * args.half + i;
  simt::store(to, static_cast<float>(simt::cos(angle)) * args.attention_factor);
  simt::store(to + args.half, static_cast<float>(simt::sin(angle)) * args.attention_factor);
}

// Here, as a kernel may not call what computes them.
constexpr float kLeastF16 = least_overflow(DType::kF16);
constexpr float kLeastBf16 = least_overflow(DType::kBF16);

/// Stores an element; 1 if it overflows().
template <typename T>
PADDOCK_DEVICE uint32_t store_element(uint8_t* to, int64_t i, float value);
template <>
PADDOCK_DEVICE uint32_t store_element<float>(uint8_t* to, int64_t i, float value) {
  simt::store(reinterpret_cast<float*>(to) + i, value);
  return 0;
}
template <>
PADDOCK_DEVICE uint32_t store_element<F16>(uint8_t* to, int64_t i, float value) {
  simt::store(reinterpret_cast<F16*>(to) + i, simt::from_f32<F16>(value));
  return overflows(value, kLeastF16) ? 1U : 0U;
}
template <>
PADDOCK_DEVICE uint32_t store_element<Bf16>(uint8_t* to, int64_t i, float value) {
  simt::store(reinterpret_cast<Bf16*>(to) + i, simt::from_f32<Bf16>(value));
  return overflows(value, kLeastBf16) ? 1U : 0U;
}

/// One warp takes a head at a time, keys and values.
template <typename T>
PADDOCK_KERNEL(kThreads)
void rope_store_kernel(RopeStoreArgs args) {
  const PageGeometry g = args.kv.geometry();
  const int32_t half = g.head_dim / 2;
  const int64_t t = simt::block_x();
  const KvDestination to = simt::load_const(args.destinations + t);
  if (!PADDOCK_CHECKED("a page", to.page >= 0)) return;
  const float* cosines = args.angles + t * 2 * half;
  uint32_t lost = 0;
  for (int32_t h = simt::warp(); h < g.n_kv_heads; h += kThreads / simt::kWarpSize) {
    const float* k = args.k + t * args.k_stride + int64_t{h} * g.head_dim;
    const float* v = args.v + t * args.v_stride + int64_t{h} * g.head_dim;
    uint8_t* key = args.kv.k(to.page, h, to.slot, 0);
    uint8_t* value = args.kv.v(to.page, h, to.slot, 0);
    for (int32_t i = simt::lane(); i < half; i += simt::kWarpSize) {
      const int32_t a = args.interleaved ? 2 * i : i;
      const int32_t b = args.interleaved ? 2 * i + 1 : i + half;
      const float cosine = simt::load_const(cosines + i);
      const float sine = simt::load_const(cosines + half + i);
      const float x = simt::load_const(k + a);
      const float y = simt::load_const(k + b);
      lost += store_element<T>(key, a, simt::mul(x, cosine) - simt::mul(y, sine));
      lost += store_element<T>(key, b, simt::mul(x, sine) + simt::mul(y, cosine));
    }
    for (int32_t d = simt::lane(); d < g.head_dim; d += simt::kWarpSize) {
      lost += store_element<T>(value, d, simt::load_const(v + d));
    }
  }
  if (lost != 0 && args.overflows != nullptr) simt::atomic_add(args.overflows, uint64_t{lost});
}

/// One warp per token: every lane walks the same heads, so that the sum has one order.
PADDOCK_KERNEL(simt::kWarpSize)
void key_norms_kernel(RopeStoreArgs args) {
  const PageGeometry g = args.kv.geometry();
  const int64_t t = simt::block_x();
  int64_t total = 0;
  for (int32_t h = 0; h < g.n_kv_heads; ++h) {
    const float* k = args.k + t * args.k_stride + int64_t{h} * g.head_dim;
    float squares = 0.0F;
    for (int32_t d = simt::lane(); d < g.head_dim; d += simt::kWarpSize) {
      const float v = simt::load_const(k + d);
      squares = simt::fma(v, v, squares);
    }
    total += norm_to_fixed(simt::sqrt(simt::warp_sum(squares)));
  }
  if (simt::lane() == 0) simt::store(args.key_norms + t, total);
}

PADDOCK_KERNEL(kThreads)
void swiglu_kernel(SwigluArgs args) {
  const int64_t i = element();
  if (!PADDOCK_CHECKED("activation exists", i < args.cols)) return;
  const float* gate = args.gate_up + simt::block_y() * args.gate_up_stride + i;
  const float g = simt::load_const(gate);
  const float u = simt::load_const(gate + args.cols);
  simt::store(args.out + simt::block_y() * args.out_stride + i, g / (1.0F + simt::exp(-g)) * u);
}

PADDOCK_KERNEL(kThreads)
void gather_kernel(GatherArgs args) {
  const int64_t i = element();
  if (!PADDOCK_CHECKED("element exists", i < args.cols)) return;
  const int64_t row = simt::load_const(args.rows + simt::block_y());
  simt::store(args.out + simt::block_y() * args.out_stride + i,
              simt::load_const(args.x + row * args.x_stride + i));
}

PADDOCK_KERNEL(kThreads)
void to_bf16_kernel(ToBf16Args args) {
  const int64_t i = element();
  if (!PADDOCK_CHECKED("value exists", i < args.cols)) return;
  const float v = simt::load_const(args.x + simt::block_y() * args.x_stride + i);
  simt::store(reinterpret_cast<Bf16*>(args.out) + simt::block_y() * args.cols + i,
              simt::from_f32<Bf16>(v));
}

PADDOCK_KERNEL(kThreads)
void change_tables_kernel(ChangeTablesArgs args) {
  const int64_t i = element();
  if (!PADDOCK_CHECKED("change exists", i < args.n)) return;
  const int64_t index = simt::load_const(&args.changes[i].index);
  simt::store_vec(args.tables + index, simt::load_const_vec<simt::U32x4>(&args.changes[i].entry));
}

}  // namespace

int rms_norm(const RmsNormArgs& args, Stream stream) {
  if (args.n_tokens == 0) return 0;
  return PADDOCK_LAUNCH(rms_norm_kernel, simt::Grid{static_cast<uint32_t>(args.n_tokens)}, kThreads,
                        0, stream, args);
}

int angles(const AnglesArgs& args, Stream stream) {
  if (args.n_rows == 0) return 0;
  // Rows are the grid's y, of which there are at most 65,535 at a time.
  constexpr int32_t kMost = 65535;
  for (int32_t first = 0; first < args.n_rows; first += kMost) {
    AnglesArgs part = args;
    part.positions += first;
    part.angles += int64_t{first} * 2 * args.half;
    part.n_rows = args.n_rows - first < kMost ? args.n_rows - first : kMost;
    const int error =
        PADDOCK_LAUNCH(angles_kernel, row_grid(args.half, part.n_rows), kThreads, 0, stream, part);
    if (error != 0) return error;
  }
  return 0;
}

int rope_store(const RopeStoreArgs& args, Stream stream) {
  if (args.n_tokens == 0) return 0;
  const simt::Grid grid{static_cast<uint32_t>(args.n_tokens)};
  static_assert(sizeof(kKvElements) == 3 * sizeof(KvElement));  // any other one is invalid here
  int error = kInvalid;
  switch (args.kv.type()) {
    case DType::kF32:
      error = PADDOCK_LAUNCH(rope_store_kernel<float>, grid, kThreads, 0, stream, args);
      break;
    case DType::kF16:
      error = PADDOCK_LAUNCH(rope_store_kernel<F16>, grid, kThreads, 0, stream, args);
      break;
    case DType::kBF16:
      error = PADDOCK_LAUNCH(rope_store_kernel<Bf16>, grid, kThreads, 0, stream, args);
      break;
    default:
      break;
  }
  if (error != 0 || args.key_norms == nullptr) return error;
  return PADDOCK_LAUNCH(key_norms_kernel, grid, simt::kWarpSize, 0, stream, args);
}

int swiglu(const SwigluArgs& args, Stream stream) {
  if (args.n_tokens == 0) return 0;
  return PADDOCK_LAUNCH(swiglu_kernel, row_grid(args.cols, args.n_tokens), kThreads, 0, stream,
                        args);
}

int gather(const GatherArgs& args, Stream stream) {
  if (args.n_rows == 0) return 0;
  return PADDOCK_LAUNCH(gather_kernel, row_grid(args.cols, args.n_rows), kThreads, 0, stream, args);
}

int to_bf16(const ToBf16Args& args, Stream stream) {
  if (args.n_rows == 0) return 0;
  return PADDOCK_LAUNCH(to_bf16_kernel, row_grid(args.cols, args.n_rows), kThreads, 0, stream,
                        args);
}

int change_tables(const ChangeTablesArgs& args, Stream stream) {
  if (args.n == 0) return 0;
  return PADDOCK_LAUNCH(change_tables_kernel, row_grid(args.n, 1), kThreads, 0, stream, args);
}

}  // namespace paddock::cuda
