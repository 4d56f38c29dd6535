// Pieces of text that several commands write: markup, lists of layers and of choices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace cli {

/// For HTML and SVG, in an attribute too: no markup in it.
std::string escaped(const std::string& text);

/// In at most so many bytes, whole characters, and "..." where that is not all.
std::string beginning_of(const std::string& text, size_t most);

/// "3", "0-29" or "0,2,3,5-7": from three neighbours on a range. `layers` in ascending order.
std::string layers_text(const std::vector<int32_t>& layers);

/// "f32, f16 or bf16".
std::string one_of(const std::vector<std::string>& names);

}  // namespace cli
