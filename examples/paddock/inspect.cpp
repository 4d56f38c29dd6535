// paddock inspect: what a model file says about itself; no weights are read.
#include <fmt/format.h>

#include "common.h"

namespace cli {
namespace {

void print_table(const Json& info) {
  const auto text = [](const Json& v) { return v.is_string() ? v.get<std::string>() : v.dump(); };
  std::string out = fmt::format("{}: {}\n", text(info["path"]), text(info["format"]));
  if (info.contains("unsupported")) {
    out += fmt::format("cannot be run: {}\n", text(info["unsupported"]));
  }
  if (info.contains("model")) {
    for (const auto& [key, value] : info["model"].items()) {
      out += fmt::format("  {:<26} {}\n", key, text(value));
    }
    for (const auto& [key, value] : info["kv_bytes_per_token"].items()) {
      out += fmt::format("  {:<26} {}\n", "kv_bytes_per_token " + key, text(value));
    }
    for (const Json& warning : info["warnings"]) {
      out += fmt::format("  warning: {}\n", text(warning));
    }
  }
  out += fmt::format("metadata\n");
  for (const auto& [key, value] : info["metadata"].items()) {
    std::string shown = text(value);
    constexpr size_t kMost = 100;
    if (shown.size() > kMost) shown = shown.substr(0, kMost) + "...";
    for (char& c : shown) c = c == '\n' ? ' ' : c;
    out += fmt::format("  {:<44} {}\n", key, shown);
  }
  if (info.contains("no_weights")) return print(out + "no weights are here\n");
  out +=
      fmt::format("{} tensors, {} bytes\n", text(info["tensor_count"]), text(info["tensor_bytes"]));
  for (const Json& t : info["tensors"]) {
    out += fmt::format("  {:<48} {:<6} {:<20} {:>12}\n", text(t["name"]), text(t["type"]),
                       t["shape"].dump(), text(t["bytes"]));
  }
  print(out);
}

}  // namespace

void add_inspect(CLI::App& app, int& exit_code) {
  struct Args {
    std::string path;
    bool json = false;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand("inspect", "metadata, tensors and sizes of a model");
  command->add_option("path,-m,--model", args->path, "GGUF file or Hugging Face folder")
      ->required();
  command->add_flag("--json", args->json, "one JSON object on stdout");
  command->callback([args, &exit_code] {
    const std::string json = paddock::inspect_json(args->path);
    if (args->json) {
      print(json + "\n");
    } else {
      print_table(Json::parse(json));
    }
    exit_code = 0;
  });
}

}  // namespace cli
