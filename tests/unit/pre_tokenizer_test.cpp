// Where text is cut before merging.
#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "paddock/error.h"

namespace paddock {
namespace {

using Pieces = std::vector<std::string>;

Pieces cut(const RegexSplitter& splitter, std::string_view text) {
  Pieces pieces;
  RegexSplitter::Pass pass(splitter, text);
  for (auto piece = pass.next(); !piece.empty(); piece = pass.next()) pieces.emplace_back(piece);
  return pieces;
}
Pieces cut(PreTokenizer kind, std::string_view text) {
  return cut(RegexSplitter(pattern_of(kind)), text);
}

TEST(PreTokenizer, Llama3) {
  const auto llama3 = PreTokenizer::kLlama3;
  EXPECT_EQ(cut(llama3, "I'm  here'LL"), (Pieces{"I", "'m", " ", " here", "'LL"}));
  EXPECT_EQ(cut(llama3, "1234567 x"), (Pieces{"123", "456", "7", " x"}));
  EXPECT_EQ(cut(llama3, "a\n\n b"), (Pieces{"a", "\n\n", " b"}));
  EXPECT_EQ(cut(llama3, "x = (y);\n\nz"), (Pieces{"x", " =", " (", "y", ");\n\n", "z"}));
  EXPECT_EQ(cut(llama3, "a  \n  b   "), (Pieces{"a", "  \n", " ", " b", "   "}));
  EXPECT_EQ(cut(llama3, "'\u017F"), (Pieces{"'\u017F"}));  // long s folds to s
  EXPECT_EQ(cut(llama3, "'S'rE'x"), (Pieces{"'S", "'rE", "'x"}));
  EXPECT_EQ(cut(llama3, "e\u0301a"), (Pieces{"e", "\u0301a"}));
  EXPECT_EQ(cut(llama3, "\u0665\u0666\u0667\u0668"), (Pieces{"\u0665\u0666\u0667", "\u0668"}));
}

TEST(PreTokenizer, Gpt2) {
  const auto gpt2 = PreTokenizer::kGpt2;
  EXPECT_EQ(cut(gpt2, "I'm  here'LL 1234x"),
            (Pieces{"I", "'m", " ", " here", "'", "LL", " 1234", "x"}));
  EXPECT_EQ(cut(gpt2, "a\n\n b"), (Pieces{"a", "\n\n", " b"}));
  EXPECT_EQ(cut(gpt2, "a\n\nb"), (Pieces{"a", "\n", "\n", "b"}));
}

TEST(PreTokenizer, SmolLm) {
  const auto smollm = PreTokenizer::kSmolLm;
  EXPECT_EQ(cut(smollm, "a 12 b"), (Pieces{"a", " ", "1", "2", " b"}));
  // White space before a digit ends its piece of text, so the lookahead does not hold one back.
  EXPECT_EQ(cut(smollm, "x  1"), (Pieces{"x", "  ", "1"}));
  EXPECT_EQ(cut(smollm, "x  y"), (Pieces{"x", " ", " y"}));
  EXPECT_EQ(cut(smollm, "\u00BD\u2167"), (Pieces{"\u00BD", "\u2167"}));
}

TEST(PreTokenizer, WhiteSpaceIsUnicodes) {
  for (const auto kind : {PreTokenizer::kLlama3, PreTokenizer::kGpt2, PreTokenizer::kSmolLm}) {
    // PCRE2's own \s would count U+180E, and not U+0085 without Unicode properties.
    EXPECT_EQ(cut(kind, "a\u0085\u2028\u3000b").size(), kind == PreTokenizer::kLlama3 ? 3u : 4u);
    EXPECT_EQ(cut(kind, "!\u180E!"), (Pieces{"!\u180E!"}));
    EXPECT_EQ(cut(kind, "!\u200B!"), (Pieces{"!\u200B!"}));
    EXPECT_EQ(cut(kind, "!\u00A0!"), (Pieces{"!", "\u00A0", "!"}));
  }
}

TEST(PreTokenizer, CompilerAndInterpreterAgreeAndLoseNothing) {
  std::ifstream file(std::string(PADDOCK_TEST_DATA) + "/tokenizer_strings.json");
  const auto strings = nlohmann::json::parse(file).get<std::vector<std::string>>();
  ASSERT_GE(strings.size(), 2000u);
  for (const auto kind : {PreTokenizer::kLlama3, PreTokenizer::kGpt2, PreTokenizer::kSmolLm}) {
    const RegexSplitter compiled(pattern_of(kind)), interpreted(pattern_of(kind), false);
    for (const std::string& text : strings) {
      const Pieces pieces = cut(compiled, text);
      ASSERT_EQ(pieces, cut(interpreted, text)) << nlohmann::json(text);
      std::string joined;
      for (const std::string& piece : pieces) joined += piece;
      ASSERT_EQ(joined, text);
    }
  }
}

TEST(PreTokenizer, InterpreterIsLinearToo) {
  const RegexSplitter splitter(pattern_of(PreTokenizer::kLlama3), false);
  for (const char* unit : {" ", "\n", "a", "1", "!"}) {
    std::string text;
    for (int i = 0; i < 300000; ++i) text += unit;
    text = "\n" + text + "x";
    size_t bytes = 0;
    for (const std::string& piece : cut(splitter, text)) bytes += piece.size();
    EXPECT_EQ(bytes, text.size());
  }
}

TEST(PreTokenizer, LimitsOfTheEngineAreErrors) {
  const std::string text(5000, 'a');
  for (const bool jit : {true, false}) {
    const RegexSplitter splitter("(?:a+)+b|a", jit);
    RegexSplitter::Pass pass(splitter, text);
    try {
      pass.next();
      ADD_FAILURE() << "an exponential match ended";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInternal);
      EXPECT_NE(std::string(error.what()).find("limit exceeded at byte 0"), std::string::npos)
          << error.what();
    }
  }
}

TEST(PreTokenizer, RefusesWhatAPatternDoesNotCover) {
  const RegexSplitter splitter("a+");
  RegexSplitter::Pass pass(splitter, "aab");
  EXPECT_EQ(pass.next(), "aa");
  EXPECT_THROW(pass.next(), Error);
  EXPECT_THROW(RegexSplitter("(a"), Error);
}

TEST(PreTokenizer, Names) {
  EXPECT_EQ(pre_tokenizer_from_gguf("llama-bpe"), PreTokenizer::kLlama3);
  EXPECT_EQ(pre_tokenizer_from_gguf("smollm"), PreTokenizer::kSmolLm);
  EXPECT_EQ(pre_tokenizer_from_gguf("gpt-2"), PreTokenizer::kGpt2);
  EXPECT_EQ(pre_tokenizer_from_gguf("qwen2"), std::nullopt);
  EXPECT_EQ(pre_tokenizer_from_gguf("default"), std::nullopt);
}

}  // namespace
}  // namespace paddock
