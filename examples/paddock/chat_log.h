// A conversation that somebody had, from a file.
#pragma once

#include <paddock/paddock.h>

#include <string>
#include <vector>

namespace cli {

/// Messages of such a file's text: a line of JSON with "role" and "content" for each, or one object
/// with such a list as OpenAI's "messages" (or the list alone). Content may be a list of {"type":
/// "text", "text": ...}. Error kBadFile with `name`, the line or the message, and the fix.
std::vector<paddock::ChatMessage> parse_chat_log(const std::string& text, const std::string& name);

/// The text of such a file: the system message, where there is one, and what was said.
std::string chat_log(const std::string& system, const std::vector<paddock::ChatMessage>& said);

/// Its tokens, as chat would have them in the cache.
struct ChatText {
  std::vector<paddock::TokenId> tokens;
  /// One for each answer: it ends behind the token that ends turns.
  std::vector<paddock::CompareTurn> turns;
  size_t unanswered = 0;  // messages behind the last answer, which are left out
};

/// Error kInvalidArgument where nobody answers, or for a role that the format lacks.
ChatText encode_chat(const std::vector<paddock::ChatMessage>& messages,
                     const paddock::ChatTemplate& format);

}  // namespace cli
