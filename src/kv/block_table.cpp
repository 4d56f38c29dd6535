#include "kv/block_table.h"

#include <algorithm>

namespace paddock {

void BlockTable::reserve(const LayerRule& rule, int64_t max_entries) {
  entries.reserve(max_entries);
  records.reserve(max_entries);
  if (rule.moves_queries()) rotations.reserve(max_entries);
}

void BlockTable::clear(const LayerRule& rule) {
  entries.clear();
  records.clear();
  static_cast<TableFacts&>(*this) = {.schedule = rule.schedule};
  changes.note(0);
  rotations.clear();
  if (rule.moves_queries()) rotations.push_back({});
}

void BlockTable::append_part(const LayerRule& rule, int32_t page, int64_t first, int32_t begin,
                             int32_t end, int64_t step) {
  if (begin > 0) {  // the block is there already
    entries.back().slot_end = static_cast<uint16_t>(end);
  } else {
    // Tables whose queries move keep the neutral rotation first, the others keep it last.
    const auto plain = rule.moves_queries() ? 0 : static_cast<int32_t>(rule.rotations.size()) - 1;
    entries.push_back({page, static_cast<int32_t>(first), 0, static_cast<uint16_t>(end), plain});
    BlockRecord& record = records.emplace_back();
    record.born_step = step;
    record.last_used = first;
  }
  tokens += end - begin;
}

// Sums over a page that is listed twice are rounded otherwise than over one listed once. Until
// something has left, a table is that of a layer that sees everything, and so are the results.
void BlockTable::split_sinks(const LayerRule& rule) {
  changes.note(0);
  for (size_t i = 0; i < entries.size(); ++i) {
    BlockEntry& e = entries[i];
    const int64_t sinks = rule.visibility.sinks - int64_t{e.first_position};
    if (sinks <= 0) return;
    e.rotation = 0;
    if (sinks >= e.slot_end) continue;
    BlockEntry rest = e;
    rest.slot_begin = e.slot_end = static_cast<uint16_t>(sinks);
    rest.rotation = static_cast<int32_t>(rule.rotations.size()) - 1;
    BlockRecord record = records[i];
    record.last_used = std::max<int64_t>(record.last_used, rule.visibility.sinks);
    entries.insert(entries.begin() + static_cast<int64_t>(i) + 1, rest);
    records.insert(records.begin() + static_cast<int64_t>(i) + 1, record);
    return;
  }
}

void BlockTable::join_sinks(const LayerRule& rule) {
  changes.note(0);
  for (size_t i = 0; i < entries.size() && entries[i].rotation == 0; ++i) {
    BlockEntry& e = entries[i];
    e.rotation = static_cast<int32_t>(rule.rotations.size()) - 1;
    if (i + 1 == entries.size() || entries[i + 1].page != e.page) continue;
    e.slot_end = entries[i + 1].slot_end;
    entries.erase(entries.begin() + static_cast<int64_t>(i) + 1);
    records.erase(records.begin() + static_cast<int64_t>(i) + 1);
  }
}

void BlockTable::erase(size_t first, size_t end) {
  if (first == end) return;
  changes.note(static_cast<int64_t>(first));
  const auto from = static_cast<int64_t>(first);
  const auto to = static_cast<int64_t>(end);
  entries.erase(entries.begin() + from, entries.begin() + to);
  records.erase(records.begin() + from, records.begin() + to);
}

void BlockTable::erase_dropped() {
  size_t kept = 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].page < 0) {
      changes.note(static_cast<int64_t>(kept));
      continue;
    }
    entries[kept] = entries[i];
    records[kept] = records[i];
    ++kept;
  }
  entries.resize(kept);
  records.resize(kept);
}

void BlockTable::renumber_rotations() {
  rotations.resize(1);  // the newest run: neutral
  int64_t shift = 0;
  for (size_t i = entries.size(); i-- > 0;) {
    if (i + 1 < entries.size()) {
      const BlockEntry& next = entries[i + 1];
      const int64_t gap = int64_t{next.first_position} + next.slot_begin -
                          (int64_t{entries[i].first_position} + entries[i].slot_end);
      if (gap > 0) {
        shift += gap;
        rotations.push_back({static_cast<int32_t>(shift), kUnlimited});
      }
    }
    const auto rotation = static_cast<int32_t>(rotations.size()) - 1;
    if (entries[i].rotation != rotation) changes.note(static_cast<int64_t>(i));
    entries[i].rotation = rotation;
  }
}

void BlockTable::find_destinations(int64_t first, std::span<KvDestination> out) const {
  auto entry = static_cast<int64_t>(entries.size()) - 1;
  for (auto i = static_cast<int64_t>(out.size()) - 1; i >= 0; --i) {
    const int64_t position = first + i;
    while (position < int64_t{entries[entry].first_position} + entries[entry].slot_begin) --entry;
    out[i] = {entries[entry].page, static_cast<int32_t>(position - entries[entry].first_position)};
  }
}

int64_t BlockTable::listed_from(int64_t end, int64_t enough) const {
  int64_t found = end;
  for (size_t i = entries.size(); i-- > 0 && found > enough;) {
    const BlockEntry& e = entries[i];
    const int64_t e_begin = int64_t{e.first_position} + e.slot_begin;
    const int64_t e_end = int64_t{e.first_position} + e.slot_end;
    if (e_end >= found && e_begin < found) found = e_begin;
  }
  return found;
}

int64_t BlockTable::entry_of(int64_t first_position) const {
  const auto at = std::lower_bound(
      entries.begin(), entries.end(), first_position,
      [](const BlockEntry& e, int64_t position) { return e.first_position < position; });
  if (at == entries.end() || at->first_position != first_position) return n_entries();
  return at - entries.begin();
}

void BlockTable::replace_page(int64_t entry, int32_t page) {
  changes.note(entry);
  const int32_t before = entries[entry].page;
  for (; entry < n_entries() && entries[entry].page == before; ++entry) entries[entry].page = page;
}

int64_t BlockTable::n_pages() const {
  int64_t pages = 0;  // an entry of later slots is the second part of its page
  for (const BlockEntry& e : entries) pages += e.slot_begin == 0 ? 1 : 0;
  return pages;
}

}  // namespace paddock
