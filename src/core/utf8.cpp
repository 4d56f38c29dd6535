#include "core/utf8.h"

#include <fmt/format.h>

#include <cstring>

namespace paddock {
namespace {

bool is_python_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

}  // namespace

Utf8Char next_utf8(std::string_view bytes) {
  using State = Utf8Char::State;
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return {State::kValid, 1, lead};
  int following = 0;
  uint32_t code = 0;
  uint8_t low = 0x80, high = 0xBF;  // range of the second byte
  if (lead >= 0xC2 && lead <= 0xDF) {
    following = 1;
    code = lead & 0x1Fu;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    following = 2;
    code = lead & 0x0Fu;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    following = 3;
    code = lead & 0x07u;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {State::kInvalid, 1, 0};
  }
  for (int i = 1; i <= following; ++i) {
    if (static_cast<size_t>(i) >= bytes.size()) {
      return {State::kIncomplete, static_cast<uint8_t>(i), 0};
    }
    const uint8_t byte = at(static_cast<size_t>(i));
    if (byte < low || byte > high) return {State::kInvalid, static_cast<uint8_t>(i), 0};
    code = code << 6 | (byte & 0x3Fu);
    low = 0x80;
    high = 0xBF;
  }
  return {State::kValid, static_cast<uint8_t>(following + 1), code};
}

size_t find_invalid_utf8(std::string_view bytes) {
  size_t i = 0;
  while (i < bytes.size()) {
    uint64_t eight = 0;
    if (bytes.size() - i >= sizeof eight) {
      std::memcpy(&eight, bytes.data() + i, sizeof eight);
      if ((eight & 0x8080808080808080u) == 0) {
        i += sizeof eight;
        continue;
      }
    }
    const Utf8Char c = next_utf8(bytes.substr(i, 4));
    if (c.state != Utf8Char::State::kValid) return i;
    i += c.length;
  }
  return std::string_view::npos;
}

void append_utf8(std::string& out, uint32_t code) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

std::string_view trim_spaces(std::string_view text) {
  const auto space_at = [&](size_t i) -> size_t {  // its length, 0 if none begins there
    const Utf8Char c = next_utf8(text.substr(i));
    return c.state == Utf8Char::State::kValid && is_python_space(c.code) ? c.length : 0;
  };
  while (!text.empty()) {
    const size_t n = space_at(0);
    if (n == 0) break;
    text.remove_prefix(n);
  }
  while (!text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && text.size() - start < 4 && (text[start] & 0xC0) == 0x80) --start;
    if (space_at(start) != text.size() - start) break;
    text = text.substr(0, start);
  }
  return text;
}

std::string quote(std::string_view text) {
  std::string out = "\"";
  bool cut = false;
  while (!text.empty()) {
    const Utf8Char c = next_utf8(text);
    const bool plain = c.state == Utf8Char::State::kValid && c.code >= 0x20 && c.code != 0x7F &&
                       !(c.code >= 0x80 && c.code < 0xA0);
    const size_t n = plain ? c.length : 1;
    if (out.size() + n > 40) {
      cut = true;
      break;
    }
    if (plain) {
      out.append(text.substr(0, n));
    } else {
      out += fmt::format("\\x{:02X}", static_cast<uint8_t>(text[0]));
    }
    text.remove_prefix(n);
  }
  return out + (cut ? "...\"" : "\"");
}

}  // namespace paddock
