// An answer as JSON, as every form of `generate` prints it.
#pragma once

#include <nlohmann/json.hpp>

#include "common.h"

namespace cli {

/// `kv`: the cache's statistics, if they belong to it.
Json answer_json(const paddock::GenerateResult& result, uint64_t seed, bool logprobs,
                 const paddock::KvStats* kv = nullptr);

}  // namespace cli
