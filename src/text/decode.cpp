// From ids back to text: all at once, or one id at a time.
#include <new>
#include <utility>

#include "core/fail.h"
#include "core/utf8.h"
#include "paddock/tokenizer.h"

namespace paddock {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// What an id adds to a text. Models whose embedding is padded have ids beyond the vocabulary.
std::string_view shown_bytes(const Tokenizer& tokenizer, TokenId id, bool skip_special) {
  if (id >= tokenizer.vocab_size()) return {};
  return skip_special && tokenizer.is_special(id) ? std::string_view() : tokenizer.token_bytes(id);
}

}  // namespace

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const try {
  std::string text;
  for (const TokenId id : ids) text += shown_bytes(*this, id, skip_special);
  return text;
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {
  if (tokenizer_ == nullptr) fail(ErrorCode::kInvalidArgument, "StreamDecoder: no tokenizer");
}

std::string StreamDecoder::push(TokenId id) try {
  std::string text = held_;
  text += shown_bytes(*tokenizer_, id, skip_special_);
  std::string ready;
  std::string_view rest = text;
  while (!rest.empty()) {
    const Utf8Char c = next_utf8(rest);
    if (c.state == Utf8Char::State::kIncomplete) break;
    ready += c.state == Utf8Char::State::kValid ? rest.substr(0, c.length) : kReplacement;
    rest.remove_prefix(c.length);
  }
  held_ = rest;  // last, so that an id whose text is not given out was not taken either
  return ready;
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

std::string StreamDecoder::finish() {
  // What is held is the beginning of one character: one mark for all of it.
  const bool incomplete = !std::exchange(held_, {}).empty();
  return std::string(incomplete ? kReplacement : std::string_view());
}

}  // namespace paddock
