// Policies that answer wrongly: counted, reported, overruled for that decision alone, and the text
// is what the overruled decision makes it.
#include <nlohmann/json.hpp>
#include <thread>

#include "support/golden.h"

namespace paddock::test {
namespace {

constexpr int32_t kEvery = 8;
constexpr int32_t kBudget = 24;

enum class Lie {
  kNone,
  kThrows,
  kThrowsInt,
  kProtected,
  kTwice,
  kNegative,
  kBeyond,
  kTooFew,
  kNobody,
  kEverybody,
  kNaN,
  kNaNItself,
  kInfinite,
  kSlow
};

/// Ranks by key norm, but at every second decision of the first layer tells one lie, or, honestly,
/// names the oldest.
class Liar final : public EvictionPolicy {
 public:
  explicit Liar(Lie lie) : lie_(lie) {}
  std::string name() const override { return "liar\xFF"; }
  PolicyNeeds needs() const override { return {.key_norms = true}; }
  TrimSchedule schedule(int32_t, int32_t) const override {
    return {.budget = kBudget, .every = kEvery};
  }
  void trim(const LayerView& view, int64_t n, std::vector<Victim>& victims) const override {
    const bool lies = view.layer == 0 && view.length % (2 * kEvery) == 0;
    rank_blocks(view, n, victims, [&](int32_t block) {
      if (!lies) return -view.blocks[block].key_norm;
      return lie_ == Lie::kNaN ? NAN : static_cast<double>(view.blocks[block].first_position);
    });
    if (lies) lie(view, victims);
  }

 private:
  void lie(const LayerView& view, std::vector<Victim>& victims) const {
    const auto last = static_cast<int32_t>(view.blocks.size()) - 1;
    switch (lie_) {
      case Lie::kNone:
        return;
      case Lie::kThrows:
        throw std::runtime_error("no \xFE idea");
      case Lie::kThrowsInt:
        throw 7;
      case Lie::kProtected:
        victims.insert(victims.begin(), Victim{last, 0});
        return;
      case Lie::kTwice:
        victims = {victims[0], victims[0]};
        return;
      case Lie::kNegative:
        victims[0].block = -1;
        return;
      case Lie::kBeyond:
        victims[0].block = last + 1;
        return;
      case Lie::kTooFew:
        victims.resize(1);
        return;
      case Lie::kNobody:
        victims.clear();
        return;
      case Lie::kEverybody:
        victims.clear();
        for (int32_t i = 0; i < last; ++i) victims.push_back({i, 0});
        return;
      case Lie::kNaN:
        return;  // rank_blocks() threw
      case Lie::kNaNItself:
        victims[0].score = NAN;
        return;
      case Lie::kInfinite:
        victims[0].score = -INFINITY;
        return;
      case Lie::kSlow:
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        return;
    }
  }

  Lie lie_;
};

struct Outcome {
  std::vector<TokenId> tokens;
  std::vector<std::pair<int64_t, int64_t>> trims;  // length and position, in order
  std::vector<KvEvent> events;
  KvStats stats;
  std::string json;
};

Outcome run(Lie lie) {
  EngineOptions options = reference_options();
  options.kv.block_size = 2;
  options.kv.custom_policy = std::make_shared<Liar>(lie);
  Engine engine(parts(Model::load(golden("gqa4-llama3")), options));
  GenerateOptions generate;
  generate.max_tokens = 60;
  generate.sampling.temperature = 0;
  generate.ignore_stop_tokens = true;
  const std::vector<TokenId> tokens = golden_tokens();
  const RequestId id = engine.add(tokens, generate);
  while (engine.step()) engine.check_integrity();
  Outcome out;
  const auto result = engine.take(id);
  EXPECT_EQ(result->finish_reason, FinishReason::kLength);
  out.tokens = result->tokens;
  for (const KvEvent& event : engine.kv_events()) {
    if (event.reason != RemovalReason::kPolicyTrim) continue;
    out.events.push_back(event);
    out.trims.emplace_back(event.length * 2 + event.layer, event.first_position);
    EXPECT_TRUE(nlohmann::json::accept(to_json(event)));
  }
  out.stats = engine.kv_stats();
  out.json = to_json(out.stats);
  EXPECT_TRUE(nlohmann::json::accept(out.json));
  EXPECT_FALSE(to_prometheus(out.stats).empty());
  return out;
}

TEST(LyingPolicy, IsCountedReportedAndOverruledAndTheTextIsThatOfTheOldestGoing) {
  const Outcome honest = run(Lie::kNone);
  EXPECT_EQ(honest.stats.policy_violations, 0);
  EXPECT_EQ(honest.stats.policy_shortfalls, 0);
  EXPECT_TRUE(honest.stats.last_violation.empty());
  const int64_t lies = (56 + 59) / 16 - kBudget / 16;  // at 32, 48, ... 112
  ASSERT_EQ(lies, 6);
  struct Expected {
    Lie lie;
    const char* message;  // a part of it; null where nothing is wrong
    bool shortfall;
  };
  for (const Expected& e :
       {Expected{Lie::kThrows, "trim() threw: no", false},
        Expected{Lie::kThrowsInt, "no std::exception", false},
        Expected{Lie::kProtected, "named the protected block at position", false},
        Expected{Lie::kTwice, "twice", false}, Expected{Lie::kNegative, "named block -1 of", false},
        Expected{Lie::kBeyond, "named block", false}, Expected{Lie::kTooFew, nullptr, true},
        Expected{Lie::kNobody, nullptr, true}, Expected{Lie::kEverybody, nullptr, false},
        Expected{Lie::kSlow, nullptr, false}}) {
    SCOPED_TRACE(static_cast<int>(e.lie));
    const Outcome out = run(e.lie);
    EXPECT_EQ(out.tokens, honest.tokens);
    EXPECT_EQ(out.trims, honest.trims);
    EXPECT_EQ(out.stats.policy_violations, e.message != nullptr ? lies : 0);
    EXPECT_EQ(out.stats.policy_shortfalls, e.shortfall ? lies : 0);
    EXPECT_GE(out.stats.policy_slow, e.lie == Lie::kSlow ? lies : 0);
    if (e.message != nullptr) {
      EXPECT_NE(out.stats.last_violation.find(e.message), std::string::npos)
          << out.stats.last_violation;
      EXPECT_NE(out.json.find("last_violation"), std::string::npos);
    } else {
      EXPECT_TRUE(out.stats.last_violation.empty());
    }
    for (const KvEvent& event : out.events) {
      const bool lied = event.layer == 0 && event.length % (2 * kEvery) == 0;
      if (!lied || e.lie == Lie::kSlow || e.lie == Lie::kEverybody) {
        EXPECT_FALSE(event.overruled);
      } else if (e.lie != Lie::kTooFew) {
        EXPECT_TRUE(event.overruled);
      }
    }
  }
}

TEST(LyingPolicy, ScoresThatAreNoNumbersAreRefusedAndOverruled) {
  // By rank_blocks() where it meets one, by the manager where a policy makes its own list.
  for (const Lie lie : {Lie::kNaN, Lie::kNaNItself, Lie::kInfinite}) {
    const Outcome out = run(lie);
    EXPECT_GT(out.stats.policy_violations, 0);
    EXPECT_NE(out.stats.last_violation.find(lie == Lie::kInfinite ? "-inf" : "nan"),
              std::string::npos)
        << out.stats.last_violation;
    EXPECT_EQ(out.tokens.size(), 60U);
    int64_t overruled = 0;
    for (const KvEvent& event : out.events) {
      EXPECT_TRUE(std::isfinite(event.score));
      overruled += event.overruled ? 1 : 0;
    }
    EXPECT_GT(overruled, 10);
  }
}

TEST(LyingPolicy, EventsNameTheRuleThatRuledThen) {
  EngineOptions options = reference_options();
  options.kv.block_size = 4;
  options.kv.policy = "sink:2+8";
  Engine engine(parts(Model::load(golden("gqa1-default")), options));
  const std::vector<TokenId> tokens = golden_tokens();
  const auto feed = [&] {
    engine.forward(tokens, [](int64_t, std::span<const float>) { return true; });
  };
  feed();
  engine.set_kv_policy("knorm:16@every:8");
  const uint64_t first = engine.kv_stats().events;  // with what was kept under the old one
  feed();
  for (const KvEvent& event : engine.kv_events()) {
    EXPECT_EQ(event.policy, event.number < first ? "sink:2+8" : "knorm:16@every:8");
  }
  EXPECT_GT(engine.kv_stats().events, first);
}

}  // namespace
}  // namespace paddock::test
