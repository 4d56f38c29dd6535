// libFuzzer target. The first byte chooses what the rest is: a tokenizer.json, a tiktoken model, or
// a text for a fixed vocabulary, which must come back from its ids byte for byte.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "paddock/error.h"
#include "paddock/tokenizer.h"
#include "support/small_tokenizer.h"
#include "text/chat_format.h"
#include "text/tokenizer_readers.h"
#include "text/tokenizer_source.h"
#include "text/utf8.h"

namespace {

using paddock::Tokenizer;

void check(bool condition) {
  if (!condition) std::abort();
}

// `lossless`: all bytes are tokens, so that ids give the text back.
void check_text(const std::shared_ptr<const Tokenizer>& tokenizer, std::string_view text,
                bool lossless) {
  for (const bool parse_special : {false, true}) {
    const auto ids = tokenizer->encode(text, {.add_bos = false, .parse_special = parse_special});
    std::string streamed;
    paddock::StreamDecoder decoder(tokenizer, false);
    for (const auto id : ids) {
      check(id >= 0 && id < tokenizer->vocab_size());
      check(parse_special || !tokenizer->is_special(id));
      streamed += decoder.push(id);
    }
    streamed += decoder.finish();
    check(paddock::find_invalid_utf8(streamed) == std::string_view::npos);
    if (lossless) {
      check(tokenizer->decode(ids, false) == text);
      check(streamed == text);
    }
  }
}

std::shared_ptr<const Tokenizer> fixed_tokenizer() {
  const std::string json = paddock::test::small_tokenizer_json().dump();
  return paddock::parse_tokenizer_json(paddock::test::bytes_of(json));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto fixed = fixed_tokenizer();
  if (size == 0) return 0;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data + 1), size - 1);
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  try {
    switch (data[0] % 4) {
      case 0:
        check_text(paddock::parse_tokenizer_json(bytes), "hello \xE4\xBD\xA0 <|eot_id|>12\n",
                   false);
        break;
      case 1:
        check_text(paddock::make_tokenizer(paddock::read_tiktoken_model(bytes, 0)), "hello  a\n",
                   true);
        break;
      case 2:
        check_text(fixed, text, true);
        break;
      default:
        paddock::recognise_chat_template(text);
        break;
    }
  } catch (const paddock::Error& error) {
    check(error.code() != paddock::ErrorCode::kInternal);
  }
  return 0;
}
