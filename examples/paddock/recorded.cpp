#include "recorded.h"

#include <fmt/format.h>

namespace cli {

EngineArgs as_recorded(EngineArgs args, const paddock::TraceHeader& header,
                       const std::string& policy, int64_t pool_pages) {
  args.kv_policy = policy;
  args.kv_type = header.kv_type;
  args.kv_block = header.block_size;
  args.kv_budget = fmt::format("{}", pool_pages * header.page_bytes);
  args.batch = header.batch_size;
  if (header.context < paddock::kUnlimited) args.context = header.context;
  return args;
}

void add_machine(Options& command, EngineArgs& args) {
  command.add("-t,--threads", args.threads, "with -m: worker threads (default: physical cores)");
  command.add("--device", args.device, "with -m: auto, cpu or cuda").shows_default();
  command.add("--precision", args.precision, "with -m: fast or reference").shows_default();
}

void check_model(const paddock::Model& model, const std::string& path,
                 const paddock::TraceHeader& header) {
  const paddock::ModelInfo& info = model.info();
  if (info.name != header.model || info.n_layers != header.n_layers ||
      info.head_dim != header.head_dim || info.vocab_size != header.vocab_size) {
    throw paddock::Error(
        paddock::ErrorCode::kInvalidArgument,
        fmt::format("-m {}: it is '{}' of {} layers, and the trace is of '{}' with {}; give the "
                    "model that the run had",
                    path, info.name, info.n_layers, header.model, header.n_layers));
  }
  if (info.context_length != header.model_context) {
    throw paddock::Error(
        paddock::ErrorCode::kUnsupported,
        fmt::format("-m {}: the run had the model made for {} positions by --rope-scaling, not "
                    "for {}, and is not run again here; perplexity --sweep compares rules with "
                    "it",
                    path, header.model_context, info.context_length));
  }
}

}  // namespace cli
