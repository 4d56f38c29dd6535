// paddock bench: llama-bench's tests and their meaning. ppN: one prompt of N random tokens; tgN: N
// steps of one token; @dD: after D tokens. No sampling; one warm-up run.
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "bench_parallel.h"
#include "common.h"

namespace cli {
namespace {

struct Args {
  EngineArgs engine;
  std::vector<int> prompt, generate, depth{0};
  int repetitions = 5;
  std::string output = "md";
  std::vector<int> parallel;
  int beside = 0;
  TraceArgs trace;
};

struct Row {
  std::string test;
  double mean = 0, stddev = 0, gigabytes = 0;
  long long kv_bytes = 0;
};

class Bench {
 public:
  Bench(const Args& args, const paddock::Model& model, paddock::Engine& engine)
      : args_(args), model_(model), engine_(engine) {}

  Row run(bool prefill, int n, int depth) {
    std::vector<double> rates;
    measure(prefill, n, depth);  // warm-up
    for (int i = 0; i < args_.repetitions; ++i) rates.push_back(n / measure(prefill, n, depth));
    Row row;
    row.test = fmt::format("{}{}{}", prefill ? "pp" : "tg", n,
                           depth > 0 ? fmt::format("@d{}", depth) : "");
    for (const double rate : rates) row.mean += rate / static_cast<double>(rates.size());
    double square = 0;
    for (const double rate : rates) square += (rate - row.mean) * (rate - row.mean);
    if (rates.size() > 1) row.stddev = std::sqrt(square / static_cast<double>(rates.size() - 1));
    const paddock::KvStats& stats = stats_;
    const auto& info = model_.info();
    row.kv_bytes = stats.total.bytes;
    // Bytes read per second: all weights once a pass, and the keys and values attention met.
    const double per_key = static_cast<double>(stats.page_bytes) / stats.block_size;
    const double passes = prefill ? std::ceil(static_cast<double>(n) / args_.engine.batch) : n;
    const double keys = static_cast<double>(keys_read_) * per_key;
    row.gigabytes = (static_cast<double>(info.weight_bytes) * passes + keys) / n * row.mean / 1e9;
    return row;
  }

 private:
  double measure(bool prefill, int n, int depth) {
    std::mt19937 random(1);
    const auto id = [&] { return static_cast<int>(random() % model_.info().vocab_size); };
    const auto some = [&](int count) {
      std::vector<paddock::TokenId> tokens(count);
      for (auto& t : tokens) t = id();
      return tokens;
    };
    const paddock::SessionId session = engine_.open_session();
    if (depth > 0) engine_.feed(session, some(depth));
    const int64_t read_before = engine_.kv_stats().total.tokens_read;
    const auto start = std::chrono::steady_clock::now();
    if (prefill) {
      engine_.feed(session, some(n));
    } else {
      for (int i = 0; i < n; ++i) engine_.feed(session, some(1));
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    stats_ = engine_.kv_stats();
    keys_read_ = stats_.total.tokens_read - read_before;
    engine_.close_session(session);
    return seconds.count();
  }

  const Args& args_;
  const paddock::Model& model_;
  paddock::Engine& engine_;
  paddock::KvStats stats_;
  int64_t keys_read_ = 0;
};

void print_rows(const std::vector<Row>& rows, const std::string& format, const Args& args,
                const paddock::Engine& engine) {
  if (format == "json") {
    Json out = Json::array();
    for (const Row& r : rows) {
      out.push_back({{"test", r.test},
                     {"tokens_per_second", r.mean},
                     {"stddev", r.stddev},
                     {"repetitions", args.repetitions},
                     {"gigabytes_per_second", r.gigabytes},
                     {"kv_bytes", r.kv_bytes},
                     {"threads", engine.options().threads},
                     {"model", args.engine.model}});
    }
    return print_json(out, 2);
  }
  if (format == "csv") {
    std::string out = "test,tokens_per_second,stddev,gigabytes_per_second,kv_bytes,threads\n";
    for (const Row& r : rows) {
      out += fmt::format("{},{:.3f},{:.3f},{:.3f},{},{}\n", r.test, r.mean, r.stddev, r.gigabytes,
                         r.kv_bytes, engine.options().threads);
    }
    return print(out);
  }
  std::string out = "| test | tokens/s | stddev | GB/s | KV bytes |\n|---|---|---|---|---|\n";
  for (const Row& r : rows) {
    out += fmt::format("| {} | {:.2f} | {:.2f} | {:.2f} | {} |\n", r.test, r.mean, r.stddev,
                       r.gigabytes, r.kv_bytes);
  }
  print(out);
}

int run(Args args) {
  const std::string format = args.engine.json ? "json" : args.output;
  if (format != "md" && format != "json" && format != "csv") {
    throw UsageError(fmt::format("-o {}: must be md, json or csv", format));
  }
  if (args.repetitions < 1) {
    throw UsageError(fmt::format("-r {}: must be 1 or more", args.repetitions));
  }
  if (args.beside != 0 && args.parallel.empty()) throw UsageError("--beside goes with --parallel");
  if (!args.parallel.empty()) {
    if (args.prompt.size() > 1 || args.generate.size() > 1 || args.depth != std::vector{0}) {
      throw UsageError("with --parallel -p and -n take one number each, and -d none");
    }
    return run_parallel_bench({args.parallel, args.prompt.empty() ? 128 : args.prompt[0],
                               args.generate.empty() ? 32 : args.generate[0], args.beside,
                               args.repetitions, format, args.trace},
                              args.engine);
  }
  if (!args.trace.file.empty()) throw UsageError("--kv-trace goes with --parallel");
  args.trace.check();
  for (const auto* list : {&args.prompt, &args.generate, &args.depth}) {
    for (const int n : *list) {
      if (n < 0) throw UsageError(fmt::format("-p, -n and -d must be 0 or more, not {}", n));
    }
  }
  if (args.prompt.empty()) args.prompt = {512};
  if (args.generate.empty()) args.generate = {128};
  paddock::EngineOptions options = args.engine.engine_options();
  options.kv.reuse = false;  // a prompt that is measured again is computed again
  const auto model = args.engine.load_model();
  const auto engine = make_engine(model, options);
  const InterruptGuard guard(*engine);
  Bench bench(args, *model, *engine);
  std::vector<Row> rows;
  for (const int depth : args.depth) {
    for (const int n : args.prompt) {
      if (n > 0) rows.push_back(bench.run(true, n, depth));
    }
    for (const int n : args.generate) {
      if (n > 0) rows.push_back(bench.run(false, n, depth));
    }
  }
  print_rows(rows, format, args, *engine);
  return 0;
}

}  // namespace

void add_bench(CommandLine& tool) {
  auto args = std::make_shared<Args>();
  Command command = tool.add("bench", "measure prefill and decode");
  args->engine.add_to(command);
  command.add("-p,--n-prompt", args->prompt, "prompt lengths").split_at_commas();
  command.add("-n,--n-gen", args->generate, "tokens to generate").split_at_commas();
  command.add("-d,--n-depth", args->depth, "tokens in the cache before").split_at_commas();
  command.add("-r,--repetitions", args->repetitions, "counted runs").shows_default();
  command.add("-o,--output", args->output, "md, json or csv").shows_default();
  command
      .add("--parallel", args->parallel,
           "numbers of sequences at once, -p and -n (128 and 32) of each")
      .split_at_commas();
  command
      .add("--beside", args->beside,
           "with --parallel: tokens of one more prompt, read while they decode; an answer that "
           "ends before that is followed by another")
      .shows_default();
  args->trace.add_to(command);
  command.runs([args] { return run(*args); });
}

}  // namespace cli
