#include "core/aligned_buffer.h"

#include <sys/mman.h>

#include "core/fail.h"

namespace paddock {

AlignedBuffer::AlignedBuffer(uint64_t bytes, const char* what) {
  if (bytes == 0) return;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    fail(ErrorCode::kOutOfMemory, "cannot reserve {} bytes for {}", bytes, what);
  }
  data_ = static_cast<uint8_t*>(memory);
  size_ = bytes;
  constexpr uint64_t kHugePage = 2 << 20;
  if (bytes >= 2 * kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
  constexpr uint64_t kPage = 4096;
  for (uint64_t at = 0; at < bytes; at += kPage) {
    static_cast<volatile uint8_t*>(data_)[at] = 0;
  }
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace paddock
