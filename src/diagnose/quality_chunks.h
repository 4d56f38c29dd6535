// How the meter cuts a text: at most a chunk at once, and where prompts and answers end.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "core/fail.h"
#include "paddock/quality.h"

namespace paddock {

class Chunks {
 public:
  struct Chunk {
    int64_t begin, length;
    int64_t prompt_tokens;  // for Engine::feed()
  };

  /// Errors kInvalidArgument: turns that are none of a text of `n` tokens.
  Chunks(int64_t n, int64_t most, const CompareOptions& options)
      : n_(n), most_(most), options_(options) {
    int64_t before = 0;
    for (const CompareTurn& turn : options.turns) {
      if (turn.prompt_end >= before && turn.end >= turn.prompt_end && turn.end <= n) {
        before = turn.end;
        continue;
      }
      fail(ErrorCode::kInvalidArgument,
           "a turn has its prompt up to {} and its answer up to {}; turns must ascend, from {} to "
           "the text's {}",
           turn.prompt_end, turn.end, before, n);
    }
    if (!options.turns.empty() && options.prompt_tokens != 0) {
      fail(ErrorCode::kInvalidArgument, "prompt_tokens is {} beside turns; it must be 0",
           options.prompt_tokens);
    }
  }

  std::optional<Chunk> next() {
    if (begin_ >= n_) return std::nullopt;
    const std::vector<CompareTurn>& turns = options_.turns;
    while (turn_ < turns.size() && turns[turn_].end <= begin_) ++turn_;
    int64_t end = std::min(n_, begin_ + most_);
    int64_t prompt = options_.prompt_tokens;
    if (turn_ < turns.size()) {
      prompt = turns[turn_].prompt_end;
      end = std::min(end, begin_ < prompt ? prompt : turns[turn_].end);
    }
    const Chunk chunk{begin_, end - begin_, prompt};
    begin_ = end;
    return chunk;
  }

 private:
  int64_t n_, most_;
  const CompareOptions& options_;
  int64_t begin_ = 0;
  size_t turn_ = 0;
};

}  // namespace paddock
