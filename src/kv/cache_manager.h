// Host bookkeeping of the paged cache: pages, tables, visibility, counters. No tensor maths, no
// model.
//
// A step is planned, then committed: reserve() finds pages for new tokens or changes nothing;
// commit() makes them part of the sequence and releases what no later query can see.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kv/page_pool.h"
#include "kv/policy_map.h"
#include "paddock/stats.h"
#include "paged_kv.h"

namespace paddock {

using SequenceId = int32_t;

struct CacheConfig {
  int32_t n_layers;
  int32_t block_size;
  int32_t n_pages;  // of the pool
  int64_t page_bytes;
  int32_t max_sequences;  // tables are reserved for this many
  int64_t max_positions;  // longest sequence admitted
  int32_t max_chunk;      // most tokens of one sequence in one step
};

class CacheManager {
 public:
  CacheManager(const CacheConfig& config, PolicyMap policies);
  ~CacheManager();

  /// Opens an empty sequence. Error kInvalidArgument beyond max_sequences. Allocates nothing.
  SequenceId open();
  /// Ends a sequence: drops all its pages.
  void close(SequenceId id);

  /// Reserves pages, in every layer, for `n` tokens after the sequence's length. False if the pool
  /// cannot hold them now: then nothing changed. n <= max_chunk, length + n <= max_positions.
  bool reserve(SequenceId id, int32_t n);
  /// Gives back what reserve() took and was not committed (a cancelled or failed step).
  void rollback(SequenceId id);
  /// The reserved tokens are written: length grows, pages no later query sees are released.
  void commit(SequenceId id);

  int64_t length(SequenceId id) const;  // committed positions
  /// Entries in position order, reserved ones included.
  std::span<const BlockEntry> table(SequenceId id, int32_t layer) const;
  std::span<const Rotation> rotations(int32_t layer) const;
  Visibility visibility(int32_t layer) const;
  /// Page and slot of each reserved token; `out` has as many elements as were reserved.
  void destinations(SequenceId id, int32_t layer, std::span<KvDestination> out) const;

  /// Pages that one sequence of `positions` needs at its worst, in all layers, fed in chunks of at
  /// most `chunk` tokens: static so that budgets can be computed before anything is made.
  static int64_t pages_needed(const PolicyMap& policies, int32_t n_layers, int32_t block_size,
                              int64_t positions, int64_t chunk);
  /// Most table entries any layer of one sequence can have at once.
  static int64_t max_entries(const PolicyMap& policies, int32_t n_layers, int32_t block_size,
                             int64_t positions, int64_t chunk);

  int64_t free_pages() const;
  KvStats stats() const;  // from any thread
  /// Checks every conservation law; throws Error kInternal naming the first that fails.
  void check_integrity() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace paddock
