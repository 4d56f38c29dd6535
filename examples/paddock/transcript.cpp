#include "transcript.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace cli {
namespace {

constexpr const char* kSummaryIs = "Summary of the conversation so far: ";

}  // namespace

std::vector<paddock::TokenId> Transcript::opening(const std::string& message) const {
  std::string system = system_;
  if (!summary_.empty()) {
    system += fmt::format("{}{}{}", system_.empty() ? "" : "\n\n", kSummaryIs, summary_);
  }
  std::vector<paddock::ChatMessage> messages;
  if (!system.empty()) messages.push_back({"system", system});
  messages.push_back({"user", message});
  return format_->encode(messages, true);
}

int64_t Transcript::summary_end() const {
  if (summary_.empty() || turns_.empty()) return 0;
  const std::vector<paddock::TokenId> one = opening("a"), other = opening("0");
  const size_t n = std::min({one.size(), other.size(), tokens_.size()});
  const auto end = one.begin() + static_cast<ptrdiff_t>(n);
  return std::mismatch(one.begin(), end, other.begin()).first - one.begin();
}

Transcript::Message Transcript::next(const std::string& message) const {
  if (turns_.empty()) return {opening(message), 0};
  paddock::ChatTurn turn = format_->next_turn({"user", message}, turns_.back().answer);
  return {std::move(turn.tokens), turn.take_back};
}

void Transcript::add(int64_t number, const std::string& message,
                     const std::vector<paddock::TokenId>& tokens,
                     const paddock::GenerateResult& answer) {
  const int64_t start = length();
  turns_.push_back({number, start, start + static_cast<int64_t>(tokens.size()), message, answer});
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  tokens_.insert(tokens_.end(), answer.tokens.begin(), answer.tokens.end());
  if (answer.stop_token) tokens_.push_back(*answer.stop_token);
  end_ = length();
}

void Transcript::cut(int64_t to) {
  if (to >= length()) return;
  tokens_.resize(static_cast<size_t>(to));
  while (!turns_.empty() && turns_.back().start >= to) turns_.pop_back();
}

Transcript Transcript::without(const std::vector<size_t>& places) const {
  Transcript kept(*format_, system_);
  kept.summary_ = summary_;
  for (size_t i = 0; i < turns_.size(); ++i) {
    if (std::binary_search(places.begin(), places.end(), i)) continue;
    const Turn& turn = turns_[i];
    const Message message = kept.next(turn.message);
    kept.tokens_.resize(kept.tokens_.size() - static_cast<size_t>(message.take_back));
    kept.add(turn.number, turn.message, message.tokens, turn.answer);
    kept.turns_.back().share = turn.share;
    kept.turns_.back().is_pinned = turn.is_pinned;
  }
  return kept;
}

void Transcript::restore_turns(const Transcript& before) {
  turns_ = before.turns_;
  end_ = before.end_;
}

void Transcript::clear() {
  tokens_.clear();
  turns_.clear();
  summary_.clear();
}

int64_t Transcript::end_of(const Turn& turn) const {
  const auto next = static_cast<size_t>(&turn - turns_.data()) + 1;
  return next < turns_.size() ? turns_[next].start : length();
}

Transcript::Turn& Transcript::find(int64_t number) {
  const auto turn =
      std::find_if(turns_.begin(), turns_.end(), [&](const Turn& t) { return t.number == number; });
  if (turn == turns_.end()) {
    throw paddock::Error(paddock::ErrorCode::kInvalidArgument,
                         fmt::format("there is no turn {}; /turns lists those there are", number));
  }
  return *turn;
}

int64_t Transcript::turn_of(int64_t position) const {
  const auto next = std::upper_bound(turns_.begin(), turns_.end(), position,
                                     [](int64_t at, const Turn& turn) { return at < turn.start; });
  return next == turns_.begin() ? 0 : std::prev(next)->number;
}

}  // namespace cli
