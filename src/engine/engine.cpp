// The public face of the engine: each method says whether it may be called now, and calls
// Engine::Impl.
#include "paddock/engine.h"

#include "backend/devices.h"
#include "core/fail.h"
#include "engine/engine_impl.h"

namespace paddock {

std::shared_ptr<Engine::Impl> make_engine_impl(std::shared_ptr<const Model> model,
                                               const EngineOptions& options, BackendMaker maker) {
  if (model == nullptr) fail(ErrorCode::kInvalidArgument, "the engine was given no model");
  return at_the_edge([&] {
    EngineSetup setup = resolve(*model, options);
    const EngineOptions& o = setup.options;
    auto backend = maker(
        o.device,
        {.reference = o.precision == Precision::kReference, .threads = o.threads, .isa = o.isa});
    return std::make_shared<Engine::Impl>(std::move(model), std::move(setup), std::move(backend));
  });
}

Engine::Engine(std::shared_ptr<const Model> model, const EngineOptions& options)
    : Engine(make_engine_impl(std::move(model), options, make_backend)) {}

Engine::Engine(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Engine::~Engine() {
  // Inside a callback the call under way keeps the inside alive until it returns.
  if (!impl_->driving.is_idle()) impl_->abandon();
}

GenerateResult Engine::generate(std::string_view prompt, const GenerateOptions& options) {
  return Impl::drive(impl_, "generate", [&](Impl& impl) {
    const std::vector<TokenId> tokens = impl.model->tokenizer()->encode(
        prompt, {.add_bos = options.add_bos, .parse_special = options.parse_special});
    return impl.generate(tokens, options, nullptr);
  });
}

GenerateResult Engine::generate(std::span<const TokenId> prompt, const GenerateOptions& options) {
  return Impl::drive(impl_, "generate",
                     [&](Impl& impl) { return impl.generate(prompt, options, nullptr); });
}

GenerateResult Engine::generate(SessionId session, std::span<const TokenId> tokens,
                                const GenerateOptions& options) {
  return Impl::drive(impl_, "generate", [&](Impl& impl) {
    return impl.generate(tokens, options, &impl.session(session));
  });
}

RequestId Engine::add(std::span<const TokenId> prompt, const GenerateOptions& options) {
  return Impl::touch(impl_, "add", [&](Impl& impl) { return impl.add(prompt, options, nullptr); });
}

RequestId Engine::add(SessionId session, std::span<const TokenId> tokens,
                      const GenerateOptions& options) {
  return Impl::touch(impl_, "add",
                     [&](Impl& impl) { return impl.add(tokens, options, &impl.session(session)); });
}

bool Engine::step() {
  return Impl::drive(impl_, "step", [](Impl& impl) { return impl.step(); });
}

std::optional<GenerateResult> Engine::take(RequestId id) {
  return Impl::touch(impl_, "take", [&](Impl& impl) { return impl.take(id); });
}

std::optional<RequestId> Engine::finished_after(RequestId id) const {
  return Impl::touch(impl_, "finished_after", [&](Impl& impl) { return impl.finished_after(id); });
}

RequestStatus Engine::status(RequestId id) const {
  return at_the_edge([&] { return impl_->status(id); });
}

void Engine::discard(RequestId id) {
  Impl::touch(impl_, "discard", [&](Impl& impl) { impl.discard(id); });
}

void Engine::cancel(RequestId id) { impl_->cancel(id); }
void Engine::cancel() { impl_->cancel(std::nullopt); }

SessionId Engine::open_session(const SessionOptions& options) {
  return Impl::touch(impl_, "open_session", [&](Impl& impl) { return impl.open_session(options); });
}

Pin Engine::pin(std::span<const TokenId> tokens, const PinOptions& options) {
  return Impl::touch(impl_, "pin", [&](Impl& impl) { return impl.pin(tokens, options); });
}

bool Engine::unpin(PinId pin) {
  return Impl::touch(impl_, "unpin", [&](Impl& impl) { return impl.unpin(pin); });
}

SessionId Engine::fork_session(SessionId session) {
  return Impl::touch(impl_, "fork_session", [&](Impl& impl) { return impl.fork_session(session); });
}

void Engine::close_session(SessionId session) {
  Impl::touch(impl_, "close_session", [&](Impl& impl) { impl.close_session(session); });
}

int64_t Engine::session_length(SessionId session) const {
  return Impl::touch(impl_, "session_length",
                     [&](Impl& impl) { return impl.session_length(session); });
}

std::span<const float> Engine::feed(SessionId session, std::span<const TokenId> tokens,
                                    int64_t prompt_tokens) {
  return Impl::drive(impl_, "feed",
                     [&](Impl& impl) { return impl.feed(session, tokens, prompt_tokens); });
}

void Engine::feed(
    SessionId session, std::span<const TokenId> tokens,
    const std::function<bool(int64_t position, std::span<const float> logits)>& on_logits,
    int64_t prompt_tokens) {
  Impl::drive(impl_, "feed",
              [&](Impl& impl) { impl.feed(session, tokens, on_logits, prompt_tokens); });
}

void Engine::forward(
    std::span<const TokenId> tokens,
    const std::function<bool(int64_t position, std::span<const float> logits)>& on_logits,
    int64_t prompt_tokens) {
  Impl::drive(impl_, "forward",
              [&](Impl& impl) { impl.forward(tokens, on_logits, prompt_tokens); });
}

void Engine::truncate(SessionId session, int64_t length) {
  Impl::drive(impl_, "truncate", [&](Impl& impl) { impl.truncate(session, length); });
}

void Engine::protect(SessionId session, int64_t first, int64_t n) {
  Impl::drive(impl_, "protect", [&](Impl& impl) { impl.protect(session, first, n); });
}

void Engine::unprotect(SessionId session, int64_t first, int64_t n) {
  Impl::drive(impl_, "unprotect", [&](Impl& impl) { impl.unprotect(session, first, n); });
}

void Engine::set_kv_policy(std::string_view spec) {
  Impl::drive(impl_, "set_kv_policy", [&](Impl& impl) {
    EngineOptions asked = impl.setup.asked;
    take_spec(spec, asked.kv);
    impl.set_policies(impl.with_policy(asked, 0));
  });
}

void Engine::set_kv_policy(const std::shared_ptr<const EvictionPolicy>& policy) {
  if (policy == nullptr) fail(ErrorCode::kInvalidArgument, "the engine was given no policy");
  Impl::drive(impl_, "set_kv_policy", [&](Impl& impl) {
    EngineOptions asked = impl.setup.asked;
    asked.kv.custom_policy = policy;
    impl.set_policies(impl.with_policy(asked, 0));
  });
}

void Engine::check_kv_policy(std::string_view spec, int64_t positions) const {
  if (positions < 0) {
    fail(ErrorCode::kInvalidArgument, "positions is {}; it must be 0 or more", positions);
  }
  Impl::touch(impl_, "check_kv_policy", [&](Impl& impl) {
    EngineOptions asked = impl.setup.asked;
    take_spec(spec, asked.kv);
    impl.with_policy(asked, positions);
  });
}

void Engine::set_kv_budget(uint64_t bytes) {
  const bool is_idle = impl_->driving.is_idle();  // else inside a callback, or refused
  Impl::touch(impl_, "set_kv_budget", [&](Impl& impl) { impl.set_budget(bytes, is_idle); });
}

int64_t Engine::max_positions() const {
  return Impl::touch(impl_, "max_positions",
                     [](Impl& impl) { return impl.max_positions(nullptr); });
}

int64_t Engine::max_positions(SessionId session) const {
  return Impl::touch(impl_, "max_positions",
                     [&](Impl& impl) { return impl.max_positions(&impl.session(session)); });
}

KvStats Engine::kv_stats() const {
  return at_the_edge([&] { return impl_->stats(); });
}

EngineStats Engine::stats() const {
  return at_the_edge([&] { return impl_->book.snapshot(); });
}

std::vector<KvBlock> Engine::kv_blocks(int32_t layer) const {
  return at_the_edge([&] { return impl_->cache->blocks(layer); });
}

std::vector<KvEvent> Engine::kv_events(uint64_t from) const {
  return at_the_edge([&] { return impl_->cache->events(from); });
}

std::vector<KvBudgetChange> Engine::kv_budget_changes(int64_t from) const {
  return at_the_edge([&] { return impl_->cache->budget_changes(from); });
}

std::vector<KvPreemption> Engine::kv_preemptions(int64_t from) const {
  return at_the_edge([&] { return impl_->cache->preemptions(from); });
}

void Engine::check_integrity() const {
  at_the_edge([&] { impl_->cache->check_integrity(); });
}

EngineOptions Engine::options() const {
  return at_the_edge([&] { return impl_->options(); });
}

const Model& Engine::model() const { return *impl_->model; }
uint64_t Engine::memory_bytes() const { return impl_->memory_bytes; }

}  // namespace paddock
