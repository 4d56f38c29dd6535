// What config.json says about RoPE.
#pragma once

#include "model/settings.h"

namespace paddock {

/// Fills config.rope, with config.context_length known, as transformers does (modeling_rope_utils).
/// Returns the keys it looked for in the object that describes RoPE, with "rope." before them.
KeySet read_rope(JsonSettings& settings, LlamaConfig& config);

}  // namespace paddock
