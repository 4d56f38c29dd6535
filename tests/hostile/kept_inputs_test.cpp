// Seeds and findings of the fuzz targets, tried again one by one.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <span>
#include <string>

#include "support/fuzz_gguf_case.h"
#include "support/fuzz_safetensors_case.h"
#include "support/fuzz_tokenizer_case.h"

namespace paddock::test {
namespace {

void replay(const std::string& target,
            const std::function<void(std::span<const std::byte>)>& fuzz_case) {
  int replayed = 0;
  const auto folder = std::filesystem::path(PADDOCK_TEST_DATA) / "../hostile/inputs" / target;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string input((std::istreambuf_iterator<char>(file)), {});
    EXPECT_NO_THROW(fuzz_case(bytes_of(input))) << entry.path();
    ++replayed;
  }
  EXPECT_GT(replayed, 0);
}

TEST(KeptInputs, Gguf) { replay("gguf", fuzz_gguf_case); }
TEST(KeptInputs, Safetensors) { replay("safetensors", fuzz_safetensors_case); }
TEST(KeptInputs, Tokenizer) { replay("tokenizer", fuzz_tokenizer_case); }

}  // namespace
}  // namespace paddock::test
