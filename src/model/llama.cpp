#include "model/llama.h"

namespace paddock {

std::vector<Llama::Activation> Llama::activations(const LlamaConfig& c, int32_t max_tokens,
                                                  int32_t max_logit_rows) {
  const int64_t q_cols = int64_t{c.n_heads} * c.head_dim;
  const int64_t kv_cols = int64_t{c.n_kv_heads} * c.head_dim;
  const int64_t inner = c.intermediate_size;
  return {{&Llama::hidden_, max_tokens, c.hidden_size},
          {&Llama::normed_, max_tokens, c.hidden_size},
          {&Llama::q_, max_tokens, q_cols},
          {&Llama::k_, max_tokens, kv_cols},
          {&Llama::v_, max_tokens, kv_cols},
          {&Llama::attended_, max_tokens, q_cols},
          {&Llama::gate_up_, max_tokens, 2 * inner},
          {&Llama::activated_, max_tokens, inner},
          {&Llama::logit_hidden_, max_logit_rows, c.hidden_size},
          {&Llama::logits_, max_logit_rows, c.vocab_size}};
}

Llama::Llama(const LlamaConfig& config, std::shared_ptr<const LlamaWeights> weights,
             Backend& backend, int32_t max_tokens, int32_t max_logit_rows)
    : config_(config), weights_(std::move(weights)), ops_(backend.ops()) {
  for (const Activation& a : activations(config, max_tokens, max_logit_rows)) {
    this->*a.buffer = backend.make_buffer(a.rows, a.cols);
  }
}

uint64_t Llama::activation_bytes(const LlamaConfig& config, int32_t max_tokens,
                                 int32_t max_logit_rows) {
  uint64_t bytes = 0;
  for (const Activation& a : activations(config, max_tokens, max_logit_rows)) {
    bytes += static_cast<uint64_t>(a.rows) * static_cast<uint64_t>(a.cols) * sizeof(float);
  }
  return bytes;
}

bool Llama::run(const StepPlan& plan, StopCheck& stop) {
  if (stop.should_stop()) return false;
  return ops_.run(plan, [&](int32_t n) { return run_layers(n, stop); });
}

bool Llama::run_layers(int32_t n, StopCheck& stop) {
  ops_.embed(*weights_->embedding, hidden_);
  for (int32_t i = 0; i < config_.n_layers; ++i) {
    if (stop.should_stop()) return false;
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

}  // namespace paddock
