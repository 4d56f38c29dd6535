// Large zeroed memory, aligned to pages, really there once the constructor returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace paddock {

/// Owns `bytes` of zeroed anonymous memory, aligned to 4096 bytes at least and backed by huge pages
/// where the system offers them. All of it is resident after construction, so that nothing can fail
/// later, unless it is made untouched(). Error kOutOfMemory naming `what` and the size.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  AlignedBuffer(uint64_t bytes, const char* what);
  /// Memory that is not there yet: for who writes to all of it at once, from several threads, each
  /// of which then waits for its own part only.
  static AlignedBuffer untouched(uint64_t bytes, const char* what);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept { swap(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    AlignedBuffer(std::move(other)).swap(*this);
    return *this;
  }

  /// Gives the memory of whole system pages in [begin, begin + bytes) back to the system: they are
  /// zero when they are touched again.
  void give_back(uint64_t begin, uint64_t bytes);
  /// Makes them resident again, as after construction.
  void take_back(uint64_t begin, uint64_t bytes);

  uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  void touch(uint64_t begin, uint64_t end);
  void swap(AlignedBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace paddock
