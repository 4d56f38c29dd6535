// Sessions, raw forward passes, and what can be asked or changed between requests.
#include <numeric>

#include "core/fail.h"
#include "core/system.h"
#include "engine/advice.h"
#include "paddock/log.h"

namespace paddock {
namespace {

void check_callback(const std::function<bool(int64_t, std::span<const float>)>& on_logits) {
  if (!on_logits) fail(ErrorCode::kInvalidArgument, "on_logits is null; give a function");
}

}  // namespace

Session& Engine::Impl::session(SessionId id) {
  const auto it = sessions.find(id);
  if (it == sessions.end()) fail(ErrorCode::kInvalidArgument, "session {} is not open", id);
  if (it->second->busy) fail(ErrorCode::kInvalidArgument, "session {} is running a request", id);
  return *it->second;
}

SessionId Engine::Impl::open_session() {
  const auto [at, added] = sessions.emplace(next_session_, std::make_unique<Session>());
  try {
    at->second->sequence = cache->open();
  } catch (...) {
    sessions.erase(at);
    throw;
  }
  return next_session_++;
}

void Engine::Impl::close_session(SessionId id) {
  cache->close(session(id).sequence);
  sessions.erase(id);
  deliver_events();
}

int64_t Engine::Impl::session_length(SessionId id) {
  return static_cast<int64_t>(session(id).tokens.size());
}

void Engine::Impl::feed_session(Session& session, std::span<const TokenId> tokens,
                                const std::function<void(std::span<const TokenId>)>& feed_all) {
  const size_t before = session.tokens.size();
  session.tokens.insert(session.tokens.end(), tokens.begin(), tokens.end());
  const int64_t start = cache->length(session.sequence);
  const auto settle = [&] {  // however far it came
    const int64_t length = cache->length(session.sequence);
    session.tokens.resize(std::max(before, static_cast<size_t>(length)));
    session.claimed_pages = pages_for(&session, length);
  };
  try {
    feed_all(std::span(session.tokens).subspan(static_cast<size_t>(start)));
  } catch (...) {
    settle();
    throw;
  }
  settle();
}

std::span<const float> Engine::Impl::feed(SessionId id, std::span<const TokenId> tokens,
                                          int64_t prompt_tokens) {
  Session& target = session(id);
  check_tokens(tokens, "input");
  if (prompt_tokens < 0) {
    fail(ErrorCode::kInvalidArgument, "prompt_tokens is {}; it must be 0 or more", prompt_tokens);
  }
  cache->set_prompt(target.sequence, prompt_tokens);
  feed_session(target, tokens, [&](std::span<const TokenId> all) {
    int32_t last = 0;
    feed_sequence(target.sequence, all, [&](int64_t, int32_t n) {
      last = n - 1;
      return true;
    });
    llama->compute_logits({&last, 1});
    llama->fetch_logits();
    if (const auto trouble = judge(llama->logits_row(0), cache->length(target.sequence) - 1)) {
      throw *trouble;
    }
    note_overflows();
  });
  check_abandoned();
  return llama->logits_row(0);
}

void Engine::Impl::feed(SessionId id, std::span<const TokenId> tokens, const OnLogits& on_logits,
                        int64_t prompt_tokens) {
  Session& target = session(id);
  check_tokens(tokens, "input");
  check_callback(on_logits);
  if (prompt_tokens < 0) {
    fail(ErrorCode::kInvalidArgument, "prompt_tokens is {}; it must be 0 or more", prompt_tokens);
  }
  cache->set_prompt(target.sequence, prompt_tokens);
  feed_session(target, tokens,
               [&](std::span<const TokenId> all) { feed_rows(target.sequence, all, on_logits); });
}

void Engine::Impl::truncate(SessionId id, int64_t length) {
  Session& target = session(id);
  const auto held = static_cast<int64_t>(target.tokens.size());
  if (length < 0 || length > held) {
    fail(ErrorCode::kInvalidArgument, "cannot truncate a session of {} positions to {}", held,
         length);
  }
  if (length < cache->length(target.sequence)) cache->truncate(target.sequence, length);
  target.tokens.resize(static_cast<size_t>(length));
  target.claimed_pages = pages_for(&target, cache->length(target.sequence));
  deliver_events();
}

EngineSetup Engine::Impl::with_policy(const EngineOptions& asked, int64_t positions) const {
  const LlamaConfig& config = model->data().config;
  EngineSetup next = setup;
  next.asked = asked;
  const Wanted wanted{
      .positions = positions, .least = positions, .most_bytes = pool_limit(), .running = true};
  next.policies = parse_policies(config, next, wanted);
  if (asked.kv.custom_policy != nullptr) next.asked.kv.policy = next.policies.layer(0).name;
  next.asked.kv.custom_policy = nullptr;
  next.options.kv.policy = next.asked.kv.policy;
  next.options.kv.custom_policy = nullptr;
  // A rule may bound what had no bound before, or the other way round. Where the pool was made for
  // shorter sequences than it would then have to hold, they stay so short.
  next.options.context = lay_out(config, next.asked, next.policies).options.context;
  if (least_pages(next) > next.n_pages) {
    next.options.context = std::min(next.options.context, setup.options.context);
  }
  next.chunk = static_cast<int32_t>(std::min<int64_t>(next.chunk, next.options.context));
  check_pool(config, next, wanted);
  const int64_t pages = pages_needed(next, std::max<int64_t>(1, positions));
  if (positions > next.options.context || pages > next.n_pages) {
    throw Error(
        ErrorCode::kOutOfMemory,
        fmt::format("under '{}' {} positions need {} pages ({} bytes) of KV cache but the "
                    "pool has {} ({} bytes)",
                    next.options.kv.policy, positions, pages, pages * next.geometry.page_bytes(),
                    next.n_pages, next.options.kv.budget_bytes),
        propose(config, next, wanted));
  }
  return next;
}

void Engine::Impl::set_policies(EngineSetup next) {
  if (!requests.empty() || !sessions.empty()) {
    fail(ErrorCode::kInvalidArgument,
         "the policy cannot change to '{}' while {} requests and {} sessions are open",
         next.options.kv.policy, requests.size(), sessions.size());
  }
  auto shown = std::make_shared<const EngineOptions>(next.options);
  PolicyMap before = setup.policies;
  cache->set_policies(next.policies, next.options.context);
  try {
    auto fresh = std::make_unique<StepPlanner>(*cache, most_tokens(next.options));
    backend->reserve(limits_for(next, model->data(), *fresh));
    planner = std::move(fresh);
  } catch (...) {
    cache->set_policies(std::move(before), setup.options.context);
    backend->reserve(limits_for(setup, model->data(), *planner));
    throw;
  }
  setup = std::move(next);
  memory_bytes = weights->bytes + setup.options.kv.budget_bytes + other_bytes();
  {
    const std::lock_guard lock(shown_mutex_);
    shown_.swap(shown);  // the old ones go without the lock: a host's functions are among them
  }
  deliver_events();
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
  const int64_t context = setup.options.context;
  const auto fits = [&](int64_t positions) {
    return pages_for(session, positions) <= setup.n_pages;
  };
  if (fits(context)) return context;
  int64_t positions = 0;
  for (int64_t add = int64_t{1} << 30; add > 0; add /= 2) {
    const int64_t longer = positions + add;
    if (longer < context && fits(longer)) positions = longer;
  }
  return positions;
}

KvStats Engine::Impl::stats() const {
  KvStats stats = cache->stats();
  stats.type = kv_type_;
  stats.hook_failures = hook_failures_ + static_cast<int64_t>(log_hook_failures());
  for (KvLayerStats& layer : stats.layers) {
    layer.attention_seconds =
        static_cast<double>(backend->ops().attention_nanoseconds(layer.layer)) * 1e-9;
    stats.total.attention_seconds += layer.attention_seconds;
    layer.kv_overflows = backend->ops().kv_overflows(layer.layer);
    stats.total.kv_overflows += layer.kv_overflows;
  }
  stats.memory = {resident_memory(), available_memory()};
  stats.device = backend->memory();
  stats.device.reserved_bytes = memory_bytes;
  return stats;
}

void Engine::Impl::forward(std::span<const TokenId> tokens, const OnLogits& on_logits,
                           int64_t prompt_tokens) {
  check_tokens(tokens, "input");
  check_callback(on_logits);
  if (prompt_tokens < 0 || prompt_tokens > static_cast<int64_t>(tokens.size())) {
    fail(ErrorCode::kInvalidArgument, "prompt_tokens is {}; it must be from 0 to the input's {}",
         prompt_tokens, tokens.size());
  }
  const SequenceId sequence = cache->open();
  cache->set_prompt(sequence, prompt_tokens);
  struct Closer {
    CacheManager& cache;
    SequenceId sequence;
    ~Closer() { cache.close(sequence); }
  } closer{*cache, sequence};
  feed_rows(sequence, tokens, on_logits);
}

bool Engine::Impl::hand_out(const OnLogits& on_logits, int64_t position,
                            std::span<const float> logits) {
  const Driving::CallOut out(driving);
  return on_logits(position, logits);
}

void Engine::Impl::feed_rows(SequenceId sequence, std::span<const TokenId> tokens,
                             const OnLogits& on_logits) {
  feed_sequence(sequence, tokens, [&](int64_t first, int32_t n) {
    for (int32_t begin = 0; begin < n; begin += kLogitTile) {
      logit_rows_.resize(std::min(kLogitTile, n - begin));
      std::iota(logit_rows_.begin(), logit_rows_.end(), begin);
      llama->compute_logits(logit_rows_);
      llama->fetch_logits();
      for (size_t i = 0; i < logit_rows_.size(); ++i) {
        const int64_t position = first + begin + static_cast<int64_t>(i);
        const std::span<const float> row = llama->logits_row(static_cast<int32_t>(i));
        if (const auto trouble = judge(row, position)) throw *trouble;
        if (!hand_out(on_logits, position, row)) return false;
        check_abandoned();
      }
    }
    note_overflows();
    return true;
  });
}

void Engine::Impl::feed_sequence(SequenceId sequence, std::span<const TokenId> tokens,
                                 const std::function<bool(int64_t first, int32_t n)>& on_chunk) {
  cancel_feed_ = false;
  const int64_t start = cache->length(sequence);
  const int64_t end = start + static_cast<int64_t>(tokens.size());
  if (end > setup.options.context) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} tokens after position {} exceed the context of {} positions",
                            tokens.size(), start, setup.options.context),
                proposals(end, end));
  }
  for (size_t fed = 0; fed < tokens.size();) {
    const auto n = static_cast<int32_t>(
        std::min(static_cast<int64_t>(tokens.size() - fed), cache->most_next(sequence)));
    if (!cache->reserve(sequence, n)) {
      throw Error(ErrorCode::kOutOfMemory,
                  fmt::format("the KV pool of {} pages is full at position {}", setup.n_pages,
                              start + static_cast<int64_t>(fed)),
                  proposals(end, end));
    }
    planner->clear();
    planner->add(sequence, tokens.subspan(fed, n));
    bool completed = false;
    try {
      completed = llama->run(planner->build(), this);
      if (planner->measures()) backend->ops().wait();
    } catch (...) {
      cache->rollback(sequence);
      throw;
    }
    if (!completed) {
      cache->rollback(sequence);
      fail(ErrorCode::kCancelled, "cancelled at position {}", start + static_cast<int64_t>(fed));
    }
    planner->report(*cache);
    cache->commit(sequence);
    cache->tick();
    deliver_events();
    if (!on_chunk(start + static_cast<int64_t>(fed), n)) return;
    fed += n;
  }
}

}  // namespace paddock
