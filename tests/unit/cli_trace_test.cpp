// --kv-trace of the tool, and what paddock trace makes of it.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "support/cli.h"
#include "support/golden.h"
#include "support/small_model.h"

namespace paddock::test {
namespace {

using Json = nlohmann::json;

class CliTrace : public testing::Test {
 protected:
  CliTrace() { write_small_model(folder_); }
  std::string model() const { return " -m " + folder_.path() + " "; }
  std::string file(const std::string& name) const { return folder_.path() + "/" + name; }
  static std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static std::vector<Json> lines(const std::string& text) {
    std::vector<Json> all;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) all.push_back(Json::parse(line));
    return all;
  }
  std::string generate() const {
    return "generate" + model() + "--temp 0 --kv-block-size 4 --ignore-eos ";
  }

  TemporaryFolder folder_;
};

TEST_F(CliTrace, LinesAreWhatTheEventsSay) {
  const Outcome o = paddock(generate() + "-p 'hello there you' -n 30 --kv-policy h2o:16@every:8 " +
                            "--kv-events " + file("events") + " --kv-trace " + file("trace"));
  ASSERT_EQ(o.code, 0) << o.err;
  const Outcome out = paddock("trace " + file("trace") + " --to jsonl");
  ASSERT_EQ(out.code, 0) << out.err;
  const std::vector<Json> events = lines(read(file("events")));
  ASSERT_GT(events.size(), 4U);
  size_t next = 0;
  for (const Json& record : lines(out.out)) {
    if (record["record"] != "removal" || record["reason"] == "sequence_end") continue;
    ASSERT_LT(next, events.size());
    for (const auto& [key, value] : events[next].items()) EXPECT_EQ(record.at(key), value) << key;
    EXPECT_TRUE(record.contains("mass"));
    ++next;
  }
  EXPECT_EQ(next, events.size());
  EXPECT_EQ(lines(out.out).back()["record"], "end");
  EXPECT_EQ(out.out.find("\"ids\""), std::string::npos);
}

TEST_F(CliTrace, TokensAreThereOnlyWhereAskedFor) {
  const std::string run = generate() + "-p 'hello there' -n 4 --kv-trace " + file("trace");
  ASSERT_EQ(paddock(run + " --trace-tokens --trace-scores").code, 0);
  std::string text;
  std::map<int, std::string> pieces;
  for (const Json& record : lines(paddock("trace " + file("trace") + " --to jsonl").out)) {
    if (record["record"] == "piece") pieces[record["id"]] = record["text"];
    if (record["record"] != "tokens") continue;
    for (const int id : record["ids"]) text += pieces.at(id);
  }
  EXPECT_EQ(text.find("<|begin_of_text|>hello there"), 0U) << text;
  ASSERT_EQ(paddock(run).code, 0);
  EXPECT_EQ(read(file("trace")).find("hello"), std::string::npos);
  expect_refusal(generate() + "-p a --trace-tokens", 2, "--trace-tokens: needs --kv-trace FILE");
  expect_refusal(generate() + "-p a --trace-scores", 2, "--trace-scores: needs --kv-trace FILE");
}

TEST_F(CliTrace, RequestsAreThoseOfMooncake) {
  const std::string asks = folder_.write(
      "asks",
      "{\"prompt\":\"aaaa bbbb cccc dddd\"}\n{\"prompt\":\"aaaa bbbb cccc eeee\",\"n\":1}\n");
  ASSERT_EQ(paddock("generate" + model() + "--temp 0 --kv-block-size 4 --ignore-eos -n 5 " +
                    "--parallel " + asks + " --sequences 1 --kv-trace " + file("trace"))
                .code,
            0);
  const Outcome o = paddock("trace " + file("trace") + " --to mooncake -o " + file("requests"));
  ASSERT_EQ(o.code, 0) << o.err;
  const std::vector<Json> requests = lines(read(file("requests")));
  ASSERT_EQ(requests.size(), 2U);
  for (const Json& request : requests) {
    EXPECT_EQ(request["output_length"], 5);
    const int64_t length = request["input_length"];
    EXPECT_EQ(request["hash_ids"].size(), static_cast<size_t>(length / 4));
    EXPECT_GE(request["timestamp"], 0);
  }
  const Json first = requests[0]["hash_ids"], second = requests[1]["hash_ids"];
  EXPECT_EQ(first[0], second[0]);
  EXPECT_NE(first.back(), second.back());
  std::set<int64_t> ids(first.begin(), first.end());
  EXPECT_EQ(ids.size(), first.size());
  // replay reads them from the trace itself, and knows what a block takes.
  const std::string sizes = " --json --capacity 3,9 --curve";
  Json from_lines = Json::parse(paddock("replay " + file("requests") + sizes).out);
  Json from_trace = Json::parse(paddock("replay " + file("trace") + sizes).out);
  EXPECT_GT(from_trace["results"][1]["found"], 0);
  const Json engine = lines(paddock("trace " + file("trace") + " --to jsonl").out).front();
  const int64_t block = engine["page_bytes"].get<int64_t>() * engine["n_layers"].get<int64_t>();
  for (Json& result : from_trace["results"]) {
    EXPECT_EQ(result["capacity_bytes"], block * result["capacity"].get<int64_t>());
    EXPECT_EQ(result["found_bytes"], block * result["found"].get<int64_t>());
    result.erase("capacity_bytes");
    result.erase("found_bytes");
  }
  EXPECT_EQ(from_trace, from_lines);
  const std::string told = read(file("trace"));
  expect_refusal("replay " + folder_.write("bad", told.substr(0, 20) + "x" + told.substr(21)), 1,
                 "byte ");
}

TEST_F(CliTrace, ExplainRunsAgainWhatIsTried) {
  const std::string record = " --trace-tokens --kv-trace " + file("trace");
  ASSERT_EQ(
      paddock(generate() + "-p 'hello there you' -n 60 -b 8 --kv-policy h2o:16@every:8" + record)
          .code,
      0);
  const std::string ask =
      "explain " + file("trace") + " --text 'there you' -t 1 -m " + folder_.path() + " ";
  // The second in more memory, which full takes.
  const std::string room = " --kv-budget 4KiB";
  const Outcome o = paddock(ask + "--json --sweep h2o:16@every:8 --sweep full --sweep window:8");
  const Outcome more = paddock(ask + "--json --sweep full --sweep window:8" + room);
  ASSERT_EQ(o.code, 0) << o.err;
  ASSERT_EQ(more.code, 0) << more.err;
  const Json found = Json::parse(o.out)["found"];
  ASSERT_EQ(found.size(), 1U);
  const Json& blocks = found[0]["blocks"];
  ASSERT_GE(blocks.size(), 2U);
  ASSERT_EQ(found[0]["again"].size(), 3U);
  const auto left = [&](const Json& again) {
    std::vector<bool> all;
    EXPECT_EQ(again["blocks"].size(), blocks.size());
    for (size_t i = 0; i < again["blocks"].size(); ++i) {
      const Json& block = again["blocks"][i];
      EXPECT_EQ(block["first_position"], blocks[i]["first_position"]);
      EXPECT_EQ(block["left"].size() + block["kept_in"].size(), 1U) << "the model's one layer";
      all.push_back(!block["left"].empty());
    }
    return all;
  };
  std::vector<bool> as_it_was;
  for (const Json& block : blocks) as_it_was.push_back(!block["left"].empty());
  EXPECT_EQ(left(found[0]["again"][0]), as_it_was) << "the same once more";
  EXPECT_NE(found[0]["again"][1]["refused"].get<std::string>().find("raise --kv-budget to"),
            std::string::npos)
      << "it is run in the memory that was";
  EXPECT_EQ(left(found[0]["again"][2]), std::vector<bool>(blocks.size(), true));
  const Json again = Json::parse(more.out)["found"][0]["again"];
  EXPECT_EQ(left(again[0]), std::vector<bool>(blocks.size(), false));
  EXPECT_EQ(left(again[1]), std::vector<bool>(blocks.size(), true));
  const Outcome words = paddock(ask + "--sweep full" + room);
  EXPECT_NE(words.out.find("  measured by running its sequence again, under full with --kv-budget "
                           "4KiB:\n    the block of position "),
            std::string::npos)
      << words.out;
  EXPECT_NE(words.out.find(": left no layer, stayed in every layer\n"), std::string::npos);
  // More memory, with the rule that was.
  ASSERT_EQ(paddock(generate() +
                    "-p 'hello there you' -n 60 -b 8 --kv-policy lru@every:8 "
                    "--kv-budget 256" +
                    record)
                .code,
            0);
  const auto lost = [&](const std::string& budget) {
    const Outcome tried = paddock(ask + "--json --kv-budget " + budget);
    EXPECT_EQ(tried.code, 0) << tried.err;
    const Json its = Json::parse(tried.out)["found"][0];
    EXPECT_EQ(its["again"][0]["policy"], Json());
    EXPECT_EQ(its["again"][0]["kv_budget"], budget);
    EXPECT_FALSE(its["blocks"][0]["left"].empty()) << "else there is nothing to be seen";
    return !its["again"][0]["blocks"][0]["left"].empty();
  };
  EXPECT_TRUE(lost("256"));
  EXPECT_FALSE(lost("4KiB"));
}

TEST_F(CliTrace, WhatCannotBeRunAgainIsRefused) {
  const std::string run = generate() + "-p 'hello there' -n 4 --kv-trace " + file("trace");
  ASSERT_EQ(paddock(run).code, 0);
  const std::string ask = "explain " + file("trace") + " --position 1 ";
  const std::string with = "-m " + folder_.path() + " ";
  expect_refusal(ask + "--sweep full", 2, "--sweep and --kv-budget need the run's model, -m PATH");
  expect_refusal(ask + with, 2, "-m: say what to try, --sweep SPEC or --kv-budget SIZE");
  expect_refusal("explain " + file("trace") + " " + with + "--sweep full", 2,
                 "-m: say of what, by --text, --position or --turn");
  expect_refusal(ask + with + "--kv-budget much", 2, "--kv-budget much");
  expect_refusal(ask + with + "--sweep full", 1, "record it with --trace-tokens");
  expect_refusal(ask + "-m " + golden("gqa1-default") + " --sweep full", 1,
                 "give the model that the run had");
}

TEST_F(CliTrace, TheTimelineIsOneOfChromes) {
  ASSERT_EQ(paddock(generate() + "-p 'hello there you' -n 20 --kv-policy window:8 --kv-trace " +
                    file("trace"))
                .code,
            0);
  const Outcome o = paddock("trace " + file("trace") + " --to perfetto");
  ASSERT_EQ(o.code, 0) << o.err;
  const Json timeline = Json::parse(o.out);
  std::map<std::string, int> kinds;
  double last_step = -1;
  for (const Json& event : timeline["traceEvents"]) {
    const std::string kind = event["ph"];
    ++kinds[kind + (kind == "i" ? " " + event["name"].get<std::string>() : "")];
    EXPECT_GE(event["ts"], 0.0);
    EXPECT_EQ(event["pid"], 1);
    if (kind == "X") {
      EXPECT_GE(event["ts"], last_step);
      last_step = event["ts"].get<double>() + event["dur"].get<double>();
    }
    EXPECT_EQ(kind == "C", event.contains("args") && event["args"].contains("free"));
  }
  EXPECT_EQ(kinds["b"], 1);
  EXPECT_EQ(kinds["e"], 1);
  EXPECT_GE(kinds["X"], 20);
  EXPECT_EQ(kinds["X"], kinds["C"]);
  EXPECT_GE(kinds["i window"], 4);
}

TEST_F(CliTrace, TheSummaryCounts) {
  ASSERT_EQ(paddock(generate() + "-p 'hello there you' -n 20 --kv-policy window:8 --kv-trace " +
                    file("trace") + " --kv-events " + file("events"))
                .code,
            0);
  const Outcome o = paddock("trace " + file("trace") + " --json");
  ASSERT_EQ(o.code, 0) << o.err;
  const Json summary = Json::parse(o.out);
  EXPECT_EQ(summary["whole"], true);
  EXPECT_EQ(summary["requests"], 1);
  EXPECT_EQ(summary["finished"], 1);
  EXPECT_EQ(summary["policy"], "window:8");
  EXPECT_EQ(summary["layers"], 1);
  EXPECT_EQ(summary["bytes"], summary["bytes_total"]);
  EXPECT_EQ(summary["removed"][0]["reason"], "window");
  EXPECT_EQ(summary["removed"][0]["blocks"], lines(read(file("events"))).size());
  const std::string text = paddock("trace " + file("trace")).out;
  EXPECT_NE(text.find("under 'window:8'"), std::string::npos) << text;
  EXPECT_NE(text.find("window        layer 0: "), std::string::npos) << text;
  // Cut off, in the middle of its last frame.
  const std::string bytes = read(file("trace"));
  const std::string part = folder_.write("part", bytes.substr(0, bytes.size() - 1));
  EXPECT_NE(paddock("trace " + part).out.find("cut off: "), std::string::npos);
  EXPECT_EQ(Json::parse(paddock("trace " + part + " --json").out)["whole"], false);
}

TEST_F(CliTrace, WrongFilesAndOptionsAreRefused) {
  const std::string text = folder_.write("text", "no trace at all\n");
  expect_refusal("trace " + text, 1, "is no trace; record one with --kv-trace");
  expect_refusal("trace " + file("none"), 1, "cannot read");
  expect_refusal("trace " + text + " --to xml", 2, "--to xml: must be jsonl, perfetto or mooncake");
  expect_refusal("trace " + text + " --to jsonl --json", 2, "--json");
  expect_refusal("trace " + text + " -o x", 2, "-o: goes with --to");
  expect_refusal(generate() + "-p a --kv-trace -", 2, "'-': must be a file");
  expect_refusal("bench" + model() + "-p 4 -n 2 --kv-trace x", 2, "--parallel");
  // What is refused costs no file.
  const std::string kept = folder_.write("kept", "of an earlier run\n");
  expect_refusal(generate() + "-p a --kv-policy no --kv-trace " + kept, 2, "'no'");
  EXPECT_EQ(read(kept), "of an earlier run\n");
  expect_refusal(generate() + "-p a --kv-budget 8 --kv-trace " + kept, 1, "");
  EXPECT_EQ(read(kept), "of an earlier run\n");
  const Outcome full = paddock(generate() + "-p a -n 2 --kv-trace /dev/full");
  EXPECT_EQ(full.code, 1);
  EXPECT_NE(full.err.find("--kv-trace /dev/full: not everything could be written"),
            std::string::npos)
      << full.err;
}

TEST_F(CliTrace, EveryCommandThatRunsTextRecords) {
  const std::string text = folder_.write("text.txt", "hello there, hello you, hello all");
  const auto summary = [&](const std::string& name) {
    const Outcome o = paddock("trace " + file(name) + " --json");
    EXPECT_EQ(o.code, 0) << o.err;
    return Json::parse(o.out);
  };
  ASSERT_EQ(paddock("perplexity" + model() + "-f " + text + " --against window:8 --kv-trace " +
                    file("score"))
                .code,
            0);
  EXPECT_EQ(summary("score")["policy"], "full");
  EXPECT_GT(summary("score")["tokens_written"], 15);
  ASSERT_EQ(
      paddock("bench" + model() + "-p 8 -n 4 -r 1 --parallel 2 --kv-trace " + file("bench")).code,
      0);
  EXPECT_EQ(summary("bench")["requests"], 4);
  ASSERT_EQ(
      paddock("chat" + model() + "--temp 0 -n 4 --chat-template chatml --kv-trace " + file("chat"),
              "hello\nand you\n")
          .code,
      0);
  EXPECT_EQ(summary("chat")["requests"], 2);
  EXPECT_EQ(summary("chat")["sessions"], 1);
}

}  // namespace

TEST_F(CliTrace, AnswersFollowOneAnotherWhileAPromptIsRead) {
  // Answers of two tokens end long before 2,000 are read.
  const Outcome o =
      paddock("bench" + model() + "-p 3 -n 2 -r 1 --parallel 2 --beside 2000 -o json --kv-trace " +
              file("beside"));
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_GT(Json::parse(o.out)[0]["beside_tokens_per_second"].get<double>(), 0);
  int64_t long_one = 0;
  int before = 0, answers_at_its_end = 0, after = 0;
  for (const Json& record : lines(paddock("trace " + file("beside") + " --to jsonl").out)) {
    if (record["record"] == "request") {
      EXPECT_EQ(record["max_tokens"], record["prompt_tokens"] == 2000 ? 1 : 2);
      if (record["prompt_tokens"] == 2000) long_one = record["request"];
    }
    if (record["record"] != "finish") continue;
    if (record["request"] == long_one) answers_at_its_end = before;
    (answers_at_its_end > 0 ? after : before) += 1;
    EXPECT_EQ(record["finish_reason"], "length");
  }
  // The warm-up brings two, the two beside the prompt bring two more each at least.
  EXPECT_GE(answers_at_its_end, 6);
  EXPECT_LE(after, 1 + 2) << "none begins once it is read";
}

}  // namespace paddock::test
