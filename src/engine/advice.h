// What would work in place of what was refused: computed with the same sizes that refuse, so that a
// proposal, once applied, is not refused in turn.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/setup.h"
#include "paddock/error.h"

namespace paddock {

/// Sinks of a rule that is proposed, where nobody said how many: as many as the first positions
/// that attention is known to lean on (arXiv 2309.17453).
inline constexpr int32_t kUsualSinks = 4;

/// What is to be possible afterwards.
struct Wanted {
  int64_t positions = 0;   // of one sequence, to the end of all that was asked for
  int64_t least = 0;       // so many if those cannot be had
  uint64_t max_bytes = 0;  // that a pool may take; 0: unknown
  bool running = false;    // the engine stands: its pool is what rules have to fit
};

/// Settings under which `wanted` works, the least change first. `setup` is what does not.
std::vector<Proposal> propose(const LlamaConfig& config, const EngineSetup& setup,
                              const Wanted& wanted);

/// Likewise for sequences that go by the setup's rules of that number. A SPEC in place of others
/// than the engine's own is proposed as a list of KvOptions::other_policies. Left out is what the
/// other rules of the setup would not work with.
std::vector<Proposal> propose_for(const LlamaConfig& config, const EngineSetup& setup,
                                  RulesId rules, const Wanted& wanted);
/// The same proposals, but each SPEC as what it would make of `specs` (KvOptions::other_policies)
/// in place of the i-th.
std::vector<Proposal> as_others(std::vector<Proposal> proposals,
                                const std::vector<std::string>& specs, size_t i);

/// A SPEC for this model in place of one that is wrong: what it seems to mean, if that works, else
/// the best rule that does. `setup.policies` may be empty, `setup.asked.kv.policy` is what is
/// wrong.
std::vector<Proposal> propose_policy(const LlamaConfig& config, const EngineSetup& setup,
                                     const Wanted& wanted);

/// Makes of a SPEC one whose names, layers and numbers this model and block size know, as near to
/// it as can be; not yet checked.
std::string repaired_spec(std::string_view spec, int32_t n_layers, int32_t block_size);

}  // namespace paddock
