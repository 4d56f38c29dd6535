// The command line contract: exit codes, where output goes, what errors say.
#include "support/cli.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/golden.h"
#include "support/npy.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

std::string tiny() { return std::string(PADDOCK_TEST_DATA) + "/golden/gqa1-default"; }

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
  expect_refusal("generate -m x -p a --temp 0 --kv-budget 101%", 2, "101%");
  expect_refusal("generate -m x -p a --temp 0 --kv-budget x%", 2, "x%");
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

std::string golden_ids() { return std::string(PADDOCK_TEST_DATA) + "/golden/tokens.json"; }
std::string score_tiny() { return "perplexity -m " + tiny() + " --tokens-file " + golden_ids(); }

TEST(Cli, PromptTokensReachTheRulesThatCare) {
  const auto kl = [](const std::string& options) {
    const Outcome o =
        paddock(score_tiny() + " --kv-block-size 4 --against snapkv:32 --json " + options);
    EXPECT_EQ(o.code, 0) << o.err;
    return nlohmann::json::parse(o.out)["against"]["kl_mean"].get<double>();
  };
  EXPECT_EQ(kl(""), 0.0);  // nobody said where the prompt ends
  EXPECT_GT(kl("--prompt-tokens 40"), 0.0);
  expect_refusal(score_tiny() + " --prompt-tokens -1", 2, "--prompt-tokens -1");
  expect_refusal(score_tiny() + " --prompt-tokens 57", 1, "prompt_tokens is 57");
}

TEST(Cli, AgainstKeepsItsNames) {
  const Outcome o = paddock(score_tiny() + " --against sink:2+8 --json");
  const auto json = nlohmann::ordered_json::parse(o.out);
  std::vector<std::string> names;
  for (const auto& [name, value] : json["against"].items()) {
    names.push_back(name);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"policy", "perplexity", "nll", "kl_mean", "kl_max",
                                             "top1_agreement"}));
}

TEST(Cli, SweepPrintsATableAnArrayADrawingAndEveryPosition) {
  const TemporaryFolder folder;
  const std::string svg = folder.path() + "/plot.svg";
  const std::string csv = folder.path() + "/positions.csv";
  const std::string sweep = score_tiny() + " --sweep sink:2+8 --sweep 0=full,1=window:8 --svg " +
                            svg + " --per-position " + csv;
  const Outcome table = paddock(sweep);
  ASSERT_EQ(table.code, 0) << table.err;
  EXPECT_EQ(table.err, "");
  EXPECT_EQ(std::count(table.out.begin(), table.out.end(), '\n'), 2 + 3);
  for (const char* name : {"| rule", "| full", "| sink:2+8", "| 0=full,1=window:8"}) {
    EXPECT_NE(table.out.find(name), std::string::npos) << table.out;
  }
  const auto json = nlohmann::json::parse(paddock(sweep + " --json").out);
  ASSERT_EQ(json["sweep"].size(), 2U);
  EXPECT_EQ(json["sweep"][1]["policy"], "0=full,1=window:8");
  EXPECT_EQ(json["sweep"][1]["layers"].size(), 2U);
  EXPECT_EQ(json["kept_max"], 56);
  // The same figures as one by one, and as the sum of the positions.
  const auto one = nlohmann::json::parse(paddock(score_tiny() + " --json --against sink:2+8").out);
  for (const char* name : {"nll", "perplexity", "kl_mean", "kl_max", "top1_agreement"}) {
    EXPECT_EQ(json["sweep"][0][name], one["against"][name]) << name;
  }
  std::ifstream positions(csv);
  std::string line;
  std::getline(positions, line);
  EXPECT_EQ(line.substr(0, line.find(',', 20)), "position,token,\"nll full\"");
  double nll = 0;
  int rows = 0;
  for (; std::getline(positions, line); ++rows) {
    EXPECT_EQ(std::stoi(line), rows + 1);
    EXPECT_EQ(std::count(line.begin(), line.end(), ','), 2 + 2 * 3);
    nll += std::stod(line.substr(line.find(',', line.find(',') + 1) + 1));
  }
  EXPECT_EQ(rows, 55);
  EXPECT_NEAR(nll / rows, json["nll"].get<double>(), 1e-7);
  std::ifstream drawing(svg);
  const std::string picture{std::istreambuf_iterator<char>(drawing), {}};
  EXPECT_EQ(picture.rfind("<svg", 0), 0U);
  EXPECT_NE(picture.find(">sink<"), std::string::npos);
  EXPECT_NE(picture.find(">0=full,1=window<"), std::string::npos);
  EXPECT_EQ(picture.find("nan"), std::string::npos);
}

TEST(Cli, ASweepThatLosesNothingCanBeDrawn) {
  const TemporaryFolder folder;
  const Outcome o = paddock(score_tiny() + " --sweep full --svg " + folder.path() + "/p.svg");
  ASSERT_EQ(o.code, 0) << o.err;
  std::ifstream drawing(folder.path() + "/p.svg");
  const std::string picture{std::istreambuf_iterator<char>(drawing), {}};
  EXPECT_EQ(picture.find("nan"), std::string::npos);
  EXPECT_EQ(picture.find("inf"), std::string::npos);
  EXPECT_NE(picture.find(">nothing differs from the baseline<"), std::string::npos);
  EXPECT_NE(picture.find("</svg>"), std::string::npos);
}

TEST(Cli, LengthsAreMeasuredUnderEachFactor) {
  const std::string by_length = score_tiny() + " --lengths 16,40 --rope-scaling linear";
  const Outcome o = paddock(by_length + " --rope-factor 1,4 --json");
  ASSERT_EQ(o.code, 0) << o.err;
  const auto json = nlohmann::json::parse(o.out);
  ASSERT_EQ(json["lengths"].size(), 2U);
  for (const auto& line : json["lengths"]) {
    const auto n = line["length"].get<int>();
    for (const auto& cell : line["factors"]) {
      // By another way: the text's beginning alone, token by token.
      const TemporaryFolder folder;
      const std::string csv = folder.path() + "/positions.csv";
      const std::string factor = std::to_string(cell["factor"].get<int>());
      const auto alone = nlohmann::json::parse(
          paddock(score_tiny() + " --rope-scaling linear --rope-factor " + factor + " --first " +
                  std::to_string(n) + " --json --per-position " + csv)
              .out);
      EXPECT_NEAR(cell["perplexity"].get<double>(), alone["perplexity"].get<double>(), 1e-9);
      std::ifstream rows(csv);
      std::string row;
      std::getline(rows, row);
      double sum = 0;
      for (int position = 1; std::getline(rows, row); ++position) {
        if (position >= n / 2) sum += std::stod(row.substr(row.rfind(',') + 1));
      }
      EXPECT_NEAR(cell["end_perplexity"].get<double>(), std::exp(sum / (n - n / 2)), 1e-6);
      EXPECT_EQ(cell["context"], cell["factor"] == 1 ? 128 : 512);
    }
    // Blocks of 16 positions of 2 layers: keys and values, as large under each factor.
    const auto inspected = nlohmann::json::parse(paddock("inspect " + tiny() + " --json").out);
    EXPECT_EQ(line["kv_bytes"].get<int>(),
              (n + 15) / 16 * 16 * inspected["kv_bytes_per_token"]["f16"].get<int>());
  }
  const Outcome table = paddock(by_length + " --rope-factor 1,4");
  EXPECT_NE(table.out.find("factor 4"), std::string::npos) << table.out;
  EXPECT_EQ(std::count(table.out.begin(), table.out.end(), '\n'), 6) << table.out;
  const auto file = nlohmann::json::parse(paddock(score_tiny() + " --lengths 16 --json").out);
  EXPECT_TRUE(file["lengths"][0]["factors"][0]["factor"].is_null());
  EXPECT_EQ(file["lengths"][0]["factors"][0]["perplexity"],
            json["lengths"][0]["factors"][0]["perplexity"]);
  expect_refusal(score_tiny() + " --lengths 16,8", 2, "--lengths 16,8: '8'");
  expect_refusal(score_tiny() + " --lengths 1k", 2, "--lengths 1k: the text has only 56 tokens");
  expect_refusal(by_length + " --rope-factor 1,x", 2, "--rope-factor x");
  expect_refusal(by_length + " --rope-factor 0.5", 2, "--rope-factor 0.5");
  expect_refusal(score_tiny() + " --rope-factor 1,4 --rope-scaling linear", 2, "--rope-factor 1,4");
  expect_refusal(score_tiny() + " --rope-factor 2", 2, "--rope-scaling: linear, llama3 or yarn");
  expect_refusal(score_tiny() + " --rope-scaling ntk", 2, "--rope-scaling ntk");
}

TEST(Cli, PerplexityRefusesWhatCannotBe) {
  const TemporaryFolder folder;
  expect_refusal(score_tiny() + " --sweep window:0", 2, "contender 'window:0'");
  expect_refusal(score_tiny() + " --sweep 0=full", 2, "0=full");
  expect_refusal(score_tiny() + " --sweep", 2, "--sweep");
  expect_refusal(score_tiny() + " --sweep full --against full", 2, "--against");
  expect_refusal(score_tiny() + " --svg x.svg", 2, "--sweep");
  expect_refusal(score_tiny() + " --against full --svg x.svg", 2, "--sweep");
  expect_refusal(score_tiny() + " --sweep full --svg x.svg --per-position x.svg", 2, "--svg x.svg");
  expect_refusal(score_tiny() + " --facts 0", 2, "--facts 0");
  expect_refusal(score_tiny() + " --facts 27", 2, "--facts 27");
  expect_refusal(score_tiny() + " --facts many", 2, "--facts");
  expect_refusal(score_tiny() + " --first 1", 2, "--first 1");
  expect_refusal(score_tiny() + " --first 57", 1, "--first 57");
  expect_refusal(score_tiny() + " --facts 3", 1, "tokenizer");
  expect_refusal(score_tiny() + " --ctx-size 20", 1, "20");
  expect_refusal(score_tiny() + " --per-position /nonexistent/p.csv", 1, "/nonexistent/p.csv");
  expect_refusal(score_tiny() + " --sweep full --svg /nonexistent/p.svg", 1, "/nonexistent/p.svg");
  const auto ids = [&](const std::string& json) {
    return "perplexity -m " + tiny() + " --tokens-file " + folder.write("ids.json", json);
  };
  expect_refusal(ids("[]"), 1, "0 tokens");
  expect_refusal(ids("[7]"), 1, "1 tokens");
  expect_refusal(ids("[7,128]"), 1, "128");
  expect_refusal(ids("[7,-1]"), 1, "-1");
  expect_refusal(ids("{\"a\":1}"), 1, "array");
  EXPECT_EQ(paddock(score_tiny() + " --first 20 --json").out.find("\"tokens\":20"), 1U);
  // What fails leaves no file behind.
  const std::string csv = folder.path() + "/left.csv";
  expect_refusal(ids("[7,128]") + " --per-position " + csv, 1, "128");
  EXPECT_FALSE(std::filesystem::exists(csv));
  EXPECT_FALSE(std::filesystem::exists(csv + ".partial"));
}

TEST(Cli, BenchAndInspectPrintJson) {
  const Outcome bench = paddock("bench -m " + tiny() + " -p 16 -n 4 -d 0,8 -r 2 -o json");
  ASSERT_EQ(bench.code, 0) << bench.err;
  const auto rows = nlohmann::json::parse(bench.out);
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[0]["test"], "pp16");
  EXPECT_EQ(rows[3]["test"], "tg4@d8");
  EXPECT_GT(rows[0]["tokens_per_second"].get<double>(), 0.0);

  const Outcome many =
      paddock("bench -m " + tiny() +
              " --parallel 1,3 -p 9 -n 40 -r 2 --beside 30 --kv-block-size 4 -o json");
  ASSERT_EQ(many.code, 0) << many.err;
  const auto runs = nlohmann::json::parse(many.out);
  ASSERT_EQ(runs.size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    const int n = i == 0 ? 1 : 3;
    EXPECT_EQ(runs[i]["parallel"], n);
    EXPECT_EQ(runs[i]["prompt"], 9);
    EXPECT_EQ(runs[i]["gen"], 40);
    EXPECT_EQ(runs[i]["beside"], 30);
    // 9 tokens and 39 of the answer are twelve blocks in each of two layers; 30 are eight.
    EXPECT_LE(runs[i]["kv_pages_peak"].get<int>(), 2 * (12 * n + 8));
    EXPECT_GE(runs[i]["kv_pages_peak"].get<int>(), 2 * 12 * n);
    for (const char* rate : {"prefill_tokens_per_second", "decode_tokens_per_second", "gap_p50_ms",
                             "gap_p99_ms", "beside_tokens_per_second"}) {
      EXPECT_GT(runs[i][rate].get<double>(), 0.0) << rate;
    }
    EXPECT_LE(runs[i]["gap_p50_ms"].get<double>(), runs[i]["gap_p99_ms"].get<double>());
    EXPECT_EQ(runs[i]["preemptions"], 0);
  }
  const Outcome tight = paddock("bench -m " + tiny() +
                                " --parallel 3 -p 9 -n 40 -r 1 --kv-block-size 4 --kv-budget 40KiB "
                                "--kv-type f16 -c 64 -o json");
  ASSERT_EQ(tight.code, 0) << tight.err;
  EXPECT_GT(nlohmann::json::parse(tight.out)[0]["preemptions"].get<int>(), 0);
  EXPECT_NE(tight.err.find("of 3 sequences some gave their memory up"), std::string::npos)
      << tight.err;
  for (const char* wrong : {" --parallel 0", " --parallel 2 -p 3,4", " --beside 5",
                            " --parallel 2 -n 0", " --parallel 2 -d 3"}) {
    EXPECT_EQ(paddock("bench -m " + tiny() + wrong).code, 2) << wrong;
  }

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

TEST(Cli, EventsAreWrittenLineByLine) {
  PADDOCK_REAL_FILE(model, "PADDOCK_TEST_MODEL")
  const TemporaryFolder folder;
  // What a reader of the pipe gets at once are whole lines, long before the file is closed.
  const std::string pipe = folder.path() + "/pipe";
  const Outcome o =
      run("sh", "-c \"mkfifo " + pipe + "; dd bs=1M count=1 if=" + pipe + " status=none & " +
                    std::string(PADDOCK_CLI) +
                    " generate -p hi --temp 0 -n 40 --ignore-eos -c 64 -m " + std::string(model) +
                    " --json --kv-policy window:1 --kv-events " + pipe + " >/dev/null\"");
  ASSERT_FALSE(o.out.empty()) << o.err;
  EXPECT_EQ(o.out.back(), '\n');
  std::istringstream lines(o.out);
  int64_t number = 0;
  for (std::string line; std::getline(lines, line); ++number) {
    EXPECT_EQ(nlohmann::json::parse(line)["number"], number);
  }
  EXPECT_EQ(o.code, 1);
  EXPECT_NE(o.err.find("not everything could be written: Broken pipe"), std::string::npos) << o.err;
}

TEST(CustomPolicyExample, ChecksItselfAndMeasuresAsTheToolDoes) {
  const std::string input =
      " -m " + tiny() + " --tokens-file " + std::string(PADDOCK_TEST_DATA) + "/golden/tokens.json ";
  const Outcome o = run(PADDOCK_CUSTOM_POLICY,
                        input + "--budget 16 --block-size 4 full window:20 '0=full,*=steady:12'");
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.out.find("policy 'steady:16': clean"), std::string::npos) << o.out;
  std::map<std::string, std::pair<double, double>> rows;
  std::istringstream lines(o.out.substr(o.out.find("perplexity") + 10));
  std::string rule;
  for (double kept = 0, perplexity = 0; lines >> rule >> kept >> perplexity;) {
    rows[rule] = {kept, perplexity};
  }
  ASSERT_EQ(rows.size(), 4U) << o.out;
  for (const char* known : {"full", "window:20"}) {
    const Outcome tool =
        paddock("perplexity --json --kv-block-size 4 --kv-policy " + std::string(known) + input);
    ASSERT_EQ(tool.code, 0) << tool.err;
    EXPECT_NEAR(rows[known].second, nlohmann::json::parse(tool.out)["perplexity"].get<double>(),
                1e-4);
  }
  // 56 positions, a multiple of both intervals, in two layers.
  EXPECT_EQ(rows["full"].first, 56);
  EXPECT_EQ(rows["window:20"].first, 20);
  EXPECT_EQ(rows["steady:16"].first, 16);
  EXPECT_EQ(rows["0=full,*=steady:12"].first, (56 + 12) / 2.0);
  EXPECT_NE(rows["steady:16"].second, rows["full"].second);

  EXPECT_EQ(run(PADDOCK_CUSTOM_POLICY, "").code, 2);
  EXPECT_EQ(run(PADDOCK_CUSTOM_POLICY, "-m /nonexistent -f x").code, 1);
  const Outcome help = run(PADDOCK_CUSTOM_POLICY, "--help");
  EXPECT_EQ(help.code, 2);
  EXPECT_NE(help.err.find("usage: custom_policy -m MODEL"), std::string::npos) << help.err;
  const Outcome folder = run(PADDOCK_CUSTOM_POLICY, "-m " + tiny() + " --tokens-file /");
  EXPECT_EQ(folder.code, 1);
  EXPECT_EQ(folder.err, "error: cannot read '/'\n");
  const Outcome unknown = run(PADDOCK_CUSTOM_POLICY, input + "steadier:12");
  EXPECT_EQ(unknown.code, 2);
  EXPECT_NE(unknown.err.find("steady (the host's own)"), std::string::npos) << unknown.err;
}

}  // namespace
}  // namespace paddock::test
