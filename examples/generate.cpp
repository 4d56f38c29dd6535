// The smallest honest program: load a model, continue a text, show what the cache did.
#include <paddock/paddock.h>

#include <iostream>

int main(int argc, char** argv) try {
  if (argc != 3) {
    std::cerr << "usage: generate MODEL PROMPT\n";
    return 2;
  }
  const auto model = paddock::Model::load(argv[1]);
  paddock::Engine engine(model, {.context = 2048, .kv = {.policy = "sink:4+1020"}});

  paddock::GenerateOptions options;
  options.max_tokens = 64;
  options.on_token = [](const paddock::TokenEvent& event) {
    std::cout << event.text << std::flush;
    return true;
  };
  engine.generate(argv[2], options);
  std::cout << "\n";
  std::cerr << paddock::to_table(engine.kv_stats());
  return 0;
} catch (const paddock::Error& e) {
  std::cerr << "error: " << e.what() << "\n";
  return 1;
}
