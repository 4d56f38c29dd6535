// One text on its way through the engine: its tokens, and how many of them the cache holds.
// Requests and sessions are views of it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kv/cache_manager.h"
#include "paddock/tokenizer.h"

namespace paddock {

/// Its tables in the cache go with it. Used by the thread that drives the engine.
class Sequence {
 public:
  explicit Sequence(CacheManager& cache) : cache_(cache) {}
  ~Sequence() {
    if (tables_) cache_.close(*tables_);
  }
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  /// Takes its place in the cache; without one it waits. Error kInvalidArgument if all are taken.
  void open() { tables_ = cache_.open(); }
  /// Where the cache has its tables. It is open.
  SequenceId tables() const { return *tables_; }

  /// How many of `tokens`, from the first on, have their keys and values in the cache.
  int64_t computed() const { return tables_ ? cache_.length(*tables_) : 0; }
  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  /// What the next steps have to run.
  std::span<const TokenId> uncomputed() const {
    return std::span(tokens).subspan(static_cast<size_t>(computed()));
  }

  std::vector<TokenId> tokens;  // its text, from its first token to the last one chosen or fed

 private:
  CacheManager& cache_;
  std::optional<SequenceId> tables_;
};

}  // namespace paddock
