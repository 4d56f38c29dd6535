// The forward pass of a Llama decoder, written once for every backend.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "model/weights.h"

namespace paddock {

/// Stops a forward pass between layers.
class StopCheck {
 public:
  virtual ~StopCheck() = default;
  virtual bool should_stop() = 0;
};

/// One engine's instance: weights of the model, activations of its own.
class Llama {
 public:
  Llama(const LlamaConfig& config, std::shared_ptr<const LlamaWeights> weights, Backend& backend,
        int32_t max_tokens, int32_t max_logit_rows);

  /// Bytes of activations the constructor asks the backend for.
  static uint64_t activation_bytes(const LlamaConfig& config, int32_t max_tokens,
                                   int32_t max_logit_rows);

  /// Runs all layers over the plan's tokens and writes their keys and values. False if `stop` said
  /// so; the hidden states are then meaningless.
  bool run(const StepPlan& plan, StopCheck& stop);

  /// Logits [rows.size(), vocab_size] of tokens of the last run, in the backend's memory; at most
  /// max_logit_rows at a time.
  void compute_logits(std::span<const int32_t> rows);
  /// Brings the first n of them to the host: row i is logits_row(i) until the next operation.
  void fetch_logits(int32_t n);
  std::span<const float> logits_row(int32_t i) const {
    return host_logits_.subspan(int64_t{i} * config_.vocab_size, config_.vocab_size);
  }
  /// Chooses a token from each of rows.size() of them, from row `first` on, where the device can
  /// (StepOps::samples). The tokens stay until the next operation.
  std::span<const int32_t> sample(int32_t first, std::span<const SampleRow> rows) {
    return ops_.sample(logits_.rows_from(first), rows);
  }

 private:
  /// A buffer that the constructor takes.
  struct Activation {
    Buffer Llama::*buffer;
    int64_t rows, cols;
  };
  static std::vector<Activation> activations(const LlamaConfig& config, int32_t max_tokens,
                                             int32_t max_logit_rows);
  /// False if `stop` said so.
  bool run_layers(int32_t n, StopCheck& stop);
  void attention_block(const LlamaWeights::Layer& layer, int32_t index, int32_t n);
  void mlp_block(const LlamaWeights::Layer& layer, int32_t n);

  const LlamaConfig& config_;
  std::shared_ptr<const LlamaWeights> weights_;
  StepOps& ops_;
  Buffer hidden_;        // [max_tokens, hidden_size] the residual stream
  Buffer normed_;        // [max_tokens, hidden_size]
  Buffer q_;             // [max_tokens, n_heads * head_dim]
  Buffer k_, v_;         // [max_tokens, n_kv_heads * head_dim]
  Buffer attended_;      // [max_tokens, n_heads * head_dim]
  Buffer gate_up_;       // [max_tokens, 2 * intermediate_size]
  Buffer activated_;     // [max_tokens, intermediate_size]
  Buffer logit_hidden_;  // [max_logit_rows, hidden_size]
  Buffer logits_;        // [max_logit_rows, vocab_size]
  std::span<const float> host_logits_;
};

}  // namespace paddock
