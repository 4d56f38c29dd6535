// What a host can ask of the cache and change about it: rewinding, other rules, snapshots.
#include <atomic>
#include <thread>

#include "support/golden.h"

namespace paddock::test {
namespace {

std::shared_ptr<const Model> tiny() {
  static const auto model = Model::load(golden("gqa1-Q8_0.gguf"));
  return model;
}

EngineOptions with_policy(const std::string& policy) {
  EngineOptions options = reference_options();
  options.kv.policy = policy;
  options.kv.block_size = 4;
  return options;
}

GenerateOptions greedy(int32_t n) {
  GenerateOptions options;
  options.max_tokens = n;
  options.sampling.temperature = 0;
  options.ignore_stop_tokens = true;
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
    for (const size_t length : lengths) {
      Engine engine(tiny(), with_policy(policy));
      const SessionId session = engine.open_session();
      engine.feed(session, all.first(33));
      engine.truncate(session, static_cast<int64_t>(length));
      engine.check_integrity();
      EXPECT_EQ(engine.session_length(session), static_cast<int64_t>(length));
      const std::vector<float> again = copy(engine.feed(session, all.subspan(40, 9)));
      engine.check_integrity();

      Engine fresh(tiny(), with_policy(policy));
      const SessionId other = fresh.open_session();
      fresh.feed(other, all.first(length));
      EXPECT_EQ(copy(fresh.feed(other, all.subspan(40, 9))), again) << policy << " to " << length;
    }
  }
}

TEST(Truncate, AnAnswerCanBeGeneratedAgain) {
  const std::vector<TokenId> tokens = golden_tokens();
  const auto prompt = std::span(tokens).first(12);
  Engine engine(tiny(), with_policy("sink:2+40"));
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
    Engine engine(tiny(), with_policy(policy));
    const SessionId session = engine.open_session();
    engine.feed(session, all.first(50));
    EXPECT_NE(message_of([&] { engine.truncate(session, 11); }).find("cannot truncate"),
              std::string::npos);
    EXPECT_EQ(engine.session_length(session), 50);
    engine.check_integrity();
    message_of([&] { engine.truncate(session, 51); });
    message_of([&] { engine.truncate(session, -1); });
    engine.truncate(session, 0);  // always possible
    engine.check_integrity();
    EXPECT_EQ(engine.kv_stats().total.pages_active, 0);
    const std::vector<float> again = copy(engine.feed(session, all.first(50)));
    Engine fresh(tiny(), with_policy(policy));
    const SessionId other = fresh.open_session();
    EXPECT_EQ(copy(fresh.feed(other, all.first(50))), again) << policy;
  }
}

TEST(SetPolicy, TakesEffectBetweenRequestsAndCountersGoOn) {
  const std::vector<TokenId> tokens = golden_tokens();
  const auto prompt = std::span(tokens).first(40);
  Engine engine(tiny(), with_policy("full"));
  const auto under = [&](const std::string& policy) {
    Engine own(tiny(), with_policy(policy));
    return own.generate(prompt, greedy(30)).tokens;
  };
  EXPECT_EQ(engine.generate(prompt, greedy(30)).tokens, under("full"));
  const int64_t written = engine.kv_stats().tokens_written;
  for (const std::string policy :
       {"sink:2+8", "h2o:24@every:8@compact", "0=tova:16@every:4,1=full"}) {
    engine.set_kv_policy(policy);
    EXPECT_EQ(engine.options().kv.policy, policy);
    EXPECT_EQ(engine.generate(prompt, greedy(30)).tokens, under(policy)) << policy;
    engine.check_integrity();
  }
  EXPECT_EQ(engine.kv_stats().tokens_written, 4 * written);
  EXPECT_EQ(engine.kv_stats().layers[1].policy, "full");
}

TEST(SetPolicy, RefusesWhatCannotBe) {
  EngineOptions options = with_policy("sink:2+8");
  options.batch_size = 8;
  options.context = 100;
  Engine engine(tiny(), options);
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
  Engine engine(tiny(), options);
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
  EXPECT_NE(message_of([&] { Engine(tiny(), options); }).find("oldest (the host's own)"),
            std::string::npos);
}

TEST(Blocks, TellWhatIsResidentAndWhatItReceived) {
  EngineOptions options = with_policy("0=h2o:32@every:8,1=sink:2+6");
  Engine engine(tiny(), options);
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
  Engine engine(tiny(), options);
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
  for (int i = 0; i < 6; ++i) engine.add(std::span(tokens).subspan(i, 20 + i), greedy(60));
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
