#include "text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "core/utf8.h"

namespace paddock {
namespace {

constexpr int kLetters = 0x144;

struct Alphabet {
  std::array<uint16_t, 256> letter{};    // of a byte
  std::array<int16_t, kLetters> byte{};  // of a letter, -1 if it is none

  constexpr Alphabet() {
    for (auto& b : byte) b = -1;
    uint16_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
      letter[static_cast<size_t>(b)] = itself ? static_cast<uint16_t>(b) : next++;
      byte[letter[static_cast<size_t>(b)]] = static_cast<int16_t>(b);
    }
  }
};
constexpr Alphabet kAlphabet;

}  // namespace

std::optional<std::string> bytes_from_alphabet(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = next_utf8(text);
    if (c.state != Utf8Char::State::kValid || c.code >= kLetters || kAlphabet.byte[c.code] < 0) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(kAlphabet.byte[c.code]));
    text.remove_prefix(c.length);
  }
  return bytes;
}

std::string alphabet_from_bytes(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) append_utf8(text, kAlphabet.letter[static_cast<uint8_t>(byte)]);
  return text;
}

}  // namespace paddock
