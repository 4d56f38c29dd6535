// A model as far as its headers tell: enough to say how large everything becomes, too little to
// run it.
#pragma once

#include <string>

#include "model/model_data.h"

namespace paddock {

struct ModelHeaders {
  detail::ModelData data;  // tensors with types and shapes; their bytes may not be there
  /// Why the types of tensors are guessed; empty: they are the files'.
  std::string estimated;
};

/// Of a GGUF file, of which its beginning up to the end of the header will do, a Hugging Face
/// folder, or a config.json alone (or its folder). Errors as of Model::load().
std::unique_ptr<ModelHeaders> read_headers(const std::string& path);

}  // namespace paddock
