#pragma once

#include <vector>

#include "diagnose/run_record.h"

namespace paddock {

/// Which causes a run shows, the gravest first. Every threshold is a constant of
/// doctor_causes.cpp, and docs/doctor.md has them.
std::vector<DoctorCause> find_causes(const RunRecord& run);

/// Pages of a block in each layer that keep `tokens` positions.
int64_t pages_for(const RunRecord& run, int64_t tokens);
/// The most pages that whole texts would have taken at once: of the requests that were there,
/// waiting or running, the largest ones, as many as may run together. A session stays.
int64_t pages_wanted(const RunRecord& run);
/// Positions in the tables' pages, as a share of the room in these, over all steps; 1 without any.
double fill_of(const RunRecord& run);
/// So many requests ended so.
int64_t count_finished(const RunRecord& run, FinishReason reason);

/// Neighbours among the prompts that differ early though long parts of them are equal.
struct BrokenPrefixes {
  int64_t compared = 0, broken = 0;  // pairs
  int64_t equal_tokens = 0;          // in the longest equal part of the pairs, on average
  int64_t differs_at = -1;           // the last position at which one began to differ
  bool by_tokens = false;            // else by where blocks were missed, and lengths
};
BrokenPrefixes find_broken_prefixes(const RunRecord& run);

}  // namespace paddock
