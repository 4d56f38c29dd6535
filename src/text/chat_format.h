// The conversation formats the library can write, and how a model's Jinja template is recognised as
// one of them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/chat.h"

namespace paddock {

/// A way to write conversations, and the name it goes by.
struct ChatFormat {
  enum class Family { kLlama3, kChatMl };
  enum class Bos { kNever, kWithMessages, kAlways };  // kWithMessages: not if there are none
  enum class Date { kNone, kFixed, kToday };          // what a template writes if none is given

  std::string_view name;
  Family family;
  Bos bos = Bos::kNever;
  Date date = Date::kNone;
  std::string_view default_system{};  // turn written before conversations without a system message
};

/// What Date::kFixed templates write.
inline constexpr const char* kFixedDate = "26 Jul 2024";

/// A format as one template has it.
struct ChatForm {
  const ChatFormat* format;
  ChatFormat::Bos bos;
  bool always_prompts = false;  // writes the generation prompt whether asked for or not
  bool needs_message = false;   // an empty conversation is an error
};

std::span<const ChatFormat> chat_formats();
/// The usual one, for a format chosen by name.
ChatForm form_of(const ChatFormat& format);

/// The form that writes the same as the template `jinja` for every conversation of system, user and
/// assistant, where `bos` is the text of the BOS token; nullopt if there is none, or if the
/// template does anything that could tell more than roles and the first message.
std::optional<ChatForm> recognise_chat_template(std::string_view jinja,
                                                std::string_view bos = "<|begin_of_text|>");

/// A part of a conversation's text.
struct ChatPiece {
  enum class Kind { kText, kBos, kSpecial } kind;
  std::string text;  // of a special token its name; empty for kBos
};

/// Texts that follow each other are one piece, so that they are tokenized together.
class ChatScript {
 public:
  ChatScript(const ChatForm& form, std::string_view date) : form_(form), date_(date) {}

  /// Errors kInvalidArgument: a role the format does not have; no messages, where the format's
  /// template needs one.
  void conversation(const std::vector<ChatMessage>& messages, bool prompt);
  /// `number`: which one of the conversation, for errors; 0 for one that stands alone.
  void message(const ChatMessage& message, size_t number = 0);
  void generation_prompt() { header("assistant"); }
  void end_of_turn();        // the token, and what the format writes after it
  void after_end_of_turn();  // only what the format writes after it
  void text(std::string_view text);
  std::string_view content(std::string_view text) const;  // as the format writes it

  const std::vector<ChatPiece>& pieces() const { return pieces_; }

 private:
  bool is_chatml() const { return form_.format->family == ChatFormat::Family::kChatMl; }
  void header(std::string_view role);
  void turn(std::string_view role, std::string_view content);
  void special(std::string_view name);
  void check(const ChatMessage& message, size_t number) const;

  ChatForm form_;
  std::string date_;
  std::vector<ChatPiece> pieces_;
};

/// Names of the special tokens a format needs beside BOS; the first one ends a turn.
std::vector<std::string_view> special_tokens_of(const ChatFormat& format);

}  // namespace paddock
