// What the doctor finds in runs with one thing wrong with each, and that its figures are those of
// an independent count.
#include "engine/engine_impl.h"
#include "support/hooked_backend.h"
#include "support/planted_runs.h"
#include "support/trace_recount.h"

namespace paddock::test {
namespace {

const std::vector<PlantedRun>& runs() {
  static const std::vector<PlantedRun> all = planted_runs();
  return all;
}

std::string names_of(const std::vector<Ailment>& ailments) {
  std::string out;
  for (const Ailment ailment : ailments) out += std::string(ailment_name(ailment)) + " ";
  return out;
}

std::string found_in(const Diagnosis& d) {
  std::string out;
  for (const DoctorCause& cause : d.causes) out += std::string(ailment_name(cause.ailment)) + " ";
  return out;
}

double value_of(const std::vector<DoctorFigure>& figures, const std::string& name) {
  for (const DoctorFigure& figure : figures) {
    if (figure.name == name) return figure.value;
  }
  ADD_FAILURE() << "no figure " << name;
  return -1;
}

TEST(Doctor, NamesWhatWasPlantedAndNothingElse) {
  for (const PlantedRun& run : runs()) {
    SCOPED_TRACE(run.name);
    const Diagnosis d = diagnose(std::string_view(run.bytes), "trace");
    std::string all;
    for (const DoctorFigure& f : d.figures) all += f.name + " " + std::to_string(f.value) + ", ";
    EXPECT_EQ(found_in(d), names_of(run.causes)) << all;
  }
}

TEST(Doctor, EveryCauseIsPlanted) {
  std::set<Ailment> planted;
  for (const PlantedRun& run : runs()) planted.insert(run.causes.begin(), run.causes.end());
  EXPECT_EQ(planted.size(), static_cast<size_t>(kAilments));
}

TEST(Doctor, AFullPoolIsToldByTheRequestThatEnded) {
  const auto run = std::find_if(runs().begin(), runs().end(),
                                [](const PlantedRun& r) { return r.name == "a full pool"; });
  const Diagnosis d = diagnose(std::string_view(run->bytes), "trace");
  EXPECT_EQ(value_of(d.figures, "kv_full"), 1);
  EXPECT_EQ(value_of(d.figures, "finished"), 2);
  EXPECT_EQ(value_of(d.causes.at(0).evidence, "kv_full"), 1);
  // Room for the whole text that it wanted: 100 positions in two layers.
  EXPECT_EQ(value_of(d.causes.at(0).evidence, "pages_wanted"), 2 * 25);
}

/// What the figures should be, from position sets and plain sums.
class Recount {
 public:
  explicit Recount(std::string_view bytes) {
    extent = read_trace(bytes, "trace", [this](const TraceRecord& record) { take(record); });
  }

  std::map<std::string, double> figures() const {
    std::map<std::string, double> f;
    const auto add = [&](const char* name, auto value) { f[name] = static_cast<double>(value); };
    add("requests", all.requests.size());
    add("finished", all.finished.size());
    add("tokens_written", all.written);
    add("steps", all.steps);
    add("steps_failed", failed);
    add("preemptions", all.parked);
    add("refusals", all.refused);
    add("budget_falls", all.falls);
    add("budget_lifts", all.lifts);
    add("violations", all.violations);
    add("shortfalls", all.shortfalls);
    add("lookups", all.lookups);
    add("hits", all.hits);
    add("regrets", all.regrets);
    add("hit_rate", all.lookups == 0 ? 0 : double(all.hits) / double(all.lookups));
    add("regret", all.lookups == 0 ? 0 : double(all.regrets) / double(all.lookups));
    add("pool_pages", all.header.pool_pages);
    add("pages_peak", peak);
    add("occupancy_peak", double(peak) / double(all.header.pool_pages));
    add("pages_full_peak", full_peak);
    add("resident_peak", resident_peak);
    add("longest", longest);
    add("fill", room == 0 ? 1 : double(held) / double(room));
    add("step_seconds_max", slowest);
    add("step_seconds", all.steps == 0 ? 0 : step_seconds / double(all.steps));
    add("seconds", last);
    for (int i = 0; i < kRemovalReasons; ++i) {
      const auto reason = static_cast<RemovalReason>(i);
      f[std::string("removed_") + removal_reason_name(reason)] =
          double(std::count_if(all.events.begin(), all.events.end(),
                               [&](const auto& r) { return r.event.reason == reason; }));
    }
    const auto ended = [&](FinishReason reason) {
      return std::count_if(all.finished.begin(), all.finished.end(),
                           [&](const auto& x) { return x.reason == reason; });
    };
    add("kv_full", ended(FinishReason::kKvFull));
    add("context_full", ended(FinishReason::kContext));
    add("errors", ended(FinishReason::kError));
    add("deadlines", ended(FinishReason::kDeadline));
    int64_t made = 0, recomputed = 0, prompt = 0;
    for (const TraceFinish& x : all.finished) made += x.made_tokens;
    for (const TraceFinish& x : all.finished) recomputed += x.recomputed_tokens;
    for (const TraceRequest& x : all.requests) prompt += x.prompt_tokens - x.begin;
    add("made_tokens", made);
    add("recomputed_tokens", recomputed);
    add("prompt_tokens", prompt);
    return f;
  }

  TraceRecount all;
  TraceExtent extent;
  std::map<std::tuple<RemovalReason, int32_t, int32_t>, int64_t> losses;
  std::map<RemovalReason, StepHistogram> lives;
  StepHistogram gaps;
  int64_t tokens_sampled = 0;

 private:
  static void bin(StepHistogram& histogram, int64_t steps) {
    size_t i = 0;
    while (steps >= (int64_t{1} << i)) ++i;  // 0 is alone
    histogram.resize(std::max(histogram.size(), i + 1));
    ++histogram[i];
  }
  void take(const TraceRecord& record) {
    all.take(record);
    last = std::max(last, record.seconds);
    for (const auto& [sequence, length] : all.length) longest = std::max(longest, length);
    if (const auto* tick = std::get_if<TraceTick>(&record.what)) step(*tick);
    if (const auto* end = std::get_if<TraceStepEnd>(&record.what)) {
      failed += end->completed ? 0 : 1;
      slowest = std::max(slowest, end->seconds);
      step_seconds += end->seconds;
    }
    if (const auto* r = std::get_if<TraceRemoval>(&record.what)) {
      ++losses[{r->event.reason, r->event.layer, r->event.sequence}];
      bin(lives[r->event.reason], r->event.age_steps);
    }
    if (const auto* b = std::get_if<TraceBlock>(&record.what)) {
      if (seen.count(b->hash) > 0) bin(gaps, record.step - seen[b->hash]);
      seen[b->hash] = record.step;
    }
  }
  void step(const TraceTick& tick) {
    peak = std::max(peak, all.header.pool_pages - tick.pages_free - tick.pages_cached);
    const int64_t size = all.header.block_size;
    int64_t now = 0, full = 0;
    for (const TraceRecount::Layer& layer : all.layers) {
      for (const auto& [sequence, positions] : layer.resident) {
        std::set<int64_t> blocks;
        for (const int64_t p : positions) blocks.insert(p / size);
        now += static_cast<int64_t>(positions.size());
        room += static_cast<int64_t>(blocks.size()) * size;
      }
      for (const int32_t sequence : all.open) full += (all.length[sequence] + size - 1) / size;
    }
    held += now;
    resident_peak = std::max(resident_peak, now);
    full_peak = std::max(full_peak, full);
  }

  int64_t failed = 0, peak = 0, full_peak = 0, resident_peak = 0, longest = 0, room = 0, held = 0;
  double slowest = 0, step_seconds = 0, last = 0;
  std::map<uint64_t, int64_t> seen;
};

TEST(Doctor, EveryFigureIsThatOfAnIndependentCount) {
  for (const PlantedRun& run : runs()) {
    SCOPED_TRACE(run.name);
    const Diagnosis d = diagnose(std::string_view(run.bytes), "trace");
    const Recount counted(run.bytes);
    std::map<std::string, double> expected = counted.figures();
    expected["causes"] = static_cast<double>(d.causes.size());
    expected["pages_wanted"] = value_of(d.figures, "pages_wanted");  // has a test of its own
    for (const DoctorFigure& figure : d.figures) {
      ASSERT_EQ(expected.count(figure.name), 1U) << figure.name << " is not counted";
      EXPECT_DOUBLE_EQ(figure.value, expected[figure.name]) << figure.name;
    }
    EXPECT_EQ(d.figures.size(), expected.size());
    ASSERT_EQ(d.losses.size(), counted.losses.size());
    for (const DoctorLoss& loss : d.losses) {
      EXPECT_EQ(loss.blocks, counted.losses.at({loss.reason, loss.layer, loss.sequence}));
    }
    EXPECT_EQ(d.lives, counted.lives);
    EXPECT_EQ(d.reuse_gaps, counted.gaps);
  }
}

TEST(Doctor, ABudgetIsNotBlamedForWhatAWrongPolicyDropped) {
  /// Names a block that is not there; the manager chooses.
  class Liar final : public EvictionPolicy {
   public:
    std::string name() const override { return "liar"; }
    TrimSchedule schedule(int32_t, int32_t) const override { return {.budget = 24, .every = 8}; }
    void trim(const LayerView&, int64_t, std::vector<Victim>& victims) const override {
      victims.push_back({1000, 0});
    }
  };
  EngineOptions o = shared_memory("full", 400);
  o.kv.custom_policy = std::make_shared<Liar>();
  std::string said;
  const std::string bytes = recorded(o, false, [&](Engine& engine) {
    engine.generate(words(1, 40), greedy(40));
    said = engine.kv_stats().last_violation;
  });
  const Diagnosis d = diagnose(std::string_view(bytes), "trace");
  EXPECT_GT(value_of(d.figures, "violations"), 0);
  EXPECT_EQ(value_of(d.figures, "shortfalls"), 0);
  EXPECT_EQ(found_in(d), names_of({Ailment::kPolicyViolation}));
  EXPECT_FALSE(said.empty());
  EXPECT_EQ(d.causes.at(0).words, said);
}

TEST(Doctor, StepsThatFailAreCountedAndNamed) {
  std::string bytes;
  EngineOptions o = small_options(1);
  o.kv.trace.sink = [&](std::string_view more) { bytes += more; };
  int fails = 2;
  {
    const InLayer hook([&](int32_t) {
      if (fails-- > 0) throw Error(ErrorCode::kOutOfMemory, "no memory for a step");
    });
    Engine engine(make_engine_impl(tiny(), o, make_hooked_backend));
    engine.add(prompt_of(8), greedy(3));
    for (int i = 0; i < 2; ++i) EXPECT_THROW(engine.step(), Error);
    finish_all(engine);
  }
  const Diagnosis d = diagnose(std::string_view(bytes), "trace");
  EXPECT_EQ(value_of(d.figures, "steps_failed"), 2);
  EXPECT_EQ(found_in(d), names_of({Ailment::kFailures}));
  EXPECT_EQ(value_of(d.causes.at(0).evidence, "steps_failed"), 2);
}

TEST(Doctor, SamplesAddUpToTheRun) {
  for (const PlantedRun& run : runs()) {
    SCOPED_TRACE(run.name);
    const Diagnosis d = diagnose(std::string_view(run.bytes), "trace");
    ASSERT_FALSE(d.samples.empty());
    int64_t tokens = 0, left = 0, peak = 0;
    double slowest = 0;
    for (const DoctorSample& sample : d.samples) {
      tokens += sample.tokens;
      for (const int64_t n : sample.left) left += n;
      slowest = std::max(slowest, sample.step_seconds);
      peak = std::max(peak, sample.pages_active);
      EXPECT_EQ(sample.resident.size(), static_cast<size_t>(d.header.n_layers));
    }
    EXPECT_EQ(static_cast<double>(tokens), value_of(d.figures, "tokens_written"));
    EXPECT_EQ(static_cast<double>(peak), value_of(d.figures, "pages_peak"));
    EXPECT_EQ(slowest, value_of(d.figures, "step_seconds_max"));
    // What leaves when the last step is over is nobody's sample.
    EXPECT_LE(static_cast<double>(left),
              value_of(d.figures, "removed_window") + value_of(d.figures, "removed_policy_trim"));
  }
}

TEST(Doctor, LongRunsHaveFewSamples) {
  EngineOptions o = small_options(1, "h2o:24@every:8");
  const std::string bytes = recorded(o, false, [](Engine& engine) {
    for (uint32_t i = 0; i < 24; ++i) engine.generate(words(i, 30), greedy(90));
  });
  const Diagnosis d = diagnose(std::string_view(bytes), "trace");
  ASSERT_GT(value_of(d.figures, "steps"), 2048);
  EXPECT_LE(d.samples.size(), 1024U);
  EXPECT_GE(d.samples.size(), 512U);
  int64_t tokens = 0, left = 0, last = -1;
  for (const DoctorSample& sample : d.samples) {
    tokens += sample.tokens;
    for (const int64_t n : sample.left) left += n;
    EXPECT_GT(sample.step, last);
    last = sample.step;
  }
  EXPECT_EQ(static_cast<double>(tokens), value_of(d.figures, "tokens_written"));
  EXPECT_EQ(static_cast<double>(left), value_of(d.figures, "removed_policy_trim"));
}

TEST(Doctor, TheMapIsThatOfTheLongestText) {
  EngineOptions o = shared_memory("0=full,1=window:9", 400, 1);
  std::vector<std::set<int64_t>> there(2);
  int64_t length = 0;
  const std::string bytes = recorded(o, false, [&](Engine& engine) {
    engine.generate(words(1, 20), greedy(4));
    const SessionId session = engine.open_session();
    engine.generate(session, words(2, 50), greedy(30));
    for (int32_t layer = 0; layer < 2; ++layer) {
      for (const KvBlock& block : engine.kv_blocks(layer)) {
        there[static_cast<size_t>(layer)].insert(block.first_position / 4);
        length = std::max(length, block.first_position + block.n_tokens);
      }
    }
  });
  const Diagnosis d = diagnose(std::string_view(bytes), "trace");
  EXPECT_EQ(d.map_length, length);
  ASSERT_EQ(d.map.size(), 2U);
  for (size_t layer = 0; layer < 2; ++layer) {
    ASSERT_EQ(d.map[layer].size(), static_cast<size_t>((length + 3) / 4));
    for (size_t block = 0; block < d.map[layer].size(); ++block) {
      EXPECT_EQ(d.map[layer][block], there[layer].count(static_cast<int64_t>(block)) > 0
                                         ? BlockFate::kResident
                                         : BlockFate::kWindow)
          << layer << " " << block;
    }
  }
}

/// What became of the longest text's blocks: 'r' resident, 'w' passed by a window, and so on.
std::string map_of(const Diagnosis& d, size_t layer) {
  std::string out;
  for (const BlockFate fate : d.map.at(layer)) out += "arwtu"[static_cast<size_t>(fate)];
  return out;
}

TEST(Doctor, TheMapTellsWhatRulesDropped) {
  std::string expected(20, 'r');
  const std::string bytes =
      recorded(shared_memory("0=full,1=h2o:24@every:8", 400, 1), false, [&](Engine& engine) {
        engine.generate(engine.open_session(), words(2, 50), greedy(31));
        for (const KvEvent& e : engine.kv_events()) {
          ASSERT_EQ(e.reason, RemovalReason::kPolicyTrim);
          expected.at(static_cast<size_t>(e.first_position / 4)) = 't';
        }
      });
  const Diagnosis d = diagnose(std::string_view(bytes), "trace");
  EXPECT_EQ(d.map_length, 80);
  EXPECT_EQ(map_of(d, 0), std::string(20, 'r'));
  EXPECT_EQ(map_of(d, 1), expected);
  EXPECT_GT(std::count(expected.begin(), expected.end(), 't'), 10);
}

TEST(Doctor, TheMapTellsWhatAHostTookBack) {
  EngineOptions o = shared_memory("full", 400, 1);
  const std::string bytes = recorded(o, false, [&](Engine& engine) {
    const SessionId session = engine.open_session();
    engine.feed(session, words(1, 23));
    engine.truncate(session, 10);  // in the third block of six
    engine.feed(session, words(2, 4));
  });
  const Diagnosis d = diagnose(std::string_view(bytes), "trace");
  EXPECT_EQ(d.map_length, 23);
  EXPECT_EQ(map_of(d, 0), "rrruuu");
}

TEST(Doctor, TheMapTellsWhatATextNeverHad) {
  // A second text goes on from kept blocks, of which a window of 9 sees three at most.
  EngineOptions o = shared_memory("0=full,1=window:9", 400, 1);
  const std::string bytes = recorded(o, false, [&](Engine& engine) {
    engine.generate(words(1, 41), greedy(1));
    engine.feed(engine.open_session(), joined(words(1, 40), words(2, 8)));
  });
  const Diagnosis d = diagnose(std::string_view(bytes), "trace");
  EXPECT_EQ(d.map_length, 48);
  EXPECT_EQ(map_of(d, 0), std::string(12, 'r'));
  EXPECT_EQ(map_of(d, 1), "aaaaaaaawwrr");
}

TEST(Doctor, AgesAndGapsAreThoseOfTheStepsThatWereMade) {
  EngineOptions o = shared_memory("window:4", 400, 1);
  o.kv.reuse = false;
  std::vector<int64_t> clock;
  const std::vector<TokenId> first = words(1, 20), second = joined(words(1, 8), words(2, 12));
  const std::string bytes = recorded(o, false, [&](Engine& engine) {
    for (const std::vector<TokenId>& text : {first, second, first}) {
      const SessionId session = engine.open_session();
      clock.push_back(engine.kv_stats().steps);
      for (size_t i = 0; i < 20; i += 4) engine.feed(session, std::span(text).subspan(i, 4));
      engine.close_session(session);
    }
  });
  const Diagnosis d = diagnose(std::string_view(bytes), "trace");
  // One block for each step, and each leaves with the next one.
  ASSERT_EQ(clock, (std::vector<int64_t>{0, 5, 10}));
  const int64_t layers = d.header.n_layers;
  EXPECT_EQ(d.lives.at(RemovalReason::kWindow), (StepHistogram{0, 3 * 4 * layers}));
  // Two blocks after five steps twice, three after ten.
  EXPECT_EQ(d.reuse_gaps, (StepHistogram{0, 0, 0, 4, 3}));
}

TEST(Doctor, WhatItProposesHelps) {
  // The same run again with the proposal has no such cause.
  const auto cause = [](const std::string& bytes) {
    const Diagnosis d = diagnose(std::string_view(bytes), "trace");
    EXPECT_EQ(d.causes.size(), 1U);
    return d.causes.empty() ? DoctorCause{} : d.causes[0];
  };
  const auto expect_healthy = [](const std::string& bytes) {
    EXPECT_EQ(found_in(diagnose(std::string_view(bytes), "trace")), "");
  };
  EngineOptions tight = shared_memory("full", 70);
  const DoctorCause memory = cause(recorded(tight, false, together(5, 30, 30)));
  ASSERT_EQ(memory.setting, "budget");
  tight.kv.budget_bytes = std::stoull(memory.value);
  expect_healthy(recorded(tight, false, together(5, 30, 30)));

  EngineOptions one = shared_memory("full", 40, 1);
  const DoctorCause full = cause(recorded(one, false, in_turn({words(2, 30)}, 70)));
  EXPECT_EQ(value_of(full.evidence, "kv_full"), 1);
  one.kv.budget_bytes = std::stoull(full.value);
  expect_healthy(recorded(one, false, in_turn({words(2, 30)}, 70)));

  EngineOptions window = shared_memory("window:24", 400);
  const DoctorCause start = cause(recorded(window, false, in_turn({words(1, 40)}, 40)));
  ASSERT_EQ(start.setting, "policy");
  EXPECT_EQ(start.value, "sink:6+18");
  window.kv.policy = start.value;
  expect_healthy(recorded(window, false, in_turn({words(1, 40)}, 40)));

  EngineOptions fixed = shared_memory("h2o:24@every:8", 400);
  const DoctorCause budget = cause(recorded(fixed, false, in_turn({words(1, 40)}, 40)));
  fixed.kv.policy = budget.value;
  expect_healthy(recorded(fixed, false, in_turn({words(1, 40)}, 40)));

  EngineOptions narrow = shared_memory("full", 0, 1);
  narrow.context = 48;
  const DoctorCause context = cause(recorded(narrow, false, in_turn({words(1, 40)}, 30)));
  narrow.context = std::stoll(context.value);
  expect_healthy(recorded(narrow, false, in_turn({words(1, 40)}, 30)));

  EngineOptions large = shared_memory("full", 0);
  large.kv.block_size = 64;
  const DoctorCause blocks = cause(recorded(large, false, together(8, 10, 6)));
  large.kv.block_size = std::stoi(blocks.value);
  expect_healthy(recorded(large, false, together(8, 10, 6)));
}

TEST(Doctor, PagesWantedAreThoseOfAllAtOnce) {
  // Two at once of 40 positions each, all of whose pages are wanted at once: the third waits.
  EngineOptions o = shared_memory("full", 400, 2);
  const Diagnosis d = diagnose(std::string_view(recorded(o, false, together(3, 20, 20))), "trace");
  EXPECT_EQ(value_of(d.figures, "pages_wanted"), 2 * 2 * 10);
}

TEST(Doctor, WhatIfAsksForTheSameBlocks) {
  const PlantedRun& run = *std::find_if(
      runs().begin(), runs().end(), [](const PlantedRun& r) { return r.name == "kept too short"; });
  const Diagnosis d = diagnose(std::string_view(run.bytes), "trace");
  ASSERT_EQ(d.what_if.size(), 4U);
  const int64_t pool = d.header.pool_pages / d.header.n_layers;
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(d.what_if[i].capacity, std::vector<int64_t>({pool / 2, pool, 2 * pool, 4 * pool})[i]);
    EXPECT_EQ(d.what_if[i].policy, "lru");
  }
  // Room for all finds each prompt's second time: 15 blocks, three times.
  EXPECT_EQ(d.what_if[3].found, 45);
  EXPECT_LT(d.what_if[0].found, 45);
}

TEST(Doctor, WhatIfGoesByTheEnginesOrder) {
  const auto orders = [](const EngineOptions& o) {
    const std::string bytes = recorded(o, false, in_turn({words(1, 30), words(1, 30)}, 4));
    std::set<std::string> names;
    for (const ReplayResult& result : diagnose(std::string_view(bytes), "trace").what_if) {
      names.insert(result.policy);
    }
    return names;
  };
  EngineOptions o = shared_memory("full", 400, 1);
  for (const std::string& name : reclaim_names()) {
    o.kv.reclaim = name;
    EXPECT_EQ(orders(o), std::set<std::string>{name});
  }
  o.kv.custom_reclaim = [] { return make_s3fifo(); };
  EXPECT_EQ(orders(o), std::set<std::string>{"lru"});
  o.kv.reuse = false;
  EXPECT_EQ(orders(o), std::set<std::string>());
}

TEST(Doctor, ReadsWhatIsThereOfACutTraceAndRefusesOthers) {
  const std::string& bytes = runs()[0].bytes;
  const Diagnosis d = diagnose(std::string_view(bytes).substr(0, bytes.size() / 2), "trace");
  EXPECT_FALSE(d.extent.is_whole);
  EXPECT_GT(value_of(d.figures, "steps"), 0);
  EXPECT_LT(value_of(d.figures, "finished"), 6);
  for (const std::string_view wrong : {std::string_view("no trace"), std::string_view()}) {
    try {
      diagnose(wrong, "x.trace");
      ADD_FAILURE() << "nothing was refused";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kBadFile);
      EXPECT_NE(std::string(e.what()).find("'x.trace'"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace paddock::test
