// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/export.h"

namespace paddock {

using TokenId = int32_t;

struct EncodeOptions {
  /// Put the beginning-of-sequence token first where the tokenizer's own settings say so.
  bool add_bos = false;
  /// Turn the text of special tokens ("<|eot_id|>") into those tokens. Leave false for text that
  /// you did not write yourself: a user could otherwise forge turns.
  bool parse_special = false;
};

/// An immutable tokenizer; every method may be called from any thread.
///
/// Kinds: byte-level BPE with the Llama 3, GPT-2 and SmolLM pre-tokenizers. Anything else is
/// refused by name when it is loaded.
class PADDOCK_API Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Loads a tokenizer.json, a tiktoken tokenizer.model, a GGUF file (vocabulary-only will do) or a
  /// Hugging Face folder. Errors: kNotFound, kIo, kBadFile, kUnsupported.
  static std::shared_ptr<const Tokenizer> load(const std::string& path);

  /// Text (valid UTF-8, else Error kInvalidArgument with the byte offset) to ids.
  virtual std::vector<TokenId> encode(std::string_view text, EncodeOptions options = {}) const = 0;

  /// The bytes of one token; they may be a part of a UTF-8 character. Special tokens give their
  /// text. Error kInvalidArgument for an id outside [0, vocab_size).
  virtual std::string_view token_bytes(TokenId id) const = 0;

  /// Bytes of all ids in order; with `skip_special`, special tokens give nothing. Nor do ids from
  /// vocab_size() on, which models with a padded embedding can produce. Error kInvalidArgument for
  /// negative ones.
  std::string decode(std::span<const TokenId> ids, bool skip_special = true) const;

  virtual int32_t vocab_size() const = 0;
  virtual bool is_special(TokenId id) const = 0;
  /// The id whose text is exactly `text` (special tokens included), if there is one.
  virtual std::optional<TokenId> find(std::string_view text) const = 0;

  virtual std::optional<TokenId> bos() const = 0;
  /// True where the tokenizer's own settings put a BOS before a prompt.
  virtual bool adds_bos() const = 0;
  /// All ids that end a generation: the union of what the tokenizer's own file names (eos, eot,
  /// eom) and well-known end-of-turn tokens of the vocabulary. Sorted, unique.
  virtual const std::vector<TokenId>& stop_tokens() const = 0;
  /// The model's own chat template (Jinja source), empty if it has none.
  virtual const std::string& chat_template() const = 0;
};

/// Turns a stream of ids into valid UTF-8 text: bytes of an unfinished character are held back
/// until the rest arrives; bytes that can never become valid turn into U+FFFD. Not thread-safe.
class PADDOCK_API StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true);
  /// Text that is complete after this token; may be empty. Ids as in Tokenizer::decode().
  std::string push(TokenId id);
  /// What was held back, incomplete characters as U+FFFD. Call once, at the end.
  std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  std::string held_;
};

}  // namespace paddock
