// gpu_logits: a model's logits on a device against the CPU's, for every rule of the registry.
//
//   gpu_logits MODEL [--device cuda] [--tokens 160] [--threads 0]
//
// One row per rule. "exact": Precision::kReference on both, error of the largest difference over
// the largest logit, and whether both evicted the same blocks. "fast": the device's default with a
// float16 cache, held against the CPU's exact logits, and for how many positions the largest logit
// is the same token's. Exit code: 0, 1 where a row failed, 77 without a device.
#include <fmt/format.h>
#include <paddock/paddock.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "support/device_rules.h"

namespace {

using namespace paddock;

constexpr double kExactRoom = 1e-3;  // float32 sums in other orders, through all layers
constexpr double kFastRoom = 0.1;    // inputs of products rounded to bfloat16

struct Arguments {
  std::string model, device = "cuda";
  int tokens = 160, threads = 0;
};

bool parse(int argc, char** argv, Arguments& to) {
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (!arg.starts_with("--") && to.model.empty()) {
      to.model = arg;
      continue;
    }
    if (i + 1 == argc) return false;
    const std::string value = argv[++i];
    if (arg == "--device") {
      to.device = value;
    } else if (arg == "--tokens") {
      to.tokens = std::atoi(value.c_str());
    } else if (arg == "--threads") {
      to.threads = std::atoi(value.c_str());
    } else {
      return false;
    }
  }
  return !to.model.empty() && to.tokens >= 64;
}

struct Run {
  std::vector<float> logits;
  std::string removals;
};

Run run(const std::shared_ptr<const Model>& model, const EngineOptions& options,
        const std::vector<TokenId>& tokens) {
  Engine engine(model, options);
  Run result;
  engine.forward(
      tokens,
      [&](int64_t, std::span<const float> row) {
        result.logits.insert(result.logits.end(), row.begin(), row.end());
        return true;
      },
      static_cast<int64_t>(tokens.size()) * 3 / 4);
  for (const KvEvent& e : engine.kv_events()) {
    result.removals += fmt::format("{} {} {} {}\n", static_cast<int>(e.reason), e.layer,
                                   e.first_position, e.n_tokens);
  }
  engine.check_integrity();
  return result;
}

/// NaN counts.
double relative_error(const std::vector<float>& actual, const std::vector<float>& expected) {
  if (actual.size() != expected.size()) return INFINITY;
  double error = 0;
  double largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double e = std::fabs(double{actual[i]} - double{expected[i]});
    if (!(e <= error)) error = e;
    largest = std::max(largest, std::fabs(double{expected[i]}));
  }
  return error / largest;
}

int equal_choices(const std::vector<float>& a, const std::vector<float>& b, int64_t vocab_size) {
  int n = 0;
  for (int64_t at = 0; at + vocab_size <= static_cast<int64_t>(b.size()); at += vocab_size) {
    const auto choice = [&](const std::vector<float>& row) {
      const auto first = row.begin() + at;
      return std::max_element(first, first + vocab_size) - first;
    };
    n += choice(a) == choice(b) ? 1 : 0;
  }
  return n;
}

/// Whether the device can be used at all, asked before anything is measured.
std::string refusal(const std::shared_ptr<const Model>& model, const EngineOptions& options) {
  try {
    const Engine engine(model, options);
    return "";
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kDevice) throw;
    return e.what();
  }
}

int check(const Arguments& arguments) {
  const auto model = Model::load(arguments.model);
  std::mt19937 random(11);
  std::vector<TokenId> tokens(static_cast<size_t>(arguments.tokens));
  for (TokenId& id : tokens) {
    id = static_cast<TokenId>(random() % static_cast<uint32_t>(model->info().vocab_size));
  }
  EngineOptions options;
  options.threads = arguments.threads;
  options.context = arguments.tokens;
  options.batch_size = 64;  // some chunks, so that rules decide between them
  options.device = arguments.device;
  if (const std::string why = refusal(model, options); !why.empty()) {
    fmt::print("SKIPPED: {}\n", why);
    return 77;
  }
  int failures = 0;
  for (const std::string& rule : test::device_rules(arguments.tokens)) {
    options.kv.policy = rule;
    options.precision = Precision::kReference;
    options.device = "cpu";
    const Run expected = run(model, options, tokens);
    options.device = arguments.device;
    const Run exact = run(model, options, tokens);
    options.precision = Precision::kFast;
    const Run fast = run(model, options, tokens);
    const double exact_error = relative_error(exact.logits, expected.logits);
    const double fast_error = relative_error(fast.logits, expected.logits);
    const bool same = exact.removals == expected.removals;
    // A rule that ranks rounded scores may choose otherwise where two are nearly equal; then
    // "fast" computes something else, and only "exact" can be right or wrong.
    const bool chose = fast.removals == expected.removals;
    const bool good = exact_error <= kExactRoom && same && (fast_error <= kFastRoom || !chose);
    if (!good) ++failures;
    fmt::print("logits {:<26} exact {:.1e}, {} evictions; fast {:.1e}{}, {} of {} choices{}\n",
               rule, exact_error, same ? "same" : "OTHER", fast_error,
               chose ? "" : " (other evictions)",
               equal_choices(fast.logits, expected.logits, model->info().vocab_size), tokens.size(),
               good ? "" : "  FAILED");
    std::fflush(stdout);
  }
  return failures > 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, arguments)) {
    fmt::print(stderr, "usage: gpu_logits MODEL [--device cuda] [--tokens 160] [--threads 0]\n");
    return 2;
  }
  try {
    return check(arguments);
  } catch (const std::exception& e) {
    fmt::print("FAILED: {}\n", e.what());
    return 1;
  }
}
