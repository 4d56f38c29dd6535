#include "conversation.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace cli {
namespace {

paddock::ChatOptions chat_options(const ConversationOptions& options) {
  paddock::ChatOptions chat;
  chat.template_name = options.template_name;
  if (!options.date.empty()) chat.date = options.date;
  return chat;
}

/// What the model is asked when turns are to be condensed.
constexpr const char* kSummarise =
    "Summarise our conversation so far in a few sentences, for yourself: keep every name, number, "
    "date and decision.";
constexpr int32_t kSummaryTokens = 160;  // at most

}  // namespace

Conversation::Conversation(const ConversationOptions& options, paddock::Engine& engine,
                           const paddock::GenerateOptions& generate)
    : options_(options),
      engine_(engine),
      generate_(generate),
      format_(engine.model().tokenizer(), chat_options(options)),
      said_(format_, options.system),
      session_(engine.open_session()) {}

paddock::GenerateResult Conversation::answer(const std::string& text) {
  refused_ = text;  // unless it is answered
  paddock::GenerateResult result = answer(text, next_turn(text));
  refused_.reset();
  return result;
}

std::vector<paddock::TokenId> Conversation::next_turn(const std::string& text) {
  Transcript::Message message = said_.next(text);
  if (!said_.turns().empty()) take_back_to(said_.end() - message.take_back);
  return std::move(message.tokens);
}

paddock::GenerateResult Conversation::answer(const std::string& text,
                                             const std::vector<paddock::TokenId>& tokens) {
  if (!session_) session_ = engine_.open_session();
  if (options_.keep.kind == KeepRule::Kind::kDropIrrelevant) attention_.begin(engine_);
  std::vector<paddock::TokenId> input(said_.tokens().begin() + held(), said_.tokens().end());
  input.insert(input.end(), tokens.begin(), tokens.end());
  const paddock::GenerateResult result = engine_.generate(*session_, input, generate_);
  said_.add(next_number_++, text, tokens, result);
  return result;
}

paddock::GenerateResult Conversation::retry() {
  if (refused_) return answer(std::string(*refused_));
  if (said_.turns().empty()) {
    throw paddock::Error(paddock::ErrorCode::kInvalidArgument, "there is no answer to replace");
  }
  const Transcript before = said_;
  const Transcript::Turn& last = before.turns().back();
  const std::vector<paddock::TokenId> message(before.tokens().begin() + last.start,
                                              before.tokens().begin() + last.prompt_end);
  try {
    take_back_to(last.start);
    next_number_ = last.number;
    ++generate_.sampling.seed;  // with the same one the answer would be the same
    return answer(last.message, message);
  } catch (...) {
    next_number_ = last.number + 1;
    said_ = before;  // the session lacks its end, which comes before the next message
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
  said_.clear();
  next_number_ = 1;
  refused_.reset();
}

// ---- turns that are left out

std::optional<LeftOut> Conversation::keep_to_rule() {
  if (options_.keep.kind == KeepRule::Kind::kAll) return std::nullopt;
  const auto most = static_cast<size_t>(options_.keep.turns);
  std::vector<size_t> places = unpinned();
  if (options_.keep.kind == KeepRule::Kind::kTurns) {
    // The first turn stays, beside the newest.
    if (!places.empty() && places.front() == 0) places.erase(places.begin());
    if (places.size() < most) return std::nullopt;
    places.resize(places.size() - (most - 1));
    return leave_out(places);
  }
  const size_t n = places.size();
  if (n <= most) return std::nullopt;
  if (options_.keep.kind == KeepRule::Kind::kDropIrrelevant) {
    return leave_out(least_attended(n - most));
  }
  // Half of them, so that it is not to be done again at the next turn.
  places.resize(n - (most + 1) / 2);
  return condense(places);
}

std::vector<size_t> Conversation::unpinned() const {
  std::vector<size_t> places;
  for (size_t i = 0; i < said_.turns().size(); ++i) {
    if (!said_.turns()[i].is_pinned) places.push_back(i);
  }
  return places;
}

LeftOut Conversation::drop(int64_t number) {
  const Transcript::Turn& turn = said_.find(number);
  if (said_.turns().size() == 1) {
    throw paddock::Error(paddock::ErrorCode::kInvalidArgument,
                         fmt::format("turn {} is the only one; /clear forgets it", number));
  }
  return leave_out({static_cast<size_t>(&turn - said_.turns().data())});
}

LeftOut Conversation::summarise() {
  std::vector<size_t> places = unpinned();
  if (!places.empty() && places.back() + 1 == said_.turns().size()) places.pop_back();
  if (places.empty()) {
    throw paddock::Error(paddock::ErrorCode::kInvalidArgument,
                         said_.turns().size() < 2
                             ? "there is nothing before the newest turn to be summarised"
                             : "all turns before the newest are pinned; /unpin lets go of one");
  }
  return condense(places);
}

std::vector<Conversation::TurnInfo> Conversation::turns() const {
  std::vector<TurnInfo> infos;
  for (const Transcript::Turn& turn : said_.turns()) {
    infos.push_back({turn.number, said_.end_of(turn) - turn.start, turn.message, turn.is_pinned});
  }
  return infos;
}

// ---- turns that are pinned

void Conversation::pin(int64_t number) {
  Transcript::Turn& turn = said_.find(number);
  if (!session_) reopen(engine_.options().kv.policy);
  engine_.protect(*session_, turn.start, said_.end_of(turn) - turn.start);
  turn.is_pinned = true;
}

void Conversation::unpin(int64_t number) {
  Transcript::Turn& turn = said_.find(number);
  if (!turn.is_pinned) {
    throw paddock::Error(paddock::ErrorCode::kInvalidArgument,
                         fmt::format("turn {} is not pinned; /turns says which are", number));
  }
  turn.is_pinned = false;
  if (!session_) return;
  engine_.unprotect(*session_, turn.start, said_.end_of(turn) - turn.start);
  protect_summary();  // which the first turn has
}

std::string Conversation::protect_summary() {
  const int64_t end = said_.summary_end();
  if (end == 0) return {};
  try {
    engine_.protect(*session_, 0, end);
  } catch (const paddock::Error& e) {
    if (e.code() != paddock::ErrorCode::kInvalidArgument) throw;
    return e.what();
  }
  return {};
}

void Conversation::protect_pinned() {
  protect_summary();  // where the rules can
  for (const Transcript::Turn& turn : said_.turns()) {
    if (!turn.is_pinned) continue;
    engine_.protect(*session_, turn.start, said_.end_of(turn) - turn.start);
  }
}

std::vector<size_t> Conversation::least_attended(size_t n) {
  std::vector<Transcript::Turn>& turns = said_.turns();
  std::vector<int64_t> starts;
  for (const Transcript::Turn& turn : turns) starts.push_back(turn.start);
  const std::vector<double> shares = attention_.shares(engine_, starts);
  if (shares.empty()) {
    throw paddock::Error(
        paddock::ErrorCode::kInvalidArgument,
        fmt::format("--keep drop-irrelevant: {} has no attention measured; --kv-policy h2o keeps "
                    "everything as long as there is room, and measures",
                    engine_.options().kv.policy));
  }
  std::vector<std::pair<double, size_t>> by_token;
  for (size_t i = 0; i + 1 < turns.size(); ++i) {
    const int64_t tokens = turns[i + 1].start - turns[i].start;
    turns[i].share = shares[i];
    if (turns[i].is_pinned) continue;
    by_token.emplace_back(shares[i] / static_cast<double>(tokens), i);
  }
  std::sort(by_token.begin(), by_token.end());
  std::vector<size_t> places;
  for (size_t i = 0; i < std::min(n, by_token.size()); ++i) places.push_back(by_token[i].second);
  std::sort(places.begin(), places.end());
  return places;
}

LeftOut Conversation::condense(const std::vector<size_t>& places) {
  const auto begin = std::chrono::steady_clock::now();
  const paddock::GenerateResult summary = ask_for_summary();
  said_.set_summary(summary.text);
  LeftOut left = leave_out(places);
  left.summary = summary.text;
  left.summary_refusal = protect_summary();
  left.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return left;
}

paddock::GenerateResult Conversation::ask_for_summary() {
  const Transcript before = said_;
  const paddock::GenerateOptions generate = generate_;
  const int64_t number = next_number_;
  generate_.on_token = {};
  generate_.max_tokens = kSummaryTokens;
  generate_.sampling = {.temperature = 0};
  const auto restore = [&] {
    generate_ = generate;
    said_.restore_turns(before);
    next_number_ = number;
  };
  try {
    paddock::GenerateResult result = answer(kSummarise, next_turn(kSummarise));
    if (result.text.empty()) {
      throw paddock::Error(paddock::ErrorCode::kOutOfMemory,
                           fmt::format("the conversation was not summarised: the answer was empty "
                                       "({})",
                                       paddock::finish_reason_name(result.finish_reason)));
    }
    restore();
    return result;
  } catch (...) {
    take_back_to(std::min(before.end(), length()));
    restore();
    throw;
  }
}

LeftOut Conversation::leave_out(const std::vector<size_t>& places) {
  const auto begin = std::chrono::steady_clock::now();
  LeftOut left;
  for (const size_t place : places) {
    const Transcript::Turn& turn = said_.turns()[place];
    left.turns.push_back(turn.number);
    if (turn.share >= 0) left.shares.push_back(turn.share);
  }
  Transcript shorter = said_.without(places);
  const std::vector<paddock::TokenId>&before = said_.tokens(), &after = shorter.tokens();
  const auto n = static_cast<int64_t>(std::min(before.size(), after.size()));
  const auto same =
      std::mismatch(after.begin(), after.begin() + n, before.begin()).first - after.begin();
  left.tokens = said_.end() - shorter.length();
  left.stayed = same;
  left.read_again = shorter.length() - same;
  take_back_to(same);
  said_ = std::move(shorter);
  catch_up();
  left.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return left;
}

int64_t Conversation::most_tokens() const {
  const int64_t positions = session_ ? engine_.max_positions(*session_) : engine_.max_positions();
  // The newest token needs no place yet where the pool is the limit; the context counts it.
  return positions < engine_.options().context ? positions + 1 : positions;
}

int64_t Conversation::held() const { return session_ ? engine_.session_length(*session_) : 0; }

void Conversation::take_back_to(int64_t to) {
  if (to >= length()) return;
  said_.cut(to);
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
  protect_pinned();  // before rules could choose it
  const int64_t end = length() - 1;
  const auto feed_to = [&](int64_t to, int64_t prompt_end) {
    const int64_t from = held();
    if (to <= from) return;
    const auto tokens = std::span(said_.tokens())
                            .subspan(static_cast<size_t>(from), static_cast<size_t>(to - from));
    engine_.feed(*session_, tokens, prompt_end);
  };
  // Prompts end where they ended, for rules that decide there, and are said where they were: when
  // all before them but the last token of an answer was fed.
  for (const Transcript::Turn& turn : said_.turns()) {
    feed_to(std::min(turn.start - 1, end), 0);
    feed_to(std::min(turn.prompt_end, end), turn.prompt_end);
  }
  feed_to(end, 0);
}

}  // namespace cli
