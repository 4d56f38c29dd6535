// An engine's options by themselves: what ranges they have, and what a proposal makes of them.
#include <algorithm>
#include <limits>

#include "core/fail.h"
#include "engine/setup.h"
#include "kv/reclaim_policy.h"
#include "paddock/engine.h"
#include "paged_kv.h"

namespace paddock {

void EngineOptions::validate() const {
  check_range("threads", threads, 0, 1024);
  check_range("batch_size", batch_size, 1, 65535);
  check_range("max_sequences", max_sequences, 1, kMaxSequences);
  check_range("max_queued", max_queued, 0, std::numeric_limits<int32_t>::max());
  check_range("mixed_prefill", mixed_prefill, 0, 65535);
  check_range("kv.block_size", kv.block_size, 1, 4096);
  check_range("context", context, 0, kMaxPositions);
  check_range("kv.event_capacity", kv.event_capacity, 0, 1'000'000);
  if (!kv.custom_reclaim) make_reclaim_policy(kv.reclaim);  // whether there is one
  if (!(kv.budget_share >= 0 && kv.budget_share <= 1)) {
    fail(ErrorCode::kInvalidArgument, "kv.budget_share is {}; it must be from 0 (off) to 1",
         kv.budget_share);
  }
  if (kv.budget_share > 0 && kv.budget_bytes > 0) {
    fail(ErrorCode::kInvalidArgument,
         "kv.budget_share is {} and kv.budget_bytes {}; give one of the two", kv.budget_share,
         kv.budget_bytes);
  }
  if (kv.max_budget_bytes > 0 && kv.budget_share > 0) {
    fail(ErrorCode::kInvalidArgument,
         "kv.max_budget_bytes is {} and kv.budget_share {}; a share is all that is reserved",
         kv.max_budget_bytes, kv.budget_share);
  }
  if (kv.max_budget_bytes > 0 && kv.max_budget_bytes < kv.budget_bytes) {
    fail(ErrorCode::kInvalidArgument,
         "kv.max_budget_bytes is {}; it must be 0, or kv.budget_bytes, {}, or more",
         kv.max_budget_bytes, kv.budget_bytes);
  }
  if (precision != Precision::kFast && precision != Precision::kReference) {
    fail(ErrorCode::kInvalidArgument, "precision is {}; it must be kFast (0) or kReference (1)",
         static_cast<int>(precision));
  }
  check_range("kv.type", static_cast<int64_t>(kv.type), 0, std::size(kKvElements));
  check_range("kv.pressure", static_cast<int64_t>(kv.pressure),
              static_cast<int64_t>(KvPressure::kTrim), static_cast<int64_t>(KvPressure::kPreempt));
}

EngineOptions with_proposal(EngineOptions options, const Proposal& proposal) {
  if (proposal.budget_bytes) {
    uint64_t& most = options.kv.max_budget_bytes;
    if (most > 0) most = std::max(proposal.lowers ? 0 : most, *proposal.budget_bytes);
    options.kv.budget_bytes = *proposal.budget_bytes;
    options.kv.budget_share = 0;
  }
  if (proposal.max_budget_bytes) options.kv.max_budget_bytes = *proposal.max_budget_bytes;
  if (proposal.budget_share) options.kv.budget_share = *proposal.budget_share;
  if (proposal.policy) take_spec(*proposal.policy, options.kv);
  if (proposal.other_policies) options.kv.other_policies = *proposal.other_policies;
  if (proposal.context) options.context = *proposal.context;
  if (proposal.batch_size) options.batch_size = *proposal.batch_size;
  if (proposal.max_sequences) options.max_sequences = *proposal.max_sequences;
  return options;
}

}  // namespace paddock
