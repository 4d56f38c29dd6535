// paddock logits: one forward pass over ids as given, logits of every position to a NumPy file.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common.h"

namespace cli {
namespace {

/// Header of a NumPy 1.0 file: little-endian float32, C order. Format: numpy.lib.format.
std::string npy_header(size_t rows, size_t cols) {
  std::string dict =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, cols);
  const size_t padding = 64 - (10 + dict.size() + 1) % 64;
  dict += std::string(padding % 64, ' ') + "\n";
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(dict.size() & 0xFF);
  header += static_cast<char>(dict.size() >> 8);
  return header + dict;
}

}  // namespace

void add_logits(CommandLine& tool) {
  struct Args {
    EngineArgs engine;
    std::string prompt, tokens, tokens_file, output;
  };
  auto args = std::make_shared<Args>();
  Command command = tool.add("logits", "logits of every position, as a NumPy file");
  args->engine.add_to(command);
  Options input = command.one_of("input");
  input.add("-p,--prompt", args->prompt, "text; no BOS is added");
  input.add("--tokens", args->tokens, "ids joined by commas").not_empty();
  input.add("--tokens-file", args->tokens_file, "a JSON array of ids").not_empty();
  command.add("-o,--output", args->output, "the .npy file to write; '-' is stdout")
      .required()
      .not_empty();
  command.runs([args] {
    std::vector<paddock::TokenId> tokens;
    if (args->engine.json && args->output == "-") {
      throw UsageError("--output -: stdout cannot carry the logits and what --json prints");
    }
    if (!args->tokens.empty()) tokens = parse_tokens(args->tokens);
    const paddock::EngineOptions options = args->engine.engine_options();
    const auto model = args->engine.load_model();
    if (!args->tokens_file.empty()) tokens = read_tokens(args->tokens_file);
    if (!args->prompt.empty()) {
      tokens = encode(*model->tokenizer(), args->prompt, "", {.parse_special = true});
    }
    const auto engine = make_engine(model, options);
    const InterruptGuard guard(*engine);
    OutputFile file(args->output);
    const std::string header =
        npy_header(tokens.size(), static_cast<size_t>(model->info().vocab_size));
    file.write(header);
    engine->forward(tokens, [&](int64_t, std::span<const float> row) {
      file.write({reinterpret_cast<const char*>(row.data()), row.size_bytes()});
      return true;
    });
    file.finish();
    if (args->engine.json) {
      print_json({{"tokens", tokens.size()},
                  {"vocab_size", model->info().vocab_size},
                  {"file", args->output}});
    }
    return 0;
  });
}

}  // namespace cli
