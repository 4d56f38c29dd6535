// What an engine will take, and what fits which memory, from a model's headers alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "paddock/engine.h"
#include "paddock/error.h"
#include "paddock/export.h"

namespace paddock {

/// What becomes of a plan in so many bytes.
struct PlanFit {
  uint64_t memory_bytes = 0;
  bool fits = false;
  /// The longest context for as many sequences as asked, up to what the model was trained for or
  /// what was asked; kUnlimited: any length, as every layer has a bound. 0: none.
  int64_t max_context = 0;
  /// Likewise, whatever the model was trained for.
  int64_t memory_context = 0;
  /// The most sequences of the context that was asked for, up to kMaxSequences.
  int32_t max_users = 0;
  /// Where it does not fit: settings under which it does, the least change first.
  std::vector<Proposal> proposals{};
};

struct EnginePlan {
  std::string model;      ///< its name; may be empty
  std::string estimated;  ///< why bytes are estimates; empty: they are those that the engine takes
  EngineOptions options{};      ///< completed: context, batch, KV type
  int64_t trained_context = 0;  ///< ModelInfo::context_length

  uint64_t weights_bytes = 0;     ///< in the device's own form
  uint64_t activation_bytes = 0;  ///< of the largest step
  uint64_t table_bytes = 0;       ///< tables, angles and scratch that the device keeps beside them
  uint64_t pool_bytes = 0;        ///< for as many sequences of the context as were asked for
  int64_t pool_pages = 0;
  uint64_t page_bytes = 0;
  uint64_t total_bytes = 0;  ///< Engine::memory_bytes()
  uint64_t kv_bytes_per_token = 0;
  std::vector<uint64_t> kv_bytes_per_token_layer{};

  /// What computing the next token has to read: weights, once for all sequences, and keys and
  /// values of a sequence that has the whole context.
  uint64_t weights_read_bytes = 0;
  uint64_t kv_read_bytes = 0;

  std::vector<std::string> warnings{};
  std::vector<PlanFit> fits{};  ///< one for each memory
};

/// Plans an engine for the model at `path`: a GGUF file, of which its beginning will do, a Hugging
/// Face folder, or its config.json alone. No weights are read, and nothing large is taken.
/// A memory of 0 is what is free now
/// on the engine's device. KvOptions::budget_share is not heeded. Of the options max_sequences says
/// how many there are to be at once. Errors as of Model::load() and of an engine's options, but for
/// lack of memory.
PADDOCK_API EnginePlan plan_engine(const std::string& path, const EngineOptions& options,
                                   std::span<const uint64_t> memories = {});

}  // namespace paddock
