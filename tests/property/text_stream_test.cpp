// Streamed text against brute force: random characters cut into tokens at every place, with
// several stop strings that overlap each other.
#include "engine/text_stream.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "support/small_tokenizer.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

/// Tokens of one and of several bytes: the pieces that a text was cut into.
class Pieces {
 public:
  std::vector<TokenId> ids_of(const std::vector<std::string>& pieces) {
    std::vector<TokenId> ids;
    for (const std::string& piece : pieces) ids.push_back(*tokenizer->find(piece));
    return ids;
  }

  explicit Pieces(const std::vector<std::vector<std::string>>& texts) {
    nlohmann::json json = small_tokenizer_json();
    nlohmann::json vocab = nlohmann::json::object();
    int id = 0;
    for (; id < 256; ++id) vocab[alphabet_from_bytes(std::string(1, static_cast<char>(id)))] = id;
    for (const auto& text : texts) {
      for (const std::string& piece : text) {
        const std::string key = alphabet_from_bytes(piece);
        if (!vocab.contains(key)) vocab[key] = id++;
      }
    }
    for (auto& token : json["added_tokens"]) token["id"] = id++;
    json["model"]["vocab"] = vocab;
    json["model"]["merges"] = nlohmann::json::array();
    tokenizer = Tokenizer::load(TemporaryFolder().write("tokenizer.json", json.dump()));
  }

  std::shared_ptr<const Tokenizer> tokenizer;
};

/// Whole characters of `bytes`, whose only trouble is that the last one may be unfinished.
std::string whole_characters(const std::string& bytes) {
  size_t end = 0;
  while (end < bytes.size()) {
    const auto lead = static_cast<uint8_t>(bytes[end]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (end + length > bytes.size()) break;
    end += length;
  }
  return bytes.substr(0, end);
}

struct Shown {
  std::string text;
  bool stopped = false;
};

/// What may be shown of a text so far: all before the stop string that is complete first (of those
/// that end there, the longest); else all but the longest end that some stop string begins with.
Shown brute_force(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 0; end <= text.size(); ++end) {
    for (size_t begin = 0; begin < end; ++begin) {
      for (const std::string& stop : stops) {
        if (text.substr(begin, end - begin) == stop) return {text.substr(0, begin), true};
      }
    }
  }
  for (size_t begin = 0; begin < text.size(); ++begin) {
    const std::string tail = text.substr(begin);
    for (const std::string& stop : stops) {
      if (stop.size() > tail.size() && stop.starts_with(tail))
        return {text.substr(0, begin), false};
    }
  }
  return {text, false};
}

void expect_stream(const std::shared_ptr<const Tokenizer>& tokenizer,
                   const std::vector<TokenId>& ids, const std::vector<std::string>& stops) {
  TextStream stream(tokenizer, stops);
  std::string bytes;
  std::string streamed;
  for (const TokenId id : ids) {
    bytes += tokenizer->token_bytes(id);
    stream.push(id);
    const Shown expected = brute_force(whole_characters(bytes), stops);
    streamed += stream.take();
    ASSERT_EQ(streamed, expected.text);
    ASSERT_EQ(stream.stopped(), expected.stopped);
    ASSERT_EQ(stream.take(), "") << "it was taken";
    if (expected.stopped) {
      stream.push(ids[0]);  // what follows is gone
      stream.finish();
      ASSERT_EQ(stream.take(), "");
      ASSERT_EQ(stream.release(), expected.text);
      return;
    }
  }
  // The end: an unfinished character is replaced, and may complete a stop string.
  std::string whole = whole_characters(bytes);
  if (whole.size() < bytes.size()) whole += "\xEF\xBF\xBD";
  const Shown last = brute_force(whole, stops);
  stream.finish();
  streamed += stream.take();
  ASSERT_EQ(streamed, last.stopped ? last.text : whole);
  ASSERT_EQ(stream.stopped(), last.stopped);
  ASSERT_EQ(stream.release(), streamed);
}

std::string join(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += part;
  return text;
}

class TextStreams : public testing::Test {
 protected:
  std::string random_text(size_t characters) {
    static const char* alphabet[] = {"a", "a", "b", "\xC3\xA9", "\xE4\xBD\xA0", "\xF0\x9F\x98\x80"};
    std::string text;
    for (size_t i = 0; i < characters; ++i) text += alphabet[random_() % std::size(alphabet)];
    return text;
  }

  std::vector<std::string> random_stops(const std::string& text) {
    std::vector<std::string> stops;
    for (uint32_t n = random_() % 5; n > 0; --n) {
      const std::string stop = random_() % 3 == 0 ? random_text(1 + random_() % 6)
                                                  : whole_characters(text.substr(starts_in(text)));
      if (!stop.empty()) stops.push_back(stop.substr(0, cut_in(stop)));
    }
    return stops;
  }

  std::vector<std::string> random_pieces(const std::string& text) {
    std::vector<std::string> pieces;
    for (size_t begin = 0; begin < text.size();) {
      const size_t n = std::min<size_t>(1 + random_() % 6, text.size() - begin);
      pieces.push_back(text.substr(begin, n));
      begin += n;
    }
    return pieces;
  }

  std::mt19937 random_{11};

 private:
  /// A place where a character begins.
  size_t starts_in(const std::string& text) {
    size_t at = random_() % text.size();
    while ((static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
    return at;
  }
  /// A place, not the beginning, where one ends.
  size_t cut_in(const std::string& text) {
    size_t at = 1 + random_() % std::min<size_t>(text.size(), 9);
    while (at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) ++at;
    return at;
  }
};

TEST_F(TextStreams, EqualBruteForceWhereverTokensAreCut) {
  int stopped = 0;
  for (int round = 0; round < 60; ++round) {
    std::vector<std::vector<std::string>> texts;
    for (int i = 0; i < 40; ++i) {
      std::string text = random_text(1 + random_() % 14);
      if (random_() % 3 == 0) text.pop_back();  // may leave a part of a character
      texts.push_back(random_pieces(text));
    }
    Pieces pieces(texts);
    for (const std::vector<std::string>& parts : texts) {
      if (parts.empty()) continue;
      const std::vector<std::string> stops = random_stops(join(parts));
      SCOPED_TRACE(testing::PrintToString(parts) + " until " + testing::PrintToString(stops));
      expect_stream(pieces.tokenizer, pieces.ids_of(parts), stops);
      if (HasFailure()) return;
      stopped += brute_force(join(parts), stops).stopped ? 1 : 0;
    }
  }
  EXPECT_GT(stopped, 500);
}

TEST_F(TextStreams, EqualBruteForceForEveryCutOfShortTexts) {
  const std::string text =
      "ab\xC3\xA9"
      "aab\xE4\xBD\xA0"
      "ba";
  const std::vector<std::vector<std::string>> stop_sets = {
      {},
      {"b\xE4\xBD\xA0"},
      {"aab\xE4\xBD\xA0"
       "b",
       "b\xE4\xBD\xA0"
       "b",
       "\xE4\xBD\xA0"
       "b"},  // end together
      {"\xC3\xA9"
       "aabb",
       "ab\xE4\xBD\xA0"
       "ba"},
      {"abx",
       "b\xC3\xA9"
       "aax",
       "\xE4\xBD\xA0"
       "bax"},
      {"aab\xE4\xBD\xA0"
       "ba",
       "b\xE4\xBD\xA0"}};  // begins first, is complete last
  std::vector<std::vector<std::string>> cuts;
  for (uint32_t mask = 0; mask < 1U << (text.size() - 1); mask += 3) {
    std::vector<std::string> parts = {text.substr(0, 1)};
    for (size_t i = 1; i < text.size(); ++i) {
      if ((mask >> (i - 1) & 1) != 0) parts.emplace_back();
      parts.back() += text[i];
    }
    cuts.push_back(parts);
  }
  Pieces pieces(cuts);
  for (const auto& parts : cuts) {
    for (const auto& stops : stop_sets) {
      SCOPED_TRACE(testing::PrintToString(parts) + " until " + testing::PrintToString(stops));
      expect_stream(pieces.tokenizer, pieces.ids_of(parts), stops);
      if (HasFailure()) return;
    }
  }
}

TEST_F(TextStreams, BytesThatAreNoTextAreReplaced) {
  const Pieces pieces({});
  TextStream stream(pieces.tokenizer, {"\xEF\xBF\xBD!"});
  std::string text;
  for (const uint8_t byte : {0x61, 0xC3, 0x61, 0x80, 0x62, 0xF0, 0x9F}) {
    stream.push(byte);
    text += stream.take();
  }
  EXPECT_EQ(text,
            "a\xEF\xBF\xBD"
            "a\xEF\xBF\xBD"
            "b");
  stream.finish();
  EXPECT_EQ(stream.take(), "\xEF\xBF\xBD");
  EXPECT_FALSE(stream.stopped());

  // What replaces an unfinished character may complete a stop string.
  TextStream ends(pieces.tokenizer, {"b\xEF\xBF\xBD"});
  for (const uint8_t byte : {0x61, 0x62, 0xC3}) ends.push(byte);
  EXPECT_EQ(ends.take(), "a");
  ends.finish();
  EXPECT_TRUE(ends.stopped());
  EXPECT_EQ(ends.release(), "a");
}

TEST_F(TextStreams, WithoutAnEndGivesWhatIsFinal) {
  const Pieces pieces({});
  TextStream stream(pieces.tokenizer, {"aab"});
  for (const char c : std::string("xya")) stream.push(c);
  EXPECT_EQ(stream.release(), "xy");
}

TEST_F(TextStreams, ASpecialTokenEndsItAndGivesNoText) {
  const Pieces pieces({});
  const TokenId special = *pieces.tokenizer->find("<|im_end|>");
  for (const bool named : {false, true}) {
    std::vector<std::string> stops = {"aab", "xyz"};
    if (named) stops.emplace_back("<|im_end|>");
    TextStream stream(pieces.tokenizer, stops);
    for (const TokenId id : {TokenId{'x'}, TokenId{'a'}, TokenId{'a'}, special}) stream.push(id);
    EXPECT_EQ(stream.stopped(), named);
    EXPECT_EQ(stream.take(), named ? "xaa" : "x");  // unless it ends, "aa" may go on
    stream.push('b');
    EXPECT_TRUE(stream.stopped());
    EXPECT_EQ(stream.release(), named ? "xaa" : "x");
  }
  // Its text, said byte by byte, is a stop string like any other.
  TextStream stream(pieces.tokenizer, {"<|im_end|>"});
  for (const char c : std::string("a<|im_end|>")) stream.push(c);
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.release(), "a");
  // One that is no token's text stops nothing by its number.
  TextStream other(pieces.tokenizer, {"<|im_ended|>"});
  other.push(special);
  EXPECT_FALSE(other.stopped());
}

TEST_F(TextStreams, WithoutATokenizerThereIsNoText) {
  TextStream stream(nullptr, {"a"});
  stream.push(7);
  stream.finish();
  EXPECT_FALSE(stream.stopped());
  EXPECT_EQ(stream.take(), "");
  EXPECT_EQ(stream.release(), "");
}

}  // namespace
}  // namespace paddock::test
