// The quality meter: against plain loops in double over the logits of separate engines.
#include <fmt/format.h>

#include <set>

#include "diagnose/quality_facts.h"
#include "support/live_bytes.h"
#include "support/meter.h"
#include "support/poisoned_model.h"

namespace paddock::test {
namespace {

/// Code and message of the Error that `act` throws.
std::pair<ErrorCode, std::string> error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return {e.code(), e.what()};
  }
  ADD_FAILURE() << "no error was thrown";
  return {ErrorCode::kInternal, ""};
}

void expect_refusal(ErrorCode code, const std::string& names, const std::function<void()>& act) {
  const auto [actual, message] = error_of(act);
  EXPECT_EQ(actual, code) << message;
  EXPECT_NE(message.find(names), std::string::npos) << message;
}

// ---- an independent reckoning

struct Plain {
  std::vector<PositionQuality> at;  // [n - 1]
  double nll = 0, kl = 0, kl_max = 0, agreement = 0;
  int64_t kl_max_position = 0;
};

std::vector<double> log_softmax(const float* row, int64_t n) {
  long double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<long double>(row[i]));
  std::vector<double> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(static_cast<double>(row[i] - std::log(sum)));
  return out;
}

Plain reckon(const Matrix& baseline, const Matrix& other, std::span<const TokenId> tokens) {
  Plain out;
  const auto n = static_cast<int64_t>(tokens.size()) - 1;
  for (int64_t t = 0; t < n; ++t) {
    const std::vector<double> p = log_softmax(baseline.row(t), baseline.cols);
    const std::vector<double> q = log_softmax(other.row(t), other.cols);
    PositionQuality at;
    at.nll = -q[tokens[t + 1]];
    for (size_t i = 0; i < p.size(); ++i) at.kl += std::exp(p[i]) * (p[i] - q[i]);
    at.agrees = std::max_element(p.begin(), p.end()) - p.begin() ==
                std::max_element(q.begin(), q.end()) - q.begin();
    out.nll += at.nll / static_cast<double>(n);
    out.kl += at.kl / static_cast<double>(n);
    out.agreement += at.agrees ? 1.0 / static_cast<double>(n) : 0.0;
    if (at.kl > out.kl_max) {
      out.kl_max = at.kl;
      out.kl_max_position = t + 1;
    }
    out.at.push_back(at);
  }
  return out;
}

Matrix logits_under(const QualityOptions& options, const std::string& policy,
                    std::span<const TokenId> tokens, int64_t prompt_tokens) {
  EngineOptions engine_options = options.engine;
  engine_options.kv.policy = policy;
  Engine engine(parts(tiny_folder(), engine_options));
  Matrix out;
  engine.forward(
      tokens,
      [&](int64_t, std::span<const float> row) {
        ++out.rows;
        out.cols = static_cast<int64_t>(row.size());
        out.values.insert(out.values.end(), row.begin(), row.end());
        return true;
      },
      prompt_tokens);
  return out;
}

TEST(Quality, EqualsPlainLoopsOverTheLogitsOfBothEngines) {
  const std::vector<TokenId> tokens = some_tokens(100);
  constexpr int64_t kPrompt = 70;
  const std::vector<std::string> rules = {"sink:2+8", "window:8", "h2o:16@every:8", "snapkv:32",
                                          "0=full,1=sink:4+12"};
  for (const int32_t chunk : {1, 7, 64, 512}) {
    const QualityOptions options = options_for(rules, "full", chunk);
    QualityMeter meter(tiny_folder(), options);
    std::vector<std::vector<PositionQuality>> at(rules.size() + 1);
    CompareOptions compare;
    compare.prompt_tokens = kPrompt;
    compare.on_position = [&](int64_t position, std::span<const PositionQuality> scores) {
      EXPECT_EQ(position, static_cast<int64_t>(at[0].size()) + 1);
      EXPECT_EQ(scores.size(), at.size());
      for (size_t i = 0; i < at.size(); ++i) at[i].push_back(scores[i]);
      return true;
    };
    const QualityReport report = meter.compare(tokens, compare);
    EXPECT_EQ(report.tokens, 100);
    EXPECT_EQ(report.scored, 99);
    ASSERT_EQ(report.contenders.size(), rules.size());
    const Matrix baseline = logits_under(options, "full", tokens, kPrompt);
    for (size_t i = 0; i <= rules.size(); ++i) {
      const std::string policy = i == 0 ? "full" : rules[i - 1];
      SCOPED_TRACE(policy + " in chunks of " + std::to_string(chunk));
      const PolicyQuality& q = i == 0 ? report.baseline : report.contenders[i - 1];
      const Plain plain = reckon(baseline, logits_under(options, policy, tokens, kPrompt), tokens);
      EXPECT_EQ(q.policy, policy);
      EXPECT_NEAR(q.nll, plain.nll, 1e-10);
      EXPECT_NEAR(q.perplexity, std::exp(plain.nll), 1e-8);
      EXPECT_NEAR(q.kl_mean, plain.kl, 1e-10);
      EXPECT_NEAR(q.kl_max, plain.kl_max, 1e-10);
      EXPECT_EQ(q.kl_max_position, plain.kl_max_position);
      EXPECT_NEAR(q.top1_agreement, plain.agreement, 1e-12);
      if (i > 0) {
        EXPECT_GT(q.kl_mean, 1e-6) << "the rule changes nothing: the test is trivial";
      }
      ASSERT_EQ(at[i].size(), 99U);
      double nll = 0;
      double kl = 0;
      double kl_max = 0;
      int64_t agreed = 0;
      for (size_t t = 0; t < at[i].size(); ++t) {
        ASSERT_NEAR(at[i][t].nll, plain.at[t].nll, 1e-10) << t;
        ASSERT_NEAR(at[i][t].kl, plain.at[t].kl, 1e-10) << t;
        ASSERT_EQ(at[i][t].agrees, plain.at[t].agrees) << t;
        nll += at[i][t].nll;
        kl += at[i][t].kl;
        kl_max = std::max(kl_max, at[i][t].kl);
        agreed += at[i][t].agrees ? 1 : 0;
      }
      EXPECT_EQ(q.nll, nll / 99);  // to the bit: the positions add up to the totals
      EXPECT_EQ(q.kl_mean, kl / 99);
      EXPECT_EQ(q.kl_max, kl_max);
      EXPECT_EQ(q.top1_agreement, static_cast<double>(agreed) / 99);
    }
    for (size_t i = 0; i <= rules.size(); ++i) meter.engine(i).check_integrity();
  }
}

TEST(Quality, TurnsCutChunksAndTellRulesOfEachPrompt) {
  const std::vector<TokenId> tokens = some_tokens(100);
  const std::vector<CompareTurn> turns = {{20, 33}, {50, 61}, {90, 90}};
  QualityMeter meter(tiny_folder(), options_for({"snapkv:16"}, "full", 16));
  std::vector<std::vector<int64_t>> ends(2);
  CompareOptions compare;
  compare.turns = turns;
  std::vector<double> kl;
  compare.on_chunk = [&](size_t rule, int64_t positions) {
    ends[rule].push_back(positions);
    return true;
  };
  compare.on_position = [&](int64_t, std::span<const PositionQuality> scores) {
    kl.push_back(scores[1].kl);
    return true;
  };
  meter.compare(tokens, compare);
  const std::vector<int64_t> expected = {16, 20, 33, 49, 50, 61, 77, 90, 100};
  EXPECT_EQ(ends[0], expected);
  EXPECT_EQ(ends[1], expected);
  // As a session that is told of each prompt when its turn begins.
  EngineOptions options = options_for({}, "full", 16).engine;
  options.kv.policy = "snapkv:16";
  options.batch_size = 16;
  Engine engine(parts(tiny_folder(), options));
  const SessionId session = engine.open_session();
  Matrix other;
  const auto feed = [&](int64_t begin, int64_t end, int64_t prompt) {
    engine.feed(
        session, std::span(tokens).subspan(begin, end - begin),
        [&](int64_t, std::span<const float> row) {
          ++other.rows;
          other.cols = static_cast<int64_t>(row.size());
          other.values.insert(other.values.end(), row.begin(), row.end());
          return true;
        },
        prompt);
  };
  feed(0, 20, 20);
  feed(20, 33, 20);
  feed(33, 50, 50);
  feed(50, 61, 50);
  feed(61, 90, 90);
  feed(90, 100, 0);
  const Plain plain =
      reckon(logits_under(options_for({}, "full"), "full", tokens, 0), other, tokens);
  ASSERT_EQ(kl.size(), plain.at.size());
  for (size_t i = 0; i < kl.size(); ++i) ASSERT_NEAR(kl[i], plain.at[i].kl, 1e-10) << i;
  EXPECT_GT(plain.kl, 1e-6);
}

TEST(Quality, TurnsThatAreNoneAreRefused) {
  QualityMeter meter(tiny_folder(), options_for({"sink:2+8"}));
  const std::vector<TokenId> tokens = some_tokens(20);
  const auto compare = [&](const std::vector<CompareTurn>& turns, int64_t prompt_tokens = 0) {
    CompareOptions options;
    options.turns = turns;
    options.prompt_tokens = prompt_tokens;
    meter.compare(tokens, options);
  };
  const auto refused = [&](const std::vector<CompareTurn>& turns, const std::string& words) {
    expect_refusal(ErrorCode::kInvalidArgument, words, [&] { compare(turns); });
  };
  refused({{5, 4}}, "prompt up to 5 and its answer up to 4; turns must ascend");
  refused({{5, 21}}, "to the text's 20");
  refused({{5, 9}, {8, 12}}, "from 9 to");
  expect_refusal(ErrorCode::kInvalidArgument, "prompt_tokens is 3 beside turns", [&] {
    compare({{5, 9}}, 3);
  });
  compare({{0, 0}, {20, 20}});
}

TEST(Quality, OtherEnginesDifferInMoreThanTheirRule) {
  const std::vector<TokenId> tokens = some_tokens(60);
  QualityOptions options = options_for({"sink:2+8"});
  EngineOptions other = options.engine;
  other.kv.policy = "h2o:16@every:8";
  other.kv.block_size = 8;
  other.kv.type = KvType::kBF16;
  options.other_engines = {other};
  QualityMeter meter(tiny_folder(), options);
  const QualityReport report = meter.compare(tokens);
  ASSERT_EQ(report.contenders.size(), 2U);
  EXPECT_EQ(report.contenders[1].policy, "h2o:16@every:8");
  EXPECT_EQ(meter.engine(2).options().kv.block_size, 8);
  EXPECT_EQ(meter.engine(1).options().kv.block_size, 4);
  EXPECT_FALSE(meter.engine(2).options().kv.reuse);
  QualityOptions alone = options_for({});
  alone.engine = other;
  const Matrix baseline = logits_under(options, "full", tokens, 0);
  const Plain plain = reckon(baseline, logits_under(alone, other.kv.policy, tokens, 0), tokens);
  EXPECT_NEAR(report.contenders[1].kl_mean, plain.kl, 1e-10);
  // Alone they are compared all the same.
  options.contenders.clear();
  QualityMeter only(tiny_folder(), options);
  EXPECT_NEAR(only.compare(tokens).contenders.at(0).kl_mean, plain.kl, 1e-10);
}

TEST(Quality, ABaselineAgainstItselfLosesNothing) {
  for (const std::string policy : {"full", "sink:2+8", "h2o:16@every:8"}) {
    QualityOptions options = options_for({policy}, policy);
    options.engine.precision = Precision::kFast;
    const QualityReport report = QualityMeter(tiny_folder(), options).compare(some_tokens(90));
    const PolicyQuality& same = report.contenders[0];
    EXPECT_EQ(same.kl_mean, 0.0) << policy;
    EXPECT_EQ(same.kl_max, 0.0) << policy;
    EXPECT_EQ(same.top1_agreement, 1.0) << policy;
    EXPECT_EQ(same.nll, report.baseline.nll) << policy;
    EXPECT_EQ(report.baseline.top1_agreement, 1.0) << policy;
  }
}

TEST(Quality, CountsWhatQueriesMetAndWhatWasHeld) {
  constexpr int64_t kTokens = 96;
  const QualityReport report =
      QualityMeter(tiny_folder(),
                   options_for({"sink:2+8", "0=full,1=window:8", "h2o:16@every:8"}, "full", 8))
          .compare(some_tokens(kTokens));
  double met = 0;
  double window = 0;
  for (int64_t t = 0; t < kTokens; ++t) {
    met += static_cast<double>(std::min<int64_t>(t + 1, 10)) / kTokens;
    window += static_cast<double>(std::min<int64_t>(t + 1, 8)) / kTokens;
  }
  ASSERT_EQ(report.baseline.layers.size(), 2U);
  EXPECT_NEAR(report.baseline.kept.mean, (kTokens + 1) / 2.0, 1e-9);
  EXPECT_EQ(report.baseline.kept.max, kTokens);
  EXPECT_NEAR(report.contenders[0].kept.mean, met, 1e-9);
  EXPECT_EQ(report.contenders[0].kept.max, 10);
  const PolicyQuality& mixed = report.contenders[1];
  EXPECT_NEAR(mixed.layers[0].mean, (kTokens + 1) / 2.0, 1e-9);
  EXPECT_NEAR(mixed.layers[1].mean, window, 1e-9);
  EXPECT_NEAR(mixed.kept.mean, (mixed.layers[0].mean + mixed.layers[1].mean) / 2, 1e-9);
  EXPECT_EQ(mixed.kept.max, kTokens);
  EXPECT_EQ(mixed.layers[1].max, 8);
  EXPECT_EQ(report.contenders[2].kept.max, 16 + 8);  // just before it decides
}

/// Keeps the newest 12 positions, as a host's own policy.
class Newest final : public EvictionPolicy {
 public:
  std::string name() const override { return "newest"; }
  TokenVisibility visibility(int32_t) const override { return {0, 12}; }
};

TEST(Quality, AcceptsAHostsOwnPolicies) {
  QualityOptions options = options_for({"window:12", "newest"});
  options.engine.kv.custom_policies["newest"] = [](std::string_view) {
    return std::make_shared<Newest>();
  };
  const QualityReport report = QualityMeter(tiny_folder(), options).compare(some_tokens(60));
  EXPECT_EQ(report.contenders[1].policy, "newest");
  EXPECT_GT(report.contenders[1].kl_mean, 0);
  EXPECT_EQ(report.contenders[1].kl_mean, report.contenders[0].kl_mean);

  // As the baseline, by object: contenders stay what they are.
  options = options_for({"window:12", "full"});
  options.engine.kv.custom_policy = std::make_shared<Newest>();
  const QualityReport other = QualityMeter(tiny_folder(), options).compare(some_tokens(60));
  EXPECT_EQ(other.baseline.policy, "newest");
  EXPECT_EQ(other.contenders[0].kl_mean, 0.0);
  EXPECT_EQ(other.contenders[1].nll, report.baseline.nll);
}

TEST(Quality, RefusalsNameWhatIsWrong) {
  const auto invalid = ErrorCode::kInvalidArgument;
  const auto make = [](const QualityOptions& options) { QualityMeter(tiny_folder(), options); };
  expect_refusal(invalid, "contender 'sink:0': ", [&] { make(options_for({"full", "sink:0"})); });
  expect_refusal(invalid, "contender '0=full': ", [&] { make(options_for({"0=full"})); });
  expect_refusal(invalid, "'dance:4'", [&] { make(options_for({}, "dance:4")); });
  expect_refusal(invalid, "contender '': ", [&] { make(options_for({""})); });
  expect_refusal(invalid, "chunk is 0", [&] { make(options_for({}, "full", 0)); });
  expect_refusal(invalid, "no model", [&] { QualityMeter(nullptr, options_for({})); });
  QualityOptions tight = options_for({"window:4096"}, "window:4");
  tight.engine.kv.budget_bytes = 128 * 1024;
  expect_refusal(ErrorCode::kOutOfMemory, "contender 'window:4096': ", [&] { make(tight); });

  QualityMeter meter(tiny_folder(), options_for({"sink:2+8"}));
  const std::vector<TokenId> tokens = some_tokens(40);
  expect_refusal(invalid, "1 tokens", [&] { meter.compare(std::span(tokens).first(1)); });
  expect_refusal(invalid, "0 tokens", [&] { meter.compare({}); });
  expect_refusal(invalid, "context under 'full' admits 128",
                 [&] { meter.compare(some_tokens(129)); });
  for (const int64_t prompt : {-1, 41}) {
    expect_refusal(invalid,
                   fmt::format("prompt_tokens is {}; it must be from 0 to the text's 40", prompt),
                   [&] {
                     CompareOptions options;
                     options.prompt_tokens = prompt;
                     meter.compare(tokens, options);
                   });
  }
  std::vector<TokenId> unknown = tokens;
  for (const TokenId id : {128, -1}) {
    unknown[30] = id;
    expect_refusal(invalid, std::to_string(id), [&] { meter.compare(unknown); });
  }
  expect_refusal(invalid, "no engine 2", [&] { meter.engine(2); });
  EXPECT_EQ(meter.compare(tokens).scored, 39);  // trouble leaves the meter usable
  EXPECT_EQ(meter.engine(0).kv_stats().sequences, 0);
}

TEST(Quality, ABudgetIsRefusedOnceWithOneThatHoldsTheTextUnderEveryRule) {
  const std::vector<TokenId> text = some_tokens(100);
  struct Case {
    const char *baseline, *contender;
    uint64_t kib;
  };
  for (const Case& c : {Case{"full", "window:16", 8}, Case{"window:16", "full", 60},
                        Case{"0=full,*=window:8", "h2o:32@every:8", 40}, Case{"full", "full", 60},
                        Case{"h2o:40@every:8", "window:60", 24}}) {
    const std::string what = fmt::format("{} against {}", c.baseline, c.contender);
    QualityOptions options = options_for({c.contender}, c.baseline, 16);
    options.engine.kv.budget_bytes = c.kib * 1024;
    options.engine.context = 120;
    const auto refusal = [&](bool early) -> std::vector<Proposal> {
      try {
        options.positions = early ? 100 : 0;
        QualityMeter meter(tiny_folder(), options);
        EXPECT_FALSE(early) << what;
        meter.compare(text);
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory) << what << ": " << e.what();
        return {e.proposals().begin(), e.proposals().end()};
      }
      ADD_FAILURE() << what;
      return {};
    };
    const std::vector<Proposal> proposals = refusal(true);
    ASSERT_FALSE(proposals.empty()) << what;
    ASSERT_TRUE(proposals[0].budget_bytes) << what;
    refusal(false);
    for (const Proposal& p : proposals) {
      QualityOptions mended = options;
      mended.positions = 100;
      Proposal sizes = p;
      sizes.policy.reset();
      mended.engine = with_proposal(mended.engine, sizes);
      if (p.policy) {  // of whichever rule lacks room
        (std::string(c.contender) == "full" ? mended.contenders[0] : mended.engine.kv.policy) =
            *p.policy;
      }
      EXPECT_EQ(QualityMeter(tiny_folder(), mended).compare(text).scored, 99)
          << what << to_text({&p, 1});
    }
    options.engine.kv.budget_bytes = *proposals[0].budget_bytes - 1;
    refusal(true);
  }
}

TEST(Quality, DamagedWeightsAreReportedNotAveraged) {
  const TemporaryFolder folder;
  QualityMeter meter(Model::load(poisoned_folder(folder)), options_for({"window:4"}));
  expect_refusal(ErrorCode::kBadFile, "under 'full'", [&] {
    meter.compare(std::vector<TokenId>{3, 5, 9, 4});
  });
}

TEST(Quality, EveryWayToCancelEndsWithOneErrorAndLeavesTheMeterUsable) {
  QualityMeter meter(tiny_folder(), options_for({"sink:2+8"}, "full", 8));
  const std::vector<TokenId> tokens = some_tokens(64);
  const QualityReport whole = meter.compare(tokens);
  int64_t last = 0;
  CompareOptions by_position;
  by_position.on_position = [&](int64_t at, std::span<const PositionQuality>) {
    last = at;
    return at < 20;
  };
  CompareOptions by_progress;
  by_progress.on_progress = [](double fraction) { return fraction < 0.5; };
  CompareOptions by_call;
  by_call.on_progress = [&](double fraction) {
    if (fraction > 0.3) meter.cancel();
    return true;
  };
  for (const CompareOptions& options : {by_position, by_progress, by_call}) {
    expect_refusal(ErrorCode::kCancelled, "cancelled", [&] { meter.compare(tokens, options); });
    EXPECT_EQ(meter.engine(0).kv_stats().sequences, 0);
    EXPECT_EQ(meter.engine(1).kv_stats().total.pages_active, 0);
    EXPECT_EQ(meter.compare(tokens).contenders[0].kl_mean, whole.contenders[0].kl_mean);
  }
  EXPECT_EQ(last, 20);
  CompareOptions throws;
  throws.on_position = [](int64_t, std::span<const PositionQuality>) -> bool {
    throw std::runtime_error("mine");
  };
  EXPECT_THROW(meter.compare(tokens, throws), std::runtime_error);
  EXPECT_EQ(meter.compare(tokens).baseline.nll, whole.baseline.nll);
}

TEST(Quality, ACallbackThatComparesAgainIsRefusedAndChangesNothing) {
  QualityMeter meter(tiny_folder(), options_for({"window:16"}, "full", 8));
  const std::vector<TokenId> tokens = some_tokens(40);
  const QualityReport undisturbed = meter.compare(tokens);
  CompareOptions nested;
  int refused = 0;
  nested.on_position = [&](int64_t, std::span<const PositionQuality>) {
    expect_refusal(ErrorCode::kInvalidArgument, "compare()", [&] { meter.compare(tokens); });
    ++refused;
    return true;
  };
  const QualityReport report = meter.compare(tokens, nested);
  EXPECT_EQ(refused, 39);
  EXPECT_EQ(report.baseline.nll, undisturbed.baseline.nll);
  EXPECT_EQ(report.contenders[0].kl_mean, undisturbed.contenders[0].kl_mean);
}

TEST(Quality, ProgressGrowsToOne) {
  QualityMeter meter(tiny_folder(), options_for({"sink:2+8", "window:8"}, "full", 8));
  double last = 0;
  CompareOptions options;
  options.on_progress = [&](double fraction) {
    EXPECT_GT(fraction, last);
    last = fraction;
    return true;
  };
  meter.compare(some_tokens(61), options);
  EXPECT_DOUBLE_EQ(last, 1.0);
}

TEST(Quality, MemoryGrowsByTheTokensOfTheTextAndByWhatIsDecidedAlone) {
  if (!kCountsBytes) GTEST_SKIP() << "a sanitizer owns operator new";
  QualityMeter meter(tiny_folder(), options_for({"sink:2+8", "h2o:16@every:8"}, "window:24", 16));
  const auto most = [&](int64_t n) {
    const std::vector<TokenId> tokens = some_tokens(n);
    const LiveBytes live;
    meter.compare(tokens);
    return live.most();
  };
  const int64_t small = most(256);
  EXPECT_GT(small, 0);
  constexpr int64_t kOfSessions = int64_t{3} * 4096 * sizeof(TokenId);  // three rules' sessions,
  constexpr int64_t kMoving =
      int64_t{2048} * sizeof(TokenId);  // one of which moves when it doubles
  // And what the scored rule has decided: an entry for each block that left and each that was next,
  // in both layers, with the room of a log that doubles (docs/scheduling.md).
  constexpr int64_t kOfDecisions = int64_t{2} * 2 * 24 * 2 * 4096 / 4;
  EXPECT_LE(most(4096), small + kOfSessions + kMoving + kOfDecisions + 1024);
  EXPECT_LT(small, 64 * 1024);
}

// ---- planted facts

TEST(Facts, AreDeterministicAndDistinct) {
  const std::vector<PlantedFact> facts = make_facts(26, 7);
  std::set<std::string> answers;
  for (size_t i = 0; i < facts.size(); ++i) {
    EXPECT_EQ(facts[i].statement, facts[i].question + facts[i].answer + ".");
    EXPECT_EQ(facts[i].answer.size(), 5U);
    EXPECT_DOUBLE_EQ(facts[i].depth, (static_cast<double>(i) + 0.5) / 26);
    answers.insert(facts[i].answer);
    EXPECT_EQ(facts[i].answer, make_facts(26, 7)[i].answer);
  }
  EXPECT_EQ(answers.size(), 26U);
  EXPECT_NE(make_facts(1, 8)[0].answer, facts[0].answer);
  expect_refusal(ErrorCode::kInvalidArgument, "0 facts", [] { make_facts(0); });
  expect_refusal(ErrorCode::kInvalidArgument, "27 facts", [] { make_facts(27); });
}

TEST(Facts, LieWhereTheirDepthSays) {
  const auto model = tiny_with_text();
  const Tokenizer& tokenizer = *model->tokenizer();
  const std::vector<PlantedFact> facts = {
      {"C.", "C?", "3", 1.0}, {"A.", "A?", "1", 0.0}, {"B.", "B?", "22", 0.5}};
  const PlantedText planted = plant(tokenizer, tokenizer.encode("wxyz"), facts);
  EXPECT_EQ(tokenizer.decode(planted.tokens), "\nA.\nwx\nB.\nyz\nC.\n\nC?3\nA?1\nB?22");
  EXPECT_EQ(planted.prompt_tokens, 16);
  EXPECT_EQ(planted.positions, (std::vector<int64_t>{12, 0, 6}));
  std::string answers;
  for (size_t i = 0; i < planted.tokens.size(); ++i) {
    const int32_t fact = planted.fact_of[i];
    answers += fact < 0 ? "." : std::to_string(fact);
  }
  EXPECT_EQ(answers, "...................0...1...22");
  EXPECT_EQ(recall_tokens(tokenizer, facts), static_cast<int64_t>(planted.tokens.size()) - 4);
}

TEST(Facts, AreRecalledWhereGreedyDecodingSaysThem) {
  const auto model = tiny_with_text();
  const Tokenizer& tokenizer = *model->tokenizer();
  const std::vector<TokenId> text = tokenizer.encode(
      "When a new one arrived, somebody had to leave. He kept the four that had come first.");
  QualityOptions options = options_for({"full", "window:8", "snapkv:32"});
  options.engine.context = 1024;
  QualityMeter meter(model, options);

  // What each rule really says after the question, when nothing is given away.
  const PlantedFact secret{"The number is 7.", "The number is", "????", 0.3};
  const PlantedText asked = plant(tokenizer, text, std::span(&secret, 1));
  const auto question = std::span(asked.tokens).first(asked.tokens.size() - 4);
  std::vector<std::string> said;
  std::vector<std::string> rules = {"full", "window:8", "snapkv:32"};
  for (const std::string& policy : rules) {
    EngineOptions engine_options = options.engine;
    engine_options.kv.policy = policy;
    Engine engine(parts(model, engine_options));
    std::string answer;
    std::vector<TokenId> tokens(question.begin(), question.end());
    for (int i = 0; i < 4; ++i) {
      std::vector<float> last;
      engine.forward(
          tokens,
          [&](int64_t, std::span<const float> row) {
            last.assign(row.begin(), row.end());
            return true;
          },
          asked.prompt_tokens);
      tokens.push_back(
          static_cast<TokenId>(std::max_element(last.begin(), last.end()) - last.begin()));
      answer += static_cast<char>(tokens.back());
    }
    said.push_back(answer);
  }
  ASSERT_NE(said[0], said[1]) << "the window changes nothing: the test is trivial";

  for (size_t truth = 0; truth < said.size(); ++truth) {
    PlantedFact fact = secret;
    fact.answer = said[truth];
    const RecallReport report = meter.recall(text, std::span(&fact, 1));
    EXPECT_EQ(report.tokens, static_cast<int64_t>(asked.tokens.size()));
    EXPECT_EQ(report.positions, asked.positions);
    ASSERT_EQ(report.contenders.size(), rules.size());
    const bool full_recalls = said[truth] == said[0];
    EXPECT_EQ(report.baseline.facts[0].recalled, full_recalls);
    EXPECT_EQ(report.baseline.recalled, full_recalls ? 1 : 0);
    for (size_t i = 0; i < rules.size(); ++i) {
      const PolicyRecall& contender = report.contenders[i];
      EXPECT_EQ(contender.policy, rules[i]);
      EXPECT_EQ(contender.facts[0].recalled, said[truth] == said[i]) << rules[i];
      EXPECT_EQ(contender.recalled, full_recalls && said[truth] == said[i] ? 1 : 0) << rules[i];
      EXPECT_GT(contender.facts[0].answer_nll, 0);
    }
    EXPECT_EQ(report.contenders[0].facts[0].answer_nll, report.baseline.facts[0].answer_nll);
    EXPECT_NE(report.contenders[1].facts[0].answer_nll, report.baseline.facts[0].answer_nll);
  }
}

TEST(Facts, AnswerNllIsTheMeanOverItsTokens) {
  const auto model = tiny_with_text();
  const std::vector<PlantedFact> facts = make_facts(2);
  QualityOptions options = options_for({"sink:4+60"}, "window:90", 16);
  QualityMeter meter(model, options);
  const RecallReport report = meter.recall({}, facts);
  const PlantedText planted = plant(*model->tokenizer(), {}, facts);
  const Matrix logits = logits_under(options, "sink:4+60", planted.tokens, planted.prompt_tokens);
  for (int32_t fact : {0, 1}) {
    double nll = 0;
    int n = 0;
    for (size_t i = 1; i < planted.tokens.size(); ++i) {
      if (planted.fact_of[i] != fact) continue;
      nll -= log_softmax(logits.row(static_cast<int64_t>(i) - 1), logits.cols)[planted.tokens[i]];
      ++n;
    }
    EXPECT_EQ(n, 5);
    EXPECT_NEAR(report.contenders[0].facts[fact].answer_nll, nll / n, 1e-10);
  }
}

TEST(Facts, RefusalsNameWhatIsWrong) {
  const auto model = tiny_with_text();
  const auto invalid = ErrorCode::kInvalidArgument;
  QualityMeter meter(model, options_for({"sink:2+8"}));
  const std::vector<TokenId> text = some_tokens(20);
  const PlantedFact good{"A.", "A", "1", 0.5};
  const auto recall = [&](const PlantedFact& fact) {
    const std::vector<PlantedFact> facts = {good, fact};
    meter.recall(text, facts);
  };
  expect_refusal(invalid, "no facts", [&] { meter.recall(text, {}); });
  expect_refusal(invalid, "fact 1 lacks", [&] { recall({"", "A", "1", 0.5}); });
  expect_refusal(invalid, "fact 1 lacks", [&] { recall({"A.", "", "1", 0.5}); });
  expect_refusal(invalid, "fact 1 lacks", [&] { recall({"A.", "A", "", 0.5}); });
  for (const double depth : {-0.1, 1.1, static_cast<double>(NAN)}) {
    expect_refusal(invalid, "fact 1 has depth", [&] { recall({"A.", "A", "1", depth}); });
  }
  expect_refusal(invalid, "byte", [&] { recall({"\xFF", "A", "1", 0.5}); });
  expect_refusal(invalid, "context under 'full'", [&] {
    recall({std::string(200, 'a'), "A", "1", 0.5});
  });
  RecallOptions cancel;
  cancel.on_progress = [](double) { return false; };
  expect_refusal(ErrorCode::kCancelled, "cancelled",
                 [&] { meter.recall(text, std::span(&good, 1), cancel); });
  EXPECT_EQ(meter.engine(0).kv_stats().sequences, 0);
  QualityMeter without(tiny_folder(), options_for({}));
  expect_refusal(ErrorCode::kUnsupported, "tokenizer",
                 [&] { without.recall(text, std::span(&good, 1)); });
}

// ---- a real model

TEST(RealModel, SinksSaveWhatAWindowLosesAndFullRecallsFacts) {
  PADDOCK_REAL_FILE(path, "PADDOCK_TEST_MODEL")
  const auto model = Model::load(path);
  std::ifstream file(std::string(PADDOCK_TEST_DATA) + "/../golden/prose.txt");
  const std::string prose{std::istreambuf_iterator<char>(file), {}};
  const std::vector<TokenId> tokens = model->tokenizer()->encode(prose);
  ASSERT_GT(tokens.size(), 300U);
  QualityOptions options;
  options.engine.device = kDevice;
  options.engine.threads = 2;
  options.engine.context = 1024;
  options.contenders = {"sink:4+60", "window:64"};
  QualityMeter meter(model, options);
  const QualityReport report = meter.compare(tokens);
  const PolicyQuality& sink = report.contenders[0];
  const PolicyQuality& window = report.contenders[1];
  EXPECT_LT(report.baseline.perplexity, sink.perplexity);
  EXPECT_GT(window.perplexity, 1.5 * sink.perplexity);  // StreamingLLM
  EXPECT_GT(window.kl_mean, 2 * sink.kl_mean);
  EXPECT_GT(sink.top1_agreement, window.top1_agreement);

  const std::vector<PlantedFact> facts = make_facts(4);
  const RecallReport recall = meter.recall(tokens, facts);
  EXPECT_GE(recall.baseline.recalled, 3);
  EXPECT_EQ(recall.contenders[0].recalled, 0);  // the last one is 80 positions away
  EXPECT_EQ(recall.contenders[1].recalled, 0);
}

}  // namespace
}  // namespace paddock::test
