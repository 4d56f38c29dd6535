// libFuzzer target: safetensors files and config.json.
#include <cstddef>
#include <cstdint>

#include "support/fuzz_safetensors_case.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A broken promise leaves as an exception, which libFuzzer reports.
  paddock::test::fuzz_safetensors_case({reinterpret_cast<const std::byte*>(data), size});
  return 0;
}
