// What somebody types in a chat: a message, or a command.
#pragma once

#include <string>

namespace cli {

struct ChatLine {
  enum class Kind { kMessage, kCommand, kRefused } kind = Kind::kMessage;
  std::string text;      // the message, the command's name, or why it is refused
  std::string argument;  // of a command
};

/// A line that begins with a slash is a command if it names one, and a message otherwise: "//"
/// makes it one in any case. A single word that nearly names a command, or does in capitals, is
/// neither.
ChatLine read_chat_line(const std::string& line);

/// The list of commands, one a line.
std::string chat_help();

}  // namespace cli
