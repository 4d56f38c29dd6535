// What is tried on one input of the safetensors fuzz target, and on its kept findings. An input
// that begins like JSON is a config.json, which a zero byte and a safetensors file may follow; any
// other is such a file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "io/safetensors.h"
#include "model/config.h"
#include "model/weights.h"
#include "support/fuzz_promise.h"

namespace paddock::test {

/// Throws std::logic_error if a promise is broken. Errors about the input are swallowed.
inline void fuzz_safetensors_case(std::span<const std::byte> input) {
  may_refuse([&] {
    if (input.empty() || input[0] != std::byte{'{'}) {
      (void)safetensors::parse(input);
      return;
    }
    const auto end = std::find(input.begin(), input.end(), std::byte{0});
    const auto json = input.first(static_cast<size_t>(end - input.begin()));
    const LlamaConfig config = config_from_json(json, json);
    const auto frequencies = rope_inverse_frequencies(config.rope, config.head_dim);
    check(frequencies.size() == static_cast<size_t>(config.head_dim / 2),
          "frequencies are missing");
    if (end == input.end()) return;
    std::vector<std::string> warnings;
    (void)bind_safetensors(config, safetensors::parse(input.subspan(json.size() + 1)), warnings);
  });
}

}  // namespace paddock::test
