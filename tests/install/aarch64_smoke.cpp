// aarch64_smoke GOLDEN_FOLDER: logits and greedy tokens of the tiny golden models in both
// precisions. Exit code 0 only if all are right. Also runs on any other machine.
#include <paddock/paddock.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "support/npy.h"

namespace {

using paddock::test::Matrix;

struct Case {
  const char* model;
  const char* logits;
  paddock::Precision precision;
  double tolerance;  // largest difference over the largest golden logit
};

// `reference` differs from transformers by the order of float32 sums alone. `fast` also rounds the
// cache to float16 (BF16 weights: error 3.6e-3 here and on x86-64) and, for quantized weights,
// activations to 8 bits (Q8_0: 8.0e-2 here and on x86-64 with any instruction set; so much because
// the model has 32 channels only: transformers with activations rounded likewise errs by 5.3e-2).
constexpr Case kCases[] = {
    {"gqa1-Q8_0.gguf", "gqa1-Q8_0.npy", paddock::Precision::kReference, 5e-5},
    {"gqa4-llama3.gguf", "gqa4-llama3/logits.npy", paddock::Precision::kReference, 5e-5},
    {"gqa1-Q8_0.gguf", "gqa1-Q8_0.npy", paddock::Precision::kFast, 0.12},
    {"gqa4-llama3.gguf", "gqa4-llama3/logits.npy", paddock::Precision::kFast, 1e-2},
};
// Tokens of the golden list that are the prompt. After these the best logit of either model leads
// by more than twice the tolerance, so both precisions must choose it.
constexpr int32_t kPrompt = 40;
constexpr int32_t kGenerated = 12;  // greedy tokens after it

/// The ids of a JSON list of numbers.
std::vector<paddock::TokenId> read_tokens(const std::string& path) {
  std::ifstream file(path);
  std::vector<paddock::TokenId> ids;
  char separator = 0;
  for (paddock::TokenId id = 0; file >> separator >> id;) ids.push_back(id);
  return ids;
}

/// Logits of every position. Errors: those of the library, and logits out of order.
Matrix all_logits(paddock::Engine& engine, std::span<const paddock::TokenId> tokens) {
  Matrix out;
  engine.forward(tokens, [&](int64_t position, std::span<const float> row) {
    if (position != out.rows++) throw std::runtime_error("logits came out of order");
    out.cols = static_cast<int64_t>(row.size());
    out.values.insert(out.values.end(), row.begin(), row.end());
    return true;
  });
  engine.check_integrity();
  return out;
}

paddock::TokenId best(const Matrix& logits, int64_t row) {
  const float* at = logits.row(row);
  return static_cast<paddock::TokenId>(std::max_element(at, at + logits.cols) - at);
}

/// Largest difference over the largest magnitude of `expected`; infinite if the shapes differ.
double relative_error(const Matrix& actual, const Matrix& expected) {
  if (actual.rows != expected.rows || actual.cols != expected.cols) return INFINITY;
  double error = 0;
  double largest = 0;
  for (size_t i = 0; i < expected.values.size(); ++i) {
    const double e = std::fabs(double{actual.values[i]} - expected.values[i]);
    if (!(e <= error)) error = e;  // NaN counts
    largest = std::max(largest, std::fabs(double{expected.values[i]}));
  }
  return error / largest;
}

bool run(const Case& tested, const std::string& folder,
         const std::vector<paddock::TokenId>& tokens) {
  const char* precision = tested.precision == paddock::Precision::kReference ? "reference" : "fast";
  const Matrix expected = paddock::test::read_npy(folder + "/" + tested.logits);
  paddock::EngineOptions options;
  options.threads = 2;
  options.precision = tested.precision;
  paddock::Engine engine(paddock::Model::load(folder + "/" + tested.model), options);

  const double error = relative_error(all_logits(engine, tokens), expected);
  std::printf("%s %s: error %.1e, at most %.1e\n", tested.model, precision, error,
              tested.tolerance);
  if (!(error <= tested.tolerance)) return false;

  paddock::GenerateOptions generate;
  generate.max_tokens = kGenerated;
  generate.sampling.temperature = 0;
  generate.ignore_stop_tokens = true;
  const std::span<const paddock::TokenId> prompt = std::span(tokens).first(kPrompt);
  const paddock::GenerateResult result = engine.generate(prompt, generate);
  std::vector<paddock::TokenId> sequence(prompt.begin(), prompt.end());
  sequence.insert(sequence.end(), result.tokens.begin(), result.tokens.end());
  // Each generated token is the best after those before it, and the first also by the golden
  // logits.
  const Matrix logits = all_logits(engine, sequence);
  bool right =
      result.tokens.size() == kGenerated && sequence[kPrompt] == best(expected, kPrompt - 1);
  for (int64_t i = kPrompt; i < logits.rows; ++i)
    right = right && sequence[i] == best(logits, i - 1);
  if (!right) std::printf("%s %s: wrong greedy tokens\n", tested.model, precision);
  return right;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::puts("usage: aarch64_smoke GOLDEN_FOLDER");
    return 2;
  }
  const std::string folder = argv[1];
  try {
    const std::vector<paddock::TokenId> tokens = read_tokens(folder + "/tokens.json");
    if (tokens.size() <= kPrompt) {
      std::puts("tokens.json: too few tokens");
      return 1;
    }
    bool right = true;
    for (const Case& tested : kCases) right = run(tested, folder, tokens) && right;
    return right ? 0 : 1;
  } catch (const std::exception& e) {
    std::puts(e.what());
    return 1;
  }
}
