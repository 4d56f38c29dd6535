// safetensors files and Hugging Face folders. Format: huggingface/safetensors README.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace paddock::safetensors {

/// Parses one file's header; views point into `bytes`. Refuses overlaps, holes, wrapped products,
/// ends beyond the file, duplicate names, unsupported dtypes of weights (by name). Tensors of the
/// dtypes I64, I32, U8, BOOL are ignored. Errors: kBadFile, kUnsupported.
std::vector<TensorView> parse(std::span<const std::byte> bytes);

/// The weights of a folder: model.safetensors, or the shards of model.safetensors.index.json (base
/// names only). A tensor that lies in two shards is the one that the index names; kBadFile if it
/// names neither. Keeps the maps alive.
class Folder {
 public:
  /// Whether open() finds any file to read.
  static bool has_weights(const std::filesystem::path& folder);
  static std::shared_ptr<const Folder> open(const std::filesystem::path& folder);
  const std::vector<TensorView>& tensors() const { return tensors_; }
  /// Where shards and index contradict each other.
  const std::vector<std::string>& warnings() const { return warnings_; }
  void release(std::span<const std::byte> part) const noexcept;

 private:
  struct Maps;
  std::shared_ptr<Maps> maps_;
  std::vector<TensorView> tensors_;
  std::vector<std::string> warnings_;
};

}  // namespace paddock::safetensors
