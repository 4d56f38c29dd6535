#include "engine/text_stream.h"

#include <algorithm>

namespace paddock {

TextStream::TextStream(std::shared_ptr<const Tokenizer> tokenizer, std::vector<std::string> stops)
    : stops_(std::move(stops)) {
  if (tokenizer == nullptr) return;
  for (const std::string& stop : stops_) {
    const std::optional<TokenId> id = tokenizer->find(stop);
    if (id && tokenizer->is_special(*id)) stop_tokens_.push_back(*id);
  }
  decoder_.emplace(std::move(tokenizer));
}

void TextStream::push(TokenId id) {
  if (!decoder_ || stopped_) return;
  if (std::find(stop_tokens_.begin(), stop_tokens_.end(), id) != stop_tokens_.end()) {
    finish();
    stopped_ = true;
    return;
  }
  text_ += decoder_->push(id);
  settle();
}

void TextStream::finish() {
  if (!decoder_ || stopped_) return;
  text_ += decoder_->finish();
  settle();
  final_ = text_.size();  // a stop string that was only begun is ordinary text
}

std::string_view TextStream::take() {
  const std::string_view fresh = std::string_view(text_).substr(taken_, final_ - taken_);
  taken_ = final_;
  return fresh;
}

void TextStream::settle() {
  const std::string_view open = std::string_view(text_).substr(final_);

  // The stop string that is complete first ends the text; among equals, the one that began first.
  size_t stop_end = std::string_view::npos;
  size_t stop_begin = std::string_view::npos;
  for (const std::string& stop : stops_) {
    const size_t at = open.find(stop);
    if (at == std::string_view::npos) continue;
    const size_t end = at + stop.size();
    if (end < stop_end || (end == stop_end && at < stop_begin)) {
      stop_end = end;
      stop_begin = at;
    }
  }
  if (stop_begin != std::string_view::npos) {
    final_ += stop_begin;
    text_.resize(final_);
    stopped_ = true;
    return;
  }

  // Hold back the longest end of the text that some stop string begins with.
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, open.size()); n > keep; --n) {
      if (open.ends_with(std::string_view(stop).substr(0, n))) {
        keep = n;
        break;
      }
    }
  }
  final_ = text_.size() - keep;
}

}  // namespace paddock
