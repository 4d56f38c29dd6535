// How prefill attention walks a table: groups of entries, cut into tiles of 64 slots whose bounds
// depend on the table alone (prefill_attention.cu).
#pragma once

#include "cuda/device.h"
#include "cuda/launch.h"

namespace paddock::cuda::prefill {

inline constexpr int kKvTile = 64;
inline constexpr int kGroup = simt::kWarpSize;  // entries
inline constexpr uint32_t kNoRow = 0xFFFFFFFFU;

/// One KV tile, as one warp has planned it.
struct Plan {
  uint32_t rows[kKvTile];      // each slot's KvView::key_row(); kNoRow for none
  int32_t positions[kKvTile];  // INT32_MAX for none
  int32_t rotation;            // -1: there is no further tile
  int32_t masked;              // some query does not see some slot
};

/// What a block does. Kept in shared memory: registers are for the matrices.
struct Work {
  AttentionSequence sequence;
  int32_t first;            // the tile's first query
  int32_t n;                // its queries
  int32_t first_t, last_t;  // their positions
  int32_t kv_head;
  int32_t head;     // first query head
  int32_t n_heads;  // 1 or 2
};

/// A place in a table: before `tile` of the group that begins at `entry`.
struct Cursor {
  int32_t entry = 0;
  int32_t tile = 0;
};

PADDOCK_DEVICE int32_t warp_min(int32_t v) {
  PADDOCK_UNROLL for (int mask = 16; mask > 0; mask /= 2) v = simt::min(v, simt::shfl_xor(v, mask));
  return v;
}

/// The sum of the values of all lanes up to this one.
PADDOCK_DEVICE uint32_t warp_sum_to(int lane, uint32_t sum) {
  PADDOCK_UNROLL for (int delta = 1; delta < simt::kWarpSize; delta *= 2) {
    const uint32_t before = simt::shfl(sum, lane - delta);
    if (lane >= delta) sum += before;
  }
  return sum;
}

/// What a lane knows of its entry of a group.
struct GroupEntry {
  BlockEntry e;
  int32_t end;                   // slots of the group up to and including this entry's
  int32_t shift;                 // from a slot to its place in the group
  int32_t seen_begin, seen_end;  // slots that some query of the block sees
};

/// Fills the plan in with the slots of one tile of the group: a lane takes two. Whether every query
/// of the block sees all of them.
PADDOCK_DEVICE bool fill_tile(const AttentionArgs& args, const Work& work, const GroupEntry& own,
                              int32_t tile, Plan* plan) {
  bool clear = true;
  PADDOCK_UNROLL for (int j = simt::lane(); j < kKvTile; j += simt::kWarpSize) {
    const int32_t place = tile * kKvTile + j;
    int owner = 0;  // the first entry that ends after the place
    PADDOCK_UNROLL for (int step = kGroup / 2; step > 0; step /= 2) {
      if (simt::shfl(own.end, owner + step - 1) <= place) owner += step;
    }
    const int32_t slot = place - simt::shfl(own.shift, owner);
    const uint32_t seen =
        simt::shfl(static_cast<uint32_t>(own.seen_begin | own.seen_end << 16), owner);
    const int32_t page = simt::shfl(own.e.page, owner);
    const int32_t first_position = simt::shfl(own.e.first_position, owner);
    const bool live =
        slot >= static_cast<int32_t>(seen & 0xFFFFU) && slot < static_cast<int32_t>(seen >> 16);
    const int32_t position = live ? first_position + slot : INT32_MAX;
    const uint32_t row = args.kv.key_row(page, work.kv_head, slot);
    simt::store(&plan->positions[j], position);
    simt::store(&plan->rows[j], live ? row : kNoRow);
    clear = clear && is_visible(work.sequence.visibility, work.first_t, position) &&
            is_visible(work.sequence.visibility, work.last_t, position);
  }
  return simt::all(clear);
}

/// Plans a tile that a query of the block sees, the next one after `skip` others, and moves past
/// it. A lane is an entry of the group, then two slots of the tile.
PADDOCK_DEVICE void plan_tile(const AttentionArgs& args, const Work* work_at, Cursor* cursor,
                              int32_t skip, Plan* plan) {
  const Work work = simt::load(work_at);
  Cursor at = simt::load(cursor);
  PADDOCK_SYNC_WARP("cursor read");
  const AttentionSequence& s = work.sequence;
  const int lane = simt::lane();
  for (;;) {
    BlockEntry e{0, 0, 0, 0, -1};
    if (PADDOCK_CHECKED("entry", at.entry + lane < s.n_entries)) {
      e = simt::load_const(args.entries + s.first_entry + at.entry + lane);
    }
    const int32_t rotation = simt::shfl(e.rotation, 0);
    if (rotation < 0 || simt::shfl(e.first_position + e.slot_begin, 0) > work.last_t) {
      if (lane == 0) {
        simt::store(cursor, at);
        simt::store(&plan->rotation, -1);
      }
      return;
    }
    const uint32_t others = simt::ballot(e.rotation != rotation);
    const bool in_group = (others & ((2U << lane) - 1)) == 0;
    const int32_t n = in_group ? e.slot_end - e.slot_begin : 0;
    // Slots up to and including this entry's, and above bit 24 entries of the group.
    const uint32_t sum = warp_sum_to(lane, in_group ? static_cast<uint32_t>(n) | 1U << 24 : 0);
    const auto end = static_cast<int32_t>(sum & 0xFFFFFFU);
    const int32_t shift = end - n - e.slot_begin;  // from a slot to its place in the group

    // A slot is seen by some query if the first one has not passed it and the last one has reached
    // it.
    int32_t seen_begin = live_slots(e, s.visibility, work.first_t).begin;
    int32_t seen_end = simt::min<int32_t>(live_slots(e, s.visibility, work.last_t).end, e.slot_end);
    if (!in_group || seen_end <= seen_begin) seen_begin = seen_end = 0;
    int32_t tile;
    do {
      tile = INT32_MAX;
      if (seen_begin < seen_end && shift + seen_end > at.tile * kKvTile) {
        tile = simt::max(at.tile, (shift + seen_begin) / kKvTile);
      }
      tile = warp_min(tile);
      if (tile < INT32_MAX) at.tile = tile + 1;
    } while (tile < INT32_MAX && skip-- > 0);
    if (tile == INT32_MAX) {
      at = {at.entry + static_cast<int32_t>(simt::shfl(sum, kGroup - 1) >> 24), 0};
      continue;
    }

    const bool clear = fill_tile(args, work, {e, end, shift, seen_begin, seen_end}, tile, plan);
    if (lane == 0) {
      simt::store(cursor, at);
      simt::store(&plan->rotation, rotation);
      simt::store(&plan->masked, clear ? 0 : 1);
    }
    return;
  }
}

}  // namespace paddock::cuda::prefill
