#include "conversation.h"

#include <algorithm>
#include <utility>

namespace cli {
namespace {

paddock::ChatOptions chat_options(const ConversationOptions& options) {
  paddock::ChatOptions chat;
  chat.template_name = options.template_name;
  if (!options.date.empty()) chat.date = options.date;
  return chat;
}

}  // namespace

Conversation::Conversation(const ConversationOptions& options, paddock::Engine& engine,
                           const paddock::GenerateOptions& generate)
    : options_(options),
      engine_(engine),
      generate_(generate),
      format_(engine.model().tokenizer(), chat_options(options)),
      session_(engine.open_session()) {}

paddock::GenerateResult Conversation::answer(const std::string& text) {
  refused_ = text;  // unless it is answered
  paddock::GenerateResult result = answer(next_turn(text));
  refused_.reset();
  return result;
}

std::vector<paddock::TokenId> Conversation::next_turn(const std::string& text) {
  if (!turns_.empty()) {
    paddock::ChatTurn turn = format_.next_turn({"user", text}, last_answer_);
    take_back_to(answer_end_ - turn.take_back);
    return std::move(turn.tokens);
  }
  std::vector<paddock::ChatMessage> messages;
  if (!options_.system.empty()) messages.push_back({"system", options_.system});
  messages.push_back({"user", text});
  return format_.encode(messages, true);
}

paddock::GenerateResult Conversation::answer(const std::vector<paddock::TokenId>& tokens) {
  if (!session_) session_ = engine_.open_session();
  std::vector<paddock::TokenId> input(history_.begin() + held(), history_.end());
  input.insert(input.end(), tokens.begin(), tokens.end());
  const paddock::GenerateResult result = engine_.generate(*session_, input, generate_);
  const int64_t start = length();
  turns_.push_back({start, start + static_cast<int64_t>(tokens.size())});
  history_.insert(history_.end(), tokens.begin(), tokens.end());
  history_.insert(history_.end(), result.tokens.begin(), result.tokens.end());
  if (result.stop_token) history_.push_back(*result.stop_token);
  last_answer_ = result;
  answer_end_ = length();
  return result;
}

paddock::GenerateResult Conversation::retry() {
  if (refused_) return answer(std::string(*refused_));
  if (turns_.empty()) {
    throw paddock::Error(paddock::ErrorCode::kInvalidArgument, "there is no answer to replace");
  }
  const auto history = history_;
  const auto turns = turns_;
  const Turn last = turns.back();
  const std::vector<paddock::TokenId> message(history.begin() + last.start,
                                              history.begin() + last.prompt_end);
  try {
    take_back_to(last.start);
    ++generate_.sampling.seed;  // with the same one the answer would be the same
    return answer(message);
  } catch (...) {
    history_ = history;  // the session lacks its end, which comes before the next message
    turns_ = turns;
    throw;
  }
}

void Conversation::set_policy(const std::string& spec) {
  engine_.check_kv_policy(spec, std::max<int64_t>(0, length() - 1));
  const std::string before = engine_.options().kv.policy;
  try {
    reopen(spec);
  } catch (...) {
    try {
      reopen(before);
    } catch (const paddock::Error&) {
      // What could not be read again comes before the next message.
    }
    throw;
  }
}

void Conversation::clear() {
  if (session_) engine_.truncate(*session_, 0);
  history_.clear();
  turns_.clear();
  refused_.reset();
}

int64_t Conversation::most_tokens() const {
  const int64_t positions = session_ ? engine_.max_positions(*session_) : engine_.max_positions();
  // The newest token needs no place yet where the pool is the limit; the context counts it.
  return positions < engine_.options().context ? positions + 1 : positions;
}

int64_t Conversation::turn_of(int64_t position) const {
  return std::upper_bound(turns_.begin(), turns_.end(), position,
                          [](int64_t at, const Turn& turn) { return at < turn.start; }) -
         turns_.begin();
}

int64_t Conversation::held() const { return session_ ? engine_.session_length(*session_) : 0; }

void Conversation::take_back_to(int64_t to) {
  if (to >= length()) return;
  history_.resize(static_cast<size_t>(to));
  while (!turns_.empty() && turns_.back().start >= to) turns_.pop_back();
  if (held() <= to) return;
  try {
    engine_.truncate(*session_, to);
  } catch (const paddock::Error& e) {
    if (e.code() != paddock::ErrorCode::kInvalidArgument) throw;
    engine_.truncate(*session_, 0);  // the rule has dropped what was in view then
    catch_up();
  }
}

void Conversation::reopen(const std::string& policy) {
  if (session_) engine_.close_session(*session_);
  session_.reset();
  if (policy != engine_.options().kv.policy) engine_.set_kv_policy(policy);
  session_ = engine_.open_session();
  catch_up();
}

void Conversation::catch_up() {
  const int64_t end = length() - 1;
  const auto feed_to = [&](int64_t to, int64_t prompt_end) {
    const int64_t from = held();
    if (to <= from) return;
    const auto tokens =
        std::span(history_).subspan(static_cast<size_t>(from), static_cast<size_t>(to - from));
    engine_.feed(*session_, tokens, prompt_end);
  };
  // Prompts end where they ended, for rules that decide there, and are said where they were: when
  // all before them but the last token of an answer was fed.
  for (const Turn& turn : turns_) {
    feed_to(std::min(turn.start - 1, end), 0);
    feed_to(std::min(turn.prompt_end, end), turn.prompt_end);
  }
  feed_to(end, 0);
}

}  // namespace cli
