// Every number that paddock doctor prints, against a count of the trace's JSON lines.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "advice.h"
#include "support/cli.h"
#include "support/json_recount.h"
#include "support/planted_runs.h"

namespace paddock::test {
namespace {

using Json = nlohmann::json;
using Numbers = JsonRecount::Numbers;
using Request = JsonRecount::Request;

double ratio(double part, double whole) { return whole == 0 ? 0 : part / whole; }

/// As it should be written.
std::string shown(const char* form, double value) {
  char text[64];
  std::snprintf(text, sizeof text, form, value);
  return text;
}
std::string number(double value) {
  return shown(value == std::floor(value) ? "%.0f" : "%.4g", value);
}

// ---- evidence of each cause

Numbers greedy(const JsonRecount& c) {
  std::map<JsonRecount::Owner, std::vector<double>> shares;
  std::map<JsonRecount::Owner, int64_t> most;
  for (const JsonRecount::Moment& step : c.steps) {
    for (const auto& [owner, pages] : step.held) most[owner] = std::max(most[owner], pages);
  }
  for (const JsonRecount::Moment& moment : c.shortages) {
    if (moment.held.size() < 2) continue;
    JsonRecount::Owner first;
    double all = 0, largest = -1;
    for (const auto& [owner, pages] : moment.held) {
      all += static_cast<double>(pages);
      if (static_cast<double>(pages) <= largest) continue;
      largest = static_cast<double>(pages);
      first = owner;
    }
    shares[first].push_back(largest / all);
  }
  const auto who = std::max_element(shares.begin(), shares.end(), [](auto& a, auto& b) {
    return a.second.size() < b.second.size();
  });
  double sum = 0;
  for (const double share : who->second) sum += share;
  const bool is_session = who->first.first != 0;
  const int64_t number = is_session ? who->first.first : who->first.second;
  return {{is_session ? "session" : "request", static_cast<double>(number)},
          {"share_held", sum / static_cast<double>(who->second.size())},
          {"pages_held_most", static_cast<double>(most[who->first])},
          {"shortages", static_cast<double>(c.shortages.size())}};
}

/// The longest run of tokens that is in both.
int64_t equal_run(const std::vector<int>& a, const std::vector<int>& b) {
  int64_t longest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b.size(); ++j) {
      int64_t n = 0;
      while (i + n < a.size() && j + n < b.size() && a[i + n] == b[j + n]) ++n;
      longest = std::max(longest, n);
    }
  }
  return longest;
}

Numbers broken_prefixes(const JsonRecount& c) {
  const bool by_tokens = c.engine["tokens"];
  int64_t compared = 0, broken = 0, differs = 0, equal = 0;
  for (size_t i = 1; i < c.requests.size(); ++i) {
    const Request &a = c.requests[i - 1], &b = c.requests[i];
    ++compared;
    int64_t at = b.differs_at;
    if (by_tokens) {
      at = 0;
      while (a.ids[at] == b.ids[at]) ++at;
      equal += equal_run(a.ids, b.ids);
    }
    if (at < 0 || 4 * at >= b.prompt) continue;
    ++broken;
    differs = at;
  }
  return {{"prompts_compared", static_cast<double>(compared)},
          {"prompts_broken", static_cast<double>(broken)},
          {"differs_at", static_cast<double>(differs)},
          {"equal_tokens", by_tokens ? static_cast<double>(equal / broken) : 0},
          {"by_tokens", by_tokens ? 1.0 : 0.0}};
}

Numbers unshared(const JsonRecount& c) {
  std::set<uint64_t> known;
  double again = 0, all = 0;
  for (const Request& r : c.requests) {
    for (const uint64_t hash : r.blocks) {
      ++all;
      again += !known.insert(hash).second && r.asked_in_vain ? 1 : 0;
    }
  }
  return {{"blocks_computed_again", again}, {"prompt_blocks", all}, {"share_again", again / all}};
}

Numbers lost_start(const JsonRecount& c) {
  int64_t first = c.lost_start.begin()->second;
  for (const auto& [layer, length] : c.lost_start) first = std::min(first, length);
  return {{"layers", static_cast<double>(c.lost_start.size())},
          {"window", static_cast<double>(c.window)},
          {"at_length", static_cast<double>(first)},
          {"longest", static_cast<double>(c.longest)}};
}

Numbers evidence(const std::string& cause, const JsonRecount& c) {
  Numbers f = c.figures();
  const auto some = [&](std::vector<const char*> names) {
    Numbers out;
    for (const char* name : names) out[name] = f.at(name);
    return out;
  };
  double elastic = 0, for_context = 0, budget = 0;
  for (const JsonRecount::Removal& r : c.removals) {
    if (r.reason != "policy_trim") continue;
    elastic += r.is_elastic ? 1 : 0;
    for_context += r.is_elastic && r.is_for_context ? 1 : 0;
    if (!r.is_elastic) budget = std::max(budget, static_cast<double>(r.sufficient));
  }
  f["elastic_trims"] = elastic - for_context;
  f["context_falls"] = static_cast<double>(c.context_falls);
  f["context_trims"] = for_context;
  f["budget_falls"] -= f["context_falls"];
  f["positions_wanted"] = c.context_falls > 0 ? static_cast<double>(c.longest) : 0;
  f["blocks_dropped"] = f["removed_policy_trim"] - elastic;
  f["budget_that_keeps"] = budget;
  f["block_size"] = static_cast<double>(c.size());
  f["model_context"] = c.engine["model_context"];
  f["layers"] = static_cast<double>(c.beyond);
  f["context"] = c.engine["context"];
  f["pool_wasted"] = (c.sum_of(c.room) - c.sum_of(c.resident)) /
                     static_cast<double>(static_cast<int64_t>(c.steps.size()) * c.pool * c.size());
  for (const Request& r : c.requests) {
    if (r.reason == "context") {
      f["positions_wanted"] =
          std::max(f["positions_wanted"], static_cast<double>(r.prompt + r.most));
    }
  }
  const std::map<std::string, std::function<Numbers()>> by_name = {
      {"failures",
       [&] {
         return some({"errors", "steps_failed"});
       }},
      {"policy_violation",
       [&] {
         return some({"violations", "shortfalls"});
       }},
      {"blocks_too_large",
       [&] {
         return some({"fill", "pool_wasted", "block_size"});
       }},
      {"greedy_sequence", [&] { return greedy(c); }},
      {"pool_too_small",
       [&] {
         return some({"kv_full", "preemptions", "refusals", "budget_falls", "elastic_trims",
                      "pages_wanted", "pool_pages"});
       }},
      {"beyond_context",
       [&] {
         return some({"longest", "model_context", "layers"});
       }},
      {"context_full",
       [&] {
         return some(
             {"context_full", "context_falls", "context_trims", "context", "positions_wanted"});
       }},
      {"window_drops_start", [&] { return lost_start(c); }},
      {"budget_below_memory",
       [&] {
         return some({"blocks_dropped", "pages_full_peak", "pool_pages", "budget_that_keeps"});
       }},
      {"budget_spent",
       [&] {
         return some({"blocks_dropped", "pages_full_peak", "pool_pages", "budget_that_keeps"});
       }},
      {"prefix_broken", [&] { return broken_prefixes(c); }},
      {"prefix_not_shared", [&] { return unshared(c); }},
      {"prefix_reclaimed", [&] {
         return some({"regrets", "lookups", "hits"});
       }}};
  return by_name.at(cause)();
}

/// What a proposal is reckoned from.
std::string flag(const std::string& cause, const JsonRecount& c) {
  const Numbers f = c.figures();
  const int64_t page = c.engine["page_bytes"];
  const auto bytes = [&](double pages) {
    const int64_t all = static_cast<int64_t>(pages) * page;
    return "--kv-budget " + std::to_string(all);
  };
  if (cause == "pool_too_small") {
    return bytes(std::max(f.at("pages_wanted"), f.at("pool_pages") + 1));
  }
  if (cause == "prefix_reclaimed") return bytes(2 * f.at("pool_pages"));
  if (cause == "budget_spent") return bytes(f.at("pages_full_peak"));
  if (cause == "greedy_sequence") {
    const int64_t all = c.pool / c.n_layers() * c.size();
    return "-c " + std::to_string(all / c.engine["max_sequences"].get<int64_t>());
  }
  return "";
}

// ---- what other sizes would have found

/// Caches that hold whole prompts: the newest on top, each one's first block above its second.
int64_t found_by_lru(const std::vector<std::vector<uint64_t>>& prompts, size_t capacity) {
  std::vector<uint64_t> stack;  // hashes tell what stands before them, too
  int64_t found = 0;
  for (const std::vector<uint64_t>& prompt : prompts) {
    bool goes_on = true;
    for (const uint64_t hash : prompt) {
      goes_on = goes_on && std::count(stack.begin(), stack.end(), hash) > 0;
      found += goes_on ? 1 : 0;
    }
    for (size_t i = prompt.size(); i-- > 0;) {
      stack.erase(std::remove(stack.begin(), stack.end(), prompt[i]), stack.end());
      stack.insert(stack.begin(), prompt[i]);
    }
    if (stack.size() > capacity) stack.resize(capacity);
  }
  return found;
}

// ---- the test

class CliDoctorCount : public testing::Test {
 protected:
  static const std::vector<PlantedRun>& runs() {
    static const std::vector<PlantedRun> all = planted_runs();
    return all;
  }
  TemporaryFolder folder_;
};

void expect_equal(const Json& object, const Numbers& counted) {
  for (const auto& [name, value] : counted) {
    ASSERT_TRUE(object.contains(name)) << name;
    EXPECT_DOUBLE_EQ(object[name].get<double>(), value) << name;
  }
}

/// Counts by bin, as a list of the object has them.
void expect_bins(const Json& list, const std::map<std::string, int64_t>& bins) {
  int64_t all = 0, counted = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    const auto at = bins.find(std::to_string(i));
    EXPECT_EQ(list[i], at == bins.end() ? 0 : at->second) << "bin " << i;
    all += list[i].get<int64_t>();
  }
  for (const auto& [bin, blocks] : bins) counted += blocks;
  EXPECT_EQ(all, counted);
}

void expect_losses(const Json& object, const JsonRecount& c) {
  std::map<std::tuple<std::string, int64_t, int64_t>, int64_t> losses;
  std::map<std::string, std::map<std::string, int64_t>> lives;
  for (const JsonRecount::Removal& r : c.removals) {
    ++losses[{r.reason, r.layer, r.sequence}];
    ++lives[r.reason][JsonRecount::bin(r.age)];
  }
  ASSERT_EQ(object["losses"].size(), losses.size());
  for (const Json& loss : object["losses"]) {
    EXPECT_EQ(loss["blocks"], (losses[{loss["reason"], loss["layer"], loss["sequence"]}]));
  }
  ASSERT_EQ(object["lives"].size(), lives.size());
  for (const auto& [reason, bins] : lives) expect_bins(object["lives"][reason], bins);
  expect_bins(object["reuse_gaps"], c.gaps);
}

void expect_what_if(const Json& object, const JsonRecount& c) {
  std::vector<std::vector<uint64_t>> prompts;
  std::set<uint64_t> different;
  int64_t asked = 0, room_for_all = 0;
  for (const Request& r : c.requests) {
    prompts.push_back(r.blocks);
    asked += static_cast<int64_t>(r.blocks.size());
    bool goes_on = true;
    for (const uint64_t hash : r.blocks) {
      goes_on = goes_on && different.count(hash) > 0;
      room_for_all += goes_on ? 1 : 0;
    }
    different.insert(r.blocks.begin(), r.blocks.end());
  }
  const int64_t pool = c.pool / c.n_layers();
  const std::vector<int64_t> sizes = {pool / 2, pool, 2 * pool, 4 * pool};
  ASSERT_EQ(object["what_if"].size(), c.lookups == 0 ? 0U : sizes.size());
  for (size_t i = 0; i < object["what_if"].size(); ++i) {
    const Json& row = object["what_if"][i];
    const int64_t found = found_by_lru(prompts, static_cast<size_t>(sizes[i]));
    EXPECT_EQ(row["capacity"], sizes[i]);
    EXPECT_EQ(row["found"], found);
    EXPECT_DOUBLE_EQ(row["hit_rate"].get<double>(),
                     ratio(static_cast<double>(found), static_cast<double>(asked)));
    // The most possible: replay_test.cpp has it against every order there is.
    const double best = row["belady_hit_rate"].get<double>() * static_cast<double>(asked);
    EXPECT_GE(best, static_cast<double>(found) - 1e-9);
    EXPECT_LE(best, static_cast<double>(room_for_all) + 1e-9);
    if (sizes[i] < static_cast<int64_t>(different.size())) continue;
    EXPECT_NEAR(best, static_cast<double>(room_for_all), 1e-9);
  }
}

TEST_F(CliDoctorCount, TheObjectIsWhatTheLinesComeTo) {
  std::set<std::string> causes;
  for (const PlantedRun& run : runs()) {
    SCOPED_TRACE(run.name);
    const std::string path = folder_.write("a.trace", run.bytes);
    const JsonRecount counted(paddock("trace " + path + " --to jsonl").out);
    const Json object = Json::parse(paddock("doctor --json " + path).out);
    Numbers figures = counted.figures();
    figures["causes"] = static_cast<double>(run.causes.size());
    expect_equal(object, figures);
    // Nothing else in it is a number.
    for (const auto& [key, value] : object.items()) {
      EXPECT_TRUE(!value.is_number() || figures.count(key) > 0) << key << " is not counted";
    }
    for (const Json& cause : object["found"]) {
      const std::string name = cause["name"];
      causes.insert(name);
      const Numbers expected = evidence(name, counted);
      expect_equal(cause["evidence"], expected);
      EXPECT_EQ(cause["evidence"].size(), expected.size()) << name;
      const std::string proposed = flag(name, counted);
      if (proposed.starts_with("-c")) {
        EXPECT_EQ(cause["flag"], proposed) << name;
      }
      if (!proposed.starts_with("--kv-budget")) continue;
      // Said shortly where that is a little more.
      const std::string bytes = proposed.substr(12);
      EXPECT_EQ(cause["flag"], "--kv-budget " + cli::size_text(std::stoull(bytes))) << name;
    }
    expect_losses(object, counted);
    expect_what_if(object, counted);
  }
  EXPECT_EQ(causes.size(), static_cast<size_t>(kAilments));
}

/// Numbers as words have them.
std::multiset<std::string> numbers_in(std::string text) {
  std::multiset<std::string> found;
  const std::regex number("[0-9]+([.][0-9]+)?(e[-+]?[0-9]+)?( %)?");
  for (std::sregex_iterator at(text.begin(), text.end(), number), end; at != end; ++at) {
    found.insert(at->str());
  }
  return found;
}

TEST_F(CliDoctorCount, WordsHaveNoOtherNumbers) {
  for (const PlantedRun& run : runs()) {
    SCOPED_TRACE(run.name);
    const std::string path = folder_.write("a.trace", run.bytes);
    const JsonRecount counted(paddock("trace " + path + " --to jsonl").out);
    const Json object = Json::parse(paddock("doctor --json " + path).out);
    std::set<std::string> known = {"0"};  // "position 0"
    const auto know = [&](const Numbers& numbers) {
      for (const auto& [name, value] : numbers) {
        known.insert(number(value));
        known.insert(shown("%.1f %%", 100 * value));
      }
    };
    know(counted.figures());
    for (const Json& cause : object["found"]) {
      know(evidence(cause["name"], counted));
      for (const std::string& n : numbers_in(cause["flag"])) known.insert(n);
    }
    std::string words = paddock("doctor " + path).out;
    ASSERT_EQ(words.find(path), 0U);
    words = words.substr(path.size());
    // What a policy was told is in a trace as it was said.
    for (const char* quoted : {", the last: ", "--"}) {
      for (size_t at = words.find(quoted); at != std::string::npos; at = words.find(quoted, at)) {
        words.erase(at, words.find('\n', at) - at);
      }
    }
    EXPECT_GT(numbers_in(words).size(), 8U);
    for (const std::string& n : numbers_in(words)) {
      EXPECT_EQ(known.count(n), 1U) << n << " in " << words;
    }
  }
}

/// Rows of the page's tables, by what their cells have.
void expect_tables(const std::string& page, const JsonRecount& c) {
  std::map<std::tuple<std::string, int64_t, int64_t>, std::vector<int64_t>> layers;
  std::map<std::tuple<std::string, int64_t, int64_t>, int64_t> losses;
  for (const JsonRecount::Removal& r : c.removals) ++losses[{r.reason, r.layer, r.sequence}];
  for (const auto& [key, blocks] : losses) {
    layers[{std::get<0>(key), std::get<2>(key), blocks}].push_back(std::get<1>(key));
  }
  int rows = 0;
  for (const auto& [key, its] : layers) {
    const auto& [reason, sequence, blocks] = key;
    const std::string whose = sequence < 0 ? "kept for reuse" : std::to_string(sequence);
    const std::string row = "<tr><td>" + reason + "</td><td class='n'>" + whose + "</td><td>" +
                            (its.size() == 2 ? "0,1" : std::to_string(its[0])) +
                            "</td><td class='n'>" + std::to_string(blocks) + "</td></tr>";
    rows += page.find(row) != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(rows, std::min<int>(40, static_cast<int>(layers.size())));  // more are in --json
}

/// What stands beside drawings.
void expect_drawings(const std::string& page, const JsonRecount& c) {
  const auto has = [&](const std::string& text) {
    EXPECT_NE(page.find(">" + text + "</"), std::string::npos) << text;
  };
  has(std::to_string(std::max(c.pool, JsonRecount::most_of(c.active))));
  has("positions in each layer, at most " + std::to_string(c.in_a_layer));
  has("step " + std::to_string(c.steps.size()));
  has("position " + std::to_string(c.longest - 1));
  has(shown("%.3g", 1e3 * *std::max_element(c.took.begin(), c.took.end())));
  std::map<std::string, std::map<std::string, int64_t>> lives;
  std::map<std::string, int64_t> all;
  for (const JsonRecount::Removal& r : c.removals) {
    ++lives[r.reason][JsonRecount::bin(r.age)];
    ++all[r.reason];
  }
  for (const auto& [reason, bins] : lives) {
    has(reason + ": " + std::to_string(all[reason]) + " blocks");
    for (const auto& [bin, blocks] : bins) has(std::to_string(blocks));
  }
  int64_t again = 0;
  for (const auto& [bin, blocks] : c.gaps) again += blocks;
  if (again > 0) has("came again: " + std::to_string(again) + " blocks");
}

TEST_F(CliDoctorCount, FiguresOfThePageAreThose) {
  for (const PlantedRun& run : runs()) {
    SCOPED_TRACE(run.name);
    const std::string path = folder_.write("a.trace", run.bytes);
    const JsonRecount counted(paddock("trace " + path + " --to jsonl").out);
    Numbers figures = counted.figures();
    figures["causes"] = static_cast<double>(run.causes.size());
    ASSERT_EQ(paddock("doctor " + path + " -o " + folder_.path() + "/page").code, 0);
    std::ifstream in(folder_.path() + "/page");
    const std::string page{std::istreambuf_iterator<char>(in), {}};
    const std::regex figure("data-(figure|all)='([a-z_]+)'>([^<]*)<");
    std::set<std::string> all;
    for (std::sregex_iterator at(page.begin(), page.end(), figure), end; at != end; ++at) {
      EXPECT_EQ((*at)[3].str(), number(figures.at((*at)[2]))) << (*at)[2];
      if ((*at)[1] == "all") all.insert((*at)[2]);
    }
    EXPECT_EQ(all.size(), figures.size());
    expect_tables(page, counted);
    expect_drawings(page, counted);
  }
}

}  // namespace
}  // namespace paddock::test
