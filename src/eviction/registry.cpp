// The built-in policies by name, and the parser of one RULE: NAME[:ARG[+ARG...]][@OPTION...].
#include <charconv>
#include <optional>
#include <vector>

#include "core/fail.h"
#include "eviction/rules.h"

namespace paddock {

EvictionPolicy::~EvictionPolicy() = default;

namespace {

struct ParsedRule {
  std::string_view text, name;
  std::vector<int32_t> arguments;
  std::optional<Positions> positions;
};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

int32_t parse_argument(std::string_view rule, std::string_view text) {
  int32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1) {
    fail(ErrorCode::kInvalidArgument,
         "policy rule '{}': '{}' is not a number of tokens from 1 to 2147483647", rule, text);
  }
  return value;
}

ParsedRule parse(std::string_view text) {
  ParsedRule rule;
  rule.text = text;
  std::vector<std::string_view> parts = split(text, '@');
  const std::string_view head = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) {
    if (parts[i] == "original" && !rule.positions) {
      rule.positions = Positions::kOriginal;
    } else if (parts[i] == "compact" && !rule.positions) {
      rule.positions = Positions::kCompact;
    } else if (parts[i].starts_with("every")) {
      fail(ErrorCode::kInvalidArgument,
           "policy rule '{}': '@{}' is for rules that trim by score; leave it out", text, parts[i]);
    } else {
      fail(ErrorCode::kInvalidArgument,
           "policy rule '{}': '@{}' is not an option here; use @original or @compact, once", text,
           parts[i]);
    }
  }
  const size_t colon = head.find(':');
  rule.name = head.substr(0, colon);
  if (colon != std::string_view::npos) {
    for (const std::string_view argument : split(head.substr(colon + 1), '+')) {
      rule.arguments.push_back(parse_argument(text, argument));
    }
  }
  return rule;
}

void expect_arguments(const ParsedRule& rule, size_t n, const char* form) {
  if (rule.arguments.size() != n) {
    fail(ErrorCode::kInvalidArgument, "policy rule '{}' has {} arguments; write it as {}",
         rule.text, rule.arguments.size(), form);
  }
}

std::shared_ptr<const EvictionPolicy> full_rule(const ParsedRule& rule) {
  expect_arguments(rule, 0, "full");
  return make_full();
}

std::shared_ptr<const EvictionPolicy> window_rule(const ParsedRule& rule) {
  expect_arguments(rule, 1, "window:W");
  return make_window(rule.arguments[0], rule.positions.value_or(Positions::kOriginal));
}

std::shared_ptr<const EvictionPolicy> sink_rule(const ParsedRule& rule) {
  expect_arguments(rule, 2, "sink:S+W");
  const int64_t sum = int64_t{rule.arguments[0]} + rule.arguments[1];
  if (sum >= kUnlimited) {
    fail(ErrorCode::kInvalidArgument, "policy rule '{}': S + W is {}; it must be below {}",
         rule.text, sum, kUnlimited);
  }
  return make_sink(rule.arguments[0], rule.arguments[1],
                   rule.positions.value_or(Positions::kCompact));
}

struct Entry {
  const char* name;
  const char* form;
  std::shared_ptr<const EvictionPolicy> (*make)(const ParsedRule& rule);
};
constexpr Entry kRegistry[] = {{"full", "full", full_rule},
                               {"window", "window:W", window_rule},
                               {"sink", "sink:S+W", sink_rule}};

}  // namespace

std::shared_ptr<const EvictionPolicy> make_policy(std::string_view text) {
  const ParsedRule rule = parse(text);
  std::string forms;
  for (const Entry& entry : kRegistry) {
    if (rule.name == entry.name) return entry.make(rule);
    forms += fmt::format("{}{}", forms.empty() ? "" : ", ", entry.form);
  }
  fail(ErrorCode::kInvalidArgument, "policy rule '{}': there is no policy '{}'; there are {}", text,
       rule.name, forms);
}

}  // namespace paddock
