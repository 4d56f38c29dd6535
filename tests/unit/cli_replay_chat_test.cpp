// What `paddock replay --chat` prints, against figures reckoned apart, and what it refuses.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "chat_log.h"
#include "kept_mass.h"
#include "support/cli.h"
#include "support/golden.h"
#include "support/small_model.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

using Json = nlohmann::json;

constexpr const char* kLog =
    "{\"role\": \"system\", \"content\": \"be kind\"}\n"
    "{\"role\": \"user\", \"content\": \"one\"}\n"
    "\n"
    "{\"role\": \"assistant\", \"content\": \"aab aba\"}\n"
    "{\"role\": \"user\", \"content\": \"two\"}\n"
    "{\"role\": \"assistant\", \"content\": \"ab\"}\n"
    "{\"role\": \"user\", \"content\": \"three\"}\n"
    "{\"role\": \"assistant\", \"content\": \"aaaaaaaa aaaa\"}\n";

/// A model of one layer, a context of 128, a token for most characters.
class CliReplayChat : public testing::Test {
 protected:
  CliReplayChat() { write_random_model(folder_); }
  std::string command(const std::string& log) const {
    return "replay --chat " + folder_.write("log", log) + " -m " + folder_.path() +
           " --chat-template chatml -t 1 --kv-block-size 4 ";
  }
  Json replay(const std::string& options, const std::string& log = kLog) const {
    const Outcome o = paddock(command(log) + "--json " + options);
    EXPECT_EQ(o.code, 0) << o.err;
    return o.code == 0 ? Json::parse(o.out) : Json();
  }
  std::shared_ptr<const Model> model() const { return Model::load(folder_.path()); }
  cli::ChatText text() const {
    return cli::encode_chat(cli::parse_chat_log(kLog, "log"),
                            ChatTemplate(model()->tokenizer(), {.template_name = "chatml"}));
  }
  EngineOptions options(const std::string& policy) const {
    EngineOptions options;
    options.threads = 1;
    options.context = 128;
    options.kv.block_size = 4;
    options.kv.policy = policy;
    options.kv.reuse = false;
    return options;
  }

  TemporaryFolder folder_;
};

TEST_F(CliReplayChat, TurnsAreWhatTheFormatWrites) {
  const cli::ChatText text = this->text();
  const auto tokenizer = model()->tokenizer();
  ASSERT_EQ(text.turns.size(), 3U);
  const auto piece = [&](int64_t begin, int64_t end) {
    return tokenizer->decode({text.tokens.data() + begin, text.tokens.data() + end});
  };
  // Special tokens have no text.
  EXPECT_EQ(piece(0, text.turns[0].prompt_end), "system\nbe kind\nuser\none\nassistant\n");
  EXPECT_EQ(piece(text.turns[0].prompt_end, text.turns[0].end), "aab aba");
  EXPECT_EQ(piece(text.turns[0].end, text.turns[1].prompt_end), "\nuser\ntwo\nassistant\n");
  EXPECT_EQ(piece(text.turns[2].prompt_end, text.turns[2].end), "aaaaaaaa aaaa");
  const ChatTemplate format(tokenizer, {.template_name = "chatml"});
  for (const CompareTurn& turn : text.turns) {
    EXPECT_EQ(text.tokens[static_cast<size_t>(turn.end) - 1], format.end_of_turn());
  }
  EXPECT_EQ(text.turns[2].end, static_cast<int64_t>(text.tokens.size()));
}

TEST_F(CliReplayChat, EveryTurnsFiguresAreThoseOfLogitsComputedApart) {
  const std::vector<std::string> rules = {"full", "sink:2+9", "h2o:12@every:4"};
  const Json json = replay("--sweep sink:2+9 --sweep h2o:12@every:4");
  const cli::ChatText text = this->text();
  ASSERT_EQ(json["tokens"], text.tokens.size());
  std::vector<Matrix> logits;
  for (const std::string& rule : rules) {
    Engine engine(model(), options(rule));
    logits.push_back(all_logits(engine, text.tokens));
  }
  const auto log_p = [&](size_t rule, int64_t row) {
    std::vector<double> out;
    double sum = 0;
    for (int64_t i = 0; i < logits[rule].cols; ++i) sum += std::exp(logits[rule].row(row)[i]);
    for (int64_t i = 0; i < logits[rule].cols; ++i) {
      out.push_back(logits[rule].row(row)[i] - std::log(sum));
    }
    return out;
  };
  const auto best = [&](size_t rule, int64_t row) {
    const float* begin = logits[rule].row(row);
    return std::max_element(begin, begin + logits[rule].cols) - begin;
  };
  double most = 0;
  ASSERT_EQ(json["turns"].size(), text.turns.size());
  for (size_t turn = 0; turn < text.turns.size(); ++turn) {
    const auto [prompt_end, end] = text.turns[turn];
    EXPECT_EQ(json["turns"][turn]["prompt_end"], prompt_end);
    EXPECT_EQ(json["turns"][turn]["end"], end);
    for (size_t rule = 0; rule < rules.size(); ++rule) {
      const Json& figures = json["turns"][turn]["rules"][rule];
      SCOPED_TRACE(rules[rule] + " in turn " + std::to_string(turn));
      EXPECT_EQ(figures["policy"], rules[rule]);
      double kl = 0;
      double agreed = 0;
      Json parts;
      for (int64_t at = prompt_end; at < end; ++at) {
        const std::vector<double> p = log_p(0, at - 1);
        const std::vector<double> q = log_p(rule, at - 1);
        for (size_t i = 0; i < p.size(); ++i) kl += std::exp(p[i]) * (p[i] - q[i]);
        const bool same = best(0, at - 1) == best(rule, at - 1);
        agreed += same ? 1 : 0;
        if (!same && parts.is_null()) parts = at;
      }
      const auto n = static_cast<double>(end - prompt_end);
      EXPECT_NEAR(figures["kl_mean"].get<double>(), kl / n, 1e-6);
      EXPECT_EQ(figures["diverges_at"], parts);
      EXPECT_NEAR(figures["top1_agreement"].get<double>(), agreed / n, 1e-9);
      EXPECT_GT(figures["first_token_seconds"].get<double>(), 0);
      EXPECT_GT(figures["token_seconds"].get<double>(), 0);
      if (rule > 0) most = std::max(most, kl / n);
    }
  }
  EXPECT_GT(most, 1e-5) << "no rule changes anything: the test is trivial";
}

TEST_F(CliReplayChat, WhatHadLeftIsWhatTheRuleSaysByPosition) {
  const Json json = replay("--sweep sink:2+9 --sweep full");
  for (const Json& turn : json["turns"]) {
    const int64_t length = turn["prompt_end"];
    const Json& sink = turn["rules"][1];
    // The next query sees two sinks, and eight positions beside its own.
    EXPECT_EQ(sink["left_somewhere"], length - 10);
    EXPECT_EQ(sink["left_everywhere"], length - 10);
    EXPECT_EQ(sink["left_per_layer"], Json({length - 10}));
    EXPECT_EQ(turn["rules"][2]["left_somewhere"], 0);
    EXPECT_EQ(turn["rules"][2]["diverges_at"], Json());
  }
  EXPECT_EQ(json["rules"][2]["kl_mean"], 0);
  EXPECT_EQ(json["rules"][2]["turns_diverged"], 0);
  EXPECT_DOUBLE_EQ(json["rules"][0]["attention"]["of_oracle"].get<double>(), 1);
  EXPECT_DOUBLE_EQ(json["rules"][2]["attention"]["of_all"].get<double>(), 1);
}

TEST_F(CliReplayChat, TheOracleKnowsWhatAttentionIsToCome) {
  const Json json = replay("--sweep sink:2+9");
  const cli::ChatText text = this->text();
  // By another way than the tool's: blocks of one position, and a text cut off at each prompt.
  const auto mass_of = [&](int64_t length) {
    EngineOptions measured = options("h2o");
    measured.kv.block_size = 1;
    Engine engine(model(), measured);
    const SessionId session = engine.open_session();
    engine.feed(session, std::span(text.tokens).first(static_cast<size_t>(length)));
    std::vector<double> mass;
    for (const KvBlock& block : engine.kv_blocks(0)) mass.push_back(block.mass);
    return mass;
  };
  const std::vector<double> end = mass_of(static_cast<int64_t>(text.tokens.size()));
  double kept = 0;
  double oracle = 0;
  double all = 0;
  for (const auto& [prompt_end, turn_end] : text.turns) {
    const std::vector<double> then = mass_of(prompt_end);
    std::vector<double> given;
    for (int64_t p = 0; p < prompt_end; ++p) {
      given.push_back(end[p] - then[p]);
      all += given.back();
      if (p < 2 || p > prompt_end - 9) kept += given.back();
    }
    std::sort(given.begin(), given.end());
    for (size_t i = 0; i < 10; ++i) oracle += given[given.size() - 1 - i];
    EXPECT_LE(turn_end, static_cast<int64_t>(text.tokens.size()));
  }
  // A query of two heads gives two in all, its own position's part included.
  EXPECT_GT(all, 0);
  const Json& layer = json["rules"][1]["layers"][0];
  EXPECT_NEAR(layer["kept"].get<double>(), kept, 1e-4 * all);
  EXPECT_NEAR(layer["oracle"].get<double>(), oracle, 1e-4 * all);
  EXPECT_NEAR(layer["all"].get<double>(), all, 1e-4 * all);
  EXPECT_NEAR(layer["of_oracle"].get<double>(), kept / oracle, 1e-3);
  EXPECT_LT(layer["of_all"].get<double>(), 0.999);
}

TEST(KeptMass, IsWhatThePositionsInViewGetAndTheBestOfAsMany) {
  const cli::KeptMass mass =
      cli::kept_mass({true, false, true, false}, {1, 1, 2, 0}, {2, 5, 2, 3, 100});
  EXPECT_DOUBLE_EQ(mass.kept, 1);    // of 1, 4, 0 and 3
  EXPECT_DOUBLE_EQ(mass.oracle, 7);  // the best two
  EXPECT_DOUBLE_EQ(mass.all, 8);     // what came later is not there to be kept
  EXPECT_DOUBLE_EQ(mass.of_oracle(), 1.0 / 7);
  EXPECT_DOUBLE_EQ(mass.of_all(), 1.0 / 8);
}

TEST_F(CliReplayChat, TablesHaveTheSame) {
  const Json json = replay("--sweep sink:2+9");
  const Outcome o = paddock(command(kLog) + "--sweep sink:2+9");
  ASSERT_EQ(o.code, 0) << o.err;
  const int64_t length = json["turns"][2]["prompt_end"];
  EXPECT_NE(o.out.find("3 turns of " + std::to_string(json["tokens"].get<int>()) + " tokens, "),
            std::string::npos)
      << o.out;
  EXPECT_NE(o.out.find(std::to_string(length - 10) + " of " + std::to_string(length) + " | " +
                       std::to_string(length - 10) + " | 1 |"),
            std::string::npos)
      << o.out;
  EXPECT_NE(
      o.out.find("| of the oracle, in layer | full | sink:2+9 |\n|---|---|---|\n| 0 | 100.0 % "),
      std::string::npos)
      << o.out;
  EXPECT_EQ(o.err, "");
}

TEST_F(CliReplayChat, ReadsOpenAisMessagesToo) {
  const std::string one =
      "{\"model\": \"x\",\n \"messages\": [{\"role\": \"system\", \"content\": \"be kind\"},\n"
      "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"o\"},"
      "{\"type\": \"text\", \"text\": \"ne\"}]},\n"
      "{\"role\": \"assistant\", \"content\": \"aab aba\"},"
      "{\"role\": \"user\", \"content\": \"and?\"}]}\n";
  const Json json = replay("--sweep sink:2+9", one);
  ASSERT_EQ(json["turns"].size(), 1U);
  EXPECT_EQ(json["turns"][0]["end"], text().turns[0].end);
  const Outcome o = paddock(command(one) + "--sweep sink:2+9");
  EXPECT_EQ(o.err, "paddock: 1 messages behind the last answer are left out\n");
}

TEST_F(CliReplayChat, RefusesWhatIsWrong) {
  const std::string sweep = "--sweep sink:2+9";
  const auto refused = [&](const std::string& log, const std::string& words) {
    expect_refusal(command(log) + sweep, 1, words);
  };
  refused("", "has no messages; give a line of JSON with role and content each");
  refused(std::string(kLog) + "{\n", "log, line 9: is no JSON; mend the line");
  refused(std::string(kLog) + "5\n", "log, line 9: is no object with \"role\" and \"content\"");
  refused("{\"role\": 5, \"content\": \"\"}\n", "lacks a \"role\" that is a string");
  refused("{\"role\": \"user\"}\n", "lacks \"content\"");
  refused("[{\"role\": \"user\", \"content\": null}]", "log, message 1: \"content\" is neither");
  refused("[{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}]",
          "has a part that is no text");
  refused(std::string(kLog) + "{\"messages\": []}\n", "line 9: a conversation of its own");
  refused("{\"messages\": 5}\n", "\"messages\" is no list");
  refused("{\"role\": \"user\", \"content\": \"hm\"}\n", "the conversation has no answers");
  refused("{\"role\": \"tool\", \"content\": \"\"}\n{\"role\": \"assistant\", \"content\": \"\"}\n",
          "tool");
  const std::string log = folder_.write("good", kLog);
  const std::string model = " -m " + folder_.path();
  expect_refusal("replay " + log + " --chat " + log, 2, "either the path of recorded requests");
  expect_refusal("replay --chat " + log + model, 2, "--chat: needs rules to compare, --sweep SPEC");
  expect_refusal("replay --chat " + log + " --sweep full", 2, "--chat: needs a model, -m PATH");
  expect_refusal("replay " + log + model, 2, "-m goes with --chat");
  expect_refusal("replay " + log + " --sweep full", 2, "--sweep goes with --chat");
  expect_refusal(command(kLog) + sweep + " --curve", 2, "are of recorded requests");
  expect_refusal(command(kLog) + "--sweep nonsense", 2, "nonsense");
  expect_refusal("replay --chat /no/such/log -m " + folder_.path() + " " + sweep, 1,
                 "/no/such/log");
}

}  // namespace
}  // namespace paddock::test
