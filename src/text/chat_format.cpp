#include "text/chat_format.h"

#include <algorithm>

#include "core/fail.h"
#include "text/utf8.h"
#include "text/vocabulary.h"

namespace paddock {
namespace {

constexpr std::string_view kSmolLm2System =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

// What Python's str.strip() removes, which Jinja's trim filter calls.
bool is_python_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::string_view trim(std::string_view text) {
  const auto space_at = [&](size_t i) -> size_t {  // its length, 0 if none begins there
    const Utf8Char c = next_utf8(text.substr(i));
    return c.state == Utf8Char::State::kValid && is_python_space(c.code) ? c.length : 0;
  };
  while (!text.empty()) {
    const size_t n = space_at(0);
    if (n == 0) break;
    text.remove_prefix(n);
  }
  while (!text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && text.size() - start < 4 && (text[start] & 0xC0) == 0x80) --start;
    if (space_at(start) != text.size() - start) break;
    text = text.substr(0, start);
  }
  return text;
}

// A template reduced to what it writes: the contents of its tags without white space and operators,
// where string literals have lost their quotes and x.role is written x[role]. nullopt if it writes
// text outside of tags as well (trim_blocks and lstrip_blocks set, as transformers does).
class Reducer {
 public:
  explicit Reducer(std::string_view jinja) : rest_(jinja) {
    if (rest_.ends_with('\n')) rest_.remove_suffix(1);
  }

  std::optional<std::string> run() {
    while (!rest_.empty()) {
      size_t begin = 0;
      while (begin < rest_.size() && !is_tag(begin)) ++begin;
      literal(rest_.substr(0, begin), begin);
      rest_.remove_prefix(begin);
      if (rest_.empty()) break;
      const char kind = rest_[1];
      rest_.remove_prefix(2);
      if (kind == '#') {
        const size_t end = rest_.find("#}");
        strip_ = end != std::string_view::npos && end > 0 && rest_[end - 1] == '-';
        rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 2);
      } else {
        tag();
      }
      trim_newline_ = kind != '{';
    }
    if (literal_) return std::nullopt;
    return std::move(out_);
  }

 private:
  static constexpr std::string_view kSpaces = " \t\r\n";

  bool is_tag(size_t i) const {
    return rest_[i] == '{' && i + 1 < rest_.size() &&
           (rest_[i + 1] == '{' || rest_[i + 1] == '%' || rest_[i + 1] == '#');
  }

  // Literal text, followed by the tag at `next` if that is inside of rest_.
  void literal(std::string_view text, size_t next) {
    bool line_start = at_start_;
    if (strip_) {
      text.remove_prefix(std::min(text.size(), text.find_first_not_of(kSpaces)));
    } else if (trim_newline_ && text.starts_with('\n')) {
      text.remove_prefix(1);
      line_start = true;
    }
    if (next + 2 < rest_.size()) {
      const bool strips = rest_[next + 2] == '-';
      const size_t last = text.find_last_not_of(strips ? kSpaces : " \t");
      const size_t keep = last == std::string_view::npos ? 0 : last + 1;
      if (strips) {
        text = text.substr(0, keep);
      } else if (rest_[next + 1] != '{' && (keep == 0 ? line_start : text[keep - 1] == '\n')) {
        text = text.substr(0, keep);
      }
    }
    literal_ = literal_ || !text.empty();
    at_start_ = false;
  }

  // The contents of a {{ }} or {% %}, whose beginning has been read, and its end.
  void tag() {
    char quote = 0, before = 0;
    while (!rest_.empty()) {
      const char c = rest_[0];
      const char next = rest_.size() > 1 ? rest_[1] : '\0';
      size_t read = 1;
      if (quote != 0) {
        if (c == '\\' && next == 'n') {
          out_ += '\n';
          read = 2;
        } else if (c == '\\') {
          out_ += rest_.substr(0, 2);
          read = std::min<size_t>(2, rest_.size());
        } else if (c == quote) {
          quote = 0;
        } else {
          out_ += c;
        }
      } else if ((c == '}' || c == '%') && next == '}') {
        strip_ = before == '-';
        rest_.remove_prefix(2);
        return;
      } else if (c == '\'' || c == '"') {
        quote = c;
      } else if (rest_.starts_with(".role")) {
        out_ += "[role]";
        read = 5;
      } else if (rest_.starts_with(".content")) {
        out_ += "[content]";
        read = 8;
      } else if (kSpaces.find(c) == std::string_view::npos && c != '+' && c != '~' && c != '-') {
        out_ += c;
      }
      before = c;
      rest_.remove_prefix(read);
    }
  }

  std::string_view rest_;
  std::string out_;
  bool strip_ = false;         // the last tag swallows the white space after it
  bool trim_newline_ = false;  // the last tag swallows a line's end
  bool at_start_ = true;
  bool literal_ = false;  // text outside of tags has been found
};

int occurrences(std::string_view text, std::string_view what) {
  int n = 0;
  for (size_t at = text.find(what); at != std::string_view::npos;
       at = text.find(what, at + what.size())) {
    ++n;
  }
  return n;
}

// For the Llama formats, which all begin with BOS. Some files leave it out of the template, because
// the tokenizer adds it.
bool bos_comes_first(std::string_view reduced) {
  const int mentions =
      occurrences(reduced, "bos_token") + occurrences(reduced, "<|begin_of_text|>");
  if (mentions == 0) return true;
  if (mentions > 1) return false;
  for (const std::string_view bos : {"bos_token", "<|begin_of_text|>"}) {
    if (reduced.starts_with(bos)) return true;
    if (occurrences(reduced, fmt::format("ifloop.first{}endif", bos)) == 1 ||
        occurrences(reduced, fmt::format("ifloop.index0==0setcontent={}contentendif", bos)) == 1) {
      return true;
    }
  }
  return false;
}

}  // namespace

const char* chat_format_name(ChatFormat format) {
  switch (format) {
    case ChatFormat::kLlama3:
      return "llama3";
    case ChatFormat::kLlama31:
      return "llama3.1";
    case ChatFormat::kLlama32:
      return "llama3.2";
    case ChatFormat::kChatMl:
      return "chatml";
    case ChatFormat::kSmolLm2:
      return "smollm2";
  }
  return "unknown";
}

std::optional<ChatFormat> recognise_chat_template(std::string_view jinja) {
  const auto reduced = Reducer(jinja).run();
  if (!reduced) return std::nullopt;
  const auto has = [&](std::string_view what) { return reduced->find(what) != std::string::npos; };

  if (has("<|start_header_id|>message[role]<|end_header_id|>\n\nmessage[content]|trim<|eot_id|>") &&
      has("<|start_header_id|>assistant<|end_header_id|>\n\n") && bos_comes_first(*reduced)) {
    const std::string_view dated = "Cutting Knowledge Date: December 2023\nToday Date: ";
    if (!has("system") && !has("tool") && !has("Date")) return ChatFormat::kLlama3;
    // Fine-tuned models have default system messages here, or a date with tools only.
    if ((has(fmt::format("endif{}", dated)) ||
         has(fmt::format("<|end_header_id|>\n\n{}", dated))) &&
        has("setsystem_message=messages[0][content]|trim") && has("elsesetsystem_message=endif") &&
        has("system_message<|eot_id|>") && !has("think")) {
      return has("strftime_now") ? ChatFormat::kLlama32 : ChatFormat::kLlama31;
    }
    return std::nullopt;
  }

  // The original ChatML treats all roles alike; most of its children add defaults, tools or
  // thoughts.
  if (has("<|im_start|>message[role]\nmessage[content]<|im_end|>\n") &&
      has("ifadd_generation_prompt<|im_start|>assistant\nendif") && !has("bos_token") &&
      !has("eos_token") && !has("tool") && !has("think")) {
    const int systems = occurrences(*reduced, "system");
    if (systems == 0) return ChatFormat::kChatMl;
    if (systems == 2 && has("ifloop.firstandmessages[0][role]!=system") &&
        has(fmt::format("<|im_start|>system\n{}<|im_end|>\n", kSmolLm2System))) {
      return ChatFormat::kSmolLm2;
    }
  }
  return std::nullopt;
}

std::vector<std::string_view> special_tokens_of(ChatFormat format) {
  switch (format) {
    case ChatFormat::kLlama3:
    case ChatFormat::kLlama31:
    case ChatFormat::kLlama32:
      return {"<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"};
    case ChatFormat::kChatMl:
    case ChatFormat::kSmolLm2:
      return {"<|im_end|>", "<|im_start|>"};
  }
  return {};
}

bool begins_with_bos(ChatFormat format) {
  return format != ChatFormat::kChatMl && format != ChatFormat::kSmolLm2;
}

void ChatScript::special(std::string_view name) {
  pieces_.push_back({ChatPiece::Kind::kSpecial, std::string(name)});
}

void ChatScript::text(std::string_view text) {
  if (text.empty()) return;
  if (pieces_.empty() || pieces_.back().kind != ChatPiece::Kind::kText) {
    pieces_.push_back({ChatPiece::Kind::kText, {}});
  }
  pieces_.back().text += text;
}

void ChatScript::header(std::string_view role) {
  if (is_chatml()) {
    special("<|im_start|>");
    text(role);
    text("\n");
  } else {
    special("<|start_header_id|>");
    text(role);
    special("<|end_header_id|>");
    text("\n\n");
  }
}

void ChatScript::end_of_turn() {
  special(special_tokens_of(format_).front());
  after_end_of_turn();
}

void ChatScript::after_end_of_turn() {
  if (is_chatml()) text("\n");
}

void ChatScript::turn(std::string_view role, std::string_view content) {
  header(role);
  text(this->content(content));
  end_of_turn();
}

std::string_view ChatScript::content(std::string_view text) const {
  return is_chatml() ? text : trim(text);
}

void ChatScript::check(const ChatMessage& message, size_t number) const {
  const std::string which = number == 0 ? fmt::format("the {} message", message.role)
                                        : fmt::format("message {} ({})", number, message.role);
  if (message.role != "system" && message.role != "user" && message.role != "assistant") {
    fail(ErrorCode::kInvalidArgument,
         "chat template {} has no role {}{}; it has \"system\", \"user\" and \"assistant\"",
         chat_format_name(format_), quote(message.role),
         number == 0 ? "" : fmt::format(", which message {} has", number));
  }
  if (const size_t bad = find_invalid_utf8(message.content); bad != std::string_view::npos) {
    fail(ErrorCode::kInvalidArgument, "{} is not valid UTF-8 at byte {} of its content", which,
         bad);
  }
}

void ChatScript::message(const ChatMessage& message, size_t number) {
  check(message, number);
  turn(message.role, message.content);
}

void ChatScript::conversation(const std::vector<ChatMessage>& messages) {
  const bool system_first = !messages.empty() && messages.front().role == "system";
  size_t next = 0;
  if (format_ == ChatFormat::kLlama31 || format_ == ChatFormat::kLlama32) {
    if (messages.empty()) {
      fail(ErrorCode::kInvalidArgument, "chat template {} needs at least one message",
           chat_format_name(format_));
    }
    pieces_.push_back({ChatPiece::Kind::kBos, {}});
    header("system");
    text(fmt::format("Cutting Knowledge Date: December 2023\nToday Date: {}\n\n", date_));
    if (system_first) {
      check(messages[0], 1);
      text(content(messages[next++].content));
    }
    end_of_turn();
  } else if (format_ == ChatFormat::kLlama3) {
    if (!messages.empty()) pieces_.push_back({ChatPiece::Kind::kBos, {}});
  } else if (format_ == ChatFormat::kSmolLm2 && !messages.empty() && !system_first) {
    turn("system", kSmolLm2System);
  }
  for (; next < messages.size(); ++next) message(messages[next], next + 1);
}

}  // namespace paddock
