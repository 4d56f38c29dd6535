// The tokens of a Jinja template, as its lexer makes them with trim_blocks and lstrip_blocks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace paddock {

/// Thrown for whatever is not understood exactly; the template is then not recognised.
struct UnknownTemplate {};

struct TemplateToken {
  // kWrite and kTag open a {{ }} and a {% %}, kClose ends either.
  enum class Kind { kText, kWrite, kTag, kClose, kName, kString, kInteger, kFloat, kSymbol, kEnd };
  Kind kind;
  std::string text{};
};

/// Always ends with kEnd. Throws UnknownTemplate for what is not Jinja, and for long ones.
std::vector<TemplateToken> template_tokens(std::string_view jinja);

}  // namespace paddock
