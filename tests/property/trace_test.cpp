// Traces: what they say is what happened, counted again from their records alone; cut anywhere they
// read up to the cut; damaged anywhere they say so.
#include <fmt/format.h>

#include <cstring>
#include <fstream>

#include "support/live_bytes.h"
#include "support/random_schedule.h"
#include "support/temporary_folder.h"
#include "support/trace_recount.h"
#include "trace/format.h"
#include "trace/recorder.h"

namespace paddock::test {
namespace {

std::vector<std::string> specs() {
  std::vector<std::string> all = {"0=full,1=window:9", "0=window:20,1=h2o:32@every:8@sinks:3",
                                  "0=lru@every:4,1=sink:4@every:8", "0=sink:4+20,1=h2o@every:8"};
  for (const RuleExample& example : rule_examples()) all.push_back(example.policy);
  for (const RuleExample& example : elastic_examples()) all.push_back(example.policy);
  return all;
}

struct Sum {
  int64_t removed = 0, falls = 0, hits = 0, parked = 0, merged = 0, retained = 0, copies = 0;
};

/// Uses an engine as the seed says, with a trace. Compares what it counts with the engine's own
/// figures now and then, and at the end. The bytes.
std::string run(uint32_t seed, const std::string& policy, KvTrace asked, Sum& sum) {
  RandomSchedule schedule(seed, policy);
  EngineOptions options = schedule.options();
  options.kv.event_capacity = 200'000;
  std::string bytes;
  const Engine* running = nullptr;
  int calls = 0;
  asked.sink = [&](std::string_view more) {
    bytes += more;
    if (running == nullptr || ++calls % 150 != 0 || testing::Test::HasFailure()) return;
    TraceRecount so_far;  // in the middle of it
    so_far.read(bytes);
    so_far.compare(*running);
  };
  options.kv.trace = asked;
  {
    auto inside = parts(tiny(), options);
    Engine engine(inside);
    running = &engine;
    FailOne none;
    schedule.run(engine, none, inside.get());
    running = nullptr;
    TraceRecount whole;
    whole.read(bytes);
    whole.compare(engine);
    for (const TraceRecount::Layer& layer : whole.layers) {
      sum.merged += layer.merged;
      sum.retained += layer.retained;
    }
    sum.removed += static_cast<int64_t>(whole.events.size());
    sum.falls += whole.falls;
    sum.hits += whole.hits;
    sum.parked += whole.parked;
    EXPECT_EQ(whole.requests.size(), whole.finished.size());
    EXPECT_FALSE(whole.extent.is_whole);
  }
  TraceRecount whole;
  whole.read(bytes);
  EXPECT_TRUE(whole.extent.is_whole);
  EXPECT_EQ(whole.extent.bytes, bytes.size());
  return bytes;
}

TEST(Traces, SayWhatHappenedAndNothingElse) {
  Sum sum;
  uint32_t seed = 1;
  for (const std::string& policy : specs()) {
    for (int i = 0; i < 2; ++i, ++seed) {
      SCOPED_TRACE(fmt::format("seed {}, {}", seed, policy));
      run(seed, policy, {}, sum);
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(sum.removed, 5000);
  EXPECT_GT(sum.falls, 50);
  EXPECT_GT(sum.hits, 100);
  EXPECT_GT(sum.parked, 50);
  EXPECT_GT(sum.merged, 10);
  EXPECT_GT(sum.retained, 10);
}

TEST(Traces, TellByWhichRulesEachSequenceGoes) {
  EngineOptions o = shared_memory("full", 90, 3);
  o.kv.other_policies = {"window:9", "h2o:24@every:8", "sink:2+9", "lru@every:8"};
  o.kv.event_capacity = 100'000;
  std::string bytes;
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  Engine engine(tiny(), o);
  for (size_t i = 0; i < 15; ++i) {
    GenerateOptions asked = greedy(30);
    if (i % 5 > 0) asked.kv_policy = o.kv.other_policies[i % 5 - 1];
    engine.add(text_at(i % 2, 30), asked);
  }
  finish_all(engine);
  TraceRecount whole;
  whole.read(bytes);
  whole.compare(engine);
  EXPECT_EQ(whole.sets.size(), 5U);
  std::set<std::string> policies;
  for (const TraceRemoval& removal : whole.events) policies.insert(removal.event.policy);
  EXPECT_EQ(policies.size(), 5U);
}

TEST(Traces, AreEqualForEqualRuns) {
  Sum sum;
  for (const char* policy : {"h2o:32@every:8", "lru@every:8", "0=full,1=window:9"}) {
    const KvTrace all{.tokens = true, .scores = true, .times = false};
    EXPECT_EQ(run(7, policy, all, sum), run(7, policy, all, sum)) << policy;
    // With times all else is equal.
    const auto lines = [&] {
      std::string out;
      read_trace(std::string_view(run(7, policy, {.tokens = true}, sum)), "trace",
                 [&](TraceRecord record) {
                   if (std::holds_alternative<TraceMemory>(record.what)) return;
                   record.seconds = 0;
                   if (auto* end = std::get_if<TraceStepEnd>(&record.what)) end->seconds = 0;
                   if (auto* header = std::get_if<TraceHeader>(&record.what)) header->started = 0;
                   out += to_json(record) + "\n";
                 });
      return out;
    };
    EXPECT_EQ(lines(), lines()) << policy;
  }
}

/// The trace of a few requests, which is short.
std::string short_trace() {
  static const std::string bytes = [] {
    std::string out;
    EngineOptions o = small_options(2, "0=window:9,1=h2o:20@every:8");
    o.kv.trace = {
        .sink = [&](std::string_view more) { out += more; }, .tokens = true, .scores = true};
    Engine engine(tiny(), o);
    engine.generate(prompt_of(24), greedy(12));
    engine.generate(prompt_of(20), greedy(4));
    return out;
  }();
  return bytes;
}

std::vector<std::string> lines_of(std::string_view bytes) {
  std::vector<std::string> lines;
  read_trace(bytes, "some.trace",
             [&](const TraceRecord& record) { lines.push_back(to_json(record)); });
  return lines;
}

TEST(Traces, ReadUpToWhereverTheyWereCut) {
  const std::string bytes = short_trace();
  const std::vector<std::string> whole = lines_of(bytes);
  ASSERT_GT(whole.size(), 150U);
  size_t last = 0;
  std::set<size_t> counts;
  for (size_t n = 0; n < bytes.size(); ++n) {
    const std::vector<std::string> lines = lines_of(std::string_view(bytes).substr(0, n));
    ASSERT_GE(lines.size(), last);
    ASSERT_LT(lines.size(), whole.size());
    ASSERT_TRUE(std::equal(lines.begin(), lines.end(), whole.begin())) << n << " bytes";
    last = lines.size();
    counts.insert(last);
    const TraceExtent extent =
        read_trace(std::string_view(bytes).substr(0, n), "x", [](const TraceRecord&) {});
    ASSERT_FALSE(extent.is_whole);
    ASSERT_LE(extent.bytes, n);
    ASSERT_EQ(extent.total, n);
  }
  EXPECT_GT(counts.size(), 15U) << "a frame for each step";
  EXPECT_EQ(lines_of(bytes).back().find("{\"record\":\"end\""), 0U);
}

TEST(Traces, SayWhereTheyAreDamaged) {
  const std::string bytes = short_trace();
  const size_t n_whole = lines_of(bytes).size();
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (const int bit : {1, 16, 128}) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ bit);
      size_t n = 0;
      try {
        read_trace(std::string_view(damaged), "some.trace", [&](const TraceRecord&) { ++n; });
        FAIL() << "byte " << at << " is not noticed";
      } catch (const Error& e) {
        const std::string what = e.what();
        ASSERT_EQ(e.code(), ErrorCode::kBadFile) << what;
        ASSERT_NE(what.find("'some.trace': byte "), std::string::npos) << what;
        ASSERT_TRUE(what.find("record it again") != std::string::npos ||
                    what.find("record one") != std::string::npos)
            << what;
        ASSERT_LT(n, n_whole);
      }
    }
  }
}

TEST(Traces, HaveTheirFramesInOrder) {
  const std::string bytes = short_trace();
  const auto end_of = [&](size_t at) {
    uint32_t n = 0;
    std::memcpy(&n, bytes.data() + at, 4);
    return at + trace::kFrameHeader + n;
  };
  const size_t second = end_of(trace::kFileHeader), third = end_of(second), fourth = end_of(third);
  const std::string swapped = bytes.substr(0, second) + bytes.substr(third, fourth - third) +
                              bytes.substr(second, third - second) + bytes.substr(fourth);
  EXPECT_THROW(lines_of(swapped), Error);
}

/// The same bytes in other frames, with their checks.
std::string reframed(const std::string& payload) {
  trace::Writer out(1024);
  for (const char c : kTraceMagic) out.u8(static_cast<uint8_t>(c));
  out.fixed(kTraceVersion, 4);
  trace::Writer length(4);
  length.fixed(payload.size(), 4);
  out.fixed(payload.size(), 4);
  out.fixed(trace::checksum(0, length.view()), 4);
  out.fixed(trace::checksum(0, payload), 4);
  return std::string(out.view()) + payload;
}

/// All payloads of a trace, one after another.
std::string payload_of(const std::string& bytes) {
  std::string payload;
  for (size_t at = trace::kFileHeader; at < bytes.size();) {
    uint32_t n = 0;
    std::memcpy(&n, bytes.data() + at, 4);
    payload += bytes.substr(at + trace::kFrameHeader, n);
    at += trace::kFrameHeader + n;
  }
  return payload;
}

TEST(Traces, OfNonsenseWithRightChecksAreRefusedOrRead) {
  const std::string payload = payload_of(short_trace());
  EXPECT_EQ(lines_of(reframed(payload)), lines_of(short_trace()));
  std::mt19937 random(5);
  int refused = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string nonsense = payload;
    for (uint32_t n = 1 + random() % 3; n > 0; --n) {
      const size_t at = random() % nonsense.size();
      if (random() % 4 == 0) {
        nonsense.erase(at, 1 + random() % 4);
      } else {
        nonsense[at] = static_cast<char>(random());
      }
    }
    try {
      lines_of(reframed(nonsense));
    } catch (const Error& e) {
      ASSERT_EQ(e.code(), ErrorCode::kBadFile) << e.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 200);
}

TEST(Traces, TellOfFilesThatAreNone) {
  const auto refusal = [](std::string_view bytes) {
    try {
      read_trace(bytes, "other.bin", [](const TraceRecord&) {});
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal("GGUF and more of it"),
            "'other.bin': byte 0: it does not begin with 'PADTRACE', so it is no trace; record one "
            "with --kv-trace");
  std::string newer = short_trace();
  newer[8] = 9;
  EXPECT_EQ(refusal(newer),
            "'other.bin': byte 8: it is of version 9, and this library reads 3; read it with the "
            "version that wrote it, or record it again");
  EXPECT_EQ(refusal(""), "");
  EXPECT_THROW(read_trace("/nowhere/x.trace", [](const TraceRecord&) {}), Error);
}

TEST(Traces, GoToAFileAndComeBack) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run.trace";
  EngineOptions o = small_options(1, "sink:2+9");
  o.kv.trace.sink = trace_file(path);
  {
    Engine engine(tiny(), o);
    engine.generate(prompt_of(24), greedy(8));
    // The engine still runs: what it has done is there.
    TraceRecount so_far;
    so_far.extent = read_trace(path, [&](const TraceRecord& record) { so_far.take(record); });
    so_far.compare(engine);
    EXPECT_FALSE(so_far.extent.is_whole);
  }
  TraceRecount whole;
  whole.extent = read_trace(path, [&](const TraceRecord& record) { whole.take(record); });
  EXPECT_TRUE(whole.extent.is_whole);
  EXPECT_TRUE(whole.is_ended);
  ASSERT_EQ(whole.requests.size(), 1U);
  EXPECT_EQ(whole.requests[0].prompt_tokens, 24);
  ASSERT_EQ(whole.finished.size(), 1U);
  EXPECT_EQ(whole.finished[0].made_tokens, 8);
  EXPECT_EQ(whole.finished[0].reason, FinishReason::kLength);
  EXPECT_THROW(trace_file("/nowhere/x.trace"), Error);
}

TEST(Traces, HaveTokensAndScoresOnlyWhereAskedFor) {
  const auto recount = [](bool tokens, bool scores) {
    std::string bytes;
    EngineOptions o = small_options(1, "h2o:20@every:8");
    o.kv.trace = {
        .sink = [&](std::string_view more) { bytes += more; }, .tokens = tokens, .scores = scores};
    Engine engine(tiny(), o);
    engine.generate(prompt_of(24), greedy(20));
    TraceRecount out;
    out.read(bytes);
    out.compare(engine);
    return out;
  };
  const TraceRecount plain = recount(false, false);
  EXPECT_TRUE(plain.tokens.empty() || plain.tokens.at(0).empty());
  EXPECT_EQ(plain.candidates, 0);
  EXPECT_FALSE(plain.hashes.empty());
  const TraceRecount whole = recount(true, true);
  std::vector<TokenId> told(whole.tokens.at(0).begin(), whole.tokens.at(0).begin() + 24);
  EXPECT_EQ(told, prompt_of(24));
  EXPECT_GT(whole.candidates, static_cast<int64_t>(whole.events.size()));
  EXPECT_GE(whole.ranked, static_cast<int64_t>(whole.events.size()));
  EXPECT_EQ(whole.hashes, plain.hashes);
}

TEST(Traces, HaveTheTokensOfWhatWasFound) {
  std::string bytes;
  EngineOptions o = small_options(2);
  o.kv.trace = {.sink = [&](std::string_view more) { bytes += more; }, .tokens = true};
  Engine engine(tiny(), o);
  engine.generate(prompt_of(24), greedy(4));
  engine.generate(prompt_of(24), greedy(4));
  std::vector<int32_t> tokens;
  int64_t found = 0;
  read_trace(std::string_view(bytes), "trace", [&](const TraceRecord& record) {
    if (std::holds_alternative<TraceOpen>(record.what)) tokens.clear();
    if (const auto* p = std::get_if<TracePrefix>(&record.what)) found += p->to - p->from;
    if (const auto* t = std::get_if<TraceTokens>(&record.what)) {
      ASSERT_EQ(static_cast<int64_t>(tokens.size()), t->first_position);
      tokens.insert(tokens.end(), t->ids.begin(), t->ids.end());
    }
  });
  EXPECT_EQ(found, 20);
  ASSERT_GE(tokens.size(), 24U);
  EXPECT_TRUE(std::equal(tokens.begin(), tokens.begin() + 24, prompt_of(24).begin()));
}

/// Every candidate is told with what the rule ranks by, and those that left first in that order.
TEST(Traces, RankAllCandidatesAsTheRuleDoes) {
  std::string bytes;
  EngineOptions o = small_options(1, "h2o:20@every:8");
  o.kv.trace = {.sink = [&](std::string_view more) { bytes += more; }, .scores = true};
  Engine engine(tiny(), o);
  engine.generate(prompt_of(40), greedy(30));
  int64_t decisions = 0;
  std::vector<TraceCandidates::Block> ranked;
  TraceDecision decision;
  read_trace(std::string_view(bytes), "trace", [&](const TraceRecord& record) {
    if (const auto* d = std::get_if<TraceDecision>(&record.what)) decision = *d;
    if (const auto* c = std::get_if<TraceCandidates>(&record.what)) {
      ++decisions;
      ranked.clear();
      int64_t tokens = 0;
      for (const auto& block : c->blocks) {
        tokens += block.n_tokens;
        if (block.is_ranked) ranked.push_back(block);
      }
      EXPECT_EQ(tokens, decision.tokens);
      std::stable_sort(ranked.begin(), ranked.end(),
                       [](const auto& a, const auto& b) { return a.score < b.score; });
    }
    if (const auto* r = std::get_if<TraceRemoval>(&record.what)) {
      if (r->event.reason != RemovalReason::kPolicyTrim) return;
      ASSERT_LT(static_cast<size_t>(r->event.rank), ranked.size());
      const TraceCandidates::Block& block = ranked[static_cast<size_t>(r->event.rank)];
      EXPECT_EQ(block.score, r->event.score);
      EXPECT_EQ(block.first_position, r->event.first_position);
      EXPECT_EQ(block.mass, r->mass);
      EXPECT_TRUE(r->measured);
      EXPECT_EQ(block.last_used, r->last_used);
      if (static_cast<size_t>(decision.left_together) < ranked.size()) {
        EXPECT_EQ(decision.runner_up_position,
                  ranked[static_cast<size_t>(decision.left_together)].first_position);
      }
    }
  });
  EXPECT_GT(decisions, 8);
}

TEST(Traces, HashesAreThoseOfTheTextAlone) {
  std::string bytes;
  EngineOptions o = small_options(2, "h2o:20@every:8");
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  Engine engine(tiny(), o);
  engine.generate(prompt_of(24), greedy(4));
  engine.generate(prompt_of(24), greedy(4));
  std::vector<TokenId> other = prompt_of(24);
  other[9] ^= 1;
  engine.generate(other, greedy(4));
  std::vector<std::map<int64_t, uint64_t>> texts;
  read_trace(std::string_view(bytes), "trace", [&](const TraceRecord& record) {
    if (std::holds_alternative<TraceOpen>(record.what)) texts.emplace_back();
    if (const auto* b = std::get_if<TraceBlock>(&record.what)) texts.back()[b->block] = b->hash;
  });
  ASSERT_EQ(texts.size(), 3U);
  EXPECT_EQ(texts[0], texts[1]);
  ASSERT_GE(texts[2].size(), 6U);
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(texts[0][i] == texts[2][i], i < 2) << i;
}

TEST(Traces, NameTheTextOfWhatIsReclaimed) {
  std::string bytes;
  EngineOptions o = shared_memory("full", 40, 1);
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  Engine engine(tiny(), o);
  for (size_t i = 0; i < 4; ++i) engine.generate(text_at(11 * i, 48), greedy(2));
  std::map<uint64_t, int64_t> blocks;  // by text: where they begin
  int64_t reclaimed = 0;
  read_trace(std::string_view(bytes), "trace", [&](const TraceRecord& record) {
    if (const auto* b = std::get_if<TraceBlock>(&record.what)) {
      EXPECT_EQ(blocks.try_emplace(b->hash, 4 * b->block).first->second, 4 * b->block);
    }
    const auto* r = std::get_if<TraceRemoval>(&record.what);
    if (r == nullptr || r->event.reason != RemovalReason::kCapacity) return;
    ++reclaimed;
    ASSERT_TRUE(blocks.contains(r->text_hash));
    EXPECT_EQ(blocks.at(r->text_hash), r->event.first_position);
    EXPECT_GT(r->request, 1) << "the first one found room";
  });
  EXPECT_GT(reclaimed, 20);
}

TEST(Traces, TellWhatIsDecidedAgain) {
  std::string bytes;
  EngineOptions o = shared_memory("h2o:24@every:8", 28, 2);
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  Engine engine(tiny(), o);
  const SessionId session = engine.open_session();  // has the first sequence
  engine.generate(session, text_at(0, 40), greedy(20));
  engine.generate(text_at(9, 60), greedy(20));  // parks it
  engine.generate(session, text_at(3, 1), greedy(20));
  std::set<std::pair<int32_t, int64_t>> decided;  // layers and lengths
  int64_t again = 0, anew = 0;
  read_trace(std::string_view(bytes), "trace", [&](const TraceRecord& record) {
    const auto* d = std::get_if<TraceDecision>(&record.what);
    if (d == nullptr) return;
    if (d->sequence != 0) {
      EXPECT_FALSE(d->is_replayed);
      return;
    }
    EXPECT_EQ(d->is_replayed, !decided.insert({d->layer, d->length}).second) << d->length;
    ++(d->is_replayed ? again : anew);
  });
  EXPECT_GT(again, 4);
  EXPECT_GT(anew, again);
}

TEST(Traces, TellWhatKindOfRulesThereAre) {
  struct Row {
    const char* spec;
    bool is_elastic, shares_by_need, is_compact;
  };
  const Row rows[] = {{"full", false, false, false},
                      {"sink:2+9", false, false, true},
                      {"sink:2+9@original", false, false, false},
                      {"h2o:24@every:8", false, false, false},
                      {"h2o:24@every:8@compact", false, false, true},
                      {"lru@every:8", true, false, false},
                      {"cake:h2o:32@every:8", false, true, false},
                      {"cake:h2o@every:8@compact", true, true, true}};
  EngineOptions o = shared_memory(rows[0].spec, 400);
  for (const Row& row : std::span(rows).subspan(1)) o.kv.other_policies.emplace_back(row.spec);
  std::string bytes;
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  Engine(tiny(), o).generate(prompt_of(4), greedy(1));
  TraceRecount told;
  told.read(bytes);
  ASSERT_EQ(told.sets.size(), std::size(rows));
  for (size_t i = 0; i < std::size(rows); ++i) {
    for (const TraceRules::Layer& layer : told.sets.at(static_cast<int32_t>(i)).layers) {
      EXPECT_EQ(layer.is_elastic, rows[i].is_elastic) << rows[i].spec;
      EXPECT_EQ(layer.shares_by_need, rows[i].shares_by_need) << rows[i].spec;
      EXPECT_EQ(layer.is_compact, rows[i].is_compact) << rows[i].spec;
    }
  }
}

/// What has been told so far says what the engine, whose sequences are open, has.
void expect_told(const std::string& bytes, const Engine& engine) {
  TraceRecount so_far;
  so_far.read(bytes);
  so_far.compare(engine);
}

TEST(Traces, TellWhatLeavesAPageThatSinksStayIn) {
  std::string bytes;
  EngineOptions o = small_options(1, "sink:2+9");  // two of four positions in the first block
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  Engine engine(tiny(), o);
  const SessionId session = engine.open_session();
  for (size_t i = 0; i < 30; i += 3) {
    engine.feed(session, text_at(i, 3));
    expect_told(bytes, engine);
  }
}

TEST(Traces, TellWhatIsTakenBack) {
  std::string bytes;
  EngineOptions o = small_options(1);
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  Engine engine(tiny(), o);
  const SessionId session = engine.open_session();
  engine.feed(session, text_at(0, 22));
  for (const int64_t length : {19, 12, 3}) {
    engine.truncate(session, length);
    expect_told(bytes, engine);
    engine.feed(session, text_at(30, 5));
    expect_told(bytes, engine);
  }
}

TEST(Traces, TellOfATailThatGivesWayToAKeptBlock) {
  std::string bytes;
  EngineOptions o = small_options(2);
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  Engine engine(tiny(), o);
  const SessionId session = engine.open_session();
  engine.feed(session, text_at(0, 6));
  engine.generate(text_at(0, 17), greedy(1));  // computes the session's second block to its end
  engine.feed(session, text_at(6, 11));
  EXPECT_GT(engine.kv_stats().prefix_hits, 1) << "it was found";
  expect_told(bytes, engine);
}

std::set<int64_t> positions(int64_t first, int64_t end) {
  std::set<int64_t> all;
  for (int64_t p = first; p < end; ++p) all.insert(p);
  return all;
}

TEST(Traces, TellWhatAHostProtects) {
  std::string bytes;
  EngineOptions o = small_options(2, "full");
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  Engine engine(tiny(), o);
  const SessionId one = engine.open_session();
  int64_t records = 0;
  const auto told = [&](int32_t sequence) {
    TraceRecount so_far;
    so_far.read(bytes);
    records = 0;
    read_trace(std::string_view(bytes), "trace", [&](const TraceRecord& record) {
      records += std::holds_alternative<TraceProtection>(record.what) ? 1 : 0;
    });
    return so_far.protections[sequence];
  };
  engine.protect(one, 5, 3);
  EXPECT_EQ(told(0), positions(5, 8)) << "before there is any text";
  engine.protect(one, 7, 4);
  engine.feed(one, prompt_of(20));
  EXPECT_EQ(told(0), positions(5, 11));
  engine.unprotect(one, 6, 1);
  std::set<int64_t> some = positions(7, 11);
  some.insert(5);
  EXPECT_EQ(told(0), some);
  EXPECT_EQ(records, 3);
  engine.unprotect(one, 30, 4);
  engine.truncate(one, 19);
  EXPECT_EQ(told(0), some);
  EXPECT_EQ(records, 3) << "nothing has changed";
  const SessionId fork = engine.fork_session(one);
  engine.unprotect(one, 0, 20);
  EXPECT_EQ(told(0), positions(0, 0));
  EXPECT_EQ(told(1), some);
  engine.truncate(fork, 8);
  engine.feed(fork, prompt_of(2));
  EXPECT_EQ(told(1), (std::set<int64_t>{5, 7}));
  const auto lines = lines_of(bytes);
  const auto is_one = [](const std::string& line) {
    return line.find(
               "{\"record\":\"protection\",\"sequence\":0,\"ranges\":[{"
               "\"first_position\":5,\"n_tokens\":1},{\"first_position\":7,"
               "\"n_tokens\":4}]") == 0;
  };
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(), is_one), 1);
}

TEST(Traces, TellOfOneThatWasParkedWhatIsProtectedWhenItIsBack) {
  std::string bytes;
  EngineOptions o = shared_memory("h2o:32@every:8", 36, 2);
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  Engine engine(tiny(), o);
  const SessionId session = engine.open_session();
  engine.protect(session, 4, 8);
  engine.generate(session, text_at(0, 40), greedy(20));
  engine.generate(text_at(9, 60), greedy(20));  // parks it
  engine.protect(session, 20, 4);
  engine.generate(session, text_at(3, 1), greedy(1));
  TraceRecount whole;  // sees to it that nothing protected was dropped
  whole.read(bytes);
  EXPECT_GT(whole.parked, 0);
  std::set<int64_t> both = positions(4, 12);
  both.merge(positions(20, 24));
  ASSERT_EQ(whole.open.size(), 1U);
  EXPECT_EQ(whole.protections.at(*whole.open.begin()), both);
}

TEST(Traces, TellOfMemoryWhenTheEngineIsMadeAndWhenItEnds) {
  for (const bool times : {true, false}) {
    std::string bytes;
    EngineOptions o = small_options(1);
    o.kv.trace = {.sink = [&](std::string_view more) { bytes += more; }, .times = times};
    KvStats stats;
    {
      Engine engine(tiny(), o);
      engine.generate(prompt_of(8), greedy(2));
      stats = engine.kv_stats();
    }
    TraceRecount whole;
    whole.read(bytes);
    ASSERT_EQ(whole.memory.size(), times ? 2U : 0U) << "of equal runs it may differ";
    for (const TraceMemory& m : whole.memory) {
      EXPECT_EQ(m.device.device, stats.device.device);
      EXPECT_EQ(m.device.reserved_bytes, stats.device.reserved_bytes);
      EXPECT_EQ(m.device.total_bytes, stats.device.total_bytes);
      const auto now = static_cast<double>(stats.memory.resident_bytes);
      EXPECT_NEAR(static_cast<double>(m.process.resident_bytes), now, now / 2);
      EXPECT_GT(m.process.available_bytes, 0U);
    }
  }
}

TEST(Traces, DecisionsGoByTheBudgetThatHasFallen) {
  std::string bytes;
  EngineOptions o = shared_memory("lru@every:8", 44, 1);
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  {
    Engine engine(tiny(), o);
    engine.generate(text_at(0, 30), greedy(90));
  }
  int32_t budget = kUnlimited;
  int64_t decisions = 0;
  read_trace(std::string_view(bytes), "trace", [&](const TraceRecord& record) {
    if (const auto* b = std::get_if<TraceBudget>(&record.what)) budget = b->change.after;
    if (const auto* d = std::get_if<TraceDecision>(&record.what)) {
      ++decisions;
      EXPECT_EQ(d->schedule.budget, budget);
      EXPECT_EQ(d->schedule.every, 8);
    }
  });
  EXPECT_GT(decisions, 4);
}

/// The cache tells of removals at the length that it told last; whoever tells otherwise is read
/// as well.
TEST(Traces, HaveTheLengthThatARemovalTells) {
  std::string bytes;
  {
    TraceHeader header;
    header.n_layers = 1;
    header.block_size = 4;
    header.max_sequences = 1;
    TraceRecorder recorder({.sink = [&](std::string_view more) { bytes += more; }}, header, {});
    TraceRules rules;
    rules.layers.resize(1);
    recorder.rules(rules);
    recorder.opened(0, false, 0);
    recorder.committed(0, 12, 3, {});
    for (const int64_t length : {12, 9, 12}) {
      recorder.removed({.n_tokens = 4, .first_position = length - 4, .length = length});
    }
  }
  std::vector<int64_t> lengths, positions;
  read_trace(std::string_view(bytes), "trace", [&](const TraceRecord& record) {
    const auto* r = std::get_if<TraceRemoval>(&record.what);
    if (r == nullptr) return;
    lengths.push_back(r->event.length);
    positions.push_back(r->event.first_position);
  });
  EXPECT_EQ(lengths, (std::vector<int64_t>{12, 9, 12}));
  EXPECT_EQ(positions, (std::vector<int64_t>{8, 5, 8}));
}

TEST(Traces, KnowEveryReasonToFinishAndNoOther) {
  const auto read_back = [](FinishReason reason) {
    std::string bytes;
    {
      TraceHeader header;
      header.n_layers = 1;
      header.block_size = 4;
      header.max_sequences = 1;
      header.model_context = 640;
      KvTrace asked;
      asked.sink = [&](std::string_view more) { bytes += more; };
      asked.tokens = asked.scores = true;
      asked.times = false;
      TraceRecorder recorder(asked, header, {});
      TraceRules rules;
      rules.layers.resize(1);
      recorder.rules(rules);
      TraceFinish finish;
      finish.reason = reason;
      recorder.finished(finish);
    }
    int n = 0;
    read_trace(std::string_view(bytes), "trace", [&](const TraceRecord& record) {
      if (const auto* header = std::get_if<TraceHeader>(&record.what)) {
        EXPECT_EQ(header->model_context, 640);
        EXPECT_TRUE(header->has_tokens);
        EXPECT_TRUE(header->has_scores);
        EXPECT_FALSE(header->has_times);
      }
      const auto* finish = std::get_if<TraceFinish>(&record.what);
      if (finish == nullptr) return;
      ++n;
      EXPECT_EQ(finish->reason, reason);
    });
    return n;
  };
  int known = 0;
  for (; finish_reason_name(FinishReason{known}) != std::string_view("unknown"); ++known) {
    EXPECT_EQ(read_back(FinishReason{known}), 1) << known;
  }
  EXPECT_EQ(known, 7);
  EXPECT_THROW(read_back(FinishReason{known}), Error);
}

TEST(Traces, EndWithASinkThatThrows) {
  int calls = 0;
  EngineOptions o = small_options(1);
  o.kv.trace.sink = [&](std::string_view) {
    if (++calls == 3) throw std::runtime_error("the disk is full");
  };
  Engine engine(tiny(), o);
  const GenerateResult result = engine.generate(prompt_of(24), greedy(8));
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(engine.kv_stats().hook_failures, 1);
}

TEST(Traces, TellWhatTheSinkAsksForToo) {
  std::string bytes;
  Engine* running = nullptr;
  int calls = 0;
  RequestId added = 0;
  EngineOptions o = small_options(2);
  o.kv.trace.sink = [&](std::string_view more) {
    if (++calls == 5) {
      const SessionId session = running->open_session();
      added = running->add(prompt_of(9), greedy(3));
      running->close_session(session);  // which is done, and told with the next step
    }
    bytes += more;
  };
  Engine engine(tiny(), o);
  running = &engine;
  engine.generate(prompt_of(24), greedy(8));
  while (engine.step()) {
  }
  TraceRecount whole;
  whole.read(bytes);
  whole.compare(engine);
  ASSERT_EQ(whole.requests.size(), 2U);
  EXPECT_EQ(whole.requests[1].request, added);
  EXPECT_EQ(whole.finished.size(), 2U);
}

TEST(Traces, SayWhoseStepsTheyAre) {
  std::string bytes;
  EngineOptions o = small_options(3);
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  Engine engine(tiny(), o);
  const SessionId session = engine.open_session();
  engine.feed(session, prompt_of(4));
  engine.generate(session, prompt_of(4), greedy(3));
  const RequestId a = engine.add(session, prompt_of(4), greedy(3));
  const RequestId b = engine.add(prompt_of(12), greedy(3));
  while (engine.step()) {
  }
  std::vector<std::pair<int64_t, int64_t>> runs;
  TraceRecount whole;
  read_trace(std::string_view(bytes), "trace", [&](const TraceRecord& record) {
    whole.take(record);
    if (const auto* r = std::get_if<TraceRun>(&record.what)) {
      runs.emplace_back(r->request, r->session);
    }
  });
  const std::vector<std::pair<int64_t, int64_t>> expected = {
      {0, session}, {1, session}, {a, session}, {b, 0}};
  EXPECT_EQ(runs, expected);
  ASSERT_EQ(whole.requests.size(), 3U);
  EXPECT_EQ(whole.requests[1].begin, engine.session_length(session) - 7);
  EXPECT_EQ(whole.requests[1].prompt_tokens, whole.requests[1].begin + 4);
  EXPECT_EQ(whole.requests[1].session, session);
  EXPECT_EQ(whole.requests[2].session, 0);
}

TEST(Traces, TakeNoMemoryWhileTokensAreMade) {
  for (const char* policy : {"full", "h2o:24@every:8", "pyramid:h2o:48@every:8"}) {
    EngineOptions o = small_options(1, policy);
    int64_t n_bytes = 0;
    o.kv.trace.sink = [&](std::string_view more) { n_bytes += static_cast<int64_t>(more.size()); };
    Engine engine(tiny(), o);
    int64_t before = 0, during = 0;
    GenerateOptions asked = greedy(60);
    int made = 0;
    asked.on_token = [&](const TokenEvent&) {
      if (++made == 20) before = g_allocations;
      if (made == 55) during = g_allocations - before;
      return true;
    };
    const int64_t bytes_before = n_bytes;
    engine.generate(prompt_of(40), asked);
    EXPECT_GT(n_bytes - bytes_before, 500);
    EXPECT_TRUE(!kCountsBytes || during == 0) << policy << ": " << during;
  }
}

}  // namespace
}  // namespace paddock::test
