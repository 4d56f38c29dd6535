#include "engine/request.h"

#include <algorithm>

#include "core/fail.h"
#include "core/utf8.h"
#include "model/model_data.h"

namespace paddock {
namespace {

/// Memory taken up front for a request's own results; longer ones grow as they go.
constexpr size_t kReservedTokens = 1 << 16;
constexpr size_t kBytesPerToken = 8;

std::map<RequestId, GenerateResult>::node_type make_node(RequestId id) {
  std::map<RequestId, GenerateResult> one;
  return one.extract(one.try_emplace(id).first);
}

/// Grows as push_back() does, but before anything is pushed.
template <typename T>
void grow(std::vector<T>& values) {
  if (values.size() == values.capacity()) values.reserve(2 * values.size() + 1);
}

GenerateOptions options_of(const GenerateOptions& options, int32_t answer) {
  GenerateOptions own = options;
  own.sampling.seed += static_cast<uint64_t>(answer);
  return own;
}

}  // namespace

void check_options(const GenerateOptions& options, int32_t vocab_size) {
  if (options.max_tokens < 0) {
    fail(ErrorCode::kInvalidArgument, "max_tokens is {}; it must be 0 or more", options.max_tokens);
  }
  const int32_t most = std::min(kMaxLogprobs, vocab_size);
  if (options.logprobs) check_range("logprobs", *options.logprobs, 0, most);
  for (const std::string& stop : options.stop) {
    if (stop.empty()) fail(ErrorCode::kInvalidArgument, "a stop string is empty");
    // It would end the text inside a character.
    if (const size_t at = find_invalid_utf8(stop); at != std::string::npos) {
      fail(ErrorCode::kInvalidArgument, "a stop string is no UTF-8 at byte {}", at);
    }
  }
  check_range("priority", options.priority, -kMaxPriority, kMaxPriority);
  check_range("n", options.n, 1, kMaxAnswers);
  options.sampling.validate(vocab_size);
}

void Request::make_room() {
  grow(sequence.tokens);
  grow(result.tokens);
  if (!options.logprobs) return;
  grow(result.logprobs);
  grow(result.top_logprobs);
}

bool Request::overdue() const {
  return options.deadline && std::chrono::steady_clock::now() >= *options.deadline;
}

Request::Request(RequestId first, int32_t answer, Session* continued, RulesId rules,
                 std::span<const TokenId> prompt, const GenerateOptions& asked, const Model& model,
                 CacheManager& cache)
    : id(first + answer),
      first_answer(first),
      options(options_of(asked, answer)),
      session(continued),
      own(continued == nullptr ? std::make_unique<Sequence>(cache, rules) : nullptr),
      sequence(continued == nullptr ? *own : continued->sequence),
      prompt_end(sequence.length() + static_cast<int64_t>(prompt.size())),
      text(model.data().tokenizer, options.stop),
      node(make_node(id)),
      result(node.mapped()) {
  const int64_t reached = sequence.reached();
  sequence.tokens.reserve(static_cast<size_t>(prompt_end));
  sequence.set_prompt(prompt_end);
  // From here on nothing fails, so that the session's text has grown only if there is a request.
  sequence.tokens.insert(sequence.tokens.end(), prompt.begin(), prompt.end());
  result.prompt_tokens = sequence.length() - reached;
  result.answer = answer;
  trims_before = sequence.trims();
}

void Request::begin(int32_t vocab_size) {
  if (sampler) return;  // it has been parked
  if (session != nullptr) {
    if (const auto change = sequence.lift()) result.budget_changes.push_back(*change);
  }
  const size_t expected = std::min<size_t>(options.max_tokens, kReservedTokens);
  result.tokens.reserve(expected + 1);
  text.reserve(expected * kBytesPerToken);
  if (options.logprobs) {
    result.logprobs.reserve(expected);
    result.top_logprobs.reserve(expected);
  }
  // And the first tokens of what comes next.
  constexpr size_t kNext = 64;
  sequence.make_room(prompt_end + static_cast<int64_t>(expected + kNext));
  sampler.emplace(options.sampling, vocab_size);
  const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - added_at;
  result.timings.queue_seconds = waited.count();
  sampler->observe(sequence.tokens);
}

}  // namespace paddock
