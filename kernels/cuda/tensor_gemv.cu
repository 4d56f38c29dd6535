// y[t][r] (=, +=) sum_k W[r][k] x[t][k] on packed weights and tensor cores, for few tokens: weights
// are read once and as they lie in the file.
//   weights [rows] of row_bytes(type, cols), x [n_tokens, cols], y [n_tokens, rows] float32
//
// Work:    a block takes 16 * kTiles rows and up to 8 * kTokenTiles tokens, and its 4 to 16 warps,
//          the more the fewer blocks there are, take turns with chunks of columns
//          (tensor_gemv_rows.h). Rows of several matrices that share x (query, key and value, say)
//          lie one after another. Blocks of the same rows and other tokens are neighbours, so that
//          the second finds the weights in L2.
// Copies:  each warp has two stages, filled by cp.async in turn; x comes straight from L2, as it is
//          for few tokens, rounded before for more.
// Numbers: weights without their scales are small integers, exact in bfloat16, and so are their
//          products with x in float32. These are summed over the columns that share a scale, then
//          multiplied by it and summed over a warp's chunks in order, then over the warps in order.
// Limits:  weights, x and its rows aligned to 16 bytes, cols a multiple of 256 (64 for BF16).
// Moves:   weights once, and x once per block (from L2).
// Test:    tests/kernels/cuda_tensor_gemv_test.cpp
// hot: tensor_gemv_kernel
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/tensor_gemv_rows.h"

namespace paddock::cuda {
namespace {

using simt::Bf16;

constexpr int kStages = 2;
constexpr int kMostTokenTiles = 4;
constexpr int kMostBytes = 160 * 1024;  // of shared memory
/// More tokens need more registers.
constexpr int most_warps(int token_tiles) { return token_tiles <= 2 ? 16 : 8; }

template <DType kType>
struct Layout {
  using Row = TileRow<kType>;
  static constexpr DTypeTraits kTraits = dtype_traits(kType);
  static constexpr int kRows = 16 * Row::kTiles;
  static constexpr int kChunkCols = 64 * Row::kGroups;
  static constexpr int kChunkBytes = kChunkCols / kTraits.block_values * kTraits.block_bytes;
  /// Vectors of a row's chunk, and what precedes it in its first 16 bytes.
  static constexpr bool kMayShift = kChunkBytes % 16 != 0;
  static constexpr int kVectors = kMayShift ? (kChunkBytes + 14 + 15) / 16 : kChunkBytes / 16;
  static_assert(kVectors * 16 <= Row::kPitch);
  static constexpr int kStageBytes = kRows * Row::kPitch;
  static constexpr int kMostWarps = 16 * kStages * kStageBytes <= kMostBytes ? 16 : 8;
  static constexpr int kSumsPitch = kRows + 4;  // floats of a token: no bank conflicts
  static constexpr int kSumsBytes = kMostTokenTiles * 8 * kSumsPitch * 4;
  static_assert(kSumsBytes <= kStages * kStageBytes);
};

/// What a block does. Offsets within its rows fit into 32 bits.
struct Job {
  const uint8_t* weights;  // of its first row, less `shift`
  float* y;                // of its first row
  int64_t y_stride;
  int32_t rows;   // how many, up to kRows
  int32_t shift;  // bytes by which its first row lies past a multiple of 16
  int32_t row_bytes;
};
template <DType kType>
PADDOCK_DEVICE Job find_job(const TensorGemvArgs& args, int block) {
  using L = Layout<kType>;
  constexpr int kRows = L::kRows;
  const int32_t row_bytes = static_cast<int32_t>(args.cols) / L::kChunkCols * L::kChunkBytes;
  TensorGemvPart part = args.parts[0];
  PADDOCK_UNROLL for (int i = 1; i < kMostGemvParts; ++i) {
    const int blocks = (part.rows + kRows - 1) / kRows;
    if (i >= args.n_parts || block < blocks) break;
    block -= blocks;
    part = args.parts[i];
  }
  const int32_t row = block * kRows;
  const int64_t offset = int64_t{row} * row_bytes;
  const auto shift = static_cast<int32_t>(offset % 16);
  return {part.weights + (offset - shift),   part.y + row, part.y_stride,
          simt::min(kRows, part.rows - row), shift,        row_bytes};
}

/// Bytes from the job's weights to a chunk of a row; rows past the last are copies of it.
template <DType kType>
PADDOCK_DEVICE int32_t chunk_offset(const Job& job, int r, int chunk) {
  return job.shift + simt::min(r, job.rows - 1) * job.row_bytes +
         chunk * Layout<kType>::kChunkBytes;
}

/// Starts to copy a chunk of all rows from its vector kFirst on: so many lanes to a row as the next
/// power of two that is left.
template <DType kType, int kFirst = 0>
PADDOCK_DEVICE void copy_chunk(const Job& job, int chunk, uint8_t* to) {
  using L = Layout<kType>;
  constexpr int kLeft = L::kVectors - kFirst;
  constexpr int kLanes = kLeft >= 16 ? 16 : kLeft >= 8 ? 8 : kLeft >= 4 ? 4 : kLeft >= 2 ? 2 : 1;
  constexpr int kRowsAtOnce = simt::kWarpSize / kLanes;
  const int v = 16 * (kFirst + simt::lane() % kLanes);
  PADDOCK_UNROLL for (int r0 = 0; r0 < L::kRows; r0 += kRowsAtOnce) {
    const int r = r0 + simt::lane() / kLanes;
    if (L::kRows < kRowsAtOnce && r >= L::kRows) break;
    int32_t from = chunk_offset<kType>(job, r, chunk) + v;
    int bytes = 16;
    if constexpr (L::kMayShift) {  // the last vector may end behind the last row
      from &= ~15;
      const int left = job.shift + job.rows * job.row_bytes - from;
      bytes = simt::max(0, simt::min(left, 16));
    }
    simt::cp_async16(to + r * L::Row::kPitch + v, job.weights + from, bytes);
  }
  if constexpr (kLeft > kLanes) copy_chunk<kType, kFirst + kLanes>(job, chunk, to);
}

/// Columns 4 (l % 4) to 4 (l % 4) + 3 of a step, as the operand that lane l holds.
PADDOCK_DEVICE simt::U32x2 load_x(const float* x) {
  const auto v = simt::load_const_vec<simt::F32x4>(x);
  return {simt::pack2<Bf16>(v.x, v.y), simt::pack2<Bf16>(v.z, v.w)};
}
PADDOCK_DEVICE simt::U32x2 load_x(const uint16_t* x) {
  return simt::load_const_vec<simt::U32x2>(x);
}

template <DType kType, int kTokenTiles>
using Sums = float[TileRow<kType>::kTiles][kTokenTiles][4];

/// Adds a group of 64 columns to the sums.
template <DType kType, int kTokenTiles, typename X>
PADDOCK_DEVICE void multiply_group(int group, const X* x, const int32_t (&tokens)[kTokenTiles],
                                   const uint8_t* const (&chunks)[TileRow<kType>::kTiles][2],
                                   TileRow<kType> (&rows)[TileRow<kType>::kTiles][2],
                                   Sums<kType, kTokenTiles>& sums) {
  using Row = TileRow<kType>;
  constexpr int kTiles = Row::kTiles;
  constexpr int kSteps = Row::kScaleSteps;
  [[maybe_unused]] constexpr uint32_t kOnes = 0x3F803F80U;
  PADDOCK_UNROLL for (int m = 0; m < kTiles; ++m) {
    rows[m][0].read(chunks[m][0], group);
    rows[m][1].read(chunks[m][1], group);
  }
  const auto take = [&](auto set) {
    constexpr int kSet = decltype(set)::kValue;
    uint32_t a[kTiles][kSteps][4];
    const auto expand = [&](auto step) {
      constexpr int kStep = decltype(step)::kValue;
      PADDOCK_UNROLL for (int m = 0; m < kTiles; ++m) {
        uint32_t upper[2];
        uint32_t lower[2];
        rows[m][0].template pairs<kSet * kSteps + kStep>(upper);
        rows[m][1].template pairs<kSet * kSteps + kStep>(lower);
        a[m][kStep][0] = upper[0];
        a[m][kStep][1] = lower[0];
        a[m][kStep][2] = upper[1];
        a[m][kStep][3] = lower[1];
      }
    };
    for_steps<kSteps>(expand);
    float scales[kTiles][2];
    [[maybe_unused]] float mins[kTiles][2];
    PADDOCK_UNROLL for (int m = 0; m < kTiles; ++m) {
      PADDOCK_UNROLL for (int h = 0; h < 2; ++h) {
        scales[m][h] = rows[m][h].scale(kSet, group);
        if constexpr (Row::kHasMin) mins[m][h] = rows[m][h].min(kSet, group);
      }
    }
    PADDOCK_UNROLL for (int n = 0; n < kTokenTiles; ++n) {
      uint32_t b[kSteps][2];
      PADDOCK_UNROLL for (int s = 0; s < kSteps; ++s) {
        const auto v = load_x(x + tokens[n] + 64 * group + 16 * (kSet * kSteps + s));
        b[s][0] = v.x;
        b[s][1] = v.y;
      }
      [[maybe_unused]] float whole[4] = {};  // of x alone
      if constexpr (Row::kHasMin) {
        PADDOCK_UNROLL for (int s = 0; s < kSteps; ++s) {
          simt::mma_m16n8k16<Bf16>(whole, {kOnes, kOnes, kOnes, kOnes}, b[s]);
        }
      }
      PADDOCK_UNROLL for (int m = 0; m < kTiles; ++m) {
        float part[4] = {};
        PADDOCK_UNROLL for (int s = 0; s < kSteps; ++s) {
          simt::mma_m16n8k16<Bf16>(part, a[m][s], b[s]);
        }
        PADDOCK_UNROLL for (int i = 0; i < 4; ++i) {
          float& sum = sums[m][n][i];
          sum = simt::fma(scales[m][i / 2], part[i], sum);
          if constexpr (Row::kHasMin) sum = simt::fma(mins[m][i / 2], whole[i % 2], sum);
        }
      }
    }
  };
  for_steps<4 / kSteps>(take);
}

/// Adds up what the warps of a block have, each by its rows and tokens, into the result. `stages`:
/// this warp's, where its sums go, [tokens][kRows].
template <DType kType, int kTokenTiles>
PADDOCK_DEVICE void add_warps(const TensorGemvArgs& args, const Job& job, int first_token,
                              uint8_t* stages, const Sums<kType, kTokenTiles>& sums) {
  using L = Layout<kType>;
  constexpr int kTokens = 8 * kTokenTiles;
  const int lane = simt::lane();
  const int n_warps = simt::block_size() / simt::kWarpSize;
  PADDOCK_SYNC_WARP("chunks used");
  PADDOCK_UNROLL for (int m = 0; m < L::Row::kTiles; ++m) {
    PADDOCK_UNROLL for (int n = 0; n < kTokenTiles; ++n) {
      PADDOCK_UNROLL for (int c = 0; c < 4; ++c) {
        const int token = 8 * n + lane % 4 * 2 + c % 2;
        const int row = 16 * m + lane / 4 + c / 2 * 8;
        simt::store(reinterpret_cast<float*>(stages) + token * L::kSumsPitch + row, sums[m][n][c]);
      }
    }
  }
  PADDOCK_SYNC("sums ready");
  for (int i = simt::thread_x(); i < kTokens * L::kRows; i += simt::block_size()) {
    const int r = i % L::kRows;
    const int token = first_token + i / L::kRows;
    if (!PADDOCK_CHECKED("token", token < args.n_tokens)) break;
    if (!PADDOCK_CHECKED("row", r < job.rows)) continue;
    float sum = 0;
    PADDOCK_UNROLL_BY(4) for (int w = 0; w < n_warps; ++w) {
      const uint8_t* from = simt::dynamic_shared<uint8_t>() + w * kStages * L::kStageBytes;
      sum += simt::load(reinterpret_cast<const float*>(from) + i / L::kRows * L::kSumsPitch + r);
    }
    float* y = job.y + token * job.y_stride + r;
    simt::store(y, args.accumulate ? simt::load(y) + sum : sum);
  }
}

template <DType kType, int kTokenTiles>
PADDOCK_KERNEL(most_warps(kTokenTiles) * simt::kWarpSize, 1)
void tensor_gemv_kernel(TensorGemvArgs args) {
  using L = Layout<kType>;
  using Row = typename L::Row;
  constexpr int kTokens = 8 * kTokenTiles;
  const int token_groups = (args.n_tokens + kTokens - 1) / kTokens;
  const int first_token = simt::block_x() % token_groups * kTokens;
  const Job job = find_job<kType>(args, simt::block_x() / token_groups);
  const int n_chunks = static_cast<int32_t>(args.cols) / L::kChunkCols;
  const int lane = simt::lane();
  const int warp = simt::warp();
  const int n_warps = simt::block_size() / simt::kWarpSize;
  uint8_t* stages = simt::dynamic_shared<uint8_t>() + warp * kStages * L::kStageBytes;

  const auto fetch = [&](int i) {
    const int chunk = warp + i * n_warps;
    if (PADDOCK_CHECKED("chunk", chunk < n_chunks)) {
      copy_chunk<kType>(job, chunk, stages + i % kStages * L::kStageBytes);
    }
    simt::cp_async_commit();
  };
  fetch(0);

  using X = std::conditional_t<kTokens <= kMaxUnroundedTokens, float, uint16_t>;
  const X* x;
  int32_t stride;
  if constexpr (kTokens <= kMaxUnroundedTokens) {
    x = args.x;
    stride = static_cast<int32_t>(args.x_stride);
  } else {
    x = args.rounded;
    stride = static_cast<int32_t>(args.cols);
  }
  x += warp * L::kChunkCols + 4 * (lane % 4);
  int32_t tokens[kTokenTiles];  // elements to each; those past the last are copies of it
  PADDOCK_UNROLL for (int n = 0; n < kTokenTiles; ++n) {
    const int token = simt::min(first_token + 8 * n + lane / 4, args.n_tokens - 1);
    tokens[n] = token * stride;
  }
  Sums<kType, kTokenTiles> sums = {};
  for (int i = 0; warp + i * n_warps < n_chunks; ++i) {
    PADDOCK_CP_ASYNC_WAIT("chunk copied", 0);
    PADDOCK_SYNC_WARP("chunk ready");
    fetch(i + 1);
    const uint8_t* stage = stages + i % kStages * L::kStageBytes;
    const uint8_t* chunks[Row::kTiles][2];
    Row rows[Row::kTiles][2];
    PADDOCK_UNROLL for (int m = 0; m < Row::kTiles; ++m) {
      PADDOCK_UNROLL for (int h = 0; h < 2; ++h) {
        const int r = 16 * m + 8 * h + lane / 4;
        chunks[m][h] = stage + r * Row::kPitch;
        if constexpr (L::kMayShift) {
          chunks[m][h] += chunk_offset<kType>(job, r, warp + i * n_warps) & 15;
        }
        rows[m][h].start(chunks[m][h]);
      }
    }
    PADDOCK_UNROLL_BY(1) for (int group = 0; group < Row::kGroups; ++group) {
      multiply_group<kType, kTokenTiles>(group, x, tokens, chunks, rows, sums);
    }
    x += n_warps * L::kChunkCols;
  }

  add_warps<kType, kTokenTiles>(args, job, first_token, stages, sums);
}

/// Warps of a block: so many that each of the device's multiprocessors has 16, as far as there are
/// chunks for them.
int choose_warps(int64_t row_blocks, int64_t chunks, int most, const TensorGemvArgs& args) {
  int warps = 4;
  while (warps < most && warps < chunks && 2 * warps * row_blocks <= 16 * args.multiprocessors) {
    warps *= 2;
  }
  return warps;
}

template <DType kType, int kTokenTiles>
int launch(const TensorGemvArgs& args, Stream stream) {
  using L = Layout<kType>;
  int64_t blocks = 0;
  for (int i = 0; i < args.n_parts; ++i) blocks += (args.parts[i].rows + L::kRows - 1) / L::kRows;
  const int most =
      L::kMostWarps < most_warps(kTokenTiles) ? L::kMostWarps : most_warps(kTokenTiles);
  const int warps = choose_warps(blocks, args.cols / L::kChunkCols, most, args);
  blocks *= (args.n_tokens + 8 * kTokenTiles - 1) / (8 * kTokenTiles);
  if (blocks > INT32_MAX) return kInvalid;
  return PADDOCK_LAUNCH((tensor_gemv_kernel<kType, kTokenTiles>), {static_cast<uint32_t>(blocks)},
                        warps * simt::kWarpSize, warps * kStages * L::kStageBytes, stream, args);
}

template <DType kType>
int run(const TensorGemvArgs& args, Stream stream) {
  if (args.n_tokens <= 8) return launch<kType, 1>(args, stream);
  if (args.n_tokens <= 16) return launch<kType, 2>(args, stream);
  return launch<kType, kMostTokenTiles>(args, stream);
}

bool aligned_to_16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

bool tensor_gemv_supports(DType type, int64_t cols) {
  switch (type) {
    case DType::kBF16:
      return cols % 64 == 0;
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ8_0:
    case DType::kQ4_K:
    case DType::kQ6_K:
      return cols % 256 == 0;
    default:
      return false;
  }
}

int tensor_gemv(const TensorGemvArgs& args, Stream stream) {
  if (!tensor_gemv_supports(args.type, args.cols) || args.cols < 1 || args.cols > INT32_MAX / 256 ||
      args.n_tokens < 1 || args.n_tokens > kMaxTensorGemvTokens || args.multiprocessors < 1 ||
      args.multiprocessors > kMostMultiprocessors || args.n_parts < 1 ||
      args.n_parts > kMostGemvParts) {
    return kInvalid;
  }
  const bool unrounded = args.n_tokens <= kMaxUnroundedTokens;
  if (unrounded ? args.x == nullptr || !aligned_to_16(args.x) || args.x_stride < args.cols ||
                      args.x_stride % 4 != 0 || args.x_stride > INT32_MAX / kMaxUnroundedTokens
                : args.rounded == nullptr || !aligned_to_16(args.rounded)) {
    return kInvalid;
  }
  for (int i = 0; i < args.n_parts; ++i) {
    const TensorGemvPart& p = args.parts[i];
    if (p.weights == nullptr || !aligned_to_16(p.weights) || p.y == nullptr || p.rows < 1 ||
        p.rows > INT32_MAX / 2 || p.y_stride < p.rows) {
      return kInvalid;
    }
  }
  switch (args.type) {
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
