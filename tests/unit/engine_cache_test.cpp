// What a host can ask of the cache and change about it: rewinding, other rules, snapshots.
#include <atomic>
#include <thread>

#include "support/small_requests.h"

namespace paddock::test {
namespace {

EngineOptions with_policy(const std::string& policy) {
  EngineOptions options = reference_options();
  options.kv.policy = policy;
  options.kv.block_size = 4;
  return options;
}

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
  ADD_FAILURE() << "no error was thrown";
  return "";
}

std::vector<float> copy(std::span<const float> row) { return {row.begin(), row.end()}; }

TEST(Truncate, ThenContinuingEqualsNeverHavingFedTheRest) {
  const std::vector<TokenId> tokens = golden_tokens();
  const auto all = std::span(tokens);
  // Under windows of 20 the lengths near the end still find all they see; those before do not.
  const std::vector<std::pair<std::string, std::vector<size_t>>> cases = {
      {"full", {1, 4, 21, 24, 30}},    {"window:40", {1, 4, 21, 24, 30}},
      {"sink:3+40", {1, 2, 3, 4, 30}}, {"0=full,1=sink:2+40", {1, 2, 24, 30}},
      {"window:20", {31, 32}},         {"sink:3+20", {31, 32}},
      {"random:40@every:8", {30}}};
  for (const auto& [policy, lengths] : cases) {
    for (const size_t length : kEmulated ? std::vector{lengths.back()} : lengths) {
      Engine engine(parts(tiny(), with_policy(policy)));
      const SessionId session = engine.open_session();
      engine.feed(session, all.first(33));
      engine.truncate(session, static_cast<int64_t>(length));
      engine.check_integrity();
      EXPECT_EQ(engine.session_length(session), static_cast<int64_t>(length));
      const std::vector<float> again = copy(engine.feed(session, all.subspan(40, 9)));
      engine.check_integrity();

      Engine fresh(parts(tiny(), with_policy(policy)));
      const SessionId other = fresh.open_session();
      fresh.feed(other, all.first(length));
      EXPECT_EQ(copy(fresh.feed(other, all.subspan(40, 9))), again) << policy << " to " << length;
    }
  }
}

TEST(Truncate, AnAnswerCanBeGeneratedAgain) {
  const std::vector<TokenId> tokens = golden_tokens();
  const auto prompt = std::span(tokens).first(12);
  Engine engine(parts(tiny(), with_policy("sink:2+40")));
  const SessionId session = engine.open_session();
  engine.generate(session, prompt, greedy(5));
  const int64_t before = engine.session_length(session);
  const auto next = std::span(tokens).subspan(20, 4);
  const GenerateResult first = engine.generate(session, next, greedy(8));
  engine.truncate(session, before);
  EXPECT_EQ(engine.session_length(session), before);
  const GenerateResult second = engine.generate(session, next, greedy(8));
  EXPECT_EQ(first.tokens, second.tokens);
  engine.check_integrity();
}

TEST(Truncate, RefusesWhatIsGoneAndChangesNothing) {
  const std::vector<TokenId> tokens = golden_tokens();
  const auto all = std::span(tokens);
  for (const std::string policy :
       {"window:8", "sink:3+9", "h2o:32@every:8", "knorm:32@every:8", "random:24@every:8"}) {
    if (kEmulated && (policy[0] == 'w' || policy[0] == 'r')) continue;  // slow; nothing is measured
    Engine engine(parts(tiny(), with_policy(policy)));
    const SessionId session = engine.open_session();
    engine.feed(session, all.first(50));
    EXPECT_NE(message_of([&] { engine.truncate(session, 11); }).find("cannot truncate"),
              std::string::npos);
    EXPECT_EQ(engine.session_length(session), 50);
    engine.check_integrity();
    for (const int64_t length : {51, -1}) {
      EXPECT_EQ(message_of([&] { engine.truncate(session, length); }),
                "cannot truncate a session of 50 positions to " + std::to_string(length));
    }
    engine.truncate(session, 0);  // always possible
    engine.check_integrity();
    EXPECT_EQ(engine.kv_stats().total.pages_active, 0);
    const std::vector<float> again = copy(engine.feed(session, all.first(50)));
    Engine fresh(parts(tiny(), with_policy(policy)));
    const SessionId other = fresh.open_session();
    EXPECT_EQ(copy(fresh.feed(other, all.first(50))), again) << policy;
  }
}

TEST(SetPolicy, TakesEffectBetweenRequestsAndCountersGoOn) {
  const std::vector<TokenId> tokens = golden_tokens();
  const auto prompt = std::span(tokens).first(40);
  const int32_t n = kEmulated ? 10 : 30;
  Engine engine(parts(tiny(), with_policy("full")));
  const auto under = [&](const std::string& policy) {
    Engine own(parts(tiny(), with_policy(policy)));
    return own.generate(prompt, greedy(n)).tokens;
  };
  EXPECT_EQ(engine.generate(prompt, greedy(n)).tokens, under("full"));
  const int64_t written = engine.kv_stats().tokens_written;
  for (const std::string policy :
       {"sink:2+8", "h2o:24@every:8@compact", "0=tova:16@every:4,1=full"}) {
    engine.set_kv_policy(policy);
    EXPECT_EQ(engine.options().kv.policy, policy);
    EXPECT_EQ(engine.generate(prompt, greedy(n)).tokens, under(policy)) << policy;
    engine.check_integrity();
  }
  EXPECT_EQ(engine.kv_stats().tokens_written, 4 * written);
  EXPECT_EQ(engine.kv_stats().layers[1].policy, "full");
}

TEST(SetPolicy, RefusesWhatCannotBe) {
  EngineOptions options = with_policy("sink:2+8");
  options.batch_size = 8;
  options.context = 100;
  Engine engine(parts(tiny(), options));
  message_of([&] { engine.set_kv_policy("nope:3"); });
  message_of([&] { engine.set_kv_policy(std::shared_ptr<const EvictionPolicy>()); });
  try {
    engine.set_kv_policy("sink:2+90");  // the pool was made for less
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory);
  }
  const SessionId session = engine.open_session();
  message_of([&] { engine.set_kv_policy("sink:2+4"); });
  engine.close_session(session);
  EXPECT_EQ(engine.options().kv.policy, "sink:2+8");
  engine.set_kv_policy("sink:2+4");
  const std::vector<TokenId> tokens = golden_tokens();
  EXPECT_EQ(engine.generate(std::span(tokens).first(20), greedy(5)).tokens.size(), 5U);
}

/// A rule of the host's own: the oldest blocks leave.
class Oldest final : public EvictionPolicy {
 public:
  explicit Oldest(int32_t budget) : budget_(budget) {}
  std::string name() const override { return "oldest:" + std::to_string(budget_); }
  TrimSchedule schedule(int32_t, int32_t) const override { return {.budget = budget_, .every = 8}; }
  void trim(const LayerView& view, int64_t n_tokens, std::vector<Victim>& victims) const override {
    rank_blocks(view, n_tokens, victims,
                [&](int32_t i) { return static_cast<double>(view.blocks[i].first_position); });
  }

 private:
  int32_t budget_;
};

TEST(CustomPolicies, AreNamedInSpecsLayerByLayer) {
  const std::vector<TokenId> tokens = golden_tokens();
  EngineOptions options = with_policy("0=full,*=oldest:16");
  options.kv.custom_policies = {{"oldest", [](std::string_view arguments) {
                                   return std::make_shared<Oldest>(
                                       std::stoi(std::string(arguments)));
                                 }}};
  Engine engine(parts(tiny(), options));
  all_logits(engine, tokens);
  KvStats stats = engine.kv_stats();
  const auto trimmed = [](const KvLayerStats& layer) {
    return layer.pages_removed[static_cast<size_t>(RemovalReason::kPolicyTrim)];
  };
  EXPECT_EQ(stats.layers[0].policy, "full");
  EXPECT_EQ(trimmed(stats.layers[0]), 0);
  EXPECT_EQ(stats.layers[1].policy, "oldest:16");
  // After the last decision 16 positions are left, in blocks of 4.
  EXPECT_EQ(trimmed(stats.layers[1]), (static_cast<int64_t>(tokens.size()) / 8 * 8 - 16) / 4);
  EXPECT_EQ(stats.policy_violations, 0);

  engine.set_kv_policy("0=oldest:24,*=full");
  EXPECT_EQ(engine.kv_stats().layers[0].policy, "oldest:24");
  EXPECT_EQ(engine.options().kv.policy, "0=oldest:24,*=full");
  const std::string refusal = message_of([&] { engine.set_kv_policy("*=eldest:24"); });
  EXPECT_NE(refusal.find("oldest (the host's own)"), std::string::npos) << refusal;
  message_of([&] { engine.set_kv_policy("oldest:x"); });  // what stoi() throws
  EXPECT_EQ(engine.kv_stats().layers[0].policy, "oldest:24");

  options.kv.policy = "eldest:16";
  EXPECT_NE(message_of([&] { Engine(parts(tiny(), options)); }).find("oldest (the host's own)"),
            std::string::npos);
}

/// Throws where it is told to.
class Thrower final : public EvictionPolicy {
 public:
  explicit Thrower(std::string where) : where_(std::move(where)) {}
  std::string name() const override { return at("name"), "thrower"; }
  TokenVisibility visibility(int32_t) const override { return at("visibility"), TokenVisibility{}; }
  Positions positions() const override { return at("positions"), Positions::kOriginal; }
  PolicyNeeds needs() const override { return at("needs"), PolicyNeeds{}; }
  TrimSchedule schedule(int32_t, int32_t) const override { return at("schedule"), TrimSchedule{}; }

 private:
  void at(const std::string& place) const {
    if (where_ == place) throw std::runtime_error("the stars are wrong");
    if (where_ == place + " int") throw 7;
    if (where_ == place + " Error") throw Error(ErrorCode::kInvalidArgument, "as it is");
  }
  std::string where_;
};

TEST(CustomPolicies, WhatTheyThrowWhenAskedIsAnErrorThatNamesThem) {
  Engine engine(parts(tiny(), with_policy("sink:2+8")));
  for (const std::string place : {"name", "visibility", "positions", "needs", "schedule"}) {
    for (const std::string what : {"", " int", " Error"}) {
      EngineOptions options = with_policy("full");
      options.kv.custom_policies = {
          {"thrower", [&](std::string_view) { return std::make_shared<Thrower>(place + what); }}};
      options.kv.policy = "0=full,*=thrower";
      const std::string by_name = message_of([&] { Engine(parts(tiny(), options)); });
      options.kv.custom_policy = std::make_shared<Thrower>(place + what);
      const std::string as_object = message_of([&] { Engine(parts(tiny(), options)); });
      const std::string later =
          message_of([&] { engine.set_kv_policy(std::make_shared<Thrower>(place + what)); });
      for (const std::string& said : {by_name, as_object, later}) {
        const auto says = [&](const std::string& text) {
          EXPECT_NE(said.find(text), std::string::npos) << said;
        };
        if (what == " Error") {
          EXPECT_EQ(said, "as it is");
          continue;
        }
        says(place == "name" ? "policy ''" : "policy 'thrower'");
        says(place + "() threw");
        says(what.empty() ? "the stars are wrong" : "no std::exception");
      }
      EXPECT_EQ(engine.options().kv.policy, "sink:2+8");
      engine.check_integrity();
    }
  }
  const std::vector<TokenId> tokens = golden_tokens();
  EXPECT_EQ(engine.generate(std::span(tokens).first(20), greedy(5)).tokens.size(), 5U);
}

TEST(CustomPolicies, AreCheckedEvenIfNoSpecNamesThem) {
  for (const char* name : {"", "9lives", "a=b", "full", "h2o"}) {
    EngineOptions options = with_policy("full");
    options.kv.custom_policy = std::make_shared<Oldest>(16);
    options.kv.custom_policies = {
        {name, [](std::string_view) { return std::make_shared<Oldest>(16); }}};
    EXPECT_NE(
        message_of([&] { Engine(parts(tiny(), options)); }).find("'" + std::string(name) + "'"),
        std::string::npos);
    options.kv.custom_policies = {{"oldest", nullptr}};
    EXPECT_NE(message_of([&] { Engine(parts(tiny(), options)); }).find("'oldest' has no function"),
              std::string::npos);
  }
}

TEST(Feed, KeepsWhatIsPendingAndNotFedWhereItFails) {
  const std::vector<TokenId> tokens = golden_tokens();
  const auto all = std::span(tokens);
  EngineOptions options = with_policy("full");
  options.context = 64;
  options.batch_size = 8;
  // What a session holds tells itself by the logits that follow.
  const auto follows = [&](const std::vector<TokenId>& held, size_t from, size_t n) {
    std::vector<TokenId> joined = held;
    joined.insert(joined.end(), tokens.begin() + from, tokens.begin() + from + n);
    Engine fresh(parts(tiny(), options));
    return copy(fresh.feed(fresh.open_session(), joined));
  };
  Engine engine(parts(tiny(), options));
  const auto started = [&](std::vector<TokenId>& held) {
    const SessionId session = engine.open_session();
    held.assign(tokens.begin(), tokens.begin() + 12);
    const GenerateResult said = engine.generate(session, all.first(12), greedy(3));
    held.insert(held.end(), said.tokens.begin(), said.tokens.end());
    EXPECT_EQ(engine.session_length(session), 15);  // the last one pending
    return session;
  };

  // Refused before anything is fed, by both forms.
  std::vector<TokenId> held;
  SessionId session = started(held);
  message_of([&] { engine.feed(session, all.first(50)); });
  message_of([&] {
    engine.feed(session, all.first(50), [](int64_t, std::span<const float>) { return true; });
  });
  EXPECT_EQ(engine.session_length(session), 15);
  EXPECT_EQ(copy(engine.feed(session, all.subspan(20, 5))), follows(held, 20, 5));
  engine.close_session(session);

  // A callback that throws, or stops, after the first chunk of 8: the pending token and 7 more.
  for (const bool throws : {false, true}) {
    session = started(held);
    const auto stop = [&](int64_t position, std::span<const float>) {
      if (throws && position == 16) throw std::runtime_error("enough");
      return position < 16;
    };
    const auto feed = [&] { engine.feed(session, all.subspan(20, 30), stop); };
    if (throws) {
      EXPECT_THROW(feed(), std::runtime_error);
    } else {
      feed();
    }
    EXPECT_EQ(engine.session_length(session), 15 + 7);
    held.insert(held.end(), tokens.begin() + 20, tokens.begin() + 27);
    EXPECT_EQ(copy(engine.feed(session, all.subspan(30, 3))), follows(held, 30, 3)) << throws;
    engine.check_integrity();
    engine.close_session(session);
  }

  // cancel() in mid-feed.
  session = started(held);
  try {
    engine.feed(session, all.subspan(20, 30), [&](int64_t position, std::span<const float>) {
      if (position == 21) engine.cancel();
      return true;
    });
    ADD_FAILURE() << "it was cancelled";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCancelled);
  }
  EXPECT_EQ(engine.session_length(session), 15 + 7);
  engine.close_session(session);

  // A pool that is full before the pending token: it stays pending, and truncate() finds it.
  options.kv.budget_bytes = 2 * 4 * engine.kv_stats().page_bytes;  // 16 positions, two layers
  Engine small(parts(tiny(), options));
  session = small.open_session();
  small.generate(session, all.first(14), greedy(3));
  try {
    small.feed(session, all.subspan(20, 7));
    ADD_FAILURE() << "the pool was not full";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory);
  }
  EXPECT_EQ(small.session_length(session), 17);
  small.truncate(session, 12);
  held.assign(tokens.begin(), tokens.begin() + 12);
  EXPECT_EQ(copy(small.feed(session, all.subspan(20, 2))), follows(held, 20, 2));
  small.check_integrity();
}

TEST(Blocks, TellWhatIsResidentAndWhatItReceived) {
  EngineOptions options = with_policy("0=h2o:32@every:8,1=sink:2+6");
  Engine engine(parts(tiny(), options));
  const SessionId session = engine.open_session();
  const std::vector<TokenId> tokens = golden_tokens();
  engine.feed(session, std::span(tokens).first(48));
  const std::vector<KvBlock> scored = engine.kv_blocks(0);
  double mass = 0;
  int64_t n = 0;
  for (const KvBlock& block : scored) {
    mass += block.mass;
    n += block.n_tokens;
    EXPECT_GE(block.last_used, block.first_position);
  }
  EXPECT_EQ(n, engine.kv_stats().layers[0].tokens_resident);
  EXPECT_LE(n, 32);
  // Every query gives each of the four heads' probability 1 to what it sees.
  EXPECT_LT(mass, 4.0 * 48 + 1e-3);
  EXPECT_GT(mass, 4.0 * 16);
  const std::vector<KvBlock> sinks = engine.kv_blocks(1);
  EXPECT_EQ(sinks.front().query_cap, 2 + 6 - 1);
  EXPECT_EQ(sinks.back().query_cap, kUnlimited);
  EXPECT_EQ(sinks.back().last_used, -1);
  message_of([&] { engine.kv_blocks(2); });
}

TEST(Snapshots, MayBeTakenFromAnyThreadWhileTheEngineRuns) {
  EngineOptions options = with_policy("0=lru:32@every:8,1=sink:2+6");
  options.max_sequences = 3;
  Engine engine(parts(tiny(), options));
  std::atomic<bool> done{false};
  std::atomic<int64_t> snapshots{0};
  std::thread reader([&] {
    int64_t steps = 0;
    uint64_t next = 0;
    while (!done) {
      const KvStats stats = engine.kv_stats();
      EXPECT_GE(stats.steps, steps);
      steps = stats.steps;
      EXPECT_EQ(stats.pages_free + stats.total.pages_active, stats.pool_pages);
      for (const KvEvent& event : engine.kv_events(next)) next = event.number + 1;
      int64_t n = 0;
      for (const KvBlock& block : engine.kv_blocks(1)) n += block.n_tokens;
      EXPECT_LE(n, stats.pool_pages * stats.block_size);
      ++snapshots;
    }
  });
  const std::vector<TokenId> tokens = golden_tokens();
  const int32_t n = kEmulated ? 20 : 60;  // to 40 positions at least: the rule decides there
  for (int i = 0; i < 6; ++i) engine.add(std::span(tokens).subspan(i, 20 + i), greedy(n));
  while (engine.step()) engine.check_integrity();
  done = true;
  reader.join();
  EXPECT_GT(snapshots, 3);
  const KvStats stats = engine.kv_stats();
  EXPECT_EQ(stats.total.pages_active, 0);
  EXPECT_GT(stats.layers[0].pages_removed[static_cast<size_t>(RemovalReason::kPolicyTrim)], 0);
}

}  // namespace
}  // namespace paddock::test
