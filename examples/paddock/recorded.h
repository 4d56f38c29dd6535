// The settings of a run that a trace tells, for whoever runs it again.
#pragma once

#include <paddock/trace.h>

#include <string>

#include "common.h"

namespace cli {

/// The settings that a trace tells, in place of what `args` has; model, threads, device, precision
/// and isa stay. One sequence is alone with the whole pool.
EngineArgs as_recorded(EngineArgs args, const paddock::TraceHeader& header,
                       const std::string& policy, int64_t pool_pages);

/// Of commands that run again with -m: the options for what as_recorded() leaves as it is.
void add_machine(Options& command, EngineArgs& args);

/// Error where the model is not the one that the trace is of.
void check_model(const paddock::Model& model, const std::string& path,
                 const paddock::TraceHeader& header);

}  // namespace cli
