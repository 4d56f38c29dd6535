// libFuzzer target for the tokenizer's parsers, its encoder and the recognition of chat templates.
#include <cstddef>
#include <cstdint>

#include "support/fuzz_tokenizer_case.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A broken promise leaves as an exception, which libFuzzer reports.
  paddock::test::fuzz_tokenizer_case({reinterpret_cast<const std::byte*>(data), size});
  return 0;
}
