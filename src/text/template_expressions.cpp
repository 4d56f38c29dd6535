#include "text/template_expressions.h"

namespace paddock {
namespace {

// Jinja refuses a template that names others, wherever they stand.
constexpr std::string_view kFilters[] = {
    "abs",    "capitalize", "count",   "default", "dictsort", "first", "float",  "indent",
    "int",    "items",      "join",    "last",    "length",   "list",  "lower",  "map",
    "reject", "rejectattr", "replace", "reverse", "round",    "safe",  "select", "selectattr",
    "sort",   "string",     "sum",     "title",   "tojson",   "trim",  "unique", "upper"};
constexpr std::string_view kTests[] = {
    "boolean", "callable", "defined", "even", "false",  "float", "integer",  "iterable",
    "mapping", "none",     "number",  "odd",  "string", "true",  "sequence", "undefined"};

TemplateExpression pair(TemplateExpression::Kind kind, TemplateExpression left,
                        TemplateExpression right, std::string text = {}) {
  TemplateExpression both{kind, std::move(text)};
  both.parts.push_back(std::move(left));
  both.parts.push_back(std::move(right));
  return both;
}

TemplateExpression wrap(TemplateExpression::Kind kind, TemplateExpression inner,
                        std::string text = {}) {
  TemplateExpression outer{kind, std::move(text)};
  outer.parts.push_back(std::move(inner));
  return outer;
}

}  // namespace

bool is_one_of(std::string_view word, std::span<const std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool TemplateExpressions::accept(T kind, std::string_view text) {
  if (!sees(kind, text)) return false;
  ++at_;
  return true;
}

void TemplateExpressions::expect(T kind, std::string_view text) {
  if (now().kind != kind || (!text.empty() && now().text != text)) throw UnknownTemplate();
  ++at_;
}

std::string TemplateExpressions::name() {
  const std::string text = now().text;
  expect(T::kName);
  if (is_one_of(text, {"and", "or", "not", "in", "is", "if", "else", "for"})) {
    throw UnknownTemplate();
  }
  return text;
}

std::string TemplateExpressions::target() {
  if (is_one_of(now().text, {"true", "True", "false", "False", "none", "None"})) {
    throw UnknownTemplate();
  }
  return name();
}

// ---- loosest first

TemplateExpression TemplateExpressions::expression() {
  const Level level(depth_);
  Expression value = either();
  if (!accept(T::kName, "if")) return value;
  Expression choice{Kind::kChoice};
  choice.parts.push_back(std::move(value));
  choice.parts.push_back(either());
  if (accept(T::kName, "else")) {
    choice.parts.push_back(expression());
  } else {
    choice.kind = Kind::kOther;
  }
  return choice;
}

TemplateExpression TemplateExpressions::either() {
  Expression left = both();
  while (accept(T::kName, "or")) left = pair(Kind::kOr, std::move(left), both());
  return left;
}

TemplateExpression TemplateExpressions::both() {
  Expression left = negation();
  while (accept(T::kName, "and")) left = pair(Kind::kAnd, std::move(left), negation());
  return left;
}

TemplateExpression TemplateExpressions::negation() {
  const Level level(depth_);
  if (!accept(T::kName, "not")) return comparison();
  Expression inner = negation();
  return wrap(Kind::kNot, std::move(inner));
}

TemplateExpression TemplateExpressions::comparison() {
  Expression left = sum();
  int n = 0;
  for (;; ++n) {
    bool negated = false;
    std::string op;
    for (const char* symbol : {"==", "!=", "<", "<=", ">", ">="}) {
      if (sees(T::kSymbol, symbol)) op = symbol;
    }
    if (op.empty() && sees(T::kName, "in")) op = "in";
    if (op.empty() && sees(T::kName, "not") && ahead(1).text == "in" && ahead(1).kind == T::kName) {
      negated = true;
      op = "in";
      ++at_;
    }
    if (op.empty()) break;
    ++at_;
    left = pair(Kind::kCompare, std::move(left), sum(), op);
    if (negated) left = wrap(Kind::kNot, std::move(left));
  }
  if (n > 1) left.kind = Kind::kOther;  // a chain means something else
  return left;
}

TemplateExpression TemplateExpressions::sum() {
  Expression left = concatenation();
  while (sees(T::kSymbol, "+") || sees(T::kSymbol, "-")) {
    const bool plus = now().text == "+";
    ++at_;
    left = pair(plus ? Kind::kJoin : Kind::kOther, std::move(left), concatenation());
  }
  return left;
}

TemplateExpression TemplateExpressions::concatenation() {
  Expression left = product();
  while (accept(T::kSymbol, "~")) left = pair(Kind::kJoin, std::move(left), product());
  return left;
}

TemplateExpression TemplateExpressions::product() {
  Expression left = unary();
  while (sees(T::kSymbol, "*") || sees(T::kSymbol, "/") || sees(T::kSymbol, "//") ||
         sees(T::kSymbol, "%")) {
    ++at_;
    left = pair(Kind::kOther, std::move(left), unary());
  }
  return left;
}

TemplateExpression TemplateExpressions::unary() {
  const Level level(depth_);
  if (accept(T::kSymbol, "-") || accept(T::kSymbol, "+")) {
    return wrap(Kind::kOther, unary());
  }
  Expression value = postfix(primary());
  while (true) {
    if (accept(T::kSymbol, "|")) {
      value = wrap(Kind::kFilter, std::move(value), name());
      if (!is_one_of(value.text, kFilters)) throw UnknownTemplate();
      if (sees(T::kSymbol, "(")) value.parts.push_back(arguments());
    } else if (accept(T::kName, "is")) {
      const bool negated = accept(T::kName, "not");
      value = wrap(Kind::kTest, std::move(value), now().text);
      if (!is_one_of(value.text, kTests)) throw UnknownTemplate();
      expect(T::kName);
      // Tests with an argument.
      if (sees(T::kSymbol, "(")) value = wrap(Kind::kOther, arguments());
      if (now().kind == T::kString || now().kind == T::kInteger) throw UnknownTemplate();
      if (negated) value = wrap(Kind::kNot, std::move(value));
    } else {
      return value;
    }
  }
}

TemplateExpression TemplateExpressions::postfix(Expression value) {
  while (true) {
    if (accept(T::kSymbol, ".")) {
      value = wrap(Kind::kMember, std::move(value), now().text);
      expect(T::kName);
    } else if (accept(T::kSymbol, "[")) {
      value = subscript(std::move(value));
    } else if (sees(T::kSymbol, "(")) {
      value = pair(Kind::kCall, std::move(value), arguments());
    } else {
      return value;
    }
  }
}

// After the bracket.
TemplateExpression TemplateExpressions::subscript(Expression value) {
  if (now().kind == T::kString && ahead(1).text == "]" && ahead(1).kind == T::kSymbol) {
    value = wrap(Kind::kMember, std::move(value), now().text);
    at_ += 2;
    return value;
  }
  const auto bound = [&] {  // of a slice, where it has one
    return sees(T::kSymbol, ":") || sees(T::kSymbol, "]") ? Expression{} : expression();
  };
  Expression item = bound();
  if (accept(T::kSymbol, "]")) return pair(Kind::kItem, std::move(value), std::move(item));
  expect(T::kSymbol, ":");
  Expression slice = pair(Kind::kTail, std::move(value), std::move(item));
  if (accept(T::kSymbol, "]")) return slice;
  slice.kind = Kind::kOther;
  bound();
  if (accept(T::kSymbol, ":")) bound();
  expect(T::kSymbol, "]");
  return slice;
}

// (a, b, name=c): a list, or kOther where one is named.
TemplateExpression TemplateExpressions::arguments() {
  Expression list{Kind::kList};
  expect(T::kSymbol, "(");
  while (!accept(T::kSymbol, ")")) {
    if (now().kind == T::kName && ahead(1).kind == T::kSymbol && ahead(1).text == "=") {
      at_ += 2;
      list.kind = Kind::kOther;
    } else if (list.kind == Kind::kOther) {
      throw UnknownTemplate();  // what is named comes last
    }
    list.parts.push_back(expression());
    if (!sees(T::kSymbol, ")")) expect(T::kSymbol, ",");
  }
  return list;
}

TemplateExpression TemplateExpressions::primary() {
  const TemplateToken token = now();
  switch (token.kind) {
    case T::kName:
      return {Kind::kName, name()};
    case T::kInteger:
      ++at_;
      return {Kind::kInteger, token.text};
    case T::kString: {
      Expression text{Kind::kString};
      while (now().kind == T::kString) {  // neighbours are one
        text.text += now().text;
        ++at_;
      }
      return text;
    }
    default:
      break;
  }
  if (accept(T::kSymbol, "(")) {
    Expression inner = expression();
    if (sees(T::kSymbol, ",")) {  // a tuple
      while (accept(T::kSymbol, ",")) {
        if (!sees(T::kSymbol, ")")) expression();
      }
      inner = wrap(Kind::kOther, std::move(inner));
    }
    expect(T::kSymbol, ")");
    return inner;
  }
  if (accept(T::kSymbol, "[")) {
    Expression list{Kind::kList};
    while (!accept(T::kSymbol, "]")) {
      list.parts.push_back(expression());
      if (!sees(T::kSymbol, "]")) expect(T::kSymbol, ",");
    }
    return list;
  }
  expect(T::kSymbol, "{");
  while (!accept(T::kSymbol, "}")) {
    expression();
    expect(T::kSymbol, ":");
    expression();
    if (!sees(T::kSymbol, "}")) expect(T::kSymbol, ",");
  }
  return {};
}

}  // namespace paddock
