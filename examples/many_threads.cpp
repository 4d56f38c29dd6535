// An engine for a host with many threads: each asks for itself, one thread of the library's drives.
//
//   many_threads MODEL PROMPT...
//
// prints the answers as they end; Ctrl-C would be runner.shutdown(Shutdown::kCancel).
#include <paddock/paddock.h>

#include <iostream>
#include <mutex>
#include <thread>

int main(int argc, char** argv) try {
  if (argc < 3) {
    std::cerr << "usage: many_threads MODEL PROMPT...\n";
    return 2;
  }
  const auto model = paddock::Model::load(argv[1]);
  const auto engine = std::make_shared<paddock::Engine>(
      model, paddock::EngineOptions{.context = 1024, .max_sequences = 4});
  paddock::EngineRunner runner(engine);

  std::mutex printing;
  const auto say = [&](const std::string& text) {
    const std::lock_guard lock(printing);
    std::cout << text << std::endl;
  };
  std::vector<std::thread> users;
  for (int i = 2; i < argc; ++i) {
    users.emplace_back([&, prompt = std::string(argv[i])] {
      try {
        const paddock::RequestHandle answer = runner.submit(
            model->tokenizer()->encode(prompt, {.add_bos = true, .parse_special = false}),
            {.max_tokens = 32});
        std::string text = prompt;
        while (const auto token = answer.next()) text += token->text;  // as they come
        say(text + " [" + paddock::finish_reason_name(answer.wait().finish_reason) + "]");
      } catch (const paddock::Error& e) {  // this request was refused, or the device failed
        say(prompt + " [" + e.what() + "]");
      }
    });
  }
  for (std::thread& user : users) user.join();
  runner.shutdown(paddock::EngineRunner::Shutdown::kDrain);
  std::cerr << paddock::to_table(runner.engine().kv_stats());
  return 0;
} catch (const paddock::Error& e) {
  std::cerr << "error: " << e.what() << "\n";
  return 1;
}
