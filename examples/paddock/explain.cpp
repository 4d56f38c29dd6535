// paddock explain: from a trace, in words: where something lay, which layers lost it, and why.
#include <fmt/format.h>
#include <paddock/explain.h>

#include <nlohmann/json.hpp>

#include "advice.h"
#include "common.h"
#include "explain_text.h"
#include "recorded.h"
#include "run_again.h"

namespace cli {
namespace {

struct Args {
  std::string path;
  paddock::ExplainQuery query;
  std::optional<int> layer, sequence;
  TryArgs again;  // its engine.json is this command's
};

/// What goes with what.
void check_usage(const Args& args, bool asks) {
  const TryArgs& again = args.again;
  const bool tries = !again.rules.empty() || !again.budget.empty();
  if (again.engine.model.empty()) {
    if (tries) throw UsageError("--sweep and --kv-budget need the run's model, -m PATH");
    return;
  }
  if (!tries) throw UsageError("-m: say what to try, --sweep SPEC or --kv-budget SIZE");
  if (!asks) throw UsageError("-m: say of what, by --text, --position or --turn");
  if (!again.budget.empty()) parse_size("--kv-budget", again.budget);
}

std::string to_json(const paddock::Explanation& e,
                    const std::vector<std::vector<SpanAgain>>& again) {
  if (again.empty()) return paddock::to_json(e);
  Json out = Json::parse(paddock::to_json(e));
  for (size_t i = 0; i < again.size(); ++i) out["found"][i]["again"] = again_json(again[i]);
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

int run(Args args) {
  if (args.layer) args.query.layer = *args.layer;
  if (args.sequence) args.query.sequence = *args.sequence;
  const auto& q = args.query;
  const bool asks = !q.text.empty() || q.position || q.turn || q.layer || q.sequence;
  check_usage(args, !q.text.empty() || q.position || q.turn);
  const paddock::Explanation e = paddock::explain(args.path, args.query);
  std::vector<std::vector<SpanAgain>> again;
  if (!args.again.engine.model.empty()) again = run_again(args.again, e);
  if (args.again.engine.json) {
    print(to_json(e, again) + "\n");
    return 0;
  }
  std::string out = fmt::format("{}: '{}', {} layers, blocks of {}\n", args.path, e.policy,
                                e.header.n_layers, e.header.block_size);
  if (!e.extent.is_whole) {
    out += fmt::format("not whole: {} of {} bytes were read\n", e.extent.bytes, e.extent.total);
  }
  if (!asks) {
    out += summary_text(e);
  } else if (e.spans.empty()) {
    out += "that is nowhere in the trace\n";
  }
  for (size_t i = 0; i < e.spans.size(); ++i) {
    out += span_text(e.spans[i], e.header.n_layers);
    if (i < again.size()) out += again_text(again[i], e.header.n_layers);
  }
  print(out);
  return 0;
}

}  // namespace

void add_explain(CommandLine& tool) {
  auto args = std::make_shared<Args>();
  Command command = tool.add(
      "explain", "from a trace: what left the cache, when, why, and what would have kept it");
  command.add("trace", args->path, "the file that --kv-trace wrote").required();
  command.add("--text", args->query.text, "wherever this occurs (with --trace-tokens)").not_empty();
  command.add("--position", args->query.position, "the block that has this position");
  command.add("--turn", args->query.turn, "what was said and answered in this turn, from 1");
  command.add("--layer", args->layer, "this layer alone");
  command.add("--sequence", args->sequence, "sequences of this number alone");
  EngineArgs& engine = args->again.engine;
  command
      .add("-m,--model", engine.model,
           "the run's model: the sequence is run again with --sweep or --kv-budget, and it is said "
           "what became of it then (with --trace-tokens)")
      .not_empty();
  command.add("--sweep", args->again.rules, "with -m: another rule, once for each")
      .one_at_a_time()
      .not_empty();
  command.add("--kv-budget", args->again.budget, "with -m: another page pool, such as 24MiB")
      .not_empty();
  add_machine(command, engine);
  command.add_flag("--json", engine.json, "one JSON object on stdout");
  command.runs([args] { return run(*args); });
}

}  // namespace cli
