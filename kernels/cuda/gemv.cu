// y[t][r] (=, +=) sum_k W[r][k] x[t][k] on packed weights, for few tokens: weights are read once
// and as they lie in the file.
//   weights [rows] of row_bytes(type, cols), x [n_tokens, cols], y [n_tokens, rows], float32
// How work is divided is in gemv_plan.h, how rows are decoded in gemv_rows.h and gemv_k_rows.h. A
// ring of stages filled by cp.async runs through a block's items without a pause.
//
// Sums:    float32: a lane's columns of a chunk in a fixed order, times their scale; then over the
//          chunks of a run, over the lanes (xor 16, 8, 4, 2, 1) and over the runs, in the order of
//          columns. Where runs begin follows from the device, type, rows and cols alone, so
//          n_tokens changes no bit.
// Limits:  weights and x aligned to 16 bytes, x_stride a multiple of 4
// Moves:   rows * row_bytes once, and x once per group of rows (from L2)
// Test:    tests/kernels/cuda_gemv_test.cpp

// hot: gemv_kernel
#include "cuda/gemv_k_rows.h"
#include "cuda/gemv_plan.h"
#include "cuda/launch.h"

namespace paddock::cuda {
namespace {

/// Starts copying an item into a stage: each warp its own rows, all warps x. What lies past the end
/// of a row, of the rows or of the tokens becomes zero.
template <DType kType, int kTokens>
PADDOCK_DEVICE void copy_item(const Job& job, int32_t first_token, const Place& at,
                              simt::U32x4* stage) {
  using S = Shape<kType>;
  const int32_t row0 = first_row<kTokens>(job, at);
  const int32_t offset = at.chunk * S::kChunkBytes;
  simt::U32x4* to = stage + simt::warp() * kRows<kTokens> * S::kRowVectors;
  PADDOCK_UNROLL for (int r = 0; r < kRows<kTokens>; ++r) {
    const int32_t row = row0 + r;
    const int before = misalignment(job, row, offset);
    const int needed = before + S::kChunkBytes;
    const int left = job.row_bytes - offset;
    const bool inside = PADDOCK_CHECKED("row", row < job.rows);
    const int valid = inside ? before + simt::min(left, S::kChunkBytes) : 0;
    const uint8_t* from = job.weights + int64_t{row} * job.row_bytes + (offset - before);
    PADDOCK_UNROLL for (int v = 0; v < S::kRowVectors; v += simt::kWarpSize) {
      const int i = v + simt::lane();
      if (16 * i >= needed) break;
      const int bytes = simt::max(0, simt::min(16, valid - 16 * i));
      simt::cp_async16(to + r * S::kRowVectors + i, bytes > 0 ? from + 16 * i : job.weights, bytes);
    }
  }
  to = stage + job.group_rows * S::kRowVectors;
  for (int i = simt::thread_x(); i < kTokens * S::kSteps * simt::kWarpSize;
       i += simt::block_size()) {
    const int group = i % (S::kSteps * simt::kWarpSize);
    const int t = i / (S::kSteps * simt::kWarpSize);
    const int32_t column = at.chunk * S::kChunkCols + 4 * group;
    const bool inside = PADDOCK_CHECKED("token", first_token + t < job.n_tokens);
    const int bytes = inside ? simt::max(0, simt::min(16, (job.cols - column) * 4)) : 0;
    const float* from = bytes > 0 ? job.x + (first_token + t) * job.x_stride + column : job.x;
    simt::cp_async16(to + t * S::kInputVectors + S::Lane::step_of(group) * (simt::kWarpSize + 1) +
                         S::Lane::lane_of(group),
                     from, bytes);
  }
}

PADDOCK_DEVICE float dot4(const float (&w)[4], const simt::F32x4& x, float sum) {
  sum = simt::fma(w[0], x.x, sum);
  sum = simt::fma(w[1], x.y, sum);
  sum = simt::fma(w[2], x.z, sum);
  return simt::fma(w[3], x.w, sum);
}

/// Adds a lane's part of an item to sums[t * kRows + r].
template <DType kType, int kTokens>
PADDOCK_DEVICE void multiply(const Job& job, const Place& at, const simt::U32x4* stage,
                             simt::F32x4* table, float (&sums)[kTokens * kRows<kTokens>]) {
  using S = Shape<kType>;
  using Lane = typename S::Lane;
  constexpr int kR = kRows<kTokens>;
  const int32_t row0 = first_row<kTokens>(job, at);
  const int32_t offset = at.chunk * S::kChunkBytes;
  const auto* rows = reinterpret_cast<const uint8_t*>(stage + simt::warp() * kR * S::kRowVectors);
  const auto chunk_of = [&](int r) {
    return rows + r * S::kRowVectors * 16 + misalignment(job, row0 + r, offset);
  };
  if constexpr (Lane::kHasTable) {
    constexpr int kEach = kR * 8 / simt::kWarpSize;  // vectors that a lane makes
    const int first = simt::lane() * kEach;
    Lane::template make_scales<kEach>(chunk_of(first / 8), first % 8, table + first);
    PADDOCK_SYNC_WARP("scales ready");
  }
  Lane lanes[kR];
  PADDOCK_UNROLL for (int r = 0; r < kR; ++r) lanes[r].read(chunk_of(r), table + 8 * r);

  const simt::U32x4* inputs = stage + job.group_rows * S::kRowVectors + simt::lane();
  float parts[kTokens * kR] = {};  // of the groups that share a scale
  float input_sums[kTokens] = {};  // likewise, of x
  PADDOCK_UNROLL for (int step = 0; step < S::kSteps; ++step) {
    simt::F32x4 x[kTokens];
    PADDOCK_UNROLL for (int t = 0; t < kTokens; ++t) {
      x[t] =
          simt::load_vec<simt::F32x4>(inputs + t * S::kInputVectors + step * (simt::kWarpSize + 1));
      if constexpr (Lane::kHasMin) {
        const float sum = (x[t].x + x[t].y) + (x[t].z + x[t].w);
        input_sums[t] = step % Lane::kSumGroups == 0 ? sum : input_sums[t] + sum;
      }
    }
    PADDOCK_UNROLL for (int r = 0; r < kR; ++r) {
      float w[4];
      lanes[r].weights(step, w);
      PADDOCK_UNROLL for (int t = 0; t < kTokens; ++t) {
        float& sum = sums[t * kR + r];
        float& part = parts[t * kR + r];
        if constexpr (Lane::kSumGroups == 0) {
          sum = dot4(w, x[t], sum);
        } else {
          part = dot4(w, x[t], step % Lane::kSumGroups == 0 ? 0.0F : part);
          if ((step + 1) % Lane::kSumGroups != 0) continue;
          sum = simt::fma(lanes[r].scale(step), part, sum);
          if constexpr (Lane::kHasMin) {
            sum = simt::fma(lanes[r].min(step), input_sums[t], sum);
          }
        }
      }
    }
  }
}

/// Sums over lanes, of up to 32 values: lane l returns the sum of value l * kCount / 32.
template <int kCount>
PADDOCK_DEVICE float add_lanes(float (&v)[kCount]) {
  static_assert(kCount <= simt::kWarpSize);
  int count = kCount;
  PADDOCK_UNROLL for (int mask = simt::kWarpSize / 2; mask > 0; mask /= 2) {
    if (count == 1) {
      v[0] += simt::shfl_xor(v[0], mask);
      continue;
    }
    count /= 2;  // this lane goes on with one half of the values
    const bool upper = (simt::lane() & mask) != 0;
    PADDOCK_UNROLL for (int i = 0; i < kCount / 2; ++i) {
      if (i >= count) break;
      const float mine = upper ? v[i + count] : v[i];
      v[i] = mine + simt::shfl_xor(upper ? v[i] : v[i + count], mask);
    }
  }
  return v[0];
}

/// Writes a group's sums, or leaves them for the block that finishes the group. A run has parts of
/// two groups at most: the one within which it begins and the one within which it ends.
template <int kTokens>
PADDOCK_DEVICE void finish_group(const Job& job, int token_group, int32_t run, const Place& at,
                                 float (&sums)[kTokens * kRows<kTokens>]) {
  constexpr int kCount = kTokens * kRows<kTokens>;
  float sum = add_lanes(sums);
  if (simt::lane() % (simt::kWarpSize / kCount) != 0) return;
  const int value = simt::lane() / (simt::kWarpSize / kCount);

  const int32_t first_of_group = at.group * job.chunks;
  const int32_t first_run = run_of(job, first_of_group);
  const int32_t last_run = run_of(job, first_of_group + job.chunks - 1);
  if (first_run != last_run) {
    const int values = block_warps() * kCount;
    const int mine = simt::warp() * kCount + value;
    const auto partial_of = [&](int32_t r) {
      const int ends_inside = first_item(job, r) > first_of_group ? 0 : 1;
      return job.partials + (2 * (token_group * job.runs + r) + ends_inside) * values + mine;
    };
    uint32_t* finished = job.finished + (token_group * job.runs + first_run) * values + mine;
    simt::store(partial_of(run), sum);
    PADDOCK_FENCE("partial visible");
    const uint32_t others = simt::atomic_add(finished, 1U);
    if (others != static_cast<uint32_t>(last_run - first_run)) return;
    PADDOCK_FENCE("partials seen");
    simt::store(finished, 0U);
    sum = 0;
    for (int32_t r = first_run; r <= last_run; ++r) sum += simt::load(partial_of(r));
  }
  const int t = token_group * kTokens + value / kRows<kTokens>;
  const int32_t row = first_row<kTokens>(job, at) + value % kRows<kTokens>;
  if (PADDOCK_CHECKED("token of y", t < job.n_tokens) &&
      PADDOCK_CHECKED("row of y", row < job.rows)) {
    float* y = job.y + t * job.y_stride + row;
    simt::store(y, job.accumulate ? simt::load(y) + sum : sum);
  }
}

template <DType kType, int kTokens>
PADDOCK_KERNEL(kMaxUnits* kUnit / kRows<kTokens> * simt::kWarpSize, kRows<kTokens> / 4)
void gemv_kernel(Job job) {
  using S = Shape<kType>;
  constexpr int kRing = kStages<kType, kTokens>;
  auto* ring = simt::dynamic_shared<simt::U32x4>();
  const int stage_size = job.group_rows * S::kRowVectors + kTokens * S::kInputVectors;
  auto* table = reinterpret_cast<simt::F32x4*>(ring + kRing * stage_size) +
                simt::warp() * kRows<kTokens> * S::kTableVectors;
  // Blocks of the same runs and other tokens are neighbours, so that the second finds the weights
  // in L2.
  const int token_group = simt::block_x() % job.token_groups;
  int32_t run = simt::block_x() / job.token_groups * job.block_runs;
  const int32_t begin = first_item(job, run);
  const int32_t n = first_item(job, simt::min(run + job.block_runs, job.runs)) - begin;

  Place at{begin / job.chunks, begin % job.chunks};
  Place next = at;
  const auto copy_next = [&](int32_t item) {
    if (item < n) {
      copy_item<kType, kTokens>(job, token_group * kTokens, next, ring + item % kRing * stage_size);
      next.advance(job.chunks);
    }
    simt::cp_async_commit();
  };
  PADDOCK_UNROLL for (int i = 0; i < kRing - 1; ++i) copy_next(i);

  float sums[kTokens * kRows<kTokens>] = {};
  for (int32_t i = 0; i < n; ++i) {
    PADDOCK_CP_ASYNC_WAIT("item copied", kRing - 2);
    PADDOCK_SYNC("item ready");
    copy_next(i + kRing - 1);
    multiply<kType, kTokens>(job, at, ring + i % kRing * stage_size, table, sums);
    const bool ends_run = begin + i + 1 == first_item(job, run + 1);
    if (at.chunk == job.chunks - 1 || ends_run) {
      finish_group<kTokens>(job, token_group, run, at, sums);
      PADDOCK_UNROLL for (int k = 0; k < kTokens * kRows<kTokens>; ++k) sums[k] = 0;
    }
    if (ends_run) ++run;
    at.advance(job.chunks);
  }
}

template <DType kType, int kTokens>
int launch(Job job, Stream stream) {
  // Blocks with 4 rows per warp have twice the threads; where there is work for all
  // multiprocessors, half as many of them do.
  job.block_runs = kRows<kTokens> == 4 && job.items_each + job.longer_runs > 1 ? 2 : 1;
  const int vectors = kStages<kType, kTokens> * stage_vectors<kType, kTokens>(job.group_rows) +
                      job.group_rows * Shape<kType>::kTableVectors;
  return PADDOCK_LAUNCH(
      (gemv_kernel<kType, kTokens>),
      {static_cast<uint32_t>(divide_up(job.runs, job.block_runs) * job.token_groups)},
      job.group_rows / kRows<kTokens> * simt::kWarpSize, static_cast<size_t>(vectors) * 16, stream,
      job);
}

template <DType kType>
int run(const GemvArgs& args, Stream stream) {
  // Rows with scales need a second set of sums; with eight tokens those do not fit into registers.
  constexpr int kMaxTokens = LaneRow<kType>::kSumGroups == 0 ? 8 : 4;
  Job job{};
  job.weights = args.weights;
  job.x = args.x;
  job.y = args.y;
  job.x_stride = args.x_stride;
  job.y_stride = args.y_stride;
  job.rows = static_cast<int32_t>(args.rows);
  job.cols = static_cast<int32_t>(args.cols);
  job.row_bytes = static_cast<int32_t>(row_bytes(kType, args.cols));
  job.n_tokens = args.n_tokens;
  job.chunks = divide_up(args.cols, Shape<kType>::kChunkCols);
  job.token_groups = divide_up(args.n_tokens, kMaxTokens);
  job.accumulate = args.accumulate;
  if (args.workspace != nullptr) {
    job.finished = reinterpret_cast<uint32_t*>(args.workspace);
    job.partials = args.workspace + all_values(args.multiprocessors);
  }
  divide_work(job, args.multiprocessors);
  if (args.n_tokens == 1) return launch<kType, 1>(job, stream);
  if (args.n_tokens == 2) return launch<kType, 2>(job, stream);
  if (args.n_tokens <= 4 || kMaxTokens == 4) return launch<kType, 4>(job, stream);
  return launch<kType, kMaxTokens>(job, stream);
}

bool aligned_to_16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

bool gemv_supports(DType type) {
  switch (type) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ8_0:
    case DType::kQ4_K:
    case DType::kQ6_K:
      return true;
    default:
      return false;
  }
}

int64_t gemv_workspace_floats(DType type, int64_t rows, int64_t cols, int32_t multiprocessors) {
  return gemv_supports(type) && rows > 0 && cols > 128 ? 3 * all_values(multiprocessors) : 0;
}

int gemv(const GemvArgs& args, Stream stream) {
  if (!gemv_supports(args.type) || args.weights == nullptr || args.x == nullptr ||
      args.y == nullptr || args.rows < 1 || args.cols < 1 || args.rows >= INT32_MAX / 2 ||
      args.cols >= INT32_MAX / 64 || args.cols % dtype_traits(args.type).block_values != 0 ||
      args.n_tokens < 1 || args.n_tokens > kMaxGemvTokens || !aligned_to_16(args.weights) ||
      !aligned_to_16(args.x) || args.x_stride % 4 != 0 || args.x_stride < args.cols ||
      args.y_stride < args.rows || (args.rows / 16 + 1) * (args.cols / 128 + 1) > INT32_MAX ||
      args.multiprocessors < 1 || args.multiprocessors > kMostMultiprocessors ||
      (args.workspace == nullptr &&
       gemv_workspace_floats(args.type, args.rows, args.cols, args.multiprocessors) > 0)) {
    return kInvalid;
  }
  switch (args.type) {
    case DType::kF32:
      return run<DType::kF32>(args, stream);
    case DType::kF16:
      return run<DType::kF16>(args, stream);
    case DType::kBF16:
      return run<DType::kBF16>(args, stream);
    case DType::kQ4_0:
      return run<DType::kQ4_0>(args, stream);
    case DType::kQ4_1:
      return run<DType::kQ4_1>(args, stream);
    case DType::kQ8_0:
      return run<DType::kQ8_0>(args, stream);
    case DType::kQ4_K:
      return run<DType::kQ4_K>(args, stream);
    default:
      return run<DType::kQ6_K>(args, stream);
  }
}

}  // namespace paddock::cuda
