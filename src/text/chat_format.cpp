#include "text/chat_format.h"

#include "core/fail.h"
#include "core/utf8.h"
#include "text/template_trace.h"
#include "text/vocabulary.h"

namespace paddock {
namespace {

using Family = ChatFormat::Family;
using Bos = ChatFormat::Bos;

constexpr ChatFormat kFormats[] = {
    {"llama3", Family::kLlama3, Bos::kWithMessages},
    {"llama3.1", Family::kLlama3, Bos::kAlways, ChatFormat::Date::kFixed},
    {"llama3.2", Family::kLlama3, Bos::kAlways, ChatFormat::Date::kToday},
    {"chatml", Family::kChatMl},
    {"chatml-bos", Family::kChatMl, Bos::kAlways},
    {"hermes3", Family::kChatMl, Bos::kAlways, ChatFormat::Date::kNone,
     "You are a helpful assistant."},
    {"smollm2", Family::kChatMl, Bos::kNever, ChatFormat::Date::kNone,
     "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
    {"qwen1.5", Family::kChatMl, Bos::kNever, ChatFormat::Date::kNone,
     "You are a helpful assistant"},
    {"qwen2", Family::kChatMl, Bos::kNever, ChatFormat::Date::kNone,
     "You are a helpful assistant."},
    {"qwen2.5", Family::kChatMl, Bos::kNever, ChatFormat::Date::kNone,
     "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
};

constexpr std::string_view kRoles[] = {"system", "user", "assistant"};
constexpr const char* kProbeDate = "\x01 date \x01";

// Conversations that show all that a template can do which asks for nothing but roles and the first
// message: none, and every order of roles up to three (the third message stands for all later
// ones).
std::vector<std::vector<ChatMessage>> probes() {
  std::vector<std::vector<ChatMessage>> all = {{}};
  for (size_t i = 0; all[i].size() < 3; ++i) {
    for (const std::string_view role : kRoles) {
      auto longer = all[i];
      longer.push_back({std::string(role), fmt::format("\t \x01{}\x01\n ", longer.size())});
      all.push_back(std::move(longer));
    }
  }
  return all;
}

// What one side writes for one probe; nullopt: an error.
using Writes = std::optional<std::string>;

Writes written(const ChatForm& form, std::string_view date, std::string_view bos,
               const std::vector<ChatMessage>& messages, bool prompt) {
  if (messages.empty() && form.needs_message) return std::nullopt;
  ChatScript script(form, date);
  script.conversation(messages, prompt);
  std::string text;
  for (const ChatPiece& piece : script.pieces()) {
    text += piece.kind == ChatPiece::Kind::kBos ? bos : piece.text;
  }
  return text;
}

// Calls test(messages, prompt, date_string) for all that is asked; false where it is once.
template <typename Test>
bool holds_for_all(const std::vector<std::vector<ChatMessage>>& conversations, Test test) {
  const std::optional<std::string> given = kProbeDate;
  for (const auto& messages : conversations) {
    for (const bool prompt : {false, true}) {
      for (const std::optional<std::string>& date : {std::optional<std::string>(), given}) {
        if (!test(messages, prompt, date)) return false;
      }
    }
  }
  return true;
}

// The ways in which published templates of one format differ.
std::vector<ChatForm> forms_of(const ChatFormat& format, bool needs_message) {
  std::vector<ChatForm> forms;
  for (const bool always_prompts : {false, true}) {
    for (const Bos bos : {Bos::kNever, Bos::kWithMessages, Bos::kAlways}) {
      if (bos != format.bos && format.family != Family::kLlama3) continue;
      forms.push_back({&format, bos, always_prompts, needs_message});
    }
  }
  return forms;
}

}  // namespace

std::span<const ChatFormat> chat_formats() { return kFormats; }

ChatForm form_of(const ChatFormat& format) {
  return {&format, format.bos, false, format.date != ChatFormat::Date::kNone};
}

std::optional<ChatForm> recognise_chat_template(std::string_view jinja, std::string_view bos) {
  if (jinja.find('\x01') != std::string_view::npos) return std::nullopt;  // our own marks
  const auto conversations = probes();
  std::vector<Writes> writes;
  try {
    const auto nodes = parse_template(jinja);
    holds_for_all(conversations, [&](const auto& messages, bool prompt, const auto& date) {
      writes.push_back(trace_template(nodes, {messages, prompt, std::string(bos), date}));
      return true;
    });
  } catch (const UnknownTemplate&) {
    return std::nullopt;
  }
  for (const ChatFormat& format : kFormats) {
    const std::string own_date =
        format.date == ChatFormat::Date::kToday ? traced_clock("%d %b %Y") : kFixedDate;
    for (const ChatForm& form : forms_of(format, !writes.front())) {
      size_t i = 0;
      if (holds_for_all(conversations, [&](const auto& messages, bool prompt, const auto& date) {
            return written(form, date.value_or(own_date), bos, messages, prompt) == writes[i++];
          })) {
        return form;
      }
    }
  }
  return std::nullopt;
}

std::vector<std::string_view> special_tokens_of(const ChatFormat& format) {
  if (format.family == Family::kChatMl) return {"<|im_end|>", "<|im_start|>"};
  return {"<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"};
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
  special(special_tokens_of(*form_.format).front());
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
  return is_chatml() ? text : trim_spaces(text);
}

void ChatScript::check(const ChatMessage& message, size_t number) const {
  const std::string which = number == 0 ? fmt::format("the {} message", message.role)
                                        : fmt::format("message {} ({})", number, message.role);
  if (message.role != "system" && message.role != "user" && message.role != "assistant") {
    fail(ErrorCode::kInvalidArgument,
         "chat template {} has no role {}{}; it has \"system\", \"user\" and \"assistant\"",
         form_.format->name, quote(message.role),
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

void ChatScript::conversation(const std::vector<ChatMessage>& messages, bool prompt) {
  const ChatFormat& format = *form_.format;
  const bool system_first = !messages.empty() && messages.front().role == "system";
  if (messages.empty() && form_.needs_message) {
    fail(ErrorCode::kInvalidArgument, "chat template {} needs at least one message", format.name);
  }
  if (form_.bos == Bos::kAlways || (form_.bos == Bos::kWithMessages && !messages.empty())) {
    pieces_.push_back({ChatPiece::Kind::kBos, {}});
  }
  size_t next = 0;
  if (format.date != ChatFormat::Date::kNone) {
    header("system");
    text(fmt::format("Cutting Knowledge Date: December 2023\nToday Date: {}\n\n", date_));
    if (system_first) {
      check(messages[0], 1);
      text(content(messages[next++].content));
    }
    end_of_turn();
  } else if (!format.default_system.empty() && !messages.empty() && !system_first) {
    turn("system", format.default_system);
  }
  for (; next < messages.size(); ++next) message(messages[next], next + 1);
  if (prompt || form_.always_prompts) generation_prompt();
}

}  // namespace paddock
