// Ids of a few thousand nasty strings against the reference implementations, with the real
// vocabularies. The golden files come from make_tokenizer_golden.py; the vocabularies are named by
// environment variables, because they are too large or not ours to commit.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "paddock/chat.h"
#include "paddock/tokenizer.h"

namespace paddock {
namespace {

nlohmann::json read_data(const std::string& name) {
  std::ifstream file(std::string(PADDOCK_TEST_DATA) + "/" + name);
  EXPECT_TRUE(file) << name;
  return nlohmann::json::parse(file);
}

// The path in an environment variable. Unset: skips the test, but fails it in CI.
#define PADDOCK_PATH_FROM(variable, path)                                       \
  const char* path = std::getenv(variable);                                     \
  if (path == nullptr || *path == '\0') {                                       \
    if (std::getenv("CI") != nullptr) FAIL() << variable " must be set in CI";  \
    GTEST_SKIP() << "set " variable " to run the tests on the real vocabulary"; \
  }

void expect_golden_ids(const Tokenizer& tokenizer, const std::string& golden_file, bool lossless) {
  const auto strings = read_data("tokenizer_strings.json").get<std::vector<std::string>>();
  const auto ids = read_data(golden_file).at("ids").get<std::vector<std::vector<TokenId>>>();
  ASSERT_GE(strings.size(), 2000u);
  ASSERT_EQ(strings.size(), ids.size());
  for (size_t i = 0; i < strings.size(); ++i) {
    const auto got = tokenizer.encode(strings[i]);
    EXPECT_EQ(got, ids[i]) << "string " << i << ": " << nlohmann::json(strings[i]);
    if (lossless) {
      EXPECT_EQ(tokenizer.decode(got), strings[i]) << "string " << i;
    }
    for (const TokenId id : got) EXPECT_FALSE(tokenizer.is_special(id)) << "string " << i;
  }
}

void expect_streaming_equals_decoding(const std::shared_ptr<const Tokenizer>& tokenizer) {
  for (const auto& text : read_data("tokenizer_strings.json")) {
    StreamDecoder decoder(tokenizer);
    std::string streamed;
    const auto ids = tokenizer->encode(text.get<std::string>());
    for (const TokenId id : ids) streamed += decoder.push(id);
    streamed += decoder.finish();
    if (tokenizer->decode(ids) == text) {
      EXPECT_EQ(streamed, text);
    }
  }
}

TEST(TokenizerGolden, SmolLm2) {
  PADDOCK_PATH_FROM("PADDOCK_TEST_MODEL", path)
  const auto tokenizer = Tokenizer::load(path);
  EXPECT_EQ(tokenizer->vocab_size(), 49152);
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->stop_tokens(), (std::vector<TokenId>{0, 2}));
  // The vocabulary lacks some control bytes, which therefore do not come back.
  expect_golden_ids(*tokenizer, "tokenizer_smollm2.json", false);
  expect_streaming_equals_decoding(tokenizer);
  EXPECT_EQ(tokenizer->encode("The capital of France is"),
            (std::vector<TokenId>{504, 3575, 282, 4649, 314}));
  EXPECT_EQ(tokenizer->encode("<|im_start|>user\n", {.add_bos = true, .parse_special = true}),
            (std::vector<TokenId>{1, 4093, 198}));
}

TEST(TokenizerGolden, SmolLm2Chat) {
  PADDOCK_PATH_FROM("PADDOCK_TEST_MODEL", path)
  const auto tokenizer = Tokenizer::load(path);
  const ChatTemplate chat(tokenizer);
  ASSERT_EQ(chat.name(), "smollm2");
  EXPECT_EQ(chat.end_of_turn(), 2);
  for (const auto& test : read_data("chat_golden.json").at("cases")) {
    std::vector<ChatMessage> messages;
    for (const auto& m : test.at("messages")) messages.push_back({m.at("role"), m.at("content")});
    const std::string text = test.at("rendered").at("smollm2").at(1);
    EXPECT_EQ(chat.render(messages, true), text);
    if (test.at("messages").dump().find("<|") == std::string::npos) {
      EXPECT_EQ(chat.encode(messages, true), tokenizer->encode(text, {.parse_special = true}));
    }
  }
}

TEST(TokenizerGolden, Llama3) {
  PADDOCK_PATH_FROM("PADDOCK_TEST_LLAMA3_VOCAB", path)
  const auto tokenizer = Tokenizer::load(path);
  EXPECT_EQ(tokenizer->vocab_size(), 128256);
  EXPECT_EQ(tokenizer->bos(), 128000);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->stop_tokens(), (std::vector<TokenId>{128001, 128008, 128009}));
  expect_golden_ids(*tokenizer, "tokenizer_llama3.json", true);
  expect_streaming_equals_decoding(tokenizer);
  const auto ids = [&](const char* text) { return tokenizer->encode(text); };
  EXPECT_EQ(ids("Hello world"), (std::vector<TokenId>{9906, 1917}));
  EXPECT_EQ(ids(" Việt"), (std::vector<TokenId>{101798}));
  EXPECT_EQ(ids("1234567"), (std::vector<TokenId>{4513, 10961, 22}));
  EXPECT_EQ(ids("a\n\n b"), (std::vector<TokenId>{64, 271, 293}));
  EXPECT_EQ(ids("'S"), (std::vector<TokenId>{13575}));
  EXPECT_EQ(ids("I'm  here'LL"), (std::vector<TokenId>{40, 2846, 220, 1618, 6, 4178}));
  EXPECT_EQ(tokenizer->encode("<|begin_of_text|>a<|reserved_special_token_245|>",
                              {.add_bos = true, .parse_special = true}),
            (std::vector<TokenId>{128000, 64, 128255}));
  EXPECT_EQ(tokenizer->find("<|eot_id|>"), 128009);
  EXPECT_EQ(tokenizer->find("<|python_tag|>"), 128010);
}

// huggingface/transformers #36325
TEST(TokenizerGolden, Llama3TextsComeBackWithTheirBlanks) {
  PADDOCK_PATH_FROM("PADDOCK_TEST_LLAMA3_VOCAB", path)
  const auto tokenizer = Tokenizer::load(path);
  // The ids are those of the reports (31187 and 32575 there, 1543 of tokenizers).
  EXPECT_EQ(tokenizer->encode("! ! !"), (std::vector<TokenId>{0, 758, 758}));
  EXPECT_EQ(tokenizer->encode("hello !"), (std::vector<TokenId>{15339, 758}));
  EXPECT_EQ(tokenizer->decode(std::array<TokenId, 3>{1232, 364, 1874}), "': 'search");
  for (const std::string text : {" !", " .", " ,", "! ! !", "the word 'social'", "x != y and a . b",
                                 "I do n't , you 're ?", " \n\t . \r\n "}) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
    StreamDecoder stream(tokenizer);
    std::string pieces;
    for (const TokenId id : tokenizer->encode(text)) pieces += stream.push(id);
    EXPECT_EQ(pieces + stream.finish(), text);
  }
}

}  // namespace
}  // namespace paddock
