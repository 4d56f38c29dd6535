// A model: hyper-parameters, tokenizer and weights. Immutable, shared by engines.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "paddock/export.h"
#include "paddock/tokenizer.h"

namespace paddock {

struct ModelInfo {
  std::string path;
  std::string name;          ///< from the file; may be empty
  std::string format;        ///< "gguf" or "safetensors"
  std::string weight_types;  ///< such as "Q4_1 x210, F32 x61, Q8_0 x1"
  int32_t n_layers = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t n_heads = 0;
  int32_t n_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t vocab_size = 0;
  int64_t context_length = 0;  ///< positions the model was trained for
  bool tied_embeddings = false;
  uint64_t n_parameters = 0;  ///< elements of all weights; an embedding that is the output matrix,
                              ///< too, counts once
  uint64_t weight_bytes = 0;  ///< in the file
  std::vector<std::string> warnings;  ///< such as long-context scaling that the file lacks
};

/// How angles of positions are stretched, so that texts longer than those of the training come to
/// lie within its range.
enum class RopeScaling {
  kFile,    ///< as the file says
  kNone,    ///< not at all: what the file says is left out
  kLinear,  ///< every angle over the factor (position interpolation, arXiv 2306.15595)
  kLlama3,  ///< slow angles over the factor, fast ones as they are (as published with Llama 3.1)
  kYarn,    ///< likewise, along a ramp, and attention sharpened (arXiv 2309.00071)
};
/// "file", "none", "linear", "llama3" or "yarn".
PADDOCK_API const char* rope_scaling_name(RopeScaling scaling) noexcept;

/// In place of the scaling that the file asks for, all of it. Scaling takes no memory: keys and
/// values of a position are as large as before. A longer text has more of them.
struct RopeOptions {
  /// kFile with a factor: the file's kind, if it has one.
  RopeScaling scaling = RopeScaling::kFile;
  double factor = 0;  ///< from 1; 0: as the file says
  /// Positions that the model was trained for before anything was stretched; 0: as the file says.
  /// With a factor this times the factor becomes ModelInfo::context_length.
  int64_t original_context = 0;
};

struct LoadOptions {
  /// Called as tensors are checked and bound, with a fraction from 0 to 1; return false to cancel
  /// (Error kCancelled). Called on the loading thread.
  std::function<bool(double fraction)> on_progress{};
  /// Errors of Model::load for it: kInvalidArgument, where a part is missing that the file does not
  /// say, or is out of range.
  RopeOptions rope{};
};

namespace detail {
struct ModelData;  // private to the library
}

/// A loaded model. Weights are mapped, not read: pages come in when they are first used.
class PADDOCK_API Model {
 public:
  /// Loads a GGUF file (any part of a split one) or a Hugging Face folder. Errors: kNotFound, kIo,
  /// kBadFile, kUnsupported, kCancelled; messages name the file, the tensor or key, the value.
  static std::shared_ptr<const Model> load(const std::string& path,
                                           const LoadOptions& options = {});
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelInfo& info() const;
  /// Throws Error kUnsupported or kNotFound if the model came without a usable tokenizer.
  const std::shared_ptr<const Tokenizer>& tokenizer() const;
  /// Ids that end a generation: the union of all sources. Sorted.
  const std::vector<TokenId>& stop_tokens() const;

  const detail::ModelData& data() const { return *data_; }  ///< private to the library

 private:
  explicit Model(std::unique_ptr<detail::ModelData> data);
  std::unique_ptr<detail::ModelData> data_;
};

/// Description of a model file made from its headers alone, as one JSON object: metadata, tensors
/// with shapes, types and sizes, KV bytes per token. Reads no weights; a folder with config.json
/// alone will do, and is said to have "no_weights".
PADDOCK_API std::string inspect_json(const std::string& path);

}  // namespace paddock
