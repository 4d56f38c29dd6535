// Reading UTF-8 one character at a time, without trusting it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace paddock {

/// What stands at the start of some bytes.
struct Utf8Char {
  enum class State {
    kValid,       // one character of `length` bytes
    kIncomplete,  // all bytes given are the beginning of a character that goes on
    kInvalid,     // `length` bytes that no continuation can make valid (a maximal subpart)
  };
  State state;
  uint8_t length;
  uint32_t code;  // the code point of a valid character, else 0
};

/// Classifies the start of `bytes`, which must not be empty. Overlong forms, surrogates and code
/// points beyond U+10FFFF are invalid (Unicode 15, table 3-7).
Utf8Char next_utf8(std::string_view bytes);

/// Offset of the first byte that is not part of valid UTF-8, or npos.
size_t find_invalid_utf8(std::string_view bytes);

/// Appends one code point (at most U+10FFFF).
void append_utf8(std::string& out, uint32_t code);

/// Without the white space around it: what Python's str.strip() removes.
std::string_view trim_spaces(std::string_view text);

/// `text` made fit for an error message: at most 40 bytes, control characters and bytes that are no
/// UTF-8 as \xNN.
std::string quote(std::string_view text);

}  // namespace paddock
