#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "core/checked.h"
#include "core/fail.h"
#include "core/json.h"
#include "io/mapped_file.h"

namespace paddock::safetensors {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Folder::Maps {
  std::vector<MappedFile> files;
};

namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the format's own reader allows

struct Known {
  const char* name;
  uint64_t bytes;
  bool weight;  // else ignored
  DType dtype;
};
constexpr Known kKnown[] = {{"F32", 4, true, DType::kF32},   {"F16", 2, true, DType::kF16},
                            {"BF16", 2, true, DType::kBF16}, {"I64", 8, false, DType::kF32},
                            {"I32", 4, false, DType::kF32},  {"U8", 1, false, DType::kF32},
                            {"BOOL", 1, false, DType::kF32}};

uint64_t unsigned_value(const Json& value, const std::string& name, const char* what) {
  if (!value.is_number_unsigned()) {
    fail(ErrorCode::kBadFile, "safetensors: tensor '{}': {} is not a whole number", name, what);
  }
  return value.get<uint64_t>();
}

const Json& member(const Json& entry, const char* key, const std::string& name) {
  const auto it = entry.find(key);
  if (it == entry.end()) {
    fail(ErrorCode::kBadFile, "safetensors: tensor '{}' has no '{}'", name, key);
  }
  return *it;
}

struct Extent {
  uint64_t begin, end;
};

/// Reads one entry; false if its type is of no interest here.
bool read_entry(const std::string& name, const Json& entry, std::span<const std::byte> data,
                TensorView& view, Extent& extent) {
  if (!entry.is_object()) fail(ErrorCode::kBadFile, "safetensors: '{}' is not an object", name);
  const Json& dtype = member(entry, "dtype", name);
  const Json& shape = member(entry, "shape", name);
  const Json& offsets = member(entry, "data_offsets", name);
  if (!dtype.is_string() || !shape.is_array() || !offsets.is_array() || offsets.size() != 2) {
    fail(ErrorCode::kBadFile, "safetensors: tensor '{}' is malformed", name);
  }
  const auto type = dtype.get<std::string>();
  const auto known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                  [&](const Known& k) { return type == k.name; });
  if (known == std::end(kKnown)) {
    fail(ErrorCode::kUnsupported,
         "safetensors: tensor '{}' has type {}; supported weights are F32, F16 and BF16", name,
         type);
  }
  uint64_t values = 1;
  for (const Json& dim : shape) {
    const uint64_t n = unsigned_value(dim, name, "a dimension");
    if (n > INT64_MAX) fail(ErrorCode::kBadFile, "safetensors: tensor '{}' is too large", name);
    values = checked_mul(values, n, "safetensors: a tensor's size");
    view.shape.push_back(static_cast<int64_t>(n));
  }
  const uint64_t bytes = checked_mul(values, known->bytes, "safetensors: a tensor's size");
  extent = {unsigned_value(offsets[0], name, "an offset"),
            unsigned_value(offsets[1], name, "an offset")};
  if (extent.begin > extent.end || extent.end > data.size()) {
    fail(ErrorCode::kBadFile,
         "safetensors: tensor '{}' lies at [{}, {}) but the data section has {} bytes", name,
         extent.begin, extent.end, data.size());
  }
  if (extent.end - extent.begin != bytes) {
    fail(ErrorCode::kBadFile, "safetensors: tensor '{}' takes {} bytes where its shape needs {}",
         name, extent.end - extent.begin, bytes);
  }
  view.name = name;
  view.dtype = known->dtype;
  view.data = data.subspan(extent.begin, bytes);
  return known->weight;
}

void check_extents(std::vector<Extent> extents, uint64_t data_bytes) {
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t at = 0;
  for (const Extent& e : extents) {
    if (e.begin != at) {
      fail(ErrorCode::kBadFile, "safetensors: {} at data byte {}",
           e.begin < at ? "tensors overlap" : "there is a hole", std::min(at, e.begin));
    }
    at = e.end;
  }
  if (at != data_bytes) {
    fail(ErrorCode::kBadFile, "safetensors: {} bytes after the last tensor belong to nobody",
         data_bytes - at);
  }
}

/// Which shard holds a tensor, each a plain file name.
using WeightMap = std::map<std::string, std::string>;

WeightMap read_index(std::span<const std::byte> bytes) {
  const Json index = StrictJson().parse(bytes, "model.safetensors.index.json");
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) {
    fail(ErrorCode::kBadFile, "model.safetensors.index.json has no 'weight_map'");
  }
  WeightMap owners;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) {
      fail(ErrorCode::kBadFile, "model.safetensors.index.json: '{}' names no file", tensor);
    }
    const auto name = file.get<std::string>();
    if (name.empty() || name == "." || name == ".." ||
        name.find_first_of("/\\") != std::string::npos || name.find('\0') != std::string::npos) {
      fail(ErrorCode::kBadFile, "model.safetensors.index.json: '{}' is not a plain file name",
           name);
    }
    owners.emplace(tensor, name);
  }
  return owners;
}

/// Tensors of all shards, each once.
class ShardedTensors {
 public:
  explicit ShardedTensors(const WeightMap& owners) : owners_(owners) {}

  void add(TensorView view, const std::string& shard) {
    const auto [place, fresh] = places_.try_emplace(view.name, Place{tensors_.size(), shard});
    if (fresh) {
      tensors_.push_back(std::move(view));
      return;
    }
    Place& kept = place->second;
    const auto owner = owners_.find(view.name);
    if (owner == owners_.end() || (owner->second != shard && owner->second != kept.shard)) {
      fail(ErrorCode::kBadFile,
           "tensor '{}' lies in both '{}' and '{}', and model.safetensors.index.json names neither",
           view.name, kept.shard, shard);
    }
    warnings_.push_back(fmt::format(
        "tensor '{}' lies in both '{}' and '{}'; model.safetensors.index.json names '{}', which "
        "counts",
        view.name, kept.shard, shard, owner->second));
    if (owner->second != shard) return;
    kept.shard = shard;
    tensors_[kept.index] = std::move(view);
  }

  std::vector<TensorView>& tensors() { return tensors_; }
  std::vector<std::string>& warnings() { return warnings_; }

 private:
  struct Place {
    size_t index;
    std::string shard;
  };
  const WeightMap& owners_;
  std::unordered_map<std::string, Place> places_;
  std::vector<TensorView> tensors_;
  std::vector<std::string> warnings_;
};

}  // namespace

std::vector<TensorView> parse(std::span<const std::byte> bytes) {
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof(header_bytes)) {
    fail(ErrorCode::kBadFile, "safetensors: a file of {} bytes has no header", bytes.size());
  }
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - sizeof(header_bytes)) {
    fail(ErrorCode::kBadFile, "safetensors: a header of {} bytes in a file of {}", header_bytes,
         bytes.size());
  }
  const auto text = bytes.subspan(sizeof(header_bytes), header_bytes);
  if (text.empty() || text[0] != std::byte{'{'}) {
    fail(ErrorCode::kBadFile, "safetensors: the header does not begin with '{{'");
  }
  const Json header = StrictJson().parse(text, "the safetensors header");
  const auto data = bytes.subspan(sizeof(header_bytes) + header_bytes);
  std::vector<TensorView> tensors;
  std::vector<Extent> extents;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    TensorView view;
    Extent extent{};
    const bool wanted = read_entry(name, entry, data, view, extent);
    extents.push_back(extent);
    if (wanted) tensors.push_back(std::move(view));
  }
  check_extents(std::move(extents), data.size());
  return tensors;
}

bool Folder::has_weights(const fs::path& path) {
  return fs::exists(path / kSingle) || fs::exists(path / kIndex);
}

std::shared_ptr<const Folder> Folder::open(const fs::path& path) {
  auto folder = std::make_shared<Folder>();
  folder->maps_ = std::make_shared<Maps>();
  std::set<std::string> names;
  WeightMap owners;
  if (!has_weights(path)) {
    fail(ErrorCode::kNotFound, "'{}' has neither {} nor {}", path.string(), kSingle, kIndex);
  }
  if (fs::exists(path / kSingle)) {
    names.insert(kSingle);
  } else {
    owners = read_index(MappedFile(path / kIndex).bytes());
    for (const auto& [tensor, shard] : owners) names.insert(shard);
  }
  ShardedTensors all(owners);
  for (const std::string& name : names) {
    folder->maps_->files.emplace_back(path / name);
    try {
      for (TensorView& view : parse(folder->maps_->files.back().bytes())) {
        all.add(std::move(view), name);
      }
    } catch (const Error& e) {
      throw Error(e.code(), fmt::format("'{}': {}", (path / name).string(), e.what()));
    }
  }
  folder->tensors_ = std::move(all.tensors());
  folder->warnings_ = std::move(all.warnings());
  return folder;
}

void Folder::release(std::span<const std::byte> part) const noexcept {
  for (const MappedFile& file : maps_->files) file.release(part);
}

}  // namespace paddock::safetensors
