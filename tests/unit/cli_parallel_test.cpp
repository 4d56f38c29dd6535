// paddock generate --parallel: requests as JSON lines, answers as JSON lines.
#include <fmt/format.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "support/cli.h"
#include "support/scripted_model.h"

namespace paddock::test {
namespace {

using Json = nlohmann::json;

class CliParallel : public testing::Test {
 protected:
  CliParallel() { scripted_model(folder_, alphabet_script()); }
  std::string command() const { return "generate -m " + folder_.path() + " --temp 0 "; }

  /// The answers, by their request's index and their own.
  std::map<std::pair<int, int>, Json> answers(const std::string& lines,
                                              const std::string& options = "", int code = 0) {
    const Outcome o =
        paddock(command() + "--parallel " + folder_.write("in.jsonl", lines) + " " + options);
    EXPECT_EQ(o.code, code) << o.err;
    std::map<std::pair<int, int>, Json> found;
    std::istringstream out(o.out);
    for (std::string line; std::getline(out, line);) {
      const Json json = Json::parse(line);
      const std::pair key(json.at("index").get<int>(), json.value("answer", 0));
      EXPECT_TRUE(found.emplace(key, json).second) << line;
    }
    return found;
  }

  void expect_refused(const std::string& lines, const std::string& says) {
    expect_refusal(command() + "--parallel " + folder_.write("bad.jsonl", lines), 1, says);
  }

  TemporaryFolder folder_;
};

TEST_F(CliParallel, AnswersEveryLine) {
  const auto found = answers(R"({"prompt": "a", "max_tokens": 3}

{"tokens": [104], "stop": "m"}
{"prompt": "x", "max_tokens": 2, "logprobs": 1, "seed": 77, "priority": 3}
)",
                             "-n 20 --sequences 2");
  ASSERT_EQ(found.size(), 3U);
  const Json& first = found.at({0, 0});
  EXPECT_EQ(first.at("text"), "bcd");
  EXPECT_EQ(first.at("finish_reason"), "length");
  EXPECT_EQ(first.at("prompt_tokens"), 2);  // BOS, too
  EXPECT_EQ(first.at("tokens"), Json({'b', 'c', 'd'}));
  EXPECT_EQ(first.at("preemptions"), 0);
  EXPECT_EQ(first.at("trims"), 0);
  EXPECT_EQ(first.at("cached_tokens"), 0);
  EXPECT_EQ(first.at("miss").at("reason"), "none");
  EXPECT_FALSE(first.contains("answer"));
  EXPECT_FALSE(first.contains("logprobs"));
  EXPECT_EQ(first.at("timings").at("decode_tokens"), 2);
  EXPECT_GE(first.at("timings").at("queue_seconds"), 0);
  EXPECT_GE(first.at("timings").at("first_token_seconds"), first.at("timings").at("queue_seconds"));
  const Json& gaps = first.at("timings").at("token_gaps");
  EXPECT_EQ(gaps.at("count"), 2) << "three tokens";
  EXPECT_GT(gaps.at("sum_seconds"), 0);
  EXPECT_EQ(gaps.at("buckets").size(), 19U);
  EXPECT_FALSE(first.contains("preempted"));
  EXPECT_EQ(found.at({1, 0}).at("text"), "ijkl");
  EXPECT_EQ(found.at({1, 0}).at("finish_reason"), "stop");
  EXPECT_EQ(found.at({2, 0}).at("logprobs").size(), 2U);
  EXPECT_EQ(found.at({2, 0}).at("seed"), 77);
}

TEST_F(CliParallel, WhoWasParkedIsToldInTheAnswersAndInTheFileOfEvents) {
  std::string asks;
  for (int i = 0; i < 4; ++i) asks += R"({"prompt": "hello )" + std::to_string(i) + "\"}\n";
  const std::string file = folder_.path() + "/events";
  // Room for one and a half of them, in blocks of four.
  const Outcome o =
      paddock(command() + "--kv-block-size 4 --kv-budget 800 -c 68 -n 60 " +
              "--ignore-eos --parallel " + folder_.write("asks", asks) + " --kv-events " + file);
  ASSERT_EQ(o.code, 0) << o.err;
  std::map<int64_t, Json> told;
  int64_t preemptions = 0;
  std::istringstream out(o.out);
  for (std::string line; std::getline(out, line);) {
    const Json answer = Json::parse(line);
    const Json its = answer.value("preempted", Json::array());
    EXPECT_EQ(answer.at("preemptions"), its.size());
    preemptions += static_cast<int64_t>(its.size());
    for (const Json& p : its) told[p.at("number").get<int64_t>()] = p;
  }
  ASSERT_GT(preemptions, 0) << o.out;
  std::ifstream in(file);
  int64_t written = 0, events = 0;
  for (std::string line; std::getline(in, line);) {
    const Json event = Json::parse(line);
    if (event.value("event", "") != "preemption") {
      events = event.at("number").get<int64_t>() + 1;
      continue;
    }
    EXPECT_EQ(event, told[written]) << "each once, in order";
    EXPECT_EQ(event.at("first_event"), events) << "before what left with it";
    EXPECT_GT(event.at("pages"), 0);
    EXPECT_GT(event.at("tokens"), 0);
    EXPECT_NE(event.at("parked"), event.at("request"));
    ++written;
  }
  EXPECT_EQ(written, preemptions);
  const auto none = answers(R"({"prompt": "a", "max_tokens": 0})", "");
  EXPECT_EQ(none.at({0, 0}).at("timings").at("first_token_seconds"), nullptr);
}

TEST_F(CliParallel, SeveralAnswersHaveSeedsOfTheirOwn) {
  const std::string line = R"({"prompt": "a", "n": 4, "temperature": 9, "top_k": 0, "min_p": 0,)"
                           R"( "top_p": 1, "max_tokens": 8})";
  const auto found = answers(line + "\n" + line + "\n", "--seed 5 --sequences 3");
  ASSERT_EQ(found.size(), 8U);
  EXPECT_EQ(found.at({0, 0}).at("cached_tokens"), 0);
  EXPECT_EQ(found.at({0, 1}).at("cached_tokens"), 2) << "the first one's";
  std::set<std::string> tokens;
  for (int i = 0; i < 2; ++i) {
    for (int which = 0; which < 4; ++which) {
      const Json& answer = found.at({i, which});
      EXPECT_EQ(answer.at("seed"), 5 + 4 * i + which);
      tokens.insert(answer.at("tokens").dump());
    }
  }
  EXPECT_EQ(tokens.size(), 8U);
  // Whoever it shares the engine with, a seed draws the same.
  const auto alone = answers(line.substr(0, line.size() - 1) + R"(, "seed": 7})", "--sequences 1");
  EXPECT_EQ(alone.at({0, 0}).at("tokens"), found.at({0, 2}).at("tokens"));
}

TEST_F(CliParallel, ShorterAnswersComeFirst) {
  const Outcome o = paddock(command() + "--sequences 2 --parallel -",
                            R"({"prompt": "a", "max_tokens": 40}
{"prompt": "b", "max_tokens": 2})");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(Json::parse(o.out.substr(0, o.out.find('\n'))).at("index"), 1);
}

TEST_F(CliParallel, ALineMayHaveARuleOfItsOwn) {
  const std::string prompt = R"("prompt": "abcdefghijkl", "max_tokens": 9, "n": 1)";
  const auto found = answers(fmt::format(R"({{{0}}}
{{{0}, "kv_policy": "window:4"}}
{{{0}, "kv_policy": "lru:8@every:4"}}
{{{0}, "kv_policy": "window:4"}}
)",
                                         prompt),
                             "--kv-block-size 2 --sequences 3");
  ASSERT_EQ(found.size(), 4U);
  EXPECT_EQ(found.at({0, 0}).at("trims"), 0);
  EXPECT_EQ(found.at({1, 0}).at("trims"), 0);
  EXPECT_GT(found.at({2, 0}).at("trims"), 0);
  EXPECT_EQ(found.at({2, 0}).at("miss").at("reason"), "not_shared");
  EXPECT_EQ(found.at({3, 0}).at("cached_tokens"), 12) << "those of the other with such a window";
  expect_refused(R"({"prompt": "a", "kv_policy": 3})", "kv_policy must be");
  expect_refusal(command() + "--parallel " +
                     folder_.write("bad.jsonl", R"({"prompt": "a", "kv_policy": "lruu"})"),
                 1, "for lines with a kv_policy lru fits now");
}

TEST_F(CliParallel, WhatTheEngineRefusesIsOneLinesTrouble) {
  const std::string ids = Json(std::vector<int>(200, 'a')).dump();
  const auto found = answers(fmt::format(R"({{"tokens": {}}}
{{"prompt": "a", "max_tokens": 2}}
{{"prompt": "a", "temperature": -1}}
)",
                                         ids),
                             "", 1);
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found.at({0, 0}).at("finish_reason"), "error");
  EXPECT_NE(found.at({0, 0}).at("error").get<std::string>().find("context"), std::string::npos);
  EXPECT_EQ(found.at({1, 0}).at("text"), "bc");
  EXPECT_NE(found.at({2, 0}).at("error").get<std::string>().find("temperature"), std::string::npos);
}

TEST_F(CliParallel, SaysWhatWouldHaveHelpedWhoHadNoRoom) {
  const std::string lines = folder_.write("full.jsonl", R"({"prompt": "a", "max_tokens": 5}
{"prompt": "b", "max_tokens": 400, "ignore_eos": true}
)");
  const Outcome o = paddock(command() + "-c 64 --parallel " + lines);
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.err.find("paddock: 1 answer ended early; of the first: the context is full, 64"),
            std::string::npos)
      << o.err;
}

TEST_F(CliParallel, AWrongFileRunsNothing) {
  expect_refused("{\"prompt\": \"a\"}\nnonsense\n", "bad.jsonl:2: is no JSON object");
  expect_refused("\n{\"prompt\": \"a\"}\n\n \n[1]\n", "bad.jsonl:5: is no JSON object");
  expect_refused("[1]", "bad.jsonl:1: is no JSON object");
  expect_refused("\n\n", "holds no request");
  expect_refused("{}", "needs either");
  expect_refused(R"({"prompt": "a", "tokens": [1]})", "needs either");
  expect_refused(R"({"prompt": 3})", "prompt must be a string");
  expect_refused(R"({"tokens": [1, -2]})", "tokens must be");
  expect_refused(R"({"prompt": "a", "temprature": 1})", "temprature");
  expect_refused(R"({"prompt": "a", "n": 0})", "n is 0");
  expect_refused(R"({"prompt": "a", "max_tokens": 1.5})", "max_tokens is 1.5");
  expect_refused(R"({"prompt": "a", "seed": 18446744073709551615})", "seed is");
  expect_refused(R"({"prompt": "a", "top_p": "x"})", "top_p is");
  expect_refused(R"({"prompt": "a", "stop": [1]})", "stop is");
  expect_refused(R"({"prompt": "a", "priority": 1001})", "priority is 1001");
  expect_refused(R"({"prompt": "a", "ignore_eos": 1})", "ignore_eos");
  expect_refused(
      "{\"prompt\": \"a\", \"kv_policy\": \"lru:64\"}\n\n"
      "{\"prompt\": \"a\", \"kv_policy\": \"nonsense\"}\n",
      "bad.jsonl:3: kv_policy: policy rule 'nonsense'");
  expect_refusal(command() + "-p a --sequences 2", 2, "--sequences 2");
  expect_refusal(command() + "--parallel x --sequences 0", 2, "--sequences 0");
  expect_refusal(command() + "-p a --parallel x", 2, "prompt");
  expect_refusal(command() + "--parallel /nonexistent.jsonl", 1, "/nonexistent.jsonl");
}

}  // namespace
}  // namespace paddock::test
