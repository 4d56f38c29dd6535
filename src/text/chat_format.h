// The conversation formats the library can write, and how a model's Jinja template is recognised as
// one of them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/chat.h"

namespace paddock {

enum class ChatFormat { kLlama3, kLlama31, kLlama32, kChatMl, kSmolLm2 };

inline constexpr ChatFormat kChatFormats[] = {ChatFormat::kLlama3, ChatFormat::kLlama31,
                                              ChatFormat::kLlama32, ChatFormat::kChatMl,
                                              ChatFormat::kSmolLm2};

const char* chat_format_name(ChatFormat format);

/// The format whose output the template `jinja` has for plain conversations; nullopt if it is none
/// that is known. Looks at what the template writes, not at how it is laid out.
std::optional<ChatFormat> recognise_chat_template(std::string_view jinja);

/// A part of a conversation's text.
struct ChatPiece {
  enum class Kind { kText, kBos, kSpecial } kind;
  std::string text;  // of a special token its name; empty for kBos
};

/// Texts that follow each other are one piece, so that they are tokenized together.
class ChatScript {
 public:
  ChatScript(ChatFormat format, std::string_view date) : format_(format), date_(date) {}

  /// Errors kInvalidArgument: a role the format does not have; no messages, where the format's
  /// template needs one.
  void conversation(const std::vector<ChatMessage>& messages);
  /// `number`: which one of the conversation, for errors; 0 for one that stands alone.
  void message(const ChatMessage& message, size_t number = 0);
  void generation_prompt() { header("assistant"); }
  void end_of_turn();        // the token, and what the format writes after it
  void after_end_of_turn();  // only what the format writes after it
  void text(std::string_view text);
  std::string_view content(std::string_view text) const;  // as the format writes it

  const std::vector<ChatPiece>& pieces() const { return pieces_; }

 private:
  bool is_chatml() const {
    return format_ == ChatFormat::kChatMl || format_ == ChatFormat::kSmolLm2;
  }
  void header(std::string_view role);
  void turn(std::string_view role, std::string_view content);
  void special(std::string_view name);
  void check(const ChatMessage& message, size_t number) const;

  ChatFormat format_;
  std::string date_;
  std::vector<ChatPiece> pieces_;
};

/// Names of the special tokens a format needs beside BOS; the first one ends a turn.
std::vector<std::string_view> special_tokens_of(ChatFormat format);
/// True if conversations begin with the BOS token.
bool begins_with_bos(ChatFormat format);

}  // namespace paddock
