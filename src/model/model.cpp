// Loading a model: which format, which configuration, which tensors, which tokenizer.
#include "paddock/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/checked.h"
#include "core/fail.h"
#include "core/log.h"
#include "io/mapped_file.h"
#include "model/model_data.h"
#include "text/tokenizer_source.h"

namespace paddock {

namespace fs = std::filesystem;
using detail::ModelData;

namespace detail {

std::shared_ptr<const LlamaWeights> ModelData::weights(
    const std::string& key,
    const std::function<std::shared_ptr<const LlamaWeights>()>& make) const {
  const std::lock_guard lock(mutex_);
  std::weak_ptr<const LlamaWeights>& slot = forms_[key];
  std::shared_ptr<const LlamaWeights> held = slot.lock();
  if (held == nullptr) {
    held = make();
    slot = held;
  }
  return held;
}

bool ModelData::has_weights(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto it = forms_.find(key);
  return it != forms_.end() && !it->second.expired();
}

void ModelData::release(const TensorView& tensor) const noexcept {
  if (gguf != nullptr) gguf->release(tensor.data);
  if (folder != nullptr) folder->release(tensor.data);
}

}  // namespace detail

namespace {

void report(const LoadOptions& options, double fraction) {
  if (options.on_progress && !options.on_progress(fraction)) {
    fail(ErrorCode::kCancelled, "loading was cancelled at {:.0f} %", fraction * 100);
  }
}

void load_tokenizer(ModelData& data,
                    const std::function<std::shared_ptr<const Tokenizer>()>& load) {
  // A model without a usable tokenizer still runs on ids; the reason is kept for who asks for text.
  try {
    data.tokenizer = load();
  } catch (const Error& e) {
    data.tokenizer_error = e.what();
    return;
  }
  const int32_t tokens = data.tokenizer->vocab_size();
  const int32_t rows = data.config.vocab_size;
  if (tokens <= rows) return;
  const std::string surplus = fmt::format(
      "the tokenizer has {} tokens but the model's embedding only {} rows", tokens, rows);
  for (TokenId id = rows; id < tokens; ++id) {
    if (data.tokenizer->is_special(id) || data.tokenizer->token_bytes(id).empty()) continue;
    data.tokenizer_error = surplus;
    data.tokenizer = nullptr;
    return;
  }
  // A special token, for padding as a rule, that nobody made room for: no plain text becomes it.
  data.config.warnings.push_back(surplus + "; prompts with the special tokens beyond are refused");
}

void load_gguf(ModelData& data, const std::string& path, const LoadOptions& options) {
  data.gguf = gguf::File::open(path);
  report(options, 0.1);
  data.config = config_from_gguf(*data.gguf);
  override_rope(data.config, options.rope);
  data.tensors = bind_gguf(data.config, data.gguf->tensors());
  report(options, 0.3);
  load_tokenizer(data, [&] { return load_gguf_tokenizer(*data.gguf); });
  data.info.format = "gguf";
}

void load_folder(ModelData& data, const fs::path& path, const LoadOptions& options) {
  const MappedFile config(path / "config.json");
  MappedFile generation;
  if (fs::exists(path / "generation_config.json")) {
    generation = MappedFile(path / "generation_config.json");
  }
  data.config = config_from_json(config.bytes(), generation.bytes());
  override_rope(data.config, options.rope);
  report(options, 0.1);
  data.folder = safetensors::Folder::open(path);
  for (const std::string& warning : data.folder->warnings())
    data.config.warnings.push_back(warning);
  data.tensors = bind_safetensors(data.config, data.folder->tensors(), data.config.warnings);
  report(options, 0.3);
  load_tokenizer(data, [&] { return load_folder_tokenizer(path.string()); });
  data.info.format = "safetensors";
}

/// "Q4_1 x210, F32 x61": most frequent first, then by name.
std::string describe_types(const std::vector<const TensorView*>& tensors) {
  std::vector<std::pair<std::string, int>> counts;
  for (const TensorView* tensor : tensors) {
    const std::string name = dtype_traits(tensor->dtype).name;
    const auto it = std::find_if(counts.begin(), counts.end(),
                                 [&](const auto& entry) { return entry.first == name; });
    if (it == counts.end()) {
      counts.emplace_back(name, 1);
    } else {
      ++it->second;
    }
  }
  std::sort(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  std::string text;
  for (const auto& [name, count] : counts) {
    text += fmt::format("{}{} x{}", text.empty() ? "" : ", ", name, count);
  }
  return text;
}

void describe(ModelData& data, const std::string& path) {
  const LlamaConfig& c = data.config;
  ModelInfo& info = data.info;
  info.path = path;
  info.name = c.name;
  info.n_layers = c.n_layers;
  info.hidden_size = c.hidden_size;
  info.intermediate_size = c.intermediate_size;
  info.n_heads = c.n_heads;
  info.n_kv_heads = c.n_kv_heads;
  info.head_dim = c.head_dim;
  info.vocab_size = c.vocab_size;
  info.context_length = c.context_length;
  info.warnings = c.warnings;
  const LlamaTensors& t = data.tensors;
  info.tied_embeddings = t.output.data.data() == t.embedding.data.data();

  std::vector<const TensorView*> all = {&t.embedding, &t.output_norm};
  if (!info.tied_embeddings) all.push_back(&t.output);
  for (const LlamaTensors::Layer& layer : t.layers) {
    for (const TensorView* w : layer.vectors()) all.push_back(w);
    for (const TensorView* w : layer.matrices()) all.push_back(w);
  }
  for (const TensorView* w : all) {
    info.n_parameters += static_cast<uint64_t>(w->rows() * w->cols());
    info.weight_bytes += w->data.size();
  }
  info.weight_types = describe_types(all);
}

}  // namespace

std::shared_ptr<const Model> Model::load(const std::string& path, const LoadOptions& options) try {
  auto data = std::make_unique<ModelData>();
  report(options, 0.0);
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) {
    fail(ErrorCode::kNotFound, "no model at '{}': no such file or folder", path);
  }
  if (fs::is_directory(status)) {
    load_folder(*data, path, options);
  } else {
    load_gguf(*data, path, options);
  }
  describe(*data, path);

  std::set<TokenId> stops(data->config.stop_tokens.begin(), data->config.stop_tokens.end());
  if (data->tokenizer != nullptr) {
    stops.insert(data->tokenizer->stop_tokens().begin(), data->tokenizer->stop_tokens().end());
  }
  data->stop_tokens.assign(stops.begin(), stops.end());
  for (const std::string& warning : data->info.warnings) {
    log(LogLevel::kWarning, "{}: {}", path, warning);
  }
  log(LogLevel::kInfo, "loaded {}: {} layers, {} parameters, {}", path, data->info.n_layers,
      data->info.n_parameters, data->info.weight_types);
  report(options, 1.0);
  return std::shared_ptr<const Model>(new Model(std::move(data)));
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

Model::Model(std::unique_ptr<detail::ModelData> data) : data_(std::move(data)) {}
Model::~Model() = default;

const ModelInfo& Model::info() const { return data_->info; }

const std::shared_ptr<const Tokenizer>& Model::tokenizer() const {
  if (data_->tokenizer == nullptr) {
    fail(ErrorCode::kUnsupported, "'{}' has no usable tokenizer: {}", data_->info.path,
         data_->tokenizer_error);
  }
  return data_->tokenizer;
}

const std::vector<TokenId>& Model::stop_tokens() const { return data_->stop_tokens; }

}  // namespace paddock
