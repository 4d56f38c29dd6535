// A conversation whose history stays in the cache; each turn feeds only its new tokens.
#pragma once

#include <paddock/paddock.h>

#include <optional>
#include <string>
#include <vector>

#include "keep.h"
#include "transcript.h"

namespace cli {

struct ConversationOptions {
  std::string system, template_name, date;
  KeepRule keep{};
};

/// Turns that were left out.
struct LeftOut {
  std::vector<int64_t> turns;   // their numbers
  std::vector<double> shares;   // of what the newest turn attended to, if that was measured
  int64_t tokens = 0;           // that the conversation is shorter by
  int64_t stayed = 0;           // tokens before the first of them, which stay in the cache
  int64_t read_again = 0;       // those behind
  double seconds = 0;           // that took, the summary included
  std::string summary;          // what is said in their place, if they were summarised
  std::string summary_refusal;  // why rules may choose it nevertheless; empty: they may not
};

/// What was said is a Transcript; a session of the engine follows it. It holds the first tokens,
/// mostly all, and whatever it lacks comes before the next message: so the conversation can be read
/// again under other rules, and nothing is lost where that fails.
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

  /// Leaves out what the rule for turns says, once an answer is there; nothing if all stay. Pinned
  /// turns stay beside those that it keeps.
  std::optional<LeftOut> keep_to_rule();
  /// Leaves a turn out; Error kInvalidArgument where there is none of this number, or no other.
  LeftOut drop(int64_t number);
  /// Has the model condense all turns but the newest one and pinned ones, and leaves them out.
  LeftOut summarise();
  /// Has rules keep what a turn has in the cache from now on, or no longer. Error kInvalidArgument,
  /// and nothing changed, where there is none of this number, or the rule cannot keep it.
  void pin(int64_t number);
  void unpin(int64_t number);
  struct TurnInfo {
    int64_t number, tokens;
    std::string message;
    bool is_pinned;
  };
  std::vector<TurnInfo> turns() const;

  int64_t length() const { return said_.length(); }
  /// The tokens that it may come to have.
  int64_t most_tokens() const;
  /// That it is in now; 0: in none.
  paddock::SessionId session() const { return session_.value_or(0); }
  /// The number of the turn that holds a position, counted from 1.
  int64_t turn_of(int64_t position) const { return said_.turn_of(position); }

 private:
  paddock::GenerateResult answer(const std::string& text,
                                 const std::vector<paddock::TokenId>& tokens);
  /// The conversation without these turns, which are some of those there are.
  LeftOut leave_out(const std::vector<size_t>& places);
  /// Likewise, with a summary in their place.
  LeftOut condense(const std::vector<size_t>& places);
  /// The model's own. The question and its answer stay behind the last turn, for leave_out() to
  /// take back.
  paddock::GenerateResult ask_for_summary();
  /// Turns that are not pinned.
  std::vector<size_t> unpinned() const;
  /// Those of them that the newest one attended to least, so many.
  std::vector<size_t> least_attended(size_t n);
  /// The tokens that bring in a message; takes back what it follows on from the answer before.
  std::vector<paddock::TokenId> next_turn(const std::string& text);
  /// Protects what pinned turns and a summary have, once more where the session lost it.
  void protect_pinned();
  /// The summary's part; why not, where the rules cannot.
  std::string protect_summary();
  /// How many tokens the session holds.
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
  Transcript said_;
  std::optional<paddock::SessionId> session_;
  int64_t next_number_ = 1;             // of a turn
  AttentionMeter attention_;            // of the newest turn
  std::optional<std::string> refused_;  // the last message, where it is not in the conversation
};

}  // namespace cli
