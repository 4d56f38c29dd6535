// Files that contradict themselves, ask for too much or want something the library does not have.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "paddock/error.h"
#include "paddock/tokenizer.h"
#include "support/fuzz_tokenizer_case.h"
#include "support/small_tokenizer.h"
#include "support/temporary_folder.h"
#include "support/vocabulary_gguf.h"
#include "text/bpe_tokenizer.h"
#include "text/tokenizer_readers.h"
#include "text/tokenizer_source.h"

namespace paddock {
namespace {

using nlohmann::json;
using test::bytes_of;
using test::SmallGguf;
using test::TemporaryFolder;

void expect_error(const std::function<void()>& call, ErrorCode code, const std::string& part) {
  try {
    call();
    ADD_FAILURE() << "accepted; expected an error with: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
        << error.what() << "\nexpected: " << part;
    EXPECT_LT(std::string(error.what()).size(), 600u);
  }
}
void expect_bad_json(const std::string& text, ErrorCode code, const std::string& part) {
  expect_error([&] { parse_tokenizer_json(bytes_of(text)); }, code, part);
}
void expect_bad_json(const std::function<void(json&)>& change, ErrorCode code,
                     const std::string& part) {
  json document = test::small_tokenizer_json();
  change(document);
  expect_bad_json(document.dump(), code, part);
}

TEST(TokenizerHostile, JsonSyntaxAndStructure) {
  const auto bad = ErrorCode::kBadFile;
  expect_bad_json("", bad, "not valid JSON");
  expect_bad_json("{\"a\":1}x", bad, "at byte");
  expect_bad_json("[]", bad, "no object");
  expect_bad_json("{\"\xFF\":1}", bad, "not valid JSON");
  expect_bad_json("{\"\\ud800\":1}", bad, "not valid JSON");
  expect_bad_json("{\"n\":1e999}", bad, "not valid JSON");
  expect_bad_json(std::string(1000000, '['), bad, "nested deeper than");
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  expect_bad_json(objects, bad, "nested deeper than");
  expect_bad_json("{\"a\":1,\"a\":2}", bad, "twice");
  expect_bad_json("{\"model\":{\"vocab\":{},\"vocab\":{}}}", bad, "twice");
  expect_bad_json("{}", bad, "\"model\" is missing");
  expect_bad_json([](json& j) { j["model"] = 1; }, bad, "\"model\" is missing");
  expect_bad_json(
      [](json& j) {
        j["model"].erase("vocab");
        j["added_tokens"].clear();
      },
      bad, "model.vocab is missing");
  expect_bad_json([](json& j) { j["added_tokens"] = 1; }, bad, "\"added_tokens\"");
  expect_bad_json([](json& j) { j["pre_tokenizer"]["pretokenizers"] = "x"; }, bad,
                  "\"pretokenizers\"");
  expect_bad_json([](json& j) { j["model"]["ignore_merges"] = 1; }, bad, "\"ignore_merges\"");
}

TEST(TokenizerHostile, VocabularyIds) {
  const auto bad = ErrorCode::kBadFile;
  const auto with_id = [&](const json& id, const std::string& part) {
    expect_bad_json([&](json& j) { j["model"]["vocab"]["xy"] = id; }, bad, part);
  };
  with_id(-1, "out of range");
  with_id(INT64_MIN, "out of range");
  with_id(UINT64_MAX, "out of range");
  with_id(INT64_C(1) << 32, "out of range");
  with_id(INT32_MAX, "out of range");
  with_id(INT32_MAX - 1, "out of range");  // must not allocate two billion places
  with_id(100000, "out of range");
  with_id(1.5, "no integer");
  with_id("7", "no integer");
  with_id(nullptr, "no integer");
  with_id(json::array(), "no id");
  with_id(65, "given twice");
  std::string twice = test::small_tokenizer_text();
  twice.insert(twice.find("\"vocab\":{") + 9, "\"a\":301,");
  expect_bad_json(twice, bad, "has two ids");
}

TEST(TokenizerHostile, TokenLength) {
  const std::string limit(kMaxTokenBytes, 'z');
  json document = test::small_tokenizer_json();
  document["model"]["vocab"][limit] = 301;
  const std::string text = document.dump();
  EXPECT_EQ(parse_tokenizer_json(bytes_of(text))->encode(limit), (std::vector<TokenId>{301}));
  expect_bad_json([&](json& j) { j["model"]["vocab"][limit + "z"] = 301; }, ErrorCode::kBadFile,
                  "1025 bytes");
  expect_bad_json([&](json& j) { j["added_tokens"][0]["content"] = limit + "z"; },
                  ErrorCode::kBadFile, "1025 bytes");
}

TEST(TokenizerHostile, Merges) {
  const auto with_merge = [](const json& merge, const std::string& part) {
    expect_bad_json([&](json& j) { j["model"]["merges"].push_back(merge); }, ErrorCode::kBadFile,
                    part);
  };
  for (const json& merge :
       {json("ab"), json("a b c"), json(" a"), json("a "), json(""), json(" "), json(1),
        json(nullptr), json::array(), json({"a"}), json({"a", "b", "c"}), json({"a", 1}),
        json({"a", json::array()}), json({{"a", "b"}}), json({"a", ""}), json("a \u4F60"),
        json({"a\n", "b"})}) {
    with_merge(merge, "merge 18 is neither");
  }
  with_merge("q z", "\"qz\" is not in the vocabulary");
  with_merge({"hel", "lo"}, "\"hel\" is not in the vocabulary");
  with_merge("h e", "given twice");
  expect_bad_json([](json& j) { j["model"]["merges"] = "h e"; }, ErrorCode::kBadFile,
                  "model.merges is missing or no array");
  // A merge must not be a way from plain text to a special token.
  expect_bad_json(
      [](json& j) {
        j["added_tokens"].push_back({{"id", 301}, {"content", "xy"}, {"special", true}});
        j["model"]["merges"].push_back("x y");
      },
      ErrorCode::kBadFile, "makes the special token \"xy\"");
}

TEST(TokenizerHostile, RefusesByName) {
  const auto unsupported = [](const std::string& pointer, const json& value,
                              const std::string& part) {
    expect_bad_json([&](json& j) { j[json::json_pointer(pointer)] = value; },
                    ErrorCode::kUnsupported, part);
  };
  unsupported("/model/type", "Unigram", "Unigram");
  unsupported("/model/byte_fallback", true, "byte_fallback");
  unsupported("/model/dropout", 0.1, "dropout");
  unsupported("/model/continuing_subword_prefix", "##", "continuing_subword_prefix");
  unsupported("/model/end_of_word_suffix", "</w>", "end_of_word_suffix");
  unsupported("/normalizer", {{"type", "NFC"}}, "NFC");
  unsupported("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}},
              "Lowercase");
  unsupported("/decoder", {{"type", "Metaspace"}}, "Metaspace");
  unsupported("/decoder", {{"type", "Sequence"}, {"decoders", {{{"type", "Strip"}}}}}, "Strip");
  unsupported("/post_processor", {{"type", "BertProcessing"}}, "BertProcessing");
  unsupported("/pre_tokenizer", nullptr, "without \"ByteLevel\"");
  unsupported("/pre_tokenizer", {{"type", "Whitespace"}}, "Whitespace");
  unsupported("/pre_tokenizer", {{"type", "ByteLevel"}}, "add_prefix_space");
  unsupported("/pre_tokenizer",
              {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}},
              "use_regex");
  unsupported("/pre_tokenizer/pretokenizers/0/pattern/Regex", "\\w+", "\\w+");
  unsupported("/pre_tokenizer/pretokenizers/0/pattern", {{"String", " "}}, "pattern");
  unsupported("/pre_tokenizer/pretokenizers/0/behavior", "Removed", "Removed");
  unsupported("/pre_tokenizer/pretokenizers/0/invert", true, "Isolated");
  unsupported("/pre_tokenizer/pretokenizers/0", {{"type", "Digits"}, {"individual_digits", true}},
              "use_regex");
  unsupported("/pre_tokenizer/pretokenizers/0", {{"type", "Digits"}, {"individual_digits", false}},
              "individual_digits");
  unsupported("/pre_tokenizer/pretokenizers/1/use_regex", true, "use_regex");
  unsupported("/pre_tokenizer/pretokenizers/2", {{"type", "ByteLevel"}}, "after ByteLevel");
  unsupported("/added_tokens/0/lstrip", true, "lstrip");
  unsupported("/added_tokens/1/rstrip", true, "rstrip");
  unsupported("/added_tokens/2/single_word", true, "single_word");
  expect_bad_json(
      [](json& j) {
        j["model"]["unk_token"] = "<|end_of_text|>";
        j["model"]["vocab"].erase("a");
        j["model"]["merges"] = json::array();
      },
      ErrorCode::kUnsupported, "unk_token");
}

TEST(TokenizerHostile, AddedTokens) {
  const auto bad = ErrorCode::kBadFile;
  const auto with = [&](const json& token, const std::string& part) {
    expect_bad_json([&](json& j) { j["added_tokens"].push_back(token); }, bad, part);
  };
  with(1, "has no id");
  with({{"content", "x"}}, "has no id");
  with({{"id", "1"}, {"content", "x"}}, "has no id");
  with({{"id", -5}, {"content", "<x>"}}, "out of range");
  with({{"id", 1 << 30}, {"content", "<x>"}}, "out of range");
  with({{"id", 301}}, "has no text");
  with({{"id", 301}, {"content", 1}}, "\"content\"");
  with({{"id", 301}, {"content", "<tool>"}}, "has two ids");
  with({{"id", 65}, {"content", "<x>"}}, "as an added token");
  with({{"id", 301}, {"content", "a"}}, "has id 97 in the vocabulary and 301");
  expect_bad_json([](json& j) { j["post_processor"]["single"][0]["SpecialToken"]["id"] = "<no>"; },
                  bad, "\"<no>\" does not exist");
  expect_bad_json([](json& j) { j["post_processor"]["single"][0] = 3; }, bad, "malformed");
  expect_bad_json(
      [](json& j) {
        auto& single = j["post_processor"]["single"];
        single.insert(single.begin(), single[0]);
      },
      ErrorCode::kUnsupported, "second token");
}

TEST(TokenizerHostile, TruncatedAndDamagedJson) {
  const std::string whole = test::small_tokenizer_text();
  for (size_t n = 0; n < whole.size(); n += 7) {
    expect_bad_json(whole.substr(0, n), ErrorCode::kBadFile, "not valid JSON");
  }
  for (size_t i = 0; i < whole.size(); i += 3) {
    for (const char change : {'\x01', '\x10', '\x80'}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ change);
      damaged.insert(damaged.begin(), '\0');  // what the rest is: a tokenizer.json
      EXPECT_NO_THROW(test::fuzz_tokenizer_case(bytes_of(damaged))) << i;
    }
  }
}

TEST(TokenizerHostile, Tiktoken) {
  const std::string whole = test::small_tiktoken_model();
  const auto bad = [](const std::string& text, ErrorCode code, const std::string& part) {
    expect_error([&] { make_tokenizer(read_tiktoken_model(bytes_of(text), 0)); }, code, part);
  };
  const auto file = ErrorCode::kBadFile, kind = ErrorCode::kUnsupported;
  bad("hello", kind, "line 1 is not");
  bad("\n", kind, "line 1 is not");
  bad("IQ==\n", kind, "line 1 is not");
  for (const char* line : {"IQ==", "IQ== ", "IQ==  300", "IQ== -1", "IQ== 0x1", "IQ== 1 2",
                           "IQ== 9999999999999999999999", "IQ= 5", "IQ 5", "I=== 5", "IR== 5",
                           "=Q== 5", "I Q== 5", " 5", "", "IQ== 5\r", "\xFF\xFF\xFF\xFF 5"}) {
    bad(whole + line + "\n", file, "line 274 is not");
  }
  bad(whole + "eHl6 9999\n", file, "rank 9999 is outside [0, 274)");
  bad(whole + "eHl6 5\n", file, "given twice");
  bad(whole + "IQ== 273\n", file, "has two ids");
  bad(whole.substr(whole.find('\n') + 1), file, "rank 272 is outside [0, 272)");
  bad("IQ== 0\n", file, "the byte 0 has no token");
  std::string longest = "eHh4";
  while (longest.size() < 1368) longest += "eHh4";
  bad(whole + longest + " 273\n", file, "1026 bytes");
  expect_error([&] { parse_tiktoken_model(bytes_of(whole)); }, kind, "273 tokens");
  expect_error([] { parse_tiktoken_model({}); }, kind, "0 tokens");
  // The last line may lack its end; nothing else may be cut off.
  EXPECT_NO_THROW(read_tiktoken_model(bytes_of(whole.substr(0, whole.size() - 1)), 0));
}

void expect_bad_gguf(const test::VocabularyGguf& file, ErrorCode code, const std::string& part) {
  const TemporaryFolder folder;
  const std::string path = folder.write("v.gguf", file.bytes());
  expect_error([&] { Tokenizer::load(path); }, code, part);
}

TEST(TokenizerHostile, Gguf) {
  const auto bad = ErrorCode::kBadFile, kind = ErrorCode::kUnsupported;
  const auto changed = [](const std::function<void(SmallGguf&)>& change) {
    SmallGguf small;
    change(small);
    return small.file();
  };
  expect_bad_gguf(test::VocabularyGguf(), kind, "has no tokenizer");
  for (const char* model : {"llama", "bert", "t5", "no_vocab", "rwkv"}) {
    expect_bad_gguf(changed([&](SmallGguf& g) { g.model = model; }), kind, model);
  }
  for (const char* pre : {"qwen2", "default", "deepseek-llm"}) {
    expect_bad_gguf(changed([&](SmallGguf& g) { g.pre = pre; }), kind, pre);
  }
  expect_bad_gguf(changed([](SmallGguf& g) { g.pre = ""; }), kind, "none named");
  expect_bad_gguf(SmallGguf().file().boolean("tokenizer.ggml.add_space_prefix", true), kind,
                  "add_space_prefix");
  expect_bad_gguf(changed([](SmallGguf& g) { g.tokens.clear(); }), bad, "missing or empty");
  expect_bad_gguf(changed([](SmallGguf& g) { g.types.pop_back(); }), bad, "elements for");
  expect_bad_gguf(changed([](SmallGguf& g) { g.types.push_back(1); }), bad, "elements for");
  for (const int32_t type : {0, 7, -1, INT32_MAX}) {
    expect_bad_gguf(changed([&](SmallGguf& g) { g.types[3] = type; }), bad, "does not exist");
  }
  expect_bad_gguf(changed([](SmallGguf& g) { g.add("hello", 1); }), bad, "has two ids");
  expect_bad_gguf(changed([](SmallGguf& g) { g.add("<tool>", 4); }), bad, "has two ids");
  expect_bad_gguf(changed([](SmallGguf& g) { g.add(std::string(1025, 'x'), 1); }), bad,
                  "1025 bytes");
  expect_bad_gguf(changed([](SmallGguf& g) { g.add("<\xFF>", 3); }), bad, "UTF-8");
  for (const char* merge : {"h", "h e l", "", " ", "he ", " he", "h  e", "\xFF h"}) {
    expect_bad_gguf(changed([&](SmallGguf& g) { g.merges.push_back(merge); }), bad, "merge 17");
  }
  expect_bad_gguf(changed([](SmallGguf& g) { g.merges.push_back("z z"); }), bad,
                  "not in the vocabulary");
  expect_bad_gguf(changed([](SmallGguf& g) { g.bos = 9999; }), bad, "bos_token_id is 9999");
  expect_bad_gguf(changed([](SmallGguf& g) { g.eos = UINT32_MAX - 1; }), bad, "eos_token_id");
  expect_bad_gguf(SmallGguf().file().text("tokenizer.ggml.eot_token_id", "x"), bad, "eot_token_id");

  // Arrays of another type than they should be.
  const auto confused = [&](const char* tokens, const char* types, const char* merges) {
    const SmallGguf g;
    test::VocabularyGguf file;
    file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
    const auto put = [&](const char* key, const char* as, const std::vector<std::string>& texts) {
      if (std::string(as) == "texts") file.texts(key, texts);
      if (std::string(as) == "int32s") file.int32s(key, g.types);
      if (std::string(as) == "uint32") file.uint32(key, 5);
    };
    put("tokenizer.ggml.tokens", tokens, g.tokens);
    put("tokenizer.ggml.token_type", types, g.tokens);
    put("tokenizer.ggml.merges", merges, g.merges);
    return file;
  };
  for (const char* other : {"int32s", "uint32"}) {
    expect_bad_gguf(confused(other, "int32s", "texts"), bad, "tokenizer.ggml.tokens");
    expect_bad_gguf(confused("texts", "int32s", other), bad, "tokenizer.ggml.merges");
  }
  for (const char* other : {"texts", "uint32"}) {
    expect_bad_gguf(confused("texts", other, "texts"), bad, "tokenizer.ggml.token_type");
  }
  expect_bad_gguf(confused("none", "int32s", "texts"), bad, "missing or empty");
  expect_bad_gguf(confused("texts", "int32s", "none"), bad, "merges is missing");
}

TEST(TokenizerHostile, FolderSettings) {
  const auto bad = [](const char* name, const std::string& content, const std::string& part) {
    const TemporaryFolder folder;
    folder.write("tokenizer.json", test::small_tokenizer_text());
    folder.write(name, content);
    expect_error([&] { Tokenizer::load(folder.path()); }, ErrorCode::kBadFile, part);
  };
  bad("config.json", "{", "config.json: not valid JSON");
  bad("config.json", "[]", "no JSON object");
  bad("config.json", std::string(100000, '['), "nested deeper");
  for (const char* id : {"-2", "301", "1.5", "\"2\"", "[1, 301]", "[[1]]", "{}", "4294967296"}) {
    bad("generation_config.json", std::string("{\"eos_token_id\": ") + id + "}", "eos_token_id");
  }
  bad("tokenizer_config.json", R"({"bos_token": 1})", "bos_token is no string");
  bad("tokenizer_config.json", R"({"bos_token": "<absent>"})", "\"<absent>\" is not");
  bad("tokenizer_config.json", R"({"eos_token": {"content": []}})", "eos_token is no string");
  bad("tokenizer_config.json", R"({"chat_template": 5})", "chat_template");
  bad("tokenizer_config.json", std::string((16u << 20) + 1, ' '), "more than");
  bad("chat_template.jinja", std::string((16u << 20) + 1, ' '), "more than");
}

TEST(TokenizerHostile, TextsTooLongForTheirIndices) {
  const std::string text = test::small_tokenizer_text();
  const auto tokenizer = parse_tokenizer_json(bytes_of(text));
  // The length is refused before a byte is read.
  for (const uint64_t size : {UINT64_C(1) << 31, UINT64_C(1) << 32, (UINT64_C(1) << 32) + 1}) {
    expect_error([&] { tokenizer->encode(std::string_view(text.data(), size)); },
                 ErrorCode::kInvalidArgument, "at most 2147483647");
  }
}

}  // namespace
}  // namespace paddock
