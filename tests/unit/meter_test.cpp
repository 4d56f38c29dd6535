// The quality meter used again and again, and facts that are known in part: each text is measured
// as if it were the first.
#include "support/meter.h"

#include <numeric>
#include <random>
#include <set>

#include "diagnose/quality_rows.h"

namespace paddock::test {
namespace {

const std::vector<std::string>& rules() {
  static const std::vector<std::string> all = {"window:9", "h2o:16@every:8", "full",
                                               "sink:2+8", "snapkv:24",      "window:30"};
  return all;
}

void expect_same(const PolicyQuality& a, const PolicyQuality& b) {
  SCOPED_TRACE(a.policy);
  EXPECT_EQ(a.policy, b.policy);
  EXPECT_EQ(a.nll, b.nll);
  EXPECT_EQ(a.perplexity, b.perplexity);
  EXPECT_EQ(a.kl_mean, b.kl_mean);
  EXPECT_EQ(a.kl_max, b.kl_max);
  EXPECT_EQ(a.kl_max_position, b.kl_max_position);
  EXPECT_EQ(a.top1_agreement, b.top1_agreement);
  EXPECT_EQ(a.kept.mean, b.kept.mean);
  EXPECT_EQ(a.kept.max, b.kept.max);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t i = 0; i < a.layers.size(); ++i) {
    EXPECT_EQ(a.layers[i].mean, b.layers[i].mean);
    EXPECT_EQ(a.layers[i].max, b.layers[i].max);
  }
}

void expect_same(const QualityReport& a, const QualityReport& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.scored, b.scored);
  expect_same(a.baseline, b.baseline);
  ASSERT_EQ(a.contenders.size(), b.contenders.size());
  for (size_t i = 0; i < a.contenders.size(); ++i) expect_same(a.contenders[i], b.contenders[i]);
}

TEST(Meter, MeasuresEachTextAsIfItWereTheFirst) {
  const auto model = tiny_with_text();
  QualityOptions options = options_for(rules(), "full", 16);
  options.engine.context = 512;
  options.engine.threads = 1;
  QualityMeter meter(model, options);
  const std::vector<PlantedFact> facts = make_facts(2);
  const std::vector<TokenId> text = some_tokens(120);
  int n = 0;
  for (const int64_t length : {100, 120, 30, 2, 64, 120}) {
    SCOPED_TRACE(length);
    const auto part = std::span(text).first(static_cast<size_t>(length));
    CompareOptions compare;
    compare.prompt_tokens = length / 2;
    expect_same(meter.compare(part, compare), QualityMeter(model, options).compare(part, compare));
    if (++n % 2 == 0) continue;
    const RecallReport again = meter.recall(part, facts);
    const RecallReport first = QualityMeter(model, options).recall(part, facts);
    EXPECT_EQ(again.positions, first.positions);
    for (size_t i = 0; i < rules().size(); ++i) {
      EXPECT_EQ(again.contenders[i].facts[1].answer_nll, first.contenders[i].facts[1].answer_nll);
    }
  }
  for (size_t i = 0; i <= rules().size(); ++i) {
    EXPECT_EQ(meter.engine(i).kv_stats().total.pages_active, 0);
    EXPECT_EQ(meter.engine(i).kv_stats().sequences, 0);
  }
}

TEST(Meter, KeepsTheOrderOfItsContenders) {
  QualityMeter meter(tiny_folder(), options_for(rules(), "window:40"));
  const QualityReport report = meter.compare(some_tokens(60));
  EXPECT_EQ(report.baseline.policy, "window:40");
  EXPECT_EQ(meter.engine(0).options().kv.policy, "window:40");
  for (size_t i = 0; i < rules().size(); ++i) {
    EXPECT_EQ(report.contenders[i].policy, rules()[i]);
    EXPECT_EQ(meter.engine(i + 1).options().kv.policy, rules()[i]);
  }
}

TEST(Meter, CountsWhatAScoredRuleLetEachQueryMeet) {
  // Held grows to the budget and eight more, then falls to the budget; at the end it has just
  // fallen, or is in between.
  for (const int64_t n : {96, 99, 24, 23, 10}) {
    for (const int32_t chunk : {5, 64}) {
      QualityMeter meter(tiny_folder(), options_for({"h2o:16@every:8"}, "full", chunk));
      const PolicyQuality& q = meter.compare(some_tokens(n)).contenders[0];
      double met = 0;
      int64_t most = 0;
      for (int64_t t = 0; t < n; ++t) {
        const int64_t here = t < 24 ? t + 1 : 16 + (t - 24) % 8 + 1;
        met += static_cast<double>(here) / static_cast<double>(n);
        most = std::max(most, here);
      }
      EXPECT_NEAR(q.kept.mean, met, 1e-9) << n;
      EXPECT_EQ(q.kept.max, most) << n;
    }
  }
}

TEST(Meter, ABatchSmallerThanItsChunkChangesNothing) {
  QualityOptions options = options_for({"sink:2+8", "h2o:16@every:8"}, "full", 40);
  const QualityReport whole = QualityMeter(tiny_folder(), options).compare(some_tokens(100));
  options.engine.batch_size = 7;
  expect_same(QualityMeter(tiny_folder(), options).compare(some_tokens(100)), whole);
  options.engine.batch_size = 512;
  QualityMeter meter(tiny_folder(), options);
  EXPECT_EQ(meter.engine(0).options().batch_size, 40);
  EXPECT_EQ(meter.engine(2).options().batch_size, 40);
}

TEST(Meter, RangesEndWhereTheySay) {
  const auto refusal = [](const std::function<void()>& act) -> std::string {
    try {
      act();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      return e.what();
    }
    return "";
  };
  for (const int32_t chunk : {1, 65535}) {
    EXPECT_EQ(refusal([&] { QualityMeter(tiny_folder(), options_for({}, "full", chunk)); }), "");
  }
  for (const int32_t chunk : {-1, 0, 65536}) {
    EXPECT_NE(refusal([&] {
                QualityMeter(tiny_folder(), options_for({}, "full", chunk));
              }).find("chunk is " + std::to_string(chunk)),
              std::string::npos);
  }
  QualityMeter meter(tiny_folder(), options_for({"sink:2+8"}));
  const std::vector<TokenId> text = some_tokens(128);  // the whole context
  for (const int64_t prompt : {0, 128}) {
    CompareOptions options;
    options.prompt_tokens = prompt;
    EXPECT_EQ(meter.compare(text, options).scored, 127);
  }
  EXPECT_EQ(meter.compare(std::span(text).first(2)).scored, 1);
  QualityOptions negative = options_for({});
  negative.positions = -1;
  EXPECT_NE(refusal([&] { QualityMeter(tiny_folder(), negative); }).find("positions is -1"),
            std::string::npos);
  EXPECT_EQ(meter.engine(1).options().kv.policy, "sink:2+8");
  EXPECT_NE(refusal([&] { meter.engine(2); }), "");
}

TEST(Meter, ABudgetHasToHoldTheTextUnderEveryRule) {
  QualityOptions options = options_for({"sink:2+8", "0=full,1=window:8"}, "full", 16);
  const auto page =
      static_cast<uint64_t>(QualityMeter(tiny_folder(), options).engine(0).kv_stats().page_bytes);
  const std::vector<TokenId> text = some_tokens(80);  // 20 blocks in each of two layers
  const auto refused = [](const std::function<void()>& act) {
    try {
      act();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory) << e.what();
      EXPECT_FALSE(e.proposals().empty()) << e.what();
      return true;
    }
    return false;
  };
  for (const uint64_t pages : {39, 40}) {
    options.engine.kv.budget_bytes = pages * page;
    options.positions = 80;
    EXPECT_EQ(refused([&] { QualityMeter(tiny_folder(), options); }), pages == 39);
    options.positions = 0;
    QualityMeter meter(tiny_folder(), options);
    EXPECT_EQ(refused([&] { meter.compare(text); }), pages == 39);
    EXPECT_EQ(meter.compare(std::span(text).first(76)).scored, 75);
  }
  // A contender that lacks room is told from the baseline.
  QualityOptions other = options_for({"full"}, "window:8", 16);
  other.engine.kv.budget_bytes = 39 * page;
  other.positions = 80;
  try {
    QualityMeter(tiny_folder(), other);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_TRUE(std::string(e.what()).starts_with("contender: 80 positions need ")) << e.what();
  }
}

TEST(Meter, AContextThatIsTooShortIsNotABudgetThatIsTooSmall) {
  QualityOptions options = options_for({"window:8"}, "full", 16);
  options.engine.context = 40;
  options.engine.kv.budget_bytes = 40 * 1024 * 1024;
  try {
    QualityMeter(tiny_folder(), options).compare(some_tokens(80));
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(e.what()).find("the context under 'full' admits 40"), std::string::npos)
        << e.what();
  }
  options.engine.kv.budget_bytes = 0;
  const auto page =
      static_cast<uint64_t>(QualityMeter(tiny_folder(), options).engine(0).kv_stats().page_bytes);
  options.engine.kv.budget_bytes = 30 * page;  // too little for 80 positions, but not for 40
  options.positions = 80;
  EXPECT_NO_THROW(QualityMeter(tiny_folder(), options));
}

TEST(Meter, ASingleRuleThatLacksRoomIsProposedMoreThanABudget) {
  QualityOptions options = options_for({"full"}, "window:8", 16);
  const auto page =
      static_cast<uint64_t>(QualityMeter(tiny_folder(), options).engine(0).kv_stats().page_bytes);
  options.engine.kv.budget_bytes = 39 * page;
  options.positions = 80;
  try {
    QualityMeter(tiny_folder(), options);
    ADD_FAILURE();
  } catch (const Error& e) {
    ASSERT_GE(e.proposals().size(), 2) << e.what();
    EXPECT_EQ(e.proposals()[0].budget_bytes, 40 * page);
    EXPECT_FALSE(e.proposals()[1].budget_bytes.has_value());
  }
}

TEST(Meter, ADivergenceIsNeverNegativeAndAlwaysANumber) {
  std::mt19937 random(5);
  constexpr int32_t kVocab = 64;
  BaselineRows rows(1, kVocab, true);
  std::vector<float> p(kVocab);
  std::vector<float> q(kVocab);
  const auto score = [&] {
    const PositionQuality own = rows.set(0, p, 3);
    EXPECT_EQ(own.kl, 0);
    EXPECT_TRUE(own.agrees);
    return rows.score(0, q, 3);
  };
  for (int round = 0; round < 2000; ++round) {
    for (int32_t i = 0; i < kVocab; ++i) {
      p[i] = static_cast<float>(random() % 2000) / 100.0F;
      q[i] = p[i];
    }
    q[random() % kVocab] += 1e-6F;  // less than rounding tells
    const PositionQuality at = score();
    EXPECT_GE(at.kl, 0);
    EXPECT_LT(at.kl, 1e-6);
  }
  for (const float far : {1e4F, 1e30F, 3e38F}) {  // finite, however far apart
    std::fill(p.begin(), p.end(), -far);
    std::fill(q.begin(), q.end(), -far);
    p[7] = far;
    q[9] = far;
    const PositionQuality at = score();
    EXPECT_TRUE(std::isfinite(at.kl)) << at.kl;
    EXPECT_NEAR(at.kl / far, 2, 1e-3);
    EXPECT_FALSE(at.agrees);
  }
  // Of equals the lowest id is the best one.
  std::fill(p.begin(), p.end(), 0.0F);
  std::fill(q.begin(), q.end(), 0.0F);
  p[7] = p[20] = 1;
  q[7] = 1;
  EXPECT_TRUE(score().agrees);
  std::swap(p, q);
  EXPECT_TRUE(score().agrees);
  q[7] = 0;
  EXPECT_FALSE(score().agrees);
}

// ---- facts

TEST(Recall, NumbersNeverRepeat) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    std::set<std::string> answers;
    for (const PlantedFact& fact : make_facts(26, seed)) {
      answers.insert(fact.answer);
      const int number = std::stoi(fact.answer);
      EXPECT_GE(number, 1000);
      EXPECT_LE(number, 9999);
    }
    EXPECT_EQ(answers.size(), 26U) << seed;
  }
}

/// What is likeliest after `text`, under the baseline.
char likeliest(const std::shared_ptr<const Model>& model, const QualityOptions& options,
               const std::string& text) {
  Engine engine(parts(model, options.engine));
  const auto row = engine.feed(engine.open_session(), model->tokenizer()->encode(text));
  return static_cast<char>(std::max_element(row.begin(), row.end()) - row.begin());
}

TEST(Recall, EveryTokenOfAnAnswerHasToBeRight) {
  const auto model = tiny_with_text();
  QualityOptions options = options_for({"full", "window:100"});
  options.engine.context = 256;
  QualityMeter meter(model, options);
  const std::string before = "\nThe key is here.\n";
  const std::string text = "some words before all that";
  const auto recall = [&](const std::string& answer) {
    const PlantedFact fact{"The key is here.", "The key is", answer, 1.0};
    return meter.recall(model->tokenizer()->encode(text), std::span(&fact, 1));
  };
  const std::string asked = text + before + "\nThe key is";
  const auto say = [&](const std::string& so_far) {
    return likeliest(model, options, asked + so_far);
  };
  const auto other_than = [](char c) { return c == 'q' ? 'r' : 'q'; };
  const std::string first(1, say(""));
  const std::string wrong(1, other_than(first[0]));
  const std::string right = first + say(first);
  const std::string last_right = wrong + say(wrong);
  const std::string first_right = first + other_than(say(first));
  const std::string middle_wrong = first_right + say(first_right);
  struct Row {
    std::string answer;
    bool recalled;
  };
  for (const Row& row : {Row{first, true}, Row{right, true}, Row{last_right, false},
                         Row{first_right, false}, Row{middle_wrong, false}, Row{wrong, false}}) {
    const RecallReport report = recall(row.answer);
    EXPECT_EQ(report.baseline.facts[0].recalled, row.recalled) << row.answer;
    EXPECT_EQ(report.baseline.recalled, row.recalled ? 1 : 0);
    EXPECT_EQ(report.contenders[0].facts[0].recalled, row.recalled);
    EXPECT_EQ(report.contenders[0].recalled, row.recalled ? 1 : 0);
    EXPECT_EQ(report.contenders[0].facts[0].answer_nll, report.baseline.facts[0].answer_nll);
  }
}

TEST(Recall, ThePromptEndsBeforeTheFirstQuestion) {
  // snapkv decides there: text after the last fact is part of the prompt.
  const auto model = tiny_with_text();
  QualityOptions options = options_for({"snapkv:24@recent:5"}, "full", 16);
  options.engine.context = 256;
  QualityMeter meter(model, options);
  const std::string text = "wherever they went, somebody else was there already";
  const PlantedFact fact{"It is 7.", "It is", " 77", 0.5};
  const RecallReport report = meter.recall(model->tokenizer()->encode(text), std::span(&fact, 1));
  const auto middle = static_cast<size_t>(report.positions[0]);
  const std::string prompt =
      text.substr(0, middle) + "\n" + fact.statement + "\n" + text.substr(middle);
  const std::vector<TokenId> all =
      model->tokenizer()->encode(prompt + "\n" + fact.question + fact.answer);
  ASSERT_EQ(report.tokens, static_cast<int64_t>(all.size()));
  EXPECT_EQ(middle, (text.size() + 1) / 2);
  EngineOptions how = options.engine;
  how.kv.policy = "snapkv:24@recent:5";
  const auto nll_with_prompt = [&](int64_t end) {
    Engine engine(parts(model, how));
    double nll = 0;
    engine.forward(
        all,
        [&](int64_t position, std::span<const float> row) {
          const auto next = static_cast<size_t>(position) + 1;
          if (next + 3 >= all.size() && next < all.size()) {
            double sum = 0;
            for (const float logit : row) sum += std::exp(double{logit});
            nll += (std::log(sum) - double{row[all[next]]}) / 3;
          }
          return true;
        },
        end);
    return nll;
  };
  const double nll = report.contenders[0].facts[0].answer_nll;
  const auto end = static_cast<int64_t>(prompt.size());
  EXPECT_NEAR(nll, nll_with_prompt(end), 1e-9);
  EXPECT_GT(std::abs(nll - nll_with_prompt(end - 25)), 1e-6) << "the end changes nothing";
  EXPECT_GT(std::abs(nll - nll_with_prompt(0)), 1e-6);
}

TEST(Recall, StatementsOfEqualDepthKeepTheirOrder) {
  const auto model = tiny_with_text();
  QualityOptions options = options_for({});
  options.engine.context = 256;
  const std::vector<PlantedFact> facts = {
      {"B.", "B", "2", 0.5}, {"C.", "C", "3", 0.5}, {"A.", "A", "1", 0.25}, {"D.", "D", "4", 0.5}};
  const RecallReport report = QualityMeter(model, options).recall(some_tokens(8), facts);
  EXPECT_EQ(report.positions, (std::vector<int64_t>{2 + 4 + 2, 8 + 4, 2, 12 + 4}));
  EXPECT_EQ(report.tokens, 8 + 4 * (4 + 3));
}

TEST(Recall, ProgressGrowsToOneAndMayCancel) {
  const auto model = tiny_with_text();
  QualityOptions options = options_for({"sink:2+8", "window:20"}, "full", 16);
  options.engine.context = 256;
  QualityMeter meter(model, options);
  const std::vector<PlantedFact> facts = make_facts(1);
  const std::vector<TokenId> text = some_tokens(50);
  const RecallReport whole = meter.recall(text, facts);
  double last = 0;
  int calls = 0;
  RecallOptions grows;
  grows.on_progress = [&](double fraction) {
    EXPECT_GT(fraction, last);
    last = fraction;
    return ++calls > 0;
  };
  meter.recall(text, facts, grows);
  EXPECT_DOUBLE_EQ(last, 1.0);
  EXPECT_EQ(calls, 3 * static_cast<int>((whole.tokens + 15) / 16));
  RecallOptions by_answer;
  by_answer.on_progress = [](double fraction) { return fraction < 0.5; };
  RecallOptions by_call;
  by_call.on_progress = [&](double) {
    meter.cancel();
    return true;
  };
  for (const RecallOptions& options_of : {by_answer, by_call}) {
    try {
      meter.recall(text, facts, options_of);
      ADD_FAILURE() << "it was cancelled";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCancelled);
    }
    EXPECT_EQ(meter.engine(0).kv_stats().sequences, 0);
    const RecallReport again = meter.recall(text, facts);
    EXPECT_EQ(again.contenders[1].facts[0].answer_nll, whole.contenders[1].facts[0].answer_nll);
    EXPECT_EQ(meter.compare(text).scored, 49);
  }
}

}  // namespace
}  // namespace paddock::test
