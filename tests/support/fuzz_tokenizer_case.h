// What is tried on one input of the tokenizer's fuzz target, and on its kept findings. The first
// byte chooses what the rest is: a tokenizer.json, a tiktoken model, a text for a fixed vocabulary
// (which must come back from its ids byte for byte), or a chat template.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/utf8.h"
#include "paddock/tokenizer.h"
#include "support/fuzz_promise.h"
#include "support/small_tokenizer.h"
#include "text/chat_format.h"
#include "text/tokenizer_readers.h"
#include "text/tokenizer_source.h"

namespace paddock::test {

// `lossless`: all bytes are tokens, so that ids give the text back.
inline void check_text(const std::shared_ptr<const Tokenizer>& tokenizer, std::string_view text,
                       bool lossless) {
  for (const bool parse_special : {false, true}) {
    const auto ids = tokenizer->encode(text, {.add_bos = false, .parse_special = parse_special});
    std::string streamed;
    StreamDecoder decoder(tokenizer, false);
    for (const TokenId id : ids) {
      check(id >= 0 && id < tokenizer->vocab_size(), "id out of range");
      check(parse_special || !tokenizer->is_special(id), "special token from plain text");
      streamed += decoder.push(id);
    }
    streamed += decoder.finish();
    check(find_invalid_utf8(streamed) == std::string_view::npos, "stream is not UTF-8");
    if (lossless) {
      check(tokenizer->decode(ids, false) == text, "decoding gave another text");
      check(streamed == text, "streaming gave another text");
    }
  }
}

/// Throws std::logic_error if a promise is broken. Errors about the input are swallowed.
inline void fuzz_tokenizer_case(std::span<const std::byte> input) {
  static const auto fixed = [] {
    const std::string json = small_tokenizer_text();
    return parse_tokenizer_json(bytes_of(json));
  }();
  if (input.empty()) return;
  const auto bytes = input.subspan(1);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  may_refuse([&] {
    switch (std::to_integer<int>(input[0]) % 4) {
      case 0:
        check_text(parse_tokenizer_json(bytes), "hello \xE4\xBD\xA0 <|eot_id|>12\n", false);
        break;
      case 1:
        check_text(make_tokenizer(read_tiktoken_model(bytes, 0)), "hello  a\n", true);
        break;
      case 2:
        check_text(fixed, text, true);
        break;
      default:
        recognise_chat_template(text);
        break;
    }
  });
}

}  // namespace paddock::test
