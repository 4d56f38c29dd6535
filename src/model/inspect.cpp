// inspect_json(): what a model file says about itself, from its headers alone.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <variant>

#include "core/fail.h"
#include "io/gguf.h"
#include "io/mapped_file.h"
#include "io/safetensors.h"
#include "model/config.h"
#include "paddock/model.h"
#include "paged_kv.h"

namespace paddock {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr uint64_t kListedElements = 8;  // of an array

Json element(const gguf::Array& array, uint64_t i) {
  switch (array.kind) {
    case gguf::Array::Kind::kString:
      return std::string(array.strings[i]);
    case gguf::Array::Kind::kFloat:
      return array.number(i);
    case gguf::Array::Kind::kBool:
      return array.integer(i) != 0;
    default:
      return array.integer(i);
  }
}

Json value_json(const gguf::Value& value) {
  if (const auto* array = std::get_if<gguf::Array>(&value)) {
    Json first = Json::array();
    for (uint64_t i = 0; i < std::min(array->size, kListedElements); ++i) {
      first.push_back(element(*array, i));
    }
    return {{"array_size", array->size}, {"first", std::move(first)}};
  }
  return std::visit(
      [](const auto& v) -> Json {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, gguf::Array>) {
          return nullptr;
        } else if constexpr (std::is_same_v<T, std::string_view>) {
          return std::string(v);
        } else {
          return v;
        }
      },
      value);
}

Json config_json(const LlamaConfig& c) {
  static constexpr const char* kRopeNames[] = {"default", "linear", "llama3", "yarn"};
  return {{"name", c.name},
          {"layers", c.n_layers},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"heads", c.n_heads},
          {"kv_heads", c.n_kv_heads},
          {"head_dim", c.head_dim},
          {"vocab_size", c.vocab_size},
          {"context_length", c.context_length},
          {"norm_eps", c.norm_eps},
          {"tied_embeddings", c.tied_embeddings},
          {"rope_theta", c.rope.theta},
          {"rope_scaling", kRopeNames[static_cast<int>(c.rope.kind)]},
          {"rope_frequency_divisors", !c.rope.divisors.empty()}};
}

/// Bytes of keys and values one token takes in all layers, by element type.
Json kv_bytes_json(const LlamaConfig& c) {
  const int64_t values = int64_t{2} * c.n_layers * c.n_kv_heads * c.head_dim;
  Json bytes = Json::object();
  for (const KvElement& known : kKvElements) bytes[known.name] = row_bytes(known.type, values);
  return bytes;
}

Json inspect_gguf(const std::string& path) {
  const auto file = gguf::File::open(path);
  Json metadata = Json::object();
  for (const auto& [key, value] : file->header().metadata) {
    metadata[std::string(key)] = value_json(value);
  }
  Json tensors = Json::array();
  uint64_t bytes = 0;
  for (const gguf::Header& header : file->headers()) {
    for (const gguf::TensorInfo& info : header.tensors) {
      const std::vector<uint64_t> shape(info.dims.rbegin(), info.dims.rend());
      tensors.push_back({{"name", std::string(info.name)},
                         {"type", gguf::type_name(info.type)},
                         {"shape", shape},
                         {"bytes", info.bytes}});
      bytes += info.bytes;
    }
  }
  Json out = {{"path", path},
              {"format", "gguf"},
              {"version", file->header().version},
              {"files", file->headers().size()}};
  // A vocabulary-only file or an unsupported architecture can still be looked at.
  try {
    const LlamaConfig config = config_from_gguf(*file);
    out["model"] = config_json(config);
    out["kv_bytes_per_token"] = kv_bytes_json(config);
    out["warnings"] = config.warnings;
  } catch (const Error& e) {
    out["unsupported"] = e.what();
  }
  out["tensor_count"] = tensors.size();
  out["tensor_bytes"] = bytes;
  out["metadata"] = std::move(metadata);
  out["tensors"] = std::move(tensors);
  return out;
}

Json inspect_folder(const fs::path& path) {
  const MappedFile config_file(path / "config.json");
  const bool weights = safetensors::Folder::has_weights(path);
  Json tensors = Json::array();
  uint64_t bytes = 0;
  std::vector<std::string> warnings;
  if (weights) {
    const auto folder = safetensors::Folder::open(path);
    warnings = folder->warnings();
    for (const TensorView& tensor : folder->tensors()) {
      tensors.push_back({{"name", tensor.name},
                         {"type", dtype_traits(tensor.dtype).name},
                         {"shape", tensor.shape},
                         {"bytes", tensor.data.size()}});
      bytes += tensor.data.size();
    }
  }
  Json out = {{"path", path.string()}, {"format", weights ? "safetensors" : "config.json alone"}};
  if (!weights) out["no_weights"] = true;  // what follows is what the configuration says
  try {
    LlamaConfig config = config_from_json(config_file.bytes(), {});
    config.warnings.insert(config.warnings.end(), warnings.begin(), warnings.end());
    out["model"] = config_json(config);
    out["kv_bytes_per_token"] = kv_bytes_json(config);
    out["warnings"] = config.warnings;
  } catch (const Error& e) {
    out["unsupported"] = e.what();
  }
  out["tensor_count"] = tensors.size();
  out["tensor_bytes"] = bytes;
  const auto bytes_of_config = config_file.bytes();
  const auto* text = reinterpret_cast<const char*>(bytes_of_config.data());
  Json metadata = Json::parse(text, text + bytes_of_config.size(), nullptr, false);
  // What is no JSON is said under "unsupported".
  out["metadata"] = metadata.is_discarded() ? Json::object() : std::move(metadata);
  out["tensors"] = std::move(tensors);
  return out;
}

}  // namespace

std::string inspect_json(const std::string& path) try {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) {
    fail(ErrorCode::kNotFound, "no model at '{}': no such file or folder", path);
  }
  const Json out = fs::is_directory(status) ? inspect_folder(path) : inspect_gguf(path);
  return out.dump(2, ' ', false, Json::error_handler_t::replace);
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

}  // namespace paddock
