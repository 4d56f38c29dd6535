// The tokenizer in a GGUF file's metadata. Source of the keys: ggml's docs/gguf.md.
#include <string>
#include <utility>

#include "core/fail.h"
#include "core/log.h"
#include "core/utf8.h"
#include "text/bpe_tokenizer.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer_source.h"

namespace paddock {
namespace {

// Values of tokenizer.ggml.token_type.
constexpr int64_t kTypeNormal = 1, kTypeUnknown = 2, kTypeControl = 3, kTypeUserDefined = 4,
                  kTypeByte = 6;

void read_tokens(const gguf::File& file, Vocabulary& vocabulary) {
  const gguf::Array* tokens = file.get_array("tokenizer.ggml.tokens", gguf::Array::Kind::kString);
  if (tokens == nullptr || tokens->size == 0) {
    fail(ErrorCode::kBadFile, "tokenizer.ggml.tokens is missing or empty");
  }
  const gguf::Array* types =
      file.get_array("tokenizer.ggml.token_type", gguf::Array::Kind::kSigned);
  if (types != nullptr && types->size != tokens->size) {
    fail(ErrorCode::kBadFile, "tokenizer.ggml.token_type has {} elements for {} tokens",
         types->size, tokens->size);
  }
  for (uint64_t i = 0; i < tokens->size; ++i) {
    const std::string_view text = tokens->strings[i];
    const int64_t type = types == nullptr ? kTypeNormal : types->integer(i);
    if (type < kTypeNormal || type > kTypeByte) {
      fail(ErrorCode::kBadFile, "tokenizer.ggml.token_type: type {} of token {} does not exist",
           type, i);
    }
    const auto id = static_cast<int64_t>(i);
    if (type == kTypeControl || type == kTypeUnknown) {
      vocabulary.add(id, text, TokenKind::kSpecial);
    } else if (type == kTypeUserDefined) {
      vocabulary.add(id, text, TokenKind::kUserDefined);
    } else if (const auto bytes = bytes_from_alphabet(text)) {
      vocabulary.add(id, *bytes, TokenKind::kNormal);
    } else {
      vocabulary.add(id, text, TokenKind::kUnreachable);
    }
  }
  vocabulary.seal();
}

void read_merges(const gguf::File& file, TokenizerSource& source) {
  const gguf::Array* merges = file.get_array("tokenizer.ggml.merges", gguf::Array::Kind::kString);
  if (merges == nullptr) fail(ErrorCode::kBadFile, "tokenizer.ggml.merges is missing");
  if (merges->size > UINT32_MAX) {
    fail(ErrorCode::kBadFile, "tokenizer.ggml.merges: {} merges are too many", merges->size);
  }
  source.merges.reserve(merges->size);
  for (uint64_t i = 0; i < merges->size; ++i) {
    const std::string_view text = merges->strings[i];
    const size_t space = text.find(' ');
    const auto left = bytes_from_alphabet(text.substr(0, space));
    const auto right = space == std::string_view::npos
                           ? std::nullopt
                           : bytes_from_alphabet(text.substr(space + 1));
    if (!left || !right || left->empty() || right->empty()) {
      fail(ErrorCode::kBadFile,
           "tokenizer.ggml.merges: merge {} is not \"a b\" in the byte-level alphabet: {}", i,
           quote(text));
    }
    source.add_merge(*left, *right, static_cast<uint32_t>(i));
  }
}

std::optional<TokenId> read_id(const gguf::File& file, const Vocabulary& vocabulary,
                               const char* key) {
  const auto id = file.get_int(key);
  // Converters write -1, by whatever type, for a token that a model does not have.
  if (!id || *id == -1 || *id == UINT32_MAX) return std::nullopt;
  if (!vocabulary.contains(*id)) {
    fail(ErrorCode::kBadFile, "{} is {}, outside the vocabulary of {} tokens", key, *id,
         vocabulary.size());
  }
  return static_cast<TokenId>(*id);
}

}  // namespace

std::shared_ptr<const Tokenizer> load_gguf_tokenizer(const gguf::File& file) {
  const auto model = file.get_string("tokenizer.ggml.model");
  if (!model) fail(ErrorCode::kUnsupported, "the file has no tokenizer (tokenizer.ggml.model)");
  if (*model != "gpt2") {
    fail(ErrorCode::kUnsupported,
         "tokenizer kind {} (tokenizer.ggml.model) is not supported; supported: \"gpt2\", which is "
         "byte-level BPE",
         quote(*model));
  }
  const auto pre = file.get_string("tokenizer.ggml.pre");
  const auto pre_tokenizer = pre ? pre_tokenizer_from_gguf(*pre) : std::nullopt;
  if (!pre_tokenizer) {
    fail(ErrorCode::kUnsupported,
         "pre-tokenizer {} (tokenizer.ggml.pre) is not supported; supported: \"llama-bpe\", "
         "\"gpt-2\", \"smollm\"",
         pre ? quote(*pre) : "(none named)");
  }
  if (file.get_bool("tokenizer.ggml.add_space_prefix").value_or(false)) {
    fail(ErrorCode::kUnsupported, "tokenizer.ggml.add_space_prefix is not supported");
  }
  if (file.get_bool("tokenizer.ggml.add_eos_token").value_or(false)) {
    log(LogLevel::kWarning,
        "tokenizer.ggml.add_eos_token is true; no end token is added to texts here");
  }
  TokenizerSource source;
  source.pre_tokenizer = *pre_tokenizer;
  source.cut_order = CutOrder::kLongestFirst;
  source.ignore_merges = *pre_tokenizer == PreTokenizer::kLlama3;
  read_tokens(file, source.vocabulary);
  read_merges(file, source);
  source.bos = read_id(file, source.vocabulary, "tokenizer.ggml.bos_token_id");
  // Files for Llama 3 that leave this out mean true, as llama.cpp reads them.
  source.adds_bos = file.get_bool("tokenizer.ggml.add_bos_token")
                        .value_or(*pre_tokenizer == PreTokenizer::kLlama3);
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                          "tokenizer.ggml.eom_token_id"}) {
    if (const auto id = read_id(file, source.vocabulary, key)) source.stop_tokens.push_back(*id);
  }
  source.chat_template = file.get_string("tokenizer.chat_template").value_or("");
  return make_tokenizer(std::move(source));
}

}  // namespace paddock
