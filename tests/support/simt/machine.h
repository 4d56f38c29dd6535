// The state of the harness, shared by its source files.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support/simt/fiber.h"
#include "support/simt/harness.h"

namespace paddock::simt {

inline constexpr int kMaxThreads = 1024;
inline constexpr int kMaxWarps = kMaxThreads / kWarpSize;

/// Who touched a byte last. Epochs count the intervals between the barriers of each block of each
/// launch, warp epochs the warp barriers.
struct ByteShadow {
  uint32_t write_epoch;
  uint32_t read_epoch;
  uint16_t writer;
  uint16_t write_warp_epoch;
  uint16_t reader;
  uint16_t read_warp_epoch : 12;  // warp epochs run modulo 4096
  uint16_t atomic_write : 1;
  uint16_t many_readers : 1;  // threads of the reader's warp, in its warp epoch
  uint16_t many_warps : 1;    // in this epoch
  uint16_t many_blocks : 1;   // in this launch
};
static_assert(sizeof(ByteShadow) == 16);

enum ByteState : uint8_t { kUnwritten, kWritten, kCopying };

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};
template <typename T>
using ZeroedArray = std::unique_ptr<T[], FreeDeleter>;

/// One allocation of device memory, or one shared variable.
struct Region {
  Region(std::byte* device_address, size_t size, std::string its_name, bool is_shared);

  std::byte* address;
  size_t bytes;
  std::string name;
  bool shared;
  bool frozen = false;
  bool live = true;  // false: freed
  ZeroedArray<std::byte> real;
  ZeroedArray<uint8_t> state;  // ByteState
  ZeroedArray<ByteShadow> shadow;
  const void* key = nullptr;  // of a static shared variable
};

/// Address space that nobody may touch; addresses are given out once.
class AddressSpace {
 public:
  explicit AddressSpace(size_t bytes);
  std::byte* take(size_t bytes);
  void reset() { used_ = 0; }
  [[nodiscard]] bool contains(const void* p) const;

 private:
  std::byte* base_;
  size_t bytes_;
  size_t used_ = 0;
};

struct AsyncCopy {
  void* shared;
  const void* global;
  int bytes;
  int group;
  Where where;
};
struct Thread {
  enum class State : uint8_t { kReady, kAtBarrier, kAtCollective, kDone };
  State state = State::kDone;
  int groups = 0;  // committed
  std::vector<AsyncCopy> copies;
};
struct Warp {
  int arrived = 0;
  const char* operation = nullptr;
  Where where{};
  void* operands[kWarpSize] = {};
  uint16_t epoch = 0;
};
/// What one block has done to hand memory to others: write, fence, atomic; then atomic, fence,
/// read.
struct BlockRecord {
  /// An atomic after a fence of the same epoch hands over what its own thread wrote in it, and what
  /// its warp wrote before a warp barrier; of other threads only what a block barrier came after.
  struct Release {
    uint32_t epoch;
    uint16_t thread, warp_epoch;
  };
  uint32_t first_epoch;
  Grid block;
  uint32_t fenced = 0;    // epoch of the last fence, 0 for none
  uint32_t released = 0;  // epoch up to which all was handed over
  std::vector<Release> releases{};
  bool atomic = false;
  bool acquired = false;  // a fence after an atomic
};

struct Machine {
  // settings
  Schedule schedule;
  std::string mutant;
  bool race_checks = true;
  uint64_t step_limit = 2'000'000'000;
  std::vector<Site*> sites;
  std::vector<Report> reports;

  // the launch
  std::string kernel;
  const std::function<void()>* body = nullptr;
  uint32_t epoch = 1;  // never reused
  uint32_t launch_epoch = 1;
  uint32_t block_epoch = 1;
  std::vector<BlockRecord> blocks;
  uint64_t steps = 0;
  bool running = false;
  bool failed = false;
  std::mt19937 random;

  // the block
  int n_threads = 0;
  int live = 0;
  int at_barrier = 0;
  const Site* barrier = nullptr;  // where those wait
  Thread threads[kMaxThreads];
  Warp warps[kMaxWarps];
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<std::unique_ptr<Region>> shared;  // [0] is the dynamic one
};
Machine& machine();
std::string line_of(Where where);  // "file:line"

inline Thread& this_thread() { return machine().threads[place.thread]; }
inline Warp& this_warp() { return machine().warps[place.thread / kWarpSize]; }

/// Records a report and ends the launch: unwinds the kernel of the running thread.
[[noreturn]] void fail(Fault fault, Where where, std::string text);
void record(Fault fault, int thread, Where where, std::string text);
/// Lets other threads run; returns when this one is chosen again.
void pause();
/// Counts a step; in random schedules it may pause.
void step(bool may_pause);

const char* verb(Access kind);
std::string describe(const Region& r);
AddressSpace& shared_space();
/// The region of an access within bounds and aligned; fails otherwise.
Region& find(const std::byte* p, size_t bytes, size_t alignment, Access kind, Where where);
/// The same, having checked everything and noted who was there.
Region& checked(const void* address, size_t bytes, size_t alignment, Access kind, Where where);
void check_race(Region& r, size_t offset, size_t bytes, Access kind, Where where);

void start_block_memory(size_t dynamic_shared);
void install_fault_handler();

}  // namespace paddock::simt
