// The syntax of Jinja templates, as far as chat templates use it, with the settings of transformers
// (trim_blocks, lstrip_blocks). Only a tree is made here; template_trace.h says what it writes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/template_lexer.h"

namespace paddock {

struct TemplateExpression {
  enum class Kind {
    kName,     // text
    kString,   // text, without quotes and escapes
    kInteger,  // text
    kList,     // [parts...]
    kMember,   // parts[0].text, or parts[0]["text"]
    kItem,     // parts[0][parts[1]]
    kTail,     // parts[0][parts[1]:]
    kCall,     // parts[0](parts[1]...)
    kFilter,   // parts[0] | text(parts[1]...)
    kTest,     // parts[0] is text
    kNot,
    kAnd,
    kOr,
    kCompare,  // parts[0] text parts[1]: ==, !=, in
    kJoin,     // parts[0] + parts[1], or ~
    kChoice,   // parts[0] if parts[1] else parts[2]
    kOther,    // well formed, and of no use to plain conversations: never evaluated
  };
  Kind kind = Kind::kOther;
  std::string text{};
  std::vector<TemplateExpression> parts{};
};

struct TemplateNode {
  enum class Kind {
    kText,   // text
    kWrite,  // expressions[0]
    kIf,     // bodies[i] under expressions[i]; one more body is the else
    kFor,    // bodies[0] for each `text` of expressions[0]; empty text: some other loop
    kSet,    // text = expressions[0]; empty text: some other assignment
    kMacro,
  };
  Kind kind;
  std::string text{};
  std::vector<TemplateExpression> expressions{};
  std::vector<std::vector<TemplateNode>> bodies{};
};

/// Throws UnknownTemplate for what is not Jinja, and for tags and forms it does not know.
std::vector<TemplateNode> parse_template(std::string_view jinja);

}  // namespace paddock
