// The bytes of one GGUF file: every count, length and offset is checked before it is used.
#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "core/checked.h"
#include "core/fail.h"
#include "io/gguf.h"

namespace paddock::gguf {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF values are read in place");

enum ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};
constexpr uint32_t kValueTypes = 13;
constexpr uint32_t kValueBytes[kValueTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensorNameBytes = 63;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kMaxAlignment = 1 << 20;

struct TypeInfo {
  const char* name;
  uint32_t values, bytes;  // per block
};
/// Types that the library cannot compute with, for the sizes of their tensors: kernels/dtype.h has
/// the others.
struct ForeignType {
  uint32_t id;
  TypeInfo info;
};
constexpr ForeignType kForeignTypes[] = {
    {9, {"Q8_1", 32, 36}},      {15, {"Q8_K", 256, 292}},   {16, {"IQ2_XXS", 256, 66}},
    {17, {"IQ2_XS", 256, 74}},  {18, {"IQ3_XXS", 256, 98}}, {19, {"IQ1_S", 256, 50}},
    {20, {"IQ4_NL", 32, 18}},   {21, {"IQ3_S", 256, 110}},  {22, {"IQ2_S", 256, 82}},
    {23, {"IQ4_XS", 256, 136}}, {24, {"I8", 1, 1}},         {25, {"I16", 1, 2}},
    {26, {"I32", 1, 4}},        {27, {"I64", 1, 8}},        {28, {"F64", 1, 8}},
    {29, {"IQ1_M", 256, 56}},   {34, {"TQ1_0", 256, 54}},   {35, {"TQ2_0", 256, 66}},
    {39, {"MXFP4", 32, 17}}};

std::optional<TypeInfo> find_type(uint32_t id) {
  for (const DType type : kDTypes) {
    if (static_cast<uint32_t>(type) != id) continue;
    const DTypeTraits its = dtype_traits(type);
    return TypeInfo{its.name, static_cast<uint32_t>(its.block_values),
                    static_cast<uint32_t>(its.block_bytes)};
  }
  for (const ForeignType& type : kForeignTypes) {
    if (type.id == id) return type.info;
  }
  return std::nullopt;
}

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

/// Reads forward through bytes it never leaves.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t position() const { return at_; }
  uint64_t remaining() const { return bytes_.size() - at_; }

  std::span<const std::byte> take(uint64_t n, const char* what) {
    if (n > remaining()) {
      fail(ErrorCode::kBadFile,
           "GGUF: {} at byte {} needs {} bytes but only {} are left; the file is {}", what, at_, n,
           remaining(), bytes_.empty() ? "empty" : "truncated or damaged");
    }
    const auto part = bytes_.subspan(at_, n);
    at_ += n;
    return part;
  }

  template <typename T>
  T number(const char* what) {
    return load<T>(take(sizeof(T), what).data());
  }

  std::string_view text(uint64_t most, const char* what) {
    const auto n = number<uint64_t>(what);
    if (n > most) {
      fail(ErrorCode::kBadFile, "GGUF: {} at byte {} claims {} bytes; at most {} are allowed", what,
           at_ - 8, n, most);
    }
    const auto part = take(n, what);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  uint64_t at_ = 0;
};

Array read_array(Reader& reader, std::string_view key) {
  Array array{};
  array.element_type = reader.number<uint32_t>("an array's element type");
  if (array.element_type >= kValueTypes || array.element_type == kArray) {
    fail(ErrorCode::kBadFile,
         "GGUF: array '{}' has element type {}; nested arrays and unknown types "
         "are not supported",
         key, array.element_type);
  }
  array.size = reader.number<uint64_t>("an array's length");
  switch (array.element_type) {
    case kString:
      array.kind = Array::Kind::kString;
      break;
    case kF32:
    case kF64:
      array.kind = Array::Kind::kFloat;
      break;
    case kBool:
      array.kind = Array::Kind::kBool;
      break;
    case kI8:
    case kI16:
    case kI32:
    case kI64:
      array.kind = Array::Kind::kSigned;
      break;
    default:
      array.kind = Array::Kind::kUnsigned;
  }
  const uint64_t least = array.kind == Array::Kind::kString ? 8 : kValueBytes[array.element_type];
  if (array.size > reader.remaining() / least) {
    fail(ErrorCode::kBadFile,
         "GGUF: array '{}' claims {} elements but only {} bytes are left; the file is truncated or "
         "damaged",
         key, array.size, reader.remaining());
  }
  if (array.kind != Array::Kind::kString) {
    array.data = reader.take(array.size * least, "an array");
    return array;
  }
  array.strings.reserve(array.size);
  for (uint64_t i = 0; i < array.size; ++i) {
    array.strings.push_back(reader.text(reader.remaining(), "a string of an array"));
  }
  return array;
}

Value read_value(Reader& reader, std::string_view key) {
  const auto type = reader.number<uint32_t>("a value's type");
  switch (type) {
    case kU8:
      return uint64_t{reader.number<uint8_t>("a value")};
    case kI8:
      return int64_t{reader.number<int8_t>("a value")};
    case kU16:
      return uint64_t{reader.number<uint16_t>("a value")};
    case kI16:
      return int64_t{reader.number<int16_t>("a value")};
    case kU32:
      return uint64_t{reader.number<uint32_t>("a value")};
    case kI32:
      return int64_t{reader.number<int32_t>("a value")};
    case kU64:
      return reader.number<uint64_t>("a value");
    case kI64:
      return reader.number<int64_t>("a value");
    case kF32:
      return double{reader.number<float>("a value")};
    case kF64:
      return reader.number<double>("a value");
    case kBool:
      return reader.number<uint8_t>("a value") != 0;
    case kString:
      return reader.text(reader.remaining(), "a string value");
    case kArray:
      return read_array(reader, key);
    default:
      fail(ErrorCode::kBadFile, "GGUF: key '{}' has the unknown value type {}", key, type);
  }
}

void read_preamble(Reader& reader, Header& header) {
  const auto magic = reader.take(4, "the magic");
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) {
    fail(ErrorCode::kBadFile, "not a GGUF file: it does not begin with 'GGUF'");
  }
  header.version = reader.number<uint32_t>("the version");
  if ((header.version & 0xFFFF) == 0 && header.version != 0) {
    fail(ErrorCode::kUnsupported, "GGUF: a big-endian file; only little-endian ones are supported");
  }
  if (header.version != 2 && header.version != 3) {
    fail(ErrorCode::kUnsupported, "GGUF: version {} is not supported; versions 2 and 3 are",
         header.version);
  }
}

void read_metadata(Reader& reader, uint64_t count, Header& header) {
  constexpr uint64_t kLeastBytes = 8 + 4 + 1;  // an empty key, a type, one byte
  if (count > reader.remaining() / kLeastBytes) {
    fail(ErrorCode::kBadFile,
         "GGUF: {} metadata entries cannot fit in {} bytes; the file is truncated or damaged",
         count, reader.remaining());
  }
  std::unordered_set<std::string_view> seen;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string_view key = reader.text(kMaxKeyBytes, "a metadata key");
    if (key.empty()) fail(ErrorCode::kBadFile, "GGUF: metadata entry {} has an empty key", i);
    if (!seen.insert(key).second) {
      fail(ErrorCode::kBadFile, "GGUF: the key '{}' appears twice", key);
    }
    header.metadata.emplace_back(key, read_value(reader, key));
  }
}

void read_alignment(Header& header) {
  const Value* value = header.find("general.alignment");
  if (value == nullptr) return;
  const auto* number = std::get_if<uint64_t>(value);
  if (number == nullptr || *number == 0 || *number > kMaxAlignment ||
      !std::has_single_bit(*number)) {
    fail(ErrorCode::kBadFile,
         "GGUF: general.alignment must be an unsigned power of two from 1 to {}", kMaxAlignment);
  }
  header.alignment = *number;
}

TensorInfo read_tensor(Reader& reader) {
  TensorInfo info{};
  info.name = reader.text(kMaxTensorNameBytes, "a tensor's name");
  const auto n_dims = reader.number<uint32_t>("a tensor's dimension count");
  if (n_dims > kMaxDims) {
    fail(ErrorCode::kBadFile, "GGUF: tensor '{}' has {} dimensions; at most {} are allowed",
         info.name, n_dims, kMaxDims);
  }
  uint64_t values = 1;
  for (uint32_t i = 0; i < n_dims; ++i) {
    info.dims.push_back(reader.number<uint64_t>("a tensor's dimension"));
    if (info.dims.back() == 0 || info.dims.back() > INT64_MAX) {
      fail(ErrorCode::kBadFile, "GGUF: tensor '{}' has a dimension of {}", info.name,
           info.dims.back());
    }
    values = checked_mul(values, info.dims.back(), "a tensor's size");
  }
  if (values > INT64_MAX) fail(ErrorCode::kBadFile, "GGUF: tensor '{}' is too large", info.name);
  info.type = reader.number<uint32_t>("a tensor's type");
  info.offset = reader.number<uint64_t>("a tensor's offset");
  if (const std::optional<TypeInfo> type = find_type(info.type)) {
    const uint64_t row = info.dims.empty() ? 1 : info.dims[0];
    if (row % type->values != 0) {
      fail(ErrorCode::kBadFile,
           "GGUF: tensor '{}' has rows of {} values, not a multiple of {}'s {}", info.name, row,
           type->name, type->values);
    }
    info.bytes = checked_mul(values / type->values, type->bytes, "a tensor's size");
  }
  return info;
}

void read_tensors(Reader& reader, uint64_t count, Header& header) {
  constexpr uint64_t kLeastBytes = 8 + 4 + 4 + 8;
  if (count > reader.remaining() / kLeastBytes) {
    fail(ErrorCode::kBadFile,
         "GGUF: {} tensors cannot fit in {} bytes; the file is truncated or damaged", count,
         reader.remaining());
  }
  std::unordered_set<std::string_view> seen;
  for (uint64_t i = 0; i < count; ++i) {
    header.tensors.push_back(read_tensor(reader));
    if (!seen.insert(header.tensors.back().name).second) {
      fail(ErrorCode::kBadFile, "GGUF: the tensor '{}' appears twice", header.tensors.back().name);
    }
  }
}

void check_extents(const Header& header, Data data) {
  std::vector<std::pair<uint64_t, uint64_t>> extents;  // [begin, end) from the data section
  for (const TensorInfo& info : header.tensors) {
    if (info.offset % header.alignment != 0) {
      fail(ErrorCode::kBadFile, "GGUF: tensor '{}' lies at offset {}, not a multiple of {}",
           info.name, info.offset, header.alignment);
    }
    const uint64_t end = checked_add(info.offset, info.bytes, "a tensor's end");
    const uint64_t end_in_file = checked_add(header.data_offset, end, "a tensor's end");
    if (data == Data::kHere && end_in_file > header.file_size) {
      fail(ErrorCode::kBadFile,
           "GGUF: tensor '{}' ends at byte {} but the file has only {}; it is truncated or damaged",
           info.name, end_in_file, header.file_size);
    }
    if (info.bytes > 0) extents.emplace_back(info.offset, end);
  }
  std::sort(extents.begin(), extents.end());
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].first < extents[i - 1].second) {
      fail(ErrorCode::kBadFile, "GGUF: two tensors overlap at data offset {}", extents[i].first);
    }
  }
}

}  // namespace

int64_t Array::integer(uint64_t i) const {
  const std::byte* at = data.data() + i * kValueBytes[element_type];
  switch (element_type) {
    case kU8:
    case kBool:
      return load<uint8_t>(at);
    case kI8:
      return load<int8_t>(at);
    case kU16:
      return load<uint16_t>(at);
    case kI16:
      return load<int16_t>(at);
    case kU32:
      return load<uint32_t>(at);
    case kI32:
      return load<int32_t>(at);
    case kI64:
      return load<int64_t>(at);
    default: {
      const auto value = load<uint64_t>(at);
      if (value > INT64_MAX)
        fail(ErrorCode::kBadFile, "GGUF: array element {} is too large", value);
      return static_cast<int64_t>(value);
    }
  }
}

double Array::number(uint64_t i) const {
  const std::byte* at = data.data() + i * kValueBytes[element_type];
  if (element_type == kF32) return load<float>(at);
  if (element_type == kF64) return load<double>(at);
  return static_cast<double>(integer(i));
}

const Value* Header::find(std::string_view key) const {
  for (const auto& [name, value] : metadata) {
    if (name == key) return &value;
  }
  return nullptr;
}

const char* type_name(uint32_t type) {
  const std::optional<TypeInfo> info = find_type(type);
  return info ? info->name : "unknown";
}

Header parse(std::span<const std::byte> bytes, Data data) {
  Reader reader(bytes);
  Header header;
  header.file_size = bytes.size();
  read_preamble(reader, header);
  const auto n_tensors = reader.number<uint64_t>("the tensor count");
  const auto n_metadata = reader.number<uint64_t>("the metadata count");
  read_metadata(reader, n_metadata, header);
  read_alignment(header);
  read_tensors(reader, n_tensors, header);
  header.data_offset = round_up(reader.position(), header.alignment);
  if (data == Data::kHere && !header.tensors.empty() && header.data_offset > header.file_size) {
    fail(ErrorCode::kBadFile, "GGUF: the file ends before its tensor data");
  }
  check_extents(header, data);
  return header;
}

}  // namespace paddock::gguf
