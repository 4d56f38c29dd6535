// Small kernels that use every part of cuda/device.h; simt_test.cpp runs them and their mutants,
// and nvcc.sh compiles them as they are. hot: matmul_kernel
#include "simt_demo.h"

namespace paddock::demo {
namespace {

using simt::Bf16;

// ---- softmax of rows: one block per row ----
constexpr int kSoftmaxThreads = 128;

PADDOCK_KERNEL(kSoftmaxThreads)
void softmax_kernel(SoftmaxArgs args) {
  PADDOCK_SHARED(float, partial, kSoftmaxThreads / simt::kWarpSize);
  const float* x = args.x + int64_t{simt::block_x()} * args.n_columns;
  float* y = args.y + int64_t{simt::block_x()} * args.n_columns;

  float largest = -INFINITY;
  for (int i = simt::thread_x(); i < args.n_columns; i += kSoftmaxThreads) {
    largest = simt::max(largest, simt::load_const(x + i));
  }
  largest = simt::warp_max(largest);
  if (simt::lane() == 0) simt::store(&partial[simt::warp()], largest);
  PADDOCK_SYNC("max ready");
  for (int i = 0; i < kSoftmaxThreads / simt::kWarpSize; ++i) {
    largest = simt::max(largest, simt::load(&partial[i]));
  }
  PADDOCK_SYNC("max used");

  float sum = 0;
  for (int i = simt::thread_x(); i < args.n_columns; i += kSoftmaxThreads) {
    sum += simt::fast_exp(simt::load_const(x + i) - largest);
  }
  sum = simt::warp_sum(sum);
  if (simt::lane() == 0) simt::store(&partial[simt::warp()], sum);
  PADDOCK_SYNC("sum ready");
  sum = 0;
  for (int i = 0; i < kSoftmaxThreads / simt::kWarpSize; ++i) sum += simt::load(&partial[i]);
  for (int i = simt::thread_x(); i < args.n_columns; i += kSoftmaxThreads) {
    simt::store_stream(y + i, simt::fast_exp(simt::load_const(x + i) - largest) / sum);
  }
}

// ---- c = a * w^T: tiles of 32 x 32 outputs, 16 x 16 per warp, two stages of 32 along k ----
constexpr int kMatmulThreads = 128;
constexpr int kTile = 32;
constexpr int kStride = kTile + 8;  // elements; rows of 80 bytes keep ldmatrix free of conflicts

struct MatmulStage {
  Bf16 a[kTile][kStride];
  Bf16 w[kTile][kStride];
};

/// Each thread copies 8 elements of each operand.
PADDOCK_DEVICE void copy_stage(MatmulStage* stage, const MatmulArgs& args, int k) {
  const int row = simt::thread_x() / 4;
  const int column = simt::thread_x() % 4 * 8;
  const int row_a = simt::block_y() * kTile + row;
  const int row_w = simt::block_x() * kTile + row;
  const bool inside_k = PADDOCK_CHECKED("k", k + column < args.k);
  const bool inside_a = inside_k && PADDOCK_CHECKED("row of a", row_a < args.m);
  const bool inside_w = inside_k && PADDOCK_CHECKED("row of w", row_w < args.n);
  const Bf16* a = inside_a ? args.a + int64_t{row_a} * args.k + k + column : args.a;
  const Bf16* w = inside_w ? args.w + int64_t{row_w} * args.k + k + column : args.w;
  simt::cp_async16(&stage->a[row][column], a, inside_a ? 16 : 0);
  simt::cp_async16(&stage->w[row][column], w, inside_w ? 16 : 0);
}

PADDOCK_KERNEL(kMatmulThreads, 4)
void matmul_kernel(MatmulArgs args) {
  auto* stages = simt::dynamic_shared<MatmulStage>();  // [2]
  const int lane = simt::lane();
  const int first_row = simt::warp() / 2 * 16;
  const int first_column = simt::warp() % 2 * 16;
  float d[2][4] = {};

  copy_stage(&stages[0], args, 0);
  simt::cp_async_commit();
  const int n_stages = (args.k + kTile - 1) / kTile;
  for (int stage = 0; stage < n_stages; ++stage) {
    if (stage + 1 < n_stages) copy_stage(&stages[(stage + 1) % 2], args, (stage + 1) * kTile);
    simt::cp_async_commit();
    PADDOCK_CP_ASYNC_WAIT("stage", 1);
    PADDOCK_SYNC("stage ready");
    MatmulStage* now = &stages[stage % 2];
    PADDOCK_UNROLL for (int k = 0; k < kTile; k += 16) {
      uint32_t a[4];
      uint32_t w[4];  // two 16 x 8 fragments
      simt::ldmatrix_x4(a, &now->a[first_row + lane % 16][k + lane / 16 * 8]);
      simt::ldmatrix_x4(w, &now->w[first_column + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
      simt::mma_m16n8k16<Bf16>(d[0], a, {w[0], w[1]});
      simt::mma_m16n8k16<Bf16>(d[1], a, {w[2], w[3]});
    }
    PADDOCK_SYNC("stage used");
  }

  PADDOCK_UNROLL for (int half = 0; half < 2; ++half) {
    PADDOCK_UNROLL for (int i = 0; i < 4; ++i) {
      const int row = simt::block_y() * kTile + first_row + lane / 4 + i / 2 * 8;
      const int column = simt::block_x() * kTile + first_column + half * 8 + lane % 4 * 2 + i % 2;
      if (PADDOCK_CHECKED("row of c", row < args.m) &&
          PADDOCK_CHECKED("column of c", column < args.n)) {
        simt::store(args.c + int64_t{row} * args.n + column, d[half][i]);
      }
    }
  }
}

// ---- histogram of bytes: counts of a block in shared memory first ----
constexpr int kHistogramThreads = 256;

PADDOCK_KERNEL(kHistogramThreads)
void histogram_kernel(HistogramArgs args) {
  PADDOCK_SHARED(uint32_t, counts, 256);
  simt::store(&counts[simt::thread_x()], 0);
  PADDOCK_SYNC("zeroed");
  const int stride = simt::grid_x() * kHistogramThreads;
  for (int first = simt::block_x() * kHistogramThreads; first < args.n; first += stride) {
    const int i = first + simt::thread_x();
    if (PADDOCK_CHECKED("n", i < args.n)) {
      simt::atomic_add(&counts[simt::load_stream(args.x + i)], 1U);
    }
  }
  PADDOCK_SYNC("counted");
  simt::atomic_add(&args.counts[simt::thread_x()], simt::load(&counts[simt::thread_x()]));
}

// ---- sum of all: the block that finishes last adds up what the others left ----
constexpr int kSumThreads = 64;

/// To be called once between two barriers of the caller.
PADDOCK_DEVICE float block_sum(float v) {
  PADDOCK_SHARED(float, partial, kSumThreads / simt::kWarpSize);
  v = simt::warp_sum(v);
  if (simt::lane() == 0) simt::store(&partial[simt::warp()], v);
  PADDOCK_SYNC("partial ready");
  v = 0;
  for (int i = 0; i < kSumThreads / simt::kWarpSize; ++i) v += simt::load(&partial[i]);
  return v;
}

PADDOCK_KERNEL(kSumThreads)
void sum_kernel(SumArgs args) {
  PADDOCK_SHARED(uint32_t, order, 1);
  float v = 0;
  const int stride = simt::grid_x() * kSumThreads;
  for (int i = simt::block_x() * kSumThreads + simt::thread_x(); i < args.n; i += stride) {
    v += simt::load_const(args.x + i);
  }
  v = block_sum(v);
  if (simt::thread_x() == 0) {
    simt::store(&args.partial[simt::block_x()], v);
    PADDOCK_FENCE("partial visible");
    simt::store(order, simt::atomic_add(args.finished, 1U));
    PADDOCK_FENCE("partials seen");
  }
  PADDOCK_SYNC("order ready");
  if (simt::load(order) + 1 != static_cast<uint32_t>(simt::grid_x())) return;
  v = 0;
  for (int i = simt::thread_x(); i < simt::grid_x(); i += kSumThreads) {
    v += simt::load(&args.partial[i]);
  }
  v = block_sum(v);
  if (simt::thread_x() == 0) {
    simt::store(args.sum, v);
    simt::atomic_exchange(args.finished, 0U);
  }
}

}  // namespace

int softmax(const SoftmaxArgs& args, simt::Stream stream) {
  return PADDOCK_LAUNCH(softmax_kernel, {static_cast<uint32_t>(args.n_rows)}, kSoftmaxThreads, 0,
                        stream, args);
}
int matmul(const MatmulArgs& args, simt::Stream stream) {
  const simt::Grid grid{static_cast<uint32_t>((args.n + kTile - 1) / kTile),
                        static_cast<uint32_t>((args.m + kTile - 1) / kTile)};
  return PADDOCK_LAUNCH(matmul_kernel, grid, kMatmulThreads, 2 * sizeof(MatmulStage), stream, args);
}
int histogram(const HistogramArgs& args, simt::Stream stream) {
  return PADDOCK_LAUNCH(histogram_kernel, {2}, kHistogramThreads, 0, stream, args);
}
int sum(const SumArgs& args, int n_blocks, simt::Stream stream) {
  return PADDOCK_LAUNCH(sum_kernel, {static_cast<uint32_t>(n_blocks)}, kSumThreads, 0, stream,
                        args);
}

}  // namespace paddock::demo
