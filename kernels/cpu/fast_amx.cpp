// Linear layers on bfloat16 weights with AMX: tdpbf16ps multiplies a tile of 16 tokens and 32
// columns by one of 32 columns and 16 rows. Activations are rounded to bfloat16. Every output is
// summed over k in ascending blocks of 32 columns, in a block as the instruction does (the even
// columns by themselves, then the odd ones), whatever the number of tokens.
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/isa.h"
#include "cpu/linear_pack.h"
#include "cpu/vec.h"
#include "half.h"

namespace paddock::cpu::amx {
namespace {

constexpr int kRowTiles = 2, kTokenTiles = 2;  // of a block; its sums take four tiles
constexpr int64_t kTileTokens = 16, kTileRows = 16;
constexpr int64_t kBlock = kTokenTiles * kTileTokens;
constexpr int64_t kTileBytes = 1024;      // of weights
constexpr int64_t kCols = 32;             // of a tile
constexpr int64_t kBatch = 256;           // tokens at most
constexpr int64_t kInputBytes = 1 << 20;  // of their activations: a core's second cache holds them
using Lanes = F16Lanes;
using IntLanes = I16Lanes;

#include "cpu/panels.h"

/// Tiles as this thread has them while it multiplies.
class Tiles {
 public:
  Tiles() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    // Not _tile_loadconfig(): GCC 12 tells itself that it reads the first eight bytes only.
    __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

/// Adds to the sums of kTokens tiles of tokens and kRowsOfTiles of rows what `n` tiles of columns
/// bring; the `first` ones begin them. `w` and `w_stride`: the first tile of rows and the bytes to
/// the second; `x`: the tokens' first columns. Sums lie kRowTiles * kTileRows floats apart for each
/// token.
template <int kTokens, int kRowsOfTiles>
void add_block(const uint8_t* w, int64_t w_stride, const uint16_t* x, int64_t n, bool first,
               float* sums) {
  constexpr int64_t kStride = kRowTiles * 64;
  float* more = sums + kTileTokens * kRowTiles * kTileRows;  // of the second tile of tokens
  if (first) {
    _tile_zero(0);
    if constexpr (kRowsOfTiles > 1) _tile_zero(1);
    if constexpr (kTokens > 1) _tile_zero(2);
    if constexpr (kTokens > 1 && kRowsOfTiles > 1) _tile_zero(3);
  } else {
    _tile_loadd(0, sums, kStride);
    if constexpr (kRowsOfTiles > 1) _tile_loadd(1, sums + 16, kStride);
    if constexpr (kTokens > 1) _tile_loadd(2, more, kStride);
    if constexpr (kTokens > 1 && kRowsOfTiles > 1) _tile_loadd(3, more + 16, kStride);
  }
  for (int64_t i = 0; i < n; ++i, w += kTileBytes, x += kCols) {
    _tile_loadd(4, x, 2 * kTileCols);
    _tile_loadd(6, w, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kRowsOfTiles > 1) {
      _tile_loadd(7, w + w_stride, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kTokens > 1) {
      _tile_loadd(5, x + kTileTokens * kTileCols, 2 * kTileCols);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kRowsOfTiles > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, kStride);
  if constexpr (kRowsOfTiles > 1) _tile_stored(1, sums + 16, kStride);
  if constexpr (kTokens > 1) _tile_stored(2, more, kStride);
  if constexpr (kTokens > 1 && kRowsOfTiles > 1) _tile_stored(3, more + 16, kStride);
}

}  // namespace

/// Asks the system for the tiles' state, which a process has to do once.
bool is_permitted() {
#ifdef SYS_arch_prctl
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool permitted = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return permitted;
#else
  return false;
#endif
}

void linear(const PackedLinear& weights, const PackedInput& input, float* y, int64_t y_stride,
            bool accumulate, int64_t group_begin, int64_t group_end) {
  if (weights.format != kBFloat16Tiles) {
    return avx512::linear(weights, input, y, y_stride, accumulate, group_begin, group_end);
  }
  const int64_t n_tiles = blocks_in_row(kBFloat16Tiles, weights.cols);
  const int64_t w_stride = n_tiles * kTileBytes;  // of a group of rows
  int64_t most = kInputBytes / (n_tiles * 64) / kBlock * kBlock;
  most = most < kBlock ? kBlock : most > kBatch ? kBatch : most;
  static_assert(kBatch % kBlock == 0);
  alignas(64) float sums[kBatch * kRowTiles * kTileRows];  // 32 KiB
  const Tiles tiles;
  times_many<kRowTiles, kBlock>(
      weights, input.n_tokens, most, sums, y, y_stride, accumulate, group_begin, group_end,
      [&](auto rows, int64_t row, int64_t token, int64_t n) {
        const uint8_t* w = weights.data + row / kGroupRows * w_stride;
        for (int64_t k = 0; k < n_tiles * kCols; k += kTileCols) {
          const int64_t left = n_tiles - k / kCols;
          const int64_t columns = left < kTileCols / kCols ? left : kTileCols / kCols;
          for (int64_t t = 0; t < n; t += kBlock) {
            with_count<kTokenTiles>(n - t > kTileTokens ? 2 : 1, [&](auto tokens) {
              add_block<tokens(), rows()>(w + k / kCols * kTileBytes, w_stride,
                                          input_bf16(input, token + t, k), columns, k == 0,
                                          sums + t * kRowTiles * kTileRows);
            });
          }
        }
      });
}

}  // namespace paddock::cpu::amx
