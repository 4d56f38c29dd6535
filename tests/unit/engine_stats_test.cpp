// What the engine counts: against what its requests say of themselves, and as it is printed.
#include <paddock/paddock.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "support/golden.h"
#include "support/scripted_model.h"
#include "support/small_requests.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

/// A number of its own in every field.
EngineStats distinct() {
  EngineStats s;
  int n = 1;
  for (int32_t* at : {&s.requests_waiting, &s.requests_running, &s.requests_parked}) *at = ++n;
  for (int64_t& at : s.requests_finished) at = ++n;
  for (int64_t* at : {&s.prompt_tokens, &s.recomputed_tokens, &s.generated_tokens, &s.preemptions,
                      &s.sessions_parked}) {
    *at = ++n;
  }
  s.cached_tokens = 94;
  s.computed_tokens = 95;
  s.prefix_queries = 96;
  s.prefix_hits = 97;
  s.pins = 98;
  s.pins_lost = 99;
  for (LatencyHistogram* h : {&s.queue, &s.first_token, &s.token_gap, &s.request}) {
    for (int64_t& at : h->counts) at = ++n;
    h->sum_seconds = 0.5 + ++n;
  }
  return s;
}

/// The value of a metric without labels, as a scraper reads it.
double metric(const Engine& engine, const std::string& name) {
  const std::string text = "\n" + to_prometheus(engine.stats()) + to_prometheus(engine.kv_stats());
  const std::string line = "\npaddock_" + name + " ";
  const size_t at = text.find(line);
  EXPECT_NE(at, std::string::npos) << name;
  return at == std::string::npos ? -1 : std::stod(text.substr(at + line.size()));
}

nlohmann::json expected_histogram(int64_t first) {
  nlohmann::json buckets = nlohmann::json::array();
  int64_t sum = 0;
  for (size_t i = 0; i < 19; ++i) {
    const nlohmann::json bound =
        i < 18 ? nlohmann::json(kLatencyBounds[i]) : nlohmann::json(nullptr);
    buckets.push_back({bound, first + static_cast<int64_t>(i)});
    sum += first + static_cast<int64_t>(i);
  }
  return {
      {"count", sum}, {"sum_seconds", 0.5 + static_cast<double>(first) + 19}, {"buckets", buckets}};
}

TEST(EngineStats, AsJsonWithEveryField) {
  const nlohmann::json expected = {{"requests_waiting", 2},
                                   {"requests_running", 3},
                                   {"requests_parked", 4},
                                   {"requests_finished",
                                    {{"stop", 5},
                                     {"length", 6},
                                     {"context", 7},
                                     {"kv_full", 8},
                                     {"cancelled", 9},
                                     {"deadline", 10},
                                     {"error", 11}}},
                                   {"prompt_tokens", 12},
                                   {"cached_tokens", 94},
                                   {"computed_tokens", 95},
                                   {"recomputed_tokens", 13},
                                   {"generated_tokens", 14},
                                   {"prefix_queries", 96},
                                   {"prefix_hits", 97},
                                   {"preemptions", 15},
                                   {"sessions_parked", 16},
                                   {"pins", 98},
                                   {"pins_lost", 99},
                                   {"queue", expected_histogram(17)},
                                   {"first_token", expected_histogram(37)},
                                   {"token_gap", expected_histogram(57)},
                                   {"request", expected_histogram(77)}};
  EXPECT_EQ(nlohmann::json::parse(to_json(distinct())), expected);
  EXPECT_EQ(nlohmann::json::parse(to_json(distinct().token_gap)), expected_histogram(57));
}

TEST(EngineStats, AsPrometheusText) {
  const std::string text = to_prometheus(distinct());
  for (const char* line :
       {"paddock_num_requests_waiting 6",
        "paddock_num_requests_running 3",
        "paddock_num_requests_parked 4",
        "paddock_request_success_total{finished_reason=\"stop\"} 5",
        "paddock_request_success_total{finished_reason=\"error\"} 11",
        "paddock_prompt_tokens_total 12",
        "paddock_prompt_tokens_cached_total 94",
        "paddock_prompt_tokens_computed_total 95",
        "paddock_recomputed_tokens_total 13",
        "paddock_prefix_cache_queries_total 96",
        "paddock_prefix_cache_hits_total 97",
        "paddock_generation_tokens_total 14",
        "paddock_num_preemptions_total 15",
        "paddock_sessions_parked_total 16",
        "paddock_pins 98",
        "paddock_pins_lost_total 99",
        "paddock_request_queue_time_seconds_bucket{le=\"0.001\"} 17",
        "paddock_request_queue_time_seconds_bucket{le=\"0.0025\"} 35",  // 17 and 18
        "paddock_time_to_first_token_seconds_sum 56.5",
        "paddock_inter_token_latency_seconds_bucket{le=\"+Inf\"} 1254",
        "paddock_inter_token_latency_seconds_count 1254",
        "paddock_e2e_request_latency_seconds_sum 96.5"}) {
    EXPECT_NE(text.find("\n" + std::string(line) + "\n"), std::string::npos) << line;
  }
  PADDOCK_REAL_FILE(promtool, "PADDOCK_PROMTOOL")
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/metrics";
  std::ofstream(path) << text;
  EXPECT_EQ(std::system((std::string(promtool) + " check metrics < " + path).c_str()), 0);
}

TEST(EngineStats, AsLinesForPeople) {
  EngineStats s;
  s.requests_waiting = 3;
  s.requests_finished[1] = 2;
  s.prompt_tokens = 40;
  s.cached_tokens = 16;
  s.computed_tokens = 24;
  s.prefix_queries = 40;
  s.prefix_hits = 12;
  s.pins_lost = 2;
  for (const double seconds : {0.02, 0.02, 0.3}) s.token_gap.add(seconds);
  EXPECT_EQ(to_table(s),
            "requests: 3 waiting, 0 running, 0 parked, 2 length\n"
            "tokens: 40 of prompts, 16 of them cached; 24 computed, 0 computed again, 0 generated; "
            "0 preemptions, 0 sessions parked\n"
            "kept blocks had 12 of 40 tokens that were looked for\n"
            "pins: 0 hold, 2 had to give way\n"
            "token gap           3  mean 113.3 ms, half within 25 ms, 99 % within 500 ms\n");
}

TEST(LatencyHistogram, CountsUpToItsBounds) {
  LatencyHistogram h;
  h.add(0);
  h.add(0.001);
  h.add(0.0011);
  h.add(1000);
  h.add(1001);
  EXPECT_EQ(h.counts[0], 2);
  EXPECT_EQ(h.counts[1], 1);
  EXPECT_EQ(h.counts[17], 1);
  EXPECT_EQ(h.counts[18], 1);
  EXPECT_EQ(h.count(), 5);
  EXPECT_DOUBLE_EQ(h.sum_seconds, 2001.0021);
}

TEST(EngineStats, AreWhatTheRequestsSayOfThemselves) {
  EngineOptions options = reference_options();
  options.threads = 1;
  options.max_sequences = 3;
  options.batch_size = 16;
  options.context = 96;
  options.kv.block_size = 4;
  options.kv.reuse = false;  // the prompts begin alike, and shared they all fit
  Engine roomy(tiny(), options);
  options.kv.budget_bytes = static_cast<uint64_t>(30 * roomy.kv_stats().page_bytes);
  Engine engine(tiny(), options);
  const auto start = std::chrono::steady_clock::now();
  const SessionId session = engine.open_session();
  engine.feed(session, prompt_of(10));  // no request
  EXPECT_EQ(engine.stats().computed_tokens, 0);
  std::vector<RequestId> ids;
  for (int i = 0; i < 9; ++i) {
    ids.push_back(engine.add(prompt_of(static_cast<size_t>(8 + i)), greedy(5 * i)));
    EXPECT_EQ(engine.stats().requests_waiting, i + 1);
  }
  engine.cancel(ids[8]);
  bool parked = false;
  while (engine.step()) {
    const EngineStats s = engine.stats();
    const int64_t all = s.requests_waiting + s.requests_running + s.requests_parked +
                        std::accumulate(s.requests_finished.begin(), s.requests_finished.end(), 0);
    EXPECT_EQ(all, 9);
    EXPECT_LE(s.requests_running, 3);
    EXPECT_EQ(metric(engine, "num_requests_waiting"), s.requests_waiting + s.requests_parked);
    parked = parked || s.requests_parked > 0;
    EXPECT_EQ(s.queue.count() >= s.first_token.count(), true);
  }
  EXPECT_TRUE(parked);
  const std::chrono::duration<double> all = std::chrono::steady_clock::now() - start;
  EngineStats sum;
  for (const RequestId id : ids) {
    const auto result = engine.take(id);
    ++sum.requests_finished[static_cast<size_t>(result->finish_reason)];
    if (id != ids[8]) sum.prompt_tokens += result->prompt_tokens;
    sum.cached_tokens += result->cached_tokens;
    sum.computed_tokens += result->timings.prefill_tokens - result->recomputed_tokens;
    sum.recomputed_tokens += result->recomputed_tokens;
    sum.generated_tokens += static_cast<int64_t>(result->tokens.size());
    sum.preemptions += result->preemptions;
    for (size_t i = 0; i < sum.token_gap.counts.size(); ++i) {
      sum.token_gap.counts[i] += result->timings.token_gaps.counts[i];
    }
    if (!result->tokens.empty()) {
      EXPECT_GE(result->timings.first_token_seconds, result->timings.queue_seconds);
      EXPECT_EQ(result->timings.token_gaps.count(),
                static_cast<int64_t>(result->tokens.size()) - 1);
      EXPECT_LE(result->timings.first_token_seconds + result->timings.token_gaps.sum_seconds,
                all.count());
    }
  }
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.requests_finished, sum.requests_finished);
  EXPECT_EQ(stats.prompt_tokens, sum.prompt_tokens);
  EXPECT_EQ(stats.cached_tokens, sum.cached_tokens);
  EXPECT_EQ(stats.computed_tokens, sum.computed_tokens);
  EXPECT_EQ(stats.prefix_queries, 0) << "the engine shares nothing";
  EXPECT_EQ(stats.recomputed_tokens, sum.recomputed_tokens);
  EXPECT_EQ(stats.generated_tokens, sum.generated_tokens);
  EXPECT_EQ(stats.preemptions, sum.preemptions);
  EXPECT_GT(stats.preemptions, 0);
  EXPECT_EQ(stats.sessions_parked, 1);
  EXPECT_EQ(stats.token_gap.counts, sum.token_gap.counts);
  EXPECT_EQ(stats.queue.count(), 8) << "one never ran";
  EXPECT_EQ(stats.first_token.count(), 7) << "nor had one a token to make";
  EXPECT_EQ(stats.request.count(), 9);
  EXPECT_EQ(stats.requests_waiting + stats.requests_running + stats.requests_parked, 0);
}

// ---- names that vLLM has, with its meanings (the table in docs/scheduling.md)

TEST(AsVllmCounts, PromptsWholeOnceTheyHaveBeenRead) {
  Engine engine(tiny(), small_options(3));
  const RequestId first = engine.add(prompt_of(24), greedy(2));
  engine.step();  // eight tokens
  EXPECT_EQ(metric(engine, "prompt_tokens_total"), 0);
  EXPECT_EQ(metric(engine, "prompt_tokens_computed_total"), 8);
  while (engine.step()) {
  }
  EXPECT_EQ(metric(engine, "prompt_tokens_total"), 24);
  EXPECT_EQ(metric(engine, "prompt_tokens_cached_total"), 0);
  engine.take(first);
  // The same once more: five blocks are there, the last one is computed for its logits.
  engine.generate(prompt_of(24), greedy(2));
  EXPECT_EQ(metric(engine, "prompt_tokens_total"), 48);
  EXPECT_EQ(metric(engine, "prompt_tokens_cached_total"), 20);
  EXPECT_EQ(metric(engine, "prompt_tokens_computed_total"), 28);
  // Of three answers each has the prompt, and one computes it.
  const RequestId several = engine.add(prompt_of(3), drawn(3, 2, 1));
  while (engine.step()) {
  }
  EXPECT_EQ(metric(engine, "prompt_tokens_total"), 48 + 9);
  EXPECT_EQ(metric(engine, "prompt_tokens_cached_total"), 20 + 6);
  EXPECT_EQ(metric(engine, "prompt_tokens_computed_total"), 28 + 3);
  for (int i = 0; i < 3; ++i) engine.take(several + i);
  // One that ends on the way has been read by nobody, and cost what was computed.
  engine.cancel(engine.add(std::vector<TokenId>(20, 7), greedy(2)));
  engine.add(std::vector<TokenId>(20, 9), greedy(2));
  engine.step();
  engine.cancel();
  engine.step();
  EXPECT_EQ(metric(engine, "prompt_tokens_total"), 57);
  EXPECT_EQ(metric(engine, "prompt_tokens_computed_total"), 31 + 8);
}

TEST(AsVllmCounts, TokensLookedForAndFoundButNotThoseOfAPreemption) {
  Engine engine(tiny(), small_options(2));
  engine.generate(prompt_of(24), greedy(2));
  engine.generate(prompt_of(23), greedy(2));
  EXPECT_EQ(metric(engine, "prefix_cache_queries_total"), 24 + 23);
  EXPECT_EQ(metric(engine, "prefix_cache_hits_total"), 20);
  // A session's turn asks for what it brings.
  const SessionId session = engine.open_session();
  engine.generate(session, prompt_of(24), greedy(2));
  engine.generate(session, std::vector<TokenId>{5, 6}, greedy(2));
  EXPECT_EQ(metric(engine, "prefix_cache_queries_total"), 47 + 24 + 3) << "with its pending token";
  EXPECT_EQ(metric(engine, "prefix_cache_hits_total"), 40);

  // Two that do not fit at once: what the second one had comes back from what is kept.
  EngineOptions options = small_options(2);
  options.kv.budget_bytes = static_cast<uint64_t>(2 * 12 * engine.kv_stats().page_bytes);
  Engine small(tiny(), options);
  small.add(prompt_of(20), greedy(20));
  small.add(std::vector<TokenId>(20, 7), greedy(20));
  while (small.step()) {
  }
  EXPECT_GT(metric(small, "num_preemptions_total"), 0);
  EXPECT_EQ(metric(small, "prefix_cache_queries_total"), 40);
  EXPECT_EQ(metric(small, "prefix_cache_hits_total"), 0);
  EXPECT_EQ(metric(small, "prompt_tokens_total"), 40);
  // Rules that share no blocks ask for none.
  Engine apart(tiny(), small_options(1, "h2o:16"));
  apart.generate(prompt_of(24), greedy(2));
  EXPECT_EQ(metric(apart, "prefix_cache_queries_total"), 0);
}

TEST(AsVllmCounts, KeptPagesThatNobodyListsAsFree) {
  Engine engine(tiny(), small_options(1));
  engine.add(prompt_of(24), greedy(1));
  engine.step();
  const KvStats stats = engine.kv_stats();
  EXPECT_EQ(stats.total.pages_active, 2 * 2) << "eight tokens in two layers";
  EXPECT_NEAR(metric(engine, "kv_cache_usage_perc"), 4.0 / static_cast<double>(stats.pool_pages),
              1e-9);
  while (engine.step()) {
  }
  EXPECT_GT(engine.kv_stats().total.pages_cached, 0);
  EXPECT_EQ(metric(engine, "kv_cache_usage_perc"), 0);
}

TEST(AsVllmCounts, StopTokensAreLeftOutWhichVllmCounts) {
  const TemporaryFolder folder;
  const auto stop = static_cast<TokenId>(256 + kSmallMerges.size() + 4);  // <|eot_id|>
  std::vector<TokenId> script = alphabet_script();
  script['c'] = stop;
  Engine engine(scripted_model(folder, script), small_options(1));
  GenerateOptions options = greedy(6);
  options.ignore_stop_tokens = false;
  const GenerateResult result = engine.generate(std::vector<TokenId>{'z', 'a'}, options);
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_EQ(result.tokens, (std::vector<TokenId>{'b', 'c'}));
  EXPECT_EQ(metric(engine, "generation_tokens_total"), 2);
  EXPECT_EQ(metric(engine, "time_to_first_token_seconds_count"), 1);
  EXPECT_EQ(metric(engine, "inter_token_latency_seconds_count"), 1);
  EXPECT_EQ(metric(engine, "request_queue_time_seconds_count"), 1);
  EXPECT_EQ(metric(engine, "e2e_request_latency_seconds_count"), 1);
}

TEST(AsVllmCounts, EveryNameStandsInTheTable) {
  std::ifstream file(PADDOCK_TEST_DATA "/../../docs/scheduling.md");
  const std::string docs{std::istreambuf_iterator<char>(file), {}};
  ASSERT_FALSE(docs.empty());
  std::istringstream text(to_prometheus(EngineStats{}));
  int names = 0;
  for (std::string line; std::getline(text, line);) {
    if (!line.starts_with("# TYPE paddock_")) continue;
    const std::string name = line.substr(15, line.find(' ', 15) - 15);
    EXPECT_NE(docs.find("\n| `" + name), std::string::npos) << name;
    ++names;
  }
  EXPECT_EQ(names, 19);
}

TEST(EngineStats, ATurnCountsItsOwnTrims) {
  Engine engine(tiny(), small_options(1, "h2o:16@every:4"));
  const SessionId session = engine.open_session();
  int64_t sum = 0;
  for (const size_t prompt : {30U, 12U, 1U}) {
    const int64_t trims = engine.generate(session, prompt_of(prompt), greedy(9)).trims;
    EXPECT_GT(trims, 0);
    sum += trims;
  }
  const auto removed = engine.kv_stats().total.pages_removed;
  EXPECT_EQ(sum, removed[static_cast<size_t>(RemovalReason::kPolicyTrim)]);
}

}  // namespace
}  // namespace paddock::test
