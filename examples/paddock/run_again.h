// A trace's texts once more, under other settings.
#pragma once

#include <paddock/explain.h>

#include <string>
#include <vector>

#include "common.h"

namespace cli {

/// What became of a span under another rule, or with other memory, by running its sequence again.
struct SpanAgain {
  struct Block {
    int64_t first_position = 0;
    std::vector<int32_t> left, stayed;  // layers
  };
  std::string policy, budget;  // as typed; empty: as it was
  std::string refused;         // why it could not be run; else empty
  std::vector<Block> blocks;
};

/// Which settings are tried: each rule of `rules` and, where `budget` is not empty, that with the
/// rule that was; both: each rule with it.
struct TryArgs {
  EngineArgs engine;
  std::vector<std::string> rules;
  std::string budget;
};

/// For each span of the explanation, what came of each setting. Errors: those of check_model(), and
/// kInvalidArgument where the trace has not all tokens of a span's sequence.
std::vector<std::vector<SpanAgain>> run_again(const TryArgs& args,
                                              const paddock::Explanation& explanation);

std::string again_text(const std::vector<SpanAgain>& tried, int32_t n_layers);
Json again_json(const std::vector<SpanAgain>& tried);

}  // namespace cli
