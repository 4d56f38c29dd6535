// A chat whose cache fills up, loses something or is given other rules, and what it says about it.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "keep.h"
#include "support/cli.h"
#include "support/golden.h"
#include "support/small_model.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

int64_t times(const std::string& text, const std::string& part) {
  int64_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

/// What follows `before` in `text`, up to the next comma, semicolon, blank or end of line.
std::string word_after(const std::string& text, const std::string& before) {
  const size_t at = text.find(before);
  if (at == std::string::npos) return "";
  const size_t from = at + before.size();
  return text.substr(from, text.find_first_of(",; \n", from) - from);
}

/// The small model: one layer, 8 bytes a position, pages of 128 bytes, a context of 128.
class CliChat : public testing::Test {
 protected:
  CliChat() { write_small_model(folder_); }
  std::string model() const { return " -m " + folder_.path() + " "; }
  std::string chat() const { return "chat" + model() + "--chat-template chatml --temp 0 "; }

  TemporaryFolder folder_;
};

TEST_F(CliChat, ARefusedPolicyLeavesTheConversationAndProposesOneThatFits) {
  const std::string command = chat() + "-n 4 --kv-budget 640 ";
  const Outcome o =
      paddock(command, "one\n/policy sink:4+200\ntwo\n/policy\n/stats\n/clear\nthree\n");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.out, "aaaa\naaaa\naaaa\n") << o.err;
  EXPECT_EQ(times(o.err, "error: "), 1) << o.err;
  EXPECT_NE(o.err.find("policy 'sink:4+200' needs at least"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("\nfull\n"), std::string::npos) << o.err;
  // Each proposal works.
  const std::string policy = word_after(o.err, "/policy ");
  const Outcome with_policy = paddock(command, "one\n/policy " + policy + "\ntwo\n/policy\n");
  EXPECT_EQ(with_policy.code, 0);
  EXPECT_EQ(with_policy.out, "aaaa\naaaa\n");
  EXPECT_EQ(with_policy.err, policy + "\n");
  const std::string budget = word_after(o.err, "raise --kv-budget to ");
  const Outcome raised =
      paddock(chat() + "-n 4 --kv-budget " + budget, "one\n/policy sink:4+200\ntwo\n/policy\n");
  EXPECT_EQ(raised.err, "sink:4+200\n");
  EXPECT_EQ(raised.out, "aaaa\naaaa\n");
}

TEST_F(CliChat, AFullCacheIsSaidOnceAndAnotherPolicyGoesOn) {
  const std::string command = chat() + "-n 100 --kv-budget 768 ";  // 96 positions
  const Outcome o = paddock(command, "one\ntwo\nthree\n/stats\n");
  EXPECT_EQ(o.code, 1);
  EXPECT_EQ(times(o.out, "\n"), 1);
  EXPECT_EQ(times(o.err, "the KV cache of 768 is full; "), 1) << o.err;
  EXPECT_EQ(times(o.err, "error: the prompt needs"), 2) << o.err;
  EXPECT_EQ(times(o.err, "raise --kv-budget to"), 1) << o.err;
  EXPECT_NE(o.err.find("\n97 tokens of at most 97 (100%), the limit of --kv-budget\n"),
            std::string::npos)
      << o.err;
  const std::string policy = word_after(o.err, "/policy ");
  const Outcome on =
      paddock(command, "one\n/policy " + policy + "\ntwo\n/policy sink:4+500\nthree\n/stats\n");
  EXPECT_EQ(times(on.out, "\n"), 3) << on.err;
  EXPECT_EQ(times(on.err, "session"), 0) << on.err;
  EXPECT_NE(on.err.find(policy + " let "), std::string::npos) << on.err;
  EXPECT_NE(on.err.find("'sink:4+500' needs at least"), std::string::npos) << on.err;
}

TEST_F(CliChat, LackOfRoomIsSaidAgainOnceThereWasRoom) {
  const std::string full = "the KV cache of 768 is full";
  const std::string command = chat() + "-n 100 --kv-budget 768 ";  // 96 positions
  const auto said = [&](const std::string& lines) {
    return times(paddock(command, lines).err, full);
  };
  EXPECT_EQ(said("one\n/retry\n/retry\n"), 1);
  EXPECT_EQ(said("one\n/clear\ntwo\n"), 2);
  const std::string room = "/policy window:8\n/retry\n/clear\n/policy full\n";
  EXPECT_EQ(said("one\n" + room + "two\n"), 2);
  // What would work is said again, too; and at once where it is something else.
  const std::string brief = chat() + "-n 4 --kv-budget 768 ";
  const std::string longer(90, 'x'), longest(108, 'x');
  const Outcome again = paddock(brief, longer + "\n/clear\n" + longer + "\n");
  EXPECT_EQ(times(again.err, "raise --kv-budget to "), 2) << again.err;
  const Outcome other = paddock(brief, longer + "\n" + longest + "\n" + longest + "\n");
  EXPECT_EQ(times(other.err, "raise --kv-budget to "), 2) << other.err;
}

TEST_F(CliChat, LackOfRoomIsSaidWhereTheAnswerBeforeHadRoom) {
  std::string lines = "one\n";
  for (int i = 0; i < 40; ++i) lines += "/retry\n";
  const Outcome o =
      paddock("chat" + model() +
                  "--chat-template chatml --temp 1 --top-k 0 --top-p 1 --min-p 0 --seed 1 -n 100 " +
                  "--kv-budget 768 --json",
              lines);
  std::istringstream answers(o.out);
  int64_t expected = 0, whole = 0;
  bool full_before = false;
  for (std::string line; std::getline(answers, line);) {
    const bool full = nlohmann::json::parse(line)["finish_reason"] == "kv_full";
    expected += full && !full_before;
    whole += !full;
    full_before = full;
  }
  EXPECT_GT(expected, 1);
  EXPECT_GT(whole, 1);
  EXPECT_EQ(times(o.err, "the KV cache of 768 is full"), expected) << o.err;
}

TEST_F(CliChat, RetryDrawsAnotherAnswerAndTheSameOnesEachTime) {
  const auto answers = [&] {
    const Outcome o = paddock("chat" + model() + "--chat-template chatml --temp 1 --top-k 0 " +
                                  "--top-p 1 --min-p 0 --seed 3 -n 12 --json",
                              "one\n/retry\n/retry\n");
    EXPECT_EQ(o.code, 0) << o.err;
    std::istringstream lines(o.out);
    std::vector<std::string> texts;
    for (std::string line; std::getline(lines, line);) {
      texts.push_back(nlohmann::json::parse(line)["text"]);
    }
    return texts;
  };
  const std::vector<std::string> first = answers();
  EXPECT_EQ(std::set<std::string>(first.begin(), first.end()).size(), 3U);
  EXPECT_EQ(answers(), first);
}

TEST_F(CliChat, ASingleTurnReadsNothing) {
  EXPECT_EQ(paddock(chat() + "-n 4 --single-turn -p one", "two\n").out, "aaaa\n");
  expect_refusal(chat() + "-n 4 --single-turn", 2, "needs a message with -p");
}

TEST_F(CliChat, LackOfRoomIsSaidInEveryFormAndIsOne) {
  for (const std::string& form : {std::string(), std::string("--json ")}) {
    const Outcome full = paddock(chat() + "-n 100 --single-turn -p one --kv-budget 768 " + form);
    EXPECT_EQ(full.code, 1);
    EXPECT_EQ(times(full.err, "the KV cache of 768 is full; raise --kv-budget to "), 1) << full.err;
    const Outcome context = paddock(chat() + "-n 100 --single-turn -p one -c 60 " + form);
    EXPECT_EQ(context.code, 1);
    EXPECT_EQ(times(context.err, "the context is full, 60 positions; drop -c"), 1) << context.err;
    const Outcome raw =
        paddock("generate" + model() + "--temp 0 -n 100 -p one -c 60 --ignore-eos " + form);
    EXPECT_EQ(times(raw.err, "the context is full, 60 positions; drop -c"), 1) << raw.err;
  }
  // As proposed, it works.
  const Outcome full = paddock(chat() + "-n 60 --single-turn -p one --kv-budget 512");
  const std::string budget = word_after(full.err, "raise --kv-budget to ");
  EXPECT_EQ(paddock(chat() + "-n 60 --single-turn -p one --kv-budget " + budget).code, 0) << budget;
  EXPECT_EQ(paddock(chat() + "-n 60 --single-turn -p one").code, 0);
}

TEST_F(CliChat, AnAnswerCutOffAtItsSecondTryIsOneToo) {
  std::ifstream config_file(folder_.path() + "/config.json");
  nlohmann::json config = nlohmann::json::parse(config_file);
  config["eos_token_id"] = 10;  // one token in forty: most answers end before the cache is full
  folder_.write("config.json", config.dump());
  bool cut = false;
  for (int seed = 1; seed < 100 && !cut; ++seed) {  // so hot that any token may come
    const Outcome o =
        paddock("chat" + model() +
                    "--chat-template chatml --temp 1000 -n 200 --kv-budget 768 --json "
                    "--seed " +
                    std::to_string(seed),
                "one\n/retry\n");
    std::istringstream lines(o.out);
    std::string first;
    std::string second;
    ASSERT_TRUE(std::getline(lines, first) && std::getline(lines, second)) << o.err;
    if (nlohmann::json::parse(first)["finish_reason"] != "stop") continue;
    cut = nlohmann::json::parse(second)["finish_reason"] == "kv_full";
    EXPECT_EQ(o.code, cut ? 1 : 0) << o.out;
  }
  EXPECT_TRUE(cut);
}

TEST_F(CliChat, WhatLeavesIsSaidAtEachTurn) {
  const Outcome o =
      paddock(chat() + "-n 70 -b 8 -c 500 --kv-policy sink:4+28", "one\ntwo\n/stats\n");
  EXPECT_EQ(o.code, 0);
  const std::regex line(
      "paddock: sink:4\\+28 let [0-9]+ pages go: positions [-0-9, ]+ of turns? [0-9 to]+ in 1 of 1 "
      "layers; [0-9]+ of [0-9]+ pages \\([0-9]+%\\) are held(; [^\n]*)?\n");
  const auto begin = std::sregex_iterator(o.err.begin(), o.err.end(), line);
  EXPECT_EQ(std::distance(begin, std::sregex_iterator()), 2) << o.err;
  EXPECT_EQ(times(o.err, "positions raise --kv-budget to "), 1) << o.err;
  EXPECT_EQ(times(o.err, " with --kv-policy full"), 1) << o.err;
  EXPECT_NE(o.err.find("of turn 1 "), std::string::npos) << o.err;
  // What left is one run, and what leaves later lies behind it.
  std::vector<int> ends;
  for (auto at = begin; at != std::sregex_iterator(); ++at) {
    std::smatch run;
    const std::string said = at->str();
    ASSERT_TRUE(std::regex_search(said, run, std::regex("positions ([0-9]+)-([0-9]+) of")));
    EXPECT_EQ(std::stoi(run[1]), ends.empty() ? 16 : ends.back() + 1) << o.err;
    ends.push_back(std::stoi(run[2]));
  }
  EXPECT_NE(o.err.find(" pages by window, 0 pages by policy_trim"), std::string::npos) << o.err;
  const Outcome raw = paddock("generate" + model() + "--temp 0 -n 60 -p one --kv-policy window:8");
  EXPECT_EQ(times(raw.err, "paddock: window:8 let "), 1) << raw.err;
  EXPECT_EQ(paddock("generate" + model() + "--temp 0 -n 60 -p one").err, "");
}

TEST_F(CliChat, OfManyRunsThreeAreNamedAndTheOthersCounted) {
  const std::string events = folder_.path() + "/events";
  const Outcome o =
      paddock("generate" + model() +
              "--temp 0 -n 100 -p one --kv-block-size 2 --kv-policy random:24@every:8 "
              "--kv-events " +
              events);
  EXPECT_EQ(o.code, 0) << o.err;
  std::vector<bool> left(200);
  std::ifstream file(events);
  for (std::string line; std::getline(file, line);) {
    const auto event = nlohmann::json::parse(line);
    if (event["reason"] != "policy_trim") continue;
    for (int i = 0; i < event["n_tokens"].get<int>(); ++i) {
      left.at(event["first_position"].get<size_t>() + static_cast<size_t>(i)) = true;
    }
  }
  std::vector<std::string> runs;
  for (size_t first = 0, end = 0; first < left.size(); first = end + 1) {
    for (end = first; end < left.size() && left[end];) ++end;
    if (end > first) runs.push_back(std::to_string(first) + "-" + std::to_string(end - 1));
  }
  ASSERT_GT(runs.size(), 4);
  EXPECT_NE(o.err.find("positions " + runs[0] + ", " + runs[1] + ", " + runs[2] + " and " +
                       std::to_string(runs.size() - 3) + " more in 1 of 1 layers"),
            std::string::npos)
      << o.err;
}

TEST_F(CliChat, WhatIsTakenBackIsNotWhatARuleLetGo) {
  // The window has dropped what was in view then: all is taken back, the sinks too, and read again.
  const Outcome o = paddock(chat() + "-n 40 -b 8 --kv-policy sink:16+16", "one\n/retry\n");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(times(o.err, "paddock: sink:16+16 let "), 2) << o.err;
  EXPECT_EQ(times(o.err, " pages go: positions 16-"), 2) << o.err;
  // It reads and answers the same again, so the window lets go of what it let go of before: not of
  // the answer's end, which was taken back.
  std::smatch first, again;
  const std::regex run("positions (16-[0-9]+) of turn 1 ");
  ASSERT_TRUE(std::regex_search(o.err, first, run)) << o.err;
  const std::string rest = first.suffix();
  ASSERT_TRUE(std::regex_search(rest, again, run)) << o.err;
  EXPECT_EQ(first[1], again[1]) << o.err;
}

TEST_F(CliChat, ARefusedMessageKeepsTheConversation) {
  const Outcome o = paddock(chat() + "-n 4 -c 64", std::string(200, 'x') + "\none\n" +
                                                       std::string(200, 'x') + "\n/stats\n");
  EXPECT_EQ(o.code, 1);
  EXPECT_EQ(o.out, "aaaa\n");
  EXPECT_EQ(times(o.err, "the context admits 64 positions"), 2) << o.err;
}

TEST_F(CliChat, WhatWasRefusedIsWhatIsRetried) {
  const std::string command = chat() + "-n 4 -b 8 --kv-budget 640 --json ";  // 80 positions
  const std::string longer(100, 'x');
  const auto prompts = [&](const std::string& lines) {
    std::vector<int> tokens;  // of each message that was answered
    std::istringstream out(paddock(command, lines).out);
    for (std::string line; std::getline(out, line);) {
      tokens.push_back(nlohmann::json::parse(line)["prompt_tokens"].get<int>());
    }
    return tokens;
  };
  // As it is where there is room from the start.
  const std::vector<int> after = prompts("/policy window:8\none\n" + longer + "\n");
  ASSERT_EQ(after.size(), 2U);
  EXPECT_EQ(prompts("one\n" + longer + "\n/retry\n/policy window:8\n/retry\n"), after);
  // A first message, too.
  const std::vector<int> alone = prompts("/policy window:8\n" + longer + "\n");
  ASSERT_EQ(alone.size(), 1U);
  EXPECT_EQ(prompts(longer + "\n/policy window:8\n/retry\n"), alone);
  // Once it is answered, or another message is, or all is forgotten, it is none any more.
  EXPECT_EQ(prompts(longer + "\n/policy window:8\n/retry\n/retry\n"),
            (std::vector<int>{alone[0], alone[0]}));
  const int one = prompts("one\n")[0];
  EXPECT_EQ(prompts(longer + "\none\n/retry\n"), (std::vector<int>{one, one}));
  const Outcome o = paddock(command, longer + "\n/clear\n/policy window:8\n/retry\n");
  EXPECT_EQ(o.out, "");
  EXPECT_NE(o.err.find("there is no answer to replace"), std::string::npos) << o.err;
}

TEST_F(CliChat, ALineThatBeginsWithASlashMayBeAMessage) {
  const Outcome o = paddock(chat() + "-n 4 -c 500 --log-level off",
                            "/etc/hosts is odd\n//stats\n/tmp\n/home is where\n//\n/\n"
                            "/stat is odd\n");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.out, "aaaa\naaaa\naaaa\naaaa\naaaa\naaaa\naaaa\n");
  EXPECT_EQ(o.err, "");
  // The message is what was typed, but for the slash that escapes.
  const auto tokens = [&](const std::string& text) {
    return nlohmann::json::parse(paddock(chat() + "-n 4 --json", text + "\n").out)["prompt_tokens"]
        .get<int>();
  };
  EXPECT_EQ(tokens("/etc is"), tokens("xetc is"));
  EXPECT_EQ(tokens("//stats"), tokens("xstats"));
  const Outcome wrong =
      paddock(chat(), "/stat\n/hlep\n/kv now\n/save file\n/STATS\n/Kv\n/Quiit\n/SAVE\n/quit\n");
  EXPECT_EQ(wrong.code, 0);
  EXPECT_EQ(wrong.out, "");
  EXPECT_NE(wrong.err.find("there is no command /stat, but /stats; a message that begins so is "
                           "written //stat\n"),
            std::string::npos)
      << wrong.err;
  EXPECT_NE(wrong.err.find("/hlep, but /help;"), std::string::npos) << wrong.err;
  EXPECT_NE(wrong.err.find("/kv takes nothing after it"), std::string::npos) << wrong.err;
  EXPECT_NE(wrong.err.find("there is no /save yet"), std::string::npos) << wrong.err;
  for (const std::string near :
       {"/STATS, but /stats; a message that begins so is written //STATS\n", "/Kv, but /kv;",
        "/Quiit, but /quit;", "there is no /save yet; a mes"}) {
    EXPECT_EQ(times(wrong.err, near), near.starts_with("there") ? 2 : 1) << near << "\n"
                                                                         << wrong.err;
  }
  EXPECT_EQ(times(wrong.err, "\n"), 8) << wrong.err;
}

TEST_F(CliChat, SnapKvActsAtEveryTurn) {
  const Outcome o =
      paddock(chat() + "-n 8 -c 500 --kv-policy snapkv:16 --kv-block-size 4", "one\ntwo\n/stats\n");
  EXPECT_EQ(times(o.err, "snapkv:16 let "), 2) << o.err;
  EXPECT_NE(o.err.find(" in 2 decisions\n"), std::string::npos) << o.err;
  const std::string text = folder_.write("text", std::string(60, 'x'));
  const std::string score = "perplexity" + model() + "-f " + text + " --kv-block-size 4 ";
  EXPECT_EQ(
      paddock(score + "--against snapkv:16").err,
      "paddock: snapkv:16 never acted: it decides once, where the prompt ends; say where with "
      "--prompt-tokens N\n");
  EXPECT_EQ(paddock(score + "--against snapkv:16 --prompt-tokens 40").err, "");
  EXPECT_EQ(times(paddock(score + "--against pyramid:snapkv:32").err, " never acted: "), 1);
  // Of a rule that decides again and again nothing is said.
  EXPECT_EQ(paddock(score + "--against h2o:64").err, "");
  // Once for a rule, not for each of its layers.
  const std::string golden = std::string(PADDOCK_TEST_DATA) + "/golden/";
  EXPECT_EQ(times(paddock("perplexity -m " + golden + "gqa1-default --tokens-file " + golden +
                          "tokens.json --kv-block-size 4 --against snapkv:16")
                      .err,
                  " never acted: "),
            1);
  EXPECT_EQ(paddock(score + "--sweep full --sweep snapkv:16 --prompt-tokens 10").err,
            "paddock: snapkv:16 never acted: it decides once, where the prompt ends; the first 10 "
            "tokens are no more than it keeps\n");
}

TEST_F(CliChat, SizesMayHaveAPointAndAShortUnit) {
  const auto bytes = [&](const std::string& size) {
    const Outcome o =
        paddock("generate" + model() + "--temp 0 -n 1 -p a --json --kv-budget " + size);
    EXPECT_EQ(o.code, 0) << size << o.err;
    return nlohmann::json::parse(o.out)["kv"]["pool_bytes"].get<int64_t>();
  };
  EXPECT_EQ(bytes("1.5KiB"), 1536);
  EXPECT_EQ(bytes("1.5k"), 1536);
  EXPECT_EQ(bytes("2K"), 2048);
  EXPECT_EQ(bytes("2Ki"), 2048);
  EXPECT_EQ(bytes("1M"), 1 << 20);
  EXPECT_EQ(bytes("1mib"), 1 << 20);
  EXPECT_EQ(bytes("0.5MiB"), 1 << 19);
  EXPECT_EQ(bytes("1MB"), 1000000 / 128 * 128);
  EXPECT_EQ(bytes("4096"), 4096);
  EXPECT_EQ(bytes("4096B"), 4096);
  for (const char* wrong : {"1.5", "-1M", "M", "1.M", ".5M", "1e3M", "inf", "nan", "0", "0.0M",
                            "1XiB", "1MiBi", "1 M", "0x10", "18446744073709551615K"}) {
    expect_refusal("generate" + model() + "--temp 0 -p a --kv-budget '" + wrong + "'", 2, "1.5GiB");
  }
}

TEST_F(CliChat, RefusalsNameOptionsWithValuesThatWork) {
  const std::string generate = "generate" + model() + "--temp 0 -n 20 ";
  const std::string text(100, 'x');
  const auto refused = [&](const std::string& options) {
    const Outcome o = paddock(generate + options);
    EXPECT_NE(o.code, 0) << options;
    return o.err;
  };
  const std::string prompt = "-p " + text + " ";
  const std::string small = refused(prompt + "--kv-budget 640");
  const std::string budget = word_after(small, "raise --kv-budget to ");
  EXPECT_EQ(paddock(generate + prompt + "--kv-budget " + budget).code, 0) << small;
  const std::string policy = word_after(small, "--kv-policy ");
  EXPECT_EQ(paddock(generate + prompt + "--kv-budget 640 --kv-policy " + policy).code, 0) << small;
  EXPECT_NE(refused(prompt + "-c 20").find("; drop -c"), std::string::npos);
  // Sizes are rounded up: 1220 positions take 9.7 KiB.
  const std::string many = "-c 2000 --log-level off -p " + std::string(1200, 'x') + " ";
  EXPECT_NE(refused(many + "--kv-budget 4KiB").find("raise --kv-budget to 10KiB"),
            std::string::npos);
  EXPECT_EQ(paddock(generate + many + "--kv-budget 10KiB").code, 0);
  const std::string wide = refused(prompt + "--kv-budget 768 --kv-policy window:24");
  const std::string batch = word_after(wide, "lower -b to ");
  EXPECT_EQ(paddock(generate + prompt + "--kv-budget 768 --kv-policy window:24 -b " + batch).code,
            0)
      << wide;
  EXPECT_NE(refused("-p a --kv-policy h2p:64").find("; --kv-policy h2o:64 fits now"),
            std::string::npos);
  EXPECT_NE(refused("-p a --kv-policy 0-3=h2o:64").find("; --kv-policy 0=h2o:64 fits now"),
            std::string::npos);
  const Outcome against =
      paddock("perplexity" + model() + "-f " + folder_.write("t", text) + " --against wimdow:8");
  EXPECT_EQ(against.code, 2);
  EXPECT_NE(against.err.find("; --against window:8 fits now"), std::string::npos) << against.err;
}

// ---- what left, and why

TEST_F(CliChat, WhyTellsWhatExplainTellsOfItsTrace) {
  const std::string file = folder_.path() + "/trace";
  const std::string options = chat() + "-n 2 --kv-block-size 4 --kv-policy lru:16@every:8 ";
  const Outcome o = paddock(options + "--kv-trace " + file + " --trace-tokens",
                            "seven\n/why\ntwo\nthree\n/why seven\n/why nine\n/why\n");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(times(o.err, "that is nowhere in the conversation\n"), 1) << o.err;
  const Outcome explained = paddock("explain " + file + " --text seven");
  ASSERT_EQ(explained.code, 0) << explained.err;
  const std::string words = explained.out.substr(explained.out.find('\n') + 1);
  ASSERT_NE(words.find(" left its layer in turn "), std::string::npos) << words;
  ASSERT_NE(words.find("'lru:16@every:8' let it go"), std::string::npos) << words;
  EXPECT_NE(o.err.find(words), std::string::npos) << o.err << words;
}

TEST_F(CliChat, WhyAloneIsAboutWhatARuleTookLast) {
  const std::string events = folder_.path() + "/events";
  const std::string options = chat() + "-n 2 --kv-block-size 4 ";
  const Outcome o = paddock(options + "--kv-policy window:16 --kv-events " + events,
                            "one\ntwo\nthree\n/drop 3\n/why\n");
  EXPECT_EQ(o.code, 0) << o.err;
  std::ifstream in(events);
  int64_t last = -1;
  for (std::string line; std::getline(in, line);) {
    const auto event = nlohmann::json::parse(line);
    if (event.value("reason", "") == "window") last = event["first_position"];
  }
  ASSERT_GE(last, 0);
  const std::string begins = "  positions " + std::to_string(last) + " to ";
  EXPECT_EQ(times(o.err, begins), 1) << o.err;
  EXPECT_EQ(times(o.err, "  positions "), 1) << "one block: " << o.err;
  EXPECT_NE(o.err.find("'window:16' sees no further back"), std::string::npos) << o.err;
  // Of a conversation that has lost nothing it says so, also after one that had.
  const Outcome none = paddock(options, "/why\none\n/why\n/why one\n");
  EXPECT_EQ(times(none.err, "nothing has left the conversation\n"), 2) << none.err;
  EXPECT_EQ(times(none.err, "    stayed in its layer\n"), 2) << none.err;
  // Nor is what the user took back anything that a rule took.
  const Outcome back = paddock(options, "one\ntwo\n/retry\n/drop 2\n/why\n");
  EXPECT_EQ(times(back.err, "nothing has left the conversation\n"), 1) << back.err;
  const Outcome anew =
      paddock(options + "--kv-policy window:16", "one\ntwo\n/policy full\n/why\n/why two\n");
  EXPECT_EQ(times(anew.err, "nothing has left the conversation\n"), 1) << anew.err;
  EXPECT_EQ(times(anew.err, "    stayed in its layer\n"), 2) << anew.err;
}

TEST_F(CliChat, WhyWithATextNeedsARecordWithTexts) {
  const std::string file = folder_.path() + "/trace";
  const std::string options = chat() + "-n 2 --kv-policy window:16 --kv-block-size 4 ";
  const Outcome o = paddock(options + "--kv-trace " + file, "one\ntwo\n/why one\n/why\n");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(times(o.err, "/why one: the record has no texts"), 1) << o.err;
  EXPECT_EQ(times(o.err, "'window:16' sees no further back"), 1) << o.err;
  // The file has what it was to have.
  const Outcome told = paddock("explain " + file + " --text one");
  EXPECT_NE(told.code, 0);
  EXPECT_EQ(paddock("explain " + file).code, 0);
}

// ---- turns that are pinned

TEST_F(CliChat, APinnedTurnStaysWhateverComesAndIsReadAgainUnderAnotherRule) {
  const std::string options =
      chat() + "-n 2 --kv-block-size 4 -c 600 --kv-policy random:64@every:8 ";
  const std::string more = "two\nthree\nfour\nfive\nsix\nseven\neight\nnine\n";
  const auto stays = [&](const std::string& before, const std::string& after) {
    const Outcome o = paddock(options, "first\n" + before + more + after + "/why first\n");
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(times(o.err, "error"), 0) << o.err;
    return times(o.err, "    left its layer ") == 0;
  };
  EXPECT_FALSE(stays("", ""));
  EXPECT_TRUE(stays("/pin 1\n", ""));
  EXPECT_FALSE(stays("/pin 1\n/unpin 1\n", ""));
  EXPECT_TRUE(stays("/pin 1\n", "/policy random:60@every:8\n" + more));
  EXPECT_TRUE(stays("/pin 1\n", "/drop 3\n" + more));
  EXPECT_FALSE(stays("", "/policy random:60@every:8\n" + more));
  EXPECT_FALSE(stays("/pin 1\n/unpin 1\n", "/policy random:60@every:8\n" + more));
  const Outcome o =
      paddock(options, "first\n/pin 1\ntwo\n/why first\n/unpin 1\nthree\n/why first\n");
  EXPECT_GE(times(o.err, " on: no rule may choose it\n"), 1) << o.err;
  EXPECT_EQ(times(o.err, " on: no rule may choose it\n"), times(o.err, " to step ")) << o.err;
}

TEST_F(CliChat, OneTurnIsPinnedFromItsMessageToTheEndOfItsAnswer) {
  const std::string options =
      chat() + "-n 9 --kv-block-size 4 -c 900 --kv-policy random:96@every:8 ";
  const Outcome o = paddock(options, "first\n/turns\nsecond\n/turns\n/pin 1\n/unpin 1\n/turns\n");
  EXPECT_EQ(times(o.err, "(pinned)"), 0) << o.err;
  const std::regex row("1 +([0-9]+) tokens  first\n");
  std::set<std::string> tokens;
  const auto end = std::sregex_iterator();
  for (auto at = std::sregex_iterator(o.err.begin(), o.err.end(), row); at != end; ++at) {
    tokens.insert((*at)[1]);
  }
  EXPECT_EQ(tokens.size(), 1U) << "as many while it is the newest: " << o.err;
  // The one behind it goes.
  const std::string more = "three\nfour\nfive\nsix\nseven\neight\n";
  const Outcome two =
      paddock(options, "first\nsecond\nthird\n/pin 1\n" + more + "/why first\n/why second\n");
  EXPECT_EQ(two.code, 0) << two.err;
  const size_t behind = two.err.rfind("second");
  ASSERT_NE(behind, std::string::npos);
  EXPECT_EQ(two.err.substr(0, behind).find("    left its layer "), std::string::npos) << two.err;
  EXPECT_NE(two.err.substr(behind).find("    left its layer "), std::string::npos) << two.err;
}

TEST_F(CliChat, ACacheThatIsFullOfWhatIsPinnedSaysSoAndGoesOnWhenItIsLetGoOf) {
  const std::string options =
      chat() + "-n 9 --kv-block-size 4 --kv-budget 576 --kv-policy lru@every:8 -b 16 ";
  const std::string pinned = "first\n/pin 1\nsecond\n/pin 2\nthird\n";
  const Outcome full = paddock(options, pinned + "/turns\n");
  EXPECT_EQ(times(full.err, "is full: what is protected keeps its budget from falling below "), 1)
      << full.err;
  EXPECT_NE(full.err.find("   3     23 tokens  third\n"), std::string::npos) << full.err;
  const Outcome goes_on = paddock(options, pinned + "/unpin 1\n/unpin 2\n/retry\n/turns\n");
  EXPECT_NE(goes_on.err.find("   3     32 tokens  third\n"), std::string::npos) << goes_on.err;
  const Outcome without = paddock(options, "first\nsecond\nthird\n");
  EXPECT_EQ(without.code, 0) << without.err;
}

TEST_F(CliChat, WhatCannotBePinnedIsSaid) {
  const std::string options = chat() + "-n 2 --kv-block-size 4 -c 400 -b 16 ";
  const Outcome o = paddock(options + "--kv-policy random:64@every:8",
                            "/pin 1\none\ntwo\n/pin\n/unpin 1\n/pin 2\n/turns\n"
                            "/policy window:16\n/policy\nthree\n");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(times(o.err, "there is no turn 1; "), 1) << o.err;
  EXPECT_EQ(times(o.err, "/pin : give the number of a turn"), 1) << o.err;
  EXPECT_EQ(times(o.err, "turn 1 is not pinned; "), 1) << o.err;
  EXPECT_EQ(times(o.err, " tokens  (pinned) two\n"), 1) << o.err;
  EXPECT_EQ(times(o.err, "(pinned)"), 1) << o.err;
  // Other rules that could not keep it are refused as well, and the old ones stay.
  EXPECT_EQ(times(o.err, "'window:16', which goes by position alone"), 1) << o.err;
  EXPECT_NE(o.err.find("\nrandom:64@every:8\n"), std::string::npos) << o.err;
  const Outcome sinks = paddock(options + "--kv-policy sink:4+60", "one\n/pin 1\n/turns\n");
  EXPECT_EQ(times(sinks.err, "use a rule that chooses, such as h2o:64"), 1) << sinks.err;
  EXPECT_EQ(times(sinks.err, "(pinned)"), 0) << sinks.err;
}

// ---- turns that are left out

/// Numbers of the turns that /turns lists.
std::vector<int> turns_listed(const std::string& err) {
  std::vector<int> numbers;
  const std::regex row("(^|\n) *([0-9]+) +[0-9]+ tokens  ");
  for (auto it = std::sregex_iterator(err.begin(), err.end(), row); it != std::sregex_iterator();
       ++it) {
    numbers.push_back(std::stoi((*it)[2]));
  }
  return numbers;
}

TEST_F(CliChat, KeepLeavesOutTheOldestButTheFirst) {
  const Outcome o = paddock(chat() + "-n 2 --keep turns:3 -c 128 --kv-block-size 4",
                            "one\ntwo\nthree\nfour\nfive\n/turns\n");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(turns_listed(o.err), (std::vector<int>{1, 4, 5})) << o.err;
  EXPECT_EQ(times(o.err, "left out turn 2: "), 1) << o.err;
  EXPECT_EQ(times(o.err, "left out turn 3: "), 1) << o.err;
}

TEST_F(CliChat, KeepLeavesPinnedTurnsBesideThoseThatItKeeps) {
  const std::string options = chat() + "-n 2 -c 600 --kv-block-size 4 --keep ";
  const auto left = [&](const std::string& rule, const std::string& lines) {
    const Outcome o = paddock(options + rule, lines + "/turns\n");
    EXPECT_EQ(o.code, 0) << o.err;
    return turns_listed(o.err);
  };
  const std::string more = "three\nfour\nfive\nsix\n";
  using Turns = std::vector<int>;
  EXPECT_EQ(left("turns:3", "one\ntwo\n/pin 2\n" + more), (Turns{1, 2, 5, 6}));
  EXPECT_EQ(left("turns:3", "one\n/pin 1\ntwo\n/pin 2\n" + more), (Turns{1, 2, 5, 6}));
  EXPECT_EQ(left("turns:3", "one\ntwo\n/pin 2\n/unpin 2\n" + more), (Turns{1, 5, 6}));
  const Turns relevant = left("drop-irrelevant:2", "one\n/pin 1\ntwo\n/pin 2\n" + more);
  ASSERT_EQ(relevant.size(), 4U);
  EXPECT_EQ((Turns{relevant[0], relevant[1], relevant[3]}), (Turns{1, 2, 6}));
  // Once there are three that are not pinned, the older two are condensed.
  EXPECT_EQ(left("summarise:2", "one\n/pin 1\ntwo\nthree\n"), (Turns{1, 2, 3}));
  EXPECT_EQ(left("summarise:2", "one\n/pin 1\ntwo\nthree\nfour\n"), (Turns{1, 4}));
  EXPECT_EQ(left("summarise:4", "one\ntwo\n/pin 2\nthree\n/pin 3\nfour\n/summarise\n"),
            (Turns{2, 3, 4}));
  const Outcome all =
      paddock(chat() + "-n 2 -c 600", "one\n/pin 1\ntwo\n/pin 2\nthree\n/summarise\n/turns\n");
  EXPECT_EQ(times(all.err, "all turns before the newest are pinned; /unpin lets go of one"), 1)
      << all.err;
  EXPECT_EQ(turns_listed(all.err), (Turns{1, 2, 3}));
}

TEST_F(CliChat, ASummaryIsProtectedWhereTheRuleCanBeKeptFromIt) {
  const std::string more = "three\nfour\nfive\nsix\nseven\neight\nnine\n";
  const auto why = [&](const std::string& rule, const std::string& summarise) {
    const Outcome o = paddock(chat() + "-n 2 -c 600 --kv-block-size 4 --kv-policy " + rule,
                              "one\ntwo\n" + summarise + more + more + "/why Summary of\n");
    EXPECT_EQ(o.code, 0) << o.err;
    return o.err;
  };
  const std::string kept = why("random:320@every:8", "/summarise\n");
  EXPECT_EQ(times(kept, "Summary of"), 1) << kept;
  EXPECT_EQ(times(kept, "    left its layer "), 0) << kept;
  EXPECT_EQ(times(kept, "rules may drop it"), 0) << kept;
  const std::string unpinned = why("random:320@every:8", "/summarise\n/pin 2\n/unpin 2\n");
  EXPECT_EQ(times(unpinned, "    left its layer "), 0) << unpinned;
  const std::string window = why("window:64", "/summarise\n");
  EXPECT_EQ(times(window, "rules may drop it like any text: layer 0 is under 'window:64'"), 1)
      << window;
  EXPECT_GE(times(window, "    left its layer "), 1) << window;
}

TEST_F(CliChat, DropLeavesOneOutAndTheConversationIsAsIfItHadNeverBeen) {
  const std::string options = chat() + "-n 2 --kv-block-size 4 ";
  const Outcome o = paddock(options, "one\ntwo\nthree\n/drop 2\n/stats\n/turns\nfour\n/stats\n");
  EXPECT_EQ(o.code, 0) << o.err;
  const Outcome without = paddock(options, "one\nthree\n/stats\nfour\n/stats\n");
  const auto lengths = [](const std::string& err) {
    std::vector<int> all;
    const std::regex row("(^|\n)([0-9]+) tokens of ");
    for (auto it = std::sregex_iterator(err.begin(), err.end(), row); it != std::sregex_iterator();
         ++it) {
      all.push_back(std::stoi((*it)[2]));
    }
    return all;
  };
  EXPECT_EQ(lengths(o.err).size(), 2U) << o.err;
  EXPECT_EQ(lengths(o.err), lengths(without.err)) << o.err << without.err;
  EXPECT_EQ(turns_listed(o.err), (std::vector<int>{1, 3})) << o.err;
  // The first turn goes as well, and the newest.
  const Outcome ends =
      paddock(options, "one\ntwo\nthree\n/drop 1\n/drop 3\n/turns\nfour\n/retry\n/turns\n");
  EXPECT_EQ(ends.code, 0) << ends.err;
  EXPECT_EQ(turns_listed(ends.err), (std::vector<int>{2, 2, 4})) << ends.err;
}

TEST_F(CliChat, WhatCannotBeLeftOutIsSaid) {
  const Outcome o =
      paddock(chat() + "-n 2",
              "/turns\n/summarise\none\n/drop\n/drop x\n/drop 7\n/drop 1\n/summarise\n/turns 3\n");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.err.find("there are no turns yet"), std::string::npos) << o.err;
  EXPECT_EQ(times(o.err, "give the number of a turn"), 2) << o.err;
  EXPECT_NE(o.err.find("there is no turn 7"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("turn 1 is the only one"), std::string::npos) << o.err;
  EXPECT_EQ(times(o.err, "nothing before the newest turn"), 2) << o.err;
  EXPECT_NE(o.err.find("/turns takes nothing after it"), std::string::npos) << o.err;
  for (const std::string keep :
       {"turns", "turns:", "turns:1", "turns:x", "turns:3x", "all", "summarise:0"}) {
    expect_refusal("chat" + model() + "--chat-template chatml --keep " + keep, 2, "--keep " + keep);
  }
}

TEST_F(CliChat, WhatWasSaidIsWrittenAsReplayReadsIt) {
  const std::string log = folder_.path() + "/log.jsonl";
  const Outcome o = paddock(chat() + "-n 2 --system Be --keep turns:2 --log " + log,
                            "one\n/clear\ntwo \"2\"\nthree\n/retry\nfour\n");
  ASSERT_EQ(o.code, 0) << o.err;
  std::ifstream file(log);
  std::vector<std::string> said;
  for (std::string line; std::getline(file, line);) said.push_back(line);
  const std::string answer = R"({"role":"assistant","content":"aa"})";
  EXPECT_EQ(said, (std::vector<std::string>{R"({"role":"system","content":"Be"})",
                                            R"({"role":"user","content":"two \"2\""})", answer,
                                            R"({"role":"user","content":"three"})", answer,
                                            R"({"role":"user","content":"four"})", answer}));
  const Outcome again = paddock(
      "replay" + model() + "--chat-template chatml -c 400 --chat " + log + " --sweep sink:4+28",
      "");
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.out.find("3 turns"), std::string::npos) << again.out;
}

TEST_F(CliChat, ASummaryTakesThePlaceOfTurns) {
  const std::string options = chat() + "-n 2 --kv-block-size 4 -c 400 ";
  const Outcome o = paddock(options, "one\ntwo\nthree\n/summarise\n/turns\nfour\n/turns\n");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.out, "aa\naa\naa\naa\n") << "the summary is no answer";
  EXPECT_EQ(turns_listed(o.err), (std::vector<int>{3, 3, 4})) << "nor a turn: " << o.err;
  EXPECT_NE(o.err.find("left out turns 1, 2: "), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("in their place: aaaa"), std::string::npos) << o.err;
}

TEST_F(CliChat, RelevanceNeedsARuleThatMeasuresAttention) {
  const std::string options = chat() + "-n 2 --keep drop-irrelevant:2 --kv-block-size 4 ";
  const std::string messages = "one\ntwo\nthree\n/policy\n/turns\n";
  const Outcome o = paddock(options, messages);
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.err.find("\nh2o\n"), std::string::npos) << o.err;
  EXPECT_EQ(turns_listed(o.err).size(), 2U) << o.err;
  EXPECT_EQ(turns_listed(o.err).back(), 3) << "the newest stays";
  EXPECT_NE(o.err.find(" %), by what the newest turn attended to"), std::string::npos) << o.err;
  const Outcome blind = paddock(options + "--kv-policy sink:4+60", messages);
  EXPECT_EQ(turns_listed(blind.err), (std::vector<int>{1, 2, 3})) << blind.err;
  const std::string policy = word_after(blind.err, "attention measured; --kv-policy ");
  EXPECT_EQ(turns_listed(paddock(options + "--kv-policy " + policy, messages).err).size(), 2U);
}

TEST(AttentionMeter, GivesEachTurnItsPart) {
  EngineOptions options = reference_options();
  options.kv.policy = "h2o";
  std::vector<std::vector<double>> by_block_size;
  for (const int32_t block_size : {1, 4}) {
    options.kv.block_size = block_size;
    Engine engine(Model::load(golden("gqa1-default")), options);
    const std::vector<TokenId> all = golden_tokens();
    const std::span tokens(all);
    const SessionId session = engine.open_session();
    engine.feed(session, tokens.first(20));
    std::map<std::pair<int32_t, int64_t>, double> before;
    for (int32_t layer = 0; layer < engine.model().info().n_layers; ++layer) {
      for (const KvBlock& b : engine.kv_blocks(layer)) before[{layer, b.first_position}] = b.mass;
    }
    cli::AttentionMeter meter;
    meter.begin(engine);
    engine.feed(session, tokens.subspan(20, 9));
    const auto shares = meter.shares(engine, {0, 7, 20});
    ASSERT_EQ(shares.size(), 3U);
    EXPECT_NEAR(shares[0] + shares[1] + shares[2], 1, 1e-12);
    // Positions' own gains, where blocks hold one; a block that two turns meet in gives by count.
    std::vector<double> gains(29, 0);
    for (int32_t layer = 0; layer < engine.model().info().n_layers; ++layer) {
      for (const KvBlock& b : engine.kv_blocks(layer)) {
        for (int32_t i = 0; i < b.n_tokens; ++i) {
          gains[b.first_position + i] += (b.mass - before[{layer, b.first_position}]) / b.n_tokens;
        }
      }
    }
    const double sum = std::accumulate(gains.begin(), gains.end(), 0.0);
    const double first = std::accumulate(gains.begin(), gains.begin() + 7, 0.0);
    const double last = std::accumulate(gains.begin() + 20, gains.end(), 0.0);
    EXPECT_NEAR(shares[0], first / sum, 1e-12);
    EXPECT_NEAR(shares[2], last / sum, 1e-12);
    EXPECT_TRUE(cli::AttentionMeter().shares(engine, {0}).size() == 1) << "from the beginning";
    engine.close_session(session);
    EXPECT_TRUE(meter.shares(engine, {0}).empty());
  }
}

TEST(CliChatReal, AfterATurnIsLeftOutTheAnswerIsThatOfTheRest) {
  PADDOCK_REAL_FILE(model, "PADDOCK_TEST_MODEL")
  const std::string with = " -m " + std::string(model) + " --temp 0 -n 12 ";
  for (const std::string keep : {"--keep turns:2", "--kv-policy h2o", ""}) {
    const std::string drop = keep.starts_with("--keep") ? "" : "/drop 2\n";
    const Outcome o =
        paddock("chat --json" + with + keep,
                "My name is Ann.\nName a fruit.\nName a bird.\n" + drop + "Who am I?\n");
    ASSERT_EQ(o.code, 0) << o.err;
    std::vector<nlohmann::json> turns;
    std::istringstream lines(o.out);
    for (std::string line; std::getline(lines, line);) turns.push_back(nlohmann::json::parse(line));
    ASSERT_EQ(turns.size(), 4U);
    // The same conversation as one prompt; answers end where the limit or their end is.
    const auto said = [&](const std::string& message, const nlohmann::json& answer) {
      return "<|im_start|>user\n" + message + "<|im_end|>\n<|im_start|>assistant\n" +
             answer["text"].get<std::string>() + "<|im_end|>\n";
    };
    const TemporaryFolder folder;
    const std::string prompt =
        folder.write("prompt",
                     "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by "
                     "Hugging Face<|im_end|>\n" +
                         said("My name is Ann.", turns[0]) + said("Name a bird.", turns[2]) +
                         "<|im_start|>user\nWho am I?<|im_end|>\n<|im_start|>assistant\n");
    const auto alone =
        nlohmann::json::parse(paddock("generate --json" + with + "-f " + prompt).out);
    EXPECT_EQ(turns[3]["text"], alone["text"]) << keep;
  }
}

TEST(CliChatReal, TheStoryOfAKettleGoesOn) {
  PADDOCK_REAL_FILE(model, "PADDOCK_TEST_MODEL")
  const std::string command =
      "chat -m " + std::string(model) + " --kv-budget 4MiB -n 200 --temp 0 -b 256";
  const std::string before = "Tell me a story about a kettle.\nGo on.\n";
  const Outcome o =
      paddock(command, before + "/policy sink:4+60\nGo on.\n/stats\n/clear\nHello.\n");
  EXPECT_EQ(times(o.err, "is not open"), 0) << o.err;
  EXPECT_NE(o.err.find(" tokens of at most "), std::string::npos) << o.err;
  EXPECT_EQ(times(o.out, "\n") >= 2, true);
  const std::string policy = word_after(o.err, "/policy ");
  ASSERT_NE(policy, "") << o.err;
  const Outcome on = paddock(command, before + "/policy " + policy + "\nGo on.\n");
  EXPECT_EQ(times(on.err, "is not open"), 0) << on.err;
  EXPECT_NE(on.err.find(policy + " let "), std::string::npos) << on.err;
}

}  // namespace
}  // namespace paddock::test
