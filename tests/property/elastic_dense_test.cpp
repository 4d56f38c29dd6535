// Elastic rules in pools that are too small, many texts at once under several rules, against the
// oracle that keeps everything: texts that begin alike, several answers to one prompt, sessions
// that are forked, taken back and fed, sequences that are parked and computed again. In every run
// some random orders of all that; as many as PADDOCK_SEEDS says where that is set, or one alone,
// PADDOCK_SEED.
#include <cstdlib>
#include <random>

#include "kv/policy_map.h"
#include "support/followed_texts.h"
#include "support/golden.h"
#include "support/rule_examples.h"
#include "support/small_requests.h"
#include "support/tiny_model.h"

namespace paddock::test {
namespace {

constexpr double kTolerance = 5e-5;

/// Two layers with two query heads per KV head and with eight, and five layers.
const std::vector<std::shared_ptr<const Model>>& models() {
  static const TemporaryFolder folder;
  static const std::vector<std::shared_ptr<const Model>> all = {
      Model::load(golden("gqa2-linear")), Model::load(golden("gqa8-yarn")),
      tiny_model(folder, {.n_layers = 5, .n_heads = 6, .n_kv_heads = 2}, 5)};
  return all;
}

/// Elastic ones, alone and beside others.
const std::vector<std::string>& elastic_specs() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> specs = {"0=full,*=lru@every:8",
                                      "0=lru@every:4,*=sink:4@every:8",
                                      "0=sink:4+20,*=h2o@every:8",
                                      "0=window:30,*=tova@every:6@compact",
                                      "0=knorm@every:16,*=cake:h2o@every:8@compact",
                                      "0=full,*=window@every:5@compact",
                                      "0=h2o:48@every:8,*=lru@every:16@compact"};
    for (const RuleExample& example : elastic_examples()) specs.push_back(example.policy);
    return specs;
  }();
  return all;
}

/// Texts of one number begin alike.
std::vector<TokenId> text_of(int number, int64_t n) {
  std::mt19937 random(static_cast<uint32_t>(number + 1));
  std::vector<TokenId> tokens;
  for (int64_t i = 0; i < n; ++i) tokens.push_back(static_cast<TokenId>(random() % 96));
  return tokens;
}

/// What came of several runs.
struct Sum {
  FollowedTexts::Counts followed;
  int64_t falls = 0, lifts = 0, preemptions = 0, parked = 0, truncations = 0, session_forks = 0;
};

class Run {
 public:
  Run(uint32_t seed, int32_t block) : random_(seed), block_(block) {
    const auto& model = models()[static_cast<size_t>(draw(0, block > 16 ? 1 : 2))];
    options_ = reference_options();
    options_.threads = 1;
    options_.context = 640;
    options_.batch_size = std::array{1, 3, 8, 24, 64, 512}[static_cast<size_t>(draw(0, 5))];
    options_.mixed_prefill = draw(1, 64);
    options_.max_sequences = block > 16 ? draw(2, 4) : draw(4, 8);
    options_.kv.block_size = block;
    options_.kv.type = KvType::kF32;
    options_.kv.reuse = draw(0, 4) > 0;
    options_.kv.policy = draw_elastic();
    options_.kv.other_policies = {draw_elastic(), draw_elastic()};
    if (draw(0, 2) == 0) {
      options_.kv.other_policies.emplace_back(draw(0, 1) == 0 ? "sink:4+20" : "tova:140");
    }
    find_pool(model);
    followed_.emplace(model, options_);
  }

  std::string told() const {
    return fmt::format("{} and {}, blocks of {}, batches of {}, {} sequences in {} pages",
                       options_.kv.policy, fmt::join(options_.kv.other_policies, " "), block_,
                       options_.batch_size, options_.max_sequences,
                       followed_->inside().setup.pool.n_pages);
  }

  void run(int n_acts, Sum& sum) {
    Engine& engine = followed_->engine();
    open();
    for (int i = 0; i < n_acts && !testing::Test::HasFailure(); ++i) act();
    for (int steps = 0; engine.step() && !testing::Test::HasFailure(); ++steps) {
      engine.check_integrity();
      ASSERT_LT(steps, 20'000) << "nobody gets on";
    }
    if (testing::Test::HasFailure()) return;
    EXPECT_LT(followed_->error(), kTolerance);
    EXPECT_EQ(engine.kv_stats().policy_violations, 0);
    for (const SessionId id : sessions_) engine.close_session(id);
    expect_nothing_held(engine);
    sum.followed += followed_->counts();
    sum.falls += engine.kv_stats().budget_falls;
    sum.lifts += engine.kv_stats().budget_lifts;
    sum.preemptions += followed_->inside().scheduler->preemptions();
    sum.parked += n_parked_;
    sum.truncations += n_truncated_;
    sum.session_forks += n_forked_;
  }

 private:
  int draw(int from, int to) { return std::uniform_int_distribution<int>(from, to)(random_); }

  /// With large blocks a pyramid's least budget is longer than the texts here, and that of one
  /// with a budget of 48 more than that.
  std::string draw_elastic() {
    const std::vector<std::string>& all = elastic_specs();
    for (;;) {
      const std::string& spec = all[static_cast<size_t>(draw(0, static_cast<int>(all.size()) - 1))];
      const bool is_large =
          spec.find("pyramid") != std::string::npos || spec.find(":48") != std::string::npos;
      if (block_ <= 16 || !is_large) return spec;
    }
  }

  /// Little more than what the rules need, so that several texts have to share it.
  void find_pool(const std::shared_ptr<const Model>& model) {
    options_.kv.budget_bytes = 1;
    int64_t page_bytes = 0;
    for (int tries = 0; page_bytes == 0 && tries < 8; ++tries) {
      try {
        page_bytes = Engine(model, options_).kv_stats().page_bytes;
      } catch (const Error& e) {
        if (e.proposals().empty()) throw;
        options_ = with_proposal(options_, e.proposals()[0]);
      }
    }
    const auto least = static_cast<int64_t>(options_.kv.budget_bytes) / page_bytes;
    const int64_t pages = least + least * draw(0, 12) / 8;
    positions_ = pages * block_ / model->info().n_layers;
    options_.kv.budget_bytes = static_cast<uint64_t>(pages * page_bytes);
  }

  std::string draw_policy() {
    const auto& others = options_.kv.other_policies;
    const int at = draw(0, static_cast<int>(others.size()));
    return at == 0 ? std::string() : others[static_cast<size_t>(at) - 1];
  }
  /// Most positions that a text gets in one go.
  int most(double part) const {
    return static_cast<int>(
        std::min(block_ > 16 ? 420.0 : 260.0, part * static_cast<double>(positions_)));
  }
  std::vector<TokenId> draw_text(int most) {
    std::vector<TokenId> tokens = text_of(draw(0, 2), draw(1, std::max(1, most)));
    if (draw(0, 1) == 0) tokens.back() = static_cast<TokenId>(draw(0, 95));
    return tokens;
  }
  GenerateOptions draw_options() {
    GenerateOptions options = greedy(draw(1, std::max(2, most(0.6))));
    options.sampling.temperature = draw(0, 1) == 0 ? 0.0F : 1.1F;
    options.sampling.seed = static_cast<uint64_t>(draw(0, 2));
    options.priority = draw(-1, 1);
    options.lossless = draw(0, 7) == 0;
    return options;
  }

  /// The engine may find no page or place, and says so.
  template <typename Fn>
  static bool allowed(const Fn& fn) {
    try {
      fn();
    } catch (const Error& e) {
      EXPECT_TRUE(e.code() == ErrorCode::kOutOfMemory || e.code() == ErrorCode::kInvalidArgument)
          << e.what();
      return false;
    }
    return true;
  }
  /// One that no request uses; 0: none.
  SessionId idle_session() {
    for (const SessionId id : sessions_) {
      if (!followed_->inside().sessions.at(id)->busy && draw(0, 1) == 0) return id;
    }
    return 0;
  }

  void act() {
    Engine& engine = followed_->engine();
    const int what = draw(0, 23);
    const SessionId session = what < 12 ? idle_session() : 0;
    if (what < 4 && session != 0) {
      const std::vector<TokenId> text = draw_text(most(0.4));
      allowed([&] { requests_.push_back(engine.add(session, text, draw_options())); });
    } else if (what < 6 && session != 0) {
      const std::vector<TokenId> text = draw_text(most(0.4));
      allowed([&] { engine.feed(session, text); });
    } else if (what < 8 && session != 0) {
      truncate(session);
    } else if (what < 10 && session != 0) {
      fork(session);
    } else if (what == 10 && session != 0) {
      Sequence& sequence = followed_->inside().sessions.at(session)->sequence;
      if (sequence.is_open() && sequence.computed() > 0) {
        sequence.park();
        ++n_parked_;
      }
    } else if (what == 11 && session != 0 && draw(0, 1) == 0) {
      engine.close_session(session);
      std::erase(sessions_, session);
    } else if (what < 14) {
      open();
    } else if (what < 18) {
      GenerateOptions options = draw_options();
      options.kv_policy = draw_policy();
      options.n = std::max(1, draw(-1, 3));
      const std::vector<TokenId> text = draw_text(most(0.7));
      allowed([&] { requests_.push_back(engine.add(text, options)); });
    } else if (what == 18 && !requests_.empty()) {
      engine.cancel(
          requests_[static_cast<size_t>(draw(0, static_cast<int>(requests_.size()) - 1))]);
    } else {
      for (int steps = draw(1, 24); steps > 0; --steps) engine.step();
    }
    engine.check_integrity();
  }

  void open() {
    // One place stays for the others.
    if (static_cast<int32_t>(sessions_.size()) + 1 >= options_.max_sequences) return;
    allowed([&] {
      sessions_.push_back(followed_->engine().open_session({.kv_policy = draw_policy()}));
    });
  }
  void truncate(SessionId id) {
    Engine& engine = followed_->engine();
    const int64_t length = engine.session_length(id);
    const int64_t to = draw(0, 7) == 0 ? 0 : std::max<int64_t>(0, length - draw(0, 2 * block_ + 8));
    if (!allowed([&] { engine.truncate(id, to); })) return;
    followed_->truncated(id, to);
    n_truncated_ += to < length ? 1 : 0;
  }
  void fork(SessionId id) {
    if (static_cast<int32_t>(sessions_.size()) + 1 >= options_.max_sequences) return;
    if (!allowed([&] { sessions_.push_back(followed_->engine().fork_session(id)); })) return;
    followed_->forked(id, sessions_.back());
    ++n_forked_;
  }

  std::mt19937 random_;
  int32_t block_;
  EngineOptions options_;
  int64_t positions_ = 0;  // that the pool holds, in every layer
  std::optional<FollowedTexts> followed_;
  std::vector<SessionId> sessions_;
  std::vector<RequestId> requests_;
  int64_t n_parked_ = 0, n_truncated_ = 0, n_forked_ = 0;
};

void run_seed(uint32_t seed, int32_t block, Sum& sum) {
  Run run(seed, block);
  SCOPED_TRACE(fmt::format("seed {}: {}", seed, run.told()));
  run.run(block > 16 ? 30 : 50, sum);
}

class ElasticDense : public testing::TestWithParam<int32_t> {};
INSTANTIATE_TEST_SUITE_P(Property, ElasticDense, testing::Values(1, 7, 16, 64),
                         testing::PrintToStringParamName());

TEST_P(ElasticDense, AnyOrderInOnePoolEqualsTheOracle) {
  const int32_t block = GetParam();
  const char* one = std::getenv("PADDOCK_SEED");
  const char* seeds = std::getenv("PADDOCK_SEEDS");
  const int n = seeds == nullptr ? 8 : std::atoi(seeds);
  Sum sum;
  if (one != nullptr) return run_seed(static_cast<uint32_t>(std::atoi(one)), block, sum);
  for (uint32_t seed = 1; seed <= static_cast<uint32_t>(n); ++seed) {
    run_seed(seed, block, sum);
    if (HasFailure()) return;
  }
  EXPECT_GT(sum.followed.narrowed, 100 * n);
  EXPECT_GT(sum.followed.again, 2 * n) << "computed again after something had left";
  EXPECT_GT(sum.followed.found, 50 * n);
  EXPECT_GT(sum.falls, n);
  EXPECT_GT(sum.followed.decisions, 0);
  EXPECT_GT(sum.preemptions + sum.parked, n / 2);
  EXPECT_GT(sum.truncations, n / 4);
  EXPECT_GT(sum.session_forks, 0);
}

/// Two of them go on from a length inside a block, with other texts, until budgets have fallen.
FollowedTexts::Counts run_forks(const std::string& policy, int32_t block,
                                std::function<void(std::vector<Met>&)> distort, double& error) {
  EngineOptions options = reference_options();
  options.context = 640;
  options.batch_size = 29;
  options.max_sequences = 3;
  options.kv.policy = policy;
  options.kv.block_size = block;
  options.kv.type = KvType::kF32;
  const auto& model = models()[2];
  const bool is_pyramid = policy.starts_with("pyramid");
  const int64_t positions = block == 64 ? 640 : is_pyramid ? 420 : 220;
  options.kv.budget_bytes = static_cast<uint64_t>(Engine(model, options).kv_stats().page_bytes *
                                                  (positions / block) * model->info().n_layers);
  FollowedTexts followed(model, options, std::move(distort));
  Engine& engine = followed.engine();
  const SessionId origin = engine.open_session();
  engine.feed(origin, text_of(0, positions / 2 - 1 - block / 2));
  const SessionId fork = engine.fork_session(origin);
  followed.forked(origin, fork);
  std::vector<RequestId> ids;
  for (const SessionId id : {origin, fork}) {
    ids.push_back(engine.add(id, text_of(static_cast<int>(id), 5),
                             greedy(static_cast<int32_t>(positions / 2))));
  }
  while (engine.step()) engine.check_integrity();
  for (const RequestId id : ids) {
    const auto result = engine.take(id);
    EXPECT_EQ(result->finish_reason, FinishReason::kLength);
    EXPECT_FALSE(result->budget_changes.empty());
  }
  error = followed.error();
  return followed.counts();
}

TEST(ElasticDense, ForksThatShareAPartOfABlockFallEachForItself) {
  const std::vector<RuleExample> all = elastic_examples();
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string& policy = all[i].policy;
    // What one size of blocks leaves out another brings.
    const bool is_pyramid = policy.starts_with("pyramid");
    const int32_t block = std::array{7, 16, 64}[i % (is_pyramid ? 2 : 3)];
    SCOPED_TRACE(fmt::format("{}, blocks of {}", policy, block));
    double error = 0;
    const FollowedTexts::Counts counts = run_forks(policy, block, {}, error);
    EXPECT_LT(error, kTolerance);
    EXPECT_GT(counts.narrowed, 20);
    EXPECT_EQ(counts.found, 0);
  }
}

TEST(ElasticDense, WhatLeavesIsWhatTheOraclesOwnScoresSay) {
  for (const std::string policy :
       {"lru@every:8", "h2o@every:8", "h2o@every:16@sinks:2@recent:7@compact",
        "tova@every:6@compact", "knorm@every:8", "pyramid:h2o@every:8", "cake:lru@every:16",
        "0=full,*=h2o@every:8"}) {
    SCOPED_TRACE(policy);
    EngineOptions options = reference_options();
    options.context = 640;
    options.batch_size = 24;
    options.max_sequences = 3;
    options.kv.policy = policy;
    options.kv.block_size = 4;
    options.kv.type = KvType::kF32;
    const auto& model = models()[0];
    const int64_t blocks = policy.starts_with("pyramid") ? 110 : 48;
    options.kv.budget_bytes = static_cast<uint64_t>(Engine(model, options).kv_stats().page_bytes *
                                                    blocks * model->info().n_layers);
    FollowedTexts followed(model, options);
    Engine& engine = followed.engine();
    std::vector<RequestId> ids;
    for (int i = 0; i < 3; ++i) {  // the third finds what the first computed
      ids.push_back(engine.add(text_of(i % 2, 40 + i), greedy(static_cast<int32_t>(3 * blocks))));
      for (int steps = 0; steps < 5; ++steps) engine.step();
    }
    while (engine.step()) {
    }
    for (const RequestId id : ids) EXPECT_FALSE(engine.take(id)->budget_changes.empty());
    EXPECT_LT(followed.error(), kTolerance);
    EXPECT_GT(followed.counts().found, 0);
    EXPECT_GT(followed.counts().decisions, 20);
  }
}

TEST(ElasticDense, TellsOnePositionLessApart) {
  double error = 0;
  run_forks(
      "lru@every:8", 7,
      [](std::vector<Met>& met) {
        if (met.size() == 60) met.erase(met.begin() + 9);
      },
      error);
  EXPECT_GT(error, 20 * kTolerance);
}

}  // namespace
}  // namespace paddock::test
