// What the engine tells its trace: what it is, whose steps are run.
#include "block_use.h"
#include "core/system.h"
#include "engine/engine_impl.h"
#include "paddock/version.h"

namespace paddock {

// The trace's room does not know the kernels': it is handed masses in their unit.
static_assert(trace::kMassUnit == kMassUnit);

void Engine::Impl::make_trace() {
  TraceRecorder::Piece piece;
  if (setup.options.kv.trace.tokens && model->data().tokenizer != nullptr) {
    piece = [tokenizer = model->data().tokenizer](int32_t id) {
      return id < tokenizer->vocab_size() ? tokenizer->token_bytes(id) : std::string_view();
    };
  }
  trace = std::make_unique<TraceRecorder>(setup.options.kv.trace, trace_header(), std::move(piece));
}

TraceHeader Engine::Impl::trace_header() const {
  const EngineOptions& o = setup.options;
  const ModelInfo& info = model->info();
  TraceHeader h;
  h.library = version();
  h.model = info.name;
  h.n_layers = info.n_layers;
  h.n_heads = info.n_heads;
  h.n_kv_heads = info.n_kv_heads;
  h.head_dim = info.head_dim;
  h.vocab_size = info.vocab_size;
  h.device = o.device;
  h.kv_type = kv_type_name(o.kv.type);
  h.block_size = o.kv.block_size;
  h.page_bytes = setup.pool.geometry.page_bytes();
  h.pool_pages = setup.pool.n_pages;
  h.context = o.context;
  h.model_context = info.context_length;
  h.batch_size = o.batch_size;
  h.max_sequences = o.max_sequences;
  h.reuse = o.kv.reuse;
  h.reclaim = o.kv.custom_reclaim ? "custom" : o.kv.reclaim;
  return h;
}

void Engine::Impl::trace_rules() {
  if (trace == nullptr) return;
  for (RulesId number = 0; number < setup.n_rules(); ++number) {
    const EngineSetup& its = setup.of(number);
    TraceRules rules;
    rules.number = number;
    rules.policy = its.options.kv.policy;
    for (int32_t layer = 0; layer < its.policies.size(); ++layer) {
      const LayerRule& rule = its.policies.layer(layer);
      TraceRules::Layer& told = rules.layers.emplace_back();
      told.policy = rule.name;
      told.visibility = {rule.visibility.sinks, rule.visibility.window};
      told.schedule = rule.schedule;
      told.needs = rule.needs;
      told.is_elastic = rule.is_elastic;
      told.shares_by_need = rule.shares_by_need;
      told.is_compact = rule.positions == Positions::kCompact;
    }
    trace->rules(rules);
  }
}

void Engine::Impl::trace_memory() noexcept {
  if (trace == nullptr) return;
  try {
    TraceMemory now{{resident_memory(), available_memory()}, backend->memory()};
    now.device.reserved_bytes = memory_bytes;
    trace->memory(now);
  } catch (...) {  // no memory, or a device that is lost: it is not told
  }
}

StepResult Engine::Impl::run_step(std::span<const BatchPart> parts, StopCheck& stop) {
  if (trace == nullptr) return step_runner->run(parts, stop);
  for (const BatchPart& part : parts) {
    const int64_t request = part.request == nullptr ? 0 : part.request->id;
    trace->runs(part.sequence->tables(), request, part.sequence->session);
  }
  trace->step_begins();
  try {
    const StepResult result = step_runner->run(parts, stop);
    trace->step_ends(result.completed);
    return result;
  } catch (...) {
    trace->step_ends(false);
    throw;
  }
}

void Engine::Impl::deliver_trace() {
  if (trace == nullptr) return;
  const Driving::CallOut out(driving);
  if (!trace->flush()) ++trace_failures_;
}

}  // namespace paddock
