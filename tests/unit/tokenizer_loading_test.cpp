// Tokenizers from GGUF metadata, Hugging Face folders and single files: settings and their sources.
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "paddock/error.h"
#include "paddock/tokenizer.h"
#include "support/small_tokenizer.h"
#include "support/temporary_folder.h"
#include "support/vocabulary_gguf.h"

namespace paddock {
namespace {

using test::SmallGguf;
using test::TemporaryFolder;

const char* const kText = "hello world's  user\n\n12 aaaaaaa";

std::shared_ptr<const Tokenizer> load(const test::VocabularyGguf& file) {
  const TemporaryFolder folder;
  return Tokenizer::load(folder.write("vocabulary.gguf", file.bytes()));
}

TEST(TokenizerLoading, GgufGivesTheSameIdsAsJson) {
  const TemporaryFolder folder;
  const auto json = Tokenizer::load(folder.write("tokenizer.json", test::small_tokenizer_text()));
  const auto gguf = load(SmallGguf().file());
  EXPECT_EQ(gguf->encode(kText), json->encode(kText));
  EXPECT_EQ(gguf->decode(gguf->encode("<|eot_id|>\xE4\xBD\xA0")), "<|eot_id|>\xE4\xBD\xA0");
  EXPECT_TRUE(gguf->is_special(*gguf->find("<|eot_id|>")));
  EXPECT_FALSE(gguf->is_special(*gguf->find("<tool>")));
  EXPECT_EQ(gguf->encode("<tool>").size(), 1u);
}

TEST(TokenizerLoading, GgufBosDefaultsToTheKindsHabit) {
  SmallGguf small;
  EXPECT_TRUE(load(small.file())->adds_bos());
  EXPECT_FALSE(load(small.file().boolean("tokenizer.ggml.add_bos_token", false))->adds_bos());
  small.pre = "smollm";
  EXPECT_FALSE(load(small.file())->adds_bos());
  const auto added = load(small.file().boolean("tokenizer.ggml.add_bos_token", true));
  EXPECT_EQ(added->encode("a", {.add_bos = true}),
            (std::vector<TokenId>{static_cast<TokenId>(small.bos), 'a'}));
}

TEST(TokenizerLoading, GgufPreTokenizers) {
  SmallGguf small;
  const std::string text = "x 12345";
  const auto pieces = [&](const char* pre) {
    small.pre = pre;
    const auto tokenizer = load(small.file());
    std::vector<std::string> texts;
    for (const TokenId id : tokenizer->encode(text)) texts.emplace_back(tokenizer->token_bytes(id));
    return texts;
  };
  EXPECT_EQ(pieces("llama-bpe"), (std::vector<std::string>{"x", " ", "12", "3", "4", "5"}));
  EXPECT_EQ(pieces("smollm"), (std::vector<std::string>{"x", " ", "1", "2", "3", "4", "5"}));
  EXPECT_EQ(pieces("gpt-2"), (std::vector<std::string>{"x", " ", "12", "3", "4", "5"}));
}

TEST(TokenizerLoading, GgufStopTokensAndTemplate) {
  SmallGguf small;
  const auto tokenizer = load(small.file()
                                  .uint32("tokenizer.ggml.eot_token_id", 65)
                                  .uint32("tokenizer.ggml.eom_token_id", 66)
                                  .text("tokenizer.chat_template", "{{ x }}"));
  std::vector<TokenId> expected = {65, 66};
  for (const char* name : {"<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>"}) {
    expected.push_back(*tokenizer->find(name));
  }
  EXPECT_EQ(tokenizer->stop_tokens(), expected);
  EXPECT_EQ(tokenizer->chat_template(), "{{ x }}");
}

// llama.cpp b11549 makes two tokens of "ab cdef" and three of "ab cdef<x>", of files like these.
TEST(TokenizerLoading, GgufCutsTheLongestAddedTokensOutFirst) {
  SmallGguf small;
  const auto first = static_cast<TokenId>(small.tokens.size());
  small.add("ab c", 4);
  small.add("b cdef", 4);
  small.add("<x>", 3);
  const auto tokenizer = load(small.file());
  EXPECT_EQ(tokenizer->encode("ab cdef"), (std::vector<TokenId>{'a', first + 1}));
  EXPECT_EQ(tokenizer->encode("ab c"), (std::vector<TokenId>{first}));
  EXPECT_EQ(tokenizer->encode("ab cdef<x>", {.parse_special = true}),
            (std::vector<TokenId>{'a', first + 1, first + 2}));
}

TEST(TokenizerLoading, GgufWithoutTypesKnowsTurnTokens) {
  SmallGguf small;
  test::VocabularyGguf file;
  file.text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", "llama-bpe")
      .texts("tokenizer.ggml.tokens", small.tokens)
      .texts("tokenizer.ggml.merges", small.merges);
  const auto tokenizer = load(file);
  EXPECT_TRUE(tokenizer->is_special(*tokenizer->find("<|eot_id|>")));
  EXPECT_FALSE(tokenizer->adds_bos());  // no BOS is named
}

TEST(TokenizerLoading, FolderUnitesItsSources) {
  const TemporaryFolder folder;
  auto json = test::small_tokenizer_json();
  json["post_processor"] = nullptr;
  folder.write("tokenizer.json", json.dump());
  auto tokenizer = Tokenizer::load(folder.path());
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->chat_template(), "");

  folder.write("special_tokens_map.json", R"({"eos_token": {"content": "1"}, "bos_token": "2"})");
  folder.write("tokenizer_config.json",
               R"({"bos_token": {"content": "<|im_start|>", "lstrip": false}, "eos_token": "3",
                   "add_bos_token": true, "chat_template": [{"name": "tool_use", "template": "t"},
                   {"name": "default", "template": "d"}]})");
  folder.write("config.json", R"({"eos_token_id": 52, "vocab_size": 301})");
  folder.write("generation_config.json", R"({"eos_token_id": [53, 54, 52]})");
  tokenizer = Tokenizer::load(folder.path());
  EXPECT_EQ(tokenizer->bos(), tokenizer->find("<|im_start|>"));
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->chat_template(), "d");
  std::vector<TokenId> expected = {'1', '3', 52, 53, 54};
  for (const char* name : {"<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>"}) {
    expected.push_back(*tokenizer->find(name));
  }
  EXPECT_EQ(tokenizer->stop_tokens(), expected);

  folder.write("chat_template.jinja", "from a file\n");
  EXPECT_EQ(Tokenizer::load(folder.path())->chat_template(), "from a file\n");
}

TEST(TokenizerLoading, PreTokenizersInJson) {
  const auto tokens = [](const nlohmann::json& pre_tokenizer) {
    auto json = test::small_tokenizer_json();
    json["pre_tokenizer"] = pre_tokenizer;
    const TemporaryFolder folder;
    const auto tokenizer = Tokenizer::load(folder.write("t", json.dump()));
    std::string joined;
    for (const TokenId id : tokenizer->encode("12  7")) {
      joined += std::string(tokenizer->token_bytes(id)) + "|";
    }
    return joined;
  };
  const nlohmann::json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  const nlohmann::json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const nlohmann::json sequence = {{"type", "Sequence"}, {"pretokenizers", {digits, bytes}}};
  const nlohmann::json nested = {{"type", "Sequence"}, {"pretokenizers", {sequence}}};
  EXPECT_EQ(tokens(bytes), "12| | |7|");
  EXPECT_EQ(tokens(sequence), "1|2|  |7|");
  EXPECT_EQ(tokens(nested), "1|2|  |7|");
}

TEST(TokenizerLoading, TellsKindsByContent) {
  const TemporaryFolder folder;
  const std::string json = folder.write("a.gguf", " \n" + test::small_tokenizer_text());
  EXPECT_EQ(Tokenizer::load(json)->vocab_size(), 301);
  const std::string gguf = folder.write("tokenizer.json", SmallGguf().file().bytes());
  EXPECT_EQ(Tokenizer::load(gguf)->find("hello"), 259);
}

TEST(TokenizerLoading, ErrorsNameThePath) {
  const TemporaryFolder folder;
  const auto expect = [](const std::string& path, ErrorCode code, const std::string& part) {
    try {
      Tokenizer::load(path);
      ADD_FAILURE() << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
    }
  };
  expect(folder.path() + "/absent", ErrorCode::kNotFound, "");
  expect(folder.path(), ErrorCode::kNotFound, "tokenizer.json");
  expect(folder.write("empty", ""), ErrorCode::kUnsupported, "0 tokens");
  expect(folder.write("sp.model", "\x0A\x0E\x0A\x05<unk>"), ErrorCode::kUnsupported,
         "SentencePiece");
  expect(folder.write("small.model", test::small_tiktoken_model()), ErrorCode::kUnsupported,
         "128000");
  expect(folder.write("x.json", "{\"model\": {\"type\": \"WordPiece\"}}"), ErrorCode::kUnsupported,
         "WordPiece");
  folder.write("tokenizer.json", test::small_tokenizer_text());
  folder.write("config.json", "{\"eos_token_id\": 301}");
  expect(folder.path(), ErrorCode::kBadFile, "eos_token_id \"301\"");
}

// tokenizers and transformers refuse it, too.
TEST(TokenizerLoading, AByteOrderMarkIsSaid) {
  const std::string mark = "\xEF\xBB\xBF";
  const auto expect = [&](const std::string& path, const std::string& file) {
    try {
      Tokenizer::load(path);
      ADD_FAILURE() << file;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadFile) << error.what();
      EXPECT_NE(std::string(error.what())
                    .find(file + ": it begins with a byte order mark, which JSON must not have; "
                                 "remove its first 3 bytes"),
                std::string::npos)
          << error.what();
    }
  };
  const std::string json = test::small_tokenizer_text();
  {
    const TemporaryFolder folder;
    const std::string path = folder.write("tokenizer.json", mark + json);
    expect(path, "tokenizer.json");
    expect(folder.path(), "tokenizer.json");
    folder.write("tokenizer.json", mark + " \n" + json);
    expect(path, "tokenizer.json");
  }
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json", "config.json",
                           "generation_config.json"}) {
    const TemporaryFolder folder;
    folder.write("tokenizer.json", json);
    folder.write(name, "{}");
    EXPECT_EQ(Tokenizer::load(folder.path())->vocab_size(), 301) << name;
    folder.write(name, mark + "{}");
    expect(folder.path(), name);
  }
}

}  // namespace
}  // namespace paddock
