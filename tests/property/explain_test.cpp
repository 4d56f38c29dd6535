// Explanations: counted again from the event log, and what would have kept a block tried by running
// again with it, and with one less.
#include <paddock/explain.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "support/meter.h"
#include "support/shared_memory.h"
#include "support/small_requests.h"

namespace paddock::test {
namespace {

/// An engine with a trace, and what came of it.
struct Traced {
  std::string bytes;
  std::vector<KvEvent> events;
};

Traced run(EngineOptions options, const std::function<void(Engine&)>& use) {
  Traced out;
  options.kv.event_capacity = 100'000;
  options.kv.trace = {.sink = [&](std::string_view more) { out.bytes += more; }, .tokens = true};
  Engine engine(tiny(), options);
  use(engine);
  out.events = engine.kv_events();
  return out;
}

/// One text of so many tokens, on a quiet engine.
Traced one_text(const std::string& policy, int32_t n = 60) {
  return run(small_options(1, policy),
             [&](Engine& engine) { engine.generate(prompt_of(40), greedy(n)); });
}

bool is_loss(const KvEvent& e) {
  return e.reason == RemovalReason::kPolicyTrim || e.reason == RemovalReason::kWindow;
}

std::string line_of(const KvEvent& e) { return to_json(e); }

const char* const kRules[] = {"lru:24@every:8",
                              "h2o:32@every:8",
                              "tova:28@every:6",
                              "knorm:20@every:9",
                              "random:24@every:8",
                              "pyramid:h2o:48@every:8",
                              "cake:h2o:32@every:8",
                              "window:20",
                              "sink:3+20",
                              "0=full,1=h2o:32@every:16@sinks:2",
                              "0=window:9,1=lru:24@every:8"};

TEST(Explained, EveryBlockLeftWhereAndWhenTheLogSays) {
  for (const char* policy : kRules) {
    SCOPED_TRACE(policy);
    const Traced was = one_text(policy);
    int64_t losses = 0;
    for (int64_t position = 0; position < 99; ++position) {
      const Explanation e = explain(std::string_view(was.bytes), "trace", {.position = position});
      ASSERT_EQ(e.spans.size(), 1U);
      const ExplainedSpan& span = e.spans[0];
      EXPECT_EQ(span.first_position, position);
      EXPECT_EQ(span.length, 99);
      EXPECT_EQ(span.turn, 1);
      EXPECT_EQ(span.is_answer, position >= 40);
      ASSERT_EQ(span.blocks.size(), 1U);
      const ExplainedBlock& block = span.blocks[0];
      EXPECT_EQ(block.first_position, position / 4 * 4);
      std::map<int32_t, std::string> expected, told;
      for (const KvEvent& event : was.events) {
        const bool is_here = event.first_position <= position &&
                             event.first_position + 4 - event.first_position % 4 > position;
        if (is_loss(event) && is_here) expected[event.layer] = line_of(event);
      }
      std::vector<int32_t> kept;
      for (const ExplainedLoss& loss : block.losses) {
        told[loss.removal.event.layer] = line_of(loss.removal.event);
        EXPECT_EQ(loss.turn, 1);
        EXPECT_FALSE(loss.by_fall);
      }
      for (int32_t layer = 0; layer < 2; ++layer) {
        if (!expected.contains(layer)) kept.push_back(layer);
      }
      EXPECT_EQ(told, expected) << "position " << position;
      EXPECT_EQ(block.kept_in, kept) << "position " << position;
      losses += static_cast<int64_t>(told.size());
    }
    EXPECT_GT(losses, 20);
  }
}

/// Whether the block left this layer at this length or before.
bool has_left(const Traced& run, int32_t layer, int64_t position, int64_t length) {
  return std::any_of(run.events.begin(), run.events.end(), [&](const KvEvent& e) {
    return is_loss(e) && e.layer == layer && e.first_position == position && e.length <= length;
  });
}

/// The rule in which a number is one less: that behind `before`.
std::string one_less(const std::string& rule, const std::string& before) {
  const size_t at = rule.rfind(before) + before.size();
  size_t end = at;
  while (end < rule.size() && std::isdigit(rule[end]) != 0) ++end;
  return rule.substr(0, at) + std::to_string(std::stoll(rule.substr(at, end - at)) - 1) +
         rule.substr(end);
}

/// Runs again under a rule; null where an engine refuses it.
const Traced* again(const std::string& policy) {
  static std::map<std::string, std::unique_ptr<Traced>> known;
  const auto [at, is_new] = known.try_emplace(policy);
  if (is_new) {
    try {
      at->second = std::make_unique<Traced>(one_text(policy));
    } catch (const Error&) {
    }
  }
  return at->second.get();
}

// Until the first decision nothing has left, so that a run under another budget comes to it as this
// one did.
TEST(Explained, TheBudgetThatWouldHaveKeptItIsTheSmallest) {
  int tried = 0, less = 0;
  for (const std::string policy :
       {"lru:24@every:8", "h2o:32@every:8", "tova:28@every:6", "knorm:20@every:9",
        "random:24@every:8", "pyramid:h2o:48@every:8", "h2o:28@every:16@sinks:3@recent:9"}) {
    SCOPED_TRACE(policy);
    const Traced* was = again(policy);
    ASSERT_NE(was, nullptr);
    const Explanation e = explain(std::string_view(was->bytes), "trace", {.sequence = 0});
    std::map<int32_t, int64_t> first;  // decision, by layer
    for (const KvEvent& event : was->events) {
      if (is_loss(event)) first.try_emplace(event.layer, event.length);
    }
    for (const ExplainedBlock& block : e.spans.at(0).blocks) {
      for (const ExplainedLoss& loss : block.losses) {
        const KvEvent& event = loss.removal.event;
        if (event.length != first.at(event.layer)) continue;
        ASSERT_FALSE(loss.with_budget.empty());
        const Traced* kept = again(loss.with_budget);
        if (kept == nullptr) continue;  // an engine would refuse so small a one
        ++tried;
        EXPECT_FALSE(has_left(*kept, event.layer, event.first_position, event.length))
            << loss.with_budget << " at " << event.first_position;
        const std::string head = loss.with_budget.substr(0, loss.with_budget.find('@'));
        const std::string smaller = one_less(head, ":") + loss.with_budget.substr(head.size());
        const Traced* gone = again(smaller);
        if (gone == nullptr) continue;
        ++less;
        EXPECT_TRUE(has_left(*gone, event.layer, event.first_position, event.length))
            << smaller << " at " << event.first_position << ", layer " << event.layer;
      }
    }
  }
  EXPECT_GT(tried, 20);
  EXPECT_GT(less, 15);
}

TEST(Explained, TheSinksThatWouldHaveKeptItAreTheFewest) {
  int fit = 0, not_fit = 0;
  for (const std::string policy :
       {"lru:40@every:8", "h2o:48@every:8", "knorm:36@every:9", "h2o:40@every:8@sinks:3@recent:6",
        "knorm:36@every:9@sinks:3", "pyramid:h2o:48@every:8"}) {
    SCOPED_TRACE(policy);
    const Traced* was = again(policy);
    ASSERT_NE(was, nullptr);
    const Explanation e = explain(std::string_view(was->bytes), "trace", {.sequence = 0});
    for (const ExplainedBlock& block : e.spans.at(0).blocks) {
      for (const ExplainedLoss& loss : block.losses) {
        const KvEvent& event = loss.removal.event;
        if (event.first_position >= 24) continue;
        ASSERT_FALSE(loss.with_sinks.empty()) << event.first_position;
        EXPECT_EQ(loss.sinks, event.first_position + 1);
        EXPECT_EQ(loss.with_sinks.find("@sinks:"), loss.with_sinks.rfind("@sinks:"))
            << loss.with_sinks << " says it twice";
        const Traced* kept = again(loss.with_sinks);
        ASSERT_NE(kept, nullptr) << loss.with_sinks;
        EXPECT_FALSE(has_left(*kept, event.layer, event.first_position, 1000)) << loss.with_sinks;
        if (loss.sinks_fit) {
          ++fit;
          EXPECT_EQ(loss.sinks_budget, 0);
          // One fewer protects only what lies before it: it goes, if not at once.
          if (loss.sinks == 1) continue;  // none at all, as it was
          const Traced* fewer = again(one_less(loss.with_sinks, "@sinks:"));
          ASSERT_NE(fewer, nullptr);
          EXPECT_TRUE(has_left(*fewer, event.layer, event.first_position, 1000))
              << loss.with_sinks << " and one fewer";
        } else {
          ++not_fit;
          const size_t options = loss.with_sinks.find('@');
          const std::string smaller =
              one_less(loss.with_sinks.substr(0, options), ":") + loss.with_sinks.substr(options);
          const Traced* refused = again(smaller);
          // A pyramid may lack room in another layer.
          if (refused == nullptr) continue;
          EXPECT_TRUE(policy.find("pyramid") != std::string::npos) << smaller;
        }
      }
    }
  }
  EXPECT_GT(fit, 5);
  EXPECT_GT(not_fit, 2);
}

/// Whether the last of so many queries sees the position under a rule of position alone.
bool is_seen(const std::string& policy, int64_t position, int64_t n) {
  const TokenVisibility v = make_policy(policy)->visibility(0);
  return position < v.sinks || n - 1 - position < v.window;
}

TEST(Explained, WindowsAndSinksThatWouldHaveSeenItAreTheSmallest) {
  int tried = 0;
  for (const std::string policy : {"window:20", "sink:3+20", "sink:4+16@original"}) {
    SCOPED_TRACE(policy);
    const Traced* was = again(policy);
    const Explanation e = explain(std::string_view(was->bytes), "trace", {.sequence = 0});
    for (const ExplainedBlock& block : e.spans.at(0).blocks) {
      for (const ExplainedLoss& loss : block.losses) {
        const KvEvent& event = loss.removal.event;
        if (event.layer > 0 || event.first_position % 12 != 0) continue;
        ASSERT_FALSE(loss.with_budget.empty());
        const std::string smaller =
            one_less(loss.with_budget, loss.with_budget.starts_with("sink") ? "+" : ":");
        EXPECT_TRUE(is_seen(loss.with_budget, event.first_position, 99)) << loss.with_budget;
        EXPECT_FALSE(is_seen(smaller, event.first_position, 99)) << smaller;
        const Traced* kept = again(loss.with_budget);
        ASSERT_NE(kept, nullptr) << loss.with_budget;
        EXPECT_FALSE(has_left(*kept, 0, event.first_position, 1000)) << loss.with_budget;
        const Traced* sunk = again(loss.with_sinks);
        ASSERT_NE(sunk, nullptr) << loss.with_sinks;
        EXPECT_FALSE(has_left(*sunk, 0, event.first_position, 1000)) << loss.with_sinks;
        ++tried;
      }
    }
  }
  EXPECT_GT(tried, 10);
}

TEST(Explained, FallsSayWhoNeededThePages) {
  EngineOptions options = shared_memory("h2o@every:8", 70, 3);
  options.kv.event_capacity = 100'000;
  std::vector<KvBudgetChange> changes;
  const Traced was = run(options, [&](Engine& engine) {
    engine.add(text_at(0, 30), greedy(60));
    engine.add(text_at(5, 30), greedy(60));
    finish_all(engine);
    changes = engine.kv_budget_changes();
  });
  ASSERT_FALSE(changes.empty());
  int64_t falls = 0, trims = 0;
  const Explanation e = explain(std::string_view(was.bytes), "trace", {.layer = 0});
  for (const ExplainedSpan& span : e.spans) {
    for (const ExplainedBlock& block : span.blocks) {
      for (const ExplainedLoss& loss : block.losses) {
        const KvEvent& event = loss.removal.event;
        ASSERT_EQ(event.layer, 0);
        ++trims;
        // Of the change before it, if nothing was written since.
        const KvBudgetChange* fall = nullptr;
        for (const KvBudgetChange& change : changes) {
          const bool is_its = change.sequence == event.sequence && change.length == event.length &&
                              change.first_event <= event.number;
          if (is_its) fall = &change;
        }
        EXPECT_EQ(loss.by_fall, fall != nullptr);
        if (fall == nullptr) continue;
        ++falls;
        EXPECT_EQ(loss.needed_by, fall->request);
        EXPECT_EQ(loss.schedule.budget, fall->after);
        EXPECT_NE(loss.with_budget.find("h2o@every:8@min:"), std::string::npos);
      }
    }
  }
  EXPECT_GT(falls, 3);
  int64_t expected = 0;
  for (const KvEvent& event : was.events) expected += is_loss(event) && event.layer == 0 ? 1 : 0;
  EXPECT_EQ(trims, expected);
}

TEST(Explained, TurnsAndTextsAreFoundWhereTheyLie) {
  EngineOptions options = options_for({}).engine;
  options.kv.policy = "lru:24@every:8";
  std::string bytes;
  options.kv.trace = {.sink = [&](std::string_view more) { bytes += more; }, .tokens = true};
  const auto model = tiny_with_text();
  std::vector<int64_t> begins, ends;
  {
    Engine engine(model, options);
    const SessionId session = engine.open_session();
    for (const char* text : {"my order number is 4711, ", "and what is it? ", "order again "}) {
      begins.push_back(engine.session_length(session));
      const auto tokens = model->tokenizer()->encode(text);
      engine.generate(session, tokens, greedy(6));
      ends.push_back(engine.session_length(session));
    }
  }
  const auto ask = [&](ExplainQuery query) {
    return explain(std::string_view(bytes), "trace", query);
  };
  const Explanation number = ask({.text = "number is 4711"});
  ASSERT_EQ(number.spans.size(), 1U);
  EXPECT_EQ(number.spans[0].text, "number is 4711");
  EXPECT_EQ(number.spans[0].first_position, 9);
  EXPECT_EQ(number.spans[0].n_tokens, 14);
  EXPECT_EQ(number.spans[0].turn, 1);
  EXPECT_FALSE(number.spans[0].is_answer);
  EXPECT_EQ(ask({.text = "order"}).spans.size(), 2U);
  EXPECT_EQ(ask({.text = "order", .turn = 3}).spans.size(), 1U);
  EXPECT_EQ(ask({.text = "order", .turn = 2}).spans.size(), 0U);
  EXPECT_EQ(ask({.text = "nothing like it"}).spans.size(), 0U);
  for (size_t turn = 0; turn < 3; ++turn) {
    const Explanation e = ask({.turn = static_cast<int64_t>(turn) + 1});
    ASSERT_EQ(e.spans.size(), 1U);
    EXPECT_EQ(e.spans[0].first_position, begins[turn]);
    // The last token of all was never written.
    EXPECT_EQ(e.spans[0].first_position + e.spans[0].n_tokens, ends[turn] - (turn == 2 ? 1 : 0));
    EXPECT_EQ(e.spans[0].turn, static_cast<int64_t>(turn) + 1);
    for (const ExplainedBlock& block : e.spans[0].blocks) {
      for (const ExplainedLoss& loss : block.losses) {
        const int64_t length = loss.removal.event.length;
        int64_t under_way = 1;
        while (under_way < 3 && length > ends[static_cast<size_t>(under_way - 1)]) ++under_way;
        EXPECT_EQ(loss.turn, under_way) << length;
      }
    }
  }
  EXPECT_THROW(ask({.turn = 0}), Error);
  EXPECT_THROW(ask({.layer = 2}), Error);
  EXPECT_THROW(ask({.position = -1}), Error);
}

TEST(Explained, SequencesCanBeRunAgainFromIt) {
  std::vector<TokenId> said = prompt_of(20);
  const Traced was = run(small_options(1, "h2o:32@every:8"), [&](Engine& engine) {
    const SessionId session = engine.open_session();
    for (const size_t n : {20U, 6U}) {
      const std::vector<TokenId> prompt = prompt_of(n);
      if (n == 6) said.insert(said.end(), prompt.begin(), prompt.end());
      const GenerateResult r = engine.generate(session, prompt, greedy(5));
      said.insert(said.end(), r.tokens.begin(), r.tokens.end());
    }
  });
  const Explanation e = explain(std::string_view(was.bytes), "trace", {.turn = 2});
  ASSERT_EQ(e.spans.size(), 1U);
  const ExplainedSpan& span = e.spans[0];
  said.resize(static_cast<size_t>(span.length));  // what is pending has not been fed
  EXPECT_EQ(span.tokens, said);
  ASSERT_EQ(span.turns.size(), 2U);
  EXPECT_EQ(span.turns[0].begin, 0);
  EXPECT_EQ(span.turns[0].prompt_end, 20);
  EXPECT_EQ(span.turns[1].begin, 25);
  EXPECT_EQ(span.turns[1].prompt_end, 31);
}

TEST(Explained, WithoutTokensNoTextIsFound) {
  EngineOptions options = small_options(1);
  std::string bytes;
  options.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  Engine(tiny(), options).generate(prompt_of(), greedy(2));
  EXPECT_EQ(refusal_of([&] { explain(std::string_view(bytes), "a.trace", {.text = "x"}); }),
            "'a.trace' has no tokens, so no text can be found in it; record it with "
            "--trace-tokens, or ask for a position or a turn");
}

TEST(Explained, LaterTextsThatBeginAlikeAreCounted) {
  const Traced was = run(small_options(2), [](Engine& engine) {
    engine.generate(prompt_of(24), greedy(2));
    engine.generate(prompt_of(24), greedy(2));
    std::vector<TokenId> other = prompt_of(24);
    other[13] ^= 1;  // in its fourth block
    engine.generate(other, greedy(2));
  });
  const Explanation e = explain(std::string_view(was.bytes), "trace", {.turn = 1});
  ASSERT_EQ(e.spans.size(), 3U);
  ASSERT_GE(e.spans[0].blocks.size(), 6U);
  for (size_t i = 0; i < 6; ++i) {
    const ExplainedBlock& block = e.spans[0].blocks[i];
    EXPECT_EQ(block.asked_again, i < 3 ? 2 : 1) << i;
    // The last token of a prompt runs in any case.
    EXPECT_EQ(block.found_again, i < 3 ? 2 : i < 5 ? 1 : 0) << i;
  }
  EXPECT_EQ(e.spans[2].blocks[0].asked_again, 0);
}

TEST(Explained, ABlockIsAsOldAsItsFirstPosition) {
  std::vector<int64_t> clock;  // by position
  const std::vector<TokenId> text = prompt_of(40);
  const auto feed = [&](Engine& engine, SessionId session, size_t n) {
    const std::span<const TokenId> next = std::span(text).subspan(clock.size(), n);
    clock.insert(clock.end(), n, engine.kv_stats().steps);
    engine.feed(session, next);
  };
  int64_t found = 0;
  const Traced was = run(small_options(2), [&](Engine& engine) {
    const SessionId session = engine.open_session();
    for (const size_t n : {3, 1, 6, 1, 1, 8, 2, 2}) feed(engine, session, n);
    found = engine.kv_stats().steps;
    engine.generate(text, greedy(1));
  });
  ASSERT_EQ(found, 8);
  for (int64_t p = 0; p < 24; ++p) {
    const Explanation e = explain(std::string_view(was.bytes), "trace", {.position = p});
    ASSERT_EQ(e.spans.size(), 2U);
    EXPECT_EQ(e.spans[0].blocks.at(0).written_step, clock[static_cast<size_t>(p / 4 * 4)]) << p;
    EXPECT_EQ(e.spans[1].blocks.at(0).written_step, found) << p;
  }
}

TEST(Explained, ATextHasEndedOnceItsSequenceIsClosed) {
  std::string bytes, until_closed;
  EngineOptions o = small_options(1);
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  {
    Engine engine(tiny(), o);
    const SessionId session = engine.open_session();
    engine.feed(session, prompt_of(9));
    until_closed = bytes;
    engine.close_session(session);
  }
  for (const std::string& told : {until_closed, bytes}) {
    const Explanation e = explain(std::string_view(told), "trace", {.position = 3});
    ASSERT_EQ(e.spans.size(), 1U);
    EXPECT_EQ(e.spans[0].length, 9);
    EXPECT_EQ(e.spans[0].has_ended, told == bytes);
  }
}

TEST(Explained, WhoWasParkedIsOneText) {
  const Traced was = run(shared_memory("h2o:24@every:8", 44, 3), [](Engine& engine) {
    for (size_t i = 0; i < 3; ++i) engine.add(text_at(i, 20), greedy(40));
    finish_all(engine);
  });
  const Explanation e = explain(std::string_view(was.bytes), "trace", {.turn = 1});
  ASSERT_EQ(e.spans.size(), 3U);
  int32_t parked = 0;
  for (const ExplainedSpan& span : e.spans) {
    parked += span.times_parked;
    EXPECT_EQ(span.n_tokens, 59);
    for (const ExplainedBlock& block : span.blocks) {
      std::set<int32_t> layers;
      for (const ExplainedLoss& loss : block.losses) {
        EXPECT_TRUE(layers.insert(loss.removal.event.layer).second) << "told twice";
      }
      EXPECT_EQ(layers.size() + block.kept_in.size(), 2U);
    }
  }
  EXPECT_GT(parked, 0);
}

TEST(Explained, WhatLeftATextBeforeItWasParkedIsToldOnce) {
  const Traced was = run(shared_memory("h2o:24@every:8", 28, 2), [](Engine& engine) {
    const SessionId session = engine.open_session();
    engine.generate(session, text_at(0, 40), greedy(20));
    engine.generate(text_at(9, 60), greedy(20));  // parks it
    engine.generate(session, text_at(3, 1), greedy(1));
  });
  const auto leaves = [](const KvEvent& e) { return e.reason == RemovalReason::kPolicyTrim; };
  std::set<std::pair<int32_t, int64_t>> lost;  // of the session, which has the first sequence
  int64_t told = 0, events = 0;
  for (const KvEvent& event : was.events) {
    if (!leaves(event) || event.sequence != 0) continue;
    ++events;
    lost.insert({event.layer, event.first_position});
  }
  ASSERT_GT(events, static_cast<int64_t>(lost.size())) << "nothing was decided again";
  const Explanation e = explain(std::string_view(was.bytes), "trace", {.sequence = 0});
  ASSERT_EQ(e.spans.size(), 1U);
  EXPECT_EQ(e.spans[0].times_parked, 1);
  for (const ExplainedBlock& block : e.spans[0].blocks) {
    told += static_cast<int64_t>(block.losses.size());
  }
  EXPECT_EQ(told, static_cast<int64_t>(lost.size()));
}

TEST(Explained, WhatWasProtectedIsSaid) {
  std::vector<int64_t> steps;
  const Traced was = run(small_options(1, "random:36@every:8@seed:2"), [&](Engine& engine) {
    const auto now = [&] { steps.push_back(engine.kv_stats().steps); };
    const SessionId session = engine.open_session();
    engine.feed(session, prompt_of(20));
    now();
    engine.protect(session, 9, 2);
    engine.generate(session, prompt_of(4), greedy(30));
    now();
    engine.protect(session, 18, 1);
    engine.generate(session, prompt_of(4), greedy(3));
    now();
    engine.unprotect(session, 9, 2);
    engine.generate(session, prompt_of(4), greedy(60));
  });
  const auto block = [&](int64_t position) {
    const Explanation e = explain(std::string_view(was.bytes), "trace", {.position = position});
    EXPECT_EQ(e.spans.size(), 1U);
    return e.spans.at(0).blocks.at(0);
  };
  const ExplainedBlock first = block(8);  // 8 to 11
  ASSERT_EQ(first.protections.size(), 1U);
  EXPECT_EQ(first.protections[0].from_step, steps[0]);
  EXPECT_EQ(first.protections[0].to_step, steps[2]);
  ASSERT_FALSE(first.losses.empty()) << "it was let go of";
  for (const ExplainedLoss& loss : first.losses) EXPECT_GE(loss.removal.event.step, steps[2]);
  const ExplainedBlock second = block(17);
  ASSERT_EQ(second.protections.size(), 1U);
  EXPECT_EQ(second.protections[0].from_step, steps[1]);
  EXPECT_EQ(second.protections[0].to_step, -1);
  for (const ExplainedLoss& loss : second.losses) EXPECT_LT(loss.removal.event.step, steps[1]);
  EXPECT_TRUE(block(12).protections.empty());
  const auto json = nlohmann::json::parse(
      to_json(explain(std::string_view(was.bytes), "trace", {.position = 8})));
  const auto& told = json["found"][0]["blocks"][0]["protected"];
  EXPECT_EQ(told, nlohmann::json::parse("[{\"from_step\":" + std::to_string(steps[0]) +
                                        ",\"to_step\":" + std::to_string(steps[2]) + "}]"));
}

TEST(Explained, WhoWasParkedIsProtectedAsBefore) {
  const Traced was = run(shared_memory("h2o:32@every:8", 36, 2), [](Engine& engine) {
    const SessionId session = engine.open_session();
    engine.protect(session, 4, 8);
    engine.protect(session, 20, 1);
    engine.generate(session, text_at(0, 40), greedy(20));
    engine.generate(text_at(9, 60), greedy(20));  // parks it
    engine.unprotect(session, 20, 1);
    engine.generate(session, text_at(3, 1), greedy(1));
  });
  const auto protections = [&](int64_t position) {
    for (const ExplainedSpan& span :
         explain(std::string_view(was.bytes), "trace", {.position = position}).spans) {
      if (span.session == 0) continue;
      EXPECT_EQ(span.times_parked, 1);
      return span.blocks.at(0).protections;
    }
    ADD_FAILURE() << "there is no session";
    return std::vector<ExplainedProtection>();
  };
  ASSERT_EQ(protections(5).size(), 1U) << "all the time";
  EXPECT_EQ(protections(5)[0].to_step, -1);
  ASSERT_EQ(protections(21).size(), 1U);
  EXPECT_GT(protections(21)[0].to_step, 0) << "it was let go of meanwhile";
}

TEST(Explained, TheSummaryIsThatOfTheLog) {
  for (const char* policy : kRules) {
    SCOPED_TRACE(policy);
    const Traced was = one_text(policy);
    const Explanation e = explain(std::string_view(was.bytes), "trace", {});
    EXPECT_TRUE(e.spans.empty());
    std::map<std::pair<int32_t, RemovalReason>, int64_t> expected, told;
    std::map<std::pair<int32_t, RemovalReason>, uint64_t> first;
    std::map<std::pair<int32_t, RemovalReason>, double> most;  // attention
    read_trace(std::string_view(was.bytes), "trace", [&](const TraceRecord& record) {
      const auto* r = std::get_if<TraceRemoval>(&record.what);
      if (r == nullptr || !r->measured) return;
      double& mass = most[{r->event.layer, r->event.reason}];
      mass = std::max(mass, r->mass);
    });
    for (const KvEvent& event : was.events) {
      ++expected[{event.layer, event.reason}];
      first.try_emplace({event.layer, event.reason}, event.number);
    }
    for (const ExplainedLayer& row : e.layers) {
      told[{row.layer, row.reason}] = row.blocks;
      EXPECT_EQ(row.first.event.number, (first.at({row.layer, row.reason})));
      if (row.is_measured) {
        EXPECT_TRUE(row.worst.measured);
        EXPECT_EQ(row.worst.mass, (most.at({row.layer, row.reason})));
      }
    }
    EXPECT_EQ(told, expected);
  }
}

TEST(Explained, JsonHoldsTheSame) {
  const Traced was = one_text("h2o:32@every:8");
  const Explanation e = explain(std::string_view(was.bytes), "trace", {.position = 17});
  const nlohmann::json json = nlohmann::json::parse(to_json(e));
  const ExplainedBlock& block = e.spans.at(0).blocks.at(0);
  const auto& told = json["found"][0]["blocks"][0];
  EXPECT_EQ(told["first_position"], 16);
  ASSERT_EQ(told["left"].size(), block.losses.size());
  ASSERT_FALSE(block.losses.empty());
  for (size_t i = 0; i < block.losses.size(); ++i) {
    const ExplainedLoss& loss = block.losses[i];
    EXPECT_EQ(told["left"][i]["layer"], loss.removal.event.layer);
    EXPECT_EQ(told["left"][i]["score"], loss.removal.event.score);
    EXPECT_EQ(told["left"][i]["attention"], loss.removal.mass);
    EXPECT_EQ(told["left"][i]["with_budget"]["rule"], loss.with_budget);
    EXPECT_EQ(told["left"][i]["with_sinks"]["sinks"], loss.sinks);
    EXPECT_EQ(told["left"][i]["budget"], 32);
  }
  EXPECT_EQ(json["summary"].size(), e.layers.size());
}

}  // namespace
}  // namespace paddock::test
