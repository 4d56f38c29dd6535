// A token for each row of logits, exactly as SampleRow in kernels/sampling.h says.
//   logits [n_rows, vocab_size]  ->  tokens [n_rows]; -1 where a logit is not finite
//
// Work:    block (slice of kSlice logits, row), in up to 8 launches of which each block leaves its
//          slice's part and the last one of a row goes on alone:
//          begin    the best logit; greedy rows are done
//          select   the smallest logit that top_k keeps, then that top_p keeps, as a radix search
//                   over logit_key(): three digits, the uppermost first, by counts or by weights
//          draw     weights at the temperature, slice by slice; the slice that the draw falls in is
//                   walked in the order of ids
//          Of logits equal to the smallest kept one only the first few stay: state.equals.
// Sums:    integers, so their order is of no account.
// Limits:  vocab_size up to kMaxSlices * kSlice; the workspace all zero before its first use (each
//          call leaves its counters so)
// Moves:   4 * vocab_size bytes a launch and row, mostly from L2.
// Test:    tests/kernels/cuda_sampling_test.cpp
// hot: begin_kernel select_kernel draw_kernel
#include "cuda/device.h"
#include "cuda/launch.h"
#include "cuda/sampling_rows.h"
#include "sampling.h"

namespace paddock::cuda {
namespace {

using namespace sampling;

constexpr int kBinsEach = kBins / kThreads;

// ---- begin ----
PADDOCK_DEVICE uint64_t rank_of(float logit, int32_t id) {
  return uint64_t{logit_key(logit)} << 32 | static_cast<uint32_t>(~id);
}

/// The best rank and the count over the lanes of a warp.
PADDOCK_DEVICE Part reduce_warp(Part part) {
  PADDOCK_UNROLL for (int mask = 1; mask < simt::kWarpSize; mask *= 2) {
    part.value = simt::max(part.value, simt::shfl_xor(part.value, mask));
    part.count += simt::shfl_xor(part.count, mask);
  }
  return part;
}
PADDOCK_DEVICE Part merge(const Part& a, const Part& b) {
  return {simt::max(a.value, b.value), a.count + b.count, 0};
}

PADDOCK_KERNEL(kThreads)
void begin_kernel(Params p) {
  PADDOCK_SHARED(Part, of_warps, kWarps);
  PADDOCK_SHARED(uint32_t, last, 1);
  const Row row = row_of(p);
  Part part{0, 0, 0};
  for_each_logit(p, row, [&](int32_t id, float logit) {
    part = merge(part, {rank_of(logit, id), is_finite(logit) ? 0U : 1U, 0});
  });
  part = reduce_warp(part);
  if (simt::lane() == 0) simt::store(of_warps + simt::warp(), part);
  PADDOCK_SYNC("warps reduced");
  if (simt::thread_x() == 0) {
    for (int w = 1; w < kWarps; ++w) part = merge(part, simt::load(of_warps + w));
    simt::store(row.parts + simt::block_x(), part);
  }
  if (!is_last(p, row, last) || simt::warp() != 0) return;
  part = {0, 0, 0};
  for (int32_t s = simt::lane(); s < p.slices; s += simt::kWarpSize) {
    part = merge(part, simt::load(row.parts + s));
  }
  part = reduce_warp(part);
  if (simt::lane() != 0) return;
  const bool broken = part.count != 0;
  const bool done = broken || row.how.temperature == 0.0F;
  simt::store(&row.state->best, static_cast<uint32_t>(part.value >> 32));
  simt::store(&row.state->cut, 0U);
  simt::store(&row.state->equals, 0U);
  simt::store(&row.state->done, done ? 1U : 0U);
  if (!done) return;
  const auto best = ~static_cast<int32_t>(static_cast<uint32_t>(part.value));
  simt::store(p.args.tokens + simt::block_y(), broken ? -1 : best);
}

// ---- select ----
enum class Cut { kTopK, kTopP };

PADDOCK_DEVICE bool wants(const Params& p, const SampleRow& how, Cut by) {
  return by == Cut::kTopK ? how.top_k > 0 && how.top_k < p.args.vocab_size : how.top_p < 1.0F;
}

/// One digit of the search for a row's cut; digits have kDigitBits, kDigitBits and 10 bits.
template <Cut kBy>
struct Digit {
  RowState state;
  float best;
  int number, shift, bits;

  PADDOCK_DEVICE Digit(const RowState& known, int digit)
      : state(known),
        best(key_logit(known.best)),
        number(digit),
        shift(digit == 0   ? 32 - kDigitBits
              : digit == 1 ? 32 - 2 * kDigitBits
                           : 0),
        bits(digit == 2 ? 32 - 2 * kDigitBits : kDigitBits) {}
  PADDOCK_DEVICE uint64_t weight(uint32_t key) const {
    return kBy == Cut::kTopK ? 1 : logit_weight(key_logit(key), best, 1.0F);
  }
  PADDOCK_DEVICE bool has_prefix(uint32_t key) const {
    return number == 0 || key >> (shift + bits) == state.prefix;
  }
  PADDOCK_DEVICE int32_t bin_of(uint32_t key) const {
    return static_cast<int32_t>(key >> shift & ((1U << bits) - 1U));
  }
};

/// Adds the weights of the block's logits to the row's bins. `sums`: those of the block, in three
/// parts of 16 bits, which shared memory adds quickly.
template <Cut kBy>
PADDOCK_DEVICE void fill_bins(const Params& p, const Row& row, const Digit<kBy>& digit,
                              uint32_t* sums) {
  for (int i = simt::thread_x(); i < 3 * kBins; i += kThreads) simt::store(sums + i, 0U);
  PADDOCK_SYNC("sums cleared");
  for_each_logit(p, row, [&](int32_t, float logit) {
    const uint32_t key = logit_key(logit);
    if (key <= digit.state.cut || !digit.has_prefix(key)) return;  // those at the cut come below
    const uint64_t w = digit.weight(key);
    uint32_t* sum = sums + digit.bin_of(key);
    PADDOCK_UNROLL for (int part = 0; part < (kBy == Cut::kTopK ? 1 : 3); ++part) {
      const auto some = static_cast<uint32_t>(w >> (16 * part) & 0xFFFFU);
      if (some != 0) simt::atomic_add(sum + part * kBins, some);
    }
  });
  PADDOCK_SYNC("sums ready");
  for (int bin = simt::thread_x(); bin < kBins; bin += kThreads) {
    const uint64_t sum = simt::load(sums + bin) + (uint64_t{simt::load(sums + kBins + bin)} << 16) +
                         (uint64_t{simt::load(sums + 2 * kBins + bin)} << 32);
    if (sum != 0) simt::atomic_add(row.bins + bin, sum);
  }
}

template <Cut kBy>
PADDOCK_KERNEL(kThreads)
void select_kernel(Params p, int number) {
  PADDOCK_SHARED(uint32_t, sums, 3 * kBins);
  PADDOCK_SHARED(uint64_t, scratch, kWarps);
  PADDOCK_SHARED(uint32_t, last, 1);
  const Row row = row_of(p);
  const RowState state = simt::load(row.state);
  if (state.done != 0 || !wants(p, row.how, kBy)) return;
  const Digit<kBy> digit(state, number);
  fill_bins(p, row, digit, sums);
  if (!is_last(p, row, last)) return;

  uint64_t own[kBinsEach];  // from the uppermost bin down
  uint64_t sum = 0;
  const int first = kBins - 1 - simt::thread_x() * kBinsEach;
  PADDOCK_UNROLL for (int i = 0; i < kBinsEach; ++i) {
    own[i] = simt::load(row.bins + first - i);
    simt::store(row.bins + first - i, uint64_t{0});
    if (state.cut != 0 && digit.has_prefix(state.cut) && digit.bin_of(state.cut) == first - i) {
      own[i] += state.equals * digit.weight(state.cut);
    }
    sum += own[i];
  }
  const Scan<uint64_t> scan = scan_block(sum, scratch);
  uint64_t left = state.left;
  if (number == 0) {
    left = kBy == Cut::kTopK ? static_cast<uint64_t>(row.how.top_k)
                             : share_of(row.how.top_p, scan.total);
  }
  if (left <= scan.before || left > scan.before + sum) return;
  left -= scan.before;
  int bin = first;
  PADDOCK_UNROLL for (int i = 0; i < kBinsEach; ++i) {
    if (bin != first - i || left <= own[i]) continue;
    left -= own[i];
    --bin;
  }
  const uint32_t prefix =
      (number == 0 ? 0U : state.prefix << digit.bits) | static_cast<uint32_t>(bin);
  simt::store(&row.state->prefix, prefix);
  simt::store(&row.state->left, left);
  if (number < 2) return;
  const uint64_t each = digit.weight(prefix);
  simt::store(&row.state->cut, prefix);
  simt::store(&row.state->equals, static_cast<uint32_t>((left + each - 1) / each));
}

// ---- draw ----
/// Where the draw falls.
struct Found {
  uint64_t unit;  // counted from the slice's first
  uint32_t slice;
  uint32_t equals;  // logits of the slice at the cut that stay
};

/// Of `here` logits at the cut after `earlier` ones, those that stay.
PADDOCK_DEVICE uint32_t staying(uint32_t equals, uint32_t earlier, uint32_t here) {
  return earlier >= equals ? 0U : simt::min(here, equals - earlier);
}

/// What the logits of a row weigh when one of them is drawn.
struct Weights {
  float best, temperature;
  uint32_t best_key;
  uint64_t least;  // at temperature 1: what min_p leaves

  PADDOCK_DEVICE Weights(const RowState& state, const SampleRow& how)
      : best(key_logit(state.best)),
        temperature(how.temperature),
        best_key(state.best),
        least(how.min_p > 0.0F ? share_of(how.min_p, kWeightOne) : 0) {}
  PADDOCK_DEVICE uint64_t of(uint32_t key) const {
    const float logit = key_logit(key);
    if (key != best_key && logit_weight(logit, best, 1.0F) < least) return 0;
    return logit_weight(logit, best, temperature);
  }
};

/// In which slice the draw falls; one thread each.
PADDOCK_DEVICE Found find_slice(const Params& p, const Row& row, const RowState& state,
                                uint64_t weight_at_cut, uint64_t* scratch, Found* found_at) {
  const int me = simt::thread_x();
  Part part{0, 0, 0};
  if (PADDOCK_CHECKED("slice", me < p.slices)) part = simt::load(row.parts + me);
  const uint32_t earlier = scan_block(part.count, scratch).before;
  const uint32_t stay = staying(state.equals, earlier, part.count);
  const uint64_t sum = part.value + stay * weight_at_cut;
  const Scan<uint64_t> scan = scan_block(sum, scratch);
  const uint64_t unit = drawn_unit(row.how, scan.total);
  if (scan.before <= unit && unit < scan.before + sum) {
    simt::store(found_at, Found{unit - scan.before, static_cast<uint32_t>(me), stay});
  }
  PADDOCK_SYNC("slice found");
  return simt::load(found_at);
}

/// Writes down on which logit of the slice it falls; a thread has kEach that follow one another.
PADDOCK_DEVICE void find_logit(const Params& p, const Row& row, const RowState& state,
                               const Weights& weights, uint64_t weight_at_cut, const Found& found,
                               uint64_t* scratch) {
  const int32_t first =
      static_cast<int32_t>(found.slice) * kSlice + static_cast<int>(simt::thread_x()) * kEach;
  uint32_t keys[kEach];
  uint32_t equals = 0;
  PADDOCK_UNROLL for (int i = 0; i < kEach; ++i) {
    keys[i] = 0;
    if (PADDOCK_CHECKED("logit of the slice", first + i < p.args.vocab_size)) {
      keys[i] = logit_key(simt::load_const(row.logits + first + i));
    }
    if (keys[i] == state.cut) ++equals;
  }
  const uint32_t earlier = scan_block(equals, scratch).before;
  uint32_t left = staying(found.equals, earlier, equals);
  uint64_t own[kEach];
  uint64_t sum = 0;
  PADDOCK_UNROLL for (int i = 0; i < kEach; ++i) {
    own[i] = keys[i] > state.cut ? weights.of(keys[i]) : 0;
    if (keys[i] == state.cut && left > 0) {
      own[i] = weight_at_cut;
      --left;
    }
    sum += own[i];
  }
  uint64_t passed = scan_block(sum, scratch).before;
  PADDOCK_UNROLL for (int i = 0; i < kEach; ++i) {
    if (passed <= found.unit && found.unit < passed + own[i]) {
      simt::store(p.args.tokens + simt::block_y(), first + i);
    }
    passed += own[i];
  }
}

PADDOCK_KERNEL(kThreads)
void draw_kernel(Params p) {
  PADDOCK_SHARED(uint64_t, scratch, kWarps);
  PADDOCK_SHARED(uint32_t, last, 1);
  PADDOCK_SHARED(Found, found_at, 1);
  const Row row = row_of(p);
  const RowState state = simt::load(row.state);
  if (state.done != 0) return;
  const Weights weights(state, row.how);
  const uint64_t weight_at_cut = state.cut == 0 ? 0 : weights.of(state.cut);

  uint64_t sum = 0;
  uint32_t equals = 0;
  for_each_logit(p, row, [&](int32_t, float logit) {
    const uint32_t key = logit_key(logit);
    if (key > state.cut) sum += weights.of(key);
    if (key == state.cut) ++equals;
  });
  sum = scan_block(sum, scratch).total;
  equals = scan_block(equals, scratch).total;
  if (simt::thread_x() == 0) simt::store(row.parts + simt::block_x(), Part{sum, equals, 0});
  if (!is_last(p, row, last)) return;

  const Found found = find_slice(p, row, state, weight_at_cut, scratch, found_at);
  find_logit(p, row, state, weights, weight_at_cut, found, scratch);
}

// ---- host ----
template <Cut kBy>
int select(const Params& params, simt::Grid grid, Stream stream) {
  for (int digit = 0; digit < 3; ++digit) {
    const int error = PADDOCK_LAUNCH(select_kernel<kBy>, grid, kThreads, 0, stream, params, digit);
    if (error != 0) return error;
  }
  return 0;
}

}  // namespace

bool sample_supports(int32_t vocab_size) {
  return vocab_size > 0 && vocab_size <= kMaxSlices * kSlice;
}

int64_t sample_workspace_bytes(int32_t vocab_size, int32_t n_rows) {
  return n_rows * row_scratch_bytes(slices_of(vocab_size));
}

int sample(const SampleArgs& args, Stream stream) {
  if (args.n_rows == 0) return 0;
  if (!sample_supports(args.vocab_size) || args.n_rows < 0 || args.n_rows > 65535 ||
      args.stride < args.vocab_size || args.workspace == nullptr) {
    return kInvalid;
  }
  const Params params{args, slices_of(args.vocab_size)};
  const simt::Grid grid{static_cast<uint32_t>(params.slices), static_cast<uint32_t>(args.n_rows)};
  int error = PADDOCK_LAUNCH(begin_kernel, grid, kThreads, 0, stream, params);
  if (error == 0 && args.any_top_k) error = select<Cut::kTopK>(params, grid, stream);
  if (error == 0 && args.any_top_p) error = select<Cut::kTopP>(params, grid, stream);
  if (error == 0 && args.any_draw) {
    error = PADDOCK_LAUNCH(draw_kernel, grid, kThreads, 0, stream, params);
  }
  return error;
}

}  // namespace paddock::cuda
