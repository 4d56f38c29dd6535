// The one loop of a step: plan, run, commit, result. generate(), feed() and forward() all go
// through it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "engine/scheduler.h"
#include "engine/step_planner.h"
#include "model/llama.h"

namespace paddock {

/// What became of one part of a batch that wanted logits.
struct PartResult {
  TokenId token = -1;             // chosen by the device; -1: the host has to, from the logits
  std::span<const float> logits;  // [vocab_size] if they came to the host, until the next step
};

struct StepResult {
  bool completed = false;             // false: somebody stopped it, and nothing has changed
  double seconds = 0;                 // that it took, the device's part included
  std::span<const PartResult> parts;  // [n_parts], until the next step
};

/// Used by the thread that drives the engine. Allocates nothing after the constructor.
class StepRunner {
 public:
  StepRunner(const LlamaConfig& config, std::shared_ptr<const LlamaWeights> weights,
             Backend& backend, CacheManager& cache, const EngineOptions& options);

  /// For another planner, where the rules have changed.
  void set_planner(std::unique_ptr<StepPlanner> planner) { planner_ = std::move(planner); }
  const StepPlanner& planner() const { return *planner_; }

  /// Runs the tokens of a batch whose pages are reserved. Where it does not complete, or throws,
  /// they are given back.
  StepResult run(std::span<const BatchPart> parts, StopCheck& stop);

  /// Logits after the tokens [first, first + n) of the last step, which was one sequence's: row i
  /// is row(i) until the next call. n <= kLogitTile.
  void compute_rows(int32_t first, int32_t n);
  std::span<const float> row(int32_t i) const { return llama_.logits_row(i); }

 private:
  /// The forward pass, and the logits that are waited for. False if it was stopped.
  bool forward(std::span<const BatchPart> parts, StopCheck& stop);
  /// Gives each part that wants logits its row: those that the host has to see come first.
  void assign_rows(std::span<const BatchPart> parts);
  /// Chooses tokens on the device where it can, and brings the other rows to the host.
  void choose(std::span<const BatchPart> parts);

  StepOps& ops_;
  CacheManager& cache_;
  std::unique_ptr<StepPlanner> planner_;
  Llama llama_;
  std::vector<int32_t> last_tokens_;    // [n_parts] flat index of each part's last token
  std::vector<int32_t> part_rows_;      // [n_parts] row of its logits, or -1
  std::vector<int32_t> logit_rows_;     // [n_rows] flat index of the token whose logits it has
  int32_t n_host_rows_ = 0;             // of them, for the host
  std::vector<SampleRow> sample_rows_;  // [n_rows - n_host_rows]
  std::vector<PartResult> results_;     // [n_parts]
};

}  // namespace paddock
