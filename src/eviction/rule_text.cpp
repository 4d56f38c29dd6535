#include "eviction/rule_text.h"

#include <charconv>
#include <limits>

#include "core/fail.h"

namespace paddock {
namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

int64_t parse_number(std::string_view rule, std::string_view text, int64_t least, int64_t most,
                     const char* what) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    fail(ErrorCode::kInvalidArgument, "policy rule '{}': '{}' is not {} from {} to {}", rule, text,
         what, least, most);
  }
  return value;
}

void parse_option(ParsedRule& rule, std::string_view option) {
  const size_t colon = option.find(':');
  const std::string_view name = option.substr(0, colon);
  const bool has_value = colon != std::string_view::npos;
  const std::string_view value = has_value ? option.substr(colon + 1) : std::string_view();
  const auto once = [&](bool given) {
    if (!given) return;
    fail(ErrorCode::kInvalidArgument, "policy rule '{}': '@{}' is given twice; leave one out",
         rule.text, name);
  };
  const auto set = [&](std::optional<int32_t>& to) {
    once(to.has_value());
    to = parse_tokens(rule.text, value);
  };
  if (option == "original" || option == "compact") {
    if (rule.positions) {
      fail(ErrorCode::kInvalidArgument,
           "policy rule '{}': give @original or @compact, and only once", rule.text);
    }
    rule.positions = option == "compact" ? Positions::kCompact : Positions::kOriginal;
  } else if (name == "every" && has_value) {
    set(rule.every);
  } else if (name == "sinks" && has_value) {
    set(rule.sinks);
  } else if (name == "recent" && has_value) {
    set(rule.recent);
  } else if (name == "min" && has_value) {
    once(rule.least.has_value());
    rule.least = static_cast<int32_t>(
        parse_number(rule.text, value, 1, kUnlimited - 1, "a number of positions"));
  } else if (name == "seed" && has_value) {
    once(rule.seed.has_value());
    rule.seed = parse_number(rule.text, value, 0, std::numeric_limits<int64_t>::max(), "a seed");
  } else {
    fail(ErrorCode::kInvalidArgument,
         "policy rule '{}': '@{}' is not an option here; there are @original and @compact, and "
         "for rules that trim by score @every:N, @sinks:N and @recent:N, for random @seed:N, for "
         "rules without a budget @min:N and @every:N",
         rule.text, option);
  }
}

}  // namespace

int32_t parse_tokens(std::string_view rule, std::string_view text) {
  return static_cast<int32_t>(parse_number(rule, text, 1, kUnlimited, "a number of tokens"));
}

ParsedRule parse_rule(std::string_view text) {
  ParsedRule rule;
  rule.text = text;
  const std::vector<std::string_view> parts = split(text, '@');
  for (size_t i = 1; i < parts.size(); ++i) parse_option(rule, parts[i]);
  const std::string_view head = parts[0];
  const size_t colon = head.find(':');
  rule.name = head.substr(0, colon);
  rule.has_tail = colon != std::string_view::npos;
  if (rule.has_tail) rule.tail = head.substr(colon + 1);
  return rule;
}

void parse_arguments(ParsedRule& rule, size_t n, const char* form) {
  if (!rule.tail.empty() || rule.text.find(':') == rule.name.size()) {
    for (const std::string_view argument : split(rule.tail, '+')) {
      rule.arguments.push_back(parse_tokens(rule.text, argument));
    }
  }
  if (rule.arguments.size() != n) {
    fail(ErrorCode::kInvalidArgument, "policy rule '{}' has {} argument{}; write it as {}",
         rule.text, rule.arguments.size(), rule.arguments.size() == 1 ? "" : "s", form);
  }
}

}  // namespace paddock
