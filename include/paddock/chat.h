// Rendering of conversations for Llama 3, Llama 3.1/3.2 and ChatML models. No Jinja is executed: a
// model's own template is recognised, and unknown ones are refused by name.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/export.h"
#include "paddock/tokenizer.h"

namespace paddock {

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

/// A chat format. Immutable, thread-safe.
class PADDOCK_API ChatTemplate {
 public:
  /// Error kUnsupported, listing names(), if the model's template is not one of them and none was
  /// named; kInvalidArgument for an unknown name or a vocabulary without the format's tokens.
  ChatTemplate(std::shared_ptr<const Tokenizer> tokenizer, const ChatOptions& options = {});
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  static std::vector<std::string>
  names();  ///< "llama3", "llama3.1", "llama3.2", "chatml", "smollm2"
  const std::string& name() const;

  /// The text of a whole conversation, as Jinja would render the template. Error kInvalidArgument
  /// for a role the format does not have.
  std::string render(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const;

  /// Token ids of the same conversation: special tokens of the format are ids, special-token text
  /// inside a message's content stays plain text. BOS exactly where the format has it.
  std::vector<TokenId> encode(const std::vector<ChatMessage>& messages,
                              bool add_generation_prompt) const;

  /// Ids that follow an assistant's generated answer to bring in the next message: the rest of the
  /// assistant's turn after its end-of-turn token, then `next` and the generation prompt. With
  /// `turn_ended` false (the answer was cut off), the end-of-turn token comes first.
  std::vector<TokenId> encode_next(const ChatMessage& next, bool turn_ended) const;

  /// The token that ends an assistant's turn.
  TokenId end_of_turn() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace paddock
