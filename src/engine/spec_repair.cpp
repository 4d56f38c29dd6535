// What a wrong SPEC seems to mean.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <numeric>
#include <optional>

#include "engine/advice.h"

namespace paddock {
namespace {

/// Insertions, deletions and replacements that make `b` of `a`.
size_t edits(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t above = row[j + 1];
      row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (a[i] == b[j] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// What is proposed where nothing else is near.
constexpr const char* kUsualForm = "h2o:B";
constexpr int64_t kUsualBudget = 256;

/// What the form of a built-in rule says: "full", "h2o:B", "sink:S+W", "pyramid:NAME:B".
struct RuleForm {
  explicit RuleForm(std::string_view form)
      : name(form.substr(0, form.find(':'))),
        has_budget(form.size() > name.size()),
        has_sinks(form.find('+') != std::string_view::npos),
        wraps(form.find(':') != form.rfind(':')) {}

  std::string name;
  bool has_budget;  // or a window
  bool has_sinks;   // before that
  bool wraps;       // another rule, whose name comes before the budget
};

/// The one whose name is nearest. Forms with a budget are listed before those without.
RuleForm nearest_form(std::string_view name) {
  RuleForm best(kUsualForm);
  size_t fewest = 3;
  for (const std::string& text : policy_forms()) {
    const RuleForm form(text);
    const size_t n = edits(name, form.name);
    if (n < fewest) {
      fewest = n;
      best = form;
    }
  }
  return best;
}

/// The first number in `text` that a budget may be, or `otherwise`.
int64_t number_in(std::string_view text, int64_t otherwise) {
  while (!text.empty() && std::isdigit(static_cast<unsigned char>(text[0])) == 0) {
    text.remove_prefix(1);
  }
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && value >= 1 && value <= 1 << 24 ? value : otherwise;
}

bool parses(const std::string& rule, int32_t n_layers, int32_t block_size) {
  try {
    PolicyMap::parse(rule, n_layers).check_block_size(block_size);
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool has_digit(std::string_view text) {
  return text.find_first_of("0123456789") != std::string_view::npos;
}

/// Where no budget was given the rule without one is nearest, if it has such a form. `rule`: the
/// name, or two.
std::optional<std::string> without_budget(const RuleForm& form, std::string rule,
                                          std::string_view tail, std::string_view options,
                                          int32_t n_layers, int32_t block_size) {
  if (form.has_sinks) {
    const size_t plus = std::min(tail.find('+'), tail.size());
    if (!has_digit(tail.substr(0, plus)) || has_digit(tail.substr(plus))) return std::nullopt;
    rule += fmt::format(":{}", number_in(tail.substr(0, plus), kUsualSinks));
  } else if (has_digit(tail)) {
    return std::nullopt;
  }
  for (const std::string_view keep : {options, std::string_view()}) {
    std::string text = rule + std::string(keep);
    if (parses(text, n_layers, block_size)) return text;
  }
  return std::nullopt;
}

std::string repaired_rule(std::string_view rule, int32_t n_layers, int32_t block_size) {
  if (parses(std::string(rule), n_layers, block_size)) return std::string(rule);
  const std::string_view head = rule.substr(0, rule.find('@'));
  const std::string_view options = rule.substr(head.size());
  const RuleForm form = nearest_form(head.substr(0, head.find(':')));
  const size_t colon = head.find(':');
  std::string_view tail = colon == std::string_view::npos ? "" : head.substr(colon + 1);
  if (!form.has_budget) return form.name;
  std::string name = form.name;
  if (form.wraps) {
    const size_t inner = tail.find(':');
    name += ":" + nearest_form(tail.substr(0, inner)).name;
    tail = inner == std::string_view::npos ? "" : tail.substr(inner + 1);
  }
  const size_t plus = tail.find('+');
  if (const auto elastic = without_budget(form, name, tail, options, n_layers, block_size)) {
    return *elastic;
  }
  const int64_t budget =
      number_in(tail.substr(plus == std::string_view::npos ? 0 : plus), kUsualBudget);
  std::string prefix = name + ":";
  if (form.has_sinks) {
    const int64_t sinks =
        plus == std::string_view::npos ? kUsualSinks : number_in(tail.substr(0, plus), kUsualSinks);
    prefix += fmt::format("{}+", sinks);
  }
  // With its options if they can stay, and a larger budget where blocks want one.
  for (const std::string_view keep : {options, std::string_view()}) {
    for (int64_t n = budget; n <= 1 << 24; n = (n + block_size) / block_size * block_size) {
      const std::string text = fmt::format("{}{}{}", prefix, n, keep);
      if (parses(text, n_layers, block_size)) return text;
      if (n > budget + 64 * int64_t{block_size}) break;
    }
  }
  return fmt::format("{}:{}", RuleForm(kUsualForm).name, kUsualBudget);
}

/// Which of LAYERS there are, each as one bit.
std::vector<bool> layers_named(std::string_view layers, int32_t n_layers) {
  std::vector<bool> named(static_cast<size_t>(n_layers), layers.empty() || layers[0] == '*');
  while (!layers.empty() && layers[0] != '*') {
    const std::string_view range = layers.substr(0, layers.find('+'));
    const int64_t first = number_in(range, 0);
    const size_t dash = range.find('-');
    const int64_t last =
        dash == std::string_view::npos ? first : number_in(range.substr(dash), first);
    const int64_t low = range.starts_with('0') ? 0 : std::min(first, last);
    for (int64_t i = low; i <= std::max(first, last) && i < n_layers; ++i) named[i] = true;
    if (range.size() == layers.size()) break;
    layers.remove_prefix(range.size() + 1);
  }
  return named;
}

std::string layers_text(const std::vector<bool>& named) {
  std::vector<std::string> ranges;
  for (size_t i = 0; i < named.size(); ++i) {
    if (!named[i]) continue;
    size_t last = i;
    while (last + 1 < named.size() && named[last + 1]) ++last;
    ranges.push_back(last == i ? std::to_string(i) : fmt::format("{}-{}", i, last));
    i = last;
  }
  return fmt::format("{}", fmt::join(ranges, "+"));
}

}  // namespace

std::string repaired_spec(std::string_view spec, int32_t n_layers, int32_t block_size) {
  if (spec.find_first_of("=,") == std::string_view::npos) {
    return repaired_rule(spec, n_layers, block_size);
  }
  std::vector<std::string> parts;
  std::vector<bool> taken(static_cast<size_t>(n_layers));
  for (std::string_view rest = spec;;) {
    const std::string_view part = rest.substr(0, rest.find(','));
    const size_t equals = part.find('=');
    std::string_view rule = equals == std::string_view::npos ? part : part.substr(equals + 1);
    if (rule.empty()) rule = "full";
    std::vector<bool> named =
        layers_named(equals == std::string_view::npos ? "*" : part.substr(0, equals), n_layers);
    bool any = false;
    for (size_t i = 0; i < named.size(); ++i) {
      named[i] = named[i] && !taken[i];
      any |= named[i];
      taken[i] = taken[i] || named[i];
    }
    if (any) {
      parts.push_back(layers_text(named) + "=" + repaired_rule(rule, n_layers, block_size));
    }
    if (part.size() == rest.size()) break;
    rest.remove_prefix(part.size() + 1);
  }
  if (std::find(taken.begin(), taken.end(), false) != taken.end()) parts.emplace_back("*=full");
  return fmt::format("{}", fmt::join(parts, ","));
}

}  // namespace paddock
