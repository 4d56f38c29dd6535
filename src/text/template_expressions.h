// Expressions of Jinja templates: the tokens that a template is read from, and what they come to
// between two tags. template_syntax.cpp reads the tags.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/template_syntax.h"

namespace paddock {

bool is_one_of(std::string_view word, std::span<const std::string_view> words);
inline bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return is_one_of(word, std::span(words.begin(), words.size()));
}

/// Every member throws UnknownTemplate at what is not Jinja, and at forms that are not known.
class TemplateExpressions {
 protected:
  using T = TemplateToken::Kind;
  using Expression = TemplateExpression;

  explicit TemplateExpressions(std::vector<TemplateToken> tokens) : tokens_(std::move(tokens)) {}

  static constexpr int kDeepest = 60;  // parentheses and blocks within each other
  struct Level {                       // of nesting, while it lives
    explicit Level(int& depth) : depth_(depth) {
      if (++depth_ > kDeepest) {
        --depth_;
        throw UnknownTemplate();
      }
    }
    ~Level() { --depth_; }
    int& depth_;
  };

  const TemplateToken& now() const { return tokens_[at_]; }
  const TemplateToken& ahead(size_t n) const {
    return tokens_[std::min(at_ + n, tokens_.size() - 1)];
  }
  bool sees(T kind, std::string_view text) const {
    return now().kind == kind && now().text == text;
  }
  bool accept(T kind, std::string_view text);
  void expect(T kind, std::string_view text = {});
  std::string name();
  /// Of an assignment.
  std::string target();

  // Loosest first.
  Expression expression();
  Expression either();
  /// (a, b, name=c): a list, or kOther where one is named.
  Expression arguments();

  std::vector<TemplateToken> tokens_;
  size_t at_ = 0;
  int depth_ = 0;

 private:
  using Kind = Expression::Kind;

  Expression both();
  Expression negation();
  Expression comparison();
  Expression sum();
  Expression concatenation();
  Expression product();
  Expression unary();
  Expression postfix(Expression value);
  /// After the bracket.
  Expression subscript(Expression value);
  Expression primary();
};

}  // namespace paddock
