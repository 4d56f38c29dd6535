// How gemv.cu divides its work. An item is a chunk of columns (32 * LaneRow::kLaneCols) of a group
// of rows (8 or 4 per warp). All items, chunk after chunk and group after group, are cut into equal
// runs, so that every multiprocessor has the same to do whatever the shape. Groups that are cut
// leave partial sums in the workspace, and the block that finishes one last adds them up.
#pragma once

#include "cuda/gemv_rows.h"
#include "cuda/launch.h"

namespace paddock::cuda {

static_assert(kSharedMemoryNeeded == simt::kMaxDynamicShared);
namespace {

/// Rows of a warp. 8 share each load of x; the sums of more than two tokens leave registers for 4.
template <int kTokens>
inline constexpr int kRows = kTokens > 2 ? 4 : 8;
/// A group has up to kMaxUnits of 8 rows; runs are as many as give each multiprocessor 16 units.
constexpr int kUnit = 8;
constexpr int kMaxUnits = 8;
constexpr int64_t all_units(int32_t multiprocessors) { return int64_t{16} * multiprocessors; }
/// Sums of all runs.
constexpr int64_t all_values(int32_t multiprocessors) {
  return all_units(multiprocessors) * kUnit * kMaxGemvTokens;
}

template <DType kType>
struct Shape {
  using Lane = LaneRow<kType>;
  static constexpr int kSteps = Lane::kLaneCols / 4;
  static constexpr int kChunkCols = simt::kWarpSize * Lane::kLaneCols;
  static constexpr DTypeTraits kTraits = dtype_traits(kType);
  static constexpr int kChunkBytes = kChunkCols / kTraits.block_values * kTraits.block_bytes;
  /// Room of a row in a stage: a chunk, and what precedes it in its first 16 bytes.
  static constexpr int kRowVectors =
      kTraits.block_bytes % 16 == 0 ? kChunkBytes / 16 : (kChunkBytes + 14 + 15) / 16;
  /// Operand vectors lie step by step, one more than lanes apart: no bank conflicts on either side.
  static constexpr int kInputVectors = kSteps * (simt::kWarpSize + 1);
  static constexpr int kTableVectors = Lane::kHasTable ? 8 : 0;  // of a row
};
template <DType kType, int kTokens>
constexpr int stage_vectors(int rows) {
  return rows * Shape<kType>::kRowVectors + kTokens * Shape<kType>::kInputVectors;
}
template <DType kType, int kTokens>
constexpr int fitting_stages() {
  constexpr int kGroupRows = kMaxUnits * kUnit;
  constexpr int kRoom =
      (kRows<kTokens> == 8 ? 113 : 160) * 64 - kGroupRows * Shape<kType>::kTableVectors;
  constexpr int kFit = kRoom / stage_vectors<kType, kTokens>(kGroupRows);
  return kFit < 2 ? 2 : kFit > 4 ? 4 : kFit;
}
/// As many stages as fit into shared memory beside each other for the blocks that registers allow
/// on a multiprocessor: two blocks, or one of twice the warps.
template <DType kType, int kTokens>
inline constexpr int kStages = fitting_stages<kType, kTokens>();

struct Job {
  const uint8_t* weights;
  const float* x;
  float* y;
  // Of every value of every run, [token_groups][runs][warps][tokens * rows of a warp]:
  uint32_t* finished;  // how many parts of it lie ready; zero between launches
  float* partials;     // the two that a run may leave, [token_groups][runs][2][...]
  int64_t x_stride, y_stride;
  int32_t rows, cols, row_bytes, n_tokens;
  int32_t chunks;      // of a row
  int32_t group_rows;  // of a block
  int32_t runs, token_groups;
  int32_t items_each;   // of a run
  int32_t longer_runs;  // the first so many have one more
  int32_t block_runs;   // that a block works through one after another
  bool accumulate;
};

/// A place in the order of items.
struct Place {
  int32_t group, chunk;
  PADDOCK_DEVICE void advance(int32_t chunks) {
    if (++chunk == chunks) {
      chunk = 0;
      ++group;
    }
  }
};
PADDOCK_DEVICE int32_t first_item(const Job& job, int32_t run) {
  return run * job.items_each + simt::min(run, job.longer_runs);
}
PADDOCK_DEVICE int32_t run_of(const Job& job, int32_t item) {
  const int32_t of_longer = job.longer_runs * (job.items_each + 1);
  return item < of_longer ? item / (job.items_each + 1) : (item - job.longer_runs) / job.items_each;
}
PADDOCK_DEVICE int block_warps() { return simt::block_size() / simt::kWarpSize; }
template <int kTokens>
PADDOCK_DEVICE int32_t first_row(const Job& job, const Place& at) {
  return at.group * job.group_rows + simt::warp() * kRows<kTokens>;
}
/// By how many bytes a row's chunk begins beyond a multiple of 16: copies begin there, as they move
/// 16 bytes at a time, and skip so many.
PADDOCK_DEVICE int misalignment(const Job& job, int32_t row, int chunk_offset) {
  return static_cast<int>((static_cast<uint32_t>(row) * static_cast<uint32_t>(job.row_bytes) +
                           static_cast<uint32_t>(chunk_offset)) &
                          15U);
}

// ---- host ----
int32_t divide_up(int64_t a, int64_t b) { return static_cast<int32_t>((a + b - 1) / b); }

/// Large groups share x among more rows; small ones spread short work over more
/// multiprocessors.
void divide_work(Job& job, int32_t multiprocessors) {
  for (const int units : {kMaxUnits, 2}) {
    job.group_rows = units * kUnit;
    const int64_t items = int64_t{divide_up(job.rows, job.group_rows)} * job.chunks;
    const int64_t most = all_units(multiprocessors) / units;
    job.runs = static_cast<int32_t>(items < most ? items : most);
    job.items_each = static_cast<int32_t>(items / job.runs);
    job.longer_runs = static_cast<int32_t>(items % job.runs);
    if (items >= most * 4 / 5 * divide_up(items, most)) return;
  }
}

}  // namespace
}  // namespace paddock::cuda
