#include "model/weights.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <string>
#include <unordered_map>

#include "core/fail.h"

namespace paddock {
namespace {

/// Tensors by name; each may be taken once, what is left over is refused.
class Binder {
 public:
  explicit Binder(std::vector<TensorView> tensors) : tensors_(std::move(tensors)) {
    by_name_.reserve(tensors_.size());
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (!by_name_.emplace(tensors_[i].name, i).second) {
        fail(ErrorCode::kBadFile, "tensor '{}' appears twice", tensors_[i].name);
      }
    }
  }

  bool has(const std::string& name) const { return by_name_.contains(name); }

  TensorView matrix(const std::string& name, int64_t rows, int64_t cols) {
    return take(name, {rows, cols});
  }
  TensorView vector(const std::string& name, int64_t n) { return take(name, {n}); }

  void ignore(const std::string& name) { by_name_.erase(name); }

  const TensorView& at(const std::string& name) const { return tensors_[by_name_.at(name)]; }

  void rename(const std::string& from, const std::string& to) {
    const size_t index = by_name_.at(from);
    by_name_.erase(from);
    by_name_.emplace(to, index);
  }

  void refuse_leftovers() const {
    if (by_name_.empty()) return;
    const std::string* first = nullptr;
    for (const auto& [name, index] : by_name_) {
      if (first == nullptr || name < *first) first = &name;
    }
    fail(ErrorCode::kUnsupported,
         "tensor '{}' is not part of a Llama decoder this library runs ({} such tensors); biases, "
         "experts and adapters are not supported",
         *first, by_name_.size());
  }

 private:
  TensorView take(const std::string& name, std::vector<int64_t> shape) {
    const auto it = by_name_.find(name);
    if (it == by_name_.end()) {
      fail(ErrorCode::kBadFile, "tensor '{}' with shape [{}] is missing", name,
           fmt::join(shape, ", "));
    }
    TensorView tensor = std::move(tensors_[it->second]);
    by_name_.erase(it);
    if (tensor.shape != shape) {
      fail(ErrorCode::kBadFile, "tensor '{}' has shape [{}] where the configuration needs [{}]",
           name, fmt::join(tensor.shape, ", "), fmt::join(shape, ", "));
    }
    return tensor;
  }

  std::vector<TensorView> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
};

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

bool same_values(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape &&
         std::equal(a.data.begin(), a.data.end(), b.data.begin(), b.data.end());
}

/// Brings tensors and tie_word_embeddings together, as transformers does (tie_weights).
void tie(const LlamaConfig& config, Binder& binder, std::vector<std::string>& warnings) {
  const bool head = binder.has(kHead);
  if (!config.tied_embeddings) {
    if (head) return;
    fail(ErrorCode::kBadFile,
         "tensor '{}' is missing, and config.json does not say tie_word_embeddings: true", kHead);
  }
  if (!head) return;
  if (!binder.has(kEmbedding)) {
    binder.rename(kHead, kEmbedding);
  } else if (same_values(binder.at(kHead), binder.at(kEmbedding))) {
    binder.ignore(kHead);
  } else {
    warnings.push_back(
        fmt::format("config.json says tie_word_embeddings: true, but '{}' and '{}' are both in the "
                    "file and differ; they are not tied, as in transformers",
                    kHead, kEmbedding));
  }
}

/// Names of one format; layer names are appended to a layer's prefix.
struct Names {
  const char *embedding, *output_norm, *output;
  std::function<std::string(int32_t)> layer;
  const char *attn_norm, *q, *k, *v, *o, *ffn_norm, *gate, *up, *down;
};

LlamaTensors bind(const LlamaConfig& c, Binder& binder, const Names& names) {
  const int64_t q_rows = int64_t{c.n_heads} * c.head_dim;
  const int64_t kv_rows = int64_t{c.n_kv_heads} * c.head_dim;
  LlamaTensors t;
  t.embedding = binder.matrix(names.embedding, c.vocab_size, c.hidden_size);
  t.output_norm = binder.vector(names.output_norm, c.hidden_size);
  t.output = binder.has(names.output) ? binder.matrix(names.output, c.vocab_size, c.hidden_size)
                                      : t.embedding;
  t.layers.reserve(c.n_layers);
  for (int32_t i = 0; i < c.n_layers; ++i) {
    const std::string p = names.layer(i);
    LlamaTensors::Layer layer;
    layer.attn_norm = binder.vector(p + names.attn_norm, c.hidden_size);
    layer.q = binder.matrix(p + names.q, q_rows, c.hidden_size);
    layer.k = binder.matrix(p + names.k, kv_rows, c.hidden_size);
    layer.v = binder.matrix(p + names.v, kv_rows, c.hidden_size);
    layer.o = binder.matrix(p + names.o, c.hidden_size, q_rows);
    layer.ffn_norm = binder.vector(p + names.ffn_norm, c.hidden_size);
    layer.gate = binder.matrix(p + names.gate, c.intermediate_size, c.hidden_size);
    layer.up = binder.matrix(p + names.up, c.intermediate_size, c.hidden_size);
    layer.down = binder.matrix(p + names.down, c.hidden_size, c.intermediate_size);
    t.layers.push_back(std::move(layer));
  }
  binder.refuse_leftovers();
  return t;
}

}  // namespace

LlamaTensors bind_gguf(const LlamaConfig& config, std::vector<TensorView> tensors) {
  Binder binder(std::move(tensors));
  binder.ignore("rope_freqs.weight");  // read with the configuration
  return bind(config, binder,
              {"token_embd.weight", "output_norm.weight", "output.weight",
               [](int32_t i) { return fmt::format("blk.{}.", i); }, "attn_norm.weight",
               "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight",
               "ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"});
}

LlamaTensors bind_safetensors(const LlamaConfig& config, std::vector<TensorView> tensors,
                              std::vector<std::string>& warnings) {
  Binder binder(std::move(tensors));
  binder.ignore("model.rotary_emb.inv_freq");  // older exports carry derived values
  for (int32_t i = 0; i < config.n_layers; ++i) {
    binder.ignore(fmt::format("model.layers.{}.self_attn.rotary_emb.inv_freq", i));
  }
  tie(config, binder, warnings);
  return bind(
      config, binder,
      {kEmbedding, "model.norm.weight", kHead,
       [](int32_t i) { return fmt::format("model.layers.{}.", i); }, "input_layernorm.weight",
       "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight",
       "self_attn.o_proj.weight", "post_attention_layernorm.weight", "mlp.gate_proj.weight",
       "mlp.up_proj.weight", "mlp.down_proj.weight"});
}

}  // namespace paddock
