#include "engine/step_runner.h"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace paddock {
namespace {

using Clock = std::chrono::steady_clock;

/// Whether the device may choose the token: nobody else looks at the logits or changes them.
bool leaves_choice(const BatchPart& part) {
  return part.request != nullptr && !part.request->awaited && !part.request->sampler->adjusts() &&
         !part.request->options.logprobs && !part.request->options.logits_processor;
}

}  // namespace

StepRunner::StepRunner(const LlamaConfig& config, std::shared_ptr<const LlamaWeights> weights,
                       Backend& backend, CacheManager& cache, const EngineOptions& options)
    : ops_(backend.ops()),
      cache_(cache),
      llama_(config, std::move(weights), backend, max_step_tokens(options),
             max_logit_rows(options)) {
  const auto n_sequences = static_cast<size_t>(options.max_sequences);
  last_tokens_.reserve(n_sequences);
  part_rows_.reserve(n_sequences);
  logit_rows_.reserve(static_cast<size_t>(max_logit_rows(options)));
  sample_rows_.reserve(n_sequences);
  results_.reserve(n_sequences);
}

StepResult StepRunner::run(std::span<const BatchPart> parts, StopCheck& stop) {
  const Clock::time_point start = Clock::now();
  try {
    if (!forward(parts, stop)) {
      cache_.rollback_all();
      return {};
    }
    planner_->report(cache_);
    for (const BatchPart& part : parts) {
      cache_.commit(part.sequence->tables(), part.sequence->tokens);
    }
  } catch (...) {
    cache_.rollback_all();
    throw;
  }
  cache_.tick();
  cache_.check_step();
  return {true, std::chrono::duration<double>(Clock::now() - start).count(), results_};
}

bool StepRunner::forward(std::span<const BatchPart> parts, StopCheck& stop) {
  planner_->clear();
  last_tokens_.clear();
  for (const BatchPart& part : parts) {
    const auto tokens = part.sequence->uncomputed().first(static_cast<size_t>(part.n_tokens));
    last_tokens_.push_back(planner_->add(part.sequence->tables(), tokens) + part.n_tokens - 1);
  }
  if (!llama_.run(planner_->build(), stop)) return false;
  assign_rows(parts);
  if (!logit_rows_.empty()) {
    llama_.compute_logits(logit_rows_);
    choose(parts);
  } else if (planner_->measures()) {
    ops_.wait();
  }
  return true;
}

void StepRunner::assign_rows(std::span<const BatchPart> parts) {
  logit_rows_.clear();
  part_rows_.assign(parts.size(), -1);
  results_.assign(parts.size(), {});
  const auto add_rows = [&](bool on_device) {
    for (size_t i = 0; i < parts.size(); ++i) {
      if (!parts[i].wants_logits) continue;
      if ((ops_.samples() && leaves_choice(parts[i])) != on_device) continue;
      part_rows_[i] = static_cast<int32_t>(logit_rows_.size());
      logit_rows_.push_back(last_tokens_[i]);
    }
  };
  add_rows(false);
  n_host_rows_ = static_cast<int32_t>(logit_rows_.size());
  add_rows(true);
}

void StepRunner::choose(std::span<const BatchPart> parts) {
  const auto n_rows = static_cast<int32_t>(logit_rows_.size());
  int32_t n_fetched = n_host_rows_;
  if (n_host_rows_ < n_rows) {
    sample_rows_.clear();
    for (size_t i = 0; i < parts.size(); ++i) {
      if (part_rows_[i] >= n_host_rows_) {
        sample_rows_.push_back(parts[i].request->sampler->next_row());
      }
    }
    const std::span<const int32_t> tokens = llama_.sample(n_host_rows_, sample_rows_);
    for (size_t i = 0; i < parts.size(); ++i) {
      if (part_rows_[i] < n_host_rows_) continue;
      results_[i].token = tokens[static_cast<size_t>(part_rows_[i] - n_host_rows_)];
      // A logit of it is not finite: the host says which.
      if (results_[i].token < 0) n_fetched = n_rows;
    }
  }
  if (n_fetched == 0) return;
  llama_.fetch_logits(n_fetched);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (part_rows_[i] >= 0 && part_rows_[i] < n_fetched) results_[i].logits = row(part_rows_[i]);
  }
}

void StepRunner::compute_rows(int32_t first, int32_t n) {
  logit_rows_.resize(static_cast<size_t>(n));
  std::iota(logit_rows_.begin(), logit_rows_.end(), first);
  llama_.compute_logits(logit_rows_);
  llama_.fetch_logits(n);
}

}  // namespace paddock
