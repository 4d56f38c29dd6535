// What `paddock advise` prints, against figures reckoned apart, and what it refuses.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "advise_candidates.h"
#include "support/cli.h"
#include "support/golden.h"
#include "support/small_model.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

using Json = nlohmann::json;

/// A model of one layer, 8 bytes a position, a context of 128.
class CliAdvise : public testing::Test {
 protected:
  CliAdvise() { write_random_model(folder_); }
  std::string command(const std::string& text = kText) const {
    return "advise -m " + folder_.path() + " -t 1 -f " + folder_.write("text", text) + " ";
  }
  Json advise(const std::string& options) const {
    const Outcome o = paddock(command() + "--json " + options);
    EXPECT_EQ(o.code, 0) << o.err;
    return o.code == 0 ? Json::parse(o.out) : Json();
  }
  /// The candidate of this rule and change.
  static Json find(const Json& advice, const std::string& policy, const std::string& change = "") {
    for (const Json& c : advice["candidates"]) {
      if (c["policy"] == policy && c["change"] == change) return c;
    }
    ADD_FAILURE() << "no " << policy << " " << change << " in " << advice.dump(1);
    return {};
  }

  /// 240 characters and more, each a token or a part of one.
  static constexpr const char* kText =
      "a bad cab had a cabbage, abba gagged, a fad faded, dada fed a cafe, a bag begged, ace aced "
      "a "
      "decade; gaff bagged a facade, a babe gabbed, deaf dad added a bead, a cad caged a badge, "
      "egad, "
      "a feed faced a deed, bed abed, a dab ebbed, cab ceded, fee fade, gad";
  TemporaryFolder folder_;
};

TEST_F(CliAdvise, BytesAreThoseOfTheEngineThatItsFlagsMake) {
  const Json advice = advise("--facts 0 -c 400 --memory 2000 --time 60");
  EXPECT_EQ(advice["complete"], true) << advice.dump(1);
  EXPECT_EQ(advice["memory_bytes"], 2000);
  EXPECT_FALSE(find(advice, "full")["computed"]["fits"].get<bool>());  // 25 blocks of 128 bytes
  int fitting = 0;
  for (const Json& c : advice["candidates"]) {
    const auto flags = c["flags"].get<std::string>();
    SCOPED_TRACE(flags);
    const Outcome o =
        paddock("generate -m " + folder_.path() + " -p hello -n 2 --temp 0 --json " + flags);
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(Json::parse(o.out)["kv"]["pool_bytes"], c["computed"]["pool_bytes"]);
    const bool fits = c["computed"]["fits"];
    EXPECT_EQ(fits, c["computed"]["pool_bytes"].get<int>() <= 2000);
    EXPECT_EQ(c["measured"]["kl_mean"].is_null(), !fits && c["policy"] != "full");
    fitting += fits ? 1 : 0;
  }
  EXPECT_GT(fitting, 6);
}

TEST_F(CliAdvise, TheLargestBudgetThatFitsIsTried) {
  const Json advice = advise("--facts 0 -c 400 --memory 2000 --time 60");
  int64_t largest = 0;
  for (const Json& c : advice["candidates"]) {
    const auto policy = c["policy"].get<std::string>();
    if (policy.starts_with("h2o:"))
      largest = std::max<int64_t>(largest, std::stoi(policy.substr(4)));
  }
  ASSERT_GT(largest, 0);
  const auto pool_of = [&](int64_t budget) {
    EngineOptions options;
    options.threads = 1;
    options.context = 400;
    options.batch_size = 32;
    options.kv.policy = "h2o:" + std::to_string(budget);
    return Engine(Model::load(folder_.path()), options).kv_stats().pool_bytes;
  };
  EXPECT_LE(pool_of(largest), 2000);
  EXPECT_GT(pool_of(largest + 16), 2000);
}

TEST_F(CliAdvise, QualityIsThatOfAComparisonCalledApart) {
  const Json advice = advise("--facts 3 -c 400 --memory 2000 --time 60");
  const auto model = Model::load(folder_.path());
  const std::vector<TokenId> tokens = model->tokenizer()->encode(kText);
  EXPECT_EQ(advice["sample_tokens"], tokens.size());
  const std::vector<PlantedFact> facts = make_facts(3);
  int compared = 0;
  for (const Json& c : advice["candidates"]) {
    const auto policy = c["policy"].get<std::string>();
    if (policy.find(':') == std::string::npos || c["change"] != "") continue;
    QualityOptions options;
    options.engine.threads = 1;
    options.engine.context = 512;
    options.contenders = {policy};
    QualityMeter meter(model, options);
    // Two thirds are prompt, and it is seen behind it.
    CompareOptions how;
    how.prompt_tokens = static_cast<int64_t>(tokens.size()) * 2 / 3;
    EXPECT_EQ(advice["prompt_tokens"], how.prompt_tokens);
    double kl = 0, agrees = 0, n = 0;
    how.on_position = [&](int64_t at, std::span<const PositionQuality> rules) {
      if (at < how.prompt_tokens) return true;
      kl += rules[1].kl;
      agrees += rules[1].agrees ? 1 : 0;
      ++n;
      return true;
    };
    meter.compare(tokens, how);
    EXPECT_EQ(n, static_cast<double>(static_cast<int64_t>(tokens.size()) - how.prompt_tokens));
    EXPECT_NEAR(c["measured"]["kl_mean"].get<double>(), kl / n, 1e-9) << policy;
    EXPECT_NEAR(c["measured"]["top1_agreement"].get<double>(), agrees / n, 1e-9);
    const RecallReport recall = meter.recall(tokens, facts);
    EXPECT_EQ(c["measured"]["facts_recalled"], recall.contenders[0].recalled);
    EXPECT_EQ(advice["full_recalls"], recall.baseline.recalled);
    ++compared;
  }
  EXPECT_GT(compared, 3);
}

TEST_F(CliAdvise, EveryRuleThatChoosesIsTried) {
  int drops = 0;
  const auto tried = [&](const std::string& options) {
    std::set<std::string> rules;
    const Json advice = advise("--facts 0 -c 400 --time 60" + options);
    for (const Json& c : advice["candidates"]) {
      const auto policy = c["policy"].get<std::string>();
      rules.insert(policy.substr(0, policy.find_last_of(":+")));
      if (!policy.starts_with("snapkv") || c["change"] != "") continue;
      // It decides where the prompt ends.
      const bool is_less = std::stoi(policy.substr(7)) < advice["prompt_tokens"].get<int>();
      EXPECT_EQ(c["measured"]["dropped"], is_less) << policy;
      drops += is_less ? 1 : 0;
    }
    return rules;
  };
  std::set<std::string> rules = {"full", "h2o",      "sink:4", "pyramid:h2o", "tova",
                                 "lru",  "cake:h2o", "snapkv", "knorm"};
  EXPECT_EQ(tried(""), rules);
  EXPECT_GT(drops, 0);
  // It keeps prompts whole until they end, which has no room here.
  rules.erase("snapkv");
  EXPECT_EQ(tried(" --memory 2000"), rules);
}

TEST_F(CliAdvise, WhereTimeIsShortWhatIsComputedIsThere) {
  const Json advice = advise("--facts 0 -c 400 --memory 2000 --time 0.000001");
  EXPECT_EQ(advice["complete"], false);
  for (const Json& c : advice["candidates"]) {
    EXPECT_TRUE(c["measured"]["kl_mean"].is_null());
    EXPECT_TRUE(c["measured"]["decode_tokens_per_second"].is_null());
    EXPECT_GT(c["computed"]["pool_bytes"].get<int>(), 0);
    EXPECT_FALSE(c["pareto"].get<bool>());
  }
  EXPECT_TRUE(advice["batches"].empty());
  const Outcome o = paddock(command() + "--facts 0 -c 400 --memory 2000 --time 0.000001");
  EXPECT_EQ(o.code, 0);
  EXPECT_NE(o.out.find("out of time after 1e-06 s: what is not measured has no figures"),
            std::string::npos)
      << o.out;
  EXPECT_NE(o.out.find("full does not fit; this does, and was not measured"), std::string::npos);
}

TEST_F(CliAdvise, TheCommandIsOneThatRuns) {
  const Outcome o = paddock(command() + "--facts 0 -c 400 --memory 2000");
  ASSERT_EQ(o.code, 0) << o.err;
  const size_t at = o.out.find("paddock generate -f prompt.txt -m ");
  ASSERT_NE(at, std::string::npos) << o.out;
  const std::string line = o.out.substr(at + 8, o.out.find('\n', at) - at - 8);
  folder_.write("prompt.txt", "a bag");
  const Outcome run =
      test::run("cd " + folder_.path() + " && " + PADDOCK_CLI, line + " -n 2 --temp 0");
  EXPECT_EQ(run.code, 0) << line << "\n" << run.err;
  EXPECT_NE(o.out.find("| sequences | prefill tokens/s |"), std::string::npos);
  const Json two = advise("--facts 0 -c 300 --users 2 --memory 4000");
  EXPECT_NE(two["command"].get<std::string>().find("--parallel requests.jsonl --sequences 2 "),
            std::string::npos);
  std::vector<int> numbers;
  for (const Json& row : two["batches"]) {
    numbers.push_back(row["parallel"]);
    EXPECT_GT(row["decode_tokens_per_second"].get<double>(), 0);
    EXPECT_GE(row["gap_p99_ms"].get<double>(), row["gap_p50_ms"].get<double>());
    EXPECT_LE(row["kv_pages_peak"].get<int>(), 4000 / 128);
    EXPECT_GE(row["preemptions"].get<int>(), 0);
  }
  EXPECT_EQ(numbers, (std::vector<int>{1, 2, 4}));
}

TEST_F(CliAdvise, AConversationIsReadLikeAText) {
  const std::string log = folder_.write(
      "log.jsonl",
      "{\"role\": \"user\", \"content\": \"one two three four five\"}\n"
      "{\"role\": \"assistant\", \"content\": \"a bad cab had a cabbage, abba gagged\"}\n");
  const Outcome o = paddock("advise -t 1 --facts 0 --json --chat-template chatml -m " +
                            folder_.path() + " --chat " + log);
  ASSERT_EQ(o.code, 0) << o.err;
  const Json advice = Json::parse(o.out);
  EXPECT_EQ(advice["context"], advice["tokens"]);
  EXPECT_EQ(advice["memory_bytes"], Json());
  EXPECT_TRUE(find(advice, "full")["computed"]["fits"].get<bool>());
  EXPECT_EQ(advice["command"].get<std::string>().find("paddock chat -m '" + folder_.path() + "' "),
            0U);
}

TEST_F(CliAdvise, RefusesWhatIsWrong) {
  expect_refusal(command() + "--users 0", 2, "--users 0: must be from 1 to 4096");
  expect_refusal(command() + "--facts 27", 2, "--facts 27: must be from 0 (none) to 26");
  expect_refusal(command() + "--time 0", 2, "--time 0: must be above 0");
  expect_refusal(command() + "--memory much", 2, "--memory much: must be a size");
  expect_refusal(command("short"), 1, "the text has only 4 tokens; 48 are needed");
  expect_refusal("advise -m " + folder_.path(), 2, "--chat,-f,--file");
  const Outcome o = paddock(command() + "--facts 0 --memory 100");
  EXPECT_EQ(o.code, 0);
  EXPECT_NE(o.out.find("nothing fits: full needs "), std::string::npos) << o.out;
}

TEST(CliAdviseReal, CtrlCGivesWhatThereIs) {
  PADDOCK_REAL_FILE(model, "PADDOCK_TEST_MODEL");
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "The number " + std::to_string(i) + " is odd or even. ";
  const std::string timeout =
      "timeout --preserve-status -s INT 4 " + std::string(PADDOCK_CLI) + " advise -m " + model;
  const Outcome o =
      run(timeout, "--json --time 600 -c 2000 --memory 12MiB -f " + folder.write("text", text));
  EXPECT_EQ(o.code, 130) << o.err;
  const Json advice = Json::parse(o.out);
  EXPECT_EQ(advice["complete"], false);
  EXPECT_GT(advice["candidates"].size(), 5U);
  EXPECT_TRUE(advice["candidates"].back()["measured"]["kl_mean"].is_null());
}

// ---- choosing

cli::Candidate candidate(const std::string& policy, uint64_t pool, double speed, double kl,
                         int facts, bool fits = true) {
  cli::Candidate c;
  c.options.kv.policy = policy;
  c.pool_bytes = pool;
  c.fits = fits;
  c.speed = cli::Speed{100, speed};
  c.quality = cli::Quality{kl, 1, policy != "full", facts};
  return c;
}

std::vector<bool> front(std::vector<cli::Candidate> candidates) {
  cli::mark_front(candidates);
  std::vector<bool> on;
  for (const cli::Candidate& c : candidates) on.push_back(c.is_on_front);
  return on;
}

TEST(Advice, FlagsHaveWhatIsNotTheDefault) {
  cli::Candidate c = candidate("h2o:64", 0, 0, 0, 0);
  c.options.context = 300;
  EXPECT_EQ(cli::flags_of(c), "--kv-policy h2o:64 -c 300");
  c.options.kv.type = KvType::kBF16;
  c.options.kv.block_size = 8;
  c.options.batch_size = 32;
  EXPECT_EQ(cli::flags_of(c), "--kv-policy h2o:64 -c 300 -b 32 --kv-block-size 8 --kv-type bf16");
}

TEST(Advice, TheFrontIsWhatNothingBeats) {
  const cli::Candidate full = candidate("full", 100, 10, 0, 5);
  EXPECT_EQ(front({full, candidate("h2o:2", 50, 10, 0.1, 5), candidate("lru:2", 50, 10, 0.2, 5),
                   candidate("tova:2", 50, 10, 0.2, 6), candidate("sink:4", 50, 10.6, 0.2, 5)}),
            (std::vector<bool>{true, true, false, true, true}));
  // 5 % are not quicker, and what does not fit or was not measured beats nothing.
  EXPECT_EQ(front({candidate("a", 50, 10.4, 0.2, 5), candidate("b", 50, 10, 0.1, 5),
                   candidate("c", 10, 99, 0, 9, false)}),
            (std::vector<bool>{false, true, false}));
  cli::Candidate unknown = candidate("d", 10, 99, 0, 9);
  unknown.quality.reset();
  EXPECT_EQ(front({unknown, candidate("b", 50, 10, 0.1, 5)}), (std::vector<bool>{false, true}));
}

TEST(Advice, NothingNeedsToChangeWhereFullFitsAndNothingIsGained) {
  const cli::Candidate full = candidate("full", 100, 10, 0, 5);
  const auto judged = [&](const cli::Candidate& other) { return cli::judge({full, other}); };
  EXPECT_TRUE(judged(candidate("h2o:2", 50, 10.9, 0.001, 5)).nothing_to_change);
  EXPECT_TRUE(judged(candidate("h2o:2", 50, 20, 0.011, 5)).nothing_to_change);
  EXPECT_TRUE(judged(candidate("h2o:2", 50, 20, 0.001, 4)).nothing_to_change);
  EXPECT_EQ(judged(candidate("h2o:2", 50, 10.9, 0.001, 5)).best, 0U);
  const cli::Verdict gain = judged(candidate("h2o:2", 50, 11.1, 0.001, 5));
  EXPECT_FALSE(gain.nothing_to_change);
  EXPECT_EQ(gain.best, 1U);
  // What dropped nothing on the sample has proved nothing.
  cli::Candidate idle = candidate("h2o:2", 50, 20, 0, 5);
  idle.quality->dropped = false;
  EXPECT_TRUE(judged(idle).nothing_to_change);
}

TEST(Advice, WhereFullDoesNotFitFactsCountBeforeNearness) {
  const cli::Candidate full = candidate("full", 100, 10, 0, 5, false);
  const auto best = [&](std::vector<cli::Candidate> others) {
    others.insert(others.begin(), full);
    return cli::judge(others).best;
  };
  EXPECT_EQ(best({candidate("a", 50, 10, 0.1, 3), candidate("b", 50, 10, 0.2, 4)}), 2U);
  EXPECT_EQ(best({candidate("a", 50, 10, 0.1, 4), candidate("b", 50, 10, 0.2, 4)}), 1U);
  EXPECT_EQ(best({candidate("a", 50, 10, 0.1, 4), candidate("b", 50, 12, 0.1, 4)}), 2U);
  EXPECT_EQ(best({candidate("a", 50, 10, 0.1, 4, false), candidate("b", 50, 9, 0.3, 1)}), 2U);
  EXPECT_EQ(best({candidate("a", 50, 10, 0.1, 4, false)}), std::nullopt);
}

}  // namespace
}  // namespace paddock::test
