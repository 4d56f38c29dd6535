// A conversation under a rule that decides where a prompt ends: it decides at every turn.
#include <gtest/gtest.h>
#include <paddock/paddock.h>

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

}  // namespace
}  // namespace paddock::test
