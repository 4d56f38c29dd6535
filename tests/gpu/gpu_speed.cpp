// gpu_speed: a whole model's tokens per second, beside what memory or arithmetic allow.
//
//   gpu_speed MODEL [--device cuda] [--batch 1,8,32] [--depth 512] [--steps 48]
//             [--prefill 512,2048] [--chunk 2048] [--policy full] [--threads 0]
//             [--copy-rate GB/s] [--gemm-rate TFLOP/s]
//
// decode: so many requests at once, each `depth` random tokens deep; greedy steps of one token
// each, timed one by one (median; in brackets the spread between the tenth parts at both ends). Its
// limit is the copy rate over the bytes of all weights but the input embedding, and of the keys and
// values that attention meets. prefill: one prompt until its first token; its limit is the product
// rate over two operations a weight and token. Rates not given are measured where the device is
// CUDA. Exit code: 0, 1 after an error, 77 without a device.
#include <fmt/format.h>
#include <paddock/paddock.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#if defined(PADDOCK_HAS_CUDA)
#include "gpu/stopwatch.h"
#endif

namespace {

using namespace paddock;

struct Arguments {
  std::string model, device = "cuda", policy = "full";
  std::vector<int> batch{1, 8, 32}, prefill{512, 2048};
  int depth = 512, steps = 48, chunk = 2048, threads = 0;
  double copy_rate = 0, gemm_rate = 0;  // per second; 0: unknown
};

std::vector<int> numbers(const std::string& text) {
  std::vector<int> all;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) all.push_back(std::atoi(part.c_str()));
  return all;
}

bool positive(const std::vector<int>& all) {
  return std::all_of(all.begin(), all.end(), [](int n) { return n > 0; });
}

bool parse(int argc, char** argv, Arguments& to) {
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (!arg.starts_with("--") && to.model.empty()) {
      to.model = arg;
      continue;
    }
    if (i + 1 == argc) return false;
    const std::string value = argv[++i];
    const int number = std::atoi(value.c_str());
    if (arg == "--device") {
      to.device = value;
    } else if (arg == "--policy") {
      to.policy = value;
    } else if (arg == "--batch") {
      to.batch = numbers(value);
    } else if (arg == "--prefill") {
      to.prefill = numbers(value);
    } else if (arg == "--depth") {
      to.depth = number;
    } else if (arg == "--steps") {
      to.steps = number;
    } else if (arg == "--chunk") {
      to.chunk = number;
    } else if (arg == "--threads") {
      to.threads = number;
    } else if (arg == "--copy-rate") {
      to.copy_rate = std::atof(value.c_str()) * 1e9;
    } else if (arg == "--gemm-rate") {
      to.gemm_rate = std::atof(value.c_str()) * 1e12;
    } else {
      return false;
    }
  }
  return !to.model.empty() && positive(to.batch) && positive(to.prefill) && to.depth > 0 &&
         to.steps > 0 && to.chunk > 0;
}

/// Fills in the rates of the device; false where there is none.
bool measure_rates([[maybe_unused]] Arguments& arguments) {
#if defined(PADDOCK_HAS_CUDA)
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return false;
  bench::Stopwatch clock(20);
  if (arguments.copy_rate == 0) arguments.copy_rate = clock.copy_rate(int64_t{1} << 30);
  if (arguments.gemm_rate == 0) arguments.gemm_rate = clock.gemm_rate(8192);
  return true;
#else
  return false;
#endif
}

/// What one pass must read, and compute for each token.
struct Costs {
  double weight_bytes = 0;
  double weights = 0;  // of layers' matrices
};

Costs costs_of(const std::string& path, bool tied) {
  const auto json = nlohmann::json::parse(inspect_json(path));
  Costs costs;
  for (const auto& tensor : json.at("tensors")) {
    const std::string name = tensor.at("name");
    const bool embedding = name == "token_embd.weight" || name == "model.embed_tokens.weight";
    const bool output = name == "output.weight" || name == "lm_head.weight";
    if (!embedding || tied) costs.weight_bytes += tensor.at("bytes").get<double>();
    const auto& shape = tensor.at("shape");
    if (embedding || output || shape.size() != 2) continue;
    costs.weights += shape[0].get<double>() * shape[1].get<double>();
  }
  return costs;
}

struct Spread {
  double median, low, high;
};
Spread spread(std::vector<double> all) {
  std::sort(all.begin(), all.end());
  const size_t tenth = all.size() / 10;
  return {all[all.size() / 2], all[tenth], all[all.size() - 1 - tenth]};
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class Speed {
 public:
  Speed(const Arguments& arguments, std::shared_ptr<const Model> model)
      : arguments_(arguments), model_(std::move(model)), costs_(costs_of(arguments.model, tied())) {
    const int most = *std::max_element(arguments.batch.begin(), arguments.batch.end());
    const int longest = *std::max_element(arguments.prefill.begin(), arguments.prefill.end());
    EngineOptions options;
    options.device = arguments.device;
    options.threads = arguments.threads;
    options.max_sequences = most;
    options.batch_size = std::max(arguments.chunk, most);
    options.context = std::max(arguments.depth + most_tokens(most), longest) + 1;
    options.kv.policy = arguments.policy;
    options.kv.reuse = false;  // prompts that are measured again are computed again
    // One engine for all rows: weights are brought to the device once.
    engine_ = std::make_unique<Engine>(model_, options);
  }

  void run() {
    for (const int n : arguments_.prefill) prefill(n);
    for (const int n : arguments_.batch) decode(n);
  }

 private:
  static constexpr int kWarmUp = 4;

  bool tied() const { return model_->info().tied_embeddings; }

  /// What a request may generate: the first one does so while the others are still prefilled.
  int most_tokens(int batch) const {
    const int chunk = std::max(arguments_.chunk, batch);
    return kWarmUp + arguments_.steps + batch * (arguments_.depth / chunk + 2);
  }

  std::vector<TokenId> random_tokens(int n) {
    std::vector<TokenId> tokens(static_cast<size_t>(n));
    const auto vocab_size = static_cast<uint32_t>(model_->info().vocab_size);
    for (TokenId& id : tokens) id = static_cast<TokenId>(random_() % vocab_size);
    return tokens;
  }

  GenerateOptions greedy(int max_tokens) {
    GenerateOptions options;
    options.max_tokens = max_tokens;
    options.sampling.temperature = 0;
    options.ignore_stop_tokens = true;
    return options;
  }

  void end(const std::vector<RequestId>& requests) {
    for (const RequestId id : requests) engine_->cancel(id);
    while (engine_->step()) {
    }
    for (const RequestId id : requests) engine_->take(id);
  }

  void decode(int batch) {
    std::vector<int> produced(static_cast<size_t>(batch));
    std::vector<RequestId> requests;
    for (int& n : produced) {
      GenerateOptions options = greedy(most_tokens(batch));
      options.on_token = [&n](const TokenEvent&) { return ++n > 0; };
      requests.push_back(engine_->add(random_tokens(arguments_.depth), options));
    }
    const auto waiting = [&] { return *std::min_element(produced.begin(), produced.end()) == 0; };
    while (waiting() && engine_->step()) {
    }
    for (int i = 0; i < kWarmUp; ++i) engine_->step();
    const auto total = [&] {
      int64_t sum = 0;
      for (const int n : produced) sum += n;
      return sum;
    };
    const int64_t before = total();
    const KvStats stats = engine_->kv_stats();
    std::vector<double> times;
    for (int i = 0; i < arguments_.steps; ++i) {
      const auto start = std::chrono::steady_clock::now();
      engine_->step();
      times.push_back(seconds_since(start));
    }
    const int64_t keys = engine_->kv_stats().total.tokens_read - stats.total.tokens_read;
    const int64_t made = total() - before;
    end(requests);
    const double key_bytes = static_cast<double>(stats.page_bytes) / stats.block_size;
    const double bytes =
        costs_.weight_bytes + static_cast<double>(keys) * key_bytes / arguments_.steps;
    report(fmt::format("decode, {} x {} deep", batch, arguments_.depth), batch, spread(times),
           arguments_.copy_rate / bytes * batch);
    if (made != int64_t{batch} * arguments_.steps) {
      throw std::runtime_error(
          fmt::format("{} tokens came in {} steps of {}", made, arguments_.steps, batch));
    }
  }

  void prefill(int n) {
    std::vector<double> times;
    for (int i = 0; i < 4; ++i) {
      const std::vector<TokenId> prompt = random_tokens(n);
      bool done = false;
      GenerateOptions options = greedy(1);
      options.on_token = [&done](const TokenEvent&) { return done = true; };
      const auto start = std::chrono::steady_clock::now();
      const RequestId request = engine_->add(prompt, options);
      while (!done && engine_->step()) {
      }
      if (i > 0) times.push_back(seconds_since(start));  // the first warms up
      end({request});
    }
    // A query meets half of the prompt on average: two products of so many keys for every head.
    const ModelInfo& info = model_->info();
    const double attention = 2.0 * n * info.n_layers * info.n_heads * info.head_dim;
    report(fmt::format("prefill, {} tokens", n), n, spread(times),
           arguments_.gemm_rate / (2 * costs_.weights + attention));
  }

  void report(const std::string& test, double tokens, const Spread& seconds, double limit) {
    const double rate = tokens / seconds.median;
    std::string beside = "limit unknown";
    if (limit > 0) beside = fmt::format("limit {:>8.0f}  {:>5.1f}%", limit, 100 * rate / limit);
    fmt::print("{:<26} {:>9.1f} tokens/s  {:>9.3f} ms [{:>4.1f}%]  {}\n", test, rate,
               1000 * seconds.median, 100 * (seconds.high - seconds.low) / seconds.median, beside);
    std::fflush(stdout);
  }

  const Arguments& arguments_;
  std::shared_ptr<const Model> model_;
  Costs costs_;
  std::mt19937 random_{17};
  std::unique_ptr<Engine> engine_;
};

int measure(Arguments& arguments) {
  if (arguments.device.starts_with("cuda") && !measure_rates(arguments)) {
    fmt::print("SKIPPED: no CUDA device\n");
    return 77;
  }
  const auto start = std::chrono::steady_clock::now();
  const auto model = Model::load(arguments.model);
  Speed speed(arguments, model);
  const ModelInfo& info = model->info();
  fmt::print("{}: {}, {:.2f} GB on {} in {:.1f} s; copy {:.0f} GB/s, products {:.0f} TFLOP/s\n",
             arguments.model, info.weight_types, static_cast<double>(info.weight_bytes) / 1e9,
             arguments.device, seconds_since(start), arguments.copy_rate / 1e9,
             arguments.gemm_rate / 1e12);
  speed.run();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, arguments)) {
    fmt::print(stderr,
               "usage: gpu_speed MODEL [--device cuda] [--batch 1,8,32] [--depth 512]\n"
               "       [--steps 48] [--prefill 512,2048] [--chunk 2048] [--policy full]\n"
               "       [--threads 0] [--copy-rate GB/s] [--gemm-rate TFLOP/s]\n");
    return 2;
  }
  try {
    return measure(arguments);
  } catch (const std::exception& e) {
    fmt::print("FAILED: {}\n", e.what());
    return 1;
  }
}
