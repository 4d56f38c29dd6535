// What the fast and the reference attention share: the walk over a table in tiles of absolute
// positions.
//
// Keys and values are taken in tiles of kTile positions [kTile * i, kTile * (i + 1)), converted to
// float32. A slot's place in a tile is its position, so sums do not depend on the
// block size, on the chunk that computes them, or on blocks that have left: what is not visible is
// a lane of weight zero. A task is one sequence, one KV head and up to kQueryTile query tokens with
// all their query heads.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/kernels.h"
#include "half.h"

namespace paddock::cpu {

inline constexpr int32_t kTile = 64;
inline constexpr int32_t kQueryTile = 8;

struct LaneRange {
  int32_t begin, end;  // lanes of a tile
};

struct AttentionTask {
  const AttentionSequence* sequence;
  int32_t kv_head;
  int32_t first;  // query tokens [first, first + n) of the sequence
  int32_t n;
};

static inline int64_t query_tiles(const AttentionSequence& s) {
  return (s.n_tokens + kQueryTile - 1) / kQueryTile;
}

static inline AttentionTask attention_task(const AttentionArgs& args, int64_t index) {
  for (int32_t i = 0; i < args.n_sequences; ++i) {
    const AttentionSequence& s = args.sequences[i];
    const int64_t tasks = query_tiles(s) * args.kv.geometry().n_kv_heads;
    if (index >= tasks) {
      index -= tasks;
      continue;
    }
    // Late queries first: they are the longest.
    const int64_t tile = query_tiles(s) - 1 - index / args.kv.geometry().n_kv_heads;
    const auto first = static_cast<int32_t>(tile * kQueryTile);
    const int32_t left = s.n_tokens - first;
    return {&s, static_cast<int32_t>(index % args.kv.geometry().n_kv_heads), first,
            left < kQueryTile ? left : kQueryTile};
  }
  return {};
}

/// One worker's scratch, all in floats.
struct AttentionScratch {
  AttentionScratch(const AttentionArgs& args, float* base) {
    const int64_t dim = args.kv.geometry().head_dim;
    const int64_t rows = int64_t{kQueryTile} * (args.n_heads / args.kv.geometry().n_kv_heads);
    tile = base;
    query = tile + dim * kTile;
    output = query + rows * dim;
    scores = output + rows * dim;
    largest = scores + rows * kTile;
    sum = largest + rows;
    rescale = sum + rows;
    sees = reinterpret_cast<LaneRange*>(rescale + rows);
    part_sums = rescale + 3 * rows;
    part_largest = part_sums + rows * args.max_parts;
    part_entry = reinterpret_cast<int32_t*>(part_largest + rows * args.max_parts);
  }
  static int64_t floats(int64_t head_dim, int64_t heads_per_kv, int64_t max_parts) {
    const int64_t rows = kQueryTile * heads_per_kv;
    return (head_dim * kTile + 2 * rows * head_dim + rows * kTile + 5 * rows +
            (2 * rows + 1) * max_parts + 15) /
           16 * 16;
  }
  float* tile;      // keys [head_dim][kTile], then values [kTile][head_dim]: both would not leave
                    // room for pages in a core's first cache
  float* query;     // [rows][head_dim] rotated for the current entries
  float* output;    // [rows][head_dim]
  float* scores;    // [rows][kTile]
  float* largest;   // [rows]
  float* sum;       // [rows]
  float* rescale;   // [rows] by the tile at hand
  LaneRange* sees;  // [rows] of the tile at hand
  // Only where masses are measured: what each row gave to each part of an entry within one tile,
  // relative to the largest score so far.
  float* part_sums;     // [max_parts][rows]
  float* part_largest;  // [max_parts][rows]
  int32_t* part_entry;  // [max_parts]
};

/// A query of one head, rotated by one row of the angle table and scaled.
static inline void rotate_query(const AttentionArgs& args, const float* q, int32_t angle_row,
                                float* out) {
  const int32_t half = args.kv.geometry().head_dim / 2;
  const float* cosines = args.angles + int64_t{angle_row} * 2 * half;
  const float* sines = cosines + half;
  for (int32_t i = 0; i < half; ++i) {
    const int32_t a = args.interleaved ? 2 * i : i;
    const int32_t b = args.interleaved ? 2 * i + 1 : i + half;
    const float x = q[a];
    const float y = q[b];
    out[a] = (x * cosines[i] - y * sines[i]) * args.scale;
    out[b] = (x * sines[i] + y * cosines[i]) * args.scale;
  }
}

static_assert(sizeof(kKvElements) == 3 * sizeof(KvElement));  // what is neither is bf16
static inline float load_element(const uint8_t* base, DType type, int64_t i) {
  if (type == DType::kF32) return reinterpret_cast<const float*>(base)[i];
  const uint16_t h = reinterpret_cast<const uint16_t*>(base)[i];
  return type == DType::kF16 ? f16_to_f32(h) : bf16_to_f32(h);
}

}  // namespace paddock::cpu
