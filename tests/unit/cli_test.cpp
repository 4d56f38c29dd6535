// The command line contract: exit codes, where output goes, what errors say.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "support/npy.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

struct Outcome {
  int code;
  std::string out, err;
};

Outcome paddock(const std::string& arguments) {
  const TemporaryFolder folder;
  const std::string out = folder.path() + "/out";
  const std::string err = folder.path() + "/err";
  const std::string command =
      std::string(PADDOCK_CLI) + " " + arguments + " >" + out + " 2>" + err + " </dev/null";
  const int status = std::system(command.c_str());
  const auto read = [](const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string{std::istreambuf_iterator<char>(file), {}};
  };
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read(out), read(err)};
}

std::string tiny() { return std::string(PADDOCK_TEST_DATA) + "/golden/gqa1-default"; }

void expect_refusal(const std::string& arguments, int code, const std::string& names) {
  const Outcome o = paddock(arguments);
  EXPECT_EQ(o.code, code) << arguments << "\n" << o.err;
  EXPECT_EQ(o.out, "") << arguments;
  EXPECT_NE(o.err.find(names), std::string::npos) << arguments << "\n" << o.err;
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
}

TEST(Cli, WrongUsageIsTwoAndOneLine) {
  expect_refusal("", 2, "subcommand");
  expect_refusal("dance", 2, "dance");
  expect_refusal("generate -p hi", 2, "--model");
  expect_refusal("generate -m x", 2, "prompt");
  expect_refusal("generate -m x -p a -f b", 2, "prompt");
  expect_refusal("generate -m x -p a --temp -1", 2, "--temp -1");
  expect_refusal("generate -m x -p a --temp nan", 2, "--temp nan");
  expect_refusal("generate -m x -p a --temp 0 -n -5", 2, "-n -5");
  expect_refusal("generate -m x -p a --temp 0 --kv-budget 12XB", 2, "12XB");
  expect_refusal("generate -m x -p a --temp 0 --kv-budget 99999999999GiB", 2, "99999999999GiB");
  expect_refusal("generate -m x -p a --temp 0 --kv-type q4", 2, "q4");
  expect_refusal("generate -m x -p a --temp 0 --precision exact", 2, "exact");
  expect_refusal("logits -m " + tiny() + " --tokens 1,x -o /tmp/x.npy", 2, "1,x");
  expect_refusal("logits -m " + tiny() + " --tokens 1 -o /tmp/x.npy --kv-policy window:0", 2,
                 "window:0");
  expect_refusal("logits -m " + tiny() + " --tokens 1 -o /tmp/x.npy --device tpu", 2, "tpu");
}

TEST(Cli, FailuresAreOneAndOneLine) {
  expect_refusal("generate -m /nonexistent -p a --temp 0", 1, "/nonexistent");
  expect_refusal("inspect /nonexistent", 1, "/nonexistent");
  expect_refusal("logits -m " + tiny() + " --tokens 1,128 -o /tmp/x.npy", 1, "128");
  expect_refusal("logits -m " + tiny() + " --tokens 1 -o /nonexistent/x.npy", 1, "/nonexistent");
  expect_refusal("logits -m " + tiny() + " --tokens 1 -o /tmp/x.npy --device cuda", 1, "cuda");
  expect_refusal("tokenize -m " + tiny() + " -p hi", 1, "tokenizer");
}

TEST(Cli, LogitsAreANumpyFile) {
  const TemporaryFolder folder;
  const std::string file = folder.path() + "/l.npy";
  const std::string tokens = std::string(PADDOCK_TEST_DATA) + "/golden/tokens.json";
  const Outcome o = paddock("logits -m " + tiny() + " --precision reference --tokens-file " +
                            tokens + " -o " + file);
  ASSERT_EQ(o.code, 0) << o.err;
  const Matrix ours = read_npy(file);
  const Matrix expected = read_npy(tiny() + "/logits.npy");
  ASSERT_EQ(ours.values.size(), expected.values.size());
  for (size_t i = 0; i < ours.values.size(); ++i) {
    ASSERT_NEAR(ours.values[i], expected.values[i], 2e-4);
  }
}

TEST(Cli, PerplexityComparesPoliciesInLockstep) {
  const std::string tokens = std::string(PADDOCK_TEST_DATA) + "/golden/tokens.json";
  const Outcome o = paddock("perplexity -m " + tiny() + " --tokens-file " + tokens +
                            " --against sink:2+8 --json");
  ASSERT_EQ(o.code, 0) << o.err;
  const auto json = nlohmann::json::parse(o.out);
  EXPECT_EQ(json["tokens"], 56);
  EXPECT_EQ(json["scored"], 55);
  EXPECT_NEAR(std::log(json["perplexity"].get<double>()), json["nll"].get<double>(), 1e-9);
  EXPECT_GT(json["against"]["kl_mean"].get<double>(), 0.0);
  EXPECT_GE(json["against"]["kl_max"].get<double>(), json["against"]["kl_mean"].get<double>());
  // A policy against itself loses nothing.
  const auto same = nlohmann::json::parse(
      paddock("perplexity -m " + tiny() + " --tokens-file " + tokens + " --against full --json")
          .out);
  EXPECT_NEAR(same["against"]["kl_max"].get<double>(), 0.0, 1e-12);
  EXPECT_EQ(same["against"]["top1_agreement"], 1.0);
}

TEST(Cli, BenchAndInspectPrintJson) {
  const Outcome bench = paddock("bench -m " + tiny() + " -p 16 -n 4 -d 0,8 -r 2 -o json");
  ASSERT_EQ(bench.code, 0) << bench.err;
  const auto rows = nlohmann::json::parse(bench.out);
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[0]["test"], "pp16");
  EXPECT_EQ(rows[3]["test"], "tg4@d8");
  EXPECT_GT(rows[0]["tokens_per_second"].get<double>(), 0.0);

  const Outcome inspect = paddock("inspect " + tiny() + " --json");
  ASSERT_EQ(inspect.code, 0) << inspect.err;
  const auto info = nlohmann::json::parse(inspect.out);
  EXPECT_EQ(info["model"]["layers"], 2);
  EXPECT_EQ(info["kv_bytes_per_token"]["f16"], 2 * 2 * 4 * 16 * 2);
  EXPECT_EQ(paddock("inspect " + tiny()).code, 0);
}

TEST(Cli, HelpAndVersionAreZero) {
  EXPECT_EQ(paddock("--help").code, 0);
  EXPECT_NE(paddock("--version").out.find("0.1.0"), std::string::npos);
  EXPECT_EQ(paddock("generate --help").code, 0);
}

}  // namespace
}  // namespace paddock::test
