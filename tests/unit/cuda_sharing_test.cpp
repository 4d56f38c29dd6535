// Several sequences in one memory of a CUDA device: answers that begin as another one, sequences
// that are parked and computed again, budgets that fall, are changed, and forks.
#include <string>
#include <vector>

#include "support/shared_memory.h"
#include "support/simt/harness.h"
#if !defined(PADDOCK_GPU_TEST)
#include "support/simt/simt_runtime.h"
#endif

namespace paddock::test {
namespace {

class CudaSharing : public testing::Test {
 protected:
  void SetUp() override { look_for_races(false); }  // those of one engine are looked for elsewhere
  void TearDown() override {
    look_for_races(true);
    EXPECT_EQ(simt::take_report_text(), "");
  }

 private:
  static void look_for_races([[maybe_unused]] bool on) {
#if !defined(PADDOCK_GPU_TEST)
    simt::set_race_checks(on);
#endif
  }
};

EngineOptions on(const char* device, const std::string& policy, int64_t pages, int32_t sequences) {
  EngineOptions options = shared_memory(policy, pages, sequences);
  options.device = device;
  return options;
}

void finish(Engine& engine) {
  while (engine.step()) engine.check_integrity();
}

TEST_F(CudaSharing, AnswersToOnePromptAreWhatEachIsAlone) {
  for (const char* policy : {"h2o:16@every:8@compact"}) {
    SCOPED_TRACE(policy);
    Engine engine(parts(tiny(), on("cuda", policy, 0, 3)));
    Engine alone(parts(tiny(), on("cuda", policy, 0, 1)));
    GenerateOptions options = drawn(3, 5, 5);
    const RequestId first = engine.add(text_at(0, 22), options);
    finish(engine);
    options.n = 1;
    for (int32_t i = 0; i < 3; ++i) {
      const GenerateResult result = engine.take(first + i).value();
      options.sampling.seed = static_cast<uint64_t>(5 + i);
      EXPECT_EQ(result.tokens, alone.generate(text_at(0, 22), options).tokens) << i;
      EXPECT_EQ(result.cached_tokens, i == 0 ? 0 : 22);
    }
    // A session's fork goes on as it would.
    const SessionId session = alone.open_session();
    alone.generate(session, text_at(3, 22), greedy(4));
    const SessionId origin = engine.open_session();
    engine.generate(origin, text_at(3, 22), greedy(4));
    const SessionId fork = engine.fork_session(origin);
    engine.generate(origin, text_at(9, 3), greedy(3));
    const GenerateResult forked = engine.generate(fork, text_at(20, 3), greedy(5));
    EXPECT_EQ(forked.tokens, alone.generate(session, text_at(20, 3), greedy(5)).tokens);
    EXPECT_EQ(forked.recomputed_tokens, 0);
  }
}

/// Two requests at once; how often they were parked.
int64_t run_two(Engine& engine, std::vector<std::vector<TokenId>>& answers) {
  std::vector<RequestId> ids;
  for (size_t i = 0; i < 2; ++i) ids.push_back(engine.add(text_at(7 * i, 8), greedy(28)));
  finish(engine);
  int64_t preemptions = 0;
  answers.clear();
  for (const RequestId id : ids) {
    const GenerateResult result = engine.take(id).value();
    EXPECT_EQ(result.finish_reason, FinishReason::kLength);
    answers.push_back(result.tokens);
    preemptions += result.preemptions;
  }
  expect_nothing_held(engine);
  return preemptions;
}

TEST_F(CudaSharing, WhoWasParkedComesBackAsItWas) {
  for (const char* policy : {"full", "cake:h2o:24@every:8"}) {
    SCOPED_TRACE(policy);
    std::vector<std::vector<TokenId>> answers;
    int64_t pages = 40;  // the most in which somebody has to give way
    for (int64_t preemptions = 0; preemptions == 0;) {
      Engine host(parts(tiny(), on("cpu", policy, --pages, 2)));
      preemptions = run_two(host, answers);
    }
    Engine engine(parts(tiny(), on("cuda", policy, pages, 2)));
    EXPECT_GT(run_two(engine, answers), 0);
    Engine alone(parts(tiny(), on("cuda", policy, 0, 1)));
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(answers[i], alone.generate(text_at(7 * i, 8), greedy(28)).tokens) << i;
    }
  }
}

/// Collects the logits before each token of an answer; `forced`: which is then this one, whatever
/// they are.
GenerateOptions listening(std::vector<float>& logits, const std::vector<TokenId>* forced) {
  GenerateOptions options = greedy(28);
  options.logits_processor = [&logits, forced, n = size_t{0}](std::span<const TokenId>,
                                                              std::span<float> now) mutable {
    logits.insert(logits.end(), now.begin(), now.end());
    if (forced != nullptr) now[static_cast<size_t>((*forced)[n++])] = 1e6F;
  };
  return options;
}

TEST_F(CudaSharing, InFastPrecisionWhoWasParkedComesBackWithinTolerance) {
  const char* policy = "h2o:24@every:8";
  std::vector<std::vector<TokenId>> answers;
  int64_t pages = 40;  // the most in which somebody has to give way
  for (int64_t preemptions = 0; preemptions == 0;) {
    Engine host(parts(tiny(), on("cpu", policy, --pages, 2)));
    preemptions = run_two(host, answers);
  }
  const auto fast = [&](int64_t n_pages, int32_t sequences) {
    EngineOptions options = on("cuda", policy, n_pages, sequences);
    options.precision = Precision::kFast;
    options.kv.type = KvType::kF32;  // pages as large as the reference's
    return parts(tiny(), options);
  };
  Engine alone(fast(0, 1)), engine(fast(pages, 2));
  std::vector<std::vector<float>> expected(2), logits(2);
  std::vector<RequestId> ids;
  for (size_t i = 0; i < 2; ++i) {
    answers[i] = alone.generate(text_at(7 * i, 8), listening(expected[i], nullptr)).tokens;
    ids.push_back(engine.add(text_at(7 * i, 8), listening(logits[i], &answers[i])));
  }
  finish(engine);
  int64_t preemptions = 0;
  for (size_t i = 0; i < 2; ++i) {
    const GenerateResult result = engine.take(ids[i]).value();
    EXPECT_EQ(result.tokens, answers[i]);
    preemptions += result.preemptions;
    const int32_t vocab = tiny()->info().vocab_size;
    EXPECT_LT(relative_error(Matrix{28, vocab, logits[i]}, Matrix{28, vocab, expected[i]}), 0.05);
  }
  EXPECT_GT(preemptions, 0);
}

TEST_F(CudaSharing, BudgetsFallAsTheyDoOnTheCpu) {
  for (const char* policy : {"cake:h2o@every:8", "sink:4@every:8"}) {
    SCOPED_TRACE(policy);
    std::vector<std::string> told;
    for (const char* device : {"cuda", "cpu"}) {
      EngineOptions options = on(device, policy, 36, 2);
      options.kv.max_budget_bytes = options.kv.budget_bytes * 2;
      Engine engine(parts(tiny(), options));
      std::vector<RequestId> ids;
      for (size_t i = 0; i < 2; ++i) ids.push_back(engine.add(text_at(7 * i, 16), greedy(24)));
      for (int i = 0; i < 10; ++i) engine.step();
      engine.set_kv_budget(options.kv.budget_bytes * 2 / 3);
      for (int i = 0; i < 10; ++i) engine.step();
      engine.set_kv_budget(options.kv.max_budget_bytes);
      finish(engine);
      std::string all;
      for (const RequestId id : ids) {
        const GenerateResult result = engine.take(id).value();
        EXPECT_EQ(result.finish_reason, FinishReason::kLength);
        for (const TokenId token : result.tokens) all += std::to_string(token) + " ";
        for (const KvBudgetChange& c : result.budget_changes) all += to_json(c) + "\n";
      }
      for (const KvEvent& e : engine.kv_events()) {
        all += std::to_string(e.layer) + ":" + std::to_string(e.first_position) + " ";
      }
      EXPECT_GT(engine.kv_stats().budget_falls, 0);
      told.push_back(all);
    }
    EXPECT_EQ(told[0], told[1]);
  }
}

}  // namespace
}  // namespace paddock::test
