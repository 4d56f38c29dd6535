// generate --parallel: many prompts through one engine.
#pragma once

#include <optional>

#include "common.h"
#include "kv_report.h"

namespace cli {

/// What the command's own options say; each line of the file may say otherwise.
struct ParallelJob {
  std::string file;   // JSON lines; "-" is stdin
  int sequences = 8;  // most at once
  bool parse_special = true;
  double timeout = 0;  // seconds; 0: none
  paddock::GenerateOptions defaults;
};

/// Runs all of them and prints each answer as a line of JSON as soon as it is there. The exit code.
int run_parallel(const ParallelJob& job, const EngineArgs& engine, const SamplingArgs& sampling,
                 const KvReportArgs& report);

}  // namespace cli
