// When requests are let in: what all that run need for the tokens known of them, and a block more,
// fits the pool. Whoever has to give its pages up later makes the text that it makes alone.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "support/small_requests.h"

namespace paddock::test {
namespace {

/// Blocks of four positions in each of two layers: 16 positions are 8 pages.
EngineOptions pool_of(int64_t pages, int32_t sequences) {
  EngineOptions o = reference_options();
  o.threads = 1;
  o.max_sequences = sequences;
  o.batch_size = 16;
  o.kv.block_size = 4;
  static const int64_t page_bytes = Engine(tiny(), o).kv_stats().page_bytes;
  o.kv.budget_bytes = static_cast<uint64_t>(pages * page_bytes);
  return o;
}

std::vector<TokenId> alone(const std::vector<TokenId>& prompt, int32_t n) {
  static Engine engine(tiny(), pool_of(64, 1));
  return engine.generate(prompt, greedy(n)).tokens;
}

/// Requests for a prompt of their own and a number of tokens each, told apart by their place.
class Queue {
 public:
  explicit Queue(const EngineOptions& options) : engine(tiny(), options) {}

  void add(size_t prompt, int32_t n) {
    const size_t place = wanted_.size();
    GenerateOptions options = greedy(n);
    options.on_token = [this, place](const TokenEvent&) {
      if (firsts.empty() || std::find(firsts.begin(), firsts.end(), place) == firsts.end()) {
        firsts.push_back(place);
      }
      return true;
    };
    std::vector<TokenId> text = prompt_of(prompt);
    text[0] = static_cast<TokenId>(place % 100);  // they have nothing to share
    wanted_.push_back({text, n});
    ids.push_back(engine.add(text, options));
  }

  /// Runs all to their ends; the most that were in at once.
  int32_t run() {
    int32_t most = 0;
    while (engine.step()) {
      most = std::max(most, engine.kv_stats().sequences);
      engine.check_integrity();
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto result = engine.take(ids[i]);
      EXPECT_TRUE(result) << i;
      if (!result) continue;
      EXPECT_EQ(result->finish_reason, FinishReason::kLength)
          << i << " " << finish_reason_name(result->finish_reason) << result->error;
      EXPECT_EQ(result->tokens, alone(wanted_[i].first, wanted_[i].second)) << i;
    }
    return most;
  }

  Engine engine;
  std::vector<RequestId> ids;
  std::vector<size_t> firsts;  // places, by their first token

 private:
  std::vector<std::pair<std::vector<TokenId>, int32_t>> wanted_;
};

TEST(Admission, LetsInWhatFitsExactlyAndNotOnePageMore) {
  // 6 positions and a block are three blocks, 6 and 9 are four: with fewer pages than 24 somebody
  // has to wait for the others, or to give its pages up for them.
  for (const auto& [pages, together] : {std::pair{24, 3}, std::pair{18, 3}, std::pair{17, 2},
                                        std::pair{12, 2}, std::pair{11, 1}, std::pair{8, 1}}) {
    Queue queue(pool_of(pages, 3));
    for (int i = 0; i < 3; ++i) queue.add(6, 9);
    while (queue.engine.kv_stats().steps == 0) queue.engine.step();
    EXPECT_EQ(queue.engine.kv_stats().sequences, together) << pages;
    queue.run();
    EXPECT_EQ(queue.firsts, (std::vector<size_t>{0, 1, 2})) << pages;
    EXPECT_EQ(queue.engine.kv_stats().total.pages_active, 0);
    EXPECT_LE(queue.engine.kv_stats().total.pages_peak, pages);
  }
}

TEST(Admission, CountsWhatIsNeededNowNotWhatMayComeToBeNeeded) {
  // Both prompts fit, both answers do not.
  Queue queue(pool_of(26, 2));
  queue.add(8, 40);
  queue.add(8, 8);
  EXPECT_EQ(queue.run(), 2);
}

TEST(Admission, CountsNoMoreThanTheContext) {
  EngineOptions options = pool_of(16, 2);
  options.context = 16;
  for (const size_t prompt : {6U, 14U}) {  // with a block more one fits it, the other does not
    Engine engine(tiny(), options);
    std::vector<TokenId> other = prompt_of(prompt + 1);
    other[0] += 1;
    const RequestId first = engine.add(prompt_of(prompt), greedy(1000));
    const RequestId second = engine.add(other, greedy(1000));
    engine.step();
    EXPECT_EQ(engine.kv_stats().sequences, 2) << prompt;
    while (engine.step()) {
    }
    EXPECT_EQ(engine.take(first)->tokens.size(), 16 - prompt);
    EXPECT_EQ(engine.take(second)->finish_reason, FinishReason::kContext);
  }
}

TEST(Admission, WhoeverRunsKeepsWhatTheRestOfItsPromptNeeds) {
  // 40 tokens and a block are 22 pages, of which it has eight after the first step; 16 are ten.
  for (const auto& [pages, together] : {std::pair{32, 2}, std::pair{31, 1}}) {
    Queue queue(pool_of(pages, 2));
    queue.add(40, 2);
    queue.engine.step();
    EXPECT_EQ(queue.engine.kv_stats().total.pages_active, 8);
    queue.add(16, 2);
    queue.engine.step();
    EXPECT_EQ(queue.engine.stats().requests_running, together) << pages;
    queue.run();
    EXPECT_EQ(queue.engine.stats().preemptions, 0);
  }
}

TEST(Admission, SmallOnesPassABigOneThatDoesNotFitYet) {
  // The second does not fit beside the first, the third does.
  Queue queue(pool_of(20, 3));
  queue.add(8, 20);
  queue.add(32, 2);
  queue.add(2, 2);
  EXPECT_EQ(queue.run(), 2);
  EXPECT_EQ(queue.firsts, (std::vector<size_t>{0, 2, 1}));
}

TEST(Admission, ABigOneIsNotPassedForEver) {
  // Small ones come all the time, and would always fit beside what runs.
  Queue queue(pool_of(20, 4));
  queue.add(4, 8);
  queue.add(4, 8);
  queue.add(32, 2);
  int32_t added = 0;
  for (; std::find(queue.firsts.begin(), queue.firsts.end(), 2) == queue.firsts.end(); ++added) {
    ASSERT_LT(added, 200);
    queue.add(2, 4);
    queue.engine.step();
  }
  EXPECT_LE(queue.firsts.size(), 2 + 16 + 1 + 2) << "sixteen may pass, two read faster behind it";
  EXPECT_GT(queue.firsts.size(), 2 + 1);
  queue.run();
}

TEST(Admission, PagesThatPromptsShareCountOnce) {
  // Of ten blocks nine are full before the last token; each has two of its own.
  Engine engine(tiny(), pool_of((9 + 3 * 2) * 2, 3));
  std::vector<RequestId> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(engine.add(prompt_of(40), greedy(4)));
  int32_t most = 0;
  while (engine.step()) {
    most = std::max(most, engine.kv_stats().sequences);
    engine.check_integrity();
  }
  EXPECT_EQ(most, 3);
  EXPECT_EQ(engine.stats().preemptions, 0);
  for (const RequestId id : ids) EXPECT_EQ(engine.take(id)->tokens, alone(prompt_of(40), 4));
}

TEST(Admission, WhoRunsAndWaitsForAnothersBlocksIsNotChargedForThem) {
  // One comes to eleven blocks; one that begins alike adds two of its own; there is room for three.
  Engine engine(tiny(), pool_of((11 + 2 + 3) * 2, 3));
  engine.add(prompt_of(40), greedy(2));
  engine.add(prompt_of(40), greedy(2));
  engine.step();
  std::vector<TokenId> other = prompt_of(5);
  other[0] += 1;
  const RequestId third = engine.add(other, greedy(2));
  engine.step();
  EXPECT_EQ(engine.status(third).state, RequestState::kRunning);
  while (engine.step()) engine.check_integrity();
  EXPECT_EQ(engine.stats().preemptions, 0);
  EXPECT_EQ(engine.take(third)->tokens, alone(other, 2));
}

TEST(Admission, PagesThatIdleSessionsShareCountOnce) {
  Engine engine(tiny(), pool_of(32, 4));
  for (int i = 0; i < 2; ++i) engine.generate(engine.open_session(), prompt_of(30), greedy(2));
  EXPECT_EQ(engine.kv_stats().total.pages_active, (7 + 2) * 2);
  std::vector<TokenId> other = prompt_of(20);
  other[0] += 1;
  const RequestId first = engine.add(other, greedy(8));  // comes to seven blocks
  engine.step();
  std::vector<TokenId> large = prompt_of(40);
  large[0] += 2;
  const RequestId second = engine.add(large, greedy(2));  // eleven
  while (engine.step()) engine.check_integrity();
  EXPECT_EQ(engine.stats().preemptions, 0);
  EXPECT_EQ(engine.take(first)->tokens, alone(other, 8));
  EXPECT_EQ(engine.take(second)->tokens, alone(large, 2));
}

TEST(Admission, OneAloneIsLetInWhateverItMayComeToNeed) {
  Engine engine(tiny(), pool_of(8, 2));
  const RequestId large = engine.add(prompt_of(8), greedy(100));
  const RequestId small = engine.add(prompt_of(8), greedy(4));
  while (engine.step()) engine.check_integrity();
  const auto ended = engine.take(large);
  EXPECT_EQ(ended->finish_reason, FinishReason::kKvFull);
  EXPECT_EQ(ended->tokens.size(), 9U);
  EXPECT_EQ(ended->timings.decode_tokens, 8);
  EXPECT_EQ(engine.take(small)->tokens, alone(prompt_of(8), 4));
}

TEST(Admission, IdleSessionsGiveTheirPagesWhereTheyAreNeeded) {
  for (const bool by_feeding : {true, false}) {
    for (const int pages : {24, 16, 11}) {
      SCOPED_TRACE(testing::Message() << by_feeding << " " << pages);
      EngineOptions options = pool_of(pages, 3);
      options.kv.reuse = false;  // the requests begin as the session does
      Queue queue(options);
      const SessionId session = queue.engine.open_session();
      const std::vector<TokenId> more = prompt_of(3);
      if (by_feeding) {
        queue.engine.feed(session, prompt_of(16));
      } else {  // 16 positions are held, the last token is pending
        EXPECT_EQ(queue.engine.generate(session, prompt_of(9), greedy(8)).tokens.size(), 8U);
      }
      EXPECT_EQ(queue.engine.kv_stats().total.pages_active, 8);
      queue.add(6, 9);
      queue.add(6, 9);
      queue.run();
      EXPECT_EQ(queue.engine.kv_stats().total.pages_active, pages == 24 ? 8 : 0);
      // It goes on as if it had kept them, as far as the pool holds it.
      if (pages == 11) continue;
      const int64_t length = queue.engine.session_length(session);
      EXPECT_EQ(length, by_feeding ? 16 : 17);
      std::vector<TokenId> text = prompt_of(by_feeding ? 16 : 9);
      if (!by_feeding) {
        const std::vector<TokenId> said = alone(text, 8);
        text.insert(text.end(), said.begin(), said.end());
      }
      text.insert(text.end(), more.begin(), more.end());
      const GenerateResult next = queue.engine.generate(session, more, greedy(4));
      EXPECT_EQ(next.tokens, alone(text, 4));
      EXPECT_EQ(next.prompt_tokens, static_cast<int64_t>(text.size()) - 16);
      EXPECT_EQ(next.recomputed_tokens, pages == 24 ? 0 : 16);
    }
  }
}

TEST(Admission, AShortenedSessionClaimsWhatIsLeft) {
  Queue queue(pool_of(18, 3));
  const SessionId session = queue.engine.open_session();
  queue.engine.feed(session, prompt_of(16));
  queue.engine.truncate(session, 3);
  EXPECT_EQ(queue.engine.kv_stats().total.pages_active, 2);
  queue.add(6, 9);
  queue.add(6, 9);
  EXPECT_EQ(queue.run(), 3);
}

TEST(Admission, NoMoreSequencesThanTheOptionSays) {
  Queue queue(pool_of(64, 2));
  for (int i = 0; i < 5; ++i) queue.add(5 + i, 4 + i);
  EXPECT_EQ(queue.run(), 2);
  EXPECT_EQ(queue.firsts, (std::vector<size_t>{0, 1, 2, 3, 4}));
}

TEST(Admission, OpenSessionsAreSequencesToo) {
  Engine engine(tiny(), pool_of(64, 2));
  const SessionId one = engine.open_session();
  {  // one at a time beside it
    const RequestId first = engine.add(prompt_of(5), greedy(6));
    const RequestId second = engine.add(prompt_of(6), greedy(6));
    int32_t most = 0;
    while (engine.step()) most = std::max(most, engine.kv_stats().sequences);
    EXPECT_EQ(most, 2);
    EXPECT_EQ(engine.take(first)->tokens, alone(prompt_of(5), 6));
    EXPECT_EQ(engine.take(second)->tokens, alone(prompt_of(6), 6));
  }
  const SessionId two = engine.open_session();
  EXPECT_THROW(engine.open_session(), Error);
  EXPECT_EQ(engine.session_length(two), 0);
  const GenerateResult none = engine.generate(prompt_of(5), greedy(6));
  EXPECT_EQ(none.finish_reason, FinishReason::kError);
  EXPECT_NE(none.error.find("max_sequences"), std::string::npos) << none.error;
  EXPECT_EQ(none.timings.prefill_tokens, 0);
  EXPECT_EQ(engine.generate(one, prompt_of(5), greedy(6)).tokens, alone(prompt_of(5), 6));
  engine.close_session(two);
  EXPECT_EQ(engine.generate(prompt_of(5), greedy(6)).tokens, alone(prompt_of(5), 6));
  // A session's own request runs in its place.
  engine.add(one, prompt_of(5), greedy(6));
  engine.step();
  engine.add(prompt_of(6), greedy(6));
  engine.step();
  EXPECT_EQ(engine.stats().requests_running, 2);
  while (engine.step()) engine.check_integrity();
}

TEST(Admission, ThoseThatAnswerGoBeforeLongPrompts) {
  EngineOptions options = pool_of(64, 2);
  options.batch_size = 8;
  options.kv.reuse = false;  // the answer is how the long prompt begins
  Engine engine(tiny(), options);
  int said = 0;
  GenerateOptions talks = greedy(30);
  talks.on_token = [&](const TokenEvent&) { return ++said > 0; };
  const RequestId answering = engine.add(prompt_of(4), talks);
  while (said == 0) engine.step();
  const RequestId reading = engine.add(prompt_of(50), greedy(1));
  // Each step says one token and reads at most seven, later ones fewer as each sees more.
  int64_t before = 8, steps = 0;
  for (std::optional<GenerateResult> read; !read; read = engine.take(reading)) {
    const int64_t written = engine.kv_stats().tokens_written;
    engine.step();
    EXPECT_EQ(said, 1 + ++steps);
    const int64_t now = engine.kv_stats().tokens_written - written;
    EXPECT_LE(now, before);
    EXPECT_GE(now, 2);
    before = now;
  }
  EXPECT_GE(steps, 8);
  EXPECT_LE(steps, 16);
  while (engine.step()) {
  }
  EXPECT_EQ(engine.take(answering)->tokens, alone(prompt_of(4), 30));
}

TEST(Admission, EachSequenceAnswersInEachStepHoweverSmallTheBatch) {
  EngineOptions options = pool_of(128, 4);
  options.batch_size = 2;
  Engine engine(tiny(), options);
  std::vector<RequestId> ids;
  std::vector<int> said(4);
  for (size_t i = 0; i < 4; ++i) {
    GenerateOptions talks = greedy(40);
    talks.on_token = [&said, i](const TokenEvent&) { return ++said[i] > 0; };
    ids.push_back(engine.add(prompt_of(5 + i), talks));
  }
  while (*std::min_element(said.begin(), said.end()) == 0) engine.step();
  const std::vector<int> before = said;
  EXPECT_LT(*std::max_element(said.begin(), said.end()), 30) << "nobody waits for another's end";
  for (int step = 1; step <= 4; ++step) {
    engine.step();
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(said[i], before[i] + step);
  }
  while (engine.step()) engine.check_integrity();
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(engine.take(ids[i])->tokens, alone(prompt_of(5 + i), 40));
  }
}

TEST(Admission, PromptsBeyondContextOrPoolAreRefusedAtOnce) {
  EngineOptions options = pool_of(20, 2);  // 40 positions
  options.context = 50;
  Engine engine(tiny(), options);
  std::string said;
  const auto code = [&](size_t n) -> std::optional<ErrorCode> {
    try {
      const RequestId id = engine.add(prompt_of(n), greedy(0));
      while (engine.step()) {
      }
      EXPECT_EQ(engine.take(id)->finish_reason, FinishReason::kLength);
      return std::nullopt;
    } catch (const Error& e) {
      EXPECT_FALSE(e.proposals().empty()) << e.what();
      said = e.what();
      return e.code();
    }
  };
  EXPECT_EQ(code(40), std::nullopt);
  EXPECT_EQ(code(41), ErrorCode::kOutOfMemory);
  const int64_t page = engine.kv_stats().page_bytes;
  EXPECT_THAT(said, testing::HasSubstr(fmt::format(
                        "the prompt needs 22 pages ({} bytes) of KV cache but the pool has 20 ({} "
                        "bytes)",
                        22 * page, 20 * page)));
  EXPECT_EQ(code(50), ErrorCode::kOutOfMemory);
  EXPECT_EQ(code(51), ErrorCode::kInvalidArgument);
  EXPECT_THAT(said, testing::HasSubstr(
                        "the prompt ends at position 51 but the context admits 50 positions"));
  EXPECT_FALSE(engine.step()) << "what was refused is not queued";

  // Pages that a session holds are its own: the prompt has to fit beside them.
  const SessionId session = engine.open_session();
  engine.feed(session, prompt_of(30));
  EXPECT_EQ(engine.generate(session, prompt_of(10), greedy(0)).finish_reason,
            FinishReason::kLength);
  EXPECT_THROW(engine.generate(session, prompt_of(1), greedy(0)), Error);
  EXPECT_EQ(engine.session_length(session), 40);
}

TEST(Admission, WhatIsProposedHoldsTheWholeAnswerAndNoMore) {
  // Refused for the context, for the pool, and ended by the pool.
  for (const auto& [context, pages, prompt] :
       {std::tuple{24, 64, 30}, std::tuple{0, 10, 30}, std::tuple{0, 10, 15}}) {
    SCOPED_TRACE(testing::Message() << context << " " << pages << " " << prompt);
    EngineOptions options = pool_of(pages, 1);
    options.context = context;
    std::vector<Proposal> proposals;
    const std::vector<TokenId> text = prompt_of(static_cast<size_t>(prompt));
    try {
      proposals = Engine(tiny(), options).generate(text, greedy(20)).proposals;
    } catch (const Error& e) {
      proposals.assign(e.proposals().begin(), e.proposals().end());
    }
    ASSERT_FALSE(proposals.empty());
    const EngineOptions better = with_proposal(options, proposals[0]);
    Engine engine(tiny(), better);
    EXPECT_EQ(engine.generate(text, greedy(20)).tokens, alone(text, 20));
    if (context == 0) {
      EXPECT_LE(engine.kv_stats().pool_pages, 2 * ((prompt + 20 + 3) / 4));
    }
  }
}

}  // namespace
}  // namespace paddock::test
