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
  static_cast<TableFacts&>(to) = from;
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
  static_cast<SequenceFacts&>(fork) = origin;
  if (fork.log != nullptr && origin.log != nullptr) {
    fork.log->begin_as(*origin.log, origin.length);  // beyond it texts may differ
  }
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
