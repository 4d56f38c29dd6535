// As llama-batched-bench measures: B random prompts of P tokens at once, then G tokens of each.
// Prefill lasts until every sequence has its first token, decode from then on. Gaps are those
// between two tokens of one sequence.
#include "bench_parallel.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

namespace cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/// What one run took, and what it did in that time.
struct Run {
  double prefill_seconds = 0, decode_seconds = 0, beside_seconds = 0;
  int64_t decoded = 0;
  int64_t preemptions = 0;
  std::vector<double> gaps;  // seconds
};

class Sequences {
 public:
  Sequences(const ParallelBench& bench, int parallel, paddock::Engine& engine, uint32_t seed)
      : bench_(bench), engine_(engine), random_(seed), last_(parallel) {}

  /// Beside a prompt of so many tokens, if not 0: each answer is followed by another one until that
  /// is read.
  Run run(int beside_tokens) {
    Run run;
    const auto n = static_cast<size_t>(last_.size());
    const auto start = Clock::now();
    std::vector<paddock::RequestId> ids;
    for (size_t i = 0; i < n; ++i) ids.push_back(add(i, run));
    while (n_begun_ < n && engine_.step()) {
    }
    const auto decoding = Clock::now();
    run.prefill_seconds = seconds_between(start, decoding);
    std::optional<paddock::RequestId> beside;
    if (beside_tokens > 0) beside = engine_.add(some(beside_tokens), options(1));
    const int64_t before = n_tokens_;
    while (engine_.step()) {
      if (!beside || run.beside_seconds > 0) continue;
      if (is_finished(*beside)) {
        run.beside_seconds = seconds_between(decoding, Clock::now());
        continue;
      }
      for (size_t i = 0; i < n; ++i) {
        if (!is_finished(ids[i])) continue;
        check(ids[i], run);
        counts_[i] = 0;
        ids[i] = add(i, run);
      }
    }
    const Clock::time_point last = *std::max_element(last_.begin(), last_.end());
    run.decode_seconds = seconds_between(decoding, last);
    run.decoded = n_tokens_ - before;
    if (beside) ids.push_back(*beside);
    for (const paddock::RequestId id : ids) check(id, run);
    return run;
  }

 private:
  bool is_finished(paddock::RequestId id) const {
    return engine_.status(id).state == paddock::RequestState::kFinished;
  }

  /// That it made all its tokens.
  void check(paddock::RequestId id, Run& run) {
    const auto result = engine_.take(id);
    if (result) run.preemptions += result->preemptions;
    if (result && result->finish_reason == paddock::FinishReason::kLength) return;
    throw paddock::Error(
        paddock::ErrorCode::kCancelled,
        fmt::format("a sequence ended as \"{}\"",
                    result ? paddock::finish_reason_name(result->finish_reason) : "nothing"));
  }

  std::vector<paddock::TokenId> some(int n) {
    std::vector<paddock::TokenId> tokens(static_cast<size_t>(n));
    const auto vocab = static_cast<uint32_t>(engine_.model().info().vocab_size);
    for (auto& token : tokens) token = static_cast<paddock::TokenId>(random_() % vocab);
    return tokens;
  }

  static paddock::GenerateOptions options(int n) {
    paddock::GenerateOptions options;
    options.max_tokens = n;
    options.sampling.temperature = 0;
    options.ignore_stop_tokens = true;
    return options;
  }

  paddock::RequestId add(size_t i, Run& run) {
    paddock::GenerateOptions wanted = options(bench_.generate);
    wanted.on_token = [this, i, &run](const paddock::TokenEvent& event) {
      // Text that was held back comes once more without a token of its own.
      if (counts_.size() <= i) counts_.resize(last_.size());
      if (counts_[i] >= bench_.generate || event.id < 0) return true;
      const auto now = Clock::now();
      if (counts_[i]++ == 0) {
        ++n_begun_;
      } else {
        run.gaps.push_back(seconds_between(last_[i], now));
      }
      ++n_tokens_;
      last_[i] = now;
      return true;
    };
    return engine_.add(some(bench_.prompt), wanted);
  }

  const ParallelBench& bench_;
  paddock::Engine& engine_;
  std::mt19937 random_;
  std::vector<Clock::time_point> last_;  // of each sequence's tokens
  std::vector<int> counts_;
  size_t n_begun_ = 0;
  int64_t n_tokens_ = 0;
};

/// The value below which `part` of them lie, nearest rank.
double percentile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<size_t>(std::ceil(part * static_cast<double>(values.size())));
  return values[std::clamp<size_t>(rank, 1, values.size()) - 1];
}

void print_rows(const std::vector<ParallelRow>& rows, const ParallelBench& bench) {
  if (bench.format == "json") {
    Json out = Json::array();
    for (const ParallelRow& r : rows) {
      out.push_back({{"parallel", r.parallel},
                     {"prompt", bench.prompt},
                     {"gen", bench.generate},
                     {"prefill_tokens_per_second", r.prefill_rate},
                     {"decode_tokens_per_second", r.decode_rate},
                     {"gap_p50_ms", r.gap_p50},
                     {"gap_p99_ms", r.gap_p99},
                     {"kv_pages_peak", r.pages_peak},
                     {"preemptions", r.preemptions}});
      if (bench.beside == 0) continue;
      out.back()["beside"] = bench.beside;
      out.back()["beside_tokens_per_second"] = r.beside_rate;
    }
    return print_json(out, 2);
  }
  const bool csv = bench.format == "csv";
  std::string out =
      csv ? "parallel,prompt,gen,prefill_tokens_per_second,decode_tokens_per_second,gap_p50_ms,"
            "gap_p99_ms,kv_pages_peak,beside,beside_tokens_per_second\n"
          : "| sequences | prompt | gen | prefill tokens/s | decode tokens/s | gap p50 ms | gap "
            "p99 "
            "ms | KV pages | beside | its tokens/s |\n|---|---|---|---|---|---|---|---|---|---|\n";
  for (const ParallelRow& r : rows) {
    out += fmt::format(
        fmt::runtime(
            csv ? "{},{},{},{:.3f},{:.3f},{:.3f},{:.3f},{},{},{:.3f}\n"
                : "| {} | {} | {} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {} | {} | {:.2f} |\n"),
        r.parallel, bench.prompt, bench.generate, r.prefill_rate, r.decode_rate, r.gap_p50,
        r.gap_p99, r.pages_peak, bench.beside, r.beside_rate);
  }
  print(out);
}

}  // namespace

ParallelRow measure_parallel(const ParallelBench& bench, int parallel,
                             paddock::EngineOptions options,
                             const std::shared_ptr<const paddock::Model>& model) {
  options.kv.reuse = false;  // every prompt is computed
  options.max_sequences = parallel + (bench.beside > 0 ? 1 : 0);
  if (options.context == 0) {
    options.context = std::max(bench.prompt + bench.generate, bench.beside + 1);
  }
  TraceFile trace(bench.trace, options);
  const auto engine = make_engine(model, options);
  trace.begin();
  const InterruptGuard guard(*engine);
  ParallelRow row;
  row.parallel = parallel;
  std::vector<double> gaps;
  for (int i = 0; i <= bench.repetitions; ++i) {
    // Other prompts each time: what the engine may have kept of the last ones does not help.
    const bool is_warm_up = i == 0;
    Run run = Sequences(bench, parallel, *engine, static_cast<uint32_t>(i + 1))
                  .run(is_warm_up ? 0 : bench.beside);
    if (is_warm_up) continue;
    const double share = 1.0 / bench.repetitions;
    row.prefill_rate += share * bench.prompt * parallel / run.prefill_seconds;
    if (run.decoded > 0) {
      row.decode_rate += share * static_cast<double>(run.decoded) / run.decode_seconds;
    }
    if (bench.beside > 0) row.beside_rate += share * bench.beside / run.beside_seconds;
    row.preemptions += run.preemptions;
    gaps.insert(gaps.end(), run.gaps.begin(), run.gaps.end());
  }
  row.gap_p50 = 1e3 * percentile(gaps, 0.5);
  row.gap_p99 = 1e3 * percentile(gaps, 0.99);
  row.pages_peak = engine->kv_stats().total.pages_peak;
  trace.check();
  return row;
}

int run_parallel_bench(const ParallelBench& bench, const EngineArgs& args) {
  for (const int n : bench.parallel) {
    if (n < 1) throw UsageError(fmt::format("--parallel {}: must be 1 or more", n));
  }
  if (bench.prompt < 1 || bench.generate < 1 || bench.beside < 0) {
    throw UsageError(fmt::format(
        "with --parallel -p is {} and -n {}: both must be 1 or more, and --beside 0 or more",
        bench.prompt, bench.generate));
  }
  if (!bench.trace.file.empty() && bench.parallel.size() > 1) {
    throw UsageError("--kv-trace: records one engine; give --parallel one number");
  }
  const auto model = args.load_model();
  std::vector<ParallelRow> rows;
  for (const int n : bench.parallel) {
    rows.push_back(measure_parallel(bench, n, args.engine_options(), model));
  }
  print_rows(rows, bench);
  for (const ParallelRow& row : rows) {
    if (row.preemptions == 0) continue;
    note(fmt::format(
        "paddock: of {} sequences some gave their memory up and were computed again, {} "
        "times; --kv-budget is too small for as many at once\n",
        row.parallel, row.preemptions));
  }
  return 0;
}

}  // namespace cli
