// What can be asked of an engine, and changed, between requests.
#include <new>

#include "core/fail.h"
#include "core/search.h"
#include "engine/advice.h"
#include "engine/engine_impl.h"

namespace paddock {

EngineSetup Engine::Impl::with_policy(const EngineOptions& asked, int64_t positions) const {
  const LlamaConfig& config = model->data().config;
  EngineSetup next = setup;
  next.asked = asked;
  const Wanted wanted{
      .positions = positions, .least = positions, .max_bytes = pool_limit(), .running = true};
  next.policies = parse_policies(config, next, wanted);
  const bool is_own = asked.kv.custom_policy != nullptr;
  take_spec(is_own ? next.policies.layer(0).name : asked.kv.policy, next.asked.kv);
  take_spec(next.asked.kv.policy, next.options.kv);
  // A rule may bound what had no bound before, or the other way round. Where the pool was made for
  // shorter sequences than it would then have to hold, they stay so short.
  const EngineSetup laid = lay_out(config, next.asked, next.policies);
  next.options.context = laid.options.context;
  next.longest = laid.longest;
  if (min_pages(next) > next.pool.n_pages) {
    next.options.context = std::min(next.options.context, setup.options.context);
    next.longest = std::min(next.longest, setup.longest);
  }
  next.chunk = std::min(next.chunk, chunk_of(next.options));  // the cache was made for that much
  check_pool(config, next, wanted);
  const int64_t pages = least_pages_needed(next, std::max<int64_t>(1, positions));
  if (positions > next.longest || pages > next.pool.n_pages) {
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("under '{}' {} positions need {} pages ({} bytes) of KV cache but the "
                            "pool has {} ({} bytes)",
                            next.options.kv.policy, positions, pages,
                            pages * next.pool.geometry.page_bytes(), next.pool.n_pages,
                            next.options.kv.budget_bytes),
                propose(config, next, wanted));
  }
  return next;
}

void Engine::Impl::set_policies(EngineSetup next) {
  const size_t n_requests = scheduler->n_requests();
  if (n_requests > 0 || !sessions.empty()) {
    fail(ErrorCode::kInvalidArgument,
         "the policy cannot change to '{}' while {} requests and {} sessions are open",
         next.options.kv.policy, n_requests, sessions.size());
  }
  const detail::ModelData& data = model->data();
  auto shown = std::make_shared<const EngineOptions>(next.options);
  std::vector<SequenceRules> before = sequence_rules(setup);
  pins->clear();
  cache->set_rules(sequence_rules(next));
  try {
    auto fresh = std::make_unique<StepPlanner>(*cache, max_step_tokens(next.options));
    backend->reserve(limits_for(next, data.config, data.tensors, fresh->sizes()));
    step_runner->set_planner(std::move(fresh));
  } catch (...) {
    cache->set_rules(std::move(before));
    backend->reserve(limits_for(setup, data.config, data.tensors, step_runner->planner().sizes()));
    throw;
  }
  setup = std::move(next);
  memory_bytes = weights->bytes + setup.reserved_bytes() + other_bytes(step_runner->planner());
  {
    const std::lock_guard lock(shown_mutex_);
    shown_.swap(shown);  // the old ones go without the lock: a host's functions are among them
  }
  trace_rules();
  deliver_events();
  deliver_trace();
}

void Engine::Impl::check_budget(const EngineSetup& next, uint64_t bytes) const {
  const LlamaConfig& config = model->data().config;
  const uint64_t most = setup.reserved_bytes();
  if (bytes > most) {
    std::vector<Proposal> proposals{{.budget_bytes = most, .lowers = true}};
    const uint64_t limit = pool_limit();
    if (limit == 0 || bytes <= limit) proposals.push_back({.max_budget_bytes = bytes});
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("a KV budget of {} bytes is more than the {} that were reserved when "
                            "the engine was made",
                            bytes, most),
                proposals);
  }
  check_pool(config, next, {.max_bytes = most, .running = true});
}

void Engine::Impl::set_budget(uint64_t bytes, bool is_idle) {
  const auto page_bytes = static_cast<uint64_t>(setup.pool.geometry.page_bytes());
  EngineSetup next = setup;
  const int64_t pages = pages_in(bytes, page_bytes);
  next.for_each([&](EngineSetup& s) {
    s.pool.n_pages = pages;
    s.options.kv.budget_bytes = s.asked.kv.budget_bytes = bytes;
    s.asked.kv.budget_share = 0;
  });
  check_budget(next, bytes);
  next.options.kv.budget_bytes = static_cast<uint64_t>(next.pool.n_pages) * page_bytes;
  next.options.kv.max_budget_bytes = next.reserved_bytes();
  auto shown = std::make_shared<const EngineOptions>(next.options);
  // What else is in there stays where it is: one of the host's functions may be running.
  setup.set_pages(pages);
  setup.for_each([&](EngineSetup& s) {
    s.options.kv.max_budget_bytes = s.asked.kv.max_budget_bytes = s.reserved_bytes();
    s.asked.kv.budget_bytes = bytes;
    s.asked.kv.budget_share = 0;
  });
  cache->set_limit(setup.pool.n_pages);
  {
    const std::lock_guard lock(shown_mutex_);
    shown_.swap(shown);
  }
  if (!is_idle) return;  // who gives way is in the middle of something: the next step
  try {
    scheduler->keep_to_budget();
    note_requests();
    deliver_events();
  } catch (const std::bad_alloc&) {  // the budget is set: what is left to do the next step does
  }
}

RulesId Engine::Impl::rules_named(const std::string& spec) const {
  if (spec.empty()) return 0;
  std::string known;
  for (RulesId rules = 0; rules < setup.n_rules(); ++rules) {
    const std::string& its = setup.of(rules).options.kv.policy;
    if (its == spec) return rules;
    known += fmt::format("{}'{}'", rules == 0 ? "" : ", ", its);
  }
  fail(ErrorCode::kInvalidArgument,
       "kv_policy is '{}', but this engine has the rules {}; name one of these, or make it with "
       "that in kv.other_policies",
       spec, known);
}

RulesId Engine::Impl::rules_for(const Session* session, const std::string& spec) const {
  const RulesId named = rules_named(spec);
  if (session == nullptr) return named;
  const RulesId its = session->sequence.rules();
  if (spec.empty() || named == its) return its;
  fail(ErrorCode::kInvalidArgument,
       "kv_policy is '{}', but the session goes by '{}', which it was opened with; leave kv_policy "
       "empty, or open another session",
       spec, setup.of(its).options.kv.policy);
}

EngineOptions Engine::Impl::options() const {
  std::shared_ptr<const EngineOptions> shown;
  {
    const std::lock_guard lock(shown_mutex_);
    shown = shown_;
  }
  return *shown;
}

int64_t Engine::Impl::max_positions(const Session* session) const {
  const RulesId rules = session == nullptr ? 0 : session->sequence.rules();
  const int64_t context = setup.of(rules).longest;
  const auto fits = [&](int64_t positions) {
    return pages_for(session, rules, positions) <= setup.pool.n_pages;
  };
  return fits(context) ? context : largest(0, context - 1, fits);
}

}  // namespace paddock
