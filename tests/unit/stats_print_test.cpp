// One snapshot and one event whose fields all differ, printed whole: no figure may stand under
// another one's name, in the wrong unit, or not at all.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "paddock/eviction.h"
#include "paddock/stats.h"

namespace paddock {
namespace {

KvLayerStats layer_with(int32_t number, int64_t base) {
  KvLayerStats layer;
  layer.layer = number;
  layer.pages_active = base + 1;
  layer.pages_cached = base + 2;
  layer.pages_pinned = base + 3;
  layer.pages_peak = base + 4;
  layer.tokens_resident = base + 5;
  layer.tokens_peak = base + 6;
  layer.budget = number < 0 ? 0 : base + 23;  // the total has none
  layer.bytes = (base + 7) * 1048576;
  layer.pages_allocated = base + 8;
  for (int32_t r = 0; r < kRemovalReasons; ++r) layer.pages_removed[r] = base + 10 + r;
  layer.pages_retained = base + 16;
  layer.pages_merged = base + 9;
  layer.tokens_read = base + 20;
  layer.trim_decisions = base + 21;
  layer.kv_overflows = base + 22;
  layer.attention_seconds = static_cast<double>(base) / 1000 + 0.5;
  return layer;
}

KvStats distinct_stats() {
  KvStats s;
  s.block_size = 16;
  s.type = "bf16";
  s.page_bytes = 2048;
  s.pool_pages = 5120;
  s.pool_bytes = 10485760;
  s.pool_max_pages = 6144;
  s.pages_free = 4001;
  s.pages_per_block = 2;
  s.reservations_refused = 11;
  s.steps = 12;
  s.tokens_written = 13;
  s.sequences = 14;
  s.policy_seconds = 0.25;
  s.policy_violations = 15;
  s.policy_shortfalls = 17;
  s.policy_slow = 18;
  s.last_violation = "policy 'x': said nothing";
  s.hook_failures = 19;
  s.prefix_lookups = 31;
  s.prefix_hits = 32;
  s.reclaim_regrets = 33;
  s.budget_falls = 64;
  s.budget_lifts = 65;
  s.scored_from = 66;
  s.events = 34;
  s.events_lost = 35;
  s.memory = {36 * 1048576, 37};
  s.device = {"cuda:0 (H100)", 40 * 1048576, 41 * 1048576, 42 * 1048576, 43 * 1048576};
  s.total = layer_with(-1, 700);
  s.layers = {layer_with(0, 100), layer_with(1, 200)};
  s.layers[0].policy = "h2o:64";
  s.layers[1].policy = "sink:4+60";
  return s;
}

nlohmann::json layer_json(int64_t base) {
  return {{"pages_active", base + 1},
          {"pages_cached", base + 2},
          {"pages_pinned", base + 3},
          {"pages_peak", base + 4},
          {"tokens_resident", base + 5},
          {"tokens_peak", base + 6},
          {"bytes", (base + 7) * 1048576},
          {"pages_allocated", base + 8},
          {"pages_removed",
           {{"capacity", base + 10},
            {"window", base + 11},
            {"policy_trim", base + 12},
            {"sequence_end", base + 13},
            {"preempt", base + 14},
            {"user", base + 15}}},
          {"pages_retained", base + 16},
          {"pages_merged", base + 9},
          {"tokens_read", base + 20},
          {"trim_decisions", base + 21},
          {"kv_overflows", base + 22},
          {"attention_seconds", static_cast<double>(base) / 1000 + 0.5}};
}

TEST(Printed, ShadowsOnlyWhereThereAreAny) {
  KvStats stats = distinct_stats();
  EXPECT_EQ(to_json(stats).find("shadows"), std::string::npos);
  EXPECT_EQ(to_prometheus(stats).find("shadow"), std::string::npos);
  EXPECT_EQ(to_table(stats).find("times the pool"), std::string::npos);
  stats.shadows = {{0.5, 40, 7}, {2, 160, 9}};
  const auto json = nlohmann::json::parse(to_json(stats))["shadows"];
  EXPECT_EQ(json, nlohmann::json::parse(R"([{"times":0.5,"blocks":40,"hits":7},
                                            {"times":2.0,"blocks":160,"hits":9}])"));
  EXPECT_NE(to_table(stats).find("blocks found again: 32 of 31 looked for; 7 with 0.5 times the "
                                 "pool, 9 with 2 times the pool\n"),
            std::string::npos);
  EXPECT_NE(to_prometheus(stats).find("paddock_kv_shadow_hits_total{times=\"0.5\"} 7\n"
                                      "paddock_kv_shadow_hits_total{times=\"2\"} 9\n"),
            std::string::npos);
}

TEST(Printed, TheSnapshotAsJson) {
  nlohmann::json first = layer_json(100);
  first["layer"] = 0;
  first["policy"] = "h2o:64";
  first["budget"] = 123;
  nlohmann::json second = layer_json(200);
  second["layer"] = 1;
  second["policy"] = "sink:4+60";
  second["budget"] = 223;
  const nlohmann::json expected = {{"block_size", 16},
                                   {"type", "bf16"},
                                   {"page_bytes", 2048},
                                   {"pool_pages", 5120},
                                   {"pool_bytes", 10485760},
                                   {"pool_max_pages", 6144},
                                   {"pages_free", 4001},
                                   {"pages_per_block", 2},
                                   {"reservations_refused", 11},
                                   {"steps", 12},
                                   {"tokens_written", 13},
                                   {"sequences", 14},
                                   {"policy_seconds", 0.25},
                                   {"policy_violations", 15},
                                   {"policy_shortfalls", 17},
                                   {"policy_slow", 18},
                                   {"last_violation", "policy 'x': said nothing"},
                                   {"hook_failures", 19},
                                   {"prefix_lookups", 31},
                                   {"prefix_hits", 32},
                                   {"reclaim_regrets", 33},
                                   {"budget_falls", 64},
                                   {"budget_lifts", 65},
                                   {"scored_from", 66},
                                   {"events", 34},
                                   {"events_lost", 35},
                                   {"process_resident_bytes", 36 * 1048576},
                                   {"process_available_bytes", 37},
                                   {"device",
                                    {{"name", "cuda:0 (H100)"},
                                     {"reserved_bytes", 40 * 1048576},
                                     {"process_bytes", 41 * 1048576},
                                     {"free_bytes", 42 * 1048576},
                                     {"total_bytes", 43 * 1048576}}},
                                   {"total", layer_json(700)},
                                   {"layers", {first, second}}};
  KvStats stats = distinct_stats();
  EXPECT_EQ(nlohmann::json::parse(to_json(stats)), expected);
  stats.last_violation.clear();  // is there only where there was one
  EXPECT_FALSE(nlohmann::json::parse(to_json(stats)).contains("last_violation"));
}

TEST(Printed, TheSnapshotAsATable) {
  const std::string head =
      "KV cache: 5120 pages of 2048 bytes (10.0 MiB, 16 positions of one layer each, bf16), 4001 "
      "free; the process holds 36.0 MiB\n"
      "6144 pages are reserved; the budget admits 5120 of them\n";
  const std::string device =
      "cuda:0 (H100): 40.0 MiB reserved by this engine, 42.0 of 43.0 MiB free";
  const std::string columns =
      "layer  policy               pages    peak  cached  pinned   tokens  budget       MiB "
      "allocated    keys read   attn ms  pages removed\n";
  const std::string rows =
      "    0  h2o:64                 101     104     102     103      105     123    107.00       "
      "108          120 "
      "    "
      "600.0  capacity:110 window:111 policy_trim:112 sequence_end:113 preempt:114 user:115\n"
      "    1  sink:4+60              201     204     202     203      205     223    207.00       "
      "208          220 "
      "    "
      "700.0  capacity:210 window:211 policy_trim:212 sequence_end:213 preempt:214 user:215\n"
      "total                         701     704     702     703      705       -    707.00       "
      "708          720 "
      "   "
      "1200.0  capacity:710 window:711 policy_trim:712 sequence_end:713 preempt:714 user:715\n";
  const std::string trims =
      "721 trim decisions took 250.00 ms; 15 answers overruled, 17 filled up, 18 slow\n";
  const std::string budgets =
      "budgets fell 64 times for want of pages, and were lifted 65 times\n"
      "what was found in the cache brought no scores: they count from 66 on\n";
  const std::string found = "blocks found again: 32 of 31 looked for\n";
  const std::string refused =
      "11 times too few pages were free; a block takes 2, one in every layer\n";
  const std::string overflows =
      "layer 0: 122 keys and values did not fit bf16 and are infinite\n"
      "layer 1: 222 keys and values did not fit bf16 and are infinite\n";
  const std::string violation = "policy 'x': said nothing\n";
  KvStats stats = distinct_stats();
  EXPECT_EQ(to_table(stats), head + device + ", 41.0 MiB held by this process\n" + columns + rows +
                                 trims + budgets + found + refused + overflows + violation);
  // What did not happen is not spoken of.
  stats.device.process_bytes = 0;
  EXPECT_EQ(to_table(stats), head + device + "\n" + columns + rows + trims + budgets + found +
                                 refused + overflows + violation);
  stats.device.total_bytes = 0;
  stats.total.trim_decisions = stats.reservations_refused = 0;
  stats.budget_falls = stats.scored_from = stats.prefix_lookups = 0;
  stats.layers[0].kv_overflows = 0;
  stats.last_violation.clear();
  EXPECT_EQ(to_table(stats), head + columns + rows + overflows.substr(overflows.find('\n') + 1));
  stats.total.pages_removed = {};
  EXPECT_NE(to_table(stats).find("1200.0  -\n"), std::string::npos);
}

/// What a server reads: all lines but the help.
std::string without_help(const std::string& text) {
  std::istringstream lines(text);
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("# HELP ")) out += line + "\n";
  }
  return out;
}

TEST(Printed, TheSnapshotForPrometheus) {
  const std::string expected = R"text(# TYPE paddock_kv_layer_info gauge
paddock_kv_layer_info{layer="0",policy="h2o:64"} 1
paddock_kv_layer_info{layer="1",policy="sink:4+60"} 1
# TYPE paddock_kv_pages gauge
paddock_kv_pages{layer="0",state="active"} 101
paddock_kv_pages{layer="0",state="cached"} 102
paddock_kv_pages{layer="1",state="active"} 201
paddock_kv_pages{layer="1",state="cached"} 202
# TYPE paddock_kv_pages_free gauge
paddock_kv_pages_free 4001
# TYPE paddock_kv_cache_usage_perc gauge
paddock_kv_cache_usage_perc 0.1369140625
# TYPE paddock_kv_pages_per_block gauge
paddock_kv_pages_per_block 2
# TYPE paddock_kv_reservations_refused_total counter
paddock_kv_reservations_refused_total 11
# TYPE paddock_kv_pool_pages gauge
paddock_kv_pool_pages 5120
# TYPE paddock_kv_pool_bytes gauge
paddock_kv_pool_bytes 10485760
# TYPE paddock_kv_pool_max_pages gauge
paddock_kv_pool_max_pages 6144
# TYPE paddock_kv_pool_pages_peak gauge
paddock_kv_pool_pages_peak 704
# TYPE paddock_kv_pages_pinned gauge
paddock_kv_pages_pinned{layer="0"} 103
paddock_kv_pages_pinned{layer="1"} 203
# TYPE paddock_kv_pages_peak gauge
paddock_kv_pages_peak{layer="0"} 104
paddock_kv_pages_peak{layer="1"} 204
# TYPE paddock_kv_tokens_resident gauge
paddock_kv_tokens_resident{layer="0"} 105
paddock_kv_tokens_resident{layer="1"} 205
# TYPE paddock_kv_tokens_peak gauge
paddock_kv_tokens_peak{layer="0"} 106
paddock_kv_tokens_peak{layer="1"} 206
# TYPE paddock_kv_budget gauge
paddock_kv_budget{layer="0"} 123
paddock_kv_budget{layer="1"} 223
# TYPE paddock_kv_bytes gauge
paddock_kv_bytes{layer="0"} 112197632
paddock_kv_bytes{layer="1"} 217055232
# TYPE paddock_kv_pages_allocated_total counter
paddock_kv_pages_allocated_total{layer="0"} 108
paddock_kv_pages_allocated_total{layer="1"} 208
# TYPE paddock_kv_pages_removed_total counter
paddock_kv_pages_removed_total{layer="0",reason="capacity"} 110
paddock_kv_pages_removed_total{layer="0",reason="window"} 111
paddock_kv_pages_removed_total{layer="0",reason="policy_trim"} 112
paddock_kv_pages_removed_total{layer="0",reason="sequence_end"} 113
paddock_kv_pages_removed_total{layer="0",reason="preempt"} 114
paddock_kv_pages_removed_total{layer="0",reason="user"} 115
paddock_kv_pages_removed_total{layer="1",reason="capacity"} 210
paddock_kv_pages_removed_total{layer="1",reason="window"} 211
paddock_kv_pages_removed_total{layer="1",reason="policy_trim"} 212
paddock_kv_pages_removed_total{layer="1",reason="sequence_end"} 213
paddock_kv_pages_removed_total{layer="1",reason="preempt"} 214
paddock_kv_pages_removed_total{layer="1",reason="user"} 215
# TYPE paddock_kv_pages_retained_total counter
paddock_kv_pages_retained_total{layer="0"} 116
paddock_kv_pages_retained_total{layer="1"} 216
# TYPE paddock_kv_pages_merged_total counter
paddock_kv_pages_merged_total{layer="0"} 109
paddock_kv_pages_merged_total{layer="1"} 209
# TYPE paddock_kv_tokens_read_total counter
paddock_kv_tokens_read_total{layer="0"} 120
paddock_kv_tokens_read_total{layer="1"} 220
# TYPE paddock_kv_trim_decisions_total counter
paddock_kv_trim_decisions_total{layer="0"} 121
paddock_kv_trim_decisions_total{layer="1"} 221
# TYPE paddock_kv_overflows_total counter
paddock_kv_overflows_total{layer="0"} 122
paddock_kv_overflows_total{layer="1"} 222
# TYPE paddock_kv_attention_seconds_total counter
paddock_kv_attention_seconds_total{layer="0"} 0.6
paddock_kv_attention_seconds_total{layer="1"} 0.7
# TYPE paddock_kv_steps_total counter
paddock_kv_steps_total 12
# TYPE paddock_kv_tokens_written_total counter
paddock_kv_tokens_written_total 13
# TYPE paddock_kv_sequences gauge
paddock_kv_sequences 14
# TYPE paddock_kv_policy_seconds_total counter
paddock_kv_policy_seconds_total 0.25
# TYPE paddock_kv_policy_violations_total counter
paddock_kv_policy_violations_total 15
# TYPE paddock_kv_policy_shortfalls_total counter
paddock_kv_policy_shortfalls_total 17
# TYPE paddock_kv_policy_slow_total counter
paddock_kv_policy_slow_total 18
# TYPE paddock_kv_hook_failures_total counter
paddock_kv_hook_failures_total 19
# TYPE paddock_kv_prefix_lookups_total counter
paddock_kv_prefix_lookups_total 31
# TYPE paddock_kv_prefix_hits_total counter
paddock_kv_prefix_hits_total 32
# TYPE paddock_kv_reclaim_regrets_total counter
paddock_kv_reclaim_regrets_total 33
# TYPE paddock_kv_budget_falls_total counter
paddock_kv_budget_falls_total 64
# TYPE paddock_kv_budget_lifts_total counter
paddock_kv_budget_lifts_total 65
# TYPE paddock_kv_scored_from gauge
paddock_kv_scored_from 66
# TYPE paddock_kv_events_total counter
paddock_kv_events_total 34
# TYPE paddock_kv_events_lost_total counter
paddock_kv_events_lost_total 35
# TYPE paddock_kv_process_resident_bytes gauge
paddock_kv_process_resident_bytes 37748736
# TYPE paddock_kv_device_bytes gauge
paddock_kv_device_bytes{device="cuda:0 (H100)",kind="reserved"} 41943040
paddock_kv_device_bytes{device="cuda:0 (H100)",kind="process"} 42991616
paddock_kv_device_bytes{device="cuda:0 (H100)",kind="free"} 44040192
paddock_kv_device_bytes{device="cuda:0 (H100)",kind="total"} 45088768
)text";
  KvStats stats = distinct_stats();
  EXPECT_EQ(without_help(to_prometheus(stats)), expected);
  // Every metric is explained once, right before its type.
  const std::string text = to_prometheus(stats);
  size_t types = 0;
  for (size_t at = 0; (at = text.find("\n# TYPE ", at)) != std::string::npos; ++types) {
    const size_t help = text.rfind("# HELP ", at);
    const size_t name = at + 8;
    ASSERT_EQ(text.substr(help + 7, text.find(' ', help + 7) - help - 7),
              text.substr(name, text.find(' ', name) - name));
    at = name;
  }
  EXPECT_EQ(types, 42U);
  stats.layers[0].policy = "a\\b\"c\nd";
  EXPECT_NE(to_prometheus(stats).find("policy=\"a\\\\b\\\"c\\nd\""), std::string::npos);
}

KvEvent distinct_event() {
  KvEvent event;
  event.number = 51;
  event.step = 52;
  event.reason = RemovalReason::kPolicyTrim;
  event.layer = 53;
  event.sequence = 54;
  event.first_position = 55;
  event.n_tokens = 56;
  event.length = 57;
  event.age_steps = 58;
  event.idle_steps = 59;
  event.score = 0.125;
  event.runner_up_score = 0.375;
  event.runner_up_position = 60;
  event.rank = 61;
  event.left_together = 62;
  event.sufficient_budget = 63;
  event.policy = "h2o:64";
  return event;
}

TEST(Printed, AnEventAsJson) {
  nlohmann::json expected = {{"number", 51},
                             {"step", 52},
                             {"reason", "policy_trim"},
                             {"layer", 53},
                             {"policy", "h2o:64"},
                             {"sequence", 54},
                             {"first_position", 55},
                             {"n_tokens", 56},
                             {"length", 57},
                             {"age_steps", 58},
                             {"idle_steps", 59},
                             {"overruled", false},
                             {"score", 0.125},
                             {"runner_up_position", 60},
                             {"runner_up_score", 0.375},
                             {"rank", 61},
                             {"left_together", 62},
                             {"sufficient_budget", 63}};
  KvEvent event = distinct_event();
  const auto printed = [&] { return nlohmann::json::parse(to_json(event)); };
  EXPECT_EQ(printed(), expected);
  EXPECT_EQ(to_json(event).find('\n'), std::string::npos);
  // 0 is a figure, -1 is none.
  event.idle_steps = event.runner_up_position = 0;
  expected["idle_steps"] = expected["runner_up_position"] = 0;
  EXPECT_EQ(printed(), expected);
  event.idle_steps = event.runner_up_position = -1;
  for (const char* none : {"idle_steps", "runner_up_position", "runner_up_score"}) {
    expected.erase(none);
  }
  EXPECT_EQ(printed(), expected);
  // Nobody ranked what the manager chose itself.
  event.overruled = true;
  expected["overruled"] = true;
  expected.erase("score");
  EXPECT_EQ(printed(), expected);
  for (int32_t r = 0; r < kRemovalReasons; ++r) {
    event.reason = static_cast<RemovalReason>(r);
    EXPECT_EQ(printed()["reason"], removal_reason_name(event.reason));
    EXPECT_EQ(printed().contains("rank"), event.reason == RemovalReason::kPolicyTrim);
    EXPECT_EQ(printed().contains("sufficient_budget"), printed().contains("rank"));
  }
}

TEST(Printed, APreemptionAsJson) {
  const KvPreemption preemption{.number = 91,
                                .step = 92,
                                .sequence = 93,
                                .parked = 94,
                                .session = 95,
                                .request = 96,
                                .tokens = 97,
                                .pages = 98,
                                .first_event = 99};
  const nlohmann::json expected = {{"event", "preemption"}, {"number", 91}, {"step", 92},
                                   {"sequence", 93},        {"parked", 94}, {"session", 95},
                                   {"request", 96},         {"tokens", 97}, {"pages", 98},
                                   {"first_event", 99}};
  EXPECT_EQ(nlohmann::json::parse(to_json(preemption)), expected);
  EXPECT_TRUE(to_json(preemption).starts_with("{\"event\":\"preemption\","));
  EXPECT_EQ(to_json(preemption).find('\n'), std::string::npos);
}

TEST(Printed, ABudgetChangeAsJson) {
  KvBudgetChange change{.number = 71,
                        .step = 72,
                        .sequence = 73,
                        .length = 74,
                        .before = 75,
                        .after = 76,
                        .request = 77,
                        .scored_from = 78,
                        .first_event = 79,
                        .pages = 80,
                        .layer_pages = {81, 82}};
  nlohmann::json expected = {{"event", "budget"}, {"number", 71},  {"step", 72},
                             {"sequence", 73},    {"length", 74},  {"before", 75},
                             {"after", 76},       {"request", 77}, {"scored_from", 78},
                             {"first_event", 79}, {"pages", 80},   {"layer_pages", {81, 82}}};
  EXPECT_EQ(nlohmann::json::parse(to_json(change)), expected);
  EXPECT_TRUE(to_json(change).starts_with("{\"event\":\"budget\",")) << to_json(change);
  EXPECT_EQ(to_json(change).find('\n'), std::string::npos);
  change.before = 0;  // 0 is a figure, no budget is none
  expected["before"] = 0;
  EXPECT_EQ(nlohmann::json::parse(to_json(change)), expected);
  change.before = kUnlimited;
  expected["before"] = nullptr;
  EXPECT_EQ(nlohmann::json::parse(to_json(change)), expected);
  change.before = 75;
  change.after = kUnlimited;
  expected["before"] = 75;
  expected["after"] = nullptr;
  EXPECT_EQ(nlohmann::json::parse(to_json(change)), expected);
}

}  // namespace
}  // namespace paddock
