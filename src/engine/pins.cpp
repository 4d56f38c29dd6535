#include "engine/pins.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/fail.h"

namespace paddock {

Pin Pins::add(std::span<const TokenId> tokens, const PinOptions& options, int64_t step,
              RulesId rules) {
  if (options.steps < 0) {
    fail(ErrorCode::kInvalidArgument, "steps is {}; it must be 0, for ever, or more",
         options.steps);
  }
  check_range("priority", options.priority, -kMaxPriority, kMaxPriority);
  if (!cache_.keeps_blocks(rules)) {
    fail(ErrorCode::kInvalidArgument,
         "there is nothing to pin: under these rules, or without KvOptions::reuse, no blocks are "
         "kept; open a session with the text, and keep it");
  }
  pins_.reserve(pins_.size() + 1);
  std::vector<TokenId> text(tokens.begin(), tokens.end());
  const std::optional<SequenceId> tables = cache_.pin(tokens, rules);
  if (!tables) {
    fail(ErrorCode::kInvalidArgument,
         "there is nothing to pin: no full block of {} tokens that the text begins with is kept; "
         "feed() it to a session, pin it, and close the session",
         cache_.config().block_size);
  }
  const bool for_ever =
      options.steps == 0 || options.steps > std::numeric_limits<int64_t>::max() - step;
  const int64_t until = for_ever ? 0 : step + options.steps;
  text.resize(static_cast<size_t>(cache_.length(*tables)));
  pins_.push_back({next_, options.priority, until, *tables, std::move(text)});
  return {next_++, cache_.length(*tables)};
}

bool Pins::remove(PinId id) {
  const auto at =
      std::find_if(pins_.begin(), pins_.end(), [&](const Held& pin) { return pin.id == id; });
  if (at == pins_.end()) return false;
  release(at);
  return true;
}

void Pins::expire(int64_t step) {
  for (auto at = pins_.begin(); at != pins_.end();) {
    if (at->until == 0 || at->until > step) {
      ++at;
    } else {
      at = release(at);
    }
  }
}

void Pins::clear() {
  while (!pins_.empty()) release(pins_.end() - 1);
}

std::vector<Pins::Held>::iterator Pins::release(std::vector<Held>::iterator at) {
  cache_.close(at->tables);
  return pins_.erase(at);
}

}  // namespace paddock
