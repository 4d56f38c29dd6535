// What a loaded model consists of: configuration, tokenizer, bound weights and the maps under them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "model/config.h"
#include "model/weights.h"
#include "paddock/model.h"

namespace paddock::detail {

struct ModelData {
  ModelInfo info;
  LlamaConfig config;
  LlamaTensors tensors;
  std::shared_ptr<const gguf::File> gguf;  // one of the two holds the maps
  std::shared_ptr<const safetensors::Folder> folder;
  std::shared_ptr<const Tokenizer> tokenizer;  // null: see tokenizer_error
  std::string tokenizer_error;
  std::vector<TokenId> stop_tokens;

  /// Weights as one kind of backend wants them, made once and shared by engines. `key` names the
  /// backend's form; `make` is called under a lock if nobody holds that form now.
  std::shared_ptr<const LlamaWeights> weights(
      const std::string& key,
      const std::function<std::shared_ptr<const LlamaWeights>()>& make) const;

  bool has_weights(const std::string& key) const;

  /// The mapped bytes of a tensor are no longer needed in memory (they were repacked).
  void release(const TensorView& tensor) const noexcept;

 private:
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::weak_ptr<const LlamaWeights>> forms_;
};

}  // namespace paddock::detail
