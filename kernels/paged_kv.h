// All arithmetic on pages, slots and live ranges. Used by CPU kernels, CUDA kernels, src/kv and the
// tests: nobody else computes where a key or a value lies, or decides what a query may see.
#pragma once

#include <cstdint>
#include <limits>

#include "dtype.h"

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

/// The most positions of a sequence and the most pages of a pool: what their members above hold.
inline constexpr int64_t kMaxPositions =
    std::numeric_limits<decltype(BlockEntry::first_position)>::max();
inline constexpr int64_t kMaxPages = std::numeric_limits<decltype(BlockEntry::page)>::max();

/// A query at position t meets an entry's keys as if it stood at min(t - query_shift, query_cap).
struct Rotation {
  int32_t query_shift = 0;
  int32_t query_cap = INT32_MAX;
};

/// What a query at position t sees: p <= t and (p < sinks or p > t - window). Kernels may not know
/// public headers: this is the policies' TokenVisibility, which LayerRule turns into it.
struct Visibility {
  int32_t sinks = 0;
  int32_t window = INT32_MAX;  // INT32_MAX: everything
};

/// A range of slots of one entry; empty when begin >= end.
struct SlotRange {
  int32_t begin;
  int32_t end;
};

/// Consecutive query tokens of one sequence, as one layer's attention sees them. Each device adds
/// where their table and their angles lie.
struct SequenceQueries {
  int32_t first_token;     // of them in the flat batch
  int32_t n_tokens;        // how many
  int32_t first_position;  // of first_token
  int32_t n_entries;       // of the table
  int32_t n_rotations;     // that occur in it
  Visibility visibility;
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

/// The types that keys and values may have, by the names that users know. The public KvType lists
/// them in this order, behind "as the engine sees fit".
struct KvElement {
  DType type;
  const char* name;
};
inline constexpr KvElement kKvElements[] = {
    {DType::kF32, "f32"}, {DType::kF16, "f16"}, {DType::kBF16, "bf16"}};
/// Bytes of an element of one of them, also on a device, which has no table of types.
PADDOCK_HD constexpr int32_t kv_element_bytes(DType type) { return type == DType::kF32 ? 4 : 2; }
static_assert([] {
  for (const KvElement& known : kKvElements) {
    if (dtype_traits(known.type).block_bytes != kv_element_bytes(known.type)) return false;
  }
  return true;
}());

/// Bytes of head_dim elements that lie side by side.
PADDOCK_HD constexpr int32_t kv_row_bytes(int32_t head_dim, int32_t element_bytes) {
  return head_dim * element_bytes;
}

/// How the keys of one head lie in a page. Values lie [block_size][head_dim] in both.
enum class KeyOrder {
  kByDim,   // [head_dim][block_size]: the CPU's lanes are slots for keys and dims for values, so
            // that neither takes horizontal sums
  kBySlot,  // [block_size][head_dim]: a CUDA warp takes keys as it takes values, a row at a time
};

template <KeyOrder kKeys, typename Byte>
class KvView;

/// What one page holds, the storage of one block (block_size consecutive positions) of one layer,
/// and so how large it is.
struct PageGeometry {
  int32_t n_kv_heads;
  int32_t block_size;
  int32_t head_dim;
  DType type;  // of its elements, one of kKvElements

  PADDOCK_HD int32_t element_bytes() const { return kv_element_bytes(type); }
  PADDOCK_HD int64_t page_bytes() const { return page_rows() * row_bytes(); }

 private:
  template <KeyOrder kKeys, typename Byte>
  friend class KvView;

  // A row is head_dim elements: one slot's value of one head. A page is rows throughout. Where a
  // CPU reads it, each head's values lie behind its keys: what one task of attention reads lies
  // together, which memory rewards (docs/performance.md). On a device all values lie behind all
  // keys: in the other order the prefill kernel runs out of registers.
  PADDOCK_HD int32_t row_bytes() const { return kv_row_bytes(head_dim, element_bytes()); }
  PADDOCK_HD int64_t side_rows() const { return block_size; }  // a head's keys, or its values
  PADDOCK_HD int64_t page_rows() const { return 2 * n_kv_heads * side_rows(); }
  template <KeyOrder kKeys>
  PADDOCK_HD int64_t head_rows() const {
    return kKeys == KeyOrder::kByDim ? 2 * side_rows() : side_rows();
  }
  struct Sides {
    int64_t keys, values;  // of the first head
  };
  template <KeyOrder kKeys>
  PADDOCK_HD Sides sides() const {
    return Sides{0, kKeys == KeyOrder::kByDim ? side_rows() : n_kv_heads * side_rows()};
  }
};

/// A pool of pages in memory: where every key and value lies. Kernels get it by value.
///
/// Beside what the functions say, kernels rely on this:
///   - the elements of a value, from dim 0 on, lie side by side, and the next slot's right behind;
///   - kBySlot: so do keys, and a slot's value lies to_values() behind its key;
///   - kByDim: the slots of one dim lie side by side, and dims lie dim_bytes() apart.
template <KeyOrder kKeys, typename Byte = const uint8_t>
class KvView {
 public:
  KvView() = default;
  /// `pool`: of n * page_bytes(), aligned to its elements.
  PADDOCK_HD KvView(Byte* pool, const PageGeometry& geometry)
      : pool_(pool), geometry_(geometry), element_bytes_(geometry.element_bytes()) {}
  PADDOCK_HD KvView<kKeys> read_only() const { return {pool_, geometry_}; }

  PADDOCK_HD const PageGeometry& geometry() const { return geometry_; }
  PADDOCK_HD DType type() const { return geometry_.type; }
  PADDOCK_HD int32_t element_bytes() const { return element_bytes_; }
  PADDOCK_HD int64_t page_bytes() const { return geometry_.page_rows() * row_bytes(); }

  /// A page's first byte; all of it lies side by side.
  PADDOCK_HD Byte* page(int64_t page) const { return pool_ + page * page_bytes(); }
  /// Element `dim` of a slot's key and of its value.
  PADDOCK_HD Byte* k(int64_t page, int32_t head, int32_t slot, int32_t dim) const {
    const int64_t from = row(page, head) + geometry_.template sides<kKeys>().keys;
    if constexpr (kKeys == KeyOrder::kBySlot) {
      return pool_ + (from + slot) * row_bytes() + dim * int64_t{element_bytes_};
    } else {
      return pool_ + from * row_bytes() + dim * dim_bytes() + slot * int64_t{element_bytes_};
    }
  }
  PADDOCK_HD Byte* v(int64_t page, int32_t head, int32_t slot, int32_t dim) const {
    const int64_t from = row(page, head) + geometry_.template sides<kKeys>().values;
    return pool_ + (from + slot) * row_bytes() + dim * int64_t{element_bytes_};
  }

  /// Bytes of a value, and of a key where it lies like one.
  PADDOCK_HD int32_t row_bytes() const { return kv_row_bytes(geometry_.head_dim, element_bytes_); }
  /// Whether all rows begin at multiples of `n` bytes.
  bool rows_aligned(int32_t n) const {
    return row_bytes() % n == 0 && reinterpret_cast<uintptr_t>(pool_) % n == 0;
  }
  /// Whether the elements are of a type that keys and values may have.
  bool is_known() const {
    for (const KvElement& known : kKvElements) {
      if (geometry_.type == known.type) return true;
    }
    return false;
  }

  /// Bytes from one dim of a slot's key to the next.
  PADDOCK_HD int64_t dim_bytes() const {
    static_assert(kKeys == KeyOrder::kByDim);
    return int64_t{geometry_.block_size} * element_bytes_;
  }

  // Where keys lie by slot. `element_bytes` is the geometry's: a kernel of one type knows it when
  // it is compiled, and saves registers.
  /// Bytes from the pool's beginning to the key of a head's slot 0, and what lies there.
  PADDOCK_HD int64_t key_distance(int64_t page, int32_t head) const {
    static_assert(kKeys == KeyOrder::kBySlot);
    return (row(page, head) + geometry_.template sides<kKeys>().keys) * row_bytes();
  }
  PADDOCK_HD Byte* at(int64_t distance) const { return pool_ + distance; }
  /// The number of a slot's row of keys in the pool. Registers hold it at half the cost of an
  /// address. The pool must have fewer than 2^32 rows.
  PADDOCK_HD uint32_t key_row(int64_t page, int32_t head, int32_t slot) const {
    static_assert(kKeys == KeyOrder::kBySlot);
    return static_cast<uint32_t>(row(page, head) + geometry_.template sides<kKeys>().keys + slot);
  }
  PADDOCK_HD int64_t row_distance(uint32_t row, int32_t element_bytes) const {
    return static_cast<int64_t>(uint64_t{row} *
                                uint32_t(kv_row_bytes(geometry_.head_dim, element_bytes)));
  }
  /// Bytes from a slot's key to its value.
  PADDOCK_HD int64_t to_values(int32_t element_bytes) const {
    static_assert(kKeys == KeyOrder::kBySlot);
    return (geometry_.template sides<kKeys>().values - geometry_.template sides<kKeys>().keys) *
           geometry_.head_dim * element_bytes;
  }

 private:
  /// The first row of a head, counted from the pool's beginning.
  PADDOCK_HD int64_t row(int64_t page, int32_t head) const {
    return page * geometry_.page_rows() + head * geometry_.template head_rows<kKeys>();
  }

  Byte* pool_ = nullptr;
  PageGeometry geometry_{};
  int32_t element_bytes_ = 0;  // the geometry's, worked out before kernels run
};

/// Whether a key or a value is finite and becomes infinite where it is stored; `least`: see
/// least_overflow().
PADDOCK_HD inline bool overflows(float value, float least) {
  return (value >= least || value <= -least) && value - value == 0.0F;
}

}  // namespace paddock
