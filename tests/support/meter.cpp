#include "support/meter.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "support/small_tokenizer.h"
#include "support/temporary_folder.h"

namespace paddock::test {

std::shared_ptr<const Model> tiny_with_text() {
  const TemporaryFolder folder;
  std::filesystem::copy(golden("gqa1-default"), folder.path(),
                        std::filesystem::copy_options::recursive);
  nlohmann::json tokenizer = small_tokenizer_json();
  nlohmann::json vocab = nlohmann::json::object();
  for (int id = 0; id < 128; ++id) {
    vocab[alphabet_from_bytes(std::string(1, static_cast<char>(id)))] = id;
  }
  tokenizer["model"]["vocab"] = vocab;
  tokenizer["model"]["merges"] = nlohmann::json::array();
  tokenizer["added_tokens"] = nlohmann::json::array();
  tokenizer["post_processor"] = nullptr;
  folder.write("tokenizer.json", tokenizer.dump());
  return Model::load(folder.path());
}

}  // namespace paddock::test
