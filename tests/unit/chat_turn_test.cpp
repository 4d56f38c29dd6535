// However an answer ended, the session goes on with what the template would have rendered.
#include <gtest/gtest.h>
#include <paddock/paddock.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <set>

#include "support/small_tokenizer.h"
#include "support/tiny_model.h"

namespace paddock {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

class ChatTurns : public testing::Test {
 protected:
  ChatTurns() {
    folder_.write("tokenizer.json", test::small_tokenizer_text());
    model_ = test::tiny_model(folder_, {.vocab_size = 320, .context_length = 512}, 7);
    engine_ = std::make_unique<Engine>(model_, EngineOptions{.threads = 1,
                                                             .device = "cpu",
                                                             .precision = Precision::kReference,
                                                             .max_sequences = 2,
                                                             .kv = {.budget_bytes = 4u << 20}});
  }

  TokenId id(std::string_view text) const { return *model_->tokenizer()->find(text); }

  // Draws evenly from these tokens; letters that no merge joins.
  GenerateOptions only(const std::vector<TokenId>& allowed, uint64_t seed) const {
    GenerateOptions options;
    options.max_tokens = 24;
    options.sampling = {.temperature = 50, .top_k = 0, .top_p = 1, .min_p = 0, .seed = seed};
    for (TokenId i = 0; i < 320; ++i) {
      if (std::find(allowed.begin(), allowed.end(), i) == allowed.end()) {
        options.sampling.logit_bias.emplace_back(i, kNever);
      }
    }
    return options;
  }
  std::vector<TokenId> letters(const std::string& text, std::vector<TokenId> more = {}) const {
    for (const char c : text) more.push_back(static_cast<uint8_t>(c));
    return more;
  }

  // One answer and the next message, in a session and as a whole conversation: the same ids, and
  // the same logits after them.
  GenerateResult compare(const ChatTemplate& chat, const GenerateOptions& options) {
    const ChatMessage user{"user", "zzz"}, next{"user", "xyz"};
    const SessionId session = engine_->open_session();
    std::vector<TokenId> ids = chat.encode({user}, true);
    GenerateResult answer = engine_->generate(session, ids, options);
    ids.insert(ids.end(), answer.tokens.begin(), answer.tokens.end());
    if (answer.stop_token) ids.push_back(*answer.stop_token);
    EXPECT_EQ(engine_->session_length(session), static_cast<int64_t>(ids.size()));

    const ChatTurn turn = chat.next_turn(next, answer);
    const int64_t kept = engine_->session_length(session) - turn.take_back;
    engine_->truncate(session, kept);
    ids.resize(static_cast<size_t>(kept));
    ids.insert(ids.end(), turn.tokens.begin(), turn.tokens.end());
    const std::span<const float> row = engine_->feed(session, turn.tokens);
    const std::vector<float> logits(row.begin(), row.end());

    const auto whole = chat.encode({user, {"assistant", answer.text}, next}, true);
    EXPECT_EQ(ids, whole) << chat.name() << " " << answer.text;
    const SessionId fresh = engine_->open_session();
    const std::span<const float> expected = engine_->feed(fresh, whole);
    EXPECT_TRUE(std::equal(logits.begin(), logits.end(), expected.begin(), expected.end()));
    EXPECT_EQ(engine_->session_length(session), engine_->session_length(fresh));
    engine_->close_session(session);
    engine_->close_session(fresh);
    return answer;
  }

  void for_each_format(const std::function<void(const ChatTemplate&)>& test) {
    for (const std::string& name : ChatTemplate::names()) {
      test(ChatTemplate(model_->tokenizer(), {.template_name = name}));
    }
  }

  test::TemporaryFolder folder_;
  std::shared_ptr<const Model> model_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(ChatTurns, EveryStopTokenLeavesTheFormatsOwn) {
  for_each_format([&](const ChatTemplate& chat) {
    std::set<TokenId> ended;
    for (const char* stop :
         {"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>"}) {
      const auto token = model_->tokenizer()->find(stop);
      if (!token) continue;
      for (uint64_t seed = 0; seed < 8; ++seed) {
        const auto answer = compare(chat, only(letters("jkqvz\t", {*token, *token}), seed));
        if (answer.stop_token && !answer.tokens.empty()) ended.insert(*answer.stop_token);
      }
    }
    EXPECT_EQ(ended.size(), 4u) << chat.name();  // the small vocabulary has no <|endoftext|>
    EXPECT_TRUE(ended.contains(chat.end_of_turn()));
  });
}

TEST_F(ChatTurns, AnAnswerOfNothing) {
  for_each_format([&](const ChatTemplate& chat) {
    for (const char* stop : {"<|eot_id|>", "<|im_end|>"}) {
      EXPECT_TRUE(compare(chat, only({id(stop)}, 0)).tokens.empty());
    }
    GenerateOptions none;
    none.max_tokens = 0;
    compare(chat, none);
  });
}

TEST_F(ChatTurns, LengthAndCancellation) {
  for_each_format([&](const ChatTemplate& chat) {
    for (uint64_t seed = 0; seed < 4; ++seed) {
      auto options = only(letters("jkqvz\t"), seed);
      options.max_tokens = 5;
      EXPECT_EQ(compare(chat, options).finish_reason, FinishReason::kLength);
      int32_t n = 0;
      options.on_token = [&](const TokenEvent&) { return ++n < 3; };
      const auto cancelled = compare(chat, options);
      EXPECT_EQ(cancelled.finish_reason, FinishReason::kCancelled);
      EXPECT_EQ(cancelled.tokens.size(), 3u);
      options.on_token = [&](const TokenEvent&) -> bool { throw std::runtime_error("host"); };
      EXPECT_EQ(compare(chat, options).finish_reason, FinishReason::kError);
    }
  });
}

// The end of the stop string goes, with what of it was in tokens that began before it.
TEST_F(ChatTurns, StopStrings) {
  for_each_format([&](const ChatTemplate& chat) {
    int stopped = 0;
    for (uint64_t seed = 0; seed < 12; ++seed) {
      // "hello" is one token: the stop string begins inside of it.
      auto options = only(letters("jqz", {id("hello")}), seed);
      options.stop = {"llo", "zq"};
      const auto answer = compare(chat, options);
      stopped += answer.finish_reason == FinishReason::kStop;
      EXPECT_FALSE(answer.stop_token.has_value());
    }
    EXPECT_GT(stopped, 6) << chat.name();
  });
}

// An answer cut inside of a character has U+FFFD there, and so has the conversation.
TEST_F(ChatTurns, UnfinishedCharacters) {
  for_each_format([&](const ChatTemplate& chat) {
    // The second begins as U+FFFD does.
    for (const char* text : {"z\xC3\xA9", "z\xEF\xBF\xA1"}) {
      bool replaced = false;
      for (uint64_t seed = 0; seed < 8; ++seed) {
        auto options = only(letters(text), seed);
        options.max_tokens = 4;
        replaced |= compare(chat, options).text.find("\xEF\xBF\xBD") != std::string::npos;
      }
      EXPECT_TRUE(replaced);
    }
  });
}

TEST_F(ChatTurns, ASpecialTokenInsideAnAnswer) {
  for_each_format([&](const ChatTemplate& chat) {
    for (uint64_t seed = 0; seed < 4; ++seed) {
      auto options = only(letters("jq", {id("<|start_header_id|>"), id("<|im_end|>")}), seed);
      options.ignore_stop_tokens = true;
      compare(chat, options);
    }
  });
}

}  // namespace
}  // namespace paddock
