// From sampled ids to text that may be shown: whole characters only, never a part of a stop string.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/tokenizer.h"

namespace paddock {

class TextStream {
 public:
  /// `tokenizer` may be null: then there is no text at all. Stop strings must not be empty; one
  /// that is a special token's text stands for that token, which adds no text of its own.
  TextStream(std::shared_ptr<const Tokenizer> tokenizer, std::vector<std::string> stops);

  /// Adds one token's text; may complete a stop string.
  void push(TokenId id);
  /// The text ends here: what was held back becomes final, unless a stop string ended it before.
  void finish();
  /// True once a stop string was completed. It and what follows it are gone.
  bool stopped() const { return stopped_; }

  /// Text that became final since the last call of take(); the view lives until the next push().
  std::string_view take();
  /// All final text, moved out; the stream is over.
  std::string release() {
    text_.resize(final_);
    return std::move(text_);
  }

  /// Memory for texts of up to `bytes`, so that later calls allocate nothing.
  void reserve(size_t bytes) { text_.reserve(bytes); }

 private:
  void settle();

  std::optional<StreamDecoder> decoder_;
  std::vector<std::string> stops_;
  std::vector<TokenId> stop_tokens_;  // of stops_, those that are special tokens
  std::string text_;
  size_t taken_ = 0;  // text_[0, taken_) was given out
  size_t final_ = 0;  // text_[final_, end) may be the beginning of a stop string
  bool stopped_ = false;
};

}  // namespace paddock
