// An eviction policy of one's own: written, checked, and measured against the built-in ones.
//
//   custom_policy -m MODEL -f TEXT [--budget N] [RULE...]
//
// prints, for each RULE and for the policy below, how many positions a layer holds at the end of
// the text, and the perplexity. RULEs may name it too: "0-3=full,*=steady:256".
#include <paddock/paddock.h>
#include <paddock/testing.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace {

/// `steady:B`: blocks stay that received most attention per query since they were written. `h2o`
/// ranks by the sum, which favours what is old:
///   score(block) = attention received, summed over queries and heads / its tokens / its age
class Steady final : public paddock::EvictionPolicy {
 public:
  explicit Steady(int32_t budget) : budget_(budget) {}

  std::string name() const override { return "steady:" + std::to_string(budget_); }
  paddock::PolicyNeeds needs() const override { return {.attention = true}; }
  paddock::TrimSchedule schedule(int32_t, int32_t) const override {
    return {.budget = budget_,
            .every = std::max(1, budget_ / 4),
            .keep_newest = budget_ / 4,
            .newest_divisor = 4};
  }
  void trim(const paddock::LayerView& view, int64_t n_tokens,
            std::vector<paddock::Victim>& victims) const override {
    paddock::rank_blocks(view, n_tokens, victims, [&](int32_t i) {
      const paddock::BlockInfo& block = view.blocks[i];
      const auto age = static_cast<double>(view.length - block.first_position);
      return block.mass / block.n_tokens / age;
    });
  }

 private:
  int32_t budget_;
};

[[noreturn]] void refuse(const std::string& why) {
  throw paddock::Error(paddock::ErrorCode::kInvalidArgument, why);
}

int32_t parse_positive(std::string_view text, const std::string& what) {
  int32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1) {
    refuse(what + " '" + std::string(text) + "' is not a number from 1 on");
  }
  return value;
}

std::shared_ptr<const paddock::EvictionPolicy> make_steady(std::string_view arguments) {
  return std::make_shared<Steady>(parse_positive(arguments, "write steady:B; the budget"));
}

constexpr const char* kUsage =
    "usage: custom_policy -m MODEL (-f TEXT | --tokens-file IDS) [--budget N] [--block-size N] "
    "[RULE...]";

struct Args {
  std::string model, text, ids;
  int32_t budget = 256;
  int32_t block_size = 16;
  std::vector<std::string> rules;
};

Args parse(int argc, char** argv) {
  Args args;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "-h" || option == "--help") refuse(kUsage);
    if (option.empty() || option[0] != '-') {
      args.rules.push_back(option);
      continue;
    }
    if (i + 1 == argc) refuse(option + " needs a value");
    const std::string value = argv[++i];
    if (option == "-m") {
      args.model = value;
    } else if (option == "-f") {
      args.text = value;
    } else if (option == "--tokens-file") {
      args.ids = value;
    } else if (option == "--budget") {
      args.budget = parse_positive(value, option);
    } else if (option == "--block-size") {
      args.block_size = parse_positive(value, option);
    } else {
      refuse("there is no option " + option);
    }
  }
  if (args.model.empty() || args.text.empty() == args.ids.empty()) {
    refuse(kUsage);
  }
  const std::string n = std::to_string(args.budget);
  if (args.rules.empty()) args.rules = {"full", "window:" + n, "lru:" + n, "h2o:" + n};
  const std::string own = "steady:" + n;
  if (std::find(args.rules.begin(), args.rules.end(), own) == args.rules.end()) {
    args.rules.push_back(own);
  }
  return args;
}

std::ifstream open(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  file.peek();  // a folder can be opened, but not read
  if (!file.is_open() || file.bad())
    throw paddock::Error(paddock::ErrorCode::kIo, "cannot read '" + path + "'");
  return file;
}

/// The text as the model's tokenizer reads it, or a JSON array of ids.
std::vector<paddock::TokenId> read_tokens(const Args& args, const paddock::Model& model) {
  std::vector<paddock::TokenId> tokens;
  if (!args.text.empty()) {
    std::ifstream file = open(args.text);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    tokens = model.tokenizer()->encode(text);
  } else {
    std::ifstream file = open(args.ids);
    char separator = 0;
    for (paddock::TokenId id = 0; file >> separator >> id;) tokens.push_back(id);
  }
  if (tokens.size() < 2) refuse("the text has fewer than 2 tokens");
  return tokens;
}

double negative_log_probability(std::span<const float> logits, paddock::TokenId id) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - largest);
  return largest + std::log(sum) - logits[id];
}

struct Outcome {
  double kept;  // positions per layer, at the end
  double perplexity;
};

/// Reads the text once under `rule`. Its first half counts as the prompt, for rules that care.
Outcome measure(const std::shared_ptr<const paddock::Model>& model, const Args& args,
                const std::string& rule, std::span<const paddock::TokenId> tokens) {
  paddock::EngineOptions options;
  options.context = static_cast<int64_t>(tokens.size());
  options.kv.policy = rule;
  options.kv.block_size = args.block_size;
  options.kv.custom_policies = {{"steady", make_steady}};
  paddock::Engine engine(model, options);
  Outcome outcome{};
  double nll = 0;
  engine.forward(
      tokens,
      [&](int64_t position, std::span<const float> logits) {
        const size_t next = static_cast<size_t>(position) + 1;
        if (next < tokens.size()) {
          nll += negative_log_probability(logits, tokens[next]);
        } else {
          outcome.kept =
              static_cast<double>(engine.kv_stats().total.tokens_resident) / model->info().n_layers;
        }
        return true;
      },
      static_cast<int64_t>(tokens.size() / 2));
  outcome.perplexity = std::exp(nll / static_cast<double>(tokens.size() - 1));
  return outcome;
}

}  // namespace

int main(int argc, char** argv) try {
  const Args args = parse(argc, argv);
  const auto report = paddock::check_policy([&] { return std::make_shared<Steady>(args.budget); });
  std::printf("%s\n", to_text(report).c_str());
  if (!report.conforms()) return 1;

  const auto model = paddock::Model::load(args.model);
  const std::vector<paddock::TokenId> tokens = read_tokens(args, *model);
  std::printf("%zu tokens\n%-32s %14s %12s\n", tokens.size(), "rule", "kept per layer",
              "perplexity");
  for (const std::string& rule : args.rules) {
    const Outcome outcome = measure(model, args, rule, tokens);
    std::printf("%-32s %14.1f %12.4f\n", rule.c_str(), outcome.kept, outcome.perplexity);
    std::fflush(stdout);
  }
  return 0;
} catch (const paddock::Error& e) {
  std::fprintf(stderr, "error: %s\n", e.what());
  return e.code() == paddock::ErrorCode::kInvalidArgument ? 2 : 1;
} catch (const std::exception& e) {
  std::fprintf(stderr, "error: %s\n", e.what());
  return 1;
}
