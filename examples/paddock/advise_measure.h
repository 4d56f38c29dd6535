// What paddock advise measures, as long as there is time.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "advise_candidates.h"
#include "bench_parallel.h"

namespace cli {

/// What is measured with: a text, or a conversation, and facts to hide in it.
struct Sample {
  std::vector<paddock::TokenId> tokens;
  std::vector<paddock::CompareTurn> turns;  // of a conversation
  std::vector<paddock::PlantedFact> facts;

  /// Where its prompt ends, for rules that decide there, and from where on it is seen how near to
  /// full a candidate is. Of a conversation 0: each turn has an end of its own, and all counts.
  int64_t prompt_tokens() const {
    return turns.empty() ? static_cast<int64_t>(tokens.size()) * 2 / 3 : 0;
  }
  /// Its first `n` tokens.
  Sample first(int64_t n) const;
};

/// Until when there is time; Ctrl-C ends it, too.
class TimeLimit {
 public:
  explicit TimeLimit(double seconds);
  /// So much of the whole time from the beginning on.
  TimeLimit part(double share) const;
  bool is_over() const;
  double seconds_left() const;

 private:
  std::chrono::steady_clock::time_point begin_;
  double seconds_;
};

/// With one sequence: the text at once, but for its last 16 tokens, and those one by one. Nothing
/// where time ran out.
std::optional<Speed> measure_speed(const std::shared_ptr<const paddock::Model>& model,
                                   const Candidate& candidate, const Sample& sample,
                                   const TimeLimit& time);

/// Each beside full with f16 and blocks of 16 positions, all side by side, over what follows the
/// sample's prompt. `full`: what full itself was like. Changes nothing where time ran out.
void measure_quality(const std::shared_ptr<const paddock::Model>& model,
                     std::span<Candidate* const> candidates, const Sample& sample,
                     const TimeLimit& time, std::optional<Quality>& full);

/// The candidate's settings with other numbers of sequences, of each `prompt` tokens and 16 more,
/// in the candidate's pool or the memory there is. A number that does not fit is left out; rows
/// end where time does.
std::vector<ParallelRow> measure_batches(const std::shared_ptr<const paddock::Model>& model,
                                         const Room& room, const Candidate& candidate,
                                         const std::vector<int>& parallel, int prompt,
                                         const TimeLimit& time);

}  // namespace cli
