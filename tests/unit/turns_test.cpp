// A conversation under a rule that decides where a prompt ends: it decides at every turn.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <paddock/paddock.h>

#include <optional>
#include <set>
#include <stdexcept>

#include "conversation.h"
#include "support/small_tokenizer.h"
#include "support/temporary_folder.h"
#include "support/tiny_model.h"

namespace paddock::test {
namespace {

std::shared_ptr<const Model> tiny() {
  static const TemporaryFolder folder;
  static const std::shared_ptr<const Model> model = tiny_model(folder, {.context_length = 512}, 6);
  return model;
}

std::vector<TokenId> message(int64_t n, int32_t salt) {
  std::vector<TokenId> tokens(static_cast<size_t>(n));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<TokenId>((i * 7 + static_cast<size_t>(salt) * 13) % 96);
  }
  return tokens;
}

EngineOptions options(const std::string& policy, int32_t batch) {
  EngineOptions o;
  o.threads = 1;
  o.precision = Precision::kReference;
  o.batch_size = batch;
  o.kv.block_size = 4;
  o.kv.policy = policy;
  return o;
}

std::vector<int64_t> held(const Engine& engine) {
  std::vector<int64_t> positions;
  for (int32_t layer = 0; layer < 2; ++layer) {
    for (const KvBlock& block : engine.kv_blocks(layer)) {
      positions.push_back(block.first_position);
      positions.push_back(block.n_tokens);
    }
  }
  return positions;
}

/// Three turns of a chat; positions held after the last, and the text.
struct Chat {
  std::vector<TokenId> tokens;
  std::vector<int64_t> prompt_ends, after_prompt, blocks;
};

Chat chat(int32_t batch, const std::vector<int64_t>& lengths) {
  Engine engine(tiny(), options("snapkv:24@recent:8", batch));
  const SessionId session = engine.open_session();
  Chat out;
  for (size_t turn = 0; turn < lengths.size(); ++turn) {
    const auto tokens = message(lengths[turn], static_cast<int32_t>(turn));
    out.tokens.insert(out.tokens.end(), tokens.begin(), tokens.end());
    out.prompt_ends.push_back(static_cast<int64_t>(out.tokens.size()));
    int64_t resident = -1;
    const GenerateResult r = engine.generate(
        session, tokens,
        {.max_tokens = 10, .ignore_stop_tokens = true, .on_token = [&](const TokenEvent&) {
           if (resident < 0) resident = engine.kv_stats().layers[0].tokens_resident;
           return true;
         }});
    out.after_prompt.push_back(resident);
    out.tokens.insert(out.tokens.end(), r.tokens.begin(), r.tokens.end());
    engine.check_integrity();
  }
  out.blocks = held(engine);
  return out;
}

TEST(Turns, SnapKvDecidesWhereEachPromptEnds) {
  // The second message is shorter than what is observed before a decision.
  const Chat one = chat(64, {60, 5, 40});
  for (const int64_t resident : one.after_prompt) {
    EXPECT_LE(resident, 24);
    EXPECT_GE(resident, 16);
  }
  const Chat other = chat(7, {60, 5, 40});
  EXPECT_EQ(one.tokens, other.tokens);
  EXPECT_EQ(one.blocks, other.blocks);
}

TEST(Turns, AConversationReadAgainIsTheSameOne) {
  const Chat live = chat(64, {60, 5, 40});
  Engine engine(tiny(), options("snapkv:24@recent:8", 64));
  const SessionId session = engine.open_session();
  const std::span<const TokenId> all(live.tokens);
  const auto feed_to = [&](int64_t end, int64_t prompt_end) {
    const int64_t from = engine.session_length(session);
    if (end > from) engine.feed(session, all.subspan(from, end - from), prompt_end);
  };
  // The last token of an answer is pending, and comes with what follows.
  for (size_t turn = 0; turn < live.prompt_ends.size(); ++turn) {
    if (turn > 0) feed_to(live.prompt_ends[turn - 1] + 9, 0);
    feed_to(live.prompt_ends[turn], live.prompt_ends[turn]);
  }
  feed_to(static_cast<int64_t>(all.size()) - 1, 0);
  EXPECT_EQ(held(engine), live.blocks);
  // A length that is reached already says nothing.
  engine.feed(session, message(3, 9), 20);
  EXPECT_EQ(engine.session_length(session), static_cast<int64_t>(all.size()) + 2);
  EXPECT_THROW(engine.feed(session, message(1, 1), -1), Error);
  engine.check_integrity();
}

TEST(Turns, ThePeakIsTheMostThatAQueryMet) {
  EngineOptions o = options("h2o:32@every:16", 64);
  o.kv.budget_bytes = 1 << 20;
  Engine engine(tiny(), o);
  const SessionId session = engine.open_session();
  engine.feed(session, message(64, 1));
  EXPECT_EQ(engine.kv_stats().layers[0].tokens_resident, 32);
  EXPECT_EQ(engine.kv_stats().layers[0].tokens_peak, 48);
  EXPECT_EQ(engine.kv_stats().total.tokens_peak, 48);
  engine.close_session(session);
  EXPECT_EQ(engine.kv_stats().layers[0].tokens_peak, 0);
  engine.set_kv_policy("0=full,1=sink:2+10");
  engine.feed(engine.open_session(), message(50, 1));
  EXPECT_EQ(engine.kv_stats().layers[0].tokens_peak, 50);
  EXPECT_EQ(engine.kv_stats().layers[1].tokens_peak, 12);
}

/// The tool's conversation, whose rules a test may let fail after they were found to fit.
class Talk {
 public:
  explicit Talk(const std::string& policy, const std::string& system = "",
                const SamplingOptions& sampling = {.temperature = 0}, int32_t max_tokens = 10) {
    EngineOptions o = options(policy, 8);
    o.kv.on_event = [this](const KvEvent& event) {
      if (event.reason != RemovalReason::kWindow) return;
      if (cancels) engine->cancel();
      cancels = cancels && again;
    };
    o.kv.custom_policies["fickle"] = [this](std::string_view) {
      if (makes-- == 0) throw std::runtime_error("not once more");
      return make_policy("window:16");
    };
    engine.emplace(model(), o);
    conversation.emplace(
        cli::ConversationOptions{.system = system, .template_name = "chatml", .date = ""}, *engine,
        GenerateOptions{.max_tokens = max_tokens, .sampling = sampling});
  }

  std::vector<TokenId> say(const std::string& text) { return conversation->answer(text).tokens; }

  /// Sets other rules, in vain.
  void expect_refused(const std::string& policy, ErrorCode code, const std::string& rules_before) {
    const int64_t length = conversation->length();
    try {
      conversation->set_policy(policy);
      ADD_FAILURE() << policy;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
    }
    EXPECT_EQ(engine->options().kv.policy, rules_before);
    EXPECT_EQ(conversation->length(), length);
    engine->check_integrity();
  }

  bool cancels = false, again = false;  // where a window next leaves something, and ever after
  int64_t makes = -1;                   // how often the fickle rule is made before it fails
  std::optional<Engine> engine;
  std::optional<cli::Conversation> conversation;

 private:
  static std::shared_ptr<const Model> model() {
    static const TemporaryFolder folder;
    static const std::shared_ptr<const Model> model = [] {
      folder.write("tokenizer.json", small_tokenizer_text());
      return tiny_model(folder, {.vocab_size = 304, .context_length = 512}, 6);
    }();
    return model;
  }
};

TEST(Turns, RulesThatFailAfterTheyWereFoundToFitLeaveTheOldOnes) {
  const std::string first(40, 'x');
  const std::string second = "and so on";
  Talk undisturbed("full");
  const auto answer = undisturbed.say(first);
  const auto before = held(*undisturbed.engine);
  const auto next = undisturbed.say(second);
  ASSERT_FALSE(before.empty());
  {
    Talk talk("full");
    EXPECT_EQ(talk.say(first), answer);
    talk.makes = INT64_MAX;
    talk.engine->check_kv_policy("fickle");
    talk.makes = INT64_MAX - talk.makes;  // as often as it takes to look whether it fits
    talk.expect_refused("fickle", ErrorCode::kInvalidArgument, "full");
    EXPECT_EQ(held(*talk.engine), before);
    EXPECT_EQ(talk.say(second), next);
  }
  Talk talk("full");
  EXPECT_EQ(talk.say(first), answer);
  talk.cancels = true;  // while it is read again
  talk.expect_refused("window:16", ErrorCode::kCancelled, "full");
  EXPECT_FALSE(talk.cancels);
  EXPECT_EQ(held(*talk.engine), before);
  EXPECT_EQ(talk.say(second), next);
}

TEST(Turns, WhatTheOldRulesCouldNotReadAgainComesBeforeTheNextMessage) {
  const std::string first(60, 'x');
  const std::string second = "and so on";
  Talk undisturbed("sink:4+20");
  Talk talk("sink:4+20");
  EXPECT_EQ(talk.say(first), undisturbed.say(first));
  talk.cancels = talk.again = true;
  talk.expect_refused("window:16", ErrorCode::kCancelled, "sink:4+20");
  talk.cancels = false;
  EXPECT_LT(held(*talk.engine).back(), 40);
  EXPECT_EQ(talk.say(second), undisturbed.say(second));
  EXPECT_EQ(held(*talk.engine), held(*undisturbed.engine));
}

TEST(Turns, AConversationIsWhatItsTemplateWrites) {
  // Every answer is empty and ends with a token that ends no turn of this format.
  const TokenId other = *Talk("full").engine->model().tokenizer()->find("<|eom_id|>");
  Talk talk("full", "Be kind.", {.temperature = 0, .logit_bias = {{other, 1e9F}}});
  const ChatTemplate format(talk.engine->model().tokenizer(), {.template_name = "chatml"});
  std::vector<ChatMessage> messages = {{"system", "Be kind."}};
  int64_t start = 0;
  for (int64_t turn = 1; turn <= 3; ++turn) {
    messages.push_back({"user", "message " + std::to_string(turn)});
    EXPECT_TRUE(talk.say(messages.back().content).empty());
    const auto whole = static_cast<int64_t>(format.encode(messages, true).size());
    EXPECT_EQ(talk.conversation->length(), whole + 1);
    EXPECT_EQ(talk.conversation->turn_of(start), turn);
    EXPECT_EQ(talk.conversation->turn_of(whole), turn);
    if (turn > 1) {
      EXPECT_EQ(talk.conversation->turn_of(start - 1), turn - 1);
    }
    start = whole;
    messages.push_back({"assistant", ""});
    talk.engine->check_integrity();
  }
}

TEST(Turns, ARetryThatFailsLeavesTheAnswerThereWas) {
  Talk undisturbed("window:16");
  Talk talk("window:16");
  for (const char* text : {"a message that is a little longer", "and another one"}) {
    EXPECT_EQ(talk.say(text), undisturbed.say(text));
  }
  const int64_t length = talk.conversation->length();
  talk.cancels = true;  // the window has dropped what was in view: all is read again
  EXPECT_THROW(talk.conversation->retry(), Error);
  EXPECT_FALSE(talk.cancels);
  EXPECT_EQ(talk.conversation->length(), length);
  EXPECT_EQ(talk.conversation->turn_of(length - 1), 2);
  talk.engine->check_integrity();
  EXPECT_EQ(talk.say("go on"), undisturbed.say("go on"));
}

TEST(Turns, RulesThatComeBackFindTheConversationAsItWas) {
  for (const std::string policy : {"snapkv:24@recent:8", "0=full,1=snapkv:12@recent:4"}) {
    Talk talk(policy);
    talk.say(std::string(60, 'x'));
    talk.say("and so on");
    talk.say(std::string(30, 'y'));
    const auto before = held(*talk.engine);
    talk.conversation->set_policy("full");
    EXPECT_NE(held(*talk.engine), before);
    talk.conversation->set_policy(policy);
    EXPECT_EQ(held(*talk.engine), before) << policy;
  }
}

TEST(Turns, WhatStaysOfATurnLeftOutIsReadAgainAtOnce) {
  for (const std::string policy : {"full", "snapkv:24@recent:8"}) {
    const TokenId z = Talk("full").engine->model().tokenizer()->encode("z").back();
    const SamplingOptions sampling{.temperature = 0, .logit_bias = {{z, 1e9F}}};
    Talk talk(policy, "", sampling), undisturbed(policy, "", sampling);
    const std::string first(60, 'x'), last(30, 'y');
    for (Talk* one : {&talk, &undisturbed}) one->say(first);
    talk.say("and so on");
    for (Talk* one : {&talk, &undisturbed}) one->say(last);
    ASSERT_NE(held(*talk.engine), held(*undisturbed.engine));
    talk.conversation->drop(2);
    EXPECT_EQ(talk.conversation->length(), undisturbed.conversation->length());
    EXPECT_EQ(held(*talk.engine), held(*undisturbed.engine)) << policy;
    talk.engine->check_integrity();
  }
}

// What a rule observes before a message's end may begin in the message, with the answer's last
// token, which comes with the message, or in the answer.
TEST(Turns, RulesThatComeBackFindMessagesOfAnyLengthAsTheyWere) {
  constexpr int64_t kObserved = 32;
  constexpr int32_t kAnswer = 60;
  const std::string policy = fmt::format("snapkv:64@recent:{}", kObserved);
  const TokenId z = Talk("full").engine->model().tokenizer()->encode("z").back();
  std::set<int64_t> lengths;
  for (size_t n = 11; n <= 15; ++n) {
    Talk talk(policy, "", {.temperature = 0, .logit_bias = {{z, 1e9F}}}, kAnswer);
    talk.say("a first message that is much longer than what is to be kept of it later");
    const int64_t start = talk.conversation->length();
    talk.say(std::string(n, 'y'));
    lengths.insert(talk.conversation->length() - start - kAnswer);
    const auto before = held(*talk.engine);
    talk.conversation->set_policy("full");
    EXPECT_NE(held(*talk.engine), before);
    talk.conversation->set_policy(policy);
    EXPECT_EQ(held(*talk.engine), before) << n;
  }
  for (const int64_t near : {-2, -1, 0}) EXPECT_TRUE(lengths.contains(kObserved + near)) << near;
}

}  // namespace
}  // namespace paddock::test
