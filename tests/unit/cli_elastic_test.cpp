// Rules without a budget in the tool: what it says when pages run short, and where.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "support/cli.h"
#include "support/small_model.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

using Json = nlohmann::json;

std::vector<Json> json_lines(const std::string& text) {
  std::vector<Json> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  return lines;
}

/// The small model: one layer, 8 bytes a position, here in pages of four; a context of 128.
class CliElastic : public testing::Test {
 protected:
  CliElastic() { write_small_model(folder_); }
  std::string with(const std::string& command, const std::string& policy, int positions) const {
    return command + " -m " + folder_.path() + " --temp 0 --kv-block-size 4 --kv-policy " + policy +
           " --kv-budget " + std::to_string(8 * positions) + " ";
  }
  std::string file(const char* name) const { return folder_.path() + "/" + name; }
  std::string read(const char* name) const {
    std::ifstream in(file(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  TemporaryFolder folder_;
};

TEST_F(CliElastic, ATextRunsToItsEndAndItIsSaidWhenItBeganToLose) {
  const std::string ask = "-p hello -n 100 --ignore-eos --json --logprobs 2 ";
  const Outcome o = paddock(with("generate", "lru@every:8", 48) + ask + "--kv-stats --kv-events " +
                            file("events"));
  ASSERT_EQ(o.code, 0) << o.err;
  const Json out = Json::parse(o.out);
  EXPECT_EQ(out["finish_reason"], "length");
  ASSERT_EQ(out["tokens"].size(), 100U);
  const Json& changes = out.at("budget_changes");
  ASSERT_EQ(changes.size(), 1U);  // alone, it falls once and goes by that
  EXPECT_EQ(changes[0]["before"], nullptr);
  EXPECT_EQ(changes[0]["request"], 1);
  EXPECT_EQ(out["kv"]["budget_falls"], changes.size());
  EXPECT_EQ(out["kv"]["layers"][0]["budget"], changes.back()["after"]);

  // Up to its first fall it is what `full` says with room enough.
  const auto length = changes[0]["length"].get<int64_t>();
  const Outcome whole = paddock(with("generate", "full", 128) + ask);
  ASSERT_EQ(whole.code, 0) << whole.err;
  const Json full = Json::parse(whole.out);
  EXPECT_FALSE(full.contains("budget_changes"));
  for (int64_t i = 0; i <= length - out["prompt_tokens"].get<int64_t>(); ++i) {
    EXPECT_EQ(out["tokens"][i], full["tokens"][i]);
    EXPECT_EQ(out["logprobs"][i], full["logprobs"][i]) << i;
  }
  EXPECT_EQ(full["kv"]["layers"][0]["budget"], 0);

  // The file has the changes, in order, each before what it removed.
  std::vector<Json> found;
  int64_t next = 0;
  for (const Json& line : json_lines(read("events"))) {
    if (line.value("event", "") == "budget") {
      EXPECT_EQ(line["first_event"], next);  // what came before has a lower number
      found.push_back(line);
      continue;
    }
    EXPECT_EQ(line["number"], next++);
    ASSERT_FALSE(found.empty());
    if (line["reason"] != "policy_trim") continue;  // the end
    EXPECT_GE(line["length"], found.back()["length"]);
  }
  EXPECT_EQ(Json(found), changes);

  // The table, and the line after it.
  const std::string first_row = std::to_string(length) + "       - " +
                                std::string(changes[0]["after"] < 10 ? 6 : 5, ' ') +
                                changes[0]["after"].dump();
  EXPECT_NE(o.err.find(first_row), std::string::npos) << first_row << "\n" << o.err;
  const std::string said = "; it began to lose at " + std::to_string(length) +
                           " positions, for itself: its budget fell to " +
                           changes[0]["after"].dump() + " positions per layer; to keep all ";
  EXPECT_NE(o.err.find("paddock: lru@every:8 let "), std::string::npos) << o.err;
  EXPECT_NE(o.err.find(said), std::string::npos) << said << "\n" << o.err;
}

TEST_F(CliElastic, WhatWouldKeepItAllIsALargerPoolUnderTheSameRule) {
  const std::string ask = "-p hello -n 100 --ignore-eos ";
  for (const char* policy : {"h2o@every:8", "lru@every:24"}) {
    const Outcome o = paddock(with("generate", policy, 48) + ask);
    ASSERT_EQ(o.code, 0) << o.err;
    std::smatch match;
    ASSERT_TRUE(std::regex_search(
        o.err, match, std::regex("; to keep all [0-9]+ positions raise --kv-budget to ([0-9]+)\n")))
        << o.err;
    const int positions = std::stoi(match[1]) / 8;
    const Outcome enough = paddock(with("generate", policy, positions) + ask);
    EXPECT_EQ(enough.code, 0);
    EXPECT_EQ(enough.err, "");
    const Outcome less = paddock(with("generate", policy, positions - 4) + ask);
    EXPECT_NE(less.err.find("began to lose"), std::string::npos) << less.err;
  }
  // A fixed rule is no such rule, whatever the pool.
  const Outcome fixed = paddock(with("generate", "h2o:24@every:8", 80) + ask);
  EXPECT_NE(fixed.err.find("with --kv-policy full"), std::string::npos) << fixed.err;
  EXPECT_EQ(fixed.err.find("lose"), std::string::npos) << fixed.err;
}

TEST_F(CliElastic, AChatSaysWhenItBeganToLoseAndWhenItLosesMore) {
  const Outcome o = paddock(with("chat --chat-template chatml -n 20", "lru@every:8", 64),
                            "hello\nhello there\n/kv\nand so on\n/clear\nonce more\n");
  EXPECT_EQ(o.code, 0) << o.err;
  const std::regex began(
      "it began to lose at ([0-9]+) positions, for itself: its "
      "budget fell to ([0-9]+) positions per layer");
  std::smatch first;
  ASSERT_TRUE(std::regex_search(o.err, first, began)) << o.err;
  const std::string rest = first.suffix();
  EXPECT_NE(rest.find("; its budget of " + first[2].str() + " was lifted at "), std::string::npos)
      << o.err;
  EXPECT_NE(rest.find("; it began to lose more at "), std::string::npos) << o.err;
  // /kv has them as rows.
  EXPECT_NE(rest.find("budgets at  sequence positions  before   after   pages  for\n"),
            std::string::npos)
      << o.err;
}

TEST_F(CliElastic, AFallIsSaidAtItsOwnTurnAndNotAgain) {
  const Outcome o =
      paddock(with("chat --chat-template chatml -c 400 -n 20 --kv-events " + file("events"),
                   "lru@every:8", 64),
              "hello\nhello there\nand so on\nand on\n");
  EXPECT_EQ(o.code, 0) << o.err;
  std::vector<std::string> falls, said;
  for (const Json& line : json_lines(read("events"))) {
    if (line.contains("event") && !line.at("after").is_null()) {
      falls.push_back(line.at("length").dump());
    }
  }
  EXPECT_GT(falls.size(), 1U) << o.err;
  const std::regex lose("began to lose (more )?at ([0-9]+) positions");
  for (auto at = std::sregex_iterator(o.err.begin(), o.err.end(), lose);
       at != std::sregex_iterator(); ++at) {
    said.push_back((*at)[2]);
  }
  EXPECT_EQ(said, falls) << o.err;
}

TEST_F(CliElastic, ALiftThatNothingFollowedIsInTheFile) {
  // The last turn begins with a lift, and ends before pages run short again.
  const Outcome o = paddock(with("chat --chat-template chatml -c 1000 --log-level off -n 2 "
                                 "--kv-events " +
                                     file("events"),
                                 "lru@every:8", 160),
                            std::string(100, 'x') + "\na\na\na\na\na\n");
  EXPECT_EQ(o.code, 0) << o.err;
  const std::vector<Json> lines = json_lines(read("events"));
  ASSERT_FALSE(lines.empty());
  EXPECT_EQ(lines.back().value("event", ""), "budget") << lines.back();
  EXPECT_EQ(lines.back().value("after", Json(0)), nullptr) << lines.back();
}

TEST_F(CliElastic, WhereNoBudgetChangedThereAreNoRowsOfThem) {
  const Outcome o = paddock(with("generate", "lru@every:8", 120) + "-p hello -n 20 --kv-stats");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.err.find("layer"), std::string::npos) << o.err;
  EXPECT_EQ(o.err.find("budgets at"), std::string::npos) << o.err;
}

TEST_F(CliElastic, AConversationGoesOnFromAnyLength) {
  // Every message ends between two lengths where something could be given up.
  std::string messages;
  for (int i = 0; i < 12; ++i) messages += "hello\n";
  const Outcome o =
      paddock(with("chat -c 1000 --log-level off --chat-template chatml -n 5", "lru@every:32", 88),
              messages);
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.err.find(" is full"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("began to lose"), std::string::npos) << o.err;
}

TEST_F(CliElastic, ManyInOnePoolEachSayWhatTheyGaveUp) {
  std::string asks;
  for (int i = 0; i < 4; ++i) asks += R"({"prompt": "hello )" + std::to_string(i) + "\"}\n";
  const Outcome o =
      paddock(with("generate", "lru@every:8", 120) + "-n 60 --ignore-eos --kv-stats --parallel " +
              folder_.write("asks", asks) + " --kv-events " + file("events"));
  ASSERT_EQ(o.code, 0) << o.err;
  size_t answers = 0, falls = 0;
  int64_t least = INT32_MAX;
  for (const Json& answer : json_lines(o.out)) {
    EXPECT_EQ(answer["finish_reason"], "length");
    const Json changes = answer.value("budget_changes", Json::array());
    answers += changes.empty() ? 0 : 1;
    falls += changes.size();
    for (const Json& change : changes) {
      EXPECT_GE(change["request"], 1);
      EXPECT_LE(change["request"], 4);
      least = std::min(least, change["after"].get<int64_t>());
    }
  }
  EXPECT_GT(answers, 1U) << o.out;
  const std::string said = "paddock: " + std::to_string(answers) + " answers gave pages up";
  EXPECT_NE(o.err.find(said), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("; in " + std::to_string(falls) + " falls their budgets came down to " +
                       std::to_string(least) + " positions per layer\n"),
            std::string::npos)
      << o.err;
  const std::vector<Json> lines = json_lines(read("events"));
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(),
                          [](const Json& line) { return line.contains("event"); }),
            static_cast<int64_t>(falls));
}

TEST_F(CliElastic, FallsAreCountedOneByOneAndTheLowestBudgetIsSaid) {
  // Two long ones make room for a short one, then for a long one that comes in its place.
  std::string asks;
  const auto ask = [&](char letter, size_t length, int n) {
    asks += Json({{"prompt", std::string(length, letter)}, {"max_tokens", n}}).dump() + "\n";
  };
  ask('b', 40, 70);
  ask('o', 40, 60);
  ask('h', 1, 15);
  ask('b', 40, 20);
  const Outcome o = paddock(with("generate", "lru@every:8", 112) +
                            "--ignore-eos --sequences 3 --parallel " + folder_.write("asks", asks));
  ASSERT_EQ(o.code, 0) << o.err;
  size_t falls = 0, most = 0;
  std::vector<int64_t> budgets;
  for (const Json& answer : json_lines(o.out)) {
    const Json changes = answer.value("budget_changes", Json::array());
    falls += changes.size();
    most = std::max(most, changes.size());
    for (const Json& change : changes) budgets.push_back(change.at("after"));
  }
  ASSERT_GT(most, 1U) << "one falls twice: " << o.out;
  const int64_t least = *std::min_element(budgets.begin(), budgets.end());
  ASSERT_NE(budgets.back(), least) << o.out;
  EXPECT_NE(o.err.find("; in " + std::to_string(falls) + " falls their budgets came down to " +
                       std::to_string(least) + " positions per layer\n"),
            std::string::npos)
      << o.err;
}

TEST_F(CliElastic, BenchRunsInAPoolThatIsTooSmallForFull) {
  const std::string ask = "-p 60 -n 60 -r 1 -o json ";
  const auto bench = [&](const std::string& policy) {
    return "bench -m " + folder_.path() + " --kv-block-size 4 --kv-budget 384 --kv-policy " +
           policy + " " + ask;
  };
  for (const char* policy : {"lru@every:8", "sink:4@every:8", "window@every:8"}) {
    const Outcome o = paddock(bench(policy));
    ASSERT_EQ(o.code, 0) << policy << ": " << o.err;
    EXPECT_EQ(Json::parse(o.out).size(), 2U);
  }
  EXPECT_NE(paddock(bench("full")).code, 0);
  // Nor need a text that is scored fit as a whole.
  const std::string text = "perplexity -m " + folder_.path() +
                           " --kv-block-size 4 --kv-budget 384" + " -f " +
                           folder_.write("text", std::string(100, 'b')) + " --kv-policy ";
  EXPECT_EQ(paddock(text + "lru@every:8").code, 0);
  EXPECT_NE(paddock(text + "full").code, 0);
  EXPECT_EQ(paddock(bench("lru@every:8") + "--parallel 1,3").code, 0);
}

TEST_F(CliElastic, AFullCacheProposesARuleThatGivesUpWhatItMust) {
  // A chunk of 128 leaves rules with a budget no room.
  const std::string ask = "-p hello -n 100 --ignore-eos ";
  const Outcome o = paddock(with("generate", "full", 80) + ask);
  EXPECT_EQ(o.code, 0);
  std::smatch match;
  ASSERT_TRUE(std::regex_search(o.err, match, std::regex("--kv-policy (lru[^ :]*) fits now")))
      << o.err;
  const Outcome mended = paddock(with("generate", match[1], 80) + ask + "--json");
  EXPECT_EQ(Json::parse(mended.out)["finish_reason"], "length") << mended.err;
}

}  // namespace
}  // namespace paddock::test
