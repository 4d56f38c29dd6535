// paddock perplexity --lengths: what stretching RoPE buys and costs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common.h"

namespace cli {

/// "1k,2k,4096": lengths in positions, ascending; k counts 1,024. UsageError.
std::vector<int64_t> parse_lengths(const std::string& text);
/// "1,2,4": UsageError for what is no number from 1 on.
std::vector<double> parse_factors(const std::string& text);

/// Runs the beginning of the text once under each factor, and prints a table: for each length how
/// well its tokens were predicted, and the bytes of keys and values.
int run_lengths(const EngineArgs& args, const std::vector<paddock::TokenId>& tokens,
                const std::vector<int64_t>& lengths, const std::vector<double>& factors);

}  // namespace cli
