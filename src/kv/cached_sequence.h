// What the cache's books know of a sequence, and of the rules that it goes by.
#pragma once

#include <cstdint>
#include <vector>

#include "kv/block_table.h"
#include "kv/cache_manager.h"
#include "kv/decision_log.h"
#include "kv/protection.h"
#include "kv/shadows.h"

namespace paddock {

/// Rules that sequences may go by, and what follows from them.
struct RuleSet : SequenceRules {
  explicit RuleSet(SequenceRules rules) : SequenceRules(std::move(rules)) {}
  const LayerRule& layer(int32_t layer) const { return policies.layer(layer); }
  int64_t interval() const { return policies.interval(); }

  int32_t number = 0;
  bool shares_blocks = false;  // what layers see depends on positions alone
  int32_t root = 0;  // of the tree, then: sequences whose layers see the same have one in common
  std::vector<uint8_t> norms;  // [n_layers] whether key norms are measured: for these rules, or for
                               // elastic ones that may come to list the same blocks
  bool keeps_norms = false;    // for elastic ones, which may list shared blocks: see truncate()
  int32_t least_budget = 0;    // that elastic rules are given
  std::vector<int32_t> least_shares;  // [n_layers] of those that share by need
  std::vector<int32_t> names;         // [n_layers] index of the rule's among rule_names
};

/// What is known of a sequence beside its tables: at first this, and a fork has its origin's.
struct SequenceFacts {
  int64_t length = 0;           // committed positions
  int64_t prompt = 0;           // where the prompt ends; 0: nobody said
  int64_t trims = 0;            // blocks that its rules have dropped, in all layers
  bool is_apart = false;        // it shares no full block: the tree has no room for its text, or
                                // its budget has fallen
  int32_t budget = kUnlimited;  // of elastic rules
  bool has_fallen = false;      // ever: the keys of what came later are not those of `full`
  int64_t scored_from = 0;      // its own queries begin here: of those before nothing was measured
  int64_t told_blocks = 0;      // full ones whose hashes the observer knows
  uint64_t told_hash = 0;       // of the last of them
};

/// What the cache knows of one of its sequences.
struct CachedSequence : SequenceFacts {
  const LayerRule& rule(int32_t layer) const { return rules->layer(layer); }
  /// Whether a block may not be chosen: by the rule's own protection or the host's.
  bool protects(const TrimSchedule& schedule, int64_t first, int64_t end) const {
    return is_protected(schedule, first, end, length) ||
           (protection != nullptr && protection->meets(first, end));
  }

  const RuleSet* rules = nullptr;  // that it goes by while it is live, or some
  bool live = false;
  int32_t reserved = 0;         // positions after `length` that reserve() found room for
  bool deciding = false;        // committed, but rules may still have to decide at this length
  std::vector<int32_t> shared;  // nodes of the tree that it has locked, from the first block on
  DecisionLog* log = nullptr;   // its owner's; null: nothing is logged
  const Protection* protection = nullptr;  // by its host: its owner's; null: there is none
  Shadows::Held shadow;                    // what it holds in caches of other sizes
  std::vector<BlockTable> layers;
};

}  // namespace paddock
