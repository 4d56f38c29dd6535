// What a host may call from where (the table of docs/hosts.md), and what happens where its own
// functions misbehave.
#include <atomic>
#include <thread>

#include "support/shared_memory.h"

namespace paddock::test {
namespace {

/// Names the oldest blocks, after it has called whoever waits; a liar names one that is not there.
class Nosy final : public EvictionPolicy {
 public:
  std::function<void()> in_trim;
  bool lies = false;

  std::string name() const override { return "nosy"; }
  TrimSchedule schedule(int32_t, int32_t) const override { return {16, 8, 0, 0, 0}; }
  void trim(const LayerView& view, int64_t n, std::vector<Victim>& victims) const override {
    if (in_trim) in_trim();
    if (lies) return victims.push_back({1000, 0});
    rank_blocks(view, n, victims, [&](int32_t block) {
      return static_cast<double>(view.blocks[block].first_position);
    });
  }
};

/// Sets the process's log hook while it lives.
struct LogHook {
  explicit LogHook(std::function<void(LogLevel, std::string_view)> hook) {
    set_log_hook(std::move(hook));
  }
  ~LogHook() { set_log_hook({}); }
};

/// Says how often it was asked. The oldest blocks leave.
class Counting final : public EvictionPolicy {
 public:
  explicit Counting(bool is_elastic, bool lies = false) : elastic_(is_elastic), lies_(lies) {}
  mutable int64_t asked = 0;

  std::string name() const override { return "counting"; }
  bool is_elastic() const override { return elastic_; }
  TrimSchedule schedule(int32_t, int32_t) const override { return {.budget = 16, .every = 8}; }
  TrimSchedule schedule(int32_t, int32_t, int32_t budget) const override {
    return {.budget = budget, .every = 8};
  }
  void trim(const LayerView& view, int64_t n, std::vector<Victim>& victims) const override {
    ++asked;
    if (lies_) return victims.push_back({1000, 0});
    rank_blocks(view, n, victims, [&](int32_t block) {
      return static_cast<double>(view.blocks[block].first_position);
    });
  }

 private:
  bool elastic_, lies_;
};

// ---- the table

enum class Kind { kAnyTime, kBooks, kDrives };

struct Method {
  const char* name;
  Kind kind;
  std::function<void(Engine&, SessionId idle)> call;
};

const std::vector<Method>& methods() {
  static const auto all_rows = [](int64_t, std::span<const float>) { return true; };
  static const std::vector<Method> table = {
      {"cancel(id)", Kind::kAnyTime, [](Engine& e, SessionId) { e.cancel(12345); }},
      {"kv_stats", Kind::kAnyTime, [](Engine& e, SessionId) { to_json(e.kv_stats()); }},
      {"kv_blocks", Kind::kAnyTime, [](Engine& e, SessionId) { e.kv_blocks(0); }},
      {"kv_events", Kind::kAnyTime, [](Engine& e, SessionId) { e.kv_events(); }},
      {"kv_budget_changes", Kind::kAnyTime, [](Engine& e, SessionId) { e.kv_budget_changes(); }},
      {"kv_preemptions", Kind::kAnyTime, [](Engine& e, SessionId) { e.kv_preemptions(); }},
      {"stats", Kind::kAnyTime, [](Engine& e, SessionId) { to_json(e.stats()); }},
      {"status", Kind::kAnyTime,
       [](Engine& e, SessionId) { EXPECT_EQ(e.status(12345).state, RequestState::kUnknown); }},
      {"check_integrity", Kind::kAnyTime, [](Engine& e, SessionId) { e.check_integrity(); }},
      {"options", Kind::kAnyTime,
       [](Engine& e, SessionId) { EXPECT_EQ(e.options().kv.policy, "nosy"); }},
      {"model", Kind::kAnyTime, [](Engine& e, SessionId) { EXPECT_EQ(&e.model(), tiny().get()); }},
      {"memory_bytes", Kind::kAnyTime,
       [](Engine& e, SessionId) { EXPECT_GT(e.memory_bytes(), 0U); }},
      {"add", Kind::kBooks, [](Engine& e, SessionId) { e.add(prompt_of(3), greedy(2)); }},
      {"take", Kind::kBooks,
       [](Engine& e, SessionId) {
         for (RequestId id = 0; id < 9; ++id) EXPECT_FALSE(e.take(id));
       }},
      {"finished_after", Kind::kBooks,
       [](Engine& e, SessionId) { EXPECT_FALSE(e.finished_after(12345)); }},
      {"discard", Kind::kBooks, [](Engine& e, SessionId) { e.discard(12345); }},
      {"unpin", Kind::kBooks, [](Engine& e, SessionId) { EXPECT_FALSE(e.unpin(9)); }},
      {"open_session", Kind::kBooks, [](Engine& e, SessionId) { e.open_session(); }},
      {"close_session", Kind::kBooks, [](Engine& e, SessionId idle) { e.close_session(idle); }},
      {"session_length", Kind::kBooks,
       [](Engine& e, SessionId idle) { EXPECT_EQ(e.session_length(idle), 20); }},
      {"check_kv_policy", Kind::kBooks, [](Engine& e, SessionId) { e.check_kv_policy("full", 1); }},
      {"set_kv_budget", Kind::kBooks,
       [](Engine& e, SessionId) { e.set_kv_budget(e.options().kv.budget_bytes); }},
      {"max_positions", Kind::kBooks,
       [](Engine& e, SessionId) { EXPECT_GT(e.max_positions(), 0); }},
      {"max_positions(session)", Kind::kBooks,
       [](Engine& e, SessionId idle) { EXPECT_GE(e.max_positions(idle), 20); }},
      {"step", Kind::kDrives, [](Engine& e, SessionId) { e.step(); }},
      {"generate", Kind::kDrives,
       [](Engine& e, SessionId) { e.generate(prompt_of(3), greedy(2)); }},
      {"generate(session)", Kind::kDrives,
       [](Engine& e, SessionId idle) { e.generate(idle, prompt_of(3), greedy(2)); }},
      {"feed", Kind::kDrives, [](Engine& e, SessionId idle) { e.feed(idle, prompt_of(3)); }},
      {"feed(rows)", Kind::kDrives,
       [](Engine& e, SessionId idle) { e.feed(idle, prompt_of(3), all_rows); }},
      {"forward", Kind::kDrives, [](Engine& e, SessionId) { e.forward(prompt_of(3), all_rows); }},
      {"truncate", Kind::kDrives, [](Engine& e, SessionId idle) { e.truncate(idle, 0); }},
      {"protect", Kind::kDrives, [](Engine& e, SessionId idle) { e.protect(idle, 0, 4); }},
      {"unprotect", Kind::kDrives, [](Engine& e, SessionId idle) { e.unprotect(idle, 0, 4); }},
      {"set_kv_policy(spec)", Kind::kDrives, [](Engine& e, SessionId) { e.set_kv_policy("full"); }},
      {"set_kv_policy(policy)", Kind::kDrives,
       [](Engine& e, SessionId) { e.set_kv_policy(make_policy("full")); }},
  };
  return table;
}

/// A place from which a host calls back, and whether books may be touched there.
enum class Place { kOnToken, kOnEvent, kTrace, kFeedRows, kForwardRows, kTrim, kLog };
constexpr Place kPlaces[] = {Place::kOnToken,     Place::kOnEvent, Place::kTrace, Place::kFeedRows,
                             Place::kForwardRows, Place::kTrim,    Place::kLog};

/// An engine at work with one function to be called, once, from one place.
class Stage {
 public:
  explicit Stage(Place place) : place_(place) {
    policy_->lies = place == Place::kLog;
    EngineOptions options = reference_options();
    options.threads = 1;
    options.max_sequences = 6;
    options.batch_size = 16;
    options.kv.block_size = 4;
    options.kv.custom_policy = policy_;
    options.kv.on_event = [this](const KvEvent&) { arrive(Place::kOnEvent); };
    options.kv.trace.sink = [this](std::string_view) { arrive(Place::kTrace); };
    policy_->in_trim = [this] { arrive(Place::kTrim); };
    engine_ = std::make_unique<Engine>(parts(tiny(), options));
    idle_ = engine_->open_session();
    engine_->feed(idle_, prompt_of(20));
  }
  ~Stage() { engine_.reset(); }  // its trace ends
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  /// What the requests said, and the logits of raw passes.
  std::vector<std::vector<TokenId>> run(std::function<void(Engine&, SessionId)> act) {
    act_ = std::move(act);
    const LogHook hook([this](LogLevel, std::string_view) { arrive(Place::kLog); });
    std::vector<std::vector<TokenId>> said;
    GenerateOptions options = greedy(12);
    options.on_token = [this](const TokenEvent&) {
      arrive(Place::kOnToken);
      return true;
    };
    const RequestId first = engine_->add(prompt_of(), options);
    const RequestId second = engine_->add(prompt_of(30), options);
    while (engine_->step()) engine_->check_integrity();
    said.push_back(engine_->take(first)->tokens);
    said.push_back(engine_->take(second)->tokens);
    const auto rows = [&](Place place) {
      return [this, place, &said](int64_t, std::span<const float> row) {
        said.back().push_back(static_cast<TokenId>(row[7] * 1e5F));
        arrive(place);
        return true;
      };
    };
    said.emplace_back();
    engine_->forward(prompt_of(), rows(Place::kForwardRows));
    said.emplace_back();
    const SessionId other = engine_->open_session();
    engine_->feed(other, prompt_of(), rows(Place::kFeedRows));
    engine_->close_session(other);
    engine_->check_integrity();
    return said;
  }

  bool arrived() const { return arrived_; }

 private:
  void arrive(Place place) {
    if (place != place_ || arrived_ || !act_) return;
    arrived_ = true;
    act_(*engine_, idle_);
  }

  Place place_;
  std::shared_ptr<Nosy> policy_ = std::make_shared<Nosy>();
  std::unique_ptr<Engine> engine_;
  SessionId idle_ = 0;
  std::function<void(Engine&, SessionId)> act_;
  bool arrived_ = false;
};

TEST(Hosts, MayCallFromTheirCallbacksWhatTheTableSays) {
  for (const Place place : kPlaces) {
    const bool between_work = place != Place::kTrim && place != Place::kLog;
    if (kEmulated && place != Place::kOnToken && place != Place::kTrim) continue;  // minutes
    const auto undisturbed = Stage(place).run({});
    for (const Method& method : methods()) {
      const std::string name = method.name;
      if (kEmulated && name != "kv_stats" && name != "add" && name != "step") continue;
      SCOPED_TRACE(testing::Message() << method.name << " from " << static_cast<int>(place));
      Stage stage(place);
      std::optional<ErrorCode> refusal;
      std::string message;
      const auto said = stage.run([&](Engine& engine, SessionId idle) {
        try {
          method.call(engine, idle);
        } catch (const Error& e) {
          refusal = e.code();
          message = e.what();
        }
      });
      EXPECT_TRUE(stage.arrived());
      EXPECT_EQ(said, undisturbed);
      const bool allowed =
          method.kind == Kind::kAnyTime || (method.kind == Kind::kBooks && between_work);
      EXPECT_EQ(refusal.has_value(), !allowed) << message;
      if (allowed) continue;
      EXPECT_EQ(refusal, ErrorCode::kInvalidArgument);
      EXPECT_NE(message.find("from inside a callback"), std::string::npos) << message;
    }
  }
}

TEST(Hosts, MayAddRequestsInsideACallbackAndTakeThem) {
  EngineOptions options = reference_options();
  options.max_sequences = 2;
  Engine engine(parts(tiny(), options));
  RequestId added = 0;
  GenerateOptions talks = greedy(4);
  talks.on_token = [&](const TokenEvent&) {
    if (added == 0) added = engine.add(prompt_of(5), greedy(3));
    return true;
  };
  engine.generate(prompt_of(), talks);
  while (engine.step()) {
  }
  EXPECT_EQ(engine.take(added)->tokens,
            Engine(parts(tiny(), options)).generate(prompt_of(5), greedy(3)).tokens);
}

// ---- a session while it is fed

TEST(Hosts, ASessionIsNotClosedWhileItIsFed) {
  Engine engine(parts(tiny(), reference_options()));
  const SessionId session = engine.open_session();
  int refused = 0;
  const auto close = [&](int64_t, std::span<const float>) {
    try {
      engine.close_session(session);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument) << e.what();
      ++refused;
    }
    return true;
  };
  const std::vector<TokenId> prompt = prompt_of(5);
  engine.feed(session, prompt, close);
  EXPECT_EQ(refused, 5);
  EXPECT_EQ(engine.session_length(session), 5);
  engine.close_session(session);
  EXPECT_THROW(engine.session_length(session), Error);
  engine.check_integrity();
}

TEST(Hosts, AFeedThatIsRefusedHasNotSaidWhereThePromptEnds) {
  EngineOptions options = reference_options();
  options.kv.block_size = 4;
  options.kv.policy = "snapkv:12";
  options.context = 40;
  Engine engine(parts(tiny(), options));
  const SessionId session = engine.open_session();
  const auto go_on = [](int64_t, std::span<const float>) { return true; };
  EXPECT_THROW(engine.feed(session, prompt_of(50), go_on, 20), Error);
  EXPECT_THROW(engine.feed(session, prompt_of(50), 20), Error);
  engine.feed(session, prompt_of(24), go_on);
  EXPECT_EQ(engine.kv_stats().total.trim_decisions, 0);
}

// ---- destruction

TEST(Hosts, ADestroyedEngineHandsOutNothingMore) {
  EngineOptions options = reference_options();
  options.kv.block_size = 4;
  options.kv.policy = "window:4";
  options.batch_size = 8;
  std::unique_ptr<Engine> engine;
  options.kv.on_event = [&](const KvEvent&) { engine.reset(); };
  engine = std::make_unique<Engine>(parts(tiny(), options));
  int rows_after = 0;
  const auto count = [&](int64_t, std::span<const float>) {
    rows_after += engine == nullptr ? 1 : 0;
    return true;
  };
  EXPECT_THROW(engine->forward(prompt_of(30), count), Error);
  EXPECT_EQ(engine, nullptr);
  EXPECT_EQ(rows_after, 0);
}

TEST(Hosts, MayDestroyTheEngineInsideACallback) {
  const auto rows_end = [](const std::function<void()>& act) {
    try {
      act();
      ADD_FAILURE() << "the call went on without its engine";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCancelled) << e.what();
    }
  };
  for (const Place place : kPlaces) {
    SCOPED_TRACE(static_cast<int>(place));
    const auto policy = std::make_shared<Nosy>();
    policy->lies = place == Place::kLog;
    std::unique_ptr<Engine> engine;
    const auto leave = [&] { engine.reset(); };
    EngineOptions options = reference_options();
    options.kv.block_size = 4;
    options.batch_size = 8;
    options.kv.custom_policy = policy;
    if (place == Place::kOnEvent) options.kv.on_event = [&](const KvEvent&) { leave(); };
    if (place == Place::kTrace) options.kv.trace.sink = [&](std::string_view) { leave(); };
    if (place == Place::kTrim) policy->in_trim = leave;
    engine = std::make_unique<Engine>(parts(tiny(), options));
    const LogHook hook([&](LogLevel, std::string_view) {
      if (place == Place::kLog) leave();
    });
    const auto row = [&](int64_t, std::span<const float>) {
      leave();
      return true;
    };
    if (place == Place::kFeedRows) {
      const SessionId session = engine->open_session();
      rows_end([&] { engine->feed(session, prompt_of(), row); });
    } else if (place == Place::kForwardRows) {
      rows_end([&] { engine->forward(prompt_of(), row); });
    } else {
      GenerateOptions generate = greedy(50);
      generate.on_token = [&](const TokenEvent&) {
        if (place == Place::kOnToken) leave();
        return true;
      };
      EXPECT_EQ(engine->generate(prompt_of(), generate).finish_reason, FinishReason::kCancelled);
    }
    EXPECT_EQ(engine, nullptr);
  }
}

// ---- threads

TEST(Hosts, ASecondThreadThatDrivesIsRefused) {
  Engine engine(parts(tiny(), reference_options()));
  std::atomic<bool> running{false};
  std::atomic<bool> refused{false};
  std::thread other([&] {
    while (!running) std::this_thread::yield();
    try {
      engine.step();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(e.what()).find("second thread"), std::string::npos) << e.what();
    }
    try {
      engine.add(prompt_of());  // the driving thread may, this one may not
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      refused = true;
    }
  });
  GenerateOptions options = greedy(100000);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  options.on_token = [&](const TokenEvent&) {
    running = true;
    // The answer may be over before the other thread gets its turn.
    while (!refused && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    return false;
  };
  engine.generate(prompt_of(), options);
  other.join();
  EXPECT_TRUE(refused);
}

TEST(Hosts, MayLookWhileTheRulesChange) {
  EngineOptions options = reference_options();
  options.context = 64;
  Engine engine(parts(tiny(), options));
  std::atomic<bool> done{false};
  std::thread other([&] {
    while (!done) {
      const std::string rule = engine.options().kv.policy;
      EXPECT_TRUE(rule == "full" || rule == "sink:2+30" || rule == "h2o:32@every:8") << rule;
      EXPECT_EQ(engine.kv_stats().layers.size(), 2U);
      engine.kv_blocks(1);
      engine.kv_events();
      engine.check_integrity();
      EXPECT_GT(engine.memory_bytes(), 0U);
    }
  });
  for (int i = 0; i < (kEmulated ? 3 : 20); ++i) {
    for (const char* rule : {"sink:2+30", "h2o:32@every:8", "full"}) {
      engine.set_kv_policy(rule);
      engine.generate(prompt_of(40), greedy(2));
    }
  }
  done = true;
  other.join();
}

// ---- functions of the host that throw, or are none

/// How often a rule was asked, and what the engine counted, where two texts share a small pool.
struct Asked {
  int64_t asked = 0;
  KvStats stats;
};
Asked ask_beside_another(bool is_elastic, bool scores, bool lies = false) {
  const auto policy = std::make_shared<Counting>(is_elastic, lies);
  EngineOptions options = shared_memory("full", is_elastic ? 40 : 0, 2);
  options.kv.policy = KvOptions().policy;
  options.kv.custom_policy = policy;
  options.kv.trace.scores = scores;
  if (scores) options.kv.trace.sink = [](std::string_view) {};
  Engine engine(tiny(), options);
  policy->asked = 0;
  for (const size_t begin : {0, 7}) engine.add(text_at(begin, 30), greedy(50));
  finish_all(engine);
  return {policy->asked, engine.kv_stats()};
}

TEST(Hosts, ARuleIsAskedOnceForEachDecisionAndAnElasticOneAlsoWhatItWouldGive) {
  const Asked fixed = ask_beside_another(false, false);
  EXPECT_GT(fixed.asked, 20);
  EXPECT_EQ(fixed.asked, fixed.stats.total.trim_decisions);
  const Asked elastic = ask_beside_another(true, false);
  EXPECT_GT(elastic.stats.budget_falls, 1);
  EXPECT_EQ(elastic.stats.reservations_refused, 0);
  EXPECT_GT(elastic.asked, elastic.stats.total.trim_decisions);
  // For the trace once more for each decision, not for what was only considered.
  for (const bool is_elastic : {false, true}) {
    const Asked& before = is_elastic ? elastic : fixed;
    const Asked traced = ask_beside_another(is_elastic, true);
    EXPECT_EQ(traced.asked, before.asked + before.stats.total.trim_decisions);
    EXPECT_EQ(traced.stats.total.trim_decisions, before.stats.total.trim_decisions);
    // All but those for the trace count.
    EXPECT_EQ(ask_beside_another(is_elastic, false, true).stats.policy_violations,
              ask_beside_another(is_elastic, false, true).asked);
    EXPECT_LT(ask_beside_another(is_elastic, true, true).stats.policy_violations,
              ask_beside_another(is_elastic, true, true).asked);
  }
}

TEST(Hosts, HooksThatThrowAreCaughtAndCounted) {
  const auto policy = std::make_shared<Nosy>();
  policy->lies = true;
  EngineOptions options = reference_options();
  options.kv.block_size = 4;
  options.kv.custom_policy = policy;
  int told = 0;
  options.kv.on_event = [&](const KvEvent&) {
    ++told;
    throw std::runtime_error("no ink");
  };
  Engine engine(parts(tiny(), options));
  const auto before = static_cast<int64_t>(log_hook_failures());
  EXPECT_EQ(engine.kv_stats().hook_failures, before);
  int heard = 0;
  {
    const LogHook hook([&](LogLevel, std::string_view) {
      ++heard;
      throw 3;
    });
    EXPECT_EQ(engine.generate(prompt_of(), greedy(8)).tokens.size(), 8U);
  }
  EXPECT_EQ(told, 1);  // not again
  EXPECT_GT(heard, 1);
  EXPECT_EQ(log_hook_failures(), static_cast<uint64_t>(before + heard));
  EXPECT_EQ(engine.kv_stats().hook_failures, before + heard + 1);
  engine.check_integrity();
}

TEST(Hosts, ALogHookMayReplaceItselfAndIsNotToldOfItsOwnDoing) {
  const auto policy = std::make_shared<Nosy>();
  policy->lies = true;
  EngineOptions options = reference_options();
  options.kv.block_size = 4;
  options.kv.custom_policy = policy;
  Engine engine(parts(tiny(), options));
  int first = 0;
  int second = 0;
  const LogHook hook([&](LogLevel, std::string_view) {
    ++first;
    Engine(parts(tiny(), reference_options()));  // says that it was made
    set_log_hook([&second](LogLevel, std::string_view) { ++second; });
  });
  engine.generate(prompt_of(), greedy(8));
  EXPECT_EQ(first, 1);
  EXPECT_GT(second, 0);
}

TEST(Hosts, AProgressCallbackMayUseOtherEnginesAndLoadModels) {
  Engine engine(parts(tiny(), reference_options()));
  int calls = 0;
  LoadOptions options;
  options.on_progress = [&](double) {
    if (++calls > 2) return true;
    EXPECT_EQ(engine.generate(prompt_of(), greedy(2)).tokens.size(), 2U);
    EXPECT_NE(Model::load(golden("gqa1-default")), nullptr);
    return true;
  };
  EXPECT_NE(Model::load(golden("gqa1-Q8_0.gguf"), options), nullptr);
  EXPECT_GT(calls, 0);
  options.on_progress = [](double) -> bool { throw std::runtime_error("the host's own"); };
  EXPECT_THROW(Model::load(golden("gqa1-Q8_0.gguf"), options), std::runtime_error);
}

TEST(Hosts, WhatARowCallbackThrowsLeavesTheCallAndTheChunksFedStay) {
  EngineOptions options = reference_options();
  options.batch_size = 8;
  Engine engine(parts(tiny(), options));
  const SessionId session = engine.open_session();
  const auto throws_at = [](int64_t at) {
    return [at](int64_t position, std::span<const float>) -> bool {
      if (position == at) throw std::runtime_error("the host's own");
      return true;
    };
  };
  EXPECT_THROW(engine.feed(session, prompt_of(), throws_at(10)), std::runtime_error);
  EXPECT_EQ(engine.session_length(session), 16);
  EXPECT_THROW(engine.forward(prompt_of(), throws_at(3)), std::runtime_error);
  const std::vector<TokenId> all = prompt_of();
  engine.feed(session, std::span(all).last(8));
  EXPECT_EQ(engine.session_length(session), 24);
  engine.check_integrity();
}

TEST(Hosts, WhatIsNoneOfTheNamedValuesIsRefused) {
  const auto with = [](const std::function<void(EngineOptions&)>& change) {
    return refusal_of([&] {
      EngineOptions options;
      change(options);
      Engine engine(parts(tiny(), options));
    });
  };
  EXPECT_NE(with([](EngineOptions& o) { o.precision = static_cast<Precision>(7); }).find("7"),
            std::string::npos);
  EXPECT_NE(with([](EngineOptions& o) { o.kv.type = static_cast<KvType>(-3); }).find("-3"),
            std::string::npos);
  struct Lost final : EvictionPolicy {
    std::string name() const override { return "lost"; }
    Positions positions() const override { return static_cast<Positions>(9); }
  };
  const std::string lost =
      with([](EngineOptions& o) { o.kv.custom_policy = std::make_shared<Lost>(); });
  EXPECT_NE(lost.find("lost"), std::string::npos);
  EXPECT_NE(lost.find("9"), std::string::npos);

  Engine engine(parts(tiny(), reference_options()));
  const SessionId session = engine.open_session();
  EXPECT_NE(refusal_of([&] { engine.feed(session, prompt_of(), nullptr); }).find("on_logits"),
            std::string::npos);
  EXPECT_NE(refusal_of([&] { engine.forward(prompt_of(), nullptr); }).find("on_logits"),
            std::string::npos);
  EXPECT_EQ(engine.session_length(session), 0);
  std::vector<Victim> victims;
  EXPECT_NE(refusal_of([&] { rank_blocks({}, 1, victims, nullptr); }).find("score"),
            std::string::npos);
  GenerateOptions many = greedy(1);
  many.logprobs = kMaxLogprobs + 1;
  EXPECT_NE(refusal_of([&] { engine.generate(prompt_of(), many); }).find("logprobs"),
            std::string::npos);
}

}  // namespace
}  // namespace paddock::test
