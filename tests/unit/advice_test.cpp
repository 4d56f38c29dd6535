// Every proposal that a refusal makes was computed: applied, it works.
#include "engine/advice.h"

#include <gtest/gtest.h>
#include <paddock/paddock.h>

#include <numeric>
#include <set>

#include "core/system.h"
#include "model/model_data.h"
#include "support/temporary_folder.h"
#include "support/tiny_model.h"

namespace paddock::test {
namespace {

/// 2 layers, 2 * 16 values of 2 bytes per position and layer; 64 positions were trained.
std::shared_ptr<const Model> tiny() {
  static const TemporaryFolder folder;
  static const std::shared_ptr<const Model> model = tiny_model(folder, {}, 5);
  return model;
}

constexpr uint64_t kPositionBytes = 2 * 2 * 16 * 2;  // in both layers

std::vector<TokenId> some_tokens(int64_t n) {
  std::vector<TokenId> tokens(static_cast<size_t>(n));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(i * 7 % 96);
  return tokens;
}

EngineOptions options(const std::string& policy, uint64_t positions = 0, int64_t context = 0,
                      int32_t batch = 64, int32_t block = 4) {
  EngineOptions o;
  o.threads = 1;
  o.batch_size = batch;
  o.context = context;
  o.kv.block_size = block;
  o.kv.policy = policy;
  o.kv.budget_bytes = positions * kPositionBytes;
  return o;
}

struct Attempt {
  std::string refused;  // empty: it ran
  std::vector<Proposal> proposals;
  int64_t made = 0;  // tokens
  FinishReason reason = FinishReason::kError;
};

Attempt attempt(const EngineOptions& o, int64_t prompt, int32_t max_tokens) {
  Attempt out;
  try {
    Engine engine(tiny(), o);
    const GenerateResult r = engine.generate(some_tokens(prompt), {.max_tokens = max_tokens});
    out.proposals = r.proposals;
    out.made = static_cast<int64_t>(r.tokens.size());
    out.reason = r.finish_reason;
  } catch (const Error& e) {
    out.refused = e.what();
    out.proposals.assign(e.proposals().begin(), e.proposals().end());
  }
  return out;
}

TEST(Advice, EveryProposalWorksWhenApplied) {
  std::set<std::string> kinds;
  int refused = 0;
  for (const char* policy : {"full", "window:24", "sink:4+40", "h2o:48@every:16", "snapkv:24",
                             "0=full,*=window:8", "lru:300"}) {
    for (const uint64_t budget : {0, 4, 16, 40, 60}) {
      for (const int64_t context : {0, 20, 200}) {
        for (const int32_t batch : {4, 64}) {
          for (const int64_t prompt : {10, 30, 90}) {
            const EngineOptions o = options(policy, budget, context, batch);
            const Attempt first = attempt(o, prompt, 20);
            if (first.refused.empty() && first.reason == FinishReason::kLength) continue;
            ++refused;
            const std::string what = fmt::format("{} -c {} -b {} budget {} prompt {}: {}", policy,
                                                 context, batch, budget, prompt, first.refused);
            EXPECT_FALSE(first.proposals.empty()) << what;
            for (const Proposal& proposal : first.proposals) {
              const std::string text = to_text({&proposal, 1});
              kinds.insert(text.substr(0, text.find_first_of("0123456789:")));
              EXPECT_NE(proposal.policy, policy) << what;
              const Attempt again = attempt(with_proposal(o, proposal), prompt, 20);
              // A refusal may come before the prompt is known: then the next one has proposals.
              const bool goes_on = again.refused.empty() || !first.made;
              EXPECT_TRUE(goes_on) << what << "\n  " << text << "\n  " << again.refused;
              if (!first.refused.starts_with("the prompt") && !first.refused.empty()) {
                EXPECT_NO_THROW(Engine(tiny(), with_proposal(o, proposal))) << what << text;
                continue;
              }
              EXPECT_EQ(again.refused, "") << what << "\n  " << text;
              EXPECT_TRUE(again.reason == FinishReason::kLength || again.made > first.made)
                  << what << "\n  " << text << ": " << finish_reason_name(again.reason);
            }
          }
        }
      }
    }
  }
  EXPECT_GT(refused, 100);
  for (const char* kind : {"drop context", "raise context to ", "raise kv.budget_bytes to ",
                           "kv.policy h", "kv.policy sink", "lower batch_size to "}) {
    EXPECT_EQ(kinds.lower_bound(kind) == kinds.end() || !kinds.lower_bound(kind)->starts_with(kind),
              false)
        << kind;
  }
}

TEST(Advice, ARunningEngineTakesTheProposedPolicyAtOnce) {
  for (const uint64_t budget : {32, 48, 60}) {
    for (const int32_t batch : {8, 64}) {
      Engine engine(tiny(), options("full", budget, 0, batch));
      const auto prompt = some_tokens(static_cast<int64_t>(budget) + 1);
      try {
        engine.generate(prompt);
        ADD_FAILURE() << budget;
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory);
        std::string policy;
        for (const Proposal& p : e.proposals()) policy = p.policy.value_or(policy);
        ASSERT_NE(policy, "") << e.what();
        EXPECT_NE(std::string(e.what()).find("kv.policy " + policy + " fits now"),
                  std::string::npos)
            << e.what();
        engine.set_kv_policy(policy);
        EXPECT_EQ(engine.options().kv.policy, policy);
        EXPECT_EQ(engine.generate(prompt, {.max_tokens = 2}).finish_reason, FinishReason::kLength);
        engine.check_integrity();
      }
    }
  }
}

// ---- propose() itself, on settings that no refusal leads to as directly

std::vector<Proposal> proposed(const EngineSetup& setup, const Wanted& wanted) {
  return propose(tiny()->data().config, setup, wanted);
}

TEST(Advice, ASharesPoolIsTheBudgetToStartFrom) {
  EngineSetup setup = outline(*tiny(), options("full", 0, 0, 4));
  setup.asked.kv.budget_share = 0.5;
  setup.share_bytes = 16 * kPositionBytes;
  const std::vector<Proposal> found = proposed(setup, {.positions = 32, .least = 32});
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found[0].budget_bytes, 32 * kPositionBytes);
  EXPECT_FALSE(found[0].lowers);  // twice of what the share left
}

TEST(Advice, WhereNotAllCanBeHadTheLeastIsProposed) {
  // Two blocks in each layer hold no rule with a bound, but eight positions under full.
  const EngineSetup setup = outline(*tiny(), options("full", 4, 0, 4));
  const std::vector<Proposal> found =
      proposed(setup, {.positions = 64, .least = 8, .max_bytes = 8 * kPositionBytes});
  ASSERT_EQ(found.size(), 1);
  EXPECT_EQ(found[0].budget_bytes, 8 * kPositionBytes);
  EXPECT_TRUE(
      proposed(setup, {.positions = 64, .least = 12, .max_bytes = 8 * kPositionBytes}).empty());
}

TEST(Advice, ANewEngineMayHaveALargerPoolThanTheOneThatWasLaidOut) {
  const EngineSetup setup = outline(*tiny(), options("full", 0, 20, 4));  // a pool for 20 positions
  const std::vector<Proposal> found = proposed(setup, {.positions = 90, .least = 90});
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found[0].policy, "sink:4+60");  // all that was trained
}

TEST(Advice, AMeterWhoseContextIsTooShortIsProposedARuleThatKeepsMoreThanItsOwn) {
  QualityOptions meter;
  meter.chunk = 4;
  meter.engine = options("window:8", 0, 20);  // a pool for the window
  try {
    QualityMeter(tiny(), meter).compare(some_tokens(90));  // 64 were trained
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(to_text(e.proposals()), "drop context, or drop context with kv.policy sink:4+60");
    ASSERT_EQ(e.proposals().size(), 2) << e.what();
    for (const Proposal& proposal : e.proposals()) {
      QualityOptions mended = meter;
      mended.engine = with_proposal(meter.engine, proposal);
      EXPECT_EQ(QualityMeter(tiny(), mended).compare(some_tokens(90)).scored, 89);
    }
  }
}

TEST(Advice, BeyondTheTrainedPositionsOnlyRulesThatMoveQueriesAreProposed) {
  for (const char* policy : {"full", "h2o:24@every:8", "0=full,*=window:8"}) {
    const EngineSetup setup = outline(*tiny(), options(policy, 0, 30, 4));
    for (const Proposal& proposal : proposed(setup, {.positions = 90, .least = 90})) {
      if (!proposal.policy) continue;
      const bool moves = proposal.policy->starts_with("sink:") ||
                         proposal.policy->find("@compact") != std::string::npos;
      EXPECT_TRUE(moves) << policy << ": " << *proposal.policy;
    }
  }
}

TEST(Advice, NoRuleIsProposedThatItsBlocksProtectWhole) {
  // Four blocks of 16 in each layer: h2o:16@every:16 would fit, but protects all that it keeps.
  const EngineOptions o = options("full", 64, 100, 64, 16);
  const std::vector<Proposal> found = proposed(outline(*tiny(), o), {.positions = 70, .least = 70});
  EXPECT_FALSE(found.empty());
  for (const Proposal& proposal : found) {
    EXPECT_NO_THROW(Engine(tiny(), with_proposal(o, proposal))) << to_text({&proposal, 1});
  }
}

TEST(Advice, RulesAreProposedForTheBlocksThereAre) {
  int rules = 0;
  for (const int32_t block : {8, 16, 32, 64}) {
    for (uint64_t budget = 64; budget <= 352; budget += 16) {
      for (const int64_t positions : {40, 70, 200}) {
        for (const int32_t batch : {4, 64}) {
          const EngineOptions o = options("full", budget, 400, batch, block);
          const Wanted wanted{.positions = positions, .least = positions};
          for (const Proposal& proposal : proposed(outline(*tiny(), o), wanted)) {
            rules += proposal.policy ? 1 : 0;
            EXPECT_NO_THROW(Engine(tiny(), with_proposal(o, proposal)))
                << to_text({&proposal, 1}) << " in blocks of " << block << ", budget " << budget;
          }
        }
      }
    }
  }
  EXPECT_GT(rules, 20);
}

TEST(Advice, ARunningEngineIsNeverProposedARuleThatItWouldRefuse) {
  int rules = 0;
  for (const char* policy : {"full", "window:8", "lru:24@every:8", "0=full,*=window:8", "lru"}) {
    for (const uint64_t budget : {0, 24, 40, 56, 80, 96, 112, 128, 160}) {
      for (const auto& [batch, block] :
           {std::pair{4, 4}, {16, 4}, {64, 4}, {4, 8}, {4, 16}, {64, 16}, {4, 32}}) {
        std::unique_ptr<Engine> engine;
        try {
          engine = std::make_unique<Engine>(tiny(), options(policy, budget, 0, batch, block));
        } catch (const Error&) {
          continue;
        }
        const auto check = [&](std::span<const Proposal> proposals) {
          for (const Proposal& p : proposals) {
            if (!p.policy || p.batch_size || p.budget_bytes || p.context) continue;
            ++rules;
            EXPECT_NO_THROW(engine->check_kv_policy(*p.policy))
                << policy << ", budget " << budget << ", batch " << batch << ": " << *p.policy;
          }
        };
        for (const char* other : {"h2p:48@every:8", "lru:400", "sink:4+200", "h2o:96@every:4"}) {
          try {
            engine->set_kv_policy(other);
          } catch (const Error& e) {
            check(e.proposals());
          }
        }
        for (const int64_t prompt : {20, 50, 90}) {
          try {
            check(engine->generate(some_tokens(prompt), {.max_tokens = 20}).proposals);
          } catch (const Error& e) {
            check(e.proposals());
          }
        }
      }
    }
  }
  EXPECT_GT(rules, 20);
}

TEST(Advice, ARunningEngineIsProposedARuleThatItsPoolHolds) {
  Engine engine(tiny(), options("window:8", 0, 0, 4));  // a pool for eight positions and a batch
  try {
    engine.set_kv_policy("h2p:48@every:8");
    ADD_FAILURE();
  } catch (const Error& e) {
    ASSERT_FALSE(e.proposals().empty()) << e.what();
    for (const Proposal& proposal : e.proposals()) {
      ASSERT_TRUE(proposal.policy.has_value());
      EXPECT_NO_THROW(engine.set_kv_policy(*proposal.policy)) << *proposal.policy;
    }
  }
}

TEST(Advice, TheContextFollowsThePolicy) {
  Engine engine(tiny(), options("full", 80));
  EXPECT_EQ(engine.options().context, 64);
  engine.set_kv_policy("h2o:24@every:8");
  EXPECT_GT(engine.options().context, 1'000'000'000);
  EXPECT_EQ(engine.max_positions(), engine.options().context);
  EXPECT_EQ(engine.generate(some_tokens(100), {.max_tokens = 50}).tokens.size(), 50U);
  engine.check_integrity();
  engine.set_kv_policy("0=full,*=window:8");
  EXPECT_EQ(engine.options().context, 64);
  EXPECT_THROW(engine.generate(some_tokens(65)), Error);
  engine.set_kv_policy("full");
  EXPECT_EQ(engine.generate(some_tokens(40), {.max_tokens = 50}).finish_reason,
            FinishReason::kContext);
  Engine given(tiny(), options("full", 60, 50));  // whoever gives a context keeps it
  given.set_kv_policy("h2o:24@every:8");
  EXPECT_EQ(given.options().context, 50);
}

TEST(Advice, CheckingAPolicyChangesNothing) {
  Engine engine(tiny(), options("full", 48));
  const SessionId session = engine.open_session();
  engine.feed(session, some_tokens(40));
  EXPECT_EQ(engine.max_positions(), 48);
  EXPECT_NO_THROW(engine.check_kv_policy("h2o:24@every:8", 40));
  EXPECT_NO_THROW(engine.check_kv_policy("full", 48));
  const auto refuse = [&](const std::string& spec, int64_t positions, ErrorCode code) {
    try {
      engine.check_kv_policy(spec, positions);
      ADD_FAILURE() << spec;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      ASSERT_FALSE(e.proposals().empty()) << e.what();
      for (const Proposal& p : e.proposals()) {
        EXPECT_NE(p.policy, spec) << e.what();
        if (!p.policy) continue;
        EXPECT_NO_THROW(engine.check_kv_policy(*p.policy, positions)) << *p.policy;
      }
    }
  };
  refuse("full", 49, ErrorCode::kOutOfMemory);
  refuse("sink:4+60", 40, ErrorCode::kOutOfMemory);
  refuse("sunk:4+6", 40, ErrorCode::kInvalidArgument);
  EXPECT_EQ(engine.options().kv.policy, "full");
  EXPECT_EQ(engine.session_length(session), 40);
  EXPECT_EQ(engine.generate(session, some_tokens(3), {.max_tokens = 2}).tokens.size(), 2U);
}

/// The fewest positions whose bytes make an engine start under these options.
int64_t min_budget(const std::string& policy, int32_t batch, int32_t block) {
  for (int64_t positions = 1; positions < 400; ++positions) {
    try {
      Engine(tiny(), options(policy, static_cast<uint64_t>(positions), 0, batch, block));
      return positions;
    } catch (const Error&) {
      // still too few
    }
  }
  ADD_FAILURE() << policy;
  return 0;
}

TEST(Advice, AnEngineThatStartsUnderABoundTakesTextOfAnyLength) {
  for (const char* policy : {"window:9", "sink:3+20", "h2o:24@every:8", "lru:40@every:4",
                             "0=window:5,1=tova:32@every:8"}) {
    for (const int32_t batch : {3, 16, 64}) {
      for (const int32_t block : {4, 8}) {
        const int64_t least = min_budget(policy, batch, block);
        const std::string what =
            fmt::format("{} -b {} blocks of {}: {}", policy, batch, block, least);
        Engine engine(tiny(), options(policy, static_cast<uint64_t>(least), 0, batch, block));
        EXPECT_EQ(engine.max_positions(), engine.options().context) << what;
        const SessionId session = engine.open_session();
        for (const int64_t prompt : {1, 50, 7, 150}) {
          const GenerateResult r = engine.generate(session, some_tokens(prompt), {.max_tokens = 9});
          EXPECT_EQ(r.finish_reason, FinishReason::kLength) << what;
        }
        EXPECT_EQ(engine.kv_stats().reservations_refused, 0) << what;
      }
    }
  }
}

TEST(Advice, ASessionIsAskedForWhatItHoldsNotForAllThatItHeld) {
  Engine engine(tiny(), options("snapkv:24", 48));
  const SessionId session = engine.open_session();
  EXPECT_EQ(engine.max_positions(session), 48);
  engine.generate(session, some_tokens(40), {.max_tokens = 1});  // 24 stay
  EXPECT_EQ(engine.max_positions(session), 64);                  // the context, now
  EXPECT_EQ(engine.max_positions(), 48);
  const GenerateResult second = engine.generate(session, some_tokens(15), {.max_tokens = 4});
  EXPECT_EQ(second.finish_reason, FinishReason::kLength);
  engine.check_integrity();

  // To the page: what is promised can be fed, one position more cannot.
  Engine small(tiny(), options("0=full,*=snapkv:12", 40, 60));
  const SessionId talk = small.open_session();
  small.generate(talk, some_tokens(20), {.max_tokens = 1});
  const int64_t most = small.max_positions(talk);
  EXPECT_EQ(most, 40 + 4);  // layer 1 has let two blocks go: one in each layer
  const int64_t left = most - small.session_length(talk);
  EXPECT_THROW(small.generate(talk, some_tokens(left + 1), {.max_tokens = 0}), Error);
  EXPECT_EQ(small.generate(talk, some_tokens(left), {.max_tokens = 1}).finish_reason,
            FinishReason::kLength);
  small.check_integrity();
}

TEST(Advice, ASmallerBatchAndARuleGoTogetherWhereNeitherAloneIsEnough) {
  const EngineOptions o = options("full", 12);
  const Attempt first = attempt(o, 30, 4);
  ASSERT_NE(first.refused, "");
  ASSERT_FALSE(first.proposals.empty());
  const Proposal& both = first.proposals.back();
  ASSERT_TRUE(both.policy && both.batch_size) << first.refused;
  EXPECT_EQ(to_text({&both, 1}), "lower batch_size to 2 with kv.policy sink:4+4");
  EXPECT_EQ(attempt(with_proposal(o, both), 30, 4).reason, FinishReason::kLength);
}

TEST(Advice, WhereNoFixedBudgetFitsARuleIsProposedThatGivesUpWhatItMust) {
  const auto elastic = [](const EngineOptions& o) {
    const Attempt first = attempt(o, 20, 100);
    std::string text;
    for (const Proposal& p : first.proposals) {
      if (!p.policy || !p.policy->starts_with("lru") || p.policy->starts_with("lru:")) continue;
      text = *p.policy;
      EXPECT_EQ(attempt(with_proposal(o, p), 20, 100).reason, FinishReason::kLength) << text;
    }
    return text;
  };
  // The room of an interval is a fixed rule's to keep free: of 80 positions it would keep eight.
  EXPECT_EQ(elastic(options("full", 80, 200, 128)), "lru");
  EXPECT_EQ(elastic(options("full", 28, 200, 128)), "lru@every:8");
  EXPECT_EQ(elastic(options("0=full,*=lru", 100, 200, 128)), "lru");
  // Whoever asked for a budget has it.
  EXPECT_EQ(elastic(options("window:300", 80, 200, 128)), "");

  // One that keeps half of the pool is as good, as long as a larger pool would keep all.
  LlamaConfig config = tiny()->data().config;
  config.context_length = 1000;
  const EngineSetup setup = outline(*tiny(), options("full", 180, 300, 128));
  const auto found = [&](uint64_t positions) {
    return to_text(propose(config, setup,
                           {.positions = 250,
                            .least = 200,
                            .max_bytes = positions * kPositionBytes,
                            .running = true}));
  };
  EXPECT_EQ(found(260), "raise kv.budget_bytes to 32256, or kv.policy h2o:104 fits now");
  EXPECT_EQ(found(190), "kv.policy lru fits now");
}

std::string first_policy(const Attempt& a) {
  for (const Proposal& p : a.proposals) {
    if (p.policy && !p.batch_size) return *p.policy;
  }
  return "";
}

TEST(Advice, TheRuleThatWasAskedForComesFirstAndAsLargeAsItFits) {
  const EngineOptions o = options("window:300", 60, 0, 8);
  const Attempt first = attempt(o, 30, 10);
  const std::string policy = first_policy(first);
  ASSERT_TRUE(policy.starts_with("window:")) << first.refused;
  const int64_t most = std::stoll(policy.substr(7));
  EXPECT_EQ(attempt(options(policy, 60, 0, 8), 30, 10).reason, FinishReason::kLength);
  // A block more does not fit.
  EXPECT_NE(attempt(options(fmt::format("window:{}", most + 8), 60, 0, 8), 30, 10).refused, "");
}

TEST(Advice, ABudgetIsTheLeastThatWorks) {
  const EngineOptions o = options("full", 16, 0, 8);
  const Attempt first = attempt(o, 40, 10);
  ASSERT_FALSE(first.proposals.empty()) << first.refused;
  const Proposal& raised = first.proposals[0];
  ASSERT_TRUE(raised.budget_bytes.has_value()) << first.refused;
  EngineOptions enough = with_proposal(o, raised);
  EXPECT_EQ(attempt(enough, 40, 10).reason, FinishReason::kLength);
  enough.kv.budget_bytes -= 4 * kPositionBytes / 2;  // a page of one layer
  EXPECT_NE(attempt(enough, 40, 10).reason, FinishReason::kLength);
}

TEST(Advice, ALongerContextThanTheTrainedOneIsTheLastResort) {
  const Attempt first = attempt(options("full", 0, 0, 16), 90, 10);
  ASSERT_FALSE(first.proposals.empty()) << first.refused;
  for (const Proposal& p : first.proposals) {
    EXPECT_TRUE(p.policy && !p.context) << to_text(first.proposals);
  }
  // Only a rule that moves queries keeps near what the model was trained for.
  EXPECT_TRUE(first_policy(first).starts_with("sink:")) << first.refused;
  // Within what it was trained for, a given context is what is in the way.
  EXPECT_EQ(to_text(attempt(options("full", 0, 20), 30, 10).proposals), "drop context");
}

TEST(Advice, AnEngineThatStartsTakesWhatItsBoundedLayersPrefill) {
  const int64_t least = min_budget("0=full,1=window:24", 16, 4);
  const EngineOptions o = options("0=full,1=window:24", static_cast<uint64_t>(least), 0, 16);
  EXPECT_EQ(attempt(o, 40, 1).reason, FinishReason::kLength);  // a window and a chunk
}

TEST(Advice, AProposedRuleTakesThePlaceOfTheHostsOwn) {
  EngineOptions o = options("full", 48);
  o.kv.custom_policy = make_policy("window:16");
  Proposal proposal;
  proposal.policy = "h2o:24";
  const EngineOptions with = with_proposal(o, proposal);
  EXPECT_EQ(with.kv.custom_policy, nullptr);
  EXPECT_EQ(with.kv.policy, "h2o:24");
  o.kv.budget_share = 0.5;
  proposal.budget_bytes = 4096;
  EXPECT_EQ(with_proposal(o, proposal).kv.budget_share, 0);  // one of the two counts
}

TEST(Advice, WhatAHostsOwnRuleSaysIsTheHostsToMend) {
  EngineOptions o = options("mine:3", 48);
  o.kv.custom_policies["mine"] = [](std::string_view) -> std::shared_ptr<const EvictionPolicy> {
    throw Error(ErrorCode::kInvalidArgument, "three is too few");
  };
  try {
    Engine(tiny(), o);
    FAIL();
  } catch (const Error& e) {
    EXPECT_TRUE(e.proposals().empty()) << e.what();
    EXPECT_NE(std::string(e.what()).find("three is too few"), std::string::npos) << e.what();
  }
}

TEST(Advice, AHostsRuleCountsWhereItIsNamedNotWhereItsNameIsPartOfAnother) {
  const auto n_proposals = [](const std::string& spec) -> size_t {
    EngineOptions o = options(spec, 48);
    for (const char* name : {"o", "h", "all"}) {
      o.kv.custom_policies[name] = [](std::string_view) -> std::shared_ptr<const EvictionPolicy> {
        throw Error(ErrorCode::kInvalidArgument, "not like this");
      };
    }
    try {
      Engine(tiny(), o);
    } catch (const Error& e) {
      return e.proposals().size();
    }
    ADD_FAILURE() << spec;
    return 0;
  };
  for (const char* spec : {"h2oo:16", "*=h2oo:16", "0=fall,*=lru:16@o", "tova@original:16"}) {
    EXPECT_EQ(n_proposals(spec), 1U) << spec;
  }
  for (const char* spec : {"o", "o:16", "o@every:4", "*=o:16", "0=full,*=h", "0=all:8,*=h2oo:16"}) {
    EXPECT_EQ(n_proposals(spec), 0U) << spec;
  }
}

TEST(Advice, AWrongSpecInASmallPoolGetsARuleThatBoundsWhatItKeeps) {
  try {
    Engine(tiny(), options("lur", 60, 0, 8));  // lru:256 would not fit
    FAIL();
  } catch (const Error& e) {
    ASSERT_EQ(e.proposals().size(), 1U) << e.what();
    EXPECT_NE(e.proposals()[0].policy, "full") << e.what();
    EXPECT_NO_THROW(Engine(tiny(), with_proposal(options("lur", 60, 0, 8), e.proposals()[0])));
  }
}

TEST(Advice, AWrongSpecGetsAValidOneForThisModel) {
  const auto proposed = [](const std::string& spec, int32_t block = 4) -> std::string {
    try {
      Engine(tiny(), options(spec, 0, 0, 64, block));
      ADD_FAILURE() << spec;
      return {};
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument) << e.what();
      EXPECT_EQ(e.proposals().size(), 1U) << e.what();
      if (e.proposals().empty()) return {};
      const Proposal& proposal = e.proposals()[0];
      EXPECT_NO_THROW(Engine(tiny(), with_proposal(options(spec, 0, 0, 64, block), proposal)))
          << spec << " " << *proposal.policy;
      return *proposal.policy;
    }
  };
  EXPECT_EQ(proposed("h2p:64"), "h2o:64");
  EXPECT_EQ(proposed("sinks:4+20"), "sink:4+20");
  EXPECT_EQ(proposed("sink:20@recent:4"), "sink:20");  // less is changed than for sink:4+20
  // Where no budget was given, the rule without one is nearest.
  EXPECT_EQ(proposed("window:"), "window");
  EXPECT_EQ(proposed("lru:"), "lru");
  EXPECT_EQ(proposed("lur"), "lru");
  EXPECT_EQ(proposed("lru:many@every:8"), "lru@every:8");
  EXPECT_EQ(proposed("h2o:@min:9999999999"), "h2o");
  EXPECT_EQ(proposed("sunk:4"), "sink:4");
  EXPECT_EQ(proposed("sink:4+"), "sink:4");
  EXPECT_EQ(proposed("sink:+20"), "sink:4+20");
  EXPECT_EQ(proposed("sink:"), "sink:4+256");
  EXPECT_EQ(proposed("pyramid:tovo"), "pyramid:tova");
  EXPECT_EQ(proposed("0=lru:,*=full"), "0=lru,1=full");
  EXPECT_EQ(proposed("random"), "random:256");
  EXPECT_EQ(proposed("snapkv"), "snapkv:256");
  EXPECT_EQ(proposed("h2o:64@min:32"), "h2o:64");
  EXPECT_EQ(proposed("full:3"), "full");
  EXPECT_EQ(proposed("snapkv:64@every:3"), "snapkv:64");
  EXPECT_EQ(proposed("0-9=full"), "0-1=full");
  EXPECT_EQ(proposed("1=window:8"), "1=window:8,*=full");
  EXPECT_EQ(proposed("0=full,*=full,1=h2o:64"), "0=full,1=full");
  EXPECT_EQ(proposed("0=wimdow:8,*="), "0=window:8,1=full");
  EXPECT_EQ(proposed("h2o:16", 16), "h2o:32");  // whole blocks are protected
  EXPECT_EQ(proposed("pyramid:h20:64"), "pyramid:h2o:64");
  EXPECT_EQ(proposed("sparrow:40"), "h2o:40");  // like none of them
  EXPECT_EQ(proposed("h2p:64@every:8"), "h2o:64@every:8");
  for (const char* odd : {"", "=", ",", "=,=", "0=", "*", "-=x", "h2o:99999999999999999999",
                          "0-=lru:8", "9+8=full", "\xFF", "sink:0+0", "a=b=c,d"}) {
    proposed(odd);
  }
}

TEST(Advice, TooMuchForTheMachineIsLowered) {
  const EngineOptions huge = options("full", 1ULL << 50);
  try {
    Engine(tiny(), huge);
    FAIL();
  } catch (const Error& e) {
    ASSERT_FALSE(e.proposals().empty()) << e.what();
    EXPECT_TRUE(e.proposals()[0].lowers) << e.what();
    EXPECT_LT(e.proposals()[0].budget_bytes, huge.kv.budget_bytes) << e.what();
    EXPECT_GT(e.proposals()[0].budget_bytes, available_memory() / 2) << e.what();
    EXPECT_TRUE(to_text(e.proposals()).starts_with("lower kv.budget_bytes to ")) << e.what();
  }
  EngineOptions long_context = options("full", 0, 2'000'000'000);
  try {
    Engine(tiny(), long_context);
    FAIL();
  } catch (const Error& e) {
    ASSERT_FALSE(e.proposals().empty()) << e.what();
    EXPECT_TRUE(e.proposals()[0].lowers) << e.what();
    EXPECT_GT(e.proposals()[0].context, 64) << e.what();
    EXPECT_LT(*e.proposals()[0].context * kPositionBytes, available_memory() * 2) << e.what();
  }
  EngineOptions share = options("window:8");
  share.kv.budget_share = 1e-7;
  try {
    Engine(tiny(), share);
    FAIL();
  } catch (const Error& e) {
    ASSERT_EQ(e.proposals().size(), 1U) << e.what();
    EXPECT_NO_THROW(Engine(tiny(), with_proposal(share, e.proposals()[0]))) << e.what();
  }
}

TEST(Advice, SentencesNameSettingsAsTheirReaderDoes) {
  std::vector<Proposal> proposals(3);
  proposals[0].budget_bytes = 9 << 20;
  proposals[1].policy = "h2o:96";
  proposals[2].context = 0;
  proposals[2].budget_bytes = 4096;
  EXPECT_EQ(to_text(proposals),
            "raise kv.budget_bytes to 9437184, or kv.policy h2o:96 fits now, or drop context and "
            "raise kv.budget_bytes to 4096");
  const SettingNames names{
      .budget = "--kv-budget", .policy = "--kv-policy", .context = "-c", .size = [](uint64_t n) {
        return std::to_string(n >> 10) + "KiB";
      }};
  EXPECT_EQ(to_text(proposals, names),
            "raise --kv-budget to 9216KiB, or --kv-policy h2o:96 fits now, or drop -c and raise "
            "--kv-budget to 4KiB");
  const Error error(ErrorCode::kOutOfMemory, "too little", proposals);
  const Error copy = error;
  EXPECT_EQ(copy.problem(), "too little");
  EXPECT_EQ(std::string(copy.what()), "too little; " + to_text(proposals));
  EXPECT_EQ(copy.proposals().size(), 3U);
  EXPECT_EQ(Error(ErrorCode::kIo, "x").proposals().size(), 0U);
}

}  // namespace
}  // namespace paddock::test
