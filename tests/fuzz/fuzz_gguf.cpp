// libFuzzer target: GGUF files: header, hyper-parameters, tensors, tokenizer.
#include <cstddef>
#include <cstdint>

#include "support/fuzz_gguf_case.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A broken promise leaves as an exception, which libFuzzer reports.
  paddock::test::fuzz_gguf_case({reinterpret_cast<const std::byte*>(data), size});
  return 0;
}
