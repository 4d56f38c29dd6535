// Hugging Face's tokenizer.json. Source of the format: the serialization code of the `tokenizers`
// library (model, pre_tokenizer, decoder, post_processor, added_tokens), and published files.
#include <charconv>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/fail.h"
#include "core/json.h"
#include "core/log.h"
#include "core/utf8.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer_readers.h"
#include "text/tokenizer_source.h"

namespace paddock {
namespace {

using Json = StrictJson::Json;

// Keeps the vocabulary and the merges, which are most of the file, out of the document.
class TokenizerDocument final : public StrictJson {
 public:
  Vocabulary vocabulary;
  std::string merge_texts;         // all sides of all merges, one after the other
  std::vector<size_t> merge_ends;  // two a merge, in order
  bool has_vocab = false, has_merges = false;

 private:
  bool takes(const std::vector<std::string>& path, bool is_object) override {
    if (path.size() != 2 || path[0] != "model") return false;
    in_vocab_ = path[1] == "vocab" && is_object;
    const bool merges = path[1] == "merges" && !is_object;
    has_vocab |= in_vocab_;
    has_merges |= merges;
    return in_vocab_ || merges;
  }
  void taken_begin(size_t depth, bool is_object) override {
    if (in_vocab_) fail(ErrorCode::kBadFile, "tokenizer.json: an entry of model.vocab is no id");
    if (depth > 2 || is_object) bad_merge();
  }
  void taken_end(size_t /*depth*/) override {
    if (sides_ != 2) bad_merge();
    sides_ = 0;
    ++merges_read_;
  }
  void taken_value(size_t depth, const std::string& key, Json&& value) override {
    if (in_vocab_) {
      if (!value.is_number_integer()) {
        fail(ErrorCode::kBadFile, "tokenizer.json: the id of {} is no integer", quote(key));
      }
      // An unsigned value above the range of int64 turns negative here and is refused as such.
      const auto bytes = bytes_from_alphabet(key);
      vocabulary.add(value.get<int64_t>(), bytes ? *bytes : key,
                     bytes ? TokenKind::kNormal : TokenKind::kUnreachable);
      return;
    }
    if (!value.is_string()) bad_merge();
    const auto& text = value.get_ref<const std::string&>();
    if (depth == 2) {
      if (++sides_ > 2) bad_merge();
      add_side(text);
      return;
    }
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) bad_merge();
    add_side(std::string_view(text).substr(0, space));
    add_side(std::string_view(text).substr(space + 1));
    ++merges_read_;
  }
  void add_side(std::string_view text) {
    const auto bytes = bytes_from_alphabet(text);
    if (!bytes || bytes->empty()) bad_merge();
    merge_texts += *bytes;
    merge_ends.push_back(merge_texts.size());
  }
  [[noreturn]] void bad_merge() const {
    fail(
        ErrorCode::kBadFile,
        "tokenizer.json: merge {} is neither \"a b\" nor [\"a\", \"b\"] in the byte-level alphabet",
        merges_read_);
  }

  bool in_vocab_ = false;
  int sides_ = 0;  // of the pair being read
  size_t merges_read_ = 0;
};

// A member that may be absent, null or of one type; anything else is an error.
const Json* member(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}
bool flag(const Json& object, const char* key, bool otherwise) {
  const Json* v = member(object, key);
  if (v == nullptr) return otherwise;
  if (!v->is_boolean()) fail(ErrorCode::kBadFile, "tokenizer.json: \"{}\" is no boolean", key);
  return v->get<bool>();
}
std::string text(const Json& object, const char* key) {
  const Json* v = member(object, key);
  if (v == nullptr) return {};
  if (!v->is_string()) fail(ErrorCode::kBadFile, "tokenizer.json: \"{}\" is no string", key);
  return v->get<std::string>();
}
const Json& array(const Json& object, const char* key) {
  const Json* v = member(object, key);
  if (v == nullptr || !v->is_array()) {
    fail(ErrorCode::kBadFile, "tokenizer.json: \"{}\" is missing or no array", key);
  }
  return *v;
}
[[noreturn]] void unsupported(const char* part, const std::string& detail) {
  fail(ErrorCode::kUnsupported, "tokenizer.json: {} {} is not supported", part, quote(detail));
}

// A step, or the steps of a Sequence (and of Sequences inside it), in order.
void flatten(const Json& step, const char* part, const char* list, std::vector<const Json*>& out) {
  if (!step.is_object()) fail(ErrorCode::kBadFile, "tokenizer.json: a {} is no object", part);
  if (text(step, "type") != "Sequence") {
    out.push_back(&step);
    return;
  }
  for (const Json& inner : array(step, list)) flatten(inner, part, list, out);
}
std::vector<const Json*> steps_of(const Json& document, const char* part, const char* list) {
  std::vector<const Json*> steps;
  if (const Json* step = member(document, part)) flatten(*step, part, list, steps);
  return steps;
}

PreTokenizer read_pre_tokenizer(const Json& document) {
  std::optional<PreTokenizer> split;
  bool digits = false, bytes = false;
  for (const Json* step : steps_of(document, "pre_tokenizer", "pretokenizers")) {
    const std::string type = text(*step, "type");
    if (bytes) unsupported("a pre_tokenizer after ByteLevel:", type);
    if (type == "Digits") {
      if (digits || split || !flag(*step, "individual_digits", false)) {
        unsupported("pre_tokenizer", step->dump());
      }
      digits = true;
    } else if (type == "Split") {
      const Json* pattern = member(*step, "pattern");
      const std::string regex =
          pattern != nullptr && pattern->is_object() ? text(*pattern, "Regex") : "";
      const auto known = pre_tokenizer_from_pattern(regex);
      if (!known) unsupported("the pattern of a Split pre_tokenizer:", regex);
      if (split || text(*step, "behavior") != "Isolated" || flag(*step, "invert", false)) {
        unsupported("a Split pre_tokenizer of behavior", text(*step, "behavior"));
      }
      split = known;
    } else if (type == "ByteLevel") {
      if (flag(*step, "add_prefix_space", true)) {
        unsupported("ByteLevel's option", "add_prefix_space");
      }
      if (flag(*step, "use_regex", true)) {
        if (split) unsupported("a Split before ByteLevel's own", "use_regex");
        split = PreTokenizer::kGpt2;
      }
      bytes = true;
    } else {
      unsupported("pre_tokenizer", type);
    }
  }
  if (!bytes) unsupported("a pre_tokenizer without", "ByteLevel");
  if (!split) unsupported("ByteLevel alone without", "use_regex");
  if (!digits) return *split;
  if (*split != PreTokenizer::kGpt2) unsupported("Digits with a Split of", "another pattern");
  return PreTokenizer::kSmolLm;
}

void check_model(const Json& document) {
  const Json* model = member(document, "model");
  if (model == nullptr || !model->is_object()) {
    fail(ErrorCode::kBadFile, "tokenizer.json: \"model\" is missing or no object");
  }
  const std::string type = text(*model, "type");
  if (type != "BPE" && !(type.empty() && model->contains("merges"))) {
    unsupported("model type", type);
  }
  if (flag(*model, "byte_fallback", false)) unsupported("the model's", "byte_fallback");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!text(*model, key).empty()) unsupported("the model's", key);
  }
  const Json* dropout = member(*model, "dropout");
  if (dropout != nullptr && !(dropout->is_number() && dropout->get<double>() == 0)) {
    unsupported("the model's", "dropout");
  }
  for (const Json* step : steps_of(document, "normalizer", "normalizers")) {
    unsupported("normalizer", text(*step, "type"));
  }
  for (const Json* step : steps_of(document, "decoder", "decoders")) {
    if (text(*step, "type") != "ByteLevel") unsupported("decoder", text(*step, "type"));
  }
}

// What tokenizer_config.json says of added tokens, by id.
std::map<int64_t, const Json*> configured_tokens(const Json& config) {
  std::map<int64_t, const Json*> tokens;
  const Json* decoder = member(config, "added_tokens_decoder");
  if (decoder == nullptr) return tokens;
  if (!decoder->is_object()) {
    fail(ErrorCode::kBadFile, "tokenizer_config.json: added_tokens_decoder is no object");
  }
  for (const auto& [key, token] : decoder->items()) {
    int64_t id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || !token.is_object()) {
      fail(ErrorCode::kBadFile, "tokenizer_config.json: {} of added_tokens_decoder is no token",
           quote(key));
    }
    tokens.emplace(id, &token);
  }
  return tokens;
}

void add_token(int64_t id, const Json& token, Vocabulary& vocabulary) {
  const std::string content = text(token, "content");
  for (const char* option : {"single_word", "lstrip", "rstrip"}) {
    if (flag(token, option, false)) {
      fail(ErrorCode::kUnsupported,
           "tokenizer.json: the option {} of the added token {} is not supported", option,
           quote(content));
    }
  }
  if (content.empty()) fail(ErrorCode::kBadFile, "tokenizer.json: an added token has no text");
  const bool special = flag(token, "special", false);
  vocabulary.add_or_change(id, content, special ? TokenKind::kSpecial : TokenKind::kUserDefined,
                           flag(token, "normalized", !special));
}

// As transformers does, tokens that tokenizer_config.json alone has are added, and where both have
// one its options there count.
void read_added_tokens(const Json& document, const Json& config, Vocabulary& vocabulary) {
  std::map<int64_t, const Json*> configured = configured_tokens(config);
  if (member(document, "added_tokens") != nullptr) {
    for (const Json& token : array(document, "added_tokens")) {
      if (!token.is_object() || member(token, "id") == nullptr ||
          !token["id"].is_number_integer()) {
        fail(ErrorCode::kBadFile, "tokenizer.json: an added token has no id");
      }
      const auto id = token["id"].get<int64_t>();
      const auto other = configured.find(id);
      if (other == configured.end()) {
        add_token(id, token, vocabulary);
        continue;
      }
      if (text(*other->second, "content") != text(token, "content")) {
        fail(ErrorCode::kBadFile, "added token {} is {} in tokenizer.json but {} in {}", id,
             quote(text(token, "content")), quote(text(*other->second, "content")),
             "tokenizer_config.json");
      }
      add_token(id, *other->second, vocabulary);
      configured.erase(other);
    }
  }
  for (const auto& [id, token] : configured) add_token(id, *token, vocabulary);
}

// An added token is another token than an entry of the same bytes (" a" beside "Ġa"), but one that
// is spelled as an entry is that entry.
void refuse_second_ids(const Vocabulary& vocabulary) {
  for (const Vocabulary::Added& token : vocabulary.added(true)) {
    const auto bytes = bytes_from_alphabet(token.text);
    const auto other = bytes ? vocabulary.find_normal(*bytes) : std::nullopt;
    if (other && *other != token.id) {
      fail(ErrorCode::kBadFile,
           "tokenizer.json: {} has id {} in the vocabulary and {} as an added token",
           quote(token.text), *other, token.id);
    }
  }
}

// The token that a TemplateProcessing puts before a single text.
void read_post_processor(const Json& document, TokenizerSource& source) {
  for (const Json* step : steps_of(document, "post_processor", "processors")) {
    const std::string type = text(*step, "type");
    if (type == "ByteLevel") continue;  // offsets only
    if (type != "TemplateProcessing") unsupported("post_processor", type);
    bool after = false;
    for (const Json& part : array(*step, "single")) {
      if (!part.is_object()) fail(ErrorCode::kBadFile, "tokenizer.json: a template is malformed");
      if (part.contains("Sequence")) {
        after = true;
        continue;
      }
      const Json* special = member(part, "SpecialToken");
      if (special == nullptr || !special->is_object()) {
        fail(ErrorCode::kBadFile, "tokenizer.json: a template is malformed");
      }
      const std::string name = text(*special, "id");
      if (after) {
        log(LogLevel::kWarning,
            "tokenizer.json: the post_processor's {} after a text is not added here", quote(name));
        continue;
      }
      if (source.adds_bos) unsupported("a second token before the text,", name);
      source.bos = source.vocabulary.find(name);
      if (!source.bos) {
        fail(ErrorCode::kBadFile, "tokenizer.json: the template's token {} does not exist",
             quote(name));
      }
      source.adds_bos = true;
    }
  }
  if (!source.bos) source.bos = source.vocabulary.find_added("<|begin_of_text|>");
}

}  // namespace

TokenizerSource read_tokenizer_json(std::span<const std::byte> bytes, const Json& config) {
  TokenizerDocument reader;
  const Json document = reader.parse(bytes, "tokenizer.json");
  if (!document.is_object()) fail(ErrorCode::kBadFile, "tokenizer.json: no object");
  check_model(document);
  if (!reader.has_vocab || !reader.has_merges) {
    fail(ErrorCode::kBadFile, "tokenizer.json: model.{} is missing or no {}",
         reader.has_vocab ? "merges" : "vocab", reader.has_vocab ? "array" : "object");
  }
  TokenizerSource source;
  source.pre_tokenizer = read_pre_tokenizer(document);
  source.ignore_merges = flag(document["model"], "ignore_merges", false);
  source.vocabulary = std::move(reader.vocabulary);
  read_added_tokens(document, config, source.vocabulary);
  source.vocabulary.seal();
  refuse_second_ids(source.vocabulary);
  const std::string unknown = text(document["model"], "unk_token");
  if (!unknown.empty()) {
    for (int b = 0; b < 256; ++b) {
      const char byte = static_cast<char>(b);
      if (!source.vocabulary.find_normal({&byte, 1})) {
        unsupported("a vocabulary without all 256 bytes but with unk_token", unknown);
      }
    }
  }
  const std::string_view merge_texts = reader.merge_texts;
  const auto side = [&](size_t i) {
    const size_t begin = i == 0 ? 0 : reader.merge_ends[i - 1];
    return merge_texts.substr(begin, reader.merge_ends[i] - begin);
  };
  source.merges.reserve(reader.merge_ends.size() / 2);
  for (size_t i = 0; i + 1 < reader.merge_ends.size(); i += 2) {
    source.add_merge(side(i), side(i + 1), static_cast<uint32_t>(i / 2));
  }
  read_post_processor(document, source);
  return source;
}

std::shared_ptr<const Tokenizer> parse_tokenizer_json(std::span<const std::byte> bytes) {
  return make_tokenizer(read_tokenizer_json(bytes));
}

}  // namespace paddock
