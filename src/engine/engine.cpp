// The public face of the engine: argument forms and loops over Engine::Impl.
#include "paddock/engine.h"

#include "core/fail.h"
#include "engine/engine_impl.h"

namespace paddock {

const char* finish_reason_name(FinishReason reason) noexcept {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kKvFull:
      return "kv_full";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  return "unknown";
}

Engine::Engine(std::shared_ptr<const Model> model, const EngineOptions& options) {
  if (model == nullptr) fail(ErrorCode::kInvalidArgument, "the engine was given no model");
  EngineSetup setup = resolve(*model, options);
  impl_ = std::make_unique<Impl>(std::move(model), std::move(setup));
}

Engine::~Engine() = default;

GenerateResult Engine::generate(std::string_view prompt, const GenerateOptions& options) {
  const std::vector<TokenId> tokens = impl_->model->tokenizer()->encode(
      prompt, {.add_bos = options.add_bos, .parse_special = options.parse_special});
  return generate(tokens, options);
}

GenerateResult Engine::generate(std::span<const TokenId> prompt, const GenerateOptions& options) {
  return impl_->run(impl_->add(prompt, options, nullptr));
}

GenerateResult Engine::generate(SessionId session, std::span<const TokenId> tokens,
                                const GenerateOptions& options) {
  return impl_->run(impl_->add(tokens, options, &impl_->session(session)));
}

RequestId Engine::add(std::span<const TokenId> prompt, const GenerateOptions& options) {
  return impl_->add(prompt, options, nullptr);
}

bool Engine::step() { return impl_->step(); }

std::optional<GenerateResult> Engine::take(RequestId id) {
  const auto it = impl_->finished.find(id);
  if (it == impl_->finished.end()) return std::nullopt;
  GenerateResult result = std::move(it->second);
  impl_->finished.erase(it);
  return result;
}

void Engine::cancel(RequestId id) { impl_->cancel(id); }
void Engine::cancel() { impl_->cancel(std::nullopt); }

SessionId Engine::open_session() { return impl_->open_session(); }
void Engine::close_session(SessionId session) { impl_->close_session(session); }

int64_t Engine::session_length(SessionId session) const {
  return static_cast<int64_t>(impl_->session(session).tokens.size());
}

std::span<const float> Engine::feed(SessionId session, std::span<const TokenId> tokens) {
  return impl_->feed(session, tokens);
}

void Engine::feed(
    SessionId session, std::span<const TokenId> tokens,
    const std::function<bool(int64_t position, std::span<const float> logits)>& on_logits,
    int64_t prompt_tokens) {
  impl_->feed(session, tokens, on_logits, prompt_tokens);
}

void Engine::forward(
    std::span<const TokenId> tokens,
    const std::function<bool(int64_t position, std::span<const float> logits)>& on_logits,
    int64_t prompt_tokens) {
  impl_->forward(tokens, on_logits, prompt_tokens);
}

void Engine::truncate(SessionId session, int64_t length) { impl_->truncate(session, length); }

void Engine::set_kv_policy(std::string_view spec) {
  const CustomPolicies& custom = impl_->setup.options.kv.custom_policies;
  impl_->set_policies(PolicyMap::parse(spec, impl_->model->info().n_layers, custom),
                      std::string(spec));
}

void Engine::set_kv_policy(const std::shared_ptr<const EvictionPolicy>& policy) {
  if (policy == nullptr) fail(ErrorCode::kInvalidArgument, "the engine was given no policy");
  PolicyMap policies = PolicyMap::uniform(policy, impl_->model->info().n_layers);
  std::string name = policies.layer(0).name;
  impl_->set_policies(std::move(policies), std::move(name));
}

KvStats Engine::kv_stats() const { return impl_->stats(); }
std::vector<KvBlock> Engine::kv_blocks(int32_t layer) const { return impl_->cache->blocks(layer); }
std::vector<KvEvent> Engine::kv_events(uint64_t from) const { return impl_->cache->events(from); }

void Engine::check_integrity() const { impl_->cache->check_integrity(); }
const EngineOptions& Engine::options() const { return impl_->setup.options; }
const Model& Engine::model() const { return *impl_->model; }
uint64_t Engine::memory_bytes() const { return impl_->memory_bytes; }

}  // namespace paddock
