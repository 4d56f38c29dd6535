// One sequence begins as another one is: what that has is listed by both, and copied by who writes
// to it first.
#include "kv/cache_impl.h"

namespace paddock {
namespace {

/// Takes no memory: all tables of a layer have the same room.
void copy_table(const BlockTable& from, BlockTable& to) {
  to.entries.assign(from.entries.begin(), from.entries.end());
  to.records.assign(from.records.begin(), from.records.end());
  to.rotations.assign(from.rotations.begin(), from.rotations.end());
  to.schedule = from.schedule;
  to.tokens = from.tokens;
  to.max_seen = from.max_seen;
  to.dropped_at = from.dropped_at;
  to.is_recent_over = from.is_recent_over;
  to.changes.note(0);
}

}  // namespace

void CacheManager::fork(SequenceId from, SequenceId to) {
  const CachedSequence& origin = impl_->at(from);
  CachedSequence& fork = impl_->at(to);
  if (fork.rules != origin.rules) {
    fail(ErrorCode::kInternal, "a sequence cannot begin as one under other rules");
  }
  if (origin.reserved != 0 || fork.length != 0 || fork.reserved != 0) {
    fail(ErrorCode::kInternal, "cannot fork {} positions, of which {} are reserved, into {}",
         origin.length, origin.reserved, fork.length + fork.reserved);
  }
  const std::lock_guard lock(impl_->mutex);
  fork.length = origin.length;
  fork.prompt = origin.prompt;
  fork.trims = origin.trims;
  fork.is_apart = origin.is_apart;
  if (fork.log != nullptr && origin.log != nullptr) {
    fork.log->begin_as(*origin.log, origin.length);  // beyond it texts may differ
  }
  fork.budget = origin.budget;
  fork.has_fallen = origin.has_fallen;
  fork.scored_from = origin.scored_from;
  fork.told_blocks = origin.told_blocks;
  fork.told_hash = origin.told_hash;
  if (impl_->is_observed()) impl_->config.observer->forked(from, to);
  fork.shared.assign(origin.shared.begin(), origin.shared.end());
  for (const int32_t node : fork.shared) impl_->tree.lock(node, false);
  impl_->shadows.fork(origin.shadow, fork.shadow);
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    BlockTable& table = fork.layers[layer];
    copy_table(origin.layers[layer], table);
    impl_->counters[layer].tokens += table.tokens;
    for (const BlockEntry& e : table.entries) {
      if (e.slot_begin == 0) impl_->pool.retain(e.page);  // else the second part of its page
    }
  }
}

}  // namespace paddock
