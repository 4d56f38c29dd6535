// Taking positions back: those of a step that was not run, and those a host does not want any more.
#include <algorithm>

#include "kv/cache_impl.h"

namespace paddock {
namespace {

/// Error kInvalidArgument where the rule has dropped or measured what going back to `length`
/// forbids.
void check_rewind(const LayerRule& rule, int32_t layer, const BlockTable& table, int64_t length,
                  int64_t block_size) {
  if (!rule.is_elastic && (rule.needs.attention || rule.needs.key_norms)) {
    if (length == 0) return;
    fail(ErrorCode::kInvalidArgument,
         "cannot truncate to {}: layer {} is under '{}', whose scores already count what the later "
         "positions did; feed the sequence anew",
         length, layer, rule.name);
  }
  if (table.dropped_at > length && length > 0) {
    fail(ErrorCode::kInvalidArgument,
         "cannot truncate to {}: layer {} under '{}' dropped positions at length {} that were in "
         "view before; feed the sequence anew",
         length, layer, rule.name, table.dropped_at);
  }
  // Positions that the next query, at `length`, has to find.
  const Visibility& v = rule.visibility;
  if (v.window == kUnlimited) return;
  int64_t oldest = length - v.window + 1;
  if (length % block_size != 0) oldest = std::min(oldest, length - 1);  // its page
  oldest = std::max<int64_t>(v.sinks, oldest);
  if (oldest < length && table.listed_from(length, oldest) > oldest) {
    fail(ErrorCode::kInvalidArgument,
         "cannot truncate to {}: layer {} under '{}' would see position {}, which has left; feed "
         "the sequence anew",
         length, layer, rule.name, oldest);
  }
}

}  // namespace

void CacheManager::rollback(SequenceId id) {
  CachedSequence& sequence = impl_->at(id);
  if (sequence.reserved == 0) return;
  const std::lock_guard lock(impl_->mutex);
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    impl_->shrink(id, layer, sequence.length, true);
  }
  sequence.reserved = 0;
}

void CacheManager::rollback_all() {
  for (size_t id = 0; id < impl_->sequences.size(); ++id) {
    if (impl_->sequences[id].live) rollback(static_cast<SequenceId>(id));
  }
}

void CacheManager::Impl::shrink(SequenceId id, int32_t layer, int64_t length, bool reserved) {
  BlockTable& table = at(id).layers[layer];
  Counters& count = counters[layer];
  while (!table.entries.empty()) {
    BlockEntry& last = table.entries.back();
    const int64_t keep = length - last.first_position;
    if (last.slot_end <= keep) break;
    const auto end = static_cast<int32_t>(std::max<int64_t>(keep, last.slot_begin));
    if (end == 0 && !reserved && pool.references(last.page) == 1) {  // what is kept stays
      log_removal(id, layer, table.entries.size() - 1, RemovalReason::kUser);
    }
    table.tokens -= last.slot_end - end;
    count.tokens -= last.slot_end - end;
    last.slot_end = static_cast<uint16_t>(end);
    table.changes.note(table.n_entries() - 1);
    if (end > last.slot_begin) break;
    if (last.slot_begin == 0) {
      if (reserved) {
        release_page(last.page);
        --count.active;
        --count.reserved;
      } else {
        drop_page(layer, last.page, RemovalReason::kUser);
      }
    }
    table.entries.pop_back();
    table.records.pop_back();
  }
}

// ---- what hosts take back

void CacheManager::truncate(SequenceId id, int64_t length) {
  CachedSequence& sequence = impl_->at(id);
  if (length < 0 || length > sequence.length) {
    fail(ErrorCode::kInvalidArgument, "cannot truncate a sequence of {} positions to {}",
         sequence.length, length);
  }
  if (sequence.reserved != 0) fail(ErrorCode::kInternal, "a step is under way");
  if (length == sequence.length) return;
  const int64_t block_size = impl_->config.block_size;
  // The norms of a block's later keys are in one sum with those that stay and cannot be taken out
  // of it: such a block is computed again from its beginning.
  if (sequence.rules->keeps_norms) length -= length % block_size;
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    check_rewind(sequence.rule(layer), layer, sequence.layers[layer], length, block_size);
  }
  const std::lock_guard lock(impl_->mutex);
  if (sequence.log != nullptr && sequence.rules->policies.is_elastic()) {
    sequence.log->make_room(1);
  }
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    const LayerRule& rule = sequence.rule(layer);
    if (rule.has_sinks() && length < rule.splits_at()) sequence.layers[layer].join_sinks(rule);
    impl_->shrink(id, layer, length, false);
    if (length > 0) continue;
    sequence.layers[layer].dropped_at = 0;
    sequence.layers[layer].schedule = rule.schedule;  // not one of shares
    if (rule.moves_queries()) sequence.layers[layer].rotations.resize(1);
  }
  if (length == 0) {
    impl_->lift(sequence);
    sequence.has_fallen = sequence.is_apart = false;
  }
  sequence.length = length;
  if (sequence.told_blocks * block_size > length) sequence.told_blocks = 0;  // all are told again
  if (sequence.told_blocks == 0) {
    sequence.told_hash = PrefixTree::hash_of_root(PrefixTree::root(sequence.rules->root));
  }
  if (impl_->is_observed()) impl_->config.observer->cut(id, length);
  sequence.scored_from = std::min(sequence.scored_from, length);
  if (length < sequence.prompt) sequence.prompt = 0;
  if (sequence.log != nullptr) {
    sequence.log->cut(length);
    // The fall of a budget may still be in the log while the lift that came later was just cut off.
    // It stays lifted: a sequence that was parked and is computed again is to find that, too.
    const bool is_lifted = sequence.budget == kUnlimited;
    if (is_lifted && sequence.log->last_budget() != kUnlimited) {
      sequence.log->append_budget(length, kUnlimited);
    }
  }
  if (length < block_size && !sequence.has_fallen) sequence.is_apart = false;
  // Where `length` lies inside a kept block, the sequence does not lock that any more, but its
  // table goes on to list the page: before anything is written there reserve() makes a copy.
  while (static_cast<int64_t>(sequence.shared.size()) * block_size > length) {
    impl_->unlock(sequence.shared.back());
    sequence.shared.pop_back();
  }
  impl_->shadows.let_go(sequence.shadow, length / block_size, impl_->steps);
}

}  // namespace paddock
