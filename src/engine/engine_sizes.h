// What an engine takes beside weights and pool: for its constructor, and for who only asks.
#pragma once

#include <cstdint>

#include "engine/setup.h"
#include "engine/step_sizes.h"

namespace paddock {

struct EngineSizes {
  uint64_t activations = 0;
  uint64_t tables = 0;  // and all else that the backend keeps beside weights and pool
};

/// The books' configuration, but for what they call.
CacheConfig cache_config(const LlamaConfig& config, const EngineSetup& setup);
/// Of the steps of an engine that nobody makes.
StepSizes step_sizes(const LlamaConfig& config, const EngineSetup& setup);

EngineSizes engine_sizes(const LlamaConfig& config, const LlamaTensors& tensors,
                         const EngineSetup& setup, const StepSizes& steps, const Backend& backend);
inline EngineSizes engine_sizes(const LlamaConfig& config, const LlamaTensors& tensors,
                                const EngineSetup& setup, const Backend& backend) {
  return engine_sizes(config, tensors, setup, step_sizes(config, setup), backend);
}

}  // namespace paddock
