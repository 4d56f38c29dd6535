#include "chat_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace cli {
namespace {

using Json = nlohmann::json;

/// Reads messages; `where_` says where the one at hand stands.
class Reader {
 public:
  explicit Reader(std::string path) : path_(std::move(path)), where_(path_) {}

  std::vector<paddock::ChatMessage> read(const std::string& text) {
    // One value, over as many lines as it likes, or one in each line.
    const Json whole = Json::parse(text, nullptr, false);
    if (whole.is_object() && !whole.contains("messages")) {
      add(whole);
    } else if (!whole.is_discarded()) {
      add_list(whole.is_object() ? whole["messages"] : whole);
    } else {
      add_lines(text);
    }
    if (messages_.empty())
      refuse("has no messages; give a line of JSON with role and content each");
    return std::move(messages_);
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    throw paddock::Error(paddock::ErrorCode::kBadFile, where_ + ": " + why);
  }

  void add_lines(const std::string& text) {
    int64_t n = 0;
    for (size_t begin = 0; begin < text.size(); ++n) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      const std::string line = text.substr(begin, end - begin);
      begin = end + 1;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      where_ = fmt::format("{}, line {}", path_, n + 1);
      const Json json = Json::parse(line, nullptr, false);
      if (json.is_discarded()) refuse("is no JSON; mend the line");
      if (json.is_object() && json.contains("messages")) {
        refuse("a conversation of its own among other lines; give one conversation");
      }
      add(json);
    }
  }

  void add_list(const Json& list) {
    if (!list.is_array()) refuse("\"messages\" is no list; give role and content of each message");
    for (size_t i = 0; i < list.size(); ++i) {
      where_ = fmt::format("{}, message {}", path_, i + 1);
      add(list[i]);
    }
  }

  void add(const Json& message) {
    if (!message.is_object()) refuse("is no object with \"role\" and \"content\"");
    const auto role = message.find("role");
    if (role == message.end() || !role->is_string()) refuse("lacks a \"role\" that is a string");
    const auto content = message.find("content");
    if (content == message.end()) refuse("lacks \"content\"");
    messages_.push_back({role->get<std::string>(), text_of(*content)});
  }

  std::string text_of(const Json& content) const {
    if (content.is_string()) return content.get<std::string>();
    if (!content.is_array()) refuse("\"content\" is neither a string nor a list of texts");
    std::string text;
    for (const Json& part : content) {
      const bool is_text = part.is_object() && part.value("type", "") == "text" &&
                           part.contains("text") && part["text"].is_string();
      if (!is_text) refuse("\"content\" has a part that is no text; leave it out");
      text += part["text"].get<std::string>();
    }
    return text;
  }

  std::string path_, where_;
  std::vector<paddock::ChatMessage> messages_;
};

int64_t common_beginning(const std::vector<paddock::TokenId>& a,
                         const std::vector<paddock::TokenId>& b) {
  const auto end = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return end.first - a.begin();
}

}  // namespace

std::vector<paddock::ChatMessage> parse_chat_log(const std::string& text, const std::string& name) {
  return Reader(name).read(text);
}

std::string chat_log(const std::string& system, const std::vector<paddock::ChatMessage>& said) {
  std::string lines;
  const auto add = [&](const std::string& role, const std::string& content) {
    const nlohmann::ordered_json line = {{"role", role}, {"content", content}};
    // A text may have been cut off within a character.
    lines += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  };
  if (!system.empty()) add("system", system);
  for (const paddock::ChatMessage& message : said) add(message.role, message.content);
  return lines;
}

ChatText encode_chat(const std::vector<paddock::ChatMessage>& messages,
                     const paddock::ChatTemplate& format) {
  ChatText text;
  size_t n = messages.size();
  while (n > 0 && messages[n - 1].role != "assistant") --n;
  text.unanswered = messages.size() - n;
  const std::vector<paddock::ChatMessage> answered(messages.begin(),
                                                   messages.begin() + static_cast<int64_t>(n));
  if (answered.empty()) {
    throw paddock::Error(paddock::ErrorCode::kInvalidArgument,
                         "the conversation has no answers: no message whose role is assistant");
  }
  const std::vector<paddock::TokenId> whole = format.encode(answered, false);
  int64_t end = 0;
  for (size_t i = 0; i < n; ++i) {
    if (answered[i].role != "assistant") continue;
    // What brings the answer in; where its first character joins that in one token, that one is
    // the answer's.
    const std::vector<paddock::TokenId> prompt =
        format.encode({answered.begin(), answered.begin() + static_cast<int64_t>(i)}, true);
    const int64_t prompt_end = std::max(end, common_beginning(whole, prompt));
    const auto stop = std::find(whole.begin() + prompt_end, whole.end(), format.end_of_turn());
    end = std::min<int64_t>(stop - whole.begin() + 1, static_cast<int64_t>(whole.size()));
    text.turns.push_back({prompt_end, end});
  }
  text.tokens.assign(whole.begin(), whole.begin() + end);
  return text;
}

}  // namespace cli
