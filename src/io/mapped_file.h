// A read-only memory map of a whole file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace paddock {

/// Maps a regular file read-only. Errors: kNotFound, kIo (naming path and cause). The file must not
/// be truncated by others while mapped (an access past its end would raise SIGBUS; documented).
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

  /// Tells the kernel that the resident pages of `part` may be dropped now (a later read fetches
  /// them from the file again). Used after weights were repacked.
  void release(std::span<const std::byte> part) const noexcept;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::filesystem::path path_;
};

}  // namespace paddock
