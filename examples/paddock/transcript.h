// What was said in a conversation, turn by turn, and the tokens that it comes to: as its template
// writes it, whatever of it is in a cache.
#pragma once

#include <paddock/paddock.h>

#include <cstdint>
#include <string>
#include <vector>

namespace cli {

class Transcript {
 public:
  struct Turn {
    int64_t number;             // counted from 1, whatever is left out
    int64_t start, prompt_end;  // positions: of its first token, and behind its message
    std::string message;
    paddock::GenerateResult answer;
    double share = -1;  // of what the newest turn attended to; below 0: not measured
    bool is_pinned = false;
  };

  Transcript(const paddock::ChatTemplate& format, std::string system)
      : format_(&format), system_(std::move(system)) {}

  const std::vector<paddock::TokenId>& tokens() const { return tokens_; }
  int64_t length() const { return static_cast<int64_t>(tokens_.size()); }
  /// The length once the last answer was there. Tokens behind it belong to no turn.
  int64_t end() const { return end_; }
  std::vector<Turn>& turns() { return turns_; }
  const std::vector<Turn>& turns() const { return turns_; }
  /// Said by the system before the first turn, beside what it says anyway: of turns left out.
  void set_summary(std::string summary) { summary_ = std::move(summary); }
  /// How many of the first tokens are what stands before the first message, a summary in it; 0
  /// where there is none.
  int64_t summary_end() const;

  /// The tokens that bring in a message, once the last `take_back` tokens of the answer before it
  /// are taken back.
  struct Message {
    std::vector<paddock::TokenId> tokens;
    int64_t take_back = 0;
  };
  Message next(const std::string& message) const;
  /// A turn more: its message's tokens, and the answer.
  void add(int64_t number, const std::string& message, const std::vector<paddock::TokenId>& tokens,
           const paddock::GenerateResult& answer);
  /// The first `length` tokens alone, and the turns that begin among them.
  void cut(int64_t length);
  /// The same conversation without these turns, which are some of turns() and not all.
  Transcript without(const std::vector<size_t>& places) const;
  /// Turns and end() are those of `before` again; tokens stay, for whoever cuts them later.
  void restore_turns(const Transcript& before);
  /// Nothing has been said.
  void clear();

  /// Where a turn's positions end.
  int64_t end_of(const Turn& turn) const;
  /// The one of this number; Error kInvalidArgument where there is none.
  Turn& find(int64_t number);
  /// The number of the turn that holds a position; 0: none.
  int64_t turn_of(int64_t position) const;

 private:
  /// The tokens that begin a conversation with this message.
  std::vector<paddock::TokenId> opening(const std::string& message) const;

  const paddock::ChatTemplate* format_;
  std::string system_, summary_;
  std::vector<paddock::TokenId> tokens_;
  std::vector<Turn> turns_;
  int64_t end_ = 0;
};

}  // namespace cli
