#include "model/headers.h"

#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "core/json.h"
#include "io/mapped_file.h"

namespace paddock {
namespace {

namespace fs = std::filesystem;

/// What the configuration says of the weights' type, as transformers writes it.
DType type_in(std::span<const std::byte> config) {
  const nlohmann::json json = StrictJson().parse(config, "config.json");
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (!json.contains(key) || !json[key].is_string()) continue;
    const auto name = json[key].get<std::string>();
    if (name == "float32") return DType::kF32;
    if (name == "float16") return DType::kF16;
  }
  return DType::kBF16;
}

/// Tensors as transformers would write them. Nothing lies behind their bytes.
class Imagined {
 public:
  explicit Imagined(const LlamaConfig& c, DType type) : type_(type) {
    const int64_t q = int64_t{c.n_heads} * c.head_dim;
    const int64_t kv = int64_t{c.n_kv_heads} * c.head_dim;
    add("model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
    add("model.norm.weight", {c.hidden_size});
    if (!c.tied_embeddings) add("lm_head.weight", {c.vocab_size, c.hidden_size});
    for (int32_t i = 0; i < c.n_layers; ++i) {
      const std::string p = fmt::format("model.layers.{}.", i);
      add(p + "input_layernorm.weight", {c.hidden_size});
      add(p + "self_attn.q_proj.weight", {q, c.hidden_size});
      add(p + "self_attn.k_proj.weight", {kv, c.hidden_size});
      add(p + "self_attn.v_proj.weight", {kv, c.hidden_size});
      add(p + "self_attn.o_proj.weight", {c.hidden_size, q});
      add(p + "post_attention_layernorm.weight", {c.hidden_size});
      add(p + "mlp.gate_proj.weight", {c.intermediate_size, c.hidden_size});
      add(p + "mlp.up_proj.weight", {c.intermediate_size, c.hidden_size});
      add(p + "mlp.down_proj.weight", {c.hidden_size, c.intermediate_size});
    }
  }
  std::vector<TensorView> take() { return std::move(tensors_); }

 private:
  // Whether two tensors are one is seen from where their bytes begin.
  void add(std::string name, std::vector<int64_t> shape) {
    static std::array<std::byte, 1 << 16> places{};
    const std::byte* place = places.data() + std::min(tensors_.size(), places.size() - 1);
    tensors_.push_back({std::move(name), type_, std::move(shape), {place, 0}});
  }

  DType type_;
  std::vector<TensorView> tensors_;
};

void read_config(ModelHeaders& headers, const fs::path& path) {
  const MappedFile config(path);
  detail::ModelData& data = headers.data;
  data.config = config_from_json(config.bytes(), {});
  const DType type = type_in(config.bytes());
  Imagined tensors(data.config, type);
  data.tensors = bind_safetensors(data.config, tensors.take(), data.config.warnings);
  headers.estimated = fmt::format(
      "there is no header of weights: all of them are taken to be {}, as config.json says",
      dtype_traits(type).name);
}

}  // namespace

std::unique_ptr<ModelHeaders> read_headers(const std::string& path) {
  auto headers = std::make_unique<ModelHeaders>();
  detail::ModelData& data = headers->data;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) {
    fail(ErrorCode::kNotFound, "no model at '{}': no such file or folder", path);
  }
  const fs::path place(path);
  if (!fs::is_directory(status)) {
    if (place.extension() == ".json") {
      read_config(*headers, place);
    } else {
      data.gguf = gguf::File::open(place, gguf::Data::kMayBeMissing);
      data.config = config_from_gguf(*data.gguf);
      data.tensors = bind_gguf(data.config, data.gguf->tensors());
    }
  } else if (safetensors::Folder::has_weights(place)) {
    data.config = config_from_json(MappedFile(place / "config.json").bytes(), {});
    data.folder = safetensors::Folder::open(place);
    data.tensors = bind_safetensors(data.config, data.folder->tensors(), data.config.warnings);
  } else {
    read_config(*headers, place / "config.json");
  }
  return headers;
}

}  // namespace paddock
