// Shared memory of a block, and asynchronous copies into it.
#include <fmt/format.h>

#include <cstring>

#include "support/simt/machine.h"

namespace paddock::simt {

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

}  // namespace paddock::simt
