// Checked device memory: allocations, bounds, alignment, unwritten bytes.
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <stdexcept>

#include "support/simt/machine.h"

namespace paddock::simt {
namespace {

constexpr size_t kAlignment = 256;  // as of cudaMalloc
constexpr size_t kMebibyte = size_t{1} << 20;

template <typename T>
ZeroedArray<T> zeroed(size_t count) {
  void* p = std::calloc(count > 0 ? count : 1, sizeof(T));
  if (p == nullptr) throw std::bad_alloc();
  return ZeroedArray<T>(static_cast<T*>(p));
}

AddressSpace& global_space() {
  static AddressSpace space(kMebibyte << 20);
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

Region& checked(const void* address, size_t bytes, size_t alignment, Access kind, Where where) {
  const auto* p = static_cast<const std::byte*>(address);
  Region& r = find(p, bytes, alignment, kind, where);
  const auto offset = static_cast<size_t>(p - r.address);
  uint8_t* state = &r.state[offset];
  constexpr uint8_t kAll[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  const bool all_written = bytes <= 16 && std::memcmp(state, kAll, bytes) == 0;
  for (size_t i = 0; i < bytes && !all_written; ++i) {
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
  if (machine().race_checks) check_race(r, offset, bytes, kind, where);
  if (kind == Access::kWrite) std::memset(state, kWritten, bytes);
  return r;
}

AddressSpace::AddressSpace(size_t bytes) : bytes_(bytes) {
  const auto reserve = [this] {
    return mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  };
  void* base = reserve();
  for (; base == MAP_FAILED && bytes_ > kMebibyte; base = reserve()) bytes_ /= 2;
  if (base == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<std::byte*>(base);
}
std::byte* AddressSpace::take(size_t bytes) {
  // A wrong index that leaves one allocation shall not land in the next.
  const size_t gap = std::max(bytes, kMebibyte);
  const size_t needed = (bytes + gap + kAlignment - 1) / kAlignment * kAlignment;
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

AddressSpace& shared_space() {
  static AddressSpace space(kMebibyte << 10);
  return space;
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
