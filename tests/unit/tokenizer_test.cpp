// Encoding and decoding with a small vocabulary.
#include "paddock/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "paddock/error.h"
#include "support/small_tokenizer.h"
#include "text/bpe_tokenizer.h"
#include "text/tokenizer_readers.h"
#include "text/tokenizer_source.h"

namespace paddock {
namespace {

using test::bytes_of;
using test::small_tokenizer_json;
using Texts = std::vector<std::string>;

std::shared_ptr<const Tokenizer> parse(const nlohmann::json& json) {
  const std::string text = json.dump();
  return parse_tokenizer_json(bytes_of(text));
}
std::shared_ptr<const Tokenizer> small() {
  static const auto tokenizer = parse(small_tokenizer_json());
  return tokenizer;
}

// The bytes of each token of an encoded text.
Texts tokens(const Tokenizer& tokenizer, std::string_view text, EncodeOptions options = {}) {
  Texts texts;
  for (const TokenId id : tokenizer.encode(text, options)) {
    texts.emplace_back(tokenizer.token_bytes(id));
  }
  return texts;
}

TEST(Tokenizer, MergesByRankThenFromTheLeft) {
  EXPECT_EQ(tokens(*small(), "hello world"), (Texts{"hello", " wor", "ld"}));
  EXPECT_EQ(tokens(*small(), "aaaaaaa"), (Texts{"aaaa", "aa", "a"}));
  EXPECT_EQ(tokens(*small(), "aaa"), (Texts{"aa", "a"}));
  // "l l" comes before "l o" and takes the first two letters.
  EXPECT_EQ(tokens(*small(), "lllo"), (Texts{"ll", "lo"}));
  EXPECT_EQ(tokens(*small(), "llo"), (Texts{"ll", "o"}));
  EXPECT_TRUE(tokens(*small(), "").empty());
}

TEST(Tokenizer, LongAndShortPiecesMergeAlike) {
  // Pieces of up to 24 symbols are merged by another algorithm than longer ones.
  Vocabulary vocabulary;
  vocabulary.add(0, "a", TokenKind::kNormal);
  vocabulary.add(1, "b", TokenKind::kNormal);
  MergeTable table;
  std::vector<std::string> names = {"a", "b"};
  uint64_t state = 1;
  const auto random = [&](size_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>(state >> 33) % n;
  };
  for (TokenId id = 2; id < 60;) {
    const size_t left = random(names.size()), right = random(names.size());
    const std::string joined = names[left] + names[right];
    if (std::find(names.begin(), names.end(), joined) != names.end() || joined.size() > 9) continue;
    names.push_back(joined);
    vocabulary.add(id, joined, TokenKind::kNormal);
    table.add(static_cast<TokenId>(left), static_cast<TokenId>(right), static_cast<uint32_t>(id),
              id);
    ++id;
  }
  vocabulary.seal();
  table.seal(vocabulary);
  // The definition: merge the leftmost pair of the lowest rank until there is none.
  const auto by_definition = [&](std::vector<TokenId> ids) {
    for (;;) {
      size_t best = 0;
      const MergeTable::Merge* merge = nullptr;
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        const auto* m = table.find(ids[i], ids[i + 1]);
        if (m != nullptr && (merge == nullptr || m->rank < merge->rank)) {
          merge = m;
          best = i;
        }
      }
      if (merge == nullptr) return ids;
      ids[best] = merge->result;
      ids.erase(ids.begin() + static_cast<ptrdiff_t>(best) + 1);
    }
  };
  Merger merger(table);
  for (size_t length = 0; length < 80; ++length) {
    for (int repeat = 0; repeat < 20; ++repeat) {
      std::vector<TokenId> ids(length);
      for (TokenId& id : ids) id = static_cast<TokenId>(random(2));
      const auto expected = by_definition(ids);
      merger.merge(ids);
      ASSERT_EQ(ids, expected) << "length " << length;
    }
  }
}

TEST(Tokenizer, WholePieceBeforeMergesWhereTheFileSaysSo) {
  auto json = small_tokenizer_json();
  json["model"]["vocab"]["zq"] = 301;
  EXPECT_EQ(parse(json)->encode("zq"), (std::vector<TokenId>{301}));
  json["model"]["ignore_merges"] = false;
  EXPECT_EQ(tokens(*parse(json), "zq"), (Texts{"z", "q"}));
}

TEST(Tokenizer, MergesAsPairs) {
  auto json = small_tokenizer_json();
  for (auto& merge : json["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    const size_t space = text.find(' ');
    merge = {text.substr(0, space), text.substr(space + 1)};
  }
  const std::string text = "hello world  aaaa 12 user";
  EXPECT_EQ(parse(json)->encode(text), small()->encode(text));
}

TEST(Tokenizer, SpecialTokensOnlyWhereAskedFor) {
  const auto plain = tokens(*small(), "<|eot_id|>");
  EXPECT_GT(plain.size(), 1u);
  for (const TokenId id : small()->encode("a<|eot_id|>b<|im_start|>")) {
    EXPECT_FALSE(small()->is_special(id));
  }
  EXPECT_EQ(tokens(*small(), "a<|eot_id|>b", {.parse_special = true}),
            (Texts{"a", "<|eot_id|>", "b"}));
  EXPECT_TRUE(small()->is_special(*small()->find("<|eot_id|>")));
}

TEST(Tokenizer, AddedTokensThatAreNotSpecialAlwaysMatchTheLongest) {
  EXPECT_EQ(tokens(*small(), "a<tool>b<tool>s<tool"),
            (Texts{"a", "<tool>", "b", "<tool>s", "<", "t", "o", "o", "l"}));
  EXPECT_FALSE(small()->is_special(*small()->find("<tool>")));
}

// Expected ids by tokenizers 0.23.
TEST(Tokenizer, AddedTokensThatAreNotNormalizedAreCutOutFirst) {
  auto json = small_tokenizer_json();
  const auto add = [&](int id, const char* text, bool normalized) {
    json["added_tokens"].push_back(
        {{"id", id}, {"content", text}, {"normalized", normalized}, {"special", false}});
  };
  add(310, "ab cd", true);
  add(311, "cd ef", false);
  EXPECT_EQ(parse(json)->encode("ab cd ef"), (std::vector<TokenId>{'a', 'b', ' ', 311}));
  EXPECT_EQ(parse(json)->encode("xab cd efab cd"),
            (std::vector<TokenId>{'x', 'a', 'b', ' ', 311, 310}));
}

TEST(Tokenizer, AnAddedTokenMayHaveTheBytesOfAnother) {
  auto json = small_tokenizer_json();
  json["added_tokens"].push_back({{"id", 310}, {"content", " w"}, {"special", false}});
  EXPECT_EQ(parse(json)->encode("a wa"), (std::vector<TokenId>{'a', 310, 'a'}));
}

TEST(Tokenizer, TurnTokensAreSpecialWhateverTheFileSays) {
  auto json = small_tokenizer_json();
  for (auto& token : json["added_tokens"]) token["special"] = false;
  const auto tokenizer = parse(json);
  EXPECT_TRUE(tokenizer->is_special(*tokenizer->find("<|im_start|>")));
  EXPECT_GT(tokenizer->encode("<|im_start|>").size(), 1u);
}

TEST(Tokenizer, BosOnceAndOnlyWhereSettingsSaySo) {
  const TokenId bos = *small()->find("<|begin_of_text|>");
  EXPECT_EQ(small()->bos(), bos);
  EXPECT_TRUE(small()->adds_bos());
  EXPECT_EQ(small()->encode("a"), (std::vector<TokenId>{'a'}));
  EXPECT_EQ(small()->encode("a", {.add_bos = true}), (std::vector<TokenId>{bos, 'a'}));
  EXPECT_EQ(small()->encode("", {.add_bos = true}), (std::vector<TokenId>{bos}));
  EXPECT_EQ(small()->encode("<|begin_of_text|>a", {.add_bos = true, .parse_special = true}),
            (std::vector<TokenId>{bos, 'a'}));
  auto json = small_tokenizer_json();
  json["post_processor"] = {{"type", "ByteLevel"}};
  EXPECT_FALSE(parse(json)->adds_bos());
  EXPECT_EQ(parse(json)->bos(), bos);
  EXPECT_EQ(parse(json)->encode("a", {.add_bos = true}), (std::vector<TokenId>{'a'}));
}

TEST(Tokenizer, StopTokensByName) {
  std::vector<TokenId> expected;
  for (const char* name : {"<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>"}) {
    expected.push_back(*small()->find(name));
  }
  EXPECT_EQ(small()->stop_tokens(), expected);
}

TEST(Tokenizer, RefusesInvalidUtf8WithItsOffset) {
  const std::vector<std::pair<std::string, int>> cases = {{"abc\xFF", 3},
                                                          {"\x80", 0},
                                                          {"12345678\xC3", 8},
                                                          {"\xC0\x80", 0},
                                                          {"a\xED\xA0\x80", 1},
                                                          {"\xF4\x90\x80\x80", 0},
                                                          {"\xE4\xBD", 0},
                                                          {"\xF0\x8F\xBF\xBF", 0},
                                                          {"ok \xE4\xBD\xA0\xE4", 6}};
  for (const auto& [text, offset] : cases) {
    try {
      small()->encode(text);
      ADD_FAILURE() << "accepted, offset " << offset;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("at byte " + std::to_string(offset)),
                std::string::npos)
          << error.what();
    }
  }
  for (const char* text :
       {"\xED\x9F\xBF", "\xEE\x80\x80", "\xF4\x8F\xBF\xBF", "\xEF\xBF\xBE", "\x7F"}) {
    EXPECT_EQ(small()->decode(small()->encode(text)), text);
  }
}

TEST(Tokenizer, BytesWithoutATokenAreLeftOut) {
  auto json = small_tokenizer_json();
  json["model"]["vocab"].erase(alphabet_from_bytes("\x06"));
  // The neighbours of a missing byte meet, as in the reference implementation.
  json["model"]["ignore_merges"] = false;
  EXPECT_EQ(tokens(*parse(json), "!\x06?"), (Texts{"!", "?"}));
}

TEST(Tokenizer, RefusesIdsOutsideTheVocabulary) {
  for (const TokenId id : {-1, small()->vocab_size(), INT32_MAX, INT32_MIN}) {
    EXPECT_THROW(small()->token_bytes(id), Error);
    EXPECT_THROW(small()->is_special(id), Error);
  }
  for (const TokenId id : {-1, INT32_MIN}) EXPECT_THROW(small()->decode({&id, 1}), Error);
}

TEST(Tokenizer, DecodesWithAndWithoutSpecialTokens) {
  const auto ids = small()->encode("hello<|eot_id|><tool> world", {.parse_special = true});
  EXPECT_EQ(small()->decode(ids), "hello<tool> world");
  EXPECT_EQ(small()->decode(ids, false), "hello<|eot_id|><tool> world");
}

TEST(Tokenizer, FindsTextsExactly) {
  EXPECT_EQ(small()->find("hello"), 259);
  EXPECT_EQ(small()->find("a"), 'a');
  EXPECT_EQ(small()->find("hell0"), std::nullopt);
  EXPECT_EQ(small()->find(""), std::nullopt);
}

TEST(Tokenizer, IdsWithoutATokenAreEmpty) {
  // The vocabulary has a gap before id 300.
  EXPECT_EQ(small()->vocab_size(), 301);
  EXPECT_EQ(small()->token_bytes(290), "");
  EXPECT_EQ(small()->token_bytes(300), "\xE4\xBD");
  EXPECT_FALSE(small()->is_special(290));
}

TEST(Tokenizer, TiktokenFilesGiveTheSameTokens) {
  const std::string model = test::small_tiktoken_model();
  const auto tokenizer = make_tokenizer(read_tiktoken_model(bytes_of(model), 0));
  EXPECT_EQ(tokenizer->vocab_size(), 256 + 17 + 256);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->token_bytes(*tokenizer->bos()), "<|begin_of_text|>");
  EXPECT_EQ(tokenizer->find("<|eot_id|>"), *tokenizer->bos() + 9);
  EXPECT_EQ(tokenizer->find("<|reserved_special_token_245|>"), tokenizer->vocab_size() - 1);
  for (const char* text : {"hello world", "aaaaaaa user 1212", "lllo\n\n\n  x's"}) {
    EXPECT_EQ(tokens(*tokenizer, text), tokens(*small(), text));
  }
}

TEST(Tokenizer, TimeGrowsAlmostLinearly) {
  // With quadratic merging or matching, each of these takes minutes.
  for (const char* unit :
       {"a", " ", "\n", "1", "!", "\t", " \n", "'", "\xE4\xBD\xA0", "a ", "\xC2\xA0"}) {
    std::string text;
    while (text.size() < 1000000) text += unit;
    for (const bool ends_in_letter : {false, true}) {
      if (ends_in_letter) text += "x";
      const auto start = std::chrono::steady_clock::now();
      const auto ids = small()->encode(text);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      EXPECT_LT(seconds.count(), 20) << "unit '" << unit << "'";
      EXPECT_EQ(small()->decode(ids), text);
    }
  }
}

TEST(StreamDecoder, HoldsBackUnfinishedCharacters) {
  StreamDecoder decoder(small());
  EXPECT_EQ(decoder.push('a'), "a");
  EXPECT_EQ(decoder.push(0xF0), "");
  EXPECT_EQ(decoder.push(0x9F), "");
  EXPECT_EQ(decoder.push(0x98), "");
  EXPECT_EQ(decoder.push(0x80), "\xF0\x9F\x98\x80");
  EXPECT_EQ(decoder.push(300), "");  // two bytes of three
  EXPECT_EQ(decoder.push(0xA0), "\xE4\xBD\xA0");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, ReplacesWhatCannotBecomeValid) {
  const std::string mark = "\xEF\xBF\xBD";
  StreamDecoder decoder(small());
  EXPECT_EQ(decoder.push(0xFF), mark);
  EXPECT_EQ(decoder.push(0xE4), "");
  EXPECT_EQ(decoder.push('x'), mark + "x");
  EXPECT_EQ(decoder.push(0xE0), "");
  EXPECT_EQ(decoder.push(0x80), mark + mark);  // overlong: neither byte can stay
  EXPECT_EQ(decoder.push(0xF0), "");
  EXPECT_EQ(decoder.push(0x9F), "");
  EXPECT_EQ(decoder.finish(), mark);
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, SkipsSpecialTokensWhereAsked) {
  const TokenId eot = *small()->find("<|eot_id|>");
  StreamDecoder skipping(small()), showing(small(), false);
  EXPECT_EQ(skipping.push(eot), "");
  EXPECT_EQ(showing.push(eot), "<|eot_id|>");
  EXPECT_THROW(StreamDecoder(nullptr), Error);
  EXPECT_THROW(skipping.push(-1), Error);
}

}  // namespace
}  // namespace paddock
