// Requests, sessions and pins under rules of their own: what may be named, what is refused, what is
// shared with whom, and how large everything is.
#include "support/engine_inside.h"
#include "support/live_bytes.h"
#include "support/shared_memory.h"

namespace paddock::test {
namespace {

EngineOptions mixed(const std::string& policy, std::vector<std::string> others,
                    int32_t sequences = 4) {
  EngineOptions o = small_options(sequences, policy);
  o.context = 128;
  o.kv.other_policies = std::move(others);
  return o;
}

GenerateOptions under(const std::string& policy, int32_t n = 12) {
  GenerateOptions o = greedy(n);
  o.kv_policy = policy;
  return o;
}

std::vector<TokenId> alone(const std::string& policy, std::span<const TokenId> text, int32_t n) {
  Engine engine(tiny(), mixed(policy, {}, 1));
  return engine.generate(text, greedy(n)).tokens;
}

TEST(OwnRules, ASpecThatTheEngineDoesNotHaveIsRefusedWithThoseItHas) {
  Engine engine(tiny(), mixed("full", {"window:8", "lru:24@every:8"}));
  const std::string said = refusal_of([&] { engine.add(prompt_of(), under("window:9")); });
  EXPECT_NE(said.find("'window:9'"), std::string::npos) << said;
  EXPECT_NE(said.find("'full', 'window:8', 'lru:24@every:8'"), std::string::npos) << said;
  EXPECT_NE(said.find("other_policies"), std::string::npos) << said;
  EXPECT_EQ(said, refusal_of([&] { engine.open_session({.kv_policy = "window:9"}); }));
  EXPECT_EQ(said, refusal_of([&] { engine.pin(prompt_of(), {.kv_policy = "window:9"}); }));
  EXPECT_FALSE(engine.step()) << "nothing was queued";
  expect_nothing_held(engine);
}

TEST(OwnRules, ASessionGoesByItsOwnAndTakesNoOther) {
  Engine engine(tiny(), mixed("full", {"window:8", "sink:2+6"}));
  const SessionId windowed = engine.open_session({.kv_policy = "window:8"});
  const SessionId plain = engine.open_session();
  const std::string said =
      refusal_of([&] { engine.generate(windowed, prompt_of(), under("sink:2+6")); });
  EXPECT_NE(said.find("'window:8'"), std::string::npos) << said;
  refusal_of([&] { engine.generate(plain, prompt_of(), under("sink:2+6")); });
  EXPECT_EQ(engine.session_length(windowed), 0);
  EXPECT_EQ(engine.generate(windowed, prompt_of(), under("window:8")).tokens,
            alone("window:8", prompt_of(), 12))
      << "its own may be named";
  const SessionId fork = engine.fork_session(windowed);
  const SessionId again = engine.fork_session(plain);
  // Both forks go on as what they are forks of.
  EXPECT_EQ(engine.generate(fork, prompt_of(7), greedy(9)).tokens,
            engine.generate(windowed, prompt_of(7), greedy(9)).tokens);
  refusal_of([&] { engine.generate(fork, prompt_of(), under("full")); });
  EXPECT_EQ(engine.generate(again, prompt_of(), greedy(12)).tokens, alone("full", prompt_of(), 12));
  engine.check_integrity();
  EXPECT_EQ(engine.kv_stats().layers[0].tokens_resident, 7 + 7 + 35) << "windows of 8, and all";
}

TEST(OwnRules, BlocksAreSharedOnlyWhereLayersSeeTheSame) {
  const std::vector<std::string> rules = {
      "full",           "window:8",          "lru@every:8",
      "sink:2+6",       "sink:2+6@original", "0=window:8,1=full",
      "lru:24@every:8", "knorm@every:8",     "*=window:8"};
  const std::vector<TokenId> text = prompt_of(41);
  for (size_t i = 0; i < rules.size(); ++i) {
    EngineOptions how = mixed(rules[i], rules);
    for (size_t j = 0; j < rules.size(); ++j) {
      SCOPED_TRACE(rules[i] + " then " + rules[j]);
      Engine engine(tiny(), how);
      const GenerateResult first = engine.generate(text, greedy(20));
      const GenerateResult then = engine.generate(text, under(rules[j], 20));
      EXPECT_EQ(first.tokens, alone(rules[i], text, 20));
      EXPECT_EQ(then.tokens, alone(rules[j], text, 20));
      const auto is_full = [&](size_t k) { return k == 0 || k == 2 || k == 7; };
      const auto is_window = [&](size_t k) { return k == 1 || k == 8; };
      const bool shares = rules[j] != "lru:24@every:8" &&
                          (i == j || (is_full(i) && is_full(j)) || (is_window(i) && is_window(j)));
      EXPECT_EQ(then.cached_tokens, shares ? 40 : 0);
      EXPECT_EQ(first.miss.reason,
                rules[i] == "lru:24@every:8" ? MissReason::kNotShared : MissReason::kFirstSeen);
      MissReason why = MissReason::kSettings;
      if (shares) why = MissReason::kNone;
      if (!shares && rules[i] == "lru:24@every:8") why = MissReason::kFirstSeen;
      if (rules[j] == "lru:24@every:8") why = MissReason::kNotShared;
      EXPECT_EQ(then.miss.reason, why);
      engine.check_integrity();
    }
  }
}

TEST(OwnRules, AMissTellsOfOtherRulesOnlyAsFarAsTheyHaveTheText) {
  Engine engine(tiny(), mixed("full", {"window:8"}));
  const std::vector<TokenId> text = prompt_of(41);
  engine.generate(std::span(text).first(21), greedy(1));  // five blocks under full
  engine.generate(std::span(text).first(13), under("window:8", 1));
  const GenerateResult longer = engine.generate(text, under("window:8", 1));
  EXPECT_EQ(longer.cached_tokens, 12);
  EXPECT_EQ(longer.miss.reason, MissReason::kSettings);
  EXPECT_EQ(longer.miss.position, 12);
  EXPECT_EQ(longer.miss.step, -1) << "it has not left";
  const GenerateResult whole = engine.generate(text, greedy(1));
  EXPECT_EQ(whole.cached_tokens, 20);
  EXPECT_EQ(whole.miss.reason, MissReason::kSettings) << "the windowed one went on";
}

TEST(OwnRules, ElasticRulesTakeKeyNormsOverFromWhoeverComputedThem) {
  // A text under full, taken back in the middle of a block, then listed by who goes by key norms.
  EngineOptions how = mixed("full", {"knorm@every:8"});
  const std::vector<TokenId> text = prompt_of(48);
  std::vector<double> expected, norms;
  for (const bool fresh : {true, false}) {
    Engine engine(tiny(), how);
    if (!fresh) {
      const SessionId other = engine.open_session();
      engine.feed(other, std::span(text).first(30));
      engine.truncate(other, 22);
      engine.feed(other, std::span(text).subspan(22));
      engine.close_session(other);
    }
    const SessionId session = engine.open_session({.kv_policy = "knorm@every:8"});
    engine.feed(session, text);
    EXPECT_EQ(engine.kv_stats().prefix_hits, fresh ? 0 : 11);
    std::vector<double>& out = fresh ? expected : norms;
    for (const KvBlock& block : engine.kv_blocks(1)) out.push_back(block.key_norm);
  }
  EXPECT_EQ(norms, expected);
  EXPECT_GT(expected.at(3), 0);
}

TEST(OwnRules, AnswersAndPinsGoByWhatTheyName) {
  Engine engine(tiny(), mixed("full", {"window:8"}, 4));
  const std::vector<TokenId> text = prompt_of(33);
  GenerateOptions several = under("window:8", 10);
  several.n = 3;
  const RequestId first = engine.add(text, several);
  while (engine.step()) engine.check_integrity();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(engine.take(first + i)->tokens, alone("window:8", text, 10));
  }
  refusal_of([&] { engine.pin(text); });  // nothing is kept for full
  const Pin pin = engine.pin(text, {.kv_policy = "window:8"});
  EXPECT_EQ(pin.tokens, 32);
  EXPECT_TRUE(engine.unpin(pin.id));
}

TEST(OwnRules, RemovalsNameTheRuleOfTheirSequence) {
  EngineOptions how = mixed("full", {"window:8", "lru:24@every:8"});
  how.kv.reuse = false;
  Engine engine(tiny(), how);
  const RequestId a = engine.add(prompt_of(40), under("window:8"));
  const RequestId b = engine.add(prompt_of(40), under("lru:24@every:8"));
  const RequestId c = engine.add(prompt_of(40), greedy(12));
  while (engine.step()) engine.check_integrity();
  EXPECT_TRUE(engine.take(a) && engine.take(b) && engine.take(c));
  std::map<std::string, std::set<RemovalReason>> reasons;
  for (const KvEvent& e : engine.kv_events()) reasons[e.policy].insert(e.reason);
  using R = RemovalReason;
  EXPECT_EQ(reasons["window:8"], (std::set<R>{R::kWindow, R::kSequenceEnd}));
  EXPECT_EQ(reasons["lru:24@every:8"], (std::set<R>{R::kPolicyTrim, R::kSequenceEnd}));
  EXPECT_EQ(reasons["full"], (std::set<R>{R::kSequenceEnd}));
  EXPECT_EQ(reasons.size(), 3U);
  for (const KvLayerStats& layer : engine.kv_stats().layers) EXPECT_EQ(layer.policy, "full");
}

TEST(OwnRules, ShadowsKnowWhatIsSeenOtherwise) {
  EngineOptions how = mixed("full", {"window:8", "lru@every:8"});
  how.kv.shadow = true;
  Engine engine(tiny(), how);
  engine.generate(prompt_of(41), greedy(1));
  engine.generate(prompt_of(41), under("window:8", 1));
  EXPECT_EQ(engine.kv_stats().shadows.at(1).hits, 0);
  engine.generate(prompt_of(41), under("lru@every:8", 1));
  EXPECT_EQ(engine.kv_stats().shadows.at(1).hits, 10);
  EXPECT_EQ(engine.kv_stats().prefix_hits, 10);
}

TEST(OwnRules, NobodyWaitsForATextUnderOtherRules) {
  // Of two that begin alike the second one waits for what the first computes, if it will list it.
  for (const std::string other : {"full", "window:8"}) {
    Engine engine(tiny(), mixed("full", {"window:8"}));
    const RequestId first = engine.add(prompt_of(40), greedy(2));
    const RequestId second = engine.add(prompt_of(40), under(other, 2));
    engine.step();
    EXPECT_EQ(engine.status(first).computed_tokens, other == "full" ? 8 : 4);
    EXPECT_EQ(engine.status(second).computed_tokens, other == "full" ? 0 : 4) << other;
    finish_all(engine);
    EXPECT_EQ(engine.take(second)->tokens, alone(other, prompt_of(40), 2));
  }
}

TEST(OwnRules, WhatIsReclaimedNamesARuleThatItWasKeptUnder) {
  EngineOptions how = shared_memory("full", 2 * 16, 1);
  how.kv.other_policies = {"window:12", "lru@every:8"};
  Engine engine(tiny(), how);
  engine.generate(prompt_of(40), under("window:12", 1));
  engine.generate(text_at(9, 40), under("lru@every:8", 1));
  engine.generate(text_at(3, 50), greedy(1));
  std::set<std::string> rules;
  for (const KvEvent& e : engine.kv_events()) {
    if (e.reason != RemovalReason::kCapacity) continue;
    EXPECT_EQ(e.sequence, -1);
    rules.insert(e.policy);
  }
  EXPECT_EQ(rules, (std::set<std::string>{"full", "window:12"})) << "lru keeps as full does";
}

TEST(OwnRules, TheBudgetToldIsTheLeastInForce) {
  for (const bool first : {true, false}) {
    Engine engine(tiny(), mixed("full", {"lru:24@every:8", "tova:40@every:8"}));
    EXPECT_EQ(engine.kv_stats().layers[0].budget, 0);
    engine.open_session({.kv_policy = first ? "lru:24@every:8" : "tova:40@every:8"});
    EXPECT_EQ(engine.kv_stats().layers[0].budget, first ? 24 : 40);
    engine.open_session({.kv_policy = first ? "tova:40@every:8" : "lru:24@every:8"});
    EXPECT_EQ(engine.kv_stats().layers[0].budget, 24);
  }
}

TEST(OwnRules, WhatItsOwnRulesDoNotSeeMayBeMissing) {
  EngineOptions how = shared_memory("full", 2 * 30, 3);
  how.kv.other_policies = {"window:8"};
  Engine engine(tiny(), how);
  const SessionId session = engine.open_session({.kv_policy = "window:8"});
  engine.feed(session, prompt_of(41));
  engine.generate(text_at(9, 100), greedy(1));  // takes pages that the session's window has passed
  const std::vector<KvEvent> events = engine.kv_events();
  EXPECT_TRUE(std::any_of(events.begin(), events.end(), [](const KvEvent& e) {
    return e.reason == RemovalReason::kCapacity && e.policy == "window:8" && e.first_position == 0;
  }));
  const GenerateResult again = engine.generate(prompt_of(41), under("window:8", 12));
  EXPECT_EQ(again.cached_tokens, 40);
  EXPECT_EQ(again.tokens, alone("window:8", prompt_of(41), 12));
}

TEST(OwnRules, OtherRulesStayWhereTheEnginesOwnChange) {
  Engine engine(tiny(), mixed("full", {"window:8"}));
  engine.generate(prompt_of(41), under("window:8", 1));
  engine.set_kv_policy("sink:2+6");
  EXPECT_EQ(engine.options().kv.policy, "sink:2+6");
  EXPECT_EQ(engine.options().kv.other_policies, std::vector<std::string>{"window:8"});
  const std::vector<TokenId> text = prompt_of(30);
  EXPECT_EQ(engine.generate(text, under("window:8")).tokens, alone("window:8", text, 12));
  EXPECT_EQ(engine.generate(text, greedy(12)).tokens, alone("sink:2+6", text, 12));
  EXPECT_EQ(engine.generate(text, under("sink:2+6")).tokens, alone("sink:2+6", text, 12));
  const std::string said = refusal_of([&] { engine.generate(text, under("full")); });
  EXPECT_NE(said.find("'sink:2+6', 'window:8'"), std::string::npos) << said;
  const GenerateResult again = engine.generate(prompt_of(41), under("window:8", 1));
  EXPECT_EQ(again.cached_tokens, 28) << "what was kept under the old rules has gone";
}

TEST(OwnRules, EachSpecIsCheckedWhenTheEngineIsMade) {
  const auto refused = [](const EngineOptions& o) {
    try {
      Engine engine(tiny(), o);
    } catch (const Error& e) {
      return std::pair(std::string(e.what()),
                       std::vector<Proposal>(e.proposals().begin(), e.proposals().end()));
    }
    ADD_FAILURE() << "nothing was refused";
    return std::pair<std::string, std::vector<Proposal>>();
  };
  // A name that is none; the proposal leaves the others alone, and is taken.
  EngineOptions wrong = mixed("full", {"window:8", "lruu:24@every:8"});
  auto [said, proposals] = refused(wrong);
  EXPECT_NE(said.find("other_policies[1]"), std::string::npos) << said;
  ASSERT_EQ(proposals.size(), 1U) << said;
  EXPECT_FALSE(proposals[0].policy);
  ASSERT_EQ(proposals[0].other_policies->size(), 2U);
  EXPECT_EQ((*proposals[0].other_policies)[0], "window:8");
  EXPECT_NO_THROW(Engine(tiny(), with_proposal(wrong, proposals[0]))) << said;
  // A pool that holds the engine's own rule, but not another.
  EngineOptions small = mixed("window:4", {"h2o:64@every:8"});
  small.batch_size = 4;
  small.kv.budget_bytes = Engine(tiny(), mixed("full", {}, 1)).kv_stats().page_bytes * 16;
  std::tie(said, proposals) = refused(small);
  EXPECT_NE(said.find("h2o:64@every:8"), std::string::npos) << said;
  ASSERT_FALSE(proposals.empty()) << said;
  for (const Proposal& p : proposals) {
    EXPECT_FALSE(p.policy);
    EXPECT_NO_THROW(Engine(tiny(), with_proposal(small, p))) << to_text(std::span(&p, 1));
  }
  // And the other way round: the least that either needs.
  EngineOptions both = mixed("h2o:64@every:8", {"h2o:96@every:8"});
  both.kv.budget_bytes = small.kv.budget_bytes;
  std::tie(said, proposals) = refused(both);
  EXPECT_NE(said.find("h2o:96@every:8"), std::string::npos) << said;
  for (const Proposal& p : proposals) {
    EXPECT_NO_THROW(Engine(tiny(), with_proposal(both, p))) << to_text(std::span(&p, 1));
  }
}

TEST(OwnRules, SizesAreTheLargestOverAllRules) {
  const auto sizes = [](const EngineOptions& o) {
    const auto inside = parts(tiny(), o);
    const StepSizes& step = inside->step_runner->planner().sizes();
    return std::tuple(inside->setup.pool.n_pages,
                      *std::max_element(step.max_entries.begin(), step.max_entries.end()),
                      step.max_measured_entries());
  };
  const auto full = sizes(mixed("full", {}));
  const auto lru = sizes(mixed("lru:24@every:8", {}));
  for (const auto& o : {mixed("full", {"lru:24@every:8"}), mixed("lru:24@every:8", {"full"})}) {
    const auto both = sizes(o);
    EXPECT_EQ(std::get<0>(both), std::max(std::get<0>(full), std::get<0>(lru)));
    // The pool is larger than that of lru alone, its tables are not.
    EXPECT_EQ(std::get<1>(both), std::get<1>(full));
    EXPECT_EQ(std::get<2>(both), std::get<2>(lru));
  }
  // Each rule's sequences are as long as they would be alone.
  Engine engine(tiny(), [] {
    EngineOptions o = mixed("full", {"window:8"});
    o.context = 0;
    return o;
  }());
  EXPECT_EQ(engine.max_positions(), 128);
  EXPECT_EQ(engine.max_positions(engine.open_session({.kv_policy = "window:8"})),
            std::numeric_limits<int32_t>::max());
  EXPECT_EQ(engine.max_positions(engine.open_session()), 128);
  const GenerateResult beyond = engine.generate(prompt_of(24), under("window:8", 150));
  EXPECT_EQ(beyond.tokens.size(), 150U);
  const GenerateResult ends = engine.generate(prompt_of(24), greedy(150));
  EXPECT_EQ(ends.finish_reason, FinishReason::kContext);
}

TEST(OwnRules, LayersShareAnglesOnlyWhereTheyTurnAlikeUnderAllRules) {
  const auto groups = [](const EngineOptions& o) {
    return parts(tiny(), o)->step_runner->planner().sizes().layer_group;
  };
  using Groups = decltype(groups(mixed("full", {})));
  ASSERT_EQ(groups(mixed("full", {})), (Groups{0, 0}));
  const std::string apart = "0=full,1=lru:24@every:8@compact";
  ASSERT_EQ(groups(mixed(apart, {})), (Groups{0, 1}));
  EXPECT_EQ(groups(mixed("full", {"window:8"})), (Groups{0, 0}));
  EXPECT_EQ(groups(mixed("full", {apart})), (Groups{0, 1}));
  EXPECT_EQ(groups(mixed("full", {"window:8", apart})), (Groups{0, 1}));
  Engine engine(tiny(), mixed("full", {apart}));
  EXPECT_EQ(engine.generate(prompt_of(41), under(apart, 60)).tokens,
            alone(apart, prompt_of(41), 60));
}

TEST(OwnRules, NothingIsAllocatedWhileTheyDecode) {
  EngineOptions how = mixed("full", {"window:8", "sink:2+6", "lru:24@every:8@compact",
                                     "cake:h2o:32@every:8", "knorm@every:8"});
  how.max_sequences = 6;
  how.kv.reuse = false;
  Engine engine(tiny(), how);
  std::vector<std::string> rules = how.kv.other_policies;
  rules.emplace_back();
  for (const std::string& rule : rules) engine.add(prompt_of(20), under(rule, 90));
  for (int i = 0; i < 40; ++i) engine.step();
  const int64_t before = g_allocations;
  for (int i = 0; i < 50; ++i) engine.step();
  EXPECT_EQ(g_allocations, before);
  engine.check_integrity();
  EXPECT_EQ(engine.stats().requests_running, 6);
}

/// What is told of a fall, but for where and when in the engine's life.
std::tuple<int64_t, int32_t, int32_t> fall_of(const KvBudgetChange& c) {
  return {c.length, c.before, c.after};
}

TEST(OwnRules, WhatFallsInCompanyDecidesAsItWouldAlone) {
  // Beside fixed rules budgets fall when and as far as the company says. With the same falls at the
  // same lengths an engine that has the one rule makes the same of it.
  int64_t falls = 0;
  for (const std::string policy :
       {"lru@every:8", "h2o@every:8", "sink:2@every:8", "cake:h2o@every:8", "knorm@every:8"}) {
    SCOPED_TRACE(policy);
    EngineOptions how = shared_memory("full", 96, 4);
    how.kv.other_policies = {policy, "window:12", "tova:20@every:6"};
    how.kv.reuse = false;
    Engine engine(tiny(), how);
    const std::vector<TokenId> text = prompt_of(30);
    std::vector<RequestId> ids;
    for (const std::string& rule : {policy, std::string("full"), std::string("window:12"), policy,
                                    std::string("tova:20@every:6"), std::string("full")}) {
      ids.push_back(engine.add(text, under(rule, 60)));
    }
    finish_all(engine);
    for (const size_t i : {1, 2, 4, 5}) {
      const std::string rule = i == 2 ? "window:12" : i == 4 ? "tova:20@every:6" : "full";
      const auto result = engine.take(ids[i]);
      EXPECT_EQ(result->tokens, alone(rule, text, 60)) << rule;
      EXPECT_TRUE(result->budget_changes.empty());
    }
    for (const size_t i : {0, 3}) {
      const auto result = engine.take(ids[i]);
      EXPECT_EQ(result->finish_reason, FinishReason::kLength);
      falls += static_cast<int64_t>(result->budget_changes.size());
      EngineOptions own = shared_memory(policy, 0, 1);
      own.kv.reuse = false;
      const auto inside = parts(tiny(), own);
      Engine again(inside);
      const RequestId id = again.add(text, under("", 60));
      size_t next = 0;
      std::vector<std::tuple<int64_t, int32_t, int32_t>> done, expected;
      for (const KvBudgetChange& c : result->budget_changes) expected.push_back(fall_of(c));
      do {
        for (; next < expected.size() && inside->scheduler->requests().size() == 1; ++next) {
          Sequence& sequence = inside->scheduler->requests()[0]->sequence;
          if (sequence.computed() != result->budget_changes[next].length) break;
          inside->cache->plan_fall(sequence.tables(), result->budget_changes[next].after);
          done.push_back(fall_of(sequence.fall(0)));
        }
      } while (again.step());
      EXPECT_EQ(done, expected);
      EXPECT_EQ(again.take(id)->tokens, result->tokens);
    }
  }
  EXPECT_GT(falls, 10);
}

TEST(OwnRules, WhoGivesNothingUpIsGivenWayToByWhoMay) {
  // One under full grows beside an elastic one, which gives: nobody is parked.
  EngineOptions how = shared_memory("full", 2 * 40, 2);
  how.kv.other_policies = {"lru@every:8"};
  Engine engine(tiny(), how);
  const RequestId elastic = engine.add(prompt_of(24), under("lru@every:8", 80));
  const RequestId whole = engine.add(text_at(7, 24), greedy(80));
  finish_all(engine);
  const auto gave = engine.take(elastic);
  const auto took = engine.take(whole);
  EXPECT_EQ(took->tokens, alone("full", text_at(7, 24), 80));
  EXPECT_EQ(took->preemptions + gave->preemptions, 0);
  ASSERT_FALSE(gave->budget_changes.empty());
  expect_nothing_held(engine);
}

TEST(OwnRules, ElasticRulesOfOtherLayersFallSideBySide) {
  // Plans of falls are made one after another for rules of other layers, other intervals and
  // floors.
  EngineOptions how = shared_memory("full", 2 * 34, 3);
  how.kv.other_policies = {"0=full,1=lru@every:8", "0=sink:2@every:12,1=full",
                           "h2o@every:4@min:20"};
  Engine engine(tiny(), how);
  std::vector<RequestId> ids;
  for (const std::string& rule : how.kv.other_policies) {
    ids.push_back(engine.add(text_at(ids.size(), 30), under(rule, 70)));
  }
  finish_all(engine);
  const std::array<int32_t, 3> intervals = {8, 12, 4};
  int64_t falls = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto result = engine.take(ids[i]);
    EXPECT_EQ(result->tokens.size(), 70U);
    for (const KvBudgetChange& c : result->budget_changes) {
      ++falls;
      EXPECT_EQ(c.length % intervals[i], 0);
      EXPECT_GE(c.after, i == 2 ? 20 : 1);
      EXPECT_TRUE(i == 2 || c.layer_pages[i] == 0) << "that layer is fixed";
    }
  }
  EXPECT_GT(falls, 3);
  EXPECT_EQ(engine.kv_stats().policy_violations, 0);
  expect_nothing_held(engine);
}

TEST(OwnRules, WhatAHostFeedsUnderAFixedRuleMakesBudgetsFall) {
  EngineOptions how = shared_memory("full", 2 * 32, 2);
  how.kv.other_policies = {"lru@every:8"};
  const auto inside = parts(tiny(), how);
  Engine engine(inside);
  const RequestId id = engine.add(prompt_of(40), under("lru@every:8", 60));
  const Sequence& sequence = inside->scheduler->requests()[0]->sequence;
  while (sequence.computed() != 64) engine.step();
  const SessionId session = engine.open_session();
  const std::vector<TokenId> text = text_at(3, 70);
  const auto fed = engine.feed(session, text);
  const std::vector<float> logits(fed.begin(), fed.end());
  engine.check_integrity();
  Engine other(parts(tiny(), shared_memory("full", 0, 1)));
  const auto expected = other.feed(other.open_session(), text);
  EXPECT_EQ(logits, std::vector<float>(expected.begin(), expected.end()));
  engine.close_session(session);
  finish_all(engine);
  const auto gave = engine.take(id);
  EXPECT_EQ(gave->preemptions, 0);
  ASSERT_FALSE(gave->budget_changes.empty());
  EXPECT_EQ(gave->budget_changes[0].request, 0) << "that of the host";
  EXPECT_EQ(gave->budget_changes[0].length, 64);
  expect_nothing_held(engine);
}

TEST(OwnRules, ANewcomerUnderAFixedRuleWaitsUntilWhatItNeedsCanBeHad) {
  EngineOptions how = shared_memory("full", 2 * 32, 2);
  how.kv.other_policies = {"lru@every:8"};
  Engine engine(tiny(), how);
  const RequestId first = engine.add(prompt_of(40), under("lru@every:8", 60));
  for (int i = 0; i < 20; ++i) engine.step();
  const RequestId fixed = engine.add(text_at(3, 80), greedy(4));
  for (int i = 0; i < 10; ++i) engine.step();
  EXPECT_EQ(engine.status(fixed).state, RequestState::kQueued);
  finish_all(engine);
  EXPECT_TRUE(engine.take(first)->budget_changes.empty()) << "nothing fell on its account";
  EXPECT_EQ(engine.take(fixed)->tokens, alone("full", text_at(3, 80), 4));
}

}  // namespace
}  // namespace paddock::test
