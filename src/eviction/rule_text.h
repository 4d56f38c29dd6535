// One RULE taken apart: NAME[:ARG[+ARG...]][@OPTION...]. Which names there are, and which arguments
// and options go with them, the registry knows. What is no RULE at all, or a number out of range,
// is an Error kInvalidArgument.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "paddock/eviction.h"

namespace paddock {

struct ParsedRule {
  std::string_view text, name;
  bool has_tail = false;           // whether NAME is followed by a colon
  std::string_view tail;           // what follows that, up to the options
  std::vector<int32_t> arguments;  // of the tail, once parse_arguments() has read it
  std::optional<Positions> positions;
  std::optional<int32_t> every, sinks, recent, least;
  std::optional<int64_t> seed;
};

/// Name, tail and options.
ParsedRule parse_rule(std::string_view text);
/// The tail as numbers of tokens; there must be `n` of them. `form`: how the rule is written.
void parse_arguments(ParsedRule& rule, size_t n, const char* form);
/// One such number; `rule`: what it is a part of.
int32_t parse_tokens(std::string_view rule, std::string_view text);

}  // namespace paddock
