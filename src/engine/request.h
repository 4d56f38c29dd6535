// A request on its way through the engine, and a session between requests.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "engine/sampler.h"
#include "engine/text_stream.h"
#include "kv/cache_manager.h"
#include "paddock/engine.h"

namespace paddock {

/// A sequence that outlives its requests.
struct Session {
  SequenceId sequence;
  std::vector<TokenId> tokens;  // all of its text; what the cache does not hold yet is pending
  int64_t claimed_pages = 0;
  bool busy = false;  // a request is using it
};

struct Request {
  /// `before`: the sequence's text so far, of which `held` tokens are in the cache.
  Request(RequestId id, std::span<const TokenId> before, std::span<const TokenId> prompt,
          size_t held, const GenerateOptions& options, const Model& model);

  RequestId id;
  GenerateOptions options;
  std::vector<TokenId> input;  // the sequence's text from its first token to the last sampled one
  size_t fed;                  // of input, in the cache
  size_t prompt_end;           // of input
  std::optional<SequenceId> sequence;  // once admitted
  Session* session = nullptr;          // whose sequence it uses, if any
  int64_t claimed_pages = 0;           // what it may come to need
  bool admitted = false;
  Sampler sampler;
  TextStream text;
  /// Becomes an entry of Engine::Impl::finished without an allocation.
  std::map<RequestId, GenerateResult>::node_type node;
  GenerateResult& result;  // in the node
  std::atomic<bool> cancelled{false};
  bool finished = false;
  size_t undelivered = 0;  // bytes at the end of result.text that on_token has yet to get

  // within one step
  int32_t planned = 0;    // tokens of this step
  int32_t last_row = -1;  // flat index of its last token if logits are wanted

  /// Makes room for one more token, so that taking it cannot fail half-way.
  void make_room();
  size_t unfed() const { return input.size() - fed; }
  bool decoding() const { return fed >= prompt_end; }
};

}  // namespace paddock
