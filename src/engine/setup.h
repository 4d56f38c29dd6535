// What an engine is to be: options checked, completed, and turned into sizes before anything large
// is taken.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "kv/cache_manager.h"
#include "kv/policy_map.h"
#include "model/model_data.h"
#include "paddock/engine.h"

namespace paddock {

struct StepSizes;  // step_sizes.h
struct Wanted;     // advice.h

/// Pages that so many bytes hold: never more than there can be.
inline int64_t pages_in(uint64_t bytes, uint64_t page_bytes) {
  return static_cast<int64_t>(std::min<uint64_t>(bytes / page_bytes, kMaxPages));
}
/// Of memory that is free, what may be asked for. An eighth is left alone: tables grow with the
/// pool, and other processes take memory, too.
inline uint64_t without_reserve(uint64_t bytes) { return bytes - bytes / 8; }

struct EngineSetup {
  EngineOptions options;  // resolved: threads, context, budget, KV type
  EngineOptions asked;    // the same options, but context, budget and share as the host gave them
  PolicyMap policies;
  int64_t longest = 0;         // sequence admitted: the context, where that bounds it
  int32_t chunk = 0;           // most tokens of one sequence in one step
  PoolShape pool;              // what backend, cache and advice know of its pages; of them so many
                               // may be in use, as Engine::set_kv_budget() says
  int64_t reserved_pages = 0;  // so many are there
  uint64_t reserved_bytes() const {
    return static_cast<uint64_t>(reserved_pages) *
           static_cast<uint64_t>(pool.geometry.page_bytes());
  }
  uint64_t share_bytes = 0;  // what KvOptions::budget_share left for the pool
  /// So many positions cost a token as much in attention as all else that is computed for it.
  double positions_per_token = 0;
  /// The setups that there would be with each of KvOptions::other_policies as the policy. Their own
  /// `others` are empty. The pool is one for all, and large enough for each.
  std::vector<EngineSetup> others{};

  /// For sequences that go by these rules.
  const EngineSetup& of(RulesId rules) const {
    return rules == 0 ? *this : others[static_cast<size_t>(rules) - 1];
  }
  RulesId n_rules() const { return static_cast<RulesId>(others.size()) + 1; }
  /// Calls fn(setup) for each.
  template <typename Fn>
  void for_each(const Fn& fn) {
    fn(*this);
    for (EngineSetup& other : others) fn(other);
  }
  /// A pool of so many pages, with the bytes that they are.
  void set_pages(int64_t n);
};

// Where nothing bounds a length it is kUnlimited, for rules and contexts alike; that must be the
// longest that there can be.
static_assert(kMaxPositions == kUnlimited);

/// Checks every option by itself, fills in the defaults and lays out what follows, which may be too
/// much or too little. Error kInvalidArgument.
EngineSetup outline(const LlamaConfig& config, const EngineOptions& options);
EngineSetup outline(const Model& model, const EngineOptions& options);
/// outline(), and what it gives fits model and memory. Errors: kInvalidArgument, kOutOfMemory.
EngineSetup resolve(const Model& model, const EngineOptions& options);
/// Sizes that follow from options and rules, unchecked: pool.n_pages may be more than kMaxPages, or
/// too few.
EngineSetup lay_out(const LlamaConfig& config, const EngineOptions& options, PolicyMap policies);
/// The rules of `setup.asked`. Error kInvalidArgument, with a SPEC that works.
PolicyMap parse_policies(const LlamaConfig& config, const EngineSetup& setup, const Wanted& wanted);
/// Pages that one sequence of `positions` needs.
int64_t pages_needed(const EngineSetup& setup, int64_t positions);
/// Likewise, once its elastic layers have given up all that they may.
int64_t least_pages_needed(const EngineSetup& setup, int64_t positions);
/// Pages without which the rules cannot work at all.
int64_t min_pages(const EngineSetup& setup);
/// The rules for which min_pages() is largest.
RulesId most_needing(const EngineSetup& setup);
/// Error kOutOfMemory if the pool has fewer than some rules need, with what works.
void check_pool(const LlamaConfig& config, const EngineSetup& setup, Wanted wanted);
/// All rules that sequences may go by.
std::vector<SequenceRules> sequence_rules(const EngineSetup& setup);

/// Most tokens of one sequence in one step.
inline int32_t chunk_of(const EngineOptions& o) {
  return static_cast<int32_t>(std::min<int64_t>(o.batch_size, o.context));
}
/// `spec` in place of the engine's own rules, whatever they were.
inline void take_spec(std::string_view spec, KvOptions& kv) {
  kv.policy = spec;
  kv.custom_policy = nullptr;
}

/// Rows of logits computed at a time when every position's are wanted.
inline constexpr int32_t kLogitTile = 32;
/// Most tokens of one step: every running sequence has room for one.
inline int32_t max_step_tokens(const EngineOptions& o) {
  return std::max(o.batch_size, o.max_sequences);
}
/// Most rows of logits computed at a time.
inline int32_t max_logit_rows(const EngineOptions& o) {
  return std::max(o.max_sequences, std::min(kLogitTile, max_step_tokens(o)));
}
BackendLimits limits_for(const EngineSetup& setup, const LlamaConfig& config,
                         const LlamaTensors& tensors, const StepSizes& steps);

}  // namespace paddock
