// paddock tokenize: text to ids.
#include <nlohmann/json.hpp>

#include "common.h"

namespace cli {

void add_tokenize(CommandLine& tool) {
  struct Args {
    std::string model, prompt, file;
    bool no_special = false, bos = false, json = false;
  };
  auto args = std::make_shared<Args>();
  Command command = tool.add("tokenize", "text to token ids, as a JSON array");
  command
      .add("-m,--model", args->model,
           "model, tokenizer.json, tokenizer.model or vocabulary-only GGUF")
      .required()
      .not_empty();
  Options input = command.one_of("text");
  input.add("-p,--prompt", args->prompt, "the text");
  input.add("-f,--file", args->file, "a file that holds the text, byte for byte; '-' is stdin")
      .not_empty();
  command.add_flag("--no-special", args->no_special, "special-token text is plain text");
  command.add_flag("--bos", args->bos, "put the BOS token first, as the tokenizer's settings say");
  command.add_flag("--json", args->json, "the output is JSON anyway");
  command.runs([args] {
    const auto tokenizer = paddock::Tokenizer::load(args->model);
    const auto ids = encode(*tokenizer, args->prompt, args->file,
                            {.add_bos = args->bos, .parse_special = !args->no_special});
    print_json(Json(ids));
    return 0;
  });
}

}  // namespace cli
