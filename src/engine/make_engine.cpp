// How an engine is made: what it takes, found out and checked before anything large is taken.
#include <algorithm>
#include <cmath>

#include "core/checked.h"
#include "core/fail.h"
#include "core/log.h"
#include "engine/advice.h"
#include "engine/engine_impl.h"
#include "engine/engine_sizes.h"
#include "engine/step_planner.h"
#include "model/make_weights.h"

namespace paddock {
namespace {

/// Refuses before anything large is taken.
void check_memory(const LlamaConfig& config, const EngineSetup& setup, uint64_t available,
                  uint64_t weights, uint64_t rest) {
  const uint64_t pool = setup.reserved_bytes();
  const uint64_t needed = checked_add(checked_add(weights, pool, "memory", ErrorCode::kOutOfMemory),
                                      rest, "memory", ErrorCode::kOutOfMemory);
  if (available == 0 || needed <= available) return;
  std::string problem = fmt::format(
      "the engine needs {} bytes ({} for packed weights, {} for the KV pool, {} for activations "
      "and "
      "tables) but only {} are available",
      needed, weights, pool, rest, available);
  const uint64_t others = weights + rest;
  if (others >= available) fail(ErrorCode::kOutOfMemory, "{}; take a smaller model", problem);
  const uint64_t left = without_reserve(available - others);
  const uint64_t most = left >> 10 << 10;  // whole KiB
  if (setup.options.kv.budget_bytes < pool && setup.options.kv.budget_bytes <= most) {
    throw Error(ErrorCode::kOutOfMemory, problem, {{.max_budget_bytes = most, .lowers = true}});
  }
  throw Error(ErrorCode::kOutOfMemory, problem, propose_for(config, setup, 0, {.max_bytes = left}));
}

std::unique_ptr<ReclaimPolicy> make_reclaim(const KvOptions& kv) {
  if (!kv.custom_reclaim) return make_reclaim_policy(kv.reclaim);
  auto policy = ask_host("kv.custom_reclaim", kv.custom_reclaim);
  if (policy == nullptr) fail(ErrorCode::kInvalidArgument, "kv.custom_reclaim made no policy");
  return policy;
}

}  // namespace

Engine::Impl::Impl(std::shared_ptr<const Model> shared_model, EngineSetup resolved,
                   std::unique_ptr<Backend> device)
    : model(std::move(shared_model)), setup(std::move(resolved)), backend(std::move(device)) {
  const EngineOptions& o = setup.options;
  const detail::ModelData& data = model->data();
  const LlamaConfig& config = data.config;

  const std::string key = backend->weights().weights_key();
  const uint64_t packed =
      data.has_weights(key) ? 0 : weights_bytes(data.tensors, backend->weights());
  if (o.kv.budget_share > 0) fit_pool(packed);
  const uint64_t pool = setup.reserved_bytes();
  // Weights and pool are checked alone at first: tables are made before they can be counted, and
  // those of a pool that is far too large could take all memory themselves.
  check_memory(config, setup, backend->available_bytes(), packed, 0);
  if (o.kv.trace.sink) make_trace();
  std::unique_ptr<StepPlanner> planner = make_books();
  const uint64_t others = other_bytes(*planner);
  check_memory(config, setup, backend->available_bytes(), packed, others);

  weights = data.weights(key, [&] { return make_weights(data, backend->weights()); });
  backend->reserve(limits_for(setup, config, data.tensors, planner->sizes()));
#ifdef PADDOCK_POISON
  for (int32_t page = 0; page < setup.reserved_pages; ++page) backend->pages().poison_page(page);
#endif
  step_runner = std::make_unique<StepRunner>(config, weights, *backend, *cache, o);
  step_runner->set_planner(std::move(planner));
  pins = std::make_unique<Pins>(*cache);
  std::function<KvRelief(const KvShortage&)> on_pressure;
  if (setup.options.kv.on_pressure) {
    on_pressure = [this](const KvShortage& shortage) { return ask_for_room(shortage); };
  }
  scheduler = std::make_unique<Scheduler>(*cache, setup, sessions, *pins, config.vocab_size,
                                          std::move(on_pressure));
  trace_rules();
  memory_bytes = weights->bytes + pool + others;
  trace_memory();
  cache->set_limit(setup.pool.n_pages);
  cache->keep_to_limit(0);
  kv_type_ = kv_type_name(o.kv.type);
  shown_ = std::make_shared<const EngineOptions>(o);
  log(LogLevel::kInfo, "engine: {} threads, {} bytes, KV pool of {} pages under '{}'", o.threads,
      memory_bytes.load(), setup.pool.n_pages, o.kv.policy);
}

std::unique_ptr<StepPlanner> Engine::Impl::make_books() {
  const EngineOptions& o = setup.options;
  CacheConfig books = cache_config(model->data().config, setup);
  books.merges_blocks = backend->ops().is_batch_invariant();
  books.copy_page = [this](int32_t from, int32_t to) { backend->pages().copy_page(from, to); };
  books.on_withheld = [this](int32_t first, int32_t n, bool is_withheld) {
    is_withheld ? backend->pages().give_back(first, n) : backend->pages().take_back(first, n);
  };
  books.observer = trace.get();
  if (o.kv.shadow && o.kv.reuse) books.shadow_order = [&o] { return make_reclaim(o.kv); };
#ifdef PADDOCK_POISON  // a build whose free pages are full of NaN
  books.on_free = [this](int32_t page) { backend->pages().poison_page(page); };
  books.on_withheld = nullptr;  // giving a page back would empty it
#endif
  cache = std::make_unique<CacheManager>(books, sequence_rules(setup), make_reclaim(o.kv));
  return std::make_unique<StepPlanner>(*cache, max_step_tokens(o));
}

uint64_t Engine::Impl::other_bytes(const StepPlanner& planner) const {
  const detail::ModelData& data = model->data();
  const EngineSizes sizes =
      engine_sizes(data.config, data.tensors, setup, planner.sizes(), *backend);
  return sizes.activations + sizes.tables;
}

void Engine::Impl::fit_pool(uint64_t weights_bytes) {
  const uint64_t available = backend->available_bytes();
  if (available == 0) {
    fail(ErrorCode::kInvalidArgument,
         "kv.budget_share is {}, but how much memory is free is not known here; give budget_bytes",
         setup.options.kv.budget_share);
  }
  const auto allowed =
      static_cast<uint64_t>(setup.options.kv.budget_share * static_cast<double>(available));
  const auto page_bytes = static_cast<uint64_t>(setup.pool.geometry.page_bytes());
  const EngineSetup& largest = setup.of(most_needing(setup));
  const int64_t least = min_pages(largest);
  const auto shrink_beside = [&](uint64_t others) {
    const uint64_t bytes = allowed - std::min(allowed, others);
    setup.share_bytes = bytes;
    setup.set_pages(static_cast<int64_t>(
        std::min(static_cast<uint64_t>(setup.pool.n_pages), bytes / page_bytes)));
    setup.for_each([](EngineSetup& s) { s.reserved_pages = s.pool.n_pages; });
    if (setup.pool.n_pages >= least) return;
    // A percent more than is needed now: the next engine may find less memory free.
    const double share = std::ceil(static_cast<double>(others + least * page_bytes) /
                                       static_cast<double>(available) * 100 +
                                   1) /
                         100;
    std::vector<Proposal> proposals;
    if (share <= 1) proposals.emplace_back().budget_share = share;
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("{} of {} free bytes are allowed (kv.budget_share {}), but weights, "
                            "activations and tables need {} and policy '{}' {} more{}",
                            allowed, available, setup.options.kv.budget_share, others,
                            largest.options.kv.policy, least * page_bytes,
                            proposals.empty() ? "; take a smaller model" : ""),
                proposals);
  };
  // Tables grow with the pool, which is not known yet. First they are counted for the largest
  // pool there could be; what that leaves is a pool whose own, smaller tables fit beside it.
  shrink_beside(weights_bytes);
  shrink_beside(weights_bytes + other_bytes(*make_books()));
}

}  // namespace paddock
