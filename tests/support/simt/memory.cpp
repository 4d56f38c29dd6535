// Checked device memory: bounds, alignment, unwritten bytes, asynchronous copies and races.
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <new>
#include <stdexcept>

#include "support/simt/machine.h"

namespace paddock::simt {
namespace {

constexpr size_t kGap = 4096;  // unmapped bytes between allocations
constexpr size_t kGlobalAlignment = 256;

template <typename T>
ZeroedArray<T> zeroed(size_t count) {
  void* p = std::calloc(count > 0 ? count : 1, sizeof(T));
  if (p == nullptr) throw std::bad_alloc();
  return ZeroedArray<T>(static_cast<T*>(p));
}

AddressSpace& global_space() {
  static AddressSpace space(size_t{1} << 40);
  return space;
}
AddressSpace& shared_space() {
  static AddressSpace space(size_t{1} << 24);
  return space;
}

/// All allocations ever made by their first address; freed ones keep their name, not their bytes.
std::map<const std::byte*, std::unique_ptr<Region>>& allocations() {
  static std::map<const std::byte*, std::unique_ptr<Region>> all;
  return all;
}

bool covers(const Region& r, const std::byte* p) {
  return p >= r.address && p < r.address + r.bytes;
}

/// The region at or last before `p`, or null.
Region* nearest(const std::byte* p) {
  if (shared_space().contains(p)) {
    Region* best = nullptr;
    for (const auto& r : machine().shared) {
      if (r->address <= p && (best == nullptr || r->address > best->address)) best = r.get();
    }
    return best;
  }
  static Region* last = nullptr;
  if (last != nullptr && last->live && covers(*last, p)) return last;
  const auto next = allocations().upper_bound(p);
  if (next == allocations().begin()) return nullptr;
  last = std::prev(next)->second.get();
  return last;
}

const char* verb(Access kind) {
  switch (kind) {
    case Access::kRead:
      return "read";
    case Access::kReadConst:
      return "load_const";
    case Access::kWrite:
      return "write";
    case Access::kAtomic:
      return "atomic";
  }
  return "";
}

std::string describe(const Region& r) {
  return fmt::format("{} '{}' ({} bytes)", r.shared ? "shared" : "buffer", r.name, r.bytes);
}

[[noreturn]] void fail_bounds(const Region* r, const std::byte* p, size_t bytes, Access kind,
                              Where where) {
  if (r == nullptr) {
    fail(Fault::kOutOfBounds, where,
         fmt::format("{} of {} bytes at {}, which is not device memory", verb(kind), bytes,
                     static_cast<const void*>(p)));
  }
  const int64_t offset = p - r->address;
  if (!r->live) {
    fail(Fault::kOutOfBounds, where,
         fmt::format("{} of {} bytes at offset {} of {}, which was freed", verb(kind), bytes,
                     offset, describe(*r)));
  }
  fail(Fault::kOutOfBounds, where,
       fmt::format("{} of {} bytes at offset {} of {}: {} bytes past its end", verb(kind), bytes,
                   offset, describe(*r), offset + static_cast<int64_t>(bytes - r->bytes)));
}

Region& find(const std::byte* p, size_t bytes, size_t alignment, Access kind, Where where) {
  Region* r = nearest(p);
  if (r == nullptr || !r->live || p + bytes > r->address + r->bytes) {
    fail_bounds(r, p, bytes, kind, where);
  }
  if (reinterpret_cast<uintptr_t>(p) % alignment != 0) {
    fail(Fault::kMisaligned, where,
         fmt::format("{} of {} bytes at offset {} of {}: not aligned to {}", verb(kind), bytes,
                     p - r->address, describe(*r), alignment));
  }
  return *r;
}

BlockRecord& block_of_epoch(uint32_t epoch) {
  auto& blocks = machine().blocks;
  auto it = std::upper_bound(blocks.begin() + 1, blocks.end(), epoch,
                             [](uint32_t e, const BlockRecord& b) { return e < b.first_epoch; });
  return *std::prev(it);
}
/// True if the block of that epoch has released what it did then and this block has acquired it.
bool handed_over(uint32_t epoch) {
  return block_of_epoch(epoch).released >= epoch && machine().blocks.back().acquired;
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

void check_race(Region& r, size_t offset, size_t bytes, Access kind, Where where) {
  const Machine& m = machine();
  const auto me = static_cast<uint16_t>(place.thread);
  const uint16_t warp_epoch = this_warp().epoch;
  const auto same_warp = [me](uint16_t other) { return other / kWarpSize == me / kWarpSize; };
  const bool writes = kind == Access::kWrite || kind == Access::kAtomic;
  const bool atomic = kind == Access::kAtomic;
  if (atomic && !r.shared) {
    BlockRecord& block = machine().blocks.back();
    block.atomic = true;
    block.released = block.fenced;
  }
  for (size_t i = offset; i < offset + bytes; ++i) {
    ByteShadow& s = r.shadow[i];
    const bool write_here = s.write_epoch >= m.launch_epoch;
    if (write_here && !(atomic && s.atomic_write != 0)) {
      const bool in_epoch = s.write_epoch == m.epoch;
      const bool ordered =
          in_epoch ? s.writer == me || (same_warp(s.writer) && s.write_warp_epoch != warp_epoch)
                   : s.write_epoch >= m.block_epoch || r.shared || handed_over(s.write_epoch);
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
          (s.many_warps != 0 || !same_warp(s.reader) ||
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
    } else if (!same_warp(s.reader)) {
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

Region& checked(const void* address, size_t bytes, size_t alignment, Access kind, Where where) {
  const auto* p = static_cast<const std::byte*>(address);
  Region& r = find(p, bytes, alignment, kind, where);
  const auto offset = static_cast<size_t>(p - r.address);
  uint8_t* state = &r.state[offset];
  for (size_t i = 0; i < bytes; ++i) {
    if (state[i] == kCopying) {
      fail(Fault::kInFlight, where,
           fmt::format("{} at offset {} of {}: an asynchronous copy to there is under way",
                       verb(kind), offset + i, describe(r)));
    }
    if (state[i] == kUnwritten && kind != Access::kWrite) {
      fail(Fault::kUninitialised, where,
           fmt::format("{} of {} bytes at offset {} of {}: byte {} was never written", verb(kind),
                       bytes, offset, describe(r), offset + i));
    }
  }
  if (r.shared && kind == Access::kReadConst) {
    fail(Fault::kReadOnly, where, fmt::format("load_const of {}", describe(r)));
  }
  if (r.frozen) {
    if (kind == Access::kWrite || kind == Access::kAtomic) {
      fail(Fault::kReadOnly, where,
           fmt::format("{} at offset {} of {}, which is frozen", verb(kind), offset, describe(r)));
    }
    return r;
  }
  check_race(r, offset, bytes, kind, where);
  if (kind == Access::kWrite) std::memset(state, kWritten, bytes);
  return r;
}

struct sigaction old_action;
void on_fault(int number, siginfo_t* info, void*) {
  const void* p = info->si_addr;
  if (machine().running && place.thread >= 0 &&
      (global_space().contains(p) || shared_space().contains(p))) {
    const Region* r = nearest(static_cast<const std::byte*>(p));
    record(Fault::kRawAccess, place.thread, {"", 0},
           fmt::format("raw access to {}: kernels use load and store",
                       r == nullptr ? "device memory" : describe(*r)));
    for (;;) pause();  // a signal cannot unwind the kernel
  }
  sigaction(number, &old_action, nullptr);  // not ours: it happens again, to whom it concerns
}

}  // namespace

AddressSpace::AddressSpace(size_t bytes) : bytes_(bytes) {
  void* base = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<std::byte*>(base);
}
std::byte* AddressSpace::take(size_t bytes) {
  const size_t needed = (bytes + kGap + kGlobalAlignment - 1) / kGlobalAlignment * kGlobalAlignment;
  if (needed > bytes_ - used_) throw std::bad_alloc();
  std::byte* p = base_ + used_;
  used_ += needed;
  return p;
}
bool AddressSpace::contains(const void* p) const { return p >= base_ && p < base_ + bytes_; }

Region::Region(std::byte* device_address, size_t size, std::string its_name, bool is_shared)
    : address(device_address),
      bytes(size),
      name(std::move(its_name)),
      shared(is_shared),
      real(zeroed<std::byte>(size)),
      state(zeroed<uint8_t>(size)),
      shadow(zeroed<ByteShadow>(size)) {}

std::byte* access(const void* address, size_t bytes, size_t alignment, Access kind, Where where) {
  step(true);
  Region& r = checked(address, bytes, alignment, kind, where);
  return &r.real[static_cast<size_t>(static_cast<const std::byte*>(address) - r.address)];
}

// ---- shared memory ----
void start_block_memory(size_t dynamic_shared) {
  Machine& m = machine();
  if (m.shared.empty() || m.shared[0]->bytes != dynamic_shared) {
    m.shared.clear();
    shared_space().reset();
    m.shared.push_back(std::make_unique<Region>(shared_space().take(dynamic_shared), dynamic_shared,
                                                "dynamic", true));
  }
  for (const auto& r : m.shared) std::memset(r->state.get(), kUnwritten, r->bytes);
}

void* dynamic_shared_base() { return machine().shared[0]->address; }

void* static_shared(const void* key, size_t bytes, const char* name, Where where) {
  auto& regions = machine().shared;
  size_t total = bytes;
  for (size_t i = 1; i < regions.size(); ++i) {
    if (regions[i]->key == key) return regions[i]->address;
    total += regions[i]->bytes;
  }
  if (total > 48 * 1024) {
    fail(Fault::kLaunch, where,
         fmt::format("static shared memory of {} bytes; the limit is 49152", total));
  }
  regions.push_back(std::make_unique<Region>(shared_space().take(bytes), bytes, name, true));
  regions.back()->key = key;
  return regions.back()->address;
}

// ---- asynchronous copies ----
void copy_async(void* shared, const void* global, int bytes, Where where) {
  step(true);
  if (bytes < 0 || bytes > 16) {
    fail(Fault::kOutOfBounds, where, fmt::format("cp_async16 of {} bytes", bytes));
  }
  Region& to = checked(shared, 16, 16, Access::kWrite, where);
  if (!to.shared) fail(Fault::kOutOfBounds, where, "cp_async16 to what is not shared memory");
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) {
    fail(Fault::kMisaligned, where, "cp_async16 from an address that is not aligned to 16");
  }
  if (bytes > 0) checked(global, static_cast<size_t>(bytes), 16, Access::kRead, where);
  std::memset(&to.state[static_cast<size_t>(static_cast<std::byte*>(shared) - to.address)],
              kCopying, 16);
  Thread& t = this_thread();
  t.copies.push_back({shared, global, bytes, t.groups, where});
}

void copy_async_commit() { ++this_thread().groups; }

void copy_async_wait(int groups, Where where) {
  step(false);
  (void)where;
  Thread& t = this_thread();
  size_t kept = 0;
  for (const AsyncCopy& copy : t.copies) {
    if (copy.group >= t.groups - groups) {
      t.copies[kept++] = copy;
      continue;
    }
    auto* to = static_cast<std::byte*>(copy.shared);
    Region& region = find(to, 16, 16, Access::kWrite, copy.where);
    const auto offset = static_cast<size_t>(to - region.address);
    std::memset(&region.state[offset], kUnwritten, 16);
    checked(to, 16, 16, Access::kWrite, copy.where);
    std::memset(&region.real[offset], 0, 16);
    if (copy.bytes > 0) {
      const auto n = static_cast<size_t>(copy.bytes);
      const Region& from = checked(copy.global, n, 16, Access::kRead, copy.where);
      const auto* source = static_cast<const std::byte*>(copy.global);
      std::memcpy(&region.real[offset], &from.real[static_cast<size_t>(source - from.address)], n);
    }
  }
  t.copies.resize(kept);
}

// ---- device buffers ----
DeviceMemory::DeviceMemory(size_t bytes, const std::string& name) {
  auto region = std::make_unique<Region>(global_space().take(bytes), bytes, name, false);
  region_ = region.get();
  allocations()[region_->address] = std::move(region);
}
DeviceMemory::~DeviceMemory() {
  region_->live = false;
  region_->real.reset();
  region_->state.reset();
  region_->shadow.reset();
}
void* DeviceMemory::address() const { return region_->address; }
size_t DeviceMemory::bytes() const { return region_->bytes; }
void DeviceMemory::write(size_t offset, const void* from, size_t bytes) {
  if (offset > region_->bytes || bytes > region_->bytes - offset) {
    throw std::logic_error(fmt::format("upload past the end of '{}'", region_->name));
  }
  if (bytes == 0) return;
  std::memcpy(&region_->real[offset], from, bytes);
  std::memset(&region_->state[offset], kWritten, bytes);
}
void DeviceMemory::read(size_t offset, void* to, size_t bytes) const {
  if (!written(offset, bytes)) {
    throw std::logic_error(
        fmt::format("download of '{}': not all of it was written", region_->name));
  }
  if (bytes > 0) std::memcpy(to, &region_->real[offset], bytes);
}
bool DeviceMemory::written(size_t offset, size_t bytes) const {
  for (size_t i = offset; i < offset + bytes; ++i) {
    if (region_->state[i] != kWritten) return false;
  }
  return true;
}
void DeviceMemory::set_unwritten() {
  std::memset(region_->state.get(), kUnwritten, region_->bytes);
}
void DeviceMemory::freeze() { region_->frozen = true; }

void install_fault_handler() {
  static bool done = false;
  if (done) return;
  done = true;
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, &old_action);
}

}  // namespace paddock::simt
