#include "engine/sequence.h"

namespace paddock {

void Sequence::open() {
  tables_ = cache_.open();
  n_told_ = 0;
}

void Sequence::park() {
  reached_ = reached();
  cache_.close(*tables_, tokens, RemovalReason::kPreempt);
  tables_.reset();
}

void Sequence::copy(const Sequence& other) {
  tokens = other.tokens;
  prompt_ends_ = other.prompt_ends_;
  reached_ = other.reached();
}

void Sequence::set_prompt(int64_t end) {
  if (end > reached()) prompt_ends_.push_back({reached(), end});
}

int64_t Sequence::max_next() {
  const int64_t at = computed();
  for (; n_told_ < prompt_ends_.size() && prompt_ends_[n_told_].said_at <= at; ++n_told_) {
    cache_.set_prompt(*tables_, prompt_ends_[n_told_].end);
  }
  const int64_t max = cache_.max_next(*tables_);
  return n_told_ == prompt_ends_.size() ? max : std::min(max, prompt_ends_[n_told_].said_at - at);
}

void Sequence::truncate(int64_t length) {
  if (length < computed()) cache_.truncate(*tables_, length);
  reached_ = std::min(reached_, length);
  std::erase_if(prompt_ends_, [&](const PromptEnd& prompt) { return prompt.end > length; });
  n_told_ = std::min(n_told_, prompt_ends_.size());
  tokens.resize(static_cast<size_t>(length));
}

}  // namespace paddock
