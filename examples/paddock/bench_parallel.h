// bench --parallel: several sequences at once.
#pragma once

#include <vector>

#include "common.h"
#include "kv_trace.h"

namespace cli {

struct ParallelBench {
  std::vector<int> parallel;  // numbers of sequences
  int prompt = 128;           // random tokens of each
  int generate = 32;          // tokens that each makes
  int beside = 0;  // tokens of one more prompt that comes when all others decode; 0: none
  int repetitions = 5;
  std::string format;  // md, json or csv
  TraceArgs trace;
};

/// What was measured with one number of sequences.
struct ParallelRow {
  int parallel = 0;
  double prefill_rate = 0, decode_rate = 0, beside_rate = 0;  // tokens a second, of all together
  double gap_p50 = 0, gap_p99 = 0;                            // ms
  int64_t pages_peak = 0;
  int64_t preemptions = 0;  // in all repetitions
};
/// With engines of `options`, but for the number of sequences. `bench.parallel` is not heeded.
ParallelRow measure_parallel(const ParallelBench& bench, int parallel,
                             paddock::EngineOptions options,
                             const std::shared_ptr<const paddock::Model>& model);

/// One row for each number of sequences. The exit code.
int run_parallel_bench(const ParallelBench& bench, const EngineArgs& engine);

}  // namespace cli
