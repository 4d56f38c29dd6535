#include "text/template_lexer.h"

#include <algorithm>
#include <utility>

namespace paddock {
namespace {

using Token = TemplateToken;

constexpr size_t kLongest = 1 << 18;  // bytes of a template
constexpr size_t kLongestTag = 1000;  // tokens
constexpr std::string_view kSpaces = " \t\r\n\v\f";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

class Lexer {
 public:
  explicit Lexer(std::string_view jinja) {
    for (size_t i = 0; i < jinja.size(); ++i) {  // every kind of line end is one
      if (jinja[i] == '\r') {
        source_ += '\n';
        if (i + 1 < jinja.size() && jinja[i + 1] == '\n') ++i;
      } else {
        source_ += jinja[i];
      }
    }
    if (source_.ends_with('\n')) source_.pop_back();
    rest_ = source_;
  }

  std::vector<Token> run() {
    while (!rest_.empty()) {
      size_t begin = 0;
      while (begin < rest_.size() && !opens(begin)) ++begin;
      text(begin);
      rest_.remove_prefix(begin);
      if (rest_.empty()) break;
      const char kind = rest_[1];
      rest_.remove_prefix(2);
      if (kind == '#') {
        comment();
      } else {
        // A sign of white space control belongs to the tag, unless it is the text's own.
        if (!rest_.empty() && (rest_[0] == '-' || rest_[0] == '+')) rest_.remove_prefix(1);
        tokens_.push_back({kind == '{' ? Token::Kind::kWrite : Token::Kind::kTag});
        tag(kind == '{' ? '}' : '%');
      }
    }
    tokens_.push_back({Token::Kind::kEnd});
    return std::move(tokens_);
  }

 private:
  bool opens(size_t i) const {
    return rest_[i] == '{' && i + 1 < rest_.size() &&
           (rest_[i + 1] == '{' || rest_[i + 1] == '%' || rest_[i + 1] == '#');
  }

  // The text before the tag at `next`, without what the tags around it swallow.
  void text(size_t next) {
    std::string_view text = rest_.substr(0, next);
    if (strip_) text.remove_prefix(std::min(text.size(), text.find_first_not_of(kSpaces)));
    if (next + 2 < rest_.size()) {
      const char sign = rest_[next + 2];
      const size_t last = text.find_last_not_of(sign == '-' ? kSpaces : " \t\v\f");
      const size_t keep = last == std::string_view::npos ? 0 : last + 1;
      const bool line_begins = keep == 0 ? line_begins_ : text[keep - 1] == '\n';
      if (sign == '-' || (sign != '+' && rest_[next + 1] != '{' && line_begins)) {
        text = text.substr(0, keep);
      }
    }
    if (!text.empty()) tokens_.push_back({Token::Kind::kText, std::string(text)});
  }

  // After a tag's end, whose sign is read.
  void tag_ended(char sign, bool swallows_line_end) {
    strip_ = sign == '-';
    line_begins_ = false;
    if (swallows_line_end && sign != '-' && sign != '+' && rest_.starts_with('\n')) {
      rest_.remove_prefix(1);
      line_begins_ = true;
    }
    // Jinja takes the white space after "-%}" as a part of the tag.
    if (strip_) {
      const std::string_view swallowed = rest_.substr(0, rest_.find_first_not_of(kSpaces));
      line_begins_ = swallowed.ends_with('\n');
    }
  }

  void comment() {
    const size_t end = rest_.find("#}");
    if (end == std::string_view::npos) throw UnknownTemplate();
    const char sign = end > 0 ? rest_[end - 1] : ' ';
    rest_.remove_prefix(end + 2);
    tag_ended(sign, true);
  }

  void tag(char closing) {
    size_t open = 0;  // brackets
    for (size_t n = 0; n < kLongestTag; ++n) {
      rest_.remove_prefix(std::min(rest_.size(), rest_.find_first_not_of(kSpaces)));
      if (rest_.empty()) throw UnknownTemplate();
      const char c = rest_[0];
      if (open == 0) {
        const bool sign = c == '-' || (c == '+' && closing == '%');
        if (rest_.size() > (sign ? 2u : 1u) && rest_[sign] == closing && rest_[sign + 1u] == '}') {
          rest_.remove_prefix(sign ? 3 : 2);
          tokens_.push_back({Token::Kind::kClose});
          return tag_ended(sign ? c : ' ', closing == '%');
        }
      }
      if (c == '\'' || c == '"') {
        string(c);
      } else if (is_letter(c)) {
        word(Token::Kind::kName, [](char x) { return is_letter(x) || is_digit(x); });
      } else if (is_digit(c)) {
        word(Token::Kind::kInteger, is_digit);
      } else {
        open += c == '(' || c == '[' || c == '{';
        if (c == ')' || c == ']' || c == '}') {
          if (open == 0) throw UnknownTemplate();
          --open;
        }
        symbol();
      }
    }
    throw UnknownTemplate();
  }

  template <typename Belongs>
  void word(Token::Kind kind, Belongs belongs) {
    size_t n = 1;
    while (n < rest_.size() && belongs(rest_[n])) ++n;
    if (kind == Token::Kind::kInteger && n < rest_.size() &&
        (is_letter(rest_[n]) ||
         (rest_[n] == '.' && n + 1 < rest_.size() && is_digit(rest_[n + 1])))) {
      throw UnknownTemplate();  // fractions and the like
    }
    tokens_.push_back({kind, std::string(rest_.substr(0, n))});
    rest_.remove_prefix(n);
  }

  void symbol() {
    for (const std::string_view s : {"==", "!=", "<=", ">=", "//"}) {
      if (rest_.starts_with(s)) return take(Token::Kind::kSymbol, 2);
    }
    if (std::string_view("+-*/%~|.,:()[]{}=<>").find(rest_[0]) == std::string_view::npos) {
      throw UnknownTemplate();
    }
    take(Token::Kind::kSymbol, 1);
  }

  void take(Token::Kind kind, size_t n) {
    tokens_.push_back({kind, std::string(rest_.substr(0, n))});
    rest_.remove_prefix(n);
  }

  void string(char quote) {
    std::string text;
    size_t i = 1;
    for (; i < rest_.size() && rest_[i] != quote; ++i) {
      if (rest_[i] != '\\') {
        text += rest_[i];
        continue;
      }
      static constexpr std::string_view kEscapes = "nrt\\'\"", kMeanings = "\n\r\t\\'\"";
      const size_t which = ++i < rest_.size() ? kEscapes.find(rest_[i]) : std::string_view::npos;
      if (which == std::string_view::npos) throw UnknownTemplate();
      text += kMeanings[which];
    }
    if (i == rest_.size()) throw UnknownTemplate();
    rest_.remove_prefix(i + 1);
    tokens_.push_back({Token::Kind::kString, std::move(text)});
  }

  std::string source_;
  std::string_view rest_;
  std::vector<Token> tokens_;
  bool strip_ = false;       // the last tag swallows the white space after it
  bool line_begins_ = true;  // the text at hand begins a line
};

}  // namespace

std::vector<TemplateToken> template_tokens(std::string_view jinja) {
  if (jinja.size() > kLongest) throw UnknownTemplate();
  return Lexer(jinja).run();
}

}  // namespace paddock
