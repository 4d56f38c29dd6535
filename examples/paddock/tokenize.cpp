// paddock tokenize: text to ids.
#include "common.h"

namespace cli {

void add_tokenize(CLI::App& app, int& exit_code) {
  struct Args {
    std::string model, prompt, file;
    bool no_special = false, bos = false, json = false;
  };
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand("tokenize", "text to token ids, as a JSON array");
  command
      ->add_option("-m,--model", args->model,
                   "model, tokenizer.json, tokenizer.model or vocabulary-only GGUF")
      ->required()
      ->check(kNotEmpty);
  CLI::Option_group* input = command->add_option_group("text");
  input->add_option("-p,--prompt", args->prompt, "the text");
  input
      ->add_option("-f,--file", args->file,
                   "a file that holds the text, byte for byte; '-' is stdin")
      ->check(kNotEmpty);
  input->require_option(1);
  command->add_flag("--no-special", args->no_special, "special-token text is plain text");
  command->add_flag("--bos", args->bos, "put the BOS token first, as the tokenizer's settings say");
  command->add_flag("--json", args->json, "the output is JSON anyway");
  command->callback([args, &exit_code] {
    const auto tokenizer = paddock::Tokenizer::load(args->model);
    const auto ids = encode(*tokenizer, args->prompt, args->file,
                            {.add_bos = args->bos, .parse_special = !args->no_special});
    print_json(Json(ids));
    exit_code = 0;
  });
}

}  // namespace cli
