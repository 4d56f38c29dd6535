// What a trace costs: bytes for a long text through many layers, and how much of a decode step.
//   trace_cost size [TOKENS]           a small model of 30 layers under h2o:256
//   trace_cost steps MODEL [SEQUENCES]  processor time of steps, with a trace and without, by turns
#include <fmt/format.h>
#include <paddock/paddock.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "bench/unchecked.h"
#include "paddock/trace.h"
#include "support/tiny_model.h"

namespace {

using namespace paddock;

GenerateOptions greedy(int32_t n) {
  GenerateOptions options;
  options.max_tokens = n;
  options.sampling.temperature = 0;
  options.ignore_stop_tokens = true;
  return options;
}

void measure_size(int32_t n_tokens) {
  const test::TemporaryFolder folder;
  const auto model = test::tiny_model(folder,
                                      {.n_layers = 30,
                                       .n_heads = 1,
                                       .n_kv_heads = 1,
                                       .head_dim = 16,
                                       .hidden_size = 16,
                                       .intermediate_size = 16,
                                       .vocab_size = 64,
                                       .context_length = 131072},
                                      1);
  for (const char* what : {"plain", "tokens", "scores"}) {
    EngineOptions options;
    options.threads = 1;
    options.kv.policy = "h2o:256";
    uint64_t bytes = 0;
    options.kv.trace.sink = [&](std::string_view more) { bytes += more.size(); };
    options.kv.trace.tokens = std::strcmp(what, "tokens") == 0;
    options.kv.trace.scores = std::strcmp(what, "scores") == 0;
    Engine engine(model, options);
    const std::vector<TokenId> prompt = {1, 2, 3, 4};
    engine.generate(prompt, greedy(n_tokens - 4));
    const KvStats stats = engine.kv_stats();
    fmt::print("{}: {} tokens, {} layers, {} blocks left: {:.1f} MB\n", what, stats.tokens_written,
               stats.layers.size(), stats.total.pages_removed[2], static_cast<double>(bytes) / 1e6);
    std::fflush(stdout);
  }
}

double processor_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void measure_steps(const char* path, int32_t sequences) {
  const auto model = Model::load(path);
  std::vector<std::unique_ptr<Engine>> engines;
  uint64_t bytes = 0;
  for (int traced = 0; traced < 2; ++traced) {
    EngineOptions options;
    options.threads = 1;
    options.max_sequences = sequences;
    options.context = 2048;
    options.kv.policy = "h2o:256";
    if (traced == 1) {
      options.kv.trace.sink = [&](std::string_view more) { bytes += more.size(); };
    }
    engines.push_back(std::make_unique<Engine>(model, options));
    for (int32_t i = 0; i < sequences; ++i) {
      std::vector<TokenId> prompt;
      for (int32_t p = 0; p < 300; ++p) prompt.push_back((p * 7919 + i * 31) % 40000 + 1000);
      engines.back()->add(prompt, greedy(1000));
    }
    for (int i = 0; i < 400; ++i) engines.back()->step();
  }
  std::vector<double> spent[2];
  const uint64_t before = bytes;
  constexpr int kSteps = 64;
  for (int round = 0; round < 6; ++round) {
    for (int traced = 0; traced < 2; ++traced) {
      const double start = processor_seconds();
      for (int i = 0; i < kSteps; ++i) engines[traced]->step();
      spent[traced].push_back((processor_seconds() - start) / kSteps * 1e3);
    }
  }
  for (auto& times : spent) std::sort(times.begin(), times.end());
  fmt::print("{} sequences: {:.3f} ms a step without, {:.3f} with; {} bytes a step\n", sequences,
             spent[0][2], spent[1][2], (bytes - before) / (6 * kSteps));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "size") == 0) {
    measure_size(argc > 2 ? std::atoi(argv[2]) : 100'000);
  } else if (argc > 2 && std::strcmp(argv[1], "steps") == 0) {
    measure_steps(argv[2], argc > 3 ? std::atoi(argv[3]) : 32);
  } else {
    fmt::print(stderr, "trace_cost size [TOKENS] | trace_cost steps MODEL [SEQUENCES]\n");
    return 2;
  }
  return 0;
}
