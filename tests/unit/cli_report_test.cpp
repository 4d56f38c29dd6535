// What the tool draws, where it writes, and what it says of a model without weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "support/cli.h"
#include "support/small_model.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

namespace fs = std::filesystem;

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> all_between(const std::string& text, const std::string& before,
                                     const std::string& after) {
  std::vector<std::string> found;
  for (size_t at = text.find(before); at != std::string::npos; at = text.find(before, at)) {
    at += before.size();
    found.push_back(text.substr(at, text.find(after, at) - at));
  }
  return found;
}

class CliReport : public testing::Test {
 protected:
  CliReport() { write_small_model(folder_); }
  std::string model() const { return " -m " + folder_.path() + " "; }

  TemporaryFolder folder_;
};

// ---- "-"

TEST_F(CliReport, DashIsStdinForWhatIsRead) {
  EXPECT_EQ(paddock("tokenize" + model() + "-f -", "ab").out,
            paddock("tokenize" + model() + "-p ab").out);
  EXPECT_EQ(paddock("generate" + model() + "--temp 0 -n 4 -f -", "hello").out, "aaaa\n");
  const std::string score = "perplexity" + model() + "--json ";
  const Outcome text = paddock(score + "-f " + folder_.write("text", "hello there"));
  ASSERT_EQ(text.code, 0) << text.err;
  EXPECT_EQ(paddock(score + "-f -", "hello there").out, text.out);
  const std::string ids = paddock("tokenize" + model() + "-p 'hello there'").out;
  EXPECT_EQ(paddock(score + "--tokens-file -", ids).out, text.out);
}

TEST_F(CliReport, DashIsStdoutWhereStdoutIsFree) {
  const std::string file = folder_.path() + "/l.npy";
  ASSERT_EQ(paddock("logits" + model() + "--tokens 1,2 -o " + file).code, 0);
  const Outcome o = paddock("logits" + model() + "--tokens 1,2 -o -");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(o.out, bytes_of(file));
  EXPECT_FALSE(fs::exists("-"));
  EXPECT_FALSE(fs::exists("-.partial"));
  expect_refusal("logits" + model() + "--tokens 1,2 -o - --json", 2, "--output -");
}

TEST_F(CliReport, DashIsRefusedWhereStdoutCarriesSomething) {
  const std::string generate = "generate" + model() + "-p a --temp 0 -n 1 ";
  const std::string score = "perplexity" + model() + "-f x ";
  for (const std::string& command :
       {generate + "--kv-events", generate + "--json --kv-events", generate + "--log-file",
        "chat" + model() + "--kv-events", score + "--sweep full --svg", score + "--per-position"}) {
    expect_refusal(command + " -", 2, "'-': must be a file");
  }
  EXPECT_FALSE(fs::exists("-"));
}

// ---- the live panel

TEST_F(CliReport, TheWatchScalesToTheBudget) {
  // Some ten positions of one layer, in blocks of one position of 8 bytes: of 192 pages, a
  // twentieth.
  const auto bar = [&](const std::string& budget) {
    const std::string command = std::string(PADDOCK_CLI) + " generate" + model() +
                                "-p hello --temp 0 -n 4 --ignore-eos --watch --kv-block-size 1 " +
                                budget;
    const Outcome o = run("script", "-qec '" + command + "' /dev/null");
    EXPECT_EQ(o.code, 0) << o.out << o.err;
    // The last one drawn, before the positions held.
    const size_t at = o.out.rfind(".........");
    return at == std::string::npos ? std::string() : o.out.substr(at - 1, 11);
  };
  if (run("script", "--version").code != 0) GTEST_SKIP() << "there is no script(1)";
  EXPECT_EQ(bar("--kv-budget 1536"), "#......... ");
}

// ---- plots

TEST_F(CliReport, APlotOfOneContenderHasLabelledAxes) {
  const std::string svg = folder_.path() + "/plot.svg";
  const std::string text = folder_.write("some <text>.txt", std::string(100, 'b') + "hello a");
  const Outcome o = paddock("perplexity" + model() + "-f '" + text +
                            "' --kv-block-size 4 --kv-type f32 --sweep window:8 --svg " + svg);
  ASSERT_EQ(o.code, 0) << o.err;
  const std::string picture = bytes_of(svg);
  // Marks: on x they stand in the middle, on y they end at the axis.
  EXPECT_GE(all_between(picture, "text-anchor='middle'>", "<").size(), 3U + 1) << picture;
  EXPECT_GE(all_between(picture, "text-anchor='end'>", "<").size(), 3U) << picture;
  EXPECT_NE(
      picture.find(fs::path(folder_.path()).filename().string() + " on some &lt;text&gt;.txt, "),
      std::string::npos)
      << picture;
  EXPECT_NE(picture.find(">KV cache: f32, blocks of 4 positions, budget what the rules need<"),
            std::string::npos)
      << picture;
  // The figures of the table.
  std::istringstream row(o.out.substr(o.out.find("| window:8 ") + 1));
  std::vector<std::string> cells;
  for (std::string cell; std::getline(row, cell, '|');) {
    cells.push_back(cell.substr(cell.find_last_of(' ', cell.size() - 2) + 1));
    cells.back().pop_back();
  }
  ASSERT_GT(cells.size(), 5U) << o.out;
  EXPECT_NE(picture.find("<title>window:8: " + cells[1] + " positions kept, perplexity " +
                         cells[3] + ", KL " + cells[5] + "</title>"),
            std::string::npos)
      << o.out << picture;
  EXPECT_NE(picture.find(">8</text>"), std::string::npos) << picture;
}

TEST_F(CliReport, ATextMayBeLongerThanTheTrainedContextAndComeFromStdin) {
  const std::string svg = folder_.path() + "/plot.svg";
  const std::string command = "perplexity" + model() + "-f - --sweep window:8 --log-level off ";
  const Outcome o = paddock(command + "--svg " + svg, std::string(300, 'b'));
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_NE(bytes_of(svg).find(" on stdin, 299 tokens scored<"), std::string::npos);
  // Facts and what asks for them take room beside the text.
  EXPECT_EQ(paddock(command + "--facts 3", std::string(300, 'b')).code, 0);
}

TEST_F(CliReport, SeriesDifferInColourAndInShape) {
  const std::string svg = folder_.path() + "/plot.svg";
  const std::string text = folder_.write("text", std::string(60, 'b') + std::string(60, 'a'));
  std::string sweep;
  const std::vector<std::string> rules = {
      "window:8",   "sink:2+6",          "lru:8",    "h2o:8",
      "tova:8",     "knorm:8",           "random:8", "pyramid:h2o:8",
      "cake:h2o:8", "sink:2+6@original", "window:9"};
  for (const std::string& rule : rules) sweep += " --sweep " + rule;
  const Outcome o = paddock("perplexity" + model() + "-f " + text + " --kv-block-size 4" + sweep +
                            " --svg " + svg);
  ASSERT_EQ(o.code, 0) << o.err;
  // The legend: a line and a marker for each family; window:9 is of window.
  const std::string picture = bytes_of(svg);
  const std::string legend = picture.substr(picture.rfind("stroke-dasharray='6 4'"));
  std::set<std::string> looks, shapes, dashes_and_colours;
  for (const std::string& marker : all_between(legend, "<path transform=", "/path>")) {
    const std::string shape =
        marker.substr(marker.find(" d='"), marker.find("stroke-width") - marker.find(" d='"));
    looks.insert(shape);
    const bool hollow = marker.find("fill='none'") != std::string::npos;
    shapes.insert(shape.substr(0, shape.find("' ")) + (hollow ? " hollow" : ""));
  }
  for (const std::string& line : all_between(legend, "h34' fill='none' ", "/>")) {
    dashes_and_colours.insert(line);
  }
  EXPECT_EQ(looks.size(), rules.size() - 1) << legend;
  EXPECT_EQ(shapes.size(), rules.size() - 1) << legend;
  EXPECT_GE(dashes_and_colours.size(), 8U) << legend;
}

// ---- what a file holds, on a terminal

TEST_F(CliReport, TheTableOfInspectIsTextThatATerminalTakes) {
  auto config = nlohmann::json::parse(bytes_of(folder_.path() + "/config.json"));
  const std::string horse = "\xF0\x9F\x90\x8E";
  for (size_t n = 95; n <= 101; ++n) {
    config[std::to_string(n)] = std::string(n, 'x') + horse + "yyyyyyyy";
  }
  config["lines"] = "one\ntwo";
  config["bell"] = "\x1B]0;title\x07";
  config["be\x07ll"] = 1;
  folder_.write("config.json", config.dump());
  const Outcome o = paddock("inspect " + folder_.path());
  EXPECT_EQ(o.code, 0) << o.err;
  const auto shown = [&](const std::string& key) {
    const size_t at = o.out.find("\n  " + key + " ") + 3 + std::max<size_t>(44, key.size()) + 1;
    return o.out.substr(at, o.out.find('\n', at) - at);
  };
  EXPECT_EQ(shown("95"), std::string(95, 'x') + horse + "y...");
  EXPECT_EQ(shown("96"), std::string(96, 'x') + horse + "...");
  for (size_t n = 97; n <= 100; ++n)
    EXPECT_EQ(shown(std::to_string(n)), std::string(n, 'x') + "...");
  EXPECT_EQ(shown("101"), std::string(100, 'x') + "...");
  EXPECT_EQ(shown("lines"), "one two");
  EXPECT_EQ(shown("bell"), "\\x1b]0;title\\x07");
  EXPECT_EQ(shown("be\\x07ll"), "1");
}

// ---- a model without weights

TEST_F(CliReport, InspectReadsAConfigurationAlone) {
  const auto whole = nlohmann::json::parse(paddock("inspect " + folder_.path() + " --json").out);
  EXPECT_FALSE(whole.contains("no_weights"));
  fs::remove(folder_.path() + "/model.safetensors");
  const Outcome o = paddock("inspect " + folder_.path() + " --json");
  ASSERT_EQ(o.code, 0) << o.err;
  const auto alone = nlohmann::json::parse(o.out);
  EXPECT_EQ(alone["no_weights"], true);
  EXPECT_EQ(alone["tensor_count"], 0);
  for (const char* key : {"model", "kv_bytes_per_token", "warnings", "metadata"}) {
    EXPECT_EQ(alone[key], whole[key]) << key;
  }
  const Outcome table = paddock("inspect " + folder_.path());
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_TRUE(table.out.ends_with("\nno weights are here\n")) << table.out;
  EXPECT_NE(table.out.find("kv_bytes_per_token f16"), std::string::npos) << table.out;
  // An index whose files are missing is a broken download, and running still needs weights.
  expect_refusal("generate" + model() + "-p a --temp 0", 1, "neither model.safetensors nor");
  folder_.write("model.safetensors.index.json", R"({"weight_map":{"a":"gone.safetensors"}})");
  expect_refusal("inspect " + folder_.path(), 1, "gone.safetensors");
  fs::remove(folder_.path() + "/model.safetensors.index.json");
  for (const char* broken : {"xx", R"({"model_type":"llama")"}) {
    folder_.write("config.json", broken);
    const Outcome odd = paddock("inspect " + folder_.path());
    EXPECT_EQ(odd.err.find("json.exception"), std::string::npos) << odd.err;
    EXPECT_NE((odd.out + odd.err).find("not valid JSON at byte"), std::string::npos) << odd.out;
  }
}

}  // namespace
}  // namespace paddock::test
