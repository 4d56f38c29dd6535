#include "model/llama.h"

#include <array>

namespace paddock {

Llama::Llama(const LlamaConfig& config, std::shared_ptr<const LlamaWeights> weights,
             Backend& backend, int32_t max_tokens, int32_t max_logit_rows)
    : config_(config), weights_(std::move(weights)), ops_(backend.ops()) {
  const int64_t q_cols = int64_t{config.n_heads} * config.head_dim;
  const int64_t kv_cols = int64_t{config.n_kv_heads} * config.head_dim;
  hidden_ = backend.make_buffer(max_tokens, config.hidden_size);
  normed_ = backend.make_buffer(max_tokens, config.hidden_size);
  q_ = backend.make_buffer(max_tokens, q_cols);
  k_ = backend.make_buffer(max_tokens, kv_cols);
  v_ = backend.make_buffer(max_tokens, kv_cols);
  attended_ = backend.make_buffer(max_tokens, q_cols);
  gate_up_ = backend.make_buffer(max_tokens, 2 * int64_t{config.intermediate_size});
  activated_ = backend.make_buffer(max_tokens, config.intermediate_size);
  logit_hidden_ = backend.make_buffer(max_logit_rows, config.hidden_size);
  logits_ = backend.make_buffer(max_logit_rows, config.vocab_size);
}

uint64_t Llama::activation_bytes(const LlamaConfig& c, int32_t max_tokens, int32_t max_logit_rows) {
  const uint64_t q_cols = uint64_t(c.n_heads) * c.head_dim;
  const uint64_t kv_cols = uint64_t(c.n_kv_heads) * c.head_dim;
  const uint64_t per_token =
      2 * uint64_t(c.hidden_size) + 2 * q_cols + 2 * kv_cols + 3 * uint64_t(c.intermediate_size);
  const uint64_t per_row = uint64_t(c.hidden_size) + c.vocab_size;
  return sizeof(float) * (per_token * max_tokens + per_row * max_logit_rows);
}

bool Llama::run(const StepPlan& plan, StopCheck* stop) {
  if (stop != nullptr && stop->should_stop()) return false;
  return ops_.run(plan, [&](int32_t n) { return run_layers(n, stop); });
}

bool Llama::run_layers(int32_t n, StopCheck* stop) {
  ops_.embed(*weights_->embedding, hidden_);
  for (int32_t i = 0; i < config_.n_layers; ++i) {
    if (stop != nullptr && stop->should_stop()) return false;
    attention_block(weights_->layers[i], i, n);
    mlp_block(weights_->layers[i], n);
  }
  return true;
}

void Llama::attention_block(const LlamaWeights::Layer& layer, int32_t index, int32_t n) {
  ops_.rms_norm(hidden_, *layer.attn_norm, config_.norm_eps, n, normed_);
  ops_.linear(*layer.qkv, normed_, n, std::array{q_, k_, v_}, false);
  ops_.rope_store(index, k_, v_);
  ops_.attention(index, q_, attended_);
  ops_.linear(*layer.o, attended_, n, std::array{hidden_}, true);
}

void Llama::mlp_block(const LlamaWeights::Layer& layer, int32_t n) {
  const int64_t width = config_.intermediate_size;
  ops_.rms_norm(hidden_, *layer.ffn_norm, config_.norm_eps, n, normed_);
  ops_.linear(*layer.gate_up, normed_, n,
              std::array{gate_up_.columns(0, width), gate_up_.columns(width, width)}, false);
  ops_.swiglu(gate_up_, n, activated_);
  ops_.linear(*layer.down, activated_, n, std::array{hidden_}, true);
}

void Llama::compute_logits(std::span<const int32_t> rows) {
  const auto n = static_cast<int32_t>(rows.size());
  ops_.gather(hidden_, rows, logit_hidden_);
  ops_.rms_norm(logit_hidden_, *weights_->output_norm, config_.norm_eps, n, logit_hidden_);
  ops_.linear(*weights_->output, logit_hidden_, n, std::array{logits_}, false);
}

void Llama::fetch_logits(int32_t n) { host_logits_ = ops_.host_rows(logits_, n); }

std::shared_ptr<const LlamaWeights> make_weights(const detail::ModelData& model,
                                                 WeightStore& store) {
  auto weights = std::make_shared<LlamaWeights>();
  uint64_t& bytes = weights->bytes;
  const auto linear = [&](std::initializer_list<const TensorView*> parts) {
    auto made = store.make_linear({parts.begin(), parts.size()}, bytes);
    if (store.repacks()) {
      for (const TensorView* part : parts) model.release(*part);
    }
    return made;
  };
  const LlamaTensors& tensors = model.tensors;
  weights->embedding = store.make_embedding(tensors.embedding, bytes);
  weights->output_norm = store.make_vector(tensors.output_norm, bytes);
  weights->output = linear({&tensors.output});
  weights->layers.reserve(tensors.layers.size());
  for (const LlamaTensors::Layer& t : tensors.layers) {
    LlamaWeights::Layer layer;
    layer.attn_norm = store.make_vector(t.attn_norm, bytes);
    layer.qkv = linear({&t.q, &t.k, &t.v});
    layer.o = linear({&t.o});
    layer.ffn_norm = store.make_vector(t.ffn_norm, bytes);
    layer.gate_up = linear({&t.gate, &t.up});
    layer.down = linear({&t.down});
    weights->layers.push_back(std::move(layer));
  }
  return weights;
}

uint64_t weights_bytes(const LlamaTensors& tensors, const WeightStore& store) {
  const auto vector_bytes = [](const TensorView& t) { return uint64_t(t.cols()) * sizeof(float); };
  uint64_t bytes = store.linear_bytes(tensors.output) + vector_bytes(tensors.output_norm);
  if (tensors.embedding.data.data() != tensors.output.data.data()) {
    bytes += store.embedding_bytes(tensors.embedding);
  }
  for (const LlamaTensors::Layer& t : tensors.layers) {
    for (const TensorView* w : {&t.q, &t.k, &t.v, &t.o, &t.gate, &t.up, &t.down}) {
      bytes += store.linear_bytes(*w);
    }
    bytes += vector_bytes(t.attn_norm) + vector_bytes(t.ffn_norm);
  }
  return bytes;
}

}  // namespace paddock
