// All arithmetic on pages, slots and live ranges. Used by CPU kernels, CUDA kernels, src/kv and the
// tests: nobody else computes an offset into a page or decides what a query may see.
//
// A page holds one block (block_size consecutive positions) of one layer. Inside it, for each KV
// head h, keys lie dimension by dimension and values position by position:
//   K [n_kv_heads][head_dim][block_size]     V [n_kv_heads][block_size][head_dim]
// so that a CPU kernel reads both without horizontal sums: its lanes are slots for K, dims for V.
#pragma once

#include <cstdint>

// Without a copy of their own in object files: these functions are compiled for several instruction
// sets, and a linker would keep any one of the copies for all.
#if defined(__CUDACC__)
#define PADDOCK_HD __host__ __device__
#else
#define PADDOCK_HD [[gnu::always_inline]]
#endif

namespace paddock {

/// One part of one resident block in a sequence's table of one layer. 16 bytes.
struct BlockEntry {
  int32_t page;            // index into the page pool
  int32_t first_position;  // position of slot 0
  uint16_t slot_begin;     // slots outside [slot_begin, slot_end) are not part of the view
  uint16_t slot_end;
  int32_t rotation;  // index into the table's Rotation list
};
static_assert(sizeof(BlockEntry) == 16);

/// A query at position t meets an entry's keys as if it stood at min(t - query_shift, query_cap).
struct Rotation {
  int32_t query_shift = 0;
  int32_t query_cap = INT32_MAX;
};

/// What a query at position t sees: p <= t and (p < sinks or p > t - window).
struct Visibility {
  int32_t sinks = 0;
  int32_t window = INT32_MAX;  // INT32_MAX: everything
};

/// A range of slots of one entry; empty when begin >= end.
struct SlotRange {
  int32_t begin;
  int32_t end;
};

/// Where a token's key and value are written in one layer.
struct KvDestination {
  int32_t page;
  int32_t slot;
};

PADDOCK_HD inline int32_t query_position(const Rotation& r, int32_t t) {
  const int32_t shifted = t - r.query_shift;
  return shifted < r.query_cap ? shifted : r.query_cap;
}

PADDOCK_HD inline bool is_visible(const Visibility& v, int32_t t, int32_t p) {
  return p <= t && (p < v.sinks || int64_t{p} > int64_t{t} - v.window);
}

/// The slots of `e` that a query at `t` sees. From the first query on to which something is lost (t
/// = sinks + window), tables list a page that straddles the sink boundary twice, so an entry lies
/// wholly below `sinks` or wholly at or above it; queries before it see all of every entry.
PADDOCK_HD inline SlotRange live_slots(const BlockEntry& e, const Visibility& v, int32_t t) {
  int64_t begin = e.slot_begin;
  int64_t end = e.slot_end;
  const int64_t past_query = int64_t{t} + 1 - e.first_position;
  if (past_query < end) end = past_query;
  if (int64_t{e.first_position} + begin >= v.sinks) {
    const int64_t oldest = int64_t{t} - v.window + 1 - e.first_position;
    if (oldest > begin) begin = oldest;
  }
  if (end < begin) end = begin;
  return {static_cast<int32_t>(begin), static_cast<int32_t>(end)};
}

/// True if no query at `t` or later sees any position of [first, first + count).
PADDOCK_HD inline bool is_past(const Visibility& v, int64_t t, int64_t first, int64_t count) {
  return first >= v.sinks && first + count - 1 <= t - v.window;
}

/// Sizes of one page. Offsets are in elements from the start of the page.
struct PageGeometry {
  int32_t n_kv_heads;
  int32_t block_size;
  int32_t head_dim;
  int32_t element_bytes;  // 4 for f32, 2 for f16 and bf16

  PADDOCK_HD int64_t side_elements() const { return int64_t{n_kv_heads} * block_size * head_dim; }
  PADDOCK_HD int64_t page_bytes() const { return 2 * side_elements() * element_bytes; }
  /// Keys: element (head, dim, slot); slots of one dim are contiguous.
  PADDOCK_HD int64_t k_offset(int32_t head, int32_t dim, int32_t slot) const {
    return (int64_t{head} * head_dim + dim) * block_size + slot;
  }
  /// Keys as CUDA kernels want them, position by position like values. Only the CUDA backend's
  /// pages look so; it hands pages out in the order above.
  PADDOCK_HD int64_t k_slot_offset(int32_t head, int32_t slot, int32_t dim) const {
    return (int64_t{head} * block_size + slot) * head_dim + dim;
  }
  /// Values: element (head, slot, dim); dims of one slot are contiguous.
  PADDOCK_HD int64_t v_offset(int32_t head, int32_t slot, int32_t dim) const {
    return side_elements() + (int64_t{head} * block_size + slot) * head_dim + dim;
  }
};

/// Whether a key or a value is finite and becomes infinite where it is stored; `least`: see
/// least_overflow().
PADDOCK_HD inline bool overflows(float value, float least) {
  return (value >= least || value <= -least) && value - value == 0.0F;
}

PADDOCK_HD inline int32_t block_of(int32_t position, int32_t block_size) {
  return position / block_size;
}
PADDOCK_HD inline int32_t slot_of(int32_t position, int32_t block_size) {
  return position % block_size;
}

}  // namespace paddock
