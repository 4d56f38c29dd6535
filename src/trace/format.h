// The bytes of a trace, and what writer and reader both keep in mind so that most fields are small
// differences. docs/trace-format.md is the description.
//
//   file   "PADTRACE", version (u32), frames
//   frame  length (u32), check of the length (u32), check of the payload (u32), payload
//   payload  records: a tag (u8), then fields
//
// Numbers are little-endian. Checks are CRC-32s that go on from the frame's number.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "core/fail.h"
#include "paddock/trace.h"

namespace paddock::trace {

inline constexpr size_t kFileHeader = 12;
inline constexpr size_t kFrameHeader = 12;
/// As in kernels/block_use.h, which this room does not know: its writer is handed such numbers.
inline constexpr double kMassUnit = 4294967296.0;

enum class Tag : uint8_t {
  kHeader = 1,
  kRules,
  kRequest,
  kRun,
  kFinish,
  kStepBegin,
  kStepEnd,
  kTick,
  kOpen,
  kClose,
  kFork,
  kCommit,
  kTokens,
  kPiece,
  kBlock,
  kPrefix,
  kListed,
  kMiss,
  kCut,
  kPassed,
  kCopy,
  kMerge,
  kRefusal,
  kDecision,
  kCandidates,
  kRemoval,
  kBudget,
  kViolation,
  kShortfall,
  kEnd,
  kLimit,
  kProtection,
  kMemory,
  kPreemption,
};

/// A removal's first byte: its reason in the lowest bits, and above them
inline constexpr uint8_t kReasonBits = 7;
static_assert(kRemovalReasons - 1 <= kReasonBits, "another reason needs another byte of traces");
inline constexpr uint8_t kIsIdle = 8, kIsOverruled = 16, kIsRetained = 32, kIsMeasured = 64,
                         kHasLength = 128;

/// A bit of a miss's, above its reason.
inline constexpr uint8_t kIsAgain = 128;

/// CRC-32 of the bytes, going on from the number of their frame.
uint32_t checksum(uint64_t frame, std::string_view bytes);

inline uint64_t zigzag(int64_t value) {
  return (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
}
inline int64_t unzigzag(uint64_t value) {
  return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
}
/// Sums of what a file says, which must not overflow.
inline int64_t plus(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

/// Known to both sides, and changed alike.
struct State {
  int64_t steps = 0, events = 0, changes = 0, preemptions = 0;
  int64_t micros = 0;
  int64_t last_position = 0;  // of a removal
  int64_t pages_free = 0, pages_cached = 0;
  std::vector<int64_t> lengths;       // of sequences
  std::vector<int32_t> rule_numbers;  // by which they go
  int32_t rank = 0;                   // of the next trim

  int64_t& length(int32_t sequence) {
    const auto i = static_cast<size_t>(sequence);
    if (i >= lengths.size()) lengths.resize(i + 1);
    return lengths[i];
  }
  int32_t& rules(int32_t sequence) {
    const auto i = static_cast<size_t>(sequence);
    if (i >= rule_numbers.size()) rule_numbers.resize(i + 1);
    return rule_numbers[i];
  }
};

class Writer {
 public:
  explicit Writer(size_t capacity) : bytes_(capacity) {}

  void u8(uint8_t value) {
    room(1);
    bytes_[size_++] = value;
  }
  void varint(uint64_t value) {
    room(10);
    while (value >= 128) {
      bytes_[size_++] = static_cast<uint8_t>(value | 128);
      value >>= 7;
    }
    bytes_[size_++] = static_cast<uint8_t>(value);
  }
  void number(int64_t value) { varint(static_cast<uint64_t>(value)); }  // 0 or more
  void difference(int64_t value) { varint(zigzag(value)); }             // any
  void fixed(uint64_t value, int n_bytes) {
    room(8);
    for (int i = 0; i < n_bytes; ++i) bytes_[size_++] = static_cast<uint8_t>(value >> (8 * i));
  }
  void real(double value) { fixed(std::bit_cast<uint64_t>(value), 8); }
  void schedule(const TrimSchedule& s) {
    number(s.budget);
    number(s.every);
    number(s.observe);
    number(s.keep_first);
    number(s.keep_newest);
    number(s.newest_divisor);
  }
  void text(std::string_view value) {
    varint(value.size());
    room(value.size());
    if (!value.empty()) std::memcpy(bytes_.data() + size_, value.data(), value.size());
    size_ += value.size();
  }

  size_t size() const { return size_; }
  void cut(size_t size) { size_ = size; }
  std::string_view view(size_t from = 0) const {
    return {reinterpret_cast<const char*>(bytes_.data()) + from, size_ - from};
  }

 private:
  void room(size_t n) {
    if (bytes_.size() - size_ < n) bytes_.resize(2 * bytes_.size() + n);
  }

  std::vector<uint8_t> bytes_;
  size_t size_ = 0;
};

}  // namespace paddock::trace
