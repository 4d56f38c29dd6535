// A model whose weights are damaged in one place.
#pragma once

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "io/mapped_file.h"
#include "io/safetensors.h"
#include "support/golden.h"
#include "support/temporary_folder.h"

namespace paddock::test {

/// A copy of the golden folder whose embedding of token 5 is not a number.
inline std::string poisoned_folder(const TemporaryFolder& folder) {
  std::filesystem::copy(golden("gqa1-default"), folder.path(),
                        std::filesystem::copy_options::recursive);
  const std::filesystem::path path = folder.path() + "/model.safetensors";
  size_t offset = 0;
  {
    const MappedFile file(path);
    for (const TensorView& tensor : safetensors::parse(file.bytes())) {
      if (tensor.name != "model.embed_tokens.weight") continue;
      offset = static_cast<size_t>(tensor.data.data() - file.bytes().data()) +
               5 * static_cast<size_t>(tensor.cols()) * sizeof(float);
    }
  }
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(offset));
  const float nan = NAN;
  file.write(reinterpret_cast<const char*>(&nan), sizeof(nan));
  return folder.path();
}

}  // namespace paddock::test
