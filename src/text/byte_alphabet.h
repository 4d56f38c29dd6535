// The alphabet of byte-level BPE (Radford et al. 2019, GPT-2): vocabulary files write each byte as
// one printable character. '!'..'~', U+00A1..U+00AC and U+00AE..U+00FF stand for themselves; the
// other 68 bytes, in order, for U+0100..U+0143.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace paddock {

/// The bytes that `text` (valid UTF-8) spells in the alphabet; nullopt if a character is not in it.
std::optional<std::string> bytes_from_alphabet(std::string_view text);

/// The spelling of `bytes` in the alphabet.
std::string alphabet_from_bytes(std::string_view bytes);

}  // namespace paddock
