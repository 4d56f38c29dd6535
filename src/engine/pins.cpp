#include "engine/pins.h"

#include <algorithm>
#include <cstdlib>

#include "core/fail.h"

namespace paddock {

Pin Pins::add(std::span<const TokenId> tokens, const PinOptions& options, int64_t step) {
  if (options.steps < 0) {
    fail(ErrorCode::kInvalidArgument, "steps is {}; it must be 0, for ever, or more",
         options.steps);
  }
  if (std::abs(int64_t{options.priority}) > kMaxPriority) {
    fail(ErrorCode::kInvalidArgument, "priority is {}; it must be from {} to {}", options.priority,
         -kMaxPriority, kMaxPriority);
  }
  if (!cache_.shares_blocks()) {
    fail(ErrorCode::kInvalidArgument,
         "there is nothing to pin: under these rules, or without KvOptions::reuse, no blocks are "
         "kept; open a session with the text, and keep it");
  }
  pins_.reserve(pins_.size() + 1);
  const std::optional<SequenceId> tables = cache_.pin(tokens);
  if (!tables) {
    fail(ErrorCode::kInvalidArgument,
         "there is nothing to pin: no full block of {} tokens that the text begins with is kept; "
         "feed() it to a session, pin it, and close the session",
         cache_.config().block_size);
  }
  const int64_t until = options.steps == 0 ? 0 : step + options.steps;
  pins_.push_back({next_, options.priority, until, *tables});
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

bool Pins::give_way() {
  const auto least = std::min_element(pins_.begin(), pins_.end(), [](const Held& a, const Held& b) {
    return a.priority < b.priority;
  });
  if (least == pins_.end()) return false;
  release(least);
  ++lost_;
  return true;
}

void Pins::clear() {
  while (!pins_.empty()) release(pins_.end() - 1);
}

std::vector<Pins::Held>::iterator Pins::release(std::vector<Held>::iterator at) {
  cache_.close(at->tables);
  return pins_.erase(at);
}

}  // namespace paddock
