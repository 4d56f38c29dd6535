// Rows of logits that several blocks read, a slice each, as the kernels of sampling.cu see them:
// what one launch leaves for the next, what a block leaves for the last one of its row, and how
// that one is known.
#pragma once

#include "cuda/device.h"
#include "cuda/launch.h"
#include "sampling.h"

namespace paddock::cuda::sampling {

inline constexpr int kThreads = 256;
inline constexpr int kWarps = kThreads / simt::kWarpSize;
inline constexpr int kEach = 16;  // logits of a thread
inline constexpr int kSlice = kThreads * kEach;
inline constexpr int kMaxSlices = kThreads;
inline constexpr int kDigitBits = 11;  // of a key that select looks at in one launch
inline constexpr int kBins = 1 << kDigitBits;

inline int32_t slices_of(int32_t vocab_size) { return (vocab_size + kSlice - 1) / kSlice; }

/// What the launches hand on about a row.
struct RowState {
  uint32_t best;    // key of the largest logit
  uint32_t cut;     // key of the smallest that stays; 0: nothing is cut
  uint32_t equals;  // how many of those equal to it stay, the lowest ids
  uint32_t done;    // the token is known, or there is none
  uint32_t prefix;  // of the key that select looks for: its digits so far
  uint32_t reserved;
  uint64_t left;  // to be found among keys with this prefix, from the largest down
};

/// What a block leaves for the last one of its row.
struct Part {
  uint64_t value;  // begin: rank of the best; draw: sum of weights above the cut
  uint32_t count;  // begin: threads that met a logit that is not finite; draw: logits at the cut
  uint32_t reserved;
};

/// Scratch of one row; `slices` Parts follow it.
struct RowScratch {
  RowState state;
  uint32_t arrived[4];   // blocks of this launch that have left their part; zero between launches
  uint64_t bins[kBins];  // counts or weights of keys by the digit at hand; zero between launches
};
static_assert(sizeof(RowScratch) % 16 == 0);

struct Params {
  SampleArgs args;
  int32_t slices;
};
PADDOCK_HD inline int64_t row_scratch_bytes(int32_t slices) {
  return int64_t{sizeof(RowScratch)} + slices * int64_t{sizeof(Part)};
}

/// The row of a block, and what select and draw need to know about it.
struct Row {
  SampleRow how;
  const float* logits;
  RowState* state;
  uint32_t* arrived;
  uint64_t* bins;
  Part* parts;
};
PADDOCK_DEVICE Row row_of(const Params& p) {
  const int row = simt::block_y();
  auto* scratch = reinterpret_cast<RowScratch*>(static_cast<uint8_t*>(p.args.workspace) +
                                                row * row_scratch_bytes(p.slices));
  return {simt::load_const(p.args.rows + row),
          p.args.logits + row * p.args.stride,
          &scratch->state,
          scratch->arrived,
          scratch->bins,
          reinterpret_cast<Part*>(scratch + 1)};
}

/// Calls use(id, logit) for this thread's logits of the block's slice.
template <typename Use>
PADDOCK_DEVICE void for_each_logit(const Params& p, const Row& row, const Use& use) {
  float logits[kEach];
  const int32_t first = simt::block_x() * kSlice + simt::thread_x();
  PADDOCK_UNROLL for (int i = 0; i < kEach; ++i) {
    const int32_t id = first + i * kThreads;
    if (PADDOCK_CHECKED("logit", id < p.args.vocab_size)) {
      logits[i] = simt::load_const(row.logits + id);
    }
  }
  PADDOCK_UNROLL for (int i = 0; i < kEach; ++i) {
    const int32_t id = first + i * kThreads;
    if (id < p.args.vocab_size) use(id, logits[i]);
  }
}

/// The sum of `value` over the block's threads before this one, and over all of them.
template <typename T>
struct Scan {
  T before, total;
};
template <typename T>
PADDOCK_DEVICE Scan<T> scan_block(T value, uint64_t* shared) {
  const int lane = simt::lane();
  T sum = value;
  PADDOCK_UNROLL for (int delta = 1; delta < simt::kWarpSize; delta *= 2) {
    const T other = simt::shfl(sum, lane >= delta ? lane - delta : lane);
    if (lane >= delta) sum += other;
  }
  PADDOCK_SYNC("scan used");
  if (lane == simt::kWarpSize - 1) simt::store(shared + simt::warp(), uint64_t{sum});
  PADDOCK_SYNC("scan ready");
  Scan<T> scan{static_cast<T>(sum - value), 0};
  PADDOCK_UNROLL for (int w = 0; w < kWarps; ++w) {
    const T of_warp = static_cast<T>(simt::load(shared + w));
    if (w < simt::warp()) scan.before += of_warp;
    scan.total += of_warp;
  }
  return scan;
}

/// Whether this block is the last of its row to come here; it then sees what the others left.
PADDOCK_DEVICE bool is_last(const Params& p, const Row& row, uint32_t* shared) {
  PADDOCK_SYNC("block left its part");
  if (simt::thread_x() == 0) {
    PADDOCK_FENCE("part visible");
    const uint32_t others = simt::atomic_add(row.arrived, 1U);
    PADDOCK_FENCE("parts seen");
    const bool last = others + 1 == static_cast<uint32_t>(p.slices);
    simt::store(shared, last ? 1U : 0U);
    if (last) simt::store(row.arrived, 0U);
  }
  PADDOCK_SYNC("arrival counted");
  return simt::load(shared) != 0;
}

}  // namespace paddock::cuda::sampling
