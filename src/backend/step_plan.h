// What a step computes, decided on the host before it starts: tokens, where their keys and values
// go, and which entries of the cache they see.
#pragma once

#include <cstdint>
#include <span>

#include "block_use.h"
#include "core/change_log.h"
#include "paged_kv.h"

namespace paddock {

/// One sequence's consecutive tokens in the flat batch, as one layer's attention sees them.
struct SequenceView {
  int32_t sequence;  // 0 to max_sequences - 1, the same from step to step
  int32_t first_token;
  int32_t n_tokens;
  int32_t first_position;
  std::span<const BlockEntry> entries;  // in position order
  const ChangeLog* changes;             // of them, since whatever version a device holds
  const int32_t* angle_rows;            // [n_rotations, n_tokens]
  int32_t n_rotations;
  Visibility visibility;
  BlockUse* uses;  // [n_entries] to be filled by attention(); null: nobody asks

  SequenceQueries queries() const {
    return {first_token, n_tokens,  first_position, static_cast<int32_t>(entries.size()),
            n_rotations, visibility};
  }
};

struct LayerPlan {
  std::span<const KvDestination> destinations;  // [n_tokens]
  std::span<const SequenceView> sequences;
  int64_t* key_norms;   // [n_tokens] to be filled by rope_store(); null: nobody asks
  int32_t angle_group;  // from 0 on; layers of one group have the same angle_rows
};

struct StepPlan {
  std::span<const int32_t> tokens;           // [n_tokens] ids
  std::span<const int32_t> angle_positions;  // [n_rows] effective positions; row i < n_tokens is
                                             // token i's own position
  std::span<const LayerPlan> layers;

  int32_t n_tokens() const { return static_cast<int32_t>(tokens.size()); }
};

}  // namespace paddock
