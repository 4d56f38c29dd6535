// Rendering of conversations for Llama 3 and ChatML models. No Jinja is executed: a model's own
// template is recognised if it is certain to write the same, and refused otherwise.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/export.h"
#include "paddock/tokenizer.h"

namespace paddock {

struct GenerateResult;  // paddock/engine.h

struct ChatMessage {
  std::string role;  ///< "system", "user" or "assistant"
  std::string content;
};

struct ChatOptions {
  /// Name of a template, or empty to recognise the model's own. See ChatTemplate::names().
  std::string template_name{};
  /// "Today Date" of the Llama 3.1/3.2 templates. Fixed by default, so that prompts repeat exactly.
  std::string date = "26 Jul 2024";
};

/// How a session goes on after an answer.
struct ChatTurn {
  /// Positions at the session's end that the format would not have written (another stop token than
  /// its end of turn, a stop string): Engine::truncate() takes them back before `tokens` are fed.
  int64_t take_back = 0;
  std::vector<TokenId> tokens;
};

/// A chat format. Immutable, thread-safe.
class PADDOCK_API ChatTemplate {
 public:
  /// Error kUnsupported, listing names(), if the model's template does not write what one of them
  /// writes, for every conversation of system, user and assistant, and none was named;
  /// kInvalidArgument for an unknown name or a vocabulary without the format's tokens.
  ChatTemplate(std::shared_ptr<const Tokenizer> tokenizer, const ChatOptions& options = {});
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  /// "llama3", "llama3.1", "llama3.2", "chatml", "chatml-bos" (ChatML after BOS), and ChatML with a
  /// system message of its own where there is none: "hermes3", "smollm2", "qwen1.5", "qwen2",
  /// "qwen2.5".
  static std::vector<std::string> names();
  const std::string& name() const;

  /// The text of a whole conversation, as Jinja would render the template. Error kInvalidArgument
  /// for a role the format does not have, and for content that is not valid UTF-8: with the number
  /// of the message, counted from 1, and the byte's offset in its content.
  std::string render(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const;

  /// Token ids of the same conversation: special tokens of the format are ids, special-token text
  /// inside a message's content stays plain text. BOS exactly where the format has it.
  std::vector<TokenId> encode(const std::vector<ChatMessage>& messages,
                              bool add_generation_prompt) const;

  /// What follows `answer`, generated in a session and not followed by anything there yet, to bring
  /// in the next message: however the answer ended, the session then holds what encode() gives for
  /// the whole conversation with `answer.text` in it (the tokens of which stay as generated):
  ///   const auto turn = chat.next_turn({"user", text}, answer);
  ///   engine.truncate(session, engine.session_length(session) - turn.take_back);
  ///   answer = engine.generate(session, turn.tokens);
  /// Where truncate() refuses, because a rule has dropped what it would bring back, close the
  /// session and feed encode() of the whole conversation to a new one. Errors as of encode().
  ChatTurn next_turn(const ChatMessage& next, const GenerateResult& answer) const;

  /// The token that ends an assistant's turn.
  TokenId end_of_turn() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace paddock
