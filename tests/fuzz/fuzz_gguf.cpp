// libFuzzer target: GGUF headers. A refusal is an Error; anything else is a finding.
#include <cstddef>
#include <cstdint>
#include <span>

#include "io/gguf.h"
#include "paddock/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto header = paddock::gguf::parse({reinterpret_cast<const std::byte*>(data), size});
    for (const auto& [key, value] : header.metadata) {
      if (const auto* array = std::get_if<paddock::gguf::Array>(&value)) {
        if (array->kind == paddock::gguf::Array::Kind::kString || array->size == 0) continue;
        (void)array->number(array->size - 1);
      }
    }
  } catch (const paddock::Error&) {
  }
  return 0;
}
