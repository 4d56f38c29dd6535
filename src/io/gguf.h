// GGUF v2 and v3: the container. Source of the format: ggml's docs/gguf.md.
// parse() works on bytes alone and trusts none of them; open() adds the file map and split files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/tensor.h"

namespace paddock::gguf {

/// An array value. Strings are views into the mapped bytes; numbers stay little-endian in place.
struct Array {
  enum class Kind { kUnsigned, kSigned, kFloat, kBool, kString } kind;
  uint32_t element_type;                  // GGUF's own value type id
  uint64_t size;                          // number of elements
  std::span<const std::byte> data;        // numeric elements, unaligned
  std::vector<std::string_view> strings;  // for kString

  int64_t integer(uint64_t i) const;  // kUnsigned, kSigned, kBool; range-checked
  double number(uint64_t i) const;    // any but kString
};

using Value = std::variant<uint64_t, int64_t, double, bool, std::string_view, Array>;

struct TensorInfo {
  std::string_view name;
  std::vector<uint64_t> dims;  // GGUF order: dims[0] is the contiguous row length
  uint32_t type;               // GGUF tensor type id, may be one the library cannot run
  uint64_t offset;             // from the start of the data section
  uint64_t bytes = 0;          // of its data; 0 if the type is unknown
};

/// The parsed header of one file. Views point into the bytes given to parse().
struct Header {
  uint32_t version = 0;
  uint64_t alignment = 32;
  std::vector<std::pair<std::string_view, Value>> metadata;  // in file order
  std::vector<TensorInfo> tensors;                           // in file order
  uint64_t data_offset = 0;                                  // of the data section
  uint64_t file_size = 0;

  const Value* find(std::string_view key) const;  // nullptr if absent
};

/// Whether the bytes of tensors are there, behind the header, or perhaps not: for who asks only
/// how large they are.
enum class Data { kHere, kMayBeMissing };

/// Parses and validates a header: counts, lengths, types, alignment, offsets, tensor ends within
/// the file (where the data is here). Allocates only in proportion to bytes it has seen. Errors:
/// kBadFile, kUnsupported.
Header parse(std::span<const std::byte> bytes, Data data = Data::kHere);

/// One model, possibly split over several files (NAME-00001-of-0000N.gguf; give any of them).
class File {
 public:
  static std::shared_ptr<const File> open(const std::filesystem::path& path,
                                          Data data = Data::kHere);

  const Header& header() const { return headers_.front(); }
  /// All tensors of all parts. An unknown tensor type is an Error naming tensor and type. What is
  /// not there, not to its end, has no bytes; no two begin at the same place.
  std::vector<TensorView> tensors() const;
  /// All tensor infos with their byte sizes, for `inspect`: never touches tensor data.
  const std::vector<Header>& headers() const { return headers_; }

  // Typed metadata. get_*: nullopt if absent; an Error (naming key and actual type) if of the wrong
  // kind or out of range. Any integer type is accepted where an integer is asked for.
  std::optional<int64_t> get_int(std::string_view key) const;
  /// An integer, or an array of `n` equal ones: one for each layer. kUnsupported where they differ.
  std::optional<int64_t> get_int_of_layers(std::string_view key, int64_t n) const;
  std::optional<double> get_float(std::string_view key) const;
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string> get_string(std::string_view key) const;
  const Array* get_array(std::string_view key, Array::Kind kind) const;  // nullptr if absent
  int64_t require_int(std::string_view key) const;
  double require_float(std::string_view key) const;

  /// Drops resident pages of a tensor's bytes after a repack.
  void release(std::span<const std::byte> part) const noexcept;

 private:
  struct Maps;
  std::shared_ptr<Maps> maps_;
  std::vector<Header> headers_;
};

/// Name of a GGUF tensor type id such as "IQ4_XS", or "unknown".
const char* type_name(uint32_t type);

}  // namespace paddock::gguf
