// ChatTemplate: a format together with the tokenizer that has its special tokens.
#include <algorithm>
#include <new>
#include <utility>

#include "core/fail.h"
#include "core/names.h"
#include "core/utf8.h"
#include "paddock/chat.h"
#include "paddock/engine.h"
#include "text/chat_format.h"
#include "text/vocabulary.h"

namespace paddock {
namespace {

std::string all_names() {
  std::string list;
  for (const ChatFormat& format : chat_formats()) {
    if (!list.empty()) list += ", ";
    list += format.name;
  }
  return list;
}

constexpr std::string_view kLlama3Bos = "<|begin_of_text|>";

ChatForm choose_form(const Tokenizer& tokenizer, const std::string& name) {
  if (!name.empty()) {
    for (const ChatFormat& format : chat_formats()) {
      if (name == format.name) return form_of(format);
    }
    fail(ErrorCode::kInvalidArgument, "there is no chat template {}; there are {}", quote(name),
         all_names());
  }
  const std::string& jinja = tokenizer.chat_template();
  if (jinja.empty()) {
    fail(ErrorCode::kUnsupported,
         "the model has no chat template; set ChatOptions::template_name to one of {}",
         all_names());
  }
  const auto bos = tokenizer.bos();
  const auto form = recognise_chat_template(jinja, bos ? tokenizer.token_bytes(*bos) : kLlama3Bos);
  if (!form) {
    fail(ErrorCode::kUnsupported,
         "the model's chat template writes something else than those the library knows; set "
         "ChatOptions::template_name to the nearest of {}",
         all_names());
  }
  return *form;
}

// How much of an answer stays in a session.
struct Kept {
  size_t tokens = 0;
  size_t bytes = 0;  // of its content that they spell
};

// As many tokens as spell the beginning of `content`, up to a whole character.
Kept kept_of(const Tokenizer& tokenizer, std::span<const TokenId> tokens,
             std::string_view content) {
  Kept kept;
  size_t bytes = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string_view spelled = tokenizer.token_bytes(tokens[i]);
    if (tokenizer.is_special(tokens[i]) || !content.substr(bytes).starts_with(spelled)) break;
    bytes += spelled.size();
    if (bytes == content.size() || (content[bytes] & 0xC0) != 0x80) kept = {i + 1, bytes};
  }
  return kept;
}

}  // namespace

struct ChatTemplate::Impl {
  std::shared_ptr<const Tokenizer> tokenizer;
  ChatForm form;
  std::string name;
  std::string date;
  std::optional<TokenId> bos;

  TokenId special(std::string_view text) const {
    const auto id = tokenizer->find(text);
    if (!id || !tokenizer->is_special(*id)) {
      fail(ErrorCode::kInvalidArgument,
           "chat template {} needs the special token {}, which the vocabulary lacks", name, text);
    }
    return *id;
  }

  ChatScript script(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const {
    ChatScript script(form, date);
    script.conversation(messages, add_generation_prompt);
    return script;
  }

  std::vector<TokenId> encode(const ChatScript& script) const {
    std::vector<TokenId> ids;
    for (const ChatPiece& piece : script.pieces()) {
      switch (piece.kind) {
        case ChatPiece::Kind::kBos:
          ids.push_back(*bos);
          break;
        case ChatPiece::Kind::kSpecial:
          ids.push_back(special(piece.text));
          break;
        case ChatPiece::Kind::kText: {
          const auto text = tokenizer->encode(piece.text);
          ids.insert(ids.end(), text.begin(), text.end());
          break;
        }
      }
    }
    return ids;
  }
};

ChatTemplate::ChatTemplate(std::shared_ptr<const Tokenizer> tokenizer,
                           const ChatOptions& options) try
    : impl_(std::make_unique<Impl>()) {
  if (tokenizer == nullptr) fail(ErrorCode::kInvalidArgument, "ChatTemplate: no tokenizer");
  impl_->form = choose_form(*tokenizer, options.template_name);
  const ChatFormat& format = *impl_->form.format;
  impl_->name = format.name;
  impl_->date = options.date;
  impl_->tokenizer = std::move(tokenizer);
  for (const std::string_view text : special_tokens_of(format)) impl_->special(text);
  if (format.bos != ChatFormat::Bos::kNever) {
    impl_->bos = impl_->tokenizer->bos();
    if (!impl_->bos) impl_->bos = impl_->special(kLlama3Bos);
  }
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::vector<std::string> ChatTemplate::names() { return names_of(chat_formats()); }

const std::string& ChatTemplate::name() const { return impl_->name; }

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt) const try {
  std::string text;
  const ChatScript script = impl_->script(messages, add_generation_prompt);
  for (const ChatPiece& piece : script.pieces()) {
    if (piece.kind == ChatPiece::Kind::kBos) {
      text += impl_->tokenizer->token_bytes(*impl_->bos);
    } else {
      text += piece.text;
    }
  }
  return text;
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

std::vector<TokenId> ChatTemplate::encode(const std::vector<ChatMessage>& messages,
                                          bool add_generation_prompt) const try {
  std::vector<TokenId> ids = impl_->encode(impl_->script(messages, add_generation_prompt));
  // A template that leaves BOS to the tokenizer.
  if (impl_->bos && impl_->form.bos == ChatFormat::Bos::kNever && impl_->tokenizer->adds_bos()) {
    ids.insert(ids.begin(), *impl_->bos);
  }
  return ids;
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

ChatTurn ChatTemplate::next_turn(const ChatMessage& next, const GenerateResult& answer) const try {
  ChatScript script(impl_->form, impl_->date);
  const std::string_view content = script.content(answer.text);
  const Kept kept = kept_of(*impl_->tokenizer, answer.tokens, content);
  const bool whole = kept.tokens == answer.tokens.size() && kept.bytes == content.size();
  ChatTurn turn;
  if (whole && answer.stop_token == end_of_turn()) {
    script.after_end_of_turn();
  } else {
    turn.take_back =
        static_cast<int64_t>(answer.tokens.size() - kept.tokens) + (answer.stop_token ? 1 : 0);
    script.text(content.substr(kept.bytes));
    script.end_of_turn();
  }
  script.message(next);
  script.generation_prompt();
  turn.tokens = impl_->encode(script);
  return turn;
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

TokenId ChatTemplate::end_of_turn() const try {
  return impl_->special(special_tokens_of(*impl_->form.format).front());
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

}  // namespace paddock
