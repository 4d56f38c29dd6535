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

/// One row for each number of sequences. The exit code.
int run_parallel_bench(const ParallelBench& bench, const EngineArgs& engine);

}  // namespace cli
