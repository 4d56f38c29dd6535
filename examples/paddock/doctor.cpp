// paddock doctor: what ailed a run, from its trace: a verdict, its evidence and the flag that
// helps; as words, as one JSON object, as a page.
#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "common.h"
#include "doctor_page.h"
#include "doctor_words.h"
#include "log.h"
#include "recorded.h"

namespace cli {
namespace {

using paddock::Diagnosis;

struct Args {
  std::vector<std::string> traces;
  std::string output, fail_on;
  RerunArgs rerun;  // its engine.json is this command's
};

/// A figure that ends the command with 1.
struct Limit {
  std::string text, name, compare;
  double value = 0;

  bool is_passed(double v) const {
    if (compare == ">=") return v >= value;
    if (compare == "<=") return v <= value;
    return compare == ">" ? v > value : v < value;
  }
};

Limit parse_limit(const std::string& text) {
  const size_t at = text.find_first_of("<>");
  const std::string wrong =
      fmt::format("--fail-on {}: must be such as regret>0.05,kv_full>0", text);
  if (at == std::string::npos || at == 0) throw UsageError(wrong);
  const size_t n = at + 1 < text.size() && text[at + 1] == '=' ? 2 : 1;
  Limit limit{text, text.substr(0, at), text.substr(at, n)};
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data() + at + n, last, limit.value);
  if (error != std::errc() || end != last) throw UsageError(wrong);
  return limit;
}

std::vector<Limit> parse_limits(const std::string& text) {
  std::vector<Limit> limits;
  if (text.empty()) return limits;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    limits.push_back(parse_limit(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return limits;
}

void check_names(const std::vector<Limit>& limits, const Diagnosis& d) {
  for (const Limit& limit : limits) {
    std::string names;
    bool is_known = false;
    for (const paddock::DoctorFigure& f : d.figures) {
      is_known |= f.name == limit.name;
      names += (names.empty() ? "" : ", ") + f.name;
    }
    if (!is_known) {
      throw UsageError(fmt::format("--fail-on {}: no figure is called '{}'; there are {}",
                                   limit.text, limit.name, names));
    }
  }
}

Json number(double value) {
  const auto whole = static_cast<int64_t>(value);
  return static_cast<double>(whole) == value ? Json(whole) : Json(value);
}

Json causes_json(const Diagnosis& d) {
  Json out = Json::array();
  for (const paddock::DoctorCause& cause : d.causes) {
    const CauseWords words = words_of(d, cause);
    Json evidence = Json::object();
    for (const paddock::DoctorFigure& f : cause.evidence) evidence[f.name] = number(f.value);
    out.push_back({{"name", paddock::ailment_name(cause.ailment)},
                   {"title", words.title},
                   {"why", words.why},
                   {"evidence", std::move(evidence)},
                   {"advice", words.advice},
                   {"flag", words.flag}});
  }
  return out;
}

Json to_json(const ExaminedTrace& t) {
  const Diagnosis& d = t.diagnosis;
  Json out = {{"trace", t.path},
              {"verdict", verdict(d)},
              {"model", d.header.model},
              {"policy", d.policy},
              {"whole", d.extent.is_whole}};
  for (const paddock::DoctorFigure& f : d.figures) out[f.name] = number(f.value);
  out["found"] = causes_json(d);
  out["losses"] = Json::array();
  for (const paddock::DoctorLoss& loss : d.losses) {
    out["losses"].push_back({{"reason", paddock::removal_reason_name(loss.reason)},
                             {"layer", loss.layer},
                             {"sequence", loss.sequence},
                             {"blocks", loss.blocks}});
  }
  out["lives"] = Json::object();
  for (const auto& [reason, histogram] : d.lives) {
    out["lives"][paddock::removal_reason_name(reason)] = histogram;
  }
  out["reuse_gaps"] = d.reuse_gaps;
  out["what_if"] = Json::array();
  for (const paddock::ReplayResult& r : d.what_if) {
    out["what_if"].push_back({{"policy", r.policy},
                              {"capacity", r.capacity},
                              {"found", r.found},
                              {"hit_rate", r.hit_rate},
                              {"belady_hit_rate", r.belady_hit_rate}});
  }
  out["memory"] = Json::array();
  for (const paddock::TraceMemory& m : d.memory) {
    out["memory"].push_back({{"resident_bytes", m.process.resident_bytes},
                             {"available_bytes", m.process.available_bytes},
                             {"device", m.device.device},
                             {"reserved_bytes", m.device.reserved_bytes},
                             {"process_bytes", m.device.process_bytes},
                             {"free_bytes", m.device.free_bytes},
                             {"total_bytes", m.device.total_bytes}});
  }
  if (t.reruns) out["measured"] = reruns_json(*t.reruns);
  return out;
}

/// Says which limits are passed. The exit code.
int held_against(const std::vector<Limit>& limits, const std::vector<ExaminedTrace>& traces) {
  int code = 0;
  for (const ExaminedTrace& t : traces) {
    for (const Limit& limit : limits) {
      const double value = figure(t.diagnosis, limit.name);
      if (!limit.is_passed(value)) continue;
      complain(fmt::format("{}: {} is {}: --fail-on {}", t.path, limit.name, number_text(value),
                           limit.text));
      code = 1;
    }
  }
  return code;
}

int run(const Args& args) {
  if (args.rerun.is_asked() && (args.rerun.engine.model.empty() || args.rerun.file.empty())) {
    throw UsageError("-m and -f go together: the text is run again with the model");
  }
  const std::vector<Limit> limits = parse_limits(args.fail_on);
  std::vector<ExaminedTrace> traces;
  for (const std::string& path : args.traces) {
    traces.push_back({path, paddock::diagnose(path)});
    check_names(limits, traces.back().diagnosis);
  }
  for (ExaminedTrace& t : traces) {
    if (args.rerun.is_asked()) t.reruns = try_proposals(args.rerun, t.diagnosis);
  }
  if (!args.output.empty()) {
    OutputFile page(args.output);
    page.write(doctor_page(traces));
    page.finish();
  }
  if (args.rerun.engine.json) {
    Json all = Json::array();
    for (const ExaminedTrace& t : traces) all.push_back(to_json(t));
    print_json(traces.size() == 1 ? all[0] : all, 2);
  } else {
    for (const ExaminedTrace& t : traces) {
      print(doctor_text(t.path, t.diagnosis));
      if (t.reruns) print(reruns_text(*t.reruns));
    }
  }
  return held_against(limits, traces);
}

}  // namespace

void add_doctor(CommandLine& tool) {
  auto args = std::make_shared<Args>();
  Command command = tool.add("doctor", "what ailed a run, from its trace, and the flag that helps");
  command.add("traces", args->traces, "the files that --kv-trace wrote").required();
  command.add("-o,--output", args->output, "a page with everything, drawings too").output_file();
  command
      .add("--fail-on", args->fail_on,
           "exit with 1 where a figure of --json is beyond a limit: regret>0.05,kv_full>0")
      .not_empty();
  EngineArgs& engine = args->rerun.engine;
  command
      .add("-m,--model", engine.model,
           "with -f: the run's model, to run that text again under each proposal, and measure")
      .not_empty();
  command.add("-f,--file", args->rerun.file, "with -m: the text, '-' for stdin").not_empty();
  add_machine(command, engine);
  command.add_flag("--json", engine.json,
                   "one JSON object on stdout (several traces: an array of them)");
  command.runs([args] { return run(*args); });
}

}  // namespace cli
