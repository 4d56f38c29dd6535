// What the tool does with values, files and streams that are not as they should be.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "support/cli.h"
#include "support/small_model.h"
#include "support/temporary_folder.h"
#include "support/tiny_model.h"

namespace paddock::test {
namespace {

namespace fs = std::filesystem;

std::string long_ids() {
  std::string ids = "[1";
  for (int i = 0; i < 2000000; ++i) ids += ",1";
  return ids + "]";
}

class CliTrouble : public testing::Test {
 protected:
  CliTrouble() { write_small_model(folder_); }
  std::string model() const { return " -m " + folder_.path() + " "; }
  std::string generate() const { return "generate" + model() + "--temp 0 -n 4 "; }
  std::string chat() const { return "chat" + model() + "--chat-template chatml --temp 0 -n 4 "; }

  TemporaryFolder folder_;
};

TEST_F(CliTrouble, TheSmallModelSpeaks) {
  EXPECT_EQ(paddock(generate() + "-p hello").out, "aaaa\n");
  EXPECT_EQ(paddock(chat() + "-p hello --single-turn").out, "aaaa\n");
}

TEST_F(CliTrouble, AnEmptyArgumentThatIsNoValueIsRefused) {
  expect_refusal("logits '' -m x", 2, "argument 2 is empty, and no option takes it; leave it out");
  expect_refusal(generate() + "-p a --json ''", 2, "is empty, and no option takes it");
  expect_refusal("''", 2, "there is no command ''");
  // A value may be empty where the option allows it.
  expect_refusal("generate -m '' -p a", 2, "must not be empty");
}

// ChatML, but with a fixed turn first.
TEST_F(CliTrouble, AnUnknownChatTemplateIsRefusedWithTheOption) {
  folder_.write("chat_template.jinja",
                "{{ '<|im_start|>user\\nHi<|im_end|>\\n' }}{% for message in messages %}"
                "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
                "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
                "{% endif %}");
  const std::string command = "chat" + model() + "--temp 0 -n 4 -p hello --single-turn";
  expect_refusal(command, 1, "set --chat-template to the nearest of llama3, ");
  EXPECT_EQ(paddock(command + " --chat-template chatml").out, "aaaa\n");
}

TEST_F(CliTrouble, ValuesThatAreNoneAreNamedWithWhatIsRight) {
  const auto refuse = [&](const std::string& option, const std::string& value, const char* right) {
    expect_refusal(generate() + "-p a " + option + " " + value, 2, option + " " + value);
    expect_refusal(generate() + "-p a " + option + " " + value, 2, right);
  };
  refuse("--top-k", "abc", "whole number");
  refuse("--top-k", "99999999999", "whole number");
  refuse("--top-p", "x", "a number");
  refuse("--seed", "-1", "from 0 to");
  refuse("--seed", "5x", "from 0 to");
  refuse("--seed", "18446744073709551616", "from 0 to");
  refuse("--frequency-penalty", "nan", "a number");
  refuse("--presence-penalty", "inf", "a number");
  refuse("--logit-bias", "5=nan", "ID=BIAS");
  refuse("--logit-bias", "-5=1", "ID=BIAS");
  refuse("--timeout", "inf", "1e9");
  refuse("--logprobs", "1", "--json");
  expect_refusal("generate" + model() + "-p a --temp 1e39", 2, "--temp 1e+39");
  expect_refusal("chat" + model() + "-n -5", 2, "-n -5");
  EXPECT_EQ(paddock(generate() + "-p a --seed 18446744073709551615").code, 0);
  EXPECT_EQ(paddock(generate() + "-p a --timeout 1e9").out, "aaaa\n");
}

// What the sampler gets is a float.
TEST_F(CliTrouble, NumbersAreJudgedAsTheSamplerGetsThem) {
  const std::string command = "generate" + model() + "-n 4 -p a --seed 1 ";
  const auto refuse = [&](const std::string& option, const std::string& value, const char* right) {
    expect_refusal(command + option + " " + value, 2, option + " " + value + ": must be " + right);
  };
  for (const char* value : {"1e+39", "nan", "-1"}) refuse("--temp", value, "from 0 to 3.4028e38");
  for (const char* value : {"1e-50", "0", "1.5"}) refuse("--top-p", value, "from 1.4e-45 to 1");
  for (const char* value : {"-0.1", "1e+39"}) refuse("--min-p", value, "from 0 to 1");
  for (const char* value : {"1e+39", "1e-50", "0", "-1"}) {
    refuse("--repeat-penalty", value, "from 1.4e-45 to 3.4028e38");
  }
  for (const char* option : {"--frequency-penalty", "--presence-penalty"}) {
    refuse(option, "1e+39", "a number from -3.4028e38 to 3.4028e38");
    refuse(option, "-1e+39", "a number from -3.4028e38 to 3.4028e38");
  }
  for (const char* value : {"5=1e39", "5=-1e39", "5=inf", "5=1e999"}) {
    refuse("--logit-bias", value, "ID=BIAS with BIAS from -3.4028e38 to 3.4028e38, or -inf");
  }
  for (const char* value : {"5", "=1", "5=", "5=1x", "5x=1", "99999999999=1"}) {
    refuse("--logit-bias", value, "ID=BIAS, such as");
  }
  for (const char* fine :
       {"--top-p 1e-44", "--min-p 1e-50", "--repeat-penalty 1e-44", "--repeat-penalty 3.4e38",
        "--frequency-penalty 1e-50", "--logit-bias 5=1e-50", "--logit-bias 5=-inf",
        "--logit-bias 5=-3.4e38"}) {
    EXPECT_EQ(paddock(command + fine).code, 0) << fine;
  }
  // So cold that it is greedy: there is no seed to report.
  const Outcome cold = paddock("generate" + model() + "-n 4 -p a --temp 1e-50");
  EXPECT_EQ(cold.out, "aaaa\n");
  EXPECT_EQ(cold.err, "");
}

TEST_F(CliTrouble, WrongUsageNamesTheCommandsOwnHelp) {
  expect_refusal("chat", 2, "--model is required (see paddock chat --help)\n");
  expect_refusal("chat" + model() + "--nonsense", 2, "(see paddock chat --help)\n");
  expect_refusal("tokenize" + model(), 2, "(see paddock tokenize --help)\n");
  expect_refusal("generate" + model() + "-p", 2, "(see paddock generate --help)\n");
  expect_refusal("", 2, "(see paddock --help)\n");
  expect_refusal("--nonsense", 2, "(see paddock --help)\n");
}

TEST_F(CliTrouble, EmptyValuesAreRefused) {
  for (const char* option : {"--kv-events", "--kv-budget", "--kv-type", "--isa", "--stop"}) {
    expect_refusal(generate() + "-p a " + option + " ''", 2,
                   std::string(option) + ": must not be empty");
  }
  expect_refusal(generate() + "-f ''", 2, "--file: must not be empty");
  expect_refusal("logits" + model() + "--tokens '' -o x", 2, "--tokens: must not be empty");
  expect_refusal("logits" + model() + "--tokens 1 -o ''", 2, "--output: must not be empty");
  for (const char* option : {"--against", "--sweep", "--sweep full --svg", "--per-position"}) {
    expect_refusal("perplexity" + model() + "-f x " + option + " ''", 2, ": must not be empty");
  }
}

TEST_F(CliTrouble, KeysAndValuesThatDoNotFitTheirTypeAreNamed) {
  const TemporaryFolder folder;
  TinyShape shape;
  shape.value_scale = 1e6;
  tiny_model(folder, shape, 3);
  const std::string model = " -m " + folder.path() + " ";
  const std::string ids = folder.write("ids.json", "[3,5,9,4]");
  const std::string npy = folder.path() + "/out.npy";
  const std::string logits = "logits" + model + "--tokens 3,5,9,4 -o " + npy;
  const std::string perplexity = "perplexity" + model + "--tokens-file " + ids;
  expect_refusal(logits, 1, "--kv-type bf16");
  EXPECT_FALSE(fs::exists(npy));
  expect_refusal(perplexity, 1, "--kv-type bf16");
  EXPECT_EQ(paddock(logits + " --kv-type bf16").code, 0);
  EXPECT_EQ(paddock(perplexity + " --kv-type bf16").code, 0);
}

TEST_F(CliTrouble, AnErrorIsOneLineWithARandomSeedToo) {
  expect_refusal("generate" + model() + "-f /nonexistent", 1, "/nonexistent");
  expect_refusal(generate() + "-p a --kv-policy 'lru\na'", 2, "'lru\\x0aa'");
  const Outcome o = paddock("generate" + model() + "-n 1 -p a");
  EXPECT_EQ(o.code, 0);
  EXPECT_EQ(o.err.rfind("seed: ", 0), 0U) << o.err;
}

TEST_F(CliTrouble, ErrorsHoldNothingThatATerminalObeys) {
  // Controls, C1's among them, and what is no UTF-8: a byte alone, an overlong form, a surrogate,
  // beyond Unicode, cut off.
  const std::vector<std::pair<std::string, std::string>> odd = {
      {"\xFF", "\\xff"},
      {"\x1B[2J", "\\x1b[2J"},
      {"\x7F", "\\x7f"},
      {"\xC2\x9B", "\\xc2\\x9b"},
      {"\xA0", "\\xa0"},
      {"\xBF\xBF", "\\xbf\\xbf"},
      {"\xC0\xAF", "\\xc0\\xaf"},
      {"\xE0\x9F\xBF", "\\xe0\\x9f\\xbf"},
      {"\xED\xA0\x80", "\\xed\\xa0\\x80"},
      {"\xF4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},
      {"\xF9\x80\x80\x80", "\\xf9\\x80\\x80\\x80"},
      {"\xE2\x82", "\\xe2\\x82"},
      {"\xC2\xA0 \xC3\xA9 \xE2\x82\xAC \xEE\x80\x80 \xF0\x9F\x90\x8E \xF4\x8F\xBF\xBF",
       "\xC2\xA0 \xC3\xA9 \xE2\x82\xAC \xEE\x80\x80 \xF0\x9F\x90\x8E \xF4\x8F\xBF\xBF"}};
  for (const auto& [typed, shown] : odd) {
    const Outcome o = paddock(chat(), "/policy lru" + typed + "z\n");
    EXPECT_NE(o.err.find("'lru" + shown + "z'"), std::string::npos) << o.err;
    expect_refusal(generate() + "-p a --kv-policy 'lru" + typed + "z'", 2, "'lru" + shown + "z'");
    expect_refusal(generate() + "-p a '--no" + typed + "z'", 2, "--no" + shown + "z");
  }
}

TEST_F(CliTrouble, AWrongOptionCostsNoFile) {
  const std::string events = folder_.write("events", "of an earlier run\n");
  const auto held = [&] {
    std::ifstream file(events);
    return std::string{std::istreambuf_iterator<char>(file), {}};
  };
  expect_refusal(generate() + "-p a --kv-policy no --kv-events " + events, 2, "'no'");
  EXPECT_EQ(held(), "of an earlier run\n");
  EXPECT_EQ(paddock(generate() + "-p a --kv-events " + events).code, 0);
  EXPECT_EQ(held(), "");
}

TEST_F(CliTrouble, FilesAreNamed) {
  expect_refusal(generate() + "-f " + folder_.path(), 1, "cannot read '" + folder_.path() + "'");
  const std::string invalid = folder_.write("invalid", "\xFF\xFE");
  for (const char* command : {"generate", "tokenize", "perplexity"}) {
    expect_refusal(command + model() + "-f " + invalid, 1,
                   "'" + invalid + "': text is not valid UTF-8");
  }
  const std::string half = folder_.write("half.gguf", "GGUF\x03");
  expect_refusal("tokenize -m " + half + " -p a", 1, "error: '" + half + "': GGUF");
  expect_refusal("inspect " + half, 1, "truncated");
  const std::string pipe = folder_.path() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  expect_refusal("inspect " + pipe, 1, "not a regular file");
}

TEST_F(CliTrouble, ABudgetBeyondTheMachineIsRefusedAtOnce) {
  expect_refusal(generate() + "-p a --kv-budget 999999TiB", 1, "lower --kv-budget to ");
  expect_refusal(generate() + "-p a --kv-budget 10", 1, "the KV budget of 10 bytes holds 0 pages");
}

TEST_F(CliTrouble, OutputGoesIntoWhatIsNoFile) {
  // A link stands for /dev/null: it must be written into, never replaced.
  const fs::path target = folder_.path() + "/target";
  const fs::path link = folder_.path() + "/link";
  fs::create_symlink(target, link);
  ASSERT_EQ(paddock("logits" + model() + "--tokens 1 -o " + link.string()).code, 0);
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_GT(fs::file_size(target), 128U);
  EXPECT_FALSE(fs::exists(link.string() + ".partial"));
  const std::string pipe = folder_.path() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const Outcome o = run("sh", "-c 'cat " + pipe + " | wc -c & " + PADDOCK_CLI + " logits" +
                                  model() + "--tokens 1 -o " + pipe + "; wait'");
  EXPECT_EQ(std::stoull(o.out), fs::file_size(target)) << o.err;
  EXPECT_TRUE(fs::is_fifo(pipe));
  expect_refusal("logits" + model() + "--tokens 1 -o " + folder_.path(), 1, "cannot write");
}

TEST_F(CliTrouble, JsonReplacesWhatIsNoUtf8) {
  const std::string shown = "\xEF\xBF\xBD";  // U+FFFD
  const std::string file = folder_.path() + "/\xFF.npy";
  const Outcome logits = paddock("logits" + model() + "--tokens 97,98 --json -o " + file);
  EXPECT_EQ(logits.code, 0) << logits.err;
  EXPECT_EQ(nlohmann::json::parse(logits.out)["file"], folder_.path() + "/" + shown + ".npy");
  EXPECT_TRUE(fs::exists(file));
  const TemporaryFolder other;
  fs::copy(folder_.path(), other.path() + "/\xFF");
  const Outcome bench = paddock("bench -m " + other.path() + "/\xFF -p 4 -n 2 -r 1 --json");
  EXPECT_EQ(bench.code, 0) << bench.err;
  EXPECT_EQ(nlohmann::json::parse(bench.out)[0]["model"], other.path() + "/" + shown);
}

TEST_F(CliTrouble, FullStreams) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full";
  for (const std::string& command : {generate() + "-p a", "tokenize" + model() + "-p a",
                                     "inspect " + folder_.path(), std::string("--help")}) {
    const Outcome o = paddock(command + " >/dev/full");
    EXPECT_EQ(o.code, 1) << command;
    EXPECT_NE(o.err.find("cannot write to stdout"), std::string::npos) << o.err;
  }
  // What only accompanies the text may be lost.
  EXPECT_EQ(paddock(generate() + "-p a --kv-stats 2>/dev/full").out, "aaaa\n");
  EXPECT_EQ(paddock(generate() + "-p a --kv-stats 2>&-").out, "aaaa\n");
}

TEST_F(CliTrouble, InterruptsAreOneHundredAndThirty) {
  const std::string timeout = "timeout --preserve-status -s INT 1 " + std::string(PADDOCK_CLI);
  for (const std::string& command :
       {"bench" + model() + "-p 64 -n 0 -r 100000000",
        "logits" + model() + "--tokens-file " + folder_.write("ids", long_ids()) +
            " --kv-policy window:4 -o " + folder_.path() + "/l.npy"}) {
    const Outcome o = run(timeout, command);
    EXPECT_EQ(o.code, 130) << command << o.err;
    EXPECT_EQ(o.out + o.err, "") << command;
  }
  EXPECT_FALSE(fs::exists(folder_.path() + "/l.npy"));
  // What was generated by then is an answer all the same.
  const Outcome answer = run(
      timeout, "generate" + model() + "-p a --temp 0 -n 100000000 --kv-policy window:4 >/dev/null");
  EXPECT_EQ(answer.code, 130) << answer.err;
}

TEST_F(CliTrouble, EventsAreWholeLinesWhateverEndsTheTool) {
  const std::string events = folder_.path() + "/events";
  const std::string command =
      "generate" + model() + "-p a --temp 0 --ignore-eos " + "--kv-policy window:1 --kv-events ";
  std::string text;
  for (int seconds = 1; text.empty() && seconds < 60; seconds *= 3) {  // until it comes so far
    const Outcome killed =
        run("timeout -s KILL " + std::to_string(seconds) + " " + std::string(PADDOCK_CLI),
            command + events + " -n 100000000 >/dev/null");
    EXPECT_NE(killed.code, 0);
    std::ifstream file(events);
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  ASSERT_FALSE(text.empty());
  EXPECT_EQ(text.back(), '\n');
  std::istringstream lines(text);
  int64_t number = 0;
  for (std::string line; std::getline(lines, line); ++number) {
    ASSERT_EQ(nlohmann::json::parse(line)["number"], number);
  }
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full";
  const Outcome full = paddock(command + "/dev/full -n 40");
  EXPECT_EQ(full.code, 1);
  EXPECT_NE(full.err.find("--kv-events /dev/full: not everything could be written: No space left"),
            std::string::npos)
      << full.err;
}

TEST_F(CliTrouble, AFullContextIsSaid) {
  const Outcome o = paddock("generate" + model() + "--temp 0 -n 100 -p a -c 3");
  EXPECT_EQ(o.code, 0);
  EXPECT_EQ(o.out, "a\n");  // after the start and the prompt
  EXPECT_NE(o.err.find("the context is full"), std::string::npos) << o.err;
}

TEST_F(CliTrouble, AConversationOutlivesAMessageItCannotTake) {
  const std::string too_long(200, 'x');
  const Outcome o = paddock(chat() + "-c 64", "one\n" + too_long + "\n\xFF\n/clear\ntwo\n");
  EXPECT_EQ(o.code, 1);
  EXPECT_EQ(o.out, "aaaa\naaaa\n");
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 2) << o.err;
  EXPECT_NE(o.err.find("64 positions"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("not valid UTF-8"), std::string::npos) << o.err;
}

TEST_F(CliTrouble, APolicyThatCannotHoldTheConversationChangesNothing) {
  // The window admits a conversation that the pool's 48 positions could not hold whole.
  const Outcome o = paddock(chat() + "-b 8 --kv-policy window:8 --kv-budget 384",
                            "one\ntwo\nthree\n/stats\n/policy full\n/policy\n/stats\n/retry\n");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.out, "aaaa\naaaa\naaaa\naaaa\n");
  const size_t end = o.err.find(" tokens of any number");
  const size_t begin = o.err.rfind('\n', end) + 1;
  const std::string first = o.err.substr(begin, end - begin);
  EXPECT_GT(std::stoi(first), 48) << o.err;
  EXPECT_NE(o.err.find("\nwindow:8\n" + first + " tokens"), std::string::npos) << o.err;
}

TEST_F(CliTrouble, LinesMayEndAsOnWindows) {
  const Outcome o = paddock(chat(), "one\r\n/quit\r\ntwo\r\n");
  EXPECT_EQ(o.out, "aaaa\n");
  EXPECT_EQ(o.err, "");
}

}  // namespace
}  // namespace paddock::test
