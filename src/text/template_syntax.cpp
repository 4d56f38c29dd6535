#include "text/template_syntax.h"

#include <utility>

#include "text/template_expressions.h"

namespace paddock {
namespace {

using Node = TemplateNode;

class Parser : TemplateExpressions {
 public:
  explicit Parser(std::vector<TemplateToken> tokens) : TemplateExpressions(std::move(tokens)) {}

  std::vector<Node> run() {
    std::vector<Node> nodes = block({});
    if (now().kind != T::kEnd) throw UnknownTemplate();
    return nodes;
  }

 private:
  // Nodes up to a tag that begins with one of `ends`, which is left where it is.
  std::vector<Node> block(std::initializer_list<std::string_view> ends) {
    const Level level(depth_);
    std::vector<Node> nodes;
    while (now().kind != T::kEnd) {
      if (now().kind == T::kText) {
        nodes.push_back({Node::Kind::kText, now().text});
        ++at_;
      } else if (now().kind == T::kWrite) {
        ++at_;
        nodes.push_back({Node::Kind::kWrite, {}, {expression()}});
        expect(T::kClose);
      } else {
        const std::string& tag = ahead(1).text;
        if (ahead(1).kind != T::kName) throw UnknownTemplate();
        if (is_one_of(tag, ends)) break;
        at_ += 2;
        nodes.push_back(statement(std::string(tag)));
      }
    }
    return nodes;
  }

  Node statement(const std::string& tag) {
    if (tag == "if") return branches();
    if (tag == "for") return loop();
    if (tag == "set") return assignment();
    if (tag == "macro") return macro();
    throw UnknownTemplate();
  }

  void end_tag(std::string_view tag) {
    expect(T::kTag);
    expect(T::kName, tag);
    expect(T::kClose);
  }

  Node branches() {
    Node node{Node::Kind::kIf};
    do {
      node.expressions.push_back(expression());
      expect(T::kClose);
      node.bodies.push_back(block({"elif", "else", "endif"}));
      expect(T::kTag);
    } while (accept(T::kName, "elif"));
    if (accept(T::kName, "else")) {
      expect(T::kClose);
      node.bodies.push_back(block({"endif"}));
      expect(T::kTag);
    }
    expect(T::kName, "endif");
    expect(T::kClose);
    return node;
  }

  Node loop() {
    Node node{Node::Kind::kFor, target()};
    while (accept(T::kSymbol, ",")) {
      target();
      node.text.clear();
    }
    expect(T::kName, "in");
    node.expressions.push_back(either());
    if (accept(T::kName, "if")) {
      expression();
      node.text.clear();
    }
    expect(T::kClose);
    node.bodies.push_back(block({"endfor"}));
    end_tag("endfor");
    return node;
  }

  Node assignment() {
    Node node{Node::Kind::kSet, target()};
    if (accept(T::kSymbol, ".")) {
      name();
      node.text.clear();
    }
    while (accept(T::kSymbol, ",")) {
      name();
      node.text.clear();
    }
    expect(T::kSymbol, "=");
    node.expressions.push_back(expression());
    expect(T::kClose);
    return node;
  }

  Node macro() {
    Node node{Node::Kind::kMacro};
    target();
    arguments();
    expect(T::kClose);
    block({"endmacro"});
    end_tag("endmacro");
    return node;
  }
};

}  // namespace

std::vector<TemplateNode> parse_template(std::string_view jinja) {
  return Parser(template_tokens(jinja)).run();
}

}  // namespace paddock
