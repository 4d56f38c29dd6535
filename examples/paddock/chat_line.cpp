#include "chat_line.h"

#include <fmt/format.h>

#include <string_view>

namespace cli {
namespace {

struct SlashCommand {
  const char* name;
  const char* argument;  // null: takes none
  const char* does;
};
constexpr SlashCommand kCommands[] = {
    {"stats", nullptr, "what is held, of how much, and what has left"},
    {"kv", nullptr, "the cache, layer by layer"},
    {"policy", "[SPEC]",
     "what each layer keeps; with SPEC the conversation is read again under it"},
    {"why", "[TEXT]", "what became of a text in the cache; without one, of what left last"},
    {"turns", nullptr, "the turns there are, and their tokens"},
    {"drop", "N", "leave a turn out"},
    {"pin", "N", "have rules keep what a turn has in the cache; /unpin N: no longer"},
    {"unpin", "N", ""},
    {"summarise", nullptr, "have the model condense all turns but the newest, and leave them out"},
    {"retry", nullptr, "the last message again: what was refused, or with another answer"},
    {"clear", nullptr, "forget the conversation"},
    {"help", nullptr, "this list"},
    {"quit", nullptr, "end; so does /exit"},
    {"exit", nullptr, ""}};

/// Whether one letter more, less or changed, or two neighbours swapped, make `b` of `a`.
bool nearly(std::string_view a, std::string_view b) {
  while (!a.empty() && !b.empty() && a[0] == b[0]) {
    a.remove_prefix(1);
    b.remove_prefix(1);
  }
  while (!a.empty() && !b.empty() && a.back() == b.back()) {
    a.remove_suffix(1);
    b.remove_suffix(1);
  }
  const bool swapped = a.size() == 2 && b.size() == 2 && a[0] == b[1] && a[1] == b[0];
  return swapped || (a.size() <= 1 && b.size() <= 1);
}

std::string in_small_letters(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

}  // namespace

ChatLine read_chat_line(const std::string& line) {
  if (line.starts_with("//")) return {ChatLine::Kind::kMessage, line.substr(1), ""};
  if (line[0] != '/') return {ChatLine::Kind::kMessage, line, ""};
  const std::string name = line.substr(1, line.find(' ') - 1);
  const size_t argument_at = line.find_first_not_of(' ', name.size() + 1);
  const std::string argument = argument_at == std::string::npos ? "" : line.substr(argument_at);
  const auto refuse = [&](const std::string& why) {
    return ChatLine{ChatLine::Kind::kRefused,
                    fmt::format("{}; a message that begins so is written /{}", why, line), ""};
  };
  for (const SlashCommand& command : kCommands) {
    if (name != command.name) continue;
    if (argument.empty() || command.argument != nullptr) {
      return {ChatLine::Kind::kCommand, name, argument};
    }
    return refuse(fmt::format("/{} takes nothing after it", name));
  }
  const std::string meant = argument.empty() ? in_small_letters(name) : name;
  if (meant == "save" || meant == "load") return refuse(fmt::format("there is no /{} yet", meant));
  if (!argument.empty()) return {ChatLine::Kind::kMessage, line, ""};
  for (const SlashCommand& command : kCommands) {
    if (nearly(meant, command.name)) {
      return refuse(fmt::format("there is no command /{}, but /{}", name, command.name));
    }
  }
  return {ChatLine::Kind::kMessage, line, ""};
}

std::string chat_help() {
  std::string text;
  for (const SlashCommand& command : kCommands) {
    if (*command.does == '\0') continue;
    const std::string form =
        fmt::format("/{} {}", command.name, command.argument != nullptr ? command.argument : "");
    text += fmt::format("{:<15} {}\n", form, command.does);
  }
  return text + "//...           a message that begins with one slash\n";
}

}  // namespace cli
