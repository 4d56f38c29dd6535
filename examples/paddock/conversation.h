// A conversation whose history stays in the cache; each turn feeds only its new tokens.
#pragma once

#include <paddock/paddock.h>

#include <optional>
#include <string>
#include <vector>

namespace cli {

struct ConversationOptions {
  std::string system, template_name, date;
};

/// The tokens of the whole conversation are kept here, so that they can be read again under other
/// rules, and so that nothing is lost where that fails: the session holds the first of them, mostly
/// all, and whatever it lacks comes before the next message.
class Conversation {
 public:
  Conversation(const ConversationOptions& options, paddock::Engine& engine,
               const paddock::GenerateOptions& generate);

  /// Answers one message, streaming. What is refused changes nothing but what retry() sends.
  paddock::GenerateResult answer(const std::string& text);
  /// The last message again: the one that was refused, or the last one with another answer.
  paddock::GenerateResult retry();
  /// Other rules from here on: the conversation so far is read again under them. Refused, and
  /// nothing changed, where the pool cannot hold it; where that shows too late, the rules stay what
  /// they were.
  void set_policy(const std::string& spec);
  void clear();

  int64_t length() const { return static_cast<int64_t>(history_.size()); }
  /// The tokens that it may come to have.
  int64_t most_tokens() const;
  /// The number of the turn that holds a position, counted from 1.
  int64_t turn_of(int64_t position) const;

 private:
  struct Turn {
    int64_t start, prompt_end;
  };

  paddock::GenerateResult answer(const std::vector<paddock::TokenId>& tokens);
  /// The tokens that bring in a message, after what was taken back for it.
  std::vector<paddock::TokenId> next_turn(const std::string& text);
  int64_t held() const;
  /// Takes the conversation back to its first `length` tokens.
  void take_back_to(int64_t length);
  /// Opens a new session under `policy` and reads the conversation.
  void reopen(const std::string& policy);
  /// Feeds what the session lacks but for the last token, which comes with the next message.
  void catch_up();

  ConversationOptions options_;
  paddock::Engine& engine_;
  paddock::GenerateOptions generate_;
  paddock::ChatTemplate format_;
  std::optional<paddock::SessionId> session_;
  std::vector<paddock::TokenId> history_;
  std::vector<Turn> turns_;
  paddock::GenerateResult last_answer_;
  int64_t answer_end_ = 0;              // length of the conversation after it
  std::optional<std::string> refused_;  // the last message, where it is not in the conversation
};

}  // namespace cli
