// GGUF on disk: maps, split files, typed metadata.
#include <algorithm>
#include <string_view>

#include "core/checked.h"
#include "core/fail.h"
#include "io/gguf.h"
#include "io/mapped_file.h"

namespace paddock::gguf {

namespace fs = std::filesystem;

struct File::Maps {
  std::vector<MappedFile> files;
};

namespace {

DType dtype_of(const TensorInfo& info) {
  std::string names;
  for (const DType type : kDTypes) {
    if (static_cast<uint32_t>(type) == info.type) return type;
    names += fmt::format(" {}", dtype_traits(type).name);
  }
  fail(ErrorCode::kUnsupported,
       "tensor '{}' has type {} ({}), which this library cannot compute with; supported are{}",
       info.name, type_name(info.type), info.type, names);
}

/// The path of part `index` (from 0) of `count`, given any part's path.
fs::path part_path(const fs::path& path, int64_t index, int64_t count) {
  constexpr std::string_view kTail = "-00000-of-00000.gguf";  // with any digits
  const std::string name = path.filename().string();
  const size_t stem = name.size() - std::min(name.size(), kTail.size());
  const bool fits =
      std::equal(kTail.begin(), kTail.end(), name.begin() + stem, name.end(),
                 [](char form, char c) { return form == '0' ? c >= '0' && c <= '9' : c == form; });
  if (!fits) {
    fail(ErrorCode::kBadFile,
         "'{}' is part of a model split into {} files, so its name must look like "
         "NAME-00001-of-{:05}.gguf",
         path.string(), count, count);
  }
  return path.parent_path() /
         fmt::format("{}-{:05}-of-{:05}.gguf", name.substr(0, stem), index + 1, count);
}

std::optional<int64_t> find_int(const Header& header, std::string_view key) {
  const Value* value = header.find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = std::get_if<uint64_t>(value)) {
    if (*number > INT64_MAX) fail(ErrorCode::kBadFile, "GGUF: key '{}' is too large", key);
    return static_cast<int64_t>(*number);
  }
  if (const auto* number = std::get_if<int64_t>(value)) return *number;
  fail(ErrorCode::kBadFile, "GGUF: key '{}' is not an integer", key);
}

}  // namespace

std::shared_ptr<const File> File::open(const fs::path& path, Data data) {
  auto file = std::make_shared<File>();
  file->maps_ = std::make_shared<Maps>();
  const auto add = [&](const fs::path& part) -> const Header& {
    file->maps_->files.emplace_back(part);
    try {
      file->headers_.push_back(parse(file->maps_->files.back().bytes(), data));
    } catch (const Error& e) {
      throw Error(e.code(), fmt::format("'{}': {}", part.string(), e.what()));
    }
    return file->headers_.back();
  };

  const int64_t count = find_int(add(path), "split.count").value_or(0);
  if (count <= 1) return file;
  if (count > 99999) fail(ErrorCode::kBadFile, "'{}': split.count is {}", path.string(), count);
  file->maps_->files.clear();
  file->headers_.clear();
  for (int64_t i = 0; i < count; ++i) {
    const fs::path part = part_path(path, i, count);
    if (!fs::exists(part)) {
      fail(ErrorCode::kNotFound, "part {} of {} of the model is missing: no file '{}'", i + 1,
           count, part.string());
    }
    const Header& header = add(part);
    if (find_int(header, "split.count") != count || find_int(header, "split.no") != i) {
      fail(ErrorCode::kBadFile,
           "'{}' does not say that it is part {} of {} (split.no, split.count)", part.string(), i,
           count);
    }
  }
  int64_t tensors = 0;
  for (const Header& header : file->headers_)
    tensors += static_cast<int64_t>(header.tensors.size());
  const auto expected = find_int(file->header(), "split.tensors.count");
  if (expected && *expected != tensors) {
    fail(ErrorCode::kBadFile, "'{}': split.tensors.count is {} but the {} parts hold {} tensors",
         path.string(), *expected, count, tensors);
  }
  return file;
}

std::vector<TensorView> File::tensors() const {
  std::vector<TensorView> views;
  for (size_t i = 0; i < headers_.size(); ++i) {
    const auto bytes = maps_->files[i].bytes();
    for (const TensorInfo& info : headers_[i].tensors) {
      TensorView view;
      view.name = info.name;
      view.dtype = dtype_of(info);
      for (auto d = info.dims.rbegin(); d != info.dims.rend(); ++d) {
        view.shape.push_back(static_cast<int64_t>(*d));
      }
      const uint64_t begin = headers_[i].data_offset + info.offset;
      const bool is_here = begin <= bytes.size() && info.bytes <= bytes.size() - begin;
      // A header is longer than it has tensors.
      view.data = is_here ? bytes.subspan(begin, info.bytes) : bytes.subspan(views.size(), 0);
      views.push_back(std::move(view));
    }
  }
  return views;
}

std::optional<int64_t> File::get_int(std::string_view key) const { return find_int(header(), key); }

std::optional<int64_t> File::get_int_of_layers(std::string_view key, int64_t n) const {
  const Value* value = header().find(key);
  if (value == nullptr || !std::holds_alternative<Array>(*value)) return get_int(key);
  const Array& array = *get_array(key, Array::Kind::kSigned);
  if (array.size != static_cast<uint64_t>(n)) {
    fail(ErrorCode::kBadFile, "GGUF: key '{}' has {} elements for {} layers", key, array.size, n);
  }
  const int64_t first = array.integer(0);
  for (uint64_t i = 1; i < array.size; ++i) {
    if (array.integer(i) != first) {
      fail(ErrorCode::kUnsupported,
           "GGUF: {} is {} in layer 0 and {} in layer {}; only layers of one shape are supported",
           key, first, array.integer(i), i);
    }
  }
  return first;
}

std::optional<double> File::get_float(std::string_view key) const {
  const Value* value = header().find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = std::get_if<double>(value)) return *number;
  return static_cast<double>(*get_int(key));
}

std::optional<bool> File::get_bool(std::string_view key) const {
  const Value* value = header().find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* flag = std::get_if<bool>(value)) return *flag;
  fail(ErrorCode::kBadFile, "GGUF: key '{}' is not a boolean", key);
}

std::optional<std::string> File::get_string(std::string_view key) const {
  const Value* value = header().find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* text = std::get_if<std::string_view>(value)) return std::string(*text);
  fail(ErrorCode::kBadFile, "GGUF: key '{}' is not a string", key);
}

const Array* File::get_array(std::string_view key, Array::Kind kind) const {
  const Value* value = header().find(key);
  if (value == nullptr) return nullptr;
  const auto* array = std::get_if<Array>(value);
  const bool integers = array != nullptr && (array->kind == Array::Kind::kSigned ||
                                             array->kind == Array::Kind::kUnsigned);
  const bool wants_integers = kind == Array::Kind::kSigned || kind == Array::Kind::kUnsigned;
  if (array == nullptr || (array->kind != kind && !(integers && wants_integers))) {
    fail(ErrorCode::kBadFile, "GGUF: key '{}' is not an array of the expected element type", key);
  }
  return array;
}

int64_t File::require_int(std::string_view key) const {
  const auto value = get_int(key);
  if (!value) fail(ErrorCode::kBadFile, "GGUF: the key '{}' is missing", key);
  return *value;
}

double File::require_float(std::string_view key) const {
  const auto value = get_float(key);
  if (!value) fail(ErrorCode::kBadFile, "GGUF: the key '{}' is missing", key);
  return *value;
}

void File::release(std::span<const std::byte> part) const noexcept {
  for (const MappedFile& file : maps_->files) file.release(part);
}

}  // namespace paddock::gguf
