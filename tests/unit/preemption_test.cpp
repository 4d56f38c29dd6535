// What is told of each time that somebody was parked: who, for whom, what that gave and what it
// will cost; against what the requests and the log of removals say.
#include <algorithm>
#include <map>

#include "support/shared_memory.h"

namespace paddock::test {
namespace {

/// Of texts that share nothing, so that every page that comes back is a removal.
EngineOptions apart(int64_t pages, int32_t sequences = 4) {
  EngineOptions options = shared_memory("full", pages, sequences);
  options.kv.reuse = false;
  options.kv.event_capacity = 100'000;
  return options;
}

/// What left with the preemption, by the log alone.
struct Left {
  int64_t pages = 0, tokens = 0;
};
Left left_with(const Engine& engine, const KvPreemption& p) {
  Left left;
  for (const KvEvent& event : engine.kv_events(p.first_event)) {
    if (event.reason != RemovalReason::kPreempt || event.sequence != p.sequence) break;
    if (event.step != p.step) break;
    ++left.pages;
    left.tokens = event.length;
  }
  return left;
}

TEST(Preemptions, AreToldWithWhomTheyServedAndWhatTheyCost) {
  Engine engine(tiny(), apart(30));
  std::vector<RequestId> ids;
  for (size_t i = 0; i < 4; ++i) {
    GenerateOptions options = greedy(24);
    options.priority = i == 3 ? 1 : 0;
    ids.push_back(engine.add(text_at(7 * i, 20), options));
  }
  finish_all(engine);
  const std::vector<KvPreemption> all = engine.kv_preemptions();
  ASSERT_GE(all.size(), 2U);
  std::map<RequestId, std::vector<KvPreemption>> by_request;
  for (size_t i = 0; i < all.size(); ++i) {
    const KvPreemption& p = all[i];
    EXPECT_EQ(p.number, static_cast<int64_t>(i));
    EXPECT_EQ(p.session, 0);
    EXPECT_GT(p.parked, 0);
    EXPECT_GT(p.request, 0);
    EXPECT_NE(p.request, p.parked);
    EXPECT_NE(p.parked, ids[3]) << "the one of the highest rank gives nothing up";
    const Left left = left_with(engine, p);
    EXPECT_EQ(p.pages, left.pages);
    EXPECT_GT(p.pages, 0);
    // One that was on its way back had more before than it lost now.
    EXPECT_GE(p.tokens, left.tokens);
    EXPECT_GE(p.step, i == 0 ? 0 : all[i - 1].step);
    by_request[p.parked].push_back(p);
  }
  int64_t total = 0;
  for (const RequestId id : ids) {
    const GenerateResult result = *engine.take(id);
    const std::vector<KvPreemption>& its = by_request[id];
    ASSERT_EQ(result.preempted.size(), its.size());
    EXPECT_EQ(result.preemptions, static_cast<int32_t>(its.size()));
    int64_t least = 0;
    for (size_t i = 0; i < its.size(); ++i) {
      EXPECT_EQ(to_json(result.preempted[i]), to_json(its[i]));
      least = std::max(least, its[i].tokens);
    }
    EXPECT_GE(result.recomputed_tokens, least);
    if (its.size() == 1) {
      EXPECT_EQ(result.recomputed_tokens, its[0].tokens) << "nothing is kept";
    }
    total += result.preemptions;
  }
  EXPECT_EQ(engine.stats().preemptions, total);
  EXPECT_EQ(total, static_cast<int64_t>(all.size()));
  EXPECT_EQ(engine.kv_preemptions(1).size(), all.size() - 1);
  EXPECT_EQ(engine.kv_preemptions(-5).size(), all.size());
  EXPECT_TRUE(engine.kv_preemptions(1000).empty());
}

TEST(Preemptions, OfIdleSessionsNameTheSessionAndNoRequest) {
  Engine engine(tiny(), apart(2 * 12));
  const SessionId session = engine.open_session();
  engine.feed(session, text_at(0, 20));
  const RequestId id = engine.add(text_at(20, 30), greedy(2));
  finish_all(engine);
  ASSERT_EQ(engine.kv_preemptions().size(), 1U);
  KvPreemption p = engine.kv_preemptions()[0];
  EXPECT_EQ(p.parked, 0);
  EXPECT_EQ(p.session, session);
  EXPECT_EQ(p.request, id);
  EXPECT_EQ(p.tokens, 20);
  EXPECT_EQ(p.pages, 2 * 5);
  EXPECT_EQ(engine.stats().sessions_parked, 1);
  EXPECT_TRUE(engine.take(id)->preempted.empty());
  // For what a host feeds, and for a budget that falls, it is no request's need.
  engine.feed(session, text_at(20, 1));
  const SessionId other = engine.open_session();
  engine.feed(other, text_at(9, 30));
  ASSERT_EQ(engine.kv_preemptions().size(), 2U);
  p = engine.kv_preemptions()[1];
  EXPECT_EQ(p.session, session);
  EXPECT_EQ(p.request, 0);
  EXPECT_EQ(p.tokens, 21);
  engine.set_kv_budget(static_cast<uint64_t>(2 * 7 * engine.kv_stats().page_bytes));
  ASSERT_EQ(engine.kv_preemptions().size(), 3U);
  p = engine.kv_preemptions()[2];
  EXPECT_EQ(p.session, other);
  EXPECT_EQ(p.request, 0);
  EXPECT_EQ(p.tokens, 30);
  EXPECT_EQ(engine.stats().sessions_parked, 3);
}

TEST(Preemptions, PagesThatStayKeptCountAsComeBackAndBringNoRemoval) {
  EngineOptions options = apart(2 * 12);
  options.kv.reuse = true;
  Engine engine(tiny(), options);
  const SessionId session = engine.open_session();
  engine.feed(session, text_at(0, 18));
  const RequestId id = engine.add(text_at(20, 30), greedy(2));
  finish_all(engine);
  ASSERT_EQ(engine.kv_preemptions().size(), 1U);
  const KvPreemption p = engine.kv_preemptions()[0];
  EXPECT_EQ(p.pages, 2 * 5);
  EXPECT_EQ(p.tokens, 18);
  EXPECT_EQ(left_with(engine, p).pages, 2) << "the block that is partly filled";
  engine.take(id);
}

// A chunk that needs more than what is free: that was free before, and does not count.
TEST(Preemptions, BringNoPagesThatWereFreeBefore) {
  EngineOptions options = apart(2 * 12);
  options.batch_size = 64;
  Engine engine(tiny(), options);
  const SessionId session = engine.open_session();
  engine.feed(session, text_at(0, 18));
  const RequestId id = engine.add(text_at(20, 30), greedy(2));
  finish_all(engine);
  ASSERT_EQ(engine.kv_preemptions().size(), 1U);
  EXPECT_EQ(engine.kv_preemptions()[0].pages, 2 * 5);
  engine.take(id);
}

TEST(Preemptions, TheNewestStayWithTheirNumbers) {
  EngineOptions options = apart(2 * 6);
  options.kv.event_capacity = 2;
  Engine engine(tiny(), options);
  const SessionId a = engine.open_session(), b = engine.open_session();
  for (int i = 0; i < 4; ++i) {
    engine.feed(a, text_at(0, i == 0 ? 15 : 1));
    engine.feed(b, text_at(5, i == 0 ? 15 : 1));
  }
  const std::vector<KvPreemption> all = engine.kv_preemptions();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[1].number, engine.stats().sessions_parked - 1);
  EXPECT_EQ(all[0].number, all[1].number - 1);
  EXPECT_EQ(engine.kv_preemptions(all[1].number).size(), 1U);
}

}  // namespace
}  // namespace paddock::test
