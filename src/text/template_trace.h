// What a chat template writes for a conversation of system, user and assistant, found by following
// its tree. This is no Jinja engine: it knows just what can be said for every such conversation at
// once. Nothing may depend on the text of a message or on how many there are, only on roles, on
// which message is the first, and on what transformers hands to a template (no tools, no
// documents).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/chat.h"
#include "text/template_syntax.h"

namespace paddock {

struct TemplateInput {
  const std::vector<ChatMessage>& messages;
  bool add_generation_prompt;
  std::string bos;                         // bos_token
  std::optional<std::string> date_string;  // where the host gives one
};

/// What strftime_now(format) writes in a trace.
std::string traced_clock(std::string_view format);

/// nullopt where the template raises an error. Throws UnknownTemplate where it does anything else
/// than what is described above.
std::optional<std::string> trace_template(const std::vector<TemplateNode>& nodes,
                                          const TemplateInput& input);

}  // namespace paddock
