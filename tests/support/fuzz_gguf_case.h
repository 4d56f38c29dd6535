// What is tried on one input of the GGUF fuzz target, and on its kept findings: the header, then
// all that reads such a file without computing with it.
#pragma once

#include <cstddef>
#include <span>
#include <variant>

#include "io/gguf.h"
#include "paddock/model.h"
#include "paddock/tokenizer.h"
#include "support/fuzz_promise.h"
#include "support/memory_file.h"

namespace paddock::test {

/// Throws std::logic_error if a promise is broken. Errors about the input are swallowed.
inline void fuzz_gguf_case(std::span<const std::byte> input) {
  may_refuse([&] {
    const gguf::Header header = gguf::parse(input);
    for (const auto& [key, value] : header.metadata) {
      const auto* array = std::get_if<gguf::Array>(&value);
      if (array == nullptr || array->size == 0) continue;
      if (array->kind == gguf::Array::Kind::kString) {
        check(array->strings.size() == array->size, "an array has another size than it says");
      } else {
        (void)array->number(array->size - 1);
      }
    }
    const MemoryFile file(input);
    (void)inspect_json(file.path());
    may_refuse([&] { (void)Tokenizer::load(file.path()); });
    (void)Model::load(file.path());
  });
}

}  // namespace paddock::test
