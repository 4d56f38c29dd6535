// What one sequence has resident in one table group: entries in position order, what is known of
// each, and the rotations that queries meet them by. Numbers only: pages belong to the pool.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/change_log.h"
#include "kv/layer_rule.h"
#include "paged_kv.h"

namespace paddock {

/// What the books know of an entry beside where it lies. Masses in kMassUnits.
struct BlockRecord {
  int64_t born_step = 0;
  int64_t last_used_step = -1;  // -1: never measured
  int64_t mass = 0;
  int64_t recent_mass = 0;
  int64_t last_used = 0;
};

/// What is known of a table beside its entries: at first this, and the rule's own schedule.
struct TableFacts {
  TrimSchedule schedule;        // in force here: shares and falls change it
  int64_t tokens = 0;           // positions listed
  int64_t max_seen = 0;         // by one query, its own position included
  int64_t dropped_at = 0;       // length at which a trim last dropped something
  bool is_recent_over = false;  // recent masses are to be cleared: not yet, as the rule may still
                                // decide by them, but before the next are added
};

/// reserve() fixes how many entries there can be, so that nothing takes memory later. Code that
/// edits `entries` itself keeps `tokens` in step and notes the change in `changes`.
struct BlockTable : TableFacts {
  std::vector<BlockEntry> entries;
  std::vector<BlockRecord> records;  // [n_entries]
  std::vector<Rotation> rotations;   // where the rule moves queries; the first is neutral
  ChangeLog changes;                 // of the entries; goes on when the table is cleared

  void reserve(const LayerRule& rule, int64_t max_entries);
  /// Makes it that of an empty sequence.
  void clear(const LayerRule& rule);

  /// Lists slots [begin, end) of a block at position `first`: part of its entry if it has one. The
  /// caller notes the change, once for all that it appends.
  void append_part(const LayerRule& rule, int32_t page, int64_t first, int32_t begin, int32_t end,
                   int64_t step);
  /// Cuts the entry in which the sinks end in two, since queries meet sinks by a rotation of their
  /// own. Below the length LayerRule::splits_at() nothing is cut: join_sinks() undoes it.
  void split_sinks(const LayerRule& rule);
  void join_sinks(const LayerRule& rule);
  /// Takes out entries [first, end). `tokens` is the caller's to have lowered.
  void erase(size_t first, size_t end);
  /// Takes out the entries whose page the caller has set to -1. `tokens` is lowered already.
  void erase_dropped();
  /// Gives each entry the rotation that makes survivors look contiguous: where a run of positions
  /// is gone, queries meet what is older than it as if they stood nearer by the run's length.
  void renumber_rotations();
  /// Page and slot of each position from `first` on, the newest of which the table lists last.
  void find_destinations(int64_t first, std::span<KvDestination> out) const;
  /// Where the run of positions begins that ends at `end` and has no gap. Not looked for beyond
  /// `enough`.
  int64_t listed_from(int64_t end, int64_t enough) const;
  /// The first entry of the block at a position; n_entries() if it is not listed.
  int64_t entry_of(int64_t first_position) const;
  /// Another page for all entries of the block whose first is `entry`.
  void replace_page(int64_t entry, int32_t page);
  int64_t n_pages() const;
  int64_t n_entries() const { return static_cast<int64_t>(entries.size()); }
};

}  // namespace paddock
