#include "engine/engine_sizes.h"

#include <algorithm>

#include "model/llama.h"

namespace paddock {

CacheConfig cache_config(const LlamaConfig& config, const EngineSetup& setup) {
  const EngineOptions& o = setup.options;
  int32_t chunk = 0;
  for (RulesId rules = 0; rules < setup.n_rules(); ++rules) {
    chunk = std::max(chunk, setup.of(rules).chunk);
  }
  return {.n_layers = config.n_layers,
          .n_heads = config.n_heads,
          .block_size = o.kv.block_size,
          .n_pages = static_cast<int32_t>(setup.reserved_pages),
          .layout = KvLayout::uniform(config.n_layers, setup.pool.geometry),
          .max_sequences = o.max_sequences,
          .max_positions = setup.longest,
          .max_chunk = chunk,
          .max_resident = o.context,
          .event_capacity = o.kv.event_capacity,
          .queues_events = static_cast<bool>(o.kv.on_event),
          .keep_blocks = o.kv.reuse};
}

StepSizes step_sizes(const LlamaConfig& config, const EngineSetup& setup) {
  const CacheConfig books = cache_config(config, setup);
  const std::vector<SequenceRules> rules = sequence_rules(setup);
  return step_sizes(
      books, setup.n_rules(),
      [&](RulesId i) -> const PolicyMap& { return rules[static_cast<size_t>(i)].policies; },
      [&](RulesId i, int32_t layer) {
        return CacheManager::max_entries(rules[static_cast<size_t>(i)], layer, books);
      },
      max_step_tokens(setup.options));
}

EngineSizes engine_sizes(const LlamaConfig& config, const LlamaTensors& tensors,
                         const EngineSetup& setup, const StepSizes& steps, const Backend& backend) {
  const EngineOptions& o = setup.options;
  const uint64_t reserved = backend.reserve_bytes(limits_for(setup, config, tensors, steps));
  return {Llama::activation_bytes(config, max_step_tokens(o), max_logit_rows(o)),
          reserved - setup.reserved_bytes()};
}

}  // namespace paddock
