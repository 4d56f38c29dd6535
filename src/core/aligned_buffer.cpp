#include "core/aligned_buffer.h"

#include <sys/mman.h>

#include "core/fail.h"

namespace paddock {
namespace {

constexpr uint64_t kPage = 4096;  // of the system
uint64_t first_page(uint64_t begin) { return (begin + kPage - 1) / kPage * kPage; }
uint64_t last_page(uint64_t end) { return end / kPage * kPage; }

}  // namespace

AlignedBuffer::AlignedBuffer(uint64_t bytes, const char* what)
    : AlignedBuffer(untouched(bytes, what)) {
  touch(0, bytes);
}

AlignedBuffer AlignedBuffer::untouched(uint64_t bytes, const char* what) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    fail(ErrorCode::kOutOfMemory, "cannot reserve {} bytes for {}", bytes, what);
  }
  buffer.data_ = static_cast<uint8_t*>(memory);
  buffer.size_ = bytes;
  constexpr uint64_t kHugePage = 2 << 20;
  if (bytes >= 2 * kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
  return buffer;
}

void AlignedBuffer::touch(uint64_t begin, uint64_t end) {
  for (uint64_t at = begin; at < end; at += kPage) {
    static_cast<volatile uint8_t*>(data_)[at] = 0;
  }
}

void AlignedBuffer::give_back(uint64_t begin, uint64_t bytes) {
  const uint64_t first = first_page(begin), end = last_page(begin + bytes);
  if (first < end) madvise(data_ + first, end - first, MADV_DONTNEED);
}

void AlignedBuffer::take_back(uint64_t begin, uint64_t bytes) {
  touch(first_page(begin), last_page(begin + bytes));
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace paddock
