// What tests of kernels use: device buffers, schedules, mutants and reports. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cuda/device.h"

namespace paddock::simt {

/// Of the device.
int32_t multiprocessors();

// ---- reports ----
enum class Fault {
  kOutOfBounds,
  kMisaligned,
  kUninitialised,  // bytes that nobody has written
  kInFlight,       // bytes that an asynchronous copy has not delivered yet
  kRace,           // two threads, at least one write, nothing that orders them
  kReadOnly,       // a write into a frozen buffer, or load_const of what this launch writes
  kRawAccess,      // device memory touched without load or store
  kDeadlock,
  kDivergence,  // threads wait at different barriers, lanes at different warp operations
  kEndless,
  kSites,   // one name, two places
  kLaunch,  // what CUDA refuses
};
struct Report {
  Fault fault;
  std::string kernel;
  Grid block;
  int thread;  // -1 where no one thread is to blame
  std::string file;
  int line;
  std::string text;  // all of it, for people
};
/// What went wrong since the last call. A launch ends with its first fault.
std::vector<Report> take_reports();
/// The texts of take_reports(); empty where all is well, so that tests can EXPECT_EQ(..., "").
std::string take_report_text();

// ---- schedules ----
enum class Order {
  kForward,        // threads in turn, each until it waits
  kReverse,        // last first, blocks too
  kInterleaved,    // lane 0 of every warp, then lane 1, ...
  kOneWarpAhead,   // warp `seed` runs whenever it can
  kOneWarpBehind,  // ... whenever no other can
  kRandom,         // also stops threads before accesses to memory
};
struct Schedule {
  Order order = Order::kForward;
  uint32_t seed = 0;
};
void set_schedule(Schedule schedule);
std::string to_string(const Schedule& schedule);
/// One of each kind and a few more: what a test of a kernel runs under.
std::vector<Schedule> all_schedules();
/// Calls `run` under each, with the schedule's name.
void for_each_schedule(const std::function<void(const std::string&)>& run);
/// Whether races are looked for, as they are unless a test of something else saves the time.
void set_race_checks(bool on);
/// Steps (accesses, barriers) after which a launch counts as endless.
void set_step_limit(uint64_t steps);

// ---- recording ----
/// While set, launches are put there instead of being run; each runs later, with the arguments it
/// had, and returns what its launch would have. Null: they run.
void set_recorder(std::vector<std::function<int()>>* recorder);

// ---- mutants ----
/// The sites that launches have met so far, as "file stem.site".
std::vector<std::string> sites_met();
void forget_sites();
/// Skips this site (a bounds check becomes true) until the next call; "" for none.
void set_mutant(const std::string& site);
/// Runs `run` (true if its results are right) under every schedule once as it is and once for every
/// site that it meets, and returns the sites whose absence nobody noticed: neither a wrong result
/// nor a report. If the kernels fail as they are, it returns "unmutated" and the reports.
std::vector<std::string> surviving_mutants(const std::function<bool()>& run);

// ---- memory ----
/// Device memory: its addresses are not mapped on the host, bytes count as unwritten until written.
class DeviceMemory {
 public:
  DeviceMemory(size_t bytes, const std::string& name);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  [[nodiscard]] void* address() const;
  [[nodiscard]] size_t bytes() const;
  void write(size_t offset, const void* from, size_t bytes);
  /// Throws std::logic_error where bytes were never written.
  void read(size_t offset, void* to, size_t bytes) const;
  [[nodiscard]] bool written(size_t offset, size_t bytes) const;
  void set_unwritten();
  /// From now on kernels may only read.
  void freeze();

 private:
  struct Region* region_;
};

template <typename T>
class DeviceBuffer {
 public:
  /// `count` elements that nobody has written.
  explicit DeviceBuffer(size_t count, const std::string& name = "buffer")
      : memory_(std::make_unique<DeviceMemory>(count * sizeof(T), name)), size_(count) {}
  explicit DeviceBuffer(std::span<const T> values, const std::string& name = "buffer")
      : DeviceBuffer(values.size(), name) {
    upload(values);
  }
  explicit DeviceBuffer(const std::vector<T>& values, const std::string& name = "buffer")
      : DeviceBuffer(std::span<const T>(values), name) {}

  /// For kernels only: the host cannot read there.
  [[nodiscard]] T* data() const { return static_cast<T*>(memory_->address()); }
  [[nodiscard]] size_t size() const { return size_; }
  void upload(std::span<const T> values, size_t first = 0) {
    memory_->write(first * sizeof(T), values.data(), values.size_bytes());
  }
  void fill(const T& value) { upload(std::vector<T>(size_, value)); }
  void set_unwritten() { memory_->set_unwritten(); }
  /// Throws std::logic_error where an element was never written.
  [[nodiscard]] std::vector<T> download() const {
    std::vector<T> values(size_);
    memory_->read(0, values.data(), size_ * sizeof(T));
    return values;
  }
  [[nodiscard]] bool written(size_t i) const { return memory_->written(i * sizeof(T), sizeof(T)); }
  DeviceBuffer& freeze() {
    memory_->freeze();
    return *this;
  }

 private:
  std::unique_ptr<DeviceMemory> memory_;
  size_t size_;
};

}  // namespace paddock::simt
