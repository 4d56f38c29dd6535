// paddock doctor: its words, its object, its page in a browser, and its exit codes.
#include <gtest/gtest.h>
#include <paddock/paddock.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

#include "support/cli.h"
#include "support/planted_runs.h"
#include "support/small_model.h"

namespace paddock::test {
namespace {

using Json = nlohmann::json;

class CliDoctor : public testing::Test {
 protected:
  static const std::vector<PlantedRun>& runs() {
    static const std::vector<PlantedRun> all = planted_runs();
    return all;
  }
  /// A planted run as a file.
  std::string trace_of(const std::string& name) const {
    for (const PlantedRun& run : runs()) {
      if (run.name == name) return folder_.write("a.trace", run.bytes);
    }
    ADD_FAILURE() << "no run " << name;
    return "";
  }
  std::string file(const std::string& name) const { return folder_.path() + "/" + name; }
  static std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  /// What a browser makes of a page: the document, and on stderr what its console says.
  Outcome browse(const std::string& page) const {
    return run("chromium",
               "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage "
               "--enable-logging=stderr --user-data-dir=" +
                   file("profile") + " --dump-dom file://" + page);
  }
  static bool has_browser() { return std::system("command -v chromium >/dev/null 2>&1") == 0; }

  TemporaryFolder folder_;
};

TEST_F(CliDoctor, SaysInWordsWhatWasPlanted) {
  const std::map<std::string, std::string> words = {
      {"healthy", "Nothing needs to change."},
      {"too little memory", "The KV pool is too small for what ran."},
      {"a full pool", "The KV pool is too small for what ran."},
      {"a greedy session", "One sequence starves the others."},
      {"blocks too large", "Blocks are too large for these texts."},
      {"a time stamp", "Something near the beginning of the prompts keeps them from being shared."},
      {"rules that share nothing", "Prompts begin alike, and the rule shares nothing."},
      {"kept too short", "What was kept for reuse left before it was asked for again."},
      {"the start is lost", "The window has dropped the beginning of the text"},
      {"a budget below memory", "The rule drops text that memory has room for."},
      {"a budget spent", "The rule's budget is smaller than the texts."},
      {"beyond the context", "Positions go beyond what the model is made for."},
      {"a full context", "Texts reach the longest sequence that the engine takes."},
      {"a wrong policy", "The policy breaks its contract."},
      {"a host that throws", "Requests or steps failed."}};
  for (const auto& [name, verdict] : words) {
    const Outcome o = paddock("doctor " + trace_of(name));
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_NE(o.out.find(": " + verdict), std::string::npos) << name << "\n" << o.out;
    EXPECT_EQ(o.out.find('?'), std::string::npos) << "a number is missing: " << o.out;
  }
}

TEST_F(CliDoctor, SaysWhatATraceCannotTell) {
  const std::string unknown = "only --trace-tokens can tell";
  const auto told = [&](bool tokens, std::vector<std::vector<TokenId>> prompts) {
    const std::string path = folder_.write(
        "b.trace", recorded(shared_memory("full", 400), tokens, in_turn(std::move(prompts), 4)));
    EXPECT_EQ(paddock("doctor " + path + " -o " + file("page.html")).code, 0);
    const bool in_page = read(file("page.html")).find(unknown) != std::string::npos;
    const bool in_words = paddock("doctor " + path).out.find(unknown) != std::string::npos;
    EXPECT_EQ(in_page, in_words);
    return in_words;
  };
  // Stamps at the very beginning: no block is found.
  EXPECT_TRUE(told(false, stamped(4, 0)));
  EXPECT_FALSE(told(true, stamped(4, 0)));
  EXPECT_FALSE(told(false, {words(1, 20)}));
  EXPECT_FALSE(told(false, {words(1, 20), words(1, 20)}));
}

TEST_F(CliDoctor, GivesTheFlag) {
  const auto flags = [&](const std::string& name) {
    const Json found = Json::parse(paddock("doctor --json " + trace_of(name)).out)["found"];
    return found.at(0)["flag"].get<std::string>();
  };
  EXPECT_EQ(flags("the start is lost"), "--kv-policy sink:6+18");
  EXPECT_EQ(flags("a budget below memory"), "--kv-policy lru");
  EXPECT_EQ(flags("a full context"), "-c 70");
  EXPECT_EQ(flags("a context that is kept within"), "-c 99");
  EXPECT_EQ(flags("beyond the context"), "--rope-scaling yarn --rope-factor 2");
  EXPECT_EQ(flags("a wrong policy"), "");
  EXPECT_EQ(flags("too little memory").find("--kv-budget "), 0U);
  EXPECT_EQ(flags("blocks too large").find("--kv-block-size "), 0U);
}

TEST_F(CliDoctor, TheObjectHasEveryFigure) {
  for (const PlantedRun& run : runs()) {
    const std::string path = folder_.write("a.trace", run.bytes);
    const Outcome o = paddock("doctor --json " + path);
    ASSERT_EQ(o.code, 0) << o.err;
    const Json object = Json::parse(o.out);
    const Diagnosis d = diagnose(std::string_view(run.bytes), "trace");
    for (const DoctorFigure& figure : d.figures) {
      EXPECT_EQ(object.at(figure.name).get<double>(), figure.value) << figure.name;
    }
    ASSERT_EQ(object["found"].size(), run.causes.size()) << run.name;
    EXPECT_EQ(object["losses"].size(), d.losses.size());
    EXPECT_EQ(object["what_if"].size(), d.what_if.size());
  }
}

TEST_F(CliDoctor, LimitsSetTheExitCode) {
  const std::string trace = trace_of("too little memory");
  EXPECT_EQ(paddock("doctor " + trace + " --fail-on 'kv_full>0,regret>0.5'").code, 0);
  const std::string full = folder_.path() + "/full.trace";
  for (const PlantedRun& run : runs()) {
    if (run.name == "a full pool") folder_.write("full.trace", run.bytes);
  }
  const Outcome fails = paddock("doctor " + full + " --fail-on 'regret>0.05,kv_full>0'");
  EXPECT_EQ(fails.code, 1);
  EXPECT_NE(fails.err.find("full.trace: kv_full is 1: --fail-on kv_full>0"), std::string::npos)
      << fails.err;
  const Outcome o = paddock("doctor " + trace + " --fail-on 'regret>0.5,refusals>0,causes<1'");
  EXPECT_EQ(o.code, 1);
  EXPECT_NE(o.err.find(": refusals is "), std::string::npos) << o.err;
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
  EXPECT_NE(o.out.find("too small"), std::string::npos);
  EXPECT_EQ(paddock("doctor " + trace + " --fail-on 'causes>=1'").code, 1);
  EXPECT_EQ(paddock("doctor " + trace + " --fail-on 'causes<=1'").code, 1);
  EXPECT_EQ(paddock("doctor " + trace + " --fail-on 'causes>1'").code, 0);
  expect_refusal("doctor " + trace + " --fail-on 'kvfull>0'", 2, "no figure is called 'kvfull'");
  expect_refusal("doctor " + trace + " --fail-on 'kvfull>0'", 2, "regrets, hit_rate, regret");
  for (const char* wrong : {"kv_full", "kv_full>", ">1", "kv_full>x", "kv_full>1,"}) {
    expect_refusal("doctor " + trace + " --fail-on '" + wrong + "'", 2,
                   "must be such as regret>0.05,kv_full>0");
  }
  expect_refusal("doctor " + file("none"), 1, "cannot read");
  expect_refusal("doctor " + folder_.write("text", "no trace"), 1, "is no trace");
  expect_refusal("doctor " + trace + " -o -", 2, "-o");
}

// ---- run again

class CliDoctorRerun : public CliDoctor {
 protected:
  CliDoctorRerun() { write_random_model(model_); }
  /// A trace of a run with that model, and a text for it.
  std::string trace(const std::string& options) const {
    const Outcome o =
        paddock("generate -m " + model_.path() + " -t 1 --temp 0 --ignore-eos -p '" + kText +
                "' --kv-block-size 4 --kv-trace " + file("run.trace") + " " + options);
    EXPECT_EQ(o.code, 0) << o.err;
    return file("run.trace");
  }
  std::string again() const {
    return " -t 1 -m " + model_.path() + " -f " + folder_.write("text", kText) + " ";
  }

  static constexpr const char* kText =
      "a bad cab had a cabbage, abba gagged, a fad faded, dada fed a cafe, a bag begged, ace aced";
  TemporaryFolder model_;
};

TEST_F(CliDoctorRerun, MeasuresTheRunsSettingsAndEachProposal) {
  const std::string path = trace("-n 20 --kv-policy window:16 -b 8");
  const Outcome o = paddock("doctor --json " + path + again() + "-o " + file("page.html"));
  ASSERT_EQ(o.code, 0) << o.err;
  const Json object = Json::parse(o.out), measured = object["measured"];
  const auto model = Model::load(model_.path());
  const std::vector<TokenId> tokens = model->tokenizer()->encode(kText);
  EXPECT_EQ(measured["tokens"], tokens.size());
  ASSERT_EQ(measured["results"].size(), 2U) << measured.dump(1);
  EXPECT_EQ(measured["results"][0]["flag"], "");
  EXPECT_EQ(measured["results"][0]["found"], Json({"window_drops_start"}));
  EXPECT_EQ(measured["results"][1]["flag"], object["found"][0]["flag"]);
  EXPECT_EQ(measured["results"][1]["found"], Json::array());
  for (const Json& row : measured["results"]) {
    const std::string rule = row["flag"] == "" ? "window:16" : "sink:4+12";
    QualityOptions both;
    both.engine.threads = 1;
    EngineOptions own = both.engine;
    own.kv.policy = rule;
    own.kv.block_size = 4;
    own.batch_size = 8;
    both.other_engines = {own};
    QualityMeter meter(model, both);
    CompareOptions how;
    how.prompt_tokens = static_cast<int64_t>(tokens.size()) * 2 / 3;
    double kl = 0, nll = 0, full = 0, n = 0;
    how.on_position = [&](int64_t at, std::span<const PositionQuality> rules) {
      if (at < how.prompt_tokens) return true;
      kl += rules[1].kl;
      nll += rules[1].nll;
      full += rules[0].nll;
      ++n;
      return true;
    };
    meter.compare(tokens, how);
    EXPECT_GT(kl, 0);
    EXPECT_NEAR(row["kl_mean"].get<double>(), kl / n, 1e-9) << rule;
    EXPECT_NEAR(row["perplexity"].get<double>(), std::exp(nll / n), 1e-6);
    EXPECT_NEAR(measured["full_perplexity"].get<double>(), std::exp(full / n), 1e-6);
    Engine engine(model, own);
    int64_t most = 0;
    const SessionId session = engine.open_session();
    engine.feed(session, std::span(tokens).first(tokens.size() - 16));
    for (size_t i = tokens.size() - 16; i < tokens.size(); ++i) {
      engine.feed(session, std::span(tokens).subspan(i, 1));
    }
    const KvStats stats = engine.kv_stats();
    for (const KvLayerStats& layer : stats.layers) most += layer.pages_peak;
    EXPECT_LE(row["pages_peak"].get<int64_t>(), most);
    EXPECT_GE(row["pages_peak"].get<int64_t>(), stats.total.pages_active);
    EXPECT_EQ(row["blocks_left"],
              stats.total.pages_removed[static_cast<size_t>(RemovalReason::kWindow)]);
    EXPECT_GT(row["prefill_tokens_per_second"].get<double>(), 0);
    EXPECT_GT(row["decode_tokens_per_second"].get<double>(), 0);
  }
  const std::string page = read(file("page.html"));
  EXPECT_NE(page.find("measured by running again: "), std::string::npos);
  EXPECT_NE(page.find("<td>--kv-policy sink:4+12</td>"), std::string::npos);
  EXPECT_NE(page.find("another size, by replay"), std::string::npos);
  const Outcome words = paddock("doctor " + path + again());
  EXPECT_NE(words.out.find("\n| as it ran | "), std::string::npos) << words.out;
  EXPECT_NE(words.out.find("\n| --kv-policy sink:4+12 | "), std::string::npos) << words.out;
}

TEST_F(CliDoctorRerun, WhatIsRefusedIsARow) {
  // As it ran it takes less than the text; with the proposal it takes all.
  const std::string path = trace("-n 100 -c 100");
  const Json object = Json::parse(paddock("doctor --json " + path + again()).out);
  ASSERT_EQ(object["found"].at(0)["name"], "context_full");
  const std::string longer = folder_.write("longer", std::string(kText) + ". " + kText);
  const Outcome o =
      paddock("doctor --json " + path + " -t 1 -m " + model_.path() + " -f " + longer);
  ASSERT_EQ(o.code, 0) << o.err;
  const Json rows = Json::parse(o.out)["measured"]["results"];
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_NE(rows[0]["refused"].get<std::string>().find("100"), std::string::npos) << rows.dump(1);
  EXPECT_FALSE(rows[0].contains("kl_mean"));
  EXPECT_EQ(rows[1]["kl_mean"], 0.0) << rows.dump(1);
}

TEST_F(CliDoctorRerun, RefusesWhatDoesNotGoTogether) {
  const std::string path = trace("-n 4");
  expect_refusal("doctor " + path + " -m " + model_.path(), 2, "-m and -f go together");
  expect_refusal("doctor " + path + " -f " + path, 2, "-m and -f go together");
  expect_refusal("doctor " + path + " -m " + model_.path() + " -f " + folder_.write("x", "short"),
                 1, "it has only 4 tokens; 48 are needed");
  expect_refusal("doctor " + trace_of("healthy") + again(), 1, "give the model that the run had");
  EXPECT_FALSE(Json::parse(paddock("doctor --json " + path).out).contains("measured"));
}

TEST_F(CliDoctor, SeveralTracesAreAList) {
  const std::string trace = trace_of("healthy");
  const std::string other = folder_.write("b.trace", runs().back().bytes);
  const Json list = Json::parse(paddock("doctor --json " + trace + " " + other).out);
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0]["causes"], 0);
  EXPECT_EQ(list[1]["causes"], 1);
  EXPECT_EQ(paddock("doctor " + trace + " " + other + " --fail-on 'causes>0'").code, 1);
  ASSERT_EQ(paddock("doctor " + trace + " " + other + " -o " + file("page.html")).code, 0);
  const std::string page = read(file("page.html"));
  EXPECT_NE(page.find("a.trace"), std::string::npos);
  EXPECT_NE(page.find("b.trace"), std::string::npos);
}

TEST_F(CliDoctor, ThePageNeedsNothingElse) {
  for (const PlantedRun& run : runs()) {
    SCOPED_TRACE(run.name);
    const std::string path = folder_.write("a<b.trace", run.bytes);
    ASSERT_EQ(paddock("doctor '" + path + "' -o " + file("page.html")).code, 0);
    const std::string page = read(file("page.html"));
    for (const char* wrong : {"http://", "https://", "<script", "src=", "@import", "url(", ">nan<",
                              ">-nan<", "a<b", ">inf<"}) {
      EXPECT_EQ(page.find(wrong), std::string::npos) << wrong;
    }
    for (const char* step : {"1. Monitor", "2. Reduce context", "3. Adjust the batch",
                             "4. Quantize or prune", "5. Hardware", "6. RoPE", "7. Swap"}) {
      EXPECT_NE(page.find(step), std::string::npos) << step;
    }
    EXPECT_NE(page.find("prefers-color-scheme"), std::string::npos);
    EXPECT_NE(page.find("width=device-width"), std::string::npos);
  }
}

TEST_F(CliDoctor, ABrowserShowsEveryFigure) {
  if (!has_browser()) GTEST_SKIP() << "there is no chromium here";
  // The console is looked at: what is wrong in a page is told.
  const Outcome broken = browse(folder_.write("broken.html", "<svg><path d='Mnowhere'/></svg>"));
  ASSERT_NE(broken.err.find("CONSOLE"), std::string::npos) << broken.err;
  for (const char* name : {"too little memory, elastic", "the start is lost", "a time stamp"}) {
    SCOPED_TRACE(name);
    const std::string trace = trace_of(name);
    const Outcome o = paddock("doctor --json " + trace + " -o " + file("page.html"));
    ASSERT_EQ(o.code, 0) << o.err;
    const Json object = Json::parse(o.out);
    const Outcome shown = browse(file("page.html"));
    ASSERT_EQ(shown.code, 0) << shown.err;
    EXPECT_EQ(shown.err.find("CONSOLE"), std::string::npos) << shown.err;
    const std::regex figure("data-(figure|all)=\"([a-z_]+)\">([^<]*)<");
    int n = 0;
    for (std::sregex_iterator at(shown.out.begin(), shown.out.end(), figure), end; at != end;
         ++at, ++n) {
      const double value = object.at((*at)[2].str()).get<double>();
      EXPECT_NEAR(std::stod((*at)[3].str()), value, 1e-3 * std::abs(value)) << (*at)[2].str();
    }
    EXPECT_GT(n, 60);
    EXPECT_NE(shown.out.find("data-cause=\"" + object["found"][0]["name"].get<std::string>()),
              std::string::npos);
    EXPECT_NE(shown.out.find("<svg"), std::string::npos);
  }
}

}  // namespace
}  // namespace paddock::test
