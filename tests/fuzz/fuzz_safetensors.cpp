// libFuzzer target: safetensors files, and config.json where the input begins like one.
#include <cstddef>
#include <cstdint>
#include <span>

#include "io/safetensors.h"
#include "model/config.h"
#include "paddock/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    if (size > 0 && data[0] == '{') {
      const paddock::LlamaConfig config = paddock::config_from_json(bytes, bytes);
      if (config.head_dim <= 1024) {
        (void)paddock::rope_inverse_frequencies(config.rope, config.head_dim);
      }
    } else {
      (void)paddock::safetensors::parse(bytes);
    }
  } catch (const paddock::Error&) {
  }
  return 0;
}
