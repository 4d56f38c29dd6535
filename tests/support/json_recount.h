// What a doctor should say of a run, counted from the JSON lines of its trace alone, which is what
// anybody else would have: positions as sets, moments as lists, nothing kept up as it goes.
#pragma once

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace paddock::test {

class JsonRecount {
 public:
  using Json = nlohmann::json;
  using Numbers = std::map<std::string, double>;
  using Owner = std::pair<int64_t, int64_t>;  // session, or request that is none's

  explicit JsonRecount(const std::string& lines) {
    std::istringstream in(lines);
    for (std::string line; std::getline(in, line); ++at_) take(Json::parse(line));
  }

  struct Request {
    int64_t number, session, begin, prompt, most;
    int64_t come, ended = -1;
    int64_t made = 0, recomputed = 0;
    std::string reason;
    std::vector<uint64_t> blocks;
    std::vector<int> ids;
    int64_t differs_at = -1;  // of its miss, if it was of that kind
    bool asked_in_vain = false;
  };
  struct Text {
    bool is_pin = false, lost_start = false, fell_for_context = false;
    int rules = 0;
    int64_t length = 0, request = 0;
    Owner owner;
    std::vector<std::set<int64_t>> layers;
    std::vector<uint64_t> blocks;
    std::vector<int> ids;
    std::vector<Json> misses;
  };
  struct Removal {
    std::string reason;
    int64_t layer, sequence, first, length, age, sufficient;
    bool is_elastic, is_for_context;
  };
  struct Moment {
    std::map<Owner, int64_t> held;  // table entries
  };

  Json engine;
  std::map<int, Json> rules;
  std::vector<Request> requests;
  std::vector<Removal> removals;
  std::vector<Moment> shortages, steps;
  int64_t in_a_layer = 0;                             // most positions of all texts together
  std::vector<int64_t> active, full, resident, room;  // pages, pages, positions, of each step
  std::map<std::string, int64_t> gaps;                // by bin
  std::map<std::string, int64_t> times;               // records of a kind
  std::vector<double> took;
  int64_t pool = 0, written = 0, longest = 0, failed = 0, lookups = 0, hits = 0, regrets = 0;
  int64_t falls = 0, context_falls = 0, beyond = 0, went_on_to = 0;
  double last = 0;
  std::map<int64_t, int64_t> lost_start;  // by layer: the text's length then
  int64_t window = 0;

  int64_t size() const { return engine["block_size"]; }
  int64_t n_layers() const { return engine["n_layers"]; }
  int64_t n(const std::string& record) const {
    const auto its = times.find(record);
    return its == times.end() ? 0 : its->second;
  }
  int64_t removed(const std::string& reason) const {
    return std::count_if(removals.begin(), removals.end(),
                         [&](const Removal& r) { return r.reason == reason; });
  }
  int64_t ended(const std::string& reason) const {
    return std::count_if(requests.begin(), requests.end(),
                         [&](const Request& r) { return r.reason == reason; });
  }
  static int64_t most_of(const std::vector<int64_t>& values) {
    return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
  }
  static double sum_of(const std::vector<int64_t>& values) {
    double sum = 0;
    for (const int64_t value : values) sum += static_cast<double>(value);
    return sum;
  }
  /// [0] 0, [i] 2^(i-1) to 2^i - 1.
  static std::string bin(int64_t steps) {
    int i = 0;
    while (steps >> i > 0) ++i;
    return std::to_string(i);
  }

  /// Pages of all that was there at once, were it whole: the largest of each moment's requests and
  /// sessions, as many as may run together.
  int64_t pages_wanted() const {
    int64_t most = 0;
    for (const Request& moment : requests) {
      std::map<Owner, int64_t> wanted;
      for (const Request& r : requests) {
        const bool is_there =
            r.come <= moment.come && (r.session != 0 || r.ended < 0 || r.ended > moment.come);
        if (!is_there) continue;
        const int64_t tokens = r.prompt + (r.reason == "kv_full" ? r.most : r.made);
        int64_t& its = wanted[r.session != 0 ? Owner(r.session, 0) : Owner(0, r.number)];
        its = std::max(its, (tokens + size() - 1) / size() * n_layers());
      }
      std::vector<int64_t> sorted;
      for (const auto& [owner, pages] : wanted) sorted.push_back(pages);
      std::sort(sorted.rbegin(), sorted.rend());
      sorted.resize(std::min<size_t>(sorted.size(), engine["max_sequences"]));
      most = std::max(most, static_cast<int64_t>(sum_of(sorted)));
    }
    return most;
  }

  Numbers figures() const {
    Numbers f;
    const auto add = [&](const char* name, auto value) { f[name] = static_cast<double>(value); };
    add("requests", requests.size());
    add("finished", n("finish"));
    add("kv_full", ended("kv_full"));
    add("context_full", ended("context"));
    add("errors", ended("error"));
    add("deadlines", ended("deadline"));
    int64_t prompt = 0, made = 0, recomputed = 0;
    for (const Request& r : requests) {
      prompt += r.prompt - r.begin;
      made += r.made;
      recomputed += r.recomputed;
    }
    add("prompt_tokens", prompt);
    add("made_tokens", made);
    add("recomputed_tokens", recomputed);
    add("tokens_written", written);
    add("longest", longest);
    add("steps", steps.size());
    add("steps_failed", failed);
    add("seconds", last);
    double all = 0, slowest = 0;
    for (const double seconds : took) {
      all += seconds;
      slowest = std::max(slowest, seconds);
    }
    add("step_seconds", steps.empty() ? 0 : all / static_cast<double>(steps.size()));
    add("step_seconds_max", slowest);
    add("pool_pages", pool);
    add("pages_peak", most_of(active));
    add("occupancy_peak", static_cast<double>(most_of(active)) / static_cast<double>(pool));
    add("pages_full_peak", most_of(full));
    add("pages_wanted", pages_wanted());
    add("resident_peak", most_of(resident));
    add("fill", sum_of(room) == 0 ? 1 : sum_of(resident) / sum_of(room));
    for (const char* reason :
         {"capacity", "window", "policy_trim", "preempt", "sequence_end", "user"}) {
      add((std::string("removed_") + reason).c_str(), removed(reason));
    }
    add("preemptions", parked_);
    add("refusals", n("refusal"));
    add("budget_falls", falls);
    add("budget_lifts", n("budget") - falls);
    add("violations", n("violation"));
    add("shortfalls", n("shortfall"));
    add("lookups", lookups);
    add("hits", hits);
    add("regrets", regrets);
    const double looked = static_cast<double>(std::max<int64_t>(1, lookups));
    add("hit_rate", static_cast<double>(hits) / looked);
    add("regret", static_cast<double>(regrets) / looked);
    return f;
  }

 private:
  void take(const Json& r) {
    const std::string kind = r["record"];
    ++times[kind];
    last = std::max(last, r["seconds"].get<double>());
    if (kind == "engine") {
      engine = r;
      pool = r["pool_pages"];
    } else if (kind == "rules") {
      rules[r["number"]] = r;
    } else if (kind == "limit") {
      pool = r["pool_pages"];
    } else if (kind == "step_end") {
      failed += r["completed"] ? 0 : 1;
      took.push_back(r["took"]);
    } else if (kind == "tick") {
      step(r);
    } else if (kind == "request" || kind == "run" || kind == "finish") {
      request(kind, r);
    } else if (kind == "miss" || kind == "prefix" || kind == "block" || kind == "tokens") {
      prefix(kind, r);
    } else if (kind == "removal") {
      removal(r);
    } else if (kind == "refusal") {
      shortages.push_back(steps.empty() ? Moment() : steps.back());
    } else if (kind == "budget" && !r["after"].is_null()) {
      ++falls;
      if (fell_for_context(r)) return;
      shortages.push_back(steps.empty() ? Moment() : steps.back());
    } else {
      table(kind, r);
    }
  }

  /// Whether a budget fell as the context came to an end: first of all, at a text's own need.
  bool fell_for_context(const Json& r) {
    const auto at = texts_.find(r["sequence"]);
    if (!r["before"].is_null() || at == texts_.end()) return false;
    if (r["request"] != at->second.request) return false;
    int64_t interval = 0;
    for (const Json& layer : rules[at->second.rules]["layers"]) {
      if (layer["elastic"] && layer["compact"]) {
        interval = std::max(interval, layer["schedule"]["every"].get<int64_t>());
      }
    }
    if (r["length"].get<int64_t>() + interval <= engine["context"]) return false;
    ++context_falls;
    at->second.fell_for_context = true;
    return true;
  }

  void request(const std::string& kind, const Json& r) {
    if (kind == "request") {
      requests.push_back({r["request"],
                          r["session"],
                          r["begin"],
                          r["prompt_tokens"],
                          r["max_tokens"],
                          at_,
                          -1,
                          0,
                          0,
                          "",
                          {},
                          {}});
      return;
    }
    if (kind == "finish") {
      Request& its = *find(r["request"]);
      its.ended = at_;
      its.reason = r["finish_reason"];
      its.made = r["made_tokens"];
      its.recomputed = r["recomputed_tokens"];
      return;
    }
    Text& text = texts_[r["sequence"]];
    text.request = r["request"];
    text.owner = r["session"] != 0 ? Owner(r["session"], 0) : Owner(0, r["request"]);
    note_prompt(text);
  }
  Request* find(int64_t number) {
    for (Request& r : requests) {
      if (r.number == number) return &r;
    }
    return nullptr;
  }
  /// The beginning of a text is the prompt of the request that it serves.
  void note_prompt(Text& text) {
    Request* r = find(text.request);
    if (r == nullptr) return;
    for (const Json& miss : text.misses) {
      if (miss["reason"] == "differs") r->differs_at = miss["differs_at"];
      if (miss["reason"] == "not_shared") r->asked_in_vain = true;
    }
    text.misses.clear();
    const auto blocks = std::min<size_t>(text.blocks.size(), r->prompt / size());
    if (blocks > r->blocks.size()) {
      r->blocks.assign(text.blocks.begin(), text.blocks.begin() + static_cast<ptrdiff_t>(blocks));
    }
    const auto ids = std::min<size_t>(text.ids.size(), r->prompt);
    if (ids > r->ids.size()) {
      r->ids.assign(text.ids.begin(), text.ids.begin() + static_cast<ptrdiff_t>(ids));
    }
  }

  void prefix(const std::string& kind, const Json& r) {
    Text& text = texts_[r["sequence"]];
    if (kind == "miss") {
      lookups += r["lookups"].get<int64_t>();
      regrets += r["regrets"].get<int64_t>();
      text.misses.push_back(r["miss"]);
    } else if (kind == "prefix") {
      lookups += r["lookups"].get<int64_t>();
      hits += r["hits"].get<int64_t>();
      text.length = r["to"];
      longest = std::max(longest, text.length);
    } else if (kind == "tokens") {
      text.ids.resize(r["first_position"].get<size_t>());
      for (const int id : r["ids"]) text.ids.push_back(id);
      note_prompt(text);
    } else {
      const uint64_t hash = r["hash"];
      if (seen_.count(hash) > 0) ++gaps[bin(r["step"].get<int64_t>() - seen_[hash])];
      seen_[hash] = r["step"];
      text.blocks.resize(r["block"].get<size_t>());
      text.blocks.push_back(hash);
      note_prompt(text);
    }
  }

  /// What tables list.
  void table(const std::string& kind, const Json& r) {
    if (kind == "open") {
      Text& text = texts_[r["sequence"]] = {};
      text.is_pin = r["pin"];
      text.rules = r["rules"];
      text.layers.resize(static_cast<size_t>(n_layers()));
    } else if (kind == "close") {
      if (r["reason"] == "preempt") {
        ++parked_;
        shortages.push_back(steps.empty() ? Moment() : steps.back());
      }
      texts_.erase(r["sequence"]);
    } else if (kind == "fork") {
      Text copy = texts_[r["from"]];
      copy.owner = {};
      copy.request = 0;
      texts_[r["to"]] = copy;
    } else if (kind == "commit") {
      Text& text = texts_[r["sequence"]];
      const int64_t added = r["n_tokens"];
      written += added;
      text.length = r["length"];
      longest = std::max(longest, text.length);
      for (std::set<int64_t>& its : text.layers) {
        for (int64_t p = text.length - added; p < text.length; ++p) its.insert(p);
      }
      note_length(text);
    } else if (kind == "listed" || kind == "passed") {
      std::set<int64_t>& its = texts_[r["sequence"]].layers[r["layer"].get<size_t>()];
      const int64_t first = r["first_position"], end = first + r["n_tokens"].get<int64_t>();
      its.erase(its.lower_bound(first), its.lower_bound(end));
      for (int64_t p = first; p < end && kind == "listed"; ++p) its.insert(p);
    } else if (kind == "cut") {
      Text& text = texts_[r["sequence"]];
      text.length = r["length"];
      for (std::set<int64_t>& its : text.layers) its.erase(its.lower_bound(text.length), its.end());
      text.blocks.resize(std::min<size_t>(text.blocks.size(), text.length / size()));
      text.ids.resize(std::min<size_t>(text.ids.size(), text.length));
    }
  }
  /// Layers that look farther than the model is made for; texts that went on without their start.
  void note_length(const Text& text) {
    if (text.lost_start) went_on_to = std::max(went_on_to, text.length);
    const int64_t made_for = engine["model_context"];
    if (text.length <= made_for) return;
    int64_t layers = 0;
    for (const Json& layer : rules[text.rules]["layers"]) {
      const bool is_near = !layer["window"].is_null() && layer["sinks"] == 0 &&
                           layer["window"].get<int64_t>() <= made_for;
      layers += layer["compact"].get<bool>() || is_near ? 0 : 1;
    }
    beyond = std::max(beyond, layers);
  }

  void removal(const Json& r) {
    Removal out{r["reason"],
                r["layer"],
                r["sequence"],
                r["first_position"],
                r["length"],
                r["age_steps"],
                r.value("sufficient_budget", int64_t{0}),
                false,
                false};
    if (out.sequence >= 0) {
      Text& text = texts_[static_cast<int>(out.sequence)];
      const Json& rule = rules[text.rules]["layers"][static_cast<size_t>(out.layer)];
      out.is_elastic = rule["elastic"];
      out.is_for_context = text.fell_for_context;
      std::set<int64_t>& its = text.layers[static_cast<size_t>(out.layer)];
      const int64_t end = out.first + r["n_tokens"].get<int64_t>();
      its.erase(its.lower_bound(out.first), its.lower_bound(end));
      if (out.reason == "window" && out.first == 0) {
        text.lost_start = true;
        lost_start.emplace(out.layer, out.length);
        window = std::max(window, rule["window"].get<int64_t>());
      }
    }
    removals.push_back(out);
  }

  void step(const Json& r) {
    active.push_back(pool - r["pages_free"].get<int64_t>() - r["pages_cached"].get<int64_t>());
    Moment now;
    int64_t whole = 0, positions = 0, places = 0;
    std::vector<int64_t> by_layer(static_cast<size_t>(n_layers()));
    for (const auto& [sequence, text] : texts_) {
      int64_t entries = 0;
      for (size_t i = 0; i < text.layers.size(); ++i) {
        const std::set<int64_t>& its = text.layers[i];
        by_layer[i] += static_cast<int64_t>(its.size());
        std::set<int64_t> blocks;
        for (const int64_t p : its) blocks.insert(p / size());
        entries += static_cast<int64_t>(blocks.size());
        positions += static_cast<int64_t>(its.size());
      }
      places += entries * size();
      if (text.is_pin) continue;
      whole += (text.length + size() - 1) / size() * n_layers();
      now.held[text.owner] += entries;
    }
    in_a_layer = std::max(in_a_layer, most_of(by_layer));
    steps.push_back(now);
    full.push_back(whole);
    resident.push_back(positions);
    room.push_back(places);
  }

  std::map<int, Text> texts_;
  std::map<uint64_t, int64_t> seen_;
  int64_t at_ = 0, parked_ = 0;
};

}  // namespace paddock::test
