// paddock replay: recorded requests once more, without a model: what caches of other sizes, and
// other orders of reclaiming, would have found again; with --chat, a conversation with one.
#include <fmt/format.h>
#include <paddock/trace.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "advice.h"
#include "common.h"
#include "log.h"
#include "replay_chat.h"
#include "trace_export.h"

namespace cli {
namespace {

struct Args {
  std::string path;
  std::vector<std::string> reclaim = paddock::reclaim_names();
  std::vector<int> capacities;
  std::string block_bytes;
  bool curve = false;
  double sample = 1;
  ChatReplay chat;
  EngineArgs engine;  // with --chat; .json for both
};

struct Outcome {
  paddock::RequestTrace trace;
  paddock::ReplayReport report;
  std::vector<paddock::CurvePoint> curve;
  uint64_t block_bytes = 0;  // 0: not told
};

/// The tables' capacities where nobody gave any: parts of what holds every block.
std::vector<int64_t> parts_of(int64_t distinct) {
  std::set<int64_t> parts;
  for (const int64_t divisor : {64, 16, 4, 2, 1}) {
    if (distinct / divisor > 0) parts.insert(distinct / divisor);
  }
  return {parts.begin(), parts.end()};
}

/// 1, 2, 5, 10, ... up to what holds every block, and the sizes that were asked for.
std::vector<int64_t> points_of(int64_t distinct, const std::vector<int64_t>& asked) {
  std::set<int64_t> points(asked.begin(), asked.end());
  for (int64_t decade = 1; decade < distinct; decade *= 10) {
    for (const int64_t digit : {1, 2, 5}) {
      if (decade * digit < distinct) points.insert(decade * digit);
    }
  }
  if (distinct > 0) points.insert(distinct);
  return {points.begin(), points.end()};
}

Json to_json(const Outcome& o) {
  Json results = Json::array();
  for (const paddock::ReplayResult& r : o.report.results) {
    Json result = {{"policy", r.policy},       {"capacity", r.capacity},
                   {"hit_rate", r.hit_rate},   {"belady_hit_rate", r.belady_hit_rate},
                   {"of_belady", r.of_belady}, {"found", r.found},
                   {"regret", r.regret},       {"reclaimed", r.reclaimed},
                   {"too_large", r.too_large}};
    if (o.block_bytes > 0) {
      result["capacity_bytes"] = static_cast<uint64_t>(r.capacity) * o.block_bytes;
      result["found_bytes"] = static_cast<uint64_t>(r.found) * o.block_bytes;
    }
    results.push_back(std::move(result));
  }
  Json out = {{"requests", o.report.requests},
              {"references", o.report.references},
              {"infinite_hit_rate", o.report.infinite_hit_rate},
              {"distinct", o.report.distinct},
              {"results", std::move(results)}};
  if (o.curve.empty()) return out;
  out["curve"] = Json::array();
  for (const paddock::CurvePoint& p : o.curve) {
    out["curve"].push_back({{"capacity", p.capacity}, {"hit_rate", p.hit_rate}});
  }
  return out;
}

/// What there is, in a line or two.
std::string heading(const Args& args, const Outcome& o) {
  double seconds = 0;
  int64_t input = 0;
  for (const paddock::RequestTrace::Request& request : o.trace.requests) {
    seconds = std::max(seconds, request.seconds);
    input += request.input_tokens;
  }
  std::string out = fmt::format("{}: {} requests", one_line(args.path), o.report.requests);
  if (seconds > 0) out += fmt::format(" in {:.0f} s", seconds);
  if (input > 0) out += fmt::format(", {} tokens of prompts", input);
  return out + fmt::format(
                   "; {} blocks asked for, {} different ones\n"
                   "room for all of them finds {:.4f}\n",
                   o.report.references, o.report.distinct, o.report.infinite_hit_rate);
}

std::string in_mib(double bytes) { return fmt::format("{:.1f}", bytes / (1024.0 * 1024.0)); }

void print_tables(const Args& args, const Outcome& o) {
  std::string out = heading(args, o);
  const bool in_bytes = o.block_bytes > 0;
  out += fmt::format("\n| policy | capacity |{} hit rate | of Belady | Belady | regret |\n",
                     in_bytes ? " MiB | MiB not computed |" : "");
  out += fmt::format("|---|---|{}---|---|---|---|\n", in_bytes ? "---|---|" : "");
  for (const paddock::ReplayResult& r : o.report.results) {
    out += fmt::format("| {} | {} |", one_line(r.policy), r.capacity);
    if (in_bytes) {
      const auto size = static_cast<double>(o.block_bytes);
      out += fmt::format(" {} | {} |", in_mib(static_cast<double>(r.capacity) * size),
                         in_mib(static_cast<double>(r.found) * size));
    }
    out += fmt::format(" {:.4f} | {:.1f} % | {:.4f} | {} |\n", r.hit_rate, 100 * r.of_belady,
                       r.belady_hit_rate, r.regret);
  }
  for (const paddock::ReplayResult& r : o.report.results) {
    if (r.too_large == 0 || r.policy != o.report.results.front().policy) continue;
    out +=
        fmt::format("{} requests have more than {} blocks: an engine of that size refuses them\n",
                    r.too_large, r.capacity);
  }
  if (!o.curve.empty()) {
    out += fmt::format(
        "\n| capacity | lru{} |\n|---|---|\n",
        args.sample < 1 ? fmt::format(", estimated from {:g} of the blocks", args.sample) : "");
    for (const paddock::CurvePoint& p : o.curve) {
      out += fmt::format("| {} | {:.4f} |\n", p.capacity, p.hit_rate);
    }
  }
  print(out);
}

/// Whether the file is what --kv-trace wrote. One that cannot be read is none.
bool is_cache_trace(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string begins(paddock::kTraceMagic.size(), '\0');
  in.read(begins.data(), static_cast<std::streamsize>(begins.size()));
  return in && begins == paddock::kTraceMagic;
}

/// Requests in whichever form they are; of a trace the bytes of its blocks are known, too.
void read_requests(const std::string& path, Outcome& o) {
  if (path == "-") {
    o.trace = paddock::parse_request_trace(read_file(path), "stdin");
    return;
  }
  if (!is_cache_trace(path)) {
    o.trace = paddock::read_request_trace(path);
    return;
  }
  std::string lines;
  const uint64_t bytes = write_trace_requests(path, [&](std::string_view line) { lines += line; });
  o.trace = paddock::parse_request_trace(lines, path);
  if (o.block_bytes == 0) o.block_bytes = bytes;
}

/// Two commands in one: what belongs to the other is refused.
void check_usage(const Args& args) {
  if (args.path.empty() == args.chat.log.empty()) {
    throw UsageError("give either the path of recorded requests or --chat with a conversation");
  }
  if (args.chat.log.empty()) {
    if (!args.engine.model.empty()) throw UsageError("-m goes with --chat");
    if (!args.chat.sweep.empty()) throw UsageError("--sweep goes with --chat");
    return;
  }
  if (args.engine.model.empty()) throw UsageError("--chat: needs a model, -m PATH");
  if (args.chat.sweep.empty()) throw UsageError("--chat: needs rules to compare, --sweep SPEC");
  if (args.curve || !args.capacities.empty()) {
    throw UsageError("--curve and --capacity are of recorded requests, not of --chat");
  }
}

int run(const Args& args) {
  check_usage(args);
  if (!args.chat.log.empty()) return run_chat_replay(args.chat, args.engine);
  if (args.sample != 1 && !args.curve) throw UsageError("--sample goes with --curve");
  if (!(args.sample > 0 && args.sample <= 1)) {
    throw UsageError(fmt::format("--sample {}: must be above 0 and at most 1", args.sample));
  }
  for (const int capacity : args.capacities) {
    if (capacity < 0) throw UsageError(fmt::format("--capacity {}: must be 0 or more", capacity));
  }
  Outcome o;
  if (!args.block_bytes.empty()) {
    o.block_bytes = parse_size("--block-bytes", args.block_bytes);
    if (o.block_bytes == 0) throw UsageError("--block-bytes 0: must be 1 or more");
  }
  paddock::ReplayOptions options;
  options.reclaim = args.reclaim;
  options.capacities.assign(args.capacities.begin(), args.capacities.end());
  read_requests(args.path, o);
  if (options.capacities.empty()) {
    options.capacities = parts_of(paddock::replay_requests(o.trace, {.reclaim = {}}).distinct);
  }
  o.report = paddock::replay_requests(o.trace, options);
  if (args.curve) {
    o.curve =
        paddock::lru_curve(o.trace, points_of(o.report.distinct, options.capacities), args.sample);
  }
  if (args.engine.json) {
    print_json(to_json(o), 2);
  } else {
    print_tables(args, o);
  }
  return 0;
}

}  // namespace

void add_replay(CommandLine& tool) {
  auto args = std::make_shared<Args>();
  Command command =
      tool.add("replay", "what other caches would have found again of recorded requests");
  command
      .add("path", args->path,
           "what --kv-trace wrote, or JSON lines with hash_ids: Mooncake's or Bailian's")
      .not_empty();
  command.add("--reclaim", args->reclaim, "orders of reclaiming").split_at_commas().shows_default();
  command
      .add("--capacity", args->capacities,
           "sizes of the cache, in blocks (default: parts of what holds all)")
      .split_at_commas();
  command
      .add("--block-bytes", args->block_bytes,
           "of one block, such as 64KiB: adds sizes (default: a trace's own)")
      .not_empty();
  command.add_flag("--curve", args->curve, "what lru finds in caches of every size");
  command.add("--sample", args->sample, "with --curve: from so many of the blocks, such as 0.01");
  command
      .add("--chat", args->chat.log,
           "a conversation under other rules: JSON lines with role and content, or OpenAI's "
           "messages")
      .not_empty();
  command.add("--sweep", args->chat.sweep, "with --chat: a policy to compare, once for each")
      .one_at_a_time()
      .not_empty();
  command.add("--chat-template", args->chat.template_name, "with --chat: the format").not_empty();
  args->engine.add_to(command, false);
  command.runs([args] { return run(*args); });
}

}  // namespace cli
