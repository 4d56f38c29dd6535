// Races: who touched each byte last, and whether a barrier or a fence lies between.
#include <fmt/format.h>

#include <algorithm>

#include "support/simt/machine.h"

namespace paddock::simt {
namespace {

BlockRecord& block_of_epoch(uint32_t epoch) {
  auto& blocks = machine().blocks;
  auto it = std::upper_bound(blocks.begin() + 1, blocks.end(), epoch,
                             [](uint32_t e, const BlockRecord& b) { return e < b.first_epoch; });
  return *std::prev(it);
}
bool same_warp(uint16_t a, uint16_t b) { return a / kWarpSize == b / kWarpSize; }

/// True if the write's block has released it and this block has acquired it.
bool handed_over(const ByteShadow& s) {
  if (!machine().blocks.back().acquired) return false;
  const BlockRecord& block = block_of_epoch(s.write_epoch);
  return block.released >= s.write_epoch ||
         std::any_of(block.releases.begin(), block.releases.end(), [&](const auto& r) {
           return r.epoch == s.write_epoch &&
                  (r.thread == s.writer ||
                   (same_warp(r.thread, s.writer) && r.warp_epoch != s.write_warp_epoch));
         });
}

void note_atomic(BlockRecord& block) {
  block.atomic = true;
  if (block.fenced == 0) return;
  const uint32_t now = machine().epoch;
  block.released = std::max(block.released, block.fenced < now ? block.fenced : now - 1);
  if (block.fenced < now) return;
  block.releases.push_back({now, static_cast<uint16_t>(place.thread), this_warp().epoch});
}

[[noreturn]] void fail_race(const Region& r, size_t offset, const char* mine, const char* other,
                            uint32_t epoch, int thread, Where where) {
  const bool same_block = epoch >= machine().block_epoch;
  const Grid b = same_block ? place.block : block_of_epoch(epoch).block;
  fail(Fault::kRace, where,
       fmt::format("{} at offset {} of {} races with a {} by {}", mine, offset, describe(r), other,
                   same_block ? fmt::format("thread {} (warp {}, lane {})", thread, thread / 32,
                                            thread % 32)
                              : fmt::format("block ({}, {}, {})", b.x, b.y, b.z)));
}

}  // namespace

void check_race(Region& r, size_t offset, size_t bytes, Access kind, Where where) {
  const Machine& m = machine();
  const auto me = static_cast<uint16_t>(place.thread);
  const uint16_t warp_epoch = this_warp().epoch;
  const bool writes = kind == Access::kWrite || kind == Access::kAtomic;
  const bool atomic = kind == Access::kAtomic;
  if (atomic && !r.shared) note_atomic(machine().blocks.back());
  for (size_t i = offset; i < offset + bytes; ++i) {
    ByteShadow& s = r.shadow[i];
    const bool write_here = s.write_epoch >= m.launch_epoch;
    if (write_here && !(atomic && s.atomic_write != 0)) {
      const bool in_epoch = s.write_epoch == m.epoch;
      const bool ordered =
          in_epoch ? s.writer == me || (same_warp(s.writer, me) && s.write_warp_epoch != warp_epoch)
                   : s.write_epoch >= m.block_epoch || r.shared || handed_over(s);
      if (!ordered) fail_race(r, i, verb(kind), "write", s.write_epoch, s.writer, where);
    }
    if (kind == Access::kReadConst && write_here && !r.shared) {
      fail(Fault::kReadOnly, where,
           fmt::format("load_const at offset {} of {}, which this launch has written", i,
                       describe(r)));
    }
    const bool read_here = s.read_epoch >= m.launch_epoch;
    if (writes) {
      if (read_here && !r.shared) {
        const bool others = s.many_blocks != 0 || s.read_epoch < m.block_epoch;
        if (others && !m.blocks.back().acquired) {
          const uint32_t epoch = s.read_epoch < m.block_epoch ? s.read_epoch : m.launch_epoch;
          fail_race(r, i, verb(kind), "read", epoch, s.reader, where);
        }
      }
      if (s.read_epoch == m.epoch &&
          (s.many_warps != 0 || !same_warp(s.reader, me) ||
           (s.read_warp_epoch == warp_epoch && (s.many_readers != 0 || s.reader != me)))) {
        fail_race(r, i, verb(kind), "read", s.read_epoch, s.reader, where);
      }
      // A plain write of this interval is not forgotten for an atomic one.
      const bool plain = s.write_epoch == m.epoch && s.atomic_write == 0;
      s.atomic_write = atomic && !plain;
      s.write_epoch = m.epoch;
      s.writer = me;
      s.write_warp_epoch = warp_epoch;
      continue;
    }
    if (s.read_epoch != m.epoch) {
      s.many_blocks = read_here && (s.many_blocks != 0 || s.read_epoch < m.block_epoch);
      s.many_warps = 0;
    } else if (s.many_warps != 0) {
      continue;
    } else if (!same_warp(s.reader, me)) {
      s.many_warps = 1;
      continue;
    } else if (s.read_warp_epoch == warp_epoch) {
      if (s.reader != me) s.many_readers = 1;
      continue;
    }
    s.many_readers = 0;
    s.read_epoch = m.epoch;
    s.reader = me;
    s.read_warp_epoch = warp_epoch;
  }
}

}  // namespace paddock::simt
