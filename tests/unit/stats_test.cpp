// Printers of the cache's statistics: names, values, and what the tools that read them say.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kv/cache_manager.h"
#include "support/golden.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

/// An engine that has trimmed, windowed and truncated.
KvStats busy_stats() {
  EngineOptions options;
  options.threads = 1;
  options.kv.policy = "0=h2o:32@every:16,1=sink:2+6";
  options.kv.block_size = 4;
  Engine engine(Model::load(golden("gqa1-Q8_0.gguf")), options);
  const SessionId session = engine.open_session();
  engine.feed(session, golden_tokens());
  return engine.kv_stats();
}

TEST(Removals, ARuleTakesWhatItsWindowPassesAndWhatItDropsTheLatterByScore) {
  std::vector<std::string> by_rule, by_score;
  for (int32_t r = 0; r < kRemovalReasons; ++r) {
    const auto reason = static_cast<RemovalReason>(r);
    if (is_by_rule(reason)) by_rule.emplace_back(removal_reason_name(reason));
    if (is_by_score(reason)) by_score.emplace_back(removal_reason_name(reason));
  }
  EXPECT_EQ(by_score, std::vector<std::string>{"policy_trim"});
  EXPECT_EQ(by_rule, (std::vector<std::string>{"window", "policy_trim"}));
}

TEST(Prometheus, HoldsEveryLayerAndReason) {
  const KvStats stats = busy_stats();
  const std::string text = to_prometheus(stats);
  for (const KvLayerStats& layer : stats.layers) {
    for (int32_t r = 0; r < kRemovalReasons; ++r) {
      const std::string line = "paddock_kv_pages_removed_total{layer=\"" +
                               std::to_string(layer.layer) + "\",reason=\"" +
                               removal_reason_name(static_cast<RemovalReason>(r)) + "\"} " +
                               std::to_string(layer.pages_removed[r]) + "\n";
      EXPECT_NE(text.find(line), std::string::npos) << line;
    }
  }
  EXPECT_GT(stats.layers[0].pages_removed[static_cast<size_t>(RemovalReason::kPolicyTrim)], 0);
  EXPECT_GT(stats.layers[1].pages_removed[static_cast<size_t>(RemovalReason::kWindow)], 0);
}

TEST(Prometheus, PromtoolAcceptsIt) {
  PADDOCK_REAL_FILE(promtool, "PADDOCK_PROMTOOL")
  KvStats stats = busy_stats();
  stats.layers[0].policy = "of\\my \"own\"\nmaking";  // labels are escaped
  stats.layers[1].policy = "no UTF-8: \xff\x01 \xe2\x82";
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/metrics.txt";
  std::ofstream(path) << to_prometheus(stats);
  const std::string command = std::string(promtool) + " check metrics < " + path + " > " +
                              folder.path() + "/out.txt" + " 2>&1";
  const int status = std::system(command.c_str());
  std::ifstream out(folder.path() + "/out.txt");
  EXPECT_EQ(status, 0) << std::string{std::istreambuf_iterator<char>(out), {}};
  // And it is not asleep: a metric without its type line is refused.
  std::ofstream(path) << "paddock_kv_x{layer=0} 1\n";
  EXPECT_NE(std::system(command.c_str()), 0);
}

/// A request that ended with kv_full although a page is free: a block needs one in each of two
/// layers.
KvStats full_stats() {
  EngineOptions options;
  options.threads = 1;
  options.kv.block_size = 4;
  const auto model = Model::load(golden("gqa1-Q8_0.gguf"));
  options.kv.budget_bytes = 11 * Engine(model, options).kv_stats().page_bytes;
  Engine engine(model, options);
  GenerateOptions run_on;
  run_on.max_tokens = 30;
  run_on.ignore_stop_tokens = true;
  const SessionId session = engine.open_session();
  const std::vector<TokenId> tokens = golden_tokens();
  const GenerateResult result =
      engine.generate(session, std::span<const TokenId>(tokens).first(10), run_on);
  EXPECT_EQ(result.finish_reason, FinishReason::kKvFull);
  return engine.kv_stats();
}

TEST(Stats, AFullCacheMayHaveFreePages) {
  const KvStats stats = full_stats();
  EXPECT_EQ(stats.pages_free, 1);
  EXPECT_EQ(stats.pages_per_block, 2);
  EXPECT_EQ(stats.reservations_refused, 1);
  EXPECT_NE(to_table(stats).find("\n1 times too few pages were free; a block takes 2, "),
            std::string::npos)
      << to_table(stats);
  const auto json = nlohmann::json::parse(to_json(stats));
  EXPECT_EQ(json["pages_per_block"], 2);
  EXPECT_EQ(json["reservations_refused"], 1);
  EXPECT_EQ(busy_stats().reservations_refused, 0);
  EXPECT_EQ(to_table(busy_stats()).find("too few pages"), std::string::npos);
}

/// Some 48 positions of two layers, for rules that keep all while there is room.
EngineOptions elastic_options(const std::string& policy, int32_t sequences = 1) {
  EngineOptions options;
  options.threads = 1;
  options.max_sequences = sequences;
  options.kv.block_size = 4;
  options.kv.policy = policy;
  static const int64_t page_bytes = Engine(Model::load(golden("gqa1-Q8_0.gguf")),
                                           [] {
                                             EngineOptions o;
                                             o.threads = 1;
                                             o.kv.block_size = 4;
                                             return o;
                                           }())
                                        .kv_stats()
                                        .page_bytes;
  options.kv.budget_bytes = 24 * page_bytes;
  return options;
}

GenerateOptions run_on_for(int32_t max_tokens) {
  GenerateOptions options;
  options.max_tokens = max_tokens;
  options.ignore_stop_tokens = true;
  return options;
}

TEST(Budgets, EveryChangeIsToldWithItsRemovals) {
  Engine engine(Model::load(golden("gqa1-Q8_0.gguf")), elastic_options("lru@every:8", 2));
  const std::vector<TokenId> prompt = golden_tokens();
  const RequestId first = engine.add(std::span(prompt).first(10), run_on_for(90));
  const RequestId second = engine.add(std::span(prompt).subspan(5, 14), run_on_for(60));
  std::vector<KvBudgetChange> told;
  KvStats while_it_ran;
  while (engine.step()) {
    if (engine.kv_stats().sequences == 2) while_it_ran = engine.kv_stats();
  }
  for (const RequestId id : {first, second}) {
    const GenerateResult result = engine.take(id).value();
    EXPECT_EQ(result.finish_reason, FinishReason::kLength);
    int32_t before = kUnlimited;
    for (const KvBudgetChange& change : result.budget_changes) {
      EXPECT_EQ(change.before, before);
      EXPECT_LT(change.after, before);
      before = change.after;
      told.push_back(change);
    }
  }
  std::sort(told.begin(), told.end(), [](auto& a, auto& b) { return a.number < b.number; });
  const std::vector<KvBudgetChange> changes = engine.kv_budget_changes();
  ASSERT_GT(changes.size(), 1U);
  ASSERT_EQ(told.size(), changes.size());
  EXPECT_EQ(engine.kv_stats().budget_falls, static_cast<int64_t>(changes.size()));
  EXPECT_EQ(engine.kv_stats().budget_lifts, 0);
  int32_t least = kUnlimited;
  for (size_t i = 0; i < changes.size(); ++i) {
    const KvBudgetChange& change = changes[i];
    EXPECT_EQ(to_json(change), to_json(told[i]));
    EXPECT_EQ(change.number, static_cast<int64_t>(i));
    EXPECT_EQ(change.length % 8, 0);
    EXPECT_EQ(change.scored_from, 0);
    EXPECT_TRUE(change.request == first || change.request == second);
    least = std::min(least, change.after);
    // What it removed follows: as many pages as came back, and nothing of it came before.
    const auto is_its = [&](const KvEvent& event) {
      return event.sequence == change.sequence && event.length == change.length &&
             event.step == change.step;
    };
    const std::vector<KvEvent> events = engine.kv_events(change.first_event);
    const auto end = std::find_if_not(events.begin(), events.end(), is_its);
    EXPECT_EQ(end - events.begin(), change.pages);
    EXPECT_GT(change.pages, 0);
    EXPECT_EQ(change.layer_pages, (std::vector<int64_t>{change.pages / 2, change.pages / 2}));
    if (change.first_event > 0) {
      EXPECT_FALSE(is_its(engine.kv_events(change.first_event - 1)[0]));
    }
    const auto later = engine.kv_budget_changes(change.number + 1);
    EXPECT_EQ(later.size(), changes.size() - i - 1);
    EXPECT_TRUE(later.empty() || later[0].number == change.number + 1);
  }
  EXPECT_TRUE(engine.kv_budget_changes(1000).empty());
  EXPECT_EQ(engine.kv_budget_changes(-5).size(), changes.size());
  for (const KvLayerStats& layer : while_it_ran.layers) EXPECT_EQ(layer.budget, least);
  EXPECT_EQ(while_it_ran.total.budget, 0);
  EXPECT_EQ(engine.kv_stats().layers[0].budget, 0);  // nobody is under it
}

TEST(Budgets, ALiftOfASessionThatIsParkedNamesNoSequence) {
  Engine engine(Model::load(golden("gqa1-Q8_0.gguf")), elastic_options("lru@every:8", 3));
  const std::vector<TokenId> tokens = golden_tokens();
  const SessionId session = engine.open_session();
  engine.generate(session, std::span(tokens).first(12), run_on_for(60));
  ASSERT_GT(engine.kv_stats().budget_falls, 0);
  const auto lift_of_next_turn = [&] {
    const auto before = static_cast<int64_t>(engine.kv_budget_changes().size());
    engine.generate(session, std::span(tokens).first(2), run_on_for(2));
    return engine.kv_budget_changes(before).at(0);
  };
  const KvBudgetChange open = lift_of_next_turn();
  EXPECT_EQ(open.after, kUnlimited);
  EXPECT_GE(open.sequence, 0);
  engine.generate(session, std::span(tokens).first(2), run_on_for(30));
  const int64_t length = engine.session_length(session);
  engine.generate(std::span(tokens).subspan(5, 40), run_on_for(40));  // takes the session's pages
  ASSERT_FALSE(engine.kv_preemptions().empty());
  const KvBudgetChange parked = lift_of_next_turn();
  EXPECT_EQ(parked.after, kUnlimited);
  EXPECT_EQ(parked.sequence, -1);
  EXPECT_LE(parked.length, length);
  EXPECT_GE(parked.length, length - 1);  // the last token has not been in the cache
}

TEST(Stats, WhatAHostProtectsIsPinnedWhereARuleWouldChooseIt) {
  for (const auto& [policy, more] :
       {std::pair<const char*, int64_t>{"lru:40@every:8", 2}, {"window:30", 0}, {"full", 0}}) {
    EngineOptions options = elastic_options(policy);
    options.kv.budget_bytes = 0;
    Engine engine(Model::load(golden("gqa1-Q8_0.gguf")), options);
    const SessionId session = engine.open_session();
    const std::vector<TokenId> tokens = golden_tokens();
    engine.feed(session, std::span(tokens).first(28));
    const int64_t before = engine.kv_stats().layers[0].pages_pinned;
    EXPECT_EQ(before, more > 0 ? 1 : 0) << policy;  // the newest block
    if (std::string(policy) == "window:30") {
      EXPECT_THROW(engine.protect(session, 6, 6), Error);
      continue;
    }
    engine.protect(session, 6, 6);
    EXPECT_EQ(engine.kv_stats().layers[0].pages_pinned, before + more) << policy;
    engine.unprotect(session, 6, 6);
    EXPECT_EQ(engine.kv_stats().layers[0].pages_pinned, before) << policy;
  }
}

TEST(Budgets, TheLeastInForceIsShownLayerByLayer) {
  EngineOptions options = elastic_options("0=h2o:32@every:16,1=sink:2+6", 2);
  options.kv.budget_bytes = 0;
  Engine fixed(Model::load(golden("gqa1-Q8_0.gguf")), options);
  EXPECT_EQ(fixed.kv_stats().layers[0].budget, 0);
  const SessionId any = fixed.open_session();
  EXPECT_EQ(fixed.kv_stats().layers[0].budget, 32);
  EXPECT_EQ(fixed.kv_stats().layers[1].budget, 0);  // a window is no budget
  fixed.close_session(any);

  Engine engine(Model::load(golden("gqa1-Q8_0.gguf")), elastic_options("0=full,1=lru@every:8"));
  const std::vector<TokenId> tokens = golden_tokens();
  const SessionId session = engine.open_session();
  engine.generate(session, std::span(tokens).first(12), run_on_for(20));
  EXPECT_TRUE(engine.kv_budget_changes().empty());
  EXPECT_EQ(engine.kv_stats().layers[1].budget, 0);  // it has given nothing up
  engine.generate(session, std::span(tokens).first(2), run_on_for(30));
  const std::vector<KvBudgetChange> changes = engine.kv_budget_changes();
  ASSERT_FALSE(changes.empty());
  EXPECT_EQ(engine.kv_stats().layers[0].budget, 0);
  EXPECT_EQ(engine.kv_stats().layers[1].budget, changes.back().after);
  engine.check_integrity();
}

TEST(Budgets, ScoresCountFromWhereAPrefixWasFound) {
  const std::vector<TokenId> tokens = golden_tokens();
  const auto scored_from = [&](const std::string& policy) {
    Engine engine(Model::load(golden("gqa1-Q8_0.gguf")), elastic_options(policy, 2));
    const SessionId first = engine.open_session();
    engine.feed(first, std::span(tokens).first(18));
    EXPECT_EQ(engine.kv_stats().scored_from, 0) << policy;
    const Pin pin = engine.pin(std::span(tokens).first(18));  // asks nothing
    EXPECT_EQ(pin.tokens, 16) << policy;
    EXPECT_EQ(engine.kv_stats().scored_from, 0) << policy;
    engine.unpin(pin.id);
    const SessionId second = engine.open_session();
    const GenerateResult r = engine.generate(second, std::span(tokens).first(18), run_on_for(2));
    EXPECT_EQ(r.cached_tokens, 16) << policy;
    const int64_t from = engine.kv_stats().scored_from;
    // What it gives up then says so.
    engine.close_session(first);
    const GenerateResult more = engine.generate(second, std::span(tokens).first(8), run_on_for(40));
    for (const KvBudgetChange& change : more.budget_changes) {
      EXPECT_EQ(change.scored_from, from) << policy;
    }
    EXPECT_EQ(more.budget_changes.empty(), policy == "full") << policy;
    engine.truncate(second, 0);
    EXPECT_EQ(engine.kv_stats().scored_from, 0) << policy;
    return from;
  };
  EXPECT_EQ(scored_from("lru@every:8"), 16);
  EXPECT_EQ(scored_from("0=window@every:8,1=h2o@every:8"), 16);
  EXPECT_EQ(scored_from("knorm@every:8"), 0);  // norms are there for whoever lists the page
  EXPECT_EQ(scored_from("full"), 0);
}

/// Every sample of `before` three times, a minute each, then every sample of `after`.
std::string input_series(const std::string& before, const std::string& after) {
  std::string series;
  std::istringstream first(before);
  std::istringstream second(after);
  for (std::string a, b; std::getline(first, a) && std::getline(second, b);) {
    if (a[0] == '#') continue;
    const size_t value = a.rfind(' ');
    EXPECT_EQ(a.substr(0, value), b.substr(0, value));
    const std::string x = a.substr(value);
    const std::string y = b.substr(value);
    series += "      - series: '" + a.substr(0, value) + "'\n        values: '" + x + x + x + y +
              y + y + "'\n";
  }
  return series;
}

TEST(Prometheus, TheAlertsOfTheExampleFireWhenTheyShould) {
  PADDOCK_REAL_FILE(promtool, "PADDOCK_PROMTOOL")
  const KvStats full = full_stats();
  KvStats room = full;
  room.reservations_refused = 0;
  room.pages_free = 2;  // one more block fits
  KvStats kept = full;  // likewise, once what is only kept for reuse goes
  kept.reservations_refused = 0;
  kept.layers[1].pages_cached = 1;
  const TemporaryFolder folder;
  const std::string rules =
      std::string(PADDOCK_TEST_DATA) + "/../../examples/prometheus_alerts.yml";
  // What fires three minutes after `before` has become `after`.
  const auto fires = [&](const KvStats& before, const KvStats& after, const std::string& alerts) {
    std::string expected;
    for (const char* name : {"PaddockKvFull", "PaddockKvNearlyFull", "PaddockKvTrims"}) {
      expected += std::string("      - expr: count(ALERTS{alertname=\"") + name +
                  "\"}) or vector(0)\n        eval_time: 5m\n        exp_samples:\n" +
                  "          - labels: '{}'\n            value: " +
                  (alerts.find(name) == std::string::npos ? "0" : "1") + "\n";
    }
    const std::string file = folder.write(
        "test.yml", "rule_files: ['" + rules + "']\ntests:\n  - interval: 1m\n    input_series:\n" +
                        input_series(to_prometheus(before), to_prometheus(after)) +
                        "    promql_expr_test:\n" + expected);
    const std::string out = folder.path() + "/out.txt";
    const std::string command =
        std::string(promtool) + " test rules " + file + " > " + out + " 2>&1";
    const int status = std::system(command.c_str());
    std::ifstream said(out);
    EXPECT_EQ(status, 0) << std::string{std::istreambuf_iterator<char>(said), {}};
  };
  fires(room, room, "");
  fires(room, kept, "");
  fires(room, full, "PaddockKvFull PaddockKvNearlyFull");
  KvStats trimmed = room;
  trimmed.layers[0].pages_removed[static_cast<size_t>(RemovalReason::kPolicyTrim)] = 3;
  fires(room, trimmed, "PaddockKvTrims");
}

TEST(Prometheus, ReplacesWhatIsNoUtf8) {
  KvStats stats;
  stats.layers.resize(1);
  stats.layers[0].policy = "a\xff\xe2\x82\xac\xe2\x82";
  EXPECT_NE(to_prometheus(stats).find("policy=\"a\xef\xbf\xbd\xe2\x82\xac\xef\xbf\xbd\""),
            std::string::npos)
      << to_prometheus(stats);
}

TEST(Table, HasOneLinePerLayerWhateverANameHolds) {
  KvStats stats;
  stats.layers.resize(3);
  stats.last_violation = "of one line";
  const std::string plain = to_table(stats);
  stats.layers[1].policy = "odd\nname\x1b[2J";
  stats.last_violation = "of\ntwo";
  const std::string table = to_table(stats);
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'),
            std::count(plain.begin(), plain.end(), '\n'));
  EXPECT_NE(table.find("odd?name?[2J"), std::string::npos) << table;
  EXPECT_TRUE(table.ends_with("\nof?two\n")) << table;
}

TEST(Json, SnapshotAndEventsParse) {
  const KvStats stats = busy_stats();
  const auto json = nlohmann::json::parse(to_json(stats));
  EXPECT_EQ(json["layers"].size(), stats.layers.size());
  EXPECT_EQ(json["layers"][0]["policy"], "h2o:32@every:16");
  EXPECT_EQ(json["layers"][0]["pages_removed"].size(), static_cast<size_t>(kRemovalReasons));
  EXPECT_EQ(json["events"], stats.events);
  EXPECT_GT(json["process_resident_bytes"].get<int64_t>(), 1 << 20);
}

TEST(Events, AreNumberedBoundedAndTellLoss) {
  EngineOptions options;
  options.threads = 1;
  options.kv.policy = "window:4";
  options.kv.block_size = 1;
  options.kv.event_capacity = 10;
  std::vector<KvEvent> all;
  options.kv.on_event = [&](const KvEvent& event) { all.push_back(event); };
  Engine engine(Model::load(golden("gqa1-Q8_0.gguf")), options);
  const SessionId session = engine.open_session();
  engine.feed(session, golden_tokens());
  const KvStats stats = engine.kv_stats();
  ASSERT_EQ(stats.events, all.size());
  EXPECT_EQ(stats.events_lost, all.size() - 10);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i].number, i);
  const std::vector<KvEvent> kept = engine.kv_events();
  ASSERT_EQ(kept.size(), 10U);
  EXPECT_EQ(kept.front().number, all.size() - 10);
  EXPECT_EQ(to_json(kept.back()), to_json(all.back()));
  EXPECT_EQ(engine.kv_events(all.size() - 3).size(), 3U);
  EXPECT_EQ(all[0].reason, RemovalReason::kWindow);
  EXPECT_EQ(all[0].policy, "window:4");
}

TEST(Events, OfWhatWasOnlyKeptNameNoSequence) {
  EngineOptions options = elastic_options("full");
  Engine engine(Model::load(golden("gqa1-Q8_0.gguf")), options);
  const std::vector<TokenId> tokens = golden_tokens();
  engine.generate(std::span(tokens).first(30), run_on_for(1));
  const uint64_t before = engine.kv_stats().events;
  engine.generate(std::span(tokens).subspan(1, 40), run_on_for(1));
  int64_t reclaimed = 0;
  for (const KvEvent& event : engine.kv_events(before)) {
    if (event.reason != RemovalReason::kCapacity) {
      EXPECT_GE(event.sequence, 0);
      EXPECT_GT(event.length, 0);
      continue;
    }
    ++reclaimed;
    EXPECT_EQ(event.sequence, -1);
    EXPECT_EQ(event.length, 0);
    EXPECT_EQ(nlohmann::json::parse(to_json(event))["sequence"], -1);
  }
  EXPECT_GT(reclaimed, 0);
}

TEST(Events, ATrimSaysWhyAndWhoWasNext) {
  EngineOptions options = reference_options();
  options.kv.policy = "h2o:32@every:16";
  options.kv.block_size = 4;
  Engine engine(Model::load(golden("gqa1-default")), options);
  engine.feed(engine.open_session(), golden_tokens());
  const std::vector<KvEvent> events = engine.kv_events();
  ASSERT_FALSE(events.empty());
  for (const KvEvent& event : events) {
    EXPECT_EQ(event.reason, RemovalReason::kPolicyTrim);
    EXPECT_EQ(event.length % 16, 0);
    EXPECT_LE(event.first_position + event.n_tokens, event.length - 16);  // the newer half stays
    EXPECT_GE(event.runner_up_position, 0);
    EXPECT_GE(event.runner_up_score, event.score);
    EXPECT_GE(event.idle_steps, 0);
    EXPECT_GE(event.age_steps, event.idle_steps);
  }
}

/// Where the sequence was trimmed first, what left, in order.
std::vector<KvEvent> first_decision(const std::string& policy) {
  EngineOptions options = reference_options();
  options.kv.policy = policy;
  options.kv.block_size = 4;
  static const auto model = Model::load(golden("gqa1-default"));
  Engine engine(model, options);
  engine.feed(engine.open_session(), golden_tokens());
  std::vector<KvEvent> events = engine.kv_events();
  std::erase_if(events, [&](const KvEvent& e) { return e.length != 48 || e.layer != 0; });
  return events;
}

TEST(Events, ATrimNamesTheBudgetThatWouldHaveKeptTheBlock) {
  // All but the first protect the same blocks under any budget; h2o by itself half of it.
  for (const char* form : {"h2o:B@every:48", "h2o:B@every:48@recent:8", "lru:B@every:48",
                           "knorm:B@every:48", "random:B@every:48@sinks:4"}) {
    const auto leave_under = [&](int64_t budget) {
      std::string spec = form;
      spec.replace(spec.find('B'), 1, std::to_string(budget));
      return first_decision(spec);
    };
    const std::vector<KvEvent> events = leave_under(24);
    ASSERT_EQ(events.size(), 6U) << form;
    std::map<int64_t, int64_t> leaves_at;  // by position: the largest budget that does not keep it
    for (int64_t budget = 24; budget <= 48; ++budget) {
      for (const KvEvent& event : leave_under(budget)) leaves_at[event.first_position] = budget;
    }
    int64_t without_protection = 48;
    bool differs = false;
    for (size_t i = 0; i < events.size(); ++i) {
      const KvEvent& event = events[i];
      EXPECT_EQ(event.rank, static_cast<int32_t>(i));
      EXPECT_EQ(event.left_together, 6);
      EXPECT_EQ(event.sufficient_budget, leaves_at.at(event.first_position) + 1) << form << i;
      differs |= event.sufficient_budget != without_protection;
      without_protection -= event.n_tokens;
    }
    EXPECT_EQ(differs, form == std::string("h2o:B@every:48"));
    const auto json = nlohmann::json::parse(to_json(events.back()));
    EXPECT_EQ(json["rank"], 5);
    EXPECT_EQ(json["left_together"], 6);
    EXPECT_EQ(json["sufficient_budget"], events.back().sufficient_budget);
  }
}

class Half final : public EvictionPolicy {
 public:
  std::string name() const override { return "half"; }
  TrimSchedule schedule(int32_t, int32_t) const override {
    return {.budget = 96, .keep_newest = 40, .newest_divisor = 2};
  }
};

TEST(Events, WhatIsProtectedIsTheShareThatARuleNames) {
  EngineOptions options;
  options.kv.custom_policy = std::make_shared<Half>();
  const auto model = Model::load(golden("gqa1-default"));
  try {
    Engine engine(model, options);
    FAIL() << "40 is not 96 / 2";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(e.what()).find("keep_newest is 40, not the budget of 96 divided by"),
              std::string::npos)
        << e.what();
  }
}

TEST(Events, WhatNoDecisionDroppedHasNoRank) {
  EngineOptions options = reference_options();
  options.kv.policy = "window:4";
  options.kv.block_size = 1;
  Engine engine(Model::load(golden("gqa1-default")), options);
  engine.feed(engine.open_session(), golden_tokens());
  const KvEvent event = engine.kv_events().at(0);
  EXPECT_EQ(event.rank, -1);
  EXPECT_FALSE(nlohmann::json::parse(to_json(event)).contains("rank"));
}

}  // namespace
}  // namespace paddock::test
