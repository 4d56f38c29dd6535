// paddock plan: what a model will take, what fits which memory, and how fast that memory lets it
// be, from headers alone.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "advice.h"
#include "common.h"
#include "log.h"
#include "plan_devices.h"

namespace cli {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

struct Args {
  std::string path;
  int64_t context = kEngineDefaults.context;
  int users = kEngineDefaults.max_sequences;
  int batch = kEngineDefaults.batch_size;
  int threads = kEngineDefaults.threads;
  int kv_block = kEngineDefaults.kv.block_size;
  std::string policy = kEngineDefaults.kv.policy;
  std::string kv_type, precision = "fast", isa, memory, device, devices;
  bool json = false;
};

struct Planned {
  paddock::EnginePlan plan;
  std::vector<PlanDevice> devices;  // plan.fits[i] is for devices[i]
  bool is_for_one = false;          // the others were not asked for
};

paddock::EngineOptions engine_options(const Args& args) {
  EngineArgs engine;
  engine.context = args.context;
  engine.batch = args.batch;
  engine.threads = args.threads;
  engine.kv_block = args.kv_block;
  engine.kv_policy = args.policy;
  engine.kv_type = args.kv_type;
  engine.precision = args.precision;
  engine.isa = args.isa;
  paddock::EngineOptions options = engine.engine_options();
  if (args.users < 1) throw UsageError(fmt::format("--users {}: must be 1 or more", args.users));
  options.max_sequences = args.users;
  return options;
}

/// Tokens a second of all sequences together, if memory were read as fast as it can be, and nothing
/// else took time.
double ceiling(const paddock::EnginePlan& plan, const PlanDevice& device) {
  const auto users = static_cast<double>(plan.options.max_sequences);
  const double read = static_cast<double>(plan.weights_read_bytes) +
                      users * static_cast<double>(plan.kv_read_bytes);
  return users * device.bytes_per_second / read;
}

/// Settings under which it would fit, as options of this command.
std::string with(const paddock::PlanFit& fit) {
  paddock::SettingNames names = option_names("--policy", "--users");
  names.context = "--context";
  return paddock::to_text(fit.proposals, names);
}

std::string context_text(int64_t context) {
  return context == paddock::kUnlimited ? "any" : fmt::format("{}", context);
}

Json fit_json(const Planned& p, size_t i) {
  const paddock::PlanFit& fit = p.plan.fits[i];
  Json out = {{"name", p.devices[i].name},
              {"memory_bytes", fit.memory_bytes},
              {"fits", fit.fits},
              {"max_context", fit.max_context},
              {"memory_context", fit.memory_context},
              {"max_users", fit.max_users}};
  if (p.devices[i].bytes_per_second > 0) {
    out["bytes_per_second"] = p.devices[i].bytes_per_second;
    out["tokens_per_second_ceiling"] = ceiling(p.plan, p.devices[i]);
    out["source"] = p.devices[i].source;
    out["estimated"] = true;  // bytes are those of this build's CPU
  }
  if (!fit.fits) out["with"] = with(fit);
  return out;
}

Json to_json(const Planned& p) {
  const paddock::EnginePlan& plan = p.plan;
  const paddock::PlanFit& own = plan.fits[0];
  Json out = {{"weights_bytes", plan.weights_bytes},
              {"kv_bytes_per_token", plan.kv_bytes_per_token},
              {"kv_bytes_per_token_layer", plan.kv_bytes_per_token_layer},
              {"pool_bytes", plan.pool_bytes},
              {"activation_bytes", plan.activation_bytes},
              {"table_bytes", plan.table_bytes},
              {"total_bytes", plan.total_bytes},
              {"fits", own.fits},
              {"max_context", own.max_context},
              {"max_users", own.max_users},
              {"memory_bytes", own.memory_bytes},
              {"context", plan.options.context},
              {"users", plan.options.max_sequences},
              {"policy", plan.options.kv.policy},
              {"kv_type", paddock::kv_type_name(plan.options.kv.type)},
              {"weights_read_bytes", plan.weights_read_bytes},
              {"kv_read_bytes", plan.kv_read_bytes}};
  if (!plan.estimated.empty()) {
    out["estimated"] = plan.estimated;
  } else if (p.is_for_one) {
    out["estimated"] = "bytes are those of this build's CPU";
  }
  if (!own.fits) out["with"] = with(own);
  out["devices"] = Json::array();
  for (size_t i = 0; i < p.devices.size(); ++i) out["devices"].push_back(fit_json(p, i));
  return out;
}

std::string row(const char* what, uint64_t bytes, const std::string& note = "") {
  return fmt::format("  {:<12} {:>12.1f} MiB  {:>15}  {}\n", what,
                     static_cast<double>(bytes) / kMiB, bytes, note);
}

std::string bytes_text(const Args& args, const Planned& p) {
  const paddock::EnginePlan& plan = p.plan;
  const std::string name = plan.model.empty() ? args.path : plan.model;
  std::string out = fmt::format(
      "{}: {} of {} positions under {}, {}, steps of {} tokens\n", one_line(name),
      plan.options.max_sequences == 1 ? "one sequence"
                                      : fmt::format("{} sequences", plan.options.max_sequences),
      context_text(plan.options.context), one_line(plan.options.kv.policy),
      paddock::kv_type_name(plan.options.kv.type), plan.options.batch_size);
  if (!plan.estimated.empty()) out += fmt::format("estimates: {}\n", one_line(plan.estimated));
  for (const std::string& warning : plan.warnings) {
    out += fmt::format("warning: {}\n", one_line(warning));
  }
  const size_t layers = plan.kv_bytes_per_token_layer.size();
  out += row("weights", plan.weights_bytes);
  out += row("KV pool", plan.pool_bytes,
             fmt::format("{} pages; {} bytes per token, {} in each of {} layers", plan.pool_pages,
                         plan.kv_bytes_per_token, plan.kv_bytes_per_token_layer[0], layers));
  out += row("activations", plan.activation_bytes);
  out += row("tables", plan.table_bytes);
  return out + row("total", plan.total_bytes);
}

std::string devices_text(const Planned& p) {
  std::string out = fmt::format(
      "\n| machine | memory, MiB | fits | longest context | most users | tokens/s, ceiling, "
      "computed |\n|---|---|---|---|---|---|\n");
  for (size_t i = 0; i < p.devices.size(); ++i) {
    const paddock::PlanFit& fit = p.plan.fits[i];
    const std::string works = with(fit);
    out += fmt::format("| {} | {:.0f} | {} | {} | {} | {} |\n", one_line(p.devices[i].name),
                       static_cast<double>(fit.memory_bytes) / kMiB,
                       fit.fits ? "yes" : (works.empty() ? "no" : "with " + works),
                       context_text(fit.max_context), fit.max_users,
                       p.devices[i].bytes_per_second > 0 && fit.fits
                           ? fmt::format("{:.1f}", ceiling(p.plan, p.devices[i]))
                           : "");
  }
  return out +
         "The ceiling is the copy rate over what a step reads: weights once, and the keys and "
         "values of every\nsequence at the whole context. Memory is as sold; drivers and other "
         "processes take some. Bytes are those of this\nbuild's CPU: for other machines, "
         "estimates.\n";
}

int run(const Args& args) {
  if (!args.memory.empty() && !args.device.empty()) {
    throw UsageError("--memory and --device: give one of the two");
  }
  Planned p;
  const std::vector<PlanDevice> known = plan_devices(args.devices);
  if (!args.device.empty()) {
    p.devices = {find_device(known, args.device)};
    p.is_for_one = true;
  } else if (!args.memory.empty()) {
    p.devices = {{"--memory", parse_size("--memory", args.memory), 0, ""}};
  } else {
    p.devices = {{"this machine, now", 0, 0, ""}};
  }
  if (!p.is_for_one) p.devices.insert(p.devices.end(), known.begin(), known.end());
  std::vector<uint64_t> memories;
  for (const PlanDevice& device : p.devices) memories.push_back(device.memory_bytes);
  p.plan = paddock::plan_engine(args.path, engine_options(args), memories);
  if (args.json) {
    print_json(to_json(p), 2);
  } else {
    print(bytes_text(args, p) + devices_text(p));
  }
  return 0;
}

}  // namespace

void add_plan(CommandLine& tool) {
  auto args = std::make_shared<Args>();
  Command command = tool.add("plan", "what a model takes, and what fits: from headers alone");
  command
      .add("path,-m,--model", args->path,
           "GGUF file (its beginning will do), Hugging Face folder, or a config.json alone")
      .required();
  command.add("-c,--context", args->context, "positions of each sequence (default: the model's)");
  command.add("-u,--users", args->users, "sequences at once").shows_default();
  command.add("--policy,--kv-policy", args->policy, "what each layer keeps").shows_default();
  command.add("--kv-type", args->kv_type, kv_type_help().c_str()).not_empty();
  command.add("--kv-block-size", args->kv_block, "positions per block").shows_default();
  command.add("-b,--batch-size", args->batch, "most tokens in one forward pass").shows_default();
  command.add("-t,--threads", args->threads, "worker threads (default: physical cores)");
  command.add("--precision", args->precision, "fast or reference").shows_default();
  command.add("--isa", args->isa, isa_help().c_str()).not_empty();
  command.add("--memory", args->memory, "what there is, such as 8GiB (default: what is free here)")
      .not_empty();
  command.add("--device", args->device, "a machine of the list, by a part of its name").not_empty();
  command.add("--devices", args->devices, "more machines: a JSON file as docs/plan.md says")
      .not_empty();
  command.add_flag("--json", args->json, "one JSON object on stdout");
  command.runs([args] { return run(*args); });
}

}  // namespace cli
