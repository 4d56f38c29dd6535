#include "text/template_trace.h"

#include <algorithm>
#include <cstdint>
#include <map>

#include "core/utf8.h"

namespace paddock {
namespace {

using Expression = TemplateExpression;
using Node = TemplateNode;

constexpr int kMostSteps = 20000;
constexpr size_t kLongestText = 1 << 20;

struct Raised {};  // the template would raise an error

struct Value {
  enum class Kind {
    kUndefined,
    kNone,
    kBool,      // number
    kInteger,   // number
    kText,      // the template's own
    kRole,      // text: one of the three
    kOpaque,    // text that nothing may depend on
    kMessages,  // number: how many are skipped
    kMessage,   // number: which
    kLoop,      // number: 1 in the first round
    kRound,     // of a loop; number: 1 in the first round, text: its number there
    kList,      // of texts
    kFunction,  // text: its name
  };
  Kind kind = Kind::kUndefined;
  int64_t number = 0;
  std::string text{};
  std::vector<std::string> list{};

  bool is_text() const {
    return kind == Kind::kText || kind == Kind::kRole || kind == Kind::kOpaque;
  }
};
using Kind = Value::Kind;

Value boolean(bool value) { return {Kind::kBool, value}; }

class Trace {
 public:
  explicit Trace(const TemplateInput& input) : input_(input) {
    for (const char* name : {"none", "None", "tools", "documents"}) names_[name] = {Kind::kNone};
    for (const char* name : {"true", "True"}) names_[name] = boolean(true);
    for (const char* name : {"false", "False"}) names_[name] = boolean(false);
    for (const char* name : {"strftime_now", "raise_exception"}) {
      names_[name] = {Kind::kFunction, 0, name};
    }
    names_["messages"] = {Kind::kMessages};
    names_["add_generation_prompt"] = boolean(input.add_generation_prompt);
    names_["bos_token"] = {Kind::kOpaque, 0, input.bos};
    if (input.date_string) names_["date_string"] = {Kind::kOpaque, 0, *input.date_string};
  }

  void run(const std::vector<Node>& nodes) {
    for (const Node& node : nodes) run(node);
  }
  std::string take() { return std::move(out_); }

 private:
  void step() {
    if (++steps_ > kMostSteps) throw UnknownTemplate();
  }

  void run(const Node& node) {
    step();
    switch (node.kind) {
      case Node::Kind::kText:
        out_ += node.text;
        break;
      case Node::Kind::kWrite:
        out_ += text_of(evaluate(node.expressions[0])).text;
        break;
      case Node::Kind::kIf:
        choose(node);
        break;
      case Node::Kind::kFor:
        loop(node);
        break;
      case Node::Kind::kSet:
        set(node.text, evaluate(node.expressions[0]));
        break;
      case Node::Kind::kMacro:
        throw UnknownTemplate();
    }
  }

  void choose(const Node& node) {
    size_t i = 0;
    while (i < node.expressions.size() && !truth(evaluate(node.expressions[i]))) ++i;
    if (i < node.bodies.size()) run(node.bodies[i]);
  }

  void loop(const Node& node) {
    const Value over = evaluate(node.expressions[0]);
    if (over.kind != Kind::kMessages) throw UnknownTemplate();
    const auto before = names_;  // what a round sets is gone after it
    for (auto i = static_cast<size_t>(over.number); i < input_.messages.size(); ++i) {
      set(node.text, {Kind::kMessage, static_cast<int64_t>(i)});
      names_["loop"] = {Kind::kLoop, static_cast<int64_t>(i) == over.number};
      run(node.bodies[0]);
      names_ = before;
    }
  }

  void set(const std::string& name, Value value) {
    static constexpr std::string_view kFixed[] = {"",     "loop", "none",  "None",
                                                  "true", "True", "false", "False"};
    if (std::find(std::begin(kFixed), std::end(kFixed), name) != std::end(kFixed)) {
      throw UnknownTemplate();
    }
    names_[name] = std::move(value);
  }

  static Value text_of(Value value) {
    if (!value.is_text()) throw UnknownTemplate();
    return value;
  }

  static bool truth(const Value& value) {
    switch (value.kind) {
      case Kind::kUndefined:
      case Kind::kNone:
        return false;
      case Kind::kBool:
      case Kind::kInteger:
        return value.number != 0;
      case Kind::kText:
        return !value.text.empty();
      default:
        throw UnknownTemplate();
    }
  }

  Value evaluate(const Expression& e) {
    step();
    switch (e.kind) {
      case Expression::Kind::kName:
        return named(e.text);
      case Expression::Kind::kString:
        return {Kind::kText, 0, e.text};
      case Expression::Kind::kInteger:
        return integer(e.text);
      case Expression::Kind::kList:
        return list(e);
      case Expression::Kind::kMember:
        return member(evaluate(e.parts[0]), e.text);
      case Expression::Kind::kItem:
        return item(evaluate(e.parts[0]), evaluate(e.parts[1]));
      case Expression::Kind::kTail:
        return tail(evaluate(e.parts[0]), evaluate(e.parts[1]));
      case Expression::Kind::kCall:
        return call(e.parts[0], e.parts[1]);
      case Expression::Kind::kFilter:
        if (e.text != "trim" || e.parts.size() != 1) throw UnknownTemplate();
        return trimmed(evaluate(e.parts[0]));
      case Expression::Kind::kTest:
        return test(evaluate(e.parts[0]), e.text);
      case Expression::Kind::kNot:
        return boolean(!truth(evaluate(e.parts[0])));
      case Expression::Kind::kAnd:
      case Expression::Kind::kOr: {
        Value left = evaluate(e.parts[0]);
        const bool goes_on = truth(left) == (e.kind == Expression::Kind::kAnd);
        return goes_on ? evaluate(e.parts[1]) : left;
      }
      case Expression::Kind::kCompare:
        return compare(evaluate(e.parts[0]), e.text, evaluate(e.parts[1]));
      case Expression::Kind::kJoin:
        return join(text_of(evaluate(e.parts[0])), text_of(evaluate(e.parts[1])));
      case Expression::Kind::kChoice:
        return evaluate(truth(evaluate(e.parts[1])) ? e.parts[0] : e.parts[2]);
      case Expression::Kind::kOther:
        break;
    }
    throw UnknownTemplate();
  }

  Value named(const std::string& name) const {
    const auto it = names_.find(name);
    if (it != names_.end()) return it->second;
    // Jinja's own, and what a tokenizer may bring along.
    static constexpr std::string_view kOthers[] = {"range",  "dict",      "lipsum", "cycler",
                                                   "joiner", "namespace", "loop"};
    if (name.ends_with("_token") || name.ends_with("_tokens") ||
        std::find(std::begin(kOthers), std::end(kOthers), name) != std::end(kOthers)) {
      throw UnknownTemplate();
    }
    return {};
  }

  static Value integer(const std::string& digits) {
    if (digits.size() > 4) throw UnknownTemplate();
    return {Kind::kInteger, std::stoi(digits)};
  }

  Value list(const Expression& e) {
    Value value{Kind::kList};
    for (const Expression& part : e.parts) {
      Value text = evaluate(part);
      if (text.kind != Kind::kText) throw UnknownTemplate();
      value.list.push_back(std::move(text.text));
    }
    return value;
  }

  Value member(const Value& of, const std::string& name) const {
    if (of.kind == Kind::kUndefined) throw Raised();
    if (of.kind == Kind::kLoop) {
      if (name == "first") return boolean(of.number == 1);
      if (name == "index0") return {Kind::kRound, of.number, "0"};
      if (name == "index") return {Kind::kRound, of.number, "1"};
      throw UnknownTemplate();
    }
    if (of.kind != Kind::kMessage) throw UnknownTemplate();
    const ChatMessage& message = input_.messages[static_cast<size_t>(of.number)];
    if (name == "role") return {Kind::kRole, 0, message.role};
    if (name == "content") return {Kind::kOpaque, 0, message.content};
    // What every Python dict answers to.
    static constexpr std::string_view kMethods[] = {"clear",      "copy",   "fromkeys", "get",
                                                    "items",      "keys",   "pop",      "popitem",
                                                    "setdefault", "update", "values"};
    if (name.starts_with('_') ||
        std::find(std::begin(kMethods), std::end(kMethods), name) != std::end(kMethods)) {
      throw UnknownTemplate();
    }
    return {};
  }

  Value item(const Value& of, const Value& which) const {
    if (of.kind != Kind::kMessages || which.kind != Kind::kInteger || which.number != 0) {
      throw UnknownTemplate();
    }
    if (static_cast<size_t>(of.number) >= input_.messages.size()) return {};
    return {Kind::kMessage, of.number};
  }

  static Value tail(const Value& of, const Value& from) {
    if (of.kind != Kind::kMessages || of.number != 0 || from.kind != Kind::kInteger ||
        from.number != 1) {
      throw UnknownTemplate();
    }
    return {Kind::kMessages, 1};
  }

  static Value trimmed(Value text) {
    text = text_of(std::move(text));
    text.text = std::string(trim_spaces(text.text));
    return text;
  }

  Value call(const Expression& what, const Expression& arguments) {
    if (arguments.kind != Expression::Kind::kList) throw UnknownTemplate();
    if (what.kind == Expression::Kind::kMember && what.text == "strip" && arguments.parts.empty()) {
      return trimmed(evaluate(what.parts[0]));
    }
    const Value function = evaluate(what);
    if (function.kind != Kind::kFunction || arguments.parts.size() != 1) throw UnknownTemplate();
    const Value argument = evaluate(arguments.parts[0]);
    if (function.text == "raise_exception") throw Raised();
    if (function.text != "strftime_now" || argument.kind != Kind::kText) throw UnknownTemplate();
    return {Kind::kOpaque, 0, traced_clock(argument.text)};
  }

  static Value test(const Value& value, const std::string& name) {
    if (name == "defined") return boolean(value.kind != Kind::kUndefined);
    if (name == "undefined") return boolean(value.kind == Kind::kUndefined);
    if (name == "none") return boolean(value.kind == Kind::kNone);
    if (name == "string") return boolean(value.is_text());
    if (name == "mapping") return boolean(value.kind == Kind::kMessage);
    throw UnknownTemplate();
  }

  Value compare(const Value& left, const std::string& op, const Value& right) const {
    if (op == "in") return boolean(contains(right, left));
    if (op != "==" && op != "!=") throw UnknownTemplate();
    return boolean(equal(left, right) == (op == "=="));
  }

  static bool equal(const Value& left, const Value& right) {
    const auto is_known = [](const Value& v) { return v.kind == Kind::kText; };
    if ((is_known(left) || left.kind == Kind::kRole) && is_known(right)) {
      return left.text == right.text;
    }
    if (is_known(left) && right.kind == Kind::kRole) return left.text == right.text;
    if (left.kind == Kind::kRound && right.kind == Kind::kInteger &&
        std::to_string(right.number) == left.text) {
      return left.number == 1;
    }
    if (left.kind == right.kind && (left.kind == Kind::kBool || left.kind == Kind::kInteger)) {
      return left.number == right.number;
    }
    throw UnknownTemplate();
  }

  static bool contains(const Value& whole, const Value& part) {
    if (whole.kind == Kind::kMessage && part.kind == Kind::kText) {
      return part.text == "role" || part.text == "content";
    }
    if (whole.kind != Kind::kList || (part.kind != Kind::kRole && part.kind != Kind::kText)) {
      throw UnknownTemplate();
    }
    return std::find(whole.list.begin(), whole.list.end(), part.text) != whole.list.end();
  }

  static Value join(Value left, const Value& right) {
    if (left.kind != Kind::kText || right.kind != Kind::kText) left.kind = Kind::kOpaque;
    left.text += right.text;
    if (left.text.size() > kLongestText) throw UnknownTemplate();
    return left;
  }

  const TemplateInput& input_;
  std::map<std::string, Value, std::less<>> names_;
  std::string out_;
  int steps_ = 0;
};

}  // namespace

std::string traced_clock(std::string_view format) { return "\x01" + std::string(format) + "\x01"; }

std::optional<std::string> trace_template(const std::vector<TemplateNode>& nodes,
                                          const TemplateInput& input) {
  Trace trace(input);
  try {
    trace.run(nodes);
  } catch (const Raised&) {
    return std::nullopt;
  }
  return trace.take();
}

}  // namespace paddock
