// Golden models and token lists, and logits of ours to hold against them.
#pragma once

#include <gtest/gtest.h>
#include <paddock/paddock.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json_fwd.hpp>

#include "support/npy.h"

namespace paddock::test {

/// Whether engines that name no device run on CUDA in this program, and whether there on the
/// emulated one, which takes milliseconds for a token. Said by support/on_cuda.cpp
/// in programs that have it, else by support/on_cpu.cpp: the tests
/// themselves are compiled once.
extern const bool kOnCuda;
extern const bool kEmulated;
/// What "auto" means in this program, for engines that the library makes itself.
extern const char* const kDevice;
/// What an Engine of this program is made of: Engine engine(parts(model, options)). Whoever keeps
/// them looks inside (support/engine_inside.h). Where the device is emulated, only engines made
/// like this are on it.
std::shared_ptr<Engine::Impl> parts(std::shared_ptr<const Model> model,
                                    const EngineOptions& options = {});

/// The plan of such an engine.
EnginePlan plan_of(const std::string& path, const EngineOptions& options);

/// Precisions in which a token's bits do not depend on what else is in its batch. On CUDA `fast`
/// takes other products for other numbers of rows.
inline std::vector<Precision> exact_precisions() {
  if (kOnCuda) return {Precision::kReference};
  return {Precision::kReference, Precision::kFast};
}

/// The instruction sets to ask for; a device has but one.
inline std::vector<std::string> isas() {
  if (kOnCuda) return {""};
  return isa_names();
}

/// Where the tests' files are; PADDOCK_TEST_DATA in the environment says so to a program that was
/// carried elsewhere.
inline std::string test_data() {
  const char* moved = std::getenv("PADDOCK_TEST_DATA");
  return moved != nullptr ? moved : PADDOCK_TEST_DATA;
}

inline std::string golden(const std::string& name) { return test_data() + "/golden/" + name; }

nlohmann::json golden_json(const std::string& name);
std::vector<TokenId> golden_tokens();

inline EngineOptions reference_options() {
  EngineOptions options;
  options.threads = 2;
  options.precision = Precision::kReference;
  return options;
}

/// Logits of every position; check_integrity() afterwards.
Matrix all_logits(Engine& engine, std::span<const TokenId> tokens);
Matrix all_logits(const std::string& model, const EngineOptions& options);

/// Largest difference over the largest magnitude of `expected`.
double relative_error(const Matrix& actual, const Matrix& expected);

/// Path of a real file from the environment; skips visibly without it, but fails in CI.
#define PADDOCK_REAL_FILE(path, variable)                                         \
  const char* path = std::getenv(variable);                                       \
  if (path == nullptr) {                                                          \
    if (std::getenv("CI") != nullptr) FAIL() << variable << " must be set in CI"; \
    GTEST_SKIP() << variable << " is not set";                                    \
  }

}  // namespace paddock::test
