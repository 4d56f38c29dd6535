#include "text/bpe_tokenizer.h"

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

#include "core/fail.h"
#include "core/utf8.h"

namespace paddock {
namespace {

constexpr std::string_view kStopTokens[] = {"<|eot_id|>", "<|eom_id|>", "<|im_end|>",
                                            "<|end_of_text|>", "<|endoftext|>"};

}  // namespace

void TokenizerSource::add_merge(std::string_view left, std::string_view right, uint32_t rank) {
  const auto lookup = [&](std::string_view bytes) {
    auto id = vocabulary.find_normal(bytes);
    if (!id) id = vocabulary.find_added(bytes);
    if (!id) {
      fail(ErrorCode::kBadFile, "merge {} ({} and {}): {} is not in the vocabulary", rank,
           quote(left), quote(right), quote(bytes));
    }
    return *id;
  };
  std::string joined(left);
  joined += right;
  const TokenId result = lookup(joined);
  if (vocabulary.kind(result) == TokenKind::kSpecial) {
    fail(ErrorCode::kBadFile, "merge {} makes the special token {}", rank, quote(joined));
  }
  merges.add(lookup(left), lookup(right), rank, result);
}

std::shared_ptr<const Tokenizer> make_tokenizer(TokenizerSource source) {
  return std::make_shared<const BpeTokenizer>(std::move(source));
}

BpeTokenizer::BpeTokenizer(TokenizerSource source)
    : source_(std::move(source)), splitter_(pattern_of(source_.pre_tokenizer)) {
  const Vocabulary& vocabulary = source_.vocabulary;
  source_.merges.seal(vocabulary);
  user_defined_ = AddedTokens(vocabulary, false, source_.cut_order);
  all_added_ = AddedTokens(vocabulary, true, source_.cut_order);
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    byte_tokens_[b] = vocabulary.find_normal({&byte, 1}).value_or(-1);
  }
  const auto check = [&](TokenId id, const char* role) {
    if (!vocabulary.contains(id)) {
      fail(ErrorCode::kBadFile, "the {} token's id {} is outside the vocabulary of {} tokens", role,
           id, vocabulary.size());
    }
  };
  if (source_.bos) check(*source_.bos, "BOS");
  if (!source_.bos) source_.adds_bos = false;
  std::vector<TokenId>& stops = source_.stop_tokens;
  for (const TokenId id : stops) check(id, "stop");
  for (const std::string_view name : kStopTokens) {
    const auto id = vocabulary.find_added(name);
    if (id && vocabulary.kind(*id) == TokenKind::kSpecial) stops.push_back(*id);
  }
  std::sort(stops.begin(), stops.end());
  stops.erase(std::unique(stops.begin(), stops.end()), stops.end());
}

std::vector<TokenId> BpeTokenizer::encode(std::string_view text, EncodeOptions options) const try {
  try {
    return encode_checked(text, options);
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::kOutOfMemory, "no memory to tokenize a text of {} bytes", text.size());
  }
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

std::vector<TokenId> BpeTokenizer::encode_checked(std::string_view text,
                                                  EncodeOptions options) const {
  if (text.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    fail(ErrorCode::kInvalidArgument, "text of {} bytes: at most {} can be tokenized at once",
         text.size(), std::numeric_limits<int32_t>::max());
  }
  if (const size_t bad = find_invalid_utf8(text); bad != std::string_view::npos) {
    fail(ErrorCode::kInvalidArgument, "text is not valid UTF-8 at byte {}", bad);
  }
  std::vector<TokenId> ids;
  std::vector<TokenId> piece_ids;
  Merger merger(source_.merges);
  RegexSplitter::Pass pass(splitter_, {});
  const auto encode_plain = [&](std::string_view plain) {
    pass.reset(plain);
    for (std::string_view piece = pass.next(); !piece.empty(); piece = pass.next()) {
      if (source_.ignore_merges) {
        if (const auto whole = source_.vocabulary.find_normal(piece)) {
          ids.push_back(*whole);
          continue;
        }
      }
      piece_ids.clear();
      for (const char byte : piece) {
        const TokenId id = byte_tokens_[static_cast<uint8_t>(byte)];
        if (id >= 0) piece_ids.push_back(id);
      }
      merger.merge(piece_ids);
      ids.insert(ids.end(), piece_ids.begin(), piece_ids.end());
    }
  };
  const AddedTokens& added = options.parse_special ? all_added_ : user_defined_;
  added.cut(text, encode_plain, [&](TokenId id) { ids.push_back(id); });
  if (options.add_bos && source_.adds_bos && (ids.empty() || ids.front() != *source_.bos)) {
    ids.insert(ids.begin(), *source_.bos);
  }
  return ids;
}

void BpeTokenizer::check_id(TokenId id) const {
  if (!source_.vocabulary.contains(id)) {
    fail(ErrorCode::kInvalidArgument, "token id {} is outside the vocabulary [0, {})", id,
         vocab_size());
  }
}

std::string_view BpeTokenizer::token_bytes(TokenId id) const {
  check_id(id);
  return source_.vocabulary.bytes(id);
}

bool BpeTokenizer::is_special(TokenId id) const {
  check_id(id);
  return source_.vocabulary.kind(id) == TokenKind::kSpecial;
}

}  // namespace paddock
