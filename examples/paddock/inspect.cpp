// paddock inspect: what a model file says about itself; no weights are read.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common.h"
#include "log.h"

namespace cli {
namespace {

std::string raw(const Json& v) { return v.is_string() ? v.get<std::string>() : v.dump(); }
std::string text(const Json& v) { return one_line(raw(v)); }

/// A value of the metadata, which may be long and of many lines: its beginning, as one.
std::string beginning(const Json& v) {
  std::string shown = raw(v);
  size_t most = 100;
  if (shown.size() > most) {
    while ((shown[most] & 0xC0) == 0x80) --most;  // not in the middle of a character
    shown = shown.substr(0, most) + "...";
  }
  std::replace(shown.begin(), shown.end(), '\n', ' ');
  return one_line(shown);
}

void print_table(const Json& info) {
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
    out += fmt::format("  {:<44} {}\n", one_line(key), beginning(value));
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

void add_inspect(CommandLine& tool) {
  struct Args {
    std::string path;
    bool json = false;
  };
  auto args = std::make_shared<Args>();
  Command command = tool.add("inspect", "metadata, tensors and sizes of a model");
  command.add("path,-m,--model", args->path, "GGUF file or Hugging Face folder").required();
  command.add_flag("--json", args->json, "one JSON object on stdout");
  command.runs([args] {
    const std::string json = paddock::inspect_json(args->path);
    if (args->json) {
      print(json + "\n");
    } else {
      print_table(Json::parse(json));
    }
    return 0;
  });
}

}  // namespace cli
