// paddock trace: what a recorded trace holds, and the same in other forms.
#include <fmt/format.h>
#include <paddock/trace.h>

#include <array>
#include <map>
#include <nlohmann/json.hpp>

#include "common.h"
#include "trace_export.h"

namespace cli {
namespace {

/// What left a layer for one reason.
struct Gone {
  int64_t blocks = 0;
  int64_t first_step = 0, first_position = 0, last_position = 0;
};

struct Summary {
  paddock::TraceHeader header;
  std::string policy;
  paddock::TraceExtent extent;
  int64_t requests = 0, sessions = 0, finished = 0, steps = 0, failed_steps = 0, tokens = 0;
  int64_t lookups = 0, hits = 0, regrets = 0, falls = 0, lifts = 0, parked = 0, refusals = 0;
  int64_t allocated = 0, decisions = 0, violations = 0;
  double step_seconds = 0, slowest = 0, seconds = 0;
  std::map<std::pair<int32_t, int>, Gone> gone;  // by layer and reason
  std::map<int64_t, int64_t> session_turns;

  void take(const paddock::TraceRecord& record) {
    using namespace paddock;
    seconds = record.seconds;
    const auto& what = record.what;
    if (const auto* h = std::get_if<TraceHeader>(&what)) header = *h;
    if (const auto* r = std::get_if<TraceRules>(&what); r != nullptr && r->number == 0) {
      policy = policy.empty() || policy == r->policy ? r->policy : policy + ", then " + r->policy;
    }
    if (const auto* r = std::get_if<TraceRequest>(&what)) {
      ++requests;
      if (r->session != 0) ++session_turns[r->session];
    }
    finished += std::holds_alternative<TraceFinish>(what) ? 1 : 0;
    steps += std::holds_alternative<TraceTick>(what) ? 1 : 0;
    if (const auto* e = std::get_if<TraceStepEnd>(&what)) {
      failed_steps += e->completed ? 0 : 1;
      step_seconds += e->seconds;
      slowest = std::max(slowest, e->seconds);
    }
    if (const auto* c = std::get_if<TraceCommit>(&what)) {
      tokens += c->n_tokens;
      allocated += c->pages_per_layer * header.n_layers;
    }
    allocated += std::holds_alternative<TraceCopy>(what) ? 1 : 0;
    if (const auto* c = std::get_if<TraceClose>(&what)) {
      parked += c->reason == RemovalReason::kPreempt ? 1 : 0;
    }
    if (const auto* p = std::get_if<TracePrefix>(&what)) {
      lookups += p->lookups;
      hits += p->hits;
    }
    if (const auto* m = std::get_if<TraceMiss>(&what)) {
      lookups += m->lookups;
      regrets += m->regrets;
    }
    refusals += std::holds_alternative<TraceRefusal>(what) ? 1 : 0;
    decisions += std::holds_alternative<TraceDecision>(what) ? 1 : 0;
    violations += std::holds_alternative<TraceViolation>(what) ? 1 : 0;
    if (const auto* b = std::get_if<TraceBudget>(&what)) {
      ++(b->change.after == kUnlimited ? lifts : falls);
    }
    if (const auto* r = std::get_if<TraceRemoval>(&what)) take(r->event);
  }
  void take(const paddock::KvEvent& e) {
    Gone& g = gone[{e.layer, static_cast<int>(e.reason)}];
    if (g.blocks++ == 0) {
      g.first_step = e.step;
      g.first_position = g.last_position = e.first_position;
    }
    g.first_position = std::min(g.first_position, e.first_position);
    g.last_position = std::max(g.last_position, e.first_position + e.n_tokens - 1);
  }
};

const char* name_of(int reason) {
  return paddock::removal_reason_name(static_cast<paddock::RemovalReason>(reason));
}

Json to_json(const Summary& s) {
  Json out = {{"version", s.header.version},
              {"library", s.header.library},
              {"model", s.header.model},
              {"layers", s.header.n_layers},
              {"policy", s.policy},
              {"block_size", s.header.block_size},
              {"page_bytes", s.header.page_bytes},
              {"pool_pages", s.header.pool_pages},
              {"kv_type", s.header.kv_type},
              {"tokens", s.header.has_tokens},
              {"scores", s.header.has_scores},
              {"whole", s.extent.is_whole},
              {"bytes", s.extent.bytes},
              {"bytes_total", s.extent.total},
              {"records", s.extent.records},
              {"requests", s.requests},
              {"finished", s.finished},
              {"sessions", s.session_turns.size()},
              {"steps", s.steps},
              {"steps_failed", s.failed_steps},
              {"seconds", s.seconds},
              {"step_seconds", s.step_seconds},
              {"step_seconds_max", s.slowest},
              {"tokens_written", s.tokens},
              {"pages_allocated", s.allocated},
              {"prefix_lookups", s.lookups},
              {"prefix_hits", s.hits},
              {"reclaim_regrets", s.regrets},
              {"reservations_refused", s.refusals},
              {"trim_decisions", s.decisions},
              {"policy_violations", s.violations},
              {"budget_falls", s.falls},
              {"budget_lifts", s.lifts},
              {"parked", s.parked},
              {"removed", Json::array()}};
  for (const auto& [key, gone] : s.gone) {
    out["removed"].push_back({{"layer", key.first},
                              {"reason", name_of(key.second)},
                              {"blocks", gone.blocks},
                              {"first_step", gone.first_step},
                              {"from", gone.first_position},
                              {"to", gone.last_position}});
  }
  return out;
}

std::string to_text(const std::string& path, const Summary& s) {
  std::string out =
      fmt::format("{}: {} under '{}', {} layers, blocks of {}, {} pages of {} bytes, {}\n", path,
                  s.header.model.empty() ? "a model without a name" : s.header.model, s.policy,
                  s.header.n_layers, s.header.block_size, s.header.pool_pages, s.header.page_bytes,
                  s.header.kv_type);
  if (s.extent.bytes < s.extent.total) {
    out += fmt::format("cut off: {} of {} bytes were read\n", s.extent.bytes, s.extent.total);
  } else if (!s.extent.is_whole) {
    out += "the engine had not ended when this was written\n";
  }
  int64_t in_sessions = 0;
  for (const auto& [session, turns] : s.session_turns) in_sessions += turns;
  out += fmt::format(
      "{} requests ({} of them turns of {} sessions), {} finished; {} tokens in {} steps, {:.3f} s "
      "(slowest {:.4f} s)\n",
      s.requests, in_sessions, s.session_turns.size(), s.finished, s.tokens, s.steps,
      s.step_seconds, s.slowest);
  out += fmt::format("{} pages allocated, {} reservations refused, {} sequences parked\n",
                     s.allocated, s.refusals, s.parked);
  out += fmt::format("blocks looked for {}, found {}, missed though they had been there {}\n",
                     s.lookups, s.hits, s.regrets);
  out += fmt::format("{} decisions; budgets fell {} times, {} were lifted\n", s.decisions, s.falls,
                     s.lifts);
  if (s.gone.empty()) return out + "nothing left\n";
  // Layers in which the same left are told together.
  std::array<std::map<std::string, std::vector<int32_t>>, paddock::kRemovalReasons> lines;
  for (const auto& [key, gone] : s.gone) {
    const std::string line =
        fmt::format("{} blocks, positions {} to {}, from step {} on", gone.blocks,
                    gone.first_position, gone.last_position, gone.first_step);
    lines[static_cast<size_t>(key.second)][line].push_back(key.first);
  }
  for (size_t reason = 0; reason < lines.size(); ++reason) {
    for (const auto& [line, layers] : lines[reason]) {
      const bool many = layers.size() > 1;
      const std::string which =
          many && layers.back() - layers.front() + 1 == static_cast<int32_t>(layers.size())
              ? fmt::format("{}-{}", layers.front(), layers.back())
              : fmt::format("{}", fmt::join(layers, ","));
      out += fmt::format("{:<13} layer{} {}: {}{}\n", name_of(static_cast<int>(reason)),
                         many ? "s" : "", which, line, many ? ", in each" : "");
    }
  }
  return out;
}

struct Args {
  std::string path, to, output = "-";
  bool json = false;
};

int run(const Args& args) {
  if (!args.to.empty() && args.json) throw UsageError("--json: goes with the summary, not --to");
  if (args.to.empty() && args.output != "-") throw UsageError("-o: goes with --to");
  if (args.to.empty()) {
    Summary summary;
    summary.extent = paddock::read_trace(
        args.path, [&](const paddock::TraceRecord& record) { summary.take(record); });
    if (args.json) {
      print_json(to_json(summary));
    } else {
      print(to_text(args.path, summary));
    }
    return 0;
  }
  using Form = std::function<void(const std::string&, const WriteText&)>;
  const std::map<std::string, Form> forms = {{"jsonl", write_trace_lines},
                                             {"perfetto", write_trace_timeline},
                                             {"mooncake", write_trace_requests}};
  const auto form = forms.find(args.to);
  if (form == forms.end()) {
    throw UsageError(fmt::format("--to {}: must be jsonl, perfetto or mooncake", args.to));
  }
  OutputFile out(args.output);
  std::string waiting;
  form->second(args.path, [&](std::string_view text) {
    waiting += text;
    if (waiting.size() < 65536) return;
    out.write(waiting);
    waiting.clear();
  });
  out.write(waiting);
  out.finish();
  return 0;
}

}  // namespace

void add_trace(CommandLine& tool) {
  auto args = std::make_shared<Args>();
  Command command =
      tool.add("trace", "what a trace of --kv-trace holds, or the same in other forms");
  command.add("trace", args->path, "the file that --kv-trace wrote").required();
  command
      .add("--to", args->to,
           "jsonl: each record; perfetto: a timeline for ui.perfetto.dev; mooncake: the requests, "
           "for 'paddock replay' and other simulators")
      .not_empty();
  command.add("-o,--output", args->output, "where to, with --to").shows_default();
  command.add_flag("--json", args->json, "the summary as one JSON object on stdout");
  command.runs([args] { return run(*args); });
}

}  // namespace cli
