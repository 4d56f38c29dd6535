#include "kv/cache_manager.h"

#include <algorithm>
#include <limits>
#include <mutex>

#include "core/checked.h"
#include "core/fail.h"

namespace paddock {
namespace {

/// Entries of one sequence in one layer, in position order. Capacity is fixed.
struct Table {
  std::vector<BlockEntry> entries;
};

struct Sequence {
  bool live = false;
  int64_t length = 0;    // committed positions
  int32_t reserved = 0;  // positions after them that reserve() found room for
  std::vector<Table> layers;
};

/// What never changes about a layer.
struct Layer {
  Visibility visibility;
  std::vector<Rotation> rotations;  // the last is neutral; with two, the first is the sinks'
  std::string policy;

  /// Where a block is cut into a part that holds sinks and a part that does not.
  int32_t cut(int64_t first_position, int32_t block_size) const {
    if (rotations.size() < 2) return 0;
    return static_cast<int32_t>(
        std::clamp<int64_t>(visibility.sinks - first_position, 0, block_size));
  }
};

Layer make_layer(const EvictionPolicy& policy, int32_t index) {
  const TokenVisibility v = policy.visibility(index);
  Layer layer{{v.sinks, v.window}, {}, policy.name()};
  // Without a window every block is seen whole, and a window alone needs no turned queries.
  if (v.bounded() && v.sinks > 0) {
    const bool compact = policy.positions() == Positions::kCompact;
    layer.rotations.push_back({0, compact ? v.sinks + v.window - 1 : kUnlimited});
  }
  layer.rotations.push_back({});
  return layer;
}

/// Most blocks that `n` consecutive positions can touch.
int64_t blocks_touched(int64_t n, int64_t block_size) {
  return (n + block_size - 2) / block_size + 1;
}

int64_t layer_pages(const EvictionPolicy& policy, int32_t layer, int64_t block_size,
                    int64_t positions, int64_t chunk) {
  const auto all = static_cast<int64_t>(ceil_div(positions, block_size));
  const TokenVisibility v = policy.visibility(layer);
  if (!v.bounded()) return all;
  const auto sink_blocks = static_cast<int64_t>(ceil_div(v.sinks, block_size));
  return std::min(all, sink_blocks + blocks_touched(v.window - 1 + chunk, block_size));
}

/// Keys met by the queries at positions [first, first + n): each sees min(t + 1, sinks + window).
int64_t keys_met(const Visibility& v, int64_t first, int64_t n) {
  const auto ramp = [](int64_t from, int64_t to) {  // sum of t + 1 for t in [from, to)
    return (to * (to + 1) - from * (from + 1)) / 2;
  };
  if (v.window == kUnlimited) return ramp(first, first + n);
  const int64_t most = int64_t{v.sinks} + v.window;
  const int64_t turn = std::clamp(most, first, first + n);  // from here on every query sees `most`
  return ramp(first, turn) + (first + n - turn) * most;
}

}  // namespace

struct CacheManager::Impl {
  Impl(const CacheConfig& cache_config, const PolicyMap& policies)
      : config(cache_config), pool(cache_config.n_pages) {
    counters.resize(config.n_layers);
    const int64_t entries =
        std::min<int64_t>(max_entries(policies, config.n_layers, config.block_size,
                                      config.max_positions, config.max_chunk),
                          int64_t{config.n_pages} + 1);
    for (int32_t i = 0; i < config.n_layers; ++i) {
      layers.push_back(make_layer(policies.layer(i), i));
    }
    sequences.resize(config.max_sequences);
    for (Sequence& sequence : sequences) {
      sequence.layers.resize(config.n_layers);
      for (Table& table : sequence.layers) table.entries.reserve(entries);
    }
  }

  const Sequence& at(SequenceId id) const {
    if (id < 0 || id >= config.max_sequences || !sequences[id].live) {
      fail(ErrorCode::kInternal, "sequence {} is not open", id);
    }
    return sequences[id];
  }
  Sequence& at(SequenceId id) { return const_cast<Sequence&>(std::as_const(*this).at(id)); }

  void extend(Table& table, int32_t layer, int64_t length, int64_t end);
  void append_part(Table& table, int32_t layer, int32_t page, int64_t first, int32_t begin,
                   int32_t end);
  void drop_page(int32_t layer, int32_t page);
  void release_past(Sequence& sequence, int32_t layer);
  void shrink(Sequence& sequence, int32_t layer);
  int64_t new_blocks(const Sequence& sequence, int32_t n) const {
    const int64_t block = config.block_size;
    return static_cast<int64_t>(ceil_div(sequence.length + n, block)) -
           static_cast<int64_t>(ceil_div(sequence.length, block));
  }

  CacheConfig config;
  std::vector<Layer> layers;
  PagePool pool;
  std::vector<Sequence> sequences;

  // Guarded by `mutex`, so that stats() may be called from any thread.
  mutable std::mutex mutex;
  struct Counters {
    int64_t active = 0, reserved = 0, peak = 0, tokens = 0, allocated = 0, read = 0;
    std::array<int64_t, kRemovalReasons> removed{};
  };
  std::vector<Counters> counters;
  int64_t pool_peak = 0;
  int64_t steps = 0;
  int64_t tokens_written = 0;
  int32_t live = 0;
};

CacheManager::CacheManager(const CacheConfig& config, PolicyMap policies)
    : impl_(std::make_unique<Impl>(config, policies)) {}
CacheManager::~CacheManager() = default;

SequenceId CacheManager::open() {
  for (int32_t id = 0; id < impl_->config.max_sequences; ++id) {
    Sequence& sequence = impl_->sequences[id];
    if (sequence.live) continue;
    const std::lock_guard lock(impl_->mutex);
    sequence.live = true;
    sequence.length = 0;
    sequence.reserved = 0;
    ++impl_->live;
    return id;
  }
  fail(ErrorCode::kInvalidArgument,
       "all {} sequences of the engine are in use; close a session or raise max_sequences",
       impl_->config.max_sequences);
}

void CacheManager::close(SequenceId id) {
  rollback(id);
  Sequence& sequence = impl_->at(id);
  const std::lock_guard lock(impl_->mutex);
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    Impl::Counters& counters = impl_->counters[layer];
    Table& table = sequence.layers[layer];
    int32_t last_page = -1;
    for (const BlockEntry& entry : table.entries) {
      counters.tokens -= entry.slot_end - entry.slot_begin;
      if (entry.page == last_page) continue;  // the second part of one page
      last_page = entry.page;
      impl_->drop_page(layer, entry.page);
      ++counters.removed[static_cast<size_t>(RemovalReason::kSequenceEnd)];
    }
    table.entries.clear();
  }
  sequence.live = false;
  --impl_->live;
}

bool CacheManager::reserve(SequenceId id, int32_t n) {
  Sequence& sequence = impl_->at(id);
  const CacheConfig& config = impl_->config;
  if (sequence.reserved != 0 || n < 1 || n > config.max_chunk ||
      sequence.length + n > config.max_positions) {
    fail(ErrorCode::kInternal, "cannot reserve {} positions after {} (limits {} and {})", n,
         sequence.length, config.max_chunk, config.max_positions);
  }
  const int64_t blocks = impl_->new_blocks(sequence, n);
  if (blocks * config.n_layers > impl_->pool.free_pages()) return false;
  const std::lock_guard lock(impl_->mutex);
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    impl_->extend(sequence.layers[layer], layer, sequence.length, sequence.length + n);
  }
  sequence.reserved = n;
  impl_->pool_peak =
      std::max<int64_t>(impl_->pool_peak, int64_t{config.n_pages} - impl_->pool.free_pages());
  return true;
}

/// Lists the positions [length, end), with new pages where blocks begin.
void CacheManager::Impl::extend(Table& table, int32_t layer, int64_t length, int64_t end) {
  const int64_t block = config.block_size;
  Counters& count = counters[layer];
  for (int64_t at = length; at < end;) {
    const int64_t first = at / block * block;
    const auto begin = static_cast<int32_t>(at - first);
    const auto stop = static_cast<int32_t>(std::min(end - first, block));
    int32_t page = 0;
    if (begin == 0) {
      page = pool.allocate();
      ++count.active;
      ++count.reserved;
    } else {
      page = table.entries.back().page;
    }
    append_part(table, layer, page, first, begin, stop);
    at = first + stop;
  }
  count.peak = std::max(count.peak, count.active);
}

/// Adds slots [begin, end) of a block to its last entry, or as new entries: sinks have their own.
void CacheManager::Impl::append_part(Table& table, int32_t layer, int32_t page, int64_t first,
                                     int32_t begin, int32_t end) {
  const int32_t cut = layers[layer].cut(first, config.block_size);
  const auto plain = static_cast<int32_t>(layers[layer].rotations.size()) - 1;
  const auto add = [&](int32_t from, int32_t to, int32_t part_begin, int32_t rotation) {
    if (from >= to) return;
    if (from > part_begin) {  // the part is there already
      table.entries.back().slot_end = static_cast<uint16_t>(to);
    } else {
      table.entries.push_back({page, static_cast<int32_t>(first), static_cast<uint16_t>(from),
                               static_cast<uint16_t>(to), rotation});
    }
    counters[layer].tokens += to - from;
  };
  add(begin, std::min(end, cut), 0, 0);
  add(std::max(begin, cut), end, cut, plain);
}

void CacheManager::Impl::drop_page(int32_t layer, int32_t page) {
  if (pool.release(page)) --counters[layer].active;
}

void CacheManager::rollback(SequenceId id) {
  Sequence& sequence = impl_->at(id);
  if (sequence.reserved == 0) return;
  const std::lock_guard lock(impl_->mutex);
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) impl_->shrink(sequence, layer);
  sequence.reserved = 0;
}

/// Takes back every position at or beyond the committed length.
void CacheManager::Impl::shrink(Sequence& sequence, int32_t layer) {
  std::vector<BlockEntry>& entries = sequence.layers[layer].entries;
  Counters& count = counters[layer];
  while (!entries.empty()) {
    BlockEntry& last = entries.back();
    const int64_t keep = sequence.length - last.first_position;
    if (last.slot_end <= keep) break;
    const auto end = static_cast<int32_t>(std::max<int64_t>(keep, last.slot_begin));
    count.tokens -= last.slot_end - end;
    last.slot_end = static_cast<uint16_t>(end);
    if (end > last.slot_begin) break;
    if (last.slot_begin == 0) {
      drop_page(layer, last.page);
      --count.reserved;
    }
    entries.pop_back();
  }
}

void CacheManager::commit(SequenceId id) {
  Sequence& sequence = impl_->at(id);
  const std::lock_guard lock(impl_->mutex);
  const int64_t blocks = impl_->new_blocks(sequence, sequence.reserved);
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    Impl::Counters& count = impl_->counters[layer];
    count.read += keys_met(impl_->layers[layer].visibility, sequence.length, sequence.reserved);
    count.allocated += blocks;
    count.reserved -= blocks;
  }
  impl_->tokens_written += sequence.reserved;
  sequence.length += sequence.reserved;
  sequence.reserved = 0;
  ++impl_->steps;
  for (int32_t layer = 0; layer < impl_->config.n_layers; ++layer) {
    impl_->release_past(sequence, layer);
  }
}

/// Drops what no query at the sequence's length or later can see.
void CacheManager::Impl::release_past(Sequence& sequence, int32_t layer) {
  const Visibility& v = layers[layer].visibility;
  if (v.window == kUnlimited) return;
  std::vector<BlockEntry>& entries = sequence.layers[layer].entries;
  const auto is_window = [&](const BlockEntry& e) {
    return int64_t{e.first_position} + e.slot_begin >= v.sinks;
  };
  const auto first = std::find_if(entries.begin(), entries.end(), is_window);
  auto keep = first;
  for (; keep != entries.end(); ++keep) {
    const int64_t begin = int64_t{keep->first_position} + keep->slot_begin;
    const int64_t end = int64_t{keep->first_position} + config.block_size;
    if (!is_past(v, sequence.length, begin, end - begin)) break;
    counters[layer].tokens -= keep->slot_end - keep->slot_begin;
    if (keep->slot_begin != 0) continue;  // the page stays for its sinks
    drop_page(layer, keep->page);
    ++counters[layer].removed[static_cast<size_t>(RemovalReason::kWindow)];
  }
  entries.erase(first, keep);
}

int64_t CacheManager::length(SequenceId id) const { return impl_->at(id).length; }

std::span<const BlockEntry> CacheManager::table(SequenceId id, int32_t layer) const {
  return impl_->at(id).layers[layer].entries;
}

std::span<const Rotation> CacheManager::rotations(int32_t layer) const {
  return impl_->layers[layer].rotations;
}

Visibility CacheManager::visibility(int32_t layer) const { return impl_->layers[layer].visibility; }

void CacheManager::destinations(SequenceId id, int32_t layer, std::span<KvDestination> out) const {
  const Sequence& sequence = impl_->at(id);
  const std::vector<BlockEntry>& entries = sequence.layers[layer].entries;
  auto entry = static_cast<int64_t>(entries.size()) - 1;
  for (auto i = static_cast<int64_t>(out.size()) - 1; i >= 0; --i) {
    const int64_t position = sequence.length + i;
    while (position < int64_t{entries[entry].first_position} + entries[entry].slot_begin) --entry;
    out[i] = {entries[entry].page, static_cast<int32_t>(position - entries[entry].first_position)};
  }
}

int64_t CacheManager::pages_needed(const PolicyMap& policies, int32_t n_layers, int32_t block_size,
                                   int64_t positions, int64_t chunk) {
  int64_t pages = 0;
  for (int32_t i = 0; i < n_layers; ++i) {
    pages += layer_pages(policies.layer(i), i, block_size, positions, chunk);
  }
  return pages;
}

int64_t CacheManager::max_entries(const PolicyMap& policies, int32_t n_layers, int32_t block_size,
                                  int64_t positions, int64_t chunk) {
  int64_t most = 0;
  for (int32_t i = 0; i < n_layers; ++i) {
    most = std::max(most, layer_pages(policies.layer(i), i, block_size, positions, chunk));
  }
  return most + 1;  // one page may be listed in two parts
}

int64_t CacheManager::free_pages() const { return impl_->pool.free_pages(); }

KvStats CacheManager::stats() const {
  const CacheConfig& config = impl_->config;
  KvStats stats;
  stats.block_size = config.block_size;
  stats.page_bytes = config.page_bytes;
  stats.pool_pages = config.n_pages;
  stats.pool_bytes = int64_t{config.n_pages} * config.page_bytes;
  const std::lock_guard lock(impl_->mutex);
  stats.steps = impl_->steps;
  stats.tokens_written = impl_->tokens_written;
  stats.sequences = impl_->live;
  KvLayerStats& total = stats.total;
  for (int32_t i = 0; i < config.n_layers; ++i) {
    const Impl::Counters& count = impl_->counters[i];
    KvLayerStats layer{i,
                       impl_->layers[i].policy,
                       count.active,
                       count.peak,
                       count.tokens,
                       count.active * config.page_bytes,
                       count.allocated,
                       count.removed,
                       count.read};
    total.pages_active += layer.pages_active;
    total.tokens_resident += layer.tokens_resident;
    total.bytes += layer.bytes;
    total.pages_allocated += layer.pages_allocated;
    total.tokens_read += layer.tokens_read;
    for (size_t r = 0; r < layer.pages_removed.size(); ++r) {
      total.pages_removed[r] += layer.pages_removed[r];
    }
    stats.layers.push_back(std::move(layer));
  }
  total.pages_peak = impl_->pool_peak;
  stats.pages_free = config.n_pages - total.pages_active;
  return stats;
}

void CacheManager::check_integrity() const {
  const std::lock_guard lock(impl_->mutex);
  const CacheConfig& config = impl_->config;
  std::vector<int32_t> references(config.n_pages, 0);
  int64_t active_pages = 0;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    const Impl::Counters& count = impl_->counters[layer];
    int64_t tokens = 0;
    int64_t pages = 0;
    for (const Sequence& sequence : impl_->sequences) {
      const std::vector<BlockEntry>& entries = sequence.layers[layer].entries;
      if (!sequence.live && !entries.empty()) {
        fail(ErrorCode::kInternal, "layer {}: a closed sequence still lists pages", layer);
      }
      int64_t past = -1;  // last position listed so far
      int32_t last_page = -1;
      for (const BlockEntry& e : entries) {
        if (e.page < 0 || e.page >= config.n_pages || e.slot_begin >= e.slot_end ||
            e.slot_end > config.block_size || e.first_position % config.block_size != 0 ||
            int64_t{e.first_position} + e.slot_begin <= past) {
          fail(ErrorCode::kInternal, "layer {}: a table entry at position {} is malformed", layer,
               e.first_position);
        }
        past = int64_t{e.first_position} + e.slot_end - 1;
        tokens += e.slot_end - e.slot_begin;
        if (e.page != last_page) {
          ++references[e.page];
          ++pages;
          last_page = e.page;
        }
      }
      const int64_t end = sequence.length + sequence.reserved;
      if (sequence.live && past != end - 1 &&
          !is_past(impl_->layers[layer].visibility, sequence.length, past + 1, end - past - 1)) {
        fail(ErrorCode::kInternal,
             "layer {}: a table ends at position {} although later ones, up to "
             "{}, will be seen",
             layer, past, end - 1);
      }
    }
    int64_t removed = 0;
    for (const int64_t n : count.removed) removed += n;
    if (pages != count.active || tokens != count.tokens ||
        count.allocated + count.reserved - removed != count.active) {
      fail(ErrorCode::kInternal,
           "layer {}: tables list {} pages and {} tokens; counters say {} and {}, {} allocated, {} "
           "reserved, {} removed",
           layer, pages, tokens, count.active, count.tokens, count.allocated, count.reserved,
           removed);
    }
    active_pages += pages;
  }
  for (int32_t page = 0; page < config.n_pages; ++page) {
    if (references[page] != impl_->pool.references(page)) {
      fail(ErrorCode::kInternal, "page {} is listed by {} tables but has {} references", page,
           references[page], impl_->pool.references(page));
    }
  }
  if (active_pages + impl_->pool.free_pages() != config.n_pages) {
    fail(ErrorCode::kInternal, "{} active and {} free pages do not make {}", active_pages,
         impl_->pool.free_pages(), config.n_pages);
  }
}

}  // namespace paddock
