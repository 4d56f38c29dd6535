// paddock explain: from a trace, in words: where something lay, which layers lost it, and why.
#include <fmt/format.h>
#include <paddock/explain.h>

#include "common.h"
#include "explain_text.h"

namespace cli {
namespace {

using paddock::ExplainedSpan;

struct Args {
  std::string path;
  paddock::ExplainQuery query;
  std::optional<int> layer, sequence;
  bool json = false;
};

int run(Args args) {
  if (args.layer) args.query.layer = *args.layer;
  if (args.sequence) args.query.sequence = *args.sequence;
  const paddock::Explanation e = paddock::explain(args.path, args.query);
  if (args.json) {
    print(paddock::to_json(e) + "\n");
    return 0;
  }
  std::string out = fmt::format("{}: '{}', {} layers, blocks of {}\n", args.path, e.policy,
                                e.header.n_layers, e.header.block_size);
  if (!e.extent.is_whole) {
    out += fmt::format("not whole: {} of {} bytes were read\n", e.extent.bytes, e.extent.total);
  }
  const auto& q = args.query;
  const bool asks = !q.text.empty() || q.position || q.turn || q.layer || q.sequence;
  if (!asks) {
    out += summary_text(e);
  } else if (e.spans.empty()) {
    out += "that is nowhere in the trace\n";
  }
  for (const ExplainedSpan& span : e.spans) out += span_text(span, e.header.n_layers);
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
  command.add_flag("--json", args->json, "one JSON object on stdout");
  command.runs([args] { return run(*args); });
}

}  // namespace cli
